//! Lines of `postconf -M`: the entries of master.cf (pure).

use std::collections::BTreeMap;

use super::settings::{Settings, outside_braces};

/// What Postfix's releases have in their directory of daemons that is started by master.cf.
const DAEMONS: [&str; 29] = [
    "anvil",
    "bounce",
    "cleanup",
    "discard",
    "dnsblog",
    "error",
    "flush",
    "lmtp",
    "local",
    "nbdb_reindexd",
    "nqmgr",
    "oqmgr",
    "pickup",
    "pipe",
    "postlogd",
    "postscreen",
    "proxymap",
    "qmgr",
    "qmqpd",
    "scache",
    "showq",
    "smtp",
    "smtpd",
    "spawn",
    "tlsmgr",
    "tlsproxy",
    "trivial-rewrite",
    "verify",
    "virtual",
];

/// One entry of master.cf.
#[derive(Debug, PartialEq)]
pub(super) struct MasterEntry {
    pub(super) name: String,
    /// `inet`, `unix`, `fifo` or `pass`.
    pub(super) kind: String,
    /// The name of the program, without the directories that it is spelt with: Postfix's programs go by that alone.
    pub(super) program: String,
    /// The same as spelt, in the directory of Postfix's daemons.
    pub(super) command: String,
    /// Does it run below the queue directory? `None`: as the compatibility level says.
    pub(super) chroot: Option<bool>,
    /// `-o` options, as written.
    pub(super) options: BTreeMap<String, String>,
    /// The other words of the command.
    pub(super) arguments: Vec<String>,
    /// What `-n` among them says, which the program then takes for the name of its service.
    named: Option<String>,
}

impl MasterEntry {
    /// Can transports name it?
    pub(super) fn is_local(&self) -> bool {
        matches!(self.kind.as_str(), "unix" | "fifo")
    }

    /// Is it one of the programs that Postfix comes with, in their own directory? What another one does nobody knows.
    pub(super) fn is_of_postfix(&self) -> bool {
        let is_here = self.command.split('/').rev().skip(1).all(|directory| matches!(directory, "" | "."));
        is_here && DAEMONS.contains(&self.program.as_str())
    }

    /// Does it see nothing but what is below the queue directory? `-` means so below the compatibility level 1 (COMPATIBILITY_README).
    pub(super) fn is_in_jail(&self, main: &Settings) -> bool {
        let level = main.get("compatibility_level").split('.').next().unwrap_or_default().trim();
        // Releases before there were levels do as at 0.
        self.chroot.unwrap_or(matches!(level, "" | "0"))
    }

    /// What stands for `$service_name` in its settings.
    pub(super) fn service_name(&self) -> &str {
        self.named.as_deref().unwrap_or(&self.name)
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = split(line.trim_end()).into_iter();
        let name = words.next()?.to_owned();
        let kind = words.next()?.to_owned();
        // private, unprivileged, chroot, wake-up time, process limit; then the command
        let chroot = match words.nth(2)? {
            "y" => Some(true),
            "n" => Some(false),
            _ => None,
        };
        let command = words.nth(2)?.to_owned();
        let program = command.rsplit('/').next().unwrap_or_default().to_owned();
        let (mut options, mut arguments, mut named) = (BTreeMap::new(), Vec::new(), None);
        // Postfix's programs take several letters in one word.
        let mut in_letters = DAEMONS.contains(&program.as_str());
        while let Some(word) = words.next() {
            in_letters &= word.starts_with('-');
            let letter = if in_letters { with_value(word) } else { word.strip_prefix("-o").map(|value| ('o', value)) };
            let value = match letter {
                Some((letter @ ('o' | 'n'), "")) => words.next().map(|value| (letter, value)),
                Some((letter @ ('o' | 'n'), attached)) => Some((letter, attached)),
                _ => {
                    arguments.push(word.to_owned());
                    continue;
                }
            };
            let (letter, value) = value?;
            if letter == 'n' {
                named = Some(value.to_owned());
                arguments.push(word.to_owned());
                continue;
            }
            let option = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(value);
            if let Some((name, value)) = option.split_once('=') {
                options.insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
        Some(Self { name, kind, program, command, chroot, options, arguments, named })
    }
}

/// The first letter of a word of options that has a value, with what stands behind it.
fn with_value(word: &str) -> Option<(char, &str)> {
    let letters = word.strip_prefix('-')?.trim_start_matches(['c', 'd', 'D', 'l', 'u', 'v', 'V', 'z']);
    let letter = letters.chars().next()?;
    Some((letter, &letters[letter.len_utf8()..]))
}

/// Splits a line at white space, but not inside braces. Commas are part of a value.
fn split(line: &str) -> Vec<&str> {
    outside_braces(line, |c| c.is_ascii_whitespace())
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
            ("smtp       unix  -       -       y       -       -       smtp", Some(("smtp".to_owned(), options(&[])))),
            ("x unix - - n - - smtp -v -o a=b", Some(("x".to_owned(), options(&[("a", "b")])))),
            ("x unix - - n - - smtp -oa=b -o {c = hash:/a, inline:{ {d=e f} }}", {
                Some(("x".to_owned(), options(&[("a", "b"), ("c", "hash:/a, inline:{ {d=e f} }")])))
            }),
            ("x unix - - n - - smtp -o a=b,$c", Some(("x".to_owned(), options(&[("a", "b,$c")])))),
            ("x unix - - n - - smtp -vvo a=b -voc=d", Some(("x".to_owned(), options(&[("a", "b"), ("c", "d")])))),
            ("x unix - n n - - pipe flags=F user=a argv=/b $nexthop", None),
            ("lmtp unix - - n - - lmtp", None),
            ("127.0.0.1:25 inet n - n - - smtp", None),
            ("", None),
        ] {
            let client = MasterEntry::parse(text).filter(|entry| entry.is_local() && entry.program == "smtp");
            assert_eq!(client.map(|entry| (entry.name, entry.options)), expected, "{text}");
        }
        for (column, level, is_in_jail) in [
            ("y", "3.6", true),
            ("n", "0", false),
            ("-", "0", true),
            ("-", "0.9", true),
            ("-", "1", false),
            ("-", "3.6", false),
            ("-", "", true),
        ] {
            let entry = MasterEntry::parse(&format!("proxymap unix - - {column} - - proxymap")).unwrap();
            let main = Settings::parse(&format!("compatibility_level = {level}\n"));
            assert_eq!(entry.is_in_jail(&main), is_in_jail, "{column} {level}");
        }
        for (line, name, arguments) in [
            ("x unix - - n - - smtp -v", "x", &["-v"][..]),
            ("x unix - - n - - smtp -n special -o a=b", "special", &["-n"]),
            ("x unix - - n - - smtp -vnspecial", "special", &["-vnspecial"]),
            ("x unix - n n - - pipe user=a argv=/b -n c", "x", &["user=a", "argv=/b", "-n", "c"]),
            ("x unix - - n - - other -n c", "x", &["-n", "c"]),
        ] {
            let entry = MasterEntry::parse(line).unwrap();
            assert_eq!(
                (entry.service_name(), entry.arguments.as_slice()),
                (name, &arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()[..]),
                "{line}"
            );
        }
        let proxymap = MasterEntry::parse("proxymap unix - - n - - proxymap -o proxy_read_maps=proxy:hash:/a").unwrap();
        assert_eq!(proxymap.options, options(&[("proxy_read_maps", "proxy:hash:/a")]));
    }
}
