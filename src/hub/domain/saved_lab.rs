use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Epoch, PersonId, ServerId};
use crate::profile::Layout;

/// How a booking's note begins where the saved lab is gone with which it would have begun.
pub const LAB_GONE: &str = "the lab that was saved on ";

/// A lab that a server keeps for somebody between slots; it never leaves that server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SavedLab {
    /// The server.
    pub server: ServerId,
    /// Whose it is.
    pub person: PersonId,
    /// Its name on the server.
    pub name: String,
    /// Its layout: a slot of another one begins with a fresh lab in its place.
    #[schema(value_type = String, example = "2x4c8g")]
    pub layout: Layout,
    /// When it was last made or saved.
    pub since: Epoch,
}

/// With which lab a slot begins, for somebody who has one somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "begins", rename_all = "kebab-case")]
pub enum Beginning {
    /// With the saved one: it is on this server.
    Saved,
    /// With a fresh one: the saved one is on another server, and stays there.
    Fresh {
        /// Where the saved one is.
        saved_on: ServerId,
    },
    /// With a fresh one in place of the saved one here, whose layout is another.
    Anew {
        /// The layout of the saved one.
        #[schema(value_type = String, example = "2x4c8g")]
        instead_of: Layout,
    },
}

impl Beginning {
    /// With which lab a slot of this layout begins on a server; none where no saved lab has to do with it.
    pub fn of(labs: &[SavedLab], server: &ServerId, layout: Layout) -> Option<Self> {
        if let Some(here) = labs.iter().find(|lab| lab.server == *server) {
            return Some(if here.layout == layout { Self::Saved } else { Self::Anew { instead_of: here.layout } });
        }
        // Of several that which was worked on last.
        let same = labs.iter().filter(|lab| lab.layout == layout);
        let newest = same.max_by(|a, b| (a.since, &b.server).cmp(&(b.since, &a.server)))?;
        Some(Self::Fresh { saved_on: newest.server.clone() })
    }

    /// Which of two slots comes first that are equal otherwise, the lower one: where the saved lab is before where a
    /// fresh one begins, and that before where one would be thrown away.
    pub const fn rank(own: Option<&Self>) -> u8 {
        match own {
            Some(Self::Saved) => 0,
            None | Some(Self::Fresh { .. }) => 1,
            Some(Self::Anew { .. }) => 2,
        }
    }
}

impl fmt::Display for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved => f.write_str("the saved lab"),
            Self::Fresh { saved_on } => write!(f, "a fresh lab (the saved one is on {saved_on})"),
            Self::Anew { instead_of } => write!(f, "a fresh lab in place of the saved one, a {instead_of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(server: &str, layout: &str, since: i64) -> SavedLab {
        SavedLab {
            server: server.parse().unwrap(),
            person: "amy".parse().unwrap(),
            name: "gate-amy".into(),
            layout: layout.parse().unwrap(),
            since: Epoch(since),
        }
    }

    #[test]
    fn a_slot_begins_with_the_lab_that_its_server_keeps() {
        let labs = [lab("a", "2x4c8g", 10), lab("b", "1x4c12g", 20), lab("c", "2x4c8g", 30), lab("d", "2x4c8g", 30)];
        let at = |server: &str, layout: &str| {
            Beginning::of(&labs, &server.parse().unwrap(), layout.parse().unwrap()).map(|b| b.to_string())
        };
        assert_eq!(at("a", "2x4c8g").as_deref(), Some("the saved lab"));
        assert_eq!(at("b", "2x4c8g").as_deref(), Some("a fresh lab in place of the saved one, a 1x4c12g"));
        // The newest, and of two as new the first by name.
        assert_eq!(at("e", "2x4c8g").as_deref(), Some("a fresh lab (the saved one is on c)"));
        assert_eq!(at("e", "1x4c12g").as_deref(), Some("a fresh lab (the saved one is on b)"));
        assert_eq!(at("e", "3x2c4g"), None, "no lab of this layout is saved anywhere");
    }

    #[test]
    fn what_is_saved_comes_first_and_what_throws_away_comes_last() {
        let fresh = Beginning::Fresh { saved_on: "a".parse().unwrap() };
        let anew = Beginning::Anew { instead_of: "2x4c8g".parse().unwrap() };
        let ranks = [Some(&Beginning::Saved), None, Some(&fresh), Some(&anew)].map(Beginning::rank);
        assert_eq!(ranks, [0, 1, 1, 2]);
    }
}
