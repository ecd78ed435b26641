//! Belongs: the commands under `kubecamp hub`, one file each.
//! Never: what the hub decides.
//! Start here: `enroll.rs`.

mod enroll;

use super::Context;
use crate::{cli::args::HubCommand, core::Problems};

/// `kubecamp hub ...`.
pub(super) async fn hub(cx: &Context, command: HubCommand) -> Result<(), Problems> {
    match command {
        HubCommand::Enroll(args) => enroll::enroll(cx, *args).await,
        HubCommand::Unenroll(args) => enroll::unenroll(cx, args).await,
    }
}
