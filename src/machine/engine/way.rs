//! The way from this computer to the private engine's machines, off unless asked for: whoever is to go it also needs a
//! rule that leads into its routing table.

use std::process::Stdio;

use tokio::process::Command;

use super::{
    private::Engine,
    subnet::{self, Route},
};
use crate::core::{Code, Problem};

const SCRIPT: &str = include_str!("../../../templates/machine/way.sh");
/// The first of the routing tables that ways have, one for each engine of a computer.
const FIRST_TABLE: u32 = 1_000_000;

impl Engine {
    /// Opens a way to the machines of the running engine in `network`, until the engine stops; gives the routing table that
    /// has it.
    ///
    /// Machines open no connection to this computer by it.
    pub async fn open_way(&self, network: &str) -> Result<u32, Problem> {
        subnet::is_apart(network, &Route::here())?;
        let (device, table) = way_of(&self.netns_name());
        let mut command = Command::new("sh");
        command.arg("-c").arg(SCRIPT).arg("way").arg(self.netns_name()).arg(device).arg(table.to_string()).arg(network);
        let out = command.stdin(Stdio::null()).output().await;
        let out = out.map_err(|e| Problem::new(Code::EngineStart, "sh could not be run").because(e))?;
        if out.status.success() {
            return Ok(table);
        }
        let words = String::from_utf8_lossy(&out.stderr).lines().map(str::to_owned).collect::<Vec<_>>();
        Err(Problem::new(Code::EngineStart, "there is no way to the machines")
            .detail(words)
            .hint("It needs the programs ip and nft: apt-get install -y iproute2 nftables."))
    }
}

/// Device and table of an engine, by its namespace's name, whose last part is random enough for both.
fn way_of(netns: &str) -> (String, u32) {
    let digest = netns.rsplit('-').next().unwrap_or_default();
    let number = digest.get(..4).and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or(0);
    (format!("kcw{digest}"), FIRST_TABLE + number)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_engine_has_a_way_of_its_own() {
        assert_eq!(way_of("kubecamp-00ff1234"), ("kcw00ff1234".to_owned(), FIRST_TABLE + 255));
        let name = |dir: &str| way_of(&Engine::new(Path::new(dir)).netns_name());
        let (a, b) = (name("/no/such/a"), name("/no/such/b"));
        assert!(a != b && a.0.len() <= 15, "{a:?} {b:?}");
    }
}
