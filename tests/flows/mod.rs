//! The real flows from end to end, on hosts that exist only in the test.

mod camp;
mod plan;
mod reset;
mod sudo;
mod trouble;
mod up;
