use std::{ffi::OsStr, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use super::{Context, must_have, stopped, sudo_password};
use crate::{
    cli::{args::CpArgs, output::Show},
    core::{Blob, Code, NodeId, Problem, Problems, Report, shell::quote},
    engine::Journal,
    host::Host,
    profile::Lab,
    transport::{Io, LinkError, SshTransport},
};

/// How long a look at the node may take, and a change of a file's owner.
const LIMIT: Duration = Duration::from_secs(60);

/// `kubecamp cp`: a file to a node, verified on arrival; skipped when it is there already.
pub(super) async fn cp(cx: &Context, args: CpArgs) -> Result<(), Problems> {
    let (lab, state) = cx.store.need(&cx.global.name)?;
    let (node, path) = on_node(&args.to).ok_or_else(|| not_on_node(&lab, &args))?;
    let node: NodeId =
        node.parse().map_err(|e| Problem::new(Code::Usage, "the node's name is not valid").because(e))?;
    must_have(&lab, &node)?;
    // A file that cannot be read is told before anyone is asked for anything.
    let file = LocalFile::of(&args.from)?;
    let target = cx.target(&lab, &state, &node, &args.connect).await?.ok_or_else(|| stopped(lab.name(), &node))?;
    let password = sudo_password(&args.connect).await?;
    // Facts would cost more than a small file.
    let link = SshTransport::connect(target).await.map_err(|p| p.on(&node))?;
    let host = Host::open(node.clone(), Arc::new(link), Some(&password)).await?;
    // Once there may be a part of the file, Ctrl-C still lets the host remove it.
    cx.stop.in_order();
    let put = async {
        let journal = Arc::new(Journal::unkept(vec![Show::choose(cx.global.plain, false).listener(false)]));
        let sent = |n: u64| journal.progress(&node, "upload", n, file.blob.size());
        let io = Io { line: None, sent: Some(&sent) };
        put(&host, &file, path, io).await.map_err(|p| p.on(&node).into())
    };
    let ended = cx.stop.unless_stopped(put).await;
    host.close().await;
    ended
}

/// A place on a node: its name, and the path there.
fn on_node(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(_, path)| path.starts_with('/'))
}

/// The problem that the target is no place on a node; scp would copy from one as well.
fn not_on_node(lab: &Lab, args: &CpArgs) -> Problem {
    let problem = Problem::new(Code::Usage, format!("`{}` is not NODE:/PATH", args.to));
    let from = args.from.to_str().and_then(on_node);
    match from.filter(|(node, _)| lab.nodes().iter().any(|known| known.name.as_str() == *node)) {
        Some((node, path)) => problem.hint(format!(
            "It copies to nodes only. From one: kubecamp{} ssh {node} -- cat {} > FILE.",
            lab.name().flag(),
            quote(path)
        )),
        None => problem.hint("Write it as cp:/root/file."),
    }
}

/// The file to be copied.
struct LocalFile {
    blob: Blob,
    name: String,
    /// Permission bits alone: no file is another user's program by being copied.
    mode: u32,
}

impl LocalFile {
    fn of(path: &Path) -> Result<Self, Problem> {
        let fail = |e: io::Error| Problem::new(Code::LocalFile, format!("cannot read {}", path.display())).because(e);
        let blob = Blob::hashing(path).map_err(fail)?;
        let mode = fs::metadata(path).map_err(fail)?.permissions().mode() & 0o777;
        // Without a name that can be said, the target must have one.
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        Ok(Self { blob, name, mode })
    }
}

/// Where on the node the file goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    path: String,
    replaced: Option<Replaced>,
}

/// What a file that is replaced leaves to the one that comes.
#[derive(Debug, PartialEq, Eq)]
struct Replaced {
    mode: u32,
    user: u32,
    group: u32,
}

/// Sends the file as scp does: into a folder under its own name, and where a file is, with the mode and owner of that.
async fn put(host: &Host, file: &LocalFile, path: &str, io: Io<'_>) -> Result<(), Problem> {
    let fail = |e: LinkError| e.problem();
    let looked = host.root(&look(path, &file.name), LIMIT, Io::default()).await.map_err(fail)?;
    if !looked.ok() {
        return Err(Problem::new(Code::UploadFailed, format!("cannot see what is at {path}")).detail(looked.tail(3)));
    }
    let place = place(&looked.text())?;
    let Some(old) = place.replaced else {
        return host.put(&file.blob, &place.path, file.mode, io).await.map_err(fail).map(drop);
    };
    // It is root's until it is given back: nobody may run it as root meanwhile.
    host.put(&file.blob, &place.path, old.mode & 0o777, io).await.map_err(fail)?;
    if (old.user, old.group) == (0, 0) && old.mode <= 0o777 {
        return Ok(());
    }
    let path = quote(&place.path);
    let give = format!("chown {}:{} {path} && chmod {:o} {path}", old.user, old.group, old.mode);
    let given = host.root(&give, LIMIT, Io::default()).await.map_err(fail)?;
    if given.ok() {
        return Ok(());
    }
    let what = format!("{} is new, and did not get the owner and mode of the old one", place.path);
    Err(Problem::new(Code::UploadFailed, what).detail(given.tail(3)))
}

/// A reading script: the first line says what is at `path`, or at `name` in it where it is a folder; the rest is where
/// that is. A link is followed.
fn look(path: &str, name: &str) -> String {
    format!(
        "t={} n={}\n\
         case $t in */) [ -d \"$t\" ] || {{ echo no-folder; printf %s \"$t\"; return 0; }} ;; esac\n\
         [ ! -d \"$t\" ] || t=${{t%/}}/$n\n\
         [ ! -L \"$t\" ] || t=$(readlink -f \"$t\") || return 1\n\
         if [ -d \"$t\" ]; then echo folder\n\
         elif [ -f \"$t\" ]; then stat -c 'file %a %u:%g' \"$t\" || return 1\n\
         elif [ -e \"$t\" ]; then echo other\n\
         else echo nothing; fi\n\
         printf %s \"$t\"",
        quote(path),
        quote(name)
    )
}

/// Makes sense of what [`look`] told.
fn place(told: &str) -> Result<Place, Problem> {
    let (kind, path) = told.split_once('\n').unwrap_or_default();
    let refuse = |what: &str, hint: &str| Err(Problem::new(Code::Usage, format!("{path} {what}")).hint(hint));
    if let Some(old) = kind.strip_prefix("file ").and_then(replaced) {
        return Ok(Place { path: path.to_owned(), replaced: Some(old) });
    }
    match kind {
        "nothing" => Ok(Place { path: path.to_owned(), replaced: None }),
        "no-folder" => refuse("is no folder", "Make it first, or leave the last slash away."),
        "folder" => refuse("is a folder", "Name the file as it is to be called, or remove the folder first."),
        "other" => {
            refuse("is no regular file", "Name a file or a folder; devices, sockets and pipes stay as they are.")
        }
        _ => Err(Problem::new(Code::UploadFailed, "the host does not say what is there")),
    }
}

/// What stat told: mode, user and group.
fn replaced(told: &str) -> Option<Replaced> {
    let (mode, owner) = told.split_once(' ')?;
    let (user, group) = owner.split_once(':')?;
    Some(Replaced { mode: u32::from_str_radix(mode, 8).ok()?, user: user.parse().ok()?, group: group.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::transport::{Cmd, LocalTransport, Reply, ScriptedTransport, Transport};

    #[tokio::test]
    async fn a_file_goes_where_scp_would_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().display().to_string();
        fs::write(dir.path().join("file"), "old").unwrap();
        fs::set_permissions(dir.path().join("file"), PermissionsExt::from_mode(0o640)).unwrap();
        fs::create_dir_all(dir.path().join("folder/in it/taken")).unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        for (to, name, expected) in [
            ("/new", "x", Ok(("/new", None))),
            ("/not there/new", "x", Ok(("/not there/new", None))),
            ("/file", "x", Ok(("/file", Some(0o640)))),
            ("/link", "x", Ok(("/file", Some(0o640)))),
            ("", "it's new", Ok(("/it's new", None))),
            ("/", "file", Ok(("/file", Some(0o640)))),
            ("/folder/in it", "x", Ok(("/folder/in it/x", None))),
            ("/folder/in it", "taken", Err("is a folder")),
            ("/not there/", "x", Err("is no folder")),
            ("/file/", "x", Err("is no folder")),
            ("/socket", "x", Err("is no regular file")),
        ] {
            let script = look(&format!("{root}{to}"), name);
            let exit = LocalTransport.exec(&Cmd::script(&script), Io::default()).await.unwrap();
            assert!(exit.ok(), "{to}: {exit:?}");
            match (place(&exit.text()), expected) {
                (Ok(place), Ok((path, mode))) => {
                    assert_eq!((place.path, place.replaced.map(|old| old.mode)), (format!("{root}{path}"), mode));
                }
                (Err(problem), Err(word)) => {
                    assert!(problem.code == Code::Usage && problem.what.ends_with(word), "{to}: {problem}");
                    assert!(!problem.hints.is_empty(), "{to}");
                }
                (found, _) => panic!("{to}: {found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_replaced_file_leaves_its_mode_and_owner() {
        let file = LocalFile { blob: Blob::from_bytes("new"), name: "x".into(), mode: 0o755 };
        for (told, sent, given) in [
            ("nothing\n/root/x", Some("put /root/x 755"), None),
            ("file 600 0:0\n/etc/x", Some("put /etc/x 600"), None),
            ("file 600 7:8\n/etc/x", Some("put /etc/x 600"), Some("chown 7:8 /etc/x && chmod 600 /etc/x")),
            ("file 4755 0:0\n/etc/x", Some("put /etc/x 755"), Some("chown 0:0 /etc/x && chmod 4755 /etc/x")),
            ("other\n/dev/full", None, None),
            ("file 600 $(x):0\n/etc/x", None, None),
        ] {
            let link = ScriptedTransport::new()
                .on("id -u", Reply::ok("root"))
                .on("readlink", Reply::ok(told))
                .on("chown", Reply::ok(""));
            let host = Host::open("cp".parse().unwrap(), Arc::new(link.clone()), None).await.unwrap();
            let ended = put(&host, &file, "/etc/x", Io::default()).await;
            assert_eq!(ended.is_ok(), sent.is_some(), "{told}: {ended:?}");
            let ran = link.ran();
            assert_eq!(ran.iter().map(|r| r.line.as_str()).find(|line| line.starts_with("put ")), sent, "{told}");
            let gave = ran.iter().find(|r| r.input.contains("chown"));
            assert_eq!(gave.is_some(), given.is_some(), "{told}");
            assert!(gave.is_none_or(|r| r.input.contains(given.unwrap())), "{gave:?}");
        }
    }

    #[test]
    fn a_file_brings_its_permissions_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.sh");
        fs::write(&path, "x").unwrap();
        for (mode, brought) in [(0o755, 0o755), (0o600, 0o600), (0o4755, 0o755)] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let file = LocalFile::of(&path).unwrap();
            assert_eq!((file.mode, file.name.as_str()), (brought, "run.sh"));
        }
        assert_eq!(LocalFile::of(dir.path()).err().unwrap().code, Code::LocalFile);
    }
}
