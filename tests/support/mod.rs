//! Belongs: fixtures that several test files share.
//! Never: tests.
//! Start here: `sshd.rs`.

use std::{fs::OpenOptions, io::Write};

pub mod gate;
pub mod home;
pub mod postgres;
pub mod sandbox;
pub mod simhost;
pub mod sshd;
pub mod tiny_bundle;

/// Tells `.ci/check`, which counts it, what a live test could not do on this computer.
pub fn skip(what: &str) {
    let mut log: Box<dyn Write> = match std::env::var_os("KUBECAMP_SKIPPED") {
        Some(file) => Box::new(OpenOptions::new().create(true).append(true).open(file).expect("a file to note it in")),
        None => Box::new(std::io::stderr()),
    };
    writeln!(log, "{what}").expect("it can be noted");
}
