use crate::{
    cli::{args::ProfileCommand, output},
    core::{Code, Problem, Problems},
    profile,
};

/// `kubecamp profile`.
pub(super) fn profile(command: ProfileCommand) -> Result<(), Problems> {
    match command {
        ProfileCommand::List => output::data(&profile::shipped().iter().map(|n| format!("{n}\n")).collect::<String>()),
        ProfileCommand::Show { profile: name } => {
            let text = profile::shipped_text(&name)
                .ok_or_else(|| Problem::new(Code::ProfileUnknown, format!("no shipped profile is called {name}")))?;
            output::data(&text);
        }
        ProfileCommand::Check { file } => {
            let profile = profile::load(&file)?;
            output::data(&format!("{file}: {} nodes, Kubernetes {}, good\n", profile.nodes.len(), profile.kubernetes));
        }
    }
    Ok(())
}
