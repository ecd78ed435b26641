//! Belongs: the real server: /proc, signals, principals files, accounts, what they leave behind.
//! Never: when something is done.
//! Start here: `world.rs`.

mod accounts;
mod home;
mod later;
mod logins;
mod processes;
mod reach;
mod sockets;
mod strewn;
mod world;

pub use home::Home;
pub use logins::let_in;
pub use world::{Linux, Places, principals_line};
