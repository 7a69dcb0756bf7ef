//! The page in a real browser: what a person sees at the top, for every state; and that what comes from outside stays text.
//!
//! `PAGE_PICTURES=1 cargo test --test it page::` leaves a picture of each state in target/page, as seen on a desk, on a phone
//! and in the dark, for a person to judge.

use crate::lab::health as lab;
use crate::lab::scratch;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{
    Host, Server, config_refused, failure, key_in_use_refused, left, mail_log_notice, old_key, policy_notice, program,
    retry, spoil,
};
use relaykey::audit::By;
use relaykey::fault::Class;
use relaykey::instruction::Instruction;
use relaykey::wake::alarm::AlarmKind;

/// The longest that a browser may take, on a busy machine.
const BROWSER: Duration = Duration::from_secs(60);

/// Runs Chromium over one address of this machine; gives what it printed. Nothing of it goes to any network.
fn chromium(url: &str, args: &[&str]) -> String {
    let dir = scratch::private("page");
    let (out, log) = (dir.path().join("out"), dir.path().join("log"));
    let file = |path: &Path| std::fs::File::create(path).expect("made");
    let mut child = Command::new(program("chromium", "chromium"))
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
        ])
        .args(["--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .args(args)
        .arg(url)
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&log))
        .spawn()
        .expect("chromium starts");
    let end = Instant::now() + BROWSER;
    let status = loop {
        match child.try_wait().expect("waited for") {
            Some(status) => break status,
            None if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                panic!(
                    "chromium {args:?} did not end within {BROWSER:?}: {}",
                    std::fs::read_to_string(&log).expect("read")
                );
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = std::fs::read_to_string(&log).expect("read");
    assert!(status.success(), "chromium {args:?}: {status}: {said}");
    // What the page asked for and was not allowed, and every other complaint about it, goes to the console.
    let complaints: Vec<&str> = said.lines().filter(|l| l.contains("CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    std::fs::read_to_string(&out).expect("text")
}

/// The page after the browser has made of it what it makes.
fn dom(server: &Server) -> String {
    chromium(&format!("http://{}/", server.address()), &["--dump-dom"])
}

/// The text between the first `open` and the `close` after it, without tags, references resolved.
fn text<'a>(dom: &'a str, open: &str, close: &str) -> String {
    let rest = dom.split_once(open).unwrap_or_else(|| panic!("no {open} in {dom}")).1;
    let inside: &'a str = rest.split_once(close).unwrap_or_else(|| panic!("no {close} after {open}")).0;
    let mut out = String::new();
    let mut in_tag = false;
    for c in inside.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => in_tag = false,
            c if !in_tag => out.push(c),
            _ => {}
        }
    }
    out.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// What a state has to say at the very top: how urgent, what, what of the mail, what to do.
struct Seen {
    name: &'static str,
    make: fn(&mut Host),
    level: &'static str,
    sentence: &'static str,
    mail: &'static str,
    fix: &'static str,
    /// And somewhere on the page.
    below: &'static [&'static str],
}

const SEEN: &[Seen] = &[
    Seen {
        name: "fine",
        make: |_| {},
        level: "Fine",
        sentence: "Everything is fine.",
        mail: "Mail logs in with the newest key of ses: AKIANEWNEWNEWNEWNEW2",
        fix: "",
        below: &[
            "up to date",
            "Next look",
            "in 3 minutes",
            "Version stored",
            "1 day 6 hours",
            "New key put into use",
            "AKIAOLDOLDOLDOLDOLD1 → AKIANEWNEWNEWNEWNEW2",
            "asked for by root (claims to be alice)",
            "Cost of asking",
        ],
    },
    Seen {
        name: "refused",
        make: |h| spoil(h, "refused"),
        level: "Needs attention",
        sentence: "ses: the new key is refused by the mail relay.",
        mail: "Mail is not affected for as long as the old key (AKIAOLDOLDOLDOLDOLD1) is valid: do not delete that one yet.",
        fix: "Do: check in AWS that the access key AKIANEWNEWNEWNEWNEW2 is active",
        below: &["535 Authentication Credentials Invalid", "not in use yet", "first refused 36 minutes ago"],
    },
    Seen {
        name: "not-yet",
        make: |h| spoil(h, "not-yet"),
        level: "Under way",
        sentence: "ses: the mail relay does not take the new key yet.",
        mail: "Mail is not affected for as long as the old key (AKIAOLDOLDOLDOLDOLD1) is valid",
        fix: "SES may not know a new key for some minutes",
        below: &["535 Authentication Credentials Invalid"],
    },
    Seen {
        name: "drift",
        make: |h| spoil(h, "drift"),
        level: "Act now",
        sentence: "ses: somebody else changed the mail server's login.",
        mail: "Mail may be failing, or going out with another login",
        fix: "find out what changes the table or main.cf",
        below: &["changed by somebody else", "Key put in place", "then have it put back: relaykey sync ses"],
    },
    Seen {
        name: "reload-owed",
        make: |h| spoil(h, "reload-owed"),
        level: "Needs attention",
        sentence: "ses: the mail server has not been reloaded.",
        mail: "do not delete that one yet",
        fix: "postfix reload",
        below: &["Key put in place", "Reload missing", "target main, since 50 minutes ago"],
    },
    Seen {
        name: "report-owed",
        make: |h| spoil(h, "report-owed"),
        level: "Needs attention",
        sentence: "ses: a report of this host does not get through.",
        mail: "Mail is not affected: this can wait for the morning.",
        fix: "allow ssm:PutParameter",
        below: &["Not delivered", "1 report to fleet, the oldest made 2 hours ago"],
    },
    Seen {
        name: "source-down",
        make: |h| spoil(h, "source-down"),
        level: "Needs attention",
        sentence: "ses: the source of the key does not answer.",
        mail: "A new key would not be noticed.",
        fix: "see to the way to AWS",
        below: &["Source answered", "47 minutes ago"],
    },
    Seen {
        name: "no-look",
        make: |h| spoil(h, "no-look"),
        level: "Needs attention",
        sentence: "ses: relaykey has not looked for a new key for too long.",
        mail: "A new key would not be noticed.",
        fix: "restart relaykey if it stays so",
        below: &["asking the source"],
    },
    Seen {
        name: "failing",
        make: |h| spoil(h, "failing"),
        level: "Needs attention",
        sentence: "ses: the new key cannot be put into use.",
        mail: "do not delete that one yet",
        fix: "remove one of the lines 3 and 7",
        below: &["/etc/postfix/sasl_passwd:7:"],
    },
    Seen {
        name: "left-behind",
        make: |h| spoil(h, "left-behind"),
        level: "Needs attention",
        sentence: "ses: the source offers a key that is not newer, so it is not used.",
        mail: "Mail is not affected for as long as the key in use (AKIANEWNEWNEWNEWNEW2) is valid.",
        fix: "publish the old value as a new version",
        below: &["which this host has left behind"],
    },
    Seen {
        name: "never-applied",
        make: |h| spoil(h, "never-applied"),
        level: "Needs attention",
        sentence: "ses: no key has been put into use on this host yet.",
        mail: "relaykey has changed nothing on this host",
        fix: "relaykey check",
        below: &["none yet that relaykey put there"],
    },
    Seen {
        name: "pending",
        make: |h| spoil(h, "pending"),
        level: "Under way",
        sentence: "ses: a new key is being put into use.",
        mail: "Mail is not affected for as long as",
        fix: "it is being worked on",
        below: &["putting the new login in place"],
    },
    Seen {
        name: "pending-not-given",
        make: |h| spoil(h, "pending-not-given"),
        level: "Needs attention",
        sentence: "ses: a new key was seen, and the source does not give it now.",
        mail: "Mail is not affected for as long as the old key (AKIAOLDOLDOLDOLDOLD1) is valid",
        fix: "Do: put the credential there",
        below: &["/run/vault/ses does not exist"],
    },
    Seen {
        name: "pending-approval",
        make: |h| spoil(h, "pending-approval"),
        level: "Needs attention",
        sentence: "ses: a new key waits for somebody's approval.",
        mail: "Mail is not affected for as long as the old key (AKIAOLDOLDOLDOLDOLD1) is valid: do not delete that one yet. The mail relay \
               accepts the new key, which has waited for 1 day 2 hours. If nobody decides, it goes on waiting.",
        fix: "Do: decide, as root on this host:\n\nto put it into use now: relaykey approve ses --version \
              b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10\nto refuse it: relaykey reject ses --version \
              b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10 --reason \"...\"\n",
        below: &[
            "new key waits for approval",
            "Waits since1 day 2 hours ago",
            "Would change/etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLDOLDOLDOLDOLD1:*** -> \
             AKIANEWNEWNEWNEWNEW2:***",
            "then the mail server is reloaded",
            "New keyswait for approval (mode = \"manual\")",
            "New key waits for a person",
        ],
    },
    Seen {
        name: "pending-approval-window",
        make: |h| spoil(h, "pending-approval-window"),
        level: "Under way",
        sentence: "ses: a new key waits for its time window, or for somebody's approval.",
        mail: "If nobody decides, it goes into use by itself: Sat 02:00-04:00, in this host's local time.",
        fix: "To decide before that, as root on this host:\n\nto put it into use now: relaykey approve ses",
        below: &["Goes by itselfSat 02:00-04:00, local time of this host"],
    },
    Seen {
        name: "pending-approval-dies",
        make: |h| spoil(h, "pending-approval-dies"),
        level: "Needs attention",
        sentence: "ses: a new key waits for somebody's approval.",
        mail: "If nobody decides, it goes on waiting, until the mail relay refuses the old key.",
        fix: "relaykey approve ses",
        below: &[],
    },
    Seen {
        name: "pending-approval-refused",
        make: |h| spoil(h, "pending-approval-refused"),
        level: "Needs attention",
        sentence: "ses: the new key is refused by the mail relay.",
        mail: "do not delete that one yet",
        fix: "check in AWS that the access key AKIANEWNEWNEWNEWNEW2 is active",
        below: &["Waits since"],
    },
    Seen {
        name: "by-hand",
        make: |h| spoil(h, "by-hand"),
        level: "Needs attention",
        sentence: "ses: a new key waits for somebody to put it into the mail server.",
        mail: "do not delete that one yet. The mail relay accepts the new key, which has waited for 1 day 2 hours.",
        fix: "Do: change the mail server's files, as root on this host, in this order:\n\nin /etc/postfix/sasl_passwd, line 3, \
              replace what stands after [email-smtp.eu-west-1.amazonaws.com]:587 by AKIANEWNEWNEWNEWNEW2:***\npostmap -c \
              /etc/postfix lmdb:/etc/postfix/sasl_passwd\npostfix -c /etc/postfix reload\n\n*** stands for the password: \
              relaykey sync ses --dry-run --reveal shows it, to root on a terminal. Within a second of the last step \
              relaykey sees it and confirms by itself.",
        below: &[
            "new key waits for a change by hand",
            "There now/etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 holds the login of \
             AKIAOLDOLDOLDOLDOLD1, not of AKIANEWNEWNEWNEWNEW2",
            "New keyswait for a change by hand (write = false)",
        ],
    },
    Seen {
        name: "by-hand-begun",
        make: |h| spoil(h, "by-hand-begun"),
        level: "Act now",
        sentence: "ses: the change to a new key by hand is only half done.",
        mail: "Mail may be failing, or going out with another login: the mail server's files no longer hold the old key \
               rightly, and not yet the new one. Where this host sends reports, it has taken back that the key is in use",
        fix: "postmap -c /etc/postfix lmdb:/etc/postfix/sasl_passwd",
        below: &["Key put in place", "Confirmationtaken back 9 minutes ago", "Why: /etc/postfix/sasl_passwd:3: "],
    },
    Seen {
        name: "rejected",
        make: |h| spoil(h, "rejected"),
        level: "Needs attention",
        sentence: "ses: the new key was rejected.",
        mail: "Mail is not affected for as long as the old key (AKIAOLDOLDOLDOLDOLD1) is valid: do not delete that one yet. The old key stays in use \
               until another new key takes its place.",
        fix: "Do: nothing, if that was meant. Otherwise one of these:\n\npublish another new key at the source, AWS Secrets Manager mail/ses (AWSCURRENT)\nto use \
              this one all the same: relaykey approve ses --version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10\n",
        below: &[
            "Why: rejected by root (says: alice) 3 hours ago: not in the change calendar",
            "Rejected byroot (says: alice), 3 hours ago",
            "New key rejected",
        ],
    },
    Seen {
        name: "approved-refused",
        make: |h| spoil(h, "approved-refused"),
        level: "Needs attention",
        sentence: "ses: the new key is refused by the mail relay.",
        mail: "do not delete that one yet. This can wait for the morning: the new key is not put into use",
        fix: "check in AWS that the access key AKIANEWNEWNEWNEWNEW2 is active",
        below: &["Approved byroot (says: alice), 20 minutes ago"],
    },
    Seen {
        name: "approved-pending",
        make: |h| spoil(h, "approved-pending"),
        level: "Under way",
        sentence: "ses: a new key is being put into use.",
        mail: "Mail is not affected for as long as",
        fix: "it is being worked on",
        below: &["Approved byroot (says: alice), 20 minutes ago"],
    },
    Seen {
        name: "withdrawn",
        make: |h| spoil(h, "withdrawn"),
        level: "Act now",
        sentence: "ses: somebody else changed the mail server's login.",
        mail: "Where this host sends reports, it has taken back that the key is in use, so that nobody deletes the old one.",
        fix: "find out what changes the table or main.cf",
        below: &["Confirmationtaken back 4 minutes ago", "Login found changed by somebody else"],
    },
    Seen {
        name: "left",
        make: left,
        level: "Needs attention",
        sentence: "ses: this host has left the fleet, the hosts that share this key.",
        mail: "Mail is not affected yet. But nobody waits for this host any more before an old key is deleted",
        fix: "if it still sends mail, so that it counts again: relaykey confirm ses",
        below: &["Left the fleet5 hours ago", "This host left the fleet"],
    },
    Seen {
        name: "old-key-manual",
        make: |h| {
            h.manual(None, "wait");
            old_key(h);
        },
        level: "Needs attention",
        sentence: "ses: the key is at least 118 days old.",
        mail: "Mail is not affected: this can wait for the morning.",
        fix: "relaykey tries it, then waits for somebody to approve it",
        below: &["! 118 days ago; the key may be older: older than 90 days"],
    },
    Seen {
        name: "old-key-by-hand",
        make: |h| {
            h.by_hand();
            old_key(h);
        },
        level: "Needs attention",
        sentence: "ses: the key is at least 118 days old.",
        mail: "Mail is not affected: this can wait for the morning.",
        fix: "relaykey tries it, then says what is to be changed by hand",
        below: &[],
    },
    Seen {
        name: "old-key-and-a-new-one",
        make: |h| {
            spoil(h, "pending-approval");
            old_key(h);
        },
        level: "Needs attention",
        sentence: "ses: a new key waits for somebody's approval.",
        mail: "do not delete that one yet",
        fix: "relaykey approve ses",
        below: &[
            "The key is at least 118 days old",
            "the new key that is here already (AKIANEWNEWNEWNEWNEW2) takes its place",
        ],
    },
    Seen {
        name: "old-key",
        make: old_key,
        level: "Needs attention",
        sentence: "ses: the key is at least 118 days old.",
        mail: "Mail is not affected: this can wait for the morning.",
        fix: "publish it as a new version",
        below: &["! 118 days ago; the key may be older: older than 90 days"],
    },
    Seen {
        name: "policy",
        make: policy_notice,
        level: "Act now",
        sentence: "ses: the mail log tells that messages are refused although the login is right.",
        mail: "Mail is being refused, at least some of it, or the line is not Postfix's.",
        fix: "allow ses:SendRawEmail",
        below: &["554 Access denied"],
    },
    Seen {
        // Anybody may write to the mail log: a hint.
        name: "login-refused-says-the-log",
        make: |h| mail_log_notice(h, AlarmKind::Refused, "535 Authentication Credentials Invalid"),
        level: "Needs attention",
        sentence: "ses: the mail log tells that the mail relay refuses the mail server's login.",
        mail: "relaykey tries the key in use itself: two refusals prove it.",
        fix: "look again in a few minutes, or run relaykey status",
        below: &["535 Authentication Credentials Invalid (3 minutes ago)"],
    },
    Seen {
        name: "login-refused",
        make: key_in_use_refused,
        level: "Act now",
        sentence: "ses: the mail relay refuses the key in use.",
        mail: "Mail to this relay is probably held back in the queue, until the key works or another one is there.",
        fix: "publish",
        below: &["535 Authentication Credentials Invalid"],
    },
    Seen {
        name: "no-login",
        make: |h| mail_log_notice(h, AlarmKind::NoLogin, "530 Authentication required"),
        level: "Act now",
        sentence: "ses: the mail log tells that the mail server sends without logging in.",
        mail: "Mail to this relay bounces, or the line is not Postfix's.",
        fix: "relaykey check",
        below: &["530 Authentication required"],
    },
    Seen {
        name: "no-mechanism",
        make: |h| mail_log_notice(h, AlarmKind::NoMechanism, "no mechanism available"),
        level: "Act now",
        sentence: "ses: the mail log tells that the mail server has no way of logging in at the mail relay.",
        mail: "or the line is not Postfix's. Another key does not help.",
        fix: "libsasl2-modules",
        below: &["no mechanism available"],
    },
    Seen {
        name: "config-refused",
        make: config_refused,
        level: "Needs attention",
        sentence: "The changed configuration was refused; the one before it is still in force.",
        mail: "Mail is not affected.",
        fix: "Do: correct it: did you mean \"endpoint\"?",
        below: &["unknown key \"endpont\" in [credential.smtp]"],
    },
];

fn picture(server: &Server, name: &str) {
    if std::env::var_os("PAGE_PICTURES").is_none() {
        return;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    std::fs::create_dir_all(&dir).expect("made");
    let url = format!("http://{}/", server.address());
    let kinds: [(&str, &[&str]); 3] = [
        ("desk", &["--window-size=1100,1250"]),
        ("phone", &["--window-size=500,1500"]),
        ("dark", &["--window-size=1100,1250", "--force-dark-mode", "--blink-settings=preferredColorScheme=0"]),
    ];
    for (kind, args) in kinds {
        let to = format!("--screenshot={}", dir.join(format!("{name}-{kind}.png")).display());
        let args: Vec<&str> = args.iter().copied().chain([to.as_str()]).collect();
        chromium(&url, &args);
    }
}

#[test]
fn each_state_says_at_the_top_what_is_wrong_and_what_to_do() {
    let server = Server::start(Host::fine(&["ses"]).status());
    for seen in SEEN {
        let mut host = Host::fine(&["ses"]);
        (seen.make)(&mut host);
        server.set(host.status());
        let dom = dom(&server);
        let top = text(&dom, "<header", "</header>");
        let level = text(&dom, "<p class=\"level\">", "</p>");
        assert!(level.ends_with(seen.level), "{}: {level}", seen.name);
        assert!(text(&dom, "<title>", "</title>").contains(seen.level), "{}", seen.name);
        assert_eq!(text(&dom, "<h1>", "</h1>"), seen.sentence, "{}", seen.name);
        assert!(top.contains(seen.mail), "{}: {top}", seen.name);
        let label = if seen.level == "Under way" { "Nothing to do" } else { "Do:" };
        assert_eq!(top.contains(label), !seen.fix.is_empty(), "{}: {top}", seen.name);
        assert!(top.contains(seen.fix), "{}: {top}", seen.name);
        let body = text(&dom, "<body>", "</body>");
        for below in seen.below {
            assert!(body.contains(below), "{}: no {below:?} in {body}", seen.name);
        }
        assert!(
            !body.contains('`') || seen.name == "policy",
            "{}: a command stands in its own type: {body}",
            seen.name
        );
        picture(&server, seen.name);
    }
}

/// A command in a sentence of ours is set as one, wherever the sentence stands; how others quote stays as it is.
#[test]
fn no_backtick_of_ours_is_shown() {
    let mut host = Host::fine(&["ses"]);
    let now = host.now;
    host.pending();
    let what = "the map cannot be read, as `postmap -q` says";
    host.target().retry = retry(failure("ambiguous", what, "run `relaykey sync`", now));
    host.lives[0].history[0].error = Some(relaykey::audit::RecordError { class: Class::Io, words: what.into() });
    mail_log_notice(&mut host, AlarmKind::Temporary, "`4.7.0' said");
    let server = Server::start(host.status());
    let dom = dom(&server);
    let body = text(&dom, "<body>", "</body>");
    assert_eq!(body.matches('`').count(), 1, "{body}");
    assert_eq!(dom.matches("as <code>postmap -q</code> says").count(), 2, "{dom}");
}

#[test]
fn of_several_credentials_the_worst_comes_first_and_each_is_named() {
    let mut host = Host::fine(&["ses", "bulk", "eu", "us"]);
    spoil(&mut host, "drift");
    let (report, down) = {
        let mut other = Host::fine(&["bulk"]);
        spoil(&mut other, "report-owed");
        let mut third = Host::fine(&["eu"]);
        spoil(&mut third, "source-down");
        (other, third)
    };
    host.states[1].clone_from(&report.states[0]);
    (host.states[2], host.lives[2]) = (down.states[0].clone(), down.lives[0].clone());
    config_refused(&mut host);
    let server = Server::start(host.status());
    let dom = dom(&server);
    assert_eq!(
        text(&dom, "<h1>", "</h1>"),
        "3 of 4 credentials need attention. First ses: somebody else changed the mail server's login."
    );
    let top = text(&dom, "<ul class=\"others\">", "</ul>");
    for line in ["ses: somebody else", "bulk: a report of this host", "eu: the source of the key", "configuration: "] {
        assert!(top.contains(line), "no {line:?} in {top}");
    }
    assert!(!top.contains("us:"), "{top}");
    picture(&server, "several");
    server.set(Host::fine(&["ses", "bulk", "eu", "us"]).status());
    let dom = self::dom(&server);
    assert_eq!(text(&dom, "<h1>", "</h1>"), "Everything is fine.");
    assert!(text(&dom, "<header", "</header>").contains("the newest key of each of 4 credentials"));
    picture(&server, "several-fine");
}

/// A mail relay, a source and a person with `sudo` choose words that stand on the page.
#[test]
fn what_comes_from_outside_stays_text() {
    let evil = "535 </p><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\
                <style>*{display:none}</style>'\"&amp;<!-- \u{202e}txet\u{0}\u{1b}[2J";
    let mut host = Host::fine(&["ses"]);
    let now = host.now;
    host.pending();
    host.target().retry = retry(failure("refused", evil, evil, now));
    host.first().candidate.as_mut().expect("pending").username = evil.into();
    host.first().candidate.as_mut().expect("pending").id.version = evil.into();
    let applied = host.first().applied.as_mut().expect("applied");
    (applied.username, applied.id.version) = (evil.into(), evil.into());
    host.daemon.host = evil.into();
    host.daemon.config = evil.into();
    config_refused(&mut host);
    host.daemon.config_refused.as_mut().expect("refused").mistakes[0].what = evil.into();
    policy_notice(&mut host);
    host.lives[0].notices[0].what = evil.into();
    let live = &mut host.lives[0];
    live.step = Some(evil.into());
    live.history[0].username = Some(evil.into());
    live.history[0].approved_by = Some(evil.into());
    live.history[0].error = Some(relaykey::audit::RecordError { class: Class::Io, words: evil.into() });
    live.history[0].by = By {
        cause: "operator".into(),
        user: Some(evil.into()),
        uid: None,
        claimed: Some(evil.into()),
        detail: Some(evil.into()),
    };
    // What was typed at a rejection or an approval, and what stands in the mail server's files.
    let mut rejected = Host::fine(&["ses"]);
    spoil(&mut rejected, "rejected");
    let by_whom = &mut rejected.first().rejected[0];
    (by_whom.by, by_whom.reason) = (evil.into(), evil.into());
    let mut by_hand = Host::fine(&["ses"]);
    spoil(&mut by_hand, "by-hand-begun");
    by_hand.approved();
    by_hand.candidate().approval.as_mut().expect("approved").by = evil.into();
    let change = by_hand.target().change.as_mut().expect("waits");
    change.steps = vec![Instruction::Text(evil.into()), Instruction::Command(format!("`{evil}`"))];
    change.differences = vec![evil.into()];
    let mut approval = Host::fine(&["ses"]);
    spoil(&mut approval, "pending-approval");
    approval.target().change.as_mut().expect("waits").diff = vec![evil.into()];
    for host in [host, rejected, by_hand, approval] {
        let server = Server::start(host.status());
        let raw = server.get("/").body;
        for never in ["<script", "<img", "onerror=\"", "<!--", "\u{202e}", "\u{0}", "\u{1b}"] {
            assert!(!raw.contains(never), "{never:?} in {raw}");
        }
        assert_eq!(raw.matches("<style>").count(), 1);
        let dom = dom(&server);
        assert!(!text(&dom, "<title>", "</title>").starts_with("owned"));
        assert!(text(&dom, "<body>", "</body>").contains("<script>document.title='owned'</script>"), "shown as it is");
    }
}

/// The policy lets the page's own style through, or the pictures would be of black text on white.
#[test]
fn the_style_is_the_one_that_the_policy_allows() {
    let server = Server::start(Host::fine(&["ses"]).status());
    let answer = server.get("/");
    let policy = answer.header("Content-Security-Policy").expect("a policy");
    let style = answer.body.split_once("<style>").expect("a style").1.split_once("</style>").expect("its end").0;
    let hash = {
        use base64::Engine as _;
        use sha2::Digest as _;
        base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style))
    };
    assert_eq!(
        policy,
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    );
    for outside in ["http://", "https://", "<script", "<link", "<img", "style=\"", "url("] {
        assert!(!answer.body.contains(outside), "{outside} in the page");
    }
}

/// "Fine" and "not affected" are said where the mail server was seen running, and nowhere else.
#[test]
fn nothing_is_fine_while_the_mail_server_is_stopped() {
    use relaykey::rollover::MailServer;
    let says = |seen: Option<MailServer>, make: &dyn Fn(&mut Host)| {
        let mut host = Host::fine(&["ses"]);
        make(&mut host);
        host.target().mail_server = seen;
        let server = Server::start(host.status());
        (server.get("/").body, server.get("/readyz").status)
    };
    let (page, ready) = says(Some(MailServer::Runs), &|_| {});
    assert!(page.contains("Everything is fine.") && ready == 200, "{page}");
    let (page, ready) = says(None, &|_| {});
    assert!(
        page.contains("Nothing is known to be wrong, but whether the mail server runs has not been looked at"),
        "{page}"
    );
    assert!(!page.contains("Everything is fine") && ready == 200, "{page}");
    let (page, ready) = says(Some(MailServer::Stopped), &|_| {});
    assert!(
        page.contains("the mail server is not running") && page.contains("postfix -c /etc/postfix-ses start"),
        "{page}"
    );
    assert!(!page.contains("Everything is fine") && ready == 503, "{page}");
    for (state, make) in lab::STATES.iter().filter(|(state, _)| *state != "never-applied") {
        let (page, _) = says(Some(MailServer::Stopped), &|h| make(h));
        assert!(!page.contains("not affected"), "{state}: {page}");
    }
}

/// A new key that was put in while the mail server was stopped: all that is said of it agrees.
#[test]
fn what_was_put_in_while_the_mail_server_was_stopped_is_said_once() {
    let mut host = Host::fine(&["ses"]);
    lab::swapped_while_stopped(&mut host);
    let server = Server::start(host.status());
    let page = server.get("/").body;
    let body = page.split_once("<body>").expect("a body").1;
    assert!(body.contains("<h1>ses: the mail server is not running.</h1>"), "{body}");
    assert!(
        body.contains("The new key (AKIANEWNEWNEWNEWNEW2) is in its files, and in use once it is started."),
        "{body}"
    );
    assert!(
        body.contains("Found in its files</dt><dd><b>AKIANEWNEWNEWNEWNEW2</b>, the new key, not confirmed yet"),
        "{body}"
    );
    // One thing is to be done, and nothing is said to use a key.
    assert_eq!(body.matches("<b>Do:</b>").count(), 1, "{body}");
    for fights in [
        "may still be using",
        "has not been reloaded",
        "Reload missing",
        "not in use yet",
        "Found in use",
        "Key in use",
    ] {
        assert!(!body.contains(fights), "{fights}: {body}");
    }
    // Started, it still has to be reloaded where something else stood in the way of that.
    host.target().mail_server = Some(relaykey::rollover::MailServer::Runs);
    server.set(host.status());
    assert!(server.get("/").body.contains("he mail server has not been reloaded"));
}
