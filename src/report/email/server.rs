//! The mail server on this machine: one SMTP transaction (RFC 5321) over loopback, without TLS and login, all recipients
//! in it.
//!
//! The dialogue is five commands in turn, and is spoken here by hand: what matters is to tell a closed connection, a reply
//! that is none, and silence from each other, and the libraries' connections do not. Whatever the server does, it is
//! over after [`LIMIT`], and no more than [`MAX_HEARD`] bytes are read.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Envelope, hello_name};
use crate::credential::Redactor;
use crate::report::Undelivered;

/// Bounds the whole dialogue. Below the limit of an attempt, so that it is said what was waited for.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the answer to QUIT is waited for. By then it is known what became of the message.
const QUIT_WAIT: Duration = Duration::from_secs(1);
/// Bytes of all replies; a dialogue takes some hundred, and more for each recipient.
const MAX_HEARD: u64 = 64 * 1024;

/// A mail server on a loopback address.
pub(super) struct Server {
    /// As configured.
    host: String,
    port: u16,
    addresses: Vec<IpAddr>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Server {
    /// `host` is `localhost` or a loopback address, which may stand in brackets. No name is looked up: nobody decides
    /// from outside where the messages go.
    pub(super) fn new(host: &str, port: u16) -> Result<Self, Undelivered> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match literal.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => vec![address],
            _ if host.eq_ignore_ascii_case("localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            _ => {
                return Err(Undelivered::new(
                    "configuration",
                    format!("the mail server {host:?} is not on this machine, and messages go there without TLS"),
                    "set `server` in [[report]] to \"localhost:25\", or to \"ses\"",
                ));
            }
        };
        Ok(Self { host: host.to_owned(), port, addresses })
    }

    /// Hands over one message, whole lines of ASCII. `host`: this host's name.
    pub(super) async fn send(&self, host: &str, envelope: &Envelope, message: &[u8]) -> Result<(), Undelivered> {
        let mut dialogue = self.begin(host).await?;
        dialogue.envelope(envelope).await?;
        dialogue.command("DATA", "DATA", &[354], "look at the mail server's log").await?;
        dialogue.say(&stuffed(message)).await?;
        let fix = "look at the mail server's log: it took sender and recipients, but not the message";
        dialogue.reply("the message", &[250], fix).await?;
        dialogue.quit().await;
        Ok(())
    }

    /// Goes as far as one can without sending anything.
    pub(super) async fn check(&self, host: &str, envelope: &Envelope) -> Result<String, Undelivered> {
        let mut dialogue = self.begin(host).await?;
        let greeting = dialogue.greeting.clone();
        dialogue.envelope(envelope).await?;
        dialogue.command("RSET", "RSET", &[250], "look at the mail server's log").await?;
        dialogue.quit().await;
        let recipients = match envelope.to.len() {
            1 => "the recipient".to_owned(),
            n => format!("all {n} recipients"),
        };
        Ok(format!(
            "the mail server at {self} ({greeting}) takes mail from {} for {recipients}; nothing was sent",
            envelope.from
        ))
    }

    /// Connects, and exchanges greetings.
    async fn begin(&self, host: &str) -> Result<Dialogue<'_>, Undelivered> {
        let deadline = Instant::now() + LIMIT;
        let mut failed = Vec::new();
        for address in &self.addresses {
            let connecting = TcpStream::connect(SocketAddr::new(*address, self.port));
            let stream = match timeout_at(deadline, connecting).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(e)) => {
                    failed.push(format!("{address}: {e}"));
                    continue;
                }
                Err(_) => return Err(self.timed_out("the connection")),
            };
            let stream = BufReader::new(stream.take(MAX_HEARD));
            let mut dialogue = Dialogue { server: self, stream, deadline, greeting: String::new() };
            let fix = "look at the mail server's log; it may be going down, or have too many connections";
            dialogue.greeting = dialogue.reply("the greeting", &[220], fix).await?;
            dialogue
                .command(
                    "EHLO",
                    &format!("EHLO {}", hello_name(host)),
                    &[250],
                    "set `name` under [host] to the host's full name",
                )
                .await?;
            return Ok(dialogue);
        }
        Err(Undelivered {
            temporary: true,
            class: "network",
            what: format!("the mail server at {self} cannot be reached ({})", failed.join("; ")),
            fix: "start the mail server, or let it listen there; or correct `server` in [[report]]; it is tried again"
                .into(),
        })
    }

    fn timed_out(&self, waiting: &str) -> Undelivered {
        Undelivered {
            temporary: true,
            class: "timeout",
            what: format!(
                "the mail server at {self} said nothing for too long: gave up after {LIMIT:?}, waiting for {waiting}"
            ),
            fix: "look at the mail server's log and at its load; it is tried again".into(),
        }
    }
}

/// One connection.
struct Dialogue<'a> {
    server: &'a Server,
    stream: BufReader<Take<TcpStream>>,
    deadline: Instant,
    greeting: String,
}

impl Dialogue<'_> {
    /// Sender and recipients. With one recipient refused the message goes to nobody, so that the loss is seen.
    async fn envelope(&mut self, envelope: &Envelope) -> Result<(), Undelivered> {
        let from = &envelope.from;
        let fix =
            format!("let the mail server take mail from {from} from this machine, or correct `from` in [[report]]");
        self.command("MAIL FROM", &format!("MAIL FROM:<{from}>"), &[250], &fix).await?;
        for to in &envelope.to {
            let fix = format!(
                "let the mail server take mail for {to}, or correct `to` in [[report]]: until then the message goes to nobody"
            );
            self.command(&format!("the recipient {to}"), &format!("RCPT TO:<{to}>"), &[250, 251], &fix).await?;
        }
        Ok(())
    }

    async fn command(&mut self, name: &str, line: &str, wanted: &[u16], fix: &str) -> Result<String, Undelivered> {
        self.say(format!("{line}\r\n").as_bytes()).await?;
        self.reply(name, wanted, fix).await
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Undelivered> {
        match timeout_at(self.deadline, self.stream.get_mut().get_mut().write_all(bytes)).await {
            Ok(sent) => sent.map_err(|e| self.lost(&e.to_string())),
            Err(_) => Err(self.server.timed_out("it to take what is sent")),
        }
    }

    /// Reads one reply, and takes those codes for a yes. `to`: what it is a reply to. Gives its words.
    async fn reply(&mut self, to: &str, wanted: &[u16], fix: &str) -> Result<String, Undelivered> {
        let reading = timeout_at(self.deadline, self.read_reply());
        let (code, words) = match reading.await {
            Ok(Ok(reply)) => reply,
            Ok(Err(Broken::Lost(why))) => return Err(self.lost(&format!("{why}, waiting for the answer to {to}"))),
            Ok(Err(Broken::Nonsense(what))) => return Err(self.nonsense(to, &what)),
            Err(_) => return Err(self.server.timed_out(&format!("the answer to {to}"))),
        };
        if wanted.contains(&code) {
            return Ok(words);
        }
        let said = format!("{code} {words}");
        let server = self.server;
        match code {
            400..=499 => Err(Undelivered {
                temporary: true,
                class: "deferred",
                what: format!("the mail server at {server} does not take {to} now: {said}"),
                fix: format!("nothing to do if it passes: it is tried again; if it stays, {fix}"),
            }),
            500..=599 => {
                Err(Undelivered::new("refused", format!("the mail server at {server} refuses {to}: {said}"), fix))
            }
            _ => Err(self.nonsense(to, &said)),
        }
    }

    /// Code and words of one reply (RFC 5321, section 4.2).
    async fn read_reply(&mut self) -> Result<(u16, String), Broken> {
        let mut words = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line).await.map_err(|e| Broken::Lost(e.to_string()))?;
            if line.last() != Some(&b'\n') {
                // Read up, or the other side has closed.
                return Err(match self.stream.get_ref().limit() {
                    0 => Broken::Nonsense(format!("more than {MAX_HEARD} bytes")),
                    _ => Broken::Lost("it closed the connection".into()),
                });
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            let code = text
                .get(..3)
                .filter(|code| code.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|code| code.parse().ok());
            let (code, last) = match (code, text.as_bytes().get(3)) {
                (Some(code), None | Some(b' ')) => (code, true),
                (Some(code), Some(b'-')) => (code, false),
                _ => return Err(Broken::Nonsense(printable(text))),
            };
            // Of a long reply the beginning tells.
            if words.len() < 8 {
                words.push(text.get(4..).unwrap_or_default().to_owned());
            }
            if last {
                return Ok((code, printable(&words.join(" "))));
            }
        }
    }

    /// To be said whatever came before (RFC 5321, section 4.1.1.10). What becomes of it changes nothing.
    async fn quit(&mut self) {
        let _ = timeout(QUIT_WAIT, async {
            self.say(b"QUIT\r\n").await?;
            self.reply("QUIT", &[221], "").await
        })
        .await;
    }

    fn lost(&self, why: &str) -> Undelivered {
        Undelivered {
            temporary: true,
            class: "network",
            what: format!("the connection to the mail server at {} broke: {why}", self.server),
            fix: "look at the mail server's log; it is tried again".into(),
        }
    }

    fn nonsense(&self, to: &str, said: &str) -> Undelivered {
        Undelivered::new(
            "smtp",
            format!("what listens at {} answers {to} as no mail server does: {said}", self.server),
            "correct `server` in [[report]]: host and port of the mail server on this machine",
        )
    }
}

/// Why there is no reply.
enum Broken {
    Lost(String),
    Nonsense(String),
}

/// The words of a server: bounded, and nothing in them that a terminal would obey.
fn printable(text: &str) -> String {
    Redactor::default().clean(&text.replace(['\r', '\n'], " "))
}

/// A message as it stands after DATA: a dot before each that begins a line, the end mark after it (RFC 5321, section
/// 4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_that_begin_a_line_are_doubled() {
        for (message, expected) in
            [("a\r\n.\r\n..b\r\nc.\r\n", "a\r\n..\r\n...b\r\nc.\r\n.\r\n"), ("a", "a\r\n.\r\n"), ("", "\r\n.\r\n")]
        {
            assert_eq!(String::from_utf8(stuffed(message.as_bytes())).unwrap(), expected);
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to() {
        for (host, count) in
            [("localhost", 2), ("LOCALHOST", 2), ("127.0.0.1", 1), ("127.8.8.8", 1), ("[::1]", 1), ("::1", 1)]
        {
            assert_eq!(Server::new(host, 25).map(|s| s.addresses.len()), Ok(count), "{host}");
        }
        for host in ["mail.example.com", "192.0.2.1", "0.0.0.0", "[2001:db8::1]", "", "localhost.example.com"] {
            let e = Server::new(host, 25).map(|_| ()).unwrap_err();
            assert_eq!((e.class, e.temporary), ("configuration", false), "{host}");
        }
    }
}
