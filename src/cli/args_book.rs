use std::{path::PathBuf, str::FromStr};

use clap::{Arg, Args as ClapArgs, Subcommand};

use super::{args::Global, output::Format};
use crate::{
    hub::domain::{BookingId, CourseId, PersonId, SeriesId, ServerId, Zone},
    profile::Layout,
};

/// The flag that names a lab, for commands to which no lab means anything: it is taken as everywhere, and their help is
/// silent about it.
pub(super) fn no_lab() -> Arg {
    let all = Global::augment_args(clap::Command::new("kubecamp"));
    let name = all.get_arguments().find(|arg| arg.get_id().as_str() == "name").cloned();
    name.unwrap_or_else(|| Arg::new("name")).hide(true)
}

/// Which hub, and how it is asked.
#[derive(Debug, Clone, ClapArgs)]
pub struct HubAt {
    /// The hub: https://NAME, http://NAME or unix:/PATH; the one of the last login by default.
    #[arg(long, value_name = "URL", env = "KUBECAMP_HUB")]
    pub hub: Option<String>,
    /// The certificate of the hub's own authority for HTTPS, in PEM.
    #[arg(long, value_name = "FILE", env = "KUBECAMP_HUB_CA")]
    pub hub_ca: Option<PathBuf>,
    /// Ask a hub on another computer by http://, where whoever is on the way reads your token.
    #[arg(long)]
    pub insecure: bool,
}

/// Which hub, and how its data is written.
#[derive(Debug, Clone, ClapArgs)]
pub struct HubArgs {
    #[command(flatten)]
    pub at: HubAt,
    /// How data is written.
    #[arg(long, short, default_value = "table")]
    pub output: Format,
}

/// How to sign in.
#[derive(Debug, Clone, ClapArgs)]
pub struct LoginArgs {
    /// Your login at the hub; the name on this computer by default.
    #[arg(long = "as", value_name = "LOGIN")]
    pub person: Option<PersonId>,
    /// The SSH key that the hub knows; the first of id_ed25519, id_ecdsa and id_rsa in ~/.ssh by default. A key in the
    /// agent is named by its .pub file.
    #[arg(long, short, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Ask for the text of a one-time link instead of a key.
    #[arg(long, conflicts_with_all = ["person", "identity"])]
    pub link: bool,
    /// A public SSH key to add to yours at the hub once you are signed in, as ~/.ssh/id_ed25519.pub.
    #[arg(long, value_name = "FILE")]
    pub add_key: Option<PathBuf>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// How to sign out.
#[derive(Debug, Clone, ClapArgs)]
pub struct LogoutArgs {
    /// Forget the sign-in on this computer also where the hub cannot be told; its token stays good then.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// A wish for a slot.
#[derive(Debug, Clone, ClapArgs)]
pub struct WishArgs {
    /// When it starts: 14:00 for today, 2026-11-24T14:00, or with Z or an offset.
    #[arg(value_name = "START")]
    pub start: String,
    /// How long, as 90m, 2h or 1h30m.
    #[arg(long = "for", value_name = "LENGTH", value_parser = parse_minutes, default_value = "2h", allow_hyphen_values = true)]
    pub minutes: u32,
    /// On which server; any that fits by default.
    #[arg(long, value_name = "SERVER")]
    pub server: Option<ServerId>,
    /// The lab, as 2x4c8g; the one that is saved on the server by default, else the one with the most nodes that fits.
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// A label that the server must have; may be repeated.
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// For whom; for teachers.
    #[arg(long, value_name = "LOGIN")]
    pub person: Option<PersonId>,
    /// In which course, for somebody who is in several.
    #[arg(long, value_name = "COURSE")]
    pub course: Option<CourseId>,
    /// Why a teacher goes past quota, notice and opening hours.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The time zone of START and of what is shown; this computer's by default.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<Zone>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// A booking and why it is changed.
#[derive(Debug, Clone, ClapArgs)]
pub struct ChangeArgs {
    /// The booking.
    pub id: BookingId,
    /// Why; a teacher says it when the booking is somebody else's.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only if the booking still has this version.
    #[arg(long = "if-version", value_name = "NUMBER")]
    pub seen: Option<i64>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// A booking, or all of a recurrence: the hub's ids begin with another letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OneOrAll {
    /// A booking.
    One(BookingId),
    /// A recurrence.
    All(SeriesId),
}

impl FromStr for OneOrAll {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('s') { text.parse().map(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// What is given up, and why.
#[derive(Debug, Clone, ClapArgs)]
pub struct CancelArgs {
    /// The booking; or the recurrence, whose id begins with s and stands in book ls -o wide: all of it that is ahead.
    #[arg(value_name = "ID")]
    pub id: OneOrAll,
    /// Why; a teacher says it when the booking is somebody else's.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only if the booking still has this version.
    #[arg(long = "if-version", value_name = "NUMBER")]
    pub seen: Option<i64>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// Into the server of a slot.
#[derive(Debug, Clone, ClapArgs)]
pub struct SlotSshArgs {
    /// The booking.
    #[arg(value_name = "ID")]
    pub id: Option<BookingId>,
    /// The SSH key to certify; the first of id_ed25519, id_ecdsa and id_rsa in ~/.ssh by default. A key in the agent is named
    /// by its .pub file.
    #[arg(long, short, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Print an ssh_config for ssh, scp and editors instead, whose host is kubecamp-ID.
    #[arg(long, conflicts_with = "command")]
    pub config: bool,
    /// Write that ssh_config to a file of its own instead.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub write: Option<PathBuf>,
    /// Do not wait where the lab is still brought up: end with 14 then.
    #[arg(long, conflicts_with_all = ["config", "write"])]
    pub no_wait: bool,
    /// A command to run there instead of a shell.
    #[arg(last = true)]
    pub command: Vec<String>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// Which bookings are listed.
#[derive(Debug, Clone, ClapArgs)]
pub struct LsArgs {
    /// Everybody's.
    #[arg(long)]
    pub all: bool,
    /// Also those that are over.
    #[arg(long)]
    pub past: bool,
    /// On this server.
    #[arg(long, value_name = "SERVER")]
    pub server: Option<ServerId>,
    /// The time zone of what is shown; this computer's by default.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<Zone>,
    #[command(flatten)]
    pub hub: HubArgs,
}

/// Which free slots are looked for.
#[derive(Debug, Clone, ClapArgs)]
pub struct FreeArgs {
    /// How long, as 90m, 2h or 1h30m.
    #[arg(long = "for", value_name = "LENGTH", value_parser = parse_minutes, default_value = "2h", allow_hyphen_values = true)]
    pub minutes: u32,
    /// On which server; any that fits by default.
    #[arg(long, value_name = "SERVER")]
    pub server: Option<ServerId>,
    /// The lab, as 2x4c8g.
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<Layout>,
    /// A label that the server must have; may be repeated.
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// From when on: 14:00 for today, 2026-11-24T14:00, or with Z or an offset; now by default, with the step that runs
    /// where it can be booked.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// The time zone of --from and of what is shown; this computer's by default.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<Zone>,
    /// How many, 1 to 200.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub most: u16,
    /// In which course, for somebody who is in several.
    #[arg(long, value_name = "COURSE")]
    pub course: Option<CourseId>,
    #[command(flatten)]
    pub hub: HubArgs,
}

#[derive(Debug, Subcommand)]
pub enum BookCommand {
    /// List your bookings.
    #[command(alias = "list")]
    Ls(LsArgs),
    /// List free slots, earliest first.
    Free(FreeArgs),
    /// Book a slot.
    New {
        #[command(flatten)]
        wish: WishArgs,
        /// The same for so many weeks, all or none.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=52))]
        weeks: Option<u16>,
    },
    /// Give a slot up before it begins, or all of a recurrence, or leave the waitlist.
    Cancel(CancelArgs),
    /// End a running slot now; one that has not begun is cancelled.
    Release(ChangeArgs),
    /// Move a slot's end back; a teacher's reason goes past quotas and opening hours.
    Extend {
        #[command(flatten)]
        change: ChangeArgs,
        /// By how much, as 30m.
        #[arg(long, value_name = "LENGTH", value_parser = parse_minutes, allow_hyphen_values = true)]
        by: u32,
    },
    /// Wait for a slot that is taken.
    Wait(WishArgs),
    /// Say yes to a slot that the waitlist offers.
    Accept {
        /// The booking.
        id: BookingId,
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Give a slot to somebody of the same course.
    Give {
        #[command(flatten)]
        change: ChangeArgs,
        /// To whom.
        #[arg(long, value_name = "LOGIN")]
        to: PersonId,
    },
    /// Move a slot that its server does not take; without START, say why and list what is free instead.
    Move {
        #[command(flatten)]
        change: ChangeArgs,
        /// When it is to start: 14:00 for today, 2026-11-24T14:00, or with Z or an offset.
        #[arg(value_name = "START")]
        start: Option<String>,
        /// To which server; the free one that starts then by default.
        #[arg(long, value_name = "SERVER")]
        server: Option<ServerId>,
        /// The time zone of START and of what is shown; this computer's by default.
        #[arg(long, value_name = "ZONE")]
        zone: Option<Zone>,
    },
    /// Log in to the server of a slot, the one that runs now by default.
    Ssh(SlotSshArgs),
    /// Make a calendar feed of your slots; the feed made before ends.
    Ics {
        #[command(flatten)]
        hub: HubArgs,
    },
    /// Plan a whole class fairly; books nothing without --book.
    Plan {
        /// A file with course, layout, minutes, slots, within and wishes, YAML or JSON; times as for book new.
        file: PathBuf,
        /// Book every slot of the plan, or none where one is gone; who has such a slot already gets none for it, and who gets
        /// none at all is named on standard error.
        #[arg(long)]
        book: bool,
        /// Why the plan goes past notice and the bookings that a person may have ahead.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        hub: HubArgs,
    },
}

impl BookCommand {
    /// The time zone that is named for it.
    pub fn zone(&self) -> Option<&Zone> {
        match self {
            Self::Ls(LsArgs { zone, .. }) | Self::Free(FreeArgs { zone, .. }) | Self::Move { zone, .. } => {
                zone.as_ref()
            }
            Self::New { wish, .. } | Self::Wait(wish) => wish.zone.as_ref(),
            _ => None,
        }
    }
}

/// Reads `90m`, `2h` or `1h30m`.
pub fn parse_minutes(text: &str) -> Result<u32, String> {
    let bad = || "write it as 90m, 2h or 1h30m".to_owned();
    let (hours, rest) = text.split_once('h').unwrap_or(("0", text));
    let minutes = if rest.is_empty() { "0" } else { rest.strip_suffix('m').ok_or_else(bad)? };
    let number = |t: &str| t.parse::<u32>().ok().filter(|n| *n <= 100_000).ok_or_else(bad);
    let all = if text.starts_with('-') { 0 } else { number(hours)? * 60 + number(minutes)? };
    if all == 0 { Err("it is to last some time: write it as 90m, 2h or 1h30m".into()) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{OneOrAll, parse_minutes};
    use crate::cli::args::Args;

    #[test]
    fn a_recurrence_is_told_from_a_booking() {
        assert_eq!("b7k2".parse(), Ok(OneOrAll::One("b7k2".parse().unwrap())));
        assert_eq!("s7k2".parse(), Ok(OneOrAll::All("s7k2".parse().unwrap())));
        assert!("".parse::<OneOrAll>().is_err() && "S1".parse::<OneOrAll>().is_err());
    }

    #[test]
    fn no_help_of_bookings_names_a_lab() {
        let help = |words: &str| {
            let words = ["kubecamp"].into_iter().chain(words.split(' ')).chain(["-h"]);
            Args::try_parse_from(words).unwrap_err().to_string()
        };
        for words in ["book", "book ls", "hub", "hub server list"] {
            assert!(!help(words).contains("--name <LAB>") && help(words).contains("--yes"), "{words}");
        }
        assert!(help("up").contains("--name <LAB>"));
        for words in ["--name x book ls", "book --name x ls", "book ls --name x"] {
            let args = Args::try_parse_from(["kubecamp"].into_iter().chain(words.split(' '))).unwrap();
            assert_eq!(args.global.name.as_str(), "x", "{words}");
        }
    }

    #[test]
    fn lengths_are_read() {
        assert_eq!(["90m", "2h", "1h30m"].map(parse_minutes), [Ok(90), Ok(120), Ok(90)]);
        for bad in ["", "h", "m", "2", "0h", "1h30", "-1h", "2d", "99999999999h"] {
            assert!(parse_minutes(bad).is_err(), "{bad}");
        }
        for nothing in ["0h", "-15m"] {
            assert!(parse_minutes(nothing).unwrap_err().contains("last some time"), "{nothing}");
        }
        let args = ["kubecamp", "book", "extend", "b7k2", "--by", "-15m"];
        let told = Args::try_parse_from(args).unwrap_err().to_string();
        assert!(told.contains("last some time"), "it is taken for no flag: {told}");
    }
}
