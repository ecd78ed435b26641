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
    "lab-1",
    "2x4c8g",
    "10.0.0.0/8",
    "127.0.0.1:80",
    "unix:/",
    "Host *\n",
    "  ProxyJump ",
    "  HostName ",
    "login,name,group\n",
    "amy,Amy,g1",
    ",Europe/Berlin,",
    "mon-fri 08:00-22:00",
    "sat 22:00-06:00, ",
    "Europe/Berlin\0",
    "2026-10-25T02:30",
    "2026-11-24T14:00:00Z",
    "14:00",
    "course: k8s\nlayout: 2x4c8g\nminutes: 60\nslots: 1\nwithin: { starts: 1795606200, ends: 2026-11-24T14:00:00Z }\n",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK2pr+Bfus1hvPof4Wb/plZCzSbqadHH0u+/f4ODtKnE",
    "server: s1\nplan-key: ",
    "hub: https://h\n",
    "poll: ",
    "{\"server\":\"s1\",\"events\":[",
    "{\"seq\":1,\"at\":2,\"kind\":\"missed\",\"booking\":\"b1\"}",
    "]}",
    "{\"format\":1,\"server\":\"s1\",\"revision\":1,\"issued_at\":1,\"expires_at\":9,\"slots\":[",
    "{\"seq\":1,\"at\":2,\"entry\":\"plan\",\"revision\":3}\n",
    "Accepted publickey for ",
    " ID ",
    "slot-b1-kct-a",
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
