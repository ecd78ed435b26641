use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::core::{Arch, Code, Problem};

/// The oldest Go that can fetch a newer one by itself.
const OLDEST_GO: [u32; 3] = [1, 21, 0];
/// The Go that the newest of the modules asks for.
const NEEDED_GO: [u32; 3] = [1, 26, 8];

/// The Debian packages that building from Go modules for `arch` still needs here; Go itself is not among them.
pub fn missing_tools(arch: Arch) -> Vec<String> {
    let foreign = native() != Some(arch);
    let suffix = if foreign { format!(":{arch}") } else { String::new() };
    let cc = compiler(arch);
    let mut missing = vec![];
    if answer(Command::new(&cc).arg("--version")).is_none() {
        missing.push(if foreign { format!("gcc-{}", triple(arch).replace('_', "-")) } else { "gcc".to_owned() });
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

/// Finds out whether Go is there, before packages are installed for it in vain.
///
/// # Errors
/// `KC-BUNDLE-TOOLS` with all that is missing.
pub fn check_go(arch: Arch) -> Result<(), Problem> {
    if find_go().is_some() { Ok(()) } else { Tools::find(arch).map(drop) }
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
            let [major, minor, patch] = NEEDED_GO;
            missing.insert(0, format!("Go {major}.{minor}.{patch} or newer"));
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

const fn triple(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "x86_64-linux-gnu",
        Arch::Arm64 => "aarch64-linux-gnu",
    }
}

fn compiler(arch: Arch) -> String {
    if native() == Some(arch) { "gcc".to_owned() } else { format!("{}-gcc", triple(arch)) }
}

/// Where pkg-config finds the libraries for a foreign CPU; none for this one.
pub fn pkg_config_folder(arch: Arch) -> Option<String> {
    (native() != Some(arch)).then(|| format!("/usr/lib/{}/pkgconfig", triple(arch)))
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

/// The `go` of PATH, or of the places where Go's own installer and distributions put it, that is new enough.
fn find_go() -> Option<(PathBuf, String)> {
    let usual = ["/usr/local/go/bin/go", "/usr/lib/go/bin/go"].map(PathBuf::from);
    in_path("go").into_iter().chain(usual).find_map(|go| {
        let text = answer(Command::new(&go).args(["env", "GOVERSION", "GOTOOLCHAIN"]))?;
        let (version, toolchain) = text.split_once('\n')?;
        is_new_enough(version, toolchain.trim()).then(|| (go, version.to_owned()))
    })
}

/// Whether this Go builds the modules itself, or may fetch one that does.
fn is_new_enough(version: &str, toolchain: &str) -> bool {
    let numbers = version.trim_start_matches("go").split(['.', '-', ' ', 'r']).map_while(|n| n.parse::<u32>().ok());
    let mut has = [0; 3];
    numbers.zip(&mut has).for_each(|(n, place)| *place = n);
    has >= NEEDED_GO || (has >= OLDEST_GO && toolchain != "local")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_go_is_not_enough() {
        assert!(
            is_new_enough("go1.26.8", "local") && is_new_enough("go1.22rc1", "auto") && is_new_enough("go2.0", "local")
        );
        assert!(!is_new_enough("go1.26.7", "local") && is_new_enough("go1.26.7", "auto"));
        assert!(!is_new_enough("go1.19", "auto") && !is_new_enough("devel", "auto") && !is_new_enough("", "auto"));
    }

    #[test]
    fn a_missing_cross_compiler_is_named() {
        let Err(problem) = Tools::find(Arch::Arm64) else { return };
        assert_eq!(problem.code, Code::BundleTools);
        assert!(problem.what.contains("arm64"), "{problem}");
        if native() == Some(Arch::Amd64) && problem.what.contains("gcc") {
            assert!(problem.all_hints()[0].contains("apt-get install -y gcc-aarch64-linux-gnu"), "{problem}");
        }
    }
}
