//! Belongs: the real server: /proc, signals, principals files, accounts, what starts processes later.
//! Never: when something is done.
//! Start here: `world.rs`.

mod accounts;
mod home;
mod later;
mod processes;
mod reach;
mod sockets;
mod world;

pub use home::Home;
pub use world::{Linux, Places, principals_line};
