use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{Code, NodeId, PhaseId, Problem, Report, StepId},
    engine::{Change, Check, Need, Phase, Step, Task, View},
    host::{
        Traces, Viewer,
        scan::{self, Difference, Differences, Scan},
        template,
    },
};

/// Proves that a host is as it was before `up`, and only then forgets that it ever was in a lab.
pub struct ProveClean {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

/// What the kernel and systemd may still be busy with after the last change is gone within so many scans.
const ATTEMPTS: u32 = 4;

/// How many changes by others are named, each in a note of its own.
const NAMED: usize = 8;

#[async_trait]
impl Phase for ProveClean {
    fn id(&self) -> PhaseId {
        PhaseId::new("prove-clean")
    }

    fn title(&self) -> &'static str {
        "prove that nothing is left"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let Some(viewer) = view.host else { return Ok(vec![]) };
        let scripts = Scripts::new(view, &self.records, None)?;
        let task = Prove {
            viewer: viewer.clone(),
            node: view.node.clone(),
            trace: format!("{}ours", scripts.text()),
            script: format!("{}{}{}", scripts.text(), template::text("reset/prove.sh")?, scan::SCRIPT),
            record: self.records.get(view.node).cloned(),
            networks: vec![view.lab.pod_cidr(), view.lab.service_cidr()],
            container: view.facts().is_container(),
            worker: !view.is_control_plane(),
        };
        Ok(vec![
            Step::new("prove", "compare the host with its record", Check::Never, Change::Task(Arc::new(task)))
                .limit(Duration::from_secs(120)),
            forget(view, &self.records)?.needs(Need::Step(view.node.clone(), StepId::new("prove"))),
        ])
    }
}

fn forget(view: &View<'_>, records: &Records) -> Result<Step, Problem> {
    let scripts = Scripts::new(view, records, Some("reset/forget.sh"))?;
    let call = |function: &str| format!("{}{function}", scripts.text());
    Ok(Step::script("forget", "remove kubecamp's own records", Check::Script(call("forgotten")), call("forget")))
}

struct Prove {
    viewer: Viewer,
    node: NodeId,
    trace: String,
    script: String,
    record: Option<String>,
    networks: Vec<crate::profile::Cidr>,
    container: bool,
    worker: bool,
}

/// What one look at the host gave.
struct Look {
    has_record: bool,
    /// Tools that failed: what they show was not seen.
    unseen: Vec<String>,
    found: Differences,
}

impl Look {
    fn proves(&self) -> bool {
        self.unseen.is_empty() && self.found.residues.is_empty()
    }
}

impl Prove {
    async fn look(&self) -> Result<Look, Problem> {
        let exit = self.viewer.read(&self.script).await?;
        let text = String::from_utf8_lossy(&exit.stdout);
        let part = |name: &str| -> &str {
            let head = format!("== {name}\n");
            let from = text.find(&head).map_or(text.len(), |i| i + head.len());
            let rest = &text[from..];
            if rest.starts_with("== ") { "" } else { rest.find("\n== ").map_or(rest, |to| &rest[..=to]) }
        };
        let now = Scan::parse(part("now"));
        if now.is_empty() {
            return Err(Problem::new(Code::StepFailed, "the scan of the host did not work")
                .on(&self.node)
                .detail(exit.tail(5)));
        }
        let own = Scan::parse(part("before"));
        let before = if own.is_empty() { Scan::parse(self.record.as_deref().unwrap_or_default()) } else { own };
        let spared = part("spared").lines().filter_map(|l| l.split_once('\t'));
        let begun = Scan::parse(part("begun"));
        let traces = Traces {
            networks: self.networks.clone(),
            recorded: part("manifest").lines().map(str::to_owned).collect::<BTreeSet<_>>(),
            spared: spared.map(|(k, t)| (k.to_owned(), t.to_owned())).collect(),
            container: self.container,
            worker: self.worker,
            restarted: (!begun.is_empty()).then_some(begun),
        };
        let has_record = !before.is_empty();
        let found = if has_record {
            before.differences(&now, &traces)
        } else {
            Differences { residues: now.leftovers(&traces), others: vec![] }
        };
        Ok(Look { has_record, unseen: now.failures(), found })
    }

    fn tell(&self, look: &Look, report: &dyn Report) {
        if !look.has_record {
            let text = "there is no record of the host from before up: it was compared with the list of what up makes";
            report.note(&self.node, text);
        }
        let others = scan::in_words(&look.found.others);
        for line in others.iter().take(NAMED) {
            report.note(&self.node, &format!("left alone, as others changed it meanwhile: {line}"));
        }
        if others.len() > NAMED {
            report.note(&self.node, &format!("and {} more", others.len() - NAMED));
        }
    }
}

#[async_trait]
impl Task for Prove {
    /// A host that shows no trace of kubecamp has nothing to prove, whatever else runs on it.
    async fn done(&self) -> Result<bool, Problem> {
        Ok(!self.viewer.read(&self.trace).await?.ok())
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        let mut look = self.look().await?;
        for _ in 1..ATTEMPTS {
            if look.proves() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
            look = self.look().await?;
        }
        self.tell(&look, report);
        if look.proves() {
            return Ok(());
        }
        let residues = &look.found.residues;
        if !look.unseen.is_empty() {
            let what = "tools that show the host's state failed, so it is not proven to be as it was before up";
            let seen = residues.iter().map(Difference::to_string);
            return Err(Problem::new(Code::ResetUnproven, what)
                .on(&self.node)
                .detail(look.unseen.into_iter().chain(seen)));
        }
        Err(residue(residues).on(&self.node))
    }
}

/// The way out where something of others is gone.
const GONE: &str = "What is gone and was there is not kubecamp's, and no reset brings it back: do so yourself, as by loading your \
    saved rules. If it is to stay away, delete its line from /var/lib/kubecamp/before on the host. Then run kubecamp reset again.";

/// The way out where rules were saved while the lab was up: the file is the user's, and no reset writes it.
const SAVED: &str = "The rules of the cluster were saved while it was up, and the next start of the host would load them. The kernel \
    has them no more: save its rules anew (netfilter-persistent save, or service iptables save), or take the cluster's out of the \
    file. Then run kubecamp reset again.";

fn residue(found: &[Difference]) -> Problem {
    let what = match found.len() {
        1 => "the host is not as it was before up: 1 residue".to_owned(),
        n => format!("the host is not as it was before up: {n} residues"),
    };
    let problem = Problem::new(Code::ResetResidue, what).detail(found.iter().map(Difference::to_string));
    let saved = found.iter().any(|one| one.now && one.kind == "saved");
    let new = found.iter().any(|one| one.now && one.kind != "saved");
    let gone = found.iter().any(|one| !one.now);
    let hints = [(new && (saved || gone), Code::ResetResidue.hint()), (saved, SAVED), (gone, GONE)];
    hints.into_iter().filter(|(says, _)| *says).fold(problem, |problem, (_, hint)| problem.hint(hint))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::{GONE, SAVED, residue};
    use crate::{
        core::Code,
        host::{scan::Difference, template},
    };

    #[test]
    fn what_is_gone_and_what_was_saved_has_a_way_out() {
        let hints = |all: &[(&str, bool)]| {
            let one = |(kind, now): &(&str, bool)| Difference {
                kind: (*kind).to_owned(),
                thing: "inet mine".to_owned(),
                now: *now,
            };
            residue(&all.iter().map(one).collect::<Vec<_>>()).all_hints()
        };
        let again = Code::ResetResidue.hint();
        let (new, gone, saved) = (("nft", true), ("nft", false), ("saved", true));
        assert_eq!(hints(&[new]), [again]);
        assert_eq!(hints(&[gone]), [GONE]);
        assert_eq!(hints(&[new, gone]), [again, GONE]);
        assert_eq!(hints(&[saved]), [SAVED]);
        assert_eq!(hints(&[saved, new, gone]), [again, SAVED, GONE]);
    }

    /// Whether `call` ends well on a host below `root`, where kubecamp's folder is a mount point or is none.
    fn ends_well(root: &Path, mounted: bool, call: &str) -> bool {
        let (own, mounts) = (root.join("kubecamp"), root.join("mounts"));
        let line = if mounted { format!("/dev/vdb {} ext4 rw 0 0\n", own.display()) } else { String::new() };
        fs::write(&mounts, line).unwrap();
        let below = |path: &str| format!("{}{path}", root.display());
        let functions = ["reset/host.sh", "reset/forget.sh"].map(|name| template::text(name).unwrap()).concat();
        let functions = functions.replace("/var/lib/kubecamp", &below("/kubecamp"));
        let functions = functions.replace("/proc/self/mounts", &below("/mounts"));
        let functions = ["/opt/", "/etc/", "/run/"].iter().fold(functions, |f, path| f.replace(path, &below(path)));
        // What something is mounted on cannot be renamed.
        let sham = if mounted { "mv() { return 1; }\n" } else { "" };
        Command::new("sh").arg("-c").arg(format!("{sham}{functions}\n{call}")).status().unwrap().success()
    }

    fn fill(own: &Path) {
        for folder in ["kept", "lost+found"] {
            fs::create_dir_all(own.join(folder)).unwrap();
        }
        for file in ["before", "lab", "manifest", "kept/1", ".hidden"] {
            fs::write(own.join(file), "x").unwrap();
        }
    }

    fn names(own: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(own).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_folder_that_is_a_mount_point_is_emptied() {
        let root = tempfile::tempdir().unwrap();
        let (root, own) = (root.path(), root.path().join("kubecamp"));
        fill(&own);
        assert!(ends_well(root, true, "traces") && !ends_well(root, true, "forgotten"));
        // Ended in the midst of it: what an other reset needs is still there.
        assert!(!ends_well(root, true, "rm() { case $* in */lab) return 1 ;; esac; command rm \"$@\"; }\nforget"));
        assert_eq!(names(&own), ["before", "lab", "lost+found"]);
        assert!(ends_well(root, true, "traces") && !ends_well(root, true, "forgotten"));

        assert!(ends_well(root, true, "forget"));
        assert_eq!(names(&own), ["lost+found"], "the file system's own folder stays");
        assert!(ends_well(root, true, "forgotten") && !ends_well(root, true, "traces"));
    }

    #[test]
    fn a_folder_of_our_own_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (root, own) = (root.path(), root.path().join("kubecamp"));
        fs::create_dir(&own).unwrap();
        assert!(ends_well(root, false, "traces") && !ends_well(root, false, "forgotten"), "also an empty one");
        fill(&own);
        assert!(ends_well(root, false, "forget") && ends_well(root, false, "forgotten"));
        assert_eq!(names(root), ["mounts"]);
    }
}
