//! The next hops that mail is handed to: of which client service, as they are spelt, and whether they lead to an endpoint of
//! ours (pure).
//!
//! A hop belongs to the service that its route names. `relayhost` and `sender_dependent_relayhost_maps` belong to the services
//! of the transports that name no hop of their own (postconf(5), "default_transport"); a transport without a name is one of the
//! default ones (transport(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use super::origin::{Origin, RouteForm, RouteSettings};
use super::services::Service;
use super::settings::words;
use crate::credential::ses_region;
use crate::mta::alias::{Alias, connected, is_told_by_port, same_host};
use crate::mta::{Relay, shown};

/// One server that a credential logs in to, with the names that a mail server may know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
    /// The SES region whose password it takes.
    pub(super) region: Option<String>,
    pub(super) aliases: Vec<Alias>,
    /// What ports are called on this host.
    pub(super) port_names: PortNames,
}

impl Endpoint {
    /// The endpoint of a relay.
    pub(super) fn of(relay: &Relay) -> Self {
        Self {
            host: relay.endpoint.clone(),
            port: relay.port,
            region: relay.region.clone().or_else(|| ses_region(&relay.endpoint)),
            aliases: relay.endpoint_aliases.iter().filter_map(|alias| Alias::parse(alias)).collect(),
            port_names: PortNames::default(),
        }
    }

    /// Does a destination with this host and port lead to it?
    pub(super) fn is_at(&self, host: &str, port: Option<&str>) -> bool {
        let port = self.port_names.number(port);
        Alias::of_endpoint(&self.host, self.port).is_at(host, port)
            || self.aliases.iter().any(|alias| alias.is_at(host, port))
    }

    /// Is a login surely asked for there? At the ports of SES under its own names, at the port that the configuration says, and no
    /// other: a gateway may take mail by the client's address at one port, and with a login at another.
    pub(super) fn asks_for_login(&self, host: &str, port: Option<&str>) -> bool {
        let Some(port) = self.port_names.number(port) else { return false };
        let is_ses = || ses_region(host).is_some() && SES_PORTS.contains(&port);
        let by_alias = |alias: &Alias| {
            let at_ours = || port == self.port && !is_told_by_port(host);
            same_host(&alias.host, host) && alias.port.map_or_else(|| at_ours() || is_ses(), |own| own == port)
        };
        same_host(&self.host, host) && (port == self.port || is_ses()) || self.aliases.iter().any(by_alias)
    }

    /// Is it one of its names, whatever the port?
    pub(super) fn has_name(&self, host: &str) -> bool {
        self.names().any(|name| same_host(name, host))
    }

    /// For a destination with one of its names and another port: the port that it has, and the name with the port that leads here.
    pub(super) fn other_port(&self, host: &str, port: Option<&str>) -> Option<OtherPort> {
        let there = self.port_names.number(port).filter(|_| !self.is_at(host, port))?;
        let own = Alias::of_endpoint(&self.host, self.port);
        if same_host(&own.host, host) {
            return Some(OtherPort { there, ours: own, is_alias: false });
        }
        let ours = self.aliases.iter().find(|alias| same_host(&alias.host, host))?.clone();
        Some(OtherPort { there, ours, is_alias: true })
    }

    /// The host names of it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.host.as_str()).chain(self.aliases.iter().map(|alias| alias.host.as_str()))
    }
}

/// A destination has a name of an endpoint, and not its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OtherPort {
    /// The destination's.
    pub(super) there: u16,
    /// What would lead to the endpoint.
    pub(super) ours: Alias,
    /// Does `endpoint_aliases` say so, and not `endpoint` with `port`?
    pub(super) is_alias: bool,
}

/// Where SES listens (its documentation, "Connecting to an Amazon SES SMTP endpoint").
const SES_PORTS: [u16; 5] = [25, 465, 587, 2465, 2587];

/// Do two destinations name one port of one host?
pub(super) fn same_place(a: &str, b: &str) -> bool {
    let ports = [a, b].map(port_part);
    let is_same = ports[0] == ports[1] || number(ports[0]).is_some_and(|port| number(ports[1]) == Some(port));
    same_host(host_part(a), host_part(b)) && is_same
}

/// The names of TCP ports, as services(5) has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PortNames(BTreeMap<String, u16>);

impl PortNames {
    /// Those of a text of that form; the first of equal names counts.
    pub(super) fn parse(text: &str) -> Self {
        let mut names = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some(port) = port.strip_suffix("/tcp").and_then(|port| port.parse().ok()) else { continue };
            for name in std::iter::once(name).chain(words) {
                names.entry(name.to_owned()).or_insert(port);
            }
        }
        Self(names)
    }

    /// The port that a destination names; 25 where it names none. `None`: it has a name that nobody knows.
    fn number(&self, port: Option<&str>) -> Option<u16> {
        port.and_then(|name| self.0.get(name).copied()).or_else(|| number(port))
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
    /// Is a login surely asked for there, so that one may be put where there is none?
    pub(super) asks_for_login: bool,
}

impl NextHop {
    /// A hop as a route spells it. `default_port`: what `smtp_tcp_port` of the service says.
    pub(super) fn new(
        service: &str,
        origin: Origin,
        spelt: &str,
        default_port: Option<&str>,
        endpoints: &[Endpoint],
    ) -> Self {
        let host = connected(host_part(spelt));
        let port = port_part(spelt).filter(|port| !port.is_empty()).or(default_port);
        let endpoint = endpoints.iter().position(|endpoint| endpoint.is_at(&host, port));
        let asks_for_login = endpoint.is_some_and(|number| endpoints[number].asks_for_login(&host, port));
        Self { service: service.to_owned(), origin, spelt: spelt.to_owned(), host, endpoint, asks_for_login }
    }

    /// Does it lead to an endpoint of ours?
    pub(super) fn is_ours(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Of which service it is, and how it is spelt.
    pub(super) fn place(&self) -> (String, String) {
        (self.service.clone(), self.spelt.clone())
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
    /// Those with a name of ours whose mail goes without a login, and is left so.
    pub(super) without_login: Vec<NextHop>,
}

impl Hops {
    /// Where everything is handed to.
    pub(super) fn of(
        settings: &RouteSettings,
        services: &[Service],
        tables: &RouteTables,
        endpoints: &[Endpoint],
    ) -> Self {
        Routes { settings, services, tables }.hops(endpoints)
    }

    /// Takes out those whose mail is left without a login, by service and spelling.
    pub(super) fn leave_without_login(&mut self, left: &[(String, String)]) {
        let is_left = |hop: &mut NextHop| left.contains(&hop.place());
        self.without_login = self.all.extract_if(.., is_left).collect();
    }

    /// Is a port called by a name that not every host knows?
    pub(super) fn has_port_names(&self) -> bool {
        self.all.iter().any(|hop| number(port_part(&hop.spelt)).is_none())
    }

    /// Those of a service.
    pub(super) fn of_service<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a NextHop> {
        self.all.iter().filter(move |hop| hop.service == service)
    }

    /// Those of a service that are ours.
    pub(super) fn ours<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a NextHop> {
        self.of_service(service).filter(|hop| hop.is_ours())
    }
}

struct Routes<'a> {
    settings: &'a RouteSettings,
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

    /// The services that `relayhost` says for where mail goes, of one that takes what leaves this host.
    fn relaying<'b>(&'b self, default_names: &'b [&'a str]) -> &'b [&'a str] {
        match (self.name, self.destinations.is_empty()) {
            (_, false) => &[],
            ("", true) => default_names,
            (_, true) => std::slice::from_ref(&self.name),
        }
    }
}

impl<'a> Routes<'a> {
    fn values(&self, origin: Origin) -> impl Iterator<Item = &'a str> {
        let own = self.tables.iter().filter(move |(of, _)| *of == origin);
        own.flat_map(|(_, values)| values.found.iter().map(String::as_str))
    }

    /// The transports that stand for whatever leaves this host, after the parameters that name them.
    fn defaults(&self) -> Vec<(Origin, Transport<'a>)> {
        let settings = self.settings;
        let of = |origin| settings.values(origin).map(move |value| (origin, Transport::parse(value)));
        [Origin::DefaultTransport, Origin::RelayTransport].into_iter().flat_map(of).collect()
    }

    fn hops(&self, endpoints: &[Endpoint]) -> Hops {
        let mut hops = Hops::default();
        let mut add = |service: &str, origin: Origin, spelt: &str| {
            let settings = self.services.iter().find(|known| known.name == service).map(|known| &known.settings);
            let default_port = settings.map(|settings| settings.get("smtp_tcp_port")).filter(|port| !port.is_empty());
            let hop = NextHop::new(service, origin, spelt, default_port, endpoints);
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
        let all_defaults = defaults.iter().map(|(_, transport)| transport).chain(&of_senders);
        let relaying: Vec<&str> =
            all_defaults.flat_map(|transport| transport.relaying(&default_names)).copied().collect();
        let of_relayhost = || self.settings.values(Origin::Relayhost).flat_map(words);
        for service in &relaying {
            of_relayhost().for_each(|spelt| add(service, Origin::Relayhost, spelt));
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
        let filter = |value| {
            let mut transport = Transport::parse(value);
            if transport.destinations.is_empty() {
                transport.destinations.extend(words(&self.settings.filter_next_hop));
            }
            transport
        };
        let came_before = [Origin::DefaultTransport, Origin::RelayTransport, Origin::SenderTransport];
        for origin in Origin::all().filter(|origin| !came_before.contains(origin)) {
            match origin.holds() {
                // So did these.
                RouteForm::NextHops | RouteForm::NextHopTables => {}
                RouteForm::Transport => {
                    self.settings.values(origin).for_each(|value| add_transport(origin, &Transport::parse(value)));
                }
                RouteForm::TransportTables => {
                    self.values(origin).for_each(|value| add_transport(origin, &Transport::parse(value)));
                }
                RouteForm::Filter => {
                    let set = self.settings.values(origin).filter(|value| !value.is_empty());
                    set.for_each(|value| add_transport(origin, &filter(value)));
                }
                RouteForm::Checks | RouteForm::Restrictions => {
                    let filters = self.values(origin).filter_map(filter_action);
                    filters.for_each(|value| add_transport(origin, &filter(value)));
                }
            }
        }
        for service in self.services {
            for spelt in service.settings.list(Origin::FallbackRelay.parameter()) {
                add(&service.name, Origin::FallbackRelay, spelt);
            }
        }
        // Who is let in is asked of databases on many hosts, which hardly ever hand mail on.
        let is_known = hops.all.iter().any(NextHop::is_ours);
        let counts = |origin: Origin| !(is_known && origin.holds() == RouteForm::Restrictions);
        let unread = self.tables.iter().filter(|(origin, _)| counts(*origin));
        hops.unread =
            unread.flat_map(|(origin, values)| values.unread.iter().map(|table| (*origin, table.clone()))).collect();
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
    use super::super::settings::Settings;
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
        assert_eq!(NextHop::new("smtp", Origin::Relayhost, "[IPv6:0:0::1]:25", None, &[]).host, "::1");
        // smtp_tcp_port stands for the port of what names none.
        let tunnel = [endpoint("relay.example.com", 587, &["127.0.0.1:2525"])];
        let is_ours = |spelt, port| NextHop::new("smtp", Origin::Relayhost, spelt, port, &tunnel).is_ours();
        assert!(is_ours("[127.0.0.1]", Some("2525")) && is_ours("[127.0.0.1]:2525", Some("smtp")));
        assert!(!is_ours("[127.0.0.1]", None) && !is_ours("[127.0.0.1]:25", Some("2525")));
        let ours = [endpoint("a", 587, &["b", "d"])];
        let hops = ["a:587", "b", "[d]:25"].map(|spelt| NextHop::new("smtp", Origin::Relayhost, spelt, None, &ours));
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
        let other = |of: &Endpoint, spelt| {
            of.other_port(host_part(spelt), port_part(spelt)).map(|p| (p.there, p.ours.to_string(), p.is_alias))
        };
        assert_eq!(other(&local, "[localhost]:10025"), Some((10025, "localhost:2587".into(), false)));
        assert_eq!(other(&local, "localhost"), Some((25, "localhost:2587".into(), false)));
        assert_eq!(other(&ses, "[127.0.0.1]:10025"), Some((10025, "127.0.0.1:2525".into(), true)));
        for (of, spelt) in [(&local, "[localhost]:2587"), (&local, "[::1]:1"), (&ses, "[other.example]:25")] {
            assert_eq!(other(of, spelt), None, "{spelt}");
        }
        let submission = endpoint("localhost", 587, &[]);
        assert!(submission.is_at("localhost", Some("submission")) && !submission.is_at("localhost", Some("smtps")));
    }

    #[test]
    fn ports_are_called_as_services_has_them() {
        let text = "# services(5)\nsmtp\t25/tcp\tmail\nses-tunnel 2525/udp\nses-tunnel\t2525/tcp\trelay # of ours\nrelay 99/tcp\nodd\n";
        let names = PortNames::parse(text);
        for (name, port) in
            [("ses-tunnel", Some(2525)), ("relay", Some(2525)), ("mail", Some(25)), ("smtps", Some(465)), ("odd", None)]
        {
            assert_eq!(names.number(Some(name)), port, "{name}");
        }
        let tunnel = endpoint("email-smtp.us-east-1.amazonaws.com", 587, &["127.0.0.1:2525"]);
        let named = Endpoint { port_names: names, ..tunnel.clone() };
        let is_ours = |endpoint: &Endpoint| endpoint.is_at("127.0.0.1", Some("ses-tunnel"));
        assert!(is_ours(&named) && named.asks_for_login("127.0.0.1", Some("ses-tunnel")) && !is_ours(&tunnel));
        assert!(same_place("[a]:ses-tunnel", "A:ses-tunnel") && !same_place("[a]:ses-tunnel", "[a]:relay"));
    }

    #[test]
    fn where_a_login_is_surely_asked_for() {
        let ses = endpoint(
            "email-smtp.us-east-1.amazonaws.com",
            587,
            &["relay.internal", "127.0.0.1", "gateway.internal:2526", "email-smtp-fips.us-east-1.amazonaws.com"],
        );
        let own = endpoint("relay.example", 2587, &[]);
        for (spelt, of_ses, of_own) in [
            ("[email-smtp.us-east-1.amazonaws.com]:587", true, false),
            ("[Email-SMTP.us-east-1.amazonaws.com]:2465", true, false),
            ("email-smtp.us-east-1.amazonaws.com", true, false),
            ("[email-smtp-fips.us-east-1.amazonaws.com]:25", true, false),
            ("[email-smtp.us-east-1.amazonaws.com]:26", false, false),
            ("[relay.internal]:submission", true, false),
            ("[relay.internal]", false, false),
            ("[relay.internal]:2587", false, false),
            ("[gateway.internal]:2526", true, false),
            ("[gateway.internal]:587", false, false),
            // Anything may listen there.
            ("[127.0.0.1]:587", false, false),
            ("[relay.example]:2587", false, true),
            ("[relay.example]:25", false, false),
        ] {
            let is_so = |endpoint: &Endpoint| endpoint.asks_for_login(host_part(spelt), port_part(spelt));
            assert_eq!((is_so(&ses), is_so(&own)), (of_ses, of_own), "{spelt}");
        }
        assert!(same_place("[a]:587", "A:submission") && same_place("a", "[a]:25") && !same_place("[a]:587", "[a]"));
    }

    /// `service origin spelt`, in order.
    fn hops(settings: &str, tables: &[(Origin, &[&str])]) -> Vec<String> {
        hops_with(settings, &[], tables)
    }

    /// `own`: what entries of master.cf have by options of their own.
    fn hops_with(settings: &str, own: &[(Origin, &str)], tables: &[(Origin, &[&str])]) -> Vec<String> {
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
        let mut routing = RouteSettings::of(&main, &[]);
        own.iter().for_each(|(origin, value)| routing.add(*origin, (*value).to_owned()));
        let hops = Hops::of(&routing, &services, &tables, &[]);
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

    #[test]
    fn options_of_other_entries_and_access_tables_hand_mail_on_too() {
        use Origin::{
            ContentFilter, DefaultTransport, FallbackTransportMaps, MailboxTransportMaps, MilterHeaderChecks,
            Relayhost, SenderRestrictions,
        };
        // Of smtpd(8), beside that of main.cf.
        assert_eq!(
            hops_with("content_filter = smtp:[a]:1", &[(ContentFilter, "ses:[b]:2"), (ContentFilter, "")], &[]),
            ["smtp content_filter [a]:1", "ses content_filter [b]:2"]
        );
        // trivial-rewrite(8) decides; what smtp(8) has of it is without effect.
        assert_eq!(
            hops_with(
                "relayhost = [a]:1\nrelay_transport = error",
                &[(Relayhost, "[b]:2"), (DefaultTransport, "ses")],
                &[]
            ),
            ["smtp relayhost [a]:1", "smtp relayhost [b]:2", "ses relayhost [a]:1", "ses relayhost [b]:2"]
        );
        assert_eq!(
            hops(
                "",
                &[
                    (SenderRestrictions, &["FILTER smtp:[c]:3", "REJECT no", "OK"]),
                    (MilterHeaderChecks, &["FILTER ses:[d]:4"]),
                    (MailboxTransportMaps, &["ses:[e]:5", "lmtp:unix:private/x"]),
                    (FallbackTransportMaps, &["smtp:f"]),
                ]
            ),
            [
                "ses mailbox_transport_maps [e]:5",
                "smtp fallback_transport_maps f",
                "ses milter_header_checks [d]:4",
                "smtp smtpd_sender_restrictions [c]:3"
            ]
        );
        // A filter that names no next hop.
        let filtered =
            hops("content_filter = ses:\ndefault_filter_nexthop = [g]:6", &[(SenderRestrictions, &["FILTER smtp:"])]);
        assert_eq!(filtered, ["ses content_filter [g]:6", "smtp smtpd_sender_restrictions [g]:6"]);
    }

    #[test]
    fn an_access_table_that_cannot_be_read_counts_where_nothing_else_leads_to_us() {
        let unread = |relayhost: &str| {
            let main = Settings::parse(&format!("relayhost = {relayhost}"));
            let services = ["smtp"].map(|name| Service {
                name: name.to_owned(),
                settings: main.clone(),
                overridden: BTreeSet::new(),
            });
            let not_read =
                |origin, table: &str| (origin, Values { unread: vec![table.to_owned()], ..Values::default() });
            let tables =
                vec![not_read(Origin::ClientRestrictions, "mysql:/a"), not_read(Origin::TransportMaps, "mysql:/t")];
            let hops = Hops::of(&RouteSettings::of(&main, &[]), &services, &tables, &[endpoint("ses", 587, &[])]);
            hops.unread.into_iter().map(|(origin, _)| origin).collect::<Vec<_>>()
        };
        assert_eq!(unread("[ses]:587"), [Origin::TransportMaps]);
        assert_eq!(unread("[elsewhere]:587"), [Origin::ClientRestrictions, Origin::TransportMaps]);
    }
}
