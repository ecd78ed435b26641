//! SSH against a real OpenSSH server on loopback.

use std::{sync::Mutex, time::Duration};

use kubecamp::{
    core::Blob,
    transport::{Cmd, Input, Io, LinkError, SshTransport, Transport},
};

use crate::support::sshd::{Setup, Sshd};

async fn connect(server: &Sshd) -> SshTransport {
    SshTransport::connect(server.target()).await.unwrap_or_else(|p| panic!("{p}\n{}", server.log()))
}

async fn run(link: &SshTransport, line: &str) -> String {
    let exit = link.exec(&Cmd::new(line), Io::default()).await.unwrap();
    assert!(exit.ok(), "{line}: {exit:?}");
    exit.text()
}

#[tokio::test]
async fn commands_run_and_report() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let exit = link.exec(&Cmd::new("echo out; echo err >&2; exit 7"), Io::default()).await.unwrap();
    assert_eq!((exit.status, exit.text().as_str(), exit.tail(1)), (Some(7), "out", vec!["err".to_owned()]));
    let exit = link.exec(&Cmd::new("kill -9 $$"), Io::default()).await.unwrap();
    assert_eq!(exit.status, None);
    let script = Cmd::script("cat; echo from a script; exit 3");
    let exit = link.exec(&script, Io::default()).await.unwrap();
    assert_eq!((exit.status, exit.text().as_str()), (Some(3), "from a script"));
    let seen = Mutex::new(vec![]);
    let note = |line: &str| seen.lock().unwrap().push(line.to_owned());
    link.exec(&Cmd::new("echo one; echo two; printf three"), Io { line: Some(&note), sent: None }).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["one", "two", "three"]);
    link.close().await;
    assert!(matches!(link.exec(&Cmd::new("true"), Io::default()).await, Err(LinkError::Lost(_))));
}

#[tokio::test]
async fn much_output_and_input_at_once() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let exit = link.exec(&Cmd::new("head -c 40000000 /dev/zero; head -c 30000000 /dev/zero >&2"), Io::default()).await;
    let exit = exit.unwrap();
    assert_eq!((exit.status, exit.stdout.len(), exit.stderr.len()), (Some(0), 16 << 20, 16 << 20));
    let bytes: Vec<u8> = (0..12u32 << 20).map(|i| (i % 251) as u8).collect();
    let echo = Cmd::new("cat").input(Input::Bytes(bytes.clone()));
    assert!(link.exec(&echo, Io::default()).await.unwrap().stdout == bytes);
    let unread = Cmd::new("head -c 5; exit 9").input(Input::Blob(Blob::from_bytes(vec![b'x'; 64 << 20])));
    let exit = link.exec(&unread, Io::default()).await.unwrap();
    assert_eq!((exit.status, exit.text().as_str()), (Some(9), "xxxxx"), "a command may leave its input unread");
}

#[tokio::test]
async fn twenty_commands_at_once_with_ten_sessions() {
    let server = Sshd::with(Setup { config: "MaxSessions 10".into(), ..Setup::default() });
    let link = connect(&server).await;
    for _ in 0..3 {
        let all = (0..20).map(|i| {
            let link = link.clone();
            async move { run(&link, &format!("sleep 0.0{}; echo {i}", i % 5)).await }
        });
        let wanted: Vec<_> = (0..20).map(|i| i.to_string()).collect();
        assert_eq!(futures::future::join_all(all).await, wanted);
    }
}

#[tokio::test]
async fn a_limit_ends_the_command_on_the_host_too() {
    let server = Sshd::start();
    let link = connect(&server).await;
    let slow = Cmd::new("echo $$ >/tmp/kc-live-slow; exec sleep 600").limit(Duration::from_millis(300));
    assert!(matches!(link.exec(&slow, Io::default()).await, Err(LinkError::Timeout(_))));
    run(&link, "for i in 1 2 3 4 5 6 7 8 9; do kill -0 $(cat /tmp/kc-live-slow) || exit 0; sleep 0.1; done; exit 1")
        .await;
    run(&link, "rm /tmp/kc-live-slow").await;
}
