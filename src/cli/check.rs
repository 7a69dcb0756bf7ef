//! `relaykey check`: what would stand in the way of a rotation, each finding with its fix. Changes nothing.

mod findings;
mod held;
mod host;
mod login;
mod targets;

use std::path::Path;
use std::slice;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use self::findings::{CheckFinding, Findings};
use self::host::{daemon, reports, who_answers, who_hears};
use self::login::{logins, open, source};
use self::targets::{Foreign, TargetsSeen, Undecided, UndecidedMatter, Unknown, targets};
use super::{Exit, choose, load_with_remarks, print_json, runtime, say};
use crate::agent::account::reload_ahead;
use crate::agent::foresight::{self, LookedAt, Obstacle, ReloadAhead, Weight};
use crate::agent::{self, TriedEarlier};
use crate::apply::{self, Running, WhyReload};
use crate::config::{self, Config, Finding, IfAppliedDies, Mode, Opening, Severity, Window};
use crate::credential;
use crate::fault::{Class, Failure};
use crate::instruction::relaykey;
use crate::source::EarlierVersions;
use crate::state::{Access, Store};
use crate::status::how_to_start;

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
    daemon(config, findings).await;
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
        // All that follows would say the same once more.
        if e.is_unsafe_directory() {
            return;
        }
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
        let mut earlier = match &opened {
            // A host with state knows without the source.
            Some(source) if ours.applied.is_none() => agent::named(source).await,
            _ => EarlierVersions::default(),
        };
        ours.named = earlier.ids().collect();
        let mut tried = TriedEarlier::default();
        let looked = targets(credential, state.as_ref(), &ours, (&earlier, &mut tried), &apply, findings).await;
        let TargetsSeen { targets, foreign, unknown, undecided } = looked;
        for unread in std::mem::take(&mut earlier.unread) {
            // That there is none is as it is with the first version.
            let is_none = matches!(unread.class, Class::NoSuchLabel | Class::NotFound);
            let fix = if is_none { String::new() } else { unread.fix };
            findings.say(Severity::Note, Some(&credential.name), "source", unread.what, fix);
        }
        for what in agent::not_told(&earlier, credential.targets.iter().map(|target| &target.smtp)) {
            let fix = "nothing, if every entry with it stands under a host that names its region".to_owned();
            findings.say(Severity::Note, Some(&credential.name), "source", what, fix);
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
            for Undecided { target, finding, .. } in undecided {
                findings.add(Some(&credential.name), &format!("target {target}"), finding);
            }
            continue;
        }
        let logins = match &fetched {
            Some(fetched) => logins(credential, fetched, state.as_ref(), &targets, &apply, findings).await,
            None => Vec::new(),
        };
        let applied = state.as_ref().and_then(|state| state.applied.as_ref());
        // Of which that is said as an error.
        let mut not_running = Vec::new();
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
            not_running.push(target.name.clone());
        }
        let seen = LookedAt {
            state: state.as_ref(),
            named: earlier,
            tried,
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
        for Undecided { target, finding, matter } in undecided {
            let is_said = |obstacle: &Obstacle| {
                obstacle.weight == Weight::Fails
                    && obstacle.target.as_ref() == Some(&target)
                    && match matter {
                        UndecidedMatter::Stopped => obstacle.failure.class == Class::NotRunning,
                        UndecidedMatter::TextNotInUse => obstacle.place == finding.file.clone().zip(finding.line),
                    }
            };
            let is_stopped = matter == UndecidedMatter::Stopped && not_running.contains(&target);
            if !is_stopped && !obstacles.iter().any(is_said) {
                findings.add(Some(&credential.name), &format!("target {target}"), finding);
            }
        }
        for Obstacle { target, failure, end, weight, .. } in obstacles {
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
            findings.add_that(end.exit(), Some(&credential.name), &about, finding);
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

fn opening(window: &Window, now: Timestamp, zone: &TimeZone) -> String {
    let local = |at: Timestamp| at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z").to_string();
    match window.opening(now, zone) {
        Opening::Open { until } => format!("\"{window}\", which is open until {}", local(until)),
        Opening::At(at) => format!("\"{window}\", which opens next on {}", local(at)),
    }
}
