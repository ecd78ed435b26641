use std::sync::Arc;

use async_trait::async_trait;

use super::{
    gate_host::{self, Enrolment},
    gate_paths::{DROP_IN, FORMER_DROP_IN, LOADED, MANIFEST},
};
use crate::{
    core::{PhaseId, Problem, shell::quote},
    engine::{Check, Phase, Step, View},
    host::script,
};

/// Lets the admin's break-glass key in, then makes sshd ask the agent's principals files for students.
pub struct GateDoor(pub Arc<Enrolment>);

#[async_trait]
impl Phase for GateDoor {
    fn id(&self) -> PhaseId {
        PhaseId::new("gate-door")
    }

    fn title(&self) -> &'static str {
        "let students in by slot only"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let text = self.0.drop_in(gate_host::openssh(view).await?)?;
        Ok(vec![self.admin()?, door(&text)?])
    }
}

impl GateDoor {
    /// Before anything can shut somebody out.
    fn admin(&self) -> Result<Step, Problem> {
        let (admin, key) = (quote(&self.0.admin), quote(self.0.admin_key.trim()));
        let find = format!("home=$(getent passwd {admin} | cut -d: -f6); file=$home/.ssh/authorized_keys\n");
        let check =
            gate_host::script(&format!("{find}lets_in \"$file\" {key} && [ -z \"$(former_blocks \"$file\")\" ]"))?;
        let change = gate_host::script(&format!(
            "{find}[ -n \"$home\" ] || kc_die 'there is no user {admin} for the break-glass key'\n\
             may=$(\"$SSHD\" -T -C user={admin},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22 2>/dev/null | sed -n 's/^permitrootlogin //p')\n\
             if [ {admin} = root ] && [ \"$may\" = no ]; then kc_die 'sshd lets root not in: name another --admin for the break-glass key'; fi\n\
             [ -d \"$home/.ssh\" ] || {{ kc_record dir absent \"$home/.ssh\"; install -d -m 700 -o {admin} \"$home/.ssh\" || exit 1; }}\n\
             kc_block \"$file\" || exit 1\n\
             [ -e \"$file\" ] || install -m 600 -o {admin} /dev/null \"$file\" || exit 1\n\
             {}",
            with_key(&key)
        ))?;
        Ok(Step::script("break-glass", "let the admin's break-glass key in", Check::Script(check), change))
    }
}

/// Shell text that writes `$file` anew with a key in the gate's block, or leaves it as it was, as where the disk is full: other
/// keys of the admin are in it. Then the blocks of admins who were named before go.
fn with_key(key: &str) -> String {
    format!(
        "key={key}\nlets_in \"$file\" \"$key\" || rewrite \"$file\" with_block || exit 1\n\
         former_blocks \"$file\" | {{ bad=0; while read -r other; do rewrite \"$other\" without_block || bad=1; done; exit $bad; }}"
    )
}

/// Shell text that is true where this file of sshd's reads the drop-in before any `Match` of its own: what stands in an
/// earlier block would count for students in place of the gate's, and one that is read within a block counts there only.
fn includes(file: &str) -> String {
    let folder = "/etc/ssh/sshd_config.d";
    format!(
        "awk 'tolower($1) == \"match\" {{ exit }} \
         tolower($1) == \"include\" {{ for (i = 2; i <= NF; i++) {{ gsub(/\"/, \"\", $i); \
         if ($i == \"{folder}/*.conf\" || $i == \"{folder}/*\" || $i == \"{DROP_IN}\") {{ found = 1; exit }} }} }} \
         END {{ exit !found }}' {file}"
    )
}

/// Shell text that is true where no drop-in of an earlier kubecamp is left; by the gate's manifest, since a file of that name
/// may be the server's own.
fn is_moved(former: &str, manifest: &str) -> String {
    format!("{{ [ ! -e {former} ] || ! grep -qs '^file.*[[:space:]]{former}$' {manifest}; }}")
}

/// A drop-in that sshd refuses is taken back before anybody notices.
fn door(text: &str) -> Result<Step, Problem> {
    let include = includes("/etc/ssh/sshd_config");
    let moved = is_moved(FORMER_DROP_IN, MANIFEST);
    let change = gate_host::script(&format!(
        "[ -x \"$SSHD\" ] || kc_die 'there is no sshd'; mkdir -p /run/sshd\n\
         \"$SSHD\" -t || kc_die 'sshd refuses its configuration as it was before'\n\
         back() {{ rm -f {DROP_IN}; [ -z \"$kept\" ] || mv -f \"$kept\" {DROP_IN}; \
         [ ! -e $KC/drop-in.former ] || mv -f $KC/drop-in.former {FORMER_DROP_IN}; kc_die \"$1\"; }}\n\
         kept=; [ ! -e {DROP_IN} ] || {{ kept=$KC/drop-in.before; cp -a {DROP_IN} $kept || exit 1; }}\n\
         {include} || {{ kc_record line absent /etc/ssh/sshd_config; rewrite /etc/ssh/sshd_config with_include || exit 1; }}\n\
         {put}\
         {moved} || mv -f {FORMER_DROP_IN} $KC/drop-in.former || back 'the drop-in of before cannot be moved'\n\
         \"$SSHD\" -t || back 'sshd refuses the gate'\n\
         reload_sshd || back 'sshd cannot be reloaded'\n\
         rm -f \"$KC/drop-in.before\" \"$KC/drop-in.former\"; cp {DROP_IN} $KC/drop-in.loaded",
        put = script::put(DROP_IN, 0o644, text)
    ))?;
    let check = format!("{} && {include} && {moved} && cmp -s {DROP_IN} {LOADED}", script::has(DROP_IN, text));
    Ok(Step::script("sshd", "make sshd ask for the slot", Check::Script(check), change))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    #[test]
    fn no_block_of_the_servers_own_comes_before_the_gates() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sshd_config");
        let first = |text: &str| {
            fs::write(&file, text).unwrap();
            Command::new("sh").arg("-c").arg(includes(&file.display().to_string())).status().unwrap().success()
        };
        assert!(first("# Include nothing\nPort 22\nInclude /etc/ssh/sshd_config.d/*.conf\nMatch User git\n"));
        assert!(first("  include\t/etc/ssh/sshd_config.d/*.conf\n"));
        assert!(!first("Match User git\n  AuthorizedKeysFile /git\nInclude /etc/ssh/sshd_config.d/*.conf\n"));
        assert!(!first("#Include /etc/ssh/sshd_config.d/*.conf\n") && !first("Include /etc/ssh/more/*.conf\n"));
        assert!(!first("Include /etc/ssh/sshd_config.d/*-site.conf\n"), "that reads others only");
        assert!(
            first("Include \"/etc/ssh/sshd_config.d/*.conf\"\n") && first(&format!("Include {DROP_IN}\nPort 22\n"))
        );
        // Those that others number from 01 on are read after it.
        assert_eq!(Path::new(DROP_IN).file_name().unwrap(), "00-kubecamp.conf");
    }

    #[test]
    fn the_admins_keys_are_whole_with_the_new_one_or_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("keys"), dir.path().join("authorized_keys"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let own = "ssh-ed25519 AAAA own";
        let write = |before: &str| {
            let done = lets_in(&link, Path::new("/nonexistent"), before);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left there");
            (done, fs::read_to_string(&file).unwrap())
        };
        // The last line need not be a whole one.
        fs::write(&file, own).unwrap();
        for full in ["sed() { printf half; return 4; }", "printf() { return 1; }", "mv() { return 1; }"] {
            assert_eq!(write(full), (false, own.to_owned()), "{full}");
        }
        let block = "# kubecamp-gate begin\nssh-ed25519 BBBB glass\n# kubecamp-gate end\n";
        for _ in 0..2 {
            assert_eq!(write(""), (true, format!("{block}{own}")));
        }
        assert!(link.is_symlink());
    }

    /// Whether the change that lets the key B in by this file goes well; `before` is shell text for a worse world.
    fn lets_in(file: &Path, manifests: &Path, before: &str) -> bool {
        let text = format!("KC={}\nfile={}\n{before}\n{}", manifests.display(), file.display(), with_key(GLASS));
        Command::new("sh").arg("-c").arg(gate_host::script(&text).unwrap()).status().unwrap().success()
    }

    const GLASS: &str = "'ssh-ed25519 BBBB glass'";

    #[test]
    fn the_break_glass_key_is_the_only_one_of_the_block_and_the_first_line_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("authorized_keys");
        let (a, b) = ("ssh-ed25519 AAAA older", "ssh-ed25519 BBBB mine");
        let block = |key: &str| format!("# kubecamp-gate begin\n{key}\n# kubecamp-gate end\n");
        let new = block("ssh-ed25519 BBBB glass");
        let cloud = format!("no-pty,command=\"echo Please login as ubuntu\" {b}\n");
        for (before, after) in [
            (format!("{b}\n"), format!("{b}\n")),
            (format!("{b}\n{cloud}"), format!("{b}\n{cloud}")),
            (format!("{a}\n{new}"), format!("{a}\n{new}")),
            // The older key is the gate's, and goes.
            (format!("{b}\n{}", block(a)), format!("{new}{b}\n")),
            (format!("{}{b}\n", block(a)), format!("{new}{b}\n")),
            // sshd takes the first line with the key.
            (format!("{cloud}{b}\n"), format!("{new}{cloud}{b}\n")),
            (format!("{cloud}{new}"), format!("{new}{cloud}")),
            (format!("#{b}\n"), format!("{new}#{b}\n")),
        ] {
            fs::write(&file, &before).unwrap();
            assert!(lets_in(&file, Path::new("/nonexistent"), ""));
            assert_eq!(fs::read_to_string(&file).unwrap(), after, "{before}");
        }
    }

    #[test]
    fn an_admin_who_was_named_before_is_let_in_by_the_gate_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let [new, former, own] = ["new", "former", "own"].map(|name| dir.path().join(name));
        let block = "# kubecamp-gate begin\nssh-ed25519 AAAA older\n# kubecamp-gate end\n";
        fs::write(&new, "").unwrap();
        for file in [&former, &own] {
            fs::write(file, format!("{block}ssh-ed25519 CCCC theirs\n")).unwrap();
        }
        let record = |file: &Path| format!("block\tabsent\t{}\n", file.display());
        fs::write(dir.path().join("manifest"), format!("{}{}", record(&former), record(&new))).unwrap();
        assert!(lets_in(&new, dir.path(), ""));
        assert!(fs::read_to_string(&new).unwrap().contains("BBBB glass"));
        assert_eq!(fs::read_to_string(&former).unwrap(), "ssh-ed25519 CCCC theirs\n");
        assert!(fs::read_to_string(&own).unwrap().starts_with(block), "nobody says that this one is the gate's");
    }

    #[test]
    fn only_the_gates_own_drop_in_of_before_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (former, manifest) = (dir.path().join("50-kubecamp.conf"), dir.path().join("manifest"));
        let text = is_moved(&former.display().to_string(), &manifest.display().to_string());
        let moved = || Command::new("sh").arg("-c").arg(&text).status().unwrap().success();
        assert!(moved(), "there is none");
        fs::write(&former, "Match all\n").unwrap();
        fs::write(&manifest, "dir\tabsent\t/x\n").unwrap();
        assert!(moved(), "it is the server's own");
        fs::write(&manifest, format!("dir\tabsent\t/x\nfile\tabsent\t{}\n", former.display())).unwrap();
        assert!(!moved());
        let step = door("Match all\n").unwrap();
        let Check::Script(check) = &step.done_if else { panic!("no script") };
        assert!(check.contains(&is_moved(FORMER_DROP_IN, MANIFEST)), "{check}");
    }
}
