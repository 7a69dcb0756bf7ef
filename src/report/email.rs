//! E-mail: a message for people about every report but a sign of life, with the report itself attached for programs.
//!
//! The words are those of [`text`]. The message goes to the mail server on this machine, in plain text over loopback, or
//! to SES by its API, with this host's own rights in AWS. All recipients get one message; where one of them is refused,
//! none gets it, and the report stays owed and is shown: a recipient that is lost in silence would be no report.
//!
//! A message that comes twice has the same Message-ID, by which mail programs know it; SES puts one of its own there, so
//! the report's id stands in `X-Relaykey-Report` too.

mod server;
mod ses;
mod words;

use jiff::Timestamp;
use lettre::address::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};

use crate::aws::Http;
use crate::config::MailVia;
use crate::fault::{Class, Fault};
use crate::report::{Checking, Delivering, Receiver, Whose};
use crate::rollover::Report;
use crate::smtp::dialogue::{Unfit, WireMessage};
use crate::text;

use self::server::LocalServer;
use self::ses::Ses;
pub use self::words::text;

/// A receiver of type `email`.
pub struct Email {
    envelope: Envelope,
    via: Via,
}

/// Who sends and who receives.
struct Envelope {
    from: Address,
    to: Vec<Address>,
}

enum Via {
    Server(LocalServer),
    Ses(Box<Ses>),
}

impl Email {
    /// `from` and `to` are bare mail addresses in ASCII; `to` is not empty.
    pub fn new(from: &str, to: &[String], via: &MailVia, http: &Http) -> Result<Self, Fault> {
        let envelope = Envelope {
            from: address("from", from)?,
            to: to.iter().map(|to| address("to", to)).collect::<Result<_, _>>()?,
        };
        let via = match via {
            MailVia::Server { host, port } => Via::Server(LocalServer::new(host, *port)?),
            MailVia::Ses(aws) => Via::Ses(Box::new(Ses::new(&envelope, aws, http)?)),
        };
        Ok(Self { envelope, via })
    }
}

impl Receiver for Email {
    fn deliver<'a>(&'a self, report: &'a Report) -> Delivering<'a> {
        Box::pin(async move {
            let message = self.envelope.message(report, Timestamp::now())?;
            match &self.via {
                Via::Server(server) => server.send(&report.host, &self.envelope, &message).await,
                Via::Ses(ses) => ses.send(&self.envelope, message).await,
            }
        })
    }

    fn check<'a>(&'a self, whose: &'a Whose) -> Checking<'a> {
        Box::pin(async move {
            match &self.via {
                Via::Server(server) => server.check(&whose.host, &self.envelope).await,
                Via::Ses(ses) => ses.check(&self.envelope).await,
            }
        })
    }

    fn describe(&self) -> String {
        let to = self.envelope.to.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
        match &self.via {
            Via::Server(server) => format!("mail to {to} by the mail server at {server}"),
            Via::Ses(ses) => format!("mail to {to} by {ses}"),
        }
    }
}

fn address(key: &str, text: &str) -> Result<Address, Fault> {
    let wrong = || {
        let what = format!("{text:?} in `{key}` is not a mail address that a message can be made with");
        Fault::new(Class::Configuration, what, format!("correct `{key}` in [[report]]"))
    };
    text.parse().ok().filter(|_| text.is_ascii()).ok_or_else(wrong)
}

impl Envelope {
    /// The message, ASCII throughout. `now` is its date: the report may be older.
    fn message(&self, report: &Report, now: Timestamp) -> Result<WireMessage, Fault> {
        let (subject, body) = words::text(report);
        let document = serde_json::to_string_pretty(report).expect("a report has only text keys");
        let document = text::json(&document).into_owned();
        let mut message = lettre::Message::builder()
            .from(Mailbox::new(None, self.from.clone()))
            .subject(subject)
            .date(now.into())
            .message_id(Some(message_id(report)));
        for to in &self.to {
            message = message.to(Mailbox::new(None, to.clone()));
        }
        // RFC 3834, section 5: nobody's holiday responder answers it.
        for (name, value) in [
            ("Auto-Submitted", "auto-generated".to_owned()),
            ("X-Relaykey-Outcome", atom(report.outcome.word())),
            ("X-Relaykey-Report", atom(&report.id)),
        ] {
            let name = HeaderName::new_from_ascii(name.into()).expect("a header's name");
            message = message.raw_header(HeaderValue::new(name, value));
        }
        let json = ContentType::parse("application/json").expect("a media type");
        let parts = MultiPart::mixed()
            .singlepart(SinglePart::plain(body))
            .singlepart(Attachment::new("report.json".into()).body(document, json));
        let message = message.multipart(parts).map_err(|e| {
            Fault::new(
                Class::Configuration,
                format!("no message can be made: {e}"),
                "correct `from` and `to` in [[report]]",
            )
        })?;
        WireMessage::new(&message.formatted()).map_err(|e| unsendable(&e))
    }
}

/// `<ID@HOST>` (RFC 5322, section 3.6.4): the same for the same report, however often it is sent.
fn message_id(report: &Report) -> String {
    format!("<{}@{}>", atom(&report.id), atom(&report.host))
}

/// A text that may stand in a header as it is: letters, digits, `-`, `_` and single dots inside.
fn atom(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(200) {
        let fits =
            c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || c == '.' && !out.is_empty() && !out.ends_with('.');
        out.push(if fits { c } else { '-' });
    }
    match out.ends_with('.') || out.is_empty() {
        true => format!("{out}-"),
        false => out,
    }
}

/// What we were about to send cannot be sent. It is owed, and shown, until it can.
fn unsendable(e: &Unfit) -> Fault {
    Fault::new(
        Class::Message,
        format!("no mail server can be given this: {e}"),
        "correct `from` and `to` in [[report]] and `name` under [host]; if they are right, report it as a fault of relaykey. The \
         report itself is in the state and, as it stands, goes to every other receiver",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use crate::text::shows;

    fn envelope() -> Envelope {
        let address = |text| address("to", text).unwrap();
        Envelope {
            from: address("relaykey@example.com"),
            to: vec![address("postmaster@example.com"), address("security@example.com")],
        }
    }

    /// A header's value, unfolded.
    fn header(message: &str, name: &str) -> String {
        let head = message.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
        let found: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix(&format!("{name}: "))).collect();
        assert_eq!(found.len(), 1, "{name} in {head}");
        found[0].to_owned()
    }

    #[test]
    fn a_message_has_what_mail_programs_go_by() {
        let mut report = report(7);
        report.host = "mx1.example.com".into();
        report.id = "5f0c2d9a7b6e4c3f-ses-7".into();
        report.outcome = "pending-approval".into();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let message = String::from_utf8(envelope().message(&report, now).unwrap().into_bytes()).unwrap();
        assert!(message.is_ascii() && message.lines().all(|line| line.len() < 998));
        assert!(message.replace("\r\n", "").find(['\r', '\n']).is_none(), "every line ends with CR LF");
        for (name, value) in [
            ("From", "relaykey@example.com"),
            ("To", "postmaster@example.com, security@example.com"),
            ("Date", "Fri, 15 Jan 2027 08:00:00 +0000"),
            ("Message-ID", "<5f0c2d9a7b6e4c3f-ses-7@mx1.example.com>"),
            ("Auto-Submitted", "auto-generated"),
            ("X-Relaykey-Outcome", "pending-approval"),
            ("X-Relaykey-Report", "5f0c2d9a7b6e4c3f-ses-7"),
            ("MIME-Version", "1.0"),
            ("Subject", "[relaykey] mx1.example.com: new SMTP key waits for approval (ses)"),
        ] {
            assert_eq!(header(&message, name), value);
        }
        assert!(message.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{message}");
        assert!(message.contains("Content-Disposition: attachment; filename=\"report.json\"\r\n"), "{message}");
    }

    #[test]
    fn no_text_of_a_report_becomes_a_header() {
        let mut report = report(7);
        report.host = "mx1\r\nBcc: thief@example.com\r\n\r\nhello".into();
        report.id = "a\r\nBcc: thief@example.com".into();
        report.outcome = "confirmed\r\nBcc: thief@example.com".into();
        report.credential = "ses\nBcc: thief@example.com".into();
        let message =
            String::from_utf8(envelope().message(&report, Timestamp::UNIX_EPOCH).unwrap().into_bytes()).unwrap();
        let head = message.split("\r\n\r\n").next().unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert_eq!(header(&message, "To"), "postmaster@example.com, security@example.com");
    }

    /// Whatever others say, there is a message that a mail server can be given, by SMTP or by SES's API.
    #[test]
    fn every_report_makes_a_message_that_ends_where_it_ends() {
        let long = "x".repeat(5000);
        for hostile in [
            "x\r\n.\r\nMAIL FROM:<thief@example.com>\r\n",
            "x\n.\nMAIL FROM:<thief@example.com>\n",
            "x\r.\rRSET\r",
            "x\n\r.\r\nRSET\r\n",
            "\r.\r\n",
            "x\0y\u{1b}[2J\u{7f}",
            "h\u{f6}st \u{85}\u{2028}.\u{2029}\u{202e}",
            ".",
            &long,
            &"\u{e9}".repeat(5000),
        ] {
            let words = || hostile.to_owned();
            let mut report = report(7);
            (report.host, report.credential, report.id, report.version) =
                (words(), words(), words(), words().as_str().into());
            (report.username, report.source, report.agent, report.mode) =
                (words(), words(), words(), words().as_str().into());
            report.error = Some(crate::rollover::ReportError::new(Class::Refused, words()));
            report.approved_by = Some(words());
            for outcome in ["confirmed", "failed", "pending-approval", hostile] {
                report.outcome = outcome.into();
                let message = envelope().message(&report, Timestamp::UNIX_EPOCH);
                let bytes = message.unwrap_or_else(|e| panic!("{hostile:?}: {e:?}")).into_bytes();
                let text = String::from_utf8(bytes).unwrap();
                assert!(
                    text.split("\r\n").all(|line| line.len() <= 998 && line.chars().all(|c| c == '\t' || shows(c)))
                );
                let head = text.split("\r\n\r\n").next().unwrap();
                assert!(!head.contains("thief") || head.lines().all(|l| !l.starts_with("MAIL")), "{head}");
            }
        }
    }

    #[test]
    fn atoms_are_what_rfc_5322_allows() {
        for (text, expected) in [
            ("mx1.example.com", "mx1.example.com"),
            ("mäx 1", "m-x-1"),
            ("", "-"),
            (".a..b.", "-a.-b.-"),
            ("a@b>", "a-b-"),
        ] {
            assert_eq!(atom(text), expected);
        }
    }

    #[test]
    fn addresses_that_no_message_can_be_made_with_are_told() {
        let http = Http::new(b"");
        let via = MailVia::Server { host: "localhost".into(), port: 25 };
        let open = |from: &str, to: &str| Email::new(from, &[to.to_owned()], &via, &http).err();
        assert_eq!(open("relaykey@example.com", "o'hara+x@example.com"), None);
        for (from, to, key) in [
            ("relaykey", "a@example.com", "`from`"),
            ("a@example.com", "ü@example.com", "`to`"),
            ("a@b.c", "a@b c", "`to`"),
            ("a@b.c\r\nRCPT TO:<x@y.z>", "a@b.c", "`from`"),
            ("a@b.c", "a@b.c\0", "`to`"),
        ] {
            let e = open(from, to).unwrap();
            assert!(e.class == Class::Configuration && e.fix.contains(key), "{e:?}");
        }
    }
}
