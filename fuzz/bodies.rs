//! What each fuzz target does with its bytes. The normal tests include this file too and feed it random bytes, so
//! that it always compiles and holds; `cargo fuzz run NAME` searches on.

use std::{
    fmt::{Debug, Display},
    io::Write,
    str::FromStr,
    sync::LazyLock,
};

use kubecamp::{
    bundle::Bundle,
    cli,
    core::{Bytes, Code, HostSpec, LabName, NodeId, Quiet, shell::quote},
    engine::parse_journal,
    host::{Facts, Traces, scan::Scan},
    hub::{
        desk::read_roster,
        domain::{BookingId, Epoch, OpeningHours, PersonId, Server, Window, Zone, host_and_port},
        gate::{
            Events, Extras, Heartbeat, HubKey, Plan, SignedPlan, Slot,
            agent::{Config, Ledger, Line, let_in},
            issue, public_key,
        },
        http::Listen,
    },
    inventory,
    machine::AptSources,
    profile::{self, Cidr, Lab, Layout, Version},
    transport::ssh::{Resolver, Spec, known_keys},
};

static KEY: LazyLock<HubKey> = LazyLock::new(|| HubKey::generate("fuzz").expect("a new key"));

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A part of the input for each of two readers, split at the first zero byte.
fn halves(bytes: &[u8]) -> (String, String) {
    let at = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len() / 2);
    let rest = &bytes[at..];
    (text(&bytes[..at]), text(rest.strip_prefix(b"\0").unwrap_or(rest)))
}

/// A file with these bytes.
fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a writable file");
    file
}

/// What is read is written and read back the same.
fn reads_back<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(word) = text.parse::<T>() {
        assert_eq!(word.to_string().parse::<T>().ok(), Some(word));
    }
}

/// A profile is read and makes a lab that can be written and read again, or every problem says where.
pub fn profile(bytes: &[u8]) {
    match profile::parse(&text(bytes), "fuzz.yaml") {
        Ok(profile) => {
            if let Ok(lab) = Lab::new("fuzz".parse().expect("a good name"), profile) {
                let again = lab.to_yaml().and_then(|yaml| Lab::from_yaml(&yaml));
                assert_eq!(again.expect("a written lab reads back"), lab);
            }
        }
        Err(problems) => assert!(problems.iter().all(|p| p.code != Code::Internal)),
    }
}

/// A hosts file is read, or every problem says where.
pub fn hosts_file(bytes: &[u8]) {
    if let Err(problems) = inventory::parse(&text(bytes), "fuzz.yaml") {
        assert!(problems.iter().all(|p| p.code != Code::Internal));
    }
}

/// Only a whole bundle opens, whose names are plain words; nothing else panics or takes memory by a number in the file.
pub fn bundle(bytes: &[u8]) {
    let file = file(bytes);
    if let Ok(bundle) = Bundle::open(file.path()) {
        let _ = bundle.verify(&Quiet);
        for member in bundle.members() {
            let words = member.install.iter().chain(&member.images).chain([&member.name]);
            assert!(words.into_iter().all(|word| quote(word) == *word), "{member:?}");
            assert!(!member.name.contains('/'), "{member:?}");
        }
    }
}

/// Facts of a hostile host.
pub fn facts(bytes: &[u8]) {
    let facts = Facts::parse(&text(bytes));
    let _ = (facts.arch(), facts.cgroup(), facts.has_sys_resource(), facts.number("memory"), facts.is_container());
    if let Some(ip) = facts.address() {
        assert!(facts.link_of(ip).is_some(), "the address is one of the host's");
    }
}

/// Two scans: what differs between them is told once, and a scan does not differ from itself.
pub fn scan(bytes: &[u8]) {
    let (before, after) = halves(bytes);
    let (before, after) = (Scan::parse(&before), Scan::parse(&after));
    let traces = Traces { networks: vec!["10.244.0.0/16".parse().expect("a network")], ..Traces::default() };
    assert_eq!(before.differences(&before, &traces), Default::default());
    let found = before.differences(&after, &traces);
    assert!(found.residues.iter().all(|d| !found.others.contains(d)));
    let _ = after.leftovers(&traces);
}

/// A known_hosts file and a name.
pub fn known_hosts(bytes: &[u8]) {
    let (name, file) = halves(bytes);
    let _ = known_keys(&file, &name);
}

/// A host as a user writes it: what is read is written and read back the same.
pub fn host_spec(bytes: &[u8]) {
    let text = text(bytes);
    let parts = HostSpec::split(&text);
    if let Ok(spec) = Spec::parse(&text) {
        assert_eq!((spec.user.as_deref(), spec.host.as_str(), Ok(spec.port)), (parts.user, parts.host, parts.port()));
        assert!(!spec.host.starts_with('-') && !spec.host.contains(char::is_whitespace));
        assert_eq!(Spec::parse(&spec.to_string()).expect("a written host reads back"), spec);
    }
    if let Err(problems) = inventory::entries(&[text]) {
        assert!(problems.iter().all(|p| p.code == Code::HostSpec));
    }
}

/// A run log, perhaps with lines cut off.
pub fn journal(bytes: &[u8]) {
    let events = parse_journal(&text(bytes));
    let _ = (kubecamp::render::phase_times(&events), kubecamp::render::summary_text(&events, true));
}

/// apt's two formats of sources.
pub fn apt_sources(bytes: &[u8]) {
    let (lines, stanzas) = halves(bytes);
    let _ = AptSources::parse(&lines, &stanzas).main("trixie");
}

/// The small words of profiles, of the command line and of the hub's API.
pub fn words(bytes: &[u8]) {
    let text = text(bytes);
    reads_back::<LabName>(&text);
    reads_back::<NodeId>(&text);
    reads_back::<PersonId>(&text);
    reads_back::<BookingId>(&text);
    reads_back::<Layout>(&text);
    reads_back::<Version>(&text);
    reads_back::<Cidr>(&text);
    reads_back::<Epoch>(&text);
    reads_back::<Zone>(&text);
    reads_back::<Listen>(&text);
    if let Ok(size) = text.parse::<Bytes>() {
        assert_eq!(String::from(size).parse(), Ok(size));
    }
}

/// The ssh_config of a user and a host: what was named with the host wins, and ways over other hosts are told flat.
pub fn ssh_config(bytes: &[u8]) {
    let (host, config) = halves(bytes);
    let config = file(config.as_bytes());
    // Without ssh our own reader is asked.
    let resolver = Resolver { ssh: "/no/such/ssh".into(), config: Some(config.path().to_owned()), own_way: false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(resolver.resolve(&host)) {
        Ok(found) => {
            let spec = Spec::parse(&host).expect("it was read before");
            assert!(spec.user.is_none_or(|user| user == found.target.user));
            assert!(spec.port.is_none_or(|port| port == found.target.port));
            assert!(found.target.jump.iter().all(|jump| jump.jump.is_empty()));
        }
        Err(problem) => assert_eq!(problem.code, Code::HostSpec),
    }
}

/// A roster: each login once and in order, and what is read is written and read back the same, or every problem is one of
/// the roster.
pub fn roster(bytes: &[u8]) {
    match read_roster("fuzz.csv", &text(bytes)) {
        Ok(lines) => {
            assert!(lines.windows(2).all(|two| two[0].person.id < two[1].person.id));
            let mut again = String::from("login,name,group\n");
            for line in &lines {
                let (person, group) = (&line.person, &line.group);
                let zone = person.zone.as_ref().map(ToString::to_string).unwrap_or_default();
                let (name, key) = (person.name.replace('"', "\"\""), person.keys.concat());
                again.push_str(&format!("{},\"{name}\",{group},{zone},\"{key}\"\n", person.id));
            }
            assert_eq!(read_roster("fuzz.csv", &again).expect("a written roster reads back"), lines);
        }
        Err(problems) => assert!(problems.iter().all(|p| p.code == Code::HubRoster)),
    }
}

/// Opening hours and a zone, over four weeks in which clocks change: the windows are in order and apart, and the server is
/// open in each.
pub fn opening_hours(bytes: &[u8]) {
    let (zone, hours) = halves(bytes);
    let zone: Zone = zone.parse().unwrap_or_else(|_| Zone::utc());
    reads_back::<OpeningHours>(&hours);
    if let Ok(hours) = hours.parse::<OpeningHours>() {
        let moment = |text: &str| text.parse::<Epoch>().expect("a moment");
        let weeks = Window { starts: moment("2026-10-11T00:00:00Z"), ends: moment("2026-11-08T00:00:00Z") };
        let open = hours.windows(&zone, weeks);
        assert!(open.windows(2).all(|two| two[0].ends < two[1].starts), "{open:?}");
        assert!(open.iter().all(|window| window.overlaps(weeks)), "{open:?}");
        assert!(open.iter().take(3).all(|window| hours.is_open(&zone, *window)), "{open:?}");
    }
}

/// A time of the command line: what it means can be written exactly.
///
/// A message without moments is told as it is.
pub fn moments(bytes: &[u8]) {
    let (zone, text) = halves(bytes);
    let zone: Zone = zone.parse().unwrap_or_else(|_| Zone::utc());
    match cli::moment(&text, Some(&zone)) {
        Ok((at, notes)) => {
            assert!(notes.len() <= 1);
            assert_eq!(cli::moment(&at.to_string(), None).expect("an exact time"), (at, vec![]));
        }
        Err(problem) => assert!(matches!(problem.code, Code::BookWindow | Code::BookGap)),
    }
    assert!(text.contains('Z') || zone.told(&text) == text);
}

/// The file of a class plan: what is read is, as the API takes it, read back the same.
pub fn class_plan(bytes: &[u8]) {
    match cli::class_plan(&text(bytes)) {
        Ok((mut plan, _)) => {
            // YAML has not all the characters of JSON.
            plan.reason = None;
            let json = serde_json::to_string(&plan).expect("JSON");
            let (again, notes) = cli::class_plan(&json).expect("a written plan reads back");
            assert_eq!((serde_json::to_string(&again).expect("JSON"), notes), (json, vec![]));
        }
        Err(problem) => assert!(matches!(problem.code, Code::Usage | Code::BookWindow | Code::BookGap)),
    }
}

/// A server's address and label, as an admin writes them: none is an option to ssh, and the port is one.
pub fn server(bytes: &[u8]) {
    let (address, label) = halves(bytes);
    let server = serde_json::json!({
        "id": "s1", "address": address, "cores": 8, "memory": "32GiB", "labels": [label], "opening": "always", "zone": "UTC",
        "buffer": 600, "mode": "shared", "health": "healthy", "revision": 0, "issued": 0, "acked": 0, "clock_offset": 0,
        "version": 1,
    });
    let server: Server = serde_json::from_value(server).expect("a server");
    match server.check() {
        Ok(()) => {
            let (host, port) = host_and_port(&server.address);
            assert!(!host.is_empty() && !host.starts_with('-') && quote(host) == host, "{host}");
            assert!(port.parse::<u16>().is_ok_and(|port| port > 0), "{port}");
        }
        Err(problem) => assert_eq!(problem.code, Code::HubInvalid),
    }
}

/// A public key that somebody sends: a certificate of it is one line, and it is read back the same.
pub fn key_line(bytes: &[u8]) {
    let line = text(bytes);
    match issue(&KEY, "s1", &Slot::new("b1", "kct-a", 1000, 2000), &line, 7, &Extras::default()) {
        Ok(certificate) => {
            assert_eq!(certificate.lines().count(), 1);
            let key = public_key(&line).expect("it was read before");
            let again = public_key(&key.to_openssh().expect("a line")).expect("a written key reads back");
            assert!(again.key_data() == key.key_data());
        }
        Err(problem) => assert_eq!(problem.code, Code::GateKey),
    }
}

/// A plan, as it comes to an agent: nothing that the hub did not sign opens, and what it does sign is read back the same.
pub fn plan(bytes: &[u8]) {
    let unsigned = || SignedPlan { plan: text(bytes), signature: text(bytes) };
    let forged: SignedPlan = serde_json::from_slice(bytes).unwrap_or_else(|_| unsigned());
    assert_eq!(forged.open(KEY.public(), "s1").expect_err("nobody signed it").code, Code::GatePlan);
    if let Ok(plan) = serde_json::from_slice::<Plan>(bytes) {
        match plan.sign(&KEY) {
            Ok(signed) => assert_eq!(signed.open(KEY.public(), &plan.server).expect("a signed plan opens"), plan),
            Err(problem) => assert_eq!(problem.code, Code::GatePlan),
        }
    }
}

/// What an agent tells the hub: what is read is written and read back the same.
pub fn reports(bytes: &[u8]) {
    if let Ok(events) = serde_json::from_slice::<Events>(bytes) {
        let again = serde_json::to_vec(&events).expect("JSON");
        assert_eq!(serde_json::from_slice::<Events>(&again).expect("written events read back"), events);
    }
    if let Ok(beat) = serde_json::from_slice::<Heartbeat>(bytes) {
        let again = serde_json::to_vec(&beat).expect("JSON");
        assert_eq!(serde_json::from_slice::<Heartbeat>(&again).expect("a written heartbeat reads back"), beat);
    }
}

/// An agent's journal: numbers only grow, and the sum that it is written anew as says what its lines said.
pub fn gate_journal(bytes: &[u8]) {
    let mut ledger = Ledger::default();
    for line in bytes.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
        let before = ledger.seq;
        ledger.apply(&line);
        assert_eq!(ledger.seq, before.max(line.seq));
    }
    let sum = serde_json::to_vec(&ledger).expect("JSON");
    assert_eq!(serde_json::from_slice::<Ledger>(&sum).expect("a written sum reads back"), ledger);
}

/// An agent's configuration: one that is taken has a key, a token for its hub, and times that make sense.
pub fn agent_config(bytes: &[u8]) {
    match Config::load(file(bytes).path()) {
        Ok(config) => {
            let limits = config.limits();
            assert!(config.plan_key().is_ok() && config.poll > 0);
            assert!(config.hub.is_none() || config.token_file.is_some());
            assert!(limits.lead >= 0 && limits.evict >= 0 && limits.keep >= 0);
        }
        Err(problem) => assert_eq!(problem.code, Code::GateConfig),
    }
}

/// A line of sshd's log: it names one principal of the hub's, or nobody.
pub fn login_line(bytes: &[u8]) {
    let line = text(bytes);
    if let Some(principal) = let_in(&line) {
        assert!(line.starts_with("Accepted publickey for "));
        assert!(principal.starts_with("slot-") && !principal.contains(' '), "{principal}");
    }
}

/// One target's body.
pub type Body = fn(&[u8]);

/// Every body by the name of its target.
#[allow(dead_code, reason = "the targets use one body each")]
pub const ALL: &[(&str, Body)] = &[
    ("profile", profile),
    ("hosts_file", hosts_file),
    ("bundle", bundle),
    ("facts", facts),
    ("scan", scan),
    ("known_hosts", known_hosts),
    ("host_spec", host_spec),
    ("journal", journal),
    ("apt_sources", apt_sources),
    ("words", words),
    ("ssh_config", ssh_config),
    ("roster", roster),
    ("opening_hours", opening_hours),
    ("moments", moments),
    ("class_plan", class_plan),
    ("server", server),
    ("key_line", key_line),
    ("plan", plan),
    ("reports", reports),
    ("gate_journal", gate_journal),
    ("agent_config", agent_config),
    ("login_line", login_line),
];
