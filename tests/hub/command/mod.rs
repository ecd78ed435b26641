//! The command line against `kubecamp hub serve`, from the first admin to a booked slot.

mod booking;
mod retried;
mod serve;
mod sign_in;
mod told;
mod upkeep;
