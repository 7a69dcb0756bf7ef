//! What was found to be ours, table by table, and in words what is to be said of it (pure).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::hops::{Endpoint, Hops};
use super::own_table::WritableTable;
use super::ownership::{EntryAt, Fact, LiveKeys, Ownership};
use super::review::{Problem, Subject};
use super::services::Service;
use crate::credential::{
    Login, PayloadError, is_access_key_id, is_whole_access_key_id, no_secret_access_key, ses_password_form,
};
use crate::fault::Class;
use crate::finding::Severity;
use crate::host::trust;
use crate::instruction::relaykey;
use crate::mta::compare::Names;
use crate::mta::table::{Table, fold, same_key};
use crate::mta::{KeyIds, LeftOut, Ours, TableId, shown, table};

/// Kinds of table that we write.
const WRITABLE: &str = "a table that relaykey can write: hash:, lmdb:, btree:, cdb: or texthash:";

/// Entries that hold a user name of ours and are left, because they may be another relay's.
#[derive(Default)]
pub(super) struct SameName {
    pub(super) names: Names,
    pub(super) line: Option<usize>,
}

impl SameName {
    pub(super) fn add(&mut self, entry: &table::Entry<'_>) {
        self.names.add(&entry.key, entry.on_line());
        self.line = self.line.or(entry.on_line());
    }

    pub(super) fn explain(&self, file: &Path) -> Option<Problem> {
        let count = match self.names.count {
            0 => return None,
            1 => "1 entry has".to_owned(),
            many => format!("{many} entries have"),
        };
        let mut problem = Problem::note(
            Some(file.to_owned()),
            format!(
                "{count} the user name of this credential with another password than its own, as another relay's login may, and \
                 relaykey leaves that as it is: {}",
                self.names.list()
            ),
            "nothing, where it is another relay's login; where it is to hold this credential's login, list its key in the \
             target's keys, together with every other key that is to hold that login"
                .into(),
        );
        problem.subject = Subject::Entry;
        problem.finding.line = self.line;
        Some(problem)
    }
}

/// One entry that is ours.
#[derive(Clone)]
pub(super) struct Owned {
    /// Its number in the table.
    pub(super) entry: usize,
    pub(super) key: String,
    pub(super) line: usize,
    /// Where the value stands in the text, if that is on one line.
    pub(super) at: Option<Range<usize>>,
    pub(super) text: Option<Login>,
    pub(super) is_live_key: bool,
    /// The number of the endpoint whose login it gets.
    pub(super) endpoint: usize,
}

/// Which entries are ours.
#[derive(Default, Clone)]
pub(super) struct Pick {
    /// Live keys in lookup order, then the others by line.
    pub(super) owned: Vec<Owned>,
    /// Keys that are to be added.
    pub(super) missing: Vec<String>,
    /// For each of these keys, folded, the number of the endpoint whose login it gives.
    pub(super) endpoints: HashMap<String, usize>,
    /// Entries with an applied, previous or earlier user name that are not to be written.
    pub(super) left_out: Vec<LeftOut>,
    /// For each next hop of ours whose service asks this table: the keys that are tried, in order.
    pub(super) hops: Vec<Vec<String>>,
    /// All of these, each once.
    pub(super) candidates: Vec<String>,
    /// Live keys of the services that ask this table, wherever they stand.
    pub(super) asked: Vec<String>,
    /// Those of `candidates` that the text has not.
    pub(super) absent: Vec<String>,
    /// The user names that are ours.
    pub(super) users: HashSet<String>,
}

impl Pick {
    /// As it may be kept.
    fn without_logins(&self) -> Self {
        let mut pick = self.clone();
        pick.owned.iter_mut().for_each(|owned| owned.text = None);
        pick
    }

    /// The number of the endpoint whose login a key of ours gives.
    pub(super) fn endpoint_of(&self, key: &str) -> usize {
        self.endpoints.get(&fold(key)).copied().unwrap_or_default()
    }

    /// The keys, folded, that are ours to change, whatever text and map hold under them.
    pub(super) fn not_compared(&self) -> HashSet<String> {
        let owned = self.owned.iter().map(|owned| &owned.key);
        owned.chain(&self.missing).chain(&self.candidates).map(|key| fold(key)).collect()
    }
}

/// What was found of all tables together.
#[derive(Default, Clone)]
pub(super) struct Picks {
    /// One for each login table, whether or not it can be written.
    pub(super) tables: Vec<Pick>,
    pub(super) live: Vec<LiveKeys>,
    /// Next hops whose mail is left without a login, by service and spelling.
    pub(super) without_login: Vec<(String, String)>,
    /// Of all entries that can be listed.
    pub(super) key_ids: KeyIds,
    /// Is there an entry that may be for any of the endpoints?
    pub(super) is_region_unknown: bool,
    pub(super) asks_for_proof: bool,
    /// Does it hold only as long as tables answer the same that could only be asked?
    pub(super) asked_others: bool,
    pub(super) problems: Vec<Problem>,
}

impl Picks {
    /// As they may be kept.
    pub(super) fn without_logins(&self) -> Self {
        Self { tables: self.tables.iter().map(Pick::without_logins).collect(), ..self.clone() }
    }
}

/// What is looked at, for people.
pub(super) struct Answering<'a> {
    /// For each login table its text and entries.
    pub(super) tables: &'a [(PathBuf, Option<&'a Table>)],
    /// And its name.
    pub(super) ids: &'a [TableId],
    pub(super) hops: &'a Hops,
    pub(super) services: &'a [Service],
    pub(super) keys: Option<&'a [String]>,
    pub(super) ours: &'a Ours,
    pub(super) candidate: Option<&'a str>,
    pub(super) credential: &'a str,
    pub(super) endpoint: &'a Endpoint,
    /// All of the credential's.
    pub(super) endpoints: &'a [Endpoint],
    pub(super) main_cf: PathBuf,
    /// Is there a table that we can write?
    pub(super) has_store: bool,
    /// For each login table that we cannot write, where its login gets; nothing, where no service asks it.
    pub(super) instead: &'a [Option<WritableTable>],
    /// For each service, how it gets a table that we can write.
    pub(super) own_tables: &'a [String],
}

impl Answering<'_> {
    /// What belongs to which table, and what is to be said of all of it.
    pub(super) fn picks(&self, found: Ownership) -> Picks {
        let mut picks = Picks { tables: vec![Pick::default(); self.tables.len()], ..Picks::default() };
        for (number, ((_, table), pick)) in self.tables.iter().zip(&mut picks.tables).enumerate() {
            let Some(table) = table else { continue };
            let mut asking = found.live.iter().filter(|live| live.tables.contains(&number));
            pick.users.clone_from(&found.users);
            for hop in asking.by_ref().flat_map(|live| &live.tried) {
                if !pick.hops.contains(hop) {
                    pick.hops.push(hop.clone());
                }
            }
            for key in pick.hops.iter().flatten() {
                if !pick.candidates.iter().any(|have| same_key(have, key)) {
                    pick.candidates.push(key.clone());
                }
            }
            let live = found.live.iter().filter(|live| live.tables.contains(&number));
            pick.asked = live.flat_map(|live| live.keys.iter().map(|(key, _)| key.clone())).collect();
            let is_absent = |key: &&String| table.get_folded(key).is_none();
            pick.absent = pick.candidates.iter().filter(is_absent).cloned().collect();
        }
        for moved in &found.moved {
            let entry = self.entry(moved.at);
            let (key, line, at, text) = (entry.key.to_string(), entry.line, entry.range(), entry.login());
            let endpoint = moved.endpoint;
            // The first of several equal keys is the one that is found.
            let (first, _) = self.tables[moved.at.table].1.and_then(|table| table.get_folded(&key)).unzip();
            if first == Some(moved.at.entry) {
                picks.tables[moved.at.table].endpoints.insert(fold(&key), endpoint);
            }
            let owned = Owned { entry: moved.at.entry, key, line, at, text, is_live_key: moved.is_live, endpoint };
            picks.tables[moved.at.table].owned.push(owned);
        }
        for added in &found.added {
            picks.tables[added.table].missing.push(added.key.clone());
            picks.tables[added.table].endpoints.insert(fold(&added.key), added.endpoint);
        }
        for (at, left) in found.left_out.clone() {
            picks.tables[at.table].left_out.push(left);
        }
        picks.is_region_unknown = found.facts.iter().any(|fact| matches!(fact, Fact::RegionUnknown { .. }));
        picks.asks_for_proof = found.asks_for_proof;
        picks.problems = self.problems(&found, &picks);
        (picks.live, picks.key_ids, picks.without_login) = (found.live, found.held, found.without_login);
        picks
    }

    fn entry(&self, at: EntryAt) -> table::Entry<'_> {
        self.tables[at.table].1.expect("it was found there").entry(at.entry)
    }

    /// Does it stand in main.cf or master.cf?
    fn is_written_out(&self, table: usize) -> bool {
        let file = self.file(table);
        file == self.main_cf || file == self.main_cf.with_file_name("master.cf")
    }

    fn file(&self, table: usize) -> &Path {
        &self.tables[table].0
    }

    fn problems(&self, found: &Ownership, picks: &Picks) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut same_name: Vec<SameName> = self.tables.iter().map(|_| SameName::default()).collect();
        let has_live_key = !found.facts.contains(&Fact::NoLiveKey);
        for fact in &found.facts {
            match fact {
                Fact::AnotherLogin { at } => problems.push(self.another_login(*at)),
                Fact::AnsweredElsewhere { key, table, is_ours } => {
                    problems.push(self.answered_elsewhere(key, *table, *is_ours));
                }
                Fact::AnotherLoginNotListed { at } => {
                    let mut problem = self.another_login(*at);
                    problem.finding.severity = Severity::Warning;
                    problems.push(problem);
                }
                Fact::SameName { at } => same_name[at.table].add(&self.entry(*at)),
                Fact::OtherRegion { at, table, key, region } => {
                    let line = at.and_then(|at| self.entry(at).on_line());
                    problems.push(self.other_region(self.file(*table), key, line, region));
                }
                Fact::OtherRegionLeft { at, region } => {
                    let mut problem = self.of_entry(
                        *at,
                        Severity::Warning,
                        format!(
                            "it holds a login of this credential for SES in {region}, where no endpoint of it is and no mail goes: it is \
                             left as it is, and its key stays in use here"
                        ),
                        "take the line out, if nothing needs it".into(),
                    );
                    problem.subject = Subject::Entry;
                    problems.push(problem);
                }
                Fact::NoPassword { at, table, key, endpoint } => {
                    let line = at.and_then(|at| self.entry(at).on_line());
                    problems.push(self.without_its_password(self.file(*table), key, line, *endpoint));
                }
                Fact::NoPasswordLeft { at, endpoint } => {
                    let region = self.region(*endpoint);
                    let mut problem = self.of_entry(
                        *at,
                        Severity::Note,
                        format!(
                            "it holds a login of this credential for SES in {region}, and what the source holds is a ready-made \
                             password for {}: the entry is left as it is, and no mail goes by it now",
                            self.region(0)
                        ),
                        "take the line out, if nothing needs it; or store the access key itself at the source, from which each \
                         region's password is made"
                            .into(),
                    );
                    problem.subject = Subject::Entry;
                    problems.push(problem);
                }
                Fact::RegionUnknown { at, why } => problems.push(self.region_unknown(*at, *why)),
                Fact::RegionUnknownLeft { at, why } => {
                    let mut problem = self.region_unknown(*at, *why);
                    problem.finding.severity = Severity::Warning;
                    problem.finding.what += ": it is left as it is, and the key stays in use here";
                    problem.subject = Subject::Entry;
                    problems.push(problem);
                }
                Fact::CannotBeWritten { at } => problems.push(self.of_entry(
                    *at,
                    Severity::Error,
                    "it holds a login of this credential in a table that relaykey cannot write, so that it would go on with the \
                     old one"
                        .into(),
                    match &self.instead[at.table] {
                        Some(table) => table.fix(),
                        None => format!("move it into {WRITABLE}"),
                    },
                )),
                Fact::NowhereToAdd { service, key } => {
                    // Why not is said of each of the tables.
                    if self.has_store {
                        problems.push(Problem::error(
                            Class::Config,
                            Some(self.main_cf.clone()),
                            format!(
                                "no table of the service {service} has a login for {}, and relaykey can write none of them",
                                shown::hop(key)
                            ),
                            match self.services.iter().position(|known| known.name == *service) {
                                Some(number) => self.own_tables[number].clone(),
                                None => format!("name among them {WRITABLE}"),
                            },
                        ));
                    }
                }
                Fact::SenderAnswers { key, at, .. } => {
                    let sender = shown::quoted_key(&self.entry(*at).key, self.entry(*at).on_line());
                    problems.push(Problem::warning(
                        Some(self.file(at.table).to_owned()),
                        format!(
                            "it has logins for senders, as {sender}, and none for {}: mail of other senders goes there without a \
                             login, and bounces with 530",
                            shown::hop(key)
                        ),
                        format!(
                            "if mail of others is to go there too, add a line for {}, with the login that {sender} has; if not, there \
                             is nothing to do",
                            shown::hop(key)
                        ),
                    ));
                }
                Fact::UnknownSenders { key, at, .. } => problems.push(self.of_entry(
                    *at,
                    if self.candidate.is_some() { Severity::Error } else { Severity::Warning },
                    format!(
                        "it holds an access key id that this host does not know, for a sender whose mail goes to {}, and there is no \
                         login for other mail: whether it is this credential's cannot be told",
                        shown::hop(key)
                    ),
                    format!(
                        "{}. If it is another's, add a line for the next hop, with the login that it is to have",
                        self.take_as_earlier(*at).unwrap_or_default()
                    ),
                )),
                Fact::Shadowed { at, by } => problems.push(self.of_entry(
                    *at,
                    Severity::Warning,
                    match self.entry(*by).on_line() {
                        Some(line) => {
                            format!("it has no effect: the same key stands on line {line}, which is the one that is found")
                        }
                        None => "it has no effect: the same key stands before it, and that is the one that is found".into(),
                    },
                    "take it out, if nothing else needs it".into(),
                )),
                Fact::LogsInNowhere { service, .. } => {
                    problems.extend(self.logs_in_nowhere(service, has_live_key));
                }
                Fact::NoTable { service, key } => problems.push(Problem::warning(
                    Some(self.main_cf.clone()),
                    format!("the service {service} hands mail to {} and has no smtp_sasl_password_maps: it does not log in, and mail \
                             bounces with 530", shown::hop(key)),
                    "if it is to log in, name a table for it; else there is nothing to do".into(),
                )),
                Fact::Left { service } => problems.push(Problem::note(
                    Some(self.main_cf.clone()),
                    format!(
                        "the service {service} hands mail to the endpoint with the logins of tables that hold none of this \
                         credential's: they are left as they are"
                    ),
                    "nothing, where that is another account's; else list its keys in the target's keys, with all others".into(),
                )),
                Fact::Taken { username } => {
                    let first = found.moved.iter().find(|moved| self.entry(moved.at).username() == Some(username));
                    problems.extend(first.map(|moved| {
                        self.of_entry(
                            moved.at,
                            Severity::Note,
                            format!(
                                "no login here is known as this credential's, and every key of its next hops holds {username}: \
                                 that is taken for the key before, and the first rollover exchanges it"
                            ),
                            "nothing, if this host is to send with this credential; else list in the target's keys those that are \
                             this credential's, before the first sync"
                                .into(),
                        )
                    }));
                }
                Fact::NoLiveKey => {}
            }
        }
        problems
            .extend(found.moved.iter().filter(|moved| moved.is_live).filter_map(|moved| self.no_password(moved.at)));
        let told = same_name.iter().enumerate().filter_map(|(table, names)| names.explain(self.file(table)));
        problems.extend(told);
        problems.extend(self.of_keys(found));
        for (number, pick) in picks.tables.iter().enumerate() {
            let Some(table) = self.tables[number].1 else { continue };
            if !self.is_written_out(number) {
                problems.extend(hidden_by_a_mark(table, self.file(number), &pick.candidates));
            }
            for owned in &pick.owned {
                let cannot = table.check_editable(owned.entry).err();
                problems.extend(cannot.map(|e| Problem::of_table(e, self.file(number))));
            }
        }
        problems
    }

    fn of_entry(&self, at: EntryAt, severity: Severity, what: String, fix: String) -> Problem {
        let entry = self.entry(at);
        let line = entry.on_line();
        let key = if self.is_written_out(at.table) {
            self.ids[at.table].to_string()
        } else {
            shown::quoted_key(&entry.key, line)
        };
        let mut problem = Problem::new(severity, Some(self.file(at.table).to_owned()), format!("{key}: {what}"), fix);
        (problem.class, problem.subject) = (Class::Ambiguous, Subject::Table);
        problem.finding.line = line;
        problem
    }

    /// A login for a next hop of ours stands where there are no entries of single keys.
    fn answered_elsewhere(&self, key: &str, table_number: usize, is_ours: bool) -> Problem {
        let (hop, table) = (shown::hop(key), &self.ids[table_number]);
        let instead = self.instead[table_number].as_ref();
        let (what, fix) = if is_ours {
            (
                format!(
                    "{table} has the login of this credential for {hop}, and relaykey cannot write it, so that mail would go on with \
                     the old one"
                ),
                instead.map_or_else(|| format!("move the login for {hop} into {WRITABLE}"), WritableTable::fix),
            )
        } else {
            (
                format!(
                    "{table} has another login for {hop}, which mail uses now: one of this credential would take its place"
                ),
                format!(
                    "if mail is to go on with the login that stands there, correct endpoint, or list in the target's keys those that are \
                     this credential's; if {hop} is to have this credential's login, list it in the target's keys, with all others that \
                     are this credential's, {}",
                    instead.map_or_else(|| format!("and move the login into {WRITABLE}"), WritableTable::and_fix)
                ),
            )
        };
        // Before a candidate is known, it may be just that.
        let severity = if self.candidate.is_some() { Severity::Error } else { Severity::Warning };
        let problem = Problem::new(severity, Some(self.main_cf.clone()), what, fix);
        Problem { class: Class::Ambiguous, subject: Subject::Table, ..problem }
    }

    /// SES takes what was derived from a secret access key, and neither the key itself nor what was derived in its first way.
    fn no_password(&self, at: EntryAt) -> Option<Problem> {
        let login = self.entry(at).login().filter(|login| is_access_key_id(&login.username))?;
        self.endpoint.region.as_ref()?;
        let password = login.password.expose();
        let what = match ses_password_form(password) {
            Err(PayloadError::SecretAccessKey) if no_secret_access_key(password, false).is_none() => {
                "an AWS secret access key (40 characters)"
            }
            Err(PayloadError::Version2) => "an SMTP password of Version 2, which SES has withdrawn",
            _ => return None,
        };
        let mut problem = self.of_entry(
            at,
            Severity::Warning,
            format!("its password is {what}, and not the SMTP password that is derived from the key: SES refuses it with 535"),
            format!("the next rollover puts the credential's password there ({}); with write = false you do", relaykey("sync")),
        );
        problem.subject = Subject::Entry;
        Some(problem)
    }

    /// A service that hands mail to an endpoint of ours and does not log in.
    fn logs_in_nowhere(&self, service: &str, has_live_key: bool) -> Option<Problem> {
        let known = self.services.iter().find(|known| known.name == service)?;
        let dir = self.main_cf.parent().unwrap_or(&self.main_cf).display();
        let parameter = "smtp_sasl_auth_enable";
        let (file, what, fix) = if known.overridden.contains(parameter) {
            (
                self.main_cf.with_file_name("master.cf"),
                format!(
                    "the service {service} has -o {parameter}=no and hands mail to the endpoint: it does not log in, and mail bounces \
                     with 530"
                ),
                format!(
                    "if it is to log in: postconf -c {dir} -P '{service}/unix/{parameter}=yes' && postfix -c {dir} reload"
                ),
            )
        } else if let Some(other) = self.services.iter().find(|other| other.logs_in()) {
            // In main.cf it would have every service log in, and smtp(8) ends that has no table to do so.
            (
                self.main_cf.clone(),
                format!(
                    "the service {service} hands mail to the endpoint and does not log in ({parameter} = no in main.cf), so that this \
                     mail bounces with 530"
                ),
                format!(
                    "if it is to log in: have the route name a service that does, as {} does; that changes which service takes the \
                     mail, so it is yours to decide",
                    other.name
                ),
            )
        } else {
            (
                self.main_cf.clone(),
                format!("{parameter} = no in main.cf: Postfix does not authenticate, whatever the table holds"),
                format!("postconf -c {dir} -e '{parameter} = yes' && postfix -c {dir} reload"),
            )
        };
        Some(match has_live_key {
            true => Problem::warning(Some(file), what, fix),
            false => Problem::error(Class::Config, Some(file), what, fix),
        })
    }

    /// With `keys`: does what is listed take effect?
    fn of_keys(&self, found: &Ownership) -> Vec<Problem> {
        let Some(keys) = self.keys else { return Vec::new() };
        let is_listed = |key: &str| keys.iter().any(|listed| same_key(listed, key));
        let has_live = |live: &LiveKeys| live.keys.iter().any(|(key, _)| is_listed(key));
        let mut problems = Vec::new();
        for live in &found.live {
            let sender = live.keys.iter().any(|(key, _)| key.contains('@'));
            for tried in &live.tried {
                problems.extend(self.check_keys(live, tried, &is_listed, sender));
            }
        }
        if !found.live.is_empty() && !found.live.iter().any(has_live) {
            let mut tried: Vec<String> = Vec::new();
            for hop in self.hops.all.iter().filter(|hop| hop.is_ours()).map(|hop| shown::hop(&hop.spelt)) {
                if !tried.contains(&hop) {
                    tried.push(hop);
                }
            }
            let tried = tried.join(", ");
            let file = found.live.iter().find_map(|live| live.tables.first()).map(|table| self.file(*table).to_owned());
            problems.push(Problem::error(
                Class::Config,
                file,
                format!("keys lists no key that Postfix tries for the endpoint, so a rollover would change nothing: it tries {tried}"),
                format!("list {tried} in keys, or take keys out: relaykey finds them"),
            ));
        }
        problems
    }

    fn check_keys(
        &self,
        live: &LiveKeys,
        tried: &[String],
        is_listed: &dyn Fn(&str) -> bool,
        has_sender: bool,
    ) -> Option<Problem> {
        let spelt = tried.last()?;
        let listed_at = tried.iter().position(|key| is_listed(key));
        let found = tried.iter().enumerate().find_map(|(place, key)| {
            let mut tables = live.tables.iter();
            let (table, entry) = tables.find_map(|&table| Some((table, self.tables[table].1?.get_folded(key)?.1)))?;
            Some((place, table, entry))
        });
        if let (Some((place, table, entry)), Some(listed_at)) = (found, listed_at)
            && place < listed_at
        {
            let mut problem = Problem::error(
                Class::Ambiguous,
                Some(self.file(table).to_owned()),
                format!(
                    "keys lists {} but not {}, which Postfix finds first",
                    shown::quoted_key(&tried[listed_at], None),
                    shown::quoted_key(&entry.key, entry.on_line())
                ),
                // Without that line, what goes to another port of the host would have no login.
                format!("list {} in keys too", shown::quoted_key(&entry.key, entry.on_line())),
            );
            problem.subject = Subject::Table;
            problem.finding.line = entry.on_line();
            return Some(problem);
        }
        (listed_at.is_none() && !has_sender).then(|| {
            let names = tried.iter().map(|key| shown::hop(key)).collect::<Vec<_>>().join(", ");
            let spelt = shown::hop(spelt);
            Problem::warning(
                None,
                format!("keys lists none of the keys that Postfix tries for relayhost {spelt}: {names}"),
                format!("list {spelt} in keys, or take keys out: relaykey finds them"),
            )
        })
    }

    /// How root says that an entry holds an earlier key of this credential; `None`: it holds no access key id.
    fn take_as_earlier(&self, at: EntryAt) -> Option<String> {
        let entry = self.entry(at);
        let id = entry.username().filter(|user| is_whole_access_key_id(user))?;
        let command = relaykey(format_args!("sync {} --previous {id}", self.credential));
        Some(format!(
            "if {id} is an earlier key of this credential, as after a backup was put back, take it as that: `{command}`"
        ))
    }

    /// Before a candidate is known, an unexpected login may be just that candidate, put there by a run that was killed
    /// or by hand, or another account's in a service that is left once it is known; it is an error only once a candidate
    /// is to replace it.
    fn another_login(&self, at: EntryAt) -> Problem {
        let (entry, applied) = (&self.entry(at), self.ours.applied.as_deref());
        let found = match entry.username() {
            Some(user) => self.ours.login_of(user, self.candidate),
            None => "something that is not USER:PASSWORD".into(),
        };
        let applied = applied.and_then(|user| self.ours.shown(user, self.candidate));
        let expected = applied.map(|user| format!(", not of {user}")).unwrap_or_default();
        let severity = if self.candidate.is_some() { Severity::Error } else { Severity::Warning };
        let key = shown::quoted_key(&entry.key, entry.on_line());
        // With `keys` what is not listed stays as it is, whatever is known of it.
        let to_replace = match self.take_as_earlier(at).filter(|_| self.keys.is_none()) {
            Some(take) => format!("{take}. If it is to hold the credential's login from now on, whosever it is"),
            None => "if it is a login of this credential that this host's state does not know, as after a backup was put back, or \
                     is to hold the credential's login from now on"
                .to_owned(),
        };
        let mut problem = Problem::new(
            severity,
            Some(self.file(at.table).to_owned()),
            format!("the key {key}, which Postfix tries for the endpoint, holds {found}{expected}"),
            format!(
                "{to_replace}, list {key} in the target's keys: then it is replaced, with write = false by you. If mail is \
                 to go on with the login that stands there, leave the line, and correct endpoint (or take the target out of the \
                 configuration). Do not take the line out: Postfix would not log in, and mail would bounce"
            ),
        );
        problem.class = Class::Ambiguous;
        problem.subject = Subject::Entry;
        problem.finding.line = entry.on_line();
        problem
    }

    /// The region of an endpoint, for people.
    fn region(&self, endpoint: usize) -> &str {
        self.endpoints.get(endpoint).map_or("", |endpoint| endpoint.region.as_deref().unwrap_or(&endpoint.host))
    }

    /// Mail goes to a region that the login has no password for.
    fn without_its_password(&self, file: &Path, key: &str, line: Option<usize>, endpoint: usize) -> Problem {
        let (region, own) = (self.region(endpoint), self.region(0));
        let mut problem = Problem::new(
            // Before a candidate is known, it may be one with a password for each region.
            if self.candidate.is_some() { Severity::Error } else { Severity::Warning },
            Some(file.to_owned()),
            format!(
                "{} is for SES in {region}, and what the source holds is a ready-made password for {own}: it is refused in {region}",
                shown::quoted_key(key, line)
            ),
            format!(
                "store the access key itself at the source, as JSON with accessKeyId and secretAccessKey: the password for {region} \
                 is made from it"
            ),
        );
        (problem.class, problem.subject) = (Class::Ambiguous, Subject::Table);
        problem.finding.line = line;
        problem
    }

    /// SES SMTP passwords hold for one region: this one's must not go to another one's endpoint.
    fn other_region(&self, file: &Path, key: &str, line: Option<usize>, other: &str) -> Problem {
        let key = shown::quoted_key(key, line);
        let ours = self
            .endpoint
            .region
            .as_ref()
            .map_or("which is not known to be SES's".into(), |region| format!("in {region}"));
        let fix = if self.keys.is_some() {
            format!("take {key} out of keys, and make a credential with its own endpoint for it")
        } else {
            let if_mistyped =
                if self.endpoint.region.is_some() { "" } else { "correct `endpoint`, if it is mistyped; else " };
            format!(
                "{if_mistyped}if the source holds the access key itself, add [[credential.smtp.also]] with endpoint = \
                 \"email-smtp.{other}.amazonaws.com\" to [credential.smtp]: {key} then gets the password for {other}; else list in the \
                 target's keys every key but {key}, which then keeps its login, and make a credential with its own endpoint for it"
            )
        };
        let mut problem = Problem::error(
            Class::Ambiguous,
            Some(file.to_owned()),
            format!(
                "{key} holds the same user name for SES in {other}, and the endpoint is one {ours}: a \
                 password derived for one region is refused in another"
            ),
            fix,
        );
        problem.subject = Subject::Table;
        problem.finding.line = line;
        problem
    }
}

/// A byte order mark before the first line makes it one under another key.
fn hidden_by_a_mark(table: &Table, file: &Path, candidates: &[String]) -> Option<Problem> {
    let first = (!table.is_empty()).then(|| table.entry(0)).filter(|entry| entry.line == 1)?;
    let key = first.key.strip_prefix('\u{feff}')?;
    let key = candidates.iter().find(|candidate| same_key(candidate, key))?;
    let (text, file) = (file, trust::quoted(file));
    let fix = match table.get_folded(key) {
        // Without the mark that line would come before the one that is in use.
        Some(_) => format!("take the line out, which has no effect: sed -i --follow-symlinks 1d {file}"),
        None => format!("take the mark out: sed -i --follow-symlinks '1s/^\\xef\\xbb\\xbf//' {file}"),
    };
    let mut problem = Problem::warning(
        Some(text.to_owned()),
        format!(
            "a byte order mark stands before {}, which Postfix takes for a part of the key, so that it never finds this line",
            shown::quoted_key(key, None)
        ),
        format!("{fix}; then: {}", relaykey("sync")),
    );
    problem.finding.line = Some(1);
    Some(problem)
}

mod regions;
