use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Commands, Limits, Places, machines::HAND_OVER_LIMIT};
use crate::{
    core::{Code, Problem, Problems, Secret},
    hub::gate::{Epoch, public_key},
    machine::Wanted,
    profile::{self, Layout, Mirror},
};

/// The shortest pause, in seconds, with which a server can be enrolled.
///
/// When an agent was heard the hub waits a while for what it tells right after that; of one that is heard again by then it
/// never knows all, and finds nobody to be a no-show.
pub const LEAST_POLL: u64 = 4;
/// The longest pause, in seconds, that an agent makes.
///
/// The hub takes who was not heard for somewhat longer for one that may be out of touch with it.
pub const MOST_POLL: u64 = 10;

/// The agent's configuration, as `hub enroll` writes it: YAML.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// This server's name at the hub.
    pub server: String,
    /// Where the hub is: `https://...`, `http://...` or `unix:/path`; none lives by the plan at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// A file, readable by root only, whose first line is the agent's token at the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A file with the certificate of the hub's own authority, in PEM, for HTTPS without a public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_ca: Option<PathBuf>,
    /// Whether a hub on another computer is asked by plain HTTP: whoever is on the way reads the token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The public key that plans are signed with, one OpenSSH line.
    pub plan_key: String,
    /// Journal and plan.
    #[serde(default = "state")]
    pub state: PathBuf,
    /// sshd's principals files.
    #[serde(default = "principals")]
    pub principals: PathBuf,
    /// The group of students' accounts.
    #[serde(default = "group")]
    pub group: String,
    /// Whether sshd understands `expiry-time="...Z"`: OpenSSH 9.1 and later.
    #[serde(default)]
    pub expiry_time: bool,
    /// How long before its start a slot's lab is brought up, in seconds.
    #[serde(default = "lead")]
    pub lead: Epoch,
    /// How often the hub is asked, in seconds; less than [`LEAST_POLL`] is for tests, more than [`MOST_POLL`] counts as that.
    #[serde(default = "poll")]
    pub poll: u64,
    /// How long evicting is tried before the slot is quarantined, in seconds.
    #[serde(default = "evict")]
    pub evict_limit: i64,
    /// How long saving, stopping and proving a lab in machines may each take before the slot is quarantined, in seconds;
    /// commands have a limit of their own.
    #[serde(default = "hand_over")]
    pub hand_over_limit: u64,
    /// Labs in machines that kubecamp makes on this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machines: Option<MachinesConfig>,
    /// Commands for the hand-over, on servers without machines.
    #[serde(default)]
    pub commands: Commands,
}

/// What is known of an agent whose configuration cannot be used: of these keys those that can be read, and else what they
/// are where nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Bare {
    /// sshd's principals files.
    #[serde(default = "principals")]
    pub principals: PathBuf,
    /// The group of students' accounts.
    #[serde(default = "group")]
    pub group: String,
}

impl Bare {
    /// Reads what can be read of the file.
    pub fn of(file: &Path) -> Self {
        let text = fs::read_to_string(file).unwrap_or_default();
        let read: Result<Self, _> =
            serde_yaml::from_str_with_options(&text, serde_yaml::options! { with_snippet: false });
        read.unwrap_or_else(|_| Self { principals: principals(), group: group() })
    }

    /// Where things are, as far as shutting doors needs it.
    pub fn places(&self) -> Places {
        Places {
            principals: self.principals.clone(),
            group: self.group.clone(),
            net: "/proc/net".into(),
            expiry_time: false,
        }
    }
}

/// How the labs' machines are made.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MachinesConfig {
    /// kubecamp's home for these labs, as `KUBECAMP_HOME`: labs, engine, images, bundles.
    #[serde(default = "home")]
    pub home: PathBuf,
    /// What they are: `auto`, `vm` or `container`; root in a container is as good as root on the server.
    #[serde(default)]
    pub kind: Wanted,
    /// The bundle that new labs are made from; none is fetched or built by the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// Whether machines of the private engine reach what this server reaches; else they reach each other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outbound: bool,
    /// Where new labs get images that are not in the bundle, as in a profile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// For how many days a lab is kept without a slot; 0 is for ever.
    #[serde(default = "keep_labs")]
    pub keep_labs: u32,
}

impl MachinesConfig {
    /// Refuses mirrors that no profile may name.
    fn check(&self) -> Result<(), Problems> {
        let any = Layout::SHIPPED[0].to_string();
        profile::with_mirrors(&any, self.mirrors.clone()).map(drop)
    }
}

fn state() -> PathBuf {
    "/var/lib/kubecamp-gate/state".into()
}
fn principals() -> PathBuf {
    "/etc/kubecamp-gate/principals".into()
}
fn group() -> String {
    "kubecamp-students".into()
}
fn lead() -> Epoch {
    300
}
fn poll() -> u64 {
    5
}
fn evict() -> i64 {
    30
}
fn hand_over() -> u64 {
    HAND_OVER_LIMIT.as_secs()
}
fn keep_labs() -> u32 {
    60
}
fn home() -> PathBuf {
    "/var/lib/kubecamp-gate/home".into()
}

fn wrong(from: &str) -> Problem {
    Problem::new(Code::GateConfig, format!("{from} is not a configuration of the agent"))
}

impl Config {
    /// Reads the file.
    pub fn load(file: &Path) -> Result<Self, Problem> {
        let from = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|e| wrong(&from).because(e))?;
        Self::parse(&text, &from)
    }

    /// Reads a text; `from` says where it is from.
    pub fn parse(text: &str, from: &str) -> Result<Self, Problem> {
        let wrong = || wrong(from);
        let config: Self = serde_yaml::from_str_with_options(text, serde_yaml::options! { with_snippet: false })
            .map_err(|e| wrong().because(e))?;
        public_key(&config.plan_key).map_err(|e| wrong().because(e))?;
        let no_time = config.poll == 0 || config.hand_over_limit == 0;
        if config.server.is_empty() || no_time || config.lead < 0 || config.evict_limit < 0 {
            return Err(wrong().detail(["server, poll, lead, evict-limit or hand-over-limit makes no sense"]));
        }
        if config.hub.is_some() && config.token_file.is_none() {
            return Err(wrong().detail(["a hub needs a token-file"]));
        }
        if let Some(machines) = &config.machines {
            machines.check().map_err(|e| wrong().because(e))?;
        }
        Ok(config)
    }

    /// Whose plans count.
    pub fn plan_key(&self) -> Result<PublicKey, Problem> {
        public_key(&self.plan_key)
    }

    /// The token; a file that others may read is refused.
    pub fn token(&self) -> Result<Secret, Problem> {
        let file = self.token_file.as_deref().unwrap_or(Path::new(""));
        let wrong = || Problem::new(Code::GateConfig, format!("the token file {} cannot be used", file.display()));
        let mode = fs::metadata(file).map_err(|e| wrong().because(e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(wrong().hint(format!("Make it private: chmod 600 {}.", file.display())));
        }
        let text = fs::read_to_string(file).map_err(|e| wrong().because(e))?;
        match text.lines().next().map(str::trim).filter(|t| !t.is_empty()) {
            Some(token) => Ok(Secret::new(token)),
            None => Err(wrong().detail(["it is empty"])),
        }
    }

    /// Where things are.
    pub fn places(&self) -> Places {
        Places {
            principals: self.principals.clone(),
            group: self.group.clone(),
            net: "/proc/net".into(),
            expiry_time: self.expiry_time,
        }
    }

    /// The pause between two questions to the hub.
    pub fn poll(&self) -> Duration {
        // An agent that refused its own file over this would end the slots that run.
        Duration::from_secs(self.poll.min(MOST_POLL))
    }

    /// How long a step of the hand-over of a lab in machines may take.
    pub fn hand_over_limit(&self) -> Duration {
        Duration::from_secs(self.hand_over_limit)
    }

    /// How long things may take.
    pub fn limits(&self) -> Limits {
        let days = self.machines.as_ref().map_or(0, |machines| machines.keep_labs);
        Limits { lead: self.lead, evict: self.evict_limit, keep: Epoch::from(days) * 86_400 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::gate::HubKey;

    #[test]
    fn a_short_file_is_enough_and_a_wrong_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yaml");
        let key = HubKey::generate("plan").unwrap().public_line().unwrap();
        fs::write(&file, format!("server: s1\nplan-key: {key}\n")).unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!((config.lead, config.group.as_str(), config.hand_over_limit), (300, "kubecamp-students", 900));
        assert_eq!((config.hub.as_deref(), config.poll()), (None, Duration::from_secs(5)));
        fs::write(&file, format!("server: s1\nplan-key: {key}\npoll: 30\n")).unwrap();
        assert_eq!(Config::load(&file).unwrap().poll(), Duration::from_secs(10), "it is read all the same");
        fs::write(&file, format!("server: s1\nplan-key: {key}\nmachines: {{kind: vm, bundle: /b}}\n")).unwrap();
        let machines = Config::load(&file).unwrap().machines.unwrap();
        assert_eq!((machines.kind, machines.bundle), (Wanted::Vm, Some("/b".into())));
        assert_eq!(machines.home, Path::new("/var/lib/kubecamp-gate/home"));
        assert_eq!(Config::load(&file).unwrap().limits().keep, 60 * 86_400);
        assert!(!machines.outbound && machines.mirrors.is_empty(), "labs are closed in unless somebody says so");
        let mirrors = "[{registry: docker.io, endpoints: ['https://mirror.example']}]";
        let machines = format!("{{outbound: true, mirrors: {mirrors}, keep-labs: 0}}");
        fs::write(&file, format!("server: s1\nplan-key: {key}\nmachines: {machines}\n")).unwrap();
        assert_eq!(Config::load(&file).unwrap().limits().keep, 0, "for ever");
        let machines = Config::load(&file).unwrap().machines.unwrap();
        assert!(machines.outbound && machines.mirrors[0].endpoints == ["https://mirror.example"]);
        for text in [
            "server: s1\n".to_owned(),
            format!("server: s1\nplan-key: {key}\nhub: http://h\n"),
            format!("server: s1\nplan-key: {key}\nwhat: 1\n"),
            format!("server: s1\nplan-key: {key}\nhand-over-limit: 0\n"),
            "server: s1\nplan-key: nonsense\n".to_owned(),
            format!("server: s1\nplan-key: {key}\nmachines: {{mirrors: [{{registry: a b, endpoints: [x]}}]}}\n"),
            format!("server: ''\nplan-key: {key}\n"),
        ] {
            fs::write(&file, &text).unwrap();
            assert_eq!(Config::load(&file).err().map(|p| p.code), Some(Code::GateConfig), "{text}");
        }
    }

    #[test]
    fn of_a_file_that_is_refused_the_folders_are_known_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.yaml");
        fs::write(&file, "server: ''\nwhat: 1\nlead: x\nprincipals: /p\ngroup: g\nstate: /s\n").unwrap();
        assert!(Config::load(&file).is_err());
        assert_eq!(Bare::of(&file), Bare { principals: "/p".into(), group: "g".into() });
        let usual = Bare { principals: principals(), group: group() };
        for text in ["", "a: [", "principals: {}\n"] {
            fs::write(&file, text).unwrap();
            assert_eq!(Bare::of(&file), usual, "{text}");
        }
        assert_eq!(Bare::of(&dir.path().join("none")), usual);
    }

    #[test]
    fn a_token_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, token) = (dir.path().join("agent.yaml"), dir.path().join("token"));
        let key = HubKey::generate("plan").unwrap().public_line().unwrap();
        fs::write(&file, format!("server: s1\nplan-key: {key}\ntoken-file: {}\n", token.display())).unwrap();
        fs::write(&token, "kct_abc\n").unwrap();
        let config = Config::load(&file).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(config.token().unwrap_err().code, Code::GateConfig);
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(config.token().unwrap().expose(), "kct_abc");
    }
}
