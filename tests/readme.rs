//! Documents stay true: every command of README.md is run by a test, every `kubecamp` command of the guides is
//! understood, and every link between files leads somewhere.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use kubecamp::hub::domain::Policy;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn files(dir: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
    let mut found: Vec<_> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.to_str().unwrap().ends_with(ending)).collect();
    found.sort();
    found
}

/// The lines of code blocks that show commands: those marked `sh` or not marked, comments cut off.
fn commands(text: &str) -> Vec<String> {
    let (mut found, mut block) = (vec![], None);
    for line in text.lines() {
        if let Some(mark) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(matches!(mark, "" | "sh")) };
        } else if block == Some(true) {
            let command = line.split(" #").next().unwrap().trim();
            if !command.is_empty() && !command.starts_with('#') {
                found.push(command.to_owned());
            }
        }
    }
    found
}

/// A command of kubecamp without what stands before its arguments.
fn arguments(command: &str) -> Option<&str> {
    command.strip_prefix("cargo run --release -- ").or_else(|| command.strip_prefix("kubecamp "))
}

/// A line for a shell with `kubecamp` in PATH and this home.
fn shell_in(home: &Path, line: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_kubecamp"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(home).env("PATH", path).env("KUBECAMP_HOME", home).stdin(Stdio::null());
    for name in ["KUBECAMP_LAB", "KUBECAMP_HUB", "KUBECAMP_HUB_TOKEN", "KUBECAMP_DATABASE"] {
        command.env_remove(name);
    }
    command
}

/// Runs a line of a shell with a home of its own.
fn shell(line: &str) -> std::process::Output {
    let home = tempfile::tempdir().unwrap();
    shell_in(home.path(), line).output().unwrap()
}

/// The commands by which README.md starts a hub.
fn quick_start() -> Vec<String> {
    let text = read("README.md");
    commands(text.split("\n## ").find(|part| part.starts_with("Sharing servers")).unwrap())
}

/// Ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a line costs nothing and touches nothing, so that it is run here and now.
fn is_cheap(line: &str) -> bool {
    let free = ["kubecamp profile ", "kubecamp completions ", "kubecamp man", "kubecamp status --all", "export PATH="];
    free.iter().any(|start| line.starts_with(start)) || line.ends_with(" --help")
}

/// Every line of the journeys and of the gate that does something.
fn journeys() -> Vec<String> {
    let mut scripts = files("tests/journeys", ".sh");
    scripts.push(root().join(".ci/check"));
    let text: String = scripts.iter().map(|f| fs::read_to_string(f).unwrap()).collect();
    text.lines().map(str::trim).filter(|l| !l.starts_with('#')).map(str::to_owned).collect()
}

/// Whether a journey runs kubecamp with these arguments, perhaps with more behind them.
fn is_in(journeys: &[String], arguments: &str) -> bool {
    let ways = ["kc ", "kubecamp ", "\"$KUBECAMP\" "].map(|before| format!("{before}{arguments}"));
    journeys.iter().any(|line| {
        ways.iter().any(|way| {
            line.match_indices(way.as_str()).any(|(at, _)| {
                let after = line[at + way.len()..].chars().next();
                after.is_none_or(|c| c.is_whitespace() || ";|&)\"'".contains(c))
            })
        })
    })
}

#[test]
fn every_command_of_the_readme_is_run() {
    let (commands, journeys, hub) = (commands(&read("README.md")), journeys(), quick_start());
    let first: Vec<_> = commands.iter().take(2).map(String::as_str).collect();
    assert_eq!(first, ["cargo run --release -- up --local --yes", "bash .ci/check"], "the two commands at the top");
    let mut wrong = vec![];
    for line in &commands {
        match arguments(line) {
            // It runs this very test.
            _ if line == "bash .ci/check" => assert!(read(".ci/run").contains("/check\"")),
            _ if is_cheap(line) => {
                let out = shell(line);
                if !out.status.success() {
                    wrong.push(format!("{line}: {}", String::from_utf8_lossy(&out.stderr)));
                }
            }
            // `the_readmes_hub_starts_as_it_says` does.
            _ if hub.contains(line) => {}
            // Addresses that belong to nobody (RFC 5737): `every_command_of_the_documents_is_understood` reads it.
            Some(_) if line.contains("192.0.2.") => {}
            Some(arguments) if is_in(&journeys, arguments) => {}
            _ => wrong.push(format!("{line}: no file of tests/journeys/ runs it")),
        }
    }
    assert!(wrong.is_empty(), "README.md has commands that no test runs:\n{}", wrong.join("\n"));
}

/// Each command of the quick start, in order and as it stands there, but for the port.
#[test]
fn the_readmes_hub_starts_as_it_says() {
    let lines = quick_start();
    assert!(lines.len() >= 5 && lines[0] == "kubecamp hub serve", "{lines:?}");
    let home = tempfile::tempdir().unwrap();
    let mut serve = shell_in(home.path(), &format!("exec {} --listen 127.0.0.1:0", lines[0]));
    let mut hub = Ends(serve.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(hub.0.stderr.take().unwrap());
    let (mut said, mut url) = (String::new(), None);
    while url.is_none() {
        let from = said.len();
        assert!(log.read_line(&mut said).unwrap() > 0, "the hub ended: {said}");
        url = said[from..].split_once("listens on ").map(|(_, url)| url.trim().to_owned());
    }
    let url = url.unwrap();
    let mut last = String::new();
    for line in &lines[1..] {
        let out = shell_in(home.path(), &line.replace("http://127.0.0.1:8420", &url)).output().unwrap();
        let err = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && !err.contains("error: "), "{line}: {err}");
        last = String::from_utf8(out.stdout).unwrap();
    }
    assert!(last.split_whitespace().any(|word| word == "one"), "the server is not free: {last}");
}

#[test]
fn the_rules_that_booking_shows_are_the_defaults() {
    let page = read("docs/guide/booking.md");
    let lines = page.lines().skip_while(|line| !line.starts_with("    grid: ")).take_while(|line| !line.is_empty());
    let rule = |line: &str| -> Option<(String, serde_json::Value)> {
        let (name, rest) = line.trim().split_once(": ")?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse::<u32>().ok()?.into()))
    };
    let shown: serde_json::Map<String, serde_json::Value> =
        lines.map(|line| rule(line).unwrap_or_else(|| panic!("{line}"))).collect();
    assert_eq!(serde_json::Value::from(shown), serde_json::to_value(Policy::default()).unwrap());
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let mut pages = files("docs/guide", ".md");
    pages.push(root().join("README.md"));
    let (mut wrong, mut seen) = (vec![], 0);
    for page in pages {
        for line in commands(&fs::read_to_string(&page).unwrap()) {
            let Some(arguments) = arguments(&line) else { continue };
            seen += 1;
            let arguments = arguments.split([';', '|', '>']).next().unwrap().replace("...", "");
            // With --help the arguments before it are still read and checked.
            let (own, _) = arguments.split_once(" -- ").unwrap_or((&arguments, ""));
            let out = shell(&format!("kubecamp {own} --help"));
            if !out.status.success() {
                let said = String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or_default().to_owned();
                wrong.push(format!("{}: {line}: {said}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 50, "{seen} commands are read: what shows them looks otherwise by now");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let (mut wrong, mut seen) = (vec![], 0);
    let folders = ["", "docs", "docs/guide", "docs/design", "docs/reference"];
    for page in folders.iter().flat_map(|dir| files(dir, ".md")) {
        let text = fs::read_to_string(&page).unwrap();
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', '#']).next().unwrap();
            seen += 1;
            if !target.is_empty() && !target.contains("://") && !page.parent().unwrap().join(target).exists() {
                wrong.push(format!("{}: {target}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 50, "{seen} links are read");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pages_written_by_hand_are_short() {
    let made = |page: &Path| fs::read_to_string(page).unwrap().contains("a test keeps it fresh");
    let folders = ["", "docs", "docs/guide", "docs/design", "docs/reference"];
    let long: Vec<_> = folders
        .iter()
        .flat_map(|dir| files(dir, ".md"))
        .filter(|page| !made(page) && fs::read_to_string(page).unwrap().lines().count() > 150)
        .collect();
    assert!(long.is_empty(), "over 150 lines: {long:?}");
}
