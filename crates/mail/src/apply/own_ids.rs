//! Which access key ids are a credential's own, as apply itself remembers it: `apply/ids.json`, beside the journal.
//!
//! The mail server's side writes over entries that hold an id of ours. Whoever asks knows more of these than is found here: what
//! the source names, what its state says. As long as nothing was ever prepared here for a credential, that is believed. From then
//! on only this list counts, so that a caller that somebody has taken over cannot name other relays' keys as ours. What is
//! prepared adds its own id, and root may name one more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::journal::ApplyJournal;
use crate::credential::is_access_key_id;
use crate::fault::{Class, Fault};
use crate::host;
use crate::mta::Ours;

/// The largest file that is read.
const MAX_FILE: usize = 1 << 20;
/// How many ids of each kind are remembered of a credential.
const REMEMBERED: usize = 256;
const FORMAT: u32 = 1;

/// What is remembered of one credential, each the latest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnIds {
    /// What was prepared here, and what was believed when the first was.
    #[serde(default)]
    prepared: Vec<String>,
    /// What root named as an earlier one.
    #[serde(default)]
    named_by_root: Vec<String>,
}

/// What a caller is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallerPurpose {
    /// It only looks: the version that it looks at is not prepared yet, and may stand there by hand.
    Look,
    /// What is ours is written over.
    Change,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnIdsDocument {
    format: u32,
    credentials: BTreeMap<String, OwnIds>,
}

impl OwnIds {
    /// What a caller says is ours, as far as it is believed. Of names that are no access key ids their passwords tell.
    pub(super) fn believed(&self, ours: &Ours, purpose: CallerPurpose) -> Ours {
        let mut ours = ours.clone();
        let said: Vec<String> =
            (ours.applied.iter().chain(&ours.previous).chain(&ours.known).chain(&ours.named)).cloned().collect();
        let named = std::mem::take(&mut ours.named).into_iter().filter(|id| is_access_key_id(id));
        if self.prepared.is_empty() {
            ours.known.extend(named);
        } else {
            let knows =
                |id: &String| !is_access_key_id(id) || self.prepared.contains(id) || self.named_by_root.contains(id);
            ours.applied = ours.applied.filter(knows);
            ours.previous = ours.previous.filter(knows);
            if purpose == CallerPurpose::Change {
                ours.known.retain(knows);
            }
            if ours.applied.is_none() {
                // The caller has lost its state, or was killed before its first change was in place: whatever is remembered may
                // be in use. And it is no host without state.
                ours.known.extend(self.prepared.iter().cloned());
                ours.applied = self.prepared.last().cloned();
                // What was found in use at the first change, at whatever target, is among them. The last is the version of that change.
                let others = self.prepared.iter().rev().skip(1).filter(|id| !said.contains(id));
                ours.remembered = others.filter(|id| !self.named_by_root.contains(id)).cloned().collect();
            }
            ours.earlier.extend(self.prepared.iter().cloned());
        }
        ours.known.extend(self.named_by_root.iter().cloned());
        ours.earlier.extend(self.named_by_root.iter().cloned());
        ours.named_by_root.clone_from(&self.named_by_root);
        ours
    }

    /// Was anything prepared yet?
    pub(super) fn is_empty(&self) -> bool {
        self.prepared.is_empty()
    }
}

impl ApplyJournal {
    fn own_ids_path(&self) -> std::path::PathBuf {
        self.dir().join("ids.json")
    }

    fn own_ids_document(&self) -> Result<OwnIdsDocument, Fault> {
        let path = self.own_ids_path();
        let bytes = match host::read_own(&path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(OwnIdsDocument::default()),
            Err(e) => return Err(e.into()),
        };
        let broken = |line, what: String| {
            let fix = format!("remove {}: the ids are learnt anew from what this host says", path.display());
            Fault::new(Class::Config, what, fix).in_file(path.clone()).at_line(line)
        };
        let document: OwnIdsDocument = serde_json::from_slice(&bytes)
            .map_err(|e| broken(Some(e.line()), format!("the list of key ids cannot be read: {e}")))?;
        if document.format != FORMAT {
            let what = format!("the list of key ids has format {}, and this relaykey reads {FORMAT}", document.format);
            return Err(broken(None, what));
        }
        Ok(document)
    }

    /// What is remembered of a credential. Changes nothing.
    pub(super) fn own_ids(&self, credential: &str) -> Result<OwnIds, Fault> {
        Ok(self.own_ids_document()?.credentials.remove(credential).unwrap_or_default())
    }

    /// Remembers what is prepared, and what was believed with it, durably.
    pub(super) fn prepares(&self, credential: &str, believed: &Ours, username: &str) -> Result<(), Fault> {
        let Ours { applied, previous, known, earlier, .. } = believed;
        let new: Vec<&String> = match self.own_ids(credential)?.is_empty() {
            true => earlier.iter().chain(known).chain(previous).chain(applied).collect(),
            // What counts is remembered.
            false => Vec::new(),
        };
        let new: Vec<String> = new.into_iter().cloned().chain([username.to_owned()]).collect();
        self.learn_ids(credential, |ids| &mut ids.prepared, &new)
    }

    /// Remembers what root names as an earlier one, durably.
    pub(super) fn root_names(&self, credential: &str, id: String) -> Result<(), Fault> {
        self.learn_ids(credential, |ids| &mut ids.named_by_root, &[id])
    }

    fn learn_ids(
        &self,
        credential: &str,
        list: fn(&mut OwnIds) -> &mut Vec<String>,
        new: &[String],
    ) -> Result<(), Fault> {
        let new: Vec<&String> = new.iter().filter(|id| is_access_key_id(id)).collect();
        let known = list(&mut self.own_ids(credential)?).clone();
        if new.last().is_none_or(|last| known.last() == Some(last)) && new.iter().all(|id| known.contains(id)) {
            return Ok(());
        }
        let _lock = self.lock()?;
        let mut document = self.own_ids_document()?;
        let ids = list(document.credentials.entry(credential.to_owned()).or_default());
        for id in new {
            ids.retain(|known| known != id);
            ids.push(id.clone());
        }
        ids.drain(..ids.len().saturating_sub(REMEMBERED));
        document.format = FORMAT;
        let text = serde_json::to_vec_pretty(&document).expect("texts and numbers have a JSON form");
        Ok(host::replace(&self.own_ids_path(), &text, 0o600)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn said() -> Ours {
        Ours {
            applied: Some("AKIAAPPLIED".into()),
            previous: Some("AKIAPREVIOUS".into()),
            known: texts(&["AKIAKNOWN"]),
            earlier: texts(&["AKIAEARLIER"]),
            named: texts(&["AKIANAMED", "not an access key id"]),
            ..Ours::default()
        }
    }

    #[test]
    fn a_caller_is_believed_as_long_as_nothing_was_prepared() {
        let believed = OwnIds::default().believed(&said(), CallerPurpose::Change);
        assert_eq!(believed.known, texts(&["AKIAKNOWN", "AKIANAMED"]));
        let of_state = |ours: Ours| (ours.applied, ours.previous, ours.earlier);
        assert_eq!(of_state(believed), of_state(said()));
        // What root names says nothing about the rest.
        let ids = OwnIds { named_by_root: texts(&["AKIAROOT"]), ..OwnIds::default() };
        let believed = ids.believed(&said(), CallerPurpose::Change);
        assert_eq!(believed.known, texts(&["AKIAKNOWN", "AKIANAMED", "AKIAROOT"]));
    }

    #[test]
    fn afterwards_only_what_is_remembered_is_ours() {
        let ids = OwnIds {
            prepared: texts(&["AKIAOLD", "AKIAPREVIOUS", "AKIALAST", "AKIAAPPLIED"]),
            named_by_root: texts(&["AKIAROOT"]),
        };
        let believed = ids.believed(&said(), CallerPurpose::Change);
        assert_eq!(believed.applied.as_deref(), Some("AKIAAPPLIED"));
        assert_eq!(believed.previous.as_deref(), Some("AKIAPREVIOUS"));
        assert_eq!(believed.known, texts(&["AKIAROOT"]));
        for id in ["AKIAEARLIER", "AKIAOLD", "AKIALAST", "AKIAROOT"] {
            assert!(believed.earlier.iter().any(|earlier| earlier == id), "{id} is named where it is left");
        }
        // Who only looks may have a version in view that is not prepared yet.
        assert_eq!(ids.believed(&said(), CallerPurpose::Look).known, texts(&["AKIAKNOWN", "AKIAROOT"]));
        // A host that remembers anything is none without state: whatever it remembers is ours, and nothing else.
        let strange = Ours { applied: Some("AKIASTRANGE".into()), named: texts(&["AKIANAMED"]), ..Ours::default() };
        for ours in [Ours::default(), strange] {
            let believed = ids.believed(&ours, CallerPurpose::Change);
            assert_eq!(believed.applied.as_deref(), Some("AKIAAPPLIED"));
            assert_eq!(believed.known, texts(&["AKIAOLD", "AKIAPREVIOUS", "AKIALAST", "AKIAAPPLIED", "AKIAROOT"]));
        }
        // Of those that nobody else names nothing is known but that they were in use here; the last is that of the version here.
        let again = Ours { named: texts(&["AKIAPREVIOUS"]), ..Ours::default() };
        let believed = ids.believed(&again, CallerPurpose::Change);
        assert_eq!(believed.remembered, texts(&["AKIALAST", "AKIAOLD"]));
        assert_eq!(believed.named_by_root, texts(&["AKIAROOT"]));
        assert_eq!(ids.believed(&said(), CallerPurpose::Change).remembered, texts(&[]));
        let by_password = Ours { applied: Some("apikey".into()), known: texts(&["other"]), ..Ours::default() };
        let believed = ids.believed(&by_password, CallerPurpose::Change);
        assert_eq!((believed.applied.as_deref(), believed.known), (Some("apikey"), texts(&["other", "AKIAROOT"])));
    }

    #[test]
    fn what_is_prepared_is_remembered_with_what_was_believed_then() {
        let dir = std::env::temp_dir().join(format!("relaykey-ids-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let journal = ApplyJournal::new(&dir);
        let ours = |applied: &str| Ours { applied: Some(applied.into()), ..Ours::default() };
        let first = Ours { known: texts(&["AKIANAMED", "joe"]), ..ours("AKIAOLD") };
        journal.prepares("ses", &first, "AKIANEW").unwrap();
        journal.prepares("ses", &ours("AKIAOTHER"), "AKIANEWER").unwrap();
        journal.root_names("ses", "AKIAROOT".into()).unwrap();
        let ids = ApplyJournal::new(&dir).own_ids("ses").unwrap();
        assert_eq!(ids.prepared, texts(&["AKIANAMED", "AKIAOLD", "AKIANEW", "AKIANEWER"]));
        assert_eq!(ids.named_by_root, texts(&["AKIAROOT"]));
        assert_eq!(journal.own_ids("other").unwrap(), OwnIds::default());
        // What cannot be read is not forgotten: then anything would be believed again.
        for broken in ["{", r#"{"format": 2, "credentials": {}}"#] {
            std::fs::write(dir.join("apply/ids.json"), broken).unwrap();
            let fault = journal.own_ids("ses").unwrap_err();
            assert!(fault.class == Class::Config && fault.fix.contains("ids.json"), "{fault:?}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
