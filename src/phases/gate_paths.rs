//! Where the gate has its files on a server: its scripts name the same, and a test says so.

/// The folder of the agent's configuration, and of what sshd reads of the gate's.
pub const FOLDER: &str = "/etc/kubecamp-gate";
/// The agent's configuration.
pub const CONFIG: &str = "/etc/kubecamp-gate/agent.yaml";
/// The agent's token at the hub.
pub const TOKEN: &str = "/etc/kubecamp-gate/token";
/// The certificate of the hub's own authority, where it has one.
pub const HUB_CA: &str = "/etc/kubecamp-gate/hub_ca.pem";
/// The hub's user CA, for sshd.
pub const USER_CA: &str = "/etc/kubecamp-gate/user_ca.pub";
/// The folder of sshd's principals files, one for each student.
pub const PRINCIPALS: &str = "/etc/kubecamp-gate/principals";

/// The folder of all that the gate keeps on a server: `$KC` in its scripts.
pub const KEPT: &str = "/var/lib/kubecamp-gate";
/// What was there before the gate.
pub const MANIFEST: &str = "/var/lib/kubecamp-gate/manifest";
/// sshd's drop-in as sshd took it last.
pub const LOADED: &str = "/var/lib/kubecamp-gate/drop-in.loaded";
/// The agent's journal and plan.
pub const STATE: &str = "/var/lib/kubecamp-gate/state";
/// kubecamp's home for the labs on the server: `$LABS` in the gate's scripts.
pub const HOME: &str = "/var/lib/kubecamp-gate/home";

/// The kubecamp program that the agent is.
pub const PROGRAM: &str = "/usr/local/sbin/kubecamp-agent";
/// The agent's unit, where the server has systemd.
pub const UNIT: &str = "/etc/systemd/system/kubecamp-agent.service";
/// The link that starts the unit with the server.
pub const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/kubecamp-agent.service";
/// The agent's process, where the server has no systemd.
pub const PID: &str = "/run/kubecamp-agent.pid";
/// The agent's log, where the server has no systemd.
pub const LOG: &str = "/var/log/kubecamp-agent.log";
/// The digest of the files with which the agent was started.
pub const STARTED: &str = "/run/kubecamp-agent.config";

/// sshd's drop-in.
///
/// Its name comes before others: of `Match` blocks that say the same word sshd takes the first.
pub const DROP_IN: &str = "/etc/ssh/sshd_config.d/00-kubecamp.conf";
/// Where an earlier kubecamp had the drop-in: what that says goes on counting for whom the new one does not match.
pub const FORMER_DROP_IN: &str = "/etc/ssh/sshd_config.d/50-kubecamp.conf";

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::host::template;

    /// Those that the gate's scripts and unit may name.
    const OF_SCRIPTS: &[&str] = &[CONFIG, PRINCIPALS, KEPT, PROGRAM, UNIT, WANTED, PID, LOG, DROP_IN];

    /// The paths in a text that have to do with kubecamp.
    fn paths(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c))
            .filter(|word| word.starts_with('/') && word.contains("kubecamp"))
            .map(|path| path.trim_end_matches('/'))
    }

    #[test]
    fn scripts_and_unit_of_the_gate_name_no_other_paths() {
        let texts = ["gate/lib.sh", "gate/leave.sh", "gate/agent.service"].map(|name| template::text(name).unwrap());
        let named: Vec<&str> = texts.iter().flat_map(|text| paths(text)).collect();
        assert!(named.iter().all(|path| OF_SCRIPTS.contains(path)), "{named:?}");
        assert!(OF_SCRIPTS.iter().all(|path| named.contains(path)), "{named:?}");
    }

    #[test]
    fn words_of_the_gates_scripts_stand_for_these_paths() {
        let [lib, leave] = ["gate/lib.sh", "gate/leave.sh"].map(|name| template::text(name).unwrap());
        let text = format!("{lib}\n{leave}\nprintf '%s\\n' \"$KC\" \"$LABS\" \"$UNIT\" \"$WANTED\" \"$INCLUDE\"");
        let ran = Command::new("sh").arg("-c").arg(text).output().unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        let include = format!("Include {DROP_IN}");
        assert_eq!(said.lines().collect::<Vec<_>>(), [KEPT, HOME, UNIT, WANTED, include.as_str()]);
    }

    #[test]
    fn what_is_in_a_folder_of_the_gates_goes_with_it() {
        assert!(
            [CONFIG, TOKEN, HUB_CA, USER_CA, PRINCIPALS].iter().all(|path| path.starts_with(&format!("{FOLDER}/")))
        );
        assert!([MANIFEST, LOADED, STATE, HOME].iter().all(|path| path.starts_with(&format!("{KEPT}/"))));
    }
}
