//! Names in main.cf and master.cf with bytes that are not UTF-8. Of such a byte only [`LOST`] is left in what is read, and a file by
//! the name that this makes is another one, or none: what would be looked for or written there is refused.

use std::fs;

use super::Postfix;
use super::services::mentions;
use super::setting_lines::{lines_of, parameters_with};
use super::settings::{PARAMETERS, Settings};
use crate::fault::{Class, Fault};

/// What stands for a byte that is not UTF-8. A name that has this character itself is treated alike.
const LOST: char = char::REPLACEMENT_CHARACTER;

/// Is what it says not what the file says?
pub(super) fn is_lost(value: &str) -> bool {
    value.contains(LOST)
}

/// Does a wrong name in this parameter lead to a wrong file? Tables of restrictions and checks that are not found count as not read,
/// and a command is named as one that is not known.
pub(super) fn counts(parameter: &str) -> bool {
    let is_check = ["_checks", "_restrictions"].iter().any(|end| parameter.ends_with(end));
    // By default proxymap(8) is let open what many others say: what of it counts is told where that is said.
    let is_told_elsewhere = parameter == "proxy_read_maps" || parameter.starts_with("mailbox_command");
    PARAMETERS.contains(&parameter) && !is_check && !is_told_elsewhere
}

impl Postfix {
    /// What main.cf says to a service, or to nobody in particular, where all that counts could be read.
    pub(super) fn spelt_out(&self, settings: Settings, service: Option<&str>) -> Result<Settings, Fault> {
        let lost = settings.0.iter().find(|(name, value)| counts(name) && is_lost(value)).map(|(name, _)| name.clone());
        lost.map_or(Ok(settings), |name| Err(self.cannot_spell(service, &name)))
    }

    /// `what`: the parameter. `service`: the entry of master.cf that goes by it.
    pub(super) fn cannot_spell(&self, service: Option<&str>, what: &str) -> Fault {
        let [main_cf, master_cf] = self.own_files();
        let text = |file| fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let (of_main, of_master) = (text(&main_cf), text(&master_cf));
        let lost_in =
            |lines: Vec<(usize, &str)>| lines.iter().find(|(_, line)| is_lost(line)).map(|(number, _)| *number);
        let line_in_main = || {
            let named = lines_of(&of_main, None, what);
            // It may stand in a parameter that this one names.
            let by_others = || {
                let mut others = parameters_with(&of_main, LOST);
                others.find(|(name, _)| named.iter().any(|(_, line)| mentions(line, name))).map(|(_, number)| number)
            };
            lost_in(named.clone()).or_else(by_others)
        };
        let in_master = service.and_then(|service| lost_in(lines_of(&of_master, Some(service), what)));
        let is_name = service.is_some_and(is_lost);
        let (file, line) = match in_master {
            Some(line) => (master_cf, Some(line)),
            None if is_name || service.is_some() && line_in_main().is_none() => (master_cf, None),
            None => (main_cf, line_in_main()),
        };
        let of = service.map(|service| format!(" of the service {}", service.escape_default())).unwrap_or_default();
        Fault::new(
            Class::Unsupported,
            format!(
                "{what}{of} has a byte in it that is not UTF-8: relaykey would take another file or service for the one that is meant"
            ),
            format!(
                "give what it names a name in UTF-8, as one of ASCII letters: copy the file, and its compiled map, to that name, write \
                 the name here, and then: postfix -c {} reload",
                self.config_dir.display()
            ),
        )
        .in_file(file)
        .at_line(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_whose_names_lead_to_files() {
        for name in ["smtp_sasl_password_maps", "queue_directory", "multi_instance_directories", "transport_maps"] {
            assert!(counts(name), "{name}");
        }
        for name in ["smtpd_banner", "mailbox_command", "smtpd_client_restrictions", "proxy_read_maps", "syslog_name"] {
            assert!(!counts(name), "{name}");
        }
        assert!(is_lost(&String::from_utf8_lossy(b"hash:/p\xe4sswd")) && !is_lost("hash:/pässwd"));
    }
}
