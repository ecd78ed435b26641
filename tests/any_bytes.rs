//! Every reader of foreign text takes any bytes: the bodies of the fuzz targets, fed by proptest.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;

#[path = "../fuzz/bodies.rs"]
mod bodies;

/// Words that lead deeper into one reader or another than noise does.
const WORDS: &[&str] = &[
    "layout: 3x2c4g\n",
    "nodes:\n",
    "- name: cp\n",
    "  role: control-plane\n",
    "hosts:\n",
    "- address: ",
    "root@",
    "[::1]",
    ":22",
    "addr=eth0 ",
    "192.0.2.1/24\n",
    "route.source=192.0.2.1\n",
    "caps=",
    "ffff\n",
    "link\t",
    "cni0\n",
    "path\t",
    "/etc/kubernetes\n",
    "sysctl\t",
    " = 1\n",
    "nft\t",
    "|1|",
    "AAAA",
    " ssh-ed25519 ",
    "@revoked ",
    "*,!",
    "deb ",
    "[signed-by=",
    "] ",
    "Types: deb\n",
    "URIs: ",
    "Signed-By:\n",
    "{\"run\":\"r\",\"seq\":1,",
    "}\n",
    "\0",
    "\n\n",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "'",
    "\"",
    "\u{202e}",
    "\u{fffd}",
    "99999999999999999999",
    "-1",
    "é",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(WORDS).prop_map(|w| w.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 0..12);
    prop::collection::vec(prop_oneof![3 => word, 1 => noise], 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_reader_panics(bytes in bytes()) {
        for (_, body) in bodies::ALL {
            body(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_changed_profile_is_read_or_refused(at in any::<prop::sample::Index>(), cut in 0usize..30, new in bytes()) {
        let mut text = kubecamp::profile::shipped_text("3x2c4g").unwrap().into_owned().into_bytes();
        let at = at.index(text.len());
        text.splice(at..(at + cut).min(text.len()), new);
        bodies::profile(&text);
    }
}

#[test]
fn every_body_has_its_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let files = fs::read_dir(folder.join("fuzz_targets")).unwrap().flatten();
    let files: BTreeSet<_> = files.map(|f| f.file_name().into_string().unwrap()).collect();
    let bodies: BTreeSet<_> = bodies::ALL.iter().map(|(name, _)| format!("{name}.rs")).collect();
    assert_eq!(files, bodies);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert!(bodies.iter().all(|file| manifest.contains(&format!("\"fuzz_targets/{file}\""))));
}
