//! `[credential.smtp]`: where and how to log in, and what a target may say over it.

use std::path::PathBuf;
use std::time::Duration;

use super::value::Judged;
use super::{At, DeValue, Reader, Section, SectionView, Severity, aws, key, table, value};
use crate::credential::ses_region;
use crate::mta::Relay;
use crate::mta::alias::{Alias, is_told_by_port};

pub static SMTP: Section = Section {
    header: "[credential.smtp]",
    keys: &[
        key("endpoint"),
        key("port").few().default("587"),
        key("tls").few().default("\"starttls\""),
        key("region"),
        key("ca_file"),
        key("timeout").few().default("\"10s\""),
        key("propagation").few().default("\"5m\""),
        key("retry").few().default("\"10s\""),
        key("endpoint_aliases").default("[]"),
        table("also"),
    ],
};

pub static ALSO: Section = Section {
    header: "[[credential.smtp.also]]",
    keys: &[key("endpoint"), key("port").few(), key("tls").few(), key("region"), key("endpoint_aliases").default("[]")],
};

/// Where and how to log in: `[credential.smtp]`, with a target's overrides applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Smtp {
    /// Host name, as certificates name it.
    pub endpoint: String,
    /// TCP port.
    pub port: u16,
    /// How the connection becomes TLS.
    pub tls: Tls,
    /// The configured SES region; else it is read from the endpoint's name (`credential::ses_region`).
    pub region: Option<String>,
    /// PEM bundle to trust instead of the system's. Absolute.
    pub ca_file: Option<PathBuf>,
    /// Bounds the whole dialogue.
    pub timeout: Duration,
    /// How long, from the first refusal seen here, a 535 means "not yet".
    pub propagation: Duration,
    /// At the earliest this long after a 535 it is tried again.
    pub retry: Duration,
    /// Other names under which the mail server may know the endpoint, lower case ([`Alias`]).
    pub endpoint_aliases: Vec<String>,
    /// `[[credential.smtp.also]]`: its endpoints in further regions, with the same IAM key. Nothing stands here in those.
    pub also: Vec<Smtp>,
}

impl Smtp {
    /// What a mail server's tables know of it.
    pub fn relay(&self) -> Relay {
        let Self { endpoint, port, region, endpoint_aliases, .. } = self.clone();
        Relay { endpoint, port, region, endpoint_aliases, also: self.also.iter().map(Self::relay).collect() }
    }

    /// Every endpoint, the default one first, as [`Relay::endpoints`] counts them.
    pub fn endpoints(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.also)
    }

    /// The SES region whose password the endpoint takes.
    pub fn ses_region(&self) -> Option<String> {
        self.region.clone().or_else(|| ses_region(&self.endpoint))
    }

    /// `HOST:PORT`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.endpoint, self.port)
    }

    /// The endpoint and its aliases.
    pub fn names(&self) -> Vec<Alias> {
        let aliases = self.endpoint_aliases.iter().filter_map(|alias| Alias::parse(alias));
        std::iter::once(Alias::of_endpoint(&self.endpoint, self.port)).chain(aliases).collect()
    }

    /// The host names that a mail server may know it by, each with its port.
    pub fn known_as(&self) -> Vec<(String, u16)> {
        self.names().into_iter().map(|name| (name.host, name.port.unwrap_or(self.port))).collect()
    }
}

/// How a connection becomes TLS. There is no way without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// In the clear first, then STARTTLS (RFC 3207).
    Starttls,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// Where a login is tried: what a target may override, each with its line.
#[derive(Clone, Default)]
pub struct Door {
    pub(super) endpoint: Option<At<String>>,
    port: Option<At<u16>>,
    tls: Option<At<Tls>>,
    region: Option<At<String>>,
}

pub(super) fn door(reader: &mut Reader, view: &SectionView) -> Door {
    let tls = [("starttls", Tls::Starttls), ("implicit", Tls::Implicit)];
    Door {
        endpoint: reader.read(view, "endpoint", value::host_name),
        port: reader.read(view, "port", value::port),
        tls: reader.read(view, "tls", |v| value::choice(v, &tls, &[])),
        region: aws::read_region(reader, view),
    }
}

/// `[credential.smtp]`. Without one (that is recorded) the result is a placeholder.
pub fn read(reader: &mut Reader, view: Option<&SectionView>) -> (Smtp, Door) {
    let mut smtp = Smtp {
        endpoint: String::new(),
        port: default_port(Tls::Starttls),
        tls: Tls::Starttls,
        region: None,
        ca_file: None,
        timeout: Duration::from_secs(10),
        propagation: Duration::from_secs(300),
        retry: Duration::from_secs(10),
        endpoint_aliases: Vec::new(),
        also: Vec::new(),
    };
    let Some(view) = view else { return (smtp, Door::default()) };
    reader.keys(view, None);
    reader.must(view, "endpoint", "add endpoint = \"email-smtp.REGION.amazonaws.com\"");
    let door = door(reader, view);
    smtp.tls = door.tls.as_ref().map_or(Tls::Starttls, |at| at.value);
    smtp.port = door.port.as_ref().map_or(default_port(smtp.tls), |at| at.value);
    smtp.endpoint = door.endpoint.as_ref().map(|at| at.value.clone()).unwrap_or_default();
    smtp.region = door.region.as_ref().map(|at| at.value.clone());
    fits(reader, &smtp, &door, view.line);

    smtp.ca_file = reader.read(view, "ca_file", value::absolute).map(|at| at.value);
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    for (key, slot, range) in [
        ("timeout", &mut smtp.timeout, second..=5 * minute),
        ("propagation", &mut smtp.propagation, Duration::ZERO..=60 * minute),
        ("retry", &mut smtp.retry, Duration::from_millis(10)..=15 * minute),
    ] {
        if let Some(at) = reader.read(view, key, |v| value::duration(v, range)) {
            *slot = at.value;
        }
    }
    smtp.endpoint_aliases = aliases(reader, view, &smtp);
    smtp.also = also(reader, view, &smtp, &door);
    (smtp, door)
}

/// Other names of an endpoint; none is SES's in another region, where another password holds.
fn aliases(reader: &mut Reader, view: &SectionView, smtp: &Smtp) -> Vec<String> {
    let own = smtp.ses_region();
    let judge = |value: &DeValue<'_>| {
        let alias = alias(value)?;
        match (&own, ses_region(&alias.host)) {
            (Some(own), Some(other)) if *own != other => {
                let name = &alias.host;
                value::mistake(
                    format!(
                        "{name:?} is SES in {other}, and the endpoint is SES in {own}: each region has a password of its own"
                    ),
                    format!(
                        "take it out, and add [[credential.smtp.also]] with endpoint = {name:?}, where the IAM key is the same; else \
                         make a credential with that endpoint"
                    ),
                )
            }
            _ => Ok(alias),
        }
    };
    let listed = reader.lines_of(view, "endpoint_aliases", "", judge, Alias::to_string).unwrap_or_default();
    for At { value, line } in listed.iter().filter(|at| at.value.port.is_none() && is_told_by_port(&at.value.host)) {
        reader.find(
            Severity::Warning,
            *line,
            format!(
                "endpoint_aliases: \"{value}\" stands for every port, and not all of them need lead to the endpoint"
            ),
            format!("write it with the port that does, as in \"{}\"", Alias { port: Some(2525), ..value.clone() }),
        );
    }
    listed.iter().map(|at| at.value.to_string()).collect()
}

/// A host name, or an address or a name of this host itself, with its port.
fn alias(value: &DeValue) -> Judged<Alias> {
    match Alias::parse(value::trimmed(value)?) {
        Some(alias) if is_told_by_port(&alias.host) => Ok(alias),
        _ => value::host_name(value).map(|host| Alias { host: host.to_ascii_lowercase(), port: None }),
    }
}

/// `[[credential.smtp.also]]`: the endpoints in further regions.
fn also(reader: &mut Reader, view: &SectionView, smtp: &Smtp, base: &Door) -> Vec<Smtp> {
    let views = reader.tables(view, "also", &ALSO).unwrap_or_default();
    let line = base.endpoint.as_ref().map_or(view.line, |at| at.line);
    if !views.is_empty() && smtp.ses_region().is_none() && !smtp.endpoint.is_empty() {
        reader.error(
            line,
            format!(
                "with [[credential.smtp.also]] the region of each endpoint is needed, and {:?} names none",
                smtp.endpoint
            ),
            "add region = \"REGION\", that of the SES endpoint behind it, to [credential.smtp]",
        );
    }
    let mut all: Vec<(Smtp, usize)> = vec![(smtp.clone(), line)];
    for view in &views {
        reader.keys(view, None);
        reader.must(view, "endpoint", "add endpoint = \"email-smtp.REGION.amazonaws.com\"");
        let door = door(reader, view);
        let Some(endpoint) = &door.endpoint else { continue };
        let mut own = Smtp { region: None, ..overridden(reader, smtp, base, &door, view.line) };
        own.region = door.region.as_ref().map(|at| at.value.clone());
        own.endpoint_aliases = aliases(reader, view, &own);
        let Some(region) = own.ses_region() else {
            reader.error(
                endpoint.line,
                format!("the region of {:?} is not known, and its password is made for one", own.endpoint),
                "add region = \"REGION\", that of the SES endpoint behind it",
            );
            continue;
        };
        if let Some((other, line)) = all.iter().find(|(other, _)| other.ses_region().as_ref() == Some(&region)) {
            reader.error(
                endpoint.line,
                format!("{:?} is in {region}, as {:?} on line {line}: each region stands once", own.endpoint, other.endpoint),
                match own.endpoint.eq_ignore_ascii_case(&other.endpoint) {
                    true => "remove this one".to_owned(),
                    false => {
                        let name = &own.endpoint;
                        format!("remove this one, and add {name:?} to the endpoint_aliases of the other, if mail goes there too")
                    }
                },
            );
            continue;
        }
        let own_names = own.names();
        let twice = all.iter().find_map(|(other, line)| {
            other.names().into_iter().find(|name| own_names.iter().any(|own| own.meets(name))).map(|name| (name, *line))
        });
        if let Some((name, line)) = twice {
            reader.error(
                endpoint.line,
                format!("\"{name}\" is a name of this endpoint and of the one on line {line}: whose password an entry gets is not known"),
                "keep it at one of them",
            );
            continue;
        }
        all.push((own, endpoint.line));
    }
    all.into_iter().skip(1).map(|(smtp, _)| smtp).collect()
}

/// `[credential.smtp]` with a target's own endpoint, port, TLS and region over it.
pub(super) fn overridden(reader: &mut Reader, smtp: &Smtp, base: &Door, door: &Door, header: usize) -> Smtp {
    let mut own = smtp.clone();
    if let Some(endpoint) = &door.endpoint {
        // Aliases lead to the endpoint beside which they stand, not to this one.
        if !endpoint.value.eq_ignore_ascii_case(&smtp.endpoint) {
            own.endpoint_aliases.clear();
        }
        own.endpoint = endpoint.value.clone();
        // The region that was meant for the other endpoint gives way to the one that this endpoint's name says.
        if ses_region(&own.endpoint).is_some() {
            own.region = None;
        }
    }
    if let Some(region) = &door.region {
        own.region = Some(region.value.clone());
    }
    if let Some(tls) = &door.tls {
        own.tls = tls.value;
        // A port that was chosen for the other kind of TLS is not taken over.
        if own.tls != smtp.tls || base.port.is_none() {
            own.port = default_port(own.tls);
        }
    }
    if let Some(port) = &door.port {
        own.port = port.value;
    }
    // A target whose own endpoint is one of the further ones has the other for a further one.
    let region = own.ses_region();
    if region != smtp.ses_region() {
        let other = Smtp { also: Vec::new(), ..smtp.clone() };
        let is_further = own.also.iter().any(|also| also.ses_region() == region);
        own.also.retain(|also| also.ses_region() != region);
        own.also.splice(0..0, Some(other).filter(|_| is_further));
    }
    // What is inherited was judged where it stands.
    let Door { endpoint, port, tls, region } = door;
    if (endpoint.is_some() || port.is_some() || tls.is_some() || region.is_some()) && !own.endpoint.is_empty() {
        fits(reader, &own, door, header);
    }
    own
}

/// Do endpoint, port, TLS and region go together? The finding stands on the most telling line of `door`.
fn fits(reader: &mut Reader, smtp: &Smtp, door: &Door, header: usize) {
    let named = ses_region(&smtp.endpoint);
    let line = |at: &[Option<usize>]| at.iter().find_map(|line| *line).unwrap_or(header);
    let (endpoint, port, tls, region) = (
        door.endpoint.as_ref().map(|at| at.line),
        door.port.as_ref().map(|at| at.line),
        door.tls.as_ref().map(|at| at.line),
        door.region.as_ref().map(|at| at.line),
    );
    if let (Some(named), Some(configured)) = (&named, &smtp.region)
        && named != configured
    {
        reader.error(
            line(&[region, endpoint]),
            format!("region is {configured:?}, but the endpoint's name says {named:?}"),
            "remove `region`: it is read from the endpoint's name; or correct the endpoint",
        );
    }
    let wanted = match smtp.port {
        465 | 2465 => Some(Tls::Implicit),
        25 | 587 | 2587 => Some(Tls::Starttls),
        _ => None,
    };
    match wanted {
        Some(wanted) if wanted != smtp.tls => {
            // SES's listeners are known; elsewhere somebody may have chosen otherwise.
            let severity = if named.is_some() { Severity::Error } else { Severity::Warning };
            let (is, should) = match wanted {
                Tls::Implicit => ("implicit TLS", "set tls = \"implicit\", or port = 587"),
                Tls::Starttls => ("STARTTLS", "set tls = \"starttls\", or port = 465"),
            };
            let what = format!("port {} is one for {is}, and tls says otherwise", smtp.port);
            reader.find(severity, line(&[tls, port]), what, should);
        }
        None if named.is_some() => {
            reader.find(
                Severity::Warning,
                line(&[port]),
                format!("SES does not listen on port {}", smtp.port),
                "use 587, 2587 or 25 with tls = \"starttls\", or 465 or 2465 with tls = \"implicit\"",
            );
        }
        _ => {}
    }
}

fn default_port(tls: Tls) -> u16 {
    match tls {
        Tls::Starttls => 587,
        Tls::Implicit => 465,
    }
}
