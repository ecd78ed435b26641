//! Which network the private engine's machines get, and with it the way to them: none that this computer itself is in, since
//! what goes to a neighbour would go to a machine, and the computer would be out of reach.

use std::{fs, net::Ipv4Addr};

use crate::core::{Code, Problem};

/// The first two numbers of networks that few people have. Machines are in `.0.0/24`, the way to them is `.255.0/30`.
const BASES: [[u8; 2]; 7] = [[10, 115], [10, 116], [10, 119], [10, 123], [172, 27], [172, 29], [172, 30]];

/// A network that this computer reaches by other ways than its default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    network: u32,
    mask: u32,
    device: String,
    /// Whether the computer is in it itself.
    is_own: bool,
}

impl Route {
    /// Those of this computer, by its main table.
    pub fn here() -> Vec<Self> {
        fs::read_to_string("/proc/net/route").unwrap_or_default().lines().filter_map(Self::parse).collect()
    }

    /// A line of `/proc/net/route`: device, network, gateway, and as the eighth the mask, in the order of bytes in memory.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok().map(u32::from_be);
        let (network, gateway, mask) = (number(1)?, number(2)?, number(7)?);
        // What is refused or dropped has no device.
        (mask != 0 && words[0] != "*").then(|| Self {
            network,
            mask,
            device: words[0].to_owned(),
            is_own: gateway == 0,
        })
    }

    /// Whether others near this computer may be there: what is wider is a tunnel's, of which it uses little.
    fn is_near(&self) -> bool {
        self.is_own && self.mask.count_ones() >= 16
    }

    fn has_some_of(&self, network: Ipv4Addr, mask: u32) -> bool {
        (u32::from(network) ^ self.network) & self.mask & mask == 0
    }

    fn meets(&self, [a, b]: [u8; 2]) -> bool {
        let (machines, way) = (Ipv4Addr::new(a, b, 0, 0), Ipv4Addr::new(a, b, 255, 0));
        self.has_some_of(machines, u32::MAX << 8) || self.has_some_of(way, u32::MAX << 2)
    }
}

/// The bridge's address for a new engine, as `10.115.0.1/24`: where nothing else is, else where this computer itself is not,
/// else where nobody near it is.
pub(super) fn bridge_address(routes: &[Route]) -> String {
    let without = |counts: fn(&Route) -> bool| {
        BASES.iter().find(|base| !routes.iter().any(|route| counts(route) && route.meets(**base)))
    };
    let found = without(|_| true).or_else(|| without(|route| route.is_own)).or_else(|| without(Route::is_near));
    let [a, b] = found.copied().unwrap_or(BASES[0]);
    format!("{a}.{b}.0.1/24")
}

/// Refuses a way to machines whose network this computer is in itself, as `10.115.0.0/24`: it may have come there after the
/// engine was made.
pub(super) fn is_apart(network: &str, routes: &[Route]) -> Result<(), Problem> {
    let first = network.split('/').next().and_then(|ip| ip.parse::<Ipv4Addr>().ok()).map(|ip| ip.octets());
    let Some([a, b, ..]) = first else { return Ok(()) };
    let Some(own) = routes.iter().find(|route| route.is_near() && route.meets([a, b])) else { return Ok(()) };
    let what = format!(
        "the private engine's machines are in {network}, and this computer is in {}/{} itself, by {}",
        Ipv4Addr::from(own.network),
        own.mask.count_ones(),
        own.device
    );
    Err(Problem::new(Code::EngineStart, what)
        .hint("A new engine takes another one: hub unenroll and hub enroll again, which removes the labs that are saved here."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100730A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t0000730A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        tun0\t00001AAC\t0100080A\t0003\t0\t0\t0\t0000FEFF\t0\t0\t0\n\
        *\t0000000A\t00000000\t0201\t0\t0\t0\t000000FF\t0\t0\t0\n";

    fn routes(text: &str) -> Vec<Route> {
        text.lines().filter_map(Route::parse).collect()
    }

    fn own(network: [u8; 4], length: u32) -> Route {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        Route { network: u32::from_be_bytes(network), mask, device: "eth0".into(), is_own: true }
    }

    #[test]
    fn the_kernels_table_is_read_without_its_default_way() {
        let found = routes(TABLE);
        let behind = Route { device: "tun0".into(), is_own: false, ..own([172, 26, 0, 0], 15) };
        assert_eq!(found, [own([10, 115, 0, 0], 24), behind]);
    }

    #[test]
    fn machines_are_where_this_computer_is_not() {
        assert_eq!(bridge_address(&[]), "10.115.0.1/24");
        assert_eq!(bridge_address(&routes(TABLE)), "10.116.0.1/24");
        for near in [own([10, 115, 0, 128], 25), own([10, 115, 255, 0], 24), own([10, 115, 0, 7], 32)] {
            assert_eq!(bridge_address(&[near]), "10.116.0.1/24");
        }
        assert_eq!(bridge_address(&[own([10, 115, 7, 0], 24)]), "10.115.0.1/24");
        let all_of_ten = own([10, 0, 0, 0], 8);
        assert_eq!(bridge_address(std::slice::from_ref(&all_of_ten)), "172.27.0.1/24");
        // Behind a gateway is the lesser evil.
        let behind = Route { is_own: false, ..own([172, 16, 0, 0], 12) };
        assert_eq!(bridge_address(&[all_of_ten.clone(), behind]), "172.27.0.1/24");
        assert_eq!(bridge_address(&[all_of_ten, own([172, 16, 0, 0], 12)]), "10.115.0.1/24");
    }

    #[test]
    fn no_way_leads_into_the_computers_own_network() {
        let problem = is_apart("10.115.0.0/24", &routes(TABLE)).unwrap_err();
        assert!(problem.what.contains("is in 10.115.0.0/24 itself, by eth0"), "{problem}");
        is_apart("10.116.0.0/24", &routes(TABLE)).unwrap();
        is_apart("172.27.0.0/24", &routes(TABLE)).unwrap();
        is_apart("fd42::/64", &routes(TABLE)).unwrap();
        // As a tunnel has it: the machines' numbers are none that this computer uses.
        is_apart("10.115.0.0/24", &[own([10, 0, 0, 0], 8)]).unwrap();
    }
}
