//! The health endpoints in this process, on a port of their own, and the states that a host can be in.
//!

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use relaykey::audit::{By, Record, RecordError, StepKind, StepTime};
use relaykey::config::{self, Config, Listen};
use relaykey::credential::{VersionId, VersionOrder};
use relaykey::fault::{Class, Failure};
use relaykey::health::{self, HostAllowList, HttpListener};
use relaykey::instruction::Instruction;
use relaykey::rollover::{
    Applied, Approval, Candidate, Completion, FirstRefused, HeldVersion, InUse, MailServer, Outbox, OwnLoginTrials,
    OwnResult, PlannedChange, Rejected, ReloadOwed, Report, Retry, State, TargetState, Tried,
};
use relaykey::status::{
    ConfigMistake, ConfigRefused, Counters, DaemonStatus, KnownCredential, Live, Notice, Status, Woken,
};
use relaykey::wake::alarm::AlarmKind;

/// The key before [`OLD`].
pub const BEFORE: &str = "AKIABEFOREBEFOREBEF0";
pub const OLD: &str = "AKIAOLDOLDOLDOLDOLD1";
pub const NEW: &str = "AKIANEWNEWNEWNEWNEW2";
/// What no answer may take longer than.
pub const ANSWER: Duration = Duration::from_secs(10);

// ---------------------------------------------------------------- states

/// What is known of one host: made fine, then spoilt by the test.
pub struct Host {
    pub now: Timestamp,
    /// Of the configuration.
    pub text: String,
    pub config: Config,
    pub states: Vec<Option<State>>,
    pub lives: Vec<Live>,
    pub daemon: DaemonStatus,
}

/// `n` hours before `now`.
pub fn hours(now: Timestamp, n: i64) -> Timestamp {
    now - SignedDuration::from_hours(n)
}

pub fn minutes(now: Timestamp, n: i64) -> Timestamp {
    now - SignedDuration::from_mins(n)
}

pub fn by(cause: &str) -> By {
    By { cause: cause.into(), user: None, uid: None, claimed: None, detail: None }
}

pub fn failure(class: &str, what: &str, fix: &str, at: Timestamp) -> Failure {
    Failure {
        class: serde_json::from_value(class.into()).expect("a class"),
        what: what.into(),
        fix: fix.into(),
        temporary: false,
        at,
    }
}

pub fn retry(failure: Failure) -> Retry {
    let next = Some(failure.at + SignedDuration::from_mins(20));
    Retry { attempts: 3, next, failure: Some(failure) }
}

fn version(version: &str, at: Timestamp) -> VersionId {
    VersionId { version: version.into(), order: Some(VersionOrder { at, number: 0 }) }
}

impl Host {
    /// With these credentials, all of them fine.
    pub fn fine(names: &[&str]) -> Self {
        let now = Timestamp::now();
        let mut text = "config_version = 1\n[aws]\nregion = \"eu-west-1\"\n".to_owned();
        for name in names {
            text.push_str(&format!(
                "[[credential]]\nname = \"{name}\"\n[credential.source]\ntype = \"secrets-manager\"\nsecret = \"mail/{name}\"\n\
                 [credential.smtp]\nendpoint = \"email-smtp.eu-west-1.amazonaws.com\"\n\
                 [[credential.target]]\nname = \"main\"\ntype = \"postfix\"\nconfig_dir = \"/etc/postfix-{name}\"\n"
            ));
        }
        let (config, _) = config::parse(&text).unwrap_or_else(|findings| panic!("{findings:#?}"));
        let states = names.iter().map(|name| Some(Self::state(name, now))).collect();
        let lives = names.iter().map(|name| Self::live(name, now)).collect();
        let daemon = DaemonStatus {
            agent: "relaykey/0.1.0".into(),
            host: "mx1.example.com".into(),
            pid: 4711,
            since: hours(now, 300),
            config: "/etc/relaykey/config.toml".into(),
            config_since: hours(now, 300),
            config_refused: None,
            not_listening: Vec::new(),
        };
        Self { now, text, config, states, lives, daemon }
    }

    fn state(name: &str, now: Timestamp) -> State {
        let mut state = State::new(name);
        state.applied = Some(Applied {
            id: version("4f6f8d4c-58f0-4a8e-9d5f-5a7b8c2d1e03", hours(now, 30)),
            username: NEW.into(),
            previous_username: Some(OLD.into()),
            outcome: Completion::Confirmed,
            since: hours(now, 29),
        });
        let seen = TargetState { mail_server: Some(MailServer::Runs), ..TargetState::default() };
        state.targets.insert("main".into(), seen);
        state
    }

    fn live(name: &str, now: Timestamp) -> Live {
        let counters = Counters {
            wakes: BTreeMap::from([("timer".into(), 412), ("start".into(), 1)]),
            source_requests: 413,
            logins: BTreeMap::from([("accepted".into(), 2)]),
            rollovers: BTreeMap::from([("confirmed".into(), 1), ("adopted".into(), 1)]),
            ..Counters::default()
        };
        let record = |at, cause: &str, what: &str, outcome: &str| Record {
            at,
            credential: name.into(),
            by: by(cause),
            what: what.into(),
            version: None,
            username: Some(NEW.into()),
            previous_username: Some(OLD.into()),
            steps: vec![StepTime { step: "verify".into(), target: Some("main".into()), ok: true, milliseconds: 1_260 }],
            outcome: outcome.into(),
            error: None,
            approved_by: None,
        };
        let mut refused = record(hours(now, 30), "timer", "refused", "failed-for-now");
        refused.error =
            Some(RecordError { class: Class::NotYet, words: "535 Authentication Credentials Invalid".into() });
        let mut asked = record(hours(now, 250), "operator", "no-change", "done");
        asked.by = By { user: Some("root".into()), uid: Some(0), claimed: Some("alice".into()), ..by("operator") };
        let mut adopted = record(hours(now, 300), "start", "adoption", "adopted");
        (adopted.username, adopted.previous_username) = (Some(OLD.into()), None);
        Live {
            looked: BTreeMap::new(),
            since: hours(now, 300),
            answered: Some(minutes(now, 2)),
            woken: Some(Woken { at: minutes(now, 2), by: by("timer") }),
            source_asked: Some(minutes(now, 2)),
            next_wake: Some(now + SignedDuration::from_secs(210)),
            step: None,
            failures: Vec::new(),
            notices: Vec::new(),
            counters,
            history: vec![record(hours(now, 29), "retry", "rollover", "confirmed"), refused, asked, adopted],
        }
    }

    /// The first credential's state.
    pub fn first(&mut self) -> &mut State {
        self.states[0].as_mut().expect("it has one")
    }

    pub fn target(&mut self) -> &mut TargetState {
        self.first().targets.get_mut("main").expect("there from the start")
    }

    /// A version that is known and not applied.
    pub fn pending(&mut self) -> &mut Self {
        let (now, id) = (self.now, version("b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10", minutes(self.now, 40)));
        let applied = self.first().applied.as_mut().expect("applied");
        (applied.username, applied.previous_username) = (OLD.into(), Some(BEFORE.into()));
        // What happened was about the key that is in use now.
        for record in &mut self.lives[0].history {
            for name in [&mut record.username, &mut record.previous_username].into_iter().flatten() {
                *name = if name == NEW { OLD.into() } else { BEFORE.into() };
            }
        }
        self.first().candidate = Some(Candidate {
            id,
            username: NEW.into(),
            first_seen: minutes(now, 38),
            accepted: false,
            probed: None,
            held: None,
            approval: None,
            not_newer: false,
        });
        self
    }

    pub fn candidate(&mut self) -> &mut Candidate {
        self.first().candidate.as_mut().expect("pending")
    }

    /// Of the first credential: a new version waits until somebody approves it, or for its weekly hours.
    pub fn manual(&mut self, window: Option<&str>, dies: &str) -> &mut Self {
        let apply = window.map(|w| format!("apply = \"{w}\"\n")).unwrap_or_default();
        self.configure(
            "name = \"ses\"\n",
            &format!("name = \"ses\"\nmode = \"manual\"\nif_applied_dies = \"{dies}\"\n{apply}"),
        )
    }

    /// Of the first credential: a person changes the mail server's files.
    pub fn by_hand(&mut self) -> &mut Self {
        self.configure("type = \"postfix\"\n", "type = \"postfix\"\nwrite = false\n")
    }

    fn configure(&mut self, line: &str, lines: &str) -> &mut Self {
        self.text = self.text.replacen(line, lines, 1);
        (self.config, _) = config::parse(&self.text).unwrap_or_else(|findings| panic!("{findings:#?}"));
        self
    }

    /// A version that was verified, and waits for a person for a day and two hours, with what would change.
    pub fn held(&mut self) -> &mut Self {
        self.pending();
        let now = self.now;
        self.candidate().first_seen = hours(now, 26);
        self.candidate().held = Some(HeldVersion { since: hours(now, 26), next: Some(hours(now, 2)) });
        let hop = "[email-smtp.eu-west-1.amazonaws.com]:587";
        self.target().change = Some(PlannedChange {
            diff: vec![format!("/etc/postfix/sasl_passwd:3: {hop} {OLD}:*** -> {NEW}:***")],
            steps: vec![
                Instruction::Text(format!(
                    "in /etc/postfix/sasl_passwd, line 3, replace what stands after {hop} by {NEW}:***"
                )),
                Instruction::Command("postmap -c /etc/postfix lmdb:/etc/postfix/sasl_passwd".into()),
                Instruction::Command("postfix -c /etc/postfix reload".into()),
            ],
            differences: vec![format!("/etc/postfix/sasl_passwd:3: {hop} holds the login of {OLD}, not of {NEW}")],
            reload: true,
        });
        self.happened(26, "timer", "waits", "pending-approval");
        self
    }

    /// One more record at the front of the audit log, about the candidate.
    pub fn happened(&mut self, hours_ago: i64, cause: &str, what: &str, outcome: &str) -> &mut Record {
        let mut record = self.lives[0].history[0].clone();
        record.at = hours(self.now, hours_ago);
        record.by = match cause {
            "operator" => {
                By { user: Some("root".into()), uid: Some(0), claimed: Some("alice".into()), ..by("operator") }
            }
            cause => by(cause),
        };
        (record.what, record.outcome) = (what.into(), outcome.into());
        (record.username, record.previous_username) = (Some(NEW.into()), Some(OLD.into()));
        self.lives[0].history.insert(0, record);
        &mut self.lives[0].history[0]
    }

    /// Somebody let the held version go.
    pub fn approved(&mut self) -> &mut Self {
        let at = minutes(self.now, 20);
        self.candidate().approval = Some(Approval { by: "root (says: alice)".into(), at, until: None });
        self
    }

    /// The target is for a person, with its steps.
    fn left_to_a_person(&mut self) {
        self.by_hand().held();
        let what = format!(
            "target main does not hold version b3c1f2aa-0d1e-4c55-8f57-3f1d2c9e7a10 ({NEW}), and is left so: write = false"
        );
        let fix = "change it by hand: relaykey status shows what to do, step by step (3)";
        self.target().retry = retry(failure("by-hand", &what, fix, minutes(self.now, 4)));
    }

    pub fn status(&self) -> Status {
        let known = self.config.credentials.iter().zip(&self.states).zip(&self.lives);
        let known = known.map(|((credential, state), live)| KnownCredential {
            credential,
            state: state.as_ref(),
            live: Some(live),
        });
        Status::new(Some(self.daemon.clone()), known, self.now)
    }
}

pub const REFUSED: &str =
    "email-smtp.eu-west-1.amazonaws.com:587 refused the credential: 535 Authentication Credentials Invalid";
pub const REFUSED_FIX: &str = "nothing was changed by it; check that the access key is active, that the SMTP password was \
                               derived for this endpoint's region, and publish a corrected version";

/// A new key was put in while the mail server was stopped, on an otherwise fine host.
pub fn swapped_while_stopped(h: &mut Host) {
    let now = h.now;
    h.pending();
    let target = h.target();
    target.mail_server = Some(MailServer::Stopped);
    target.live_id = Some("old".into());
    let why = "the mail server is not running";
    target.reload_owed = Some(ReloadOwed { since: minutes(now, 3), why: why.into() });
    target.in_use = Some(InUse { at: minutes(now, 3), usernames: vec![NEW.into()], live_id: Some("new".into()) });
    let mut failure = failure("reload-owed", why, "start it: it reads what is there", minutes(now, 2));
    failure.temporary = true;
    target.retry = retry(failure);
}

/// The states, by name, each with what makes it so, on an otherwise fine host with the credential `ses`.
pub const STATES: &[(&str, fn(&mut Host))] = &[
    ("refused", |h| {
        let now = h.now;
        h.pending();
        let id = h.first().candidate.as_ref().expect("pending").id.clone();
        h.target().first_refused = Some(FirstRefused { id, since: minutes(now, 36) });
        h.target().retry = retry(failure("refused", REFUSED, REFUSED_FIX, minutes(now, 6)));
    }),
    ("not-yet", |h| {
        let now = h.now;
        h.pending();
        let what = "email-smtp.eu-west-1.amazonaws.com:587 answered: 535 Authentication Credentials Invalid";
        let fix = format!(
            "nothing yet: SES may not know a new key for some minutes; first refused at {}, given up at {}",
            relaykey::rollover::rfc3339(minutes(now, 3)),
            relaykey::rollover::rfc3339(now + SignedDuration::from_mins(12)),
        );
        h.first().candidate.as_mut().expect("pending").first_seen = minutes(now, 3);
        h.target().retry = retry(failure("not-yet", what, &fix, minutes(now, 1)));
    }),
    ("reload-owed", |h| {
        let now = h.now;
        let why = "reload = \"never\": the mail server has to be told by somebody else";
        h.target().reload_owed = Some(ReloadOwed { since: minutes(now, 50), why: why.into() });
    }),
    ("drift", |h| {
        let now = h.now;
        let what = "the mail server (target main) no longer holds the login that relaykey put there, and is left so: it was put back 3 times within the hour";
        let fix = "find out what changes the table or main.cf (configuration management, a script) and make it stop; then have it \
                   put back: relaykey sync ses";
        h.target().retry = retry(failure("drift", what, fix, minutes(now, 4)));
    }),
    ("report-owed", |h| {
        let now = h.now;
        let what = "ssm:PutParameter on /relaykey/ses/mx1.example.com: AccessDeniedException";
        let fix = "allow ssm:PutParameter on arn:aws:ssm:eu-west-1:123456789012:parameter/relaykey/ses/*";
        let report = report(hours(now, 2));
        let outbox =
            Outbox { owed: vec![report], retry: retry(failure("access", what, fix, minutes(now, 5))), delivered: 0 };
        h.first().outbox.insert("fleet".into(), outbox);
    }),
    ("source-down", |h| {
        let now = h.now;
        let what = "secretsmanager:DescribeSecret on mail/ses: no connection to secretsmanager.eu-west-1.amazonaws.com within 5 s";
        let fix = "see to the way to AWS from this host: name service, firewall, HTTPS_PROXY";
        h.first().source_retry = retry(failure("network", what, fix, minutes(now, 1)));
        h.lives[0].answered = Some(minutes(now, 47));
    }),
    ("no-look", |h| {
        h.lives[0].answered = Some(minutes(h.now, 47));
        h.lives[0].woken = Some(Woken { at: minutes(h.now, 47), by: by("timer") });
        h.lives[0].source_asked = Some(minutes(h.now, 47));
        h.lives[0].step = Some(StepKind::Fetch);
    }),
    ("left-behind", |h| {
        let now = h.now;
        let what = "the source gives version 0a1b again, which this host has left behind";
        let fix =
            "publish the old value as a new version, or take it on purpose: relaykey sync ses --accept-version 0a1b";
        h.lives[0].failures.push((None, failure("left-behind", what, fix, minutes(now, 2))));
    }),
    ("failing", |h| {
        let now = h.now;
        h.pending();
        let what =
            "/etc/postfix/sasl_passwd:7: [email-smtp.eu-west-1.amazonaws.com]:587 stands here for the second time";
        let fix = "remove one of the lines 3 and 7; Postfix uses the first";
        h.target().retry = retry(failure("ambiguous", what, fix, minutes(now, 3)));
    }),
    ("never-applied", |h| {
        h.states[0] = None;
        h.lives[0].history.clear();
    }),
    ("pending", |h| {
        h.pending();
        h.lives[0].step = Some(StepKind::Swap);
    }),
    ("pending-not-given", |h| {
        let now = h.now;
        h.pending();
        let what = "/run/vault/ses does not exist";
        h.first().source_retry = retry(failure("missing", what, "put the credential there", minutes(now, 1)));
    }),
    ("pending-approval", |h| {
        h.manual(None, "wait").held();
    }),
    ("pending-approval-window", |h| {
        h.manual(Some("Sat 02:00-04:00"), "wait").held();
    }),
    ("pending-approval-dies", |h| {
        h.manual(None, "apply").held();
    }),
    ("pending-approval-refused", |h| {
        h.manual(None, "wait").held();
        let now = h.now;
        h.target().retry = retry(failure("refused", REFUSED, REFUSED_FIX, minutes(now, 6)));
    }),
    ("by-hand", |h| h.left_to_a_person()),
    ("by-hand-begun", |h| {
        h.left_to_a_person();
        let now = h.now;
        let change = h.target().change.as_mut().expect("held");
        change.differences = vec![
            format!(
                "/etc/postfix/sasl_passwd:3: [email-smtp.eu-west-1.amazonaws.com]:587 has the right user name {NEW} and \
                 another password: something follows it"
            ),
            "/etc/postfix/sasl_passwd.lmdb: the compiled map still has email-smtp.eu-west-1.amazonaws.com, which the text has \
             no more: run postmap -c /etc/postfix lmdb:/etc/postfix/sasl_passwd"
                .into(),
        ];
        h.first().withdrawn = Some(minutes(now, 9));
    }),
    ("rejected", |h| {
        h.manual(None, "wait").held();
        let (now, candidate) = (h.now, h.candidate().clone());
        let (by, reason) = ("root (says: alice)".to_owned(), "not in the change calendar".to_owned());
        h.candidate().held = None;
        h.target().change = None;
        h.first().rejected.push(Rejected { id: candidate.id, by, reason: reason.clone(), at: hours(now, 3) });
        h.happened(3, "operator", "rejection", "done").error =
            Some(RecordError { class: Class::Rejected, words: reason });
    }),
    ("approved-refused", |h| {
        h.manual(None, "wait").held().approved();
        let now = h.now;
        h.target().retry = retry(failure("refused", REFUSED, REFUSED_FIX, minutes(now, 6)));
    }),
    ("approved-pending", |h| {
        h.manual(None, "wait").held().approved();
    }),
    ("withdrawn", |h| {
        spoil(h, "drift");
        h.first().withdrawn = Some(minutes(h.now, 4));
        h.happened(0, "file-watch", "drift", "failed");
    }),
];

/// The class of a state that has another name: `by-hand` of `by-hand-begun`.
pub fn class(state: &str) -> &str {
    match state {
        "not-yet" | "approved-pending" | "pending-not-given" => "pending",
        "approved-refused" => "refused",
        "withdrawn" => "drift",
        "by-hand-begun" => "by-hand",
        state if state.starts_with("pending-approval") => "pending-approval",
        state => state,
    }
}

/// Spoils the first credential.
pub fn spoil(host: &mut Host, state: &str) {
    let (_, make) = STATES.iter().find(|(name, _)| *name == state).unwrap_or_else(|| panic!("no state {state}"));
    make(host);
}

/// A key that should have been rotated.
pub fn old_key(host: &mut Host) {
    let now = host.now;
    let applied = host.first().applied.as_mut().expect("applied");
    applied.id.order = Some(VersionOrder { at: hours(now, 118 * 24), number: 0 });
    applied.since = hours(now, 118 * 24 - 1);
    host.lives[0].history.retain(|r| r.what.word() == "no-change");
}

/// `relaykey deregister` was run, and relaykey goes on.
pub fn left(host: &mut Host) {
    host.first().left = Some(hours(host.now, 5));
    host.happened(5, "operator", "departure", "done");
}

/// SES takes the login and refuses what is sent.
pub fn policy_notice(host: &mut Host) {
    host.lives[0].notices.push(Notice {
        at: minutes(host.now, 3),
        class: Class::Policy,
        what: "email-smtp.eu-west-1.amazonaws.com took the login and refused a message: 554 Access denied: User \
               `arn:aws:iam::123456789012:user/mail' is not authorized to perform `ses:SendRawEmail'"
            .into(),
        fix: "it is the IAM policy, not the password: allow ses:SendRawEmail for the identities that this host sends from".into(),
    });
}

/// What the daemon makes of a line of the mail log.
pub fn mail_log_notice(host: &mut Host, kind: AlarmKind, words: &str) {
    host.lives[0].notices.push(Notice {
        at: minutes(host.now, 3),
        class: kind.class(),
        what: format!("{}. The mail log: email-smtp.eu-west-1.amazonaws.com:587: {words}", kind.meaning()),
        fix: kind.fix().into(),
    });
}

/// Two logins of our own with the key in use were refused.
pub fn key_in_use_refused(host: &mut Host) {
    let now = host.now;
    let id = host.first().applied.as_ref().expect("applied").id.clone();
    let last = Tried {
        at: minutes(now, 3),
        endpoint: "email-smtp.eu-west-1.amazonaws.com:587".into(),
        result: OwnResult::Refused { reply: "535 Authentication Credentials Invalid".into() },
    };
    let refused = vec![minutes(now, 4), minutes(now, 3)];
    let target = host.first().targets.values_mut().next().expect("a target");
    target.own_login = Some(OwnLoginTrials { id, hinted: false, tries: 2, next: None, refused, last: Some(last) });
}

pub fn config_refused(host: &mut Host) {
    host.daemon.config_refused = Some(ConfigRefused {
        at: minutes(host.now, 12),
        mistakes: vec![ConfigMistake {
            what: "/etc/relaykey/config.toml:14: unknown key \"endpont\" in [credential.smtp]".into(),
            fix: "did you mean \"endpoint\"?".into(),
        }],
    });
}

fn report(at: Timestamp) -> Report {
    Report {
        schema: "relaykey/report/v1".into(),
        id: "r1".into(),
        seq: 1,
        host_id: "h1".into(),
        host: "mx1.example.com".into(),
        credential: "ses".into(),
        source: "arn".into(),
        version: "v".into(),
        username: NEW.into(),
        previous_username: None,
        at: relaykey::rollover::rfc3339(at),
        mode: "automatic".into(),
        agent: "relaykey/0.1.0".into(),
        outcome: "confirmed".into(),
        targets: Vec::new(),
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

// ---------------------------------------------------------------- the server

/// The endpoints, answering on a thread of their own. Dropped, they end.
pub struct Server {
    listeners: Vec<HttpListener>,
    status: Arc<Mutex<Arc<Status>>>,
    stop: tokio::sync::watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// On a loopback port.
    pub fn start(status: Status) -> Self {
        Self::at(vec![Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into())], &["monitor.example.com"], status)
    }

    pub fn at(listen: Vec<Listen>, hosts: &[&str], status: Status) -> Self {
        let config = config::Health { listen, hosts: hosts.iter().map(|h| (*h).to_owned()).collect() };
        let health::OpenedPlaces { listeners, failed } = health::open(Some(&config), &[]);
        assert!(failed.is_empty(), "{failed:?}");
        let hosts = HostAllowList::new(Some(&config), ["mx1.example.com"]);
        let status = Arc::new(Mutex::new(Arc::new(status)));
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (given, held) = (Arc::clone(&status), listeners.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time");
            let documents: health::Documents = Arc::new(move || Arc::clone(&given.lock().expect("not poisoned")));
            runtime.block_on(health::serve(&held, held.len(), documents, hosts, stopped)).expect("serves");
        });
        Self { listeners, status, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.listeners[0].address().expect("says so").expect("TCP")
    }

    pub fn set(&self, status: Status) {
        *self.status.lock().expect("not poisoned") = Arc::new(status);
    }

    /// Ends, and waits for the end.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("ended well");
        }
        self.listeners.clear();
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &format!("Host: {}\r\n", self.address()))
    }

    /// With these header lines and no others.
    pub fn request(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address()).expect("connects");
        stream.set_read_timeout(Some(ANSWER)).expect("set");
        converse(&mut stream, &format!("{method} {path} HTTP/1.1\r\n{headers}\r\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends all of it, and reads until the other side closes.
pub fn converse(stream: &mut (impl Read + Write), request: &str) -> Answer {
    stream.write_all(request.as_bytes()).expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer in time");
    Answer::parse(&bytes)
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status =
            head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {head:?}"));
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// The value of a header that stands there once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.head.lines().skip(1).filter_map(|l| l.split_once(": "));
        let found = all.by_ref().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
        assert!(!all.any(|(n, _)| n.eq_ignore_ascii_case(name)), "{name} twice in {}", self.head);
        found
    }
}

// ---------------------------------------------------------------- programs

/// A program that a test cannot do without.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).unwrap_or_else(|| {
        panic!("{name} is not on PATH: it comes with Debian's package {package} (tests/run installs it)")
    })
}
