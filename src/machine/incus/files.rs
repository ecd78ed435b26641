use reqwest::Method;
use serde::Deserialize;

use super::Incus;
use crate::core::{Code, Problem};

/// Directory listing out of the files endpoint.
#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    metadata: Vec<String>,
}

impl Incus {
    /// Writes a file of root into an instance, running or not; its folder must exist.
    pub async fn push(&self, name: &str, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Result<(), Problem> {
        let request = self
            .request(Method::POST, &files(name, path))
            .header("X-Incus-type", "file")
            .header("X-Incus-write", "overwrite")
            .header("X-Incus-uid", "0")
            .header("X-Incus-gid", "0")
            .header("X-Incus-mode", format!("{mode:04o}"))
            .body(content.into());
        self.finish(&Method::POST, &files(name, path), request).await.map(drop)
    }

    /// Reads a file of an instance; `None` when there is none.
    pub async fn pull(&self, name: &str, path: &str) -> Result<Option<Vec<u8>>, Problem> {
        let at = files(name, path);
        let Some(response) = self.raw(&at, self.request(Method::GET, &at)).await? else { return Ok(None) };
        let bytes = response.bytes().await;
        bytes.map(|b| Some(b.to_vec())).map_err(|e| {
            Problem::new(Code::EngineCall, format!("{path} of {name} could not be read")).because(e.without_url())
        })
    }

    /// The names in a folder of an instance; empty when there is no such folder.
    pub async fn folder(&self, name: &str, path: &str) -> Result<Vec<String>, Problem> {
        let Some(bytes) = self.pull(name, path).await? else { return Ok(vec![]) };
        let listing: Result<Listing, _> = serde_json::from_slice(&bytes);
        listing
            .map(|l| l.metadata)
            .map_err(|e| Problem::new(Code::EngineCall, format!("{path} of {name} could not be listed")).because(e))
    }

    /// Deletes a file of an instance; no error when there is none.
    pub async fn delete_file(&self, name: &str, path: &str) -> Result<(), Problem> {
        self.delete(&files(name, path)).await.map(drop)
    }
}

fn files(name: &str, path: &str) -> String {
    format!("/instances/{name}/files?path={path}")
}
