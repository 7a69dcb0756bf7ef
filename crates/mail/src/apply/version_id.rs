//! One id for all that a version puts in place: that of its login, or, where it has several, one of all of them (pure).

use std::collections::{BTreeMap, BTreeSet};

use super::journal::LiveIdKey;
use crate::credential::{Login, Secret};

/// What tells a version's logins in several regions from those of another version.
pub(super) struct VersionIds<'a> {
    pub(super) key: &'a LiveIdKey,
    /// By the numbers of the endpoints.
    pub(super) regions: &'a [String],
}

impl VersionIds<'_> {
    /// The id of what was found under keys, each with the endpoint that it is for. `None`: nothing, or not the logins of one
    /// version. The id is of the logins at the endpoints that `counts`; the others must have the same user name.
    pub(super) fn of<'l>(
        &self,
        found: impl Iterator<Item = (usize, Option<&'l Login>)>,
        counts: &BTreeSet<usize>,
    ) -> Option<String> {
        let mut logins: BTreeMap<usize, &Login> = BTreeMap::new();
        for (endpoint, login) in found {
            let login = login?;
            if *logins.entry(endpoint).or_insert(login) != login {
                return None;
            }
        }
        let first = logins.values().next()?;
        if logins.values().any(|login| login.username != first.username) {
            return None;
        }
        let counted: Vec<(usize, &Login)> =
            logins.iter().filter(|(endpoint, _)| counts.contains(endpoint)).map(|(at, login)| (*at, *login)).collect();
        match counted.as_slice() {
            [] => None,
            [(_, login)] => Some(self.key.live_id(login)),
            several => {
                // By the region and not the number: the order in the configuration may change.
                let each = several.iter().map(|(at, login)| {
                    let region = self.regions.get(*at).map(String::as_str).unwrap_or_default();
                    format!("{region} {}\n", self.key.live_id(login))
                });
                let mut each: Vec<String> = each.collect();
                each.sort();
                // No user name has a line end.
                let username = format!("\n{}", each.concat());
                Some(self.key.live_id(&Login { username, password: Secret::new(String::new()) }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_with_a_password_for_each_region_has_one_id() {
        let key = LiveIdKey::made();
        let regions = ["us".to_owned(), "eu".to_owned()];
        let ids = VersionIds { key: &key, regions: &regions };
        let login = |pair| Login::from_pair(pair).unwrap();
        let (us, eu, old) = (login("AKIANEW:us"), login("AKIANEW:eu"), login("AKIAOLD:eu"));
        let both = BTreeSet::from([0, 1]);
        let id = |found: &[(usize, Option<&Login>)], counts: &BTreeSet<usize>| ids.of(found.iter().copied(), counts);
        let of_both = id(&[(0, Some(&us)), (1, Some(&eu)), (0, Some(&us))], &both).unwrap();
        // Of one endpoint it is the login's own.
        assert_eq!(id(&[(1, Some(&eu))], &both), Some(key.live_id(&eu)));
        assert_eq!(id(&[(0, Some(&us)), (1, Some(&eu))], &BTreeSet::from([0])), Some(key.live_id(&us)));
        // The other way round it is no version's.
        let swapped = id(&[(0, Some(&eu)), (1, Some(&us))], &both).unwrap();
        assert!(swapped != of_both && of_both != key.live_id(&us));
        for wrong in [
            &[(0, Some(&us)), (1, Some(&old))][..],
            &[(0, Some(&us)), (1, None)],
            &[(0, Some(&us)), (0, Some(&eu))],
            &[],
        ] {
            assert_eq!(id(wrong, &both), None);
        }
        // Nor does the order of the endpoints in the configuration matter.
        let other = ["eu".to_owned(), "us".to_owned()];
        let turned = VersionIds { key: &key, regions: &other };
        assert_eq!(turned.of([(1, Some(&us)), (0, Some(&eu))].into_iter(), &both), Some(of_both));
    }
}
