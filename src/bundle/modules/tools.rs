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
    missing_packages(arch, native(), is_there)
}

/// What a build needs on this computer besides Go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    /// A C compiler of this name.
    Compiler(String),
    /// A library that this compiler finds.
    Library(String, &'static str),
    /// A program of PATH.
    Program(&'static str),
    /// The certificates of public authorities.
    Certificates,
}

fn is_there(need: &Need) -> bool {
    match need {
        Need::Compiler(cc) => answer(Command::new(cc).arg("--version")).is_some(),
        Need::Library(cc, name) => has_library(cc, name),
        Need::Program(name) => in_path(name).is_some(),
        Need::Certificates => {
            Path::new("/etc/ssl/certs/ca-certificates.crt").exists() || Path::new("/etc/pki/tls/certs").exists()
        }
    }
}

/// The packages with what is not there, on a computer of the CPU `native`.
fn missing_packages(arch: Arch, native: Option<Arch>, there: impl Fn(&Need) -> bool) -> Vec<String> {
    let foreign = native != Some(arch);
    let choose = |own: &str, other: String| if foreign { other } else { own.to_owned() };
    let cc = choose("gcc", format!("{}-gcc", triple(arch)));
    let library = |name| Need::Library(cc.clone(), name);
    let needs = [
        (Need::Compiler(cc.clone()), choose("gcc", format!("gcc-{}", triple(arch).replace('_', "-")))),
        (library("libc.a"), choose("libc6-dev", format!("libc6-dev-{arch}-cross"))),
        (library("libseccomp.a"), choose("libseccomp-dev", format!("libseccomp-dev:{arch}"))),
        (Need::Program("pkg-config"), "pkg-config".to_owned()),
        (Need::Program("mmdebstrap"), "mmdebstrap".to_owned()),
        (Need::Certificates, "ca-certificates".to_owned()),
    ];
    needs.into_iter().filter(|(need, _)| !there(need)).map(|(_, package)| package).collect()
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
        match (find_go(), missing_tools(arch)) {
            (Some((go, go_version)), packages) if packages.is_empty() => {
                Ok(Self { go, go_version, cc: compiler(arch) })
            }
            (go, packages) => Err(lacking(arch, native(), go.is_some(), &packages)),
        }
    }
}

/// What to install on a computer of the CPU `native`.
fn lacking(arch: Arch, native: Option<Arch>, has_go: bool, packages: &[String]) -> Problem {
    let [major, minor, patch] = NEEDED_GO;
    let go = (!has_go).then(|| format!("Go {major}.{minor}.{patch} or newer"));
    let missing: Vec<String> = go.into_iter().chain(packages.iter().cloned()).collect();
    let what = format!("building for {arch} from Go modules needs {}", missing.join(", "));
    let mut problem = Problem::new(Code::BundleTools, what);
    if !packages.is_empty() {
        let add = if native == Some(arch) { String::new() } else { format!("dpkg --add-architecture {arch} && ") };
        problem = problem.hint(format!("{add}apt-get install -y {}", packages.join(" ")));
    }
    if !has_go {
        problem = problem.hint("Install Go from https://go.dev/dl, or set PATH to where it is.");
    }
    problem
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

    /// The problem of a computer of this CPU that has everything but these needs.
    fn without(arch: Arch, native: Arch, go: bool, lacks: &[Need]) -> Problem {
        lacking(arch, Some(native), go, &missing_packages(arch, Some(native), |need| !lacks.contains(need)))
    }

    #[test]
    fn a_missing_cross_compiler_is_named() {
        let cc = "aarch64-linux-gnu-gcc";
        let lacks = [Need::Compiler(cc.into()), Need::Library(cc.into(), "libseccomp.a")];
        let problem = without(Arch::Arm64, Arch::Amd64, true, &lacks);
        assert_eq!(problem.code, Code::BundleTools);
        assert_eq!(
            problem.what,
            "building for arm64 from Go modules needs gcc-aarch64-linux-gnu, libseccomp-dev:arm64"
        );
        let hint = "dpkg --add-architecture arm64 && apt-get install -y gcc-aarch64-linux-gnu libseccomp-dev:arm64";
        assert_eq!(problem.all_hints(), [hint]);
        let problem = without(Arch::Amd64, Arch::Arm64, true, &[Need::Compiler("x86_64-linux-gnu-gcc".into())]);
        assert!(problem.what.ends_with("gcc-x86-64-linux-gnu"), "{problem}");
    }

    #[test]
    fn what_this_cpu_needs_is_named_plainly() {
        let lacks = [Need::Compiler("gcc".into()), Need::Library("gcc".into(), "libc.a"), Need::Program("mmdebstrap")];
        let problem = without(Arch::Amd64, Arch::Amd64, false, &lacks);
        assert!(problem.what.ends_with("or newer, gcc, libc6-dev, mmdebstrap"), "{problem}");
        let hints = problem.all_hints();
        assert_eq!(hints[0], "apt-get install -y gcc libc6-dev mmdebstrap");
        assert!(hints.len() == 2 && hints[1].contains("Install Go"), "{hints:?}");
    }

    #[test]
    fn what_is_nowhere_is_not_there() {
        let none = "kubecamp-has-no-such-program";
        for need in [Need::Compiler(none.into()), Need::Library(none.into(), "libc.a"), Need::Program(none)] {
            assert!(!is_there(&need), "{need:?}");
        }
        assert!(is_there(&Need::Program("sh")));
    }
}
