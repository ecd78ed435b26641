use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{args::ConnectArgs, targets::expand};
use crate::{
    core::{Code, LabId, LabName, NodeId, Problem, shell::quote},
    inventory::HostEntry,
    machine::EngineAt,
    phases::{Owner, Records},
    profile::{Format, Lab},
    transport::ssh::KeyPair,
};

/// A lab's folder on the user's computer.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// The file of [`Store::records`].
const RECORDS: &str = "before.json";

/// What to do where a list of labs would be empty.
const NO_LAB: &str = "There is none yet: kubecamp up --local makes one on this computer, kubecamp up --host HOST on a \
                      host of yours.";

/// Where a lab's nodes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// On machines that kubecamp made on this computer.
    Local,
    /// On hosts that the user named.
    Hosts(Vec<(NodeId, HostEntry)>),
}

/// What `up` was told of logging in to a lab's hosts, for the commands after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Login {
    /// `--identity`, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// `--jump`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jump: Option<String>,
    /// `--ssh-config`, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_config: Option<PathBuf>,
}

impl Login {
    /// What these flags say, and where they are silent what was told before.
    pub fn of(flags: &ConnectArgs, before: Option<&Self>) -> Self {
        // ssh reads no file where `none` is named.
        let whole = |file: &PathBuf| match file.as_os_str() == "none" {
            true => file.clone(),
            false => std::path::absolute(expand(file)).unwrap_or_else(|_| file.clone()),
        };
        let before = before.cloned().unwrap_or_default();
        Self {
            identity: flags.identity.as_ref().map(whole).or(before.identity),
            jump: flags.jump.clone().or(before.jump),
            ssh_config: flags.ssh_config.as_ref().map(whole).or(before.ssh_config),
        }
    }

    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept of a lab besides its profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// Format of this file.
    pub format: u32,
    /// Which lab this is; files of earlier versions have none, and the next `up` gives them one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<LabId>,
    /// Where its nodes are.
    pub place: Where,
    /// How its hosts are logged in to where no flag says otherwise.
    #[serde(default, skip_serializing_if = "Login::is_empty")]
    pub login: Login,
    /// The engine of its machines; none for hosts that the user named, and in files of before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineAt>,
    /// The bundle it was made from.
    pub bundle: Option<PathBuf>,
    /// Whether nothing of the lab is on its hosts, since no `up` came to change them or a reset has proven them clean: then
    /// it may come up as something else.
    #[serde(default)]
    pub clean: bool,
}

impl State {
    /// The version of the form of `state.json`.
    pub const FORMAT: u32 = 1;

    /// The state of a lab made in this moment.
    pub fn new(place: Where) -> Self {
        Self {
            format: Self::FORMAT,
            id: Some(LabId::random()),
            place,
            login: Login::default(),
            engine: None,
            bundle: None,
            clean: false,
        }
    }

    /// This state as it holds until the first change on a host: what is refused or ends before that leaves no cluster.
    #[must_use]
    pub fn until_changed(self, known: Option<&Self>) -> Self {
        let bundle = known.and_then(|state| state.bundle.clone());
        Self { clean: known.is_none_or(|state| state.clean), bundle, ..self }
    }

    /// Whose the lab's hosts are.
    pub fn owner(&self) -> Owner {
        Owner { id: self.id.clone().unwrap_or_else(LabId::random), known: true }
    }
}

impl Store {
    /// The store of the lab `name` under `labs`; nothing is created.
    pub fn of(labs: &Path, name: &LabName) -> Self {
        Self { folder: labs.join(name.as_str()) }
    }

    /// Every lab under `labs`, by name.
    pub fn all(labs: &Path) -> Vec<LabName> {
        let Ok(entries) = fs::read_dir(labs) else { return vec![] };
        let mut names: Vec<LabName> = entries
            .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .filter(|name| Self::of(labs, name).file("lab.yaml").exists())
            .collect();
        names.sort();
        names
    }

    /// Refuses a folder of labs that is there and cannot be read: it is no empty one.
    pub fn must_list(labs: &Path) -> Result<(), Problem> {
        match fs::read_dir(labs) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(unreadable(labs, e)),
            _ => Ok(()),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The lab and its state, or `None` when there is no such lab.
    pub fn load(&self) -> Result<Option<(Lab, State)>, Problem> {
        let path = self.file("lab.yaml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(&path, e)),
        };
        let lab = Lab::from_yaml(&text).map_err(|problem| unfit(&path, problem))?;
        let path = self.file("state.json");
        let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
        let state = state_of(&text).map_err(|problem| unfit(&path, problem))?;
        Ok(Some((lab, state)))
    }

    /// The lab and its state, or the problem that there is none.
    pub fn need(&self, name: &LabName) -> Result<(Lab, State), Problem> {
        self.load()?.ok_or_else(|| {
            let problem = Problem::new(Code::LabUnknown, format!("there is no lab called {name}"));
            let none = self.folder.parent().is_none_or(|labs| Self::all(labs).is_empty());
            if none { problem.hint(NO_LAB) } else { problem }
        })
    }

    /// Keeps the lab and its state; each file is whole at any moment, and `lab.yaml` comes last.
    pub fn save(&self, lab: &Lab, state: &State) -> Result<(), Problem> {
        fs::create_dir_all(&self.folder).map_err(|e| unreadable(&self.folder, e))?;
        let json = serde_json::to_string_pretty(state)
            .map_err(|e| Problem::new(Code::Internal, "the lab's state cannot be written").because(e))?;
        self.write("state.json", &json)?;
        self.write("lab.yaml", &lab.to_yaml()?)
    }

    /// Writes a file of the folder with mode 0600, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> Result<(), Problem> {
        let path = self.file(name);
        write_whole(&path, text).map_err(|e| unreadable(&path, e))
    }

    /// The lab's own key pair, made at the first call: (private key file, public line).
    pub fn key(&self) -> Result<(PathBuf, String), Problem> {
        let (private, public) = (self.file("key"), self.file("key.pub"));
        if let Ok(line) = fs::read_to_string(&public)
            && private.exists()
        {
            return Ok((private, line.trim().to_owned()));
        }
        let pair = KeyPair::new("kubecamp")?;
        self.write("key", pair.private.expose())?;
        self.write("key.pub", &format!("{}\n", pair.public))?;
        Ok((private, pair.public))
    }

    /// How the hosts were before `up`, by node; see [`crate::phases::Records`].
    ///
    /// A file that cannot be read is not an empty one: on a host that has lost its own record, reset would take everything for
    /// the lab's. Whoever wants that moves the file away.
    pub fn records(&self) -> Result<Records, Problem> {
        let path = self.file(RECORDS);
        let way_out = format!(
            "Mend the file, or move it away knowingly: mv {} {}. Then only the hosts' own records count, and where a host has \
             lost its own, the list of what up makes.",
            quote(&path.display().to_string()),
            quote(&format!("{}.bad", path.display()))
        );
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Records::new()),
            Err(e) => return Err(unreadable(&path, e).hint(way_out)),
        };
        serde_json::from_str(&text).map_err(|e| {
            let what = format!("{} is damaged", path.display());
            Problem::new(Code::LocalFile, what).because(e).hint(way_out)
        })
    }

    /// Whether the lab's hosts are clean since a reset proved it: that empties the records, which a lab that never came up
    /// does not have.
    pub fn was_reset(&self, state: &State) -> bool {
        state.clean && self.file(RECORDS).exists()
    }

    /// Keeps how the hosts were.
    pub fn keep_records(&self, records: &Records) -> Result<(), Problem> {
        let text = serde_json::to_string(records)
            .map_err(|e| Problem::new(Code::Internal, "the hosts' records cannot be written").because(e))?;
        self.write(RECORDS, &text)
    }

    /// Forgets the lab but keeps its run logs.
    pub fn forget(&self) -> Result<(), Problem> {
        let mut names: Vec<_> = ["lab.yaml", "state.json", "kubeconfig", "known_hosts", "key", "key.pub", RECORDS]
            .map(str::to_owned)
            .to_vec();
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let others = entries.filter_map(|e| e.file_name().into_string().ok());
        names.extend(others.filter(|n| n.starts_with("known_hosts.")));
        for name in names {
            match fs::remove_file(self.file(&name)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(unreadable(&self.file(&name), e)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes a file with mode 0600, whole or not at all, and makes its folder.
pub(super) fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // A temporary file has mode 0600 from its first byte.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Reads the text of a `state.json`.
fn state_of(text: &str) -> Result<State, Problem> {
    let damaged = |e: serde_json::Error| Problem::new(Code::LocalFile, "the state cannot be read").because(e);
    serde_json::from_str::<Format>(text).map_err(damaged)?.at_most(State::FORMAT)?;
    serde_json::from_str(text).map_err(damaged)
}

/// Why a file of the lab's folder is of no use here, named.
fn unfit(path: &Path, problem: Problem) -> Problem {
    if problem.code == Code::LabNewer {
        return Problem { what: format!("{} was written by a newer kubecamp", path.display()), ..problem };
    }
    Problem { what: format!("{} is damaged", path.display()), ..problem }.hint(
        "Mend the file, or move the lab's folder away and bring the lab up anew, on the same hosts and with --take-over.",
    )
}

fn unreadable(path: &Path, error: std::io::Error) -> Problem {
    Problem::new(Code::LocalFile, format!("cannot use {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_before_engines_were_kept_still_loads() {
        let old: State = serde_json::from_str(r#"{"format": 1, "place": "local", "bundle": null}"#).unwrap();
        assert!(old.place == Where::Local && old.engine.is_none() && !old.clean);
    }

    #[test]
    fn a_lab_whose_hosts_were_not_changed_stays_as_clean_as_it_was() {
        let state = |clean| State { clean, ..State::new(Where::Local) };
        assert!(state(false).until_changed(None).clean, "it is new");
        assert!(state(false).until_changed(Some(&state(true))).clean, "it was reset");
        assert!(!state(false).until_changed(Some(&state(false))).clean, "its cluster is there");
        let named = |file: &str| State { bundle: Some(file.into()), ..state(false) };
        assert_eq!(named("bad").until_changed(None).bundle, None, "one that is refused is not remembered");
        assert_eq!(named("bad").until_changed(Some(&named("good"))).bundle, Some("good".into()));
    }

    #[test]
    fn how_hosts_were_logged_in_to_counts_until_a_flag_says_otherwise() {
        let flags = |identity: Option<&str>, jump: Option<&str>| ConnectArgs {
            identity: identity.map(Into::into),
            jump: jump.map(Into::into),
            sudo_password_file: Some("/password".into()),
            ..ConnectArgs::default()
        };
        let told = Login::of(&flags(Some("key"), Some("gate")), None);
        let here = std::env::current_dir().unwrap();
        assert_eq!(told.identity, Some(here.join("key")), "the next command may run in another folder");
        assert_eq!(Login::of(&flags(None, None), Some(&told)), told);
        let at_home = std::env::home_dir().unwrap().join("key");
        assert_eq!(Login::of(&flags(Some("~/key"), None), None).identity, Some(at_home), "whoever comes next");
        assert_eq!(Login::of(&flags(Some("none"), None), None).identity, Some("none".into()));
        let other = Login::of(&flags(Some("/keys/other"), None), Some(&told));
        assert_eq!((other.identity, other.jump), (Some("/keys/other".into()), Some("gate".into())));

        let state = State { login: told, ..State::new(Where::Hosts(vec![])) };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        assert!(!text.contains("password"), "{text}");
        assert!(!serde_json::to_string(&State::new(Where::Local)).unwrap().contains("login"));
    }

    #[test]
    fn keeps_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let name: LabName = "team7".parse().unwrap();
        let store = Store::of(dir.path(), &name);
        assert!(store.load().unwrap().is_none());
        let lab = Lab::new(name.clone(), crate::profile::load("3x2c4g").unwrap()).unwrap();
        let engine = Some(EngineAt::Private("/data/engine".into()));
        let state = State { engine: engine.clone(), ..State::new(Where::Local) };
        store.save(&lab, &state).unwrap();
        let (read, again) = store.load().unwrap().unwrap();
        assert_eq!((read, again.owner().id, again.engine), (lab, state.id.unwrap(), engine));
        assert_eq!(Store::all(dir.path()), std::slice::from_ref(&name));
        // What a newer version has written is whole, and for that one, whatever else it holds.
        let kept = fs::read_to_string(store.file("state.json")).unwrap();
        store.write("state.json", &kept.replace("\"format\": 1", "\"format\": 2, \"place\": \"moon\"")).unwrap();
        let newer = store.load().unwrap_err();
        assert!(newer.code == Code::LabNewer && newer.what.contains("state.json was written by a newer"), "{newer}");
        assert_eq!(newer.all_hints(), [Code::LabNewer.hint()]);
        store.write("state.json", &kept).unwrap();
        let (_, first) = store.key().unwrap();
        assert_eq!(store.key().unwrap().1, first);
        store.forget().unwrap();
        let missing = store.need(&name).unwrap_err();
        assert_eq!((missing.code, missing.all_hints()), (Code::LabUnknown, vec![NO_LAB.to_owned()]));
        let other: LabName = "other".parse().unwrap();
        let lab = Lab::new(other.clone(), crate::profile::load("3x2c4g").unwrap()).unwrap();
        Store::of(dir.path(), &other).save(&lab, &State::new(Where::Local)).unwrap();
        let missing = store.need(&name).unwrap_err();
        assert_eq!(missing.all_hints(), [Code::LabUnknown.hint()], "now there is one to be listed");
    }

    #[test]
    fn records_that_cannot_be_read_are_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::of(dir.path(), &"team7".parse().unwrap());
        assert!(store.records().unwrap().is_empty());
        let records = Records::from([("cp".parse().unwrap(), "link\teth0\n".to_owned())]);
        store.keep_records(&records).unwrap();
        assert_eq!(store.records().unwrap(), records);
        for text in ["", "{\"cp\": \"link"] {
            store.write(RECORDS, text).unwrap();
            let problem = store.records().unwrap_err();
            assert!(problem.code == Code::LocalFile && problem.what.ends_with("before.json is damaged"), "{problem}");
            assert!(problem.all_hints()[0].contains("before.json.bad"), "{problem:?}");
        }
    }

    #[test]
    fn the_state_of_an_earlier_version_has_no_id_yet() {
        let state: State = serde_json::from_str(r#"{"format": 1, "place": "local", "bundle": null}"#).unwrap();
        assert!(state.id.is_none() && state.owner().known);
    }
}
