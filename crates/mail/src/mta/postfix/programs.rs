//! Programs that are known to send nothing out with a login of their own: what delivers on this host, by its name; and a script
//! of a shell that was read whole and starts nothing else. All others may log in somewhere, with what nobody has seen.
//!
//! A shell is understood as far as this needs: simple commands, one after the other. What is more than that, as a command in the
//! place of a word, makes a script one that is not known.

use std::fs;
use std::path::{Path, PathBuf};

use super::readers::{FileText, ReadingUser, is_placed_by_root};
use super::rules::Deliverer;

/// What keeps a message on this host, or hands it to what is no SMTP client (deliverers, UUCP, Fidonet, a scanner's client), and
/// what reads and writes files. Not Mailman 2, whose own settings may have a login.
const KNOWN: [&str; 39] = [
    "bsmtp",
    "cyrdeliver",
    "dbmail-deliver",
    "deliver",
    "dovecot-lda",
    "ifmail",
    "scalemail-store",
    "spamc",
    "uux",
    "vacation",
    "basename",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "cut",
    "date",
    "dirname",
    "echo",
    "expr",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "ln",
    "logger",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "rm",
    "sleep",
    "tail",
    "tee",
    "touch",
    "tr",
    "true",
];

/// What shells do themselves, and what does no more than it says.
const BUILTINS: [&str; 20] = [
    ":", "[", "break", "cd", "continue", "echo", "exit", "export", "false", "for", "printf", "read", "return", "set",
    "shift", "test", "true", "umask", "unset", "wait",
];

/// What stands before a command.
const BEFORE: [&str; 13] = ["!", "{", "}", "if", "then", "elif", "else", "fi", "while", "until", "do", "done", "exec"];

const SHELLS: [&str; 4] = ["sh", "bash", "dash", "ksh"];

/// A program that starts another starts one that starts a third.
const MOST: usize = 4;

/// Where pipe(8), spawn(8) and local(8) look for a program without a directory.
const PATH: [&str; 2] = ["/usr/bin", "/bin"];

/// The file of a program, as it is found from `directory`.
pub(super) fn found_at(program: &str, directory: &Path) -> PathBuf {
    match program.contains('/') {
        true => directory.join(program),
        false => {
            let places = PATH.iter().map(|place| Path::new(place).join(program));
            places.clone().find(|place| place.exists()).unwrap_or_else(|| Path::new(PATH[0]).join(program))
        }
    }
}

/// Who asks, and what is known of where.
#[derive(Clone, Copy)]
pub(super) struct KnownPrograms<'a> {
    pub(super) reader: ReadingUser,
    /// Where the program is started.
    pub(super) directory: &'a Path,
    /// Postfix's own sendmail(1), which hands mail back.
    pub(super) sendmail: &'a Path,
}

impl KnownPrograms<'_> {
    /// Does this command send nothing out?
    pub(super) fn sends_nothing(self, argv: &[String]) -> bool {
        self.command(argv, MOST)
    }

    /// The same of a line for the shell.
    pub(super) fn line_sends_nothing(self, line: &str) -> bool {
        self.script(line, MOST)
    }

    fn command(self, argv: &[String], deep: usize) -> bool {
        let Some((program, words)) = argv.split_first().filter(|_| deep > 0) else { return false };
        let path = found_at(program, self.directory);
        match fs::metadata(&path) {
            // What is not there sends nothing, and what of it is there one day is looked at then. Other places may be hidden from us.
            Err(e) => {
                let is_seen = ["/usr", "/bin", "/sbin"].iter().any(|place| path.starts_with(place));
                return is_seen && e.kind() == std::io::ErrorKind::NotFound;
            }
            Ok(m) if !m.is_file() => return false,
            Ok(_) => {}
        }
        match self.reader.read(&path) {
            FileText::Closed => false,
            FileText::Read(text) => is_of_a_shell(&text) && self.script(&text, deep - 1),
            FileText::Absent => self.compiled(&path, words, deep - 1),
        }
    }

    /// A program that is no script. Its name says what it is where nobody but root could have put it there.
    fn compiled(self, path: &Path, words: &[String], deep: usize) -> bool {
        let Ok(real) = fs::canonicalize(path) else { return false };
        if !is_placed_by_root(path) || !is_placed_by_root(&real) {
            return false;
        }
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if fs::canonicalize(self.sendmail).is_ok_and(|sendmail| sendmail == real) {
            return true;
        }
        let name = name(path);
        if SHELLS.contains(&name.as_str()) {
            return self.shell(words, deep);
        }
        if let Some(deliverer) = Deliverer::of(&name) {
            let rules = Path::new(deliverer.of_the_host());
            return deliverer.goes_by_those(words) && self.rules(deliverer, rules, deep);
        }
        match name.as_str() {
            // What it hands the message to afterwards, which the last of its options names.
            "spamc" => match words.iter().position(|word| word.starts_with("-e") || word == "--pipe-to") {
                Some(at) if words[at] == "-e" || words[at] == "--pipe-to" => self.command(&words[at + 1..], deep),
                Some(_) => false,
                None => true,
            },
            name => KNOWN.contains(&name),
        }
    }

    /// A shell that is told to read a file, or a line.
    fn shell(self, words: &[String], deep: usize) -> bool {
        match words.split_first() {
            Some((option, rest)) if option == "-c" => {
                // Braces of master.cf around a word with blanks, and `$$` for one `$`.
                let line = rest.first().map(|line| line.trim().replace("$$", "$"));
                let inner =
                    |line: &str| line.strip_prefix('{').and_then(|line| line.strip_suffix('}')).map(str::to_owned);
                line.is_some_and(|line| self.script(&inner(&line).unwrap_or(line), deep))
            }
            Some((file, _)) if !file.starts_with('-') => match self.reader.read(&self.directory.join(file)) {
                FileText::Read(text) => self.script(&text, deep),
                _ => false,
            },
            _ => false,
        }
    }

    fn script(self, text: &str, deep: usize) -> bool {
        simple_commands(text).is_some_and(|commands| commands.iter().all(|command| self.simple(command, deep)))
    }

    fn simple(self, words: &[Word], deep: usize) -> bool {
        let mut words = words;
        loop {
            let Some((first, rest)) = words.split_first() else { return true };
            let text = first.text.as_str();
            if first.is_bare && BEFORE.contains(&text) {
                words = rest;
            } else if let Some(name) = assigned(text) {
                if says_what_runs(name) {
                    return false;
                }
                words = rest;
            } else if !first.is_bare {
                return false;
            } else if BUILTINS.contains(&text) {
                let is_assigned = |word: &Word| says_what_runs(assigned(&word.text).unwrap_or(&word.text));
                return !(matches!(text, "export" | "unset" | "read" | "for") && rest.iter().any(is_assigned));
            } else if !text.starts_with('/') && (text.contains('/') || !found_at(text, self.directory).exists()) {
                // Where it is, or what of the shell's it is, is not known.
                return false;
            } else {
                let argv: Vec<String> = words.iter().map(|word| word.text.clone()).collect();
                return self.command(&argv, deep);
            }
        }
    }

    /// No rules, or such as are understood whole, and start nothing but what is known.
    fn rules(self, deliverer: Deliverer, file: &Path, deep: usize) -> bool {
        let text = match self.reader.read(file) {
            FileText::Read(text) => text,
            FileText::Absent => return !file.exists(),
            FileText::Closed => return false,
        };
        deliverer.starts(&text).is_some_and(|commands| commands.iter().all(|argv| self.by_rules(argv, deep)))
    }

    /// What rules start is found in places of their own: what is there by another name is not known.
    fn by_rules(self, argv: &[String], deep: usize) -> bool {
        let Some(program) = argv.first() else { return false };
        let is_found = || {
            let also = Path::new("/usr/local/bin").join(program);
            found_at(program, self.directory).exists() && fs::symlink_metadata(also).is_err()
        };
        let is_clear = if program.contains('/') { program.starts_with('/') } else { is_found() };
        is_clear && self.command(argv, deep)
    }
}

/// By its first line; without one, whoever is to run it has the shell do it.
fn is_of_a_shell(text: &str) -> bool {
    let Some(line) = text.strip_prefix("#!") else { return true };
    let mut words = line.lines().next().unwrap_or_default().split_ascii_whitespace();
    let mut name = words.next().and_then(|path| path.rsplit('/').next());
    if name == Some("env") {
        name = words.next();
    }
    name.is_some_and(|name| SHELLS.contains(&name)) && words.all(|option| matches!(option, "-e" | "-u" | "-eu" | "-f"))
}

/// `NAME=…`
fn assigned(word: &str) -> Option<&str> {
    let (name, _) = word.split_once('=')?;
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    is_name.then_some(name)
}

/// Does such a parameter decide what is run?
fn says_what_runs(name: &str) -> bool {
    matches!(name, "PATH" | "IFS" | "ENV" | "BASH_ENV" | "PS4" | "SHELLOPTS" | "BASHOPTS") || name.starts_with("LD_")
}

/// A word of a command, without its quotes.
#[derive(Debug, Default, PartialEq)]
struct Word {
    text: String,
    /// Nothing in it is quoted, or stands for something else.
    is_bare: bool,
}

/// The commands of a script. `None`: there is more in it than that.
fn simple_commands(text: &str) -> Option<Vec<Vec<Word>>> {
    // What has a command in a word, or a word that is read as one.
    const MORE: [&str; 9] = ["`", "$(", "<<", "${ ", "${\t", "${\n", "${|", "/dev/tcp", "/dev/udp"];
    if MORE.iter().any(|more| text.contains(more)) {
        return None;
    }
    let mut commands = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut word: Option<Word> = None;
    // The next word is a file, and none of the command's.
    let mut is_file = false;
    let mut chars = text.chars().peekable();
    let new = || Word { text: String::new(), is_bare: true };
    while let Some(c) = chars.next() {
        let ends_word = c.is_ascii_whitespace() || ";&|()<>".contains(c);
        if ends_word && let Some(ended) = word.take() {
            // The number of a descriptor is none of the command's either.
            let is_descriptor = "<>".contains(c) && ended.text.bytes().all(|b| b.is_ascii_digit());
            if !is_file && !is_descriptor {
                words.push(ended);
            }
            is_file = false;
        }
        match c {
            '\\' if chars.peek() == Some(&'\n') && word.is_none() => drop(chars.next()),
            '\\' => return None,
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '<' | '>' => {
                while chars.next_if(|c| ">&|".contains(*c)).is_some() {}
                is_file = true;
            }
            '\n' | ';' | '&' | '|' | '(' | ')' => {
                commands.push(std::mem::take(&mut words));
                is_file = false;
            }
            c if c.is_ascii_whitespace() => {}
            '\'' | '"' => {
                let word = word.get_or_insert_with(new);
                word.is_bare = false;
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        '\\' => return None,
                        inner => word.text.push(inner),
                    }
                }
            }
            c => {
                let word = word.get_or_insert_with(new);
                word.is_bare &= !"$*?[~".contains(c) || c == '[' && word.text.is_empty();
                word.text.push(c);
            }
        }
    }
    if let Some(ended) = word.filter(|_| !is_file) {
        words.push(ended);
    }
    commands.push(words);
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> KnownPrograms<'static> {
        KnownPrograms {
            reader: ReadingUser::Root,
            directory: Path::new("/"),
            sendmail: Path::new("/usr/sbin/sendmail"),
        }
    }

    #[test]
    fn commands_that_are_known() {
        let line = |line: &str| known().sends_nothing(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (command, is_known) in [
            ("/usr/bin/cat", true),
            ("cat", true),
            // What is not installed, as most of what distributions put into master.cf.
            ("/usr/lib/ifmail/ifmail -r $nexthop ($recipient)", true),
            ("/usr/bin/no-such-client", true),
            ("/usr/bin/python3 -m sesrelay", false),
            ("/usr/bin/perl", false),
            ("/bin/sh -c cat", true),
            ("/bin/sh -i", false),
            ("/bin/sh", false),
            ("/tmp", false),
            ("", false),
        ] {
            assert_eq!(line(command), is_known, "{command}");
        }
        let started = |line: &str| known().sends_nothing(&["/bin/sh".into(), "-c".into(), line.into(), "sh".into()]);
        assert!(started("{cat > /dev/null}") && !started("{cd /tmp && exec ./send \"$$@\"}"));
        assert!(!known().sends_nothing(&[]));
        // Somebody else's program with the name of one that is known.
        let dir = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let own = dir.path().join("deliver");
        fs::copy("/usr/bin/true", &own).unwrap();
        assert!(!known().sends_nothing(&[own.display().to_string()]));
        fs::write(&own, "#!/usr/bin/python3\nprint()\n").unwrap();
        assert!(!known().sends_nothing(&[own.display().to_string()]));
        fs::write(&own, "#!/bin/sh -e\ncat > /dev/null\n").unwrap();
        assert!(known().sends_nothing(&[own.display().to_string()]));
    }

    #[test]
    fn scripts_that_are_read_whole() {
        for (script, is_known) in [
            ("#!/bin/sh\n# not by email-smtp, don't\nlog=/var/log/mail.log\ncat > /dev/null\n", true),
            ("if [ -n \"$1\" ]; then exec /bin/cat >> \"/var/mail/$1\" || exit 75; else exit 1; fi", true),
            ("for f in a b; do cat \"$f\"; done 2>&1 | /usr/bin/tee -a /tmp/x", true),
            ("umask 077\ncat \\\n  > /tmp/x", true),
            ("python3 x", false),
            ("cat | python3 x", false),
            ("\"$here\"/send", false),
            ("$send", false),
            ("'python3' x", false),
            ("./send", false),
            (". /tmp/config\ncat", false),
            ("PATH=/tmp cat", false),
            ("export PATH=/tmp\ncat", false),
            ("LD_PRELOAD=/tmp/x cat", false),
            ("echo `send`", false),
            ("echo $(send)", false),
            ("echo \"$(send)\"", false),
            ("echo ${ send; }", false),
            ("cat <<E\nE\nsend", false),
            ("echo 'a\" 'b' \"c\npython3 x", false),
            ("echo \"\n# \" ; python3 x", false),
            ("echo a#b; python3 x", false),
            ("exec 3<>/dev/tcp/h/587; cat >&3", false),
            ("eval cat", false),
            ("case a in a) cat;; esac", false),
            ("trap 'python3 x' EXIT", false),
            ("cat\\\nx", false),
        ] {
            assert_eq!(known().line_sends_nothing(script), is_known, "{script}");
        }
    }

    #[test]
    fn what_rules_start_is_known_or_they_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (rules, is_known) in [
            ("DROPPRIVS=yes\n:0fw\n| /usr/bin/cat\n", true),
            (":0fw\n| cat\n", true),
            (":0fw\n| /usr/bin/no-such-client\n", true),
            // A bare word is found by procmail's own PATH, which nobody knows here.
            (":0\n| sesrelay -to x\n", false),
            (":0\n| bin/cat\n", false),
            (":0\n| python3 /etc/send\n", false),
            (":0\n* ? /usr/bin/cat\n/x\n", false),
            ("TRAP=/usr/bin/cat\n", false),
        ] {
            fs::write(file.path(), rules).unwrap();
            assert_eq!(known().rules(Deliverer::Procmail, file.path(), 2), is_known, "{rules}");
        }
        for (rules, is_known) in [("to \"| /usr/bin/cat\"\n", true), ("to \"| sesrelay\"\n", false)] {
            fs::write(file.path(), rules).unwrap();
            assert_eq!(known().rules(Deliverer::Maildrop, file.path(), 2), is_known, "{rules}");
        }
        assert!(known().rules(Deliverer::Procmail, Path::new("/etc/no-such-rules"), 2));
    }
}
