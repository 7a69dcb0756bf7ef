//! Where hosts read the key, and what they find there.

use crate::facts::{CURRENT, Facts, KeyId, Part, Store, Value};
use crate::run::Look;

/// One place, as this look saw it.
pub struct PlaceView<'a> {
    pub place: String,
    gives: Gives<'a>,
}

enum Gives<'a> {
    Key(&'a KeyId),
    /// There is no value yet.
    Nothing,
    NoLogin,
    NotSeen,
}

impl<'a> Gives<'a> {
    fn of(store: &'a Store) -> Self {
        match store.labelled(CURRENT).map(|current| &current.value) {
            Some(Value::Login(key)) => Gives::Key(key),
            Some(Value::Unreadable) => Gives::NoLogin,
            Some(Value::Empty) | None => Gives::Nothing,
        }
    }
}

/// The first place, and the further ones in their order; those that could not be looked at come last.
pub fn places(look: &Look) -> Vec<PlaceView<'_>> {
    let Facts { store, further, gaps, .. } = &look.facts;
    let is_seen = !gaps.iter().any(|gap| gap.part == Part::Store);
    let first =
        PlaceView { place: Part::Store.words(), gives: if is_seen { Gives::of(store) } else { Gives::NotSeen } };
    let seen = further.iter().map(|one| PlaceView { place: one.place.to_string(), gives: Gives::of(&one.store) });
    let unseen = gaps.iter().filter(|gap| matches!(gap.part, Part::Further(_)));
    let unseen = unseen.map(|gap| PlaceView { place: gap.part.words(), gives: Gives::NotSeen });
    std::iter::once(first).chain(seen).chain(unseen).collect()
}

impl PlaceView<'_> {
    pub fn key(&self) -> Option<&KeyId> {
        match self.gives {
            Gives::Key(key) => Some(key),
            Gives::Nothing | Gives::NoLogin | Gives::NotSeen => None,
        }
    }

    pub fn is_seen(&self) -> bool {
        !matches!(self.gives, Gives::NotSeen)
    }

    pub fn words(&self) -> String {
        let Self { place, gives } = self;
        match gives {
            Gives::Key(key) => format!("{place}: gives {key}"),
            Gives::Nothing => format!("{place}: gives nothing yet"),
            Gives::NoLogin => format!("{place}: holds no login whose user name is a key id"),
            Gives::NotSeen => format!("{place}: could not be looked at"),
        }
    }
}
