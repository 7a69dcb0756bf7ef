//! Which entries of master.cf mail can get to that run programs (pure).
//!
//! Many hosts have entries that nothing leads to, as those for UUCP that distributions bring along: what they would run has no
//! mail to send. Where a route cannot be read, or a policy server decides, every one of them may be meant.

use std::collections::BTreeSet;

use super::hops::{RouteTables, filter_action, port_part};
use super::origin::{Origin, RouteForm, RouteSettings};
use super::services::Service;
use super::settings::words;

/// Where mail can get to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reached {
    transports: BTreeSet<String>,
    /// Next hops of whatever transport.
    destinations: BTreeSet<String>,
    /// It is not known which.
    anywhere: bool,
}

impl Reached {
    pub(super) fn of(routing: &RouteSettings, tables: &RouteTables, services: &[Service]) -> Self {
        let mut reached = Self::default();
        for origin in Origin::all() {
            let of_tables = || {
                let own = tables.iter().filter(move |(of, _)| *of == origin);
                own.flat_map(|(_, values)| values.found.iter().map(String::as_str))
            };
            match origin.holds() {
                RouteForm::NextHops => routing.values(origin).for_each(|value| reached.hops(value)),
                RouteForm::NextHopTables => of_tables().for_each(|value| reached.hops(value)),
                RouteForm::Transport | RouteForm::Filter => {
                    routing.values(origin).for_each(|value| reached.transport(value));
                }
                RouteForm::TransportTables => of_tables().for_each(|value| reached.transport(value)),
                RouteForm::Checks | RouteForm::Restrictions => {
                    of_tables().filter_map(filter_action).for_each(|value| reached.transport(value));
                    // It may say FILTER.
                    let asks = |value: &str| value.to_ascii_lowercase().contains("check_policy_service");
                    reached.anywhere |= routing.values(origin).any(asks);
                }
            }
        }
        reached.hops(&routing.filter_next_hop);
        for service in services {
            reached.hops(service.settings.get(Origin::FallbackRelay.parameter()));
        }
        reached.anywhere |= tables.iter().any(|(_, values)| !values.unread.is_empty());
        reached
    }

    fn hops(&mut self, value: &str) {
        self.destinations.extend(words(value).into_iter().map(str::to_owned));
    }

    fn transport(&mut self, value: &str) {
        let (name, hops) = value.split_once(':').unwrap_or((value, ""));
        self.transports.insert(name.trim().to_owned());
        self.hops(hops);
    }

    /// An entry that transports name.
    pub(super) fn by_transport(&self, name: &str) -> bool {
        self.anywhere || self.transports.contains(name)
    }

    /// An entry with a UNIX socket that clients connect to.
    pub(super) fn by_socket(&self, name: &str) -> bool {
        let of = |hop: &String| hop.strip_prefix("unix:").is_some_and(|path| path.rsplit('/').next() == Some(name));
        self.destinations.iter().any(of)
    }

    /// An entry that listens as `name` says, `PORT` or `HOST:PORT`. On which host a destination is, is not asked.
    pub(super) fn by_port(&self, name: &str) -> bool {
        let own = port(name.rsplit(':').next());
        self.destinations.iter().any(|hop| {
            let there = port(port_part(hop.strip_prefix("inet:").unwrap_or(hop)));
            own == there || own.is_none() || there.is_none()
        })
    }
}

/// `None`: a name that /etc/services would have to be asked for.
fn port(name: Option<&str>) -> Option<u16> {
    match name {
        None | Some("" | "smtp") => Some(25),
        Some("submission") => Some(587),
        Some("smtps" | "submissions") => Some(465),
        Some(name) => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::hops::Values;
    use super::super::settings::Settings;
    use super::*;

    fn reached(settings: &str, tables: RouteTables) -> Reached {
        Reached::of(&RouteSettings::of(&Settings::parse(settings), &[]), &tables, &[])
    }

    fn table(origin: Origin, value: &str) -> RouteTables {
        vec![(origin, Values { found: [value.to_owned()].into(), unread: Vec::new() })]
    }

    #[test]
    fn entries_that_a_route_leads_to() {
        for (settings, tables, is_reached) in [
            ("", Vec::new(), false),
            ("relayhost = [bulk]:587\n", Vec::new(), false),
            ("default_transport = bulk\n", Vec::new(), true),
            ("mailbox_transport = bulk:\n", Vec::new(), true),
            ("content_filter = bulk:dummy\n", Vec::new(), true),
            ("", table(Origin::TransportMaps, "bulk:"), true),
            ("", table(Origin::TransportMaps, "smtp:[bulk]"), false),
            ("", table(Origin::HeaderChecks, "FILTER bulk:x"), true),
            ("smtpd_recipient_restrictions = check_policy_service unix:private/policy\n", Vec::new(), true),
            ("", vec![(Origin::TransportMaps, Values { unread: vec!["mysql:/a".into()], ..Values::default() })], true),
        ] {
            assert_eq!(reached(settings, tables).by_transport("bulk"), is_reached, "{settings}");
        }
    }

    #[test]
    fn programs_behind_a_socket() {
        let found = reached("content_filter = lmtp:unix:private/scan\nrelayhost = [a]:587\n", Vec::new());
        assert!(found.by_socket("scan") && !found.by_socket("policy"));
        let found = reached("content_filter = scan:[127.0.0.1]:10025\n", Vec::new());
        assert!(found.by_port("127.0.0.1:10025") && found.by_port("10025") && found.by_port("of-services"));
        assert!(!found.by_port("10026"));
        assert!(reached("content_filter = lmtp:inet:localhost:of-services\n", Vec::new()).by_port("10025"));
    }
}
