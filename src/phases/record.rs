use async_trait::async_trait;

use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
    host::{
        scan::{self, FAILED},
        script::{self, UNSEEN},
    },
};

/// Claims the host for the lab and records how it was before anything is changed.
pub struct Record;

/// Lines of a scan that each machine has of its own: network identity, and files that its engine writes.
const OWN: &str = "^\\(address\\|route\\|rule\\|link\\|netns\\|content\t[0-9a-f]*  /etc/hosts$\\|content\t[0-9a-f]*  /etc/resolv.conf$\\)";

#[async_trait]
impl Phase for Record {
    fn id(&self) -> PhaseId {
        PhaseId::new("record")
    }

    fn title(&self) -> &'static str {
        "record the host as it is"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let lab = &view.lab.name();
        // The scan comes before the lab's name: a run killed in between scans again, on a host still untouched. A
        // prepared machine was scanned before it was filled; only what is its own is seen anew.
        let change = format!(
            "B=/var/lib/kubecamp/before; mkdir -p /var/lib/kubecamp && chmod 700 /var/lib/kubecamp || exit 1\n\
             scan() {{\n{scan}\n}}\n\
             look() {{ ( scan ) > $B.part || exit 1\n\
             grep '^{FAILED}	' $B.part >&2 || return 0; rm -f $B.part; rmdir /var/lib/kubecamp 2>/dev/null; exit {UNSEEN}; }}\n\
             if [ -e /var/lib/kubecamp/prepared ] && [ -s $B ]; then\n\
             look; {{ grep -v '{OWN}' $B; grep '{OWN}' $B.part; }} | sort -u > $B.new && mv $B.new $B && rm -f $B.part /var/lib/kubecamp/prepared || exit 1\n\
             fi\n\
             [ -s $B ] || {{ look && mv $B.part $B || exit 1; }}\n\
             echo {lab} > /var/lib/kubecamp/lab.part && mv /var/lib/kubecamp/lab.part /var/lib/kubecamp/lab",
            scan = scan::SCRIPT
        );
        let check =
            format!("[ -s /var/lib/kubecamp/before ] && {}", script::has("/var/lib/kubecamp/lab", &format!("{lab}\n")));
        Ok(vec![Step::script("baseline", "scan the host and claim it for the lab", Check::Script(check), change)])
    }
}
