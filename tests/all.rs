//! t
mod live_machine;
