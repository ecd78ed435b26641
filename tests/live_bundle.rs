//! Real bundles, built from Go modules on this machine: ten minutes the first time, seconds after that.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use kubecamp::{
    bundle::{Asked, BuildRequest, Bundle, Cache, DEFAULT_KUBERNETES, Mirrors, Source, build},
    core::{Arch, Quiet},
};

#[test]
#[ignore = "builds Kubernetes; .ci/check runs it through the command line"]
fn a_real_bundle_comes_out_of_go_modules() {
    let cache = std::env::var_os("KUBECAMP_CACHE").map(PathBuf::from).expect("KUBECAMP_CACHE names the cache");
    let request = BuildRequest {
        kubernetes: DEFAULT_KUBERNETES.to_owned(),
        arch: Arch::Amd64,
        source: Source::Modules,
        replace: vec![],
        out: None,
        cache: Cache::new(cache),
        mirrors: Mirrors::default(),
        asked: Asked::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let built = runtime.block_on(build(request, &Quiet)).map_err(|e| e.to_string()).unwrap();
    let bundle = Bundle::open(&built.path).unwrap();
    bundle.verify(&Quiet).unwrap();
    bundle.check_fits(DEFAULT_KUBERNETES, Arch::Amd64).unwrap();
}

/// The module that a teacher patches here: small, and what each pod's network is made with.
const CNI: &str = "github.com/containernetworking/plugins";

/// Runs it to its end and gives what it said, or shows why it failed.
fn said(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn kubecamp() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kubecamp"))
}

/// A copy of the CNI plugins' module at the version of `origin`, whose programs call themselves patched.
fn patched_plugins(origin: &str) -> PathBuf {
    // The same path each time: what is built of it is cached by it.
    let mine = Path::new(env!("CARGO_TARGET_TMPDIR")).join("patched-plugins");
    let _ = fs::remove_dir_all(&mine);
    let found = said(Command::new("go").args(["mod", "download", "-json", origin]));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    said(Command::new("cp").arg("-r").arg(found["Dir"].as_str().unwrap()).arg(&mine));
    said(Command::new("chmod").args(["-R", "u+w"]).arg(&mine));
    let source = mine.join("pkg/utils/buildversion/buildversion.go");
    let text = fs::read_to_string(&source).unwrap();
    assert!(text.contains("\"CNI %s plugin %s\""), "{text}");
    fs::write(source, text.replace("\"CNI %s plugin %s\"", "\"CNI %s plugin %s, patched in class\"")).unwrap();
    mine
}

#[test]
fn a_patched_module_is_in_a_bundle_of_its_own_and_all_else_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let usual = said(kubecamp().args(["bundle", "build", "--source", "modules"]));
    let usual = Bundle::open(Path::new(usual.trim())).unwrap();
    let origin = &usual.member("cni-bridge").expect("the bundle has the stock bridge plugin").origin;
    let replace = format!("{CNI}={}", patched_plugins(origin).display());
    let file = folder.path().join("mine.bundle");
    let build = || {
        let mut build = kubecamp();
        build.args(["bundle", "build", "--replace", &replace, "--out"]).arg(&file);
        build
    };
    said(&mut build());
    let patched = Bundle::open(&file).unwrap();
    patched.verify(&Quiet).unwrap();
    let digests = |bundle: &Bundle| -> BTreeMap<String, String> {
        bundle.members().map(|m| (m.name.clone(), m.plain.sha256.clone())).collect()
    };
    let (before, after) = (digests(&usual), digests(&patched));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, digest) in &before {
        let is_patched = patched.member(name).unwrap().origin.ends_with(&format!(", replaced: {CNI}"));
        assert_eq!(*digest != after[name], is_patched, "{name}: only what the patch concerns is other than before");
    }
    // Without a request a plugin tells its name, through the patched line.
    let bridge = folder.path().join("bridge");
    assert!(patched.unpack("cni-bridge", &bridge).unwrap());
    let out = Command::new(&bridge).env_remove("CNI_COMMAND").output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("patched in class"), "{told}");
    let inspected = said(kubecamp().args(["bundle", "inspect"]).arg(&file));
    assert!(inspected.lines().next().unwrap().ends_with(&format!(", patched: {CNI}")), "{inspected}");
    // What was patched once more counts; nothing is taken from the build before.
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("patched-plugins/pkg/utils/buildversion/buildversion.go");
    let text = fs::read_to_string(&source).unwrap().replace("patched in class", "patched at home");
    fs::write(&source, text).unwrap();
    said(&mut build());
    let again = Bundle::open(&file).unwrap();
    let mut bytes = vec![];
    again.plain(again.member("cni-bridge").unwrap()).open().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes.windows(15).any(|w| w == b"patched at home"), "the second patch is not in it");
}
