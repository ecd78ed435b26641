use serde::Serialize;

use crate::{
    cli::{
        args::ProfileCommand,
        output::{self, Format},
    },
    core::{Code, Problem, Problems},
    profile::{self, Cni, Profile, ProxyMode},
    render::{count, table},
};

/// One shipped profile.
#[derive(Serialize)]
struct Line {
    name: String,
    nodes: Vec<String>,
    kubernetes: String,
    cni: Cni,
    proxy_mode: ProxyMode,
    pod_cidr: String,
    service_cidr: String,
}

/// A profile whose file was checked.
#[derive(Serialize)]
struct Good {
    file: String,
    nodes: Vec<String>,
    kubernetes: String,
}

/// `kubecamp profile`.
pub(super) fn profile(command: ProfileCommand) -> Result<(), Problems> {
    match command {
        ProfileCommand::List { output } => {
            let all = profile::shipped().iter().map(|name| line(name)).collect::<Result<Vec<_>, _>>()?;
            output::value(output, &all, |wide| listing(&all, wide))?;
        }
        ProfileCommand::Show { profile: name } => {
            let text = profile::shipped_text(&name)
                .ok_or_else(|| Problem::new(Code::ProfileUnknown, format!("no shipped profile is called {name}")))?;
            output::data(&text);
        }
        ProfileCommand::Check { file, output } => {
            let profile = profile::load(&file)?;
            let good = Good { file, nodes: names(&profile), kubernetes: profile.kubernetes };
            let nodes = count(good.nodes.len() as u64, "node");
            output::value(output, &good, |_| {
                format!("{}: {nodes}, Kubernetes {}, good\n", good.file, good.kubernetes)
            })?;
        }
        ProfileCommand::Schema => output::value(Format::Json, &profile::schema(), |_| String::new())?,
    }
    Ok(())
}

fn names(profile: &Profile) -> Vec<String> {
    profile.nodes.iter().map(|n| n.name.to_string()).collect()
}

fn line(name: &str) -> Result<Line, Problems> {
    let profile = profile::load(name)?;
    Ok(Line {
        name: name.to_owned(),
        nodes: names(&profile),
        kubernetes: profile.kubernetes,
        cni: profile.network.cni,
        proxy_mode: profile.proxy.mode,
        pod_cidr: profile.network.pods.to_string(),
        service_cidr: profile.network.services.to_string(),
    })
}

fn listing(all: &[Line], wide: bool) -> String {
    let mut rows = vec![output::columns(
        wide,
        ["PROFILE", "KUBERNETES", "CNI", "PROXY"],
        ["NODES", "POD NETWORK", "SERVICE NETWORK"],
    )];
    rows.extend(all.iter().map(|l| {
        let (cni, mode) = (l.cni.to_string(), l.proxy_mode.to_string());
        let nodes = l.nodes.join(",");
        output::columns(wide, [&l.name, &l.kubernetes, &cni, &mode], [&nodes, &l.pod_cidr, &l.service_cidr])
    }));
    table(&rows)
}
