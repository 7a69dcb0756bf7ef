//! The client services of master.cf: each entry that runs smtp(8), with the settings that it goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;

use super::expand::expand;
use super::master::MasterEntry;
use super::proxymap;
use super::settings::{PARAMETERS, Settings, postconf, words};
use super::spelling;
use super::tables::gave_up;
use super::{COMMAND, Postfix, from_io, or_none};
use crate::credential::has_secret_shape;
use crate::fault::{Class, Fault};
use crate::host;

/// One entry of master.cf that runs smtp(8).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Service {
    /// As transports name it.
    pub(super) name: String,
    /// What it goes by: its own `-o` options over main.cf.
    pub(super) settings: Settings,
    /// The parameters that it has `-o` options for.
    pub(super) overridden: BTreeSet<String>,
}

impl Service {
    /// Does it log in?
    pub(super) fn logs_in(&self) -> bool {
        self.settings.yes("smtp_sasl_auth_enable")
    }

    /// Its login tables, in their order.
    pub(super) fn tables(&self) -> Vec<&str> {
        self.settings.list("smtp_sasl_password_maps")
    }

    /// Does it look a login up under the sender first?
    pub(super) fn by_sender(&self) -> bool {
        self.settings.yes("smtp_sender_dependent_authentication")
    }
}

impl Postfix {
    /// The client services, in the order of master.cf, and what proxymap(8) goes by. `main`: what main.cf says, and `by_service`
    /// what of it names the service; `listed`: what master.cf says.
    pub(super) fn read_services(
        &self,
        main: &Settings,
        by_service: &BTreeMap<String, String>,
        listed: &str,
    ) -> Result<(Vec<Service>, Option<Settings>), Fault> {
        let entries = || listed.lines().filter_map(MasterEntry::parse);
        let of = |program: &'static str| entries().filter(move |entry| entry.is_local() && entry.program == program);
        let clients: Vec<MasterEntry> = of("smtp").collect();
        let proxymap = proxymap::entry(main, listed);
        let read = |entry| self.service(entry, main, by_service);
        let spelt_out = |entry: &MasterEntry| match spelling::is_lost(&entry.name) {
            true => Err(self.cannot_spell(Some(&entry.name), "its name")),
            false => Ok(()),
        };
        clients.iter().try_for_each(spelt_out)?;
        let services = clients.into_iter().map(read).collect::<Result<_, _>>()?;
        let proxymap = proxymap.map(read).transpose()?;
        Ok((services, proxymap.map(|service| service.settings)))
    }

    /// The lines of main.cf that say something else to each service, by their parameters, as written.
    pub(super) fn by_service(&self) -> Result<BTreeMap<String, String>, Fault> {
        let main_cf = self.config_dir.join("main.cf");
        let text = fs::read(&main_cf).map_err(|e| from_io(&e, &main_cf))?;
        let text = String::from_utf8_lossy(&text);
        // Under which name a service logs is seldom anybody's business, and many have one of their own.
        let by_log_name = mentions(&text, LOG_NAME);
        if !by_log_name && !names_its_service(&text) {
            return Ok(BTreeMap::new());
        }
        let mut set = Settings::parse(&self.postconf(&["-n".into()])?).0;
        set.retain(|name, value| match by_log_name {
            true => mentions(value, LOG_NAME) || names_its_service(value),
            false => name != LOG_NAME && names_its_service(value),
        });
        Ok(set)
    }

    fn service(
        &self,
        entry: MasterEntry,
        main: &Settings,
        by_service: &BTreeMap<String, String>,
    ) -> Result<Service, Fault> {
        let overridden: BTreeSet<String> = entry.options.keys().cloned().collect();
        // Where a message is logged under another name nothing else follows from it, unless main.cf names that name.
        let counts = overridden.iter().any(|name| name != LOG_NAME) || !by_service.is_empty();
        let settings = if counts { self.as_read_by(&entry, by_service)? } else { main.clone() };
        Ok(Service { name: entry.name, settings, overridden })
    }

    /// What main.cf says to the service that master.cf calls smtp.
    pub(super) fn main_as_read_by_smtp(&self, by_service: &BTreeMap<String, String>) -> Result<Settings, Fault> {
        let smtp = MasterEntry::parse("smtp unix - - - - - smtp").expect("it is one");
        self.as_read_by(&smtp, by_service)
    }

    /// What Postfix makes of main.cf with the options of an entry: one may stand in the value of another parameter. A value that may
    /// hold a login does not go onto the command line: what depends on it is expanded here.
    pub(super) fn as_read_by(
        &self,
        entry: &MasterEntry,
        by_service: &BTreeMap<String, String>,
    ) -> Result<Settings, Fault> {
        let of_main = by_service.iter().filter(|(name, _)| !entry.options.contains_key(*name));
        let (mut withheld, mut words) = (BTreeMap::new(), Vec::<OsString>::new());
        for (name, written) in of_main.chain(&entry.options) {
            let value = as_named(written, entry);
            if may_be_a_part_of_a_login(&value) {
                withheld.insert(name.as_str(), written.as_str());
            } else {
                words.extend(["-o".into(), format!("{name}={value}").into()]);
            }
        }
        let asked = words.iter().cloned().chain(["-x".into()]).chain(PARAMETERS.iter().map(OsString::from));
        let asked: Vec<OsString> = asked.collect();
        // Services with the same options go by the same.
        let known = self.said.borrow().get(&asked).cloned();
        let mut settings = match known {
            Some(known) => known,
            None => {
                let said = Settings::parse(&self.postconf(&asked)?);
                self.said.borrow_mut().insert(asked, said.clone());
                said
            }
        };
        if withheld.is_empty() {
            return self.spelt_out(settings, Some(&entry.name));
        }
        // All of them, for one may stand for another.
        let mut written = Settings::parse(&self.postconf(&words)?);
        let of_service = [("service_name", entry.service_name()), ("process_name", &entry.program)];
        for (name, value) in of_service.into_iter().chain(withheld.clone()) {
            written.0.insert(name.to_owned(), value.to_owned());
        }
        let depending = depending_on(&written, withheld.keys().copied());
        // An option of the administrator's own counts too: a route may be one.
        let wanted = |name: &&String| PARAMETERS.contains(&name.as_str()) || entry.options.contains_key(*name);
        for name in depending.iter().filter(wanted) {
            let value = expand(written.get(name), &|name| written.0.get(name).map(String::as_str));
            settings.0.insert(name.clone(), value.map_err(|_| self.cannot_expand(entry, name))?);
        }
        self.spelt_out(settings, Some(&entry.name))
    }

    /// What a service goes by cannot be told, and then nothing is confirmed of it.
    fn cannot_expand(&self, entry: &MasterEntry, name: &str) -> Fault {
        Fault::new(
            Class::Unsupported,
            format!(
                "what {name} is for the service {} of master.cf cannot be told: it depends on an option of that service that may hold a \
                 login, in a form that relaykey does not know",
                entry.name
            ),
            format!("write out with -o {name}=… what it is for that service"),
        )
        .in_file(self.config_dir.join("master.cf"))
    }

    /// What `postconf` says to these words. A byte that is not UTF-8 is lost in it, and [`spelling`] tells where that counts.
    pub(super) fn postconf(&self, words: &[OsString]) -> Result<String, Fault> {
        let mut argv = vec![postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string()];
        argv.extend_from_slice(words);
        let output = host::run(&argv, None, COMMAND)?;
        if !output.status.success() {
            return Err(Fault::new(
                Class::Config,
                format!("postconf cannot read the configuration: {}", or_none(gave_up(&output.stderr))),
                format!(
                    "correct what it names, which may be half-written; to see it: postconf -c {} -M; it is tried again",
                    self.config_dir.display()
                ),
            )
            // Which of main.cf and master.cf it is, only its words say; and who writes there ends some time.
            .temporary()
            .in_file(self.config_dir.clone()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Such a value does not go onto a command line.
pub(super) fn may_hold_a_login(value: &str) -> bool {
    value.contains("static:") || value.contains("inline:") || has_secret_shape(value)
}

/// Nor does such a value of an option, which may be a part of one: `USER:PASSWORD`, however short.
fn may_be_a_part_of_a_login(value: &str) -> bool {
    // A table, a port and what another parameter says are none.
    let is_plain =
        |rest: &str| rest.is_empty() || rest.starts_with(['/', '$']) || rest.bytes().all(|b| b.is_ascii_digit());
    // In brackets stands an address.
    let pair =
        |word: &str| word.rsplit(']').next().unwrap_or(word).rsplit_once(':').is_some_and(|(_, rest)| !is_plain(rest));
    may_hold_a_login(value) || words(value).into_iter().any(pair)
}

/// The parameters that each service has a value of its own of, whatever main.cf says (postconf(5)).
const OF_THE_SERVICE: [&str; 2] = ["service_name", "process_name"];

/// The parameters that depend on these, by what stands in them, and these themselves.
fn depending_on<'a>(written: &'a Settings, on: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = on.map(str::to_owned).collect();
    loop {
        let depends = |value: &str| value.contains('$') && found.iter().any(|name| mentions(value, name));
        let more: Vec<String> = (written.0.iter())
            .filter(|(name, value)| !found.contains(*name) && depends(value))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Whatever else depends on it is asked for only where main.cf names it.
const LOG_NAME: &str = "syslog_name";

/// Is it another value for each service?
fn names_its_service(value: &str) -> bool {
    OF_THE_SERVICE.iter().any(|name| mentions(value, name))
}

/// Does it name a parameter?
pub(super) fn mentions(value: &str, name: &str) -> bool {
    is_named_at(value, name).next().is_some()
}

/// Where it names a parameter.
fn is_named_at<'a>(value: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    value.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let (before, after) = (&value[..*at], &value[at + name.len()..]);
        // Behind a bracket there may be blanks.
        let is_open = before.ends_with('$') || ["${", "$("].iter().any(|open| before.trim_end().ends_with(open));
        is_open && !after.starts_with(is_part)
    })
}

/// A value with the names of the service and of its program in it. What asks only whether there is such a name asks for one that is
/// always there.
fn as_named(value: &str, entry: &MasterEntry) -> String {
    let mut value = value.to_owned();
    for blank in ["${ ", "${\t", "$( ", "$(\t"] {
        while value.contains(blank) {
            value = value.replace(blank, &blank[..2]);
        }
    }
    for (name, is) in OF_THE_SERVICE.into_iter().zip([entry.service_name(), entry.program.as_str()]) {
        for (open, close) in [("$", ""), ("${", "}"), ("$(", ")")] {
            let spelt = format!("{open}{name}{close}");
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let mut parts = value.split(spelt.as_str());
            let mut filled = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                // `$service_name_of_mine` is another parameter.
                let is_longer = close.is_empty() && part.starts_with(is_part);
                filled += if is_longer { &spelt } else { is };
                filled += part;
            }
            value = filled;
        }
        let left: Vec<usize> = is_named_at(&value, name).collect();
        left.into_iter().rev().for_each(|at| value.replace_range(at..at + name.len(), "config_directory"));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_a_service_has_itself() {
        let bulk = MasterEntry::parse("bulk unix - - n - - smtp").unwrap();
        for (value, expected) in [
            ("hash:/a/$service_name", "hash:/a/bulk"),
            ("hash:/a/${service_name}x, hash:/b/$(process_name)", "hash:/a/bulkx, hash:/b/smtp"),
            ("hash:/a/${service_name?{x}}", "hash:/a/${config_directory?{x}}"),
            ("hash:/a/${ service_name}", "hash:/a/bulk"),
            ("${{$service_name} == {bulk} ? {hash:/a} : {hash:/b}}", "${{bulk} == {bulk} ? {hash:/a} : {hash:/b}}"),
        ] {
            assert!(names_its_service(value), "{value}");
            assert_eq!(as_named(value, &bulk), expected, "{value}");
        }
        for value in
            ["hash:/a/service_name", "$smtpd_service_name", "$service_names", "${process_names}", "$my", "service_name"]
        {
            assert!(!names_its_service(value), "{value}");
            assert_eq!(as_named(value, &bulk), value);
        }
    }

    #[test]
    fn no_login_goes_onto_a_command_line() {
        for (value, may) in [
            ("hash:/etc/postfix/sasl_passwd", false),
            ("static:user:pw", true),
            ("hash:/a, inline:{ {a=b c} }", true),
            ("encrypt", false),
            ("$relayhost", false),
        ] {
            assert_eq!(may_hold_a_login(value), may, "{value}");
            assert_eq!(may_be_a_part_of_a_login(value), may, "{value}");
        }
        for (value, may) in [
            ("relay:pw", true),
            ("hash:/a, relay:pw", true),
            ("proxy:hash:/a,$b", false),
            ("[relay.example]:587, relay.example:25", false),
            ("[2001:db8::1]:587", false),
            ("hash:$config_directory/a", false),
        ] {
            assert_eq!(may_be_a_part_of_a_login(value), may, "{value}");
        }
    }
}
