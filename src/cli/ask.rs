use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::{
    fs::OFlags,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, runtime::Handle, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::output;
use crate::{
    core::{Code, Problem, Secret, shell::printable},
    transport::Ask,
};

/// Asks the user at the terminal; answers nothing when there is none, and when the user gives up.
///
/// A process has one terminal and one Ctrl-C, and so has this. To be used from threads that may block.
pub struct Terminal;

/// No two questions at once.
static TURN: Mutex<()> = Mutex::new(());

/// Ctrl-C.
static GIVEN_UP: OnceLock<CancellationToken> = OnceLock::new();

/// Lets every question end unanswered once this is cancelled.
pub fn give_up_with(stop: CancellationToken) {
    // Only the first caller may set it; a test that did so before is fine.
    let _ = GIVEN_UP.set(stop);
}

impl Ask for Terminal {
    fn secret(&self, prompt: &str) -> Option<Secret> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let tty = tty()?;
        let _aside = output::aside();
        let quiet = Quiet::on(&tty)?;
        write!(&tty, "{}: ", shown(prompt)).ok()?;
        let answer = line(&tty);
        drop(quiet);
        let _ = writeln!(&tty);
        answer.map(Secret::new)
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let tty = tty()?;
        let _aside = output::aside();
        write!(&tty, "{} [y/N] ", shown(question)).ok()?;
        let answer = line(&tty);
        if answer.is_none() {
            let _ = writeln!(&tty);
        }
        Some(matches!(answer?.to_lowercase().as_str(), "y" | "yes"))
    }
}

/// The terminal, opened anew: reading it must not wait, which would hold for everybody who shares the open file.
fn tty() -> Option<File> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open("/dev/tty").ok()
}

/// A question's lines, each without what a terminal would act on.
fn shown(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// What is typed does not show until this is dropped.
struct Quiet<'a>(&'a File, Termios);

impl<'a> Quiet<'a> {
    fn on(tty: &'a File) -> Option<Self> {
        let before = tcgetattr(tty).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(tty, OptionalActions::Flush, &quiet).ok()?;
        Some(Self(tty, before))
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
    }
}

/// What the user types, unless Ctrl-C comes instead.
fn line(tty: &File) -> Option<String> {
    Handle::try_current().ok()?.block_on(async {
        tokio::select! {
            biased;
            () = given_up() => None,
            typed = typed(tty) => typed.ok()?,
        }
    })
}

async fn given_up() {
    match GIVEN_UP.get() {
        Some(stop) => stop.cancelled().await,
        None => std::future::pending().await,
    }
}

/// One line; `None` at the end of input.
async fn typed(tty: &File) -> io::Result<Option<String>> {
    // A terminal is waited for like a pipe. It gives whole lines, and a part of one where the user ends it with Ctrl-D.
    let mut chunk = [0; 4096];
    let read = pipe::Receiver::from_file_unchecked(tty.try_clone()?)?.read(&mut chunk).await?;
    let text = String::from_utf8_lossy(&chunk[..read]);
    Ok((read > 0).then(|| text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Goes on only when the user says yes; `--yes` skips the question.
pub async fn confirm(yes: bool, question: &str) -> Result<(), Problem> {
    if yes {
        return Ok(());
    }
    let asked = question.to_owned();
    let answer = spawn_blocking(move || Terminal.confirm(&asked)).await;
    agreed(answer.ok().flatten(), question)
}

/// Goes on only by a yes; `None` is no answer, as where there is no terminal to ask at.
fn agreed(answer: Option<bool>, question: &str) -> Result<(), Problem> {
    match answer {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::new(Code::Declined, "nothing was changed")),
        None => Err(Problem::new(Code::Declined, "nobody answered at a terminal, so nothing was changed")
            .detail(question.lines())
            .hint("Use --yes in scripts.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_keeps_its_lines_and_nothing_else_that_moves_the_cursor() {
        assert_eq!(shown("Reset \x1b[2Jall\tof it.\nGo on?"), "Reset \\x1b[2Jall of it.\nGo on?");
        assert_eq!(shown("one\r\x07two"), "one\\x0d\\x07two");
    }
    #[test]
    fn who_said_no_is_not_told_of_scripts() {
        let hints = |answer| agreed(answer, "Go on?").err().map(|p| p.all_hints()).unwrap_or_default();
        assert_eq!(hints(Some(true)), [""; 0]);
        assert_eq!(hints(Some(false)), [Code::Declined.hint()]);
        assert!(!Code::Declined.hint().contains("scripts"));
        assert_eq!(hints(None), ["Use --yes in scripts."]);
    }
}
