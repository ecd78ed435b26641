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

/// `kubecamp man`.
pub(super) fn man() -> Result<u8, Problem> {
    let mut out = vec![];
    clap_mangen::Man::new(Args::command())
        .render(&mut out)
        .map_err(|e| Problem::new(Code::Internal, "the manual page cannot be written").because(e))?;
    output::data(&String::from_utf8_lossy(&out));
    Ok(0)
}
