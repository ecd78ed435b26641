use std::{
    error::Error,
    io::{self, Read},
};

use crate::core::{Code, Problem};

/// A longer file is none of ours; it is refused before it is read.
const LONGEST: u64 = 1 << 20;

/// How text in UTF-16 begins, as Windows writes it at times.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];

/// The text of an opened file that a user wrote: a `what`, as `profile`, called `name`.
///
/// # Errors
/// `KC-LOCAL-FILE` when it cannot be read; `bad` when it is longer than 1 MiB or no text.
pub fn text<R: Read>(file: io::Result<R>, what: &str, name: &str, bad: Code) -> Result<String, Problem> {
    let unreadable = |e| Problem::new(Code::LocalFile, format!("the {what} {name} cannot be read")).because(e);
    let mut bytes = vec![];
    // One byte more than allowed tells a long file from one that just fits, and ends an endless one.
    file.map_err(unreadable)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Problem::new(bad, format!("{name} is longer than 1 MiB: that is no {what}")));
    }
    let wide = UTF_16.iter().any(|mark| bytes.starts_with(mark));
    String::from_utf8(bytes).map_err(|e| {
        let problem = Problem::new(bad, format!("{name} is not UTF-8 text")).because(e);
        if wide { problem.hint("It is UTF-16, as `>` of PowerShell writes it: save it as UTF-8.") } else { problem }
    })
}

/// A problem of YAML that is not as it should be, without what its reader says to those who program with it.
pub fn unread(problem: Problem, error: impl Error + Send + Sync + 'static) -> Problem {
    let mut problem = problem.because(error);
    for line in &mut problem.detail {
        *line = line.replace(", set DuplicateKeyPolicy in Options if acceptable", "");
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_told_in_words_for_its_writer() {
        let twice = serde_yaml::from_str::<std::collections::BTreeMap<String, u32>>("a: 1\na: 2\n").unwrap_err();
        let told = unread(Problem::new(Code::Usage, "x"), twice).to_string();
        assert!(told.contains("duplicate mapping key: a") && !told.contains("Options"), "{told}");
    }

    #[test]
    fn what_fits_is_read_and_the_rest_is_refused() {
        let read = |bytes: &[u8]| text(Ok(bytes), "profile", "a.yaml", Code::ProfileSyntax);
        assert_eq!(read(b"layout: 3x2c4g").unwrap(), "layout: 3x2c4g");
        assert_eq!(read(&vec![b'x'; 1 << 20]).unwrap().len(), 1 << 20);
        let endless = text(Ok(io::repeat(b'x')), "profile", "a.yaml", Code::ProfileSyntax).unwrap_err();
        assert!(endless.code == Code::ProfileSyntax && endless.what.contains("that is no profile"), "{endless}");
        for (bytes, wide) in [(&b"\xff\xfel\0"[..], true), (b"\xfe\xff\0l", true), (b"l\xff\xfe", false)] {
            let problem = read(bytes).unwrap_err();
            assert!(problem.what.contains("UTF-8"), "{problem}");
            assert_eq!(problem.hints.iter().any(|hint| hint.0.contains("UTF-16")), wide, "{problem}");
        }
        let gone: io::Result<io::Empty> = Err(io::ErrorKind::NotFound.into());
        assert_eq!(text(gone, "profile", "a.yaml", Code::ProfileSyntax).unwrap_err().code, Code::LocalFile);
    }
}
