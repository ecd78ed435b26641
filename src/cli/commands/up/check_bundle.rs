use std::{path::Path, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{Request, this_arch};
use crate::{
    bundle::{Bundle, Cache},
    cli::{commands::Context, output},
    core::{Arch, Code, Problem, Quiet},
};

/// How long a bundle is read before that is told.
const SILENT: Duration = Duration::from_secs(2);

impl Request {
    /// A file of another kind, version or CPU is refused before anything else happens.
    ///
    /// Whether it is for the CPU of hosts is for preflight to see: they need not have this computer's. Returns which it is
    /// for.
    pub(super) fn check_bundle(&self) -> Result<Option<Arch>, Problem> {
        let Some(file) = &self.args.bundle else { return Ok(None) };
        let bundle = Bundle::open(file).map_err(|problem| self.with_way_out(problem))?;
        let its = bundle.manifest().arch;
        bundle.check_fits(&self.lab.profile().kubernetes, if self.is_local() { this_arch()? } else { its })?;
        Ok(Some(its))
    }

    /// Compares every digest of a bundle that the user or the lab names, before anything is installed, written or asked of
    /// a host.
    ///
    /// What was found whole is remembered, so that neither the phase nor the next run reads it again.
    ///
    /// # Errors
    /// `KC-BUNDLE-BROKEN`.
    pub(in crate::cli::commands) async fn verify_bundle(&self, cx: &Context) -> Result<(), Problem> {
        let Some(file) = &self.args.bundle else { return Ok(()) };
        read_through(file, &Cache::new(&cx.places.cache)).await.map_err(|problem| self.with_way_out(problem))
    }

    /// The problem of a bundle's file, with what to do where nobody named it now.
    fn with_way_out(&self, problem: Problem) -> Problem {
        match self.remembered {
            // A reset does not forget it: another one would not be the same lab.
            true => problem.hint(format!(
                "The lab {0} was made from it. Name another with --bundle, or forget the lab: kubecamp down --name {0}.",
                self.lab.name()
            )),
            false => problem,
        }
    }
}

async fn read_through(file: &Path, cache: &Cache) -> Result<(), Problem> {
    let (path, memory) = (file.to_owned(), cache.verified());
    // Aside, so that Ctrl-C is heard meanwhile.
    let mut reading = spawn_blocking(move || Bundle::open(&path)?.verify_once(&memory, &Quiet));
    let ended = match timeout(SILENT, &mut reading).await {
        Ok(ended) => ended,
        Err(_) => {
            output::say(&format!("Comparing every digest of {}: once for each bundle.", file.display()));
            reading.await
        }
    };
    ended.map_err(|e| Problem::new(Code::Internal, "verifying ended badly").because(e))?
}
