use async_trait::async_trait;

use super::gate_host;
use crate::{
    core::{Code, EventKind, NodeId, Problem, Report, shell::quote},
    engine::{Change, Check, Step, Task, View},
};

/// So many accounts are asked for: each takes sshd a tenth of a second, and all of it has a minute.
const MOST: usize = 100;

/// Refuses a host whose sshd keeps students out by lists that no block of the gate's can undo; where sshd does not say what
/// counts for somebody, a step that warns of it.
pub(super) async fn lets_students_in(view: &View<'_>, group: &str) -> Result<Option<Step>, Problem> {
    let Some(viewer) = view.host else { return Ok(None) };
    let said = viewer.read(&gate_host::script(&lists(group))?).await?.text();
    // The accounts that the agent makes may have it besides the students' own.
    let default = said.lines().filter_map(|line| line.strip_prefix("default-group "));
    let groups: Vec<&str> = default.chain([group]).collect();
    if let Some(line) = said.lines().find(|line| shuts_out(line, &groups)) {
        return Err(Problem::new(Code::GateHost, "the server's sshd may keep students out, whatever the gate says")
            .on(view.node)
            .detail([line])
            .hint("Say it in sshd_config by names, or in a Match block for others than students; then enroll again."));
    }
    let unasked: Vec<String> =
        said.lines().filter_map(|line| line.strip_prefix("unasked ")).map(str::to_owned).collect();
    let warn = || {
        let change = Change::Task(std::sync::Arc::new(Unasked { on: view.node.clone(), unasked: unasked.clone() }));
        Step::new("lists", "tell of lists that sshd does not show", Check::Never, change)
    };
    Ok((!unasked.is_empty()).then(warn))
}

/// Those of whom sshd does not say what counts for them, each with its own words.
struct Unasked {
    on: NodeId,
    unasked: Vec<String>,
}

#[async_trait]
impl Task for Unasked {
    async fn done(&self) -> Result<bool, Problem> {
        Ok(false)
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        let what = "the server's sshd does not show which lists of its Match blocks count for students";
        let problem = Problem::new(Code::GateHost, what).on(&self.on).detail(self.unasked.iter().take(5).cloned());
        let hint =
            "See that none of DenyUsers, DenyGroups and AllowUsers there keeps them out: sshd -T -C on the server.";
        report.event(EventKind::Warning { problem: problem.hint(hint) });
        Ok(())
    }
}

/// Shell text that prints what sshd goes by for everybody, then for each student who has an account: a `Match` block of the
/// server's may add lists for them. Then the default group of new accounts.
///
/// Students are asked for at two addresses, of the Internet and of a network inside, and only what counts at both is printed:
/// a list for one network is somebody's rule about that network, and no student may ever come from it. Some releases do not
/// answer where a block asks for what they were not told, even for everybody; then a student without an account stands for them.
fn lists(group: &str) -> String {
    format!(
        "all=$(\"$SSHD\" -T 2>/dev/null)\n\
         laddr=$(ip -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \\([^ ]*\\).*/\\1/p')\n\
         of() {{ echo \"user=$1,host=$2,addr=$2,laddr=${{laddr:-192.0.2.2}},lport=${{lport:-22}}\"; }}\n\
         ask() {{ \"$SSHD\" -T -C \"$(of \"$@\")\" 2>/dev/null || \"$SSHD\" -T -C \"$(of \"$@\"),rdomain=\" 2>/dev/null; }}\n\
         lport=$({{ if [ -n \"$all\" ]; then printf '%s\\n' \"$all\"; else ask kubecamp-new 192.0.2.1; fi; }} | sed -n 's/^port //p' | head -n 1)\n\
         student() {{\n\
         if one=$(ask \"$1\" 192.0.2.1) && two=$(ask \"$1\" 10.0.0.1); then\n\
         {{ printf '%s\\n' \"$one\" | sort -u; printf '%s\\n' \"$two\" | sort -u; }} | sort | uniq -d | sed -n '/^deny/p;/^allowusers/p'\n\
         else echo \"unasked $1: $(\"$SSHD\" -T -C \"$(of \"$1\" 192.0.2.1)\" 2>&1 >/dev/null | head -n 1)\"; fi; }}\n\
         if [ -n \"$all\" ]; then printf '%s\\n' \"$all\"; else student kubecamp-new; fi\n\
         students {} | {{ asked=0; while read -r who; do asked=$((asked + 1))\n\
         [ $asked -le {MOST} ] || {{ echo \"unasked $who: only {MOST} accounts are asked for\"; break; }}\n\
         student \"$who\"; done; }}\n\
         default_group | sed 's/^/default-group /'",
        quote(group)
    )
}

/// Whether a line of `sshd -T` keeps out more than accounts that it names. Where a list of who may come in asks for
/// addresses, somebody meant it, and the gate's own would let students in from anywhere.
fn shuts_out(line: &str, groups: &[&str]) -> bool {
    let Some((key, value)) = line.split_once(' ') else { return false };
    let pattern = |more: &str| value.contains(|c: char| "*?!".contains(c) || more.contains(c));
    match key.to_ascii_lowercase().as_str() {
        "denyusers" => pattern("@"),
        "denygroups" => pattern("") || groups.contains(&value),
        "allowusers" => value.contains('@'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command, sync::Mutex};

    use super::*;

    #[test]
    fn lists_that_name_others_keep_no_student_out() {
        for fine in ["denyusers root", "denygroups games", "allowusers ann", "allowgroups x*", "port 22", "usedns", ""]
        {
            assert!(!shuts_out(fine, &["g", "users"]), "{fine}");
        }
        for bad in ["denyusers *", "DenyUsers amy@192.0.2.7", "denygroups g", "denygroups st?dents", "allowusers ann@*"]
        {
            assert!(shuts_out(bad, &["g"]), "{bad}");
        }
        assert!(shuts_out("denygroups users", &["users", "g"]));
    }

    /// What is said where sshd, a script, answers so, and these have accounts.
    fn said(sshd: &str, members: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sshd");
        fs::write(&file, format!("#!/bin/sh\ncase \"$*\" in\n{sshd}\nesac\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let world = format!(
            "SSHD={}\ndefault_group() {{ echo users; }}\n\
             ip() {{ echo '192.0.2.1 via 10.1.0.1 dev eth0 src 10.1.0.2 uid 0'; }}\n\
             getent() {{ [ \"$*\" = 'group our students' ] && echo 'our students:x:900:{members}'; }}",
            file.display()
        );
        let text = gate_host::script(&format!("{world}\n{}", lists("our students"))).unwrap();
        let ran = Command::new("sh").arg("-c").arg(text).output().unwrap();
        assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap()
    }

    #[test]
    fn lists_that_a_match_block_adds_for_any_student_are_found() {
        let sshd = "-T) echo port 2222; echo denyusers games ;;\n\
                    *user=bob,*) echo denyusers games; echo 'denyusers *' ;;\n\
                    *,laddr=10.1.0.2,lport=2222) echo denyusers games ;;\n\
                    *) echo 'not asked whole' >&2; exit 255 ;;";
        let all = "port 2222\ndenyusers games\n";
        assert_eq!(said(sshd, ""), format!("{all}default-group users\n"), "nobody has an account yet");
        assert_eq!(said(sshd, "amy"), format!("{all}denyusers games\ndefault-group users\n"));
        let both = "denyusers games\ndenyusers *\ndenyusers games\n";
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&said(sshd, "amy,bob")), sorted(&format!("{all}{both}default-group users\n")));
    }

    #[test]
    fn a_list_for_one_network_alone_is_none_for_students() {
        for network in ["192.0.2.1", "10.0.0.1"] {
            let sshd = format!(
                "-T) echo port 22 ;;\n*addr={network},*) echo 'denyusers *'; echo 'denyusers *' ;;\n*) echo x ;;"
            );
            assert_eq!(said(&sshd, "amy"), "port 22\ndefault-group users\n", "{network}");
        }
    }

    #[test]
    fn what_sshd_does_not_answer_is_asked_with_more_and_told_then() {
        let domain = "-T) echo port 22 ;;\n*,rdomain=) echo 'denyusers *' ;;\n*) exit 255 ;;";
        assert_eq!(said(domain, "amy"), "port 22\ndenyusers *\ndefault-group users\n");
        // As OpenSSH 9.2 does where a block asks for the port.
        let port = "-T) exit 255 ;;\n*,lport=2222) echo denyusers games ;;\n*user=kubecamp-new,*) echo port 2222 ;;";
        assert_eq!(said(port, ""), "denyusers games\ndefault-group users\n");
        let mute = "-T) echo port 22 ;;\n*) echo 'Match Moon is unknown' >&2; exit 255 ;;";
        assert_eq!(said(mute, "amy"), "port 22\nunasked amy: Match Moon is unknown\ndefault-group users\n");
    }

    #[tokio::test]
    async fn what_was_not_asked_is_a_warning() {
        struct Ear(Mutex<Vec<String>>);
        impl Report for Ear {
            fn event(&self, kind: EventKind) {
                if let EventKind::Warning { problem } = kind {
                    self.0.lock().unwrap().push(problem.to_string());
                }
            }
        }
        let ear = Ear(Mutex::new(vec![]));
        let task = Unasked { on: "s1".parse().unwrap(), unasked: vec!["amy: Match Moon is unknown".into()] };
        assert!(!task.done().await.unwrap());
        task.run(&ear).await.unwrap();
        let told = ear.0.lock().unwrap().join("\n");
        assert!(told.contains("KC-GATE-HOST on s1") && told.contains("amy: Match Moon is unknown"), "{told}");
    }
}
