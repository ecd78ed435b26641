use std::{
    env, fs,
    io::{self, IsTerminal},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
};

use reqwest::{Method, Url};
use russh::keys::{HashAlg, PublicKey};
use serde::Deserialize;
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command, task::spawn_blocking};

use super::Context;
use crate::{
    cli::{args::LoginArgs, ask::Terminal, hub_client::HubClient, hub_login::say_variable, output},
    core::{Code, Problem, Problems, Secret},
    hub::{
        desk::Challenge,
        domain::{Person, PersonId},
        gate,
    },
    transport::Ask,
};

#[derive(Deserialize)]
struct Made {
    token: String,
}

/// `kubecamp login`: proves who one is by an SSH key or a one-time link, and keeps the token.
pub(super) async fn login(cx: &Context, args: LoginArgs) -> Result<(), Problems> {
    let client = HubClient::for_login(&cx.places, &args.hub.at)?;
    // Looked at before a link is used up.
    let new = args.add_key.as_deref().map(new_key).transpose()?;
    let made: Made = if args.link {
        let link =
            spawn_blocking(link_text).await.map_err(|e| Problem::new(Code::Internal, "a question").because(e))??;
        let body = json!({ "link": link.expose() });
        client.secret("/api/v1/sign-in/link", &body).await.map_err(link_refused)?
    } else {
        let person = person(args.person)?;
        let asked: Challenge =
            client.send(Method::POST, "/api/v1/sign-in/challenge", &json!({ "person": person }), None).await?;
        check_meant(client.hub(), &asked.text)?;
        let key = key_file(args.identity)?;
        let signature = sign(&key, &asked.text).await?;
        let label = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let body = json!({ "challenge": asked.text, "signature": signature, "label": label });
        client.secret("/api/v1/sign-in/answer", &body).await.map_err(|problem| key_refused(problem, &person, &key))?
    };
    client.keep(&made.token)?;
    let signed_in = HubClient::of_login(&cx.places, &args.hub.at)?
        .ok_or_else(|| Problem::new(Code::LocalFile, "the sign-in that was just kept is gone"))?;
    let me: Person = signed_in.get("/api/v1/me").await?;
    output::say(&format!("Signed in at {} as {} ({}).", client.hub(), me.id, me.role.as_str()));
    if let Some((file, line)) = &new {
        add_key(&signed_in, me, file, line).await?;
    }
    say_variable();
    Ok(())
}

/// Refuses to sign what another hub would take: the challenge names the hub that made it, and one that is reached by https
/// is reached by that name. This computer's own ports may be tunnels to it, and its sockets are nobody else's.
fn check_meant(asked: &str, challenge: &str) -> Result<(), Problem> {
    if asked.starts_with("unix:") {
        return Ok(());
    }
    let Some(named) = challenge.rsplit(' ').next().filter(|word| word.starts_with("https://")) else { return Ok(()) };
    let (Ok(asked), Ok(hub)) = (asked.parse::<Url>(), named.parse::<Url>()) else { return Ok(()) };
    let here = matches!(asked.host_str(), Some("localhost" | "[::1]"))
        || asked.host_str().is_some_and(|host| host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback()));
    if here || asked.origin() == hub.origin() {
        return Ok(());
    }
    let (asked, hub) = (asked.origin().ascii_serialization(), hub.origin().ascii_serialization());
    Err(Problem::new(Code::HubSignIn, format!("{asked} asks for a signature that is for the hub at {hub}"))
        .hint(format!("Sign in where your course is: kubecamp login --hub {hub}."))
        .hint("If both are the same hub, an admin gives it the address that people use: hub serve --public-url."))
}

/// What may be wrong with a link. The hub does not tell, so that nobody learns anything by trying.
fn link_refused(problem: Problem) -> Problem {
    if problem.code != Code::HubSignIn {
        return problem;
    }
    Problem::new(
        Code::HubSignIn,
        "the hub does not take this link: it was used, is older than 15 minutes, or is not whole",
    )
    .hint("Ask a teacher or an admin for a new one: kubecamp hub user link LOGIN.")
    .hint("Who has a key at the hub needs none: kubecamp login --as LOGIN.")
}

/// What may be wrong with a key, and which one it was.
fn key_refused(problem: Problem, person: &PersonId, key: &Path) -> Problem {
    if problem.code != Code::HubSignIn {
        return problem;
    }
    let public = fs::read_to_string(public_half(key)).ok().and_then(|line| PublicKey::from_openssh(line.trim()).ok());
    let print = public.map(|key| format!(" ({})", key.fingerprint(HashAlg::Sha256))).unwrap_or_default();
    let what = format!("the hub does not let {person} in by the key {}{print}", key.display());
    Problem::new(Code::HubSignIn, what)
        .hint("Name your login at the hub, and the key that it has of you: --as LOGIN --identity FILE.")
        .hint("A key that only an agent holds is named by its .pub file; ssh-add -l lists them.")
        .hint(
            "Where the hub has no key of you, ask a teacher for a one-time link: kubecamp login --link --add-key FILE.",
        )
}

/// The public key in a file that is named by either of its halves.
fn new_key(file: &Path) -> Result<(PathBuf, String), Problem> {
    let file = public_half(file);
    let line = fs::read_to_string(&file)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", file.display())).because(e))?;
    gate::public_key(&line).map_err(|p| p.detail([format!("in {}", file.display())]))?;
    Ok((file, line))
}

/// Adds a public key to one's own; one that the hub knows already changes nothing.
async fn add_key(client: &HubClient, me: Person, file: &Path, line: &str) -> Result<(), Problem> {
    if me.has_key(line) {
        output::say(&format!("The hub knows the key in {} already.", file.display()));
        return Ok(());
    }
    let keys: Vec<String> = me.keys.into_iter().chain([line.trim().to_owned()]).collect();
    let _: Person = client.send(Method::PUT, "/api/v1/me/keys", &json!({ "keys": keys }), Some(me.version)).await?;
    output::say(&format!("Added the key in {}: from now on it signs you in.", file.display()));
    Ok(())
}

/// The public half of a key that is named by either of its files.
pub(super) fn public_half(key: &Path) -> PathBuf {
    if key.extension().is_some_and(|e| e == "pub") {
        return key.to_owned();
    }
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// The private half of a key that is named by either of its files, where it is there; one that only an agent holds is named
/// by its public half.
pub(super) fn private_half(key: &Path) -> PathBuf {
    let private = key.with_extension("");
    if public_half(key) == key && private.exists() { private } else { key.to_owned() }
}

/// The link's secret from the terminal or standard input: an argument would show in the process list.
fn link_text() -> Result<Secret, Problem> {
    let text = match Terminal.secret("text of the one-time link") {
        Some(text) => text,
        None if io::stdin().is_terminal() => Secret::new(""),
        None => Secret::new(io::read_to_string(io::stdin()).unwrap_or_default()),
    };
    let last = text.expose().trim().rsplit('#').next().unwrap_or_default().to_owned();
    if last.is_empty() { Err(Problem::new(Code::Usage, "the link is empty")) } else { Ok(Secret::new(last)) }
}

fn person(named: Option<PersonId>) -> Result<PersonId, Problem> {
    match named {
        Some(person) => Ok(person),
        None => {
            let Some(user) = env::var("USER").ok().filter(|user| !user.is_empty()) else {
                return Err(Problem::new(Code::Usage, "who you are at the hub is not known here")
                    .hint("Name your login at the hub: --as LOGIN."));
            };
            user.parse().map_err(|why| Problem::new(Code::Usage, why).hint("Name your login at the hub: --as LOGIN."))
        }
    }
}

/// The keys in `~/.ssh` of which the first that is there counts; the help of `--identity` names them.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// The key that was named, or the first of the usual ones.
pub(super) fn key_file(named: Option<PathBuf>) -> Result<PathBuf, Problem> {
    let home = env::home_dir().unwrap_or_default();
    let usual = USUAL.map(|name| home.join(".ssh").join(name));
    let none = || {
        Problem::new(Code::Usage, "there is no SSH key")
            .hint("Name one with --identity, or make one: ssh-keygen -t ed25519.")
    };
    named.or_else(|| usual.into_iter().find(|file| file.exists())).ok_or_else(none)
}

/// Signs by ssh-keygen: it knows agents, pass phrases and security keys.
async fn sign(key: &Path, text: &str) -> Result<String, Problem> {
    let fail = || Problem::new(Code::GateKey, format!("ssh-keygen cannot sign with {}", key.display()));
    let mut child = Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", "kubecamp-login", "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| fail().because(e))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes()).await.map_err(|e| fail().because(e))?;
    }
    let ended = child.wait_with_output().await.map_err(|e| fail().because(e))?;
    if !ended.status.success() {
        return Err(fail());
    }
    String::from_utf8(ended.stdout).map_err(|e| fail().because(e))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::Args;

    #[test]
    fn the_help_names_every_key_that_is_tried() {
        let root = Args::command();
        let ssh = root.find_subcommand("book").and_then(|book| book.find_subcommand("ssh"));
        for command in [root.find_subcommand("login"), ssh] {
            let identity = command.unwrap().get_arguments().find(|arg| arg.get_id().as_str() == "identity").unwrap();
            let help = identity.get_help().unwrap().to_string();
            assert!(USUAL.iter().all(|key| help.contains(key)), "{help}");
        }
    }

    #[test]
    fn a_key_is_named_by_either_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let [key, public, lone] = ["key", "key.pub", "agents.pub"].map(|name| dir.path().join(name));
        for file in [&key, &public, &lone] {
            fs::write(file, "").unwrap();
        }
        assert_eq!([&key, &public].map(|named| private_half(named)), [key.clone(), key.clone()]);
        assert_eq!([&key, &public].map(|named| public_half(named)), [public.clone(), public]);
        assert_eq!(private_half(&lone), lone, "an agent holds it");
    }

    #[test]
    fn nothing_is_signed_for_another_hub() {
        let refused = |asked: &str, challenge: &str| check_meant(asked, challenge).err().map(|p| p.code);
        let of = "kubecamp-login amy N0nce https://hub.example";
        for asked in [
            "https://hub.example",
            "https://hub.example:443/",
            "http://127.0.0.1:8420",
            "http://localhost:1",
            "http://[::1]:8420",
            "unix:/run/kubecamp/hub.sock",
        ] {
            assert_eq!(refused(asked, of), None, "{asked}");
        }
        for asked in
            ["https://hub.example.evil.example", "https://hub.example:8443", "http://hub.example", "http://192.0.2.1"]
        {
            assert_eq!(refused(asked, of), Some(Code::HubSignIn), "{asked}");
        }
        // A hub that was told no address names none, and one by http could be anybody in any case.
        assert_eq!(refused("https://other.example", "kubecamp-login amy N0nce"), None);
        assert_eq!(refused("http://192.0.2.1", "kubecamp-login amy N0nce http://192.0.2.2:8420"), None);
        let told = check_meant("https://false.example", of).unwrap_err();
        assert!(
            told.what.contains("https://false.example asks for a signature that is for the hub at https://hub.example")
        );
    }
}
