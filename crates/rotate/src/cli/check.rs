//! `relaykey-rotate check`: the configuration, and everything in AWS that a rotation needs. Changes nothing.

use relaykey::fault::{Class, Fault};
use serde::Serialize;

use super::view::{FaultView, PlaceView, RefusalView, SCHEMA, Stand, hosts_reported, is_of_a_gap, number, places, put};
use super::{Common, Exit, ca_files, choose, complain, lab, load, print_json, runtime, say, speak};
use crate::config::{Config, Credential};
use crate::facts::{CURRENT, KeyId, LoginReply, Part, StoreKind, Value};
use crate::refusal::WaitsFor;
use crate::retire;
use crate::run::{Checked, Controller, Look, PublishedLogin};
use crate::words::names;

/// What was looked at, and found in order.
#[derive(Serialize)]
struct InOrder {
    about: &'static str,
    what: String,
}

fn found(about: &'static str, what: impl Into<String>) -> InOrder {
    InOrder { about, what: what.into() }
}

pub fn run(common: &Common) -> Exit {
    let config = match load(common) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let chosen: Vec<&Credential> = match &common.credential {
        Some(name) => match choose(&config, Some(name)) {
            Ok(credential) => vec![credential],
            Err(exit) => return exit,
        },
        None => config.credentials.iter().collect(),
    };
    let mut worst = Exit::Done;
    for credential in chosen {
        speak(common, &config, credential);
        worst = worst.max(runtime.block_on(one(&config, credential, common.json)));
    }
    worst
}

async fn one(config: &Config, credential: &Credential, json: bool) -> Exit {
    let mut ok = vec![found("configuration", format!("credential {}, as it should be", credential.name))];
    let mut faults: Vec<Fault> = Vec::new();
    let mut checked = None;
    let trusted = ca_files(credential);
    match &trusted {
        Ok(()) => ok.extend(
            credential
                .smtp
                .endpoints()
                .filter_map(|smtp| smtp.ca_file.as_ref())
                .map(|path| found("ca_file", path.display().to_string())),
        ),
        Err(fault) => faults.push(fault.clone()),
    }
    match Controller::new(config, credential).await {
        Ok(mut controller) => {
            match controller.caller().await {
                Ok(caller) => {
                    let profile = config.aws.profile.as_ref().map(|profile| format!(" (profile {profile})"));
                    ok.push(found("identity", caller.arn + &profile.unwrap_or_default()));
                }
                Err(fault) => faults.push(fault),
            }
            match controller.check().await {
                Ok(seen) => checked = Some(seen),
                // What stops one call often stops all.
                Err(fault) if faults.contains(&fault) => {}
                Err(fault) => faults.push(fault),
            }
        }
        Err(fault) => faults.push(fault),
    }
    if let Some(checked) = &checked {
        faults.extend(checked.look.faults.iter().cloned());
        judge(credential, checked, &mut ok, &mut faults);
        if let Some(login) = &checked.login {
            logged_in(login, &mut ok, &mut faults);
            // Why it could not be made was said of the file.
            let told = login.faults.iter().filter(|_| trusted.is_ok()).cloned();
            // A value without a password for the endpoint has none later either.
            faults.extend(
                told.map(|fault| Fault { temporary: fault.temporary && fault.class != Class::Payload, ..fault }),
            );
        }
    }
    let exit = match (&checked, faults.iter().any(|fault| !fault.temporary), faults.is_empty()) {
        (_, true, _) => Exit::ForGood,
        (_, false, false) => Exit::ForNow,
        (Some(checked), ..) => Stand::of(&checked.look).exit_of_a_check(checked.look.busy.is_some()),
        (None, ..) => Exit::Done,
    };
    let untried = checked.as_ref().map(|checked| checked.untried.join(", ")).unwrap_or_default();
    let refusals = || {
        let refusals = checked.iter().flat_map(|checked| &checked.look.decision.refusals);
        refusals
            .filter(|refusal| refusal.waits_for() == WaitsFor::Person && (faults.is_empty() || !is_of_a_gap(refusal)))
    };
    if json {
        print_json(&serde_json::json!({
            "schema": SCHEMA,
            "credential": credential.name,
            "found": ok,
            "untried": checked.as_ref().map(|checked| &checked.untried),
            "faults": faults.iter().map(FaultView::of).collect::<Vec<_>>(),
            "refusals": refusals().map(RefusalView::of).collect::<Vec<_>>(),
            "exit": exit.code(),
        }));
        return exit;
    }
    let mut out = String::new();
    for InOrder { about, what } in &ok {
        put(&mut out, &format!("  ok    {about:<14} "), "                       ", what);
    }
    if !untried.is_empty() {
        let what =
            format!("{untried}: a request would change something; `{} policy --for controller` has all", names().us);
        put(&mut out, "  -     not tried      ", "                       ", &what);
    }
    for refusal in refusals() {
        put(&mut out, "  open  ", "        ", &format!("{}: {}", refusal.class(), refusal.words()));
        put(&mut out, "        to do: ", "          ", &refusal.fix());
    }
    if let Some(others) = checked.as_ref().map(|checked| &checked.others).filter(|others| !others.is_empty()) {
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let what = format!(
            "hosts report here about {}, and none about {}: is `name` in rotate.toml the one in their config.toml?",
            others.join(", "),
            credential.name
        );
        put(&mut out, "  open  ", "        ", &what);
    }
    say(&lab(config.lab, out.trim_end()));
    for fault in &faults {
        complain(&fault.what, &fault.fix);
    }
    exit
}

/// What is in order, and what is not.
fn judge(credential: &Credential, checked: &Checked, ok: &mut Vec<InOrder>, faults: &mut Vec<Fault>) {
    let look = &checked.look;
    let unseen = |part: Part| look.facts.gaps.iter().any(|gap| gap.part == part);
    if !unseen(Part::Keys) {
        ok.push(found("IAM user", format!("{} has {} of two keys", credential.iam_user, look.facts.keys.len())));
    }
    if !unseen(Part::Store) {
        match published(look) {
            Ok(what) => ok.push(found("published at", format!("{}: {what}", names().store))),
            Err(fault) => faults.push(*fault),
        }
    }
    // What could not be looked at is told with what stands in the way.
    for further in places(look).into_iter().skip(1).filter(PlaceView::is_seen) {
        ok.push(found("published at", further.words()));
    }
    if !unseen(Part::Fleet) {
        let what = format!("{}: {}", names().fleet, hosts_reported(retire::heard_of(&look.facts, look.now)));
        ok.push(found("evidence", what));
    }
    let (allowed, denied): (Vec<_>, Vec<_>) = checked.rights.iter().partition(|right| right.fault.is_none());
    let allowed: Vec<&str> = allowed.iter().map(|right| right.action).collect();
    if !allowed.is_empty() {
        let what = format!("asked for, with requests that are never done: {}", allowed.join(", "));
        ok.push(found("rights", what));
    }
    faults.extend(denied.into_iter().filter_map(|right| right.fault.clone()));
}

/// What is published; or why that is not known. A value that is no login may be somebody else's.
pub(super) fn published(look: &Look) -> Result<String, Box<Fault>> {
    let (facts, names) = (&look.facts, names());
    let versions = number(facts.store.versions.len(), "version");
    let wrong = |class, what: String, fix: String| Err(Box::new(Fault::new(class, what, fix)));
    let put =
        "correct its name or the region in rotate.toml; or put the login that hosts use now into it, as USER:PASSWORD";
    let Some(current) = facts.store.labelled(CURRENT) else {
        if facts.store.kind == StoreKind::ParameterStore {
            let fix = format!(
                "correct `parameter` or the region in rotate.toml; if no host has a key yet, `{} run` makes it",
                names.us
            );
            return wrong(Class::NotFound, format!("{} does not exist", names.store), fix);
        }
        if !facts.store.versions.is_empty() {
            return wrong(Class::NotFound, format!("no version of {} is AWSCURRENT", names.store), put.into());
        }
        let Some(key) = facts.keys.first() else {
            return Ok("no version yet; the first run publishes one".into());
        };
        let what =
            format!("{} has no value, and the IAM user has a key: who uses {} is not known here", names.store, key.id);
        let fix = format!("{put}; if no host has a key yet, `{} run` publishes the first one", names.us);
        return wrong(Class::NotFound, what, fix);
    };
    match &current.value {
        Value::Login(key) => Ok(format!("{versions}; {key} is published")),
        Value::Empty => wrong(
            Class::Payload,
            format!("the published version {} of {} is empty", current.id, names.store),
            put.into(),
        ),
        Value::Unreadable => wrong(
            Class::Payload,
            format!(
                "the published version {} of {} holds no login whose user name is a key id",
                current.id, names.store
            ),
            put.into(),
        ),
    }
}

fn logged_in(login: &PublishedLogin, ok: &mut Vec<InOrder>, faults: &mut Vec<Fault>) {
    let refused = |key: &KeyId, said: &str| {
        // What is refused here may well be accepted where hosts log in: nothing is advised that changes what they use.
        let fix = format!(
            "a key that is some minutes old needs time; else look first whether hosts send with it: `{} hosts list`. If they do, \
             `endpoint` and `region` in [credential.smtp] of rotate.toml are not those that the value was made for",
            names().us
        );
        Fault::new(Class::Refused, format!("the published login with {key} is refused at {said}"), fix)
    };
    for (reply, said) in &login.replies {
        match reply {
            LoginReply::Accepted => ok.push(found("login", format!("{} at {said}", login.key))),
            LoginReply::Refused => faults.push(refused(&login.key, said)),
            LoginReply::NoAnswer => {}
        }
    }
}
