//! Which endpoint's password an entry gets (pure): the one that its key names; else the one whose password it holds; else the one
//! that its routes lead to.

use std::collections::BTreeSet;

use super::super::hops::{Endpoint, NextHop, host_part, port_part};
use super::super::origin::Origin;
use super::{Client, EntryAt, Question, is_sender};
use crate::credential::{Login, is_access_key_id, ses_region};
use crate::mta::Ours;
use crate::mta::alias::{is_told_by_port, same_host};
use crate::mta::table::{Entry, same_key};

/// Why the region of an entry cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RegionDoubt {
    /// The routes that can be read lead from it to several, or nowhere, and its password is none that is known.
    SeveralRoutes,
    /// Its access key id is there with another password, and has one for each region: this one is not that region's.
    AnotherPassword,
    /// The same, and its key is another name of this endpoint: of a region whose password it does not hold.
    AnotherName { endpoint: usize },
    /// Nothing but its access key id is known as ours, and its mail may go to another region.
    OnlyTheId,
}

impl RegionDoubt {
    /// May other entries tell its region, as long as nothing is changed?
    pub(super) fn may_be_told_by_others(self) -> bool {
        !matches!(self, Self::OnlyTheId)
    }
}

/// Which routes count for a line that names no host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RoutesAsked {
    /// Those that its mail is likely to take.
    Likely,
    /// All that it can take: nothing else tells.
    All,
}

/// Why an entry is for none of the endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Elsewhere {
    /// It is for SES in this region, where none is.
    Region(String),
    Unknown(RegionDoubt),
}

/// The endpoint that a key names, if it names one.
pub(super) type ByKey = Result<Option<usize>, Elsewhere>;

/// A login under a host that says which endpoint it is for.
#[derive(Debug, PartialEq)]
pub(super) struct Named {
    login: Login,
    endpoint: Result<usize, Elsewhere>,
    /// The host is SES's own name of it, or the endpoint itself, and not another name that somebody gave it.
    is_own: bool,
}

fn is_of_same_id(one: &Login, other: &Login) -> bool {
    one.username == other.username && one != other
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
        let port = port_part(key);
        let at_port = endpoints.iter().position(|endpoint| endpoint.is_at(host, port));
        // At another port of an address there is another server.
        let any_port = !is_told_by_port(host) || port.is_none() && !self.goes_by_ports_of_others(host);
        Ok(at_port.or_else(|| endpoints.iter().position(|endpoint| any_port && endpoint.has_name(host))))
    }

    /// Does mail go to this host, and none of it to a port of ours?
    fn goes_by_ports_of_others(&self, host: &str) -> bool {
        let mut there = self.hops.all.iter().filter(|hop| same_host(&hop.host, host)).peekable();
        there.peek().is_some() && !there.any(NextHop::is_ours)
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
        self.is_ses() && self.known.ours.logins.has_another(login, None)
            || self.may_be_any_regions(login)
                && (all.iter().any(|known| is_of_same_id(known, login)) || self.is_confirmed(&login.username))
    }

    /// Has its user name a password for each region, and is it not known whose this is? One that was in place here before is of an
    /// endpoint of ours: the source may have had it.
    fn may_be_any_regions(&self, login: &Login) -> bool {
        self.is_ses() && is_access_key_id(&login.username) && !self.known.ours.logins.knows(login)
    }

    /// The endpoints that the keys of these entries name, and the logins there. One under another name of an endpoint is believed as
    /// far as its password does not belie it.
    pub(super) fn by_key(&self, entries: &[EntryAt]) -> (Vec<ByKey>, Vec<Named>) {
        let of_entry = |at: &EntryAt, endpoint: &ByKey| {
            let entry = self.entry(*at);
            let endpoint = endpoint.clone().transpose()?;
            let host = host_part(&entry.key);
            let is_configured = |at: &usize| same_host(&self.scope.endpoints[*at].host, host);
            let is_own = ses_region(host).is_some() || endpoint.as_ref().is_ok_and(is_configured);
            Some(Named { login: entry.login()?, endpoint, is_own })
        };
        let by_key = |at: &EntryAt| self.endpoint_of(&self.entry(*at).key).map_err(Elsewhere::Region);
        let mut endpoints: Vec<ByKey> = entries.iter().map(by_key).collect();
        let mut all: Vec<Named> = Vec::new();
        for named in entries.iter().zip(&endpoints).filter_map(|(at, endpoint)| of_entry(at, endpoint)) {
            if !all.contains(&named) {
                all.push(named);
            }
        }
        for (at, by_key) in entries.iter().zip(&mut endpoints) {
            if let Some(endpoint) = of_entry(at, by_key).and_then(|named| self.belied(&named, &all)) {
                *by_key = Err(Elsewhere::Unknown(RegionDoubt::AnotherName { endpoint }));
            }
        }
        let belied: Vec<Option<usize>> = all.iter().map(|named| self.belied(named, &all)).collect();
        for (named, endpoint) in all.iter_mut().zip(belied).filter_map(|(named, at)| Some((named, at?))) {
            named.endpoint = Err(Elsewhere::Unknown(RegionDoubt::AnotherName { endpoint }));
        }
        // SES's own names are told first.
        all.sort_by_key(|named| !named.is_own);
        (endpoints, all)
    }

    /// The endpoint whose other name a login stands under, where it is the password of another region: one that is known as that, or
    /// stands under SES's own name there, or is not the one that the id has at that endpoint.
    fn belied(&self, named: &Named, all: &[Named]) -> Option<usize> {
        let (login, at) = (&named.login, *named.endpoint.as_ref().ok().filter(|_| !named.is_own)?);
        let region = self.scope.endpoints[at].region.as_ref()?;
        if !is_access_key_id(&login.username) {
            return None;
        }
        if let Some(known) = self.known.ours.logins.region_of(login) {
            return (known != region).then_some(at);
        }
        let is_there = |named: &&Named| self.region_at(&named.endpoint) == Some(region);
        let holds_it = |named: &&Named| named.is_own && named.login == *login;
        if all.iter().filter(is_there).any(|named| holds_it(&named)) {
            return None;
        }
        // The password that it has there is known.
        if self.known.ours.logins.has_another(login, Some(region)) {
            return Some(at);
        }
        if !self.may_be_any_regions(login) {
            return None;
        }
        let is_elsewheres = all.iter().any(|named| holds_it(&named));
        let has_another = all.iter().filter(is_there).any(|named| is_of_same_id(&named.login, login));
        // What was confirmed here is the default endpoint's.
        let is_default = self.scope.endpoints.first().is_some_and(|first| first.region.as_ref() == Some(region));
        (is_elsewheres || has_another || is_default && self.is_confirmed(&login.username)).then_some(at)
    }

    /// The SES region of an endpoint, or of where none is.
    fn region_at<'a>(&'a self, endpoint: &'a Result<usize, Elsewhere>) -> Option<&'a String> {
        match endpoint {
            Ok(at) => self.scope.endpoints[*at].region.as_ref(),
            Err(Elsewhere::Region(region)) => Some(region),
            Err(Elsewhere::Unknown(_)) => None,
        }
    }

    /// Has this host confirmed the password of this id, as of the version in place or of the one before?
    fn is_confirmed(&self, username: &str) -> bool {
        let Ours { applied, previous, logins, .. } = self.known.ours;
        logins.is_applied_known() && [applied, previous].into_iter().flatten().any(|id| id == username)
    }

    /// Is there a password for an endpoint? A ready-made one is for the default endpoint's region.
    pub(super) fn has_password(&self, endpoint: usize) -> bool {
        endpoint == 0 || !self.known.ours.one_region
    }

    /// Is nothing known of this entry but its access key id, and that because apply remembers it? `live`: the logins under hosts of
    /// ours.
    pub(super) fn is_only_remembered(&self, entry: &Entry<'_>, live: &[Login]) -> bool {
        let is_of_it = |user: &str| self.known.ours.remembered.iter().any(|id| id == user);
        let is_known = |login: &Login| !self.may_be_any_regions(login) || live.contains(login);
        entry.username().is_some_and(|user| is_of_it(user) && self.known.candidate != Some(user))
            && self.endpoint_of(&entry.key) == Ok(None)
            && !entry.login().as_ref().is_some_and(is_known)
    }

    /// Has root named its access key id, and is nothing else known of it?
    fn is_only_named_by_root(&self, login: &Login) -> bool {
        let Ours { named_by_root, logins, .. } = self.known.ours;
        named_by_root.contains(&login.username) && self.may_be_any_regions(login) && logins.said(login).is_none()
    }

    /// The endpoint that an entry is for whose key names none: by the password that it holds, else by where its routes lead.
    pub(super) fn told_by_login(&self, at: EntryAt, all: &[Login], by_host: &[Named]) -> Result<usize, Elsewhere> {
        let entry = self.entry(at);
        if let Some(login) = &entry.login() {
            if let Some(endpoint) = self.known_region(login) {
                return Ok(endpoint);
            }
            if let Some(known) = by_host.iter().find(|known| known.login == *login) {
                return known.endpoint.clone();
            }
            if self.is_another_password(login, all) {
                return Err(Elsewhere::Unknown(RegionDoubt::AnotherPassword));
            }
            if self.is_only_named_by_root(login) {
                let led = self.led_by(RoutesAsked::All, at.table, &entry.key);
                return led.ok_or(Elsewhere::Unknown(RegionDoubt::OnlyTheId));
            }
        }
        self.led_to(at.table, &entry.key).ok_or(Elsewhere::Unknown(RegionDoubt::SeveralRoutes))
    }

    /// May mail under this key go to a host that nothing here names? A host's key by a route that is not seen: one of a table that
    /// cannot be read, of a policy server, or by the name of a mail exchanger. A sender's by a route for senders to such a host, or
    /// by a service that has no other.
    fn goes_unseen(&self, routes: RoutesAsked, clients: &[&Client<'_>], key: &str) -> bool {
        if !self.is_ses() {
            return false;
        }
        if routes == RoutesAsked::All && (clients.is_empty() || !self.hops.unread.is_empty()) {
            return true;
        }
        // A local sender's line may have no domain (smtp_sender_dependent_authentication in postconf(5)).
        let is_bare = |client: &&Client<'_>| client.by_sender && !key.contains(['.', ':', '[']);
        if !is_sender(key) && !clients.iter().any(is_bare) {
            let mut hops = clients.iter().flat_map(|client| self.hops.of_service(client.service));
            return !hops.any(|hop| same_key(&hop.host, host_part(key)));
        }
        let is_for_senders = |origin: &Origin| matches!(origin, Origin::SenderRelayhost | Origin::SenderTransport);
        let is_named = |hop: &NextHop| hop.is_ours() || self.endpoint_of(&hop.spelt) != Ok(None);
        // It has a login of its own there, and none of SES's.
        let is_anothers = |client: &Client<'_>, hop: &NextHop| {
            let found = [&hop.host, &hop.spelt].into_iter().find_map(|key| self.find(client, key));
            found.is_some_and(|at| self.entry(at).username().is_some_and(|user| !is_access_key_id(user)))
        };
        let goes = |client: &Client<'_>| {
            let hops = || self.hops.of_service(client.service);
            let is_its_way = !hops().any(is_named);
            let mut unnamed = hops().filter(|hop| !is_named(hop) && !is_anothers(client, hop));
            unnamed.any(|hop| routes == RoutesAsked::All || is_its_way || is_for_senders(&hop.origin))
        };
        self.hops.unread.iter().any(|(origin, _)| is_for_senders(origin)) || clients.iter().any(|client| goes(client))
    }

    /// The endpoint that the services which use a table lead to, for a key that names none. `None`: they lead to several regions, or
    /// mail under the key to a host that may be any region's.
    pub(super) fn led_to(&self, table: usize, key: &str) -> Option<usize> {
        self.led_by(RoutesAsked::Likely, table, key)
    }

    fn led_by(&self, routes: RoutesAsked, table: usize, key: &str) -> Option<usize> {
        let uses = |client: &&Client<'_>| client.tables.contains(&table) && (client.by_sender || !is_sender(key));
        let clients: Vec<&Client<'_>> = self.clients.iter().filter(uses).collect();
        if self.goes_unseen(routes, &clients, key) {
            return None;
        }
        let services: Vec<&str> = clients.iter().map(|client| client.service).collect();
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
