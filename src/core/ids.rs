use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not an id: what was given and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not a valid {what}: use 1 to {max} lower-case letters, digits and inner hyphens, beginning with a letter"
)]
pub struct BadId {
    what: &'static str,
    given: String,
    max: usize,
}

/// The rule of a DNS label (RFC 1123) that begins with a letter: valid as host name, Incus instance and folder.
pub fn is_label(text: &str, max: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= max
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(inner)
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                if is_label(text, $max) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(BadId { what: $what, given: text.to_owned(), max: $max })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
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

label!(
    /// The name of a lab; also its folder and the prefix of its machines.
    LabName, "lab name", 30
);

impl LabName {
    /// The flag that names the lab, to stand behind a command in what is to be typed; nothing for the default's.
    pub fn flag(&self) -> String {
        if self.as_str() == "lab" { String::new() } else { format!(" --name {self}") }
    }
}

label!(
    /// The name of a node within its lab; also its Kubernetes node name.
    ///
    /// With a lab name of 30 letters and a hyphen a machine's name has 63, the limit of a host name.
    NodeId, "node name", 32
);

impl NodeId {
    /// The user's own computer, where machines and bundles are made; never a node of a cluster.
    pub fn here() -> Self {
        Self("here".to_owned())
    }

    /// Whether this is [`NodeId::here`].
    pub fn is_here(&self) -> bool {
        self.0 == "here"
    }
}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Cow<'static, str>);

        impl $name {
            /// An id fixed in the program.
            pub const fn new(text: &'static str) -> Self {
                Self(Cow::Borrowed(text))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Cow::Owned(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

token!(
    /// A phase of a flow, as `join-workers`; it names the file `phases/join_workers.rs`.
    PhaseId
);
token!(
    /// A step within a phase on one node, as `kubelet-unit`.
    StepId
);
token!(
    /// Which lab this is, whatever its name: random, kept in the lab's folder, on its hosts and with its machines.
    LabId
);
token!(
    /// One execution of a flow: sortable by time, as `20261123T174500-k3f9`.
    RunId
);

impl LabId {
    /// A new one, unlike any other.
    pub fn random() -> Self {
        Self::from(format!("{:016x}", rand::random::<u64>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dns_labels() {
        for good in ["a", "lab", "team-7", "a1"] {
            assert!(good.parse::<LabName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "7a", "a_b", "a b", "../x", "a".repeat(31).as_str()] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
        assert!("n".repeat(32).parse::<NodeId>().is_ok());
        let long = "n".repeat(33).parse::<NodeId>().unwrap_err().to_string();
        assert!(long.contains("1 to 32 lower-case letters"), "{long}");
    }
}
