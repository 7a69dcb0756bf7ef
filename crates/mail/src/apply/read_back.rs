//! What the running configuration gives, proven with what was read back.

use relaykey_core::report::{ReportOutcome, StillHeld};

use super::change::look_up;
use super::inspect::first_live;
use super::left_behind::{LoginInUse, tables_in_use};
use super::own_ids::CallerPurpose;
use super::{OpenChange, ReadBack, RegionsRead, Target, WantedProof, out_of_order};
use crate::credential::{self, CodeFields, Login, ProofFields, Secret, SignedToo};
use crate::fault::{Class, Fault};
use crate::mta::table::same_key;
use crate::mta::{Answer, Ours, OwnEntry, TableId, View, WantedKey, shown};

impl Target {
    pub(super) fn read_back(&self, prove: Option<&WantedProof>, nonce: Option<String>) -> Result<ReadBack, Fault> {
        let Some(open) = &self.open else { return Err(out_of_order("read back", "nothing is prepared")) };
        // Seen from before: whatever still holds the previous key id shows.
        let username = open.logins.username();
        let previous = open.previous.as_ref().filter(|user| *user != username);
        // As a look sees it afterwards.
        let is_another = |user: &String| *user != username;
        let has_previous = previous.is_some() || open.ours.previous.as_ref().is_some_and(is_another);
        let applied = Some(previous.map_or(username, String::as_str).to_owned());
        let known = vec![username.to_owned()];
        let Ours {
            applied: before,
            previous: before_that,
            known: ours,
            earlier,
            named: _,
            named_logins: _,
            remembered: _,
            named_by_root: _,
            logins,
            one_region,
        } = &open.ours;
        let one_region = *one_region;
        let earlier: Vec<String> =
            [before, before_that].into_iter().flatten().chain(ours).chain(earlier).cloned().collect();
        let view = self.look(&Ours {
            applied,
            previous: None,
            known,
            earlier: earlier.clone(),
            logins: logins.clone(),
            one_region,
            ..Ours::default()
        })?;
        all_readable(&view)?;
        let wanted = |entry: &OwnEntry| WantedKey { key: entry.key.clone(), endpoint: entry.endpoint };
        let mut found: Vec<(WantedKey, Option<Login>)> =
            view.entries.iter().map(|entry| (wanted(entry), entry.live.clone())).collect();
        for (table, keys) in &open.lookups {
            let has = |entry: &OwnEntry, key: &str| entry.table == *table && same_key(&entry.key, key);
            let rest: Vec<WantedKey> = keys
                .iter()
                .filter(|wanted| !view.entries.iter().any(|entry| has(entry, &wanted.key)))
                .cloned()
                .collect();
            if !rest.is_empty() {
                let asked: Vec<String> = rest.iter().map(|wanted| wanted.key.clone()).collect();
                let answers = self.mta.lookup(table, None, &asked)?.into_iter().map(|answer| answer.login().cloned());
                found.extend(rest.into_iter().zip(answers.chain(std::iter::repeat(None))));
            }
        }
        let wrong = |(wanted, login): &(WantedKey, Option<Login>)| given(open, login.as_ref(), wanted);
        let mut mismatches: Vec<String> = found.iter().filter_map(wrong).collect();
        for (wanted, words) in self.read_back_services(open, &view)? {
            mismatches.extend(words);
            found.push((wanted, None));
        }
        let in_text = |entry: &&OwnEntry| {
            let login = open.logins.at(entry.endpoint);
            login.is_some() && entry.live.as_ref() == login && entry.text.as_ref() != login
        };
        let differs = |entry: &OwnEntry| {
            format!(
                "the text under {} is not what its map was compiled from",
                shown::quoted_key(&entry.key, entry.line)
            )
        };
        mismatches.extend(view.entries.iter().filter(in_text).map(differs));
        let live = view.entries.iter().find(|entry| entry.is_live_key);
        if live.is_none() {
            mismatches.push("the mail server would find no login for the endpoint".into());
        }
        let matches = mismatches.is_empty();
        let in_use = LoginInUse {
            username,
            live_id: Some(&open.live_id),
            has_previous,
            ours: earlier.iter().map(String::as_str).collect(),
        };
        let remaining_old = in_use.remaining_old(&view.left_out);
        let others = view.key_ids.others(Some(username));
        let first: Vec<&str> = [before, before_that].into_iter().flatten().map(String::as_str).collect();
        let room = prove.map_or(usize::MAX, |wanted| wanted.room);
        let held = StillHeld::within(room, &remaining_old, &others, &view.incomplete, &first);
        let (region, proven) = self.proves(&view, prove.filter(|_| matches), &held);
        let proof = proven.as_ref().map(|(password, fields)| credential::proof(password, fields));
        let code = proven.zip(nonce).map(|((password, fields), nonce)| {
            credential::code(password, &CodeFields::of(&fields, nonce)).map(|code| code.to_string())
        });
        let map = live.map(|entry| entry.table.to_string()).unwrap_or_default();
        let live_id = self.one_live_id(&view)?;
        let mut keys: Vec<String> = Vec::new();
        for (wanted, _) in &found {
            let key = shown::key(&wanted.key).into_owned();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let regions =
            (self.regions.len() > 1).then(|| RegionsRead { region, regional: open.regional.clone(), one_region });
        Ok(ReadBack {
            kind: self.kind.word(),
            matches,
            mismatches,
            keys,
            map,
            how: self.kind.read_back_by(),
            tables: tables_in_use(&view.services),
            remaining_old,
            others,
            incomplete: view.incomplete,
            held,
            live_id,
            running: view.running,
            regions,
            proof,
            code,
        })
    }

    /// What the running configuration gives now, proven where it is the login with this live id, and nothing else.
    pub(super) fn attest(&self, ours: &Ours, live_id: &str, prove: &WantedProof) -> Result<ReadBack, Fault> {
        let ours = &self.believed(ours, CallerPurpose::Look)?;
        let view = self.look(ours)?;
        all_readable(&view)?;
        let found = self.one_live_id(&view)?;
        let matches = [&found, &self.holds(&view)?].into_iter().all(|found| found.as_deref() == Some(live_id));
        let username = first_live(&view.services, &view.entries).map_or("", |login| &login.username);
        let remaining_old = LoginInUse::among(ours, username, found.as_deref()).remaining_old(&view.left_out);
        let others = view.key_ids.others(Some(username));
        let first: Vec<&str> = [&ours.applied, &ours.previous].into_iter().flatten().map(String::as_str).collect();
        let held = StillHeld::within(prove.room, &remaining_old, &others, &view.incomplete, &first);
        let outcome = ReportOutcome::Alive.word().to_owned();
        let wanted = WantedProof { fields: ProofFields { outcome, ..prove.fields.clone() }, ..prove.clone() };
        let (region, proven) = self.proves(&view, Some(&wanted).filter(|_| matches), &held);
        let proof = proven.map(|(password, fields)| credential::proof(password, &fields));
        let regions = (self.regions.len() > 1).then(|| RegionsRead {
            region,
            regional: ours.logins.regional.clone(),
            one_region: ours.one_region,
        });
        let mut keys: Vec<String> = Vec::new();
        for entry in view.entries.iter().filter(|entry| entry.is_live_key) {
            let key = shown::key(&entry.key).into_owned();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let live = view.entries.iter().find(|entry| entry.is_live_key);
        Ok(ReadBack {
            kind: self.kind.word(),
            matches,
            mismatches: Vec::new(),
            keys,
            map: live.map(|entry| entry.table.to_string()).unwrap_or_default(),
            how: self.kind.read_back_by(),
            tables: tables_in_use(&view.services),
            remaining_old,
            others,
            incomplete: view.incomplete,
            held,
            live_id: found,
            running: view.running,
            regions,
            proof,
            code: None,
        })
    }

    /// With which password a proof is made, and over what: with what was read back, not with what came in, so that it proves that
    /// the mail server has it. Where there are several regions, also which one it is of.
    fn proves<'v>(
        &self,
        view: &'v View,
        wanted: Option<&WantedProof>,
        held: &StillHeld,
    ) -> (Option<String>, Option<(&'v Secret, ProofFields)>) {
        let several = self.regions.len() > 1;
        // The default endpoint's password, else the one that there is.
        let first = view.entries.iter().filter(|entry| entry.is_live_key).min_by_key(|entry| entry.endpoint);
        let region = first.filter(|_| several).and_then(|entry| self.regions.get(entry.endpoint).cloned());
        let fields = wanted.map(|WantedProof { fields, .. }| ProofFields {
            v2: fields.v2.clone().map(|too| SignedToo { lists: held.signed(), ..too }),
            region: region.clone().unwrap_or_else(|| fields.region.clone()),
            ..fields.clone()
        });
        let password = first.and_then(|entry| Some(&entry.live.as_ref()?.password));
        (region, password.zip(fields))
    }

    /// What each client service finds under its live keys, through its tables in their order: those of now, and those that were
    /// planned. Each key with what is wrong, where that is not said of a table's entry already.
    fn read_back_services(&self, open: &OpenChange, view: &View) -> Result<Vec<(WantedKey, Option<String>)>, Fault> {
        let is_told = |table: Option<&TableId>, key: &str| {
            let is_it = |entry: &&OwnEntry| match table {
                Some(table) => entry.table == *table,
                None => entry.live.is_none() && entry.is_live_key,
            };
            view.entries.iter().filter(is_it).any(|entry| same_key(&entry.key, key))
        };
        let mut keys = Vec::new();
        let mut judge = |service: &str, wanted: WantedKey, answer: &Answer, table: Option<&TableId>| {
            let wrong = given(open, answer.login(), &wanted).filter(|_| !is_told(table, &wanted.key));
            let from = table.map_or(String::new(), |table| format!(", from {table}"));
            keys.push((wanted, wrong.map(|wrong| format!("for {service} {wrong}{from}"))));
        };
        for service in &view.services {
            for live in &service.keys {
                let wanted = WantedKey { key: live.key.clone(), endpoint: live.endpoint };
                judge(&service.service, wanted, &live.answer, live.table.as_ref());
            }
        }
        for planned in &open.services {
            let now = view.services.iter().find(|service| service.service == planned.service);
            let known = |key: &str| now.is_some_and(|now| now.keys.iter().any(|live| same_key(&live.key, key)));
            let rest: Vec<&WantedKey> = planned.keys.iter().filter(|wanted| !known(&wanted.key)).collect();
            let tables = now.map_or(&planned.tables, |now| &now.tables);
            let asked: Vec<String> = rest.iter().map(|wanted| wanted.key.clone()).collect();
            let found = look_up(&*self.mta, tables, |_| None, &asked)?;
            for (wanted, (answer, table)) in rest.into_iter().zip(&found) {
                judge(&planned.service, wanted.clone(), answer, *table);
            }
        }
        Ok(keys)
    }
}

/// A mail server that cannot read one of its login tables uses no login, whatever the others give.
fn all_readable(view: &View) -> Result<(), Fault> {
    match view.unreadable.first() {
        None => Ok(()),
        Some(table) => {
            Err(Fault::new(Class::Config, table.what.clone(), table.fix.clone()).in_file(table.file.clone()))
        }
    }
}

/// What is wrong with what was found under a key, in words that show no value; `None`: it is the login.
fn given(open: &OpenChange, found: Option<&Login>, wanted: &WantedKey) -> Option<String> {
    let key = shown::quoted_key(&wanted.key, None);
    match found {
        Some(login) if Some(login) == open.logins.at(wanted.endpoint) => None,
        Some(login) if login.username == open.logins.username() => {
            Some(format!("{key} gives another password for {}", login.username))
        }
        Some(login) => {
            let given = open.ours.login_of(&login.username, Some(open.logins.username()));
            Some(format!("{key} gives {given}"))
        }
        None => Some(format!("{key} gives no login")),
    }
}
