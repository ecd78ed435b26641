use std::{error::Error as StdError, fmt, io, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Class, Code, NodeId};

/// Something the user can do about a problem, in one imperative sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hint(pub String);

/// A place in a file that the user wrote; line and column count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What failed, where, why, and what to do about it.
///
/// Only `render/` turns it into text for people; `Display` is for logs and tests.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// One sentence: what failed.
    pub what: String,
    /// The host or machine it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<NodeId>,
    /// The place in the user's file it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// Foreign evidence: the remote output's last lines, a table's rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
    /// What to do; never empty once rendered, since every code brings a hint of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<Hint>,
    /// The error beneath, for the log.
    #[serde(skip)]
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// A problem with this code, and what failed in one sentence.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), on: None, at: None, detail: vec![], hints: vec![], source: None }
    }

    /// Says which host or machine it concerns.
    #[must_use]
    pub fn on(mut self, node: &NodeId) -> Self {
        self.on = Some(node.clone());
        self
    }

    /// Says which place of the user's file it concerns.
    #[must_use]
    pub fn at(mut self, at: At) -> Self {
        self.at = Some(at);
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(Hint(hint.into()));
        self
    }

    /// Adds lines of evidence.
    #[must_use]
    pub fn detail<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        self.detail.extend(lines.into_iter().map(Into::into));
        self
    }

    /// Keeps the error beneath, and its chain of causes as detail, line by line.
    #[must_use]
    pub fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&source);
        while let Some(error) = cause {
            // Path and permissions, which the code's own hint names, are right then.
            if self.code == Code::LocalFile && self.hints.is_empty() && is_full(error) {
                self.hints.push(Hint("Free some space on that disk, then run the same command again.".into()));
            }
            let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
            if !self.detail.ends_with(&lines) {
                self.detail.extend(lines);
            }
            cause = error.source();
        }
        self.source = Some(Arc::new(source));
        self
    }

    /// Says what was going on when a limit passed: where that is noticed, nobody knows.
    #[must_use]
    pub fn during(self, what: impl fmt::Display) -> Self {
        match self.code {
            Code::StepTimeout => Self { what: format!("{what}: {}", self.what), ..self },
            _ => self,
        }
    }

    /// The hints to show: its own, or else its code's.
    pub fn all_hints(&self) -> Vec<String> {
        if self.hints.is_empty() {
            vec![self.code.hint().to_owned()]
        } else {
            self.hints.iter().map(|h| h.0.clone()).collect()
        }
    }
}

/// Whether it says that a disk, or the user's share of it, is full.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(on) = &self.on {
            write!(f, " on {on}")?;
        }
        if let Some(at) = &self.at {
            write!(f, " at {at}")?;
        }
        write!(f, ": {}", self.what)?;
        for line in &self.detail {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}

impl StdError for Problem {}

/// One or more problems found together, so that the user mends them in one go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `Err` with all of `found`, or `Ok` when there is none.
    pub fn check(found: Vec<Problem>) -> Result<(), Self> {
        if found.is_empty() { Ok(()) } else { Err(Self(found)) }
    }

    /// The problems in the order they were found; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Takes them apart.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }

    /// The class that decides the exit code: that of the first problem.
    pub fn class(&self) -> Class {
        self.0.first().map_or(Class::Internal, |p| p.code.class())
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Self {
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl StdError for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_several_lines_is_several_lines_of_evidence() {
        let beneath = Problems::from(vec![Problem::new(Code::Usage, "one"), Problem::new(Code::Usage, "two")]);
        let problem = Problem::new(Code::LocalFile, "damaged").because(beneath.clone()).because(beneath);
        assert_eq!(problem.detail, ["KC-USAGE: one", "KC-USAGE: two"]);
    }

    #[test]
    fn a_full_disk_needs_space_and_no_permissions() {
        let told = |kind: io::ErrorKind| Problem::new(Code::LocalFile, "cannot write").because(io::Error::from(kind));
        for full in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let hints = told(full).all_hints();
            assert!(hints.len() == 1 && hints[0].starts_with("Free some space"), "{hints:?}");
        }
        assert_eq!(told(io::ErrorKind::PermissionDenied).all_hints(), [Code::LocalFile.hint()]);
        let own = Problem::new(Code::LocalFile, "x").hint("Send it elsewhere.");
        assert_eq!(own.because(io::Error::from(io::ErrorKind::StorageFull)).all_hints(), ["Send it elsewhere."]);
    }

    #[test]
    fn only_a_limit_that_passed_needs_to_be_told_of_what() {
        let told = |code| Problem::new(code, "no end within 60 s").during("its facts").what;
        assert_eq!(told(Code::StepTimeout), "its facts: no end within 60 s");
        assert_eq!(told(Code::LinkLost), "no end within 60 s");
    }
}
