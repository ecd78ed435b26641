use async_trait::async_trait;

use super::Owner;
use crate::{
    core::{PhaseId, Problem, shell::quote},
    engine::{Check, Phase, Step, View},
    host::{
        scan::{self, FAILED},
        script::{self, UNSEEN},
    },
};

/// Claims the host for the lab and records how it was before anything is changed.
pub struct Record {
    /// Who claims it.
    pub owner: Owner,
}

/// Lines of a scan that each machine has of its own: network identity, its last start, modules, and files that its engine
/// writes.
const OWN: &str = "^\\(address\\|route\\|rule\\|link\\|netns\\|boot\\|module\\|content\t[0-9a-f]*  /etc/hosts$\\|content\t[0-9a-f]*  /etc/resolv.conf$\\)";

/// The scan comes before the lab's name: a run killed in between scans again, on a host still untouched. A prepared machine
/// was scanned before it was filled; only what is its own is seen anew.
///
/// Both are on the disk before they get their names, and have them there before the step ends. A record that a loss of power
/// left empty would be made anew, on a host that is changed by then.
///
/// A reset that was broken off is over with it: the next one looks anew at what is there.
fn change(claim: &str, scan: &str) -> String {
    format!(
        "B=/var/lib/kubecamp/before; mkdir -p /var/lib/kubecamp && chmod 700 /var/lib/kubecamp || exit 1\n\
         scan() {{\n{scan}\n}}\n\
         look() {{ ( scan ) > $B.part || exit 1\n\
         grep '^{FAILED}	' $B.part >&2 || return 0; rm -f $B.part; rmdir /var/lib/kubecamp 2>/dev/null; exit {UNSEEN}; }}\n\
         name() {{ sync \"$1\" 2>/dev/null; mv \"$1\" \"$2\"; }}\n\
         if [ -e /var/lib/kubecamp/prepared ] && [ -s $B ]; then\n\
         look; {{ grep -v '{OWN}' $B; grep '{OWN}' $B.part; }} | sort -u > $B.new && name $B.new $B && rm -f $B.part /var/lib/kubecamp/prepared || exit 1\n\
         fi\n\
         [ -s $B ] || {{ look && name $B.part $B || exit 1; }}\n\
         printf %s {claim} > /var/lib/kubecamp/lab.part && name /var/lib/kubecamp/lab.part /var/lib/kubecamp/lab || exit 1\n\
         rm -f /var/lib/kubecamp/resetting /var/lib/kubecamp/spared /var/lib/kubecamp/begun\n\
         sync /var/lib/kubecamp 2>/dev/null; true",
        claim = quote(claim)
    )
}

impl Record {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("record");
}

#[async_trait]
impl Phase for Record {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "record the host as it is"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        // One file, so that no run killed in between leaves a name without its id.
        let claim = format!("{}\n{}\n", view.lab.name(), self.owner.id);
        let change = change(&claim, scan::SCRIPT);
        // What a reset that was killed does on the host still is waited for: whatever comes next would see half of it.
        let check = format!(
            "[ -s /var/lib/kubecamp/before ] && {} && [ ! -e /var/lib/kubecamp/resetting ]",
            script::has("/var/lib/kubecamp/lab", &claim)
        );
        Ok(vec![Step::script("baseline", "scan the host and claim it for the lab", Check::Script(check), change)])
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn a_record_is_on_the_disk_before_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        let log = dir.path().join("log");
        // What is written to the disk, and what is there by name in that moment.
        let sham = format!(
            "sync() {{ echo \"${{1##*/}}: $(cd {own} && echo *)\" >> {log}; command sync \"$1\"; }}",
            own = own.display(),
            log = log.display()
        );
        let run = |claim: &str| {
            let text = change(claim, "printf 'link\\tlo\\n'").replace("/var/lib/kubecamp", &own.display().to_string());
            let out = Command::new("sh").arg("-c").arg(format!("{sham}\n{text}")).output().unwrap();
            assert!(out.status.success(), "{out:?}");
            fs::read_to_string(&log).unwrap()
        };
        let first = "before.part: before.part\nlab.part: before lab.part\nown: before lab\n";
        assert_eq!(run("lab\n1\n"), first);
        assert_eq!(fs::read_to_string(own.join("before")).unwrap(), "link\tlo\n");
        // Claimed anew, as by a lab that takes over: the record stays.
        fs::write(own.join("before"), "link\teth0\n").unwrap();
        assert_eq!(run("lab\n2\n"), format!("{first}lab.part: before lab lab.part\nown: before lab\n"));
        assert_eq!(fs::read_to_string(own.join("before")).unwrap(), "link\teth0\n");
        // A prepared machine has its own part of the record seen anew.
        fs::write(own.join("prepared"), "").unwrap();
        run("lab\n3\n");
        assert!(fs::read_to_string(&log).unwrap().contains("before.new: before before.new before.part lab prepared\n"));
        assert_eq!(fs::read_to_string(own.join("before")).unwrap(), "link\tlo\n");
        assert_eq!(fs::read_to_string(own.join("lab")).unwrap(), "lab\n3\n");
        // So does a reset that was broken off lose what it has noted.
        let notes = ["resetting", "spared", "begun"].map(|note| own.join(note));
        for note in &notes {
            fs::write(note, "x").unwrap();
        }
        run("lab\n3\n");
        assert!(!notes.iter().any(|note| note.exists()));
        assert_eq!(fs::read_to_string(own.join("before")).unwrap(), "link\tlo\n");
    }
}
