use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::core::{Bytes, GIB};

/// Nodes and the least that each of them has, as `3x2c4g`: node count x cores c memory GiB g.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Layout {
    /// How many nodes.
    pub nodes: u32,
    /// Cores of each node.
    pub cores: u32,
    /// Memory of each node, whole GiB.
    pub memory: Bytes,
}

/// What a node or a host has, or should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Cores.
    pub cores: u32,
    /// Memory.
    pub memory: Bytes,
    /// Disk.
    pub disk: Bytes,
}

/// The disk that every node needs at least.
pub const DISK_FLOOR: Bytes = Bytes::gib(30);

/// The share of its memory that a machine must show, in thousandths: 925 = 92.5 %.
///
/// Firmware, crash kernel and page tables keep some: an 8 GiB cloud machine shows 7.6 GiB (95 %) or less.
pub const MEMORY_SHOWN: u64 = 925;

/// The share of its disk that a machine must show, in thousandths: 900 = 90 %.
///
/// Sellers count in GB (30 GB are 27.9 GiB, 93 %), and the file system keeps some for itself.
pub const DISK_SHOWN: u64 = 900;

/// Memory that stays with a computer that holds local machines.
pub const HOST_KEEPS: Bytes = Bytes::gib(2);

impl Layout {
    /// The layouts with a shipped profile, fewest nodes first.
    pub const SHIPPED: [Self; 3] = [Self::of(1, 4, 12), Self::of(2, 4, 8), Self::of(3, 2, 4)];

    /// Whether a shipped profile is of it: a server's agent makes labs of these only.
    pub fn is_shipped(self) -> bool {
        Self::SHIPPED.contains(&self)
    }

    const fn of(nodes: u32, cores: u32, gib: u64) -> Self {
        Self { nodes, cores, memory: Bytes::gib(gib) }
    }

    /// The smallest layout with this many nodes on which a lab is known to work.
    ///
    /// Fewer nodes carry more each: one node runs the control plane and every pod.
    pub const fn floor(nodes: u32) -> Self {
        match nodes {
            1 => Self::of(1, 4, 12),
            2 => Self::of(2, 4, 8),
            _ => Self::of(nodes, 2, 4),
        }
    }

    /// What each node has, with the disk that every node needs.
    pub const fn size(self) -> Size {
        Size { cores: self.cores, memory: self.memory, disk: DISK_FLOOR }
    }

    /// What it lacks to its floor; empty when a lab of this layout works.
    pub fn below_floor(self) -> Vec<Shortfall> {
        exact(&Self::floor(self.nodes).size(), &self.size())
    }

    /// The shipped layout with most nodes whose machines one computer of this size can hold.
    ///
    /// Machines share cores, so each may have as many as the computer; memory is never promised twice,
    /// and [`HOST_KEEPS`] of it stays with the computer.
    pub fn largest_that_fits(cores: u32, memory: Bytes) -> Option<Self> {
        Self::SHIPPED.into_iter().rev().find(|layout| layout.fits(cores, memory))
    }

    /// Whether one computer of this size can hold the layout's machines; the rule of [`Layout::largest_that_fits`].
    pub fn fits(self, cores: u32, memory: Bytes) -> bool {
        let all = self.memory.0.checked_mul(u64::from(self.nodes)).and_then(|all| all.checked_add(HOST_KEEPS.0));
        self.cores <= cores && all.is_some_and(|all| all <= memory.0)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}c{}g", self.nodes, self.cores, self.memory.0 / GIB))
    }
}

impl FromStr for Layout {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (nodes, rest) = text.split_once('x')?;
            let (cores, rest) = rest.split_once('c')?;
            let gib: u32 = rest.strip_suffix('g')?.parse().ok()?;
            let layout = Self::of(nodes.parse().ok()?, cores.parse().ok()?, gib.into());
            let none = layout.nodes == 0 || layout.cores == 0 || gib == 0;
            // Refuses "+3x2c4g" and "03x2c4g".
            (!none && layout.to_string() == text).then_some(layout)
        };
        read().ok_or_else(|| {
            format!("`{text}` is not a layout: write it as `3x2c4g`, for 3 nodes of 2 cores and 4 GiB memory")
        })
    }
}

impl TryFrom<String> for Layout {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Layout> for String {
    fn from(layout: Layout) -> Self {
        layout.to_string()
    }
}

/// What of a size falls short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Cores.
    Cores,
    /// Memory.
    Memory,
    /// Disk.
    Disk,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cores => "cores",
            Self::Memory => "memory",
            Self::Disk => "disk",
        })
    }
}

/// One resource of which there is too little; cores count as they are, memory and disk in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shortfall {
    /// What there is too little of.
    pub what: Resource,
    /// How much is asked.
    pub want: u64,
    /// How much there is.
    pub have: u64,
}

impl Shortfall {
    /// What is asked, as people write it: `4` or `8GiB`.
    pub fn want_text(&self) -> String {
        self.text(self.want)
    }

    /// What there is, as people write it: `2` or `3.8GiB`.
    pub fn have_text(&self) -> String {
        self.text(self.have)
    }

    fn text(&self, amount: u64) -> String {
        match self.what {
            Resource::Cores => amount.to_string(),
            Resource::Memory | Resource::Disk => Bytes(amount).to_string(),
        }
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.what, self.have_text(), self.want_text())
    }
}

/// What a real machine lacks of `want`, with [`MEMORY_SHOWN`] and [`DISK_SHOWN`] as tolerance; cores are exact.
pub fn shortfalls(want: &Size, have: &Size) -> Vec<Shortfall> {
    compare(want, have, MEMORY_SHOWN, DISK_SHOWN)
}

/// What `have` lacks of `want` where both are promises, so without tolerance.
pub(super) fn exact(want: &Size, have: &Size) -> Vec<Shortfall> {
    compare(want, have, 1000, 1000)
}

fn compare(want: &Size, have: &Size, memory_shown: u64, disk_shown: u64) -> Vec<Shortfall> {
    let rows = [
        (Resource::Cores, u64::from(want.cores), u64::from(have.cores), 1000),
        (Resource::Memory, want.memory.0, have.memory.0, memory_shown),
        (Resource::Disk, want.disk.0, have.disk.0, disk_shown),
    ];
    rows.into_iter()
        .filter(|(_, want, have, shown)| u128::from(*have) * 1000 < u128::from(*want) * u128::from(*shown))
        .map(|(what, want, have, _)| Shortfall { what, want, have })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(text: &str) -> Layout {
        text.parse().unwrap()
    }

    fn lacks(want: &str, cores: u32, memory: u64, disk: u64) -> String {
        let have = Size { cores, memory: Bytes(memory), disk: Bytes(disk) };
        let all: Vec<String> = shortfalls(&layout(want).size(), &have).iter().map(ToString::to_string).collect();
        all.join(", ")
    }

    #[test]
    fn shipped_layouts_are_their_own_floor() {
        let names: Vec<String> = Layout::SHIPPED.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["1x4c12g", "2x4c8g", "3x2c4g"]);
        for shipped in Layout::SHIPPED {
            assert_eq!(shipped, Layout::floor(shipped.nodes));
            assert_eq!(shipped.below_floor(), []);
            assert!(shipped.is_shipped());
        }
        assert!(!layout("5x2c4g").is_shipped() && !layout("2x4c10g").is_shipped());
        assert_eq!(layout("5x2c4g").below_floor(), []);
        assert_eq!(layout("1x2c4g").below_floor().len(), 2);
        assert_eq!(layout("2x4c4g").below_floor()[0].to_string(), "memory 4GiB of 8GiB");
    }

    #[test]
    fn a_host_may_show_a_little_less_memory_than_it_was_sold_with() {
        let disk = 30 * GIB;
        assert_eq!(lacks("2x4c8g", 4, 76 * GIB / 10, disk), "", "7.6 of 8 GiB is 95 %");
        let least = 8 * GIB * 925 / 1000;
        assert!(least * 1000 < 8 * GIB * 925, "the boundary itself is no whole byte");
        assert_eq!(lacks("2x4c8g", 4, least + 1, disk), "");
        assert_eq!(lacks("2x4c8g", 4, least, disk), "memory 7.4GiB of 8GiB");
    }

    #[test]
    fn a_host_may_count_its_disk_in_gb() {
        let memory = 8 * GIB;
        assert_eq!(lacks("2x4c8g", 4, memory, 30_000_000_000), "", "30 GB is 93 % of 30 GiB");
        assert_eq!(lacks("2x4c8g", 4, memory, 27 * GIB), "", "27 GiB is 90 %");
        assert_eq!(lacks("2x4c8g", 4, memory, 27 * GIB - 1), "disk 27.0GiB of 30GiB");
    }

    #[test]
    fn cores_are_exact_and_all_shortfalls_are_named() {
        assert_eq!(lacks("2x4c8g", 3, 2 * GIB, 10 * GIB), "cores 3 of 4, memory 2GiB of 8GiB, disk 10GiB of 30GiB");
    }

    #[test]
    fn the_largest_that_fits_has_most_nodes() {
        let fits = |cores, gib| Layout::largest_that_fits(cores, Bytes::gib(gib)).map(|l| l.to_string());
        assert_eq!(fits(2, 24).as_deref(), Some("3x2c4g"));
        assert_eq!(fits(2, 14).as_deref(), Some("3x2c4g"));
        assert_eq!(fits(2, 13), None);
        assert_eq!(fits(1, 64), None);
        assert_eq!(fits(0, 0), None);
    }

    #[test]
    fn only_layouts_are_read() {
        for bad in [
            "",
            "3x2c4",
            "x2c4g",
            "0x2c4g",
            "3x0c4g",
            "3x2c0g",
            "03x2c4g",
            "+3x2c4g",
            "3X2C4G",
            "3x2c4gb",
            "3 x2c4g",
            "99999999999x1c1g",
        ] {
            assert!(bad.parse::<Layout>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printing_reads_back(nodes in 1u32.., cores in 1u32.., gib in 1u32..) {
            let given = Layout::of(nodes, cores, gib.into());
            prop_assert_eq!(layout(&given.to_string()), given);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Ok(read) = text.parse::<Layout>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }

        #[test]
        fn more_never_falls_shorter(cores in 0u32..9, memory in 0u64..20, disk in 0u64..50, more in 0u64..9) {
            let want = Layout::floor(2).size();
            let have = Size { cores, memory: Bytes::gib(memory), disk: Bytes::gib(disk) };
            let better = Size { cores: cores + more as u32, memory: Bytes::gib(memory + more), disk: Bytes::gib(disk + more) };
            prop_assert!(shortfalls(&want, &better).len() <= shortfalls(&want, &have).len());
        }
    }
}
