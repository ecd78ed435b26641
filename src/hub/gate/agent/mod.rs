//! Belongs: the agent on a server: opens and shuts the door by the hub's plan and its own clock, ends what ran, hands over.
//! Never: deciding who gets which slot.
//! Start here: `keeper.rs`, which is one tick; then `world.rs`, what it can do to a server.

mod books;
mod bundles;
mod child;
mod config;
mod courier;
mod doors;
mod ending;
mod entry;
mod halting;
mod hand_over;
mod idle;
mod journal;
mod keeper;
mod labs;
mod ledger;
mod linux;
mod log;
mod machines;
mod reach;
mod serve;
mod shut;
#[cfg(test)]
mod tests;
mod time;
mod welcome;
mod world;

pub use bundles::drop_unused_bundles;
pub use config::{Bare, Config, LEAST_POLL, MOST_POLL, MachinesConfig};
pub use courier::{HttpLink, HubLink, reach_hub};
pub use entry::{Entry, Line, Step};
pub use hand_over::{Commands, HandOver, Kept};
pub use journal::{Halted, Ink, InkError, Journal};
pub use keeper::{Agent, Limits};
pub use labs::{Labs, Program};
pub use ledger::{Held, Ledger};
pub use linux::{Home, Linux, Places, let_in, principals_line};
pub use machines::{Ground, Machines};
pub use reach::Reach;
pub use serve::{Link, serve};
pub use shut::shut_all;
pub use time::{Anchor, LARGEST_SKEW, Now, Reading, Timeline};
pub use world::{Cleared, Remains, World};
