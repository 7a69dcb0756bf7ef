//! The next hops that mail is handed to: of which client service, as they are spelt, and whether they lead to an endpoint of
//! ours (pure).
//!
//! A hop belongs to the service that its route names. `relayhost` and `sender_dependent_relayhost_maps` belong to the services
//! of the transports that name no hop of their own (postconf(5), "default_transport"); a transport without a name is one of the
//! default ones (transport(5)).

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::services::Service;
use super::settings::{Settings, words};
use crate::credential::ses_region;
use crate::mta::alias::{Alias, connected, same_host};
use crate::mta::{Relay, shown};

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
    HeaderChecks,
    MimeHeaderChecks,
    NestedHeaderChecks,
    BodyChecks,
}

impl Origin {
    /// The parameter of main.cf.
    pub(super) fn parameter(self) -> &'static str {
        match self {
            Self::Relayhost => "relayhost",
            Self::FallbackRelay => "smtp_fallback_relay",
            Self::DefaultTransport => "default_transport",
            Self::RelayTransport => "relay_transport",
            Self::LocalTransport => "local_transport",
            Self::VirtualTransport => "virtual_transport",
            Self::MailboxTransport => "mailbox_transport",
            Self::FallbackTransport => "fallback_transport",
            Self::ContentFilter => "content_filter",
            Self::TransportMaps => "transport_maps",
            Self::SenderRelayhost => "sender_dependent_relayhost_maps",
            Self::SenderTransport => "sender_dependent_default_transport_maps",
            Self::HeaderChecks => "header_checks",
            Self::MimeHeaderChecks => "mime_header_checks",
            Self::NestedHeaderChecks => "nested_header_checks",
            Self::BodyChecks => "body_checks",
        }
    }

    /// Are its right-hand sides actions, and not routes?
    pub(super) fn is_check(self) -> bool {
        matches!(self, Self::HeaderChecks | Self::MimeHeaderChecks | Self::NestedHeaderChecks | Self::BodyChecks)
    }

    /// Those whose values are lists of tables.
    pub(super) const TABLES: [Self; 7] = [
        Self::TransportMaps,
        Self::SenderRelayhost,
        Self::SenderTransport,
        Self::HeaderChecks,
        Self::MimeHeaderChecks,
        Self::NestedHeaderChecks,
        Self::BodyChecks,
    ];
}

/// One server that a credential logs in to, with the names that a mail server may know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    /// The SES region whose password it takes.
    pub(super) region: Option<String>,
    pub(super) aliases: Vec<Alias>,
}

impl Endpoint {
    /// The endpoint of a relay.
    pub(super) fn of(relay: &Relay) -> Self {
        Self {
            host: relay.endpoint.clone(),
            port: relay.port,
            region: relay.region.clone().or_else(|| ses_region(&relay.endpoint)),
            aliases: relay.endpoint_aliases.iter().filter_map(|alias| Alias::parse(alias)).collect(),
        }
    }

    /// Does a destination with this host and port lead to it?
    pub(super) fn is_at(&self, host: &str, port: Option<&str>) -> bool {
        let port = number(port);
        Alias::of_endpoint(&self.host, self.port).is_at(host, port)
            || self.aliases.iter().any(|alias| alias.is_at(host, port))
    }

    /// Is it one of its names, whatever the port?
    pub(super) fn has_name(&self, host: &str) -> bool {
        self.names().any(|name| same_host(name, host))
    }

    /// The host names of it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.host.as_str()).chain(self.aliases.iter().map(|alias| alias.host.as_str()))
    }
}

/// The port that a destination names; 25 where it names none.
fn number(port: Option<&str>) -> Option<u16> {
    match port {
        None | Some("" | "smtp") => Some(25),
        Some("submission") => Some(587),
        Some("smtps" | "submissions" | "ssmtp") => Some(465),
        Some(port) => port.parse().ok(),
    }
}

/// One destination of a route.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NextHop {
    /// The client service that it belongs to.
    pub(super) service: String,
    pub(super) origin: Origin,
    pub(super) spelt: String,
    pub(super) host: String,
    /// Which of the credential's endpoints it leads to. `None`: to none of them.
    pub(super) endpoint: Option<usize>,
}

impl NextHop {
    /// A hop as a route spells it.
    pub(super) fn new(service: &str, origin: Origin, spelt: &str, endpoints: &[Endpoint]) -> Self {
        let host = connected(host_part(spelt));
        let endpoint = endpoints.iter().position(|endpoint| endpoint.is_at(&host, port_part(spelt)));
        Self { service: service.to_owned(), origin, spelt: spelt.to_owned(), host, endpoint }
    }

    /// Does it lead to an endpoint of ours?
    pub(super) fn is_ours(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Without brackets Postfix looks for mail exchangers first, and then for a login under their names.
    pub(super) fn is_bracketed(&self) -> bool {
        self.spelt.starts_with('[')
    }
}

/// What stands on the right-hand sides of the tables of one parameter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Values {
    pub(super) found: BTreeSet<String>,
    /// Tables of it that cannot be read, as far as they may be shown.
    pub(super) unread: Vec<String>,
}

/// The right-hand sides of all routing tables.
pub(super) type RouteTables = Vec<(Origin, Values)>;

/// The next hops of a mail server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Hops {
    /// Each once; those of `relayhost` first.
    pub(super) all: Vec<NextHop>,
    /// Routing tables that cannot be read.
    pub(super) unread: Vec<(Origin, String)>,
}

impl Hops {
    /// Where everything is handed to. `main`: what main.cf says.
    pub(super) fn of(main: &Settings, services: &[Service], tables: &RouteTables, endpoints: &[Endpoint]) -> Self {
        Routes { main, services, tables }.hops(endpoints)
    }

    /// Those of a service that are ours.
    pub(super) fn ours<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a NextHop> {
        self.all.iter().filter(move |hop| hop.is_ours() && hop.service == service)
    }
}

struct Routes<'a> {
    main: &'a Settings,
    services: &'a [Service],
    tables: &'a RouteTables,
}

/// A transport and the destinations that it names.
struct Transport<'a> {
    /// Empty: one of the default ones.
    name: &'a str,
    destinations: Vec<&'a str>,
}

impl<'a> Transport<'a> {
    fn parse(value: &'a str) -> Self {
        let (name, destinations) = value.split_once(':').unwrap_or((value, ""));
        Self { name: name.trim(), destinations: words(destinations) }
    }
}

impl<'a> Routes<'a> {
    fn values(&self, origin: Origin) -> impl Iterator<Item = &'a str> {
        let own = self.tables.iter().filter(move |(of, _)| *of == origin);
        own.flat_map(|(_, values)| values.found.iter().map(String::as_str))
    }

    /// The transports that stand for whatever leaves this host, after the parameters that name them.
    fn defaults(&self) -> [(Origin, Transport<'a>); 2] {
        [Origin::DefaultTransport, Origin::RelayTransport].map(|origin| {
            let value = self.main.get(origin.parameter());
            // Other releases have other defaults.
            let value = match (value, origin) {
                ("", Origin::DefaultTransport) => "smtp",
                ("", _) => "relay",
                (value, _) => value,
            };
            (origin, Transport::parse(value))
        })
    }

    fn hops(&self, endpoints: &[Endpoint]) -> Hops {
        let mut hops = Hops::default();
        let mut add = |service: &str, origin: Origin, spelt: &str| {
            let hop = NextHop::new(service, origin, spelt, endpoints);
            let is_client = self.services.iter().any(|known| known.name == service);
            let is_there =
                |known: &NextHop| known.service == hop.service && known.spelt.eq_ignore_ascii_case(&hop.spelt);
            if is_client && !hop.host.is_empty() && !hops.all.iter().any(is_there) {
                hops.all.push(hop);
            }
        };

        let defaults = self.defaults();
        let default_names: Vec<&str> = defaults.iter().map(|(_, transport)| transport.name).collect();
        let of_senders: Vec<Transport<'_>> =
            self.values(Origin::SenderTransport).filter(|value| !is_dunno(value)).map(Transport::parse).collect();
        // What names a transport and no destination leaves it to relayhost.
        let mut relaying: Vec<&str> = Vec::new();
        let all_defaults = defaults.iter().map(|(_, transport)| transport).chain(&of_senders);
        for transport in all_defaults.filter(|transport| transport.destinations.is_empty()) {
            match transport.name {
                "" => relaying.extend(&default_names),
                name => relaying.push(name),
            }
        }
        for service in &relaying {
            self.main.list("relayhost").iter().for_each(|spelt| add(service, Origin::Relayhost, spelt));
        }
        for service in &relaying {
            for value in self.values(Origin::SenderRelayhost).filter(|value| !is_dunno(value)) {
                words(value).iter().for_each(|spelt| add(service, Origin::SenderRelayhost, spelt));
            }
        }

        let mut add_transport = |origin: Origin, transport: &Transport<'_>| {
            let services = match transport.name {
                "" => default_names.clone(),
                name => vec![name],
            };
            for service in services {
                transport.destinations.iter().for_each(|spelt| add(service, origin, spelt));
            }
        };
        defaults.iter().for_each(|(origin, transport)| add_transport(*origin, transport));
        of_senders.iter().for_each(|transport| add_transport(Origin::SenderTransport, transport));
        for origin in [
            Origin::LocalTransport,
            Origin::VirtualTransport,
            Origin::MailboxTransport,
            Origin::FallbackTransport,
            Origin::ContentFilter,
        ] {
            add_transport(origin, &Transport::parse(self.main.get(origin.parameter())));
        }
        for value in self.values(Origin::TransportMaps) {
            add_transport(Origin::TransportMaps, &Transport::parse(value));
        }
        for origin in [Origin::HeaderChecks, Origin::MimeHeaderChecks, Origin::NestedHeaderChecks, Origin::BodyChecks] {
            for filter in self.values(origin).filter_map(filter_action) {
                add_transport(origin, &Transport::parse(filter));
            }
        }
        for service in self.services {
            for spelt in service.settings.list(Origin::FallbackRelay.parameter()) {
                add(&service.name, Origin::FallbackRelay, spelt);
            }
        }
        hops.unread = self
            .tables
            .iter()
            .flat_map(|(origin, values)| values.unread.iter().map(|table| (*origin, table.clone())))
            .collect();
        hops
    }
}

/// `DUNNO`: as if there were no such entry.
fn is_dunno(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("dunno")
}

/// What follows `FILTER`.
pub(super) fn filter_action(value: &str) -> Option<&str> {
    let (action, rest) = value.trim().split_once(|c: char| c.is_ascii_whitespace())?;
    action.eq_ignore_ascii_case("filter").then_some(rest.trim())
}

/// The host of a destination or of a lookup key: without brackets and port.
pub(super) fn host_part(spelt: &str) -> &str {
    match spelt.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        // The bare name of a host may be an address.
        None if spelt.parse::<Ipv6Addr>().is_ok() => spelt,
        None => spelt.split(':').next().unwrap_or(spelt),
    }
}

pub(super) fn port_part(spelt: &str) -> Option<&str> {
    if spelt.parse::<Ipv6Addr>().is_ok() {
        return None;
    }
    spelt.rsplit(']').next()?.split_once(':').map(|(_, port)| port)
}

/// `transport:nexthop`, as far as it may be shown.
pub(super) fn transport(value: &str) -> String {
    let (name, hop) = value.split_once(':').map_or((value, None), |(name, hop)| (name, Some(hop)));
    let is_name = name.len() <= 16 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    match hop {
        _ if !is_name => shown::NOT_SHOWN.into(),
        None | Some("") => value.into(),
        Some(hop) => format!("{name}:{}", shown::hop(hop)),
    }
}

/// A destination in brackets, as far as it may be shown.
pub(super) fn with_brackets(hop: &NextHop) -> String {
    let host = shown::hop(&hop.host);
    if host == shown::NOT_SHOWN || shown::hop(&hop.spelt) == shown::NOT_SHOWN {
        return shown::NOT_SHOWN.to_owned();
    }
    match port_part(&hop.spelt) {
        Some(port) => format!("[{}]:{port}", hop.host),
        None => format!("[{}]", hop.host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16, aliases: &[&str]) -> Endpoint {
        let relay = Relay {
            endpoint: host.into(),
            port,
            region: None,
            endpoint_aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            also: Vec::new(),
        };
        Endpoint::of(&relay)
    }

    #[test]
    fn parts_of_destinations() {
        for (spelt, host, port) in [
            ("[mail.example]:587", "mail.example", Some("587")),
            ("[mail.example]", "mail.example", None),
            ("mail.example:submission", "mail.example", Some("submission")),
            ("mail.example", "mail.example", None),
            ("[2001:db8::1]:25", "2001:db8::1", Some("25")),
            ("[127.0.0.1]", "127.0.0.1", None),
            ("[ipv6:2001:db8::1]:25", "ipv6:2001:db8::1", Some("25")),
            ("2001:db8::1", "2001:db8::1", None),
        ] {
            assert_eq!((host_part(spelt), port_part(spelt)), (host, port), "{spelt}");
        }
        // Postfix looks a login up under the address that it is connected to.
        assert_eq!(NextHop::new("smtp", Origin::Relayhost, "[IPv6:0:0::1]:25", &[]).host, "::1");
        let ours = [endpoint("a", 587, &["b", "d"])];
        let hops = ["a:587", "b", "[d]:25"].map(|spelt| NextHop::new("smtp", Origin::Relayhost, spelt, &ours));
        assert_eq!(hops.each_ref().map(with_brackets), ["[a]:587", "[b]", "[d]:25"]);
    }

    #[test]
    fn what_leads_to_an_endpoint() {
        let ses = endpoint(
            "email-smtp.us-east-1.amazonaws.com",
            587,
            &["relay.internal", "127.0.0.1:2525", "[2001:db8::1]:465"],
        );
        let local = endpoint("localhost", 2587, &["::1"]);
        for (spelt, is_ses, is_local) in [
            ("[email-smtp.us-east-1.amazonaws.com]:587", true, false),
            ("[Email-SMTP.us-east-1.amazonaws.com]:2587", true, false),
            ("email-smtp.us-east-1.amazonaws.com", true, false),
            ("[relay.internal]:25", true, false),
            ("[email-smtp.eu-west-1.amazonaws.com]:587", false, false),
            ("[127.0.0.1]:2525", true, false),
            ("[127.0.0.1]:10025", false, false),
            ("127.0.0.1", false, false),
            ("[localhost]:2587", false, true),
            ("[localhost]:10025", false, false),
            ("localhost", false, false),
            // An alias without a port stands for every one.
            ("[::1]:10025", false, true),
            ("[ipv6:0:0:0:0:0:0:0:1]:10025", false, true),
            ("[2001:db8::1]:465", true, false),
            ("[IPv6:2001:DB8:0::1]:465", true, false),
            ("[2001:db8::1]:466", false, false),
        ] {
            let is_at = |endpoint: &Endpoint| endpoint.is_at(host_part(spelt), port_part(spelt));
            assert_eq!((is_at(&ses), is_at(&local)), (is_ses, is_local), "{spelt}");
        }
        let submission = endpoint("localhost", 587, &[]);
        assert!(submission.is_at("localhost", Some("submission")) && !submission.is_at("localhost", Some("smtps")));
    }

    /// `service origin spelt`, in order.
    fn hops(settings: &str, tables: &[(Origin, &[&str])]) -> Vec<String> {
        let main = Settings::parse(settings);
        let service = |(name, own): (&str, &str)| {
            let mut settings = main.clone();
            settings.0.extend(Settings::parse(own).0);
            Service { name: name.to_owned(), settings, overridden: BTreeSet::new() }
        };
        let services: Vec<Service> = [
            ("smtp", ""),
            ("relay", ""),
            ("ses", "relayhost = [without.effect]:25\nsmtp_fallback_relay = [own.fallback]:25"),
        ]
        .map(service)
        .into();
        let values = |values: &[&str]| Values {
            found: values.iter().map(|value| (*value).to_owned()).collect(),
            unread: Vec::new(),
        };
        let tables = tables.iter().map(|(origin, found)| (*origin, values(found))).collect();
        let hops = Hops::of(&main, &services, &tables, &[]);
        let told = |hop: &NextHop| format!("{} {} {}", hop.service, hop.origin.parameter(), hop.spelt);
        hops.all.iter().map(told).filter(|hop| !hop.contains("own.fallback")).collect()
    }

    #[test]
    fn a_hop_belongs_to_the_service_that_its_route_names() {
        use Origin::{HeaderChecks, SenderRelayhost, SenderTransport, TransportMaps};
        /// What is set, what routing tables hold, and the hops, as `service parameter spelling`.
        type Case<'a> = (&'a str, &'a [(Origin, &'a [&'a str])], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            ("", &[], &[]),
            // relayhost is for both default transports, and a list.
            (
                "relayhost = [a]:1, [b]:2",
                &[],
                &["smtp relayhost [a]:1", "smtp relayhost [b]:2", "relay relayhost [a]:1", "relay relayhost [b]:2"],
            ),
            ("relayhost = [a]:1\ndefault_transport = ses\nrelay_transport = ses:", &[], &["ses relayhost [a]:1"]),
            // A transport that names its hop does not use relayhost.
            (
                "relayhost = [a]:1\ndefault_transport = smtp:[b]:2",
                &[],
                &["relay relayhost [a]:1", "smtp default_transport [b]:2"],
            ),
            ("relayhost = [a]:1\ndefault_transport = error:no\nrelay_transport = pipe", &[], &[]),
            (
                "relayhost =\nrelay_transport = relay:[b]:2, [c]:3",
                &[],
                &["relay relay_transport [b]:2", "relay relay_transport [c]:3"],
            ),
            (
                "",
                &[(TransportMaps, &["smtp:[a]:1, [b]:2", "ses:c:3", ":d", "local:", "smtp:", "uucp:e"])],
                &[
                    "smtp transport_maps d",
                    "relay transport_maps d",
                    "ses transport_maps c:3",
                    "smtp transport_maps [a]:1",
                    "smtp transport_maps [b]:2",
                ],
            ),
            (
                "",
                &[(SenderRelayhost, &["[a]:1 [b]:2", "DUNNO"])],
                &[
                    "smtp sender_dependent_relayhost_maps [a]:1",
                    "smtp sender_dependent_relayhost_maps [b]:2",
                    "relay sender_dependent_relayhost_maps [a]:1",
                    "relay sender_dependent_relayhost_maps [b]:2",
                ],
            ),
            (
                "relayhost = [r]:1\ndefault_transport = error\nrelay_transport = error",
                &[(SenderTransport, &["ses:", "smtp:[b]:2", "dunno"])],
                &["ses relayhost [r]:1", "smtp sender_dependent_default_transport_maps [b]:2"],
            ),
            (
                "content_filter = smtp:[127.0.0.1]:10025\nvirtual_transport = ses:[a]:1\nmailbox_transport = smtp:[b]:2",
                &[(HeaderChecks, &["FILTER ses:[c]:3", "REJECT no", "filter smtp:d:4"])],
                &[
                    "ses virtual_transport [a]:1",
                    "smtp mailbox_transport [b]:2",
                    "smtp content_filter [127.0.0.1]:10025",
                    "ses header_checks [c]:3",
                    "smtp header_checks d:4",
                ],
            ),
            (
                "smtp_fallback_relay = [f]:1",
                &[],
                &["smtp smtp_fallback_relay [f]:1", "relay smtp_fallback_relay [f]:1"],
            ),
        ];
        for (settings, tables, expected) in cases {
            assert_eq!(hops(settings, tables), *expected, "{settings} {tables:?}");
        }
    }
}
