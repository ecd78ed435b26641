use crate::core::{Hint, Problem};

/// The commands that work on a lab.
const OF_A_LAB: &[&str] = &["up", "plan", "status", "doctor", "reset", "down", "ssh", "kubectl"];

/// A problem whose hints name the lab that `flag` names: whoever types what they say means the same one.
///
/// Most of them are written where nobody knows which lab it is, and those of a code are the same for all labs.
pub fn for_lab(mut problem: Problem, flag: &str) -> Problem {
    if flag.is_empty() {
        return problem;
    }
    if problem.hints.is_empty() {
        let (own, named) = (problem.code.hint(), named(problem.code.hint(), flag));
        problem.hints.extend((named != own).then_some(Hint(named)));
        return problem;
    }
    for hint in &mut problem.hints {
        hint.0 = named(&hint.0, flag);
    }
    problem
}

/// The text with the flag in each command of a lab that names none.
fn named(hint: &str, flag: &str) -> String {
    let mut parts = hint.split("kubecamp ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("kubecamp");
        if lacks_name(part) {
            text.push_str(flag);
        }
        text.push(' ');
        text.push_str(part);
    }
    text
}

/// Whether these words begin with a command of a lab and do not say of which.
fn lacks_name(words: &str) -> bool {
    let verb = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
    let mut own = true;
    let ends = ['.', ',', ';', ':'];
    let mut command = words.split_whitespace().take_while(|word| std::mem::replace(&mut own, !word.ends_with(ends)));
    OF_A_LAB.contains(&verb) && !command.any(|word| word.starts_with("--name") || word == "--all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Code;

    #[test]
    fn a_command_of_a_lab_names_it() {
        for (hint, wanted) in [
            ("Run kubecamp up first.", "Run kubecamp --name team7 up first."),
            ("Remove it: kubecamp down.", "Remove it: kubecamp --name team7 down."),
            (
                "kubecamp reset, then kubecamp up --take-over.",
                "kubecamp --name team7 reset, then kubecamp --name team7 up --take-over.",
            ),
            ("kubecamp kubectl -- get pods -A", "kubecamp --name team7 kubectl -- get pods -A"),
            ("Choose a --name, or kubecamp up --name x.", "Choose a --name, or kubecamp up --name x."),
            ("kubecamp --name x down, kubecamp status --all", "kubecamp --name x down, kubecamp status --all"),
            ("kubecamp upload", "kubecamp upload"),
            ("kubecamp bundle build, as kubecamp does", "kubecamp bundle build, as kubecamp does"),
        ] {
            let named = for_lab(Problem::new(Code::Usage, "x").hint(hint), " --name team7");
            assert_eq!(named.all_hints(), [wanted]);
            assert_eq!(for_lab(named, " --name team7").all_hints(), [wanted], "it is said once");
            assert_eq!(for_lab(Problem::new(Code::Usage, "x").hint(hint), "").all_hints(), [hint]);
        }
    }

    #[test]
    fn the_hints_of_codes_name_the_lab() {
        for code in Code::ALL {
            let named = for_lab(Problem::new(*code, "x"), " --name team7");
            let bare = ["up", "reset", "down", "status", "kubectl"].map(|verb| format!("kubecamp {verb}"));
            for hint in named.all_hints() {
                let sound = |bare: &String| !hint.contains(bare.as_str()) || hint.contains("--all");
                assert!(bare.iter().all(sound), "{code}: {hint}");
            }
        }
        assert!(for_lab(Problem::new(Code::Usage, "x"), " --name team7").hints.is_empty(), "its own says it already");
    }
}
