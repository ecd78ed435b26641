use std::{fmt, str::FromStr};

/// A Kubernetes version, as `v1.36.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The major version.
    pub major: u32,
    /// The minor version.
    pub minor: u32,
    /// The patch.
    pub patch: u32,
}

impl Version {
    /// The minor versions of Kubernetes 1 that kubecamp brings up.
    pub const SUPPORTED: std::ops::RangeInclusive<u32> = 34..=37;

    /// Whether kubecamp brings it up.
    pub fn supported(self) -> bool {
        self.major == 1 && Self::SUPPORTED.contains(&self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("v{}.{}.{}", self.major, self.minor, self.patch))
    }
}

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut parts = text.strip_prefix('v')?.split('.').map(|part| part.parse().ok());
            let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
            // Refuses "v01.2.3", "v1.+2.3" and a fourth part.
            (version.to_string() == text).then_some(version)
        };
        read().ok_or_else(|| format!("`{text}` is not a version: write it as `v1.36.3`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_in_one_way() {
        let version: Version = "v1.36.3".parse().unwrap();
        assert_eq!(version.to_string(), "v1.36.3");
        assert!(version.supported());
        assert!(!"v1.33.9".parse::<Version>().unwrap().supported());
        assert!(!"v1.38.0".parse::<Version>().unwrap().supported());
        assert!(!"v2.36.0".parse::<Version>().unwrap().supported());
        for bad in [
            "1.36.3",
            "v1.36",
            "v1.36.3.1",
            "v1.36.3-rc.1",
            "v1.036.3",
            "v1.+3.3",
            "",
            "v",
            "latest",
            "v1.99999999999.1",
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
