//! The agent over a server that exists only here: its clocks, doors, processes and labs.

mod beside;
mod came;
mod deaths;
mod given;
mod halted;
mod idle;
mod log;
mod random;
mod shut;
mod sim;
mod slots;
mod told;
mod unkept;
