//! Belongs: SQLite and PostgreSQL behind one type; migrations; every transaction, with its audit and events.
//! Never: policy, HTTP.
//! Start here: `open.rs`, then `tx.rs`; one file per kind of row.

mod about;
mod access;
mod backup;
mod bookings;
mod copies;
mod dump;
mod editions;
mod error;
mod file;
mod labs;
mod open;
mod people;
mod places;
mod postgres;
mod presence;
mod pulse;
mod record;
mod servers;
mod sqlite;
mod states;
mod tx;
mod value;

pub use about::{Fact, Word};
pub use access::{TokenKind, TokenRow};
pub use bookings::Listing;
pub use dump::Backups;
pub use open::Store;
pub use places::LAPSE;
pub use record::{AuditRow, Delivery, EventRow, Hook};
pub use servers::unknown_server;
pub use tx::Tx;
