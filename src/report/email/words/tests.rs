use jiff::Timestamp;

use super::body::{INDENT, WIDTH, argument};
use super::facts::when_written;
use super::*;
use crate::instruction::Instruction;
use crate::rollover::{Evidence, MailServer, ReportError, ReportTarget, StillHeld};

const NEW: &str = "AKIAIOSFODNN7EXAMPLE";
const OLD: &str = "AKIAI44QH8DHBEXAMPLE";
const BEGUN: &str = "AKIAJBEGUNBEGUNEXAMP";

fn old(entries: &[&str]) -> StillHeld {
    StillHeld { remaining_old: entries.iter().map(|key| (*key).to_owned()).collect(), ..StillHeld::default() }
}

fn target() -> ReportTarget {
    ReportTarget {
        name: "main".into(),
        kind: "postfix".into(),
        map: "hash:/etc/postfix/sasl_passwd".into(),
        keys: vec!["[email-smtp.eu-west-1.amazonaws.com]:587".into()],
        read_back: "postmap -q, text and map".into(),
        tables: Vec::new(),
        held: StillHeld::default(),
        region: Some("eu-west-1".into()),
        evidence: Evidence {
            endpoint: "email-smtp.eu-west-1.amazonaws.com:587".into(),
            reply: "235 Authentication successful.".into(),
            at: Timestamp::from_second(1_800_000_000).unwrap(),
        },
        proof: Some("x".repeat(44)),
        no_proof: None,
    }
}

fn report(outcome: &str) -> Report {
    Report {
        schema: "relaykey/report/v1".into(),
        id: "5f0c2d9a7b6e4c3f8a1d0e9b2c7f6a54-ses-1800000000000".into(),
        seq: 1_800_000_000_000,
        host_id: "5f0c2d9a7b6e4c3f8a1d0e9b2c7f6a54".into(),
        host: "mx1.example.com".into(),
        credential: "ses".into(),
        source: "arn:aws:secretsmanager:eu-west-1:123456789012:secret:mail/ses-AbCdEf".into(),
        version: "8a1c8a3e-5f3e-4b7d-9d0f-3c2b1a0f9e8d".into(),
        username: NEW.into(),
        previous_username: Some(OLD.into()),
        at: "2027-01-15T08:00:05Z".into(),
        mode: "automatic".into(),
        agent: "relaykey/0.1.0".into(),
        outcome: outcome.into(),
        targets: vec![target()],
        error: None,
        waiting: None,
        mail_server: Some(MailServer::Runs),
        in_use: None,
        version_in_use: None,
        another_login: false,
        half_done: Vec::new(),
        of_applied: false,
        approved_by: None,
        labels: Vec::new(),
        poll_s: None,
        alive_due: None,
        lease_s: None,
        latest: None,
    }
}

fn error(class: &str, words: &str) -> Option<ReportError> {
    Some(ReportError::new(serde_json::from_value(class.into()).expect("a class"), words.into()))
}

/// A report for every outcome, and the messages about them that `messages.txt` holds.
fn all() -> Vec<(&'static str, Report)> {
    let bare = |outcome: &str| Report { targets: Vec::new(), ..report(outcome) };
    let failed = |class: &str, words: &str| Report { error: error(class, words), ..bare("failed") };
    let left_over = Report {
        approved_by: Some("alice (uid 1000)".into()),
        targets: vec![
            ReportTarget { held: old(&["[relay2.example.com]:587", "sales@example.com"]), ..target() },
            ReportTarget { name: "bulk".into(), proof: None, no_proof: Some("no SES password".into()), ..target() },
        ],
        ..report("confirmed")
    };
    let another_relay = Report {
        username: "mx1".into(),
        previous_username: None,
        version: "17".into(),
        source: "/etc/relaykey/login".into(),
        ..failed("refused", "smtp.example.net:587: 535 5.7.8 authentication failed")
    };
    vec![
        ("confirmed", report("confirmed")),
        ("confirmed, with old entries left", left_over),
        ("adopted", Report { previous_username: None, ..report("adopted") }),
        (
            "pending-approval",
            Report {
                targets: vec![ReportTarget {
                    map: String::new(),
                    keys: Vec::new(),
                    read_back: String::new(),
                    proof: None,
                    ..target()
                }],
                mode: "manual".into(),
                waiting: Some(Waiting {
                    opens: Some("2027-01-16T01:00:00Z".parse().unwrap()),
                    window: Some("Sat 02:00-04:00".into()),
                    if_applied_dies: true,
                    ..Waiting::default()
                }),
                error: error(
                    "held",
                    "verified, and waits for somebody to decide. To put it into use: relaykey approve ses --version 8a1c. To \
                     refuse it: relaykey reject ses --version 8a1c --reason \"...\". If nobody does either, it goes into use by \
                     itself at 2027-01-16T01:00:00Z (apply = \"Sat 02:00-04:00\"); should the mail relay refuse that one, it goes \
                     into use at once",
                ),
                ..report("pending-approval")
            },
        ),
        (
            "pending-approval, without a time",
            Report {
                mode: "manual".into(),
                waiting: Some(Waiting::default()),
                error: error(
                    "held",
                    "verified, and waits for somebody to decide. Until then the present login stays in use",
                ),
                ..bare("pending-approval")
            },
        ),
        (
            "pending-approval, to be done by hand",
            Report {
                waiting: Some(Waiting {
                    steps: vec![
                        Instruction::Text(
                            "in /etc/postfix/sasl_passwd, line 3, replace what stands after \
                             [email-smtp.eu-west-1.amazonaws.com]:587 by AKIAIOSFODNN7EXAMPLE:***"
                                .into(),
                        ),
                        // One command, `;` and all, longer than a line.
                        Instruction::Command(
                            "(umask 077; postmap -c /etc/postfix -s hash:/etc/postfix/sasl_passwd > \
                             /etc/postfix/sasl_passwd.new && mv /etc/postfix/sasl_passwd.new /etc/postfix/sasl_passwd)"
                                .into(),
                        ),
                        Instruction::Command("postfix -c /etc/postfix reload".into()),
                    ],
                    differences: vec![
                        "/etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 holds the login of \
                         AKIAI44QH8DHBEXAMPLE, not of AKIAIOSFODNN7EXAMPLE"
                            .into(),
                    ],
                    ..Waiting::default()
                }),
                error: error(
                    "by-hand",
                    "target main does not hold version 8a1c8a3e-5f3e-4b7d-9d0f-3c2b1a0f9e8d (AKIAIOSFODNN7EXAMPLE), and is left \
                     so: write = false. /etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 holds the login of \
                     AKIAI44QH8DHBEXAMPLE, not of AKIAIOSFODNN7EXAMPLE. To do: in /etc/postfix/sasl_passwd, line 3, replace what \
                     stands after [email-smtp.eu-west-1.amazonaws.com]:587 by AKIAIOSFODNN7EXAMPLE:***; postmap -c /etc/postfix \
                     hash:/etc/postfix/sasl_passwd; postfix -c /etc/postfix reload",
                ),
                ..bare("pending-approval")
            },
        ),
        (
            "pending-approval, to be done by hand, as 0.1.0 tells it",
            Report {
                error: error(
                    "by-hand",
                    "it is left so: write = false. To do: (umask 077; a > b); postfix reload",
                ),
                ..bare("pending-approval")
            },
        ),
        (
            "failed: with what to do told apart",
            Report {
                error: Some(ReportError {
                    what: Some("/etc/postfix/sasl_passwd: the text is gone".into()),
                    fix: Some(
                        "bring the text back, from a backup or with: (umask 077; postmap -s hash:/etc/postfix/sasl_passwd > \
                         /etc/postfix/sasl_passwd.new)"
                            .into(),
                    ),
                    ..ReportError::new(Class::Ambiguous, "the text is gone. To do: bring it back".into())
                }),
                ..bare("failed")
            },
        ),
        ("failed: refused", failed("refused", "535 Authentication Credentials Invalid")),
        ("failed: refused, at another relay", another_relay),
        ("failed: policy", failed("policy", "554 Access denied: User is not authorized to perform ses:SendRawEmail")),
        ("failed: not newer", failed("not-newer", "version 16 was stored before version 17, which is in use")),
        ("failed: reload", failed("reload-owed", "postfix reload: exit code 1")),
        ("failed: changed by another", failed("drift", "/etc/postfix/sasl_passwd, line 3, holds another login")),
        ("failed: anything else", failed("configuration", "/etc/postfix is writable by others")),
        (
            "failed: no key known",
            Report {
                username: String::new(),
                version: String::new(),
                source: String::new(),
                ..failed("access-denied", "secretsmanager:GetSecretValue on mail/ses was denied")
            },
        ),
        (
            "rejected",
            Report {
                approved_by: Some("alice (uid 1000)".into()),
                error: error("rejected", "change freeze until Monday"),
                ..bare("rejected")
            },
        ),
        (
            "withdrawn",
            Report {
                error: error("drift", "/etc/postfix/sasl_passwd, line 3, holds another login"),
                ..bare("withdrawn")
            },
        ),
        (
            "withdrawn: broken off by itself, and another key came",
            Report {
                in_use: Some(vec![BEGUN.into()]),
                error: error(
                    "superseded",
                    "the mail server (main) uses version 16 (AKIAJBEGUNBEGUNEXAMP), which this host put there and never confirmed",
                ),
                ..bare("withdrawn")
            },
        ),
        (
            "failed: refused, with a key before it put in place in part",
            Report {
                in_use: Some(vec![OLD.into()]),
                half_done: vec![BEGUN.into()],
                ..failed("refused", "535 Authentication Credentials Invalid")
            },
        ),
        (
            "failed: refused, with another key in use than the one before",
            Report {
                in_use: Some(vec![BEGUN.into()]),
                ..failed("refused", "535 Authentication Credentials Invalid")
            },
        ),
        (
            "failed: refused, the key in use with another password",
            Report {
                in_use: Some(vec![NEW.into()]),
                version_in_use: Some("the one before".into()),
                ..failed("refused", "535 Authentication Credentials Invalid")
            },
        ),
        (
            "failed: the login could not be put back",
            Report {
                in_use: Some(vec!["AKIAFOREIGNFOREIGNEX".into()]),
                of_applied: true,
                ..failed("ambiguous", "line 3 holds the login of AKIAFOREIGNFOREIGNEX, which is not ours")
            },
        ),
        (
            "failed: anything else, with no login in use",
            Report { in_use: Some(Vec::new()), ..failed("configuration", "/etc/postfix is writable by others") },
        ),
        (
            "failed: refused, over a login of somebody else",
            Report { in_use: Some(vec![BEGUN.into()]), another_login: true, ..failed("refused", "535 Authentication failed") },
        ),
        (
            "failed: no key known, over a login of somebody else",
            Report {
                username: String::new(),
                version: String::new(),
                in_use: Some(vec![BEGUN.into()]),
                another_login: true,
                ..failed("access-denied", "secretsmanager:GetSecretValue on mail/ses was denied")
            },
        ),
        (
            "rejected, over a login of somebody else",
            Report {
                in_use: Some(vec![BEGUN.into()]),
                another_login: true,
                error: error("rejected", "change freeze until Monday"),
                ..bare("rejected")
            },
        ),
        (
            "applied-refused",
            Report {
                error: error(
                    "applied-refused",
                    "email-smtp.eu-west-1.amazonaws.com refuses the key in use, AKIAIOSFODNN7EXAMPLE, since 2027-01-15T07:59:00Z: \
                     535 Authentication Credentials Invalid. To do: activate the key again, or publish a valid one at the source",
                ),
                ..bare("applied-refused")
            },
        ),
        ("left", bare("left")),
        ("alive", bare("alive")),
        (
            "alive, with a key that is old",
            Report { error: error("old-key", "the key AKIAIOSFODNN7EXAMPLE is 97 days old"), ..bare("alive") },
        ),
        ("an outcome of a later version", bare("splendid")),
    ]
}

fn messages() -> String {
    let message = |(name, report): &(&str, Report)| {
        let (subject, body) = text(report);
        format!("######## {name}\nSubject: {subject}\n\n{body}\n")
    };
    all().iter().map(message).collect()
}

#[test]
fn every_outcome_is_told_in_exactly_these_words() {
    let (expected, messages) = (include_str!("messages.txt"), messages());
    for (n, (expected, got)) in expected.lines().zip(messages.lines()).enumerate() {
        assert_eq!(got, expected, "line {} of messages.txt; all of it would be:\n{messages}", n + 1);
    }
    assert!(messages == expected, "messages.txt ends early or late; all of it would be:\n{messages}");
}

#[test]
fn messages_can_be_read_by_who_did_not_build_this() {
    for (name, report) in all() {
        let (subject, body) = text(&report);
        for word in ["candidate", "rollover", "live key", "outbox", "read-back", "target", "MTA", "credential"] {
            assert!(!body.contains(word) && !subject.contains(word), "{name}: {word:?} in\n{subject}\n{body}");
        }
        // `drift` stands only as the setting that it is.
        assert_eq!(body.matches("drift").count(), body.matches("drift = \"report\"").count(), "{name}");
        // An access key id is explained where it is named.
        assert_eq!(body.matches("access key id").count(), body.matches("\"access key id\"").count(), "{name}");
        assert!(subject.starts_with("[relaykey] mx1.example.com: ") && subject.ends_with(" (ses)"), "{subject}");
        for line in body.lines().filter(|line| line.chars().count() > WIDTH) {
            // What is to be copied is not broken: one long word after its label, or a command.
            let command =
                ["    relaykey ", "    (umask 077; ", "    bring the text back, from a backup or with: (umask"];
            let command = command.iter().any(|begin| line.starts_with(begin));
            let word = line.get(INDENT..).is_some_and(|rest| !rest.contains(' '));
            assert!(command || word, "{name}: {line}");
        }
    }
}

#[test]
fn texts_from_elsewhere_stay_on_their_line_and_are_bounded() {
    let hostile = "a\r\nSubject: b\u{1b}[2J\u{0}c \u{202e}d\u{200b}\n\n.\n".to_owned() + &"é".repeat(5000);
    let report = Report {
        host: hostile.clone(),
        credential: hostile.clone(),
        version: hostile.clone(),
        username: hostile.clone(),
        previous_username: Some(format!("{hostile}2")),
        in_use: Some(vec![hostile.clone(); 100]),
        source: hostile.clone(),
        id: hostile.clone(),
        at: hostile.clone(),
        agent: hostile.clone(),
        approved_by: Some(hostile.clone()),
        targets: vec![ReportTarget {
            name: hostile.clone(),
            kind: hostile.clone(),
            map: hostile.clone(),
            keys: vec![hostile.clone(); 1000],
            read_back: hostile.clone(),
            tables: Vec::new(),
            held: StillHeld { remaining_old: vec![hostile.clone(); 1000], ..StillHeld::default() },
            evidence: Evidence { endpoint: hostile.clone(), reply: hostile.clone(), at: Timestamp::UNIX_EPOCH },
            proof: None,
            no_proof: Some(hostile.clone()),
            region: None,
        }],
        error: error("refused", &hostile),
        ..report("failed")
    };
    let outcomes = ["confirmed", "adopted", "failed", "pending-approval", "rejected", "withdrawn", "left", "alive"];
    for outcome in outcomes.into_iter().chain([hostile.as_str()]) {
        let (subject, body) = text(&Report { outcome: outcome.into(), ..report.clone() });
        let obeyed = |c: char| !crate::text::shows(c);
        assert!(!subject.contains(obeyed) && !body.replace('\n', "").contains(obeyed), "{subject}\n{body}");
        assert!(subject.len() < 8_000 && body.len() < 120_000, "{} {}", subject.len(), body.len());
        assert!(body.contains("and 980 more: see report.json"), "{body}");
    }
}

#[test]
fn what_is_copied_into_a_shell_is_one_argument() {
    for (text, expected) in [
        ("8a1c8a3e-5f3e", "8a1c8a3e-5f3e"),
        ("17", "17"),
        ("a b", "'a b'"),
        ("$(reboot)", "'$(reboot)'"),
        ("it's", r"'it'\''s'"),
        ("-x", "'-x'"),
        ("", "''"),
    ] {
        assert_eq!(argument(text), expected);
    }
}

/// What a mail server that is down does to the mail is told, and not that mail goes on.
#[test]
fn mail_is_not_called_unaffected_where_the_mail_server_was_not_seen_running() {
    for (name, report) in all() {
        if ["confirmed", "adopted"].contains(&report.outcome.word()) {
            continue;
        }
        for seen in [Some(MailServer::Stopped), None] {
            let (_, body) = text(&Report { mail_server: seen, ..report.clone() });
            assert!(!body.replace('\n', " ").contains("not affected"), "{name}: {body}");
        }
    }
}

#[test]
fn times_are_told_in_utc() {
    assert_eq!(when_written("2027-01-15T08:00:05Z"), "2027-01-15 08:00:05 UTC");
    assert_eq!(when_written("yesterday"), "yesterday");
}

/// A report may come while somebody else's login is in use: nobody is to be told that mail is safe, nor which key can go.
#[test]
fn no_mail_is_called_unaffected_over_a_login_of_somebody_else() {
    // Not where a reload is owed: what is in use is not named there at all.
    let classes = ["refused", "probe", "left-behind", "configuration", "access-denied"];
    let failed = classes.map(|class| Report { error: error(class, "words"), ..report("failed") });
    let of_source = Report { username: String::new(), version: String::new(), ..failed[4].clone() };
    let others = ["pending-approval", "rejected", "left", "alive"].map(report);
    let by_hand = Report { error: error("by-hand", "words"), ..report("pending-approval") };
    for told in failed.into_iter().chain(others).chain([of_source, by_hand]) {
        let what = format!("{} {:?}", told.outcome, told.error);
        let told = Report { targets: Vec::new(), in_use: Some(vec![BEGUN.into()]), another_login: true, ..told };
        let (subject, body) = text(&told);
        assert!(!body.contains("not affected") && !body.contains("can wait"), "{what}:\n{body}");
        assert!(!subject.contains("stays"), "{what}: {subject}");
        let flat = body.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains("Mail may be failing, or going out with another login"), "{what}:\n{body}");
        assert!(!flat.contains(&format!("previous key {OLD}")) || told.outcome.word() != "failed", "{what}:\n{body}");
    }
}
