use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{output, settings::Places};
use crate::core::{Code, Problem};

/// What is kept of a login, in `hub.json` beside the settings, mode 0600.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// The hub's address, as it was given.
    pub hub: String,
    /// What signs in there.
    pub token: String,
    /// Whether this hub is asked by plain HTTP on purpose.
    #[serde(default)]
    pub insecure: bool,
    /// The certificates of this hub's own authority, in PEM; none where the system's authorities vouch for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl Kept {
    /// Whether it is of the hub at this plain address, however the file writes it.
    pub fn is_of(&self, hub: &str) -> bool {
        plain(&self.hub) == hub
    }
}

/// An address as it is kept and compared.
///
/// People write that of one hub in several ways: with capitals, with the port that goes without saying, with a slash at the
/// end. A socket has one.
pub(super) fn plain(hub: &str) -> String {
    match reqwest::Url::parse(hub) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => url.as_str().trim_end_matches('/').to_owned(),
        _ => hub.to_owned(),
    }
}

/// Where a login is kept.
pub(super) fn file_of(places: &Places) -> PathBuf {
    places.config.with_file_name("hub.json")
}

/// Removes such a file; one that is not there is removed.
pub(super) fn remove(file: &Path) -> Result<(), Problem> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Problem::new(Code::LocalFile, format!("cannot remove {}", file.display())).because(e))
        }
        _ => Ok(()),
    }
}

/// Reads such a file; none where there is none.
pub(super) fn read(file: &Path) -> Result<Option<Kept>, Problem> {
    let bad = || Problem::new(Code::LocalFile, format!("{} cannot be used", file.display()));
    match fs::read_to_string(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(bad().because(e)),
        Ok(text) => {
            let hint = "Forget it, kubecamp logout --force, and sign in again: kubecamp login --hub URL.";
            serde_json::from_str(&text).map(Some).map_err(|_| bad().hint(hint))
        }
    }
}

/// The environment variable whose token comes before that of a login.
pub(super) const VARIABLE: &str = "KUBECAMP_HUB_TOKEN";

/// The token that the environment names.
pub(super) fn token_of_variable() -> Option<String> {
    env::var(VARIABLE).ok().filter(|token| !token.is_empty())
}

/// Says that a login is kept for nothing while the environment names a token.
pub fn say_variable() {
    if token_of_variable().is_some() {
        output::say(&format!("{VARIABLE} is set: while it is, commands go on with that token."));
    }
}
