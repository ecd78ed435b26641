use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Engine;
use crate::{
    core::{Bytes, Code, Problem},
    machine::incus::Incus,
};

/// Which engine a lab's machines are in: they stay there, whatever other engines come up later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineAt {
    /// An Incus of the user's, by its socket.
    Incus(PathBuf),
    /// kubecamp's private engine in this folder.
    Private(PathBuf),
}

impl EngineAt {
    /// The engine when it runs and lets this user in; nothing is started.
    pub async fn running(&self) -> Result<Option<Place>, Problem> {
        match self {
            Self::Incus(socket) => Ok(incus_at(socket).await.ok()),
            Self::Private(dir) => Engine::new(dir).running().await,
        }
    }

    /// The problem that it does not run.
    ///
    /// Whose lab it is knows what starts the private engine together with its machines.
    pub fn absent(&self) -> Problem {
        match self {
            Self::Incus(socket) => {
                let at = socket.display();
                Problem::new(
                    Code::EngineStart,
                    format!("the Incus at {at} has the lab's machines, and does not answer"),
                )
                .hint("Start it and see that it trusts this user (group incus-admin).")
            }
            Self::Private(dir) => {
                let what = format!("the engine of the lab's machines in {} does not run", dir.display());
                Problem::new(Code::EngineStart, what)
            }
        }
    }
}

/// How a machine is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nic {
    /// Into a bridge that Incus runs: addresses are chosen here and set without DHCP.
    Managed {
        /// The bridge's name in Incus.
        network: String,
        /// The bridge's own address: gateway and name server.
        gateway: Ipv4Addr,
        /// Length of the network's prefix.
        prefix: u8,
    },
    /// As the user's default profile says; the address comes from whoever serves DHCP there.
    Other(BTreeMap<String, String>),
}

/// An Incus that can make machines, and where in it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its API.
    pub incus: Incus,
    /// The storage pool for disks.
    pub pool: String,
    /// The network.
    pub nic: Nic,
    /// The network namespace that the machines' addresses live in; `None` is the computer's own.
    pub netns: Option<PathBuf>,
    /// One phrase for people, as `your Incus 6.0.4`.
    pub title: String,
}

impl Place {
    /// How it is found again.
    pub fn at(&self) -> EngineAt {
        let socket = self.incus.socket();
        match (&self.netns, socket.ancestors().nth(2)) {
            (Some(_), Some(dir)) => EngineAt::Private(dir.to_owned()),
            _ => EngineAt::Incus(socket.to_owned()),
        }
    }

    /// The bridge that the machines are plugged into, and its networks, as `10.115.0.0/24`; none where it is not the
    /// engine's own.
    pub async fn bridge(&self) -> Result<Option<(String, Vec<String>)>, Problem> {
        let Nic::Managed { network, .. } = &self.nic else { return Ok(None) };
        let config = self.incus.network(network).await?.map(|n| n.config).unwrap_or_default();
        let addresses = ["ipv4.address", "ipv6.address"].into_iter().filter_map(|key| config.get(key));
        Ok(Some((network.clone(), addresses.filter_map(|address| network_of(address)).collect())))
    }

    /// How much of the disk that all machines here share is free, and how much there is.
    pub async fn space(&self) -> Result<(Bytes, Bytes), Problem> {
        let space = self.incus.pool_space(&self.pool).await?;
        Ok((Bytes(space.total.saturating_sub(space.used)), Bytes(space.total)))
    }
}

/// `10.1.2.1/24` is in `10.1.2.0/24`.
fn network_of(address: &str) -> Option<String> {
    let (ip, length) = address.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let network = match ip.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(length)?).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(length)?).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    };
    Some(format!("{network}/{length}"))
}

/// Where the user's own Incus listens, in the order that its own client looks.
fn sockets() -> Vec<PathBuf> {
    let mut found = vec![];
    found.extend(env::var_os("INCUS_SOCKET").map(PathBuf::from));
    found.extend(env::var_os("INCUS_DIR").map(|dir| Path::new(&dir).join("unix.socket")));
    for dir in ["/run/incus", "/var/lib/incus"] {
        found.push(Path::new(dir).join("unix.socket"));
    }
    found
}

/// Refuses an environment that names a private engine as the user's Incus: its machines would lose their network
/// namespace, and stopping the engine would end what the user takes for their own.
///
/// # Errors
/// `KC-USAGE`, naming the variable.
pub fn check_environment(engine: &Path) -> Result<(), Problem> {
    for name in ["INCUS_SOCKET", "INCUS_DIR"] {
        if let Some(value) = env::var_os(name).filter(|v| !v.is_empty()) {
            check_variable(name, Path::new(&value), engine)?;
        }
    }
    Ok(())
}

fn check_variable(name: &str, value: &Path, engine: &Path) -> Result<(), Problem> {
    let whole =
        |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.into());
    let (at, engine) = (whole(value), whole(engine));
    // An engine below another KUBECAMP_HOME is as little the user's own.
    let is_engine = |dir: &Path| dir == engine || (dir.join("incus").is_dir() && dir.join("daemon.log").exists());
    let Some(dir) = at.ancestors().find(|dir| is_engine(dir)) else { return Ok(()) };
    let what = format!("{name} names kubecamp's private engine in {}, which is no Incus of yours", dir.display());
    Err(Problem::new(Code::Usage, what)
        .detail([format!("{name}={}", value.display())])
        .hint(format!("Run it without {name}: kubecamp finds its own engine by itself.")))
}

/// The user's running Incus, when it trusts this user and has a pool and a network; else why not.
pub async fn users_incus() -> Result<Place, String> {
    match sockets().into_iter().find(|s| s.exists()) {
        Some(socket) => incus_at(&socket).await,
        None => Err("no Incus runs for this user".to_owned()),
    }
}

/// The Incus of a user that listens here; else why it is of no use.
async fn incus_at(socket: &Path) -> Result<Place, String> {
    let at = socket.display().to_string();
    let incus = Incus::new(socket).map_err(|p| p.what)?;
    let server = incus.server().await.map_err(|_| format!("the Incus at {at} does not answer this user"))?;
    if server.auth != "trusted" {
        return Err(format!("the Incus at {at} does not trust this user (group incus-admin)"));
    }
    let title = format!("your Incus {}", server.environment.server_version);
    match plug(&incus).await {
        Ok(Some((pool, nic))) => Ok(Place { incus, pool, nic, netns: None, title }),
        Ok(None) => Err(format!("the Incus at {at} was never set up (incus admin init): no storage pool or network")),
        Err(problem) => Err(problem.to_string()),
    }
}

/// The pool and network that the user's plain new instances get.
async fn plug(incus: &Incus) -> Result<Option<(String, Nic)>, Problem> {
    let devices = incus.default_profile().await?.map(|p| p.devices).unwrap_or_default();
    let root = devices.values().find(|d| d.get("path").is_some_and(|p| p == "/"));
    let pool = match root.and_then(|d| d.get("pool")) {
        Some(pool) => Some(pool.clone()),
        None => incus.pools().await?.into_iter().next().map(|p| p.name),
    };
    let nic = match devices.values().find(|d| d.get("type").is_some_and(|t| t == "nic")) {
        Some(device) => Some(nic_of(incus, device).await?),
        None => {
            let bridges = incus.networks().await?.into_iter().filter(|n| n.managed && n.kind == "bridge");
            bridges.filter_map(|n| managed(&n.name, &n.config)).next()
        }
    };
    Ok(pool.zip(nic))
}

async fn nic_of(incus: &Incus, device: &BTreeMap<String, String>) -> Result<Nic, Problem> {
    if let Some(name) = device.get("network")
        && let Some(network) = incus.network(name).await?
        && network.kind == "bridge"
        && let Some(nic) = managed(name, &network.config)
    {
        return Ok(nic);
    }
    let mut device = device.clone();
    device.insert("name".into(), "eth0".into());
    Ok(Nic::Other(device))
}

/// A bridge of Incus with an IPv4 address of its own.
pub(super) fn managed(name: &str, config: &BTreeMap<String, String>) -> Option<Nic> {
    let (gateway, prefix) = config.get("ipv4.address")?.split_once('/')?;
    Some(Nic::Managed { network: name.to_owned(), gateway: gateway.parse().ok()?, prefix: prefix.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_engine_is_no_incus_of_the_users() {
        let home = tempfile::tempdir().unwrap();
        let (engine, other, own) = (home.path().join("engine"), home.path().join("other"), home.path().join("own"));
        for dir in [&other, &own] {
            std::fs::create_dir_all(dir.join("incus")).unwrap();
        }
        std::fs::write(other.join("daemon.log"), "").unwrap();
        std::os::unix::fs::symlink(&other, home.path().join("link")).unwrap();
        for ours in [engine.join("incus/unix.socket"), other.join("incus"), home.path().join("link/incus")] {
            let problem = check_variable("INCUS_DIR", &ours, &engine).unwrap_err();
            assert!(problem.code == Code::Usage && problem.what.contains("INCUS_DIR"), "{problem}");
        }
        assert!(check_variable("INCUS_DIR", &own.join("incus"), &engine).is_ok());
        assert!(check_variable("INCUS_DIR", Path::new("/var/lib/incus"), &engine).is_ok());
    }

    #[test]
    fn an_engine_is_found_again_by_its_place() {
        let (dir, nic) = (Path::new("/data/engine"), Nic::Other(BTreeMap::new()));
        let place = |socket: &Path, netns: Option<&str>| Place {
            incus: Incus::new(socket).unwrap(),
            pool: "pool".into(),
            nic: nic.clone(),
            netns: netns.map(PathBuf::from),
            title: String::new(),
        };
        assert_eq!(place(&dir.join("incus/unix.socket"), Some("/run/netns/x")).at(), Engine::new(dir).at());
        let users = PathBuf::from("/run/incus/unix.socket");
        assert_eq!(place(&users, None).at(), EngineAt::Incus(users));
    }

    #[test]
    fn an_address_is_in_its_network() {
        let cases = [
            ("10.115.0.1/24", Some("10.115.0.0/24")),
            ("10.1.2.77/30", Some("10.1.2.76/30")),
            ("fd42:1:2:3::1/64", Some("fd42:1:2:3::/64")),
            ("10.0.0.1/0", Some("0.0.0.0/0")),
            ("10.0.0.1/33", None),
            ("none", None),
        ];
        for (address, network) in cases {
            assert_eq!(network_of(address).as_deref(), network, "{address}");
        }
    }

    #[test]
    fn a_bridge_without_address_is_not_ours_to_number() {
        let with = |value: &str| [("ipv4.address".to_owned(), value.to_owned())].into();
        let expected = Nic::Managed { network: "br0".into(), gateway: Ipv4Addr::new(10, 1, 2, 1), prefix: 24 };
        assert_eq!(managed("br0", &with("10.1.2.1/24")), Some(expected));
        assert_eq!(managed("br0", &with("none")), None);
        assert_eq!(managed("br0", &BTreeMap::new()), None);
    }
}
