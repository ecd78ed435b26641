use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Job, Mirrors,
    download::Downloads,
    fake::{Fake, Notes, noise},
    make, silent,
};
use crate::{
    bundle::{
        Asked, BuildRequest, Built, Bundle, Cache, DEFAULT_KUBERNETES, Kind, Origins, Source, build, versions::Versions,
    },
    core::{Arch, Code, Quiet},
};

const NATIVE: Arch = if cfg!(target_arch = "aarch64") { Arch::Arm64 } else { Arch::Amd64 };

fn versions() -> Versions {
    Versions::of(DEFAULT_KUBERNETES).unwrap()
}

fn job(fake: &Fake, folder: &Path) -> Job {
    let (mirrors, scratch) = (fake.mirrors(), folder.join("scratch"));
    Job { versions: versions(), arch: NATIVE, mirrors, folder: folder.to_owned(), scratch, pause: Duration::ZERO }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(bytes))
}

fn request(fake: &Fake, cache: &Path, source: Source) -> BuildRequest {
    BuildRequest {
        kubernetes: DEFAULT_KUBERNETES.to_owned(),
        arch: NATIVE,
        source,
        replace: vec![],
        out: None,
        cache: Cache::new(cache),
        mirrors: fake.mirrors(),
        asked: Asked::default(),
    }
}

/// The mirrors of `fake` where nobody listens.
fn unreachable(fake: &Fake) -> Mirrors {
    let mut mirrors = fake.mirrors();
    let all = mirrors.sites.values_mut().chain(mirrors.registries.values_mut());
    all.for_each(|mirror| *mirror = "http://127.0.0.1:1/none".to_owned());
    mirrors
}

#[tokio::test]
async fn a_site_that_breaks_off_in_mid_file_is_taken_up_again() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    fake.cut_everything(3);
    let parts = make(&job(&fake, folder.path()), &Quiet).await.unwrap();
    let kubelet = parts.iter().find(|p| p.name == "kubelet").unwrap();
    assert_eq!(fs::read(&kubelet.file).unwrap(), noise("kubelet", 200_000));
    let ranges = fake.requests(&format!("/dl/release/{DEFAULT_KUBERNETES}/bin/linux/{NATIVE}/kubelet"));
    let resumed = ranges.iter().flatten().count();
    assert!(ranges.len() >= 4 && resumed >= ranges.len() - 1, "{ranges:?}");
    let blob = fake.state.lock().unwrap().seen.iter().any(|(path, range)| path.contains("/blobs/") && range.is_some());
    assert!(blob, "a layer was resumed too");
}

#[tokio::test]
async fn a_link_that_breaks_off_all_the_time_brings_all_in_the_end() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let bytes = noise("large", 900_000);
    fake.put("/file", "text/plain", bytes.clone());
    fake.cut_everything(usize::MAX);
    let path = downloads.file(&fake.url("/file"), "file", &sha256(&bytes), &Quiet).await.unwrap();
    assert!(fs::read(path).unwrap() == bytes);
    let asked = fake.requests("/file");
    assert!(asked.len() > 8 && asked[1..].iter().all(Option::is_some), "half of the rest each time: {asked:?}");
}

#[tokio::test]
async fn a_weak_etag_brings_no_break_back_to_the_start() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let bytes = noise("large", 900_000);
    fake.put("/file", "text/plain", bytes.clone());
    fake.state.lock().unwrap().is_weak = true;
    fake.cut_everything(usize::MAX);
    let path = downloads.file(&fake.url("/file"), "file", &sha256(&bytes), &Quiet).await.unwrap();
    assert!(fs::read(path).unwrap() == bytes);
}

#[tokio::test]
async fn a_file_that_changes_in_mid_download_starts_anew() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let new = noise("new", 90_000);
    fake.put("/file", "text/plain", noise("old", 90_000));
    fake.cut_everything(1);
    {
        let mut state = fake.state.lock().unwrap();
        state.is_weak = true;
        state.next.insert("/file".to_owned(), new.clone());
    }
    let path = downloads.file(&fake.url("/file"), "file", &sha256(&new), &Quiet).await.unwrap();
    assert!(fs::read(path).unwrap() == new);
    assert_eq!(fake.requests("/file"), [None, Some(format!("bytes={}-", new.len() / 2)), None]);
}

#[tokio::test]
async fn upstream_makes_a_whole_bundle_once() {
    let (fake, cache) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    let Built { path, made } = build(request(&fake, cache.path(), Source::Auto), &Quiet).await.unwrap();
    assert!(made);
    let bundle = Bundle::open(&path).unwrap();
    bundle.verify(&Quiet).unwrap();
    assert_eq!(bundle.manifest().source, Origins::Upstream);
    assert!(bundle.members().filter(|m| m.kind == Kind::Image).count() >= 8);
    let plugin = bundle.member("cni-flannel").unwrap();
    assert_eq!(plugin.plain.size, noise("flannel plugin", 60_000).len() as u64);
    let (first, requests) = (fs::read(&path).unwrap(), fake.state.lock().unwrap().seen.len());
    let again = build(request(&fake, cache.path(), Source::Upstream), &Quiet).await.unwrap();
    assert_eq!(again, Built { path: path.clone(), made: false });
    let mut offline = request(&fake, cache.path(), Source::Auto);
    offline.mirrors = unreachable(&fake);
    assert_eq!(build(offline, &Quiet).await.unwrap(), again, "no network is needed to see that it is there");
    assert_eq!(fake.state.lock().unwrap().seen.len(), requests, "nothing was asked again");
    fs::remove_file(&path).unwrap();
    build(request(&fake, cache.path(), Source::Upstream), &Quiet).await.unwrap();
    assert!(fs::read(&path).unwrap() == first, "equal inputs give equal bytes");
}

#[tokio::test]
async fn an_image_keeps_the_registrys_bytes_and_gets_its_own_name() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    let parts = make(&job(&fake, folder.path()), &Quiet).await.unwrap();
    let etcd = parts.iter().find(|p| p.name == "etcd").unwrap();
    let mut archive = tar::Archive::new(fs::File::open(&etcd.file).unwrap());
    let mut files = std::collections::HashMap::new();
    for entry in archive.entries().unwrap() {
        let (mut entry, mut bytes) = (entry.unwrap(), vec![]);
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(path, bytes);
    }
    let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let listed = &index["manifests"][0];
    assert_eq!(listed["annotations"]["io.containerd.image.name"], etcd.images[0].as_str());
    let path = |digest: &serde_json::Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let manifest: serde_json::Value = serde_json::from_slice(&files[&path(&listed["digest"])]).unwrap();
    assert_eq!(files[&path(&manifest["layers"][0]["digest"])], noise(&etcd.images[0], 150_000));
    assert!(files.contains_key(&path(&manifest["config"]["digest"])));
}

#[tokio::test]
async fn an_image_without_a_list_of_cpus_must_be_for_the_one_that_is_asked_for() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let pause = format!("registry.k8s.io/pause:{}", versions().pause);
    fake.publish(&versions(), NATIVE);
    fake.unlist(&pause);
    make(&job(&fake, folder.path()), &Quiet).await.unwrap();
    let other = if NATIVE == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
    fake.publish_image(&pause, other, &noise("other", 1_000));
    fake.unlist(&pause);
    let problem = make(&job(&fake, folder.path()), &Quiet).await.unwrap_err();
    assert_eq!(problem.code, Code::Download);
    let host = fake.url("").replace("http://", "");
    let has = |text: &str| problem.what.contains(text);
    assert!(has(&host) && has(&pause) && has(&format!("only for linux/{other}, not for linux/{NATIVE}")), "{problem}");
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_nothing_stays() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.put("/file", "text/plain", noise("altered", 90_000));
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let problem = downloads.file(&fake.url("/file"), "file", &"0".repeat(64), &Quiet).await.unwrap_err();
    assert_eq!(problem.code, Code::DownloadDigest);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn no_problem_tells_a_mirrors_password() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    for path in ["/cut", "/other"] {
        fake.put(path, "text/plain", noise(path, 90_000));
    }
    fake.state.lock().unwrap().stops.insert("/cut".to_owned(), 0);
    let digest = "0".repeat(64);
    for path in ["/none", "/cut", "/other"] {
        let url = fake.url(path).replace("http://", "http://me:pa55word@");
        let file = downloads.file(&url, "file", &digest, &Quiet).await.unwrap_err();
        let mut told = vec![file.to_string()];
        if path != "/other" {
            told.push(downloads.text(&url, &Quiet).await.unwrap_err().to_string());
        }
        for told in told {
            assert!(told.contains(&fake.url(path)) && !told.contains("pa55word") && !told.contains('@'), "{told}");
        }
    }
}

#[tokio::test]
async fn a_problem_names_who_was_asked_and_is_no_page_long() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    let job = job(&fake, folder.path());
    let page = format!("\n<html>{}\n{}", "x".repeat(900), "more\n".repeat(50));
    fake.answer_first(&format!("/v2/k8s/pause/manifests/{}", versions().pause), "404 Not Found", page);
    let problem = make(&job, &Quiet).await.unwrap_err();
    let mirrored = fake.url("/k8s/pause:").replace("http://", "");
    assert!(problem.what.starts_with(&mirrored), "{problem}");
    assert!(problem.detail.len() == 1 && problem.detail[0].starts_with("it answers 404: <html>x"), "{problem}");
    assert_eq!(problem.detail[0].chars().count(), 200);
    let sums = format!("/dl/release/{DEFAULT_KUBERNETES}/bin/linux/{NATIVE}/kubeadm.sha256");
    fake.put(&sums, "text/plain", "none");
    let mut mirrors = fake.mirrors();
    mirrors.sites.values_mut().for_each(|mirror| *mirror = mirror.replace("http://", "http://me:pa55word@"));
    let problem = make(&Job { mirrors, ..job }, &Quiet).await.unwrap_err();
    assert!(problem.what.starts_with(&fake.url(&sums)) && !problem.to_string().contains("pa55word"), "{problem}");
}

#[tokio::test]
async fn an_altered_layer_is_refused() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    {
        let mut state = fake.state.lock().unwrap();
        let of_etcd = |path: &&mut String| path.contains("/etcd/blobs/");
        let mut paths: Vec<String> = state.files.keys().cloned().collect();
        for path in paths.iter_mut().filter(of_etcd) {
            state.files.get_mut(path).unwrap().1[5] ^= 1;
        }
    }
    let problem = make(&job(&fake, folder.path()), &Quiet).await.unwrap_err();
    assert_eq!(problem.code, Code::DownloadDigest, "{problem}");
}

#[tokio::test]
async fn a_file_that_changed_between_two_runs_starts_anew() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let (old, new) = (noise("old", 90_000), noise("new", 90_000));
    fake.put("/file", "text/plain", old);
    fake.state.lock().unwrap().stops.insert("/file".to_owned(), 45_000);
    let sha256 = sha256(&new);
    let problem = downloads.file(&fake.url("/file"), "file", &sha256, &Quiet).await.unwrap_err();
    assert_eq!(problem.code, Code::Download);
    assert_eq!(fake.requests("/file").len(), 7, "one that came further, and six that did not");
    fake.put("/file", "text/plain", new.clone());
    fake.state.lock().unwrap().stops.clear();
    let path = downloads.file(&fake.url("/file"), "file", &sha256, &Quiet).await.unwrap();
    assert_eq!(fs::read(path).unwrap(), new);
}

/// The `.part` file of a download with this digest and name.
fn part_file(folder: &Path, sha256: &str, name: &str) -> PathBuf {
    folder.join(format!("{}-{name}.part", &sha256[..16]))
}

#[tokio::test]
async fn a_mirror_of_a_folder_is_asked_for_itself() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    let mut job = job(&fake, folder.path());
    let flat = |to: &str| ("registry.k8s.io/coredns".to_owned(), fake.url(to));
    job.mirrors.registries.extend([flat("/k8s/coredns")]);
    assert!(silent(&job).await.is_none());
    make(&job, &Quiet).await.unwrap();
    job.mirrors.registries.extend([flat("/flat")]);
    let lacking = silent(&job).await.lacking;
    assert!(lacking.len() == 1 && lacking[0].starts_with("registry.k8s.io/coredns (its mirror"), "{lacking:?}");
}

#[tokio::test]
async fn who_answers_with_something_else_is_not_silent() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let job = job(&fake, folder.path());
    let host = fake.url("").replace("http://", "");
    let lacks = |told: &[String]| {
        for (told, site) in told.iter().zip(["dl.k8s.io", "github.com", "registry.k8s.io", "ghcr.io"]) {
            assert!(told.starts_with(&format!("{site} (its mirror {host}) answers, but has no ")), "{told}");
        }
        told.len() == 4
    };
    let none = silent(&job).await;
    assert!(none.is_total && none.silent.is_empty() && lacks(&none.lacking), "{none:?}");
    assert!(none.lacking[0].ends_with(&format!("release/{DEFAULT_KUBERNETES}/bin/linux/{NATIVE}/kubeadm.sha256")));
    fake.publish(&versions(), NATIVE);
    assert!(silent(&job).await.is_none());
    // A hotel's network has one page for everything.
    let page = |file: &mut (String, Vec<u8>)| *file = ("text/html".to_owned(), b"<html>Welcome</html>".to_vec());
    fake.state.lock().unwrap().files.values_mut().for_each(page);
    let hotel = silent(&job).await;
    assert!(hotel.is_total && hotel.silent.is_empty() && lacks(&hotel.lacking), "{hotel:?}");
    // A registry that gives no token.
    fake.publish(&versions(), NATIVE);
    fake.state.lock().unwrap().tokens = Some(usize::MAX);
    let told = silent(&job).await;
    assert!(told.silent.is_empty() && told.lacking.len() == 2, "{told:?}");
    fake.state.lock().unwrap().tokens = Some(1);
    assert!(silent(&job).await.is_none(), "each is asked twice");
    let nobody = silent(&Job { mirrors: unreachable(&fake), ..job }).await;
    assert!(nobody.is_total && nobody.lacking.is_empty() && nobody.silent.len() == 4, "{nobody:?}");
}

#[tokio::test]
async fn who_asks_for_a_wait_gets_it() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::from_millis(1)).unwrap();
    let bytes = noise("file", 90_000);
    fake.put("/file", "text/plain", bytes.clone());
    fake.put("/text", "text/plain", "text");
    for (path, busy) in [("/file", "503 Service Unavailable"), ("/text", "429 Too Many Requests")] {
        fake.answer_first(path, &format!("{busy}\r\nretry-after: 1"), "");
    }
    let begin = std::time::Instant::now();
    let notes = Notes::default();
    downloads.file(&fake.url("/file"), "file", &sha256(&bytes), &notes).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(downloads.text(&fake.url("/text"), &notes).await.unwrap(), "text");
    assert!(begin.elapsed() >= Duration::from_secs(2));
    let waits = ["/file", "/text"].map(|path| format!("{} could not be read: trying again in 1 s", fake.url(path)));
    assert_eq!(*notes.0.lock().unwrap(), waits, "a screen that stands still says why");
}

#[tokio::test]
async fn a_registry_with_too_many_requests_is_asked_again() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    let (path, _) = layer_of(&fake, "etcd");
    fake.answer_first(&path, "429 Too Many Requests", r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#);
    fake.answer_first(&path, "429 Too Many Requests", "<html>");
    make(&job(&fake, folder.path()), &Quiet).await.unwrap();
    assert_eq!(fake.requests(&path).len(), 3);
}

/// Path and bytes of the layer of the image `name`.
fn layer_of(fake: &Fake, name: &str) -> (String, Vec<u8>) {
    let state = fake.state.lock().unwrap();
    let of = |path: &&String| path.contains(&format!("/{name}/blobs/"));
    let blobs = state.files.keys().filter(of).map(|path| (path.clone(), state.files[path].1.clone()));
    blobs.max_by_key(|(_, bytes)| bytes.len()).unwrap()
}

#[tokio::test]
async fn a_token_that_was_not_to_be_had_is_asked_for_again() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    fake.state.lock().unwrap().tokens = Some(2);
    make(&job(&fake, folder.path()), &Quiet).await.unwrap();
    assert_eq!(fake.state.lock().unwrap().tokens, Some(0), "some were refused");
}

#[tokio::test]
async fn a_layer_goes_on_where_it_was_after_a_request_without_a_token() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.publish(&versions(), NATIVE);
    let (path, etcd) = layer_of(&fake, "etcd");
    let part = part_file(folder.path(), &sha256(&etcd), &format!("etcd-{}", versions().etcd));
    fs::write(part, &etcd[..75_000]).unwrap();
    fake.answer_first(&path, "401 Unauthorized", "");
    make(&job(&fake, folder.path()), &Quiet).await.unwrap();
    let from = Some("bytes=75000-".to_owned());
    assert_eq!(fake.requests(&path), [from.clone(), from]);
}

#[tokio::test]
async fn what_was_whole_before_it_had_its_name_is_taken_as_it_is() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let bytes = noise("whole", 90_000);
    let part = part_file(folder.path(), &sha256(&bytes), "file");
    fs::write(&part, &bytes).unwrap();
    let path = downloads.file(&fake.url("/file"), "file", &sha256(&bytes), &Quiet).await.unwrap();
    assert!(fs::read(path).unwrap() == bytes && !part.exists());
    assert!(fake.requests("/file").is_empty(), "nothing was missing");
}

#[tokio::test]
async fn a_layers_part_that_is_as_long_as_the_layer_never_stands_in_the_way() {
    let fake = Fake::start().await;
    fake.publish(&versions(), NATIVE);
    // Whole, of the right length but wrong, and too long.
    let (_, etcd) = layer_of(&fake, "etcd");
    for there in [etcd.clone(), vec![7; etcd.len()], vec![7; etcd.len() + 500]] {
        let folder = tempfile::tempdir().unwrap();
        let job = job(&fake, folder.path());
        let image = format!("etcd-{}", versions().etcd);
        fs::write(part_file(folder.path(), &sha256(&etcd), &image), &there).unwrap();
        make(&job, &Quiet).await.unwrap();
        let kept = fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.path());
        let kept = kept.filter(|p| p.to_string_lossy().ends_with(&image)).any(|p| fs::read(p).unwrap() == etcd);
        assert!(kept, "the layer is there under its name");
    }
}

#[tokio::test]
async fn a_full_disk_is_no_bad_link() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    let bytes = noise("large", 900_000);
    fake.put("/file", "text/plain", bytes.clone());
    let part = part_file(folder.path(), &sha256(&bytes), "file");
    std::os::unix::fs::symlink("/dev/full", part).unwrap();
    let problem = downloads.file(&fake.url("/file"), "file", &sha256(&bytes), &Quiet).await.unwrap_err();
    assert_eq!(problem.code, Code::LocalFile);
    assert!(problem.detail.iter().any(|line| line.contains("No space left")), "{problem}");
    assert!(problem.all_hints()[0].starts_with("Free some space"), "{:?}", problem.hints);
    assert_eq!(fake.requests("/file").len(), 1, "trying again helps nobody");
}

#[tokio::test]
async fn what_does_not_exist_is_asked_once() {
    let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
    let problem = make(&job(&fake, folder.path()), &Quiet).await.unwrap_err();
    assert_eq!(problem.code, Code::Download);
    let downloads = Downloads::new(folder.path().to_owned(), Duration::ZERO).unwrap();
    downloads.text(&fake.url("/none"), &Quiet).await.unwrap_err();
    assert_eq!(fake.requests("/none").len(), 1);
}

#[tokio::test]
async fn a_kubeadm_that_wants_other_images_is_noticed() {
    for (kubernetes, hint) in [(DEFAULT_KUBERNETES, Code::BundleBuild.hint()), ("v1.36.99", DEFAULT_KUBERNETES)] {
        let (fake, cache) = (Fake::start().await, tempfile::tempdir().unwrap());
        let versions = Versions::of(kubernetes).unwrap();
        fake.publish(&versions, NATIVE);
        fake.publish(&Versions { pause: "9.9", ..versions }, NATIVE);
        let kubernetes = kubernetes.to_owned();
        let asked = BuildRequest { kubernetes, ..request(&fake, cache.path(), Source::Upstream) };
        let problems = build(asked, &Quiet).await.unwrap_err();
        let problem = problems.iter().next().unwrap();
        assert_eq!(problem.code, Code::BundleBuild);
        assert!(problem.detail.iter().any(|line| line.contains("pause:9.9")), "{problem}");
        assert!(problem.all_hints()[0].contains(hint), "{:?}", problem.hints);
    }
}

#[tokio::test]
async fn what_a_killed_build_left_is_removed_by_the_next() {
    let (fake, cache) = (Fake::start().await, tempfile::tempdir().unwrap());
    let build_folder = cache.path().join("build");
    for kept in ["scratch-killed/packed", "modules", "downloads"] {
        fs::create_dir_all(build_folder.join(kept)).unwrap();
        fs::write(build_folder.join(kept).join("file"), "bytes").unwrap();
    }
    // Nothing is published: the build fails, and leaves nothing of its own either.
    build(request(&fake, cache.path(), Source::Upstream), &Quiet).await.unwrap_err();
    let mut there: Vec<_> = fs::read_dir(&build_folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["downloads", "lock", "modules"]);
    assert!(build_folder.join("downloads/file").exists());
}

#[tokio::test]
async fn unknown_versions_and_trees_are_refused_before_anything_is_done() {
    let (fake, cache) = (Fake::start().await, tempfile::tempdir().unwrap());
    let unknown = BuildRequest { kubernetes: "v1.2.3".to_owned(), ..request(&fake, cache.path(), Source::Auto) };
    assert_eq!(build(unknown, &Quiet).await.unwrap_err().iter().next().unwrap().code, Code::BundleUnknown);
    let replace = vec![("k8s.io/kubernetes".to_owned(), cache.path().join("none"))];
    let missing = BuildRequest { replace, ..request(&fake, cache.path(), Source::Auto) };
    assert_eq!(build(missing, &Quiet).await.unwrap_err().iter().next().unwrap().code, Code::LocalFile);
    assert!(!Cache::new(cache.path()).bundles().exists());
    assert!(fake.state.lock().unwrap().seen.is_empty());
    assert_eq!(Mirrors::default().url("https://dl.k8s.io/x"), "https://dl.k8s.io/x");
}
