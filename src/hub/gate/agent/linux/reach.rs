//! Who reaches the labs' machines: routing rules by user id. Unlike a firewall's, they need nobody's table, and when one
//! goes, connections that stand by it are cut too: the kernel asks anew for each packet.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::{Owner, run};
use crate::{
    core::{Code, Problem},
    hub::gate::agent::Reach,
};

/// Rules that let somebody through.
const OPEN: u32 = 11500;
/// Rules that keep students out of networks which the whole server reaches.
const SHUT: u32 = 11501;
/// Rules of root: also the kernel looks by them whether an answer came the right way.
const ROOT: u32 = 11502;

/// Rules as `ip rule` takes and shows them, without `from all`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    v4: BTreeSet<String>,
    v6: BTreeSet<String>,
}

impl Rules {
    /// Those by which the `open` accounts reach their labs, and no student anything else of the labs' networks.
    pub fn of(labs: &BTreeMap<String, Reach>, open: &BTreeSet<String>, students: &[Owner]) -> Self {
        let mut rules = Self::default();
        for (account, reach) in labs {
            let holder = students.iter().find(|s| s.name == *account && open.contains(account));
            if let Some(holder) = holder {
                let table = reach.table.map_or_else(|| "main".to_owned(), |table| table.to_string());
                for address in &reach.addresses {
                    let id = holder.uid;
                    rules.add(OPEN, &address.to_string(), &format!("uidrange {id}-{id} lookup {table}"));
                }
            }
            match reach.table {
                // Nobody else looks into that table.
                Some(table) => {
                    for network in &reach.networks {
                        rules.add(ROOT, network, &format!("uidrange 0-0 lookup {table}"));
                    }
                }
                None => rules.keep_out(reach, students),
            }
        }
        rules
    }

    /// Keeps out students, and whoever they are in user namespaces of theirs.
    fn keep_out(&mut self, reach: &Reach, students: &[Owner]) {
        for student in students {
            let more = student.subordinate.iter().filter(|(_, count)| *count > 0);
            let more = more.map(|(first, count)| (*first, first.saturating_add(count - 1)));
            for (first, last) in std::iter::once((student.uid, student.uid)).chain(more) {
                let who = format!("uidrange {first}-{last} prohibit");
                for network in &reach.networks {
                    self.add(SHUT, network, &who);
                }
                // Addresses of the link itself belong to no network; who uses them names the device.
                if let Some(device) = &reach.device {
                    self.v6.insert(format!("{SHUT} oif {device} {who}"));
                }
            }
        }
    }

    fn add(&mut self, priority: u32, to: &str, rest: &str) {
        let family = if to.contains(':') { &mut self.v6 } else { &mut self.v4 };
        let to = to.trim_end_matches("/32").trim_end_matches("/128");
        family.insert(format!("{priority} to {to} {rest}"));
    }

    /// Makes them the server's, and looks that they are.
    pub async fn apply(&self) -> Result<(), Problem> {
        settle("-4", &self.v4).await?;
        // A server without IPv6 has nothing to keep anybody out of.
        match self.v6.is_empty() && run("ip", &["-6", "rule", "show"]).await.is_err() {
            true => Ok(()),
            false => settle("-6", &self.v6).await,
        }
    }
}

async fn settle(family: &str, wanted: &BTreeSet<String>) -> Result<(), Problem> {
    let now = shown(&run("ip", &[family, "rule", "show"]).await?);
    for (verb, rule) in changes(&now, wanted) {
        let mut words = vec![family, "rule", verb, "priority"];
        words.extend(rule.split(' '));
        run("ip", &words).await?;
    }
    let after = if now == *wanted { now } else { shown(&run("ip", &[family, "rule", "show"]).await?) };
    if after == *wanted {
        return Ok(());
    }
    let wrong: Vec<_> = after.symmetric_difference(wanted).cloned().collect();
    Err(Problem::new(Code::GateNotEmpty, "the rules by which labs are reached are not as they must be").detail(wrong))
}

/// What is to be done, in an order in which nobody is let through for a moment who must not be.
fn changes<'a>(now: &'a BTreeSet<String>, wanted: &'a BTreeSet<String>) -> Vec<(&'static str, &'a str)> {
    let opens = |rule: &str| rule.starts_with(&format!("{OPEN} "));
    let pick = |of: Vec<&'a String>, verb: &'static str, open: bool| {
        of.into_iter().filter(move |r| opens(r.as_str()) == open).map(|r| (verb, r.as_str())).collect::<Vec<_>>()
    };
    let (missing, stale): (Vec<_>, Vec<_>) = (wanted.difference(now).collect(), now.difference(wanted).collect());
    [
        pick(missing.clone(), "add", false),
        pick(stale.clone(), "del", true),
        pick(missing, "add", true),
        pick(stale, "del", false),
    ]
    .concat()
}

/// Our rules among those of `ip rule show`.
fn shown(text: &str) -> BTreeSet<String> {
    let ours = |line: &str| {
        let (priority, rest) = line.split_once(':')?;
        let priority: u32 = priority.trim().parse().ok()?;
        let words: Vec<_> = rest.split_whitespace().filter(|w| !["from", "all", "[detached]"].contains(w)).collect();
        (OPEN..=ROOT).contains(&priority).then(|| format!("{priority} {}", words.join(" ")))
    };
    text.lines().filter_map(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn student(name: &str, uid: u32) -> Owner {
        Owner { name: name.into(), uid, gid: uid, subordinate: vec![(uid * 100, 10)] }
    }

    fn reach(address: &str, networks: &[&str], device: Option<&str>, table: Option<u32>) -> Reach {
        Reach {
            addresses: vec![address.parse().unwrap()],
            networks: networks.iter().map(|n| (*n).to_owned()).collect(),
            device: device.map(str::to_owned),
            table,
        }
    }

    #[test]
    fn a_private_engines_machines_are_reached_by_their_holder_alone() {
        let lab = |n: u8| reach(&format!("10.115.0.{n}"), &["10.115.0.0/24"], None, Some(1_000_007));
        let labs = [("a".to_owned(), lab(2)), ("b".to_owned(), lab(3)), ("gone".to_owned(), lab(4))].into();
        let students = [student("a", 1001), student("b", 1002)];
        let root = "11502 to 10.115.0.0/24 uidrange 0-0 lookup 1000007";
        let none = Rules::of(&labs, &BTreeSet::new(), &students);
        assert_eq!(none.v4.iter().collect::<Vec<_>>(), [root]);
        let open = ["b".to_owned(), "gone".to_owned()].into();
        let rules = Rules::of(&labs, &open, &students);
        assert_eq!(
            rules.v4.iter().collect::<Vec<_>>(),
            ["11500 to 10.115.0.3 uidrange 1002-1002 lookup 1000007", root]
        );
        assert!(rules.v6.is_empty());
    }

    #[test]
    fn of_a_network_that_everybody_reaches_students_are_kept_out() {
        let lab = reach("10.9.0.2", &["10.9.0.0/24", "fd42::/64"], Some("incusbr0"), None);
        let labs = [("a".to_owned(), lab)].into();
        let rules = Rules::of(&labs, &["a".to_owned()].into(), &[student("a", 1001)]);
        assert_eq!(
            rules.v4.iter().collect::<Vec<_>>(),
            [
                "11500 to 10.9.0.2 uidrange 1001-1001 lookup main",
                "11501 to 10.9.0.0/24 uidrange 1001-1001 prohibit",
                "11501 to 10.9.0.0/24 uidrange 100100-100109 prohibit"
            ]
        );
        assert!(rules.v6.contains("11501 oif incusbr0 uidrange 1001-1001 prohibit"));
        assert!(rules.v6.contains("11501 to fd42::/64 uidrange 100100-100109 prohibit"));
    }

    #[test]
    fn who_must_not_is_shut_out_before_anybody_is_let_in() {
        let text = "0:\tfrom all lookup local\n11500:\tfrom all to 10.9.0.2 uidrange 1001-1001 lookup main proto 3\n\
            11501:\tfrom all oif br0 [detached] uidrange 7-7 prohibit\n32766:\tfrom all lookup main\n";
        let now = shown(text);
        let old = "11501 oif br0 uidrange 7-7 prohibit";
        assert!(now.len() == 2 && now.contains(old), "{now:?}");
        let (open, shut) =
            ("11500 to 10.9.0.3 uidrange 1002-1002 lookup main", "11501 to 10.9.0.0/24 uidrange 8-8 prohibit");
        let wanted = [open.to_owned(), shut.to_owned()].into();
        let order: Vec<_> = changes(&now, &wanted);
        let stale = "11500 to 10.9.0.2 uidrange 1001-1001 lookup main proto 3";
        assert_eq!(order, [("add", shut), ("del", stale), ("add", open), ("del", old)]);
        assert!(changes(&wanted, &wanted).is_empty());
    }
}
