use std::{path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
};

use crate::core::{Code, EventKind, NodeId, Problem, Report, shell::printable};

/// How many of a tool's last lines a problem shows.
const LAST_LINES: usize = 15;

/// Runs a tool of the build, tells its lines to `report` and `line`, and returns what it printed on stdout.
///
/// # Errors
/// `KC-BUNDLE-BUILD` with the tool's last lines; dropping the future kills it.
pub async fn run(
    component: &str,
    mut command: Command,
    report: &dyn Report,
    mut line: impl FnMut(&str) + Send,
) -> Result<String, Problem> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let name = Path::new(&program).file_name().map_or_else(|| program.clone(), |n| n.to_string_lossy().into_owned());
    let failed = |what: &str| Problem::new(Code::BundleBuild, format!("{component}: {name} {what}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| failed("could not be started").because(e))?;
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("has no output"));
    };
    let read_out = async {
        let mut text = vec![];
        stdout.read_to_end(&mut text).await.map(|_| String::from_utf8_lossy(&text).into_owned())
    };
    let read_err = async {
        let (mut lines, mut last) = (BufReader::new(stderr).split(b'\n'), std::collections::VecDeque::new());
        while let Ok(Some(bytes)) = lines.next_segment().await {
            let text = printable(&String::from_utf8_lossy(&bytes));
            line(&text);
            report.event(EventKind::Output { on: NodeId::here(), line: format!("{component}: {text}") });
            last.push_back(text);
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
        last
    };
    let (out, last, status) = tokio::join!(read_out, read_err, child.wait());
    let status = status.map_err(|e| failed("could not be awaited").because(e))?;
    if !status.success() {
        // Go puts the errors of some commands into their JSON.
        let said = out.unwrap_or_default();
        let said: Vec<String> = said.lines().map(printable).collect();
        let tail = said.len().saturating_sub(LAST_LINES);
        return Err(failed(&format!("failed ({status})")).detail(said[tail..].to_vec()).detail(last));
    }
    out.map_err(|e| failed("printed what cannot be read").because(e))
}
