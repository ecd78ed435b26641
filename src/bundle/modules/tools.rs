use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::core::{Arch, Code, Problem};

/// The oldest Go that can fetch the one which a module asks for.
const OLDEST_GO: (u32, u32) = (1, 21);

/// The Debian packages that building from Go modules for `arch` still needs here; Go itself is not among them.
pub fn missing_tools(arch: Arch) -> Vec<String> {
    let foreign = native() != Some(arch);
    let suffix = if foreign { format!(":{arch}") } else { String::new() };
    let cc = compiler(arch);
    let mut missing = vec![];
    if answer(Command::new(&cc).arg("--version")).is_none() {
        missing.push(if foreign { format!("gcc-{}-linux-gnu", gnu(arch)) } else { "gcc".to_owned() });
    }
    if !has_library(&cc, "libc.a") {
        missing.push(if foreign { format!("libc6-dev-{arch}-cross") } else { "libc6-dev".to_owned() });
    }
    if !has_library(&cc, "libseccomp.a") {
        missing.push(format!("libseccomp-dev{suffix}"));
    }
    if in_path("pkg-config").is_none() {
        missing.push("pkg-config".to_owned());
    }
    if in_path("mmdebstrap").is_none() {
        missing.push("mmdebstrap".to_owned());
    }
    if !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() && !Path::new("/etc/pki/tls/certs").exists() {
        missing.push("ca-certificates".to_owned());
    }
    missing
}

/// Go and the C compiler, once everything that a build needs is there.
pub struct Tools {
    /// The `go` program.
    pub go: PathBuf,
    /// What `go env GOVERSION` says, as `go1.26.8`.
    pub go_version: String,
    /// The C compiler.
    pub cc: String,
}

impl Tools {
    /// Looks for everything that a build for `arch` needs.
    ///
    /// # Errors
    /// `KC-BUNDLE-TOOLS` with all that is missing.
    pub fn find(arch: Arch) -> Result<Self, Problem> {
        let go = find_go();
        let packages = missing_tools(arch);
        let mut missing = packages.clone();
        if go.is_none() {
            missing.insert(0, "Go 1.21 or newer".to_owned());
        }
        let (Some((go, go_version)), true) = (go.clone(), packages.is_empty()) else {
            let what = format!("building for {arch} from Go modules needs {}", missing.join(", "));
            let mut problem = Problem::new(Code::BundleTools, what);
            if !packages.is_empty() {
                let add =
                    if native() == Some(arch) { String::new() } else { format!("dpkg --add-architecture {arch} && ") };
                problem = problem.hint(format!("{add}apt-get install -y {}", packages.join(" ")));
            }
            if go.is_none() {
                problem = problem.hint("Install Go from https://go.dev/dl, or set PATH to where it is.");
            }
            return Err(problem);
        };
        Ok(Self { go, go_version, cc: compiler(arch) })
    }
}

fn native() -> Option<Arch> {
    Arch::from_uname(std::env::consts::ARCH)
}

const fn gnu(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86-64",
        Arch::Arm64 => "aarch64",
    }
}

fn compiler(arch: Arch) -> String {
    if native() == Some(arch) { "gcc".to_owned() } else { format!("{}-linux-gnu-gcc", gnu(arch).replace('-', "_")) }
}

fn answer(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// gcc prints the bare name when it does not find the file.
fn has_library(cc: &str, name: &str) -> bool {
    answer(Command::new(cc).arg(format!("-print-file-name={name}"))).is_some_and(|path| path.contains('/'))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The `go` of PATH, or of the places where Go's own installer and distributions put it.
fn find_go() -> Option<(PathBuf, String)> {
    let usual = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go"].map(PathBuf::from);
    in_path("go").into_iter().chain(usual).find_map(|go| {
        let version = answer(Command::new(&go).args(["env", "GOVERSION"]))?;
        is_new_enough(&version).then_some((go, version))
    })
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches("go").split(['.', '-', ' ', 'r']).map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST_GO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_go_is_not_enough() {
        assert!(is_new_enough("go1.26.8") && is_new_enough("go1.22rc1") && is_new_enough("go2.0"));
        assert!(!is_new_enough("go1.19") && !is_new_enough("devel") && !is_new_enough(""));
    }

    #[test]
    fn a_missing_cross_compiler_is_named() {
        let Err(problem) = Tools::find(Arch::Arm64) else { return };
        assert_eq!(problem.code, Code::BundleTools);
        assert!(problem.what.contains("arm64"), "{problem}");
    }
}
