use std::{
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Write},
};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::{
    core::{Code, Problem, Secret, shell::printable},
    transport::Ask,
};

/// Asks the user at the terminal; answers nothing when there is none.
pub struct Terminal;

fn tty() -> Option<(BufReader<File>, File)> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let tty = File::options().read(true).write(true).open("/dev/tty").ok()?;
    Some((BufReader::new(tty.try_clone().ok()?), tty))
}

fn line(reader: &mut BufReader<File>) -> Option<String> {
    let mut text = String::new();
    (reader.read_line(&mut text).ok()? > 0).then(|| text.trim_end_matches(['\n', '\r']).to_owned())
}

impl Ask for Terminal {
    fn secret(&self, prompt: &str) -> Option<Secret> {
        let (mut reader, mut writer) = tty()?;
        let before = tcgetattr(&writer).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        write!(writer, "{}: ", printable(prompt)).ok()?;
        tcsetattr(&writer, OptionalActions::Flush, &quiet).ok()?;
        let answer = line(&mut reader);
        let _ = tcsetattr(&writer, OptionalActions::Now, &before);
        let _ = writeln!(writer);
        answer.map(Secret::new)
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        let (mut reader, mut writer) = tty()?;
        write!(writer, "{} [y/N] ", printable(question)).ok()?;
        Some(matches!(line(&mut reader)?.to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Goes on only when the user says yes; `--yes` skips the question.
pub fn confirm(yes: bool, question: &str) -> Result<(), Problem> {
    if yes {
        return Ok(());
    }
    match Terminal.confirm(question) {
        Some(true) => Ok(()),
        Some(false) => Err(Problem::new(Code::Declined, "nothing was changed")),
        None => Err(Problem::new(Code::Declined, "there is no terminal to ask on, so nothing was changed")
            .detail(question.lines())),
    }
}
