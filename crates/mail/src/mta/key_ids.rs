//! The access key ids that login tables hold, under whatever key. What is not ours is left as it is, but a host that holds
//! another key id says so: whoever is about to retire that key learns where it is still in use. Pure.
//!
//! A user name of any other form is never taken in: a secret may stand in its place.

use std::collections::BTreeMap;

use relaykey_core::report::{EntryPlace, HeldKeyId, OtherKeyIds};

use super::{TableId, shown};
use crate::credential::is_access_key_id;

/// So many places are named of each.
pub const PLACES: usize = 3;
/// So many key ids are told apart; of the others it is known how many entries hold one.
const MOST: usize = 10_000;

/// Those that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyIds {
    held: BTreeMap<String, (usize, Vec<EntryPlace>)>,
    /// How many entries hold one that is not told apart any more.
    beyond: usize,
}

impl KeyIds {
    /// One more entry with this user name, where that is an access key id.
    pub fn add(&mut self, username: &str, table: &TableId, line: Option<usize>, key: &str) {
        if !is_access_key_id(username) {
            return;
        }
        if !self.held.contains_key(username) && self.held.len() >= MOST {
            self.beyond += 1;
            return;
        }
        let (count, places) = self.held.entry(username.to_owned()).or_default();
        *count += 1;
        if places.len() < PLACES {
            places.push(EntryPlace { table: table.to_string(), line, key: shown::key(key).into_owned() });
        }
    }

    /// Those of another table too.
    pub fn join(&mut self, other: &Self) {
        self.beyond += other.beyond;
        for (id, (count, places)) in &other.held {
            if !self.held.contains_key(id) && self.held.len() >= MOST {
                self.beyond += count;
                continue;
            }
            let (have, named) = self.held.entry(id.clone()).or_default();
            *have += count;
            named.extend(places.iter().take(PLACES - named.len()).cloned());
        }
    }

    /// Those of another place that are not known from any other.
    pub fn join_unknown(&mut self, other: &Self) {
        let mut unknown = other.clone();
        unknown.held.retain(|id, _| !self.held.contains_key(id));
        self.join(&unknown);
    }

    /// Those that stand anywhere in a text which is no table of single keys, but for what is commented out.
    pub fn in_text(text: &str, file: &TableId) -> Self {
        // AWS makes none that is shorter.
        const LEAST: usize = 16;
        let mut found = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            for word in words.filter(|word| word.len() >= LEAST) {
                found.add(word, file, Some(number + 1), "");
            }
        }
        found
    }

    /// All but the one in use, by name, and how many there are: more than are named, where there were too many.
    pub fn others(&self, in_use: Option<&str>) -> OtherKeyIds {
        let others = self.held.iter().filter(|(id, _)| in_use != Some(id.as_str()));
        let named: Vec<HeldKeyId> = others
            .map(|(id, (count, places))| HeldKeyId { id: id.clone(), count: *count, places: places.clone() })
            .collect();
        OtherKeyIds { count: named.len() + self.beyond, named }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableId {
        TableId::new(name)
    }

    #[test]
    fn access_key_ids_are_counted_and_the_first_places_named() {
        let (one, other) = (table("hash:/a"), table("lmdb:/b"));
        let mut ids = KeyIds::default();
        for line in 1..=5 {
            ids.add("AKIAOLD", &one, Some(line), &format!("[relay{line}.example.com]:587"));
        }
        ids.add("AKIANEW", &one, Some(6), "[relay.example.com]:587");
        let mut more = KeyIds::default();
        more.add("AKIAOLD", &other, None, "sales@example.com");
        more.add("AKIAELSE", &other, Some(1), "[else.example.com]:25");
        ids.join(&more);
        let others = ids.others(Some("AKIANEW"));
        assert_eq!(others.count, 2);
        let found: Vec<(&str, usize)> = others.named.iter().map(|held| (held.id.as_str(), held.count)).collect();
        assert_eq!(found, [("AKIAELSE", 1), ("AKIAOLD", 6)]);
        let lines: Vec<Option<usize>> = others.named[1].places.iter().map(|place| place.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(3)]);
        assert_eq!(others.named[0].places[0].table, other.as_str());
        assert_eq!(ids.others(None).count, 3);
    }

    #[test]
    fn nothing_but_access_key_ids_is_ever_named() {
        let mut ids = KeyIds::default();
        // Names of other relays' users, and secrets in their place.
        for name in
            ["apikey", "joe@example.com", "", "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS", "AKIA small", "akiaold"]
        {
            ids.add(name, &table("hash:/a"), Some(1), "[relay.example.com]:587");
        }
        assert_eq!(ids.others(None), OtherKeyIds::default());
        // Nor a secret in the place of the key.
        ids.add("AKIAOLD", &table("hash:/a"), Some(1), "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        assert!(!format!("{ids:?}").contains("wJalr"), "{ids:?}");
    }

    #[test]
    fn a_text_that_is_no_table_is_looked_through() {
        let text = "# x = AKIAIOSFODNN7EXAMPL0:p\na = static:AKIAIOSFODNN7EXAMPLE:p\n  -o b={AKIAIOSFODNN7EXAMPL2 AKIA}\n\
                    c = xAKIAIOSFODNN7EXAMPL3 d=AKIAIOSFODNN7EXAMPL4";
        let found = KeyIds::in_text(text, &table("/etc/postfix/main.cf"));
        let others = found.others(None).named;
        let said: Vec<_> = others.iter().map(|held| (held.id.as_str(), held.places[0].line)).collect();
        assert_eq!(
            said,
            [("AKIAIOSFODNN7EXAMPL2", Some(3)), ("AKIAIOSFODNN7EXAMPL4", Some(4)), ("AKIAIOSFODNN7EXAMPLE", Some(2)),]
        );
        // Where it is known from a table, that says where it stands.
        let mut all = KeyIds::default();
        all.add("AKIAIOSFODNN7EXAMPLE", &table("hash:/a"), Some(1), "[relay.example.com]:587");
        all.join_unknown(&found);
        assert_eq!(all.others(None).named.iter().map(|held| held.count).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(all.others(None).named[2].places[0].table, "hash:/a");
    }

    #[test]
    fn too_many_are_counted() {
        let mut ids = KeyIds::default();
        for n in 0..MOST + 5 {
            ids.add(&format!("AKIA{n:08}"), &table("hash:/a"), Some(n), "k.example.com");
        }
        let others = ids.others(Some("AKIA00000000"));
        assert_eq!((others.named.len(), others.count), (MOST - 1, MOST + 4));
        let mut joined = KeyIds::default();
        joined.add("AKIAZ", &table("lmdb:/b"), None, "k.example.com");
        joined.join(&ids);
        assert_eq!(joined.others(None).count, MOST + 6);
    }
}
