use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

pub use super::args_book::{
    BookCommand, CancelArgs, ChangeArgs, FreeArgs, HubArgs, HubAt, LoginArgs, LogoutArgs, LsArgs, OneOrAll,
    SlotSshArgs, WishArgs,
};
pub use super::args_hub::{AgentArgs, EnrollArgs, UnenrollArgs};
pub use super::args_hub_api::{
    AdminLinkArgs, AuditArgs, CopyArgs, CourseCommand, GroupCommand, MaintenanceArgs, NewServerArgs, PersonChange,
    ServeArgs, ServerChange, ServerCommand, TokenCommand, UserCommand,
};
use super::{args_book::no_lab, output::Format};
use crate::{
    core::{Arch, LabName, NodeId},
    machine::Wanted,
    profile::{Cni, Layout, ProxyMode},
};

/// Kubernetes training labs: up over SSH or on local machines, and the machines given back clean.
#[derive(Debug, Parser)]
#[command(name = "kubecamp", version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, ClapArgs)]
pub struct Global {
    /// The lab.
    #[arg(long, global = true, value_name = "LAB", default_value = "lab", env = "KUBECAMP_LAB")]
    pub name: LabName,
    /// Skip questions.
    #[arg(long, short = 'y', global = true)]
    pub yes: bool,
    /// Plain lines instead of moving ones.
    #[arg(long, global = true)]
    pub plain: bool,
    /// Show steps found done and remote output too.
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Write every event of a run to standard output.
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["ndjson"])]
    pub output_events: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a lab up, or find that it is up.
    Up(UpArgs),
    /// Show the steps that up would take; changes nothing.
    Plan(PlanArgs),
    /// Show a lab's nodes, or all labs.
    Status(StatusArgs),
    /// Look for what would stop up: on this computer, and on the lab's hosts; changes nothing.
    Doctor(DoctorArgs),
    /// Give a lab's hosts back as they were.
    Reset(ResetArgs),
    /// Reset, forget the lab, and remove local machines.
    Down(DownArgs),
    /// Log in to a node, or run a command there.
    Ssh(SshArgs),
    /// Copy a file to a node, verified on arrival.
    Cp(CpArgs),
    /// Run kubectl against the lab.
    Kubectl(KubectlArgs),
    /// Build, inspect and verify bundles.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Local machines and their engine.
    #[command(subcommand)]
    Machine(MachineCommand),
    /// Shipped profiles.
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Past runs of a lab.
    #[command(subcommand)]
    Run(RunCommand),
    /// Sign in at a hub.
    Login(LoginArgs),
    /// Sign out at a hub: its token ends there, and is forgotten here.
    Logout(LogoutArgs),
    /// Book time on shared servers.
    #[command(subcommand, arg = no_lab())]
    Book(BookCommand),
    /// Shared servers that are booked by time slot.
    #[command(subcommand, arg = no_lab())]
    Hub(HubCommand),
    /// Keep this server's door by the hub's plan; the unit of an enrolled server runs it.
    Agent(AgentArgs),
    /// Write a shell's completions to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual page to standard output, or those of all commands to a folder.
    Man {
        /// The folder for a page of each command, as ~/.local/share/man/man1; it is made where it is not there.
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
}

/// What a lab should be and where.
#[derive(Debug, Clone, ClapArgs)]
pub struct UpArgs {
    /// Make machines on this computer.
    #[arg(long, conflicts_with_all = ["host", "hosts"])]
    pub local: bool,
    /// Let the machines made here reach what this computer reaches.
    #[arg(long, conflicts_with_all = ["host", "hosts"])]
    pub outbound: bool,
    /// What the machines made here are: auto (virtual machines where KVM really works, else containers), vm, container.
    #[arg(long, value_name = "KIND", default_value_t, conflicts_with_all = ["host", "hosts"])]
    pub machines: Wanted,
    /// Layout, as nodes x cores c GiB g: 1x4c12g, 2x4c8g or 3x2c4g; by default one node for each host, with --local the
    /// one with the most nodes that this computer holds. Another needs a --profile of your own.
    #[arg(long, value_name = "LAYOUT", conflicts_with = "profile")]
    pub layout: Option<Layout>,
    /// Profile: the name of a shipped one, or a file.
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<String>,
    /// A host as [user@]address[:port] or an ssh_config alias; once per node, the control plane first.
    #[arg(long, value_name = "HOST")]
    pub host: Vec<String>,
    /// A file of hosts.
    #[arg(long, value_name = "FILE", conflicts_with = "host")]
    pub hosts: Option<PathBuf>,
    /// kube-proxy's mode instead of the profile's: iptables, ipvs or nftables.
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub proxy_mode: Option<ProxyMode>,
    /// CNI instead of the profile's: flannel or bridge.
    #[arg(long, value_name = "CNI", value_parser = parse_cni)]
    pub cni: Option<Cni>,
    /// Kubernetes version instead of the profile's.
    #[arg(long, value_name = "VERSION")]
    pub kubernetes: Option<String>,
    /// A bundle file instead of the cached one.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Go on with hosts that are smaller than their layout.
    #[arg(long)]
    pub allow_undersized: bool,
    /// Take over hosts that carry a lab of the same name: yours, whose folder is lost.
    #[arg(long)]
    pub take_over: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// How to log in to hosts.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct ConnectArgs {
    /// A private key to offer first.
    #[arg(long, short, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Take the keys of unknown hosts without asking. They are recorded in the lab's folder; plan makes none for a new lab.
    #[arg(long)]
    pub accept_new_host_keys: bool,
    /// Ask for the sudo password of the hosts.
    #[arg(long)]
    pub ask_sudo_password: bool,
    /// A file whose first line is the sudo password.
    #[arg(long, value_name = "FILE", conflicts_with = "ask_sudo_password")]
    pub sudo_password_file: Option<PathBuf>,
    /// A host to pass through; `none` goes straight there.
    #[arg(long, short = 'J', value_name = "HOST")]
    pub jump: Option<String>,
    /// An ssh_config file instead of the user's.
    #[arg(long, short = 'F', value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct PlanArgs {
    #[command(flatten)]
    pub up: UpArgs,
    /// How the plan is written.
    #[arg(long, short, default_value = "table")]
    pub output: Format,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct StatusArgs {
    /// Every lab, without looking at hosts.
    #[arg(long)]
    pub all: bool,
    /// How the status is written.
    #[arg(long, short, default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct DoctorArgs {
    /// How the findings are written.
    #[arg(long, short, default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct ResetArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct DownArgs {
    /// Forget the lab although its hosts cannot be reset, being gone or another lab's, or its machines' engine is gone.
    #[arg(long)]
    pub forget_unreachable: bool,
    #[command(flatten)]
    pub reset: ResetArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct SshArgs {
    /// The node.
    pub node: NodeId,
    /// A command to run there instead of a shell.
    #[arg(last = true)]
    pub command: Vec<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct CpArgs {
    /// The file.
    pub from: PathBuf,
    /// Where to, as cp:/root/file, or a folder.
    #[arg(value_name = "NODE:/PATH")]
    pub to: String,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Clone, ClapArgs)]
pub struct KubectlArgs {
    /// kubectl's own arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<std::ffi::OsString>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Make a bundle, or find that it is made.
    Build(BuildArgs),
    /// List what is in a bundle.
    Inspect {
        /// The bundle's file; none for the default version's in the cache.
        file: Option<PathBuf>,
        /// How the list is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
    /// Check every digest of a bundle.
    Verify {
        /// The bundle's file; none for the default version's in the cache.
        file: Option<PathBuf>,
        /// How the result is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
}

#[derive(Debug, Clone, ClapArgs)]
pub struct BuildArgs {
    /// Kubernetes version.
    #[arg(long, value_name = "VERSION", default_value = crate::bundle::DEFAULT_KUBERNETES)]
    pub kubernetes: String,
    /// CPU architecture: amd64 or arm64; this computer's by default.
    #[arg(long, value_name = "ARCH", value_parser = parse_arch)]
    pub arch: Option<Arch>,
    /// Where the parts come from.
    #[arg(long, value_name = "SOURCE", default_value = "auto", value_parser = ["auto", "upstream", "modules"])]
    pub source: String,
    /// A Go module from a folder instead, as k8s.io/kubernetes=DIR; implies modules.
    #[arg(long, value_name = "MODULE=DIR")]
    pub replace: Vec<String>,
    /// The file to write.
    // Without a letter: -o is --output everywhere else.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// List the machines that kubecamp made.
    #[command(alias = "ls")]
    List {
        /// How the list is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
    /// Make a lab's machines without Kubernetes: to set it up by hand, or with `kubecamp up --local` later.
    Make(MakeArgs),
    /// The private engine.
    #[command(subcommand)]
    Engine(EngineCommand),
}

/// What machines to make.
#[derive(Debug, Clone, ClapArgs)]
pub struct MakeArgs {
    /// Layout, as nodes x cores c GiB g: 1x4c12g, 2x4c8g or 3x2c4g; the one with the most nodes that this
    /// computer holds by default.
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// What they are: auto (virtual machines where KVM really works, else containers), vm, container.
    #[arg(long, value_name = "KIND", default_value_t)]
    pub machines: Wanted,
    /// Debian release of the machines, on a computer with Debian; elsewhere they have the computer's own.
    #[arg(long, value_name = "RELEASE", value_parser = ["trixie", "bookworm"])]
    pub suite: Option<String>,
    /// Make a user of this name too, with the lab's key and sudo.
    #[arg(long, value_name = "USER", value_parser = parse_user)]
    pub sudo_user: Option<String>,
    /// A file whose first line sudo asks that user for; without it sudo asks for nothing.
    #[arg(long, value_name = "FILE", requires = "sudo_user")]
    pub sudo_password_file: Option<PathBuf>,
    /// Let the machines reach what this computer reaches.
    #[arg(long)]
    pub outbound: bool,
    /// Go on where this computer has less than the machines ask for.
    #[arg(long)]
    pub allow_undersized: bool,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum EngineCommand {
    /// Start it.
    Start {
        /// Let its machines reach what this computer reaches, until it stops.
        #[arg(long)]
        outbound: bool,
    },
    /// Stop it and its machines, after a question; nothing of it stays but its folder.
    Stop,
    /// Say how it is.
    Status {
        /// How that is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum ProfileCommand {
    /// List the shipped profiles.
    #[command(alias = "ls")]
    List {
        /// How the list is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
    /// Write a shipped profile to standard output, to change and use.
    Show {
        /// Its name.
        profile: String,
    },
    /// Check a profile's file.
    Check {
        /// The file.
        file: String,
        /// How the result is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
    /// Write the JSON Schema of profiles to standard output, for an editor.
    Schema,
}

#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// List the runs of a lab.
    #[command(alias = "ls")]
    List {
        /// How the list is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
    /// Show where the time of a run went, the last one by default.
    Show {
        /// The run.
        run: Option<String>,
        /// Each step too.
        #[arg(long)]
        steps: bool,
        /// How it is written.
        #[arg(long, short, default_value = "table")]
        output: Format,
    },
}

#[derive(Debug, Subcommand)]
pub enum HubCommand {
    /// Run the hub.
    Serve(ServeArgs),
    /// Make the first admin, or a new sign-in link for one; needs the database at hand.
    AdminLink(AdminLinkArgs),
    /// People.
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens: sign-ins at the terminal and in browsers, calendar feeds, scripts.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Groups of people who share a quota.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Courses with their rules and rosters.
    #[command(subcommand)]
    Course(CourseCommand),
    /// Servers.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Show who did what.
    Audit(AuditArgs),
    /// Check all records of the hub against each other.
    Doctor {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Make a server one whose students come in by their slots only.
    Enroll(Box<EnrollArgs>),
    /// Take the gate off a server again; the hub where you are signed in as an admin is told.
    Unenroll(UnenrollArgs),
}

fn parse_mode(text: &str) -> Result<ProxyMode, String> {
    match text {
        "iptables" => Ok(ProxyMode::Iptables),
        "ipvs" => Ok(ProxyMode::Ipvs),
        "nftables" => Ok(ProxyMode::Nftables),
        _ => {
            let why = ProxyMode::why_not(text).map(|why| format!("{why}; ")).unwrap_or_default();
            Err(format!("{why}use iptables, ipvs or nftables"))
        }
    }
}

fn parse_cni(text: &str) -> Result<Cni, String> {
    match text {
        "flannel" => Ok(Cni::Flannel),
        "bridge" => Ok(Cni::Bridge),
        _ => Err("use flannel or bridge".into()),
    }
}

fn parse_user(text: &str) -> Result<String, String> {
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    match text.bytes().next() {
        Some(first) if first.is_ascii_lowercase() && text.len() <= 32 && text.bytes().all(sound) => Ok(text.to_owned()),
        _ => Err("a user's name begins with a letter and has lower-case letters, digits, - and _".into()),
    }
}

fn parse_arch(text: &str) -> Result<Arch, String> {
    Arch::from_uname(text).ok_or_else(|| "use amd64 or arm64".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::profile::Layout;

    #[test]
    fn the_tree_is_sound() {
        super::Args::command().debug_assert();
    }

    #[test]
    fn the_help_names_the_layouts_that_there_are() {
        let root = super::Args::command();
        for words in [&["up"][..], &["plan"], &["machine", "make"]] {
            let command = words.iter().fold(&root, |at, word| at.find_subcommand(word).unwrap());
            let help =
                command.get_arguments().find(|a| a.get_id().as_str() == "layout").and_then(|a| a.get_help()).unwrap();
            let help = help.to_string();
            assert!(Layout::SHIPPED.iter().all(|layout| help.contains(&layout.to_string())), "{words:?}: {help}");
        }
    }
}
