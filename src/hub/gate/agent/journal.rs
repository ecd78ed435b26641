use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Entry, Ledger, Line};
use crate::{
    core::{Code, Problem},
    hub::gate::{Epoch, Report},
};

/// The agent was told to stop at once, between two bytes if need be: what kill -9 does.
///
/// Only tests ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halted;

/// Where the bytes of a journal go.
pub trait Ink: Send {
    /// Writes a line and has it on the disk before it returns.
    fn write(&mut self, line: &[u8]) -> Result<(), InkError>;
}

/// Why a line was not written.
#[derive(Debug)]
pub enum InkError {
    /// The disk.
    Disk(std::io::Error),
    /// See [`Halted`].
    Halted,
}

/// The journal: NDJSON, each line on the disk before what it announces is done.
pub struct Journal {
    file: PathBuf,
    ink: Box<dyn Ink>,
    ledger: Ledger,
    /// The number of the next line.
    next: u64,
    /// The number of the last line that is on the disk.
    kept: u64,
    /// Lines that could not be written: ends go on without a disk, and are written down when it is there again.
    owed: Vec<(u64, Vec<u8>)>,
}

/// How far the hub is told ahead of the disk, and how far the numbers of a new process are ahead of it. What waits for a
/// full disk is told all the same, and lost when the process ends: its numbers, each of which the hub takes once, must
/// not come back for something else.
const AHEAD: u64 = 1000;

/// A journal this long, in bytes, is written anew when the agent starts.
const LONG: u64 = 4 << 20;

/// The first line of a journal that was written anew: the sum of what was before.
#[derive(Serialize, Deserialize)]
struct Sum {
    sum: Ledger,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one.
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let fail = |e| unusable(folder).because(e);
        fs::create_dir_all(folder).map_err(fail)?;
        let file = folder.join("journal.ndjson");
        let (ledger, whole) = Self::read(&file)?;
        // A line torn by a crash must not run into the next one.
        if let Ok(found) = File::options().write(true).open(&file) {
            found.set_len(whole).and_then(|()| found.sync_all()).map_err(fail)?;
        }
        if whole > LONG
            && let Ok(mut text) = serde_json::to_vec(&Sum { sum: ledger.clone() })
        {
            text.push(b'\n');
            // The long one serves as well: no full disk may keep the agent from its doors.
            let _ = replace(&file, &text, 0o600);
        }
        let out = File::options().create(true).append(true).mode(0o600).open(&file).map_err(fail)?;
        File::open(folder).and_then(|f| f.sync_all()).map_err(fail)?;
        let kept = ledger.seq;
        let next = if kept == 0 { 1 } else { kept + AHEAD + 1 };
        Ok(Self { file, ink: Box::new(OnDisk(out)), ledger, next, kept, owed: vec![] })
    }

    /// The sum of a journal file, and the length of its whole lines.
    fn read(file: &Path) -> Result<(Ledger, u64), Problem> {
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Ledger::default(), 0)),
            Err(e) => return Err(unusable(file).because(e)),
        };
        let (mut ledger, mut whole) = (Ledger::default(), 0);
        for raw in bytes.split_inclusive(|b| *b == b'\n') {
            if !raw.ends_with(b"\n") {
                break;
            }
            if let Ok(line) = serde_json::from_slice::<Line>(raw) {
                ledger.apply(&line);
            } else if let Ok(sum) = serde_json::from_slice::<Sum>(raw) {
                ledger = sum.sum;
            } else {
                return Err(unread(file, raw));
            }
            whole += raw.len() as u64;
        }
        Ok((ledger, whole))
    }

    /// For tests: writes through `ink` from now on.
    pub fn through(mut self, wrap: impl FnOnce(Box<dyn Ink>) -> Box<dyn Ink>) -> Self {
        self.ink = wrap(self.ink);
        self
    }

    /// What is known.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reports that the hub may be told and has not taken yet, the oldest first.
    pub fn to_tell(&self) -> impl Iterator<Item = &Report> {
        let last = self.kept + AHEAD;
        self.ledger.queue.iter().take_while(move |report| report.seq <= last)
    }

    /// Whether lines wait for the disk.
    pub fn is_owing(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Writes an entry.
    ///
    /// When the disk refuses it, it counts all the same and is written later; the caller sees by [`Journal::is_owing`] that
    /// nothing more may be opened.
    pub fn write(&mut self, at: Epoch, entry: Entry) -> Result<(), Halted> {
        let line = Line { seq: self.next, at, entry };
        self.next += 1;
        self.ledger.apply(&line);
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            self.owed.push((line.seq, bytes));
        }
        self.settle()
    }

    /// Writes what waits.
    pub fn settle(&mut self) -> Result<(), Halted> {
        while let Some((seq, bytes)) = self.owed.first() {
            match self.ink.write(bytes) {
                Ok(()) => {
                    self.kept = *seq;
                    self.owed.remove(0);
                }
                Err(InkError::Disk(_)) => return Ok(()),
                Err(InkError::Halted) => return Err(Halted),
            }
        }
        Ok(())
    }
}

struct OnDisk(File);

impl Ink for OnDisk {
    fn write(&mut self, line: &[u8]) -> Result<(), InkError> {
        let before = self.0.metadata().map_err(InkError::Disk)?.len();
        let wrote = self.0.write_all(line).and_then(|()| self.0.sync_data());
        wrote.map_err(|e| {
            // A full disk may have taken half of it.
            let _ = self.0.set_len(before);
            InkError::Disk(e)
        })
    }
}

/// Writes a file whole or not at all, on the disk before it returns.
pub(super) fn replace(file: &Path, bytes: &[u8], mode: u32) -> Result<(), Problem> {
    let part = file.with_extension("part");
    let wrote = || -> std::io::Result<()> {
        let _ = fs::remove_file(&part);
        let mut out = File::options().create_new(true).write(true).mode(mode).open(&part)?;
        out.write_all(bytes)?;
        out.sync_all()?;
        fs::rename(&part, file)?;
        match file.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    wrote().map_err(|e| unusable(file).because(e))
}

/// A line that is neither torn nor known: going on from a guess could open a door.
fn unread(file: &Path, line: &[u8]) -> Problem {
    if has_form(line) {
        return unusable(file).detail(["a newer kubecamp wrote a line in its midst"]).hint(
            "Leave the file where it is, and enroll the server again with that kubecamp or a newer one. Until then every \
             account is shut, and whatever it runs is ended.",
        );
    }
    unusable(file).detail(["a line in its midst cannot be read"]).hint(
        "Move the file away, and enroll the server again: else the hub takes the first reports of the new one for known. \
         Until then every account is shut, and whatever it runs is ended.",
    )
}

/// Whether it has what every line has, or is a sum: then the words in it are another kubecamp's.
fn has_form(line: &[u8]) -> bool {
    let line: Value = serde_json::from_slice(line).unwrap_or_default();
    line["sum"].is_object() || (line["seq"].is_u64() && line["at"].is_i64() && line["entry"].is_string())
}

fn unusable(file: &Path) -> Problem {
    Problem::new(Code::GateState, format!("the agent's state in {} cannot be used", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::gate::{Slot, agent::Step};

    #[test]
    fn a_torn_line_is_dropped_and_an_altered_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.write(5, Entry::Taken { slot: Slot::new("a", "kct-a", 10, 20) }).unwrap();
        journal.write(5, Entry::Begin { booking: "a".into(), step: Step::Arm, reason: None }).unwrap();
        let (file, known) = (journal.file().to_owned(), journal.ledger().clone());
        drop(journal);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, [&whole[..], b"{\"seq\":3,\"at"].concat()).unwrap();
        let mut again = Journal::open(dir.path()).unwrap();
        assert_eq!(*again.ledger(), known);
        again.write(6, Entry::Done { booking: "a".into(), step: Step::Arm }).unwrap();
        assert_eq!(*Journal::open(dir.path()).unwrap().ledger(), *again.ledger());
        fs::write(&file, [&whole[..], b"{}\n", &whole[..]].concat()).unwrap();
        let altered = Journal::open(dir.path()).err().unwrap();
        assert_eq!(altered.code, Code::GateState);
        assert!(altered.all_hints().iter().any(|hint| hint.contains("enroll the server again")), "{altered}");
    }

    #[test]
    fn a_line_of_a_newer_kubecamp_is_not_called_altered() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.write(5, Entry::Taken { slot: Slot::new("a", "kct-a", 10, 20) }).unwrap();
        let file = journal.file().to_owned();
        drop(journal);
        let whole = fs::read(&file).unwrap();
        for line in [
            r#"{"seq":2,"at":6,"entry":"of-a-newer-one","booking":"a"}"#,
            r#"{"seq":2,"at":6,"entry":"begin","booking":"a","step":"of-a-newer-one"}"#,
            r#"{"sum":{"of":"a-newer-one"}}"#,
        ] {
            let newer = [&whole[..], line.as_bytes(), b"\n", &whole[..]].concat();
            fs::write(&file, &newer).unwrap();
            let problem = Journal::open(dir.path()).err().unwrap();
            assert!(problem.code == Code::GateState && problem.detail[0].contains("newer kubecamp"), "{problem}");
            assert!(problem.all_hints()[0].starts_with("Leave the file where it is"), "{problem:?}");
            assert_eq!(fs::read(&file).unwrap(), newer, "it stays as it is");
        }
    }

    /// A folder whose journal is to be summed up, that journal, and what it tells.
    fn long() -> (tempfile::TempDir, PathBuf, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.write(5, Entry::Taken { slot: Slot::new("a", "kct-a", 10, 20) }).unwrap();
        let (file, known) = (journal.file().to_owned(), journal.ledger().clone());
        let line = fs::read(&file).unwrap();
        fs::write(&file, line.repeat(LONG as usize / line.len() + 2)).unwrap();
        (dir, file, known)
    }

    #[test]
    fn a_long_journal_is_summed_up() {
        let (dir, file, known) = long();
        assert_eq!(Journal::open(dir.path()).unwrap().ledger().slots, known.slots);
        assert!(fs::metadata(&file).unwrap().len() < 2000);
        assert_eq!(Journal::open(dir.path()).unwrap().ledger().slots, known.slots);
    }

    #[test]
    fn a_long_journal_serves_also_where_the_disk_does_not_take_its_sum() {
        let (dir, file, known) = long();
        // What is written first is this file, and a folder of its name cannot be replaced.
        fs::create_dir(dir.path().join("journal.part")).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().ledger().slots, known.slots);
        assert!(fs::metadata(&file).unwrap().len() > LONG, "it stays as it is");
    }
}
