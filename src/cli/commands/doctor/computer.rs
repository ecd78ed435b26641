use std::path::Path;

use super::report::{Finding, Level};
use crate::{
    bundle::{Asked, BuildRequest, Cache, DEFAULT_KUBERNETES, Source, check_go, missing_tools, silent_sites},
    cli::{
        commands::{
            Context,
            machine::new_machines,
            up::{largest_layout, this_arch},
        },
        settings::{Config, can_write},
    },
    core::{Code, Problem, Quiet},
    machine::{Capacity, Choice, Engine, Wanted, running_places},
};

/// What machines on this computer, and bundles built on it, need.
///
/// Where it lacks, hosts over SSH may still do, so most of it is a warning.
pub(super) async fn findings(cx: &Context) -> Vec<Finding> {
    let places = cx.local_places();
    let free = Capacity::here(&places.engine);
    let room = format!("{} cores, {} of memory free, {} of disk free", free.cores, free.memory, free.disk);
    let size = largest_layout(false).map(|layout| format!("{room}: holds machines of {layout}"));
    let mut found = vec![
        Finding::look(Level::Warning, "size", size.map_err(|p| p.detail([room]))),
        Finding::look(Level::Warning, "packages", packages().await),
        Finding::look(Level::Warning, "kvm", new_machines(cx, &Quiet).await),
        Finding::look(Level::Warning, "namespaces", namespaces()),
        Finding::look(Level::Warning, "engine", engine(cx).await),
    ];
    for (name, folder) in [("labs", &cx.places.labs), ("cache", &cx.places.cache), ("machines", &cx.places.engine)] {
        found.push(Finding::look(Level::Problem, name, writable(folder)));
    }
    found.extend(bundle(cx).await);
    found
}

async fn packages() -> Result<String, Problem> {
    let missing = Choice::packages(Wanted::Auto)?.missing().await;
    if missing.is_empty() {
        return Ok("those of local machines are installed".to_owned());
    }
    Err(Problem::new(Code::LocalTools, format!("local machines need packages: {}", missing.join(" ")))
        .hint("kubecamp up --local --yes installs them."))
}

fn namespaces() -> Result<String, Problem> {
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    match limit.trim().parse::<u64>() {
        Ok(n) if n > 0 => Ok(format!("the kernel allows {n} user namespaces")),
        _ => Err(Problem::new(Code::HostKernel, "the kernel allows no user namespaces")
            .hint("Allow them: sysctl -w user.max_user_namespaces=10000.")),
    }
}

async fn engine(cx: &Context) -> Result<String, Problem> {
    let places = cx.local_places();
    if let Some(place) = running_places(&places).await?.first() {
        return Ok(format!("machines are made by {}", place.title));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Problem::new(Code::LocalRoot, "no Incus runs for this user, and the private engine needs root"));
    }
    let status = Engine::new(&places.engine).status().await;
    if status.traces.is_empty() {
        return Ok("the private engine does not run; up --local starts it".to_owned());
    }
    Err(Problem::new(Code::EngineStart, "the private engine does not answer, yet something of it runs")
        .detail(status.traces)
        .hint("kubecamp machine engine stop clears it."))
}

/// Whether the folder can be written, or made where it is not there yet; nothing is made here.
fn writable(folder: &Path) -> Result<String, Problem> {
    can_write(folder)?;
    Ok(format!("{}, {} free", folder.display(), Capacity::here(folder).disk))
}

/// Where a bundle would come from; a problem only where there is none and no way to get one.
async fn bundle(cx: &Context) -> Vec<Finding> {
    let looked = async {
        let arch = this_arch()?;
        let cache = Cache::new(&cx.places.cache);
        let file = cache.bundle(DEFAULT_KUBERNETES, arch);
        let request = BuildRequest {
            kubernetes: DEFAULT_KUBERNETES.to_owned(),
            arch,
            source: Source::Auto,
            replace: vec![],
            out: None,
            mirrors: Config::load(&cx.places)?.mirrors,
            cache,
            asked: Asked::default(),
        };
        Ok((arch, file, silent_sites(&request).await?))
    };
    let (arch, file, silent) = match looked.await {
        Ok(looked) => looked,
        Err(problem) => return vec![Finding::of(Level::Problem, "bundle", &problem)],
    };
    let there = file.exists();
    let answers = silent.is_none();
    let sites =
        match silent {
            None => Ok("release sites and registries answer".to_owned()),
            Some(told) => Err(Problem::new(Code::Download, told)
                .hint("Set mirrors in config.yaml, or build bundles from Go modules.")),
        };
    let tools = || {
        let missing = missing_tools(arch);
        if missing.is_empty() {
            return Ok("Go and the C tools for bundles from Go modules are there".to_owned());
        }
        Err(Problem::new(Code::BundleTools, format!("bundles from Go modules need packages: {}", missing.join(" ")))
            .hint(format!("apt-get install -y {}", missing.join(" "))))
    };
    let toolchain = check_go(arch);
    // Packages that lack are installed by up; without Go and without a site there is no way.
    let hopeless = !there && !answers && toolchain.is_err();
    let go = toolchain.and_then(|()| tools());
    let level = if hopeless { Level::Problem } else { Level::Warning };
    let cached = match there {
        true => format!("{} is at hand", file.display()),
        false => format!("none of {DEFAULT_KUBERNETES} yet; up or kubecamp bundle build makes it"),
    };
    vec![Finding::ok("bundle", cached), Finding::look(level, "upstream", sites), Finding::look(level, "go", go)]
}
