use std::path::Path;

use clap::CommandFactory;

use crate::{
    cli::{args::Args, output},
    core::{Code, Problem},
};

/// `kubecamp completions`.
pub(super) fn completions(shell: clap_complete::Shell) -> u8 {
    let mut out = vec![];
    clap_complete::generate(shell, &mut Args::command(), "kubecamp", &mut out);
    output::data(&String::from_utf8_lossy(&out));
    0
}

/// `kubecamp man`: the page of kubecamp itself, or with a folder one of each command, as man finds them.
pub(super) fn man(folder: Option<&Path>) -> Result<u8, Problem> {
    let Some(folder) = folder else {
        let mut out = vec![];
        clap_mangen::Man::new(Args::command())
            .render(&mut out)
            .map_err(|e| Problem::new(Code::Internal, "the manual page cannot be written").because(e))?;
        output::data(&String::from_utf8_lossy(&out));
        return Ok(0);
    };
    let made = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(Args::command(), folder));
    made.map_err(|e| {
        Problem::new(Code::LocalFile, format!("the manual pages cannot be written to {}", folder.display())).because(e)
    })?;
    Ok(0)
}
