use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CourseId, GroupId, PersonId, Policy, Zone};

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Books own slots.
    Student,
    /// Sees and changes everybody's, with a reason.
    Teacher,
    /// Also manages people and servers.
    Admin,
}

impl Role {
    /// As the databases spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Student => "student",
            Self::Teacher => "teacher",
            Self::Admin => "admin",
        }
    }
}

/// Somebody who can sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Person {
    /// The login.
    pub id: PersonId,
    /// How people call them.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Whether they can sign in and book.
    pub active: bool,
    /// The zone that their pages show.
    pub zone: Zone,
    /// Their public SSH keys, one line each as in an authorized_keys file.
    pub keys: Vec<String>,
    /// Their groups.
    pub groups: Vec<GroupId>,
    /// Grows with each change.
    pub version: i64,
}

/// People who share a quota, about five.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Its name.
    pub id: GroupId,
    /// Its course.
    pub course: CourseId,
    /// Its members.
    pub members: Vec<PersonId>,
}

/// A course with its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Course {
    /// Its name.
    pub id: CourseId,
    /// Its title for people.
    pub title: String,
    /// The rules of booking.
    pub policy: Policy,
    /// Grows with each change.
    pub version: i64,
}

impl Person {
    /// Whether both have one and the same SSH key, whatever stands behind it: whoever holds it signs in as either.
    pub fn shares_a_key_with(&self, other: &Self) -> bool {
        self.id != other.id && self.keys.iter().any(|own| other.keys.iter().any(|key| is_same_key(key, own)))
    }

    /// Whether this line is one of their SSH keys, whatever stands behind it.
    pub fn has_key(&self, line: &str) -> bool {
        self.keys.iter().any(|own| is_same_key(own, line))
    }
}

/// Whether two lines are one and the same SSH key: what stands behind a key anybody may write.
pub fn is_same_key(one: &str, other: &str) -> bool {
    let bare = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    bare(one) == bare(other)
}

/// What somebody calls an SSH key: all that stands behind it in its line.
pub fn name_of_key(line: &str) -> String {
    line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")
}
