use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

use super::journal;
use crate::{
    core::{Code, Problem},
    hub::gate::is_account,
};

/// The way to the machines of an account's lab: in its slot its holder goes it from the account, and otherwise no
/// student does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The machines' addresses.
    pub addresses: Vec<IpAddr>,
    /// The networks that they are in, as `10.115.0.0/24`.
    pub networks: Vec<String>,
    /// The device that leads there, where every account of the server would go by it.
    pub device: Option<String>,
    /// The routing table that has the way; none where the server's own has it.
    pub table: Option<u32>,
}

impl Reach {
    /// Keeps the way to an account's lab in `folder`.
    pub fn keep(&self, folder: &Path, account: &str) -> Result<(), Problem> {
        let fail = || Problem::new(Code::GateState, format!("the way to the lab of {account} cannot be kept"));
        let bytes = serde_json::to_vec(self).map_err(|e| fail().because(e))?;
        fs::create_dir_all(folder).map_err(|e| fail().because(e))?;
        journal::replace(&folder.join(account), &bytes, 0o600)
    }

    /// Those that are kept in `folder`, by account.
    pub fn all(folder: &Path) -> BTreeMap<String, Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| is_account(name));
        let read = |name: String| Some((fs::read(folder.join(&name)).ok()?, name));
        let parse = |(bytes, name): (Vec<u8>, String)| Some((name, serde_json::from_slice(&bytes).ok()?));
        names.filter_map(read).filter_map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("reach");
        assert!(Reach::all(&folder).is_empty());
        let reach = Reach {
            addresses: vec!["10.115.0.2".parse().unwrap()],
            networks: vec!["10.115.0.0/24".into()],
            device: None,
            table: Some(1_000_001),
        };
        reach.keep(&folder, "kct-a").unwrap();
        reach.keep(&folder, "kct-a").unwrap();
        fs::write(folder.join("kct-b"), "torn").unwrap();
        fs::write(folder.join("kct-c.part"), "").unwrap();
        assert_eq!(Reach::all(&folder), [("kct-a".to_owned(), reach)].into());
    }
}
