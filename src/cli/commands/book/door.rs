use std::{
    fs,
    path::{Path, PathBuf},
};

use russh::keys::{Certificate, PublicKey};
use serde::Deserialize;

use super::super::ssh::word;
use crate::{
    cli::store::write_whole,
    core::{Code, Problem, shell::printable},
    hub::domain::{BookingId, Epoch, host_and_port},
};

/// What the hub gives for a slot.
#[derive(Debug, Deserialize)]
pub(super) struct Granted {
    certificate: String,
    address: String,
    account: String,
    /// When the certificate is of no use any more.
    pub ends: Epoch,
    /// The keys by which the server proves itself, where the hub knows them.
    #[serde(default)]
    host_keys: Vec<String>,
}

/// The way through a slot's door as ssh reads it, with the files that it needs on this computer.
#[derive(Debug)]
pub(super) struct Door {
    /// The host of the configuration.
    pub name: String,
    host: String,
    port: u16,
    account: String,
    key: PathBuf,
    folder: PathBuf,
    /// Whether the hub said who the server is.
    pinned: bool,
}

/// The name under which ssh looks the host keys up: the hub's word counts, whatever the server's address is.
const ALIAS: &str = "kubecamp-booked-server";
/// How a configuration of ours begins, so that no other file is replaced by one.
const MARK: &str = "# kubecamp book ssh:";
const CERTIFICATE: &str = "key-cert.pub";
const KNOWN: &str = "known_hosts";
const CONFIG: &str = "ssh_config";

impl Door {
    /// Keeps what the hub gave in the slot's folder under `slots`, in place of what was there.
    ///
    /// What other slots have there goes once they are over.
    pub(super) fn keep(
        slots: &Path,
        id: &BookingId,
        key: &Path,
        granted: &Granted,
        now: Epoch,
    ) -> Result<Self, Problem> {
        forget_past(slots, now);
        let fail = |e: std::io::Error| {
            Problem::new(Code::LocalFile, format!("cannot write into {}", slots.display())).because(e)
        };
        let (host, port) = place(&granted.address, &granted.account)?;
        let door = Self {
            name: format!("kubecamp-{id}"),
            host,
            port,
            account: granted.account.clone(),
            key: std::path::absolute(key).map_err(fail)?,
            folder: std::path::absolute(slots.join(id.as_str())).map_err(fail)?,
            pinned: !granted.host_keys.is_empty(),
        };
        // It comes first: by it the folder of a killed run is found and removed.
        write_certificate(&door.folder, granted).map_err(fail)?;
        write_whole(&door.folder.join(KNOWN), &known_hosts(&granted.host_keys)).map_err(fail)?;
        write_whole(&door.folder.join(CONFIG), &door.config()).map_err(fail)?;
        Ok(door)
    }

    /// What is said of the host, by the words of ssh_config.
    fn options(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("Port", self.port.to_string()),
            ("User", self.account.clone()),
            ("IdentityFile", word(&self.key)),
            ("IdentitiesOnly", "yes".to_owned()),
            ("CertificateFile", word(&self.folder.join(CERTIFICATE))),
        ];
        if self.pinned {
            all.push(("UserKnownHostsFile", word(&self.folder.join(KNOWN))));
            let fixed = [
                ("HostKeyAlias", ALIAS),
                ("GlobalKnownHostsFile", "/dev/null"),
                ("StrictHostKeyChecking", "yes"),
                ("UpdateHostKeys", "no"),
            ];
            all.extend(fixed.map(|(name, value)| (name, value.to_owned())));
        }
        all
    }

    /// ssh's arguments up to the host.
    pub(super) fn arguments(&self) -> Vec<String> {
        let options = self.options().into_iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
        options.chain(["--".to_owned(), self.host.clone()]).collect()
    }

    /// The same for a file that ssh, scp and editors read.
    pub(super) fn config(&self) -> String {
        let mut text =
            format!("{MARK} run it again after an extension.\nHost {}\n    HostName {}\n", self.name, self.host);
        for (name, value) in self.options() {
            text.push_str(&format!("    {name} {value}\n"));
        }
        text
    }

    /// Writes it where the user wants it; a file that is not of ours is not replaced.
    pub(super) fn write_to(&self, file: &Path) -> Result<(), Problem> {
        let fail =
            |e: std::io::Error| Problem::new(Code::LocalFile, format!("cannot write {}", file.display())).because(e);
        match fs::read_to_string(file) {
            Ok(text) if !text.is_empty() && !text.starts_with(MARK) => {
                let what = format!("{} is there, and is no configuration that book ssh wrote", file.display());
                return Err(Problem::new(Code::Usage, what)
                    .hint("Name a new file; to have it read always, put an Include of it into ~/.ssh/config."));
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
            _ => {}
        }
        write_whole(&std::path::absolute(file).map_err(fail)?, &self.config()).map_err(fail)
    }
}

/// The public key that has a certificate for a slot here, one line; none where none is kept.
pub(super) fn certified(slots: &Path, id: &BookingId) -> Option<String> {
    let line = fs::read_to_string(slots.join(id.as_str()).join(CERTIFICATE)).ok()?;
    let certificate = Certificate::from_openssh(line.trim()).ok()?;
    PublicKey::new(certificate.public_key().clone(), "").to_openssh().ok()
}

/// Puts a longer certificate of the same key in place of the one that is kept: each configuration that names it goes on.
pub(super) fn renew(slots: &Path, id: &BookingId, granted: &Granted) -> std::io::Result<()> {
    write_certificate(&slots.join(id.as_str()), granted)
}

/// It opens nothing without the private key, and nothing after the slot; still nobody else needs to read it.
fn write_certificate(folder: &Path, granted: &Granted) -> std::io::Result<()> {
    let certificate = granted.certificate.lines().next().unwrap_or_default();
    write_whole(&folder.join(CERTIFICATE), &format!("{certificate}\n"))
}

/// Removes the files of slots whose certificates are over. They open nothing any more, so what cannot be removed does no
/// harm; the certificate goes last, since by it the rest is found.
fn forget_past(slots: &Path, now: Epoch) {
    let now = u64::try_from(now.0).unwrap_or(0);
    for entry in fs::read_dir(slots).into_iter().flatten().flatten() {
        let folder = entry.path();
        let Ok(line) = fs::read_to_string(folder.join(CERTIFICATE)) else { continue };
        if Certificate::from_openssh(line.trim()).is_ok_and(|c| c.valid_before() <= now) {
            for name in [CONFIG, KNOWN, CERTIFICATE] {
                let _ = fs::remove_file(folder.join(name));
            }
            let _ = fs::remove_dir(&folder);
        }
    }
}

/// The hub's word on who the server is, as ssh reads it.
fn known_hosts(keys: &[String]) -> String {
    keys.iter().flat_map(|key| key.lines().take(1)).map(|key| format!("{ALIAS} {key}\n")).collect()
}

/// Host and port of an address. What the hub says goes into a file that ssh obeys, so it must be no more than a name.
fn place(address: &str, account: &str) -> Result<(String, u16), Problem> {
    let bad = || {
        let what = format!("the hub names a server that ssh cannot be told: {}", printable(address));
        Problem::new(Code::HubAway, what).hint("An admin mends it: kubecamp hub server set NAME --address HOST[:PORT].")
    };
    let name = |text: &str, more: &[u8]| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == ':')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let (host, port) = host_and_port(address);
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    match port {
        Some(port) if name(host, b".:-_") && name(account, b".-_") => Ok((host.to_owned(), port)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::hub::gate::{Extras, HubKey, Slot, issue};

    fn granted(address: &str, ends: i64) -> Granted {
        let (ca, user) = (HubKey::generate("ca").unwrap(), HubKey::generate("user").unwrap());
        let slot = Slot::new("b1", "amy", ends - 100, ends);
        let key = user.public_line().unwrap();
        Granted {
            certificate: issue(&ca, "one", &slot, &key, 1, &Extras::default()).unwrap(),
            address: address.to_owned(),
            account: "amy".to_owned(),
            ends: Epoch(ends),
            host_keys: vec!["ssh-ed25519 AAAA".to_owned()],
        }
    }

    fn keep(slots: &Path, id: &str, granted: &Granted, now: i64) -> Result<Door, Problem> {
        Door::keep(slots, &id.parse().unwrap(), Path::new("/my keys/100%"), granted, Epoch(now))
    }

    #[test]
    fn what_ssh_needs_is_kept_for_its_owner_until_the_slot_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let slots = dir.path().join("slots");
        let door = keep(&slots, "b1", &granted("192.0.2.7:2222", 1000), 950).unwrap();
        for name in [CERTIFICATE, KNOWN, CONFIG] {
            let mode = fs::metadata(slots.join("b1").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let text = fs::read_to_string(slots.join("b1").join(CONFIG)).unwrap();
        assert_eq!(text, door.config());
        for line in ["Host kubecamp-b1", "    HostName 192.0.2.7", "    Port 2222", "    User amy"] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(text.contains("    IdentityFile \"/my keys/100%%\"\n"), "{text}");
        let first = fs::read_to_string(slots.join("b1").join(CERTIFICATE)).unwrap();
        keep(&slots, "b1", &granted("192.0.2.7", 1000), 950).unwrap();
        assert_ne!(fs::read_to_string(slots.join("b1").join(CERTIFICATE)).unwrap(), first, "it is replaced");
        keep(&slots, "b2", &granted("192.0.2.7", 3000), 999).unwrap();
        assert!(slots.join("b1").exists(), "its slot still runs");
        keep(&slots, "b2", &granted("192.0.2.7", 3000), 1000).unwrap();
        assert!(!slots.join("b1").exists() && slots.join("b2").exists());
    }

    #[test]
    fn a_longer_certificate_takes_the_place_of_the_one_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (id, first) = ("b1".parse().unwrap(), granted("h", 1000));
        assert_eq!(certified(dir.path(), &id), None);
        let door = keep(dir.path(), "b1", &first, 950).unwrap();
        let of = |text: &str| Certificate::from_openssh(text.trim()).unwrap();
        let key = certified(dir.path(), &id).unwrap();
        assert_eq!(PublicKey::from_openssh(&key).unwrap().key_data(), of(&first.certificate).public_key());
        renew(dir.path(), &id, &granted("h", 3000)).unwrap();
        let kept = dir.path().join("b1").join(CERTIFICATE);
        assert_eq!(of(&fs::read_to_string(kept).unwrap()).valid_before(), 3000);
        assert_eq!(fs::read_to_string(dir.path().join("b1").join(CONFIG)).unwrap(), door.config());
    }

    #[test]
    fn only_a_configuration_of_ours_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let door = keep(dir.path(), "b1", &granted("h", 1000), 950).unwrap();
        let (new, theirs) = (dir.path().join("new"), dir.path().join("theirs"));
        door.write_to(&new).unwrap();
        door.write_to(&new).unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), door.config());
        fs::write(&theirs, "Host mine\n").unwrap();
        assert_eq!(door.write_to(&theirs).unwrap_err().code, Code::Usage);
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "Host mine\n");
    }

    #[test]
    fn what_the_hub_says_is_a_name_and_no_line_of_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        for address in ["", "-oProxyCommand=x", "h:0", "h:99999", "h\n    ProxyCommand x", "h x", "%h", "[::1"] {
            let refused = keep(dir.path(), "b1", &granted(address, 1000), 950).unwrap_err();
            assert_eq!(refused.code, Code::HubAway, "{address}");
        }
        let mut other = granted("h", 1000);
        other.account = "amy\n    ProxyCommand x".to_owned();
        assert!(keep(dir.path(), "b1", &other, 950).is_err());
        assert_eq!(place("root@[2001:db8::1]:2222", "amy").unwrap(), ("2001:db8::1".to_owned(), 2222));
        assert_eq!(place("::1", "amy").unwrap(), ("::1".to_owned(), 22));
    }

    #[test]
    fn a_key_is_one_line_under_the_alias() {
        let keys = ["ssh-ed25519 AAAA".to_owned(), "ssh-rsa BBBB\n* ssh-rsa CCCC".to_owned()];
        let text = super::known_hosts(&keys);
        assert_eq!(text, "kubecamp-booked-server ssh-ed25519 AAAA\nkubecamp-booked-server ssh-rsa BBBB\n");
    }
}
