//! The pages of `docs/reference/` that are made from code: each is checked to be fresh.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::{args::Args, exit::MEANINGS, exit_code};
use crate::core::{Class, Code, bless::assert_fresh};

const MADE: &str = "a test keeps it fresh: `KUBECAMP_BLESS=1 cargo test --lib reference` writes it anew.";

#[test]
fn committed_codes_are_fresh() {
    let mut page = format!(
        "# Problem codes\n\nMade from `src/core/code.rs`; {MADE}\n\nEvery problem has a code that never changes its \
         meaning, a sentence that says what failed and where, and at least one hint. The hint here is the one that is \
         shown when the problem itself brings none. The exit code is that of the problem's [class](exit-codes.md).\n"
    );
    let mut last: Option<Class> = None;
    for code in Code::ALL {
        let class = code.class();
        if last != Some(class) {
            let title = format!("{class:?}");
            write!(page, "\n## {title}: exit code {}\n\n| Code | Meaning | Hint |\n|---|---|---|\n", exit_code(class))
                .unwrap();
            last = Some(class);
        }
        writeln!(page, "| `{code}` | {} | {} |", cell(code.meaning()), cell(code.hint())).unwrap();
    }
    assert_fresh("docs/reference/codes.md", &page, "reference");
}

#[test]
fn committed_exit_codes_are_fresh() {
    let mut page = format!(
        "# Exit codes\n\nMade from `src/cli/exit.rs`; {MADE}\n\n`kubecamp ssh`, `kubecamp book ssh` and `kubecamp \
         kubectl` pass on the exit code of the program that they run. When several problems happened, the first one shown decides. \
         `kubecamp status` reports and exits with 0, also where hosts cannot be reached: `kubecamp doctor` tells by its exit code.\n\n\
         | Exit code | Meaning | Classes of [problem codes](codes.md) |\n|---|---|---|\n"
    );
    for (number, meaning) in MEANINGS {
        let mut classes: Vec<_> = Code::ALL.iter().map(|c| c.class()).filter(|c| exit_code(*c) == *number).collect();
        classes.dedup();
        let mut names: Vec<_> = classes.iter().map(|c| format!("{c:?}")).collect();
        names.dedup();
        writeln!(page, "| {number} | {} | {} |", cell(meaning), names.join(", ")).unwrap();
    }
    assert_fresh("docs/reference/exit-codes.md", &page, "reference");
}

#[test]
fn committed_command_line_is_fresh() {
    let mut root = Args::command();
    root.build();
    let mut page = format!("# Command line\n\nMade from `src/cli/args.rs`; {MADE}\n\n## Every command takes\n\n");
    rows(&mut page, root.get_arguments().filter(|a| a.is_global_set()));
    for command in root.get_subcommands().filter(|c| c.get_name() != "help") {
        describe(&mut page, "kubecamp", command);
    }
    assert_fresh("docs/reference/cli.md", &page, "reference");
}

/// One section per command that does something; groups of commands only lead to theirs.
fn describe(page: &mut String, before: &str, command: &Command) {
    let name = format!("{before} {}", command.get_name());
    let inner: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
    if inner.is_empty() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let usage = command.clone().render_usage().to_string().replace("Usage: ", "");
        write!(page, "\n## {name}\n\n{}.\n\n`{}`\n\n", about.trim_end_matches('.'), usage.trim()).unwrap();
        rows(page, command.get_arguments().filter(|a| !a.is_global_set()));
    }
    for command in inner {
        describe(page, &name, command);
    }
}

fn rows<'a>(page: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let args: Vec<_> = args.filter(|a| !matches!(a.get_id().as_str(), "help" | "version")).collect();
    if args.is_empty() {
        page.push_str("It takes nothing else.\n");
        return;
    }
    page.push_str("| Argument | Meaning |\n|---|---|\n");
    for arg in args {
        let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let choices: Vec<_> = arg.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
        if !choices.is_empty() && arg.get_action().takes_values() {
            write!(meaning, ": {}", choices.join(", ")).unwrap();
        }
        if let Some(default) = arg.get_default_values().first().filter(|_| arg.get_action().takes_values()) {
            write!(meaning, " (default `{}`)", default.to_string_lossy()).unwrap();
        }
        if let Some(variable) = arg.get_env() {
            write!(meaning, " (environment: `{}`)", variable.to_string_lossy()).unwrap();
        }
        writeln!(page, "| `{}` | {} |", cell(&spelled(arg)), cell(&meaning)).unwrap();
    }
}

/// `-i, --identity FILE`, or `FILE` for a plain argument.
fn spelled(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|v| v.first()).map(ToString::to_string);
    let value = value.filter(|_| arg.get_action().takes_values());
    let Some(long) = arg.get_long() else { return value.unwrap_or_default() };
    let short = arg.get_short().map(|s| format!("-{s}, ")).unwrap_or_default();
    format!("{short}--{long}{}", value.map(|v| format!(" {v}")).unwrap_or_default())
}

/// Text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Scripts read what a read tells.
#[test]
fn every_read_writes_json_too() {
    let root = Args::command();
    let reads = ["plan", "status", "doctor", "inspect", "verify", "check", "list", "ls", "free", "health", "audit"];
    let (mut open, mut found) = (vec![&root], 0);
    while let Some(command) = open.pop() {
        if !command.has_subcommands() && reads.contains(&command.get_name()) {
            let has = command.get_arguments().any(|arg| arg.get_long() == Some("output"));
            assert!(has, "{} has no -o", command.get_name());
            found += 1;
        }
        open.extend(command.get_subcommands());
    }
    assert!(found > 15, "{found}");
}

/// A hint that names a command, a flag or a profile key which does not exist helps nobody.
#[test]
fn hints_name_only_what_exists() {
    let mut root = Args::command();
    root.build();
    let (mut flags, mut open) = (vec![], vec![&root]);
    while let Some(command) = open.pop() {
        flags.extend(command.get_arguments().filter_map(Arg::get_long));
        open.extend(command.get_subcommands());
    }
    let schema = serde_json::to_string(&crate::profile::schema()).unwrap();
    for code in Code::ALL {
        let words: Vec<_> =
            code.hint().split([' ', ',', ';', ':', '(', ')']).map(|w| w.trim_end_matches('.')).collect();
        for flag in words.iter().filter_map(|w| w.strip_prefix("--")).filter(|f| !f.is_empty()) {
            assert!(flags.contains(&flag), "{code} names --{flag}");
        }
        let mut keys = words.windows(3).filter(|w| w[..2] == ["profile", "key"]).flat_map(|w| w[2].split('.'));
        assert!(keys.all(|key| schema.contains(&format!("\"{key}\""))), "{code}: {}", code.hint());
        for (i, _) in words.iter().enumerate().filter(|(_, w)| **w == "kubecamp") {
            let (mut at, after) = (&root, &words[i + 1..]);
            for word in after {
                let Some(inner) = at.find_subcommand(word) else { break };
                at = inner;
            }
            let whole = !std::ptr::eq(at, &root) && !at.has_subcommands();
            assert!(whole || after.is_empty(), "{code} names a command that is none: {}", code.hint());
        }
    }
}

/// Every code is raised somewhere, hints, ends with its own exit code, and stands in the reference; and no page names
/// a code that there is not.
#[test]
fn the_list_of_codes_is_whole() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut source, mut pages, mut folders) =
        (String::new(), String::new(), vec![root.join("src"), root.join("docs")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("rs") if !path.ends_with("core/code.rs") => source += &std::fs::read_to_string(path).unwrap(),
                Some("md") => pages += &std::fs::read_to_string(path).unwrap(),
                _ => {}
            }
        }
    }
    let reference = std::fs::read_to_string(root.join("docs/reference/codes.md")).unwrap();
    for code in Code::ALL {
        let raised = source.match_indices(&format!("Code::{code:?}")).any(|(at, found)| {
            let (before, after) = (source[..at].trim_end(), &source[at + found.len()..]);
            let longer = after.starts_with(|c: char| c.is_ascii_alphanumeric());
            // Who asks whether it is this code does not raise it.
            let asks = ["==", "!=", "|"].iter().any(|end| before.ends_with(*end))
                || ["|", "=>"].iter().any(|start| after.trim_start().starts_with(*start));
            !longer && !asks
        });
        assert!(raised, "{code} is never raised");
        assert!(code.hint().len() > 10 && reference.contains(&format!("| `{code}` |")), "{code}");
        assert!(exit_code(code.class()) > 1 && MEANINGS.iter().any(|(n, _)| *n == exit_code(code.class())), "{code}");
    }
    for (at, _) in pages.match_indices("KC-") {
        let word: String = pages[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '-').collect();
        let word = word.trim_end_matches('-');
        assert!(word == "KC" || word.parse::<Code>().is_ok(), "a page names {word}");
    }
}

/// Whoever reads events knows a run by its flow, so the page names every flow that a command begins.
#[test]
fn the_page_of_events_names_every_flow() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reference/events.md")).unwrap();
    let line = page.lines().find(|line| line.starts_with("| `flow` |")).unwrap();
    let mut named: Vec<_> = line.split('`').skip(3).step_by(2).collect();
    let (mut begun, mut folders) = (vec![], vec![root.join("src/cli/commands")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for before in ["flow: \"", "carry_out(cx, \""] {
                let words = text.match_indices(before).map(|(at, _)| &text[at + before.len()..]);
                begun.extend(words.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
            }
        }
    }
    named.sort_unstable();
    begun.sort_unstable();
    assert_eq!(named, begun);
}
