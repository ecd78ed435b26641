use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use super::accounts::Owner;

/// A TCP socket of an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// ESTABLISHED, SYN_SENT, SYN_RECV, CLOSE_WAIT, LISTEN: somebody holds these. What only waits for the last packets of
/// a peer belongs to the kernel.
const HELD: &[&str] = &["01", "02", "03", "08", "0A"];

/// The account's TCP sockets, from the files of /proc/net.
pub(super) fn of(net: &Path, owners: &[&Owner]) -> Vec<(String, Socket)> {
    let texts = ["tcp", "tcp6"].map(|file| fs::read_to_string(net.join(file)).unwrap_or_default());
    texts.iter().flat_map(|text| text.lines().skip(1)).filter_map(|line| parse(line, owners)).collect()
}

fn parse(line: &str, owners: &[&Owner]) -> Option<(String, Socket)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (uid, inode): (u32, &str) = (fields.get(7)?.parse().ok()?, *fields.get(9)?);
    let owner = owners.iter().find(|o| o.owns(uid))?;
    let held = HELD.contains(fields.get(3)?) && inode != "0";
    held.then_some(())?;
    Some((owner.name.clone(), Socket { local: address(fields.get(1)?)?, remote: address(fields.get(2)?)? }))
}

/// `0100007F:0016`: words of the address in the machine's byte order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for i in 0..4 {
                bytes[i * 4..i * 4 + 4].copy_from_slice(&word(i * 8)?);
            }
            let ip = Ipv6Addr::from(bytes);
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Cuts flows in the connection table and closes sockets that the kernel still has, where the tools are there.
pub(super) async fn cut(flows: &[Socket]) {
    for flow in flows.iter().filter(|f| f.remote.port() != 0) {
        let (from, to) = (flow.local.ip().to_string(), flow.remote.ip().to_string());
        let (own, other) = (flow.local.port().to_string(), flow.remote.port().to_string());
        // Both exit with an error when there is nothing to cut, which is as good.
        let args = ["-D", "-p", "tcp", "-s", &from, "-d", &to, "--sport", &own, "--dport", &other];
        let _ = super::accounts::run("conntrack", &args).await;
        let filter = ["-K", "-n", "src", &from, "sport", "=", &own, "dst", &to, "dport", "=", &other];
        let _ = super::accounts::run("ss", &filter).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_an_account() {
        let dir = tempfile::tempdir().unwrap();
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let line = |state: &str, uid: u32, inode: u32| {
            format!(
                "   0: 0100007F:0016 0100007F:1F90 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1\n"
            )
        };
        let text = [
            head.to_owned(),
            line("01", 1007, 5),
            line("06", 1007, 0),
            line("01", 1007, 0),
            line("0A", 1008, 6),
            line("0A", 200_001, 7),
        ];
        fs::write(dir.path().join("tcp"), text.concat()).unwrap();
        let owner = Owner { name: "kct-a".into(), uid: 1007, gid: 1, subordinate: vec![(200_000, 10)] };
        let found = of(dir.path(), &[&owner]);
        assert_eq!(found.len(), 2, "{found:?}");
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        assert_eq!(found[0].1, Socket { local: loopback(22), remote: loopback(8080) });
        assert_eq!(address("0000000000000000FFFF00000100007F:0016"), Some(loopback(22)));
        assert_eq!(address("00000000000000000000000001000000:0016").unwrap().ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(address("x"), None);
    }
}
