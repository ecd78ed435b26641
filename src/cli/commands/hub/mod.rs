//! Belongs: the commands under `kubecamp hub`, one file each.
//! Never: what the hub decides.
//! Start here: `enroll.rs`.

mod enroll;
mod gate_run;
mod lost;
mod maintenance;
mod manage;
mod on_sale;
mod rules;
mod serve;
mod servers;
mod tokens;

use super::Context;
use crate::{cli::args::HubCommand, core::Problems};

/// `kubecamp hub ...`.
pub(super) async fn hub(cx: &Context, command: HubCommand) -> Result<(), Problems> {
    match command {
        HubCommand::Serve(args) => serve::serve(cx, args).await,
        HubCommand::AdminLink(args) => serve::admin_link(cx, args).await,
        HubCommand::User(command) => Ok(manage::user(cx, command).await?),
        HubCommand::Token(command) => Ok(tokens::token(cx, command).await?),
        HubCommand::Group(command) => Ok(manage::group(cx, command).await?),
        HubCommand::Course(command) => Ok(manage::course(cx, command).await?),
        HubCommand::Server(command) => Ok(servers::server(cx, command).await?),
        HubCommand::Audit(args) => Ok(manage::audit(cx, args).await?),
        HubCommand::Doctor { hub } => Ok(manage::doctor(cx, hub).await?),
        HubCommand::Enroll(args) => enroll::enroll(cx, *args).await,
        HubCommand::Unenroll(args) => enroll::unenroll(cx, args).await,
    }
}
