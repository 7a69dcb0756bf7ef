//! Logs in at an SMTP endpoint and says what that proves (RFC 5321, RFC 3207 STARTTLS, RFC 4954 AUTH).
//!
//! The dialogue: resolve the endpoint's name, connect to one of its addresses, greeting and EHLO, TLS (before the
//! greeting with `implicit`, after EHLO with `starttls`), AUTH PLAIN, or LOGIN where PLAIN is not offered, QUIT. One
//! deadline bounds all of it. The certificate and the endpoint's name in it are always checked. [`login`] sends nothing
//! but the login; [`send`] and [`probe`] hand one message over before QUIT, since a server may take a login and then no
//! mail that comes over it.
//!
//! [`dialogue`] speaks SMTP, and not a library: what those kept of the plain text sent along with the answer to STARTTLS they
//! read as answers *inside* TLS, so that anybody on the path could say "235" in the server's name; they do not tell a closed
//! connection from a reply that makes no sense, take a bare "235" for the latter, wait for the answer to QUIT before they tell
//! of a refusal, and let through line ends that begin another command.

pub(crate) mod dialogue;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use lettre::Address;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use self::dialogue::{Dialogue, DialogueError, SmtpCommand, SmtpReply, Unfit};
use crate::config::{Probe, Smtp, Tls};
use crate::credential::{Login, Redactor, Secret, is_access_key_id, ses_region};
use crate::fault::Class;
use crate::net::{self, NotConnected};
use crate::text::line;
use crate::tls::{self, Roots, TrustError, cause};

/// How long the answer to QUIT is waited for, within the deadline. By then the verdict is known.
const QUIT_WAIT: Duration = Duration::from_secs(1);

/// No configuration means more than this by `timeout`; it keeps the deadline representable.
const LONGEST: Duration = Duration::from_secs(3600);

/// How many bytes of replies are read in each part of a dialogue; a login takes some hundred.
const MAX_HEARD: usize = 16 * 1024;

/// What is waited for at first.
const GREETING: &str = "its greeting and the answer to EHLO";
/// What to do about somebody who does not speak SMTP.
const NO_SMTP: &str = "check endpoint and port; if they are right, something on the way (a firewall, a proxy) or the server in trouble \
                       answered: it is tried again";

/// What a dialogue runs over.
trait SmtpStream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> SmtpStream for T {}

/// What one login attempt says about the credential. Only `Refused` blames it.
///
/// Every text in it is fit for logs: no form of the password, no user name that is no access key id, no control characters, on
/// one line, of the first 4 at most 512 bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum LoginVerdict {
    /// 235. The reply as the server worded it, with its code.
    Accepted { reply: String },
    /// 535: the server knows the credential and says no, or does not know it yet. The reply, with its code.
    Refused { reply: String },
    /// Nothing was proved: network, TLS, time-out, 4xx, any other 5xx. `fix` is what a person can do, where there is
    /// something.
    Unknown { class: Class, temporary: bool, words: String, fix: Option<String> },
}

impl LoginVerdict {
    /// Will the same attempt, made later, perhaps end otherwise without anybody doing anything? A refusal is not
    /// temporary by itself: how long a 535 means "not yet" is for the `propagation` setting to say.
    pub fn is_temporary(&self) -> bool {
        matches!(self, LoginVerdict::Unknown { temporary: true, .. })
    }
}

/// No login was tried, as there is nothing to check the server's certificate against.
impl From<TrustError> for LoginVerdict {
    fn from(error: TrustError) -> Self {
        LoginVerdict::Unknown {
            class: Class::Trust,
            temporary: error.is_temporary(),
            words: Redactor::default().clean(&error.to_string()),
            fix: Some(error.fix()),
        }
    }
}

/// Logs in once at `smtp.endpoint` and says QUIT. `hello_name` is this host's name for EHLO; where it is no host name,
/// the address literal that RFC 5321, section 4.1.4 allows instead is sent.
///
/// Ends within `smtp.timeout`, name resolution and QUIT included. Needs a tokio run time with I/O and time. Dropping
/// the future ends the dialogue.
pub async fn login(smtp: &Smtp, login: &Login, roots: &Roots, hello_name: &str) -> LoginVerdict {
    dialogue(smtp, login, roots, hello_name, None).await
}

/// A message of ASCII lines of at most 998 characters, header included. One that is none is not sent.
#[derive(Debug, Clone, Copy)]
pub struct OutgoingMessage<'a> {
    pub from: &'a str,
    pub to: &'a str,
    pub text: &'a str,
}

/// As [`login`], and sends one message over the login. `Accepted` carries the answer to the end of DATA. Where the login
/// is accepted and the message then refused for good, the class is [`Class::Policy`].
pub async fn send(
    smtp: &Smtp,
    login: &Login,
    roots: &Roots,
    hello_name: &str,
    message: OutgoingMessage<'_>,
) -> LoginVerdict {
    dialogue(smtp, login, roots, hello_name, Some(message)).await
}

/// What a probe is about, for those who find the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed<'a> {
    /// This host, as reports name it.
    pub host: &'a str,
    /// The credential's name.
    pub credential: &'a str,
    /// The version that the login is of.
    pub version: &'a str,
    /// Now.
    pub at: Timestamp,
}

/// Sends the message of `[credential.probe]` over a login ([`send`]): may it send mail, and as this sender?
///
/// A message that was given up while its answer was waited for may have been taken all the same.
pub async fn probe(
    smtp: &Smtp,
    login: &Login,
    roots: &Roots,
    hello_name: &str,
    probe: &Probe,
    about: &Probed<'_>,
) -> LoginVerdict {
    let text = probe_message(probe, about);
    let message = OutgoingMessage { from: &probe.from, to: &probe.to, text: &text };
    send(smtp, login, roots, hello_name, message).await
}

/// A probe's header and body (RFC 5322; `Auto-Submitted` is RFC 3834's, so that no vacation answers it): ASCII lines that
/// end with CR LF.
pub fn probe_message(probe: &Probe, about: &Probed<'_>) -> String {
    // A name from the operating system may hold anything; in a header a line end would begin another field.
    let plain =
        |text: &str| -> String { text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(200).collect() };
    let (host, credential, version) = (plain(about.host), plain(about.credential), plain(about.version));
    let (from, to) = (plain(&probe.from), plain(&probe.to));
    let date = about.at.strftime("%a, %d %b %Y %H:%M:%S +0000");
    // RFC 5322, section 3.6.4: unique, and on its right a domain of ours.
    let atom: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let domain = from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let id = format!("relaykey-probe.{credential}.{atom}.{}@{domain}", about.at.as_nanosecond());
    [
        &format!("From: {from}"),
        &format!("To: {to}"),
        &format!("Subject: relaykey probe: {credential} on {host}"),
        &format!("Date: {date}"),
        &format!("Message-ID: <{id}>"),
        "Auto-Submitted: auto-generated",
        "",
        &format!("relaykey on {host} sent this over version {version} of the credential {credential},"),
        "to see whether it may send mail before it is put in place. Nothing is to be done about it.",
        "",
    ]
    .join("\r\n")
}

async fn dialogue(
    smtp: &Smtp,
    login: &Login,
    roots: &Roots,
    hello_name: &str,
    message: Option<OutgoingMessage<'_>>,
) -> LoginVerdict {
    let deadline = Instant::now() + smtp.timeout.min(LONGEST);
    let attempt = AttemptContext {
        smtp,
        login,
        roots,
        hello: introduction(hello_name),
        deadline,
        texts: words_without(login),
        message,
    };
    attempt.run().await.unwrap_or_else(|verdict| verdict)
}

/// Hides the password; and a user name that is no access key id, in whose place a password may stand.
fn words_without(login: &Login) -> Redactor {
    if is_access_key_id(&login.username) {
        return Redactor::new([login]);
    }
    let username = Login { username: String::new(), password: Secret::new(login.username.clone()) };
    Redactor::new([login, &username])
}

struct AttemptContext<'a> {
    smtp: &'a Smtp,
    login: &'a Login,
    roots: &'a Roots,
    /// What EHLO says.
    hello: String,
    deadline: Instant,
    texts: Redactor,
    message: Option<OutgoingMessage<'a>>,
}

impl AttemptContext<'_> {
    /// The whole dialogue. What ends it early is its verdict, as the error.
    async fn run(&self) -> Result<LoginVerdict, LoginVerdict> {
        let mut socket = self.connect().await?;
        if self.smtp.tls == Tls::Starttls {
            socket = self.starttls(socket).await?;
        }
        let mut inside = Dialogue::new(self.handshake(socket).await?, MAX_HEARD);
        if self.smtp.tls == Tls::Implicit {
            self.greeted(&mut inside).await?;
        }
        let offers = self.hello(&mut inside).await?;
        let mut verdict = self.authenticate(&mut inside, &offers).await;
        if let (Ok(LoginVerdict::Accepted { .. }), Some(message)) = (&verdict, self.message) {
            verdict = self.hand_over(&mut inside, message).await;
        }
        self.quit(&mut inside).await;
        verdict
    }

    /// MAIL, RCPT, DATA and the message. `Accepted` carries the answer to its end.
    async fn hand_over<S: SmtpStream>(
        &self,
        dialogue: &mut Dialogue<S>,
        message: OutgoingMessage<'_>,
    ) -> Result<LoginVerdict, LoginVerdict> {
        let address = |text: &str| match text.parse::<Address>() {
            Ok(_) => Ok(()),
            Err(_) => {
                let words = format!("{text:?} is not a mail address");
                Err(self.unknown(Class::Smtp, false, words, Some("correct the address".into())))
            }
        };
        address(message.from)?;
        address(message.to)?;
        let unfit = |e: Unfit| self.unfit(&e);
        // All of it is looked at before any of it is said.
        let (mail, rcpt) =
            (SmtpCommand::mail(message.from).map_err(unfit)?, SmtpCommand::rcpt(message.to).map_err(unfit)?);
        let text = dialogue::WireMessage::new(message.text.as_bytes()).map_err(unfit)?;
        let sender = message.from;
        for (command, waiting, wanted) in [
            (mail, "the answer to MAIL", 2),
            (rcpt, "the answer to RCPT", 2),
            (SmtpCommand::fixed("DATA"), "the answer to DATA", 3),
        ] {
            let reply = self.heard(waiting, dialogue.ask(&command)).await?;
            self.taken(&reply, wanted, waiting, sender)?;
        }
        let waiting = "the answer to the message";
        let reply = self.heard(waiting, dialogue.hand_over(&text)).await?;
        self.taken(&reply, 2, waiting, sender)?;
        Ok(LoginVerdict::Accepted { reply: self.texts.clean(&reply.to_string()) })
    }

    /// Is that a yes, one of these hundreds? Else why a message was not taken over a login that was.
    fn taken(&self, reply: &SmtpReply, hundred: u16, waiting: &str, sender: &str) -> Result<(), LoginVerdict> {
        match reply.code / 100 {
            yes if yes == hundred => Ok(()),
            5 => {
                let reply = reply.to_string();
                let fix = self.policy_fix(&reply, sender);
                let words = format!("it accepted the login and then refused the message: {reply}");
                Err(self.unknown(Class::Policy, false, words, Some(fix)))
            }
            4 => {
                let words = format!("it accepted the login and does not take the message now: {reply}");
                Err(self.unknown(Class::Smtp, true, words, Some("it is tried again".into())))
            }
            _ => Err(self.nonsense(waiting, reply)),
        }
    }

    /// What to do about a message that is refused for good; the words are those of the SES developer guide, "SMTP response
    /// codes".
    fn policy_fix(&self, reply: &str, sender: &str) -> String {
        let reply = reply.to_ascii_lowercase();
        let region = self.smtp.region.clone().or_else(|| ses_region(&self.smtp.endpoint));
        let region = region.map_or_else(|| "the endpoint's region".to_owned(), |region| format!("region {region}"));
        if reply.contains("not verified") {
            format!(
                "verify the identity of {sender} (the address or its domain) in {region}, or correct `from` of \
                 [credential.probe]; while the account is in SES's sandbox, the recipient must be verified too"
            )
        } else if reply.contains("access denied") || reply.contains("not authorized") {
            format!(
                "allow ses:SendRawEmail to the IAM user of this key, for the identity of {sender} in {region}; conditions \
                 of the policy, such as ses:FromAddress, a permissions boundary and the organization's policies count \
                 too. The password is right"
            )
        } else if reply.contains("suspended") || reply.contains("paused") || reply.contains("shut down") {
            format!("look at the account's status in the SES console, {region}: SES does not let it send")
        } else {
            "read the server's words; if it is the sender or the recipient, correct `from` or `to` of [credential.probe]. \
             The password is right"
                .to_owned()
        }
    }

    async fn connect(&self) -> Result<TcpStream, LoginVerdict> {
        let addresses =
            self.within("the addresses of its name", net::resolve(net::SYSTEM, self.host(), self.smtp.port)).await?;
        let addresses = addresses.map_err(|e| {
            let fix = format!("check the spelling of endpoint {:?}, and this host's DNS", self.smtp.endpoint);
            self.unknown(Class::Network, true, format!("its name cannot be resolved: {e}"), Some(fix))
        })?;
        let blocked = match self.smtp.port {
            // AWS lifts the limit on request only.
            25 => "allow outgoing TCP port 25, which EC2 limits by default, or use port 587 or 2587".to_owned(),
            port => format!("allow outgoing TCP port {port} to it, and check that this is its port"),
        };
        match net::connect(&addresses, self.deadline).await {
            Ok((socket, _)) => Ok(socket),
            Err(NotConnected { timed_out, tried }) => {
                let class = if timed_out { Class::Timeout } else { Class::Network };
                Err(self.unknown(class, true, format!("cannot connect ({tried})"), Some(blocked)))
            }
        }
    }

    /// The part in plain text (RFC 3207): gives the socket back when the server waits for the TLS handshake.
    async fn starttls(&self, socket: TcpStream) -> Result<TcpStream, LoginVerdict> {
        let mut plain = Dialogue::new(socket, MAX_HEARD);
        self.greeted(&mut plain).await?;
        let offers = self.hello(&mut plain).await?;
        if !offers.extensions().any(|(keyword, _)| keyword == "STARTTLS") {
            self.quit(&mut plain).await;
            let fix = "relaykey never logs in without TLS: check endpoint and port, look for a firewall on the way \
                       that strips STARTTLS, or use tls = \"implicit\" with port 465";
            return Err(self.unknown(Class::Tls, false, "it does not offer STARTTLS".into(), Some(fix.into())));
        }
        let waiting = "the answer to STARTTLS";
        let reply = self.heard(waiting, plain.ask(&SmtpCommand::fixed("STARTTLS"))).await?;
        match reply.code {
            220 => Ok(plain.into_inner()),
            400.. => {
                self.quit(&mut plain).await;
                Err(self.said(&reply, When::BeforeTheLogin))
            }
            _ => Err(self.nonsense(waiting, &reply)),
        }
    }

    async fn handshake(&self, socket: TcpStream) -> Result<TlsStream<Recorded>, LoginVerdict> {
        let name = ServerName::try_from(self.host().to_owned()).map_err(|_| {
            let words = format!("{:?} is neither a host name nor an address", self.smtp.endpoint);
            self.unknown(Class::Tls, false, words, Some("correct `endpoint`".into()))
        })?;
        let connector = TlsConnector::from(Arc::new(self.roots.client_config()));
        let waiting = "the TLS handshake";
        let connecting = connector.connect(name, Recorded { socket, first: Vec::new() }).into_fallible();
        self.within(waiting, connecting).await?.map_err(|(e, socket)| match cause::<rustls::Error>(&e) {
            Some(rustls::Error::InvalidMessage(_)) if !is_tls(&socket.first) => self.not_tls(&socket.first),
            _ => self.failure(&e, waiting),
        })
    }

    /// The greeting.
    async fn greeted<S: SmtpStream>(&self, dialogue: &mut Dialogue<S>) -> Result<(), LoginVerdict> {
        let reply = self.heard(GREETING, dialogue.reply()).await.map_err(|verdict| self.silent(verdict))?;
        match reply.code {
            220 => Ok(()),
            400.. => Err(self.said(&reply, When::BeforeTheLogin)),
            _ => Err(self.nonsense("its greeting", &reply)),
        }
    }

    /// EHLO, and what the server offers.
    async fn hello<S: SmtpStream>(&self, dialogue: &mut Dialogue<S>) -> Result<SmtpReply, LoginVerdict> {
        let command = SmtpCommand::hello(&self.hello).map_err(|e| self.unfit(&e))?;
        let reply = self.heard(GREETING, dialogue.ask(&command)).await?;
        match reply.code {
            250 => Ok(reply),
            400.. => Err(self.said(&reply, When::BeforeTheLogin)),
            _ => Err(self.nonsense("the answer to EHLO", &reply)),
        }
    }

    /// What one step of the dialogue was answered with, within the deadline.
    async fn heard(
        &self,
        waiting: &str,
        step: impl Future<Output = Result<SmtpReply, DialogueError>>,
    ) -> Result<SmtpReply, LoginVerdict> {
        self.within(waiting, step).await?.map_err(|broken| match broken {
            DialogueError::Lost(e) => self.failure(&e, waiting),
            DialogueError::Nonsense(what) => {
                let words = format!("what came instead of {waiting} is not SMTP: {what}");
                self.unknown(Class::Smtp, true, words, Some(NO_SMTP.into()))
            }
        })
    }

    /// RFC 5321, section 4.1.1.10: to be said whatever came before. What becomes of it changes nothing.
    async fn quit<S: SmtpStream>(&self, dialogue: &mut Dialogue<S>) {
        let until = self.deadline.min(Instant::now() + QUIT_WAIT);
        let _ = timeout_at(until, dialogue.ask(&SmtpCommand::fixed("QUIT"))).await;
    }

    /// AUTH, and what its answer proves. PLAIN sends the login at once (RFC 4616); LOGIN is asked for the user name and
    /// then for the password.
    async fn authenticate<S: SmtpStream>(
        &self,
        dialogue: &mut Dialogue<S>,
        offers: &SmtpReply,
    ) -> Result<LoginVerdict, LoginVerdict> {
        let waiting = "the answer to AUTH";
        let offered = |mechanism: &str| {
            let names = |rest: &str| rest.split_ascii_whitespace().any(|name| name.eq_ignore_ascii_case(mechanism));
            offers.extensions().any(|(keyword, rest)| keyword == "AUTH" && names(rest))
        };
        let (user, password) = (&self.login.username, self.login.password.expose());
        let encoded = |text: &str| Zeroizing::new(BASE64.encode(text));
        let lines = if offered("PLAIN") {
            let plain = Zeroizing::new(format!("\0{user}\0{password}"));
            vec![Zeroizing::new(format!("AUTH PLAIN {}", *encoded(&plain)))]
        } else if offered("LOGIN") {
            vec![Zeroizing::new("AUTH LOGIN".to_owned()), encoded(user), encoded(password)]
        } else {
            let fix = "check endpoint and port: SES offers AUTH PLAIN LOGIN";
            let words = "it offers neither AUTH PLAIN nor AUTH LOGIN";
            return Err(self.unknown(Class::Smtp, false, words.into(), Some(fix.into())));
        };
        let last = lines.len() - 1;
        for (n, line) in lines.iter().enumerate() {
            let command = SmtpCommand::auth(line).map_err(|e| self.unfit(&e))?;
            let reply = self.heard(waiting, dialogue.ask(&command)).await?;
            let words = || self.texts.clean(&reply.to_string());
            match reply.code {
                // Before all of the login was said, nothing can have been accepted.
                235 if n == last => return Ok(LoginVerdict::Accepted { reply: words() }),
                535 => return Ok(LoginVerdict::Refused { reply: words() }),
                334 if n < last => {}
                400.. => return Err(self.said(&reply, When::AtTheLogin)),
                _ => return Err(self.nonsense(waiting, &reply)),
            }
        }
        unreachable!("the last line was answered")
    }

    /// The endpoint as certificates and the resolver spell it.
    fn host(&self) -> &str {
        self.smtp.endpoint.trim_end_matches('.')
    }

    async fn within<T>(&self, waiting: &str, step: impl Future<Output = T>) -> Result<T, LoginVerdict> {
        timeout_at(self.deadline, step).await.map_err(|_| {
            let words = format!("gave up after {:?}, waiting for {waiting}", self.smtp.timeout);
            self.unknown(Class::Timeout, true, words, None)
        })
    }

    /// A server that speaks TLS from the first byte waits for the client's, and says nothing, until one of the two gives up.
    fn silent(&self, verdict: LoginVerdict) -> LoginVerdict {
        let LoginVerdict::Unknown { class: class @ (Class::Timeout | Class::Network), temporary, words, fix: None } =
            verdict
        else {
            return verdict;
        };
        let fix = match self.smtp.port {
            _ if self.smtp.tls == Tls::Implicit => None,
            465 | 2465 => Some("ports 465 and 2465 speak TLS from the first byte: set tls = \"implicit\"".to_owned()),
            // Of these it is known that they do not.
            25 | 587 | 2587 => None,
            port => Some(format!(
                "where port {port} speaks TLS from the first byte, set tls = \"implicit\"; else check that it is the endpoint's port, and \
                 what stands on the way to it"
            )),
        };
        LoginVerdict::Unknown { class, temporary, words, fix }
    }

    /// The words are others' in part; the fix is ours, and what stands in it of the login is no secret.
    fn unknown(&self, class: Class, temporary: bool, words: String, fix: Option<String>) -> LoginVerdict {
        let words = self.texts.clean(&format!("{}:{}: {words}", self.smtp.endpoint, self.smtp.port));
        LoginVerdict::Unknown { class, temporary, words, fix: fix.map(|fix| line(&fix).into_owned()) }
    }

    /// A reply that says no, or not now, where it is not about the login.
    fn said(&self, reply: &SmtpReply, when: When) -> LoginVerdict {
        self.unknown(Class::Smtp, reply.code < 500, reply.to_string(), Some(reply_fix(reply.code, when).into()))
    }

    /// A reply that nobody gives there: whoever answers may not be the server.
    fn nonsense(&self, waiting: &str, reply: &SmtpReply) -> LoginVerdict {
        let words = format!("instead of {waiting} it said: {reply}");
        self.unknown(Class::Smtp, true, words, Some(NO_SMTP.into()))
    }

    /// What we were about to say is nothing to be said.
    fn unfit(&self, e: &Unfit) -> LoginVerdict {
        let fix = "correct what the configuration or the source gives for it; nothing of it was sent";
        self.unknown(Class::Smtp, false, e.to_string(), Some(fix.into()))
    }

    /// What an error of TLS or the socket means, while waiting for something.
    fn failure(&self, error: &io::Error, waiting: &str) -> LoginVerdict {
        if let Some(tls) = cause::<rustls::Error>(error) {
            return self.tls_failure(tls);
        }
        let words = match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("it closed the connection, waiting for {waiting}"),
            _ => format!("{error}, waiting for {waiting}"),
        };
        self.unknown(Class::Network, true, words, None)
    }

    /// What came instead of TLS, in plain text; nothing secret was said before it.
    fn not_tls(&self, first: &[u8]) -> LoginVerdict {
        let said = String::from_utf8_lossy(first);
        let at = match self.host().parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, self.smtp.port).to_string(),
            Err(_) => format!("{}:{}", self.host(), self.smtp.port),
        };
        let (words, fix) = match self.smtp.tls {
            // It speaks SMTP in plain text, so that TLS from the first byte is no way out.
            Tls::Starttls => (
                format!("it agreed to STARTTLS, and then what it sends is not TLS: {said}"),
                format!(
                    "look for a proxy or a firewall on the way that answers in the server's name, and at the server's own \
                     TLS: openssl s_client -starttls smtp -connect {at}"
                ),
            ),
            Tls::Implicit if dialogue::begins_as_a_reply(first) => (
                format!("what it sends is not TLS, but SMTP in plain text: {said}"),
                "ports 25, 587 and 2587 begin in plain text: set tls = \"starttls\"".into(),
            ),
            Tls::Implicit => (format!("what it sends is not TLS: {said}"), NO_SMTP.to_owned()),
        };
        self.unknown(Class::Tls, false, words, Some(fix))
    }

    fn tls_failure(&self, error: &rustls::Error) -> LoginVerdict {
        let (words, fix) = match error {
            rustls::Error::InvalidCertificate(problem) => {
                tls::explain(problem, &self.smtp.endpoint, "endpoint", self.smtp.ca_file.as_deref())
            }
            other => (
                format!("TLS failed: {}", tls::failed(other)),
                "the server must speak TLS 1.2 or 1.3; look for a proxy on the way that changes TLS".into(),
            ),
        };
        self.unknown(Class::Tls, false, words, Some(fix))
    }
}

/// What is said after EHLO: a host name, or the address literal of RFC 5321, section 4.1.3.
pub(crate) fn introduction(name: &str) -> String {
    let host_name = !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    match name.parse() {
        Ok(IpAddr::V4(address)) => format!("[{address}]"),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) if host_name => name.to_owned(),
        Err(_) => "[127.0.0.1]".to_owned(),
    }
}

/// Whether the server knew by then who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// It was greeted: what it says is about this host, its network, or the server itself.
    BeforeTheLogin,
    AtTheLogin,
}

/// What to do about replies other than 235 and 535; the codes are those of RFC 4954, section 6, RFC 5321 and RFC 7504, and
/// what the SES developer guide says about them.
fn reply_fix(code: u16, when: When) -> &'static str {
    match code {
        421 => "there are too many connections, or the server is going down: it is tried again",
        // RFC 3207, section 4: in answer to STARTTLS.
        454 if when == When::BeforeTheLogin => {
            "TLS is not to be had there for now: it is tried again; if it stays, look at the server's certificate and its TLS settings"
        }
        454 => {
            "SES has trouble of its own, or too many logins at once; it never means a wrong password: it is tried again"
        }
        400..=499 => "it is tried again",
        530 | 538 => "the server wants TLS first: check `tls` and `port`",
        534 | 504 => "the server wants another way of logging in than PLAIN and LOGIN: check endpoint and port",
        521 => "nothing there takes mail: check endpoint and port",
        // RFC 5321, section 3.1: no service for this client. No credential was named yet.
        554 if when == When::BeforeTheLogin => {
            "it takes no connection from this host, whatever the credential is: check that endpoint and port are the right \
             ones, and that the address from which this host goes out is let in there (a block list, an allow list, the \
             policy of a VPC endpoint); read the server's words"
        }
        554 => {
            "access is denied, and not for the password: check the IAM policy (ses:SendRawEmail), the account's status \
             and whether this host may connect"
        }
        _ => "check endpoint and port, and read the server's words",
    }
}

/// How much of what comes during a handshake is kept.
const MAX_RECORDED: usize = 4096;

/// A connection that keeps what it reads first, so that it can be told what came where no TLS did.
struct Recorded {
    socket: TcpStream,
    first: Vec<u8>,
}

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        let left = MAX_RECORDED.saturating_sub(self.first.len());
        let came = buf.filled().get(before..).unwrap_or_default();
        self.first.extend_from_slice(came.get(..left).unwrap_or(came));
        polled
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Does it begin as a record of TLS does (RFC 8446, section 5.1)? Then it is TLS that cannot be read, and not no TLS.
fn is_tls(first: &[u8]) -> bool {
    matches!(first, [20..=24, 3, ..])
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use rustls::pki_types::UnixTime;

    use super::*;
    use crate::credential::Secret;

    const PASSWORD: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";

    fn someone() -> Login {
        Login::new("AKIAIOSFODNN7EXAMPLE".into(), Secret::new(PASSWORD.into())).expect("login")
    }

    fn smtp() -> Smtp {
        Smtp {
            endpoint: "localhost".into(),
            port: 587,
            tls: Tls::Starttls,
            region: None,
            ca_file: None,
            timeout: Duration::from_secs(1),
            propagation: Duration::ZERO,
            retry: Duration::ZERO,
            endpoint_aliases: Vec::new(),
            also: Vec::new(),
        }
    }

    #[test]
    fn ehlo_says_a_host_name_or_an_address() {
        let table = [
            ("mx1.example.com", "mx1.example.com"),
            ("192.0.2.1", "[192.0.2.1]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("", "[127.0.0.1]"),
            ("mx1\r\nMAIL FROM:<x>", "[127.0.0.1]"),
            ("höst", "[127.0.0.1]"),
        ];
        for (name, expected) in table {
            assert_eq!(introduction(name), expected, "{name:?}");
        }
    }

    #[test]
    fn a_probe_is_a_message_that_says_what_it_is() {
        let to = |from: &str| Probe { from: from.into(), to: "success@simulator.amazonses.com".into() };
        let at: Timestamp = "2026-03-01T07:05:09.25Z".parse().expect("a time");
        let about = Probed { host: "mx1.example.com", credential: "ses", version: "7f3c-1", at };
        let text = probe_message(&to("postmaster@example.com"), &about);
        let want = "From: postmaster@example.com\r\nTo: success@simulator.amazonses.com\r\nSubject: relaykey probe: ses on \
                    mx1.example.com\r\nDate: Sun, 01 Mar 2026 07:05:09 +0000\r\nMessage-ID: \
                    <relaykey-probe.ses.mx1examplecom.1772348709250000000@example.com>\r\nAuto-Submitted: \
                    auto-generated\r\n\r\nrelaykey on mx1.example.com sent this over version 7f3c-1 of the credential \
                    ses,\r\nto see whether it may send mail before it is put in place. Nothing is to be done about it.\r\n";
        assert_eq!(text, want);
        // A host name is what the kernel says, whatever that is.
        let host = format!("mx1\r\nBcc: höst\0{}", "x".repeat(5000));
        let text = probe_message(&to("postmaster@example.com"), &Probed { host: &host, version: &host, ..about });
        let (header, body) = text.split_once("\r\n\r\n").expect("a header and a body");
        assert_eq!((header.lines().count(), body.lines().count()), (6, 2), "{text}");
        assert!(text.is_ascii() && !text.replace("\r\n", "").contains(char::is_control), "{text}");
        assert!(text.split("\r\n").all(|line| line.len() <= 998), "RFC 5322, section 2.1.1");
    }

    #[test]
    fn a_ca_file_that_keeps_amazons_own_server_out_is_named() {
        let someone = someone();
        let Ok(roots) = Roots::system() else { return };
        for (endpoint, ca_file, names_it) in [
            ("email-smtp.eu-west-1.amazonaws.com", true, true),
            ("email-smtp.eu-west-1.amazonaws.com", false, false),
            ("smtp.example.com", true, false),
        ] {
            let ca_file = ca_file.then(|| "/etc/relaykey/ca.pem".into());
            let smtp = Smtp { endpoint: endpoint.into(), ca_file, ..smtp() };
            let attempt = AttemptContext {
                smtp: &smtp,
                login: &someone,
                roots: &roots,
                hello: introduction(""),
                deadline: Instant::now(),
                texts: Redactor::new([&someone]),
                message: None,
            };
            let LoginVerdict::Unknown { words, fix: Some(fix), .. } =
                attempt.tls_failure(&CertificateError::UnknownIssuer.into())
            else {
                panic!("{endpoint}")
            };
            let told = words.contains("nothing is trusted but what is in /etc/relaykey/ca.pem")
                && fix.contains("take `ca_file` = \"/etc/relaykey/ca.pem\" out");
            assert_eq!(told, names_it, "{words} {fix}");
            assert!(!names_it || !fix.contains("leave the configuration as it is"), "{fix}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said() {
        let smtp = smtp();
        let someone = someone();
        let Ok(roots) = Roots::system() else { return };
        let attempt = AttemptContext {
            smtp: &smtp,
            login: &someone,
            roots: &roots,
            hello: introduction(""),
            deadline: Instant::now(),
            texts: Redactor::new([&someone]),
            message: None,
        };
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let table = [
            (CertificateError::BadSignature.into(), "not signed by the CA that it names", "ca_file"),
            (CertificateError::UnknownIssuer.into(), "unknown issuer", "ca_file"),
            (CertificateError::Expired.into(), "has expired", "renew"),
            (
                CertificateError::NotValidYetContext { time: time(0), not_before: time(86400) }.into(),
                "not valid before 1970-01-02T00:00:00Z",
                "clock",
            ),
            (CertificateError::Revoked.into(), "was revoked", "replaced"),
            (
                rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion),
                "protocol version (alert 70)",
                "TLS 1.2",
            ),
        ];
        for (error, expected, expected_fix) in table {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            let LoginVerdict::Unknown { class: Class::Tls, temporary: false, words, fix: Some(fix) } =
                attempt.failure(&error, "the TLS handshake")
            else {
                panic!("{error}")
            };
            assert!(words.starts_with("localhost:587: ") && words.contains(expected), "{words}");
            assert!(fix.contains(expected_fix), "{fix}");
        }
    }

    #[test]
    fn a_broken_ca_file_is_a_verdict() {
        let error = Roots::from_file(std::path::Path::new("/nonexistent/ca.pem")).expect_err("missing");
        let LoginVerdict::Unknown { class, temporary, words, fix } = LoginVerdict::from(error) else {
            panic!("unknown")
        };
        assert_eq!((class, temporary), (Class::Trust, false));
        assert!(words.contains("/nonexistent/ca.pem") && fix.is_some(), "{words}");
    }

    #[test]
    fn a_login_can_run_on_any_thread() {
        fn is_send<T: Send>(_: &T) {}
        let smtp = smtp();
        if let Ok(roots) = Roots::system() {
            is_send(&login(&smtp, &someone(), &roots, "mx1.example.com"));
        }
    }
}
