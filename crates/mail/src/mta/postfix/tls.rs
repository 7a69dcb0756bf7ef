//! What TLS a login goes out with, hop by hop: `smtp_tls_policy_maps` where it has a line for the next hop, else
//! `smtp_tls_security_level` (postconf(5)).
//!
//! What is advised is for that next hop alone: a level for all mail would keep mail from servers without TLS.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;

use super::hops::{NextHop, same_place};
use super::own_table::NamedIn;
use super::proxymap::unproxied;
use super::review::Problem;
use super::services::{Service, may_hold_a_login};
use super::survey::Survey;
use super::tables::{LoginMap, gave_up};
use super::{COMMAND, Postfix};
use crate::credential::ses_region;
use crate::fault::Class;
use crate::host;
use crate::mta::alias::is_this_host;
use crate::mta::{Relay, shown};

/// With these no login goes out without TLS.
const MANDATORY: &[&str] = &["encrypt", "dane-only", "fingerprint", "verify", "secure"];
/// Of these `encrypt` would take something away: the server's name or key is checked, or where there is one to check.
const CHECKED: &[&str] = &["dane", "dane-only", "fingerprint", "verify", "secure"];

/// What `smtp_tls_policy_maps` says of a destination.
#[derive(Debug, PartialEq, Eq)]
enum TlsPolicy {
    /// It has no line for it.
    Absent,
    /// This level, from this table as it may be shown.
    Level { level: String, table: String },
    /// A table before any with a line for it cannot be read.
    Unread { table: String },
}

/// What policy tables have answered, by table and name: each is asked once, however many services ask it.
pub(super) type PolicyAnswers = HashMap<(String, String), Result<Option<String>, Unreadable>>;

impl TlsPolicy {
    /// The level that a service has for the destination; `None`: it is not known.
    fn level(&self, service: &Service) -> Option<String> {
        match self {
            Self::Absent => Some(default_level(service)),
            Self::Level { level, .. } => Some(level.clone()),
            Self::Unread { .. } => None,
        }
    }
}

/// The parameters that say which mechanisms are excluded at this level (postconf(5)): a certificate counts as verified only where it is
/// checked.
pub(super) fn security_options(level: &str) -> &'static [&'static str] {
    match (CHECKED.contains(&level), is_mandatory(level)) {
        _ if ["", "none"].contains(&level) => &["smtp_sasl_security_options"],
        (false, _) => &["smtp_sasl_tls_security_options"],
        (true, true) => &["smtp_sasl_tls_verified_security_options"],
        // Where there is nothing to check it by, it goes out all the same.
        (true, false) => &["smtp_sasl_tls_security_options", "smtp_sasl_tls_verified_security_options"],
    }
}

/// A next hop whose login may go out without TLS, by the level of its service.
struct Open<'a> {
    service: &'a Service,
    hop: &'a NextHop,
}

/// Does TLS begin there for a client that wants it?
#[derive(Clone, Copy, PartialEq, Eq)]
enum TlsThere {
    Begins,
    /// Behind a name that somebody gave it may be a tunnel.
    PerhapsByATunnel,
}

impl TlsThere {
    /// By SES's own names, and the place where we log in ourselves.
    fn of(relay: &Relay, open: &[&Open<'_>]) -> Self {
        let is_own = |hop: &NextHop| {
            let own = |relay: &Relay| same_place(&hop.spelt, &format!("[{}]:{}", relay.endpoint, relay.port));
            ses_region(&hop.host).is_some() || relay.endpoints().any(own)
        };
        if open.iter().all(|open| is_own(open.hop)) { Self::Begins } else { Self::PerhapsByATunnel }
    }
}

impl Postfix {
    /// What is to be said of next hops of ours for which TLS is not mandatory.
    pub(super) fn review_tls(&self, survey: &Survey, answers: &mut PolicyAnswers) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut open: Vec<Open<'_>> = Vec::new();
        for service in survey.setup.services.iter().filter(|service| service.logs_in()) {
            let level = default_level(service);
            // Where a table could not be read, it is not known yet what goes without a login.
            for hop in survey.hops.ours(&service.name).filter(|hop| survey.is_whole() || hop.asks_for_login) {
                let policy = self.policy(service, &hop.spelt, answers);
                if service.settings.yes("smtp_tls_wrappermode")
                    && let Some(level) =
                        policy.level(service).filter(|level| matches!(level.as_str(), "" | "none" | "may"))
                {
                    problems.push(self.wrapped_without_need(service, hop, &level, survey));
                    continue;
                }
                match policy {
                    TlsPolicy::Absent if !is_mandatory(&level) => open.push(Open { service, hop }),
                    TlsPolicy::Absent => {}
                    TlsPolicy::Level { level, .. } if is_mandatory(&level) => {}
                    TlsPolicy::Level { level, table } => problems.push(Problem::warning(
                        Some(self.file_of(service, "smtp_tls_policy_maps")),
                        format!(
                            "smtp_tls_policy_maps says {} for {}, in {table}: the login may go out without TLS",
                            said(&level),
                            shown::hop(&hop.spelt)
                        ),
                        "let it say encrypt there (or verify, or secure), compile the table if it is compiled, and reload Postfix".into(),
                    )),
                    TlsPolicy::Unread { .. } if is_mandatory(&level) => {}
                    TlsPolicy::Unread { table } => problems.push(Problem::note(
                        Some(self.file_of(service, "smtp_tls_security_level")),
                        format!(
                            "smtp_tls_security_level is {}, and {table} of smtp_tls_policy_maps, which may say otherwise, cannot be read",
                            said(&level)
                        ),
                        format!(
                            "make sure that it says encrypt, verify or secure for {}: postmap{} -q DESTINATION {table}",
                            shown::hop(&hop.spelt),
                            self.config_option()
                        ),
                    )),
                }
            }
        }
        // What goes to this very host goes to a tunnel, as a rule, which would not answer STARTTLS.
        let (here, open): (Vec<_>, Vec<_>) = open.into_iter().partition(|open| is_this_host(&open.hop.host));
        for Open { service, hop } in here {
            problems.push(Problem::note(
                Some(self.file_of(service, "smtp_tls_security_level")),
                format!(
                    "smtp_tls_security_level is {}: the login for {} may go out without TLS, to an address of this host",
                    said(&default_level(service)),
                    shown::hop(&hop.spelt)
                ),
                "nothing, where a tunnel listens there that does TLS itself; see that it checks the server's certificate".into(),
            ));
        }
        // One command for all that go by the same setting.
        let mut places: Vec<(PathBuf, &'static str)> = Vec::new();
        for Open { service, .. } in &open {
            let place = (self.file_of(service, "smtp_tls_security_level"), said(&default_level(service)));
            if !places.contains(&place) {
                places.push(place);
            }
        }
        for (file, level) in places {
            let is_of = |open: &&Open<'_>| {
                self.file_of(open.service, "smtp_tls_security_level") == file
                    && said(&default_level(open.service)) == level
            };
            let of_it: Vec<&Open<'_>> = open.iter().filter(is_of).collect();
            let hops: BTreeSet<String> = of_it.iter().map(|open| shown::hop(&open.hop.spelt)).collect();
            let hops = hops.into_iter().collect::<Vec<_>>().join(", ");
            problems.push(Problem::warning(
                Some(file),
                format!("smtp_tls_security_level is {level}: the login for {hops} may go out without TLS"),
                self.policy_fix(&of_it, level, survey, TlsThere::of(&self.relay, &of_it)),
            ));
        }
        problems
    }

    /// With which levels a service hands mail to these next hops; the service's own, where the policy tables cannot be read.
    pub(super) fn levels(&self, service: &Service, hops: &[&NextHop], answers: &mut PolicyAnswers) -> BTreeSet<String> {
        let level = |hop: &&NextHop| self.policy(service, &hop.spelt, answers).level(service);
        hops.iter().map(level).map(|level| level.unwrap_or_else(|| default_level(service))).collect()
    }

    /// smtp(8) keeps mail back where TLS begins with the first byte and the level lets it go without.
    fn wrapped_without_need(&self, service: &Service, hop: &NextHop, level: &str, survey: &Survey) -> Problem {
        let (file, what) = (self.file_of(service, "smtp_tls_wrappermode"), shown::hop(&hop.spelt));
        let what = format!(
            "smtp_tls_wrappermode = yes, and the level of TLS for {what} is {}: Postfix wants encrypt or stronger there, and all its \
             mail waits in the queue",
            said(level)
        );
        let fix = self.policy_fix(&[&Open { service, hop }], level, survey, TlsThere::Begins);
        Problem::error(Class::Config, Some(file), what, fix)
    }

    /// How these next hops, and nothing else, get TLS always.
    fn policy_fix(&self, open: &[&Open<'_>], level: &str, survey: &Survey, tls_there: TlsThere) -> String {
        let lines: BTreeSet<&str> = open.iter().map(|open| open.hop.spelt.as_str()).collect();
        let may_be_shown = lines.iter().all(|hop| shown::hop(hop) != shown::NOT_SHOWN);
        let per_site = open.iter().find(|open| !open.service.settings.get("smtp_tls_per_site").is_empty());
        if level == "dane" || !may_be_shown || per_site.is_some() || tls_there == TlsThere::PerhapsByATunnel {
            let tunnel = match tls_there {
                TlsThere::PerhapsByATunnel => {
                    "nothing, where a tunnel listens there that does TLS itself, and answers no STARTTLS; else: "
                }
                TlsThere::Begins => "",
            };
            let old = match per_site {
                Some(_) => {
                    "; smtp_tls_per_site, which is set, has no effect any more once smtp_tls_policy_maps is: what it says would have to \
                     stand there too"
                }
                None => "",
            };
            return format!(
                "{tunnel}with a line `encrypt` for the next hop in smtp_tls_policy_maps its mail waits rather than go without TLS, and \
                 its certificate is not checked; with `secure` it is checked by smtp_tls_CAfile; with `dane-only` by DNSSEC, which \
                 has to be there: which of them is yours to decide{old}"
            );
        }
        let own_policies = open.iter().find(|open| open.service.overridden.contains("smtp_tls_policy_maps"));
        // Where another service checks whom it talks to, the same line in main.cf would end that.
        let checks = |open: &&&Open<'_>| {
            survey.setup.services.iter().any(|other| {
                !other.overridden.contains("smtp_tls_policy_maps")
                    && CHECKED.contains(&default_level(other).as_str())
                    && (survey.hops.ours(&other.name)).any(|hop| hop.spelt.eq_ignore_ascii_case(&open.hop.spelt))
            })
        };
        let dir = self.config_dir.display();
        if let Some(alone) = own_policies.or_else(|| open.iter().find(checks)) {
            let lines: Vec<String> = lines.iter().map(|hop| format!("{{{hop}=encrypt}}")).collect();
            return format!(
                "in {dir}/master.cf, to the service {}, add to what its smtp_tls_policy_maps has now: -o {{ smtp_tls_policy_maps = \
                 … inline:{{{}}} }}; then reload Postfix. That is for its mail to this next hop alone",
                alone.service.name,
                lines.join(",")
            );
        }
        let lines: Vec<String> = lines.iter().map(|hop| format!("{{ {hop} = encrypt }}")).collect();
        // What is there stays, as it is written.
        format!(
            "postconf -c {dir} -e \"smtp_tls_policy_maps = $(postconf -c {dir} -h smtp_tls_policy_maps) inline:{{ {} }}\" && postfix \
             -c {dir} reload",
            lines.join(", ")
        )
    }

    /// What a service's policy tables say of a destination.
    fn policy(&self, service: &Service, destination: &str, answers: &mut PolicyAnswers) -> TlsPolicy {
        let tables = service.settings.list("smtp_tls_policy_maps");
        for name in names(destination) {
            for spelt in &tables {
                let found = match may_hold_a_login(spelt) {
                    true => Ok(written_out(service, spelt, name)),
                    false => answers
                        .entry(((*spelt).to_owned(), name.to_owned()))
                        .or_insert_with(|| self.ask_policy(service, spelt, name))
                        .clone(),
                };
                match found {
                    Ok(None) => {}
                    Ok(Some(line)) => {
                        let level = line.split_ascii_whitespace().next().unwrap_or_default().to_ascii_lowercase();
                        return TlsPolicy::Level { level, table: shown::table(spelt) };
                    }
                    Err(Unreadable) => return TlsPolicy::Unread { table: shown::table(spelt) },
                }
            }
        }
        TlsPolicy::Absent
    }

    fn ask_policy(&self, service: &Service, spelt: &str, name: &str) -> Result<Option<String>, Unreadable> {
        let mut argv = self.postmap(&service.settings);
        argv.extend(["-q", "-", spelt].map(OsString::from));
        let output = host::run(&argv, Some(format!("{name}\n").as_bytes()), COMMAND).map_err(|_| Unreadable)?;
        // Exit status 1 is both "found none" and "gave up".
        if !matches!(output.status.code(), Some(0 | 1)) || !gave_up(&output.stderr).is_empty() {
            return Err(Unreadable);
        }
        let answer = String::from_utf8_lossy(&output.stdout);
        Ok(answer.lines().next().and_then(|line| Some(line.split_once('\t')?.1.to_owned())))
    }
}

/// A table that could not be asked.
#[derive(Clone, Copy)]
pub(super) struct Unreadable;

/// What stands under a name in a table whose entries are its name.
fn written_out(service: &Service, spelt: &str, name: &str) -> Option<String> {
    let map = LoginMap::of(NamedIn::service(service), spelt);
    let table = map.fixed.as_ref()?;
    let is_static = unproxied(spelt).starts_with("static:");
    let entry = if is_static { Some(table.entry(0)) } else { table.get_folded(name).map(|(_, entry)| entry) };
    entry?.value().map(str::to_owned)
}

/// The names that are looked up for a destination: of one without brackets and port its parent domains too.
fn names(destination: &str) -> Vec<&str> {
    let mut names = vec![destination];
    if !destination.contains(['[', ':']) {
        names.extend(destination.match_indices('.').map(|(at, _)| &destination[at..]));
    }
    names
}

/// Where none is set, what older parameters make it (postconf(5), `smtp_tls_security_level`).
pub(super) fn default_level(service: &Service) -> String {
    let settings = &service.settings;
    let set = settings.get("smtp_tls_security_level");
    let level = match (set, settings.yes("smtp_enforce_tls"), settings.yes("smtp_use_tls")) {
        ("", true, _) if settings.get("smtp_tls_enforce_peername").eq_ignore_ascii_case("no") => "encrypt",
        ("", true, _) => "verify",
        ("", false, true) => "may",
        _ => set,
    };
    level.to_ascii_lowercase()
}

fn is_mandatory(level: &str) -> bool {
    MANDATORY.contains(&level)
}

/// A level, as far as it may be shown.
fn said(level: &str) -> &'static str {
    match level {
        "" | "none" => "none",
        "may" => "may",
        "dane" => "dane",
        _ => shown::NOT_SHOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta::postfix::settings::Settings;

    #[test]
    fn a_level_that_older_parameters_make() {
        for (set, expected) in [
            ("", ""),
            ("smtp_use_tls = yes", "may"),
            ("smtp_use_tls = yes\nsmtp_enforce_tls = yes", "verify"),
            ("smtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no", "encrypt"),
            ("smtp_tls_security_level = None\nsmtp_enforce_tls = yes", "none"),
            ("smtp_tls_security_level = dane\nsmtp_use_tls = yes", "dane"),
        ] {
            let service = Service { name: "smtp".into(), settings: Settings::parse(set), overridden: BTreeSet::new() };
            assert_eq!(default_level(&service), expected, "{set}");
        }
    }

    #[test]
    fn the_options_that_count_at_a_level() {
        const CLEAR: &str = "smtp_sasl_security_options";
        const TLS: &str = "smtp_sasl_tls_security_options";
        const VERIFIED: &str = "smtp_sasl_tls_verified_security_options";
        for (level, expected) in [
            ("", &[CLEAR][..]),
            ("none", &[CLEAR]),
            ("may", &[TLS]),
            ("encrypt", &[TLS]),
            ("secure", &[VERIFIED]),
            ("dane-only", &[VERIFIED]),
            ("dane", &[TLS, VERIFIED]),
        ] {
            assert_eq!(security_options(level), expected, "{level:?}");
        }
    }

    #[test]
    fn a_destination_in_brackets_or_with_a_port_has_one_name() {
        assert_eq!(names("[a.example]:587"), ["[a.example]:587"]);
        assert_eq!(names("a.example:587"), ["a.example:587"]);
        assert_eq!(names("m.a.example"), ["m.a.example", ".a.example", ".example"]);
    }
}
