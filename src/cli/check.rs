//! `relaykey check`: what would stand in the way of a rotation, each finding with its fix. Changes nothing.

mod held;

use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{Exit, choose, load_with_remarks, print_json, runtime, say};
use crate::agent::account::reload_ahead;
use crate::agent::foresight::{self, LookedAt, Obstacle, ReloadAhead, Weight};
use crate::agent::{self, RunEnd};
use crate::apply::{self, Inspected, LiveEntry, Ours, Reply, Request, Running, TargetId, WhyReload};
use crate::aws;
use crate::config::{self, Config, Finding, IfAppliedDies, MailVia, Mode, Opening, ReceiverKind, Severity, Window};
use crate::control;
use crate::credential::{self, Login};
use crate::fault::{Class, Failure};
use crate::health::{self, ListenError};
use crate::instruction::relaykey;
use crate::report::{Receivers, Whose};
use crate::rollover::{Evidence, State};
use crate::smtp::Verdict;
use crate::source::{self, Fetched, Source};
use crate::state::{Access, Store};
use crate::status::{NotListening, UNREAD_FIX, how_to_start, source_words};

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Names of credentials; all if none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Ask neither the source, nor the SMTP endpoint, nor the places that reports go to.
    #[arg(long)]
    offline: bool,
}

/// What `check --json` prints.
#[derive(Serialize)]
struct CheckDocument {
    schema: &'static str,
    findings: Vec<CheckFinding>,
    exit: u8,
}

/// A finding, and what it is about.
#[derive(Serialize)]
struct CheckFinding {
    credential: Option<String>,
    /// `config`, `state`, `aws`, `health`, `mode`, `source`, `login`, `target NAME`, `reports`, `report NAME`.
    about: String,
    #[serde(flatten)]
    finding: Finding,
}

/// Findings as they come, printed at once for people.
struct Findings {
    json: bool,
    all: Vec<CheckFinding>,
    /// What they come to: the worst that `sync` would end with.
    worst: Exit,
}

impl Findings {
    fn add(&mut self, credential: Option<&str>, about: &str, finding: Finding) {
        let ends = if finding.severity == Severity::Error { Exit::ForGood } else { Exit::Done };
        self.add_that(ends, credential, about, finding);
    }

    /// A finding, and what `sync` would end with because of it.
    fn add_that(&mut self, ends: Exit, credential: Option<&str>, about: &str, finding: Finding) {
        self.worst = self.worst.max(ends);
        if !self.json {
            let place = credential.map(|c| format!("{c}: ")).unwrap_or_default();
            say(&format!("{:<8} {place}{about}: {}", word(&finding), finding.located()));
            if !finding.fix.is_empty() {
                say(&format!("         fix: {}", finding.fix));
            }
        }
        self.all.push(CheckFinding { credential: credential.map(str::to_owned), about: about.to_owned(), finding });
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

    /// An error that may be gone in a minute, or not.
    fn failed(&mut self, temporary: bool, credential: Option<&str>, about: &str, what: String, fix: String) {
        let ends = if temporary { Exit::ForNow } else { Exit::ForGood };
        self.add_that(
            ends,
            credential,
            about,
            Finding { severity: Severity::Error, line: None, file: None, what, fix },
        );
    }

    /// Was this said of it as an error?
    fn has_error(&self, credential: &str, what: &str) -> bool {
        let of = self.all.iter().filter(|p| p.credential.as_deref() == Some(credential));
        let mut errors = of.filter(|p| p.finding.severity == Severity::Error);
        errors.any(|p| p.finding.what == what || p.finding.located() == what)
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
    let (mut config, remarks) = match load_with_remarks(path, json) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    // All of them: what is nobody's target depends on every credential's.
    let mail = config.mail();
    // What the others are like is not asked.
    match choose(&config.credentials, &args.names, |c| &c.name) {
        Ok(chosen) => config.credentials = chosen.into_iter().cloned().collect(),
        Err(exit) => return exit,
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let mut findings = Findings { json, all: Vec::new(), worst: Exit::Done };
    findings.good(None, "config", format!("{} is valid", path.display()));
    for remark in remarks {
        let file = remark.file.clone().or_else(|| Some(path.to_owned()));
        findings.add(None, "config", Finding { file, ..remark });
    }
    for doubt in agent::doubts(&config) {
        findings.add(doubt.credential.as_deref(), &doubt.about, doubt.finding);
    }
    runtime.block_on(check(&config, &mail, args, &mut findings));
    let errors = findings.all.iter().filter(|f| f.finding.severity == Severity::Error).count();
    let warnings = findings.all.iter().filter(|f| f.finding.severity == Severity::Warning).count();
    let exit = findings.worst;
    if json {
        print_json(&CheckDocument { schema: "relaykey/check/v1", findings: findings.all, exit: exit.code() });
    } else {
        let number = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        say(&format!("{}, {}", number(errors, "error"), number(warnings, "warning")));
    }
    exit
}

async fn check(config: &Config, mail: &apply::Setup, args: &CheckArgs, findings: &mut Findings) {
    health(config, findings).await;
    who_answers(config, findings);
    let store = match Store::open(&config.host.state_dir, Access::Read, Duration::ZERO) {
        Ok(store) => store,
        Err(e) => return findings.error(None, "state", e.to_string(), e.fix()),
    };
    let http = match agent::http(config) {
        Ok(http) => http,
        Err(e) => return findings.error(None, "source", e.to_string(), e.fix()),
    };
    let apply = apply::Client::in_process(apply::Server::looking(mail));
    if let Err(e) = store.look_writable() {
        let what = format!("nothing can be written down, so that nothing would be changed: {e}");
        findings.failed(e.is_temporary(), None, "state", what, e.fix());
    }
    for credential in &config.credentials {
        let state = match store.load(&credential.name) {
            Ok(state) => state,
            Err(e) => {
                findings.error(Some(&credential.name), "state", e.to_string(), e.fix());
                None
            }
        };
        mode(credential, Timestamp::now(), &TimeZone::system(), findings);
        let opened = match args.offline {
            true => None,
            false => open(credential, &store, &http, findings),
        };
        let mut ours = agent::ours(state.as_ref());
        let earlier = match &opened {
            // A host with state knows without the source.
            Some(source) if ours.applied.is_none() => Some(agent::named(source).await),
            _ => None,
        };
        ours.named = earlier.iter().flat_map(|earlier| earlier.ids.clone()).collect();
        let (targets, foreign, unknown) = targets(credential, state.as_ref(), &ours, &apply, findings);
        for unread in earlier.into_iter().flat_map(|earlier| earlier.unread) {
            // That there is none is as it is with the first version.
            let is_none = matches!(unread.class, Class::NoSuchLabel | Class::NotFound);
            let fix = if is_none { String::new() } else { unread.fix };
            findings.say(Severity::Note, Some(&credential.name), "source", unread.what, fix);
        }
        let fetched = match &opened {
            Some(opened) => source(credential, state.as_ref(), opened, &targets, findings).await,
            None => None,
        };
        // Somebody may have put in by hand what the source has: then it is to be in use. And without an answer of the source
        // `sync` does not come as far.
        let is_asked = fetched.is_some() || args.offline;
        let given = fetched.as_ref().map(|fetched| fetched.payload.username());
        if let Some(fetched) = &fetched {
            held::another_password(credential, fetched, state.as_ref(), &targets, &apply, findings);
        }
        for Unknown { about, place, username } in unknown {
            // The source's too, which no endpoint has taken for a user name yet.
            let who = credential::shown_or_said(&username, false);
            findings.good(Some(&credential.name), &about, format!("{place} gives {who}"));
        }
        for Foreign { about, username, mut finding } in foreign {
            let is_given = username.is_some() && username.as_deref() == given;
            match finding.severity {
                // It is taken for the key before, and is the source's.
                Severity::Note if is_given => continue,
                Severity::Warning if is_asked && !is_given => finding.severity = Severity::Error,
                _ => {}
            }
            findings.add(Some(&credential.name), &about, finding);
        }
        if !is_asked {
            continue;
        }
        let logins = match &fetched {
            Some(fetched) => logins(credential, fetched, state.as_ref(), &targets, &apply, findings).await,
            None => Vec::new(),
        };
        let applied = state.as_ref().and_then(|state| state.applied.as_ref());
        let is_new = fetched.as_ref().is_some_and(|f| applied.is_none_or(|applied| applied.id != f.id));
        for (target, seen) in
            credential.targets.iter().zip(&targets).filter(|_| is_new && credential.mode == Mode::Automatic)
        {
            if !target.write || seen.as_ref().is_none_or(|seen| seen.running != Running::No) {
                continue;
            }
            let finding = Finding {
                severity: Severity::Error,
                line: None,
                file: None,
                what: "the mail server does not run, so that a new key can be put in place and is not confirmed".into(),
                fix: how_to_start(credential, slice::from_ref(&target.name)),
            };
            findings.add_that(Exit::ForNow, Some(&credential.name), &format!("target {}", target.name), finding);
        }
        let seen = LookedAt {
            state: state.as_ref(),
            ours,
            targets,
            fetched: fetched.as_ref(),
            source: opened.as_ref(),
            logins,
        };
        let (obstacles, reloads) = foresight::obstacles(credential, seen, &apply).await;
        // What is owed was said when it was looked at.
        for ReloadAhead { target, why, never } in reloads.into_iter().filter(|ahead| ahead.why != WhyReload::Owed) {
            let (about, what) = (format!("target {target}"), format!("at the next sync {}", reload_ahead(why, never)));
            findings.good(Some(&credential.name), &about, what);
        }
        for Obstacle { target, failure, end, weight } in obstacles {
            if findings.has_error(&credential.name, &failure.what) {
                continue;
            }
            let about = target.map_or_else(|| "source".to_owned(), |target| format!("target {target}"));
            let Failure { what, fix, .. } = failure;
            let severity = match weight {
                Weight::Fails => Severity::Error,
                Weight::PutRight => Severity::Warning,
                Weight::OnlyWaits => Severity::Note,
            };
            let finding = Finding { severity, line: None, file: None, what, fix };
            let ends = match end {
                RunEnd::Done(_) => Exit::Done,
                RunEnd::Waits => Exit::Approval,
                RunEnd::ForNow => Exit::ForNow,
                RunEnd::ForGood | RunEnd::Interrupted => Exit::ForGood,
            };
            findings.add_that(ends, Some(&credential.name), &about, finding);
        }
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
    let approve = relaykey(format_args!("approve {name}"));
    let what = match window {
        None => format!("manual: a new version waits for `{approve}`"),
        Some(window) => {
            format!("manual: a new version waits for `{approve}`, or for the window {}", opening(window, now, zone))
        }
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
    if let Err(e) = source.fetch_version(identity, &applied.id).await {
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

/// Can every place of `[health]` be listened at? A running daemon has tried, and listens at the others itself.
async fn health(config: &Config, findings: &mut Findings) {
    let Some(health) = config.health.clone() else { return };
    let run_dir = config.host.run_dir.clone();
    // Waits for the daemon's answer, and for directories.
    let looking = tokio::task::spawn_blocking(move || -> Vec<(String, String)> {
        match control::connect(&run_dir).and_then(|client| client.map(super::status::ask).transpose()) {
            Ok(Some(status)) => {
                let failed = status.daemon.map(|daemon| daemon.not_listening).unwrap_or_default();
                failed.into_iter().map(|n| (n.what, n.fix)).collect()
            }
            Ok(None) => {
                let failed = health.listen.iter().filter_map(|place| health::look(place, &run_dir).err());
                let fix = |e: &ListenError| match e.is_taken() {
                    true => format!(
                        "{}; nothing is to be done where that is the service manager, for relaykey: systemctl status relaykey.socket",
                        e.fix()
                    ),
                    false => e.fix(),
                };
                failed.map(|e| (e.to_string(), fix(&e))).collect()
            }
            // What is wrong with the daemon is another matter.
            Err(_) => Vec::new(),
        }
    });
    for (what, fix) in looking.await.unwrap_or_default() {
        findings.say(Severity::Warning, None, "health", format!("{what}; {}", NotListening::GOES_ON), fix);
    }
}

/// Is AWS asked at a place where any user of this host could answer?
fn who_answers(config: &Config, findings: &mut Findings) {
    let sources = config.credentials.iter().filter_map(|c| c.source.aws());
    let reports = config.reports.iter().filter_map(|r| r.kind.aws());
    let mut told: Vec<&str> = Vec::new();
    for url in sources.chain(reports).filter_map(|aws| aws.endpoint_url.as_deref()) {
        if !aws::anybody_may_answer(url) || told.contains(&url) {
            continue;
        }
        told.push(url);
        let what = format!(
            "endpoint_url {url} is a port that any user of this host can listen at while nobody does, and without TLS nothing tells \
             who answers"
        );
        let fix = "use an https:// URL, or one with a port below 1024; for AWS itself leave `endpoint_url` out".into();
        findings.say(Severity::Warning, None, "aws", what, fix);
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
        let takers: Vec<&config::ReceiverConfig> =
            config.reports.iter().filter(|r| r.takes(&credential.name)).collect();
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
fn rides_on_this_host(receiver: &config::ReceiverConfig) -> bool {
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
            Err(e) => findings.failed(e.temporary, Some(&credential), &about, e.what, e.fix),
        }
    }
}

/// What is said of a key that the mail server looks up and that holds a login which nobody here knows. `sync` takes it for
/// an error, unless it is that of the version that the source gives.
struct Foreign {
    about: String,
    username: Option<String>,
    finding: Finding,
}

/// A key that gives a login which this host does not know; the source may.
struct Unknown {
    about: String,
    place: String,
    username: String,
}

/// What each mail server would really use, and its settings that make a rotation lose mail. Gives what was seen, target by
/// target, and what is to be said once it is known what the source gives.
fn targets(
    credential: &config::Credential,
    state: Option<&State>,
    ours: &Ours,
    apply: &apply::Client,
    findings: &mut Findings,
) -> (Vec<Option<Inspected>>, Vec<Foreign>, Vec<Unknown>) {
    let name = Some(credential.name.as_str());
    let (mut all, mut foreign, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for target in &credential.targets {
        let about = format!("target {}", target.name);
        let id = TargetId { credential: credential.name.clone(), target: target.name.clone() };
        match apply.call(Request::Inspect { target: id, ours: ours.clone() }) {
            Ok(Reply::Inspected(seen)) => {
                all.push(Some((*seen).clone()));
                for entry in seen.entries.iter().filter(|e| e.is_live_key) {
                    let place = format!("{} in {}", entry.key, entry.map);
                    match &entry.username {
                        Some(who) => match ours.shown(who, None) {
                            Some(who) => findings.good(name, &about, format!("{place} gives {who}")),
                            None => unknown.push(Unknown { about: about.clone(), place, username: who.clone() }),
                        },
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
                                fix: match target.write {
                                    true => format!("the next rollover puts one there: {}", relaykey("sync")),
                                    false => format!("put one there by hand: {} says how", relaykey("sync")),
                                },
                            },
                        ),
                    }
                }
                held::other_keys(&credential.name, &about, ours, &seen, findings);
                for finding in seen.findings {
                    // Where a person changes the table, it is part of the change until that is done.
                    let is_of = |e: &&LiveEntry| e.is_live_key && e.line.is_some() && e.line == finding.line;
                    let entry = seen.entries.iter().find(is_of).filter(|_| target.write);
                    match entry {
                        Some(entry) if finding.severity != Severity::Error && !is_ours(ours, entry) => {
                            let (about, username) = (about.clone(), entry.username.clone());
                            foreign.push(Foreign { about, username, finding });
                        }
                        _ => findings.add(name, &about, finding),
                    }
                }
                for finding in seen.beside {
                    findings.add(name, &about, finding);
                }
                if let Some((finding, temporary)) = seen.hindrances.and_then(|hindrances| hindrances.not_lockable) {
                    findings.add_that(if temporary { Exit::ForNow } else { Exit::ForGood }, name, &about, finding);
                }
                if let Some(unread) = seen.unread.filter(|_| !target.reload.is_ours()) {
                    let (what, fix) = (unread.why, UNREAD_FIX.to_owned());
                    findings.add(
                        name,
                        &about,
                        Finding { severity: Severity::Warning, line: None, file: None, what, fix },
                    );
                }
                if let Some(owed) = seen.reload_owed {
                    // Nothing that `sync` does settles it, or what it did failed, and is done again.
                    let failed = state
                        .and_then(|state| state.targets.get(&target.name))
                        .filter(|target| target.reload_owed.is_some())
                        .and_then(|target| target.retry.failure.as_ref());
                    let stays = failed.is_some() || !target.reload.is_ours() || seen.running == Running::No;
                    findings.add_that(
                        if stays { Exit::ForNow } else { Exit::Done },
                        name,
                        &about,
                        Finding {
                            severity: if stays { Severity::Error } else { Severity::Warning },
                            line: None,
                            file: None,
                            what: format!("a reload is owed: {}", owed.why),
                            fix: match failed.filter(|failed| failed.class == Class::ReloadOwed) {
                                Some(failed) => failed.fix.clone(),
                                None => format!(
                                    "start or restart the mail server, which settles it; where `reload` is not \"never\": {}",
                                    relaykey("sync")
                                ),
                            },
                        },
                    );
                }
            }
            Ok(_) => unreachable!("Inspect is answered by Inspected"),
            Err(e) => {
                all.push(None);
                let ends = if e.temporary { Exit::ForNow } else { Exit::ForGood };
                let (file, line) = (e.file.clone(), e.line);
                let finding = Finding { severity: Severity::Error, line, file, what: e.what, fix: e.fix };
                findings.add_that(ends, name, &about, finding);
            }
        }
    }
    (all, foreign, unknown)
}

fn is_ours(ours: &Ours, entry: &LiveEntry) -> bool {
    let Some(username) = &entry.username else { return false };
    [&ours.applied, &ours.previous].contains(&&Some(username.clone()))
        || ours.known.contains(username)
        || ours.named.contains(username)
}

/// The source, which is asked more than once.
fn open(
    credential: &config::Credential,
    store: &Store,
    http: &aws::Http,
    findings: &mut Findings,
) -> Option<agent::OpenedSource> {
    match store.key() {
        Ok(key) => Some(source::open(credential, &key, http)),
        Err(e) => {
            findings.error(Some(&credential.name), "state", e.to_string(), e.fix());
            None
        }
    }
}

async fn source(
    credential: &config::Credential,
    state: Option<&State>,
    source: &agent::OpenedSource,
    targets: &[Option<Inspected>],
    findings: &mut Findings,
) -> Option<Fetched> {
    let name = Some(credential.name.as_str());
    let fetched = match source {
        Ok(source) => source.fetch().await,
        Err(e) => Err(e.clone()),
    };
    if let (Ok(source), Ok(_)) = (source, &fetched) {
        gives_applied(credential, state, &**source, findings).await;
    }
    let in_use = targets.iter().flatten().filter_map(|seen| seen.username.as_deref());
    let fetched = fetched.and_then(|fetched| agent::in_order(&fetched, state, in_use).map(|()| fetched));
    match fetched {
        Ok(fetched) => {
            let what = format!(
                "{} gives version {}: {} ({})",
                source_words(&credential.source),
                fetched.id.version,
                fetched.payload.form,
                agent::shown_before_the_login(&fetched, state)
            );
            findings.good(name, "source", what);
            Some(fetched)
        }
        Err(e) => {
            findings.failed(e.temporary, name, "source", e.what, e.fix);
            None
        }
    }
}

/// Is it a new key that the endpoint may not know yet, so that `sync` tries it again for a while?
fn is_awaited(
    credential: &config::Credential,
    target: &config::Target,
    fetched: &Fetched,
    state: Option<&State>,
    now: Timestamp,
) -> bool {
    let applied = state.and_then(|state| state.applied.as_ref());
    let first = |name: &String| {
        let first = state?.targets.get(name)?.first_refused.as_ref()?;
        (first.id == fetched.id).then_some(first.since)
    };
    let alike = credential.targets.iter().filter(|t| t.smtp == target.smtp);
    let since = alike.filter_map(|t| first(&t.name)).min().unwrap_or(now);
    let until = since.saturating_add(target.smtp.propagation).unwrap_or(Timestamp::MAX);
    applied.is_none_or(|applied| applied.id != fetched.id) && now < until
}

/// Is the login accepted wherever it is used? Gives what was accepted, target by target. Each endpoint is asked once, all of a
/// target side by side.
async fn logins(
    credential: &config::Credential,
    fetched: &Fetched,
    state: Option<&State>,
    seen: &[Option<Inspected>],
    apply: &apply::Client,
    findings: &mut Findings,
) -> Vec<Option<Evidence>> {
    let name = Some(credential.name.as_str());
    let alone = |smtp: &config::Smtp| config::Smtp { also: Vec::new(), ..smtp.clone() };
    let mut tried: Vec<(config::Smtp, Option<Evidence>)> = Vec::new();
    let mut all: Vec<Option<Evidence>> = Vec::new();
    for (target, seen) in credential.targets.iter().zip(seen) {
        all.push(None);
        let logins = match agent::logins_of(&fetched.payload, &target.smtp) {
            Ok(logins) => logins,
            Err((smtp, e)) => {
                let what = format!("what the source holds is no login for {}: {e}", smtp.place());
                // Of another target with the same one it is said already.
                if !tried.iter().any(|(before, _)| *before == alone(smtp)) {
                    findings.error(name, "login", what, e.fix().into());
                    tried.push((alone(smtp), None));
                }
                continue;
            }
        };
        let used = seen.as_ref().map(|seen| seen.endpoints.clone()).filter(|used| !used.is_empty());
        let used = used.unwrap_or_else(|| vec![0]);
        let places: Vec<(config::Smtp, &Login)> = (target.smtp.endpoints().enumerate())
            .filter(|(at, _)| used.contains(at))
            .filter_map(|(at, smtp)| Some((alone(smtp), logins.at(at)?)))
            .collect();
        let new = || places.iter().filter(|(smtp, _)| !tried.iter().any(|(before, _)| before == smtp));
        // Nor is a password that is in use sent as a user name.
        if new().next().is_some() && agent::shown_before_the_login(fetched, state) == credential::NOT_SHOWN {
            let id = TargetId { credential: credential.name.clone(), target: target.name.clone() };
            let login = logins.default_login().clone();
            if let Err(e) = apply.call(Request::InOrder { target: id, ours: agent::ours(state), login }) {
                findings.failed(e.temporary, name, "login", e.what, e.fix);
                tried.extend(places.into_iter().map(|(smtp, _)| (smtp, None)));
                continue;
            }
        }
        let at = Timestamp::now();
        let hello_name = agent::host_name();
        let verdicts =
            join_all(new().map(async |(smtp, login)| (smtp.clone(), agent::login_at(smtp, login, &hello_name).await)));
        for (smtp, verdict) in verdicts.await {
            let place = smtp.place();
            let mut accepted = None;
            match verdict {
                Verdict::Accepted { reply } => {
                    findings.good(name, "login", format!("{place} accepted: {reply}"));
                    accepted = Some(Evidence { endpoint: place, reply, at });
                }
                Verdict::Refused { reply } => findings.failed(
                    is_awaited(credential, target, fetched, state, at),
                    name,
                    "login",
                    format!("{place} refused the credential: {reply}"),
                    "check that the access key is active and that the SMTP password was derived for this endpoint's region; a new \
                     key may need some minutes"
                        .into(),
                ),
                Verdict::Unknown { temporary, words, fix, .. } => {
                    let fix = fix.unwrap_or_else(|| "try again".into());
                    let whose = if target.smtp.also.is_empty() { String::new() } else { format!("{place}: ") };
                    findings.failed(temporary, name, "login", format!("{whose}no login: {words}"), fix);
                }
            }
            tried.push((smtp, accepted));
        }
        let of = |smtp: &config::Smtp| tried.iter().find(|(before, _)| before == smtp).and_then(|(_, of)| of.clone());
        let each: Option<Vec<Evidence>> = places.iter().map(|(smtp, _)| of(smtp)).collect();
        *all.last_mut().expect("pushed above") = each.and_then(|each| each.into_iter().next());
    }
    all
}
