//! Everything that a look and a plan go by, found in one go.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Postfix;
use super::differences::Compiling;
use super::hops::{Endpoint, Hops, PortNames, host_part};
use super::own_table::{NamedIn, WritableTable};
use super::ownership::{Client, Entries, KnownIds, LiveKeys, LoginTable, Scope, ownership};
use super::pick::{Answering, Owned, Pick, Picks};
use super::proxymap;
use super::reached::Reached;
use super::review::{Problem, Subject};
use super::settings::{Settings, Setup, settled};
use super::tables::{LoginMap, LoginMaps, Store, look, no_map};
use super::unlisted::Answered;
use crate::credential::Login;
use crate::fault::{Class, Fault};
use crate::finding::{Finding, Severity};
use crate::host::{self, trust};
use crate::instruction::Instruction;
use crate::mta::by_hand::{Map, Task};
use crate::mta::table::{Table, fold, same_key};
use crate::mta::{KeyIds, Logins, Ours, Relay, TableId, WantedKey, shown, table};

/// Where ports have their names.
const SERVICES: &str = "/etc/services";

/// How often a table is looked at again because somebody wrote to it meanwhile.
pub(super) const LOOKS: usize = 3;

/// What was found in texts that have not changed since. Holds no login of a table: those are read again, each from its place.
pub(super) struct Found {
    texts: Vec<(PathBuf, host::FileId)>,
    asked: Asked,
    picks: Picks,
}

/// What an answer depends on besides the texts.
#[derive(PartialEq)]
struct Asked {
    ours: Ours,
    candidate: Option<String>,
    setup: Setup,
    hops: Hops,
}

impl Postfix {
    /// Everything that `inspect` and `plan` go by. `candidate` is the user name that is about to be written, where one
    /// is. Nothing is changed. What is wrong with the configuration or a table is a problem in the answer; what could
    /// not be read at all is an error.
    pub(super) fn survey(&self, ours: &Ours, candidate: Option<&str>, need: Need) -> Result<Survey, Fault> {
        for _ in 1..LOOKS {
            match self.survey_once(ours, candidate, need) {
                Err(e) if e.class == Class::ChangedUnderneath => {}
                other => return other,
            }
        }
        self.survey_once(ours, candidate, need)
    }

    fn survey_once(&self, ours: &Ours, candidate: Option<&str>, need: Need) -> Result<Survey, Fault> {
        let setup = self.setup()?;
        let mut endpoints: Vec<Endpoint> = self.relay.endpoints().map(Endpoint::of).collect();
        let tables = self.route_tables(&setup);
        let mut hops = Hops::of(&setup.routing, &setup.services, &tables, &endpoints);
        if hops.has_port_names() {
            // As smtp(8) looks them up (getservbyname(3)). Where that cannot be read, such a port is none that is known.
            let names = PortNames::parse(&String::from_utf8_lossy(&std::fs::read(SERVICES).unwrap_or_default()));
            endpoints.iter_mut().for_each(|endpoint| endpoint.port_names = names.clone());
            hops = Hops::of(&setup.routing, &setup.services, &tables, &endpoints);
        }
        let reached = Reached::of(&setup.routing, &tables, &setup.services);
        let mut problems = self.review_trust(&setup.main)?;
        let mut maps = LoginMaps::of(&setup);
        maps.all.iter_mut().for_each(LoginMap::find_lines);
        problems.extend(self.unusable(&maps, &setup));
        let users = [candidate, ours.applied.as_deref()];
        problems.extend(users.into_iter().flatten().find_map(|user| split_in_two(user, &maps, &setup.main)));
        problems.extend(proxymap::not_opened(&setup, &self.config_dir));
        problems.extend(proxymap::in_its_jail(&setup, &self.config_dir));
        problems.extend(self.vouched_for_nothing(&maps, &setup));
        problems.extend(self.routes_twice(&setup));
        let mut survey = Survey { setup, hops, reached, problems, endpoints: endpoints.clone(), ..Survey::default() };
        survey.key_ids_of_texts = self.key_ids_of_texts(&maps, &survey.setup.main);
        survey.take_tables(maps);
        let asked = Asked {
            ours: ours.clone(),
            candidate: candidate.map(str::to_owned),
            setup: survey.setup.clone(),
            hops: survey.hops.clone(),
        };
        self.survey_tables(&mut survey, &endpoints, asked, need)?;
        if survey.is_whole {
            let searches = self.searches(&survey, ours, candidate)?;
            survey.problems.extend(searches.problems);
            survey.unreadable = searches.unreadable;
        }
        let review = self.review(&survey);
        survey.problems.splice(0..0, review);
        survey.problems.sort_by_key(|p| p.finding.severity);
        // Of two equal keys each is ours, and each has the same to be said of it; so have two services with the same settings.
        let mut told: Vec<Finding> = Vec::new();
        survey.problems.retain(|p| {
            let is_new = !told.contains(&p.finding);
            told.extend(is_new.then(|| p.finding.clone()));
            is_new
        });
        Ok(survey)
    }

    /// What is to be said of login tables that we cannot write.
    fn unusable(&self, maps: &LoginMaps, setup: &Setup) -> Vec<Problem> {
        if maps.all.is_empty() {
            return vec![no_map(&setup.main)];
        }
        let has_store = maps.stores().next().is_some();
        let mut asked = setup.services.iter().zip(&maps.of_services).filter(|(service, _)| service.logs_in());
        let asked: HashSet<usize> = asked.by_ref().flat_map(|(_, numbers)| numbers).copied().collect();
        let mut problems: Vec<Problem> = Vec::new();
        let unusable =
            maps.all.iter().enumerate().filter_map(|(number, map)| Some((number, map.store.as_ref().err()?)));
        for (number, problem) in unusable {
            let mut problem = (**problem).clone();
            if has_store && problem.class == Class::Unsupported {
                problem.finding.severity = Severity::Note;
                problem.finding.fix = format!(
                    "what it holds stays as it is; if the login for the endpoint stands in it: {}",
                    problem.finding.fix
                );
            } else if has_store && !asked.contains(&number) {
                // What no client service opens does no harm.
                problem.finding.severity = Severity::Note;
            }
            problems.push(problem);
        }
        let stores: Vec<&Store> = maps.stores().map(|(_, store)| store).collect();
        for (at, store) in stores.iter().enumerate() {
            if let Some(other) = stores[..at].iter().find(|other| other.text == store.text) {
                problems.push(Problem::error(
                    Class::Unsupported,
                    Some(store.text.clone()),
                    format!(
                        "{} is the text of two login tables, {} and {}",
                        store.text.display(),
                        other.id(),
                        store.id()
                    ),
                    format!("name one of them, {}, in both places", other.id()),
                ));
            }
        }
        problems
    }

    fn survey_tables(
        &self,
        survey: &mut Survey,
        endpoints: &[Endpoint],
        asked: Asked,
        need: Need,
    ) -> Result<(), Fault> {
        let ours = asked.ours.clone();
        let again = if need == Need::Found { self.find_again(survey, &asked)? } else { None };
        let picks = match again {
            Some(picks) => picks,
            None => {
                let mut is_whole = true;
                let asking = survey.setup.services.iter().zip(&survey.of_services);
                let asking = asking.filter(|(service, _)| service.logs_in());
                let opened: HashSet<usize> = asking.flat_map(|(_, numbers)| numbers).copied().collect();
                for table in &mut survey.tables {
                    let is_read = self.read_table(table)?;
                    let twice = self.key_twice(&table.store, &table.table).filter(|_| opened.contains(&table.number));
                    is_whole &= is_read && twice.is_none();
                    table.problems.extend(twice);
                }
                if !is_whole {
                    survey.take_problems();
                    return Ok(());
                }
                let picks = self.pick(survey, endpoints, &asked)?;
                let now = SystemTime::now();
                let seen = |table: &TableSurvey| {
                    Some((table.store.text.clone(), table.seen.filter(|seen| settled(seen, now))?))
                };
                let texts: Option<Vec<_>> = survey.tables.iter().map(seen).collect();
                let texts = texts.filter(|_| !picks.asked_others);
                *self.found.borrow_mut() = texts.map(|texts| Found { texts, asked, picks: picks.without_logins() });
                picks
            }
        };
        survey.problems.extend(picks.problems.iter().cloned());
        survey.take_picks(picks);
        for table in &mut survey.tables {
            self.survey_map(table, &ours)?;
        }
        survey.is_whole = true;
        survey.take_problems();
        Ok(())
    }

    /// Which entries are ours. Every text was read.
    fn pick(&self, survey: &Survey, endpoints: &[Endpoint], asked: &Asked) -> Result<Picks, Fault> {
        let table_of = |number: &usize| survey.tables.iter().find(|table| table.number == *number);
        let numbers: Vec<usize> = (0..survey.maps.len()).collect();
        let mut tables: Vec<LoginTable<'_>> = (survey.maps.iter().zip(&numbers))
            .map(|(map, number)| LoginTable {
                id: map.id.clone(),
                entries: match (table_of(number), &map.fixed) {
                    (Some(table), _) => Entries::Writable(&table.table),
                    (None, Some(fixed)) if map.is_static => Entries::Static(fixed),
                    (None, Some(fixed)) => Entries::Fixed(fixed),
                    (None, None) => Entries::Unlisted(HashMap::new()),
                },
            })
            .collect();
        let clients: Vec<Client<'_>> = (survey.setup.services.iter().zip(&survey.of_services))
            .map(|(service, tables)| Client {
                service: &service.name,
                logs_in: service.logs_in(),
                by_sender: service.by_sender(),
                tables: tables.clone(),
            })
            .collect();
        let known = KnownIds { ours: &asked.ours, candidate: asked.candidate.as_deref() };
        let scope = Scope { endpoints, keys: self.keys.as_deref() };
        let mut found = ownership(&clients, &survey.hops, &tables, &known, &scope);
        let answers = match self.keys {
            None => self.ask_unlisted(survey, &found.live, asked.candidate.is_some())?,
            Some(_) => Vec::new(),
        };
        let asked_others = !answers.is_empty();
        if asked_others {
            for (number, of_table) in answers {
                tables[number].entries = Entries::Unlisted(of_table);
            }
            found = ownership(&clients, &survey.hops, &tables, &known, &scope);
        }
        let ids: Vec<TableId> = survey.maps.iter().map(|map| map.id.clone()).collect();
        let main_cf = self.config_dir.join("main.cf");
        let texts: Vec<(PathBuf, Option<&Table>)> = (survey.maps.iter().zip(&numbers))
            .map(|(map, number)| match table_of(number) {
                Some(table) => (table.file().to_owned(), Some(&table.table)),
                None => (map.named_in.0.clone(), map.fixed.as_ref()),
            })
            .collect();
        let asking = |number: &usize| {
            let services = survey.setup.services.iter().zip(&survey.of_services);
            services.filter(|(_, tables)| tables.contains(number)).collect::<Vec<_>>()
        };
        let instead = numbers.iter().map(|number| {
            let asking = asking(number);
            let beside = asking.iter().flat_map(|(_, tables)| *tables);
            let beside = beside.filter_map(|beside| survey.maps[*beside].store.as_ref().ok()).map(Store::id).next();
            let made = || asking.first().map(|(service, _)| NamedIn::service(service).own_table_in_front());
            beside.map(WritableTable::Named).or_else(|| made().map(WritableTable::Made))
        });
        let instead: Vec<Option<WritableTable>> = instead.collect();
        let own_table = |service| NamedIn::service(service).empty_table_in_front();
        let own_tables: Vec<String> = survey.setup.services.iter().map(own_table).collect();
        let answering = Answering {
            tables: &texts,
            ids: &ids,
            hops: &survey.hops,
            services: &survey.setup.services,
            keys: self.keys.as_deref(),
            ours: &asked.ours,
            candidate: asked.candidate.as_deref(),
            credential: &self.credential,
            endpoint: &endpoints[0],
            endpoints,
            main_cf,
            has_store: !survey.tables.is_empty(),
            instead: &instead,
            own_tables: &own_tables,
        };
        Ok(Picks { asked_others, ..answering.picks(found) })
    }

    /// What Postfix finds in a table now, and whether its map is what the text says.
    fn survey_map(&self, table: &mut TableSurvey, ours: &Ours) -> Result<(), Fault> {
        let mut compiling = Compiling::default();
        let is_looked_up = match self.look_up_live(table, ours.applied.as_deref())? {
            Some((live, odd)) => {
                (table.live, table.odd, table.is_opened) = (live, odd, true);
                let (problems, would) = self.compare_live(table)?;
                let others = self.others_in_map(table, ours, &would);
                table.problems.extend(others);
                table.problems.extend(problems);
                table.only_in_map_ids.clone_from(&would.key_ids);
                compiling = would;
                true
            }
            None => {
                if !table.store.map.as_ref().is_some_and(|map| map.exists()) {
                    let problems = self.compare_live(table)?.0;
                    table.problems.extend(problems);
                }
                false
            }
        };
        table.is_looked_up = is_looked_up;
        if is_looked_up && table.seen.is_none() && table.listed.is_none() {
            match self.ids_without_text(table)? {
                Some(ids) => table.only_in_map_ids = ids,
                None => table.is_looked_up = false,
            }
        }
        let problems = self.review_files(&table.settings, &table.store, is_looked_up.then_some(&compiling));
        table.problems.extend(problems);
        Ok(())
    }

    /// What was found before, if that still holds and nothing has to be compared: then no table is read. The logins
    /// are read from their places in the files, which is small work on tables of any size.
    fn find_again(&self, survey: &mut Survey, asked: &Asked) -> Result<Option<Picks>, Fault> {
        let found = self.found.borrow();
        let Some(found) = found.as_ref().filter(|found| found.asked == *asked) else { return Ok(None) };
        let mut places = Vec::new();
        for table in &mut survey.tables {
            let (directory, name) = host::Directory::of(&table.store.text)?;
            table.seen = directory.look(&name)?;
            places.push((directory, name));
        }
        let texts = survey.tables.iter().map(|table| Some((table.store.text.clone(), table.seen?)));
        if texts.collect::<Option<Vec<_>>>().as_ref() != Some(&found.texts) {
            return Ok(None);
        }
        let mut picks = found.picks.clone();
        for (table, (directory, name)) in survey.tables.iter().zip(&places) {
            let (Some(seen), pick) = (table.seen, &mut picks.tables[table.number]) else { return Ok(None) };
            if let Some(map) = &table.store.map
                && look(map)?
                    .is_none_or(|map| self.compared_before(&table.store, seen, map, &pick.not_compared()).is_none())
            {
                return Ok(None);
            }
            let parts: Vec<Range<usize>> = pick.owned.iter().filter_map(|owned| owned.at.clone()).collect();
            let mut values = match directory.read_parts(name, seen, &parts) {
                Ok(values) => values.into_iter(),
                Err(host::HostError::Changed { .. }) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            for owned in pick.owned.iter_mut().filter(|owned| owned.at.is_some()) {
                let value = values.next();
                let delimiter = table.store.delimiter;
                owned.text = value.and_then(|value| delimiter.login(std::str::from_utf8(&value).ok()?));
            }
        }
        Ok(Some(picks))
    }

    /// Reads the whole text. False: it is none that could be gone on with, and that is said.
    fn read_table(&self, survey: &mut TableSurvey) -> Result<bool, Fault> {
        let store = &survey.store;
        let (directory, name) = host::Directory::of(&store.text)?;
        match directory.read(&name, table::MAX_TABLE) {
            Err(e) if e.is_not_found() => {
                survey.seen = None;
                match self.listing(&survey.settings, store)? {
                    Some((listing, map)) => {
                        let again = match store.text_from_map(store.read_by_postfix(), &self.config_option()) {
                            Some(command) => format!("from a backup or with: {command}; sync does without it"),
                            None => "from a backup; sync does without it".into(),
                        };
                        let note = Problem::note(
                            Some(store.text.clone()),
                            "the text is gone and its map is there: what the map holds is the table, and a new map is made without \
                             leaving a text"
                                .into(),
                            format!("nothing, where that was on purpose; where not, bring it back, {again}"),
                        );
                        survey.problems.push(note);
                        (survey.table, survey.listed) = (listing.delimited(store.delimiter), Some(map));
                    }
                    None => survey.problems.extend(self.text_is_gone(store)),
                }
            }
            Err(e) => return Err(e.into()),
            Ok((bytes, seen)) => {
                survey.seen = Some(seen);
                match Table::of(bytes) {
                    Ok(table) => survey.table = table.delimited(store.delimiter),
                    Err(e) => {
                        survey.problems.push(Problem::of_table(e, &store.text));
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// What the map holds, and which file it is, where there is one that can be told as lines of a text without any loss.
    fn listing(&self, settings: &Settings, store: &Store) -> Result<Option<(Table, host::FileId)>, Fault> {
        let Some(map) = &store.map else { return Ok(None) };
        let Some(seen) = look(map)? else { return Ok(None) };
        let Ok(listing) = self.list_whole(settings, store.kind, &store.path, seen.size)? else { return Ok(None) };
        if look(map)? != Some(seen) {
            return Err(host::HostError::Changed { path: map.clone() }.into());
        }
        Ok(Table::of_listing(listing)?.map(|table| (table, seen)))
    }

    /// Where a person is to change the table, or the map cannot be told as a text. `None`: there is no map.
    pub(super) fn text_is_gone(&self, store: &Store) -> Option<Problem> {
        let map = store.map.as_ref().filter(|map| map.exists())?;
        let command = store.text_from_map(map, &self.config_option());
        let mut problem = Problem::error(
            Class::Ambiguous,
            Some(store.text.clone()),
            format!(
                "the text is gone and its map {} is there: a map made from a new text would lose whatever else the old one holds",
                map.display()
            ),
            match &command {
                Some(command) => format!("bring the text back, from a backup or with: {command}; it has to stay"),
                None => "bring the text back from a backup; it has to stay".to_owned(),
            },
        );
        problem.subject = Subject::Table;
        let text = store.text.display();
        let from = if command.is_some() { ", or as follows" } else { "" };
        problem.steps = vec![Instruction::Text(format!(
            "bring back {text}, which has to stay: from a backup, with the owner and the mode that it had{from}"
        ))];
        problem.steps.extend(command.map(Instruction::Command));
        Some(problem)
    }

    /// What makes a map: `postmap` gives a new one the rights of its text, which may be closed to who is to read it.
    fn compile_for(&self, survey: &TableSurvey, map: &Path) -> String {
        let command = self.compile_command(&survey.store);
        match proxymap::group(&survey.settings, &survey.store).filter(|_| !map.exists()) {
            None => command,
            Some(group) => {
                let map = trust::quoted(map);
                format!("{command} && chgrp {group} {map} && chmod 640 {map}")
            }
        }
    }

    /// A table as a person is told of it.
    pub(super) fn task<'a>(&self, survey: &'a TableSurvey, ours: &'a Ours, logins: &'a Logins) -> Task<'a> {
        let store = &survey.store;
        let map = store.map.as_ref().map(|path| Map {
            path,
            found: &survey.live,
            only_here: survey.only_in_map().map(String::as_str).collect(),
            command: self.compile_for(survey, path),
        });
        Task {
            file: survey.file(),
            exists: survey.seen.is_some() || survey.listed.is_some(),
            group: proxymap::group(&survey.settings, store),
            table: &survey.table,
            ours,
            logins,
            entries: survey.pick.owned.iter().map(|owned| (owned.entry, owned.endpoint)).collect(),
            missing: survey.pick.missing.iter().map(|key| (key.as_str(), survey.pick.endpoint_of(key))).collect(),
            regions: match self.relay.also.is_empty() {
                true => Vec::new(),
                false => self.relay.endpoints().map(Relay::takes_password_of).collect(),
            },
            hops: survey.pick.hops.iter().filter_map(|keys| Some([keys.first()?.as_str(), keys.last()?])).collect(),
            map,
            restart: None,
        }
    }
}

/// Postfix splits at the first delimiter: a user name must not have it.
fn split_in_two(username: &str, maps: &LoginMaps, main: &Settings) -> Option<Problem> {
    let (_, store) = maps.stores().find(|(_, store)| store.delimiter.split(username).is_some())?;
    Some(Problem::error(
        Class::Config,
        Some(PathBuf::from(main.get("config_directory")).join("main.cf")),
        format!(
            "smtp_sasl_password_result_delimiter is {}, which the user name of this credential has: Postfix would split that in two",
            store.delimiter
        ),
        "use a character that no user name has, such as a colon, in it and in all the tables that it is for".into(),
    ))
}

/// How much of the table a survey is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Which entries are ours, and what they hold: where the text has not changed, that is known.
    Found,
    /// All of it.
    Table,
}

/// All that was found.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) setup: Setup,
    pub(super) hops: Hops,
    pub(super) reached: Reached,
    /// Those that we can write.
    pub(super) tables: Vec<TableSurvey>,
    /// All login tables.
    pub(super) maps: Vec<LoginMap>,
    /// For each service of the setup the numbers of its tables.
    of_services: Vec<Vec<usize>>,
    live: Vec<LiveKeys>,
    /// The credential's.
    endpoints: Vec<Endpoint>,
    is_region_unknown: bool,
    pub(super) asks_for_proof: bool,
    key_ids: KeyIds,
    key_ids_of_texts: KeyIds,
    /// What tables that we do not write have answered.
    pub(super) answered: Answered,
    /// Was every text read?
    is_whole: bool,
    /// The tables that Postfix cannot read, of those that a login of ours is looked up in. Each is among the problems too.
    pub(super) unreadable: Vec<Finding>,
    /// Worst first.
    pub(super) problems: Vec<Problem>,
}

impl Survey {
    /// What each service with next hops of ours looks up.
    pub(super) fn live(&self) -> &[LiveKeys] {
        &self.live
    }

    /// Was every text read? Else it is not known what is ours.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn take_tables(&mut self, maps: LoginMaps) {
        self.of_services = maps.of_services;
        for (number, mut map) in maps.all.into_iter().enumerate() {
            if let Some(store) = map.store.as_ref().ok().cloned() {
                let settings = self.setup.main.clone();
                self.tables.push(TableSurvey { number, ..TableSurvey::new(settings, store) });
                map.fixed = None;
            }
            self.maps.push(map);
        }
    }

    fn take_picks(&mut self, picks: Picks) {
        let mut tables = picks.tables;
        for table in &mut self.tables {
            table.pick = std::mem::take(&mut tables[table.number]);
        }
        (self.live, self.key_ids) = (picks.live, picks.key_ids);
        self.hops.leave_without_login(&picks.without_login);
        (self.is_region_unknown, self.asks_for_proof) = (picks.is_region_unknown, picks.asks_for_proof);
    }

    fn take_problems(&mut self) {
        for table in &mut self.tables {
            self.problems.append(&mut table.problems);
        }
    }

    /// The access key ids that texts, maps, what is written out, and the files of the settings hold.
    pub(super) fn key_ids(&self) -> KeyIds {
        let mut all = self.key_ids.clone();
        self.tables.iter().for_each(|table| all.join(&table.only_in_map_ids));
        all.join_unknown(&self.key_ids_of_texts);
        all
    }

    /// Does any service look up a login for an endpoint of ours?
    pub(super) fn has_live_key(&self) -> bool {
        self.live.iter().any(|live| !live.keys.is_empty())
    }

    /// The number of the endpoint whose login a key gives in these tables, the first of them that has it; else the one that the
    /// key names.
    pub(super) fn endpoint_of(&self, tables: &[TableId], key: &str) -> usize {
        let own = |id: &TableId| self.tables.iter().find(|table| table.store.id() == *id);
        let known = tables.iter().filter_map(own).find_map(|table| table.pick.endpoints.get(&fold(key)).copied());
        known.unwrap_or_else(|| self.endpoint_named(key))
    }

    /// The number of the endpoint that a key names; the default one, where it names none.
    pub(super) fn endpoint_named(&self, key: &str) -> usize {
        self.endpoints.iter().position(|endpoint| endpoint.has_name(host_part(key))).unwrap_or_default()
    }

    /// The numbers of the endpoints that entries of ours are for; all, where one may be for any.
    pub(super) fn endpoints_used(&self) -> Vec<usize> {
        if self.is_region_unknown {
            return (0..self.endpoints.len()).collect();
        }
        let used = self.tables.iter().flat_map(|table| {
            table.pick.endpoints.values().copied().chain(table.only_in_map().map(|key| self.endpoint_named(key)))
        });
        used.collect::<BTreeSet<usize>>().into_iter().collect()
    }

    /// Is it a key that no text has, and a map still?
    pub(super) fn is_only_in_map(&self, key: &str) -> bool {
        let is_live = |live: &LiveKeys| live.keys.iter().any(|(have, _)| same_key(have, key));
        !self.live.iter().any(is_live)
    }

    /// Tables that could not be listed, as they may be shown, but for those that somebody answers for.
    pub(super) fn incomplete(&self, unlisted_ok: &[String]) -> Vec<String> {
        let unlisted = self.maps.iter().filter(|map| map.is_unlisted() && !map.is_among(unlisted_ok));
        unlisted.map(|map| map.id.to_string()).collect()
    }

    /// Tables that can be listed, and were not: a text that is none, a map that cannot be opened.
    pub(super) fn not_read(&self) -> impl Iterator<Item = &Store> {
        let is_read =
            |table: &TableSurvey| self.is_whole && (table.is_looked_up || !table.store.read_by_postfix().exists());
        self.tables.iter().filter(move |table| !is_read(table)).map(|table| &table.store)
    }

    /// Does a service find a login for a next hop of ours in the table of this number?
    pub(super) fn found_in(&self, number: usize) -> bool {
        let keys = self.live.iter().flat_map(|live| &live.keys);
        keys.filter_map(|(_, at)| *at).any(|at| at.table == number)
    }

    /// Every service with next hops of ours that is not left, its tables, and its live keys in look-up order.
    pub(super) fn services(&self) -> impl Iterator<Item = (&str, Vec<TableId>, Vec<&String>)> {
        self.live.iter().map(|live| {
            let tables = live.tables.iter().map(|number| self.maps[*number].id.clone()).collect();
            let mut keys: Vec<&String> = Vec::new();
            let only_in_map = self.tables.iter().filter(|table| live.tables.contains(&table.number));
            let only_in_map = only_in_map.flat_map(TableSurvey::only_in_map);
            let own_order = live.keys.iter().map(|(key, _)| key);
            for key in own_order.chain(only_in_map) {
                if !keys.iter().any(|have| same_key(have, key)) {
                    keys.push(key);
                }
            }
            (live.service.as_str(), tables, keys)
        })
    }
}

/// What was found in one login table.
pub(super) struct TableSurvey {
    /// Its number among all login tables.
    pub(super) number: usize,
    pub(super) settings: Settings,
    pub(super) store: Store,
    /// Empty where what was found before still holds.
    pub(super) table: Table,
    /// The text as it was read; `None`: there is none.
    pub(super) seen: Option<host::FileId>,
    pub(super) pick: Pick,
    /// There is no text: what the map holds is the table, and this is the map as it was listed.
    pub(super) listed: Option<host::FileId>,
    /// What Postfix finds now, by key as asked.
    pub(super) live: HashMap<String, Login>,
    /// Keys under which it finds what is no login.
    pub(super) odd: HashSet<String>,
    /// The access key ids that the map holds and the text does not.
    pub(super) only_in_map_ids: KeyIds,
    /// Could what Postfix reads be asked?
    is_looked_up: bool,
    /// Did `postmap` open it?
    pub(super) is_opened: bool,
    /// What `postmap` said when it could not.
    pub(super) failed: Option<String>,
    pub(super) problems: Vec<Problem>,
}

impl TableSurvey {
    fn new(settings: Settings, store: Store) -> Self {
        Self {
            number: 0,
            settings,
            store,
            table: Table::default(),
            seen: None,
            listed: None,
            pick: Pick::default(),
            live: HashMap::new(),
            odd: HashSet::new(),
            only_in_map_ids: KeyIds::default(),
            is_looked_up: false,
            is_opened: false,
            failed: None,
            problems: Vec::new(),
        }
    }

    /// The file that its entries stand in.
    pub(super) fn file(&self) -> &Path {
        match &self.store.map {
            Some(map) if self.listed.is_some() => map,
            _ => &self.store.text,
        }
    }

    /// The keys that must give the candidate, each with its endpoint.
    pub(super) fn lookups(&self) -> Vec<WantedKey> {
        let keys = self.pick.owned.iter().map(|owned| &owned.key).chain(&self.pick.missing);
        keys.map(|key| WantedKey { key: key.clone(), endpoint: self.pick.endpoint_of(key) }).collect()
    }

    /// What a map made from the text now would change under the keys that are ours. The table was read.
    pub(super) fn compiling(&self) -> Compiling {
        let value = |login: Option<&Login>, is_odd: bool| match login {
            Some(login) if self.pick.users.contains(&login.username) => {
                Some(format!("the login of {}", login.username))
            }
            Some(_) => Some("another login".to_owned()),
            None if is_odd => Some("something that is not USER:PASSWORD".to_owned()),
            None => None,
        };
        let in_map = |key: &str| value(self.live.get(key), self.odd.contains(key));
        let in_text = |key: &str| {
            let (_, entry) = self.table.get_folded(key)?;
            let login = entry.login();
            Some((value(login.as_ref(), true).unwrap_or_default(), login))
        };
        let loses = self.pick.absent.iter().find_map(|key| {
            let found = in_map(key)?;
            Some(format!("{}, where Postfix finds {found} now, would be gone", shown::quoted_key(key, None)))
        });
        let without = self.pick.hops.iter().find_map(|keys| {
            let mut found = keys.iter().filter_map(|key| in_map(key));
            let bounces = keys.iter().all(|key| self.table.get_folded(key).is_none());
            let found = found.next().filter(|_| bounces)?;
            let spelt = keys.last()?;
            Some(format!(
                "the text has no login for {}, for which Postfix finds {found} now: it would log in no more, and mail \
                 would bounce",
                shown::hop(spelt)
            ))
        });
        let keys = self.pick.candidates.iter().chain(self.pick.owned.iter().map(|owned| &owned.key));
        let other = || {
            keys.filter(|key| !self.pick.absent.contains(key)).find_map(|key| {
                let (would, login) = in_text(key)?;
                if login.is_some() && login.as_ref() == self.live.get(key) {
                    return None;
                }
                let now = in_map(key).unwrap_or_else(|| "nothing".into());
                let would = if would == now { format!("{would} with another password") } else { would };
                let key = shown::quoted_key(key, None);
                Some(format!(
                    "Postfix would use {would} for {key}, where it finds {now} now, and nobody has logged in with that"
                ))
            })
        };
        Compiling { changes: without.or_else(other), loses, key_ids: KeyIds::default() }
    }

    /// Is this the user name of every login of the text that is ours, as far as the text is known?
    pub(super) fn holds_only(&self, applied: Option<&str>) -> bool {
        let is_applied = |owned: &Owned| owned.text.as_ref().map(|login| login.username.as_str()) == applied;
        let covers = |key: &String| self.pick.owned.iter().any(|owned| same_key(&owned.key, key));
        let candidates = self.pick.candidates.iter().filter(|key| !self.pick.absent.contains(key));
        applied.is_some() && candidates.into_iter().all(covers) && self.pick.owned.iter().all(is_applied)
    }

    /// Keys that Postfix tries, that are not in the text, and that the map still has: somebody took them out of the
    /// text and did not compile it, or a run was killed.
    pub(super) fn only_in_map(&self) -> impl Iterator<Item = &String> {
        self.pick.absent.iter().filter(|key| {
            (self.live.contains_key(*key) || self.odd.contains(*key))
                && !self.pick.missing.iter().any(|missing| same_key(missing, key))
        })
    }
}
