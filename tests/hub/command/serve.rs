//! `kubecamp hub serve` itself: where it listens, its certificate, its log and its end.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::hub::camp::{Camp, kubecamp, serve_once};

#[test]
fn a_hub_that_is_told_to_end_ends_well_and_its_log_tells_no_secret() {
    let mut camp = Camp::start();
    camp.sign_in_as_admin();
    camp.ok(&["hub", "user", "add", "bob", "--full-name", "Bob"]);
    let link = camp.ok(&["hub", "user", "link", "bob"]);
    camp.login_by_link(&link);
    camp.ok(&["book", "ls"]);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(camp.hub.id() as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(camp.hub.wait().unwrap().success(), "it stops well");
    assert!(!camp.home.path().join("hub.sock").exists());
    let away = camp.run_with(&["book", "ls"], "");
    assert_eq!(away.code, 4, "{}", away.err);
    assert!(away.err.contains("KC-HUB-AWAY"), "{}", away.err);
    let log = fs::read_to_string(camp.home.path().join("hub.log")).unwrap();
    assert!(log.contains("/api/v1/bookings") && !log.contains("kct_") && !log.contains(link.trim()), "{log}");
}

#[test]
fn the_log_is_json_where_that_is_asked_for() {
    let camp = Camp::start_with(&["--log", "json"]);
    camp.sign_in_as_admin();
    camp.ok(&["hub", "server", "list"]);
    let asked = |line: &str| {
        let line = serde_json::from_str::<Value>(line).ok()?;
        (line["fields"]["route"] == "/api/v1/servers").then_some(line)
    };
    let began = std::time::Instant::now();
    let line = loop {
        let log = fs::read_to_string(camp.home.path().join("hub.log")).unwrap_or_default();
        if let Some(line) = log.lines().find_map(asked) {
            break line;
        }
        assert!(began.elapsed().as_secs() < 30, "{log}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let fields = &line["fields"];
    let told = serde_json::json!([line["level"], fields["method"], fields["status"], fields["client"]]);
    assert_eq!(told, serde_json::json!(["INFO", "GET", 200, "unix"]), "{line}");
    assert!(fields["ms"].is_u64() && line["timestamp"].is_string(), "{line}");
}

/// A certificate for 127.0.0.1 by an authority of its own: `ca.pem`, `chain.pem` and `key.pem` in the folder.
fn certify(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let openssl = |args: &[&str]| {
        let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let made = Command::new("openssl").args(kind).args(args).current_dir(folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl(&["-subj", "/CN=camp", "-keyout", "ca.key", "-out", "ca.pem"]);
    let by = ["-subj", "/CN=hub", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", "key.pem", "-out", "chain.pem"];
    let is = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
    openssl(&[by.as_slice(), is.as_slice()].concat());
}

#[test]
fn https_is_served_and_a_renewed_certificate_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let tls = home.path().join("tls");
    let at = |name: &str| tls.join(name).display().to_string();
    let (chain, key, ca, old) = (at("chain.pem"), at("key.pem"), at("ca.pem"), at("old.pem"));
    certify(&tls);
    fs::copy(&ca, &old).unwrap();
    let camp = Camp::serve(home, &["--listen", "127.0.0.1:0", "--tls-cert", &chain, "--tls-key", &key]);
    assert!(camp.url.starts_with("https://127.0.0.1:"), "{}", camp.url);
    let link = camp.ok(&["hub", "admin-link", "ann"]);
    let stranger = camp.run_with(&["login", "--hub", &camp.url, "--link"], &link);
    assert_eq!(stranger.code, 4, "nobody is told the link who cannot prove to be the hub: {}", stranger.err);
    let signed_in = camp.run_with(&["login", "--hub", &camp.url, "--hub-ca", &ca, "--link"], &link);
    assert_eq!(signed_in.code, 0, "{}", signed_in.err);
    let asked = |ca: &str| camp.run_with(&["hub", "doctor", "--hub-ca", ca], "").code;
    assert_eq!(asked(&ca), 0);

    certify(&tls);
    let began = std::time::Instant::now();
    while asked(&ca) != 0 {
        assert!(began.elapsed().as_secs() < 30, "the renewed certificate is not shown");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(asked(&old), 4, "the one before is not shown any more");
    fs::write(&chain, "half a cert").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(asked(&ca), 0, "what cannot be read changes nothing");
}

#[test]
fn the_certificate_of_an_authority_itself_is_refused_with_a_hint() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=hub"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &cert];
    assert!(Command::new("openssl").args(kind).args(names).output().unwrap().status.success());
    let camp = Camp::serve(home, &["--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key]);
    let refused = camp.run_with(&["login", "--hub", &camp.url, "--hub-ca", &cert, "--link"], "kct_none");
    assert_eq!(refused.code, 4, "{}", refused.err);
    assert!(refused.err.contains("CA:FALSE"), "{}", refused.err);
}

#[test]
fn a_second_hub_on_the_same_file_is_refused_until_the_first_has_ended() {
    let mut camp = Camp::start();
    let socket = format!("unix:{}", camp.home.path().join("second.sock").display());
    let second = ["hub", "serve", "--listen", socket.as_str()];
    let (said, code) = serve_once(camp.home.path(), &second);
    assert_eq!(code, Some(9), "{said}");
    let holder = format!("process {}", camp.hub.id());
    for word in ["KC-HUB-RUNNING", "hub.db", holder.as_str(), "hint: ", "PostgreSQL"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    camp.ok(&["hub", "admin-link", "ann"]);
    // As by kill -9: nothing is left that somebody would have to clear away.
    camp.hub.kill().unwrap();
    camp.hub.wait().unwrap();
    let (said, code) = serve_once(camp.home.path(), &second);
    assert!(code.is_none() && said.contains("listens on"), "{said}");
}

#[test]
fn a_hub_is_not_opened_to_others_by_accident() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["hub", "serve", "--listen", "0.0.0.0:0"][..],
        &["hub", "serve", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"][..],
    ] {
        let ended = kubecamp(home.path(), args).output().unwrap();
        assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(String::from_utf8_lossy(&ended.stderr).contains("KC-HUB-LISTEN"));
    }
    let wrong = kubecamp(home.path(), &["hub", "serve", "--database", "mysql://x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let proxied =
        kubecamp(home.path(), &["hub", "serve", "--listen", "127.0.0.1:0", "--behind-proxy"]).output().unwrap();
    let said = String::from_utf8_lossy(&proxied.stderr);
    assert!(proxied.status.code() == Some(2) && said.contains("--public-url https://NAME"), "{said}");
    let typo = format!("sqlite://{}", home.path().join("typo.db").display());
    for database in ["sqlite://", typo.as_str()] {
        let absent = kubecamp(home.path(), &["hub", "admin-link", "ann", "--database", database]).output().unwrap();
        let said = String::from_utf8_lossy(&absent.stderr);
        assert_eq!(absent.status.code(), Some(2), "{said}");
        assert!(said.contains("KC-HUB-INVALID") && absent.stdout.is_empty(), "{said}");
    }
    assert!(!home.path().join("typo.db").exists(), "only a hub makes a database");
    let nobody = kubecamp(home.path(), &["book", "ls"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(2), "no hub is named");
}
