use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{
    Incus,
    objects::{Instance, InstanceState, NewInstance, Snapshot},
};
use crate::core::Problem;

/// How long an instance may be busy with something else, and how long between two tries.
const BUSY_LIMIT: Duration = Duration::from_secs(120);
const BUSY_PAUSE: Duration = Duration::from_millis(200);

impl Incus {
    /// Every instance with its state.
    pub async fn instances(&self) -> Result<Vec<Instance>, Problem> {
        self.list("/instances?recursion=2").await
    }

    /// Every instance without its state, which is quicker.
    pub async fn instances_plain(&self) -> Result<Vec<Instance>, Problem> {
        self.list("/instances?recursion=1").await
    }

    /// One instance, without its state.
    pub async fn instance(&self, name: &str) -> Result<Option<Instance>, Problem> {
        self.find(&format!("/instances/{name}")).await
    }

    /// What runs in an instance.
    pub async fn state(&self, name: &str) -> Result<InstanceState, Problem> {
        self.get(&format!("/instances/{name}/state")).await
    }

    /// What a running virtual machine wrote to its console since its start, escapes and all.
    pub async fn console(&self, name: &str) -> Result<String, Problem> {
        self.text(&format!("/instances/{name}/console")).await.map(Option::unwrap_or_default)
    }

    /// Makes an instance; it is stopped.
    pub async fn create(&self, new: &NewInstance) -> Result<(), Problem> {
        self.send(Method::POST, "/instances", new).await.map(drop)
    }

    /// Changes some configuration keys or devices, given as Incus's `PATCH` wants them.
    pub async fn patch(&self, name: &str, change: &serde_json::Value) -> Result<(), Problem> {
        self.send(Method::PATCH, &format!("/instances/{name}"), change).await.map(drop)
    }

    /// Starts a stopped instance.
    pub async fn start(&self, name: &str) -> Result<(), Problem> {
        let (path, body) = (format!("/instances/{name}/state"), json!({"action": "start", "timeout": -1}));
        match when_free(|| self.send(Method::PUT, &path, &body)).await {
            // By what was waited for.
            Err(problem) if says(&problem, "already running") => Ok(()),
            done => done.map(drop),
        }
    }

    /// Stops an instance at once, or with a time to end by itself before that, in whole seconds.
    pub async fn stop(&self, name: &str, grace: Option<Duration>) -> Result<(), Problem> {
        let path = format!("/instances/{name}/state");
        if let Some(grace) = grace {
            let body = json!({"action": "stop", "timeout": grace.as_secs(), "force": false});
            if when_free(|| self.send(Method::PUT, &path, &body)).await.is_ok() {
                return Ok(());
            }
        }
        let body = json!({"action": "stop", "timeout": -1, "force": true});
        match when_free(|| self.send(Method::PUT, &path, &body)).await {
            // While it was waited for.
            Err(problem) if says(&problem, "already stopped") => Ok(()),
            done => done.map(drop),
        }
    }

    /// Deletes a stopped instance; returns whether there was one.
    pub async fn delete_instance(&self, name: &str) -> Result<bool, Problem> {
        let path = format!("/instances/{name}");
        when_free(|| self.delete(&path)).await
    }

    /// Gives a stopped instance another name.
    pub async fn rename(&self, name: &str, to: &str) -> Result<(), Problem> {
        self.send(Method::POST, &format!("/instances/{name}"), &json!({"name": to})).await.map(drop)
    }

    /// Takes a snapshot of the disk; one of that name is replaced only once the new one is there.
    pub async fn snapshot(&self, name: &str, snapshot: &str) -> Result<(), Problem> {
        let all = format!("/instances/{name}/snapshots");
        let fresh = format!("{snapshot}-new");
        self.delete(&format!("{all}/{fresh}")).await?;
        self.send(Method::POST, &all, &json!({"name": fresh, "stateful": false})).await?;
        self.delete(&format!("{all}/{snapshot}")).await?;
        self.send(Method::POST, &format!("{all}/{fresh}"), &json!({"name": snapshot})).await.map(drop)
    }

    /// The names of an instance's snapshots, oldest first.
    pub async fn snapshots(&self, name: &str) -> Result<Vec<String>, Problem> {
        let list: Vec<Snapshot> = self.list(&format!("/instances/{name}/snapshots?recursion=1")).await?;
        Ok(list.into_iter().map(|s| s.name).collect())
    }

    /// Puts a stopped instance's disk back to a snapshot.
    pub async fn restore(&self, name: &str, snapshot: &str) -> Result<(), Problem> {
        let body = json!({"restore": snapshot, "stateful": false});
        self.send(Method::PUT, &format!("/instances/{name}"), &body).await.map(drop)
    }
}

/// Waits while Incus is busy with an instance: it goes on with what a run asked for that was killed meanwhile.
async fn when_free<T, F>(run: impl Fn() -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<T, Problem>>,
{
    let end = Instant::now() + BUSY_LIMIT;
    loop {
        match run().await {
            Err(problem) if says(&problem, "busy running") && Instant::now() < end => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            done => return done,
        }
    }
}

fn says(problem: &Problem, words: &str) -> bool {
    problem.detail.iter().any(|line| line.contains(words))
}
