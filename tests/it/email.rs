//! Reports by e-mail: handed to a real Postfix and read from the mailbox it delivers to; to servers that misbehave; and to
//! SES, a local one. What arrives is read by another program's MIME parser.

use crate::lab::isolated;
use crate::lab::moto;
use crate::lab::postfix;
use crate::lab::sample;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use isolated::{KEY, isolated};
use jiff::Timestamp;
use moto::{Moto, REGION};
use postfix::{Instance, Options, free_port, wait_for};
use relaykey::aws::{Http, Limits};
use relaykey::config::{self, Aws, MailVia, ReceiverKind};
use relaykey::fault::{Class, Fault};
use relaykey::report::{self, ATTEMPT, Receiver, Whose, email};
use relaykey::rollover::{Evidence, Report, ReportError, ReportTarget, StillHeld};
use serde_json::{Value, json};

const FROM: &str = "relaykey@example.com";
const TO: [&str; 2] = ["postmaster@example.com", "security@example.com"];
/// How long mail may take to its mailbox.
const DELIVERY: Duration = Duration::from_secs(20);
/// The user that the instance delivers as.
const NOBODY: u32 = 65534;

/// An `email` receiver, with a run time to ask it in.
struct Mail {
    receiver: Box<dyn Receiver>,
    run_time: tokio::runtime::Runtime,
}

impl Mail {
    fn new(to: &[&str], via: MailVia, http: &Http) -> Self {
        let kind = ReceiverKind::Email { from: FROM.into(), to: to.iter().map(|&to| to.into()).collect(), via };
        let configured = config::ReceiverConfig { name: "mail".into(), kind, credentials: None, spread: None };
        Self {
            receiver: report::open(&configured, http).expect("opened"),
            run_time: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time"),
        }
    }

    /// To a mail server on this port of `localhost`.
    fn to_port(to: &[&str], port: u16) -> Self {
        Self::new(to, MailVia::Server { host: "localhost".into(), port }, &Http::new(b""))
    }

    fn to_ses(to: &[&str], moto: &Moto, limits: Limits) -> Self {
        let aws = Aws { region: Some(REGION.into()), endpoint_url: Some(moto.endpoint()), ..Aws::default() };
        Self::new(to, MailVia::Ses(aws), &Http::new(moto.ca_pem().as_bytes()).with_limits(limits))
    }

    /// One attempt, within the time that one may take.
    fn deliver(&self, report: &Report) -> Result<(), Fault> {
        let attempt = async { tokio::time::timeout(ATTEMPT, self.receiver.deliver(report)).await };
        self.run_time.block_on(attempt).expect("an attempt ends in time")
    }

    fn check(&self) -> Result<String, Fault> {
        let whose =
            Whose { credential: "ses".into(), host: "mx1.example.com".into(), host_id: "us".into(), is_passing: false };
        let check = async { tokio::time::timeout(ATTEMPT, self.receiver.check(&whose)).await };
        self.run_time.block_on(check).expect("a check ends in time")
    }

    #[track_caller]
    fn refused(&self, class: &str, temporary: bool) -> Fault {
        let e = self.deliver(&sample("confirmed")).expect_err("not delivered");
        assert_eq!((e.class.word(), e.temporary), (class, temporary), "{e:?}");
        e
    }
}

/// A report with all that makes a message difficult: letters beyond ASCII, long lines, lines that begin with a dot.
fn sample(outcome: &str) -> Report {
    Report {
        source: format!("arn:aws:secretsmanager:{REGION}:123456789012:secret:{}", "ses".repeat(400)),
        version: "8a1c8a3e-5f3e-4b7d-9d0f-3c2b1a0f9e8d".into(),
        previous_username: Some("AKIAI44QH8DHBEXAMPLE".into()),
        outcome: outcome.into(),
        targets: vec![ReportTarget {
            name: "main".into(),
            kind: "postfix".into(),
            map: "hash:/etc/postfix/sasl_passwd".into(),
            keys: vec![format!("[email-smtp.{REGION}.amazonaws.com]:587"), ".".into(), "..example.com".into()],
            read_back: "postmap".into(),
            tables: Vec::new(),
            held: StillHeld::default(),
            region: Some(REGION.into()),
            evidence: Evidence {
                endpoint: format!("email-smtp.{REGION}.amazonaws.com:587"),
                reply: "235 Schlüssel angenommen…".into(),
                at: Timestamp::from_second(1_800_000_000).expect("a time"),
            },
            proof: Some("x".repeat(44)),
            no_proof: None,
        }],
        error: Some(ReportError::new(Class::Network, ".\n..\n.\r\n".into())),
        approved_by: Some("Zoë".into()),
        ..sample::report("5f0c2d9a7b6e4c3f8a1d0e9b2c7f6a54", 7)
    }
}

/// What Python's mail parser makes of a message.
fn parsed(message: &str) -> Value {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.venv/bin/python");
    let program = "import email, email.policy, json, sys\n\
                   m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)\n\
                   a = list(m.iter_attachments())\n\
                   json.dump({'headers': [[k, str(v)] for k, v in m.items()], 'text': m.get_body(('plain',)).get_content(),\n\
                   \x20 'type': m.get_body(('plain',)).get_content_type(), 'defects': [str(d) for p in m.walk() for d in p.defects],\n\
                   \x20 'attachments': [[p.get_filename(), p.get_content_type(), p.get_payload(decode=True).decode()] for p in a]}, sys.stdout)\n";
    let mut child = Command::new(python)
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests' Python");
    child.stdin.take().expect("piped").write_all(message.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{message}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The message is the one about this report: its words, and the report itself.
#[track_caller]
fn is_about(message: &str, report: &Report) {
    let parsed = parsed(message);
    let (subject, body) = email::text(report);
    assert_eq!(parsed["defects"], json!([]), "{message}");
    // A mailbox has the line ends of its system.
    let text = parsed["text"].as_str().expect("a text").replace("\r\n", "\n");
    assert_eq!((text, parsed["type"].as_str()), (body, Some("text/plain")));
    let headers: Vec<(&str, &str)> = parsed["headers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a text")))
        .collect();
    let header = |name: &str| {
        let mut found = headers.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        let first = found.next().unwrap_or_else(|| panic!("no {name}: {headers:?}"));
        assert_eq!(found.next(), None, "{name} twice");
        first
    };
    assert_eq!(header("Subject"), subject);
    assert_eq!((header("From"), header("Auto-Submitted")), (FROM, "auto-generated"));
    assert_eq!(header("Message-ID"), format!("<{}@mx1.example.com>", report.id));
    assert_eq!(
        (header("X-Relaykey-Outcome"), header("X-Relaykey-Report")),
        (report.outcome.word(), report.id.as_str())
    );
    let attachments = parsed["attachments"].as_array().expect("a list");
    assert_eq!(attachments.len(), 1);
    assert_eq!((&attachments[0][0], &attachments[0][1]), (&json!("report.json"), &json!("application/json")));
    let attached: Value = serde_json::from_str(attachments[0][2].as_str().expect("a text")).expect("a report");
    assert_eq!(attached, serde_json::to_value(report).expect("JSON"));
}

/// A Postfix that takes mail on a loopback port, and delivers what is for [`TO`] to one maildir.
struct PostOffice {
    instance: Instance,
}

impl PostOffice {
    fn new() -> Self {
        let boxes = format!("inline:{{ {{{} = box/}}, {{{} = box/}} }}", TO[0], TO[1]);
        let nobody = format!("static:{NOBODY}");
        let instance = Instance::new(&Options {
            map_type: "texthash",
            relayhost: "[127.0.0.1]:1",
            ca_pem: None,
            table: None,
            settings: &[
                ("smtp_sasl_auth_enable", "no"),
                ("virtual_mailbox_domains", "example.com"),
                ("virtual_mailbox_maps", &boxes),
                ("virtual_uid_maps", &nobody),
                ("virtual_gid_maps", &nobody),
            ],
        });
        let mail = instance.base.join("mail");
        fs::create_dir(&mail).expect("a fresh directory");
        fs::set_permissions(&mail, fs::Permissions::from_mode(0o700)).expect("ours");
        chown(&mail, Some(NOBODY), Some(NOBODY)).expect("this is root");
        instance.set("virtual_mailbox_base", &mail.display().to_string());
        let master_cf = instance.config_dir.join("master.cf");
        let services = fs::read_to_string(&master_cf).expect("written");
        fs::write(&master_cf, services + "virtual unix - n n - - virtual\n").expect("written");
        let office = Self { instance };
        office.instance.start();
        office
    }

    fn receiver(&self, to: &[&str]) -> Mail {
        Mail::to_port(to, self.instance.smtpd_port)
    }

    /// What has been delivered so far.
    fn mailbox(&self) -> Vec<String> {
        let Ok(new) = fs::read_dir(self.instance.base.join("mail/box/new")) else { return Vec::new() };
        new.map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("text")).collect()
    }

    fn wait_for_messages(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} messages in the mailbox"), DELIVERY, || {
            Some(self.mailbox()).filter(|messages| messages.len() >= count)
        })
    }
}

#[test]
fn a_message_arrives_whole_by_a_real_mail_server() {
    let office = PostOffice::new();
    let mail = office.receiver(&TO);
    let described = mail.receiver.describe();
    let port = office.instance.smtpd_port;
    assert_eq!(described, format!("mail to {}, {} by the mail server at localhost:{port}", TO[0], TO[1]));

    let said = mail.check().expect("it takes mail");
    assert!(
        said.contains("lab.invalid ESMTP Postfix") && said.contains("all 2 recipients; nothing was sent"),
        "{said}"
    );
    assert_eq!(office.instance.queue(), [] as [String; 0]);

    let report = sample("pending-approval");
    mail.deliver(&report).expect("delivered");
    let messages = office.wait_for_messages(2);
    assert_eq!(messages.len(), 2, "one for each recipient");
    for message in &messages {
        assert!(message.contains("by lab.invalid (Postfix) with ESMTP"), "{message}");
        assert!(message.contains("from mx1.example.com (localhost"), "{message}");
        assert!(message.starts_with(&format!("Return-Path: <{FROM}>")), "{message}");
        is_about(message, &report);
    }
    let delivered_to = |to: &str| messages.iter().any(|m| m.contains(&format!("Delivered-To: {to}")));
    assert!(TO.into_iter().all(delivered_to), "{messages:?}");

    // The same report once more, as after a crash: known by its Message-ID.
    mail.deliver(&report).expect("delivered");
    for message in office.wait_for_messages(4) {
        is_about(&message, &report);
    }
    // Without any letter beyond ASCII, and without any target.
    let bare = Report { targets: Vec::new(), approved_by: None, error: None, ..sample("left") };
    office.receiver(&TO[..1]).deliver(&bare).expect("delivered");
    let messages = office.wait_for_messages(5);
    let last = messages.iter().find(|m| m.contains("X-Relaykey-Outcome: left")).expect("the last one");
    is_about(last, &bare);
}

#[test]
fn with_one_recipient_refused_nobody_gets_the_message_and_the_recipient_is_named() {
    let office = PostOffice::new();
    let mail = office.receiver(&[TO[0], "gone@example.com"]);
    for e in [mail.refused("refused", false), mail.check().expect_err("refused")] {
        assert!(e.what.contains("the recipient gone@example.com") && e.what.contains("550 5.1.1"), "{e:?}");
        assert!(e.fix.contains("gone@example.com") && e.fix.contains("nobody"), "{e:?}");
    }
    office.receiver(&TO[..1]).deliver(&sample("confirmed")).expect("delivered");
    assert_eq!(office.wait_for_messages(1).len(), 1);

    // Too large for the server: known before anything is taken, and said.
    office.instance.set("message_size_limit", "2000");
    office.instance.set("virtual_mailbox_limit", "2000");
    office.instance.reload();
    let e = wait_for("the new limit", DELIVERY, || office.receiver(&TO[..1]).deliver(&sample("confirmed")).err());
    assert!(e.class == Class::Refused && e.what.contains("552 5.3.4"), "{e:?}");
    office.instance.stop();
    let e = office.receiver(&TO[..1]).refused("network", true);
    let port = office.instance.smtpd_port;
    assert!(e.what.contains(&format!("localhost:{port} cannot be reached")), "{e:?}");
    assert!(e.what.contains("127.0.0.1: Connection refused"), "{e:?}");
    assert_eq!(office.receiver(&TO[..1]).check().expect_err("down").class, Class::Network);
}

// ---------------------------------------------------------------- servers that misbehave

/// A server that serves one connection with `serve`. Gives its port.
fn serving(serve: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(ATTEMPT + Duration::from_secs(5))).expect("a limit");
        serve(stream);
    });
    port
}

/// A server that answers each line that begins so with that, and everything else as a good one. An answer of `None`
/// closes the connection. Gives the port, and all that it heard.
fn answering(script: &'static [(&'static str, Option<&'static str>)]) -> (u16, Arc<Mutex<String>>) {
    let heard = Arc::new(Mutex::new(String::new()));
    let all = Arc::clone(&heard);
    let port = serving(move |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let scripted = |line: &str| script.iter().find(|(start, _)| line.starts_with(start)).map(|(_, answer)| *answer);
        let mut line = "greeting".to_owned();
        let mut data = false;
        loop {
            let usual = match line.trim_end() {
                "greeting" => "220 good",
                "DATA" => "354 go on",
                "." => "250 taken",
                "QUIT" => "221 bye",
                _ => "250 fine",
            };
            if !data || line == ".\r\n" {
                let Some(answer) = scripted(&line).unwrap_or(Some(usual)) else { return };
                if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
                    return;
                }
                data = answer.starts_with("354");
            }
            line.clear();
            if !lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                return;
            }
            all.lock().expect("not poisoned").push_str(&line);
        }
    });
    (port, heard)
}

#[test]
fn the_dialogue_is_the_one_that_rfc_5321_describes() {
    let (port, heard) = answering(&[]);
    Mail::to_port(&TO, port).deliver(&sample("confirmed")).expect("delivered");
    let heard = wait_for("the whole dialogue", DELIVERY, || {
        Some(heard.lock().expect("not poisoned").clone()).filter(|heard| heard.ends_with("QUIT\r\n"))
    });
    let envelope =
        format!("EHLO mx1.example.com\r\nMAIL FROM:<{FROM}>\r\nRCPT TO:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", TO[0], TO[1]);
    let message =
        heard.strip_prefix(&envelope).expect("these commands").strip_suffix("\r\n.\r\nQUIT\r\n").expect("this end");
    assert!(message.is_ascii() && message.lines().all(|line| line.len() <= 998));
    assert!(message.lines().all(|line| !line.starts_with('.') || line.starts_with("..")), "{message}");
    is_about(&message.replace("\r\n..", "\r\n."), &sample("confirmed"));

    let (port, heard) = answering(&[]);
    Mail::to_port(&TO[..1], port).check().expect("it takes mail");
    let heard = wait_for("the whole dialogue", DELIVERY, || {
        Some(heard.lock().expect("not poisoned").clone()).filter(|heard| heard.ends_with("QUIT\r\n"))
    });
    assert_eq!(heard, format!("EHLO mx1.example.com\r\nMAIL FROM:<{FROM}>\r\nRCPT TO:<{}>\r\nRSET\r\nQUIT\r\n", TO[0]));
}

#[test]
fn what_a_server_says_is_told_with_what_it_means() {
    let cases: &[(&'static [(&str, Option<&str>)], &str, bool, &str)] = &[
        (
            &[("greeting", Some("421 too many connections"))],
            "deferred",
            true,
            "the greeting now: 421 too many connections",
        ),
        (&[("greeting", Some("554 no service"))], "refused", false, "554 no service"),
        (&[("EHLO", Some("550-a\r\n550-b\r\n550 who are you"))], "refused", false, "EHLO: 550 a b who are you"),
        // RFC 5321, section 4.2.1: each line has the same code.
        (&[("EHLO", Some("250-a\r\n250-b\r\n550 who are you"))], "smtp", true, "one reply with two codes, 250 and 550"),
        (&[("MAIL", Some("553 not yours"))], "refused", false, "MAIL FROM: 553 not yours"),
        (
            &[("RCPT TO:<security", Some("450 4.2.0 greylisted"))],
            "deferred",
            true,
            "the recipient security@example.com now: 450 4.2.0 greylisted",
        ),
        (&[("DATA", Some("451 later"))], "deferred", true, "DATA now: 451 later"),
        (&[(".", Some("554 5.7.1 content"))], "refused", false, "the message: 554 5.7.1 content"),
        (&[(".", None)], "network", true, "it closed the connection, waiting for the answer to the message"),
        (&[("DATA", None)], "network", true, "waiting for the answer to DATA"),
        (&[("greeting", None)], "network", true, "waiting for the answer to the greeting"),
        // A yes to another question.
        (&[("DATA", Some("250 fine"))], "smtp", true, "DATA as no mail server does: 250 fine"),
        (&[("greeting", Some("HTTP/1.1 400 Bad Request"))], "smtp", true, "HTTP/1.1 400 Bad Request"),
        (&[("greeting", Some(""))], "smtp", true, "the greeting as no mail server does"),
        (&[("EHLO", Some("250\u{a0}fine"))], "smtp", true, "EHLO as no mail server does"),
        (&[("MAIL", Some("550 a\u{1b}[2Jb\u{0}c"))], "refused", false, "550 a\\u{1b}[2Jb\\u{0}c"),
    ];
    for (script, class, temporary, words) in cases {
        let (port, heard) = answering(script);
        let e = Mail::to_port(&TO, port).refused(class, *temporary);
        assert!(e.what.contains(words) && e.what.contains(&format!("localhost:{port}")), "{words}: {e:?}");
        assert!(!e.fix.is_empty(), "{e:?}");
        let heard = heard.lock().expect("not poisoned").clone();
        assert!(script[0].0 != "RCPT TO:<security" || !heard.contains("DATA"), "{heard}");
    }
}

/// Host and credential names, versions, and the words of AWS and SES, with which commands could be smuggled: the raw bytes.
#[test]
fn a_mail_server_hears_the_dialogue_and_nothing_that_others_put_into_it() {
    for hostile in [
        "x\r\n.\r\nMAIL FROM:<thief@example.com>\r\nRCPT TO:<thief@example.com>\r\n",
        "x\n.\nMAIL FROM:<thief@example.com>\n",
        "x\r.\rMAIL FROM:<thief@example.com>\r",
        "x\n\r.\r\nRSET\r\n",
        "\0\u{1b}[2J\u{85}\u{2028}.\u{2029}\u{202e}h\u{f6}st",
    ] {
        let (port, heard) = answering(&[]);
        let report = Report {
            host: hostile.into(),
            id: hostile.into(),
            credential: hostile.into(),
            version: hostile.into(),
            username: hostile.into(),
            error: Some(ReportError::new(Class::Refused, hostile.into())),
            ..sample("failed")
        };
        Mail::to_port(&TO, port).deliver(&report).unwrap_or_else(|e| panic!("{hostile:?}: {e:?}"));
        let heard = wait_for("the whole dialogue", DELIVERY, || {
            Some(heard.lock().expect("not poisoned").clone()).filter(|heard| heard.ends_with("QUIT\r\n"))
        });
        let begins =
            format!("EHLO [127.0.0.1]\r\nMAIL FROM:<{FROM}>\r\nRCPT TO:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", TO[0], TO[1]);
        assert!(heard.starts_with(&begins), "{hostile:?}: {heard}");
        assert!(
            heard.ends_with("\r\n.\r\nQUIT\r\n") && heard.matches("\r\n.\r\n").count() == 1,
            "{hostile:?}: {heard}"
        );
        let lines: Vec<&str> = heard.split("\r\n").collect();
        assert!(
            lines.iter().all(|line| line.len() <= 998 && line.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~'))),
            "{heard}"
        );
        // Commands end where the message begins, and after its one end comes goodbye: what stands between are its lines, which
        // may be wrapped before any word.
        let (commands, message) = heard.split_once("DATA\r\n").expect("DATA");
        assert_eq!(commands.lines().count(), 4, "{hostile:?}: {heard}");
        assert_eq!(message.split_once("\r\n.\r\n").map(|(_, after)| after), Some("QUIT\r\n"), "{hostile:?}: {heard}");
    }
}

#[test]
fn endless_answers_are_not_listened_to() {
    let began = Instant::now();
    let lines: fn(TcpStream) = |mut stream| while stream.write_all(b"220-still greeting\r\n").is_ok() {};
    let one_line: fn(TcpStream) = |mut stream| while stream.write_all(&[b'2'; 4096]).is_ok() {};
    for serve in [lines, one_line] {
        let e = Mail::to_port(&TO, serving(serve)).refused("smtp", true);
        assert!(e.what.contains("more than 65536 bytes"), "{e:?}");
    }
    // A long answer is cut.
    let long: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(format!("554 {}\r\n", "no ".repeat(10_000)).as_bytes());
        let _ = stream.read(&mut [0; 100]);
    };
    let e = Mail::to_port(&TO, serving(long)).refused("refused", false);
    assert!(e.what.len() < 700, "{}", e.what.len());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_server_that_hangs_is_given_up_before_the_attempt_is() {
    // At the greeting, in the middle of a line, after the message, and one that reads nothing.
    let silent: fn(TcpStream) = |mut stream| drop(stream.read_to_end(&mut Vec::new()));
    let half: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"220 go");
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let after: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"220 a\r\n250 b\r\n250 c\r\n250 d\r\n250 e\r\n354 f\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let trickle: fn(TcpStream) = |mut stream| {
        while stream.write_all(b"2").is_ok() {
            std::thread::sleep(Duration::from_millis(500));
        }
    };
    let attempts =
        [(silent, "the greeting"), (half, "the greeting"), (after, "the message"), (trickle, "the greeting")].map(
            |(serve, waiting)| {
                let mail = Mail::to_port(&TO, serving(serve));
                std::thread::spawn(move || {
                    let began = Instant::now();
                    let e = mail.refused("timeout", true);
                    assert!(e.what.contains(&format!("waiting for the answer to {waiting}")), "{e:?}");
                    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
                })
            },
        );
    for attempt in attempts {
        attempt.join().expect("as expected");
    }
}

#[test]
fn a_port_that_nothing_listens_at_is_told() {
    let e = Mail::to_port(&TO, free_port()).refused("network", true);
    assert!(e.what.contains("127.0.0.1: Connection refused") && e.fix.contains("start the mail server"), "{e:?}");
}

// ---------------------------------------------------------------- SES

#[test]
fn a_message_arrives_by_ses() {
    isolated("email::a_message_arrives_by_ses", || {
        let moto = Moto::start();
        let mail = Mail::to_ses(&TO, &moto, Limits::default());
        assert_eq!(mail.receiver.describe(), format!("mail to {}, {} by SES in {REGION}", TO[0], TO[1]));
        let e = mail.refused("refused", false);
        assert!(e.what.contains("MessageRejected") && e.fix.contains(FROM), "{e:?}");

        moto.verify_identity(FROM);
        let report = sample("pending-approval");
        mail.deliver(&report).expect("delivered");
        let sent = moto.sent_messages();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert_eq!(sent[0]["from"], FROM);
        let to: Vec<&str> = sent[0]["to"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(TO.iter().all(|recipient| to.contains(recipient)), "{to:?}");
        is_about(sent[0]["raw"].as_str().expect("a text"), &report);
    });
}

#[test]
fn what_ses_says_is_told_with_what_to_do() {
    isolated("email::what_ses_says_is_told_with_what_to_do", || {
        let moto = Moto::start();
        moto.verify_identity(FROM);
        let mail = Mail::to_ses(&TO, &moto, Limits::default());
        let unverified = "Email address is not verified. The following identities failed the check in region EU-WEST-1: relaykey@example.com";
        for (status, code, message, class, temporary, fix) in [
            (
                400,
                "MessageRejected",
                unverified,
                "refused",
                false,
                "verify relaykey@example.com, or the domain example.com",
            ),
            (400, "MailFromDomainNotVerifiedException", "no MX", "refused", false, "MX record"),
            (400, "AccountSuspendedException", "suspended", "refused", false, "account's owner"),
            (400, "SendingPausedException", "paused", "refused", false, "resume sending"),
            (429, "TooManyRequestsException", "rate", "throttled", true, "quota"),
            (400, "LimitExceededException", "daily", "throttled", true, "quota"),
            (500, "InternalServiceErrorException", "oops", "service", true, "tried again"),
            (
                403,
                "AccessDeniedException",
                "User: arn:aws:sts::123456789012:assumed-role/mx/i-1 is not authorized to perform: ses:SendRawEmail on resource: \
                 arn:aws:ses:eu-west-1:123456789012:identity/example.com",
                "access-denied",
                false,
                "allow ses:SendRawEmail on arn:aws:ses:eu-west-1:123456789012:identity/example.com",
            ),
        ] {
            moto.fault(
                KEY,
                "SendEmail",
                json!({"kind": "error", "status": status, "code": code, "message": message, "count": 0}),
            );
            let e = mail.refused(class, temporary);
            assert!(e.fix.contains(fix), "{code}: {e:?}");
            assert!(e.what.contains(message) || class == "access-denied", "{code}: {e:?}");
            moto.heal(KEY);
        }
        assert_eq!(moto.sent_messages(), [] as [Value; 0]);

        // What the check says of the account.
        let account = |sending: bool, production: bool| {
            let body = json!({"SendingEnabled": sending, "ProductionAccessEnabled": production}).to_string();
            moto.fault(
                KEY,
                "GetAccount",
                json!({"kind": "answer", "status": 200, "body": body, "type": "application/json"}),
            );
            mail.check()
        };
        let said = account(true, true).expect("it sends");
        assert!(said.starts_with("the account sends by SES in eu-west-1; the right to send as"), "{said}");
        assert!(account(true, false).expect("it sends").contains("sandbox"));
        let e = account(false, true).expect_err("paused");
        assert!(e.class == Class::Refused && e.fix.contains("resume sending"), "{e:?}");
        moto.fault(
            KEY,
            "GetAccount",
            json!({"kind": "error", "status": 403, "code": "AccessDeniedException", "message": "User: arn:aws:iam::1:user/mx is not authorized"}),
        );
        let said = mail.check().expect("no obstacle");
        assert!(said.contains("not known here") && said.contains("is not tried"), "{said}");
        assert_eq!(moto.sent_messages(), [] as [Value; 0], "a check sends nothing");

        let hasty = Limits { attempt: Duration::from_secs(1), operation: Duration::from_secs(1), ..Limits::default() };
        moto.fault(KEY, "SendEmail", json!({"kind": "hang", "seconds": 5}));
        let began = Instant::now();
        Mail::to_ses(&TO, &moto, hasty).refused("network", true);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}
