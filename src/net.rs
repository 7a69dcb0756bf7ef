//! Names looked up and connections made, within the caller's deadline.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Looks a name up; the system's resolver, or a test's.
pub type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

/// The system's resolver.
pub const SYSTEM: Lookup = |host, port| (host, port).to_socket_addrs().map(Iterator::collect);

/// Looks the name up on a thread of its own: the system's resolver cannot be interrupted, and on the run time's threads it
/// would hold up the program's end beyond the deadline, which is the caller's.
///
/// # Errors
/// The resolver's, or there is no address.
pub async fn resolve(lookup: Lookup, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (done, answer) = tokio::sync::oneshot::channel();
    let host = host.to_owned();
    std::thread::Builder::new().name("resolve".into()).spawn(move || {
        // Nobody listens any more once the deadline has passed.
        let _ = done.send(lookup(&host, port));
    })?;
    let addresses = answer.await.map_err(|_| io::Error::other("the resolver gave no answer"))??;
    if addresses.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(addresses) }
}

/// No address took a connection.
#[derive(Debug)]
pub struct NotConnected {
    /// One of them gave no answer in its time.
    pub timed_out: bool,
    /// Each address, and what became of it.
    pub tried: String,
}

/// Connects to the first address that answers, and says which that is. Each has its share of what is left until the deadline, so
/// that a dead first one does not use it all up.
///
/// # Errors
/// None of them did.
pub async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<(TcpStream, SocketAddr), NotConnected> {
    let (mut failed, mut timed_out) = (Vec::new(), false);
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok((socket, *address)),
            Ok(Err(e)) => failed.push(format!("{address}: {e}")),
            Err(_) => {
                timed_out = true;
                failed.push(format!("{address}: no answer"));
            }
        }
    }
    Err(NotConnected { timed_out, tried: failed.join("; ") })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_dead_first_address_leaves_time_for_the_next() {
        let alive = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let next = alive.local_addr().unwrap();
        // TEST-NET-1 (RFC 5737): no answer, or at once that there is no way there.
        let dead = SocketAddr::new("192.0.2.1".parse().unwrap(), 25);
        let deadline = Instant::now() + Duration::from_secs(4);
        let (_, at) = connect(&[dead, next], deadline).await.expect("the second one");
        assert_eq!(at, next);
        drop(alive);
        let none = connect(&[next], deadline).await.expect_err("nobody listens");
        assert!(!none.timed_out && none.tried.contains("refused"), "{none:?}");
    }
}
