use crate::{
    cli::{ask::confirm, commands::Context},
    core::Problem,
    machine::Packages,
};

/// Without `--yes` the packages are listed and asked for before anything is done.
pub(in crate::cli::commands) async fn agree_to_packages(cx: &Context, packages: &Packages) -> Result<(), Problem> {
    let missing = packages.missing().await;
    if missing.is_empty() {
        return Ok(());
    }
    let source =
        packages.added_source().map(|(file, why)| format!("\nand the apt source {file} ({why})")).unwrap_or_default();
    let question = format!("kubecamp needs packages on this computer: {}{source}\nInstall them?", missing.join(" "));
    confirm(cx.global.yes, &question).await
}
