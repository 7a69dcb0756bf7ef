//! What a mail server's login tables hold beside the login in use: entries of ours that were left behind, and the key ids of
//! others. By one rule, whenever it is asked.

use std::collections::BTreeSet;

use relaykey_core::report::ReportTable;

use crate::credential;
use crate::mta::{LeftOut, Ours, ServiceView, shown};

/// The login in use, and what is known of those before it.
pub(super) struct LoginInUse<'a> {
    pub(super) username: &'a str,
    /// `None`: not known.
    pub(super) live_id: Option<&'a str>,
    /// Was there another user name before it?
    pub(super) has_previous: bool,
    /// User names of ours, whichever of them was in use when.
    pub(super) ours: Vec<&'a str>,
}

impl<'a> LoginInUse<'a> {
    /// As a look knows it, with nothing open.
    pub(super) fn among(ours: &'a Ours, username: &'a str, live_id: Option<&'a str>) -> Self {
        let names = [&ours.applied, &ours.previous].into_iter().flatten().chain(&ours.known).chain(&ours.earlier);
        let has_previous = ours.previous.as_deref().is_some_and(|previous| previous != username);
        Self { username, live_id, has_previous, ours: names.map(String::as_str).collect() }
    }

    /// The keys of the entries that hold an earlier login, and that we do not write.
    pub(super) fn remaining_old(&self, left_out: &[LeftOut]) -> Vec<String> {
        left_out.iter().filter(|left| self.is_old(left)).map(|left| shown::key(&left.key).into_owned()).collect()
    }

    fn is_old(&self, left: &LeftOut) -> bool {
        match &left.username {
            Some(_) if left.was_found => true,
            // One access key id has a password for each region, and all of them end together. Any other name goes on with the
            // next password, while the one before it ends.
            Some(username) if username == self.username => {
                !credential::is_access_key_id(username)
                    && left.own.as_ref().is_some_and(|own| self.live_id.is_some_and(|live_id| own != live_id))
            }
            Some(username) => self.has_previous || self.ours.contains(&username.as_str()),
            None => self.has_previous,
        }
    }
}

/// The tables that services ask, each once, in the order in which they are asked.
pub(super) fn tables_in_use(services: &[ServiceView]) -> Vec<ReportTable> {
    let (mut known, mut tables) = (BTreeSet::new(), Vec::<ReportTable>::new());
    for id in services.iter().flat_map(|service| &service.tables).filter(|id| known.insert(*id)) {
        let asks = services.iter().filter(|service| service.tables.contains(id));
        tables.push(ReportTable {
            table: id.to_string(),
            services: asks.map(|service| service.service.clone()).collect(),
        });
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta::TableId;

    fn left(key: &str, username: Option<&str>) -> LeftOut {
        LeftOut { key: key.into(), username: username.map(str::to_owned), own: None, was_found: false }
    }

    #[test]
    fn what_holds_an_earlier_login_is_left_behind() {
        let in_use = |has_previous, ours| LoginInUse { username: "AKIANEW", live_id: Some("id"), has_previous, ours };
        let all =
            [left("a", Some("AKIANEW")), left("b", Some("AKIAOLD")), left("c", Some("AKIAOLDER")), left("d", None)];
        assert_eq!(in_use(true, vec![]).remaining_old(&all), ["b", "c", "d"]);
        assert_eq!(in_use(false, vec!["AKIAOLDER"]).remaining_old(&all), ["c"]);
        assert!(in_use(false, vec![]).remaining_old(&all).is_empty());
        // The same name with an earlier password: an access key id's passwords end together, another name's do not.
        let own = |user: &str| LeftOut { own: Some("before".into()), ..left("e", Some(user)) };
        assert!(in_use(true, vec![]).remaining_old(&[own("AKIANEW")]).is_empty());
        let by_name = LoginInUse { username: "apikey", live_id: Some("id"), has_previous: false, ours: vec![] };
        assert_eq!(by_name.remaining_old(&[own("apikey")]), ["e"]);
        assert!(LoginInUse { live_id: None, ..by_name }.remaining_old(&[own("apikey")]).is_empty());
        let found = LeftOut { was_found: true, ..left("f", Some("AKIANEW")) };
        assert_eq!(in_use(false, vec![]).remaining_old(&[found]), ["f"]);
    }

    #[test]
    fn tables_are_told_with_those_who_ask_them() {
        let service = |name: &str, tables: &[&str]| ServiceView {
            service: name.into(),
            tables: tables.iter().map(|id| TableId::new(*id)).collect(),
            keys: Vec::new(),
        };
        let found =
            tables_in_use(&[service("smtp", &["hash:/a", "lmdb:/b"]), service("relay", &["lmdb:/b", "hash:/c"])]);
        let told: Vec<(&str, String)> = found.iter().map(|t| (t.table.as_str(), t.services.join(" "))).collect();
        assert_eq!(told, [("hash:/a", "smtp".into()), ("lmdb:/b", "smtp relay".into()), ("hash:/c", "relay".into())]);
    }
}
