//! What the configuration says, as far as decisions need it.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use crate::config;
use crate::config::{Drift, Mode};

/// What the configuration says, as far as decisions need it.
#[derive(Debug, Clone)]
pub struct Policy {
    pub targets: Vec<TargetPolicy>,
    /// A file is authoritative as it is; AWS sources have an order.
    pub ordered: bool,
    pub mode: Mode,
    /// In which a window's hours are meant.
    pub zone: TimeZone,
    /// A candidate must be able to send a message before it is put in place.
    pub probe: bool,
    /// Can the source still give a version when it has a newer one? A file cannot.
    pub gives_older: bool,
    /// How long this host may be silent before it is no longer expected.
    pub lease: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct TargetPolicy {
    pub name: String,
    pub drift: Drift,
    /// False: a person changes it.
    pub write: bool,
    pub endpoint: String,
    /// The SES region that `region` says, where the endpoint's name does not.
    pub region: Option<String>,
    pub propagation: SignedDuration,
    pub retry: SignedDuration,
    /// The first target that logs in at the same place with the same login: one AUTH serves all of them.
    pub logs_in_as: usize,
}

impl TargetPolicy {
    /// What is said of another endpoint of the target than the default one, where it is another.
    pub(super) fn at(&self, endpoint: Option<&str>) -> Self {
        let endpoint = endpoint.unwrap_or(&self.endpoint).to_owned();
        let region = self.region.clone().filter(|_| endpoint == self.endpoint);
        Self { endpoint, region, ..self.clone() }
    }
}

impl Policy {
    /// `zone`: this host's local time.
    pub fn new(credential: &config::Credential, zone: TimeZone) -> Self {
        let signed = |d: Duration| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        // Where there are several endpoints, each target logs in at those that it uses.
        let logs_in_as = |index: usize, t: &config::Target| match t.smtp.also.is_empty() {
            true => credential.targets.iter().position(|o| o.smtp == t.smtp).unwrap_or(0),
            false => index,
        };
        let targets: Vec<_> = credential
            .targets
            .iter()
            .enumerate()
            .map(|(index, t)| TargetPolicy {
                name: t.name.clone(),
                drift: t.drift,
                write: t.write,
                endpoint: t.smtp.endpoint.clone(),
                region: t.smtp.region.clone(),
                propagation: signed(t.smtp.propagation),
                retry: signed(t.smtp.retry),
                logs_in_as: logs_in_as(index, t),
            })
            .collect();
        Self {
            targets,
            ordered: credential.source.is_ordered(),
            mode: credential.mode.clone(),
            zone,
            probe: credential.probe.is_some(),
            gives_older: credential.source.gives_older(),
            lease: None,
        }
    }
}

pub(super) fn same_place(policy: &Policy, target: usize) -> Vec<usize> {
    let place = policy.targets[target].logs_in_as;
    (0..policy.targets.len()).filter(|&i| policy.targets[i].logs_in_as == place).collect()
}
