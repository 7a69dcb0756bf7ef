//! The client services of master.cf: each entry that runs smtp(8), with the settings that it goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use super::master::MasterEntry;
use super::settings::{PARAMETERS, Settings, postconf};
use super::tables::gave_up;
use super::{COMMAND, Postfix, or_none};
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

/// One line of `postconf -M`.
#[derive(Debug, PartialEq)]
struct Line {
    name: String,
    /// `-o` options, as written.
    options: BTreeMap<String, String>,
}

impl Postfix {
    /// The client services, in the order of master.cf, and what proxymap(8) goes by. `main`: what main.cf says; `listed`: what
    /// master.cf does.
    pub(super) fn read_services(
        &self,
        main: &Settings,
        listed: &str,
    ) -> Result<(Vec<Service>, Option<Settings>), Fault> {
        let of = |program: &'static str| listed.lines().filter_map(move |text| line(text, program));
        let services = of("smtp").map(|line| self.service(line, main)).collect::<Result<_, _>>()?;
        let name = Some(main.get("proxymap_service_name")).filter(|name| !name.is_empty()).unwrap_or("proxymap");
        let proxymap = of("proxymap").find(|line| line.name == name);
        let proxymap = proxymap.map(|line| self.service(line, main)).transpose()?;
        Ok((services, proxymap.map(|service| service.settings)))
    }

    fn service(&self, Line { name, options }: Line, main: &Settings) -> Result<Service, Fault> {
        let overridden: BTreeSet<String> = options.keys().cloned().collect();
        // Where a message is logged under another name nothing else follows from it.
        let counts = overridden.iter().any(|name| name != "syslog_name");
        let mut settings = if counts { self.with_options(&options)? } else { main.clone() };
        for (name, value) in options {
            if may_hold_a_login(&value) {
                let value = expanded(&value, main);
                settings.0.insert(name, value);
            }
        }
        Ok(Service { name, settings, overridden })
    }

    /// What Postfix makes of main.cf with these options: one may stand in the value of another parameter.
    pub(super) fn with_options(&self, options: &BTreeMap<String, String>) -> Result<Settings, Fault> {
        let mut words: Vec<OsString> = Vec::new();
        for (name, value) in options.iter().filter(|(_, value)| !may_hold_a_login(value)) {
            words.extend(["-o".into(), format!("{name}={value}").into()]);
        }
        words.push("-x".into());
        words.extend(PARAMETERS.iter().map(OsString::from));
        Ok(Settings::parse(&self.postconf(&words)?))
    }

    /// What `postconf` says to these words.
    pub(super) fn postconf(&self, words: &[OsString]) -> Result<String, Fault> {
        let mut argv = vec![postconf()?.into(), "-c".into(), self.config_dir.clone().into_os_string()];
        argv.extend_from_slice(words);
        let output = host::run(&argv, None, COMMAND)?;
        if !output.status.success() {
            return Err(Fault::new(
                Class::Config,
                format!("postconf cannot read the configuration: {}", or_none(gave_up(&output.stderr))),
                format!("run: postconf -c {} -n", self.config_dir.display()),
            )
            .in_file(self.config_dir.join("main.cf")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Such a value does not go onto a command line.
pub(super) fn may_hold_a_login(value: &str) -> bool {
    value.contains("static:") || value.contains("inline:") || has_secret_shape(value)
}

/// A value in which parameters stand for theirs: `$name`, `${name}`, `$(name)`. What depends on a condition stays as it is.
pub(super) fn expanded(value: &str, main: &Settings) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (mut rest, mut out) = (value, String::with_capacity(value.len()));
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, end) = match after.chars().next() {
            Some(open @ ('{' | '(')) => {
                let close = after.find(if open == '{' { '}' } else { ')' });
                close.map_or(("", 0), |close| (&after[1..close], close + 1))
            }
            _ => {
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match main.0.get(name).filter(|_| name.chars().all(is_name)) {
            Some(known) => (out.push_str(known), rest = &after[end..]).1,
            None => (out.push('$'), rest = after).1,
        }
    }
    out + rest
}

/// A line of `postconf -M`, if its entry runs this program and transports can name it.
fn line(line: &str, program: &str) -> Option<Line> {
    let MasterEntry { name, is_local, program: run, options, .. } = MasterEntry::parse(line)?;
    (is_local && run == program).then_some(Line { name, options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_master_cf() {
        let options = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (text, expected) in [
            ("smtp       inet  n       -       y       -       -       smtpd", None),
            ("smtp       unix  -       -       y       -       -       smtp", Some(("smtp", options(&[])))),
            ("x unix - - n - - smtp -v -o a=b", Some(("x", options(&[("a", "b")])))),
            ("x unix - - n - - smtp -oa=b -o {c = hash:/a, inline:{ {d=e f} }}", {
                Some(("x", options(&[("a", "b"), ("c", "hash:/a, inline:{ {d=e f} }")])))
            }),
            ("x unix - - n - - smtp -o a=b,$c", Some(("x", options(&[("a", "b,$c")])))),
            ("x unix - n n - - pipe flags=F user=a argv=/b $nexthop", None),
            ("lmtp unix - - n - - lmtp", None),
            ("127.0.0.1:25 inet n - n - - smtp", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, options)| Line { name: name.to_owned(), options });
            assert_eq!(line(text, "smtp"), expected, "{text}");
        }
        let proxymap = line("proxymap unix - - n - - proxymap -o proxy_read_maps=proxy:hash:/a", "proxymap").unwrap();
        assert_eq!(proxymap.options, options(&[("proxy_read_maps", "proxy:hash:/a")]));
    }

    #[test]
    fn parameters_in_what_is_not_given_to_postconf() {
        let main = Settings::parse("config_directory = /etc/postfix\ndefault_database_type = lmdb\n");
        for (value, expected) in [
            ("inline:{ {a=b:c} } hash:$config_directory/x", "inline:{ {a=b:c} } hash:/etc/postfix/x"),
            ("${default_database_type}:$(config_directory)/x", "lmdb:/etc/postfix/x"),
            ("static:a:p$config_directoryx$", "static:a:p$config_directoryx$"),
            ("${config_directory?x}${open $", "${config_directory?x}${open $"),
        ] {
            assert_eq!(expanded(value, &main), expected, "{value}");
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
        }
    }
}
