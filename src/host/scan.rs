//! A host's state as lines, and the difference between two of them.

use std::collections::BTreeSet;

/// The script that prints a scan; see the file.
pub const SCRIPT: &str = include_str!("../../templates/host/scan.sh");

/// What one scan saw: `kind<TAB>thing` lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan(BTreeSet<(String, String)>);

/// One difference between two scans.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Residue {
    /// What kind of thing, as `link` or `path`.
    pub kind: String,
    /// The thing.
    pub thing: String,
    /// Whether it is there now and was not, or the other way round.
    pub now: bool,
}

impl Scan {
    /// Reads the script's output; other lines are ignored.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|l| l.split_once('\t'));
        Self(lines.map(|(kind, thing)| (kind.to_owned(), thing.to_owned())).collect())
    }

    /// Whether the scan saw nothing at all: a scan that failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What differs in `after`.
    ///
    /// A thing that went away counts only where kubecamp could have taken it: files, units, packet filter rules,
    /// sysctls. A user's program that ended meanwhile is not ours.
    pub fn residues(&self, after: &Self) -> Vec<Residue> {
        let new = after.0.difference(&self.0).map(|l| (l, true));
        let gone = self.0.difference(&after.0).map(|l| (l, false)).filter(|((kind, _), _)| ours_to_lose(kind));
        new.chain(gone)
            .filter(|((kind, thing), _)| !volatile(kind, thing))
            .map(|((kind, thing), now)| Residue { kind: kind.clone(), thing: thing.clone(), now })
            .collect()
    }
}

fn ours_to_lose(kind: &str) -> bool {
    !matches!(kind, "process" | "port" | "address" | "cgroup" | "mount" | "netns" | "packages" | "sysctl")
}

/// What changes by itself on a living host.
fn volatile(kind: &str, thing: &str) -> bool {
    match kind {
        // DHCP renews addresses and their routes with new lifetimes.
        "route" => thing.contains("proto dhcp"),
        // iptables' own tools make their empty base tables when they only look.
        "nft" => is_empty_base(thing),
        _ => false,
    }
}

/// Tables and base chains that iptables-nft creates by reading: `ip filter`, `ip nat chain POSTROUTING`.
fn is_empty_base(thing: &str) -> bool {
    let words: Vec<_> = thing.split_whitespace().collect();
    let family = |w: &str| matches!(w, "ip" | "ip6");
    let table = |w: &str| matches!(w, "filter" | "nat" | "mangle" | "raw" | "security");
    match words.as_slice() {
        [f, t] => family(f) && table(t),
        [f, t, "chain", chain] => {
            family(f) && table(t) && matches!(*chain, "INPUT" | "OUTPUT" | "FORWARD" | "PREROUTING" | "POSTROUTING")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_new_and_what_is_gone() {
        let before = Scan::parse("link\teth0\npath\t/etc/cni/mine\nport\t80\nnft\tinet mine\n");
        let after =
            Scan::parse("link\teth0\nlink\tcni0\nnft\tip nat\nnft\tip nat chain POSTROUTING\nnft\tip kube-proxy\n");
        let found: Vec<_> = before.residues(&after).into_iter().map(|r| (r.thing, r.now)).collect();
        assert_eq!(
            found,
            [("cni0", true), ("ip kube-proxy", true), ("inet mine", false), ("/etc/cni/mine", false)]
                .map(|(t, n)| (t.to_owned(), n))
        );
    }

    #[test]
    fn the_script_sees_this_computer() {
        let out = std::process::Command::new("sh").arg("-c").arg(SCRIPT).output().unwrap();
        let scan = Scan::parse(&String::from_utf8_lossy(&out.stdout));
        assert!(scan.0.iter().any(|(kind, thing)| kind == "link" && thing == "lo"));
        assert_eq!(scan.residues(&scan), []);
    }
}
