use std::net::Ipv4Addr;

use reqwest::Method;
use serde_json::json;

use super::{
    Incus,
    objects::{Config, Lease, Network, Pool, PoolResources, Profile, Space},
};
use crate::core::Problem;

impl Incus {
    /// Every storage pool.
    pub async fn pools(&self) -> Result<Vec<Pool>, Problem> {
        self.list("/storage-pools?recursion=1").await
    }

    /// How full a storage pool is.
    pub async fn pool_space(&self, name: &str) -> Result<Space, Problem> {
        self.get::<PoolResources>(&format!("/storage-pools/{name}/resources")).await.map(|found| found.space)
    }

    /// Makes a storage pool.
    pub async fn make_pool(&self, name: &str, driver: &str, config: &Config) -> Result<(), Problem> {
        let body = json!({"name": name, "driver": driver, "config": config});
        self.send(Method::POST, "/storage-pools", &body).await.map(drop)
    }

    /// Every network, those that Incus does not run too.
    pub async fn networks(&self) -> Result<Vec<Network>, Problem> {
        self.list("/networks?recursion=1").await
    }

    /// One network.
    pub async fn network(&self, name: &str) -> Result<Option<Network>, Problem> {
        self.find(&format!("/networks/{name}")).await
    }

    /// The IPv4 addresses that a network has given away, fixed ones and leased ones.
    pub async fn leases(&self, network: &str) -> Result<Vec<Ipv4Addr>, Problem> {
        let list: Vec<Lease> = self.list(&format!("/networks/{network}/leases")).await?;
        Ok(list.into_iter().filter_map(|l| l.address.parse().ok()).collect())
    }

    /// Makes a bridge with these configuration keys.
    pub async fn make_bridge(&self, name: &str, config: &Config) -> Result<(), Problem> {
        let body = json!({"name": name, "type": "bridge", "config": config});
        self.send(Method::POST, "/networks", &body).await.map(drop)
    }

    /// Changes some configuration keys of a network.
    pub async fn patch_network(&self, name: &str, config: &Config) -> Result<(), Problem> {
        self.send(Method::PATCH, &format!("/networks/{name}"), &json!({"config": config})).await.map(drop)
    }

    /// The devices that a user's plain new instance gets.
    pub async fn default_profile(&self) -> Result<Option<Profile>, Problem> {
        self.find("/profiles/default").await
    }
}
