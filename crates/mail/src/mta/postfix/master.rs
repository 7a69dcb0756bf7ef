//! Lines of `postconf -M`: the entries of master.cf (pure).

use std::collections::BTreeMap;

use super::settings::outside_braces;

/// One entry of master.cf.
#[derive(Debug, PartialEq)]
pub(super) struct MasterEntry {
    pub(super) name: String,
    /// Can transports name it?
    pub(super) is_local: bool,
    pub(super) program: String,
    /// `-o` options, as written.
    pub(super) options: BTreeMap<String, String>,
    /// The other words of the command.
    pub(super) arguments: Vec<String>,
}

impl MasterEntry {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = split(line.trim_end()).into_iter();
        let name = words.next()?.to_owned();
        let is_local = matches!(words.next()?, "unix" | "fifo");
        // private, unprivileged, chroot, wake-up time, process limit; then the command
        let program = words.nth(5)?.to_owned();
        let (mut options, mut arguments) = (BTreeMap::new(), Vec::new());
        while let Some(word) = words.next() {
            let option = match word.strip_prefix("-o") {
                Some("") => words.next()?,
                Some(attached) => attached,
                None => {
                    arguments.push(word.to_owned());
                    continue;
                }
            };
            let option = option.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(option);
            if let Some((name, value)) = option.split_once('=') {
                options.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Some(Self { name, is_local, program, options, arguments })
    }
}

/// Splits a line at white space, but not inside braces. Commas are part of a value.
fn split(line: &str) -> Vec<&str> {
    outside_braces(line, |c| c.is_ascii_whitespace())
}
