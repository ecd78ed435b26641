//! Becoming root: how each way works, what each failure says, and where uploads go meanwhile.

use kubecamp::core::Code;

use super::camp::Camp;
use crate::support::simhost::{Did, Login, System};

async fn moved(login: Login, password: Option<&'static str>) -> (usize, usize) {
    let mut camp = Camp::on([System::Ubuntu2404; 3], login);
    camp.password = password;
    camp.up().await.good();
    let changes = camp.world.changes();
    let staged = |did: &Did| matches!(did, Did::Put(path) if path.starts_with("/var/tmp/kubecamp."));
    let count = |wanted: &dyn Fn(&Did) -> bool| changes.iter().filter(|(_, did)| wanted(did)).count();
    (count(&staged), count(&|did| matches!(did, Did::Move(_))))
}

#[tokio::test]
async fn root_puts_files_where_they_belong() {
    assert_eq!(moved(Login::Root, None).await, (0, 0));
}

#[tokio::test]
async fn others_stage_them_and_root_moves_them() {
    // Three hosts, five programs, four images each and two more on the control plane.
    for (login, password) in [(Login::FreeSudo, None), (Login::Sudo("pw"), Some("pw"))] {
        assert_eq!(moved(login, password).await, (29, 29), "{login:?}");
    }
}

#[tokio::test]
async fn every_host_that_does_not_let_us_be_root_is_named() {
    for (login, password, code, words) in [
        (Login::Sudo("right"), Some("wrong"), Code::SudoPassword, "sudo refused the password"),
        (Login::Sudo("right"), None, Code::Sudo, "none was given"),
        (Login::NoSudo, None, Code::Sudo, "there is no sudo"),
    ] {
        let mut camp = Camp::on([System::Debian12; 3], login);
        camp.password = password;
        let seen = camp.up().await;
        assert_eq!(seen.codes(), [("cp", code), ("worker-1", code), ("worker-2", code)]);
        assert!(seen.problems[0].what.contains(words), "{}", seen.problems[0]);
        assert_eq!(camp.world.changes(), []);
    }
}
