use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{Context, up::this_arch};
use crate::{
    bundle::{Asked, BuildRequest, Bundle, Cache, DEFAULT_KUBERNETES, Source, build},
    cli::{
        args::{BuildArgs, BundleCommand},
        output,
        settings::Config,
    },
    core::{Arch, Class, Code, EventKind, Outcome, Problem, Problems, Report, shell::printable},
    render::{count, table},
};

/// A bundle whose digests are all right.
#[derive(Serialize)]
struct Whole<'a> {
    file: &'a Path,
    id: &'a str,
    kubernetes: &'a str,
    arch: Arch,
    members: usize,
}

impl<'a> Whole<'a> {
    fn of(bundle: &'a Bundle) -> Self {
        let manifest = bundle.manifest();
        Self {
            file: bundle.path(),
            id: bundle.id(),
            kubernetes: &manifest.kubernetes,
            arch: manifest.arch,
            members: bundle.members().count(),
        }
    }
}

/// `kubecamp bundle`.
pub(super) async fn bundle(cx: &Context, command: BundleCommand) -> Result<(), Problems> {
    match command {
        BundleCommand::Build(args) => make(cx, args).await,
        BundleCommand::Inspect { file, output } => {
            let bundle = open(cx, file)?;
            Ok(output::value(output, bundle.manifest(), |wide| listing(&bundle, wide))?)
        }
        BundleCommand::Verify { file, output } => {
            let bundle = open(cx, file)?;
            let (journal, bundle) = (cx.unkept_journal(), Arc::new(bundle));
            // Aside, so that Ctrl-C is heard meanwhile.
            let verified = tokio::task::spawn_blocking({
                let bundle = Arc::clone(&bundle);
                move || bundle.verify(&*journal)
            });
            verified.await.map_err(|e| Problem::new(Code::Internal, "verifying ended badly").because(e))??;
            let whole = Whole::of(&bundle);
            let members = count(whole.members as u64, "member");
            let text = format!("{}: {members}, every digest is right\n", whole.file.display());
            Ok(cx.value(output, &whole, &text)?)
        }
    }
}

fn open(cx: &Context, file: Option<PathBuf>) -> Result<Bundle, Problem> {
    // One that was named and is not there is a slip, which no build mends.
    if let Some(named) = file {
        return Bundle::open(&named);
    }
    let path = Cache::new(&cx.places.cache).bundle(DEFAULT_KUBERNETES, this_arch()?);
    if !path.exists() {
        return Err(Problem::new(Code::BundleFormat, format!("there is no bundle {}", path.display()))
            .hint("Build it: kubecamp bundle build."));
    }
    Bundle::open(&path)
}

async fn make(cx: &Context, args: BuildArgs) -> Result<(), Problems> {
    let replace = args.replace.iter().map(|text| replacement(text)).collect::<Result<Vec<_>, _>>()?;
    args.out.as_deref().map_or(Ok(()), must_have_folder)?;
    let request = BuildRequest {
        kubernetes: args.kubernetes,
        arch: args.arch.map_or_else(this_arch, Ok)?,
        source: match args.source.as_str() {
            "upstream" => Source::Upstream,
            "modules" => Source::Modules,
            _ => Source::Auto,
        },
        replace,
        out: args.out,
        mirrors: Config::load(&cx.places)?.mirrors,
        cache: Cache::new(&cx.places.cache),
        asked: Asked::default(),
    };
    let journal = cx.unkept_journal();
    cx.stop.in_order();
    let built = tokio::select! {
        built = build(request, &*journal) => built,
        () = cx.cancel.cancelled() => Err(Problem::new(Code::Cancelled, "stopped by Ctrl-C or SIGTERM; finished parts are kept").into()),
    };
    let (outcome, changed, unchanged) = match &built {
        Ok(built) if built.made => (Outcome::Changed, 1, 0),
        Ok(_) => (Outcome::AlreadyDone, 0, 1),
        Err(problems) if problems.class() == Class::Cancelled => (Outcome::Skipped, 0, 0),
        Err(_) => (Outcome::Failed, 0, 0),
    };
    journal.event(EventKind::RunEnded { outcome, changed, unchanged, millis: journal.millis() });
    cx.result(&format!("{}\n", built?.path.display()));
    Ok(())
}

fn replacement(text: &str) -> Result<(String, PathBuf), Problem> {
    let bad = || {
        Problem::new(Code::Usage, format!("`{text}` is not MODULE=DIR"))
            .hint("Write it as k8s.io/kubernetes=../kubernetes.")
    };
    let (module, dir) = text.split_once('=').ok_or_else(bad)?;
    let dir = std::path::absolute(dir).map_err(|_| bad())?;
    if !dir.is_dir() {
        return Err(Problem::new(Code::LocalFile, format!("{} is not a folder", dir.display())));
    }
    Ok((module.to_owned(), dir))
}

/// A folder that is not there is a slip more often than a wish, and a build takes long.
fn must_have_folder(out: &Path) -> Result<(), Problem> {
    let folder = match out.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder.unwrap_or(out),
    };
    if folder.is_dir() {
        return Ok(());
    }
    let what = format!("there is no folder {} for the bundle", folder.display());
    Err(Problem::new(Code::LocalFile, what).hint("Make it first, or name another file with --out."))
}

fn listing(bundle: &Bundle, wide: bool) -> String {
    let manifest = bundle.manifest();
    let heading = ["NAME", "KIND", "VERSION", "SIZE", "STORED", "LICENCE", "ORIGIN"];
    let mut rows = vec![output::columns(wide, heading, ["NODES", "PROVIDES", "SHA256"])];
    let mib = |n: u64| format!("{:.1} MiB", n as f64 / (1 << 20) as f64);
    for m in bundle.members() {
        let kind = format!("{:?}", m.kind).to_lowercase();
        let (size, stored) = (mib(m.plain.size), mib(m.stored.size));
        let nodes = if m.for_workers() { "all" } else { "control plane" };
        let provides = m.install.clone().unwrap_or_else(|| m.images.join(","));
        // Whoever made the bundle wrote these words, and nobody has verified it yet.
        let row = output::columns(
            wide,
            [&m.name, &kind, &m.version, &size, &stored, &m.licence, &m.origin],
            [nodes, &provides, &m.plain.sha256],
        );
        rows.push(row.iter().map(|cell| printable(cell)).collect());
    }
    let kubernetes = printable(&manifest.kubernetes);
    let patched = match manifest.replaced.join(", ") {
        none if none.is_empty() => none,
        modules => format!(", patched: {}", printable(&modules)),
    };
    format!("Kubernetes {kubernetes} for {}, id {}{patched}\n{}", manifest.arch, bundle.id(), table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Audience, Kind, Origins, Part, Title, write};

    #[test]
    fn a_bundle_goes_into_a_folder_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        for there in [Path::new("a.bundle"), &folder.path().join("a.bundle"), Path::new("/a.bundle")] {
            assert!(must_have_folder(there).is_ok(), "{}", there.display());
        }
        let refused = must_have_folder(&folder.path().join("nix/a.bundle")).unwrap_err();
        assert!(refused.code == Code::LocalFile && refused.what.contains("nix"), "{refused}");
    }

    #[test]
    fn a_listing_obeys_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, out) = (folder.path().join("plain"), folder.path().join("a.bundle"));
        std::fs::write(&plain, "bytes").unwrap();
        let part = Part {
            name: "kubelet".into(),
            kind: Kind::Binary,
            version: "v1\u{202e}".into(),
            images: vec![],
            role: Audience::All,
            install: Some("/usr/local/bin/kubelet".into()),
            origin: "a\nkubeadm  binary".into(),
            licence: "\x1b[2J".into(),
            file: plain,
        };
        let packed = part.pack(folder.path(), &[]).unwrap();
        let (arch, source) = (Arch::Amd64, Origins::Modules);
        let replaced = vec!["k8s.io/\x1b[7mx".into(), "b".into()];
        write(Title { kubernetes: "v1\x1b[1m".into(), arch, source, replaced }, vec![packed], &out).unwrap();
        let text = listing(&Bundle::open(&out).unwrap(), true);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'), "{text:?}");
        assert_eq!(text.lines().count(), 3, "{text}");
        let title = text.lines().next().unwrap();
        assert!(
            title.contains(", patched: k8s.io/") && title.ends_with(", b"),
            "nobody takes it for the release: {title}"
        );
    }
}
