//! Belongs: the use cases: who may do what, one function each; every change is one transaction.
//! Never: SQL, HTTP.
//! Start here: `Desk` in `transaction.rs`, then `book.rs`.

mod agent;
mod apply;
mod book;
mod caller;
mod came;
mod change;
mod class;
mod clerk;
mod closed;
mod courses;
mod doctor;
mod extend;
mod fit;
mod keys;
mod labs;
mod look;
mod prefer;
mod reason;
mod rehouse;
mod roster;
mod rules;
mod servers;
mod sign_in;
mod taken;
mod transaction;
mod turn;
mod waitlist;
mod weekly;
mod weeks;
mod wish;

pub use agent::{Heard, Heartbeat, Report, Reported, Step, Taken};
pub use book::Refusal;
pub use caller::Caller;
pub use change::Edit;
pub use class::{ClassRequest, StudentWishes};
pub use courses::NewPerson;
pub use doctor::Checkup;
pub use look::{FreeRequest, Week, WeekServer};
pub use rehouse::Elsewhere;
pub use roster::{Imported, Roster, RosterLine, read_roster};
pub use servers::{Misfits, NewServer};
pub use sign_in::{Challenge, MadeToken};
pub use transaction::Desk;
pub use waitlist::WaitRequest;
pub use weekly::{Placed, WeeklyRequest};
pub use wish::BookRequest;
