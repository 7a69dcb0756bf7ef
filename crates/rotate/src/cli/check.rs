//! `relaykey-rotate check`: the configuration, and everything in AWS that a rotation needs. Changes nothing.

use relaykey::fault::Fault;
use serde::Serialize;

use super::view::{FaultView, RefusalView, SCHEMA, Stand, put};
use super::{Common, Exit, choose, complain, lab, load, print_json, runtime, say};
use crate::config::{Config, Credential, Evidence};
use crate::facts::{Part, WhyUnseen};
use crate::refusal::WaitsFor;
use crate::retire;
use crate::run::{Controller, Look};

/// What was looked at, and found in order.
#[derive(Serialize)]
struct Found {
    about: &'static str,
    what: String,
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
        worst = worst.max(runtime.block_on(one(&config, credential, common.json)));
    }
    worst
}

async fn one(config: &Config, credential: &Credential, json: bool) -> Exit {
    let mut found =
        vec![Found { about: "configuration", what: format!("credential {}, as it should be", credential.name) }];
    let mut faults: Vec<Fault> = Vec::new();
    let mut look = None;
    match Controller::new(config, credential).await {
        Ok(mut controller) => {
            match controller.caller().await {
                Ok(caller) => found.push(Found { about: "identity", what: caller.arn }),
                Err(fault) => faults.push(fault),
            }
            match controller.look().await {
                Ok(seen) => look = Some(seen),
                Err(fault) => faults.push(fault),
            }
        }
        Err(fault) => faults.push(fault),
    }
    if let Some(look) = &look {
        found.extend(seen(credential, look));
        faults.extend(look.faults.iter().cloned());
    }
    let exit = match (&look, faults.iter().any(|fault| !fault.temporary), faults.is_empty()) {
        (_, true, _) => Exit::ForGood,
        (_, false, false) => Exit::ForNow,
        (Some(look), ..) => match Stand::of(look) {
            Stand::ForGood => Exit::ForGood,
            Stand::ForNow if look.busy.is_none() => Exit::ForNow,
            _ => Exit::Done,
        },
        (None, ..) => Exit::Done,
    };
    let refusals = || {
        let refusals = look.iter().flat_map(|look| &look.decision.refusals);
        refusals.filter(|refusal| refusal.waits_for() == WaitsFor::Person)
    };
    if json {
        print_json(&serde_json::json!({
            "schema": SCHEMA,
            "credential": credential.name,
            "found": found,
            "faults": faults.iter().map(FaultView::of).collect::<Vec<_>>(),
            "refusals": refusals().map(RefusalView::of).collect::<Vec<_>>(),
            "exit": exit.code(),
        }));
        return exit;
    }
    let mut out = String::new();
    for Found { about, what } in &found {
        put(&mut out, &format!("  ok    {about:<14} "), "                       ", what);
    }
    for refusal in refusals() {
        put(&mut out, "  open  ", "        ", &format!("{}: {}", refusal.class(), refusal.words()));
        put(&mut out, "        to do: ", "          ", &refusal.fix());
    }
    say(&lab(config.lab, out.trim_end()));
    for fault in &faults {
        complain(&fault.what, &fault.fix);
    }
    exit
}

fn seen(credential: &Credential, look: &Look) -> Vec<Found> {
    let unseen = |part: Part| look.facts.gaps.iter().any(|gap| gap.part == part && gap.why != WhyUnseen::Throttled);
    let mut found = Vec::new();
    if !unseen(Part::Keys) {
        let what = format!("{} has {} of two keys", credential.iam_user, look.facts.keys.len());
        found.push(Found { about: "IAM user", what });
    }
    if !unseen(Part::Store) {
        let places: Vec<&str> = credential.publish.iter().map(|publish| publish.place.name()).collect();
        let what = format!("{}: {} versions", places.join(", "), look.facts.store.versions.len());
        found.push(Found { about: "published at", what });
    }
    if !unseen(Part::Fleet) {
        let place = match &credential.evidence {
            Evidence::DynamoDb { table, .. } => format!("table {table}"),
            Evidence::ParameterStore { path, .. } => path.clone(),
        };
        let what = format!("{place}: {} hosts have reported", retire::heard_of(&look.facts, look.now));
        found.push(Found { about: "evidence", what });
    }
    let endpoints = credential.policy.endpoints.join(", ");
    found.push(Found { about: "endpoints", what: format!("{endpoints}: asked when a new key is verified") });
    found
}
