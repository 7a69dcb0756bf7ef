//! What the mail server's login tables hold, and should not: the key's password for another region, or another one than the source's;
//! and whose keys they hold besides.

use crate::agent;
use crate::apply::{self, Inspected, Ours, Reply, Request, TargetId};
use crate::config::{self, Severity};
use crate::credential::{Login, is_access_key_id, ses_region};
use crate::instruction::relaykey;

use crate::rollover::State;
use crate::source::Fetched;
use relaykey_core::report::HeldKeyId;

use super::Findings;

/// SES's regions with an SMTP endpoint (SES endpoints and quotas), to say for which one a password was derived.
const REGIONS: &[&str] = &[
    "af-south-1",
    "ap-east-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-south-2",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-5",
    "ca-central-1",
    "ca-west-1",
    "eu-central-1",
    "eu-central-2",
    "eu-north-1",
    "eu-south-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-gov-east-1",
    "us-gov-west-1",
    "us-west-1",
    "us-west-2",
];

/// A key has one password for each region: any other under its name is refused with 535.
pub(super) fn another_password(
    credential: &config::Credential,
    fetched: &Fetched,
    state: Option<&State>,
    targets: &[Option<Inspected>],
    apply: &apply::Client,
    findings: &mut Findings,
) {
    let key = fetched.payload.username();
    for (target, seen) in credential.targets.iter().zip(targets) {
        let smtp = &target.smtp;
        let own_region = smtp.region.clone().or_else(|| ses_region(&smtp.endpoint));
        let (Some(seen), Some(own_region)) = (seen, own_region) else { continue };
        if seen.username.as_deref() != Some(key) || !is_access_key_id(key) {
            continue;
        }
        let in_region = |region: &str| fetched.payload.login(&smtp.endpoint, Some(region)).ok();
        let others: Vec<&str> = REGIONS.iter().copied().filter(|region| *region != own_region).collect();
        let logins: Option<Vec<Login>> =
            std::iter::once(own_region.as_str()).chain(others.iter().copied()).map(in_region).collect();
        let Some(logins) = logins else { continue };
        let id = TargetId { credential: credential.name.clone(), target: target.name.clone() };
        let Ok(Reply::Stands(place)) =
            apply.call(Request::WhichStands { target: id, ours: agent::ours(state), logins })
        else {
            continue;
        };
        let what = match place {
            Some(0) => continue,
            Some(place) => format!(
                "the login of {key} that is in use has the password for {}, and the endpoint is one in {own_region}: SES refuses it \
                 with 535",
                others[place - 1]
            ),
            None => format!(
                "the login of {key} that is in use has another password than the source's, and one key has one for {own_region}: SES \
                 refuses it with 535"
            ),
        };
        let fix = match target.write {
            true => format!("the next rollover puts the source's there: {}", relaykey("sync")),
            false => format!("put the source's there by hand: {} says how", relaykey("sync")),
        };
        findings.say(Severity::Warning, Some(&credential.name), &format!("target {}", target.name), what, fix);
    }
}

/// Whose keys the login tables hold besides the one in use, and what could not be listed. What the source names as an earlier one
/// of ours is exchanged by the next sync.
pub(super) fn other_keys(credential: &str, about: &str, ours: &Ours, seen: &Inspected, findings: &mut Findings) {
    for HeldKeyId { id, count, places } in seen.others.named.iter().filter(|other| !ours.named.contains(&other.id)) {
        let Some(place) = places.first() else { continue };
        let line = place.line.map(|line| format!(", line {line}")).unwrap_or_default();
        let entries = if *count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
        findings.say(
            Severity::Note,
            Some(credential),
            about,
            format!("the login tables hold {id} too, in {entries}: {} in {}{line}", place.key, place.table),
            "nothing, where it is another account's, or is about to be exchanged; as long as it stands there, a report names it, and \
             the control side does not retire it"
                .into(),
        );
    }
    for table in &seen.incomplete {
        findings.say(
            Severity::Note,
            Some(credential),
            about,
            format!("what {table} holds cannot be listed, so that a key which only it uses is not known as used here"),
            "see to it by hand before an old key is retired".into(),
        );
    }
}
