//! Belongs: building every part of a bundle from Go modules, C and Debian packages on this computer.
//! Never: release sites, registries, the bundle file.
//! Start here: `recipe.rs` (what is built), then `gobuild.rs` (how).

mod base;
mod gobuild;
mod parts;
mod recipe;
mod tool;
mod tools;
mod wrapper;

pub use parts::{Job, inputs, make};
pub use tools::{check_go, missing_tools};

use super::layer::Files;

/// The users that programs expect to find in an image.
fn add_users(files: &mut Files) {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
    files.bytes("etc/passwd", 0o644, passwd);
    files.bytes("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    files.bytes("etc/nsswitch.conf", 0o644, "hosts: files dns\n");
}
