//! What a bundle file must withstand, on small ones.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::prelude::*;

use super::{
    Bundle,
    catalogue::catalogue,
    layout,
    manifest::{Audience, Kind, Manifest, Origins, is_plain_name, is_plain_reference, may_install},
    versions::{Versions, known_versions},
    write::{Part, Title, write},
};
use crate::core::{Arch, Code, Problem, Quiet};

fn part(folder: &Path, name: &str, kind: Kind, bytes: &[u8]) -> Part {
    let file = folder.join(format!("{name}.plain"));
    fs::write(&file, bytes).unwrap();
    let (install, images) = match kind {
        Kind::Binary => (Some(format!("/usr/local/bin/{name}")), vec![]),
        Kind::Image => (None, vec![format!("registry.k8s.io/{name}:v1.36.3")]),
    };
    let (version, origin) = ("v1.36.3".to_owned(), format!("example.org/{name}@v1.36.3"));
    let (name, licence, role) = (name.to_owned(), "Apache-2.0".to_owned(), Audience::All);
    Part { name, kind, version, images, role, install, origin, licence, file }
}

/// Writes a bundle of three members, given in no order.
fn make(folder: &Path) -> PathBuf {
    let out = folder.join("small.bundle");
    let parts = [
        part(folder, "pause", Kind::Image, &[7; 3000]),
        part(folder, "kubelet", Kind::Binary, b"a program"),
        part(folder, "empty", Kind::Binary, b""),
    ];
    let packed = parts.map(|p| p.pack(folder, &[]).unwrap());
    let title =
        Title { kubernetes: "v1.36.3".to_owned(), arch: Arch::Amd64, source: Origins::Modules, replaced: vec![] };
    write(title, packed.into(), &out).unwrap();
    out
}

static SMALL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    fs::read(make(folder.path())).unwrap()
});

/// Opens and verifies a bundle of these bytes.
fn check(bytes: &[u8]) -> Result<(), Problem> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    Bundle::open(file.path())?.verify(&Quiet)
}

fn code(bytes: &[u8]) -> Code {
    check(bytes).unwrap_err().code
}

/// The small bundle with its manifest changed and everything that depends on it made right again.
fn with_manifest(change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&make(folder.path())).unwrap();
    let mut manifest = bundle.manifest().clone();
    change(&mut manifest);
    let text = manifest.to_bytes().unwrap();
    let sum = layout::sum_line(&hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&text)));
    let mut bytes = vec![];
    let mut entry = |path: &str, content: &[u8]| {
        let mut header = layout::header("x", content.len() as u64).unwrap();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    };
    entry(layout::MANIFEST, &text);
    entry(layout::MANIFEST_SUM, sum.as_bytes());
    for (member, changed) in bundle.members().zip(&manifest.members) {
        let mut content = vec![];
        std::io::Read::read_to_end(&mut bundle.stored(member).open().unwrap(), &mut content).unwrap();
        entry(&changed.stored.path, &content);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&make(folder.path())).unwrap();
    bundle.verify(&Quiet).unwrap();
    assert_eq!(bundle.members().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["empty", "kubelet", "pause"]);
    let kubelet = bundle.member("kubelet").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut bundle.plain(kubelet).open().unwrap(), &mut text).unwrap();
    assert_eq!(text, "a program");
    assert_eq!(bundle.stored(kubelet).size(), kubelet.stored.size);
    assert!(bundle.member("etcd").is_none());
    check(&with_manifest(|_| {})).unwrap();
}

#[test]
fn equal_inputs_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(fs::read(make(folder.path())).unwrap(), *SMALL);
}

#[test]
fn an_earlier_bundle_saves_the_compression_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (make(folder.path()), folder.path().join("broken.bundle"));
    let mut bytes = SMALL.clone();
    let stored = Bundle::open(&whole).unwrap().member("pause").unwrap().stored.size as usize;
    let at = bytes.len() - layout::END as usize - stored.next_multiple_of(512) + 20;
    bytes[at] ^= 1;
    fs::write(&broken, bytes).unwrap();
    for earlier in [whole, broken] {
        let earlier = [Bundle::open(&earlier).unwrap()];
        let again = tempfile::tempdir().unwrap();
        let pause = part(again.path(), "pause", Kind::Image, &[7; 3000]).pack(again.path(), &earlier).unwrap();
        let plain = part(again.path(), "pause", Kind::Image, &[7; 3000]).pack(again.path(), &[]).unwrap();
        assert_eq!(format!("{pause:?}"), format!("{plain:?}"));
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    // Seven shares no factor with a block's 512 bytes, so every place in a block has its turn.
    for i in (0..SMALL.len()).step_by(7) {
        let mut bytes = SMALL.clone();
        bytes[i] ^= 1;
        assert!(check(&bytes).is_err(), "byte {i}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_change_is_refused(at in 0..SMALL.len(), to in any::<u8>()) {
        let mut bytes = SMALL.clone();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        prop_assert!(check(&bytes).is_err());
    }

    #[test]
    fn a_cut_or_longer_file_is_refused(to in 0..SMALL.len(), more in 1usize..2000) {
        prop_assert!(check(&SMALL[..to]).is_err());
        let mut longer = SMALL.clone();
        longer.resize(longer.len() + more, 0);
        prop_assert!(check(&longer).is_err());
    }

    #[test]
    fn what_opens_has_names_that_are_words(name in "[a-z./'$(`\\\\\n\x1b-]{0,8}") {
        // The last member: whatever it is called, the order stays.
        let bytes = with_manifest(|m| m.members[2].name = format!("z{name}"));
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b"-.".contains(&b));
        prop_assert_eq!(check(&bytes).is_ok(), plain);
    }

    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(check(&bytes).is_err());
    }
}

#[test]
fn a_cut_file_says_so() {
    assert_eq!(code(&SMALL[..SMALL.len() - 600]), Code::BundleBroken);
    assert_eq!(code(&SMALL[..SMALL.len() / 2]), Code::BundleBroken);
    assert_eq!(code(b"PK\x03\x04 something else entirely"), Code::BundleBroken);
    assert_eq!(code(&[b'x'; 4096]), Code::BundleFormat);
}

#[test]
fn members_that_climb_out_are_refused() {
    for bad in ["../x", "/etc/passwd", "bin/../../x", "bin//x"] {
        assert_eq!(code(&with_manifest(|m| m.members[0].stored.path = bad.to_owned())), Code::BundlePath, "{bad}");
    }
    for bad in ["/etc/shadow", "/usr/local/bin/../../../etc/x", "bin/kubelet"] {
        let bytes = with_manifest(|m| m.members[1].install = Some(bad.to_owned()));
        assert_eq!(code(&bytes), Code::BundlePath, "{bad}");
    }
}

#[test]
fn members_that_a_path_or_a_shell_reads_otherwise_are_refused() {
    for bad in
        ["../../../root/x", "a/b", ".hidden", "..", "", "a b", "a'b", "$(id)", "`id`", "a\nb", "a\x1b[2Jb", "\u{e9}"]
    {
        let named = with_manifest(|m| m.members[2].name = bad.to_owned());
        assert_eq!(code(&named), Code::BundlePath, "{bad:?}");
        let installed = with_manifest(|m| m.members[1].install = Some(format!("/usr/local/bin/{bad}")));
        assert_eq!(code(&installed), Code::BundlePath, "{bad:?}");
    }
    for bad in ["", "registry.k8s.io/pause:3.10\"\n[plugins]", "pause;id"] {
        let bytes = with_manifest(|m| m.members[2].images = vec![bad.to_owned()]);
        assert_eq!(code(&bytes), Code::BundleFormat, "{bad:?}");
    }
    for bad in ["", "0", &"Z".repeat(64), "$(id)"] {
        let bytes = with_manifest(|m| m.members[2].plain.sha256 = bad.to_owned());
        assert_eq!(code(&bytes), Code::BundleFormat, "{bad:?}");
    }
}

#[test]
fn every_real_member_has_a_plain_name() {
    for version in known_versions() {
        let versions = Versions::of(version).unwrap();
        for source in [Origins::Upstream, Origins::Modules] {
            for entry in catalogue(&versions, source) {
                let part = entry.part(PathBuf::new(), String::new());
                assert!(is_plain_name(&part.name), "{}", part.name);
                assert!(part.install.is_none_or(|to| may_install(&to)), "{}", part.name);
                assert!(part.images.iter().all(|image| is_plain_reference(image)), "{}", part.name);
            }
        }
    }
}

#[test]
fn links_and_folders_are_refused() {
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Directory, tar::EntryType::Char] {
        let mut bytes = SMALL.clone();
        let mut header = layout::header("bin/link", 0).unwrap();
        header.set_entry_type(kind);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        let end = bytes.len() - layout::END as usize;
        bytes.splice(end..end, header.as_bytes().iter().copied());
        assert_eq!(code(&bytes), Code::BundlePath, "{kind:?}");
    }
}

#[test]
fn other_formats_are_refused_by_their_number() {
    let problem = check(&with_manifest(|m| m.format = 99)).unwrap_err();
    assert_eq!(problem.code, Code::BundleFormat);
    assert!(problem.what.contains("99"), "{problem}");
    assert_eq!(code(&with_manifest(|m| m.members.reverse())), Code::BundleBroken);
}

#[test]
fn a_bundle_for_another_cpu_or_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&make(folder.path())).unwrap();
    bundle.check_fits("v1.36.3", Arch::Amd64).unwrap();
    for (kubernetes, arch, code) in
        [("v1.36.3", Arch::Arm64, Code::BundleArch), ("v1.35.4", Arch::Amd64, Code::BundleVersion)]
    {
        let problem = bundle.check_fits(kubernetes, arch).unwrap_err();
        let build = format!("kubecamp bundle build --kubernetes {kubernetes} --arch {arch}.");
        assert!(problem.code == code && problem.all_hints()[0].contains(&build), "{problem:?}");
    }
}

#[test]
fn a_verified_file_is_believed_until_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, memory) = (make(folder.path()), folder.path().join("verified"));
    let bundle = Bundle::open(&path).unwrap();
    bundle.verify_once(&memory, &Quiet).unwrap();
    // A byte of the last member: neither its header nor its padding tells.
    let stored = bundle.member("pause").unwrap().stored.size as usize;
    let (mut bytes, later) = (SMALL.clone(), std::time::SystemTime::now() + std::time::Duration::from_secs(5));
    let at = bytes.len() - layout::END as usize - stored.next_multiple_of(512) + stored / 2;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    // Both writes may fall into one tick of the clock that files have their times from.
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    let changed = Bundle::open(&path).unwrap().verify_once(&memory, &Quiet);
    assert_eq!(changed.unwrap_err().code, Code::BundleBroken);
}

#[test]
fn a_program_is_unpacked_as_the_manifest_says_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (file, to) = (folder.path().join("changed.bundle"), folder.path().join("bin/kubelet"));
    let unpack = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        Bundle::open(&file).unwrap().unpack("kubelet", &to)
    };
    let packed = |content: &[u8]| {
        let (plain, packed) = (folder.path().join("plain"), folder.path().join("packed"));
        fs::write(&plain, content).unwrap();
        super::write::compress(&plain, &packed).unwrap();
        fs::read(packed).unwrap()
    };
    let (good, other) = (packed(b"a program"), packed(b"b program"));
    assert_eq!(good.len(), other.len());
    let at = SMALL.windows(good.len()).position(|bytes| bytes == good).unwrap();
    let with_stored = |stored: &[u8]| [&SMALL[..at], stored, &SMALL[at + good.len()..]].concat();
    let longer = with_manifest(|m| m.members[1].plain.size = 8);
    let shorter = with_manifest(|m| m.members[1].plain.size = 10);
    let digest = with_manifest(|m| m.members[1].plain.sha256 = "0".repeat(64));
    for bytes in [with_stored(&other), with_stored(&vec![0; good.len()]), longer, shorter, digest] {
        assert_eq!(unpack(&bytes).unwrap_err().code, Code::BundleBroken);
        assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 0, "no part is left");
    }
    assert!(unpack(&with_stored(&good)).unwrap());
    assert_eq!(fs::read(&to).unwrap(), b"a program");
    assert!(!Bundle::open(&file).unwrap().unpack("kubectl", &to).unwrap());
}
