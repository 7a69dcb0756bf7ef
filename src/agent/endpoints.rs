//! The login at every endpoint that a target uses, and a message over it: side by side, and what that comes to.

use jiff::Timestamp;

use super::Agent;
use crate::apply::Logins;
use crate::config;
use crate::credential::Login;
use crate::fault::{Class, Failure, Fault};
use crate::rollover::{self, Evidence, Facts, Outcome};
use crate::smtp::{self, LoginVerdict};
use crate::tls;

impl Agent {
    /// One message to each endpoint that the target uses: what a policy refuses in one region it may take in another.
    pub(super) async fn probe_everywhere(
        &self,
        facts: &Facts,
        index: usize,
        target: &config::Target,
        logins: &Logins,
        probe: &config::Probe,
    ) -> Outcome {
        let places = places_tried(&target.smtp, &endpoints_used(facts, index), logins);
        let sent = places.iter().map(|(smtp, login)| self.probe(facts, smtp, login, probe));
        together(&target.smtp, &places, futures_util::future::join_all(sent).await)
    }

    /// Sends one message over the candidate's login: a login may be accepted, and then every message refused.
    pub(super) async fn probe(
        &self,
        facts: &Facts,
        smtp: &config::Smtp,
        login: &Login,
        probe: &config::Probe,
    ) -> Outcome {
        let at = Timestamp::now();
        let version = facts.fetched.as_ref().map_or("", |f| f.id.version.as_str());
        let about = smtp::Probed { host: &self.identity.name, credential: &facts.state.credential, version, at };
        let roots = match tls::CaFile::new(smtp.ca_file.clone()).roots() {
            Ok(roots) => roots,
            Err(e) => return unproved(e.into(), at),
        };
        match smtp::probe(smtp, login, &roots, &self.identity.name, probe, &about).await {
            LoginVerdict::Accepted { .. } => Outcome::Probed,
            verdict => unproved(verdict, at),
        }
    }
}

/// The numbers of the endpoints whose logins a target uses, as it was last looked at.
pub(super) fn endpoints_used(facts: &Facts, index: usize) -> Vec<usize> {
    or_the_default(facts.targets[index].inspected.as_ref().map_or(&[][..], |seen| &seen.endpoints[..]))
}

/// Where a look has found none, it is the default one, which is 0.
pub fn or_the_default(endpoints: &[usize]) -> Vec<usize> {
    if endpoints.is_empty() { vec![0] } else { endpoints.to_vec() }
}

/// The endpoints with these numbers, each with its login. One that a version has no password for is not among them: it is told of
/// where that matters.
pub fn places_used<'l>(
    smtp: &'l config::Smtp,
    endpoints: &[usize],
    logins: &'l Logins,
) -> Vec<(&'l config::Smtp, &'l Login)> {
    let used = smtp.endpoints().enumerate().filter(|(at, _)| endpoints.contains(at));
    used.filter_map(|(at, smtp)| Some((smtp, logins.at(at)?))).collect()
}

/// The same, and one at least.
fn places_tried<'l>(
    smtp: &'l config::Smtp,
    endpoints: &[usize],
    logins: &'l Logins,
) -> Vec<(&'l config::Smtp, &'l Login)> {
    let used = places_used(smtp, endpoints, logins);
    if used.is_empty() { vec![(smtp, logins.default_login())] } else { used }
}

/// What the logins at these endpoints come to, side by side, each with its own deadline. The evidence is that of the first.
pub(super) async fn proved_everywhere(
    smtp: &config::Smtp,
    endpoints: &[usize],
    logins: &Logins,
    hello_name: &str,
) -> Outcome {
    let places = places_tried(smtp, endpoints, logins);
    let tried = places.iter().map(|(smtp, login)| proved(smtp, login, hello_name));
    together(smtp, &places, futures_util::future::join_all(tried).await)
}

/// What came of it at each place, as one: what is refused, with the endpoint that it is refused at; else what failed first; else
/// what the first gave.
fn together(smtp: &config::Smtp, places: &[(&config::Smtp, &Login)], outcomes: Vec<Outcome>) -> Outcome {
    let (mut accepted, mut failed) = (None, None);
    for ((at, _), outcome) in places.iter().zip(outcomes) {
        let named = (!smtp.also.is_empty()).then(|| at.endpoint.clone());
        match outcome {
            // It is the credential's fault, whatever else is wrong.
            Outcome::Refused { reply, .. } => return Outcome::Refused { endpoint: named, reply },
            Outcome::Failed(failure) if failed.is_none() => {
                let what = match named {
                    Some(endpoint) => format!("{endpoint}: {}", failure.what),
                    None => failure.what,
                };
                failed = Some(Outcome::Failed(Failure { what, ..failure }));
            }
            Outcome::Failed(_) => {}
            other => accepted = accepted.or(Some(other)),
        }
    }
    failed.or(accepted).expect("one at least was tried")
}

/// One login, trusting what `ca_file`, else the system, says now: the file is read anew each time.
pub async fn login_at(smtp: &config::Smtp, login: &Login, hello_name: &str) -> LoginVerdict {
    match tls::CaFile::new(smtp.ca_file.clone()).roots() {
        Ok(roots) => smtp::login(smtp, login, &roots, hello_name).await,
        Err(e) => e.into(),
    }
}

/// What a login at this endpoint comes to.
async fn proved(smtp: &config::Smtp, login: &Login, hello_name: &str) -> Outcome {
    // As it is written down, and as reports have it.
    let at = rollover::whole_seconds(Timestamp::now());
    match login_at(smtp, login, hello_name).await {
        LoginVerdict::Accepted { reply } => Outcome::Accepted(Evidence { endpoint: smtp.place(), reply, at }),
        verdict => unproved(verdict, at),
    }
}

/// What a login, or a message over it, did not prove.
fn unproved(verdict: LoginVerdict, at: Timestamp) -> Outcome {
    match verdict {
        LoginVerdict::Accepted { .. } => unreachable!("that is proof"),
        LoginVerdict::Refused { reply } => Outcome::Refused { endpoint: None, reply },
        LoginVerdict::Unknown { class, temporary, words, fix } => Outcome::Failed(
            Fault::new(
                class,
                match class {
                    Class::Policy => words,
                    _ => format!("no login: {words}"),
                },
                fix.unwrap_or_else(|| "nothing: it is tried again".into()),
            )
            .temporary_if(temporary)
            .at(at),
        ),
    }
}
