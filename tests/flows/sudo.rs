//! Becoming root: how each way works, what each failure says, and where uploads go.

use kubecamp::core::Code;

use super::camp::Camp;
use crate::support::simhost::{Did, Login, System};

/// Where uploads went, and how many of each host's lines were uploads through sudo.
async fn uploads(login: Login, password: Option<&'static str>) -> (Vec<Did>, usize) {
    let mut camp = Camp::on([System::Ubuntu2404; 3], login);
    camp.password = password;
    camp.up().await.good();
    let puts = camp.world.changes().into_iter().map(|(_, did)| did).filter(|did| matches!(did, Did::Put(_)));
    let through_sudo = |line: &&String| line.starts_with("sudo ") && line.contains(" sh -c ");
    (puts.collect(), camp.lines().iter().filter(through_sudo).count())
}

#[tokio::test]
async fn uploads_go_where_they_belong_whoever_logs_in() {
    let (mut by_root, through_sudo) = uploads(Login::Root, None).await;
    // Three hosts, five programs, four images each and two more on the control plane.
    assert_eq!((by_root.len(), through_sudo), (29, 0));
    by_root.sort_by_key(|did| format!("{did:?}"));
    for (login, password) in [(Login::FreeSudo, None), (Login::Sudo("pw"), Some("pw"))] {
        let (mut through, lines) = uploads(login, password).await;
        through.sort_by_key(|did| format!("{did:?}"));
        assert_eq!((&through, lines), (&by_root, by_root.len()), "{login:?}");
    }
}

#[tokio::test]
async fn every_host_that_does_not_let_us_be_root_is_named() {
    for (login, password, code, words) in [
        (Login::Sudo("right"), Some("wrong"), Code::SudoPassword, "sudo refused the password"),
        (Login::Sudo("right"), None, Code::Sudo, "none was given"),
        (Login::NoSudo, None, Code::Sudo, "there is no sudo"),
        (Login::Forced, None, Code::Sudo, "ran something else"),
    ] {
        let mut camp = Camp::on([System::Debian12; 3], login);
        camp.password = password;
        let seen = camp.up().await;
        assert_eq!(seen.codes(), [("cp", code), ("worker-1", code), ("worker-2", code)]);
        assert!(seen.problems[0].what.contains(words), "{}", seen.problems[0]);
        assert_eq!(camp.world.changes(), []);
    }
}
