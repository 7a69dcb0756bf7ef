//! Where routes stand: the parameters that hand mail on, what each holds, and which of Postfix's programs go by it (pure).
//!
//! A program goes by main.cf and by the options of its own entry in master.cf, as an smtpd(8) with a content filter of its own
//! does. What a policy server or a milter says, and what local(8) finds in aliases, is no route that is read here.

use super::master::MasterEntry;
use super::settings::{Settings, words};

/// What the value of a parameter holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteForm {
    /// A list of next hops.
    NextHops,
    /// A transport, with or without next hops.
    Transport,
    /// The same, as a filter that a message goes through first.
    Filter,
    /// Tables of next hops.
    NextHopTables,
    /// Tables of transports.
    TransportTables,
    /// Tables of actions (header_checks(5)).
    Checks,
    /// Restrictions of smtpd(8), which name tables of actions (access(5)).
    Restrictions,
}

/// Where a route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Relayhost,
    FallbackRelay,
    DefaultTransport,
    RelayTransport,
    LocalTransport,
    VirtualTransport,
    MailboxTransport,
    FallbackTransport,
    ContentFilter,
    TransportMaps,
    SenderRelayhost,
    SenderTransport,
    MailboxTransportMaps,
    FallbackTransportMaps,
    HeaderChecks,
    MimeHeaderChecks,
    NestedHeaderChecks,
    MilterHeaderChecks,
    BodyChecks,
    ClientRestrictions,
    HeloRestrictions,
    SenderRestrictions,
    RelayRestrictions,
    RecipientRestrictions,
    DataRestrictions,
    EndOfDataRestrictions,
    EtrnRestrictions,
    RestrictionClasses,
}

/// Each with its parameter, what that holds, and the programs that go by it.
const ALL: [(Origin, &str, RouteForm, &[&str]); 28] = [
    (Origin::Relayhost, "relayhost", RouteForm::NextHops, REWRITE),
    (Origin::FallbackRelay, "smtp_fallback_relay", RouteForm::NextHops, &["smtp"]),
    (Origin::DefaultTransport, "default_transport", RouteForm::Transport, REWRITE),
    (Origin::RelayTransport, "relay_transport", RouteForm::Transport, REWRITE),
    (Origin::LocalTransport, "local_transport", RouteForm::Transport, REWRITE),
    (Origin::VirtualTransport, "virtual_transport", RouteForm::Transport, REWRITE),
    (Origin::MailboxTransport, "mailbox_transport", RouteForm::Transport, &["local"]),
    (Origin::FallbackTransport, "fallback_transport", RouteForm::Transport, &["local"]),
    (Origin::ContentFilter, "content_filter", RouteForm::Filter, &["smtpd", "pickup", "qmqpd"]),
    (Origin::TransportMaps, "transport_maps", RouteForm::TransportTables, REWRITE),
    (Origin::SenderRelayhost, "sender_dependent_relayhost_maps", RouteForm::NextHopTables, REWRITE),
    (Origin::SenderTransport, "sender_dependent_default_transport_maps", RouteForm::TransportTables, REWRITE),
    (Origin::MailboxTransportMaps, "mailbox_transport_maps", RouteForm::TransportTables, &["local"]),
    (Origin::FallbackTransportMaps, "fallback_transport_maps", RouteForm::TransportTables, &["local"]),
    (Origin::HeaderChecks, "header_checks", RouteForm::Checks, CLEANUP),
    (Origin::MimeHeaderChecks, "mime_header_checks", RouteForm::Checks, CLEANUP),
    (Origin::NestedHeaderChecks, "nested_header_checks", RouteForm::Checks, CLEANUP),
    (Origin::MilterHeaderChecks, "milter_header_checks", RouteForm::Checks, CLEANUP),
    (Origin::BodyChecks, "body_checks", RouteForm::Checks, CLEANUP),
    (Origin::ClientRestrictions, "smtpd_client_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::HeloRestrictions, "smtpd_helo_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::SenderRestrictions, "smtpd_sender_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::RelayRestrictions, "smtpd_relay_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::RecipientRestrictions, "smtpd_recipient_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::DataRestrictions, "smtpd_data_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::EndOfDataRestrictions, "smtpd_end_of_data_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::EtrnRestrictions, "smtpd_etrn_restrictions", RouteForm::Restrictions, SMTPD),
    (Origin::RestrictionClasses, "smtpd_restriction_classes", RouteForm::Restrictions, SMTPD),
];

const REWRITE: &[&str] = &["trivial-rewrite"];
const CLEANUP: &[&str] = &["cleanup"];
const SMTPD: &[&str] = &["smtpd"];

impl Origin {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(|(origin, ..)| *origin)
    }

    /// Its parameter.
    pub(super) fn parameter(self) -> &'static str {
        self.row().1
    }

    pub(super) fn holds(self) -> RouteForm {
        self.row().2
    }

    /// Those whose values name tables.
    pub(super) fn of_tables() -> impl Iterator<Item = Self> {
        use RouteForm::{Checks, NextHopTables, Restrictions, TransportTables};
        Self::all().filter(|origin| matches!(origin.holds(), NextHopTables | TransportTables | Checks | Restrictions))
    }

    /// Are the right-hand sides of its tables actions, and not routes?
    pub(super) fn is_check(self) -> bool {
        matches!(self.holds(), RouteForm::Checks | RouteForm::Restrictions)
    }

    fn row(self) -> &'static (Self, &'static str, RouteForm, &'static [&'static str]) {
        ALL.iter().find(|(origin, ..)| *origin == self).expect("each of them stands there")
    }

    /// The one that an option of an entry of master.cf is, where the program of that entry goes by it. That of a client service
    /// is known with its other settings.
    pub(super) fn of_option(entry: &MasterEntry, name: &str, classes: &[String]) -> Option<Self> {
        if entry.program == "smtpd" && classes.iter().any(|class| class == name) {
            return Some(Self::RestrictionClasses);
        }
        let named = ALL.iter().find(|(origin, parameter, ..)| *parameter == name && *origin != Self::FallbackRelay);
        named.filter(|(.., programs)| programs.contains(&entry.program.as_str())).map(|(origin, ..)| *origin)
    }
}

/// What a filter without a next hop uses.
const FILTER_NEXT_HOP: &str = "default_filter_nexthop";

/// What the routing parameters say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RouteSettings {
    /// Of main.cf first; then of entries of master.cf, which the last says.
    values: Vec<(Origin, String, bool)>,
    pub(super) filter_next_hop: String,
}

impl RouteSettings {
    /// What main.cf says. `classes`: what stands in each class of restrictions.
    pub(super) fn of(main: &Settings, classes: &[String]) -> Self {
        let value = |origin: Origin| {
            let value = match (origin, main.get(origin.parameter())) {
                (Origin::RestrictionClasses, _) => return (origin, classes.join(" "), false),
                // Other releases have other defaults.
                (Origin::DefaultTransport, "") => "smtp",
                (Origin::RelayTransport, "") => "relay",
                (_, value) => value,
            };
            (origin, value.to_owned(), false)
        };
        Self { values: Origin::all().map(value).collect(), filter_next_hop: main.get(FILTER_NEXT_HOP).to_owned() }
    }

    /// The options of entries of master.cf that are routes, each with its number among them, as written.
    pub(super) fn options<'a>(entry: &'a MasterEntry, classes: &[String]) -> Vec<(Origin, &'a str, &'a str)> {
        let options = entry.options.iter();
        let of = |(name, value): (&'a String, &'a String)| {
            Some((Origin::of_option(entry, name, classes)?, name.as_str(), value.as_str()))
        };
        options.filter_map(of).collect()
    }

    /// What an entry of master.cf has by an option of its own.
    pub(super) fn add(&mut self, origin: Origin, value: String) {
        if !self.values(origin).any(|have| have == value) {
            self.values.push((origin, value, true));
        }
    }

    pub(super) fn values(&self, origin: Origin) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(of, ..)| *of == origin).map(|(_, value, _)| value.as_str())
    }

    /// The tables that a parameter names, each once.
    pub(super) fn tables(&self, origin: Origin) -> Vec<&str> {
        let mut tables: Vec<&str> = Vec::new();
        for value in self.values(origin) {
            let named = match origin.holds() {
                RouteForm::Restrictions => access_tables(value),
                _ => words(value),
            };
            for table in named {
                if !tables.contains(&table) {
                    tables.push(table);
                }
            }
        }
        tables
    }

    /// The file that a route of this origin stands in.
    pub(super) fn file_of(&self, origin: Origin) -> &'static str {
        let in_main = self.values.iter().any(|(of, value, in_master)| *of == origin && !in_master && !value.is_empty());
        let in_master = self.values.iter().any(|(of, _, in_master)| *of == origin && *in_master);
        if in_master && !in_main { "master.cf" } else { "main.cf" }
    }
}

/// The tables of actions that a list of restrictions names: after `check_…_access`, and bare, as in the oldest form.
fn access_tables(restrictions: &str) -> Vec<&str> {
    let mut tables = Vec::new();
    let mut listed = words(restrictions).into_iter();
    while let Some(word) = listed.next() {
        let lower = word.to_ascii_lowercase();
        if lower.starts_with("check_") && lower.ends_with("_access") {
            // `check_ccert_access { hash:/x { search_order = … } }`
            let table = listed.next().map(|table| match table.strip_prefix('{') {
                Some(inner) => words(inner).into_iter().next().unwrap_or_default(),
                None => table,
            });
            tables.extend(table.filter(|table| !table.is_empty()));
        } else if lower.starts_with("check_") && lower.ends_with("_service") {
            listed.next();
        } else if word.contains(':') && !word.starts_with('{') {
            tables.push(word);
        }
    }
    tables
}

/// The names of the classes of restrictions. What is none is not asked for.
pub(super) fn restriction_classes(main: &Settings) -> Vec<String> {
    let is_name = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    main.list("smtpd_restriction_classes").into_iter().filter(is_name).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_origin_has_its_parameter_once() {
        for (n, origin) in Origin::all().enumerate() {
            assert_eq!(ALL.iter().position(|(of, ..)| *of == origin), Some(n));
            let asked = super::super::settings::PARAMETERS;
            assert!(asked.contains(&origin.parameter()), "{} is not asked for", origin.parameter());
        }
    }

    #[test]
    fn tables_that_restrictions_name() {
        for (restrictions, expected) in [
            ("", &[][..]),
            ("permit_mynetworks, reject_unauth_destination", &[]),
            ("check_sender_access hash:/a, reject", &["hash:/a"]),
            ("check_policy_service inet:127.0.0.1:10023 CHECK_CLIENT_ACCESS cidr:/b", &["cidr:/b"]),
            ("check_policy_service { unix:private/p, timeout=2 }, hash:/old", &["hash:/old"]),
            ("check_ccert_access { hash:/c { search_order = cert } } permit", &["hash:/c"]),
            ("check_recipient_a_access inline:{ {a = FILTER b:c} }", &["inline:{ {a = FILTER b:c} }"]),
            ("reject_rbl_client zen.example=127.0.0.[2..11] sleep 1 check_helo_access", &[]),
        ] {
            assert_eq!(access_tables(restrictions), expected, "{restrictions}");
        }
    }

    #[test]
    fn an_option_counts_where_its_program_goes_by_it() {
        let of = |line: &str| -> Vec<(Origin, String)> {
            let entry = MasterEntry::parse(line).unwrap();
            let options = RouteSettings::options(&entry, &["bulk_class".to_owned()]);
            options.into_iter().map(|(origin, _, value)| (origin, value.to_owned())).collect()
        };
        let one = |origin, value: &str| vec![(origin, value.to_owned())];
        assert_eq!(
            of("587 inet n - n - - smtpd -o content_filter=smtp:[a]:1"),
            one(Origin::ContentFilter, "smtp:[a]:1")
        );
        assert_eq!(
            of("smtp inet n - n - - smtpd -o bulk_class=check_sender_access,hash:/a -o transport_maps=hash:/b"),
            one(Origin::RestrictionClasses, "check_sender_access,hash:/a")
        );
        assert_eq!(
            of("rewrite unix - - n - - trivial-rewrite -o transport_maps=hash:/b"),
            one(Origin::TransportMaps, "hash:/b")
        );
        assert_eq!(
            of("x unix - - n - - smtp -o smtp_fallback_relay=[a]:1 -o relayhost=[b]:1 -o header_checks=c:d"),
            []
        );
    }
}
