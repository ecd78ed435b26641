//! The one question asked over the network here: does sshd answer?

use std::{
    fs::File,
    io::{self, Read},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// How long one look may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether an SSH server greets at `address`, seen from the network namespace `netns`.
pub(super) async fn ssh_answers(address: SocketAddr, netns: Option<&Path>) -> bool {
    let netns: Option<PathBuf> = netns.map(Path::to_owned);
    let (tell, hear) = oneshot::channel();
    // A thread of its own: it never leaves the namespace again, so it must not go back to a pool.
    let thread = thread::Builder::new().name("probe".into()).spawn(move || {
        tell.send(greeting(address, netns.as_deref())).ok();
    });
    match (thread, hear.await) {
        (Ok(_), Ok(Ok(bytes))) => bytes == *b"SSH-",
        _ => false,
    }
}

fn greeting(address: SocketAddr, netns: Option<&Path>) -> io::Result<[u8; 4]> {
    if let Some(netns) = netns {
        move_into_link_name_space(File::open(netns)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut start = [0; 4];
    stream.read_exact(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, net::TcpListener};

    #[tokio::test]
    async fn only_an_ssh_greeting_counts() {
        for (words, expected) in [("SSH-2.0-x\r\n", true), ("HTTP/1.1 400", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            thread::spawn(move || listener.accept().unwrap().0.write_all(words.as_bytes()));
            assert_eq!(ssh_answers(address, None).await, expected);
        }
    }
}
