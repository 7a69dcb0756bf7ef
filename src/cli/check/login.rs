//! What the source gives, and whether it is accepted wherever it is used.

use futures_util::future::join_all;
use jiff::Timestamp;

use super::Findings;
use crate::agent;
use crate::apply::{self, Inspected, Request, TargetId};
use crate::aws;
use crate::config::{self, IfAppliedDies, Mode, Severity};
use crate::credential::{self, Login, PayloadForm};
use crate::rollover::{Evidence, RefusedNewKey, RegionSaidBy, State};
use crate::smtp::LoginVerdict;
use crate::source::{self, Fetched, Source};
use crate::state::Store;

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

/// The source, which is asked more than once.
pub(super) fn open(
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

pub(super) async fn source(
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
                credential.source.words(),
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

/// What to do about a login that was refused. What relaykey derived it knows the region of.
fn refused_fix(form: PayloadForm, smtp: &config::Smtp) -> String {
    let region = smtp.ses_region().filter(|_| form == PayloadForm::JsonIamKey);
    let said_by = if smtp.region.is_some() { RegionSaidBy::Configuration } else { RegionSaidBy::EndpointName };
    RefusedNewKey::InCheck { derived_for: region.as_deref().map(|region| (region, said_by)) }.fix()
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
pub(super) async fn logins(
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
                    findings.error(name, "login", what, e.fix());
                    tried.push((alone(smtp), None));
                }
                continue;
            }
        };
        let used = agent::or_the_default(seen.as_ref().map_or(&[][..], |seen| &seen.endpoints[..]));
        let places = agent::places_used(&target.smtp, &used, &logins);
        let places: Vec<(config::Smtp, &Login)> =
            places.into_iter().map(|(smtp, login)| (alone(smtp), login)).collect();
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
                LoginVerdict::Accepted { reply } => {
                    findings.good(name, "login", format!("{place} accepted: {reply}"));
                    accepted = Some(Evidence { endpoint: place, reply, at });
                }
                LoginVerdict::Refused { reply } => findings.failed(
                    is_awaited(credential, target, fetched, state, at),
                    name,
                    "login",
                    format!("{place} refused the credential: {reply}"),
                    refused_fix(fetched.payload.form, &smtp),
                ),
                LoginVerdict::Unknown { temporary, words, fix, .. } => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_of_a_derived_password_names_the_region_it_was_derived_for() {
        let text = config::EXAMPLE.replace(
            "endpoint = \"email-smtp.eu-west-1.amazonaws.com\"\n\n# The TCP",
            "endpoint = \"relay\"\nregion = \"eu-wst-1\"\n\n# The TCP",
        );
        let (config, warnings) = config::parse(&text).expect("the example");
        let smtp = &config.credentials[0].targets[0].smtp;
        let fix = refused_fix(PayloadForm::JsonIamKey, smtp);
        assert!(fix.contains("in region eu-wst-1") && fix.contains("`region` in the configuration"), "{fix}");
        assert!(refused_fix(PayloadForm::Pair, smtp).contains("was derived for this endpoint's region"));
        assert!(
            warnings.iter().any(|w| w.what.contains("did you mean \"eu-west-1\"") && w.line.is_some()),
            "{warnings:?}"
        );
    }
}
