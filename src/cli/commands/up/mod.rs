//! Belongs: `up` from the arguments to a lab: what is asked for, and its run.
//! Never: what a phase knows.
//! Start here: `carry_out.rs`.

mod asked;
mod carry_out;
mod check_bundle;
mod differs;
mod packages;
mod request;
mod room;
mod site;

pub(super) use carry_out::up;
pub(super) use packages::agree_to_packages;
pub(super) use request::Request;
use request::run_here;
pub(super) use room::{disk_must_hold, largest_layout, must_hold, this_arch};
use site::PREFLIGHT;
pub(super) use site::Site;
