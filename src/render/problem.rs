use crate::core::{Problem, Problems, shell::printable};

/// A problem as text for people, whole without colour.
pub fn problem_text(problem: &Problem) -> String {
    let mut text = format!("error: {}", problem.code);
    if let Some(on) = &problem.on {
        text.push_str(&format!(" on {on}"));
    }
    if let Some(at) = &problem.at {
        text.push_str(&format!(" at {at}"));
    }
    text.push_str(&format!(": {}\n", printable(&problem.what)));
    for line in &problem.detail {
        text.push_str(&format!("  {}\n", printable(line)));
    }
    for hint in problem.all_hints() {
        text.push_str(&format!("hint: {}\n", printable(&hint)));
    }
    text
}

/// Several problems, one after the other; a hint that several share is shown once, at the end.
pub fn problems_text(problems: &Problems) -> String {
    let all: Vec<_> = problems.iter().collect();
    let mut hints: Vec<String> = vec![];
    let mut text = String::new();
    for problem in &all {
        let whole = problem_text(problem);
        text.extend(whole.lines().filter(|l| !l.starts_with("hint: ")).map(|l| format!("{l}\n")));
        for hint in problem.all_hints() {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
    }
    text.extend(hints.iter().map(|h| format!("hint: {}\n", printable(h))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Code;

    #[test]
    fn says_where_and_hints_once() {
        let node = "worker-1".parse().unwrap();
        let one = Problem::new(Code::HostPort, "port 6443 is taken\x1b[2J").on(&node).detail(["by nginx"]);
        let text = problems_text(&Problems::from(vec![one.clone(), one]));
        assert_eq!(
            text,
            "error: KC-HOST-PORT on worker-1: port 6443 is taken\\x1b[2J\n  by nginx\n\
             error: KC-HOST-PORT on worker-1: port 6443 is taken\\x1b[2J\n  by nginx\n\
             hint: Stop the program named, or use another host.\n"
        );
    }
}
