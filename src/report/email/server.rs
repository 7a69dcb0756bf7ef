//! The mail server on this machine: one SMTP transaction (RFC 5321) over loopback, without TLS and login, all recipients
//! in it.
//!
//! The dialogue is five commands in turn, spoken by [`dialogue`](crate::smtp::dialogue). Whatever the server does, it is over
//! after [`LIMIT`], and no more than [`MAX_HEARD`] bytes are read.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Envelope, unsendable};
use crate::credential::Redactor;
use crate::fault::{Class, Fault};

use crate::smtp::dialogue::{self, DialogueError, SmtpCommand, SmtpReply, Unfit, WireMessage};
use crate::smtp::introduction;

/// Bounds the whole dialogue. Below the limit of an attempt, so that it is said what was waited for.
const LIMIT: Duration = Duration::from_secs(20);
/// How long the answer to QUIT is waited for. By then it is known what became of the message.
const QUIT_WAIT: Duration = Duration::from_secs(1);
/// Bytes of all replies; a dialogue takes some hundred, and more for each recipient.
const MAX_HEARD: usize = 64 * 1024;

/// A mail server on a loopback address.
pub(super) struct LocalServer {
    /// As configured.
    host: String,
    port: u16,
    addresses: Vec<IpAddr>,
}

impl fmt::Display for LocalServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl LocalServer {
    /// `host` is `localhost` or a loopback address, which may stand in brackets. No name is looked up: nobody decides
    /// from outside where the messages go.
    pub(super) fn new(host: &str, port: u16) -> Result<Self, Fault> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match literal.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => vec![address],
            _ if host.eq_ignore_ascii_case("localhost") => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            _ => {
                return Err(Fault::new(
                    Class::Configuration,
                    format!("the mail server {host:?} is not on this machine, and messages go there without TLS"),
                    "set `server` in [[report]] to \"localhost:25\", or to \"ses\"",
                ));
            }
        };
        Ok(Self { host: host.to_owned(), port, addresses })
    }

    /// Hands over one message. `host`: this host's name.
    pub(super) async fn send(&self, host: &str, envelope: &Envelope, message: &WireMessage) -> Result<(), Fault> {
        let mut dialogue = self.begin(host).await?;
        dialogue.envelope(envelope).await?;
        dialogue.command("DATA", Ok(SmtpCommand::fixed("DATA")), &[354], "look at the mail server's log").await?;
        let fix = "look at the mail server's log: it took sender and recipients, but not the message";
        dialogue.hand_over(message, fix).await?;
        dialogue.quit().await;
        Ok(())
    }

    /// Goes as far as one can without sending anything.
    pub(super) async fn check(&self, host: &str, envelope: &Envelope) -> Result<String, Fault> {
        let mut dialogue = self.begin(host).await?;
        let greeting = dialogue.greeting.clone();
        dialogue.envelope(envelope).await?;
        dialogue.command("RSET", Ok(SmtpCommand::fixed("RSET")), &[250], "look at the mail server's log").await?;
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
    async fn begin(&self, host: &str) -> Result<Handover<'_>, Fault> {
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
            let inner = dialogue::Dialogue::new(stream, MAX_HEARD);
            let mut dialogue = Handover { server: self, inner, deadline, greeting: String::new() };
            let fix = "look at the mail server's log; it may be going down, or have too many connections";
            dialogue.greeting = dialogue.greeted(fix).await?;
            let hello = SmtpCommand::hello(&introduction(host));
            dialogue.command("EHLO", hello, &[250], "set `name` under [host] to the host's full name").await?;
            return Ok(dialogue);
        }
        Err(Fault::new(
            Class::Network,
            format!("the mail server at {self} cannot be reached ({})", failed.join("; ")),
            "start the mail server, or let it listen there; or correct `server` in [[report]]; it is tried again",
        )
        .temporary())
    }

    fn timed_out(&self, waiting: &str) -> Fault {
        Fault::new(
            Class::Timeout,
            format!(
                "the mail server at {self} said nothing for too long: gave up after {LIMIT:?}, waiting for {waiting}"
            ),
            "look at the mail server's log and at its load; it is tried again",
        )
        .temporary()
    }
}

/// One connection.
struct Handover<'a> {
    server: &'a LocalServer,
    inner: dialogue::Dialogue<TcpStream>,
    deadline: Instant,
    greeting: String,
}

impl Handover<'_> {
    /// Sender and recipients. With one recipient refused the message goes to nobody, so that the loss is seen.
    async fn envelope(&mut self, envelope: &Envelope) -> Result<(), Fault> {
        let from = &envelope.from;
        let fix =
            format!("let the mail server take mail from {from} from this machine, or correct `from` in [[report]]");
        self.command("MAIL FROM", SmtpCommand::mail(from.as_ref()), &[250], &fix).await?;
        for to in &envelope.to {
            let fix = format!(
                "let the mail server take mail for {to}, or correct `to` in [[report]]: until then the message goes to nobody"
            );
            self.command(&format!("the recipient {to}"), SmtpCommand::rcpt(to.as_ref()), &[250, 251], &fix).await?;
        }
        Ok(())
    }

    async fn greeted(&mut self, fix: &str) -> Result<String, Fault> {
        let reply = timeout_at(self.deadline, self.inner.reply()).await;
        self.judge("the greeting", reply, &[220], fix)
    }

    async fn command(
        &mut self,
        to: &str,
        command: Result<SmtpCommand, Unfit>,
        wanted: &[u16],
        fix: &str,
    ) -> Result<String, Fault> {
        let command = command.map_err(|e| unsendable(&e))?;
        let reply = timeout_at(self.deadline, self.inner.ask(&command)).await;
        self.judge(to, reply, wanted, fix)
    }

    async fn hand_over(&mut self, message: &WireMessage, fix: &str) -> Result<String, Fault> {
        let reply = timeout_at(self.deadline, self.inner.hand_over(message)).await;
        self.judge("the message", reply, &[250], fix)
    }

    /// Takes those codes for a yes. `to`: what it is a reply to. Gives its words.
    fn judge(
        &self,
        to: &str,
        reply: Result<Result<SmtpReply, DialogueError>, Elapsed>,
        wanted: &[u16],
        fix: &str,
    ) -> Result<String, Fault> {
        let reply = match reply {
            Ok(Ok(reply)) => reply,
            Ok(Err(DialogueError::Lost(e))) => {
                let why = match e.kind() {
                    io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
                    _ => e.to_string(),
                };
                return Err(self.lost(&format!("{why}, waiting for the answer to {to}")));
            }
            Ok(Err(DialogueError::Nonsense(what))) => return Err(self.nonsense(to, &what)),
            Err(_) => return Err(self.server.timed_out(&format!("the answer to {to}"))),
        };
        let words = printable(&reply.lines.join(" "));
        if wanted.contains(&reply.code) {
            return Ok(words);
        }
        let said = format!("{} {words}", reply.code);
        let server = self.server;
        match reply.code {
            400..=499 => Err(Fault::new(
                Class::Deferred,
                format!("the mail server at {server} does not take {to} now: {said}"),
                format!("nothing to do if it passes: it is tried again; if it stays, {fix}"),
            )
            .temporary()),
            500..=599 => {
                Err(Fault::new(Class::Refused, format!("the mail server at {server} refuses {to}: {said}"), fix))
            }
            _ => Err(self.nonsense(to, &said)),
        }
    }

    /// To be said whatever came before (RFC 5321, section 4.1.1.10). What becomes of it changes nothing.
    async fn quit(&mut self) {
        let _ = timeout(QUIT_WAIT, self.inner.ask(&SmtpCommand::fixed("QUIT"))).await;
    }

    fn lost(&self, why: &str) -> Fault {
        Fault::new(
            Class::Network,
            format!("the connection to the mail server at {} broke: {why}", self.server),
            "look at the mail server's log; it is tried again",
        )
        .temporary()
    }

    /// Whoever answers may be something else for a while, such as what takes the port before the mail server does.
    fn nonsense(&self, to: &str, said: &str) -> Fault {
        Fault::new(
            Class::Smtp,
            format!("what listens at {} answers {to} as no mail server does: {}", self.server, printable(said)),
            "correct `server` in [[report]]: host and port of the mail server on this machine; it is tried again",
        )
        .temporary()
    }
}

/// The words of a server: bounded, and nothing in them that a terminal would obey.
fn printable(text: &str) -> String {
    Redactor::default().clean(&text.replace(['\r', '\n'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to() {
        for (host, count) in
            [("localhost", 2), ("LOCALHOST", 2), ("127.0.0.1", 1), ("127.8.8.8", 1), ("[::1]", 1), ("::1", 1)]
        {
            assert_eq!(LocalServer::new(host, 25).map(|s| s.addresses.len()), Ok(count), "{host}");
        }
        for host in ["mail.example.com", "192.0.2.1", "0.0.0.0", "[2001:db8::1]", "", "localhost.example.com"] {
            let e = LocalServer::new(host, 25).map(|_| ()).unwrap_err();
            assert_eq!((e.class.word(), e.temporary), ("configuration", false), "{host}");
        }
    }
}
