//! The dialogue: what the stand-in says to one connection, and where it misbehaves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Mechanism, Misbehavior, StandinShared, TakenMessage, keep};
use crate::credential::Secret;

/// The longest command line, and how much of a message is read at once, in bytes.
const MAX_LINE: usize = 4096;

/// The largest message, in bytes; what SES calls 40 MB.
const MAX_MESSAGE: usize = 40 * 1024 * 1024;

const MAX_RECIPIENTS: usize = 1000;

/// So much of each message is kept, in bytes.
const KEPT_BODY: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Starttls,
    Implicit,
}

pub(super) async fn accept(shared: Arc<StandinShared>, listener: TcpListener, port: Port) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // The client is gone already, or the process has no descriptor left: there may be one later.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let room = shared.note(|state| {
                state.seen.connections += 1;
                state.open += 1;
                state.open <= shared.options.max_connections
            });
            // Clients that break off are as good as those that say QUIT.
            let _ = serve(&shared, socket, port, room).await;
            shared.note(|state| state.open -= 1);
        });
    }
}

/// One connection, from the first byte to the last. An error is the client's going away.
async fn serve(shared: &StandinShared, mut socket: TcpStream, port: Port, room: bool) -> io::Result<()> {
    if !room {
        return socket.write_all(b"421 Too many concurrent SMTP connections\r\n").await;
    }
    if shared.strikes(Misbehavior::DropAtConnect) {
        return Ok(());
    }
    if shared.strikes(Misbehavior::HangAtBanner) {
        return std::future::pending().await;
    }
    if port == Port::Starttls {
        let mut session = SmtpSession::new(shared, socket, false);
        session.starttls = !shared.strikes(Misbehavior::NoStarttls);
        session.greet().await?;
        match session.talk().await? {
            DialogueEnd::Closed => return Ok(()),
            DialogueEnd::Starttls => socket = session.io.into_inner(),
        }
    }
    let stream = timeout(shared.options.patience, shared.acceptor.accept(socket)).await??;
    let mut session = SmtpSession::new(shared, stream, true);
    if port == Port::Implicit {
        session.greet().await?;
    }
    session.talk().await?;
    // TLS wants its own good-bye (RFC 8446, section 6.1).
    session.io.get_mut().shutdown().await
}

enum DialogueEnd {
    Closed,
    Starttls,
}

/// Why a line was not read.
enum UnreadLine {
    Closed,
    TooLong,
    TooLate,
}

#[derive(Default)]
struct MailTransaction {
    from: String,
    to: Vec<String>,
}

struct SmtpSession<'a, S> {
    shared: &'a StandinShared,
    io: BufReader<S>,
    tls: bool,
    starttls: bool,
    username: Option<String>,
    envelope: Option<MailTransaction>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> SmtpSession<'a, S> {
    fn new(shared: &'a StandinShared, stream: S, tls: bool) -> Self {
        let io = BufReader::new(stream);
        Self { shared, io, tls, starttls: !tls, username: None, envelope: None }
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        let stream = self.io.get_mut();
        stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        stream.flush().await
    }

    async fn greet(&mut self) -> io::Result<()> {
        if self.shared.strikes(Misbehavior::Garbage) {
            return self.send("HTTP/1.1 400 Bad Request\r\n\r\n<html>no mail here</html>").await;
        }
        self.send("220 email-smtp.amazonaws.com ESMTP SimpleEmailService-d-STANDIN relaykey").await
    }

    /// Reads up to and including a line feed, at most [`MAX_LINE`] bytes of it, in the client's time.
    async fn read(&mut self) -> io::Result<Result<Vec<u8>, UnreadLine>> {
        let mut line = Vec::new();
        let mut limited = (&mut self.io).take(MAX_LINE as u64);
        match timeout(self.shared.options.patience, limited.read_until(b'\n', &mut line)).await {
            Err(_) => Ok(Err(UnreadLine::TooLate)),
            Ok(Err(e)) => Err(e),
            Ok(Ok(0)) => Ok(Err(UnreadLine::Closed)),
            Ok(Ok(_)) => Ok(Ok(line)),
        }
    }

    /// One command line, without its end. What is no command is answered here; `None` ends the session.
    async fn command(&mut self) -> io::Result<Option<String>> {
        let unread = match self.read().await? {
            Ok(line) if line.ends_with(b"\n") => {
                let text = line.trim_ascii_end();
                return Ok(Some(String::from_utf8_lossy(text).into_owned()));
            }
            Ok(line) if line.len() < MAX_LINE => UnreadLine::Closed,
            Ok(_) => UnreadLine::TooLong,
            Err(unread) => unread,
        };
        match unread {
            UnreadLine::Closed => {}
            UnreadLine::TooLong => self.send("500 Line too long").await?,
            UnreadLine::TooLate => self.send("451 4.4.2 Timeout waiting for data from client.").await?,
        }
        Ok(None)
    }

    async fn talk(&mut self) -> io::Result<DialogueEnd> {
        while let Some(line) = self.command().await? {
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let rest = rest.trim();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" if rest.is_empty() => self.send("501 Invalid host name").await?,
                "EHLO" => {
                    self.envelope = None;
                    let extensions = self.extensions();
                    self.send(&extensions).await?;
                }
                "HELO" => self.send("250 email-smtp.amazonaws.com").await?,
                "STARTTLS" if self.starttls => {
                    if self.shared.strikes(Misbehavior::InjectReplies) {
                        self.send("220 Ready to start TLS\r\n250-injected\r\n250 AUTH PLAIN\r\n235 injected").await?;
                    } else {
                        self.send("220 Ready to start TLS").await?;
                    }
                    // What came with the command came in plain text (RFC 3207, section 4.2).
                    return Ok(if self.io.buffer().is_empty() { DialogueEnd::Starttls } else { DialogueEnd::Closed });
                }
                "STARTTLS" => self.send("502 Command not implemented").await?,
                "AUTH" => match self.auth(rest).await? {
                    Some(reply) => self.send(&reply).await?,
                    None => return Ok(DialogueEnd::Closed),
                },
                "MAIL" if self.username.is_none() => {
                    let first = if self.tls { "530 Authentication required" } else { MUST_STARTTLS };
                    self.send(first).await?;
                }
                "MAIL" if self.envelope.is_some() => self.send("503 Error: nested MAIL command").await?,
                "MAIL" => match address(rest, "FROM:") {
                    Some(from) => {
                        self.envelope = Some(MailTransaction { from, to: Vec::new() });
                        self.send("250 Ok").await?;
                    }
                    None => self.send("501 Invalid MAIL FROM address provided").await?,
                },
                "RCPT" => {
                    let reply = match (&mut self.envelope, address(rest, "TO:")) {
                        (None, _) => "503 Error: need MAIL command",
                        (Some(_), None) => "501 Invalid RCPT TO address provided",
                        _ if self.shared.strikes(Misbehavior::RecipientLater) => "451 Local error in processing",
                        _ if self.shared.strikes(Misbehavior::RecipientNever) => "550 No such mailbox",
                        (Some(envelope), _) if envelope.to.len() == MAX_RECIPIENTS => "452 Too many recipients",
                        (Some(envelope), Some(to)) => {
                            envelope.to.push(to);
                            "250 Ok"
                        }
                    };
                    self.send(reply).await?;
                }
                "DATA" => match self.envelope.take() {
                    Some(envelope) if !envelope.to.is_empty() => {
                        if !self.data(envelope).await? {
                            return Ok(DialogueEnd::Closed);
                        }
                    }
                    Some(envelope) => {
                        self.envelope = Some(envelope);
                        self.send("503 Error: need RCPT command").await?;
                    }
                    None => self.send("503 Error: need MAIL command").await?,
                },
                "RSET" => {
                    self.envelope = None;
                    self.send("250 Ok").await?;
                }
                "NOOP" => self.send("250 Ok").await?,
                "VRFY" => self.send("252 Cannot verify, but will try to deliver").await?,
                "QUIT" => {
                    self.shared.note(|state| state.seen.quits += 1);
                    if self.shared.strikes(Misbehavior::HangAtQuit) {
                        return std::future::pending().await;
                    }
                    self.send("221 Bye").await?;
                    return Ok(DialogueEnd::Closed);
                }
                _ => self.send("500 Error: command not implemented").await?,
            }
        }
        Ok(DialogueEnd::Closed)
    }

    fn extensions(&self) -> String {
        let mut lines = vec!["email-smtp.amazonaws.com".to_owned(), "8BITMIME".into(), format!("SIZE {MAX_MESSAGE}")];
        if self.starttls {
            lines.push("STARTTLS".into());
        }
        if self.tls {
            let names = self.shared.options.mechanisms.iter().map(|m| match m {
                Mechanism::Plain => " PLAIN",
                Mechanism::Login => " LOGIN",
            });
            lines.push(format!("AUTH{}", names.collect::<String>()));
        }
        let lines: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
        lines + "250 Ok"
    }

    /// AUTH (RFC 4954): the reply, or `None` when the session is over.
    async fn auth(&mut self, rest: &str) -> io::Result<Option<String>> {
        if !self.tls {
            return Ok(Some(MUST_STARTTLS.into()));
        }
        if self.username.is_some() || self.envelope.is_some() {
            return Ok(Some("503 Error: already authenticated".into()));
        }
        let (name, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let initial = (!initial.is_empty()).then(|| initial.trim().to_owned());
        let mechanism = match name.to_ascii_uppercase().as_str() {
            "PLAIN" => Mechanism::Plain,
            "LOGIN" => Mechanism::Login,
            _ => return Ok(Some("504 Unrecognized authentication type".into())),
        };
        if !self.shared.options.mechanisms.contains(&mechanism) {
            return Ok(Some("504 Unrecognized authentication type".into()));
        }
        // RFC 4616 for PLAIN: authorisation identity, user name and password, each after a NUL but the first.
        let (encoded, pair) = match mechanism {
            Mechanism::Plain => {
                let Some(encoded) = self.answer(initial, "").await? else { return Ok(None) };
                let pair = decode(&encoded).and_then(|text| {
                    let mut parts = text.split('\0');
                    let (identity, user, password) = (parts.next()?, parts.next()?, parts.next()?);
                    let ours = parts.next().is_none() && (identity.is_empty() || identity == user);
                    ours.then(|| (user.to_owned(), Secret::new(password.to_owned())))
                });
                (encoded, pair)
            }
            Mechanism::Login => {
                let Some(user) = self.answer(initial, "Username:").await? else { return Ok(None) };
                let Some(encoded) = self.answer(None, "Password:").await? else { return Ok(None) };
                let pair = decode(&user).zip(decode(&encoded).map(Secret::new));
                (encoded, pair)
            }
        };
        if encoded == "*" {
            return Ok(Some("501 Authentication cancelled".into()));
        }
        self.faulty_answer(&encoded, rest).await.map(|fault| match (fault, pair) {
            (AuthAnswer::End, _) => None,
            (AuthAnswer::Reply(reply), _) => Some(reply),
            (AuthAnswer::Judge, None) => Some("501 Invalid base64 data".into()),
            (AuthAnswer::Judge, Some((user, password))) => {
                let accepted = self.shared.accepts(&user, &password, self.tls, mechanism);
                self.username = accepted.then_some(user);
                Some(if accepted { "235 Authentication successful." } else { REFUSED }.into())
            }
        })
    }

    /// What the client says in answer to a question; what it said unasked counts as the answer.
    async fn answer(&mut self, initial: Option<String>, question: &str) -> io::Result<Option<String>> {
        match initial {
            // RFC 4954, section 4: a lone "=" is an empty answer.
            Some(text) if text == "=" => Ok(Some(String::new())),
            Some(text) => Ok(Some(text)),
            None => {
                self.send(&format!("334 {}", BASE64.encode(question))).await?;
                self.command().await
            }
        }
    }

    async fn faulty_answer(&mut self, encoded: &str, command: &str) -> io::Result<AuthAnswer> {
        let strikes = |fault| self.shared.strikes(fault);
        if strikes(Misbehavior::HangAtAuth) {
            return std::future::pending().await;
        }
        if strikes(Misbehavior::DropAfterAuth) {
            return Ok(AuthAnswer::End);
        }
        if strikes(Misbehavior::Reply454) {
            return Ok(AuthAnswer::Reply("454 Temporary authentication failure".into()));
        }
        if strikes(Misbehavior::EchoAuth) {
            let cut: String = encoded.chars().take(encoded.len() * 2 / 3).collect();
            let raw = decode(encoded).unwrap_or_default();
            let quoted = format!("535-AUTH {command}\r\n535-{encoded}\r\n535-{cut}...\r\n535-{raw}");
            let shouted = encoded.to_ascii_uppercase();
            return Ok(AuthAnswer::Reply(format!("{quoted}\r\n535-{shouted}\r\n{REFUSED}")));
        }
        if strikes(Misbehavior::CutReply) {
            self.io.get_mut().write_all(b"23").await?;
            self.io.get_mut().flush().await?;
            return Ok(AuthAnswer::End);
        }
        if strikes(Misbehavior::HugeReply) {
            return Ok(AuthAnswer::Reply(format!("{}{REFUSED}", "535-and so on and so on\r\n".repeat(80_000))));
        }
        Ok(AuthAnswer::Judge)
    }

    /// DATA, from 354 to the answer. `false` when the session is over.
    async fn data(&mut self, envelope: MailTransaction) -> io::Result<bool> {
        self.send("354 End data with <CR><LF>.<CR><LF>").await?;
        let (mut text, mut size, mut line_start) = (Vec::new(), 0usize, true);
        loop {
            let part = match self.read().await? {
                Ok(part) => part,
                Err(UnreadLine::TooLate) => {
                    self.send("451 4.4.2 Timeout waiting for data from client.").await?;
                    return Ok(false);
                }
                Err(_) => return Ok(false),
            };
            if line_start && part == b".\r\n" {
                break;
            }
            // RFC 5321, section 4.5.2: a line's leading dot was added for transparency.
            let content = if line_start && part.starts_with(b".") { &part[1..] } else { &part[..] };
            size = size.saturating_add(content.len());
            let room = KEPT_BODY.saturating_sub(text.len()).min(content.len());
            text.extend_from_slice(&content[..room]);
            line_start = part.ends_with(b"\r\n");
        }
        let Some(username) = self.username.clone() else { return Ok(false) };
        if size > MAX_MESSAGE {
            self.send("552 Message is too long.").await?;
            return Ok(true);
        }
        if self.shared.strikes(Misbehavior::HangAtData) {
            return std::future::pending().await;
        }
        if self.shared.strikes(Misbehavior::EchoAtData) {
            let password =
                self.shared.lock().keys.get(&username).cloned().unwrap_or_else(|| Secret::new(String::new()));
            let plain = BASE64.encode(format!("\0{username}\0{}", password.expose()));
            self.send(&format!("554-{}\r\n554-AUTH PLAIN {plain}\r\n554 Message rejected", password.expose())).await?;
            return Ok(true);
        }
        if self.shared.strikes(Misbehavior::Throttle) {
            self.send("454 Throttling failure: Maximum sending rate exceeded.").await?;
            return Ok(true);
        }
        let reply = self.shared.note(|state| {
            if state.unverified.contains(&envelope.from) {
                return format!(
                    "554 Message rejected: Email address is not verified. The following identities failed the check in \
                     region US-EAST-1: {}",
                    envelope.from
                );
            }
            if state.denied.contains(&username) {
                return format!(
                    "554 Access denied: User `{username}' is not authorized to perform `ses:SendRawEmail' on resource \
                     `arn:aws:ses:us-east-1:123456789012:identity/*'"
                );
            }
            state.seen.taken += 1;
            let id = format!("0100standin{:08}-000000", state.seen.taken);
            let subject = subject(&text);
            let MailTransaction { from, to } = envelope;
            let message =
                TakenMessage { id: id.clone(), username, from, to, at: Timestamp::now(), size, subject, text };
            keep(&mut state.seen.messages, message);
            format!("250 Ok {id}")
        });
        self.send(&reply).await?;
        Ok(true)
    }
}

const MUST_STARTTLS: &str = "530 Must issue a STARTTLS command first";

const REFUSED: &str = "535 Authentication Credentials Invalid";

enum AuthAnswer {
    /// Look at user name and password.
    Judge,
    Reply(String),
    /// Close the connection.
    End,
}

fn decode(encoded: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(encoded).ok()?).ok()
}

/// The address in `FROM:<address> PARAMETERS`.
fn address(rest: &str, keyword: &str) -> Option<String> {
    let rest = rest.get(..keyword.len()).filter(|k| k.eq_ignore_ascii_case(keyword)).map(|k| &rest[k.len()..])?;
    let (address, _) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    Some(address.to_owned())
}

fn subject(text: &[u8]) -> String {
    let header = text.split(|b| *b == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    let mut fields = header.map(String::from_utf8_lossy);
    let found = fields.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("subject").then(|| value.trim().to_owned())
    });
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};
    use std::time::Instant;

    use tokio_rustls::TlsAcceptor;

    use super::super::{Delay, Options, certify};
    use super::*;

    fn shared(options: Options) -> StandinShared {
        let (config, _) = certify(&options).expect("certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = StandinShared { state: Mutex::default(), changed: Condvar::new(), acceptor, options };
        shared.lock().keys.insert("AKIAEXAMPLE".into(), Secret::new("secret".into()));
        shared
    }

    /// Holds a dialogue with a session as if inside TLS, or outside: lines beginning with `C: ` are said, those with
    /// `S: ` must be the answers.
    fn transcript(shared: &StandinShared, tls: bool, lines: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("run time");
        runtime.block_on(async {
            let (client, server) = tokio::io::duplex(1 << 20);
            let (mut client, mut session) = (BufReader::new(client), SmtpSession::new(shared, server, tls));
            let said = async {
                for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    if let Some(said) = line.strip_prefix("C: ") {
                        client.write_all(format!("{said}\r\n").as_bytes()).await.expect("write");
                    } else {
                        let expected = line.strip_prefix("S: ").expect("C: or S:");
                        let mut got = String::new();
                        client.read_line(&mut got).await.expect("read");
                        assert_eq!(got.trim_end(), expected, "in {lines}");
                    }
                }
                drop(client);
            };
            let (ended, ()) = tokio::join!(session.talk(), said);
            assert!(ended.is_ok(), "the session broke off in {lines}");
        });
    }

    #[test]
    fn it_talks_as_ses_does() {
        let shared = shared(Options::default());
        let table = [
            (
                false,
                "C: EHLO x\nS: 250-email-smtp.amazonaws.com\nS: 250-8BITMIME\nS: 250-SIZE 41943040\nS: 250-STARTTLS\nS: 250 Ok",
            ),
            (
                true,
                "C: EHLO x\nS: 250-email-smtp.amazonaws.com\nS: 250-8BITMIME\nS: 250-SIZE 41943040\nS: 250-AUTH PLAIN LOGIN\nS: 250 Ok",
            ),
            (false, "C: AUTH PLAIN AEFLSUFFWEFNUExFAHNlY3JldA==\nS: 530 Must issue a STARTTLS command first"),
            (false, "C: MAIL FROM:<a@b>\nS: 530 Must issue a STARTTLS command first"),
            (true, "C: STARTTLS\nS: 502 Command not implemented"),
            (true, "C: MAIL FROM:<a@b>\nS: 530 Authentication required"),
            (true, "C: RCPT TO:<a@b>\nS: 503 Error: need MAIL command\nC: DATA\nS: 503 Error: need MAIL command"),
            (true, "C: NONSENSE\nS: 500 Error: command not implemented\nC: NOOP\nS: 250 Ok\nC: RSET\nS: 250 Ok"),
            (true, "C: VRFY a\nS: 252 Cannot verify, but will try to deliver\nC: quit\nS: 221 Bye"),
            (true, "C: AUTH PLAIN AEFLSUFFWEFNUExFAHNlY3JldA==\nS: 235 Authentication successful."),
            (true, "C: AUTH PLAIN\nS: 334\nC: AEFLSUFFWEFNUExFAHNlY3JldA==\nS: 235 Authentication successful."),
            (true, "C: AUTH PLAIN QUtJQUVYQU1QTEUAQUtJQUVYQU1QTEUAc2VjcmV0\nS: 235 Authentication successful."),
            (
                true,
                "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: QUtJQUVYQU1QTEU=\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235 Authentication successful.",
            ),
            (
                true,
                "C: AUTH LOGIN QUtJQUVYQU1QTEU=\nS: 334 UGFzc3dvcmQ6\nC: d3Jvbmc=\nS: 535 Authentication Credentials Invalid",
            ),
            (true, "C: AUTH PLAIN\nS: 334\nC: *\nS: 501 Authentication cancelled"),
            (
                true,
                "C: AUTH PLAIN ????\nS: 501 Invalid base64 data\nC: AUTH CRAM-MD5\nS: 504 Unrecognized authentication type",
            ),
        ];
        for (tls, lines) in table {
            transcript(&shared, tls, lines);
        }
    }

    #[test]
    fn a_message_is_taken_as_it_was_meant() {
        let shared = shared(Options::default());
        let login = "C: AUTH PLAIN AEFLSUFFWEFNUExFAHNlY3JldA==\nS: 235 Authentication successful.";
        let message = "
            C: MAIL FROM:<a@example.com> BODY=8BITMIME SIZE=99
            S: 250 Ok
            C: MAIL FROM:<again@example.com>
            S: 503 Error: nested MAIL command
            C: DATA
            S: 503 Error: need RCPT command
            C: RCPT TO:nobody
            S: 501 Invalid RCPT TO address provided
            C: RCPT TO:<b@example.com>
            S: 250 Ok
            C: DATA
            S: 354 End data with <CR><LF>.<CR><LF>
            C: Received: from here
            C: SUBJECT:  Hello there
            C: ..dot
            C: .";
        transcript(&shared, true, &format!("{login}{message}\nS: 250 Ok 0100standin00000001-000000"));
        shared.lock().denied.insert("AKIAEXAMPLE".into());
        let denied = "S: 554 Access denied: User `AKIAEXAMPLE' is not authorized to perform `ses:SendRawEmail' on \
                      resource `arn:aws:ses:us-east-1:123456789012:identity/*'";
        transcript(&shared, true, &format!("{login}{message}\n{denied}"));
        let seen = shared.lock().seen.clone();
        assert_eq!((seen.taken, seen.messages.len(), seen.logins.len()), (1, 1, 2));
        let got = &seen.messages[0];
        assert_eq!((got.from.as_str(), got.to.as_slice()), ("a@example.com", &["b@example.com".to_owned()][..]));
        assert_eq!((got.subject.as_str(), got.size), ("Hello there", got.text.len()));
        assert!(got.text.ends_with(b"\r\n.dot\r\n"));
    }

    #[test]
    fn limits_hold() {
        let shared = shared(Options { patience: Duration::from_millis(50), ..Options::default() });
        transcript(&shared, true, &format!("C: NOOP {}\nS: 500 Line too long", "x".repeat(MAX_LINE)));
        transcript(&shared, true, "S: 451 4.4.2 Timeout waiting for data from client.");
    }

    #[test]
    fn a_key_is_refused_for_as_long_as_it_should_be() {
        let shared = shared(Options::default());
        let (user, secret) = ("AKIAEXAMPLE", Secret::new("secret".into()));
        let attempt = || shared.accepts(user, &secret, true, Mechanism::Plain);
        shared.lock().delays.insert(user.into(), Delay::Refusals(2));
        assert_eq!([attempt(), attempt(), attempt()], [false, false, true]);
        shared.lock().delays.insert(user.into(), Delay::Until(Instant::now() + Duration::from_secs(3600)));
        assert!(!attempt());
        shared.lock().delays.insert(user.into(), Delay::Until(Instant::now()));
        assert!(attempt());
        shared.lock().inactive.insert(user.into());
        assert!(!attempt());
        assert!(!shared.accepts("AKIAUNKNOWN", &secret, true, Mechanism::Plain));
    }
}
