use std::{sync::Arc, time::Duration};

use tokio::sync::OnceCell;

use crate::{
    core::{Code, Problem, Secret},
    transport::{Ask, Cmd, Exit, Input, Io, Transport},
};

/// How commands become root on a host.
#[derive(Debug, Clone)]
pub enum Sudo {
    /// The login user is root.
    Root,
    /// `sudo -n` works.
    Free,
    /// sudo asks for this password, which is fed as the first line of standard input.
    Password(Secret),
}

/// The sudo password of all hosts: known from the start, or asked for once, when the first host wants one.
pub struct SudoPassword {
    /// `None` inside: asked for, not given.
    given: OnceCell<Option<Secret>>,
    ask: Option<Arc<dyn Ask>>,
}

impl SudoPassword {
    /// This one.
    pub fn given(password: Secret) -> Self {
        Self { given: OnceCell::new_with(Some(Some(password))), ask: None }
    }

    /// One that `ask` is asked for when it is wanted.
    pub fn asked_of(ask: Arc<dyn Ask>) -> Self {
        Self { given: OnceCell::new(), ask: Some(ask) }
    }

    /// The password, when it is known already: to be kept out of logs.
    pub fn known(&self) -> Option<&Secret> {
        self.given.get()?.as_ref()
    }

    /// The password, asked for when that was not done yet; `None` when nobody gives it.
    pub async fn get(&self) -> Option<&Secret> {
        let asked = async {
            let ask = Arc::clone(self.ask.as_ref()?);
            tokio::task::spawn_blocking(move || ask.secret("sudo password of the hosts")).await.ok()?
        };
        self.given.get_or_init(|| asked).await.as_ref()
    }
}

/// Says where the login user comes from, which sudo hides, and how one becomes root. `-k` leaves out of account that sudo was used a moment ago: it would want the password
/// in the middle of the run.
const PROBE: &str = "echo \"KC-PEER $SSH_CONNECTION\"; if [ \"$(id -u)\" = 0 ]; then echo root; elif ! command -v sudo >/dev/null; then echo none; \
    elif said=$(LC_ALL=C sudo -k -n true 2>&1); then echo free; else \
    case $said in *'must have a tty'*) echo tty;; *) echo password;; esac; fi";

/// Finds out how to become root, trying the password where one is wanted; beside it the login user's `SSH_CONNECTION`.
pub(super) async fn become_root(
    link: &dyn Transport,
    password: Option<&SudoPassword>,
) -> Result<(Sudo, String), Problem> {
    let said = link.exec(&Cmd::new(PROBE), Io::default()).await.map_err(|e| e.problem())?;
    let found = said.text();
    let peer = found.lines().find_map(|l| l.strip_prefix("KC-PEER ")).unwrap_or_default().to_owned();
    Ok((sudo(link, &said, password).await?, peer))
}

async fn sudo(link: &dyn Transport, said: &Exit, password: Option<&SudoPassword>) -> Result<Sudo, Problem> {
    match said.text().lines().last().unwrap_or_default() {
        "root" => Ok(Sudo::Root),
        "free" => Ok(Sudo::Free),
        "tty" => Err(Problem::new(Code::Sudo, "sudo wants a terminal there, which a program has none of")
            .hint("Let the user off in sudoers, with visudo: Defaults:USER !requiretty.")),
        "password" => {
            let password = match password {
                Some(password) => password.get().await,
                None => None,
            };
            let Some(password) = password else {
                return Err(Problem::new(Code::Sudo, "sudo asks for a password and none was given").hint(
                    "Run with --ask-sudo-password, in scripts with --sudo-password-file, or allow the user NOPASSWD in \
                     sudoers.",
                ));
            };
            try_password(link, password).await
        }
        "none" => Err(Problem::new(Code::Sudo, "the user is not root and there is no sudo")),
        _ => Err(something_else(said)),
    }
}

/// [`PROBE`] did not run: clouds' images let a key of root's only print whom to log in as, and no command.
fn something_else(said: &Exit) -> Problem {
    let out = said.text();
    let mut words: Vec<_> = out.lines().filter(|line| !line.trim().is_empty()).take(3).map(str::to_owned).collect();
    if words.is_empty() {
        words = said.tail(3);
    }
    Problem::new(Code::Sudo, "the host ran something else than what it was asked")
        .detail(words)
        .hint("Log in as the user that it names, who may use sudo: USER@ADDRESS.")
        .hint(
            "If it names none, the login shell is no POSIX shell, or authorized_keys or sshd_config forces a command.",
        )
}

async fn try_password(link: &dyn Transport, password: &Secret) -> Result<Sudo, Problem> {
    let cmd = Cmd::new("LC_ALL=C sudo -k -S -p '' true")
        .input(Input::Bytes(format!("{}\n", password.expose()).into_bytes()))
        .limit(Duration::from_secs(20));
    let tried = link.exec(&cmd, Io::default()).await.map_err(|e| e.problem())?;
    if tried.ok() {
        return Ok(Sudo::Password(password.clone()));
    }
    let words = tried.tail(3).join(" ");
    if words.contains("not in the sudoers") || words.contains("not allowed") {
        return Err(Problem::new(Code::Sudo, "the user may not use sudo").detail(tried.tail(2)));
    }
    // It asks again after a wrong one, and complains that there is none on the next line.
    let said = tried.tail(3).into_iter().filter(|line| !line.contains("no password was provided"));
    Err(Problem::new(Code::SudoPassword, "sudo refused the password").detail(said))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::transport::{Reply, ScriptedTransport};

    /// Somebody at a terminal, or nobody.
    struct User(Option<&'static str>, AtomicUsize);

    impl Ask for User {
        fn secret(&self, _: &str) -> Option<Secret> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.map(Secret::new)
        }

        fn confirm(&self, _: &str) -> Option<bool> {
            None
        }
    }

    fn host(found: &str) -> ScriptedTransport {
        ScriptedTransport::new().on("id -u", Reply::ok(found)).played_by(|ran| {
            let right = ran.input == "right\n";
            Some(if right { Reply::ok("") } else { Reply::fail(1, "sudo: 1 incorrect password attempt") })
        })
    }

    #[tokio::test]
    async fn the_password_is_asked_for_once_and_only_where_one_is_wanted() {
        for (answer, code) in
            [(Some("right"), None), (Some("wrong"), Some(Code::SudoPassword)), (None, Some(Code::Sudo))]
        {
            let user = Arc::new(User(answer, AtomicUsize::new(0)));
            let password = SudoPassword::asked_of(Arc::clone(&user) as Arc<dyn Ask>);
            for free in ["root", "free"] {
                become_root(&host(free), Some(&password)).await.unwrap();
            }
            assert!(user.1.load(Ordering::SeqCst) == 0 && password.known().is_none());
            let (one, two) = (host("password"), host("password"));
            let both = tokio::join!(become_root(&one, Some(&password)), become_root(&two, Some(&password)));
            for ended in [both.0, both.1] {
                assert_eq!(ended.err().map(|p| p.code), code, "{answer:?}");
            }
            assert_eq!(user.1.load(Ordering::SeqCst), 1, "{answer:?}");
            assert_eq!(password.known().map(|p| p.expose().to_owned()).as_deref(), answer);
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_not_said_to_be_missing() {
        let said = "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt";
        let link = ScriptedTransport::new()
            .on("id -u", Reply::ok("password"))
            .played_by(move |ran| Some(if ran.input.is_empty() { Reply::ok("") } else { Reply::fail(1, said) }));
        let password = SudoPassword::given(Secret::new("wrong"));
        let problem = become_root(&link, Some(&password)).await.unwrap_err();
        assert_eq!(problem.detail, ["Sorry, try again.", "sudo: 1 incorrect password attempt"]);
    }

    /// As cloud-init lets root's key answer, and as a login shell that is none does.
    #[tokio::test]
    async fn what_ran_in_place_of_the_question_is_told_in_its_own_words() {
        let cloud = "Please login as the user \"ubuntu\" rather than the user \"root\".";
        for (status, out, err, told) in [
            (142, format!("{cloud}\n\n"), "", cloud),
            (1, "This account is currently not available.\n".into(), "", "This account is currently not available."),
            (127, String::new(), "fish: Unsupported use of '='\n", "fish: Unsupported use of '='"),
        ] {
            let exit = Exit { status: Some(status), stdout: out.into_bytes(), stderr: err.into() };
            let link = ScriptedTransport::new().on("id -u", Reply::Exit(exit));
            let problem = become_root(&link, None).await.unwrap_err();
            assert_eq!((problem.code, problem.detail.as_slice()), (Code::Sudo, [told.to_owned()].as_slice()));
            assert!(problem.all_hints()[0].contains("the user that it names") && !problem.what.contains("no sudo"));
        }
        let problem = become_root(&host("none"), None).await.unwrap_err();
        assert!(problem.what.contains("there is no sudo") && problem.detail.is_empty(), "{problem}");
    }

    #[tokio::test]
    async fn a_terminal_that_sudo_wants_is_no_password() {
        let password = SudoPassword::given(Secret::new("right"));
        let problem = become_root(&host("tty"), Some(&password)).await.unwrap_err();
        assert_eq!(problem.code, Code::Sudo);
        assert!(problem.what.contains("terminal") && problem.all_hints()[0].contains("requiretty"), "{problem}");
    }
}
