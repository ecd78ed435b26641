use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{args_book::HubArgs, args_hub::parse_site};
use crate::{
    core::Bytes,
    hub::{
        domain::{CourseId, GroupId, Health, Mode, OpeningHours, PersonId, Role, ServerId, Zone},
        http::Listen,
    },
};

/// How the hub runs.
#[derive(Debug, Clone, ClapArgs)]
pub struct ServeArgs {
    /// Where to listen: ADDRESS:PORT or unix:/PATH.
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:8420")]
    pub listen: Listen,
    /// The database: sqlite://PATH or postgres://...; a SQLite file in the data folder by default.
    #[arg(long, value_name = "URL", env = "KUBECAMP_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// The TLS certificate and its chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The address that people type, as https://hub.example.org.
    #[arg(long, value_name = "URL", value_parser = parse_site)]
    pub public_url: Option<String>,
    /// A proxy in front of the hub does TLS and sets X-Forwarded-For.
    #[arg(long)]
    pub behind_proxy: bool,
    /// The folder of the gate's two private keys, made when missing; `keys` beside the data by default.
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    #[command(flatten)]
    pub copies: CopyArgs,
    /// Requests per second for each client, with bursts of eight times as many; 0 is without limit.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub rate: u32,
    /// How the log is written: lines or JSON.
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"], default_value = "text")]
    pub log: String,
}

/// What is copied before tables of an older edition are changed.
#[derive(Debug, Clone, ClapArgs)]
pub struct CopyArgs {
    /// The folder for copies of a PostgreSQL, made by pg_dump before its tables are changed; `backups` beside the data by
    /// default.
    #[arg(long, value_name = "DIR")]
    pub backups: Option<PathBuf>,
    /// Change the tables of a PostgreSQL without making a copy: you have one.
    #[arg(long, conflicts_with = "backups")]
    pub backed_up: bool,
}

/// The first admin, or one who lost the key.
#[derive(Debug, Clone, ClapArgs)]
pub struct AdminLinkArgs {
    /// The admin's login; made when there is none.
    #[arg(value_name = "LOGIN")]
    pub login: PersonId,
    /// The hub's database, as for serve.
    #[arg(long, value_name = "URL", env = "KUBECAMP_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    #[command(flatten)]
    pub copies: CopyArgs,
    /// The address that people type, for the link.
    #[arg(long, value_name = "URL", value_parser = parse_site)]
    pub public_url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// List everybody.
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Add somebody.
    Add {
        /// The login.
        login: PersonId,
        /// The full name.
        #[arg(long, value_name = "TEXT")]
        full_name: String,
        /// What they may do.
        #[arg(long, value_name = "ROLE", default_value = "student", value_parser = parse_role)]
        role: Role,
        /// A file with their public SSH key; may be repeated.
        #[arg(long, value_name = "FILE")]
        key: Vec<PathBuf>,
        /// The zone that their pages show.
        #[arg(long, value_name = "ZONE")]
        zone: Option<Zone>,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Make a one-time sign-in link, good for 15 minutes.
    Link {
        /// For whom.
        login: PersonId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Change somebody; what is not named stays as it is.
    Set {
        /// Whom.
        login: PersonId,
        #[command(flatten)]
        change: PersonChange,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Close an account; its tokens end, and what it has booked is given up. Asks first where there is any.
    Disable {
        /// Whose.
        login: PersonId,
        #[command(flatten)]
        hub: HubArgs,
    },
}

/// What becomes another of somebody.
#[derive(Debug, Clone, ClapArgs)]
#[group(required = true, multiple = true)]
pub struct PersonChange {
    /// The full name.
    #[arg(long, value_name = "TEXT")]
    pub full_name: Option<String>,
    /// What they may do; their tokens end.
    #[arg(long, value_name = "ROLE", value_parser = parse_role)]
    pub role: Option<Role>,
    /// A file with a public SSH key, instead of all that they have; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// The zone that their pages show.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<Zone>,
    /// Open an account that was closed.
    #[arg(long)]
    pub enable: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List your tokens that are good, newest first; never their text.
    #[command(alias = "list")]
    Ls {
        /// Somebody else's; for teachers.
        #[arg(long, value_name = "LOGIN")]
        person: Option<PersonId>,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// End a token of yours, as that of a lost laptop; an admin ends anybody's.
    Revoke {
        /// The token, by its id in the list.
        #[arg(value_name = "ID", value_parser = parse_token)]
        token: String,
        #[command(flatten)]
        hub: HubArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups and their members.
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Add a group to a course.
    Add {
        /// The group.
        group: GroupId,
        /// The course.
        #[arg(long, value_name = "COURSE")]
        course: CourseId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Put somebody into a group; they leave their other one of its course.
    Join {
        /// The group.
        group: GroupId,
        /// Who.
        login: PersonId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Remove a group that has no bookings ahead; its members leave it. Asks first where there are any.
    Remove {
        /// The group.
        group: GroupId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Take somebody out of a group.
    Leave {
        /// The group.
        group: GroupId,
        /// Who.
        login: PersonId,
        #[command(flatten)]
        hub: HubArgs,
    },
}

#[derive(Debug, Subcommand)]
pub enum CourseCommand {
    /// List the courses and their rules.
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Add a course or change its title or rules; what is not named stays as it is.
    Set {
        /// The course.
        course: CourseId,
        /// Its title; a new course needs one.
        #[arg(long, value_name = "TEXT")]
        title: Option<String>,
        /// A file of rules, YAML; what it does not name has its default.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Import students from a CSV: login,name,group[,zone[,ssh key]].
    Import {
        /// The course.
        course: CourseId,
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        hub: HubArgs,
    },
}

/// A new server.
#[derive(Debug, Clone, ClapArgs)]
pub struct NewServerArgs {
    /// Its name.
    pub server: ServerId,
    /// Where SSH reaches it.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub address: String,
    /// Cores.
    #[arg(long, value_name = "NUMBER")]
    pub cores: u32,
    /// Memory, as 32GiB.
    #[arg(long, value_name = "SIZE")]
    pub memory: Bytes,
    /// Disk for the machines of labs, as 200GiB: each needs 30GiB. By default it is not looked at.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<Bytes>,
    /// exclusive: one holder at a time; shared: several labs at once, each counting its memory and one machine's cores.
    #[arg(long, value_name = "MODE", default_value = "exclusive", value_parser = parse_mode)]
    pub mode: Mode,
    /// Opening hours, as "mon-fri 08:00-22:00".
    #[arg(long, value_name = "HOURS", default_value = "always")]
    pub opening: OpeningHours,
    /// The zone of the opening hours and of the raster.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub zone: Zone,
    /// Minutes that stay free after each booking.
    #[arg(long, value_name = "MINUTES", default_value_t = 10)]
    pub buffer: u32,
    /// A word that a booking can ask for; may be repeated.
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Only for this course.
    #[arg(long, value_name = "COURSE")]
    pub course: Option<CourseId>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// When a server is closed for work on it, or which of such times are listed or ended.
#[derive(Debug, Clone, ClapArgs)]
pub struct MaintenanceArgs {
    /// The server.
    #[arg(required_unless_present_any = ["list", "end"])]
    pub server: Option<ServerId>,
    /// From when: 14:00 for today, 2026-11-24T14:00, or with Z or an offset.
    #[arg(long, value_name = "TIME", required_unless_present_any = ["list", "end"])]
    pub from: Option<String>,
    /// Until when, written the same way.
    #[arg(long, value_name = "TIME", required_unless_present_any = ["list", "end"])]
    pub to: Option<String>,
    /// The time zone of --from and --to; this computer's by default.
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["list", "end"])]
    pub zone: Option<Zone>,
    /// Why; shown to people.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["list", "end"])]
    pub reason: Option<String>,
    /// List what is ahead, of the server or of all.
    #[arg(long, conflicts_with_all = ["from", "to", "reason", "end"])]
    pub list: bool,
    /// End the maintenance of this number, one of the server where that is named too.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["from", "to", "reason"])]
    pub end: Option<i64>,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// List the servers.
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Add a server.
    Add(NewServerArgs),
    /// Change a server; what is not named stays as it is.
    Set {
        /// The server.
        server: ServerId,
        #[command(flatten)]
        change: ServerChange,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Remove a server that has no bookings ahead; its agent's token ends.
    Remove {
        /// The server.
        server: ServerId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Take a server out of use or back into use; it also ends a quarantine.
    Health {
        /// The server.
        server: ServerId,
        /// healthy, away, or quarantined: why, only teachers see then.
        #[arg(value_parser = parse_health)]
        health: Health,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Close a server for a while, list when servers are closed, or open one again.
    Maintenance(MaintenanceArgs),
    /// Make the token of a server's agent; the one before ends when this one is first used.
    Token {
        /// The server.
        server: ServerId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Write the gate's public keys, for hub enroll.
    Keys {
        #[command(flatten)]
        hub: HubArgs,
    },
}

/// What becomes another of a server.
#[derive(Debug, Clone, ClapArgs)]
#[group(required = true, multiple = true)]
pub struct ServerChange {
    /// Where SSH reaches it.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub address: Option<String>,
    /// Cores.
    #[arg(long, value_name = "NUMBER")]
    pub cores: Option<u32>,
    /// Memory, as 32GiB.
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Disk for the machines of labs, as 200GiB.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<Bytes>,
    /// Do not look at the disk any more.
    #[arg(long, conflicts_with = "disk")]
    pub no_disk: bool,
    /// exclusive: one holder at a time; shared: several labs at once, each counting its memory and one machine's cores.
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<Mode>,
    /// Opening hours, as "mon-fri 08:00-22:00".
    #[arg(long, value_name = "HOURS")]
    pub opening: Option<OpeningHours>,
    /// The zone of the opening hours and of the raster.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<Zone>,
    /// Minutes that stay free after each booking.
    #[arg(long, value_name = "MINUTES")]
    pub buffer: Option<u32>,
    /// A word that a booking can ask for, instead of all that it has; may be repeated.
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// No labels any more.
    #[arg(long, conflicts_with = "label")]
    pub no_labels: bool,
    /// Only for this course.
    #[arg(long, value_name = "COURSE")]
    pub course: Option<CourseId>,
    /// For all courses.
    #[arg(long, conflicts_with = "course")]
    pub any_course: bool,
}

/// Which rows of the audit.
#[derive(Debug, Clone, ClapArgs)]
pub struct AuditArgs {
    /// On what, as booking:ID or server:NAME; with person:LOGIN also what concerns them, as links and slots.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// By whom: a login, agent:SERVER, clerk or console.
    #[arg(long, value_name = "ACTOR")]
    pub actor: Option<String>,
    /// How many, 1 to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub most: u32,
    #[command(flatten)]
    pub hub: HubArgs,
}

fn parse_token(text: &str) -> Result<String, String> {
    let good = (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if good { Ok(text.to_owned()) } else { Err("use an id of kubecamp hub token ls, as t0123456789abcdef".into()) }
}

fn parse_role(text: &str) -> Result<Role, String> {
    word(text).ok_or_else(|| "use student, teacher or admin".into())
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    word(text).ok_or_else(|| "use exclusive or shared".into())
}

fn parse_health(text: &str) -> Result<Health, String> {
    word(text).ok_or_else(|| "use healthy, away or quarantined".into())
}

fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(text.into()).ok()
}
