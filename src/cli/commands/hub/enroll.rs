use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        Context, first_line,
        login::{key_file, public_half},
    },
    gate_run::{GateRun, frame},
    on_sale,
};
use crate::{
    bundle::Bundle,
    cli::{
        args::{EnrollArgs, HubAt, UnenrollArgs},
        ask::confirm,
        hub_client::HubClient,
        output,
    },
    core::{Blob, Code, LabName, Problem, Problems, Secret},
    flows,
    hub::gate::{
        self,
        agent::{Config, LEAST_POLL, MOST_POLL},
    },
    machine::Wanted,
    phases::{Enrolment, GateLeave, GateMachines, gate_paths::HOME},
    profile::{self, Mirror},
};

/// Every public key by which the server's sshd proves itself. Some releases answer only who names a connection, where a
/// block of theirs asks for its port.
const HOST_KEYS: &str = "sshd=$(command -v sshd || echo /usr/sbin/sshd); at=127.0.0.1\n\
                         { \"$sshd\" -T || \"$sshd\" -T -C \"user=root,host=$at,addr=$at,laddr=$at,lport=22\"; } 2>/dev/null | sed -n 's/^hostkey //p' | while read -r f; do cat \"$f.pub\" 2>/dev/null; done; true";

/// `kubecamp hub enroll`.
pub(super) async fn enroll(cx: &Context, args: EnrollArgs) -> Result<(), Problems> {
    let mut files = Files::read(&args)?;
    let hub = hub_of(cx, &args)?;
    files.hub_ca = authority(files.hub_ca, &args.hub, hub.as_ref().and_then(HubClient::authority));
    let question = format!(
        "Enroll puts the gate on {}: members of the group {} then come in by their slots only, and what they run outside \
         of them is ended. The key in {} lets {} in at any time.{}\nGo on?",
        args.host,
        args.group,
        files.admin_file.display(),
        args.admin,
        of_containers(args.machines)
    );
    confirm(cx.global.yes, &question).await?;
    let with = enrolment(&args, &files, hub.as_ref()).await?;
    let hide = [with.token.clone()];
    let (flow, look) = (flows::enroll(with), format!("{HOST_KEYS}\n{}", has_kvm(HOME)));
    let run = GateRun {
        flow: "hub-enroll",
        host: &args.host,
        server: &args.server,
        connect: &args.connect,
        phases: &flow,
        secrets: &hide,
        look: &look,
    };
    let shown = run.carry_out(cx, async {}).await?;
    tell_host_keys(hub.as_ref(), &args.server, &shown).await?;
    if let Some(hub) = &hub
        && let Some(said) = on_sale::begin(hub, &args.server).await
    {
        output::say(&said);
    }
    if let Some(said) = made_as(args.machines, &shown) {
        output::say(said);
    }
    let host = args.host.to_string();
    // ssh's own form, in which a port may stand.
    let address = host.rsplit_once('@').map_or(host.as_str(), |(_, address)| address);
    output::say(&format!(
        "{host} is the hub's server {}. Its agent's log: journalctl -u kubecamp-agent there.\n\
         Next: try the break-glass key, ssh ssh://{}@{address}.",
        args.server, args.admin
    ));
    Ok(())
}

/// What a question says of labs in containers, before anybody knows what the server can.
fn of_containers(kind: Option<Wanted>) -> &'static str {
    match kind {
        Some(Wanted::Auto) => {
            " Where KVM does not work there, its labs are made in containers, whose root is as good as the server's; \
             --machines vm refuses that."
        }
        Some(Wanted::Container) => " Its labs are made in containers, whose root is as good as the server's.",
        Some(Wanted::Vm) | None => "",
    }
}

/// Shell text that says whether KVM worked when a lab was made in this home.
fn has_kvm(home: &str) -> String {
    format!("if grep -qs '\"works\": *true' {home}/cache/kvm.json; then echo kvm works; else echo no kvm; fi")
}

/// What is said of labs that are made in containers where nobody asked for these, by what the server showed.
fn made_as(kind: Option<Wanted>, shown: &str) -> Option<&'static str> {
    let is_auto = kind == Some(Wanted::Auto) && shown.lines().any(|line| line == "no kvm");
    is_auto.then_some("KVM does not work there: its labs are containers, whose root is as good as the server's.")
}

/// `kubecamp hub unenroll`.
pub(super) async fn unenroll(cx: &Context, args: UnenrollArgs) -> Result<(), Problems> {
    let hub = told_hub(cx, &args)?;
    let accounts = match args.remove_accounts {
        true => "removes the accounts of its members with their homes",
        false => "closes the accounts of its members and keeps their homes",
    };
    let hears = hub.as_ref().map(|hub| format!(" The hub {} sells no more time of {}.", hub.hub(), args.server));
    let group = args.group.as_ref().map_or("its group of students".to_owned(), |group| format!("the group {group}"));
    let question = format!(
        "Unenroll takes the gate off {}, ends whatever members of {group} run there, removes their labs, and \
         {accounts}.{}\nGo on?",
        args.host,
        hears.unwrap_or_default()
    );
    confirm(cx.global.yes, &question).await?;
    let (at, server) = (hub.as_ref(), &args.server);
    let mut told = on_sale::untold(at, server);
    // Before the gate goes: nobody is to get a slot that nothing opens. But not where the server lets nobody in, as one
    // that was mistyped: its gate stays, and so do its bookings.
    let tell = async { told = on_sale::end(at, server).await };
    let found: Arc<OnceLock<String>> = Arc::default();
    let leave = GateLeave { group: args.group, remove_accounts: args.remove_accounts, found: Arc::clone(&found) };
    let flow = flows::unenroll(leave);
    let run = GateRun {
        flow: "hub-unenroll",
        host: &args.host,
        server,
        connect: &args.connect,
        phases: &flow,
        secrets: &[],
        look: "",
    };
    let ended = run.carry_out(cx, tell).await;
    output::say(&told);
    ended?;
    // Only now: where the gate stayed, so did they.
    if let Some(hub) = at
        && let Some(said) = on_sale::forget_labs(hub, server).await
    {
        output::say(&said);
    }
    let stays = what_stays(found.get().map_or("", String::as_str), args.remove_accounts);
    output::say(&format!("{} has no gate any more. {stays}", args.host));
    Ok(())
}

/// What unenrolling leaves on a server.
fn what_stays(group: &str, remove_accounts: bool) -> String {
    let accounts = match remove_accounts {
        true => String::new(),
        false => format!("the group {group}, the accounts of its members, closed, and their homes; "),
    };
    format!("What stays there: {accounts}packages that labs needed, with a source of apt where one was added for them.")
}

/// The hub that is to hear that a server leaves it, where somebody is signed in.
fn told_hub(cx: &Context, args: &UnenrollArgs) -> Result<Option<HubClient>, Problem> {
    Ok(HubClient::if_known(&cx.places, &args.at)?.filter(HubClient::is_signed_in))
}

/// The hub as this computer reaches it, where somebody is signed in: at the address that the server gets, else at that of
/// the last login, since a server may know the hub by another address.
fn hub_of(cx: &Context, args: &EnrollArgs) -> Result<Option<HubClient>, Problem> {
    let named = |hub| HubAt { hub, hub_ca: args.hub_ca.clone(), insecure: args.insecure };
    let same = HubClient::new(&cx.places, &named(Some(args.hub.clone())))?;
    if same.is_signed_in() {
        return Ok(Some(same));
    }
    let last = HubClient::if_known(&cx.places, &named(None))?.filter(HubClient::is_signed_in);
    if let Some(last) = &last {
        output::say(&format!("Keys and token are those of the hub {}, where you are signed in.", last.hub()));
    }
    Ok(last)
}

/// The authority of the hub's certificate, in PEM: the one that was named, else that of the admin's own sign-in at this hub,
/// where the agent is to ask it by HTTPS.
fn authority(named: Option<String>, hub: &str, of_login: Option<&str>) -> Option<String> {
    named.or_else(|| of_login.filter(|_| hub.starts_with("https://")).map(str::to_owned))
}

/// What was named on the command line, read: bad input changes nothing.
struct Files {
    token: Option<Secret>,
    user_ca: Option<String>,
    plan_key: Option<String>,
    admin_key: String,
    admin_file: PathBuf,
    hub_ca: Option<String>,
    more: Option<String>,
    program: PathBuf,
}

impl Files {
    fn read(args: &EnrollArgs) -> Result<Self, Problems> {
        let admin_file = match &args.admin_key {
            Some(file) => file.clone(),
            None => public_half(&key_file(args.connect.identity.clone())?),
        };
        let mut found = vec![];
        let token = ok(args.token_file.as_deref().map(first_line), &mut found);
        let user_ca = ok(args.user_ca.as_deref().map(public_line), &mut found);
        let plan_key = ok(args.plan_key.as_deref().map(public_line), &mut found);
        let admin_key = ok(Some(public_line(&admin_file)), &mut found);
        let hub_ca = ok(args.hub_ca.as_deref().map(read), &mut found);
        let more = ok(args.agent_config.as_deref().map(read), &mut found);
        let own = || {
            std::env::current_exe()
                .map_err(|e| Problem::new(Code::LocalFile, "this program's own file is not to be found").because(e))
        };
        let program = ok(Some(args.program.clone().map_or_else(own, Ok)), &mut found);
        if !gate::is_account(&args.group) || !gate::is_account(&format!("x{}", args.admin)) {
            found.push(Problem::new(Code::Usage, "--group and --admin are plain Unix names"));
        }
        let machines = |text: &String| text.lines().any(|l| l.starts_with("machines:"));
        if args.machines.is_some() && more.as_ref().is_some_and(machines) {
            found.push(Problem::new(Code::Usage, "--machines and --agent-config both say how machines are made"));
        }
        ok(args.bundle.as_deref().map(Bundle::open), &mut found);
        if let Err(problems) = profile::with_mirrors(&frame(), mirrors_of(&args.mirror)) {
            found.extend(problems.into_vec());
        }
        Problems::check(found)?;
        let (admin_key, program) = (admin_key.unwrap_or_default(), program.unwrap_or_default());
        let files = Self { token, user_ca, plan_key, admin_key, admin_file, hub_ca, more, program };
        check(&draft(args, &files).agent_yaml((9, 2)))?;
        Ok(files)
    }
}

/// Refuses a configuration that the agent would not read, which ends slots that run there, and one that asks the hub too often
/// for no-shows to be found, or too seldom for an outage to be seen.
fn check(config: &str) -> Result<(), Problem> {
    let read = Config::parse(config, "what --agent-config makes").map_err(|p| {
        p.hint(
            "Correct that file: it has keys of the agent's configuration, and none that hub enroll writes by itself.",
        )
    })?;
    let poll = read.poll;
    let why = match poll {
        ..LEAST_POLL => "with which the hub finds nobody to be a no-show",
        LEAST_POLL..=MOST_POLL => return Ok(()),
        _ => "with which the hub would not know whether the server is there",
    };
    let what = format!("--agent-config has a poll of {poll} s, {why}");
    let hint = format!("Leave it out, which means 5, or use {LEAST_POLL} to {MOST_POLL}.");
    Err(Problem::new(Code::GateConfig, what).hint(hint))
}

/// The value, or its problem among the others.
fn ok<T>(value: Option<Result<T, Problem>>, found: &mut Vec<Problem>) -> Option<T> {
    match value? {
        Ok(value) => Some(value),
        Err(problem) => {
            found.push(problem);
            None
        }
    }
}

/// What the hub says of its gate.
#[derive(Deserialize)]
struct GateKeys {
    user_ca: String,
    plan_key: String,
}

#[derive(Deserialize)]
struct MadeToken {
    token: String,
}

/// What the server is enrolled with, as far as the command line says it. Any key stands for those that the hub is asked for.
fn draft(args: &EnrollArgs, files: &Files) -> Enrolment {
    let insecure = if args.insecure { "insecure: true\n" } else { "" };
    let or_any = |key: &Option<String>| key.clone().unwrap_or_else(|| files.admin_key.clone());
    Enrolment {
        server: args.server.to_string(),
        hub: args.hub.clone(),
        own_port: gate::loopback_port(&args.hub),
        token: Secret::new(""),
        user_ca: or_any(&files.user_ca),
        plan_key: or_any(&files.plan_key),
        hub_ca: files.hub_ca.clone(),
        admin_key: files.admin_key.clone(),
        admin: args.admin.clone(),
        program: files.program.clone(),
        group: args.group.clone(),
        permit_open: args.permit_open.clone(),
        exempt: args.exempt.clone(),
        labs: args.machines.map(|kind| GateMachines {
            kind,
            bundle: None,
            outbound: args.outbound,
            mirrors: mirrors_of(&args.mirror),
            keep: args.keep_labs,
        }),
        more: format!("{insecure}{}", files.more.as_deref().unwrap_or_default()),
    }
}

/// What the server is enrolled with; the hub is asked for what no file was named for.
async fn enrolment(args: &EnrollArgs, files: &Files, hub: Option<&HubClient>) -> Result<Enrolment, Problem> {
    let asked = || {
        let what = "nobody is signed in at the hub, so it cannot be asked for its keys and the agent's token";
        hub.ok_or_else(|| {
            Problem::new(Code::Usage, what)
                .hint("Sign in as an admin: kubecamp login --hub URL.")
                .hint("Or name --token-file, --user-ca and --plan-key.")
        })
    };
    let (user_ca, plan_key) = match (files.user_ca.clone(), files.plan_key.clone()) {
        (Some(user_ca), Some(plan_key)) => (user_ca, plan_key),
        (user_ca, plan_key) => {
            let keys: GateKeys = asked()?.get("/api/v1/gate").await?;
            (user_ca.unwrap_or(keys.user_ca), plan_key.unwrap_or(keys.plan_key))
        }
    };
    for line in [&user_ca, &plan_key] {
        gate::public_key(line)?;
    }
    // Before a token is made that nobody would use.
    let bundle = args.bundle.as_deref().map(blob).transpose()?;
    let token = match files.token.clone() {
        Some(token) => token,
        None => {
            let path = format!("/api/v1/servers/{}/agent-token", args.server);
            let made: MadeToken = asked()?.secret(&path, &json!({})).await?;
            Secret::new(made.token)
        }
    };
    let mut with = draft(args, files);
    if let Some(labs) = &mut with.labs {
        labs.bundle = bundle;
    }
    Ok(Enrolment { token, user_ca, plan_key, ..with })
}

/// The mirrors as a profile names them: each registry once, its endpoints in their order.
fn mirrors_of(named: &[Mirror]) -> Vec<Mirror> {
    let mut mirrors: Vec<Mirror> = vec![];
    for one in named {
        match mirrors.iter_mut().find(|known| known.registry == one.registry) {
            Some(known) => known.endpoints.extend(one.endpoints.iter().cloned()),
            None => mirrors.push(one.clone()),
        }
    }
    mirrors
}

/// Tells the hub who the server is, so that `book ssh` asks nobody about it.
async fn tell_host_keys(hub: Option<&HubClient>, server: &LabName, shown: &str) -> Result<(), Problem> {
    let keys: Vec<&str> = shown.lines().map(str::trim).filter(|line| gate::public_key(line).is_ok()).collect();
    let Some(hub) = hub.filter(|_| !keys.is_empty()) else {
        output::say("The hub was not told the server's host keys: book ssh asks about them at the first login.");
        return Ok(());
    };
    let path = format!("/api/v1/servers/{server}/host-keys");
    let told: Result<Value, Problem> = hub.send(Method::PUT, &path, &json!({ "keys": keys }), None).await;
    told.map(drop).map_err(|p| p.detail(["the server is enrolled; only its host keys are not at the hub"]))
}

fn read(file: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(file).map_err(|e| unreadable(file, e))
}

fn blob(file: &Path) -> Result<Blob, Problem> {
    Blob::from_file(file).map_err(|e| unreadable(file, e))
}

fn unreadable(file: &Path, error: std::io::Error) -> Problem {
    Problem::new(Code::LocalFile, format!("cannot read {}", file.display())).because(error)
}

fn public_line(file: &Path) -> Result<String, Problem> {
    let text = read(file)?;
    gate::public_key(&text).map_err(|p| p.detail([format!("in {}", file.display())]))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_agent_would_not_read_is_refused_and_one_that_asks_too_often_or_seldom() {
        let key = gate::HubKey::generate("plan").unwrap().public_line().unwrap();
        let with = |more: &str| check(&format!("server: s1\nplan-key: {key}\ngroup: kubecamp-students\n{more}"));
        for good in ["", "poll: 4\n", "poll: 10\n", "lead: 900\n", "commands:\n  limit: 1\n"] {
            assert!(with(good).is_ok(), "{good:?}");
        }
        for bad in ["poll: 1\n", "poll: 11\n", "lead: 900\npoll: 3\ncommands: {reset: [a, b]}\n"] {
            let refused = with(bad).unwrap_err();
            assert!(refused.code == Code::GateConfig && refused.all_hints()[0].contains("4 to 10"), "{bad:?}");
        }
        for bad in ["poll: soon\n", "poll: 0\n", "evict_limit: 60\n", "group: x\n", "lead\n", "- lead\n"] {
            let refused = with(bad).unwrap_err();
            assert!(refused.code == Code::GateConfig && refused.all_hints()[0].contains("that file"), "{bad:?}");
        }
    }

    #[test]
    fn the_agent_knows_the_hub_by_the_authority_of_the_sign_in_unless_another_is_named() {
        let of = |named: Option<&str>, hub, login| authority(named.map(str::to_owned), hub, login);
        assert_eq!(of(None, "https://hub", Some("login")).as_deref(), Some("login"));
        assert_eq!(of(Some("named"), "https://hub", Some("login")).as_deref(), Some("named"));
        assert_eq!(of(None, "https://hub", None), None);
        assert_eq!(of(None, "unix:/run/hub.sock", Some("login")), None, "nothing there has a certificate");
    }

    #[test]
    fn containers_are_told_where_nobody_asked_for_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cache")).unwrap();
        let home = dir.path().display().to_string();
        let shown = || {
            let ran = std::process::Command::new("sh").arg("-c").arg(has_kvm(&home)).output().unwrap();
            String::from_utf8(ran.stdout).unwrap()
        };
        let auto = Some(Wanted::Auto);
        assert!(made_as(auto, &shown()).is_some(), "nothing was tried");
        let keep = |works: bool| {
            std::fs::write(dir.path().join("cache/kvm.json"), format!(r#"{{"kvm":{{"works":{works}}}}}"#))
        };
        keep(false).unwrap();
        assert!(made_as(auto, &shown()).is_some());
        for other in [None, Some(Wanted::Vm), Some(Wanted::Container)] {
            assert!(made_as(other, &shown()).is_none(), "{other:?}");
        }
        keep(true).unwrap();
        assert!(made_as(auto, &shown()).is_none());
        assert!(made_as(auto, "").is_none(), "the server was not looked at");
        let asked =
            [None, Some(Wanted::Vm), auto, Some(Wanted::Container)].map(|kind| of_containers(kind).contains("root"));
        assert_eq!(asked, [false, false, true, true]);
    }

    #[test]
    fn endpoints_of_one_registry_stand_together() {
        let mirror = |registry: &str, endpoints: &[&str]| Mirror {
            registry: registry.into(),
            endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
        };
        let named = [mirror("a.io", &["https://1"]), mirror("b.io", &["https://2"]), mirror("a.io", &["https://3"])];
        assert_eq!(mirrors_of(&named), [mirror("a.io", &["https://1", "https://3"]), mirror("b.io", &["https://2"])]);
        let wrong = profile::with_mirrors(&frame(), vec![mirror("a.io", &["ftp://x"])]).unwrap_err();
        assert!(wrong.to_string().contains("only http and https work"), "{wrong}");
    }
}
