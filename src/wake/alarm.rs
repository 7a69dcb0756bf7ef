//! The mail log: what Postfix's smtp(8) wrote down about a relay of ours.
//!
//! Only lines of smtp(8) count, and of these only what it says itself about a server whose name (and port, where the line
//! has one) is an endpoint of ours. The forms were taken from a Postfix 3.7.11's log:
//!
//! ```text
//! QUEUE-ID: to=<…>, relay=HOST[IP]:PORT, delay=…, dsn=…, status=deferred (SASL authentication failed; server HOST[IP] said: 535 …)
//! QUEUE-ID: to=<…>, relay=HOST[IP]:PORT, delay=…, dsn=…, status=bounced (host HOST[IP] said: 530 … (in reply to MAIL FROM command))
//! QUEUE-ID: SASL authentication failed; server HOST[IP] said: 535 …            (when another relay is tried next)
//! ```
//!
//! Anybody who sends mail chooses the addresses in a line, and any relay chooses the words of its replies: where a line
//! could be read in two ways, it is not read at all. Whoever can write to the log itself can raise an alarm, as every local
//! user can through syslog: it is a hint and never a reason. All that it brings about is a look, which [`Brake`] makes rare,
//! and now and then a login of our own with the version in use; only what that comes to counts.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::instruction::relaykey;
use crate::text::line_of;

use crate::fault::Class;

/// Words of a server that are kept, in characters.
const MAX_WORDS: usize = 512;
/// Between two looks for alarms, at first and at last.
const FIRST_GAP: Duration = Duration::from_secs(10);
const LAST_GAP: Duration = Duration::from_secs(300);
/// So long without an alarm, and the next one is a new matter.
const QUIET: Duration = Duration::from_secs(600);

/// A line of the mail log that is about one of our endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What it means.
    pub kind: AlarmKind,
    /// The endpoint's host name, as the configuration spells it.
    pub endpoint: String,
    /// What the server answered, or what the mail server says about it: at most 512 bytes, control characters escaped,
    /// mail addresses and whatever could be a secret masked.
    pub words: String,
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The login was refused (535): the credential may have been revoked.
    Refused,
    /// The mail server went on without a login (530): its table has none for this endpoint, and mail bounces.
    NoLogin,
    /// 4xx: says nothing about the credential.
    Temporary,
    /// The login was taken and the message refused: the IAM policy, or an identity that is not verified.
    Policy,
    /// The mail server has no way of logging in that the endpoint offers.
    NoMechanism,
}

impl AlarmKind {
    /// As status and metrics name it.
    pub fn class(self) -> Class {
        match self {
            AlarmKind::Refused => Class::Refused,
            AlarmKind::NoLogin => Class::NoLogin,
            AlarmKind::Temporary => Class::Temporary,
            AlarmKind::Policy => Class::Policy,
            AlarmKind::NoMechanism => Class::NoMechanism,
        }
    }

    /// Is it a reason to look at the credential at once?
    pub fn calls_for_a_look(self) -> bool {
        matches!(self, AlarmKind::Refused | AlarmKind::NoLogin)
    }

    /// What it means, for a person. Anybody on the host may write to its log, so it is the log's word and nothing more.
    pub fn meaning(self) -> &'static str {
        match self {
            AlarmKind::Refused => {
                "the mail log tells that the endpoint refused the mail server's login, or the line is not Postfix's"
            }
            AlarmKind::NoLogin => {
                "the mail log tells that the mail server did not log in at the endpoint, and mail bounces, or the line is not \
                 Postfix's"
            }
            AlarmKind::Temporary => {
                "the mail log tells that the endpoint could not serve the mail server for a moment, or the line is not Postfix's"
            }
            AlarmKind::Policy => {
                "policy, not password: the mail log tells that the endpoint took the login and refused the message, or the line \
                 is not Postfix's"
            }
            AlarmKind::NoMechanism => {
                "the mail log tells that the mail server has no way of logging in that the endpoint offers, or the line is not \
                 Postfix's"
            }
        }
    }

    /// What to do about it.
    pub fn fix(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            AlarmKind::Refused => "nothing yet: relaykey looks for a newer version, and tries the key in use itself",
            AlarmKind::NoLogin => {
                return Cow::Owned(format!(
                    "relaykey looks at the table at once; if it stays, see `{}` for next hops without an entry",
                    relaykey("check")
                ));
            }
            AlarmKind::Temporary => {
                "nothing, the mail stays in the queue; if it stays so, look at the quotas of the account"
            }
            AlarmKind::Policy => {
                "let the IAM user's policy allow ses:SendRawEmail for these senders, and verify the identities; another \
                 password does not help"
            }
            AlarmKind::NoMechanism => {
                "install the SASL library's plain mechanism (libsasl2-modules, cyrus-sasl-plain) and look at \
                 smtp_sasl_mechanism_filter and smtp_sasl_tls_security_options"
            }
        })
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.words)
    }
}

/// What a line of the mail log says about one of these endpoints: host names as the mail server may know them, each with
/// its port. `None`: nothing, or nothing for certain.
///
/// The line may begin as syslog daemons (RFC 3164 or RFC 3339 times), `postlogd` and the journal write it.
pub fn judge(line: &str, endpoints: &[(&str, u16)]) -> Option<Alarm> {
    let message = message_of_smtp(line.trim_end())?;
    let (id, message) = message.split_once(": ")?;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let (relay, said) = match message.strip_prefix("to=<") {
        Some(delivery) => {
            let (relay, said) = of_delivery(delivery)?;
            (Some(relay), said)
        }
        None => (None, message),
    };
    let ServerReply { server, kind, words, login } = said_by_server(said)?;
    let named = |name: &str, server: &str| {
        name.trim_end_matches('.').eq_ignore_ascii_case(server.trim_end_matches('.')) && !server.is_empty()
    };
    let (endpoint, _) = endpoints.iter().find(|(name, port)| match relay {
        Some((relay, at)) => named(relay, server) && named(name, server) && at == *port,
        None => named(name, server),
    })?;
    let words = line_of(&masked(words, login), MAX_WORDS).into_owned();
    Some(Alarm { kind, endpoint: (*endpoint).to_owned(), words })
}

/// What smtp(8) says in this line: behind the first word that ends with a colon, which must be its name and process id.
fn message_of_smtp(line: &str) -> Option<&str> {
    let mut rest = line;
    // A date, a time, a host name: five words at most are before it.
    for _ in 0..6 {
        rest = rest.trim_start_matches(' ');
        let (word, after) = rest.split_once(' ')?;
        rest = after;
        let Some(tag) = word.strip_suffix(':') else { continue };
        let (name, pid) = tag.strip_suffix(']')?.split_once('[')?;
        // `postfix/smtp`, `postfix-out/smtp`, and `postfix/relay/smtp` for a service of another name.
        let (_, program) = name.rsplit_once('/')?;
        let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
        return (program == "smtp" && is_pid).then_some(rest);
    }
    None
}

/// Relay with port, and the reason, of a line that tells what became of a delivery. Recipients may look like anything, so
/// that each mark must be there exactly once.
fn of_delivery(line: &str) -> Option<((&str, u16), &str)> {
    let once = |mark: &str| {
        let (before, after) = line.split_once(mark)?;
        (!after.contains(mark)).then_some((before, after))
    };
    let (_, relay) = once(", relay=")?;
    let (relay, _) = relay.split_once(", ")?;
    let (before, status) = once(", status=")?;
    if !before.contains(", relay=") {
        return None;
    }
    let (status, reason) = status.split_once(" (")?;
    if !matches!(status, "deferred" | "bounced" | "undeliverable") {
        return None;
    }
    // HOST[IP]:PORT; there is no port after a Unix socket's path.
    let (host, port) = relay.rsplit_once(':')?;
    let (host, address) = host.split_once('[')?;
    (address.ends_with(']')).then_some(())?;
    Some(((host, port.parse().ok()?), reason.strip_suffix(')')?))
}

struct ServerReply<'a> {
    server: &'a str,
    kind: AlarmKind,
    words: &'a str,
    /// Said while logging in: a server may have quoted what it was sent.
    login: bool,
}

fn said_by_server(text: &str) -> Option<ServerReply<'_>> {
    // `HOST[IP]` and what follows it.
    let server = |text| {
        let (server, rest): (&str, &str) = str::split_once(text, '[')?;
        let (_, rest) = rest.split_once(']')?;
        (!server.contains(' ')).then_some((server, rest))
    };
    if let Some(rest) = text.strip_prefix("host ") {
        let (server, rest) = server(rest)?;
        let words = rest.strip_prefix(" said: ")?;
        let kind = after_login(reply_code(words)?, words)?;
        return Some(ServerReply { server, kind, words, login: kind == AlarmKind::Refused });
    }
    let text = text.strip_prefix("SASL authentication failed")?;
    if let Some(rest) = text.strip_prefix("; server ") {
        let (server, rest) = server(rest)?;
        let words = rest.strip_prefix(" said: ")?;
        let kind = match reply_code(words)? {
            400..=499 => AlarmKind::Temporary,
            500..=599 => AlarmKind::Refused,
            _ => return None,
        };
        return Some(ServerReply { server, kind, words, login: true });
    }
    let rest = text.strip_prefix("; cannot authenticate to server ").or_else(|| text.strip_prefix(": server "))?;
    let (server, words) = server(rest)?;
    let words = words.trim_start_matches([':', ' ']);
    let none = words.starts_with("no mechanism available") || words.starts_with("offered no compatible authentication");
    none.then_some(ServerReply { server, kind: AlarmKind::NoMechanism, words, login: false })
}

/// What a reply means that came to another command than AUTH.
fn after_login(code: u16, words: &str) -> Option<AlarmKind> {
    let words = words.to_ascii_lowercase();
    match code {
        535 => Some(AlarmKind::Refused),
        // "530 Must issue a STARTTLS command first" is about TLS.
        530 if !words.contains("starttls") => Some(AlarmKind::NoLogin),
        454 => Some(AlarmKind::Temporary),
        554 if ["access denied", "message rejected", "not verified", "sending suspended", "sending paused"]
            .iter()
            .any(|w| words.contains(w)) =>
        {
            Some(AlarmKind::Policy)
        }
        _ => None,
    }
}

/// The code of an SMTP reply (RFC 5321, section 4.2): three digits, then a blank, a hyphen or the end.
fn reply_code(words: &str) -> Option<u16> {
    let (code, rest) = words.split_at_checked(3)?;
    let separate = rest.is_empty() || rest.starts_with([' ', '-']);
    (separate && code.bytes().all(|b| b.is_ascii_digit())).then(|| code.parse().ok()).flatten()
}

/// The text without mail addresses, and without anything that could be a secret: a server may quote what it was sent, and
/// no login is at hand here to compare with. During the login only plain words and numbers pass.
fn masked(text: &str, login: bool) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '?']) {
        let (word, blank) = match word.char_indices().last() {
            Some((at, c @ (' ' | '?'))) => (&word[..at], Some(c)),
            _ => (word, None),
        };
        let hidden = word.contains('@')
            || if login {
                !word.split('-').all(is_plain)
            } else {
                // As long as a password of SES, or a key.
                word.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '/' | '='))
                    .any(|run| run.len() >= 40 || (run.len() >= 16 && run.ends_with('=')))
            };
        out.push_str(if hidden { "***" } else { word });
        out.extend(blank);
    }
    out
}

/// A number, an enhanced status code, or a word as languages have them: at most 20 characters, with capitals only at
/// the beginning or throughout.
fn is_plain(word: &str) -> bool {
    let word = word.trim_matches(|c: char| c.is_ascii_punctuation());
    let digits = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let lower = word.bytes().skip(1).all(|b| b.is_ascii_lowercase() || b == b'\'');
    let upper = word.bytes().all(|b| b.is_ascii_uppercase()) && word.len() <= 8;
    let letter = word.bytes().next().is_none_or(|b| b.is_ascii_alphabetic());
    (digits && word.len() <= 8) || (word.len() <= 20 && letter && (lower || upper))
}

/// Makes looks for alarms rare: the first alarm is looked into at once; then 10 s must lie between two looks, doubling to
/// 5 min, as long as alarms go on and no look has changed anything. Times are those of [`super::boot_time`].
#[derive(Debug, Clone, Default)]
pub struct Brake {
    /// The latest look, which may be still to come.
    look: Option<Duration>,
    gap: Duration,
    /// The latest alarm.
    heard: Duration,
}

impl Brake {
    /// An alarm came. How long to wait until it is looked into, zero for at once; `None`: a look is to come already.
    pub fn admit(&mut self, now: Duration) -> Option<Duration> {
        if now.saturating_sub(self.heard) >= QUIET {
            self.settle();
        }
        self.heard = now;
        let due = match self.look {
            Some(look) if look > now => return None,
            Some(look) => now.max(look.saturating_add(self.gap)),
            None => now,
        };
        self.gap = (self.gap * 2).clamp(FIRST_GAP, LAST_GAP);
        self.look = Some(due);
        Some(due - now)
    }

    /// A look has changed something: another login is in use, and the next alarm is a new matter.
    pub fn settle(&mut self) {
        *self = Self { heard: self.heard, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SES: &str = "email-smtp.eu-west-1.amazonaws.com";
    const OURS: [(&str, u16); 2] = [(SES, 587), ("smtp-relay.internal", 587)];
    const TAG: &str = "Nov 20 22:38:20 mx1 postfix/smtp[31870]: 61F7E9BE05A: ";

    fn delivery(relay: &str, status: &str) -> String {
        format!(
            "{TAG}to=<someone@example.com>, relay={relay}, delay=0.02, delays=0/0.01/0/0, dsn=4.0.0, status={status}"
        )
    }

    fn kind(line: &str) -> Option<AlarmKind> {
        judge(line, &OURS).map(|alarm| alarm.kind)
    }

    /// Anybody on the host may write to its log.
    #[test]
    fn what_the_log_says_is_told_as_the_logs_word() {
        for kind in
            [AlarmKind::Refused, AlarmKind::NoLogin, AlarmKind::Temporary, AlarmKind::Policy, AlarmKind::NoMechanism]
        {
            let meaning = kind.meaning();
            assert!(meaning.contains("the mail log tells that"), "{meaning}");
            assert!(meaning.ends_with("or the line is not Postfix's"), "{meaning}");
        }
    }

    #[test]
    fn what_the_endpoint_said_is_understood() {
        let auth =
            |said: &str| format!("deferred (SASL authentication failed; server {SES}[203.0.113.7] said: {said})");
        let host = |said: &str| format!("bounced (host {SES}[203.0.113.7] said: {said})");
        let cases = [
            (auth("535 Authentication Credentials Invalid"), Some(AlarmKind::Refused)),
            (auth("535-5.7.8 Username and Password?535 5.7.8 not accepted"), Some(AlarmKind::Refused)),
            (auth("535 x").replace("deferred", "bounced"), Some(AlarmKind::Refused)),
            (auth("535 x").replace("deferred", "undeliverable"), Some(AlarmKind::Refused)),
            (auth("454 Temporary authentication failure"), Some(AlarmKind::Temporary)),
            (auth("421 Too many concurrent SMTP connections"), Some(AlarmKind::Temporary)),
            (auth("235 Authentication successful."), None),
            (auth("5350 Authentication"), None),
            (auth("53"), None),
            (host("530 Authentication required (in reply to MAIL FROM command)"), Some(AlarmKind::NoLogin)),
            (host("530 Must issue a STARTTLS command first (in reply to MAIL FROM command)"), None),
            (
                host("554 Access denied: User `arn:aws:iam::1:user/x' is not authorized to perform `ses:SendRawEmail'"),
                Some(AlarmKind::Policy),
            ),
            (
                host("554 Message rejected: Email address is not verified. The following …: a@b.c"),
                Some(AlarmKind::Policy),
            ),
            (host("554 Transaction failed: Address contains control or whitespace"), None),
            (host("550 5.1.1 no such user 535"), None),
            (host("454 Throttling failure: Maximum sending rate exceeded."), Some(AlarmKind::Temporary)),
            (
                format!(
                    "deferred (SASL authentication failed; cannot authenticate to server {SES}[203.0.113.7]: no mechanism available)"
                ),
                Some(AlarmKind::NoMechanism),
            ),
            (
                format!(
                    "deferred (SASL authentication failed: server {SES}[203.0.113.7] offered no compatible authentication mechanisms for this type of connection security)"
                ),
                Some(AlarmKind::NoMechanism),
            ),
            ("sent (250 Ok 535 Authentication Credentials Invalid)".into(), None),
            (auth("535 x").replace("deferred", "sent"), None),
        ];
        for (status, expected) in cases {
            let line = delivery(&format!("{SES}[203.0.113.7]:587"), &status);
            assert_eq!(kind(&line), expected, "{line}");
        }
        // The next relay was tried: a line of its own, with no port in it.
        let line = format!("{TAG}SASL authentication failed; server {SES}[203.0.113.7] said: 535 no");
        assert_eq!(kind(&line), Some(AlarmKind::Refused));
    }

    #[test]
    fn lines_begin_as_each_log_daemon_writes_them() {
        let message = &delivery(
            &format!("{SES}[2001:db8::7]:587"),
            &format!("deferred (SASL authentication failed; server {SES}[2001:db8::7] said: 535 no)"),
        )[TAG.len()..];
        for (begin, ours) in [
            ("Nov  2 02:03:04 mx1 postfix/smtp[1]: 4Abc: ", true),
            ("2026-11-20T22:38:20.123456+01:00 mx1 postfix/smtp[31870]: 61F7E9BE05A: ", true),
            ("Nov 20 2026 22:38:20 mx1 postfix/smtp[31870]: 61F7E9BE05A: ", true),
            ("postfix/smtp[31870]: 3pFhQk2b9Tz1: ", true),
            ("Nov 20 22:38:20 mx1 postfix-out/smtp[31870]: 61F7E9BE05A: ", true),
            ("Nov 20 22:38:20 mx1 postfix/ses/smtp[31870]: 61F7E9BE05A: ", true),
            ("Nov 20 22:38:20 mx1 postfix/relay/smtp[31870]: 61F7E9BE05A: ", true),
            ("Nov 20 22:38:20 mx1 postfix/smtpd[31870]: 61F7E9BE05A: ", false),
            ("Nov 20 22:38:20 mx1 postfix/error[31870]: 61F7E9BE05A: ", false),
            ("Nov 20 22:38:20 mx1 smtp[31870]: 61F7E9BE05A: ", false),
            ("Nov 20 22:38:20 mx1 app: postfix/smtp[31870]: 61F7E9BE05A: ", false),
            ("Nov 20 22:38:20 mx1 postfix/smtp[x]: 61F7E9BE05A: ", false),
            ("Nov 20 22:38:20 mx1 postfix/smtp[1]: warning: 61F7E9BE05A: ", false),
            ("Nov 20 22:38:20 mx1 a b c d postfix/smtp[1]: 61F7E9BE05A: ", false),
            ("", false),
        ] {
            assert_eq!(kind(&format!("{begin}{message}")).is_some(), ours, "{begin}");
        }
    }

    #[test]
    fn only_our_endpoints_raise_an_alarm() {
        let line = |relay: &str, server: &str| {
            delivery(relay, &format!("deferred (SASL authentication failed; server {server}[192.0.2.1] said: 535 no)"))
        };
        let upper = SES.to_ascii_uppercase();
        for (relay, server, ours) in [
            (format!("{SES}[192.0.2.1]:587"), SES, Some(SES)),
            (format!("{upper}[192.0.2.1]:587"), SES, Some(SES)),
            (format!("{SES}.[192.0.2.1]:587"), SES, Some(SES)),
            ("smtp-relay.internal[192.0.2.1]:587".into(), "smtp-relay.internal", Some("smtp-relay.internal")),
            (format!("{SES}[192.0.2.1]:2587"), SES, None),
            ("smtp.example.net[192.0.2.1]:587".into(), "smtp.example.net", None),
            ("smtp.example.net[192.0.2.1]:587".into(), SES, None),
            (format!("{SES}[192.0.2.1]:587"), "smtp.example.net", None),
            (format!("x.{SES}[192.0.2.1]:587"), SES, None),
            ("none".into(), SES, None),
            ("mx1[private/lmtp]".into(), SES, None),
        ] {
            let found = judge(&line(&relay, server), &OURS).map(|alarm| alarm.endpoint);
            assert_eq!(found.as_deref(), ours, "{relay}, {server}");
        }
    }

    #[test]
    fn who_writes_addresses_or_replies_raises_no_alarm() {
        let ours = format!("relay={SES}[192.0.2.1]:587, delay=1, delays=0/0/0/0, dsn=4.0.0, status=deferred");
        let failed = format!("SASL authentication failed; server {SES}[192.0.2.1] said: 535 no");
        let theirs = "relay=mx.example.net[192.0.2.9]:25, delay=1, delays=0/0/0/0, dsn=2.0.0, status";
        for line in [
            // In the recipient, as Postfix quotes it now and as it did not before 3.5.
            format!("{TAG}to=<\"x>, {ours} ({failed})\"@example.com>, {theirs}=sent (250 ok)"),
            format!("{TAG}to=<x>, {ours} ({failed})@example.com>, {theirs}=sent (250 ok)"),
            format!("{TAG}to=<a@b>, orig_to=<x>, {ours} ({failed})>, {theirs}=deferred ({failed})"),
            // In the words of another relay.
            format!("{TAG}to=<a@b>, {theirs}=deferred (host mx.example.net[192.0.2.9] said: 550 x, {ours} ({failed}))"),
            format!("{TAG}to=<a@b>, {theirs}=deferred (host mx.example.net[192.0.2.9] said: 450 {failed})"),
            format!("{TAG}to=<a@b>, {theirs}=deferred ({failed})"),
            format!("{TAG}host mx.example.net[192.0.2.9] said: 450 {failed}"),
            // In a subject, a sender, a queue id.
            format!("Nov 20 22:38:20 mx1 postfix/cleanup[1]: 61F: warning: header Subject: {TAG}{failed} from x"),
            format!("Nov 20 22:38:20 mx1 postfix/qmgr[1]: 61F: from=<\"{TAG}{failed}\"@x>, size=1, nrcpt=1"),
            format!("Nov 20 22:38:20 mx1 postfix/smtp[1]: 61 F: {failed}"),
        ] {
            assert_eq!(kind(&line), None, "{line}");
        }
        for address in ["<535@example.com>", "<\"SASL authentication failed; server said: 535\"@example.com>"] {
            let line =
                delivery(&format!("{SES}[192.0.2.1]:587"), "sent (250 Ok)").replace("<someone@example.com>", address);
            assert_eq!(kind(&line), None, "{line}");
        }
    }

    #[test]
    fn words_are_short_and_give_no_address_and_no_secret_away() {
        let words = |status: &str| judge(&delivery(&format!("{SES}[192.0.2.1]:587"), status), &OURS).unwrap().words;
        let auth =
            |said: &str| words(&format!("deferred (SASL authentication failed; server {SES}[192.0.2.1] said: {said})"));
        let host = |said: &str| words(&format!("bounced (host {SES}[192.0.2.1] said: {said})"));
        assert_eq!(auth("535 Authentication Credentials Invalid"), "535 Authentication Credentials Invalid");
        assert_eq!(auth("535 5.7.8 Error: authentication failed: bad"), "535 5.7.8 Error: authentication failed: bad");
        // As a stand-in that quotes what it was sent made Postfix write it.
        assert_eq!(
            auth("535-AUTH PLAIN AEFLSUFHT09EAGJhZA==?535-AEFLSUFHT09EA...?535-?535-AEFLSUFHT09EAGJHZA==?535 Invalid"),
            "535-AUTH PLAIN ***?***?535-?***?535 Invalid"
        );
        assert_eq!(auth("535 BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS a1b2c3"), "535 *** ***");
        assert_eq!(
            host("554 Message rejected: Email address is not verified: Me <me@example.com>, you@example.org"),
            "554 Message rejected: Email address is not verified: Me *** ***"
        );
        let denied = "554 Access denied: User `arn:aws:iam::123456789012:user/ses' is not authorized to perform `ses:SendRawEmail'";
        assert_eq!(host(denied), denied);
        assert_eq!(auth("535 red\u{1b}[31m"), "535 ***");
        assert_eq!(host("554 Access denied \u{1b}[31m"), "554 Access denied \\u{1b}[31m");
        let long = auth(&format!("535 {}", "word ".repeat(500)));
        assert!(long.chars().count() <= MAX_WORDS && long.starts_with("535 word word"), "{long}");
    }

    #[test]
    fn alarms_that_go_on_are_looked_into_ever_more_rarely() {
        let mut brake = Brake::default();
        let mut looks = Vec::new();
        // A line every second for an hour: the queue of a busy host.
        for second in 1000..4600 {
            if let Some(left) = brake.admit(Duration::from_secs(second)) {
                looks.push(second + left.as_secs() - 1000);
            }
        }
        assert_eq!(looks[..7], [0, 10, 30, 70, 150, 310, 610]);
        assert!(looks[6..].windows(2).all(|w| w[1] - w[0] == 300), "{looks:?}");
    }

    #[test]
    fn a_new_matter_is_looked_into_at_once() {
        let at = Duration::from_secs;
        let mut brake = Brake::default();
        assert_eq!(brake.admit(at(5)), Some(Duration::ZERO));
        assert_eq!(brake.admit(at(6)), Some(at(9)));
        assert_eq!(brake.admit(at(7)), None, "a look at 15 is to come");
        assert_eq!(brake.admit(at(16)), Some(at(19)));
        // A look changed something.
        brake.settle();
        assert_eq!(brake.admit(at(20)), Some(Duration::ZERO));
        assert_eq!(brake.admit(at(21)), Some(at(9)));
        // Nothing for ten minutes.
        assert_eq!(brake.admit(at(621)), Some(Duration::ZERO));
        // Not so long: the same matter.
        assert_eq!(brake.admit(at(1000)), Some(Duration::ZERO));
        assert_eq!(brake.admit(at(1001)), Some(at(19)));
    }
}
