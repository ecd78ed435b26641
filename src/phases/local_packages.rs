use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    core::{PhaseId, Problem, Report},
    engine::{Change, Check, Phase, Step, Task, View},
    machine::Packages,
};

/// Installs what this computer needs to make machines and bundles; the user agreed to the list before.
pub struct LocalPackages(pub Packages);

#[async_trait]
impl Phase for LocalPackages {
    fn id(&self) -> PhaseId {
        PhaseId::new("local-packages")
    }

    fn title(&self) -> &'static str {
        "install packages on this computer"
    }

    /// A dpkg that is cut off leaves a computer on which apt does nothing any more.
    fn to_its_end(&self) -> bool {
        true
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        let missing = self.0.missing().await;
        let title = if missing.is_empty() {
            "no package is missing".to_owned()
        } else {
            format!("install {}", missing.join(" "))
        };
        let install = Change::Task(Arc::new(Install(self.0.clone())));
        Ok(vec![Step::new("install", title, Check::Never, install)])
    }
}

struct Install(Packages);

#[async_trait]
impl Task for Install {
    async fn done(&self) -> Result<bool, Problem> {
        Ok(self.0.missing().await.is_empty())
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        self.0.install(report).await
    }
}
