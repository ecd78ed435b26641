use serde::Serialize;

use super::{computer, lab};
use crate::{
    cli::{args::DoctorArgs, commands::Context, exit_code, output},
    core::{Code, NodeId, Problem, Problems, shell::printable},
    render::{count, table},
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Stops some uses, as machines on this computer.
    Warning,
    /// Stops the lab.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub level: Level,
    /// The node, or `here`.
    pub on: NodeId,
    /// What was looked at, in one or two words.
    pub check: String,
    /// What was found.
    pub found: String,
    pub code: Option<Code>,
    pub hints: Vec<String>,
}

impl Finding {
    /// What is as it should be on this computer.
    pub(super) fn ok(check: &str, found: impl Into<String>) -> Self {
        let (on, check) = (NodeId::here(), check.to_owned());
        Self { level: Level::Ok, on, check, found: found.into(), code: None, hints: vec![] }
    }

    /// A problem that another room found.
    pub(super) fn of(level: Level, check: &str, problem: &Problem) -> Self {
        let found = std::iter::once(&problem.what).chain(&problem.detail).cloned().collect::<Vec<_>>().join("; ");
        Self {
            level,
            on: problem.on.clone().unwrap_or_else(NodeId::here),
            check: check.to_owned(),
            found,
            code: Some(problem.code),
            hints: output::hints(problem),
        }
    }

    /// The finding of a look that can fail.
    pub(super) fn look(level: Level, check: &str, looked: Result<String, Problem>) -> Self {
        match looked {
            Ok(found) => Self::ok(check, found),
            Err(problem) => Self::of(level, check, &problem),
        }
    }
}

/// `kubecamp doctor`: the exit code is that of the first problem; warnings do not count.
pub(in crate::cli::commands) async fn doctor(cx: &Context, args: DoctorArgs) -> Result<u8, Problems> {
    let mut found: Vec<_> = lab::at_work(cx).into_iter().collect();
    found.extend(computer::findings(cx).await);
    found.extend(lab::findings(cx, &args.connect).await?);
    output::value(args.output, &found, |wide| text(&found, wide))?;
    Ok(code_of(&found))
}

fn code_of(found: &[Finding]) -> u8 {
    let first = found.iter().find(|f| f.level == Level::Problem);
    first.map_or(0, |f| exit_code(f.code.unwrap_or(Code::Internal).class()))
}

fn text(found: &[Finding], wide: bool) -> String {
    let mut rows = vec![output::columns(wide, ["STATE", "ON", "CHECK", "FOUND"], ["CODE"])];
    for finding in found {
        let state = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        let code = finding.code.map_or_else(|| "-".to_owned(), |c| c.to_string());
        rows.push(output::columns(wide, [state, finding.on.as_str(), &finding.check, &finding.found], [code]));
    }
    let mut hints: Vec<String> = vec![];
    for finding in found.iter().filter(|f| f.level != Level::Ok) {
        for line in finding.hints.iter().map(|h| format!("hint: {}: {}\n", finding.check, printable(h))) {
            if !hints.contains(&line) {
                hints.push(line);
            }
        }
    }
    let many = |level| found.iter().filter(|f| f.level == level).count() as u64;
    let (problems, warnings) = (count(many(Level::Problem), "problem"), count(many(Level::Warning), "warning"));
    format!("{}{}{problems}, {warnings}\n", table(&rows), hints.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_have_hints_and_only_problems_count() {
        let node = "cp".parse().unwrap();
        let small = Problem::new(Code::MachineCapacity, "too small");
        let port = Problem::new(Code::HostPort, "port 6443 is taken\x1b[2J").on(&node).hint("Stop x\x1b[2J.");
        let mut found = vec![Finding::ok("cores", "2"), Finding::of(Level::Warning, "machines", &small)];
        assert_eq!(code_of(&found), 0);
        found.push(Finding::of(Level::Problem, "preflight", &port));
        assert_eq!(code_of(&found), exit_code(Code::HostPort.class()));
        let text = text(&found, true);
        assert!(text.contains("PROBLEM  cp    preflight  port 6443 is taken\\x1b[2J  KC-HOST-PORT"), "{text}");
        assert!(text.contains(&format!("hint: machines: {}\n", Code::MachineCapacity.hint())), "{text}");
        assert!(text.contains("hint: preflight: Stop x\\x1b[2J.\n") && !text.contains('\x1b'), "{text}");
        assert!(text.ends_with("1 problem, 1 warning\n"), "{text}");
    }
}
