//! The built binary at the command line, in a home of its own.

mod asked;
mod labs;
mod output;
mod refusals;
mod words;
