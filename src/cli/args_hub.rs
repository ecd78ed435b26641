use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::{args::ConnectArgs, args_book::HubAt};
use crate::{core::LabName, machine::Wanted, phases::gate_paths, profile::Mirror};

/// What a server is enrolled with.
#[derive(Debug, Clone, ClapArgs)]
pub struct EnrollArgs {
    /// The server as [user@]address[:port] or an ssh_config alias.
    #[arg(value_name = "HOST")]
    pub host: String,
    /// Where the server finds the hub: https://..., http://... or unix:/path.
    #[arg(long, value_name = "URL", value_parser = parse_hub)]
    pub hub: String,
    /// The server's name at the hub.
    #[arg(long, value_name = "NAME")]
    pub server: LabName,
    /// A file whose first line is the agent's token at the hub; a new one of the hub by default.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The public key of the hub's user CA; the hub is asked for it by default.
    #[arg(long, value_name = "FILE")]
    pub user_ca: Option<PathBuf>,
    /// The public key that the hub signs plans with; the hub is asked for it by default.
    #[arg(long, value_name = "FILE")]
    pub plan_key: Option<PathBuf>,
    /// The certificate of the hub's own authority for HTTPS, in PEM; that of your own sign-in at the hub by default.
    #[arg(long, value_name = "FILE")]
    pub hub_ca: Option<PathBuf>,
    /// Let the agent ask a hub on another computer by http://, where whoever is on the way reads its token.
    #[arg(long)]
    pub insecure: bool,
    /// The public key that lets an admin in whatever the gate does; that of --identity or of ~/.ssh by default.
    #[arg(long, value_name = "FILE")]
    pub admin_key: Option<PathBuf>,
    /// Whose authorized_keys gets the admin's key.
    #[arg(long, value_name = "USER", default_value = "root")]
    pub admin: String,
    /// The group of students' accounts.
    #[arg(long, value_name = "GROUP", default_value = "kubecamp-students", value_parser = parse_group)]
    pub group: String,
    /// HOST:PORT that students may reach through the server; may be repeated.
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_word)]
    pub permit_open: Vec<String>,
    /// A network whose wrong tries sshd does not punish, as a classroom behind one address; may be repeated.
    #[arg(long, value_name = "CIDR", value_parser = parse_word)]
    pub exempt: Vec<String>,
    /// Let the agent make the labs in machines on the server: auto (virtual machines where KVM really works, else
    /// containers), vm, container.
    #[arg(long, value_name = "KIND")]
    pub machines: Option<Wanted>,
    /// The bundle that those labs are made from; without it the server fetches or builds one.
    #[arg(long, value_name = "FILE", requires = "machines")]
    pub bundle: Option<PathBuf>,
    /// Let the machines of those labs reach what the server reaches, as for images that are not in the bundle.
    #[arg(long, requires = "machines")]
    pub outbound: bool,
    /// Where new labs get a registry's images that are not in the bundle, as docker.io=https://mirror.example; may be
    /// repeated, and is asked in this order.
    #[arg(long, value_name = "REGISTRY=URL", value_parser = parse_mirror, requires = "machines")]
    pub mirror: Vec<Mirror>,
    /// For how many days a lab is kept whose holder has no slot there; 60 by default, 0 is for ever.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=3650), requires = "machines")]
    pub keep_labs: Option<u32>,
    /// More lines of the agent's configuration, YAML.
    #[arg(long, value_name = "FILE")]
    pub agent_config: Option<PathBuf>,
    /// The kubecamp program for the server instead of this one.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Which server leaves.
#[derive(Debug, Clone, ClapArgs)]
pub struct UnenrollArgs {
    /// The server as [user@]address[:port] or an ssh_config alias.
    #[arg(value_name = "HOST")]
    pub host: String,
    /// The server's name at the hub.
    #[arg(long, value_name = "NAME")]
    pub server: LabName,
    /// The group of students' accounts; that of the enrolment by default.
    #[arg(long, value_name = "GROUP", value_parser = parse_group)]
    pub group: Option<String>,
    /// Remove the students' accounts with their homes, and the group; else they are closed and kept.
    #[arg(long)]
    pub remove_accounts: bool,
    #[command(flatten)]
    pub at: HubAt,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// How the agent runs.
#[derive(Debug, Clone, ClapArgs)]
pub struct AgentArgs {
    /// Its configuration.
    #[arg(long, value_name = "FILE", default_value = gate_paths::CONFIG)]
    pub config: PathBuf,
    /// Read the configuration, say what is wrong with it, and end.
    #[arg(long)]
    pub check: bool,
    /// Ask the hub that the configuration names whether it answers, without the token, and end.
    #[arg(long, conflicts_with = "check")]
    pub reach: bool,
}

fn parse_hub(text: &str) -> Result<String, String> {
    let known = ["https://", "http://", "unix:/"].iter().any(|p| text.starts_with(p) && text.len() > p.len());
    if known && !text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Ok(text.to_owned())
    } else {
        Err("use https://NAME, http://NAME or unix:/PATH".into())
    }
}

/// The address at which people reach a hub: it goes into links, and tells its own pages from other sites.
pub fn parse_site(text: &str) -> Result<String, String> {
    let plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let good = |url: reqwest::Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    if plain && reqwest::Url::parse(text).is_ok_and(good) {
        Ok(text.to_owned())
    } else {
        Err("use https://NAME or http://NAME, as https://hub.example.org".into())
    }
}

/// One endpoint of a registry; what is wrong with either the profile's rules say.
fn parse_mirror(text: &str) -> Result<Mirror, String> {
    let (registry, url) = text.split_once('=').ok_or("use REGISTRY=URL, as docker.io=https://mirror.example")?;
    Ok(Mirror { registry: registry.to_owned(), endpoints: vec![url.to_owned()] })
}

/// What goes into a line of sshd's configuration as one word.
fn parse_word(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-_/[]*".contains(c);
    if !text.is_empty() && text.chars().all(plain) { Ok(text.to_owned()) } else { Err("this is not an address".into()) }
}

/// A group's name that is one word, and no pattern, in sshd's configuration, and itself in the agent's.
fn parse_group(text: &str) -> Result<String, String> {
    let other = |c: char| c.is_control() || c.is_whitespace() || "\"'\\#*?!,:".contains(c);
    if text.is_empty() || text.starts_with('-') || text.contains(other) {
        Err("this is not a group's name".into())
    } else {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_group, parse_site};

    #[test]
    fn a_groups_name_is_one_word_and_no_pattern() {
        for good in ["kubecamp-students", "students@corp.example", "étudiants", "lab_1", "$(reboot)"] {
            assert_eq!(parse_group(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "-x",
            "domain users",
            "a\nb",
            "a\u{1b}b",
            "a\"b",
            "CORP\\students",
            "*",
            "a,b",
            "a:b",
            "#a",
            "!a",
            "a'b",
        ] {
            assert!(parse_group(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hubs_address_is_one_that_a_browser_opens() {
        for good in ["https://hub.example.org", "http://192.0.2.7:8420/", "https://[2001:db8::1]"] {
            assert_eq!(parse_site(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "hub.example.org",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://",
            "https://a b",
            "https://hub\r\nX: y",
            "https://user:pw@hub",
            "https://hub/?a=b",
            "https://hub/#a",
            "unix:/run/hub.sock",
        ] {
            assert!(parse_site(bad).is_err(), "{bad:?}");
        }
    }
}
