//! Words of documents as values: one enum for each set of words, so that nobody goes by a text. What is written is the word; one
//! that this program does not know, because another release wrote it, is kept as it was read and written again as that.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};

/// A word of another release, kept as it was read, so that a file that is written again says what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ForeignWord(&'static str);

/// Each is held once, as long as the program runs. More and longer ones than any release has are not held.
static FOREIGN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
const MOST_FOREIGN: usize = 1000;
const LONGEST_FOREIGN: usize = 100;
pub(crate) const NOT_HELD: &str = "unknown";

impl ForeignWord {
    /// As it was read.
    pub fn of(word: &str) -> Self {
        let mut held = FOREIGN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = held.get(word) {
            return Self(same);
        }
        if held.len() >= MOST_FOREIGN || word.len() > LONGEST_FOREIGN {
            return Self(NOT_HELD);
        }
        let word: &'static str = Box::leak(word.into());
        held.insert(word);
        Self(word)
    }

    /// The word itself.
    pub fn word(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for ForeignWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|word| Self::of(&word))
    }
}

/// An enum of the words that a field of a document may have, each with its word, and `Foreign` for those of other releases.
#[macro_export]
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
            /// One that this program does not know: another release wrote it.
            Foreign($crate::word::ForeignWord),
        }

        impl $name {
            /// The word of documents.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Foreign(word) => word.word(),
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    word => Self::Foreign($crate::word::ForeignWord::of(word)),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.word())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(from).map(|word| Self::from(word.as_str()))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::audit::{RecordKind, RecordOutcome, StepKind};
    use crate::report::{ReportMode, ReportOutcome};

    /// Every word that 0.1.0, and what came after it before these were values, wrote into a file or a document.
    #[test]
    #[rustfmt::skip]
    fn every_word_that_was_ever_written_is_known_and_written_again_and_so_is_one_of_another_release() {
        macro_rules! written {
            ($type:ident, $($word:literal)+) => {
                for word in [$($word),+] {
                    let read: $type = serde_json::from_str(&format!("{word:?}")).unwrap();
                    assert!(!matches!(read, $type::Foreign(_)), "{word} is not known");
                    assert_eq!((read.word(), serde_json::to_string(&read).unwrap()), (word, format!("{word:?}")));
                }
                for foreign in ["of-tomorrow", "Foreign", "", "with a blank, \u{fc}"] {
                    let read: $type = serde_json::from_str(&format!("{foreign:?}")).unwrap();
                    assert_eq!((read.word(), serde_json::to_string(&read).unwrap()), (foreign, format!("{foreign:?}")));
                    assert_eq!(read, $type::from(foreign));
                }
                for no_word in ["1", "null", r#"{"a":"b"}"#, "[]"] {
                    serde_json::from_str::<$type>(no_word).expect_err(no_word);
                }
            };
        }
        written!(ReportOutcome, "adopted" "confirmed" "failed" "pending-approval" "rejected" "withdrawn" "alive" "left");
        written!(ReportMode, "automatic" "manual");
        written!(StepKind, "inspect" "fetch" "fetch-applied" "verify" "verify-applied" "probe" "hold" "release" "reject" "leave"
            "preview" "prepare" "swap" "activate" "read-back" "undo" "discard" "refrain" "commit" "wait" "await" "end" "others");
        written!(RecordKind, "rollover" "adoption" "heal" "confirmation" "reload" "waits" "rejection" "departure" "refused"
            "failed" "drift" "withdrawal" "no-change" "earlier-key" "clone" "interrupted");
        written!(RecordOutcome, "adopted" "confirmed" "done" "failed-for-now" "failed" "interrupted" "pending-approval"
            "superseded");
    }
}
