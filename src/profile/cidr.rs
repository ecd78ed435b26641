use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// An IPv4 network in canonical form, as `10.244.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// The network of this prefix length that holds `address`; `None` when `prefix` exceeds 32.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self { base: u32::from(address) & mask(prefix), prefix })
    }

    /// Its first address, which is the network's own.
    pub fn base(self) -> Ipv4Addr {
        self.base.into()
    }

    /// Its prefix length, 0 to 32.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// How many addresses it has.
    pub fn size(self) -> u64 {
        1 << (32 - self.prefix)
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.base
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = self.prefix.min(other.prefix);
        self.base & mask(shorter) == other.base & mask(shorter)
    }

    /// Its address number `n`, where 0 is the network's own; `None` beyond its end.
    pub fn nth(self, n: u64) -> Option<Ipv4Addr> {
        let n = u32::try_from(n).ok().filter(|n| u64::from(*n) < self.size())?;
        Some((self.base + n).into())
    }

    /// Its part number `n` of those with length `prefix`; `None` beyond its end or when `prefix` is not longer.
    pub fn part(self, prefix: u8, n: u64) -> Option<Self> {
        if prefix < self.prefix || prefix > 32 {
            return None;
        }
        let step = 1u64 << (32 - prefix);
        Some(Self { base: self.nth(n.checked_mul(step)?)?.into(), prefix })
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.base(), self.prefix))
    }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not an IPv4 network: write it as `10.244.0.0/16`");
        let (address, length) = text.split_once('/').ok_or_else(bad)?;
        if address.contains(':') {
            return Err(format!("`{text}` is an IPv6 network: only IPv4 is supported for now"));
        }
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = length.parse().map_err(|_| bad())?;
        let cidr = Self::around(address, prefix).ok_or_else(bad)?;
        if cidr.base() != address {
            return Err(format!("`{text}` has address bits beyond its /{prefix}: the network is `{cidr}`"));
        }
        // "/08" or "/+8" read as numbers, yet other programs refuse them.
        if cidr.to_string() != text {
            return Err(bad());
        }
        Ok(cidr)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn only_canonical_networks_are_read() {
        assert_eq!(cidr("0.0.0.0/0").size(), 1 << 32);
        assert!("10.244.3.0/16".parse::<Cidr>().unwrap_err().contains("the network is `10.244.0.0/16`"));
        assert!("fd00::/64".parse::<Cidr>().unwrap_err().contains("only IPv4"));
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0/8",
            "a/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_and_addresses_end_with_the_network() {
        let pods = cidr("10.244.0.0/16");
        assert_eq!(pods.part(24, 2), Some(cidr("10.244.2.0/24")));
        assert_eq!(pods.part(24, 255), Some(cidr("10.244.255.0/24")));
        assert_eq!(pods.part(24, 256), None);
        assert_eq!(pods.part(8, 0), None);
        assert_eq!(cidr("10.96.0.0/24").nth(10), Some(Ipv4Addr::new(10, 96, 0, 10)));
        assert_eq!(cidr("10.96.0.0/24").nth(256), None);
        assert_eq!(cidr("255.255.255.255/32").nth(0), Some(Ipv4Addr::BROADCAST));
    }

    fn any_cidr() -> impl Strategy<Value = Cidr> {
        (any::<u32>(), 0u8..=32).prop_map(|(base, prefix)| Cidr::around(base.into(), prefix).unwrap())
    }

    proptest! {
        #[test]
        fn printing_reads_back(network in any_cidr()) {
            prop_assert_eq!(cidr(&network.to_string()), network);
        }

        #[test]
        fn overlap_is_containing_a_base(a in any_cidr(), b in any_cidr()) {
            prop_assert_eq!(a.overlaps(b), a.contains(b.base()) || b.contains(a.base()));
            prop_assert_eq!(a.overlaps(b), b.overlaps(a));
        }

        #[test]
        fn addresses_lie_inside_and_in_order(network in any_cidr(), n in any::<u32>()) {
            let n = u64::from(n) % network.size();
            let address = network.nth(n).unwrap();
            prop_assert!(network.contains(address));
            prop_assert_eq!(u64::from(u32::from(address)) - u64::from(u32::from(network.base())), n);
            prop_assert!(network.nth(network.size()).is_none());
        }

        #[test]
        fn parts_lie_inside_and_apart(network in any_cidr(), longer in 0u8..=8, n in 0u64..256) {
            let prefix = (network.prefix() + longer).min(32);
            if let Some(part) = network.part(prefix, n) {
                prop_assert!(network.contains(part.base()));
                if let Some(next) = network.part(prefix, n + 1) {
                    prop_assert!(!part.overlaps(next));
                }
            }
        }
    }
}
