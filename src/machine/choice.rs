//! Of what kind new machines are: as the user asked, else virtual machines where they really work.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    engine::{Packages, Place},
    incus::Server,
    kvm::{Kvm, prospects},
    provider::Kind,
};
use crate::core::{Code, Problem, Report};

/// Incus's name of what reading a virtual machine's console came with.
const CONSOLE: &str = "console_force";

/// Of what kind the user wants new machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// Virtual machines where they work, else containers.
    #[default]
    Auto,
    /// Virtual machines or nothing.
    Vm,
    /// System containers; KVM is not even tried.
    Container,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "vm" => Ok(Self::Vm),
            "container" => Ok(Self::Container),
            _ => Err("use auto, vm or container".into()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Vm => "vm",
            Self::Container => "container",
        })
    }
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Of what kind new machines are.
    pub kind: Kind,
    /// One clause for people: why.
    pub why: String,
}

impl Choice {
    /// For new machines in `place`; `memory` is the file that remembers the try of KVM.
    ///
    /// Fails only where virtual machines are asked for and cannot be had.
    pub async fn make(wanted: Wanted, place: &Place, memory: &Path, report: &dyn Report) -> Result<Self, Problem> {
        if wanted == Wanted::Container {
            return Ok(asked_for_containers());
        }
        let kvm = Kvm::here(memory, report).await;
        Self::from(wanted, kvm, &place.incus.server().await?)
    }

    /// What a computer without a running engine would get.
    pub async fn foreseen(wanted: Wanted, memory: &Path, report: &dyn Report) -> Self {
        if wanted == Wanted::Container {
            return asked_for_containers();
        }
        let kvm = Kvm::here(memory, report).await;
        Self { kind: if kvm.works { Kind::Vm } else { Kind::Container }, why: kvm.why }
    }

    fn from(wanted: Wanted, kvm: Kvm, server: &Server) -> Result<Self, Problem> {
        let why_not = if kvm.works { incus_lacks(server) } else { Some(kvm.why.clone()) };
        match (why_not, wanted) {
            (None, _) => Ok(Self { kind: Kind::Vm, why: kvm.why }),
            (Some(why), Wanted::Vm) => Err(refusal(why)),
            (Some(why), _) => Ok(Self { kind: Kind::Container, why }),
        }
    }

    /// The packages that this computer needs for such machines.
    ///
    /// Those for virtual machines are among them only where nothing speaks against KVM yet. A system without such packages
    /// is refused here, before anything is done, and so are virtual machines that cannot be had.
    pub fn packages(wanted: Wanted) -> Result<Packages, Problem> {
        let packages = Packages::here();
        packages.check_system()?;
        match (wanted, prospects()) {
            (Wanted::Container, _) => Ok(packages),
            (_, Ok(())) => Ok(packages.and(Packages::for_vms())),
            (Wanted::Auto, Err(_)) => Ok(packages),
            (Wanted::Vm, Err(why)) => Err(refusal(why)),
        }
    }
}

fn asked_for_containers() -> Choice {
    Choice { kind: Kind::Container, why: "as asked for".to_owned() }
}

fn refusal(why: String) -> Problem {
    Problem::new(Code::MachineKind, "virtual machines were asked for and cannot be made on this computer").detail([why])
}

/// Why this Incus makes no virtual machines.
fn incus_lacks(server: &Server) -> Option<String> {
    let (version, drivers) = (&server.environment.server_version, &server.environment.driver);
    if !drivers.split('|').any(|d| d.trim() == "qemu") {
        return Some(format!(
            "KVM works, but Incus {version} was started without its qemu driver (drivers: {drivers}); start it anew once \
             the packages are there: kubecamp machine engine stop"
        ));
    }
    let console = server.api_extensions.iter().any(|e| e == CONSOLE);
    (!console).then(|| {
        format!(
            "KVM works, but Incus {version} does not show a virtual machine's console; 6.0.3 of the LTS or 6.7 does"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(driver: &str, extensions: &[&str]) -> Server {
        let json = serde_json::json!({"auth": "trusted", "api_extensions": extensions,
            "environment": {"server_version": "6.0.4", "driver": driver}});
        serde_json::from_value(json).unwrap()
    }

    fn kvm(works: bool) -> Kvm {
        Kvm { works, why: if works { "a kernel booted".into() } else { "it hung the kernel".into() } }
    }

    #[test]
    fn virtual_machines_are_made_where_all_of_it_works() {
        let whole = server("lxc | qemu", &["projects", CONSOLE]);
        for wanted in [Wanted::Auto, Wanted::Vm] {
            let choice = Choice::from(wanted, kvm(true), &whole).unwrap();
            assert_eq!((choice.kind, choice.why.as_str()), (Kind::Vm, "a kernel booted"));
        }
    }

    #[test]
    fn otherwise_auto_makes_containers_and_says_why_and_vm_is_refused_with_the_same_words() {
        for (kvm, server, words) in [
            (kvm(false), server("lxc | qemu", &[CONSOLE]), "it hung the kernel"),
            (kvm(true), server("lxc", &[CONSOLE]), "without its qemu driver (drivers: lxc)"),
            (kvm(true), server("lxc | qemu", &[]), "Incus 6.0.4 does not show a virtual machine's console"),
        ] {
            let choice = Choice::from(Wanted::Auto, kvm.clone(), &server).unwrap();
            assert_eq!(choice.kind, Kind::Container);
            assert!(choice.why.contains(words), "{}", choice.why);
            let problem = Choice::from(Wanted::Vm, kvm, &server).unwrap_err();
            assert_eq!(problem.code, Code::MachineKind);
            assert!(problem.detail[0].contains(words), "{:?}", problem.detail);
        }
    }

    #[test]
    fn containers_that_are_asked_for_need_no_qemu() {
        let names = format!("{:?}", Choice::packages(Wanted::Container).unwrap());
        assert!(!names.contains("qemu") && names.contains("mmdebstrap"), "{names}");
        for wanted in [Wanted::Auto, Wanted::Vm, Wanted::Container] {
            assert_eq!(wanted.to_string().parse(), Ok(wanted));
        }
    }
}
