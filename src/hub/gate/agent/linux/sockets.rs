use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::accounts::{Owner, run};

/// A TCP socket of an account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Socket {
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

/// ESTABLISHED, SYN_SENT, SYN_RECV, CLOSE_WAIT, LISTEN: somebody holds these. What only waits for the last packets of
/// a peer belongs to the kernel.
const HELD: &[&str] = &["01", "02", "03", "08", "0A"];

/// TIME_WAIT: both ends are done with it, and the kernel closes it no sooner when asked.
const OVER: &str = "06";

/// How long cutting may take before what is left waits for the next tick: other doors must not wait for somebody's ten
/// thousand connections.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many sockets one `ss` closes: it looks through all that there are, and the kernel takes filters of 64 KiB at most.
const PIECE: usize = 64;

/// A line of the kernel's tables.
struct Row {
    socket: Socket,
    uid: u32,
    held: bool,
    over: bool,
}

/// The account's TCP sockets, from the files of /proc/net.
pub(super) fn of(net: &Path, owners: &[&Owner]) -> Vec<(String, Socket)> {
    let own = |row: Row| {
        let owner = owners.iter().find(|o| row.held && o.owns(row.uid))?;
        Some((owner.name.clone(), row.socket))
    };
    table(net).into_iter().filter_map(own).collect()
}

fn table(net: &Path) -> Vec<Row> {
    let texts = ["tcp", "tcp6"].map(|file| fs::read_to_string(net.join(file)).unwrap_or_default());
    texts.iter().flat_map(|text| text.lines().skip(1)).filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (state, inode) = (*fields.get(3)?, *fields.get(9)?);
    let socket = Socket { local: address(fields.get(1)?)?, remote: address(fields.get(2)?)? };
    let held = HELD.contains(&state) && inode != "0";
    Some(Row { socket, uid: fields.get(7)?.parse().ok()?, held, over: state == OVER })
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

/// A program that cuts, and what it cuts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Call {
    program: &'static str,
    args: Vec<String>,
    flows: Vec<Socket>,
}

/// Closes sockets of the owner that the kernel still has and cuts flows in the connection table, where the tools are there;
/// gives the sockets for which the time was too short.
pub(super) async fn cut(net: &Path, flows: &BTreeSet<Socket>, owner: Option<&Owner>) -> BTreeSet<Socket> {
    let mut calls = calls(flows, &table(net), owner);
    let _ = tokio::time::timeout(PATIENCE, make(&mut calls)).await;
    open(calls)
}

/// The sockets of calls that were not made. A line of the connection table whose socket is closed carries nothing, and
/// thousands of addresses take longer than an end may.
fn open(calls: VecDeque<Call>) -> BTreeSet<Socket> {
    calls.into_iter().filter(|call| call.program == "ss").flat_map(|call| call.flows).collect()
}

/// Makes the calls one after the other; those that were made are taken out.
async fn make(calls: &mut VecDeque<Call>) {
    for tool in ["ss", "conntrack"] {
        let needed = calls.iter().any(|call| call.program == tool);
        if needed && run(tool, &["--version"]).await.is_err() {
            calls.retain(|call| call.program != tool);
        }
    }
    while let Some(call) = calls.front() {
        let args: Vec<&str> = call.args.iter().map(String::as_str).collect();
        // Both exit with an error when there is nothing to cut, which is as good.
        let _ = run(call.program, &args).await;
        calls.pop_front();
    }
}

/// What is to be run, in few programs: somebody may have left very many flows.
fn calls(flows: &BTreeSet<Socket>, table: &[Row], owner: Option<&Owner>) -> VecDeque<Call> {
    // A flow may have waited for long, and its addresses and ports be somebody else's by now.
    let is_theirs = |row: &&Row| row.held && !owner.is_some_and(|owner| owner.owns(row.uid));
    let theirs: BTreeSet<&Socket> = table.iter().filter(is_theirs).map(|row| &row.socket).collect();
    let is_own = |flow: &&Socket| flow.remote.port() != 0 && !theirs.contains(*flow);
    let flows: BTreeSet<&Socket> = flows.iter().filter(is_own).collect();
    let rows = table.iter().filter(|row| !row.over && flows.contains(&row.socket));
    let there: Vec<Socket> = rows.map(|row| row.socket.clone()).collect::<BTreeSet<_>>().into_iter().collect();
    let mut calls: VecDeque<Call> = there.chunks(PIECE).map(closing).collect();
    let others = table.iter().filter(|row| row.held && !flows.contains(&row.socket));
    let others: BTreeSet<_> = others.map(|row| (row.socket.local.ip(), row.socket.remote.ip())).collect();
    let mut pairs: BTreeMap<(IpAddr, IpAddr), Vec<Socket>> = BTreeMap::new();
    // Within the server both ends are closed by now.
    for flow in flows.into_iter().filter(|flow| !flow.local.ip().is_loopback()) {
        pairs.entry((flow.local.ip(), flow.remote.ip())).or_default().push(flow.clone());
    }
    for (pair, flows) in pairs {
        match others.contains(&pair) {
            // Connections of others to there go on.
            true => calls.extend(flows.into_iter().map(|flow| forgetting(pair, Some(&flow), vec![flow.clone()]))),
            false => calls.push_back(forgetting(pair, None, flows)),
        }
    }
    calls
}

/// Closes these sockets: a filter of all of them.
fn closing(flows: &[Socket]) -> Call {
    let mut args: Vec<String> = ["-K", "-n", "-t"].map(str::to_owned).into();
    for (at, flow) in flows.iter().enumerate() {
        if at > 0 {
            args.push("or".into());
        }
        let (local, remote) = (flow.local.to_string(), flow.remote.to_string());
        args.extend(["(".into(), "src".into(), local, "dst".into(), remote, ")".into()]);
    }
    Call { program: "ss", args, flows: flows.to_vec() }
}

/// Cuts what goes from one address to the other in the connection table, or that flow of it alone.
fn forgetting((from, to): (IpAddr, IpAddr), only: Option<&Socket>, flows: Vec<Socket>) -> Call {
    let (from, to) = (from.to_string(), to.to_string());
    let mut args: Vec<String> = ["-D", "-p", "tcp", "-s", &from, "-d", &to].map(str::to_owned).into();
    if let Some(flow) = only {
        let (own, other) = (flow.local.port().to_string(), flow.remote.port().to_string());
        args.extend(["--sport".into(), own, "--dport".into(), other]);
    }
    Call { program: "conntrack", args, flows }
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
        let owner = owner();
        let found = of(dir.path(), &[&owner]);
        assert_eq!(found.len(), 2, "{found:?}");
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        assert_eq!(found[0].1, Socket { local: loopback(22), remote: loopback(8080) });
        assert_eq!(address("0000000000000000FFFF00000100007F:0016"), Some(loopback(22)));
        assert_eq!(address("00000000000000000000000001000000:0016").unwrap().ip(), IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!(address("x"), None);
    }

    fn owner() -> Owner {
        Owner { name: "kct-a".into(), uid: 1007, gid: 1, subordinate: vec![(200_000, 10)] }
    }

    fn flow(from: &str, to: &str) -> Socket {
        Socket { local: from.parse().unwrap(), remote: to.parse().unwrap() }
    }

    fn there(socket: Socket, held: bool, over: bool) -> Row {
        Row { socket, uid: 1007, held, over }
    }

    #[test]
    fn ten_thousand_connections_are_cut_by_few_programs() {
        let flows: BTreeSet<Socket> =
            (0..10_000).map(|n| flow(&format!("192.0.2.1:{}", 20_000 + n), "192.0.2.9:80")).collect();
        let owner = owner();
        let calls = calls(&flows, &[], Some(&owner));
        assert_eq!(calls.len(), 1, "the kernel has none of them any more");
        assert_eq!(calls[0].args.join(" "), "-D -p tcp -s 192.0.2.1 -d 192.0.2.9");
        assert_eq!(calls[0].flows.len(), 10_000);
        let table: Vec<Row> = flows.iter().map(|flow| there(flow.clone(), false, false)).collect();
        let calls = super::calls(&flows, &table, Some(&owner));
        assert_eq!(calls.iter().filter(|call| call.program == "ss").count(), 10_000_usize.div_ceil(PIECE));
        assert_eq!(calls.len(), 10_000_usize.div_ceil(PIECE) + 1);
    }

    #[test]
    fn what_is_cut_is_the_accounts_alone() {
        let (one, two) = (flow("192.0.2.1:20000", "192.0.2.9:80"), flow("[2001:db8::1]:20001", "[2001:db8::9]:443"));
        let (over, inside) = (flow("192.0.2.1:20002", "192.0.2.9:80"), flow("127.0.0.1:5", "127.0.0.1:6"));
        let listens = flow("0.0.0.0:8080", "0.0.0.0:0");
        let flows: BTreeSet<Socket> = [&one, &two, &over, &inside, &listens].map(Clone::clone).into();
        let others = flow("192.0.2.1:20003", "192.0.2.9:22");
        let table = [
            there(one.clone(), false, false),
            there(two.clone(), false, false),
            there(over.clone(), false, true),
            there(others, true, false),
        ];
        let calls = calls(&flows, &table, Some(&owner()));
        let calls: Vec<String> = calls.iter().map(|call| format!("{} {}", call.program, call.args.join(" "))).collect();
        let filter = "( src 192.0.2.1:20000 dst 192.0.2.9:80 ) or ( src [2001:db8::1]:20001 dst [2001:db8::9]:443 )";
        let pair = "conntrack -D -p tcp -s 192.0.2.1 -d 192.0.2.9";
        assert_eq!(
            calls,
            [
                format!("ss -K -n -t {filter}"),
                format!("{pair} --sport 20000 --dport 80"),
                format!("{pair} --sport 20002 --dport 80"),
                "conntrack -D -p tcp -s 2001:db8::1 -d 2001:db8::9".to_owned(),
            ]
        );
    }

    #[test]
    fn what_is_somebody_elses_by_now_is_not_cut() {
        let (one, two) = (flow("192.0.2.1:20000", "192.0.2.9:80"), flow("192.0.2.1:20001", "192.0.2.9:80"));
        let flows: BTreeSet<Socket> = [one.clone(), two.clone()].into();
        let table = [Row { socket: one.clone(), uid: 1008, held: true, over: false }, there(two.clone(), true, false)];
        let own = calls(&flows, &table, Some(&owner()));
        assert!(own.iter().all(|call| call.flows == [two.clone()]), "{own:?}");
        assert_eq!(own.len(), 2);
        assert_eq!(own[1].args.join(" "), "-D -p tcp -s 192.0.2.1 -d 192.0.2.9 --sport 20001 --dport 80");
        assert!(calls(&flows, &table, None).is_empty(), "whose nobody knows is nobody's to cut while it is held");
    }

    #[test]
    fn what_is_left_in_the_connection_table_alone_keeps_no_slot_from_its_end() {
        let (one, two) = (flow("192.0.2.1:20000", "192.0.2.9:80"), flow("192.0.2.1:20001", "192.0.2.8:80"));
        let flows: BTreeSet<Socket> = [one.clone(), two].into();
        let calls = calls(&flows, &[there(one.clone(), false, false)], Some(&owner()));
        assert_eq!(calls.len(), 3);
        assert_eq!(open(calls), [one].into());
    }

    #[tokio::test]
    async fn what_there_was_no_time_for_is_not_cut() {
        let call = |program, args: &[&str], port: u16| Call {
            program,
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            flows: vec![flow(&format!("192.0.2.1:{port}"), "192.0.2.9:80")],
        };
        let mut calls: VecDeque<Call> =
            [call("true", &[], 1), call("false", &[], 2), call("sleep", &["600"], 3), call("true", &[], 4)].into();
        assert!(tokio::time::timeout(Duration::from_secs(2), make(&mut calls)).await.is_err());
        let left: Vec<u16> = calls.iter().flat_map(|call| &call.flows).map(|flow| flow.local.port()).collect();
        assert_eq!(left, [3, 4]);
    }
}
