//! Logging in over SSH: our keys, the host's keys, jump hosts and aliases.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubecamp::{
    core::{Code, Problem, Secret},
    profile::Lab,
    transport::{
        Ask, Cmd, HostKeyPolicy, Identity, Io, Keyring, SshTarget, SshTransport, Transport, Unknown,
        ssh::{KeyPair, Resolver, public_line},
    },
};

use crate::support::sshd::{Setup, Sshd, must, poll, write_private};

/// A user who gives these answers and counts the questions.
#[derive(Default)]
struct User {
    phrases: Mutex<Vec<&'static str>>,
    yes: Option<bool>,
    asked: Mutex<Vec<String>>,
}

impl Ask for User {
    fn secret(&self, prompt: &str) -> Option<Secret> {
        self.asked.lock().unwrap().push(prompt.to_owned());
        let mut phrases = self.phrases.lock().unwrap();
        (!phrases.is_empty()).then(|| Secret::new(phrases.remove(0)))
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        self.asked.lock().unwrap().push(question.to_owned());
        self.yes
    }
}

impl User {
    fn keyring(self) -> (Arc<Self>, Arc<Keyring>) {
        let user = Arc::new(self);
        (Arc::clone(&user), Arc::new(Keyring::new(user)))
    }
}

async fn refused(target: SshTarget) -> Problem {
    match SshTransport::connect(target).await {
        Ok(_) => panic!("it connected"),
        Err(problem) => problem,
    }
}

/// Connects, runs a command, and closes.
async fn works(target: SshTarget) {
    let link = SshTransport::connect(target).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(link.exec(&Cmd::new("echo in"), Io::default()).await.unwrap().text(), "in");
    link.close().await;
}

/// Makes a key of this type with ssh-keygen.
fn keygen(server: &Sshd, name: &str, args: &[&str]) -> PathBuf {
    let file = server.file(name);
    must("ssh-keygen", &[&["-q", "-f", &file.display().to_string()], args].concat());
    file
}

#[tokio::test]
async fn keys_of_every_type_let_one_in() {
    let server = Sshd::start();
    let kinds: [(&str, &[&str]); 4] = [
        ("rsa", &["-t", "rsa", "-b", "3072", "-N", ""]),
        ("rsa-pem", &["-t", "rsa", "-m", "PEM", "-N", ""]),
        ("ecdsa", &["-t", "ecdsa", "-N", ""]),
        ("p384", &["-t", "ecdsa", "-b", "384", "-m", "PKCS8", "-N", ""]),
    ];
    for (name, args) in kinds {
        let file = keygen(&server, name, args);
        server.authorize(&public_line(&file).unwrap());
        let mut target = server.target();
        target.identities = vec![Identity::File(file)];
        works(target).await;
    }
    let pair = KeyPair::new("in memory").unwrap();
    server.authorize(&pair.public);
    let mut target = server.target();
    target.identities = vec![pair.identity().unwrap()];
    works(target).await;
}

#[tokio::test]
async fn an_encrypted_key_asks_once_and_only_when_it_is_wanted() {
    let server = Sshd::start();
    let unwanted = keygen(&server, "unwanted", &["-t", "ed25519", "-N", "other phrase"]);
    let locked = keygen(&server, "locked", &["-t", "ed25519", "-N", "right phrase"]);
    server.authorize(&public_line(&locked).unwrap());
    let mut target = server.target();
    target.identities = vec![Identity::File(unwanted), Identity::File(locked.clone())];

    let problem = refused(target.clone()).await;
    assert_eq!(problem.code, Code::KeyLocked, "{problem}");

    let (user, keyring) = User { phrases: Mutex::new(vec!["wrong", "right phrase"]), ..User::default() }.keyring();
    let target = target.keyring(&keyring);
    works(target.clone()).await;
    works(target).await;
    let asked = user.asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|q| q.contains(&locked.display().to_string())), "{asked:?}");
}

/// A user who looks for the pass phrase until the server has waited long enough, and how often they did.
struct Slow(Arc<Sshd>, AtomicUsize);

impl Ask for Slow {
    fn secret(&self, _: &str) -> Option<Secret> {
        self.1.fetch_add(1, Ordering::SeqCst);
        assert!(self.0.cut() > 0, "somebody is logging in");
        Some(Secret::new("right phrase"))
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }
}

#[tokio::test]
async fn a_server_that_does_not_wait_for_a_pass_phrase_is_asked_anew() {
    let server = Arc::new(Sshd::start());
    let locked = keygen(&server, "locked", &["-t", "ed25519", "-N", "right phrase"]);
    server.authorize(&public_line(&locked).unwrap());
    let user = Arc::new(Slow(Arc::clone(&server), AtomicUsize::new(0)));
    let keyring = Arc::new(Keyring::new(Arc::clone(&user) as Arc<dyn Ask>));
    let mut target = server.target().keyring(&keyring);
    target.identities = vec![Identity::File(locked)];
    works(target).await;
    assert_eq!(user.1.load(Ordering::SeqCst), 1, "the phrase is known from then on");
}

#[tokio::test]
async fn a_wrong_missing_or_broken_key_is_refused_and_told_apart() {
    let server = Sshd::start();
    let wrong = keygen(&server, "wrong", &["-t", "ed25519", "-N", ""]);
    let mut target = server.target();
    target.identities = vec![Identity::File(wrong.clone())];
    let problem = refused(target.clone()).await;
    assert_eq!(problem.code, Code::HostAuth);
    assert!(problem.detail.iter().any(|l| l.contains("wrong: refused")), "{problem}");
    target.identities = vec![Identity::File(server.file("none"))];
    assert_eq!(refused(target.clone()).await.code, Code::KeyFile);
    write_private(&server.file("broken"), "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
    target.identities = vec![Identity::File(server.file("broken"))];
    assert_eq!(refused(target.clone()).await.code, Code::KeyFile);
    target.identities = vec![];
    let problem = refused(target.clone()).await;
    assert_eq!(problem.code, Code::HostAuth);
    assert!(problem.to_string().contains("no private key"), "{problem}");
    for i in 0..9 {
        target.identities.push(KeyPair::new(&i.to_string()).unwrap().identity().unwrap());
    }
    let problem = refused(target).await;
    assert_eq!(problem.code, Code::HostAuth, "{problem}");
    assert!(problem.to_string().contains("Too many authentication failures"), "{problem}");
}

/// An ssh-agent with these keys; ends when dropped.
struct Agent(Child, PathBuf);

impl Agent {
    fn with(dir: &Path, keys: &[&Path]) -> Self {
        let socket = dir.join("agent");
        let mut agent = Command::new("ssh-agent");
        agent.args(["-D", "-a"]).arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
        let agent = Self(agent.spawn().expect("ssh-agent is missing: install openssh-client"), socket);
        poll("the agent's socket", || agent.1.exists().then_some(()));
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.1).status();
            assert!(added.unwrap().success());
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_agent_signs() {
    let server = Sshd::start();
    let key = keygen(&server, "rsa", &["-t", "rsa", "-N", ""]);
    server.authorize(&public_line(&key).unwrap());
    let agent = Agent::with(key.parent().unwrap(), &[&key]);
    // From now on the file alone is of no use.
    must("ssh-keygen", &["-q", "-p", "-N", "a phrase", "-f", &key.display().to_string()]);
    let mut target = server.target();
    target.agent = Some(agent.1.clone());
    target.identities = vec![];
    works(target.clone()).await;
    target.identities = vec![Identity::File(key.clone())];
    target.identities_only = true;
    works(target.clone()).await;
    // The public half says which key is meant, named itself or beside where the private one is not.
    let public = key.with_extension("pub");
    let elsewhere = server.file("elsewhere");
    fs::copy(&public, server.file("elsewhere.pub")).unwrap();
    for identity in [Identity::File(public.clone()), Identity::Usual(public.clone()), Identity::File(elsewhere)] {
        target.identities = vec![identity];
        works(target.clone()).await;
    }
    target.identities = vec![Identity::File(public)];
    let problem = refused(SshTarget { agent: None, ..target.clone() }).await;
    assert_eq!(problem.code, Code::HostAuth);
    assert!(problem.to_string().contains("rsa.pub: a public key, and no agent"), "{problem}");
    target.identities = vec![];
    assert_eq!(refused(target.clone()).await.code, Code::HostAuth, "only named keys, and none is named");
    target.agent = Some(server.file("no-agent"));
    let problem = refused(target).await;
    assert!(problem.to_string().contains("no-agent"), "{problem}");
}

#[tokio::test]
async fn a_new_host_is_asked_about_accepted_or_refused() {
    let server = Sshd::start();
    let file = server.file("known_hosts");
    let problem = refused(server.target_by_file(Unknown::Refuse)).await;
    assert_eq!(problem.code, Code::HostKeyUnknown);
    let print = must("ssh-keygen", &["-l", "-f", &server.file("host_key.pub").display().to_string()]);
    let print = print.split_whitespace().nth(1).unwrap().to_owned();
    assert!(problem.to_string().contains(&print), "{problem}");
    let silent = refused(server.target_by_file(Unknown::Ask)).await;
    assert_eq!(silent.code, Code::HostKeyUnknown, "nobody is there to ask");

    let (_, keyring) = User { yes: Some(false), ..User::default() }.keyring();
    assert_eq!(refused(server.target_by_file(Unknown::Ask).keyring(&keyring)).await.code, Code::Declined);
    assert!(!file.exists());

    let (user, keyring) = User { yes: Some(true), ..User::default() }.keyring();
    works(server.target_by_file(Unknown::Ask).keyring(&keyring)).await;
    works(server.target_by_file(Unknown::Ask).keyring(&keyring)).await;
    assert_eq!(user.asked.lock().unwrap().len(), 1);
    assert!(user.asked.lock().unwrap()[0].contains(&print));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    works(server.target_by_file(Unknown::Refuse)).await;
    let ssh_agrees = ["-F", &format!("[127.0.0.1]:{}", server.port), "-f", &file.display().to_string()];
    must("ssh-keygen", &ssh_agrees);
}

#[tokio::test]
async fn many_new_hosts_at_once_are_all_recorded() {
    let servers: Vec<_> = (0..4).map(|_| Sshd::start()).collect();
    let file = servers[0].file("shared");
    fs::write(&file, "# no newline at the end").unwrap();
    let all = servers
        .iter()
        .chain(&servers)
        .map(|s| works(s.target_by_file(Unknown::Accept).new_hosts(Unknown::Accept, Some(&file))));
    futures::future::join_all(all).await;
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 5, "each once:\n{text}");
    for server in &servers {
        works(server.target_by_file(Unknown::Refuse).new_hosts(Unknown::Refuse, Some(&file))).await;
    }
}

#[tokio::test]
async fn changed_and_revoked_keys_are_hard_stops() {
    let server = Sshd::start();
    let file = server.file("known_hosts");
    let other = KeyPair::new("").unwrap().public;
    let host = format!("[127.0.0.1]:{}", server.port);
    let (user, keyring) = User { yes: Some(true), ..User::default() }.keyring();
    let target = || server.target_by_file(Unknown::Accept).keyring(&keyring);

    fs::write(&file, format!("# first\n{host} {other}\n")).unwrap();
    let problem = refused(target()).await;
    assert_eq!(problem.code, Code::HostKeyChanged);
    assert!(problem.to_string().contains(&format!("{} line 2", file.display())), "{problem}");

    // Another type of key is no way around: whoever is in between may hold back the known one.
    let rsa = keygen(&server, "some-rsa", &["-t", "rsa", "-N", ""]);
    fs::write(&file, format!("{host} {}\n", public_line(&rsa).unwrap())).unwrap();
    assert_eq!(refused(target()).await.code, Code::HostKeyChanged);

    fs::write(&file, format!("{host} {}\n@revoked * {}\n", server.host_key(), server.host_key())).unwrap();
    let problem = refused(target()).await;
    assert_eq!(problem.code, Code::HostKeyRevoked);
    assert!(problem.to_string().contains("line 2"), "{problem}");

    fs::write(&file, format!("127.0.0.1 {}\n", server.host_key())).unwrap();
    works(server.target_by_file(Unknown::Refuse)).await;
    fs::write(&file, format!("127.0.0.1 {other}\n{host} {}\n", server.host_key())).unwrap();
    works(server.target_by_file(Unknown::Refuse)).await;
    must("ssh-keygen", &["-H", "-f", &file.display().to_string()]);
    works(server.target_by_file(Unknown::Refuse)).await;

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(refused(target()).await.code, Code::LocalFile, "unreadable is not the same as empty");
    let mut pinned = server.target();
    pinned.host_keys = HostKeyPolicy::Pinned(vec![other]);
    assert_eq!(refused(pinned).await.code, Code::HostKeyChanged);
    assert!(user.asked.lock().unwrap().is_empty(), "no question may come before a hard stop");
}

#[tokio::test]
async fn the_known_type_of_host_key_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let second = dir.path().join("ecdsa");
    must("ssh-keygen", &["-q", "-t", "ecdsa", "-N", "", "-f", &second.display().to_string()]);
    let server = Sshd::with(Setup { config: format!("HostKey {}", second.display()), ..Setup::default() });
    let line = format!("[127.0.0.1]:{} {}\n", server.port, public_line(&second).unwrap());
    fs::write(server.file("known_hosts"), line).unwrap();
    works(server.target_by_file(Unknown::Refuse)).await;
}

#[tokio::test]
async fn a_host_is_known_by_a_certificate_of_a_known_authority() {
    let ca = tempfile::tempdir().unwrap();
    let at = |name: &str| ca.path().join(name).display().to_string();
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at("ca")]);
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &at("host")]);
    must("ssh-keygen", &["-q", "-s", &at("ca"), "-h", "-I", "id", "-n", "127.0.0.1", "-V", "+1h", &at("host.pub")]);
    let config = format!("HostKey {}\nHostCertificate {}", at("host"), at("host-cert.pub"));
    let server = Sshd::with(Setup { config, ..Setup::default() });
    let public = fs::read_to_string(at("ca.pub")).unwrap();
    let known = |hosts: &str| fs::write(server.file("known_hosts"), format!("@cert-authority {hosts} {public}"));
    known("*").unwrap();
    works(server.target_by_file(Unknown::Refuse)).await;
    known("other.example").unwrap();
    assert_eq!(refused(server.target_by_file(Unknown::Refuse)).await.code, Code::HostKeyUnknown);
    known("*").unwrap();
    must("ssh-keygen", &["-q", "-s", &at("ca"), "-h", "-I", "id", "-n", "other", "-V", "+1h", &at("host.pub")]);
    let config = format!("HostKey {}\nHostCertificate {}", at("host"), at("host-cert.pub"));
    let wrong = Sshd::with(Setup { config, ..Setup::default() });
    fs::write(wrong.file("known_hosts"), format!("@cert-authority * {public}")).unwrap();
    assert_eq!(refused(wrong.target_by_file(Unknown::Refuse)).await.code, Code::HostKeyUnknown, "for another host");
}

#[tokio::test]
async fn behind_a_jump_host_both_keys_are_checked() {
    let (gate, inner) = (Sshd::start(), Sshd::start());
    let mut target = inner.target();
    target.jump = vec![gate.target()];
    works(target.clone()).await;
    target.jump[0].host_keys = HostKeyPolicy::Pinned(vec![inner.host_key()]);
    let problem = refused(target.clone()).await;
    assert_eq!(problem.code, Code::HostKeyChanged);
    assert!(problem.what.contains(&gate.port.to_string()), "{problem}");
    target.jump[0].host_keys = HostKeyPolicy::Pinned(vec![gate.host_key()]);
    target.host_keys = HostKeyPolicy::Pinned(vec![gate.host_key()]);
    assert!(refused(target.clone()).await.what.contains(&inner.port.to_string()));
    target.port = 1;
    assert_eq!(refused(target).await.code, Code::HostUnreachable);
}

#[tokio::test]
async fn an_alias_of_ssh_config_is_reached_by_its_jump_host() {
    let (gate, inner) = (Sshd::start(), Sshd::start());
    let config = gate.file("ssh_config");
    let entry = |name: &str, server: &Sshd, more: &str| {
        let (port, key) = (server.port, server.file("user_key"));
        let known = gate.file("known_hosts");
        format!(
            "Host {name}\n HostName 127.0.0.1\n User root\n Port {port}\n IdentityFile {}\n IdentitiesOnly yes\n \
             UserKnownHostsFile {}\n{more}\n",
            key.display(),
            known.display()
        )
    };
    fs::write(&config, entry("gate", &gate, "") + &entry("inner", &inner, " ProxyJump gate")).unwrap();
    let resolver = Resolver { config: Some(config), ..Resolver::default() };
    let found = resolver.resolve("inner").await.unwrap().target;
    assert_eq!(refused(found.clone()).await.code, Code::HostKeyUnknown);
    works(found.new_hosts(Unknown::Accept, None)).await;
    assert_eq!(fs::read_to_string(gate.file("known_hosts")).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn why_a_host_cannot_be_reached_is_told() {
    let server = Sshd::start();
    let mut target = server.target();
    target.connect_timeout = Duration::from_millis(300);
    target.port = 1;
    let problem = refused(target.clone()).await;
    assert_eq!(problem.code, Code::HostUnreachable, "{problem}");
    assert!(problem.to_string().contains("refused"), "{problem}");
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    target.port = mute.local_addr().unwrap().port();
    let problem = refused(target.clone()).await;
    assert_eq!(problem.code, Code::HostUnreachable, "{problem}");
    target.address = "no-such-host.invalid".into();
    target.connect_timeout = Duration::from_secs(20);
    assert_eq!(refused(target).await.code, Code::HostName);
}

/// One round: what preflight says of the host that came stands beside the host that did not.
#[test]
fn live_plan_tells_of_every_host_at_once() {
    let (server, home) = (Sshd::start(), tempfile::tempdir().unwrap());
    let profile = kubecamp::profile::shipped_text("2x4c8g").unwrap().replace("cores: 4", "cores: 4000");
    fs::write(home.path().join("big.yaml"), profile).unwrap();
    let here = format!("root@127.0.0.1:{}", server.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("KUBECAMP_HOME", home.path());
    command.current_dir(home.path()).stdin(Stdio::null()).args(["plan", "--profile", "./big.yaml"]);
    command.args(["--host", "root@127.0.0.1:1", "--host", &here, "--accept-new-host-keys", "--identity"]);
    let out = command.arg(server.file("user_key")).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(4), "{said}");
    assert!(said.contains("KC-HOST-UNREACHABLE on cp"), "{said}");
    assert!(said.contains("KC-HOST-TOO-SMALL") && said.contains(" NEEDS\n") && said.contains(" 4000\n"), "{said}");
    assert!(!home.path().join("data/labs").exists(), "a plan keeps nothing of a lab that there is not");
}

/// The system's ssh gets through the very hops, with keys and known hosts that only kubecamp was told of.
#[test]
fn live_ssh_a_shell_goes_the_way_that_the_others_went() {
    let (outer, gate, inner, home) = (Sshd::start(), Sshd::start(), Sshd::start(), tempfile::tempdir().unwrap());
    let key = |name: &str, server: &Sshd| {
        let file = home.path().join(format!("it's {name}'s"));
        write_private(&file, &fs::read_to_string(server.file("user_key")).unwrap());
        file.display().to_string()
    };
    let entry = |name: &str, server: &Sshd, more: &str| {
        let port = server.port;
        format!(
            "Host {name}\n HostName 127.0.0.1\n User root\n Port {port}\n IdentityFile \"{}\"\n{more}\n",
            key(name, server)
        )
    };
    let config = entry("outer", &outer, "") + &entry("gate", &gate, " ProxyJump outer");
    fs::write(home.path().join("config"), config).unwrap();
    let lab = Lab::new("lab".parse().unwrap(), kubecamp::profile::load("1x4c12g").unwrap()).unwrap();
    let folder = home.path().join("data/labs/lab");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lab.yaml"), lab.to_yaml().unwrap()).unwrap();
    let identity = key("inner", &inner);
    let host = serde_json::json!({"address": "127.0.0.1", "user": "root", "port": inner.port, "identity": identity});
    let state = serde_json::json!({"format": 1, "place": {"hosts": [["cp", host]]}, "bundle": null});
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubecamp"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("KUBECAMP_HOME", home.path());
        let out = command.current_dir(home.path()).stdin(Stdio::null()).args(args).output().unwrap();
        (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    };
    let way = ["--jump", "gate", "--ssh-config", "config"];
    fs::write(home.path().join("file"), "x").unwrap();
    let to = format!("cp:{}", home.path().join("there").display());
    let (code, said) = run(&[&["cp", "file", &to, "--accept-new-host-keys"][..], &way].concat());
    assert_eq!(code, Some(0), "{said}");
    let logins = || [&outer, &gate].map(|hop| hop.log().matches("Accepted publickey").count());
    let before = logins();
    let (code, said) = run(&[&["ssh", "cp"][..], &way, &["--", "echo $SSH_CONNECTION; exit 7"]].concat());
    assert_eq!(code, Some(7), "{said}");
    assert!(said.contains(&format!(" 127.0.0.1 {}", inner.port)), "{said}");
    assert_eq!(logins(), before.map(|n| n + 1), "it went through both");
}
