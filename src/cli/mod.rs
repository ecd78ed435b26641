//! Belongs: arguments, settings, questions on the terminal, exit codes; one file per command.
//! Never: work that another front end would need too.
//! Start here: `args.rs`, then `commands/up/carry_out.rs`.

mod args;
mod args_book;
mod args_hub;
mod args_hub_api;
mod ask;
mod clock;
mod commands;
mod exit;
mod hints;
mod hub_answer;
mod hub_client;
mod hub_login;
mod output;
#[cfg(test)]
mod reference;
mod settings;
mod stop;
mod store;
mod targets;
mod usage;
mod when;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::core::Code;
pub use commands::class_plan;
pub use exit::{MEANINGS, exit_code};
pub use when::moment;

/// Parses the command line, runs the command, prints what went wrong, and says how to exit.
pub fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            if let Some(help) = usage::help(&error) {
                // Somebody who looks around is told of no mistake; a script still sees that nothing was done.
                output::say(&help);
                return ExitCode::from(exit_code(Code::Usage.class()));
            }
            let given: Vec<_> = std::env::args_os().skip(1).collect();
            if usage::names_json(given.iter().map(AsRef::as_ref)) {
                output::problems_as_json();
            }
            let problem = usage::problem(&error, given.iter().map(AsRef::as_ref));
            output::problems(&problem.clone().into());
            return ExitCode::from(exit_code(problem.code.class()));
        }
        // Help and version were asked for.
        Err(error) => {
            output::written(error.print());
            return finish(0);
        }
    };
    // Only the first caller may set it; a test that did so before is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::from(70),
    };
    let ended = runtime.block_on(Box::pin(commands::run(args)));
    // The thread of a question that was given up puts the terminal back meanwhile.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    finish(ended.unwrap_or_else(|failed| {
        output::problems(&failed.problems);
        failed.exit_code
    }))
}

/// Reads the command line. From then on problems are told as the command writes its data.
fn parse() -> Result<args::Args, clap::Error> {
    let matches = usage::without_empty_variables(args::Args::command()).try_get_matches()?;
    if usage::wants_json(&matches) {
        output::problems_as_json();
    }
    args::Args::from_arg_matches(&matches).map_err(|error| error.format(&mut args::Args::command()))
}

/// How to exit with `code`: a result that could not be written is no success.
fn finish(code: u8) -> ExitCode {
    let Some(problem) = output::lost() else { return ExitCode::from(code) };
    let class = problem.code.class();
    output::problems(&problem.into());
    ExitCode::from(if code == 0 { exit_code(class) } else { code })
}
