//! What concerns the host as a whole: who may ask, who answers, who hears of a failure.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Findings;
use crate::agent;
use crate::aws;
use crate::config::{self, Config, Severity};
use crate::control::{self, ControlError};
use crate::health::{self, ListenError};
use crate::host::{self, Holder};
use crate::report::{Receivers, Whose};
use crate::state::Store;
use crate::status::NotListening;

/// Does the daemon, where one runs, answer; and can every place of `[health]` be listened at? A running daemon has tried, and
/// listens at the others itself.
pub(super) async fn daemon(config: &Config, findings: &mut Findings) {
    let (health, run_dir, state_dir) =
        (config.health.clone(), config.host.run_dir.clone(), config.host.state_dir.clone());
    // Waits for the daemon's answer, and for directories.
    let looking = tokio::task::spawn_blocking(move || -> Result<Vec<(String, String)>, ControlError> {
        match control::connect(&run_dir).and_then(|client| client.map(crate::cli::status::ask).transpose())? {
            Some(status) => {
                let failed = status.daemon.map(|daemon| daemon.not_listening).unwrap_or_default();
                Ok(failed.into_iter().map(|n| (n.what, n.fix)).collect())
            }
            None => {
                if let Some(daemon) = held_by_daemon(&state_dir) {
                    return Err(ControlError::NotThere { path: control::socket_in(&run_dir), pid: daemon.pid });
                }
                let listen = health.iter().flat_map(|health| &health.listen);
                let failed = listen.filter_map(|place| health::look(place, &run_dir).err());
                let fix = |e: &ListenError| match e.is_taken() {
                    true => format!(
                        "{}; nothing is to be done where that is the service manager, for relaykey: systemctl status relaykey.socket",
                        e.fix()
                    ),
                    false => e.fix(),
                };
                Ok(failed.map(|e| (e.to_string(), fix(&e))).collect())
            }
        }
    });
    match looking.await {
        Ok(Ok(not_listening)) => {
            for (what, fix) in not_listening {
                findings.say(Severity::Warning, None, "health", format!("{what}; {}", NotListening::GOES_ON), fix);
            }
        }
        // It does nothing else either.
        Ok(Err(e @ (ControlError::Full { .. } | ControlError::Silent { .. } | ControlError::NotThere { .. }))) => {
            findings.failed(true, None, "daemon", e.to_string(), e.fix());
        }
        // Who may not ask is told by what is asked; and one that ends is none.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// The daemon that has this state directory, also where that was removed under it.
fn held_by_daemon(state_dir: &Path) -> Option<Holder> {
    let holders = [host::name_holder(state_dir), host::holder(&state_dir.join("lock"))];
    holders.into_iter().flatten().find(|holder| holder.is_daemon)
}

/// Is AWS asked at a place where any user of this host could answer?
pub(super) fn who_answers(config: &Config, findings: &mut Findings) {
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
pub(super) fn who_hears(config: &Config, findings: &mut Findings) {
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
        } else if takers.iter().all(|r| r.kind.rides_on_this_host()) {
            let only = if takers.len() == 1 { "the only report rides" } else { "all reports ride" };
            let what = format!("{only} on the relay that it reports about: when that fails, nobody hears of it");
            let fix = "add a [[report]] of another type, or one with server = \"ses\"".into();
            findings.say(Severity::Warning, name, "reports", what, fix);
        }
    }
}

/// Would reports arrive? All are asked at the same time, each for as long as an attempt may take.
pub(super) async fn reports(config: &Config, store: &Store, http: &aws::Http, findings: &mut Findings) {
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
                is_passing: identity.is_passing,
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
