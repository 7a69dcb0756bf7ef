//! Login tables that cannot be listed: what is known of them all the same, and who answers for them.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use zeroize::Zeroizing;

use super::Postfix;
use super::ownership::LiveKeys;
use super::review::Problem;
use super::settings::{Settings, Setup};
use super::survey::Survey;
use super::tables::LoginMaps;
use crate::fault::Fault;
use crate::mta::table::{fold, same_key};
use crate::mta::{Answer, KeyIds, TableId, shown};

impl Postfix {
    /// What tables that cannot be listed have for next hops that are to get an entry in another one: nothing is put in the place of a
    /// login that is in use. `must_know`: with one that gives no answer nothing is planned, unless somebody answers for it.
    pub(super) fn ask_unlisted(
        &self,
        survey: &Survey,
        live: &[LiveKeys],
        must_know: bool,
    ) -> Result<Vec<(usize, HashMap<String, Answer>)>, Fault> {
        let mut asked: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for live in live {
            let added = live.keys.iter().filter(|(_, at)| at.is_none()).map(|(key, _)| key);
            let is_of = |tried: &&Vec<String>, key: &String| tried.last().is_some_and(|spelt| same_key(spelt, key));
            let keys: Vec<&String> =
                added.flat_map(|key| live.tried.iter().filter(move |tried| is_of(tried, key)).flatten()).collect();
            for number in live.tables.iter().filter(|number| !keys.is_empty() && survey.maps[**number].is_unlisted()) {
                asked.entry(*number).or_default().extend(keys.iter().copied().cloned());
            }
        }
        let mut answers = Vec::new();
        for (number, keys) in asked {
            let map = &survey.maps[number];
            let of_table = match self.look_up_other(&survey.setup.main, map, &keys) {
                Ok(found) => keys.iter().map(|key| fold(key)).zip(found).collect(),
                Err(why) if must_know && !map.is_among(&self.unlisted_ok) => return Err(why),
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
