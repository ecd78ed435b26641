use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::core::is_label;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String, pattern = "^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length = $max)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                if is_label(text, $max) {
                    Ok(Self(text.to_owned()))
                } else {
                    // Letters of any script are shown, blanks and marks that nobody sees are not.
                    let shown = |c: char| if c.is_alphanumeric() { c.to_string() } else { c.escape_default().to_string() };
                    let shown: String = text.chars().take(40).map(shown).collect();
                    Err(format!(
                        "`{shown}` is not a {}: use 1 to {} lower-case letters, digits and inner hyphens, beginning with a letter",
                        $what, $max
                    ))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

id!(
    /// A person's login, unique in the hub; also the Unix account on the servers.
    PersonId, "login", 31
);
id!(
    /// A course's name, unique in the hub.
    CourseId, "course name", 40
);
id!(
    /// A group's name, unique in the hub.
    GroupId, "group name", 40
);
id!(
    /// A server's name, unique in the hub.
    ServerId, "server name", 40
);
id!(
    /// A booking's id, as `b6a2swkfa812c4`; the gate's principal begins with `slot-` and this.
    BookingId, "booking id", 24
);
id!(
    /// What the bookings of one recurrence have in common.
    SeriesId, "series id", 24
);

macro_rules! made {
    ($name:ident, $letter:literal) => {
        impl $name {
            /// A fresh id from eight random bytes of the caller: a letter and 13 digits of base 32.
            pub fn from_random(bytes: [u8; 8]) -> Self {
                const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
                let mut rest = u64::from_be_bytes(bytes);
                let mut text = String::from($letter);
                for _ in 0..13 {
                    text.push(char::from(DIGITS[(rest & 31) as usize]));
                    rest >>= 5;
                }
                Self(text)
            }
        }
    };
}

made!(BookingId, "b");
made!(SeriesId, "s");

#[cfg(test)]
mod tests {
    use super::PersonId;

    #[test]
    fn what_is_no_id_is_shown_as_it_was_typed() {
        let said = |text: &str| text.parse::<PersonId>().unwrap_err();
        assert!(said("登录").starts_with("`登录` is not a login"), "{}", said("登录"));
        assert!(said("amy\u{200b}\x1b").starts_with("`amy\\u{200b}\\u{1b}` is"), "{}", said("amy\u{200b}\x1b"));
    }
}
