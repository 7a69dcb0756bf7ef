//! What a mail server's login tables hold beside the login in use, as a report tells it: what still holds an earlier login, other
//! access key ids, and tables that could not be listed. Whoever is about to retire a key goes by it, so that the proof covers it.
//!
//! A list may be longer than a place for reports holds. It is shortened *before* the proof is made, never after, and says how
//! long it was: one that is shorter than its count is taken for one that hides what is asked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::text;

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntryPlace {
    /// `type:path`.
    pub table: String,
    /// 1-based line in the text; `None`: it stands in the compiled map alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The lookup key, or words where it may not be shown.
    pub key: String,
}

/// An access key id, how many entries hold it, and where the first of them stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeldKeyId {
    pub id: String,
    pub count: usize,
    /// At most three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<EntryPlace>,
}

/// Every access key id but the one in use that a mail server's login tables hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherKeyIds {
    /// How many there are, at most. More than are named: the list hides some.
    pub count: usize,
    /// By name.
    pub named: Vec<HeldKeyId>,
}

/// What a report says of it: each list sorted, and as long as there is room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct StillHeld {
    /// Lookup keys of entries that hold an earlier login of ours.
    #[serde(default)]
    pub remaining_old: Vec<String>,
    /// How many there are; `None`: the list is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_old_count: Option<usize>,
    /// Access key ids other than the one in use, those of ours first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<HeldKeyId>,
    /// As `remaining_old_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_count: Option<usize>,
    /// Login tables that could not be listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<String>,
    /// As `remaining_old_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_count: Option<usize>,
}

/// Of lists that say the same by their first element, so many are named.
const MOST_NAMED: usize = 10;
/// Characters of one text.
const LONGEST: usize = 120;

impl StillHeld {
    /// `first`: access key ids that are named before others. `room`: characters of JSON that all three may take. What is asked
    /// first goes in first: is there anything at all; which key ids; then the rest, and where they stand.
    pub fn within(
        room: usize,
        remaining_old: &[String],
        others: &OtherKeyIds,
        incomplete: &[String],
        first: &[&str],
    ) -> Self {
        let (old, unlisted) = (smallest(remaining_old), smallest(incomplete));
        let mut ids: Vec<&HeldKeyId> = others.named.iter().collect();
        ids.sort_by_key(|held| (!first.contains(&held.id.as_str()), &held.id));
        let mut left = room;
        let mut held = Self::default();
        let take = |list: &mut Vec<String>, from: &[String], most: usize, left: &mut usize| {
            for text in &from[list.len()..most.min(from.len())] {
                if !spend(left, length(text)) {
                    break;
                }
                list.push(text.clone());
            }
        };
        take(&mut held.remaining_old, &old, 1, &mut left);
        take(&mut held.incomplete, &unlisted, 1, &mut left);
        for key in &ids {
            let named = HeldKeyId { id: key.id.clone(), count: key.count, places: Vec::new() };
            if !spend(&mut left, length(&named)) {
                break;
            }
            held.others.push(named);
        }
        take(&mut held.remaining_old, &old, MOST_NAMED, &mut left);
        take(&mut held.incomplete, &unlisted, MOST_NAMED, &mut left);
        for nth in 0.. {
            let mut some = false;
            for (named, key) in held.others.iter_mut().zip(&ids) {
                let Some(place) = key.places.get(nth).filter(|_| named.places.len() == nth) else { continue };
                let EntryPlace { table, line, key } = place;
                let place = EntryPlace { table: told(table), line: *line, key: told(key) };
                let begins = if nth == 0 { r#","places":[]"#.len() } else { 0 };
                some = true;
                if spend(&mut left, begins + length(&place)) {
                    named.places.push(place);
                }
            }
            if !some {
                break;
            }
        }
        let shortened = |listed: usize, all: usize| Some(all).filter(|all| *all > listed);
        held.remaining_old_count = shortened(held.remaining_old.len(), remaining_old.len());
        held.others_count = shortened(held.others.len(), others.count.max(others.named.len()));
        held.incomplete_count = shortened(held.incomplete.len(), incomplete.len());
        held
    }

    /// Does a list hide some of what it counts?
    pub fn is_shortened(&self) -> bool {
        let shorter = |count: Option<usize>, listed: usize| count.is_some_and(|count| count != listed);
        shorter(self.remaining_old_count, self.remaining_old.len())
            || shorter(self.others_count, self.others.len())
            || shorter(self.incomplete_count, self.incomplete.len())
    }

    /// How many entries hold an earlier login of ours, named or not.
    pub fn remaining(&self) -> usize {
        self.remaining_old_count.unwrap_or(self.remaining_old.len())
    }

    /// How many other access key ids there are, named or not.
    pub fn other_ids(&self) -> usize {
        self.others_count.unwrap_or(self.others.len())
    }

    /// How many tables could not be listed, named or not.
    pub fn unlisted(&self) -> usize {
        self.incomplete_count.unwrap_or(self.incomplete.len())
    }

    /// Nothing is held beside the login in use, and every table could be listed.
    pub fn is_empty(&self) -> bool {
        (self.remaining(), self.other_ids(), self.unlisted()) == (0, 0, 0)
    }

    /// What it means, for people: one sentence each.
    pub fn said(&self) -> Vec<String> {
        let mut said = Vec::new();
        let more = |named: usize, all: usize| match all.saturating_sub(named) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        if self.remaining() > 0 {
            let (n, named) = (self.remaining(), &self.remaining_old);
            let (entries, hold) = if n == 1 { ("one entry".into(), "holds") } else { (format!("{n} entries"), "hold") };
            let under = format!("{}{}", named.join(", "), more(named.len(), n));
            said.push(format!(
                "{entries} still {hold} an earlier key (under {under}): the control side will not retire that key before they are changed"
            ));
        }
        for HeldKeyId { id, count, places } in &self.others {
            let place = |place: &EntryPlace| {
                let line = place.line.map(|line| format!(" line {line}")).unwrap_or_default();
                format!("{}{line}, under {}", place.table, place.key)
            };
            let shown: Vec<String> = places.iter().map(place).collect();
            let (shown, more) = (shown.join("; "), more(places.len(), *count));
            let entries = if *count == 1 { "one entry".to_owned() } else { format!("{count} entries") };
            let where_ = if places.is_empty() { String::new() } else { format!(": {shown}{more}") };
            said.push(format!(
                "another access key, {id}, stands in {entries} of the password tables{where_}. The control side will not retire it while \
                 it stands there"
            ));
        }
        if self.other_ids() > self.others.len() {
            let n = self.other_ids() - self.others.len();
            let are = if n == 1 { "one more access key stands".into() } else { format!("{n} more access keys stand") };
            said.push(format!(
                "{are} in the password tables, not named here for want of room. The control side will not retire any key until all are named"
            ));
        }
        if self.unlisted() > 0 {
            let (n, named) = (self.unlisted(), &self.incomplete);
            let tables = if n == 1 { "one password table" } else { "some password tables" };
            let named = format!("{}{}", named.join(", "), more(named.len(), n));
            said.push(format!(
                "{tables} could not be listed ({named}), so that nobody knows which keys stand there. The control side will not retire \
                 any key by this host's word alone"
            ));
        }
        said
    }

    /// The texts that a proof covers. Before each list stand how many there are and how many of them are named, so that no other
    /// lists give the same texts.
    pub fn signed(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut list = |count: usize, named: Vec<Vec<String>>| {
            texts.extend([count.to_string(), named.len().to_string()]);
            texts.extend(named.into_iter().flatten());
        };
        let plain = |list: &[String]| list.iter().map(|text| vec![text.clone()]).collect();
        list(self.remaining(), plain(&self.remaining_old));
        let key = |held: &HeldKeyId| {
            let HeldKeyId { id, count, places } = held;
            let place = |place: &EntryPlace| {
                let line = place.line.map(|line| line.to_string()).unwrap_or_default();
                [place.table.clone(), line, place.key.clone()]
            };
            let head = [id.clone(), count.to_string(), places.len().to_string()];
            head.into_iter().chain(places.iter().flat_map(place)).collect()
        };
        list(self.other_ids(), self.others.iter().map(key).collect());
        list(self.unlisted(), plain(&self.incomplete));
        texts
    }
}

/// A mark of what is held, by which it is known whether a report would say something else: which entries, ids and tables. Not
/// the numbers of lines: they change with every line that somebody adds above.
pub fn held_mark(remaining_old: &[String], others: &OtherKeyIds, incomplete: &[String]) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(text);
    };
    let mut list = |list: &[String]| {
        let sorted: BTreeSet<&String> = list.iter().collect();
        add(&list.len().to_string());
        sorted.into_iter().for_each(|text| add(text));
    };
    list(remaining_old);
    list(incomplete);
    add(&others.count.to_string());
    let mut ids: Vec<&HeldKeyId> = others.named.iter().collect();
    ids.sort_by_key(|held| &held.id);
    for held in ids {
        add(&held.id);
        add(&held.count.to_string());
        for EntryPlace { table, key, .. } in &held.places {
            add(table);
            add(key);
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The first of them in their order, as they are told. There may be a million.
fn smallest(list: &[String]) -> Vec<String> {
    let mut all: Vec<&String> = list.iter().collect();
    if all.len() > MOST_NAMED {
        all.select_nth_unstable(MOST_NAMED);
        all.truncate(MOST_NAMED);
    }
    all.sort();
    all.into_iter().map(|text| told(text)).collect()
}

/// Without what does not show, and of a length that leaves room for others.
fn told(text: &str) -> String {
    let plain = text::plain(text, LONGEST);
    if text.chars().nth(LONGEST).is_some() { plain + "…" } else { plain }
}

/// Characters of JSON that it takes, the comma after it too, and with every brace that a place for reports has to write as six.
fn length(value: &impl Serialize) -> usize {
    let json = serde_json::to_string(value).unwrap_or_default();
    json.len() + 1 + 5 * json.matches("{{").count()
}

fn spend(left: &mut usize, cost: usize) -> bool {
    let fits = cost <= *left;
    if fits {
        *left -= cost;
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{self, Secret};
    use crate::report::{REPORT_V1, REPORT_V2, Report};

    fn ids(names: &[&str], places: usize) -> OtherKeyIds {
        let place =
            |n| EntryPlace { table: "hash:/etc/postfix/sasl".into(), line: Some(n), key: format!("k{n}.example") };
        let held = |id: &&str| HeldKeyId {
            id: (*id).to_owned(),
            count: places,
            places: (1..=places.min(3)).map(place).collect(),
        };
        OtherKeyIds { count: names.len(), named: names.iter().map(held).collect() }
    }

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lists_are_sorted_with_ours_first_and_whole_where_there_is_room() {
        let found = ids(&["AKIAB", "AKIAC", "AKIAA"], 3);
        let held = StillHeld::within(4000, &texts(&["b", "a"]), &found, &texts(&["mysql:z", "mysql:y"]), &["AKIAC"]);
        assert_eq!(held.remaining_old, ["a", "b"]);
        assert_eq!(held.others.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(), ["AKIAC", "AKIAA", "AKIAB"]);
        assert!(held.others.iter().all(|other| other.places.len() == 3), "{held:?}");
        assert_eq!(held.incomplete, ["mysql:y", "mysql:z"]);
        assert!(!held.is_shortened());
        assert_eq!((held.remaining(), held.other_ids(), held.unlisted()), (2, 3, 2));
        assert_eq!(serde_json::to_value(StillHeld::default()).unwrap(), serde_json::json!({"remaining_old": []}));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_ours_is_named_before_others() {
        let names: Vec<String> = (0..200).map(|n| format!("AKIA{n:016}")).collect();
        let found = ids(&names.iter().map(String::as_str).collect::<Vec<_>>(), 3);
        let old: Vec<String> = (0..100_000).map(|n| format!("[relay{n:06}.example.com]:587")).rev().collect();
        for room in [0, 40, 100, 300, 1000, 1600] {
            let held = StillHeld::within(room, &old, &found, &texts(&["mysql:/x"]), &[&names[150]]);
            let empty = serde_json::to_string(&StillHeld { others: Vec::new(), ..StillHeld::default() }).unwrap().len();
            let counts =
                r#","others":[],"incomplete":[],"remaining_old_count":100000,"others_count":200,"incomplete_count":1"#;
            let json = serde_json::to_string(&held).unwrap();
            assert!(json.len() <= room + empty + counts.len(), "{room}: {} {json}", json.len());
            assert!(held.is_shortened());
            assert_eq!((held.remaining(), held.other_ids(), held.unlisted()), (100_000, 200, 1));
            if room >= 300 {
                assert_eq!(held.remaining_old[0], "[relay000000.example.com]:587");
                assert_eq!(held.incomplete, ["mysql:/x"]);
                assert_eq!(held.others[0].id, names[150]);
            }
        }
        // An id that the tables held beyond those that are told apart is counted all the same.
        let beyond = OtherKeyIds { count: 9, ..ids(&["AKIAA"], 1) };
        assert_eq!(StillHeld::within(4000, &[], &beyond, &[], &[]).others_count, Some(9));
    }

    #[test]
    fn no_two_lists_give_the_same_signed_texts() {
        let found = |old: &[&str], names: &[&str], unlisted: &[&str]| {
            StillHeld::within(4000, &texts(old), &ids(names, 1), &texts(unlisted), &[])
        };
        let all = [
            found(&[], &[], &[]),
            found(&["1"], &[], &[]),
            found(&["1", "1"], &[], &[]),
            found(&[], &[], &["1"]),
            found(&[], &["AKIAA"], &[]),
            found(&["0", "AKIAA"], &[], &[]),
            StillHeld { others_count: Some(1), ..StillHeld::default() },
            StillHeld { remaining_old_count: Some(1), ..StillHeld::default() },
            StillHeld { incomplete_count: Some(1), ..StillHeld::default() },
        ];
        let signed: BTreeSet<Vec<String>> = all.iter().map(StillHeld::signed).collect();
        assert_eq!(signed.len(), all.len());
        // Each part of a place too.
        let one = found(&[], &["AKIAA"], &[]);
        let with = |change: fn(&mut HeldKeyId)| {
            let mut held = one.clone();
            change(&mut held.others[0]);
            held.signed()
        };
        let changed: [fn(&mut HeldKeyId); 6] = [
            |held| held.id.push('X'),
            |held| held.count += 1,
            |held| held.places[0].line = None,
            |held| held.places[0].table.push('x'),
            |held| held.places[0].key.push('x'),
            |held| held.places.clear(),
        ];
        for change in changed {
            assert_ne!(with(change), one.signed());
        }
    }

    #[test]
    fn the_published_vectors_are_what_is_signed() {
        let document = include_str!("../../../../docs/proof.md");
        let (_, vectors) = document.split_once("## Test vectors").unwrap();
        let (vectors, _) = vectors.split_once("\n## ").unwrap();
        let password = Secret::new(vectors.split('`').nth(1).unwrap().into());
        let blocks: Vec<Vec<&str>> = vectors
            .split("```text\n")
            .skip(1)
            .map(|b| b.split("\n```").next().unwrap().split('\n').collect())
            .collect();
        let [head, v1, none, of_none, some, of_some] = blocks.as_slice() else { panic!("{blocks:?}") };
        let report = |schema: &str, held: &StillHeld| -> Report {
            let mut target = serde_json::json!({
                "name": head[5], "kind": "postfix", "map": "hash:/t", "keys": [], "read_back": "postmap -q", "region": head[6],
                "evidence": {"endpoint": "e:587", "reply": "235", "at": none[1]}, "proof": null, "no_proof": null,
            });
            let held = serde_json::to_value(held).unwrap();
            target.as_object_mut().unwrap().extend(held.as_object().unwrap().clone());
            serde_json::from_value(serde_json::json!({
                "schema": schema, "id": "id", "seq": head[8].parse::<u64>().unwrap(), "host_id": head[0], "host": head[1],
                "credential": head[2], "source": none[0], "version": head[3], "username": head[4], "previous_username": null,
                "at": head[9], "mode": "automatic", "agent": "relaykey", "outcome": head[7], "targets": [target], "error": null,
                "approved_by": null,
            }))
            .unwrap()
        };
        let place = |table: &str, line, key: &str| EntryPlace { table: table.into(), line, key: key.into() };
        let other = HeldKeyId {
            id: "AKIAEXAMPLE1".into(),
            count: 3,
            places: vec![
                place("hash:/etc/postfix/sasl_passwd", Some(4), "sales@example.com"),
                place("lmdb:/etc/postfix/sasl_more", None, "[relay.example.com]:587"),
            ],
        };
        let held = StillHeld {
            remaining_old: texts(&["[relay.example.com]:587"]),
            others: vec![other],
            others_count: Some(2),
            incomplete: texts(&["proxy:mysql:/etc/postfix/sasl.cf"]),
            ..StillHeld::default()
        };
        assert_eq!(held.signed(), some[2..]);
        let nothing = StillHeld::default();
        for (schema, held, proof) in
            [(REPORT_V1, &nothing, v1), (REPORT_V2, &nothing, of_none), (REPORT_V2, &held, of_some)]
        {
            let report = report(schema, held);
            let fields = report.proof_fields(&report.targets[0]);
            assert_eq!(credential::proof(&password, &fields).as_deref(), Ok(proof[0]), "{schema}");
        }
    }

    #[test]
    fn the_mark_changes_with_what_is_held_and_not_with_its_order_or_lines() {
        let (old, none) = (texts(&["a", "b"]), Vec::new());
        let mark = |names: &[&str], places| held_mark(&old, &ids(names, places), &none);
        let one = mark(&["AKIAA", "AKIAB"], 2);
        assert_eq!(one, held_mark(&texts(&["b", "a"]), &ids(&["AKIAB", "AKIAA"], 2), &none));
        let mut moved = ids(&["AKIAA", "AKIAB"], 2);
        moved.named[0].places[0].line = Some(99);
        assert_eq!(one, held_mark(&old, &moved, &none));
        moved.named[0].places[0].table = "lmdb:/elsewhere".into();
        let others = [
            mark(&["AKIAA"], 2),
            mark(&["AKIAA", "AKIAB"], 1),
            mark(&["AKIAA", "AKIAC"], 2),
            held_mark(&texts(&["a"]), &ids(&["AKIAA", "AKIAB"], 2), &none),
            held_mark(&old, &ids(&["AKIAA", "AKIAB"], 2), &texts(&["mysql:x"])),
            held_mark(&old, &moved, &none),
        ];
        assert!(others.iter().all(|other| *other != one), "{others:?}");
    }

    #[test]
    fn what_is_held_is_said_in_sentences() {
        assert!(StillHeld::default().said().is_empty() && StillHeld::default().is_empty());
        let held = StillHeld::within(4000, &texts(&["a", "b"]), &ids(&["AKIAA"], 4), &texts(&["proxy:mysql:/x"]), &[]);
        let said = held.said();
        assert_eq!(said.len(), 3);
        assert!(said[0].starts_with("2 entries still hold an earlier key (under a, b)"), "{said:?}");
        let places = "another access key, AKIAA, stands in 4 entries of the password tables: hash:/etc/postfix/sasl line 1, under \
                      k1.example; ";
        assert!(said[1].starts_with(places) && said[1].contains("; and 1 more. The control side will not"), "{said:?}");
        assert!(said[2].starts_with("one password table could not be listed (proxy:mysql:/x)"), "{said:?}");
        let short = StillHeld { others_count: Some(3), ..StillHeld::default() };
        assert!(short.said()[0].starts_with("3 more access keys stand in"), "{:?}", short.said());
    }

    #[test]
    fn a_text_is_cut_before_it_is_signed_and_has_no_control_character() {
        let long = texts(&[&"x".repeat(500), "a\u{1b}[2J\nb"]);
        let held = StillHeld::within(4000, &long, &OtherKeyIds::default(), &[], &[]);
        assert_eq!(held.remaining_old[0], "a[2Jb");
        assert!(held.remaining_old[1].ends_with('…') && held.remaining_old[1].chars().count() == LONGEST + 1);
    }
}
