use crate::core::{Code, Problem};

/// The longest reason, characters: it goes with every list, event and webhook of what it is about.
const LONGEST: usize = 500;

/// A reason as it is kept: without spaces around it, 1 to 500 characters.
///
/// Wherever one is given it is read here.
pub(super) fn stated(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST {
        return Err(Problem::new(Code::HubReason, format!("say why in 1 to {LONGEST} characters")));
    }
    Ok(text.to_owned())
}

/// As [`stated`], where none need be given.
///
/// An empty one is not none: who gives it may believe to have said why.
pub(super) fn if_stated(text: Option<&str>) -> Result<Option<String>, Problem> {
    text.map(stated).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_something_and_not_too_much() {
        assert_eq!(stated(" the exam\n").unwrap(), "the exam");
        assert_eq!(stated(&"\u{e9}".repeat(LONGEST)).unwrap().chars().count(), LONGEST);
        assert_eq!(if_stated(None).unwrap(), None);
        for bad in ["", " \t\n", &"x".repeat(LONGEST + 1)] {
            assert_eq!(if_stated(Some(bad)).unwrap_err().code, Code::HubReason, "{} characters", bad.len());
        }
    }
}
