use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One mebibyte in bytes.
pub const MIB: u64 = 1 << 20;
/// One gibibyte in bytes.
pub const GIB: u64 = 1 << 30;

/// A count of bytes, written `4GiB` or `512MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

impl Bytes {
    /// `n` gibibytes.
    pub const fn gib(n: u64) -> Self {
        Self(n * GIB)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            n if n >= GIB && n % GIB == 0 => format!("{}GiB", n / GIB),
            n if n >= GIB => format!("{:.1}GiB", n as f64 / GIB as f64),
            n if n >= MIB => format!("{}MiB", n / MIB),
            n => format!("{n}B"),
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a size: write it as `4GiB` or `512MiB`");
        let (digits, unit) = if let Some(digits) = text.strip_suffix("GiB") {
            (digits, GIB)
        } else if let Some(digits) = text.strip_suffix("MiB") {
            (digits, MIB)
        } else {
            return Err(bad());
        };
        // Exactly what the schema takes, so that editors and kubecamp agree.
        if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let count: u64 = digits.parse().map_err(|_| bad())?;
        count.checked_mul(unit).map(Self).ok_or_else(bad)
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        if bytes.0.is_multiple_of(GIB) { format!("{}GiB", bytes.0 / GIB) } else { format!("{}MiB", bytes.0 / MIB) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        assert_eq!("4GiB".parse(), Ok(Bytes::gib(4)));
        assert_eq!(Bytes::gib(4).to_string(), "4GiB");
        assert_eq!(Bytes(512 * MIB).to_string(), "512MiB");
        for bad in ["4g", "4 GiB", "+4GiB", "-4GiB", " 4GiB", "04GiB", "0GiB", "GiB", "99999999999999GiB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }
}
