//! Which endpoint's password an entry gets (pure): the one that its key names; else the one whose password it holds; else the one
//! that its routes lead to.

use std::collections::BTreeSet;

use super::super::hops::{Endpoint, NextHop, host_part, port_part};
use super::{Client, EntryAt, Question, is_sender};
use crate::credential::{Login, is_access_key_id, ses_region};
use crate::mta::Ours;
use crate::mta::table::same_key;

/// Why the region of an entry cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RegionDoubt {
    /// Mail under it may go to several, and its password is none that is known.
    SeveralRoutes,
    /// Its access key id is there with another password, and has one for each region: this one is not that region's.
    AnotherPassword,
}

/// Why an entry is for none of the endpoints.
#[derive(Debug, Clone)]
pub(super) enum Elsewhere {
    /// It is for SES in this region, where none is.
    Region(String),
    Unknown(RegionDoubt),
}

impl Question<'_> {
    /// The endpoint that a key names, if it names one. The error is the SES region that it is in, where no endpoint is.
    pub(super) fn endpoint_of(&self, key: &str) -> Result<Option<usize>, String> {
        if is_sender(key) {
            return Ok(None);
        }
        let (host, endpoints) = (host_part(key), self.scope.endpoints);
        if let Some(region) = ses_region(host) {
            let is_there = |endpoint: &Endpoint| endpoint.region.as_ref() == Some(&region);
            let same_name = endpoints.iter().position(|endpoint| is_there(endpoint) && endpoint.has_name(host));
            return same_name.or_else(|| endpoints.iter().position(is_there)).map(Some).ok_or(region);
        }
        let at_port = endpoints.iter().position(|endpoint| endpoint.is_at(host, port_part(key)));
        Ok(at_port.or_else(|| endpoints.iter().position(|endpoint| endpoint.has_name(host))))
    }

    /// Is it a key that nobody has listed, and of a host that no mail goes to?
    pub(super) fn is_idle(&self, key: &str) -> bool {
        let leads_there = |hop: &NextHop| same_key(&hop.host, host_part(key));
        self.scope.keys.is_none() && self.hops.unread.is_empty() && !self.hops.all.iter().any(leads_there)
    }

    /// The endpoint of the region whose password a login is known to have.
    fn known_region(&self, login: &Login) -> Option<usize> {
        let region = self.known.ours.logins.region_of(login)?;
        self.scope.endpoints.iter().position(|endpoint| endpoint.region.as_deref() == Some(region))
    }

    /// Is it another password of an access key id than the one that is known of it? `all`: what is there with a user name of ours.
    fn is_another_password(&self, login: &Login, all: &[Login]) -> bool {
        let Ours { applied, logins, .. } = self.known.ours;
        let is_ids = self.is_ses() && is_access_key_id(&login.username);
        let of_same_id = |known: &Login| known.username == login.username && known != login;
        let is_confirmed = || applied.as_ref() == Some(&login.username) && logins.is_applied_known();
        // One that was in place here before is of an endpoint of ours: the source may have had it.
        is_ids && !logins.knows(login) && (all.iter().any(of_same_id) || is_confirmed())
    }

    /// Is there a password for an endpoint? A ready-made one is for the default endpoint's region.
    pub(super) fn has_password(&self, endpoint: usize) -> bool {
        endpoint == 0 || !self.known.ours.one_region
    }

    /// The endpoint that an entry is for whose key names none: by the password that it holds, else by where its routes lead.
    pub(super) fn told_by_login(
        &self,
        at: EntryAt,
        all: &[Login],
        by_host: &[(Login, Result<usize, Elsewhere>)],
    ) -> Result<usize, Elsewhere> {
        let entry = self.entry(at);
        if let Some(login) = &entry.login() {
            if let Some(endpoint) = self.known_region(login) {
                return Ok(endpoint);
            }
            if let Some((_, endpoint)) = by_host.iter().find(|(known, _)| known == login) {
                return endpoint.clone();
            }
            if self.is_another_password(login, all) {
                return Err(Elsewhere::Unknown(RegionDoubt::AnotherPassword));
            }
        }
        self.led_to(at.table, &entry.key).ok_or(Elsewhere::Unknown(RegionDoubt::SeveralRoutes))
    }

    /// The endpoint that the services which use a table lead to, for a key that names none. `None`: they lead to several regions, or
    /// mail under the key to a host that may be any region's.
    pub(super) fn led_to(&self, table: usize, key: &str) -> Option<usize> {
        let uses = |client: &&Client<'_>| client.tables.contains(&table) && (client.by_sender || !is_sender(key));
        let services: Vec<&str> = self.clients.iter().filter(uses).map(|client| client.service).collect();
        let hops = || self.hops.all.iter().filter(|hop| services.contains(&hop.service.as_str()));
        let is_of_key = |hop: &NextHop| same_key(&hop.spelt, key) || same_key(&hop.host, key);
        let mut led: BTreeSet<usize> = BTreeSet::new();
        for hop in hops() {
            match self.endpoint_of(&hop.spelt) {
                _ if hop.is_ours() => led.extend(hop.endpoint),
                Err(_) => return None,
                Ok(None) if self.is_ses() && is_of_key(hop) => return None,
                // Another name of SES in a region that is configured.
                Ok(endpoint) => led.extend(endpoint.filter(|_| ses_region(&hop.host).is_some())),
            }
        }
        match led.len() {
            0 => Some(0),
            1 => led.first().copied(),
            _ => {
                // Of one region they take the same password.
                let regions: BTreeSet<_> = led.iter().map(|at| &self.scope.endpoints[*at].region).collect();
                (regions.len() == 1).then(|| led.first().copied()).flatten()
            }
        }
    }
}
