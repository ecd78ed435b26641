use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Context,
    detour::{Detour, asks_another},
    machine::netns_name,
};
use crate::{
    bundle::{Bundle, Cache},
    cli::{args::KubectlArgs, output, store::Where},
    core::{Arch, Code, Problem, Problems},
    profile::Lab,
};

/// What a kubeconfig may have.
const OF_A_FILE: [&str; 8] =
    ["apiVersion", "clusters", "contexts", "current-context", "extensions", "kind", "preferences", "users"];

/// What a kubeconfig may have of a user: not `exec` and `auth-provider`, by which kubectl runs programs, nor `tokenFile`,
/// whose content it sends to the server.
const OF_A_USER: [&str; 11] = [
    "as",
    "as-groups",
    "as-uid",
    "as-user-extra",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "password",
    "token",
    "username",
];

/// What kubectl listens with, until it is ended.
const LISTENERS: [&str; 2] = ["port-forward", "proxy"];

/// Flags of kubectl before whose word of its own another one stands.
const WITH_VALUE: [&str; 8] =
    ["-n", "--namespace", "--context", "--cluster", "--user", "-s", "--server", "--request-timeout"];

/// `kubecamp kubectl`: the bundle's own kubectl with the lab's kubeconfig, from within the network namespace where the
/// lab's machines are, or through SSH where hosts let nothing else in.
///
/// Passes on its exit code.
pub(super) async fn kubectl(cx: &Context, args: KubectlArgs) -> Result<u8, Problems> {
    let (lab, state) = cx.store.need(&cx.global.name)?;
    let kubeconfig = cx.store.file("kubeconfig");
    if !kubeconfig.exists() {
        let what = format!("the lab {} was reset, or did not come up yet: it has no kubeconfig", lab.name());
        return Err(Problem::new(Code::LabNotUp, what).into());
    }
    let program = program(cx, &lab, state.bundle.as_deref())?;
    if !asks_another(&args.args) {
        must_be_harmless(&kubeconfig, &lab)?;
    }
    let mut command = Command::new(program);
    command.args(&args.args);
    let netns = match state.place {
        Where::Local => cx.provider(&lab, &state).await?.netns().map(Path::to_owned),
        Where::Hosts(_) => {
            if let Some(detour) = Detour::if_needed(cx, &lab, &state, &args).await? {
                command.env("KUBECONFIG", detour.kubeconfig(&kubeconfig)?);
                cx.stop.hand_over();
                let ended = run_beside(command).await;
                detour.close().await;
                return Ok(ended?);
            }
            None
        }
    };
    if let Some(netns) = netns.as_deref().filter(|_| listens(&args.args)) {
        output::say(&within(&netns_name(netns)));
    }
    command.env("KUBECONFIG", kubeconfig);
    Err(become_in(netns.as_deref(), command).into())
}

/// Whether kubectl is to listen at a port, where others are to reach it.
fn listens(args: &[OsString]) -> bool {
    let mut words = args.iter().map(|arg| arg.to_str().unwrap_or_default()).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            return LISTENERS.contains(&word) && !words.any(|word| ["-h", "--help"].contains(&word));
        }
    }
    false
}

/// Who reaches what kubectl listens at in this network namespace.
fn within(netns: &str) -> String {
    format!(
        "note: kubectl listens in the network namespace {netns}, where nothing of this computer reaches it.\n\
         hint: Ask from within, as root in another terminal: ip netns exec {netns} curl -s http://127.0.0.1:PORT."
    )
}

/// Refuses a kubeconfig by which kubectl would do more on this computer than ask a server. An earlier kubecamp copied it from
/// the control plane, where others can be root; contexts and users that kubectl itself wrote into it are the user's own.
fn must_be_harmless(kubeconfig: &Path, lab: &Lab) -> Result<(), Problem> {
    let text = fs::read_to_string(kubeconfig).map_err(|e| {
        Problem::new(Code::LocalFile, format!("cannot read the lab's kubeconfig {}", kubeconfig.display())).because(e)
    })?;
    if is_harmless(&text) {
        return Ok(());
    }
    let what = format!("the lab's kubeconfig {} may have kubectl run a program", kubeconfig.display());
    Err(Problem::new(Code::LocalFile, what)
        .hint(format!("Run kubecamp{} up again, which writes it anew.", lab.name().flag()))
        .hint("For a kubeconfig of your own that you trust: kubecamp kubectl -- --kubeconfig FILE get nodes."))
}

fn is_harmless(text: &str) -> bool {
    if text.trim().is_empty() {
        return true;
    }
    let user = |entry: &Value| {
        let of_a_user = |user: &Value| user.is_null() || user.as_object().is_some_and(|user| known(user, &OF_A_USER));
        entry.as_object().is_some_and(|entry| known(entry, &["name", "user"]))
            && entry.get("user").is_none_or(of_a_user)
    };
    let Ok(Value::Object(file)) = serde_yaml::from_str::<Value>(text) else { return false };
    known(&file, &OF_A_FILE)
        && match file.get("users") {
            None | Some(Value::Null) => true,
            Some(users) => users.as_array().is_some_and(|users| users.iter().all(user)),
        }
}

fn known(map: &Map<String, Value>, keys: &[&str]) -> bool {
    map.keys().all(|key| keys.contains(&key.as_str()))
}

/// Becomes a program, in a network namespace where one is given: whoever signals this process means the program.
///
/// It returns only where that cannot be run.
///
/// The program inherits the namespaces of the thread that starts it.
pub(super) fn become_in(netns: Option<&Path>, mut command: Command) -> Problem {
    let name = name_of(&command);
    let enter = |netns: &Path| -> io::Result<()> {
        let file = fs::File::open(netns)?;
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )?;
        Ok(())
    };
    match netns.map(|netns| (netns, enter(netns))) {
        Some((netns, Err(error))) => shut_out(netns, error),
        _ => cannot_run(&name, command.exec()),
    }
}

/// The problem that the namespace of the lab's machines cannot be entered: the program was never tried.
fn shut_out(netns: &Path, error: io::Error) -> Problem {
    let what = format!("the lab's machines are in the network namespace {}, which cannot be entered", netns.display());
    Problem::new(Code::LocalRoot, what).because(error).hint("Run the same command with sudo.")
}

/// Runs a program to its end with this process's terminal, while other tasks work for it.
///
/// Who asks this process to end means the program, which would go on without them.
async fn run_beside(command: Command) -> Result<u8, Problem> {
    let name = name_of(&command);
    let fail = |e| cannot_run(&name, e);
    let mut child = tokio::process::Command::from(command).spawn().map_err(fail)?;
    // Only now: before, the program would not inherit that nohup has it ignore one.
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(fail)?;
    loop {
        let asked = tokio::select! {
            ended = child.wait() => return ended.map(exit_code).map_err(fail),
            _ = terminate.recv() => Signal::TERM,
            _ = hang_up.recv() => Signal::HUP,
        };
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // One that just ended needs it no more.
            let _ = kill_process(pid, asked);
        }
    }
}

fn name_of(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn cannot_run(name: &str, error: io::Error) -> Problem {
    let problem = Problem::new(Code::LocalTools, format!("{name} could not be run")).because(error);
    if name == "ssh" { problem.hint("Install the OpenSSH client, as the package openssh-client.") } else { problem }
}

/// The exit code to pass on; that of a signal is as shells have it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(70);
    u8::try_from(code).unwrap_or(70)
}

/// kubectl of the lab's own version, unpacked from the bundle once: from that which the lab was made from, else from the
/// usual one of its version; the user's where there is no bundle.
fn program(cx: &Context, lab: &Lab, bundle: Option<&Path>) -> Result<PathBuf, Problem> {
    let cache = Cache::new(&cx.places.cache);
    let arch = super::up::this_arch()?;
    let usual = cache.bundle(&lab.profile().kubernetes, arch);
    let opened = match Bundle::open(bundle.unwrap_or(&usual)) {
        Ok(opened) if opened.manifest().arch == arch => opened,
        // That of the lab's hosts does not run here; the same version's for this computer may be at hand.
        Ok(other) => Bundle::open(&usual).map_err(|_| foreign(lab, other.manifest().arch, arch))?,
        Err(problem) => match Bundle::open(&usual) {
            Ok(same) => same,
            Err(_) => return users_own(lab, problem),
        },
    };
    let Some(member) = opened.member("kubectl") else { return Ok("kubectl".into()) };
    let blob = opened.plain(member);
    let to = cx.places.cache.join("bin").join(format!("kubectl-{}", &blob.sha256()[..16]));
    if !to.exists() {
        opened.unpack("kubectl", &to)?;
    }
    Ok(to)
}

/// The kubectl of the user's `PATH` instead of the one that a bundle would have, which has this `problem`. Nobody knows its
/// version, so that it is said which one the lab asks for.
fn users_own(lab: &Lab, problem: Problem) -> Result<PathBuf, Problem> {
    let version = &lab.profile().kubernetes;
    let is_program =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|of| of.is_file() && of.permissions().mode() & 0o111 != 0);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    if let Some(own) = folders.into_iter().map(|folder| folder.join("kubectl")).find(is_program) {
        output::say(&format!(
            "note: no bundle with the lab's kubectl, {version}, is at hand: {} is run",
            own.display()
        ));
        return Ok(own);
    }
    let flag = lab.name().flag();
    Err(problem
        .hint(format!("Make the bundle of its version: kubecamp bundle build --kubernetes {version}."))
        .hint(format!("Or name another: kubecamp{flag} up --bundle FILE.")))
}

/// The problem that the lab's kubectl is for the hosts' CPU, which is not this computer's.
fn foreign(lab: &Lab, its: Arch, here: Arch) -> Problem {
    let name = lab.name();
    let flag = name.flag();
    let what = format!("the kubectl of the lab's bundle is for {its}, and this computer is {here}");
    let node = &lab.control_plane().name;
    Problem::new(Code::BundleArch, what)
        .hint(format!(
            "Run the lab's own as root on its control plane: kubecamp{flag} ssh {node} -- kubectl --kubeconfig \
             /etc/kubernetes/admin.conf get nodes. Who is not root there writes sudo /usr/local/bin/kubectl."
        ))
        .hint(format!(
            "For one here make the same version's bundle: kubecamp bundle build --kubernetes {}.",
            lab.profile().kubernetes
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: \"team7\"\n  cluster:\n    server: \
        \"https://192.0.2.1:6443\"\n    certificate-authority-data: LS0tCg==\nusers:\n- name: kubernetes-admin\n  user:\n    \
        client-certificate-data: LS0tCg==\n    client-key-data: LS0tCg==\ncontexts: []\ncurrent-context: \"x\"\n";

    #[test]
    fn a_kubeconfig_that_runs_a_program_or_sends_off_a_file_is_refused() {
        let user = |more: &str| OURS.replace("  user:\n", &format!("  user:\n    {more}\n"));
        let own = "- {name: jane, user: {client-certificate: jane.crt, client-key: jane.key}}";
        let users = OURS.replace("users:\n", &format!("users:\n{own}\n- {{name: x, user: {{}}}}\n- name: y\n"));
        let context = OURS.replace("contexts: []", "contexts: [{name: x, context: {cluster: team7, namespace: web}}]");
        let none = "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {}\nusers: null\n";
        for text in ["", "\n", OURS, none, &user("token: abc"), &users, &context] {
            assert!(is_harmless(text), "{text}");
        }
        for text in [
            "[",
            "more: 1",
            "users: [x]",
            "users: {name: x}",
            &user("exec: {command: sh}"),
            &user("\"ex\\x65c\": {command: sh}"),
            &user("!!binary ZXhlYw==: {command: sh}"),
            &user("<<: {exec: {command: sh}}"),
            &user("auth-provider: {name: gcp}"),
            &user("tokenFile: /home/user/.ssh/id_ed25519"),
            &OURS.replace("users:\n", "users:\n- {name: other, user: {exec: {command: sh}}}\n"),
            &format!("{OURS}users: [{{name: kubernetes-admin, user: {{exec: {{command: sh}}}}}}]\n"),
            &format!("{OURS}---\n{OURS}"),
        ] {
            assert!(!is_harmless(text), "{text}");
        }
    }

    #[test]
    fn who_listens_in_a_namespace_is_told_apart() {
        let listens = |line: &str| listens(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for line in ["port-forward svc/web 8080:80", "proxy", "-n dev port-forward x 1", "--v=2 proxy --port=8002"] {
            assert!(listens(line), "{line}");
        }
        for line in ["", "get pods", "-n proxy get pods", "exec x -- proxy", "proxy --help", "get pod proxy"] {
            assert!(!listens(line), "{line}");
        }
        let told = within("kubecamp-297d1a2d");
        assert!(told.starts_with("note: ") && told.contains("ip netns exec kubecamp-297d1a2d curl"), "{told}");
    }

    #[test]
    fn a_namespace_that_cannot_be_entered_lacks_no_program() {
        let problem = become_in(Some(Path::new("/nope")), Command::new("kubectl"));
        assert!(problem.code == Code::LocalRoot && problem.what.contains("/nope"), "{problem}");
        assert!(problem.all_hints()[0].contains("sudo"), "{problem:?}");
    }

    #[test]
    fn a_program_that_is_missing_is_to_be_installed() {
        for (name, word) in [("ssh", "openssh-client"), ("kubectl", "Install what is named")] {
            let hints = cannot_run(name, io::ErrorKind::NotFound.into()).all_hints();
            assert!(hints[0].contains(word), "{hints:?}");
        }
    }
}
