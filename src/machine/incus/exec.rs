use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::Incus;
use crate::core::{Code, Problem};

impl Incus {
    /// Runs a shell script as root in a running instance; returns what it printed.
    ///
    /// Incus keeps the output in a file meanwhile, so no web socket is needed.
    pub async fn exec(
        &self,
        name: &str,
        script: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<String, Problem> {
        let body = json!({
            "command": ["sh", "-c", script],
            "environment": environment,
            "wait-for-websocket": false,
            "interactive": false,
            "record-output": true,
        });
        let done = self.send(Method::POST, &format!("/instances/{name}/exec"), &body).await?;
        let (stdout, stderr) = tokio::try_join!(self.output(name, &done, "1"), self.output(name, &done, "2"))?;
        if done["return"] == 0 {
            return Ok(stdout);
        }
        let what = format!("a command in machine {name} ended with status {}", done["return"]);
        Err(Problem::new(Code::EngineCall, what).detail(stderr.lines().map(str::to_owned)))
    }

    /// Reads a text file in the instance; `None` when there is none.
    ///
    /// The helper behind it lives on for seconds; stopping, restoring and deleting the instance end it first, and took
    /// no longer for it with Incus 6.0.4. A stopped instance's disk would be mounted for it.
    pub async fn file(&self, name: &str, path: &str) -> Result<Option<String>, Problem> {
        self.text(&format!("/instances/{name}/files?path={path}")).await
    }

    /// Reads one recorded stream and removes the record.
    async fn output(&self, name: &str, done: &Value, stream: &str) -> Result<String, Problem> {
        let Some(file) = done["output"][stream].as_str().and_then(|path| path.rsplit('/').next()) else {
            return Ok(String::new());
        };
        let path = format!("/instances/{name}/logs/exec-output/{file}");
        let text = self.text(&path).await?.unwrap_or_default();
        self.delete(&path).await?;
        Ok(text)
    }
}
