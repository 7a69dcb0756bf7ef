//! Login tables that cannot be listed: what is known of them all the same, and who answers for them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;

use zeroize::Zeroizing;

use super::Postfix;
use super::ownership::LiveKeys;
use super::review::Problem;
use super::searches::asks_a_server;
use super::settings::{Settings, Setup};
use super::survey::Survey;
use super::tables::{LoginMaps, NoAnswer};
use crate::fault::Fault;
use crate::mta::table::{fold, same_key};
use crate::mta::{Answer, KeyIds, TableId, shown};

/// What login tables that we do not write have answered in one look, by their numbers: each is asked for a key once, however many
/// services ask it.
#[derive(Default)]
pub(super) struct Answered(RefCell<HashMap<usize, OfTable>>);

#[derive(Default)]
struct OfTable {
    given: HashMap<String, Answer>,
    /// Keys that it was asked for together and gave no answer to, and why.
    refused: Vec<(Vec<String>, Fault)>,
    /// It gave none until the deadline: it is not waited for again.
    silent: Option<Fault>,
}

impl OfTable {
    /// Why there is no answer, where that is known.
    fn refuses(&self, keys: &[String]) -> Option<NoAnswer> {
        let silent = self.silent.as_ref().map(|why| NoAnswer::Silent(Box::new(why.clone())));
        let refused = || self.refused.iter().find(|(together, _)| together == keys);
        silent.or_else(|| refused().map(|(_, why)| NoAnswer::Failed(Box::new(why.clone()))))
    }
}

impl Postfix {
    /// What smtp(8) finds in a table that we do not write, without asking twice in one look.
    pub(super) fn probe(&self, survey: &Survey, number: usize, keys: &[String]) -> Result<Vec<Answer>, NoAnswer> {
        let mut answered = survey.answered.0.borrow_mut();
        let of_table = answered.entry(number).or_default();
        let mut new: Vec<String> = Vec::new();
        for key in keys.iter().filter(|key| !of_table.given.contains_key(*key)) {
            if !new.contains(key) {
                new.push(key.clone());
            }
        }
        if !new.is_empty() {
            if let Some(why) = of_table.refuses(&new) {
                return Err(why);
            }
            match self.try_other(&survey.setup.main, &survey.maps[number], &new) {
                Ok(answers) => of_table.given.extend(new.into_iter().zip(answers)),
                Err(why) => {
                    match &why {
                        NoAnswer::EntriesAreItsName => {}
                        NoAnswer::Failed(fault) => of_table.refused.push((new, (**fault).clone())),
                        NoAnswer::Silent(fault) => of_table.silent = Some((**fault).clone()),
                    }
                    return Err(why);
                }
            }
        }
        Ok(keys.iter().map(|key| of_table.given[key].clone()).collect())
    }

    /// What it finds there under the keys, folded, that services try for next hops, each list in its order.
    fn probe_searches(
        &self,
        survey: &Survey,
        number: usize,
        searches: &[&Vec<String>],
    ) -> Result<HashMap<String, Answer>, NoAnswer> {
        let keys: Vec<String> = searches.iter().copied().flatten().cloned().collect();
        match self.probe(survey, number, &keys) {
            // A server may refuse one key alone, and one that Postfix never gets to.
            Err(NoAnswer::Failed(_)) if keys.len() > 1 && asks_a_server(&survey.maps[number]) => {}
            answers => return answers.map(|found| keys.iter().map(|key| fold(key)).zip(found).collect()),
        }
        let mut found = HashMap::new();
        for search in searches {
            for key in *search {
                let answer = self.probe(survey, number, std::slice::from_ref(key))?.remove(0);
                let is_end = answer != Answer::Nothing;
                found.insert(fold(key), answer);
                if is_end {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// What tables that cannot be listed have for next hops that are to get an entry in another one: nothing is put in the place of a
    /// login that is in use. `must_know`: with one that gives no answer nothing is planned, unless somebody answers for it.
    pub(super) fn ask_unlisted(
        &self,
        survey: &Survey,
        live: &[LiveKeys],
        must_know: bool,
    ) -> Result<Vec<(usize, HashMap<String, Answer>)>, Fault> {
        let mut asked: BTreeMap<usize, Vec<&Vec<String>>> = BTreeMap::new();
        for live in live {
            let added = live.keys.iter().filter(|(_, at)| at.is_none()).map(|(key, _)| key);
            let is_of = |tried: &&Vec<String>, key: &String| tried.last().is_some_and(|spelt| same_key(spelt, key));
            let searches: Vec<&Vec<String>> =
                added.flat_map(|key| live.tried.iter().filter(move |tried| is_of(tried, key))).collect();
            for number in live.tables.iter().filter(|number| survey.maps[**number].is_unlisted()) {
                asked.entry(*number).or_default().extend(&searches);
            }
        }
        let mut answers = Vec::new();
        for (number, searches) in asked.into_iter().filter(|(_, searches)| !searches.is_empty()) {
            let map = &survey.maps[number];
            let of_table = match self.probe_searches(survey, number, &searches) {
                Ok(found) => found,
                Err(why) if must_know && !map.is_among(&self.unlisted_ok) => {
                    return Err(self.no_answer(map, why));
                }
                Err(_) => HashMap::new(),
            };
            answers.push((number, of_table));
        }
        Ok(answers)
    }

    /// The access key ids in main.cf and master.cf, whatever they stand in there, and in login tables that are lists of patterns.
    pub(super) fn key_ids_of_texts(&self, maps: &LoginMaps, main: &Settings) -> KeyIds {
        let lists = maps.all.iter().filter_map(|map| map.list_of_patterns(main));
        let mut found = KeyIds::default();
        for path in self.own_files().into_iter().chain(lists) {
            // One that is not read is named as not listed, or Postfix does not read it either.
            let Ok(bytes) = fs::read(&path).map(Zeroizing::new) else { continue };
            found.join(&KeyIds::in_text(&String::from_utf8_lossy(&bytes), &TableId::new(path.display().to_string())));
        }
        found
    }

    /// Names in `unlisted_ok` that are of no use.
    pub(super) fn vouched_for_nothing(&self, maps: &LoginMaps, setup: &Setup) -> Vec<Problem> {
        let is_of_no_use = |name: &&String| {
            let is_command = setup.commands.iter().any(|service| service.id() == **name);
            let name = std::slice::from_ref(*name);
            !is_command && !maps.all.iter().any(|map| map.is_unlisted() && map.is_among(name))
        };
        let warn = |name: &String| {
            let what = format!(
                "unlisted_ok names {}, and no login table that cannot be listed has that name",
                shown::table(name)
            );
            let fix = "take it out, or spell it as smtp_sasl_password_maps does; a service that runs a program is pipe:NAME, and mailbox_command is called so";
            Problem::warning(None, what, fix.into())
        };
        self.unlisted_ok.iter().filter(is_of_no_use).map(warn).collect()
    }
}
