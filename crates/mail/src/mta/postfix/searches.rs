//! What a search for a login comes to: each key that a service tries for a next hop, one after the other, through all its tables.
//!
//! A look-up has a third outcome beside found and not found: a table that Postfix cannot open or read ends the whole search, and
//! smtp(8) defers the message ("lookup error"), whatever the tables behind it hold. So whoever looks a login up here says that too, and
//! nothing is confirmed on it. What counts is whether a search gets to such a table: a key that is found before it ends the search.
//! Nor does a table count that the next rollover writes.
//!
//! Where a search ends in a table that cannot be listed, what stands in ours is not what mail goes out with.

use super::Postfix;
use super::ownership::LiveKeys;
use super::proxymap::unproxied;
use super::review::{Problem, Subject};
use super::settings::Settings;
use super::survey::{Survey, TableSurvey};
use super::tables::{LoginMap, NoAnswer, answer};
use crate::credential;
use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host::trust::quoted;
use crate::mta::table::same_key;
use crate::mta::{Answer, Ours, Running, shown};
use std::path::{Path, PathBuf};

/// Kinds whose answers come from a server, which may be down for a while.
const SERVERS: [&str; 10] =
    ["ldap", "mysql", "pgsql", "mongodb", "memcache", "tcp", "socketmap", "nis", "nisplus", "netinfo"];
/// Kinds that are named by a file of theirs.
const NAMED_BY_FILE: [&str; 9] = ["regexp", "pcre", "cidr", "ldap", "mysql", "pgsql", "sqlite", "mongodb", "memcache"];

/// Where a search ends.
enum End {
    /// No table has any of the keys, or it is not known.
    Nowhere,
    /// In the table of this number.
    Found(usize, Answer),
    Fails(usize, WhyNoAnswer),
    /// In a table that fails for good, which is told.
    FailsAsTold,
}

/// What a table gives for a key that a service tries for a next hop.
enum Given {
    Answer(Answer),
    /// It cannot be asked: what it gives is not known.
    Unknown,
    Fails(WhyNoAnswer),
}

/// Why a table gives no answer.
enum WhyNoAnswer {
    /// It stays so until somebody mends it.
    ForGood(Box<Problem>),
    ForNow(Fault),
}

/// What is wrong with them.
#[derive(Default)]
pub(super) struct Searches {
    /// All of it.
    pub(super) problems: Vec<Problem>,
    /// The tables that Postfix cannot open or read.
    pub(super) unreadable: Vec<Finding>,
}

impl Postfix {
    /// Follows them for every next hop of ours. A table whose server may come back is an error of the moment. `candidate`: the user
    /// name that is about to be written, where one is.
    pub(super) fn searches(&self, survey: &Survey, ours: &Ours, candidate: Option<&str>) -> Result<Searches, Fault> {
        let mut found = Searches::default();
        if survey.tables.is_empty() {
            // There is no table for the login, and that is told.
            return Ok(found);
        }
        let (mut told, mut silent) = (Vec::new(), Vec::new());
        for live in survey.live() {
            let by_sender = (survey.setup.services.iter()).any(|s| s.name == live.service && s.by_sender());
            // Some sender has no line of their own in any table. A server may refuse what is no address.
            let nobody = by_sender.then(|| vec![format!("nobody@{}", self.relay.endpoint)]);
            for tried in live.tried.iter().chain(&nobody) {
                match self.search(survey, live, tried, &told, &mut silent)? {
                    End::FailsAsTold => {}
                    End::Fails(_, WhyNoAnswer::ForNow(fault)) => return Err(fault),
                    End::Fails(number, WhyNoAnswer::ForGood(problem)) => {
                        told.push(number);
                        found.unreadable.push(problem.finding.clone());
                        found.problems.push(*problem);
                    }
                    End::Found(number, answer) => {
                        // Of a next hop that has no entry yet that is told already.
                        let is_tried = |key: &str| tried.iter().any(|tried| same_key(tried, key));
                        let has_entry = live.keys.iter().any(|(key, at)| at.is_some() && is_tried(key));
                        if let Some(hop) = tried.last().filter(|_| has_entry) {
                            let expected = candidate.or(ours.applied.as_deref());
                            let problem =
                                self.found_elsewhere(&survey.maps[number], &answer, expected, hop, &live.service);
                            let severity = if candidate.is_some() { Severity::Error } else { Severity::Warning };
                            // Before a candidate is known, it may be just that.
                            found.problems.extend(problem.map(|problem| problem.of(severity)));
                        }
                    }
                    End::Nowhere => {}
                }
            }
        }
        Ok(found)
    }

    /// What a table that cannot be listed gives in the place of the login that is ours, `expected` by its user name.
    fn found_elsewhere(
        &self,
        map: &LoginMap,
        answer: &Answer,
        expected: Option<&str>,
        hop: &str,
        service: &str,
    ) -> Option<Problem> {
        let username = answer.login().map(|login| login.username.as_str());
        if !map.is_unlisted() || self.keys.is_some() || expected.is_none() || username == expected {
            return None;
        }
        let gives = match username {
            Some(username) => {
                format!("the login of {}", credential::shown(username, false).unwrap_or(credential::NOT_SHOWN))
            }
            None => "what is no login".into(),
        };
        let (table, hop) = (&map.id, shown::hop(hop));
        let what = format!(
            "{table} gives {gives} for {hop}, and the service {service} finds that first: mail goes out with it, whatever stands in the \
             tables that relaykey writes"
        );
        let fix = format!(
            "if mail is to go out with this credential's login, take {hop} out of {table}, or name {table} last in \
             smtp_sasl_password_maps; then: postfix -c {} reload; if it is to go on with what stands there, list in the target's keys \
             those that are this credential's",
            self.config_dir.display()
        );
        let problem = Problem::error(Class::Ambiguous, Some(self.config_dir.join("main.cf")), what, fix);
        Some(Problem { subject: Subject::Table, ..problem })
    }

    /// `told`: tables that fail for good. `silent`: those that somebody answers for and that gave no answer.
    fn search(
        &self,
        survey: &Survey,
        live: &LiveKeys,
        tried: &[String],
        told: &[usize],
        silent: &mut Vec<usize>,
    ) -> Result<End, Fault> {
        for n in 0..tried.len() {
            for &number in &live.tables {
                if silent.contains(&number) {
                    continue;
                }
                if told.contains(&number) {
                    return Ok(End::FailsAsTold);
                }
                let given = match self.ask_any(survey, number, &tried[n..], &live.service)? {
                    Given::Fails(failing) => return Ok(End::Fails(number, failing)),
                    // Whoever answers for it says that it has none of our logins: Postfix goes on behind it. It is not waited
                    // for again.
                    Given::Unknown if self.is_answered_for(&survey.maps[number]) => {
                        silent.push(number);
                        continue;
                    }
                    // It may have the key, so that nothing behind it is known to be asked.
                    Given::Unknown => return Ok(End::Nowhere),
                    Given::Answer(given) => given,
                };
                if given != Answer::Nothing {
                    return Ok(End::Found(number, given));
                }
            }
        }
        Ok(End::Nowhere)
    }

    /// `keys`: the one that Postfix asks, and those that it may ask after it, which are asked along with it.
    fn ask_any(&self, survey: &Survey, number: usize, keys: &[String], service: &str) -> Result<Given, Fault> {
        if let Some(table) = survey.tables.iter().find(|table| table.number == number) {
            let lookups = table.lookups();
            if lookups.is_empty() && !table.is_opened {
                return Ok(Given::Fails(WhyNoAnswer::ForGood(Box::new(self.not_opened(table, service)))));
            }
            let is_written = |key: &String| lookups.iter().any(|wanted| wanted.key.eq_ignore_ascii_case(key));
            return Ok(Given::Answer(match answer(&table.live, &table.odd, &keys[0]) {
                Answer::Nothing if is_written(&keys[0]) => Answer::NoLogin,
                given => given,
            }));
        }
        let (map, main) = (&survey.maps[number], &survey.setup.main);
        if map.store.is_ok() || map.fixed.is_none() && self.is_without_proxymap(map, main) {
            return Ok(Given::Unknown);
        }
        // What is not opened at all is told already.
        if map.store.as_ref().is_err_and(|problem| problem.class != Class::Unsupported) {
            return Ok(Given::Unknown);
        }
        let answers = match self.probe(survey, number, keys) {
            // A server may refuse a key that Postfix never gets to. One that says nothing is not waited for twice.
            Err(NoAnswer::Failed(_)) if keys.len() > 1 && asks_a_server(map) => self.probe(survey, number, &keys[..1]),
            answers => answers,
        };
        Ok(match answers {
            Ok(answers) => Given::Answer(answers[0].clone()),
            Err(NoAnswer::EntriesAreItsName) => Given::Unknown,
            // Whatever it asks: nothing is wrong with what is named there.
            Err(NoAnswer::Silent(_)) if self.is_answered_for(map) => Given::Unknown,
            Err(NoAnswer::Silent(why)) => Given::Fails(for_now(&why)),
            Err(NoAnswer::Failed(why)) => match self.why(main, map, &why, service)? {
                // Postfix may be let in where root is not.
                WhyNoAnswer::ForNow(_) if self.is_answered_for(map) => Given::Unknown,
                why => Given::Fails(why),
            },
        })
    }

    fn is_answered_for(&self, map: &LoginMap) -> bool {
        map.is_unlisted() && map.is_among(&self.unlisted_ok)
    }

    /// Without a running proxymap(8) what is behind `proxy:` gives no answer, and nobody is kept waiting by that.
    fn is_without_proxymap(&self, map: &LoginMap, main: &Settings) -> bool {
        map.is_proxied() && self.running_with(main).is_ok_and(|running| running == Running::No)
    }

    /// A table that we could write, and that nothing of ours stands in.
    fn not_opened(&self, table: &TableSurvey, service: &str) -> Problem {
        let store = &table.store;
        let file = store.read_by_postfix();
        let (has_map, has_text) = (file.exists(), table.seen.is_some());
        let quoted_map = quoted(file);
        let compile = self.compile_command(store);
        let (what, fix) = match (&store.map, has_map, has_text) {
            (Some(_), true, true) => (
                format!("Postfix cannot read it: {}", table.failed.as_deref().unwrap_or("it gave no reason")),
                format!("make it anew from its text: mv {quoted_map} {quoted_map}.broken && {compile}"),
            ),
            (Some(_), false, true) => {
                ("it is not there, and its text is".to_owned(), format!("make it from its text: {compile}"))
            }
            (_, true, _) => (
                format!("Postfix cannot read it: {}", table.failed.as_deref().unwrap_or("it gave no reason")),
                format!("put a good one back, or {}", self.take_out(store.id().as_str())),
            ),
            (_, false, _) => {
                ("it is not there".to_owned(), format!("put it back, or {}", self.take_out(store.id().as_str())))
            }
        };
        mail_waits(file, what, fix, service)
    }

    /// Why a table of another kind fails.
    fn why(&self, main: &Settings, map: &LoginMap, said: &Fault, service: &str) -> Result<WhyNoAnswer, Fault> {
        let for_good = |problem| WhyNoAnswer::ForGood(Box::new(problem));
        let (kind, name) = unproxied(map.spelt()).split_once(':').unwrap_or_default();
        let table = map.id.as_str();
        let main_cf = self.config_dir.join("main.cf");
        if !self.has_kind(main, kind)? {
            let named = shown::table_type(map.spelt()).map_or(String::new(), |kind| format!(" {kind}:"));
            let what = format!(
                "this host's Postfix cannot open{named} tables, as {table} is one (it is not in `postconf -m`)"
            );
            let fix = format!("install the package of Postfix that has it, or {}", self.take_out(table));
            return Ok(for_good(mail_waits(&main_cf, what, fix, service)));
        }
        // As daemons and we look for it.
        let file = Path::new(main.get("queue_directory")).join(name);
        let is_file = NAMED_BY_FILE.contains(&kind) && (name.starts_with('/') || !SERVERS.contains(&kind));
        if is_file && !file.exists() {
            let fix = format!("put it back, or {}", self.take_out(table));
            return Ok(for_good(mail_waits(&file, format!("it is not there, and {table} is it"), fix, service)));
        }
        if asks_a_server(map) || said.class != Class::Command {
            return Ok(for_now(said));
        }
        let fix = format!("mend what it names, or {}", self.take_out(table));
        let file: &PathBuf = if is_file { &file } else { &main_cf };
        Ok(for_good(mail_waits(file, said.what.clone(), fix, service)))
    }

    fn take_out(&self, table: &str) -> String {
        format!(
            "take {table} out of smtp_sasl_password_maps where no login stands in it; then: postfix -c {} reload",
            self.config_dir.display()
        )
    }
}

/// It may come back by itself.
fn for_now(said: &Fault) -> WhyNoAnswer {
    let mut fault = said.clone();
    fault.fix = format!(
        "{}; if Postfix itself is let in there, and you know that no login for SES is in it, say so: unlisted_ok in \
         [[credential.target]] names it, spelt as smtp_sasl_password_maps has it",
        fault.fix
    );
    WhyNoAnswer::ForNow(fault)
}

/// Is it a server's, or made of tables one of which is?
pub(super) fn asks_a_server(map: &LoginMap) -> bool {
    map.spelt().split([':', '{', '}', ',', ' ', '\t']).any(|word| SERVERS.contains(&word))
}

fn mail_waits(file: &Path, what: String, fix: String, service: &str) -> Problem {
    let what = format!(
        "{what}: the service {service} asks it for its login, the look-up fails, and all its mail to the endpoint waits in the queue \
         (\"lookup error\"), whatever the other tables hold"
    );
    Problem::error(Class::Config, Some(file.to_owned()), what, fix)
}
