//! `relaykey check`: what would stand in the way of a rotation, each finding with its fix. Changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Exit, load_with_remarks, print_json, runtime, say};
use crate::agent;
use crate::apply::{self, Ours, Reply, Request, TargetId};
use crate::aws;
use crate::config::{self, Config, Finding, IfAppliedDies, MailVia, Mode, Opening, ReceiverKind, Severity, Window};
use crate::report::{Receivers, Whose};
use crate::rollover::State;
use crate::smtp::Verdict;
use crate::source::{self, Fetched, Source};
use crate::state::{Access, Store};
use crate::status::source_words;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Ask neither the source, nor the SMTP endpoint, nor the places that reports go to.
    #[arg(long)]
    offline: bool,
}

/// What `check --json` prints.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    findings: Vec<Placed>,
    exit: u8,
}

/// A finding, and what it is about.
#[derive(Serialize)]
struct Placed {
    credential: Option<String>,
    /// `config`, `state`, `mode`, `source`, `login`, `target NAME`, `reports`, `report NAME`.
    about: String,
    #[serde(flatten)]
    finding: Finding,
}

/// Findings as they come, printed at once for people.
struct Findings {
    json: bool,
    all: Vec<Placed>,
    /// How many of the errors may be gone in a minute: where all are, exit 75 rather than 1.
    for_now: usize,
}

impl Findings {
    fn add(&mut self, credential: Option<&str>, about: &str, finding: Finding) {
        if !self.json {
            let place = credential.map(|c| format!("{c}: ")).unwrap_or_default();
            say(&format!("{:<8} {place}{about}: {}", word(&finding), finding.located()));
            if !finding.fix.is_empty() {
                say(&format!("         fix: {}", finding.fix));
            }
        }
        self.all.push(Placed { credential: credential.map(str::to_owned), about: about.to_owned(), finding });
    }

    fn good(&mut self, credential: Option<&str>, about: &str, what: String) {
        self.add(
            credential,
            about,
            Finding { severity: Severity::Note, line: None, file: None, what, fix: String::new() },
        );
    }

    fn error(&mut self, credential: Option<&str>, about: &str, what: String, fix: String) {
        self.say(Severity::Error, credential, about, what, fix);
    }

    fn say(&mut self, severity: Severity, credential: Option<&str>, about: &str, what: String, fix: String) {
        self.add(credential, about, Finding { severity, line: None, file: None, what, fix });
    }
}

fn word(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note if finding.fix.is_empty() => "ok",
        Severity::Note => "note",
    }
}

pub fn run(path: &Path, json: bool, args: &CheckArgs) -> Exit {
    let (config, remarks) = match load_with_remarks(path, json) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let mut findings = Findings { json, all: Vec::new(), for_now: 0 };
    findings.good(None, "config", format!("{} is valid", path.display()));
    for remark in remarks {
        let file = remark.file.clone().or_else(|| Some(path.to_owned()));
        findings.add(None, "config", Finding { file, ..remark });
    }
    for doubt in agent::doubts(&config) {
        findings.add(doubt.credential.as_deref(), &doubt.about, doubt.finding);
    }
    runtime.block_on(check(&config, args, &mut findings));
    let errors = findings.all.iter().filter(|f| f.finding.severity == Severity::Error).count();
    let warnings = findings.all.iter().filter(|f| f.finding.severity == Severity::Warning).count();
    let exit = match (errors, findings.for_now) {
        (0, _) => Exit::Done,
        (errors, for_now) if errors == for_now => Exit::ForNow,
        _ => Exit::ForGood,
    };
    if json {
        print_json(&Document { schema: "relaykey/check/v1", findings: findings.all, exit: exit.code() });
    } else {
        let number = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        say(&format!("{}, {}", number(errors, "error"), number(warnings, "warning")));
    }
    exit
}

async fn check(config: &Config, args: &CheckArgs, findings: &mut Findings) {
    let store = match Store::open(&config.host.state_dir, Access::Read, Duration::ZERO) {
        Ok(store) => store,
        Err(e) => return findings.error(None, "state", e.to_string(), e.fix()),
    };
    let http = match agent::http(config) {
        Ok(http) => http,
        Err(e) => return findings.error(None, "source", e.to_string(), e.fix()),
    };
    let apply = apply::Client::in_process(apply::Server::looking(config));
    for credential in &config.credentials {
        let state = match store.load(&credential.name) {
            Ok(state) => state,
            Err(e) => {
                findings.error(Some(&credential.name), "state", e.to_string(), e.fix());
                None
            }
        };
        mode(credential, Timestamp::now(), &TimeZone::system(), findings);
        targets(credential, state.as_ref(), &apply, findings);
        if args.offline {
            continue;
        }
        let Some(fetched) = source(credential, state.as_ref(), &store, &http, findings).await else { continue };
        logins(credential, &fetched, findings).await;
    }
    who_hears(config, findings);
    if !args.offline {
        reports(config, &store, &http, findings).await;
    }
}

/// When a version that waits for approval goes into place by itself, in the local time that the window is meant in.
fn mode(credential: &config::Credential, now: Timestamp, zone: &TimeZone, findings: &mut Findings) {
    let Mode::Manual { window, if_applied_dies } = &credential.mode else { return };
    let name = &credential.name;
    let what = match window {
        None => format!("manual: a new version waits for `relaykey approve {name}`"),
        Some(window) => format!(
            "manual: a new version waits for `relaykey approve {name}`, or for the window {}",
            opening(window, now, zone)
        ),
    };
    findings.good(Some(name), "mode", what);
    if *if_applied_dies == IfAppliedDies::Apply && !credential.source.gives_older() {
        findings.say(
            Severity::Warning,
            Some(name),
            "mode",
            "if_applied_dies = \"apply\" has no effect: that the key in use is refused is proved by a login with it, and a file gives \
             one version only"
                .into(),
            "keep the credential in Secrets Manager or Parameter Store, or set if_applied_dies = \"wait\"".into(),
        );
    }
}

/// if_applied_dies = "apply" needs the source to give the version in use also when it has a newer one.
async fn gives_applied(
    credential: &config::Credential,
    state: Option<&State>,
    source: &dyn Source,
    findings: &mut Findings,
) {
    let Mode::Manual { if_applied_dies: IfAppliedDies::Apply, .. } = credential.mode else { return };
    let Some((applied, identity)) = state.and_then(|s| Some((s.applied.as_ref()?, s.source.as_ref()?))) else { return };
    if !credential.source.gives_older() {
        return;
    }
    if let Err(e) = source.fetch_version(identity, &applied.id.version, applied.id.order).await {
        findings.say(
            Severity::Warning,
            Some(&credential.name),
            "mode",
            format!(
                "if_applied_dies = \"apply\" has no effect: the source does not give version {} that is in use, and a login with it \
                 has to prove that it is refused: {}",
                applied.id.version, e.what
            ),
            e.fix,
        );
    }
}

fn opening(window: &Window, now: Timestamp, zone: &TimeZone) -> String {
    let local = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string();
    match window.opening(now, zone) {
        Opening::Open { until } => format!("\"{window}\", which is open until {}", local(until)),
        Opening::At(at) => format!("\"{window}\", which opens next on {}", local(at)),
    }
}

/// Is there anybody who would hear of a failure?
fn who_hears(config: &Config, findings: &mut Findings) {
    let nobody =
        "nobody is told when this host uses a new version, and so nobody can know when the old key is no longer in use";
    let fix = "add a [[report]]: config.example.toml shows every type";
    if config.reports.is_empty() {
        let what = format!("there is no [[report]]: {nobody}");
        return findings.say(Severity::Note, None, "reports", what, fix.into());
    }
    for credential in &config.credentials {
        let name = Some(credential.name.as_str());
        let takers: Vec<&config::Receiver> = config.reports.iter().filter(|r| r.takes(&credential.name)).collect();
        if takers.is_empty() {
            let what = format!("no [[report]] takes reports of this credential: {nobody}");
            let fix = format!("add {:?} to the `credentials` of a [[report]], or remove that line", credential.name);
            findings.say(Severity::Note, name, "reports", what, fix);
        } else if takers.iter().all(|r| rides_on_this_host(r)) {
            let only = if takers.len() == 1 { "the only report rides" } else { "all reports ride" };
            let what = format!("{only} on the relay that it reports about: when that fails, nobody hears of it");
            let fix = "add a [[report]] of another type, or one with server = \"ses\"".into();
            findings.say(Severity::Warning, name, "reports", what, fix);
        }
    }
}

/// Does it need this host's mail server to get out? Which way that would send the message is not looked at: it may change
/// any day, and nobody would think of this then.
fn rides_on_this_host(receiver: &config::Receiver) -> bool {
    matches!(receiver.kind, ReceiverKind::Email { via: MailVia::Server { .. }, .. })
}

/// Would reports arrive? All are asked at the same time, each for as long as an attempt may take.
async fn reports(config: &Config, store: &Store, http: &aws::Http, findings: &mut Findings) {
    let identity = match store.identity(config.host.name.as_deref(), agent::host_name) {
        Ok(identity) => identity,
        Err(e) => return findings.error(None, "state", e.to_string(), e.fix()),
    };
    let receivers = Arc::new(Receivers::open(&config.reports, http));
    let mut asked = JoinSet::new();
    for credential in &config.credentials {
        for receiver in config.reports.iter().filter(|r| r.takes(&credential.name)) {
            let (receivers, receiver) = (Arc::clone(&receivers), receiver.name.clone());
            let whose = Whose {
                credential: credential.name.clone(),
                host: identity.name.clone(),
                host_id: identity.host_id.clone(),
            };
            let place = asked.len();
            asked.spawn(async move { (place, receivers.check(&receiver, &whose).await, receiver, whose.credential) });
        }
    }
    let mut checked = asked.join_all().await;
    checked.sort_by_key(|(place, ..)| *place);
    for (_, outcome, receiver, credential) in checked {
        let about = format!("report {receiver}");
        match outcome.expect("every receiver of the configuration was opened") {
            Ok(what) => findings.good(Some(&credential), &about, what),
            Err(e) => {
                findings.for_now += usize::from(e.temporary);
                findings.error(Some(&credential), &about, e.what, e.fix);
            }
        }
    }
}

/// What each mail server would really use, and its settings that make a rotation lose mail.
fn targets(credential: &config::Credential, state: Option<&State>, apply: &apply::Client, findings: &mut Findings) {
    let name = Some(credential.name.as_str());
    let applied = state.and_then(|s| s.applied.as_ref());
    for target in &credential.targets {
        let about = format!("target {}", target.name);
        let ours = Ours {
            applied: applied.map(|a| a.username.clone()),
            previous: applied.and_then(|a| a.previous_username.clone()),
            known: state.and_then(|s| s.candidate.as_ref()).map(|c| c.username.clone()).into_iter().collect(),
        };
        let id = TargetId { credential: credential.name.clone(), target: target.name.clone() };
        match apply.call(Request::Inspect { target: id, ours }) {
            Ok(Reply::Inspected(seen)) => {
                for entry in seen.entries.iter().filter(|e| e.is_live_key) {
                    match &entry.username {
                        Some(who) => findings.good(name, &about, format!("{} in {} gives {who}", entry.key, entry.map)),
                        // There is a finding about it.
                        None if seen.missing.contains(&entry.key) => {}
                        None => findings.add(
                            name,
                            &about,
                            Finding {
                                severity: Severity::Warning,
                                line: entry.line,
                                file: None,
                                what: format!(
                                    "{} in {} gives no usable login, so mail bounces or waits",
                                    entry.key, entry.map
                                ),
                                fix: "the next rollover puts one there: relaykey sync".into(),
                            },
                        ),
                    }
                }
                for finding in seen.findings {
                    findings.add(name, &about, finding);
                }
                if let Some(owed) = seen.reload_owed {
                    findings.add(
                        name,
                        &about,
                        Finding {
                            severity: Severity::Warning,
                            line: None,
                            file: None,
                            what: format!("a reload is owed: {}", owed.why),
                            fix: "start or restart the mail server, which settles it; where `reload` is not \"never\": relaykey sync".into(),
                        },
                    );
                }
            }
            Ok(_) => unreachable!("Inspect is answered by Inspected"),
            Err(e) => {
                findings.for_now += usize::from(e.temporary);
                let (file, line) = (e.file.clone(), e.line);
                findings.add(name, &about, Finding { severity: Severity::Error, line, file, what: e.what, fix: e.fix });
            }
        }
    }
}

async fn source(
    credential: &config::Credential,
    state: Option<&State>,
    store: &Store,
    http: &aws::Http,
    findings: &mut Findings,
) -> Option<Fetched> {
    let name = Some(credential.name.as_str());
    let key = match store.key() {
        Ok(key) => key,
        Err(e) => {
            findings.error(name, "state", e.to_string(), e.fix());
            return None;
        }
    };
    let source = source::open(credential, &key, http);
    let fetched = match &source {
        Ok(source) => source.fetch().await,
        Err(e) => Err(e.clone()),
    };
    if let (Ok(source), Ok(_)) = (&source, &fetched) {
        gives_applied(credential, state, &**source, findings).await;
    }
    match fetched {
        Ok(fetched) => {
            let what = format!(
                "{} gives version {}: {} ({})",
                source_words(&credential.source),
                fetched.version,
                fetched.payload.form,
                fetched.payload.username()
            );
            findings.good(name, "source", what);
            Some(fetched)
        }
        Err(e) => {
            findings.for_now += usize::from(e.temporary);
            findings.error(name, "source", e.what, e.fix);
            None
        }
    }
}

async fn logins(credential: &config::Credential, fetched: &Fetched, findings: &mut Findings) {
    let name = Some(credential.name.as_str());
    let mut seen: Vec<&config::Smtp> = Vec::new();
    for target in &credential.targets {
        let smtp = &target.smtp;
        if seen.contains(&smtp) {
            continue;
        }
        seen.push(smtp);
        let place = format!("{}:{}", smtp.endpoint, smtp.port);
        let login = match fetched.payload.login(&smtp.endpoint, smtp.region.as_deref()) {
            Ok(login) => login,
            Err(e) => {
                let fix = "publish a corrected version in the source".into();
                findings.error(name, "login", format!("what the source holds is no login for {place}: {e}"), fix);
                continue;
            }
        };
        match agent::login_at(smtp, &login, &agent::host_name()).await {
            Verdict::Accepted { reply } => findings.good(name, "login", format!("{place} accepted: {reply}")),
            Verdict::Refused { reply } => findings.error(
                name,
                "login",
                format!("{place} refused the credential: {reply}"),
                "check that the access key is active and that the SMTP password was derived for this endpoint's region; a new key \
                 may need some minutes"
                    .into(),
            ),
            Verdict::Unknown { temporary, words, fix, .. } => {
                findings.for_now += usize::from(temporary);
                findings.error(name, "login", format!("no login: {words}"), fix.unwrap_or_else(|| "try again".into()));
            }
        }
    }
}
