use std::{
    collections::HashMap,
    env,
    io::{self, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ssh2_config::{HostParams, ParseRule, SshConfig};
use tokio::process::Command;

use super::{HostKeyPolicy, Identity, Spec, SshTarget, Unknown};
use crate::core::{Code, Problem};

/// Jump hosts may have jump hosts of their own, but not without end.
const DEEPEST: usize = 5;

/// A host with everything that the user's ssh_config says of it.
#[derive(Debug)]
pub struct Resolved {
    /// How to reach it.
    pub target: SshTarget,
    /// What the user should know: settings that could not be followed.
    pub warnings: Vec<String>,
}

/// Reads hosts as the user writes them, with the help of ssh_config.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// The ssh program, asked with `-G`; where it is missing, a reader of our own takes its place.
    pub ssh: PathBuf,
    /// Another file than the user's own.
    pub config: Option<PathBuf>,
    /// The way to the host is given elsewhere: that of ssh_config does not count, as with `ssh -J`.
    pub own_way: bool,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { ssh: "ssh".into(), config: None, own_way: false }
    }
}

/// Reads `[user@]host[:port]` with the user's own ssh_config; a user and port given in `spec` win.
pub async fn resolve(spec: &str) -> Result<Resolved, Problem> {
    Resolver::default().resolve(spec).await
}

impl Resolver {
    /// As [`resolve`], with these settings.
    pub async fn resolve(&self, spec: &str) -> Result<Resolved, Problem> {
        self.descend(Spec::parse(spec)?, 0).await
    }

    async fn descend(&self, spec: Spec, depth: usize) -> Result<Resolved, Problem> {
        let mut warnings = vec![];
        let settings = match self.ask_ssh(&spec).await {
            Ok(settings) => settings?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                warnings.push(
                    "ssh is not installed: Match blocks and some other settings of ssh_config are not followed".into(),
                );
                self.read_ourselves(&spec)?
            }
            Err(error) => return Err(failed(&spec).because(error)),
        };
        let mut target = settings.target(&spec);
        if self.own_way {
            return Ok(Resolved { target, warnings });
        }
        settings.refuse_command(&spec)?;
        for jump in settings.jumps() {
            if depth == DEEPEST {
                return Err(failed(&spec).detail(["too many jump hosts behind each other"]));
            }
            let jump = jump.strip_prefix("ssh://").unwrap_or(jump);
            let mut found = Box::pin(self.descend(Spec::parse(jump)?, depth + 1)).await?;
            if target.jump.is_empty() {
                target.jump.append(&mut found.target.jump);
            }
            found.target.jump.clear();
            target.jump.push(found.target);
        }
        Ok(Resolved { target, warnings })
    }

    /// The outer error is that the program could not be run.
    async fn ask_ssh(&self, spec: &Spec) -> io::Result<Result<Settings, Problem>> {
        let mut ssh = Command::new(&self.ssh);
        ssh.arg("-G");
        if let Some(config) = &self.config {
            ssh.arg("-F").arg(config);
        }
        if let Some(user) = &spec.user {
            ssh.arg("-l").arg(user);
        }
        if let Some(port) = spec.port {
            ssh.arg("-p").arg(port.to_string());
        }
        ssh.arg("--").arg(&spec.host).stdin(Stdio::null()).kill_on_drop(true);
        // A Match block may run programs of the user's choice.
        let Ok(out) = tokio::time::timeout(Duration::from_secs(20), ssh.output()).await else {
            return Ok(Err(failed(spec).detail(["ssh -G did not end within 20 s"])));
        };
        let out = out?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            return Ok(Err(failed(spec).detail(said.lines())));
        }
        Ok(Ok(Settings::parse(&String::from_utf8_lossy(&out.stdout))))
    }

    fn read_ourselves(&self, spec: &Spec) -> Result<Settings, Problem> {
        let own = self.config.clone().or_else(|| Some(env::home_dir()?.join(".ssh/config")));
        let file = match own.map(std::fs::File::open) {
            None => return Ok(Settings::default()),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(Settings::default()),
            Some(file) => file.map_err(|e| failed(spec).because(e))?,
        };
        let rules = ParseRule::ALLOW_UNKNOWN_FIELDS | ParseRule::ALLOW_UNSUPPORTED_FIELDS;
        let config = SshConfig::default().parse(&mut BufReader::new(file), rules);
        Ok(Settings::from_params(config.map_err(|e| failed(spec).because(e))?.query(&spec.host)))
    }
}

fn failed(spec: &Spec) -> Problem {
    Problem::new(Code::HostSpec, format!("cannot read the ssh_config settings of {spec}"))
        .hint(format!("Try: ssh -G {}", spec.host))
}

/// Settings by their lower-case names, as `ssh -G` prints them.
#[derive(Debug, Default)]
struct Settings(HashMap<String, Vec<String>>);

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            settings.add(name, value);
        }
        settings
    }

    fn from_params(params: HostParams) -> Self {
        let mut settings = Self::default();
        let lists = params.unsupported_fields.into_iter().chain(params.ignored_fields);
        lists.for_each(|(name, values)| settings.add(&name.to_lowercase(), &values.join(" ")));
        let one = [("hostname", params.host_name), ("user", params.user), ("port", params.port.map(|p| p.to_string()))];
        one.into_iter().for_each(|(name, value)| value.iter().for_each(|v| settings.add(name, v)));
        let files = params.identity_file.unwrap_or_default();
        files.iter().for_each(|file| settings.add("identityfile", &file.display().to_string()));
        params.proxy_jump.iter().for_each(|jumps| settings.add("proxyjump", &jumps.join(",")));
        params.connect_timeout.iter().for_each(|t| settings.add("connecttimeout", &t.as_secs().to_string()));
        settings
    }

    fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().push(value.trim().to_owned());
    }

    /// The value, unless it is missing or `none`.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str).filter(|value| !value.is_empty() && *value != "none")
    }

    fn jumps(&self) -> impl Iterator<Item = &str> {
        self.get("proxyjump").into_iter().flat_map(|jumps| jumps.split(','))
    }

    fn refuse_command(&self, spec: &Spec) -> Result<(), Problem> {
        let Some(command) = self.get("proxycommand") else { return Ok(()) };
        Err(failed(spec)
            .detail([format!("ProxyCommand {command}")])
            .hint("ProxyCommand is not supported; use ProxyJump, ProxyCommand none, or --jump."))
    }

    fn target(&self, spec: &Spec) -> SshTarget {
        let user = spec.user.clone().or_else(|| self.get("user").map(str::to_owned)).unwrap_or_else(local_user);
        let port = spec.port.or_else(|| self.get("port")?.parse().ok()).unwrap_or(22);
        let mut target = SshTarget::new(user, self.get("hostname").unwrap_or(&spec.host), port);
        target.key_name = self.get("hostkeyalias").map(str::to_owned);
        target.identities_only = self.get("identitiesonly") == Some("yes");
        if let Some(files) = self.0.get("identityfile") {
            let files = files.iter().filter(|f| *f != "none");
            target.identities = files.map(|f| Identity::Usual(expand(f, &target, &spec.host))).collect();
        }
        match self.0.get("identityagent").and_then(|v| v.first()).map(String::as_str) {
            None | Some("SSH_AUTH_SOCK") => {}
            Some("none") => target.agent = None,
            Some(name) if name.starts_with('$') => target.agent = env::var_os(&name[1..]).map(PathBuf::from),
            Some(path) => target.agent = Some(expand(path, &target, &spec.host)),
        }
        let seconds = self.get("connecttimeout").and_then(|s| s.parse::<u64>().ok());
        // To ssh 0 is no limit of its own, and not that nothing may take any time; ours stays.
        if let Some(seconds) = seconds.filter(|s| *s > 0) {
            target.connect_timeout = Duration::from_secs(seconds);
        }
        self.known_hosts(&mut target, &spec.host);
        target
    }

    fn known_hosts(&self, target: &mut SshTarget, named: &str) {
        let HostKeyPolicy::Files { mut read, mut write, .. } = target.host_keys.clone() else { return };
        let list = |name| self.0.get(name).and_then(|v| v.first());
        let files = |value: &String| -> Vec<PathBuf> {
            let real = |word: &&str| !matches!(*word, "none" | "/dev/null");
            value.split_whitespace().filter(real).map(|word| expand(word, target, named)).collect()
        };
        if let Some(value) = list("globalknownhostsfile") {
            read = files(value);
        }
        if let Some(value) = list("userknownhostsfile") {
            let mut own = files(value).into_iter();
            write = own.next();
            read.extend(own);
        }
        target.host_keys = HostKeyPolicy::Files { read, write, unknown: Unknown::Refuse };
    }
}

/// Expands `~` and the tokens that make sense in paths; `named` is the host as the user wrote it.
fn expand(path: &str, target: &SshTarget, named: &str) -> PathBuf {
    let home = env::home_dir().unwrap_or_default();
    let mut out = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match (c, if c == '%' { rest.next() } else { None }) {
            ('%', Some('d')) => out.push_str(&home.to_string_lossy()),
            ('%', Some('h')) => out.push_str(&target.address),
            ('%', Some('k')) => out.push_str(target.key_name.as_deref().unwrap_or(named)),
            ('%', Some('n')) => out.push_str(named),
            ('%', Some('p')) => out.push_str(&target.port.to_string()),
            ('%', Some('r')) => out.push_str(&target.user),
            ('%', Some('u')) => out.push_str(&local_user()),
            ('%', Some(other)) if other != '%' => out.extend(['%', other]),
            _ => out.push(c),
        }
    }
    out.strip_prefix("~/").map_or_else(|| Path::new(&out).to_owned(), |inner| home.join(inner))
}

fn local_user() -> String {
    env::var("USER").or_else(|_| env::var("LOGNAME")).unwrap_or_else(|_| "root".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "Host lab-*\n  User ubuntu\n  Port 2200\n  IdentityFile ~/.ssh/lab\n  IdentitiesOnly yes\n\
        \nHost lab-1\n  HostName 192.0.2.7\n  ProxyJump gate,jo@inner:23\n  HostKeyAlias one\n  \
        UserKnownHostsFile /k/a /k/b\n\nHost gate\n  HostName gate.example.org\n  User g\n\
        \nHost odd\n  ProxyCommand nc %h %p\n";

    fn resolver(dir: &Path, ssh: &str) -> Resolver {
        let config = dir.join("config");
        std::fs::write(&config, CONFIG).unwrap();
        Resolver { ssh: ssh.into(), config: Some(config), own_way: false }
    }

    #[tokio::test]
    async fn an_alias_with_and_without_ssh() {
        let dir = tempfile::tempdir().unwrap();
        for (ssh, warnings) in [("ssh", 0), ("/no/such/ssh", 1)] {
            let found = resolver(dir.path(), ssh).resolve("lab-1").await.unwrap();
            assert_eq!(found.warnings.len(), warnings);
            let target = found.target;
            assert_eq!(target.name(), "ubuntu@192.0.2.7:2200");
            assert!(target.identities[0].file().unwrap().ends_with(".ssh/lab"));
            let jumps: Vec<_> = target.jump.iter().map(SshTarget::name).collect();
            assert_eq!(jumps, ["g@gate.example.org", "jo@inner:23"]);
            assert_eq!((target.known_as().as_str(), target.identities_only), ("one", true), "{ssh}");
            let HostKeyPolicy::Files { read, write, .. } = target.host_keys else { panic!("not files") };
            assert_eq!(write, Some("/k/a".into()));
            assert!(read.contains(&"/k/b".into()));
        }
    }

    #[tokio::test]
    async fn paths_are_expanded_and_no_limit_is_not_none() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = resolver(dir.path(), "ssh");
        let config = "Host web\n HostName 192.0.2.7\n User jo\n Port 2200\n IdentityFile /keys/%r@%n:%p-%h-%k\n \
            ConnectTimeout 0\nHost slow\n ConnectTimeout 90\n";
        std::fs::write(dir.path().join("config"), config).unwrap();
        let target = resolver.resolve("web").await.unwrap().target;
        assert_eq!(target.identities[0].file(), Some(Path::new("/keys/jo@web:2200-192.0.2.7-web")));
        let usual = SshTarget::new("jo", "web", 22).connect_timeout;
        assert_eq!(target.connect_timeout, usual, "ssh knows 0 as no limit");
        assert_eq!(resolver.resolve("slow").await.unwrap().target.connect_timeout, Duration::from_secs(90));
    }

    #[tokio::test]
    async fn the_spec_wins_and_odd_settings_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = resolver(dir.path(), "ssh");
        assert_eq!(resolver.resolve("root@lab-2:22").await.unwrap().target.name(), "root@lab-2");
        assert_eq!(resolver.resolve("root@[::1]:2").await.unwrap().target.name(), "root@[::1]:2");
        let odd = resolver.resolve("odd").await.unwrap_err();
        assert!(odd.code == Code::HostSpec && odd.hints.iter().any(|hint| hint.0.contains("--jump")), "{odd}");
        assert_eq!(resolver.resolve("-oX").await.unwrap_err().code, Code::HostSpec);
        std::fs::write(dir.path().join("config"), "Nonsense yes\n").unwrap();
        assert_eq!(resolver.resolve("x").await.unwrap_err().code, Code::HostSpec);
    }
}
