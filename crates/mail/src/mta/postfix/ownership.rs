//! Which entries of the login tables are ours (pure).
//!
//! Service by service: smtp(8) looks a login up under the sender (only with `smtp_sender_dependent_authentication`), then under the
//! bare name of the host it is connected to, then under the destination as its route spells it; each key is asked for in all of the
//! service's tables, in their order; keys fold case, and the first of several equal keys wins. Without brackets it is connected to
//! a mail exchanger, whose name may be any that the endpoint has.
//!
//! - An entry with a user name of ours is moved, whatever its key; but not under an SES host of a region that is not configured.
//! - Under a sender any other user name is left, and is no error.
//! - Under the bare host or the destination of a next hop of ours any other user name is an error, unless none of the tables of
//!   that service holds an entry of ours, while another service's do: such a service is left.
//! - A next hop of ours without an entry gets one, in the first table of its service that can be written; but not in a service that
//!   is left, nor where a sender's entry of ours answers already, nor where a table that can only be asked has another login for it,
//!   nor where it is not sure that a login is asked for there, and none of ours stands under that host and port: such mail goes
//!   without a login, and is left so.
//! - One access key id has one password in each region: an entry whose key names no endpoint gets the password for the region whose
//!   one it holds. Where it holds the id with a password that is known of no region, while another is, nothing is changed; where its
//!   mail goes to none of ours, it is left. Where nothing but the id is known, and that because apply remembers it, it is left
//!   wherever its mail goes: another instance may have the table too. Where root has named the id, it is moved if all mail that a
//!   service sends by the table goes to one region of ours.
//! - Where the target lists `keys`, these are ours and no others.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::hops::{Endpoint, Hops, NextHop, host_part, port_part, same_place};
use crate::credential::{Login, is_access_key_id};
use crate::mta::table::{Entry, Table, fold, same_key};
use crate::mta::{Answer, ByName, KeyIds, LeftOut, NameRule, Ours, TableId};
use regions::Elsewhere;
pub(super) use regions::RegionDoubt;

/// A login table, as far as it could be read.
pub(super) struct LoginTable<'a> {
    pub(super) id: TableId,
    pub(super) entries: Entries<'a>,
}

/// What stands in a login table.
pub(super) enum Entries<'a> {
    /// A text that can be written.
    Writable(&'a Table),
    /// What can be read only.
    Fixed(&'a Table),
    /// The same, and its one entry is what every key gives.
    Static(&'a Table),
    /// Nothing that could be listed. It was asked for these keys, folded.
    Unlisted(HashMap<String, Answer>),
}

impl<'a> LoginTable<'a> {
    fn table(&self) -> Option<&'a Table> {
        match self.entries {
            Entries::Writable(table) | Entries::Fixed(table) | Entries::Static(table) => Some(table),
            Entries::Unlisted(_) => None,
        }
    }

    /// The number of the entry that is found under a key.
    fn find(&self, key: &str) -> Option<usize> {
        match self.entries {
            Entries::Static(table) => (!table.is_empty()).then_some(0),
            _ => self.table()?.get_folded(key).map(|(entry, _)| entry),
        }
    }

    /// What it gave for a key, where it could only be asked.
    fn answer(&self, key: &str) -> Option<&Answer> {
        match &self.entries {
            Entries::Unlisted(answers) => answers.get(&fold(key)).filter(|answer| **answer != Answer::Nothing),
            _ => None,
        }
    }

    fn is_writable(&self) -> bool {
        matches!(self.entries, Entries::Writable(_))
    }
}

/// A client service, as far as it decides which entries are ours.
pub(super) struct Client<'a> {
    pub(super) service: &'a str,
    pub(super) logs_in: bool,
    pub(super) by_sender: bool,
    /// By their numbers, in the order in which they are asked.
    pub(super) tables: Vec<usize>,
}

/// What a credential is for, and what a target lets us change.
pub(super) struct Scope<'a> {
    /// The first one is what an entry is for that names none.
    pub(super) endpoints: &'a [Endpoint],
    pub(super) keys: Option<&'a [String]>,
}

/// The key ids that we know as ours.
pub(super) struct KnownIds<'a> {
    pub(super) ours: &'a Ours,
    /// Of the login that is about to be put in place.
    pub(super) candidate: Option<&'a str>,
}

/// An entry, by the numbers of its table and in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryAt {
    pub(super) table: usize,
    pub(super) entry: usize,
}

/// An entry that gets the credential's login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) at: EntryAt,
    /// Would a service use it for a next hop of ours?
    pub(super) is_live: bool,
    /// The endpoint whose password it gets.
    pub(super) endpoint: usize,
}

/// An entry that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) table: usize,
    pub(super) key: String,
    pub(super) endpoint: usize,
}

/// What one service looks up for next hops of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveKeys {
    pub(super) service: String,
    pub(super) tables: Vec<usize>,
    /// The keys that it tries for each next hop of ours besides the sender, in order.
    pub(super) tried: Vec<Vec<String>>,
    /// In look-up order. `None`: it is to be added.
    pub(super) keys: Vec<(String, Option<EntryAt>)>,
}

/// What is to be said of an entry or a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// A key of a next hop of ours holds another login.
    AnotherLogin { at: EntryAt },
    /// A table that cannot be written and whose entries are none of single keys has the login for a next hop of ours.
    AnsweredElsewhere { key: String, table: usize, is_ours: bool },
    /// The same, and `keys` leaves it out.
    AnotherLoginNotListed { at: EntryAt },
    /// It holds a user name of ours, perhaps another relay's.
    SameName { at: EntryAt },
    /// Under an SES host of a region that no endpoint is in. `at`: `None`, where the key is to be added.
    OtherRegion { at: Option<EntryAt>, table: usize, key: String, region: String },
    /// The same where no mail goes by it: it is left.
    OtherRegionLeft { at: EntryAt, region: String },
    /// Which region's password it is to get cannot be told.
    RegionUnknown { at: EntryAt, why: RegionDoubt },
    /// The same of an entry that no service looks up for a next hop of ours, while its mail goes elsewhere: it is left.
    RegionUnknownLeft { at: EntryAt, why: RegionDoubt },
    /// A live key of a region that the login has no password for. `at`: `None`, where the key is to be added.
    NoPassword { at: Option<EntryAt>, table: usize, key: String, endpoint: usize },
    /// The same of an entry that no service looks up for a next hop of ours: it is left.
    NoPasswordLeft { at: EntryAt, endpoint: usize },
    /// An entry that would have to be changed stands where nothing can be written.
    CannotBeWritten { at: EntryAt },
    /// A next hop of ours has no entry, and none of the service's tables can be written.
    NowhereToAdd { service: String, key: String },
    /// A next hop of ours has no entry, and a sender's entry of ours answers for some of the mail.
    SenderAnswers { service: String, key: String, at: EntryAt },
    /// Nothing is known as ours, and senders hold access key ids for a next hop that has no entry of its own.
    UnknownSenders { service: String, key: String, at: EntryAt },
    /// An earlier entry of the same key is the one that is found, and this one holds no user name of ours.
    Shadowed { at: EntryAt, by: EntryAt },
    /// A service hands mail to an endpoint of ours and does not log in.
    LogsInNowhere { service: String, key: String },
    /// It logs in, and has no table.
    NoTable { service: String, key: String },
    /// None of its tables holds an entry of ours, while another service's do.
    Left { service: String },
    /// On a host without state this user name is taken as the previous one.
    Taken { username: String },
    /// No service looks up a login for an endpoint of ours.
    NoLiveKey,
}

/// Whose the entries are.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// Those of live keys in look-up order, then the others by table and line.
    pub(super) moved: Vec<Moved>,
    pub(super) added: Vec<Added>,
    /// Every service that is not left and has a next hop of ours.
    pub(super) live: Vec<LiveKeys>,
    /// Entries with a user name of ours, now or earlier, that are not written.
    pub(super) left_out: Vec<(EntryAt, LeftOut)>,
    /// Next hops with a name of ours whose mail goes without a login, by service and spelling.
    pub(super) without_login: Vec<(String, String)>,
    /// The user names that are ours.
    pub(super) users: HashSet<String>,
    /// The access key ids that the tables hold.
    pub(super) held: KeyIds,
    /// An entry whose region is not known holds a password that is only said to be one's.
    pub(super) asks_for_proof: bool,
    pub(super) facts: Vec<Fact>,
}

/// Decides.
pub(super) fn ownership(
    clients: &[Client<'_>],
    hops: &Hops,
    tables: &[LoginTable<'_>],
    known: &KnownIds<'_>,
    scope: &Scope<'_>,
) -> Ownership {
    Question { clients, hops, tables, known, scope }.answer()
}

struct Question<'a> {
    clients: &'a [Client<'a>],
    hops: &'a Hops,
    tables: &'a [LoginTable<'a>],
    known: &'a KnownIds<'a>,
    scope: &'a Scope<'a>,
}

/// A service that hands mail to an endpoint of ours and logs in.
struct Active<'a> {
    client: &'a Client<'a>,
    hops: Vec<&'a NextHop>,
    /// The entries under the bare hosts and destinations of its next hops, in look-up order.
    by_hop: Vec<(String, EntryAt)>,
    /// Next hops with none of them.
    without: Vec<&'a NextHop>,
}

/// Who is looked up under a sender's address, and not a host.
fn is_sender(key: &str) -> bool {
    key.contains('@')
}

impl<'a> Question<'a> {
    fn entry(&self, at: EntryAt) -> Entry<'a> {
        self.tables[at.table].table().expect("it was found there").entry(at.entry)
    }

    /// The entry that a service finds.
    fn find(&self, client: &Client<'_>, key: &str) -> Option<EntryAt> {
        client.tables.iter().find_map(|&table| {
            let entry = self.tables[table].find(key)?;
            Some(EntryAt { table, entry })
        })
    }

    /// Every entry of every table that can be listed.
    fn entries(&self) -> impl Iterator<Item = (EntryAt, Entry<'a>)> {
        self.tables.iter().enumerate().flat_map(|(table, login_table)| {
            let entries = login_table.table().into_iter().flat_map(Table::entries);
            entries.enumerate().map(move |(entry, found)| (EntryAt { table, entry }, found))
        })
    }

    /// The keys that a service tries for a next hop besides the sender, in order.
    fn tried(&self, hop: &'a NextHop) -> Vec<&'a str> {
        let mut keys = vec![hop.host.as_str()];
        if !hop.is_bracketed()
            && let Some(endpoint) = hop.endpoint
        {
            keys.extend(self.scope.endpoints[endpoint].names());
        }
        keys.push(&hop.spelt);
        let mut seen = HashSet::new();
        keys.retain(|key| seen.insert(fold(key)));
        keys
    }

    fn active(&self, client: &'a Client<'a>) -> Active<'a> {
        let hops: Vec<&NextHop> = self.hops.ours(client.service).collect();
        let (mut by_hop, mut without): (Vec<(String, EntryAt)>, _) = (Vec::new(), Vec::new());
        for hop in &hops {
            let found: Vec<(String, EntryAt)> = (self.tried(hop).into_iter())
                .filter_map(|key| Some((key.to_owned(), self.find(client, key)?)))
                .collect();
            if found.is_empty() {
                without.push(*hop);
            }
            by_hop.extend(found);
        }
        if !self.hops.unread.is_empty() {
            // Mail may go to any of its names.
            for &table in &client.tables {
                for entry in self.tables[table].table().into_iter().flat_map(Table::entries) {
                    let (host, port) = (host_part(&entry.key), port_part(&entry.key));
                    // A bare host answers for all its ports.
                    let is_bare = port.is_none() && !entry.key.starts_with('[');
                    let is_at = |endpoint: &Endpoint| endpoint.is_at(host, port) || is_bare && endpoint.has_name(host);
                    if !is_sender(&entry.key)
                        && self.scope.endpoints.iter().any(is_at)
                        && let Some(at) = self.find(client, &entry.key)
                    {
                        by_hop.push((entry.key.to_string(), at));
                    }
                }
            }
        }
        let mut seen = HashSet::new();
        by_hop.retain(|(_, at)| seen.insert(*at));
        Active { client, hops, by_hop, without }
    }

    /// Is one of the endpoints SES's, where every login has an access key id?
    fn is_ses(&self) -> bool {
        self.scope.endpoints.iter().any(|endpoint| endpoint.region.is_some())
    }

    /// On a host without state: the one user name that all keys of next hops of ours hold, where nothing is known as ours.
    fn taken(&self, own: &[EntryAt], users: &HashSet<&str>) -> Option<String> {
        let is_fresh = self.known.ours.applied.is_none();
        let (first, rest) = own.split_first().filter(|_| is_fresh)?;
        let first = self.entry(*first);
        let username = first.username()?;
        let is_sole = rest.iter().all(|at| self.entry(*at).username() == Some(username));
        let may_be = is_access_key_id(username) || !self.is_ses();
        let is_ours = |entry: &Entry<'_>| entry.username().is_some_and(|user| users.contains(user));
        (is_sole && may_be && !self.entries().any(|(_, entry)| is_ours(&entry))).then(|| username.to_owned())
    }

    /// Does it hold the user name of an earlier version? Another relay's login of the same name is no key of ours that is left
    /// behind.
    fn is_earlier(&self, entry: &Entry<'_>, rule: &NameRule<'_>) -> bool {
        entry.username().is_some_and(|user| {
            self.known.ours.earlier.iter().any(|earlier| earlier == user)
                && (is_access_key_id(user) || rule.is_own(entry))
        })
    }

    fn answer(&self) -> Ownership {
        let mut found = Ownership::default();
        let active: Vec<Active<'_>> = (self.clients.iter())
            .filter(|client| client.logs_in && !client.tables.is_empty())
            .map(|client| self.active(client))
            .filter(|active| !active.hops.is_empty() || !active.by_hop.is_empty())
            .collect();
        for client in self.clients {
            let fact = |hop: &NextHop| {
                let (service, key) = (client.service.to_owned(), hop.spelt.clone());
                match client.logs_in {
                    false => Some(Fact::LogsInNowhere { service, key }),
                    true => client.tables.is_empty().then_some(Fact::NoTable { service, key }),
                }
            };
            let (sure, open): (Vec<_>, Vec<_>) =
                self.hops.ours(client.service).partition(|hop: &&NextHop| hop.asks_for_login);
            found.facts.extend(sure.into_iter().find_map(fact));
            if open.first().copied().and_then(fact).is_some() {
                found.without_login.extend(open.into_iter().map(NextHop::place));
            }
        }
        let listed: Option<HashSet<String>> = self.scope.keys.map(|keys| keys.iter().map(|key| fold(key)).collect());
        let is_listed = |key: &str| listed.as_ref().is_none_or(|listed| listed.contains(&fold(key)));
        let mut by_hop: Vec<EntryAt> = Vec::new();
        for (_, at) in active.iter().flat_map(|active| &active.by_hop) {
            if !by_hop.contains(at) {
                by_hop.push(*at);
            }
        }
        let of_keys: Vec<EntryAt> = (self.scope.keys.unwrap_or_default().iter())
            .flat_map(|key| self.clients.iter().filter_map(|client| self.find(client, key)))
            .collect();
        let own: Vec<EntryAt> = match listed {
            None => by_hop.clone(),
            Some(_) => of_keys.clone(),
        };

        // Whose name is ours.
        let Ours { applied, previous, known, .. } = self.known.ours;
        let mut users: HashSet<&str> = [applied.as_deref(), previous.as_deref(), self.known.candidate]
            .into_iter()
            .flatten()
            .chain(known.iter().map(String::as_str))
            .collect();
        let taken = self.taken(&own, &users);
        users.extend(taken.as_deref());
        found.facts.extend(taken.iter().map(|username| Fact::Taken { username: username.clone() }));
        found.users = users.iter().map(|user| (*user).to_owned()).collect();
        let logins: Vec<Login> = by_hop.iter().chain(&of_keys).filter_map(|at| self.entry(*at).login()).collect();
        let rule = NameRule::new(self.known.ours, users, logins.iter().cloned());
        let is_remembered = |entry: &Entry<'_>| listed.is_none() && self.is_only_remembered(entry, &logins);
        let is_known = |entry: &Entry<'_>| entry.username().is_some_and(|user| rule.users.contains(user));

        // What each entry is by its name; and which tables hold one of ours.
        let mut by_name: Vec<(EntryAt, ByName)> = Vec::new();
        let mut has_ours = vec![false; self.tables.len()];
        for (at, entry) in self.entries() {
            entry.username().inspect(|user| {
                found.held.add(user, &self.tables[at.table].id, entry.on_line(), &entry.key);
            });
            let name = match rule.of(&entry) {
                ByName::Ours if is_remembered(&entry) => ByName::Left,
                name => name,
            };
            has_ours[at.table] |= name == ByName::Ours || is_known(&entry) && by_hop.contains(&at);
            let is_earlier = self.is_earlier(&entry, &rule);
            let (named, was_found) = (is_known(&entry), rule.was_found(&entry));
            // Everything else is nobody's concern here; a table may have a million of them.
            if named || is_earlier || was_found {
                by_name.push((at, name));
            }
        }
        let is_left = |active: &Active<'_>| {
            let holds = |tables: &[usize]| tables.iter().any(|table| has_ours[*table]);
            listed.is_none() && !holds(&active.client.tables) && has_ours.contains(&true)
        };
        found.facts.extend(
            active
                .iter()
                .filter(|active| is_left(active))
                .map(|active| Fact::Left { service: active.client.service.to_owned() }),
        );

        // At this host and port a login is asked for, if one of ours stands there.
        let is_used_at = |hop: &NextHop| {
            let is_at = |key: &str| !is_sender(key) && (same_key(key, &hop.host) || same_place(key, &hop.spelt));
            let own = |(at, name): &(EntryAt, ByName)| *name == ByName::Ours || is_known(&self.entry(*at));
            by_name.iter().any(|named| is_at(&self.entry(named.0).key) && own(named))
        };

        // Live keys.
        let mut chosen: HashSet<EntryAt> = HashSet::new();
        for active in active.iter().filter(|active| !is_left(active)) {
            let mut keys = Vec::new();
            if active.client.by_sender {
                for (at, name) in &by_name {
                    let entry = self.entry(*at);
                    let own = if listed.is_some() { is_listed(&entry.key) } else { *name == ByName::Ours };
                    if own && is_sender(&entry.key) && self.find(active.client, &entry.key) == Some(*at) {
                        keys.push((entry.key.to_string(), Some(*at)));
                    }
                }
                for (at, _) in of_keys.iter().map(|at| (at, ())) {
                    let entry = self.entry(*at);
                    let is_there = keys.iter().any(|(_, have)| *have == Some(*at));
                    if is_sender(&entry.key) && !is_there && self.find(active.client, &entry.key) == Some(*at) {
                        keys.push((entry.key.to_string(), Some(*at)));
                    }
                }
            }
            let sender = keys.first().and_then(|(_, at)| *at);
            for (key, at) in &active.by_hop {
                let entry = self.entry(*at);
                if listed.is_some() && !is_listed(&entry.key) {
                    if !is_known(&entry) {
                        found.facts.push(Fact::AnotherLoginNotListed { at: *at });
                    }
                    continue;
                }
                if listed.is_none() && !is_known(&entry) {
                    if let Entries::Static(_) = self.tables[at.table].entries {
                        let (key, table) = (key.clone(), at.table);
                        found.facts.push(Fact::AnsweredElsewhere { key, table, is_ours: false });
                        continue;
                    }
                    found.facts.push(Fact::AnotherLogin { at: *at });
                }
                keys.push((key.clone(), Some(*at)));
            }
            for hop in &active.without {
                let key = hop.spelt.clone();
                let service = active.client.service.to_owned();
                if self.scope.keys.is_none()
                    && let Some(fact) = self.answered_elsewhere(active.client, hop, &rule)
                {
                    found.facts.push(fact);
                    continue;
                }
                let is_without = || !hop.asks_for_login && !is_used_at(hop);
                match (self.scope.keys, sender) {
                    (Some(_), _) => {
                        let is_without = is_without() && !self.tried(hop).into_iter().any(is_listed);
                        found.without_login.extend(is_without.then(|| hop.place()));
                    }
                    (None, Some(at)) => found.facts.push(Fact::SenderAnswers { service, key, at }),
                    (None, None) => match self.unknown_sender(active, &rule) {
                        Some(at) => found.facts.push(Fact::UnknownSenders { service, key, at }),
                        None if is_without() => found.without_login.push(hop.place()),
                        None => match self.add(&mut found, active.client, &key, hop.endpoint.unwrap_or_default()) {
                            true => keys.push((key, None)),
                            false => found.facts.push(Fact::NowhereToAdd { service, key }),
                        },
                    },
                }
            }
            let with_login = active.hops.iter().filter(|hop| !found.without_login.contains(&hop.place()));
            let tried: Vec<Vec<String>> =
                with_login.map(|hop| self.tried(hop).into_iter().map(str::to_owned).collect()).collect();
            if keys.is_empty() && tried.is_empty() {
                continue;
            }
            let (service, tables) = (active.client.service.to_owned(), active.client.tables.clone());
            found.live.push(LiveKeys { service, tables, tried, keys });
        }
        let mut moved: Vec<(EntryAt, bool)> = Vec::new();
        let hosts_first = |(key, at): &(String, Option<EntryAt>)| at.filter(|_| !is_sender(key));
        let senders = |(key, at): &(String, Option<EntryAt>)| at.filter(|_| is_sender(key));
        let live_keys = || found.live.iter().flat_map(|live| &live.keys);
        for at in live_keys().filter_map(hosts_first).chain(live_keys().filter_map(senders)) {
            if chosen.insert(at) {
                moved.push((at, true));
            }
        }

        // All others.
        let mut others: BTreeSet<EntryAt> = BTreeSet::new();
        for (at, name) in &by_name {
            let entry = self.entry(*at);
            let own = match &listed {
                None => *name == ByName::Ours,
                Some(_) => is_listed(&entry.key),
            };
            if own {
                others.insert(*at);
                continue;
            }
            if listed.is_none() && *name == ByName::Left && !chosen.contains(at) {
                found.facts.push(match is_remembered(&entry) {
                    true => Fact::RegionUnknownLeft { at: *at, why: RegionDoubt::OnlyTheId },
                    false => Fact::SameName { at: *at },
                });
            }
            let is_earlier = self.is_earlier(&entry, &rule);
            let by_key = || is_known(&entry) && by_hop.contains(at);
            let is_left = listed.is_some() && (*name == ByName::Ours || by_key()) || is_earlier;
            if (is_left && self.known.candidate != entry.username() || rule.was_found(&entry)) && !chosen.contains(at) {
                let (key, username) = (entry.key.to_string(), entry.username().map(str::to_owned));
                let left = LeftOut { key, username, own: rule.own_id(&entry), was_found: rule.was_found(&entry) };
                found.left_out.push((*at, left));
            }
        }
        if listed.is_some() {
            others.extend(&of_keys);
            self.add_listed(&mut found, &active);
        }
        moved.extend(others.into_iter().filter(|at| !chosen.contains(at)).map(|at| (at, false)));
        self.place(&mut found, moved);
        if found.live.iter().all(|live| live.keys.is_empty()) {
            found.facts.push(Fact::NoLiveKey);
        }
        found
    }

    /// A sender's entry with an access key id that this host knows nothing of, where it knows of none at all: the login of the next
    /// hop may be just that one.
    fn unknown_sender(&self, active: &Active<'_>, rule: &NameRule<'_>) -> Option<EntryAt> {
        let is_fresh = self.known.ours.applied.is_none();
        if !is_fresh || !active.client.by_sender {
            return None;
        }
        let mut entries = self.entries().filter(|(at, _)| active.client.tables.contains(&at.table));
        let is_unknown = |entry: &Entry<'_>| {
            entry.username().is_some_and(|user| is_access_key_id(user) && !rule.users.contains(user))
        };
        entries.find(|(_, entry)| is_sender(&entry.key) && is_unknown(entry)).map(|(at, _)| at)
    }

    /// A table that could only be asked answers for a next hop without an entry. One of ours that is under the destination alone
    /// stands in nobody's way: an entry of ours in a table before it is found first.
    fn answered_elsewhere(&self, client: &Client<'_>, hop: &'a NextHop, rule: &NameRule<'_>) -> Option<Fact> {
        let (key, place, answer) = self.tried(hop).into_iter().find_map(|key| {
            let mut tables = client.tables.iter().enumerate();
            tables.find_map(|(place, table)| Some((key, place, self.tables[*table].answer(key)?)))
        })?;
        let is_ours = answer.login().is_some_and(|login| rule.users.contains(login.username.as_str()));
        let is_before = client.tables[..place].iter().any(|table| self.tables[*table].is_writable());
        let fact = Fact::AnsweredElsewhere { key: hop.spelt.clone(), table: client.tables[place], is_ours };
        (!is_ours || !is_before || !same_key(key, &hop.spelt)).then_some(fact)
    }

    /// False: none of the service's tables can be written.
    fn add(&self, found: &mut Ownership, client: &Client<'_>, key: &str, endpoint: usize) -> bool {
        let Some(&table) = client.tables.iter().find(|table| self.tables[**table].is_writable()) else { return false };
        if !found.added.iter().any(|have| have.table == table && same_key(&have.key, key)) {
            found.added.push(Added { table, key: key.to_owned(), endpoint });
        }
        true
    }

    /// Listed keys that no table has.
    fn add_listed(&self, found: &mut Ownership, active: &[Active<'_>]) {
        for key in self.scope.keys.unwrap_or_default() {
            if self.clients.iter().any(|client| self.find(client, key).is_some()) {
                continue;
            }
            let uses = |active: &&Active<'_>| {
                let tries = active.hops.iter().any(|hop| self.tried(hop).iter().any(|tried| same_key(tried, key)));
                tries || active.client.by_sender && is_sender(key)
            };
            let users: Vec<&Active<'_>> = active.iter().filter(uses).collect();
            let client = users.first().map(|active| active.client).or_else(|| self.clients.first());
            let Some(client) = client else { continue };
            let endpoint = self.endpoint_of(key).unwrap_or_default().unwrap_or_default();
            if !self.add(found, client, key, endpoint) {
                found.facts.push(Fact::NowhereToAdd { service: client.service.to_owned(), key: key.clone() });
                continue;
            }
            for active in users {
                let live = found.live.iter_mut().find(|live| live.service == active.client.service);
                live.into_iter().for_each(|live| live.keys.push((key.clone(), None)));
            }
        }
    }

    /// Says for each entry which endpoint's password it gets, and which cannot be written.
    fn place(&self, found: &mut Ownership, moved: Vec<(EntryAt, bool)>) {
        let entries: Vec<EntryAt> = moved.iter().map(|(at, _)| *at).collect();
        let (endpoints, by_host) = self.by_key(&entries);
        // One key id has a password for each region: who has the same one is for the same region.
        let mut logins: Vec<Login> = Vec::new();
        for login in entries.iter().filter_map(|at| self.entry(*at).login()) {
            if !logins.contains(&login) {
                logins.push(login);
            }
        }
        for ((at, is_live), endpoint) in moved.into_iter().zip(endpoints) {
            let entry = self.entry(at);
            let endpoint = endpoint.transpose().unwrap_or_else(|| self.told_by_login(at, &logins, &by_host));
            let is_writable = self.tables[at.table].is_writable();
            let is_only_said = |login: &Login| self.known.ours.logins.is_only_said(login);
            found.asks_for_proof |=
                matches!(endpoint, Err(Elsewhere::Unknown(_))) && entry.login().as_ref().is_some_and(is_only_said);
            let endpoint = match endpoint {
                Ok(endpoint) => endpoint,
                Err(Elsewhere::Region(region)) if !is_live && self.is_idle(&entry.key) => {
                    found.facts.push(Fact::OtherRegionLeft { at, region });
                    found.left_out.push((at, left_out(&entry)));
                    continue;
                }
                Err(Elsewhere::Region(region)) => {
                    let (table, key) = (at.table, entry.key.to_string());
                    found.facts.push(Fact::OtherRegion { at: Some(at), table, key, region });
                    continue;
                }
                Err(Elsewhere::Unknown(_)) if !is_writable => {
                    found.facts.push(Fact::CannotBeWritten { at });
                    continue;
                }
                // Once the entries are changed that tell it by their password nothing would: then nothing is.
                Err(Elsewhere::Unknown(why))
                    if is_live || why.may_be_told_by_others() && self.led_to(at.table, &entry.key).is_some() =>
                {
                    found.facts.push(Fact::RegionUnknown { at, why });
                    continue;
                }
                Err(Elsewhere::Unknown(why)) => {
                    found.facts.push(Fact::RegionUnknownLeft { at, why });
                    found.left_out.push((at, left_out(&entry)));
                    continue;
                }
            };
            if !self.has_password(endpoint) {
                if is_live {
                    let (table, key) = (at.table, entry.key.to_string());
                    found.facts.push(Fact::NoPassword { at: Some(at), table, key, endpoint });
                } else {
                    found.facts.push(Fact::NoPasswordLeft { at, endpoint });
                    found.left_out.push((at, left_out(&entry)));
                }
                continue;
            }
            if !is_writable {
                found.facts.push(Fact::CannotBeWritten { at });
                continue;
            }
            found.moved.push(Moved { at, is_live, endpoint });
        }
        for index in 0..found.moved.len() {
            let at = found.moved[index].at;
            let table = self.tables[at.table].table().expect("it can be written");
            let key = table.entry(at.entry).key;
            if table.get_folded(&key).is_some_and(|(first, _)| first != at.entry) {
                continue;
            }
            for entry in table.repeats(&key) {
                let shadowed = EntryAt { table: at.table, entry };
                if shadowed != at && !found.moved.iter().any(|moved| moved.at == shadowed) {
                    found.facts.push(Fact::Shadowed { at: shadowed, by: at });
                }
            }
        }
        let other_region = |added: &Added| {
            let region = self.endpoint_of(&added.key).err()?;
            Some(Fact::OtherRegion { at: None, table: added.table, key: added.key.clone(), region })
        };
        found.facts.extend(found.added.iter().filter_map(other_region).collect::<Vec<_>>());
        for Added { table, key, endpoint } in found.added.extract_if(.., |added| !self.has_password(added.endpoint)) {
            found.facts.push(Fact::NoPassword { at: None, table, key, endpoint });
        }
    }
}

/// An entry with an id of ours that is left as it is.
fn left_out(entry: &Entry<'_>) -> LeftOut {
    let (key, username) = (entry.key.to_string(), entry.username().map(str::to_owned));
    LeftOut { key, username, own: None, was_found: false }
}

mod regions;
#[cfg(test)]
mod tests;
