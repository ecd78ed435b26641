use std::ffi::OsStr;

use clap::{
    Arg, ArgMatches, Command, CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{args::Args, output::Format};
use crate::core::{Code, Problem, shell::join};

/// What the parser of the command line says, in the form of every other problem.
pub fn problem<'a>(error: &clap::Error, given: impl IntoIterator<Item = &'a OsStr>) -> Problem {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty());
    let what = lines.next().map_or("the command line cannot be read", |l| l.strip_prefix("error: ").unwrap_or(l));
    let (mut problem, mut tips) = (Problem::new(Code::Usage, what.trim_end_matches(':')), vec![]);
    let given: Vec<_> = given.into_iter().collect();
    let meant = command(given.iter().copied());
    for line in lines {
        match line.trim_start() {
            line if line.starts_with("For more information") => {}
            line if misleads(line, &meant) => {}
            // The parser takes what it believes to be meant into the usage.
            line if line.starts_with("Usage: ") => problem = problem.detail([line.replace(" --version", "")]),
            line if line.starts_with("tip: ") => tips.push(format!("{}.", capital(&line["tip: ".len()..]))),
            _ => problem = problem.detail([line.strip_prefix("  ").unwrap_or(line)]),
        }
    }
    tips.extend(of_environment(error, &given));
    tips.extend(apart(&problem.what));
    tips.extend(without_dashes(&problem.what, &meant, &given));
    let help = format!("See {} --help.", meant.name);
    tips.into_iter().chain([help]).fold(problem, Problem::hint)
}

/// Whether the command is to write JSON.
pub fn wants_json(given: &ArgMatches) -> bool {
    match given.subcommand() {
        Some((_, of)) => wants_json(of),
        // Commands without data have no such flag.
        None => matches!(given.try_get_one::<Format>("output"), Ok(Some(Format::Json))),
    }
}

/// The same of a command line that cannot be read, as far as its words tell.
pub fn names_json<'a>(given: impl IntoIterator<Item = &'a OsStr>) -> bool {
    let mut before = "";
    for word in given.into_iter().map_while(OsStr::to_str).take_while(|word| *word != "--") {
        if matches!((before, word), ("-o" | "--output", "json") | (_, "-ojson" | "-o=json" | "--output=json")) {
            return true;
        }
        before = word;
    }
    false
}

/// The help of a noun that stands without a verb, or of kubecamp where nothing is named; none for a mistake.
pub fn help(error: &clap::Error) -> Option<String> {
    let help = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.render().to_string(),
        // The same, beside a flag or a variable of the environment that gives one.
        ErrorKind::MissingSubcommand => match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(noun)) => help_of(noun)?,
            _ => return None,
        },
        _ => return None,
    };
    Some(help.trim_end().to_owned())
}

/// What `-h` shows of a command, whose words these are.
fn help_of(command: &str) -> Option<String> {
    let asked = Args::try_parse_from(command.split(' ').chain(["-h"])).err()?;
    (asked.kind() == ErrorKind::DisplayHelp).then(|| asked.render().to_string())
}

/// The command with only those variables of the environment that say something: an empty one is as good as none, as in other
/// programs.
pub fn without_empty_variables(command: Command) -> Command {
    let says_nothing = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if says_nothing(&arg) { arg.env(None::<&'static str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// What to mend where the value that cannot be used is no word of the command line, but a variable of the environment.
fn of_environment(error: &clap::Error, given: &[&OsStr]) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = arg.split_whitespace().next()?.strip_prefix("--")?;
    let names = |word: &str| word.strip_prefix("--").and_then(|word| word.split('=').next()) == Some(flag);
    if error.kind() != ErrorKind::ValueValidation || given.iter().filter_map(|word| word.to_str()).any(names) {
        return None;
    }
    let variable = variable_of(&Args::command(), flag)?;
    Some(format!("The environment says so: mend the variable {variable}, or unset it."))
}

/// The variable of the environment that stands for a flag.
fn variable_of(command: &Command, flag: &str) -> Option<String> {
    let of_env = command.get_arguments().filter(|arg| arg.get_long() == Some(flag)).find_map(Arg::get_env);
    let own = of_env.map(|name| name.to_string_lossy().into_owned());
    own.or_else(|| command.get_subcommands().find_map(|inner| variable_of(inner, flag)))
}

/// The word that the parser did not expect.
fn unexpected(what: &str) -> Option<&str> {
    what.strip_prefix("unexpected argument '")?.split('\'').next()
}

/// What to write where a command for a node stands without the dashes before it.
fn without_dashes(what: &str, meant: &Meant, given: &[&OsStr]) -> Option<String> {
    let word = unexpected(what)?;
    if !meant.passes_on || word.starts_with('-') {
        return None;
    }
    // The same word may be the node's name.
    let whole = |before: &[&OsStr]| {
        let words = std::iter::once(OsStr::new("kubecamp")).chain(before.iter().copied());
        Args::try_parse_from(words).is_ok()
    };
    let at = (1..given.len()).find(|&at| given[at].to_str() == Some(word) && whole(&given[..at]))?;
    let words = |part: &[&OsStr]| join(part.iter().map(|word| word.to_string_lossy()));
    Some(format!("A command stands after --: kubecamp {} -- {}.", words(&given[..at]), words(&given[at..])))
}

/// What to write where a time stands apart from its date.
fn apart(what: &str) -> Option<String> {
    let word = unexpected(what)?;
    let time = word.contains(':') && word.bytes().all(|b| b.is_ascii_digit() || b == b':');
    time.then(|| format!("Write date and time as one, as 2026-12-01T{word}."))
}

/// A command of the command line.
struct Meant {
    /// All of its words: `kubecamp bundle build`.
    name: String,
    /// Whether it passes words on to another program.
    passes_on: bool,
}

/// Whether the parser's tip leads nowhere: `--` where nothing takes what stands after it, or that the version was meant.
fn misleads(line: &str, meant: &Meant) -> bool {
    let Some(tip) = line.strip_prefix("tip: ") else { return false };
    (tip.starts_with("to pass '") && !meant.passes_on) || tip.ends_with("'--version'")
}

/// The command that was meant, as far as its words are known.
fn command<'a>(given: impl IntoIterator<Item = &'a OsStr>) -> Meant {
    let mut at: Command = Args::command();
    let mut name = at.get_name().to_owned();
    for word in given {
        let Some(next) = word.to_str().and_then(|w| at.find_subcommand(w)).cloned() else { continue };
        name = format!("{name} {}", next.get_name());
        at = next;
    }
    let passes_on = at.get_positionals().any(|arg| arg.is_last_set() || arg.is_trailing_var_arg_set());
    Meant { name, passes_on }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Problem {
        let words: Vec<_> = line.split_whitespace().map(OsStr::new).collect();
        let error = Args::try_parse_from(std::iter::once(OsStr::new("kubecamp")).chain(words.iter().copied()));
        problem(&error.unwrap_err(), words)
    }

    #[test]
    fn says_what_is_wrong_and_whose_help_to_read() {
        let wrong = said("--name team7 bundle build --sauce modules");
        assert_eq!((wrong.code, wrong.what.as_str()), (Code::Usage, "unexpected argument '--sauce' found"));
        let hints: Vec<_> = wrong.hints.iter().map(|h| h.0.as_str()).collect();
        assert_eq!(hints, ["A similar argument exists: '--source'.", "See kubecamp bundle build --help."]);
        assert!(wrong.detail.iter().any(|l| l.starts_with("Usage: kubecamp bundle build")), "{:?}", wrong.detail);
    }

    #[test]
    fn a_command_that_writes_json_is_known() {
        for (line, wants) in [
            ("book ls -o json", true),
            ("hub server list --output=json", true),
            ("book ls", false),
            ("book ls -o yaml", false),
            ("kubectl -- get pods -o json", false),
            ("login --hub http://127.0.0.1:1", false),
        ] {
            let words = std::iter::once("kubecamp").chain(line.split_whitespace());
            assert_eq!(wants_json(&Args::command().try_get_matches_from(words).unwrap()), wants, "{line}");
            assert_eq!(names_json(line.split_whitespace().map(OsStr::new)), wants, "{line}");
        }
    }

    #[test]
    fn a_form_is_no_file_to_build_into() {
        let wrong = said("bundle build -o json");
        assert_eq!((wrong.code, wrong.what.as_str()), (Code::Usage, "unexpected argument '-o' found"));
    }

    #[test]
    fn the_help_names_the_values_that_there_are() {
        for (command, values) in [
            ("kubecamp up", &["iptables, ipvs or nftables", "flannel or bridge"][..]),
            ("kubecamp plan", &["iptables, ipvs or nftables", "flannel or bridge"][..]),
            ("kubecamp bundle build", &["amd64 or arm64"][..]),
        ] {
            let help = help_of(command).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(values.iter().all(|value| help.contains(value)), "{command}: {help}");
        }
    }

    #[test]
    fn a_tip_that_leads_nowhere_is_left_out() {
        for (line, of) in [
            ("book extend b1 --by -30m", "book extend"),
            ("hub server set one --cores -8", "hub server set"),
            ("book wait 14:00 --weeks 4", "book wait"),
            ("book ls --person amy", "book ls"),
        ] {
            let wrong = said(line);
            assert_eq!(wrong.all_hints(), [format!("See kubecamp {of} --help.")], "{line}");
            assert!(!wrong.detail.iter().any(|l| l.contains("--version")), "{line}: {:?}", wrong.detail);
        }
        assert!(said("ssh cp -Z").all_hints()[0].contains("-- -Z"), "ssh passes on what stands after --");
    }

    #[test]
    fn a_time_apart_from_its_date_is_explained() {
        let wrong = said("book new 2026-12-01 14:00");
        assert_eq!(
            wrong.all_hints(),
            ["Write date and time as one, as 2026-12-01T14:00.", "See kubecamp book new --help."]
        );
        assert_eq!(said("book new 14:00 soon").all_hints(), ["See kubecamp book new --help."]);
    }

    #[test]
    fn a_command_for_a_node_is_told_to_stand_after_dashes() {
        for (line, meant) in [
            ("ssh worker-1 hostname", "kubecamp ssh worker-1 -- hostname."),
            ("--name team7 ssh cp cp -r a b", "kubecamp --name team7 ssh cp -- cp -r a b."),
        ] {
            assert_eq!(said(line).all_hints()[0], format!("A command stands after --: {meant}"), "{line}");
        }
        assert!(!said("book new 14:00 soon").all_hints()[0].contains("--:"), "it passes nothing on");
    }

    #[test]
    fn a_noun_without_a_verb_shows_its_help() {
        let error =
            |line: &str| Args::try_parse_from(std::iter::once("kubecamp").chain(line.split_whitespace())).unwrap_err();
        for (line, noun) in [
            ("", ""),
            ("--plain", ""),
            ("bundle", "bundle"),
            ("hub server", "hub server"),
            ("hub server --yes", "hub server"),
            // The value of a flag is no command.
            ("--name run book --plain", "book"),
        ] {
            let asked = error(&format!("{noun} -h")).render().to_string();
            assert_eq!(help(&error(line)).as_deref(), Some(asked.trim_end()), "{line}");
        }
        for line in ["bundle build --nope", "bundle frobnicate", "frobnicate", "ssh"] {
            assert_eq!(help(&error(line)), None, "{line}");
        }
        assert!(said("ssh").what.contains("required arguments were not provided"));
    }
}
