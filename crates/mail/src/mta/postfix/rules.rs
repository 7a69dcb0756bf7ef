//! Rules that procmail and maildrop deliver by, as far as it has to be known what they start (pure).
//!
//! What is understood here is little, and all else makes rules ones that are not known: mail to a file, a pipe to a plain command,
//! conditions of a pattern, and assignments that decide nothing but where and how a message is written.

/// A deliverer that goes by rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Deliverer {
    Procmail,
    Maildrop,
}

/// The parameters that decide nothing about what is started, of either of them.
const HARMLESS: [&str; 21] = [
    "COMSAT",
    "DEFAULT",
    "DROPPRIVS",
    "EXITCODE",
    "LINEBUF",
    "LOCKEXT",
    "LOCKFILE",
    "LOCKREFRESH",
    "LOCKSLEEP",
    "LOCKTIMEOUT",
    "LOG",
    "LOGABSTRACT",
    "LOGFILE",
    "MAILBOX",
    "MAILDIR",
    "NORESRETRY",
    "ORGMAIL",
    "SUSPEND",
    "TIMEOUT",
    "UMASK",
    "VERBOSE",
];

/// What a command line may set besides: whom the message is for.
const OF_THE_RECIPIENT: [&str; 2] = ["USER", "EXTENSION"];

impl Deliverer {
    /// By the name of its program.
    pub(super) fn of(program: &str) -> Option<Self> {
        match program {
            "procmail" => Some(Self::Procmail),
            "maildrop" => Some(Self::Maildrop),
            _ => None,
        }
    }

    /// The rules of the whole host. What users have written for themselves is as little looked at as their `.forward` files.
    pub(super) fn of_the_host(self) -> &'static str {
        match self {
            Self::Procmail => "/etc/procmailrc",
            Self::Maildrop => "/etc/maildroprc",
        }
    }

    /// Does it go by these rules alone, with these words behind its name? Any word counts as other rules that is no option that is
    /// known, no value of one, and no assignment that does no harm.
    pub(super) fn goes_by_those(self, words: &[String]) -> bool {
        let (plain, with_value) = match self {
            Self::Procmail => ("toYpv", "fa"),
            Self::Maildrop => ("", "fVwDA"),
        };
        let mut words = words.iter();
        // Behind `-d`: what is no option any more.
        let mut for_a_user = false;
        while let Some(word) = words.next() {
            if for_a_user && !word.starts_with('-') {
                continue;
            }
            if let Some((name, _)) = word.split_once('=').filter(|(name, _)| !name.starts_with('-')) {
                if self == Self::Maildrop || !HARMLESS.contains(&name) && !OF_THE_RECIPIENT.contains(&name) {
                    return false;
                }
                continue;
            }
            let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else { return false };
            let letters = letters.trim_start_matches(|c| plain.contains(c));
            let Some(letter) = letters.chars().next() else { continue };
            let is_attached = letters.len() > 1;
            match letter {
                // What follows are recipients, and for maildrop values for its rules.
                'd' if is_attached || words.next().is_some() => for_a_user = true,
                letter if with_value.contains(letter) => {
                    if !is_attached && words.next().is_none() {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        true
    }

    /// The commands that rules start. `None`: there is more in them than is understood.
    pub(super) fn starts(self, text: &str) -> Option<Vec<Vec<String>>> {
        match self {
            Self::Procmail => of_procmail(text),
            Self::Maildrop => of_maildrop(text),
        }
    }
}

/// What is left of lines that are no comments, without the blanks around them. `None`: a line goes on on the next one.
fn lines(text: &str) -> Option<Vec<&str>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let goes_on = lines.iter().any(|line| line.ends_with('\\'));
    (!goes_on).then(|| lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with('#')).collect())
}

fn of_procmail(text: &str) -> Option<Vec<Vec<String>>> {
    let mut found = Vec::new();
    // Behind `:0`: conditions, and what is done.
    let mut in_recipe = false;
    for line in lines(text)? {
        if !in_recipe {
            match line.strip_prefix(':') {
                Some(recipe) => {
                    let is_plain = |c: char| c.is_ascii_alphanumeric() || " \t:/._-$".contains(c);
                    in_recipe = recipe.chars().all(is_plain);
                    in_recipe.then_some(())?;
                }
                None => (line == "}" || is_harmless(line)).then_some(())?,
            }
            continue;
        }
        if let Some(condition) = line.strip_prefix('*') {
            is_pattern(condition).then_some(())?;
            continue;
        }
        in_recipe = false;
        match line.strip_prefix(['|', '!']) {
            Some(words) if line.starts_with('|') => found.push(command(words)?),
            // Whom it is handed on to, by sendmail(1), is no command.
            Some(words) => {
                command(words)?;
                found.push(vec!["/usr/sbin/sendmail".into()]);
            }
            None => (matches!(line, "{" | "{ }") || is_place(line)).then_some(())?,
        }
    }
    Some(found)
}

fn of_maildrop(text: &str) -> Option<Vec<Vec<String>>> {
    let mut found = Vec::new();
    for line in lines(text)? {
        let (word, rest) = line.split_once([' ', '\t', '(']).unwrap_or((line, ""));
        match word {
            "{" | "}" | "else" | "exit" | "exception" if rest.is_empty() || rest == "{" => {}
            "if" | "elsif" => {
                let inner = line[word.len()..].trim().strip_prefix('(')?.strip_suffix(')')?.trim();
                let is_one = inner.starts_with('/') && !inner.contains(['`', '"', '\'', ';', '{', '}']);
                is_one.then_some(())?;
            }
            "to" | "cc" => {
                let place = unquoted(rest.trim())?;
                match place.trim_start().strip_prefix('|') {
                    Some(words) => found.push(command(words)?),
                    None => is_place(place).then_some(())?,
                }
            }
            "logfile" => is_place(unquoted(rest.trim())?).then_some(())?,
            _ => is_harmless(line).then_some(())?,
        }
    }
    Some(found)
}

/// A condition that starts nothing: a pattern, or a size; not one that is read as the shell reads words, nor the end of a program.
fn is_pattern(condition: &str) -> bool {
    let condition = condition.trim_start_matches(['!', ' ', '\t']);
    let asks = ["??", " ?", "\t?"].iter().any(|asks| condition.contains(asks));
    let begins = |c: char| c.is_ascii_alphabetic() || "^<>([\\/".contains(c);
    condition.starts_with(begins) && !asks
}

/// An assignment that decides nothing about what is started, and nothing behind it.
fn is_harmless(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default().trim_end();
    let Some((name, value)) = line.split_once('=') else { return false };
    let Some(value) = unquoted(value.trim()) else { return false };
    HARMLESS.contains(&name.trim()) && (value.is_empty() || is_place(value))
}

/// A word, without the quotes around the whole of it.
fn unquoted(word: &str) -> Option<&str> {
    let inner = ['"', '\''].into_iter().find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
    let is_whole = inner.is_some() || !word.contains([' ', '\t']);
    let word = inner.unwrap_or(word);
    (is_whole && !word.contains(['"', '\''])).then_some(word)
}

/// A file, a directory, or a plain value; of parameters only those that rules cannot have made a command of.
fn is_place(word: &str) -> bool {
    const KNOWN: [&str; 7] = ["DEFAULT", "HOME", "LOGNAME", "MAILBOX", "MAILDIR", "ORGMAIL", "USER"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:, ".contains(c);
    let mut parts = word.split('$');
    let begins_plain = parts.next().is_some_and(|part| part.chars().all(is_plain));
    let is_known = |part: &str| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, rest) = match part.strip_prefix('{') {
            Some(inner) => inner.split_once('}').unwrap_or_default(),
            None => part.split_at(part.find(|c| !is_name(c)).unwrap_or(part.len())),
        };
        KNOWN.contains(&name) && rest.chars().all(is_plain)
    };
    !word.is_empty() && begins_plain && parts.all(is_known)
}

/// The words of a command that no shell has to read.
fn command(words: &str) -> Option<Vec<String>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-@+=:, \t".contains(c);
    let argv: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    (!argv.is_empty() && words.chars().all(is_plain)).then_some(argv)
}

#[cfg(test)]
mod tests {
    use super::Deliverer::{self, Maildrop, Procmail};

    #[test]
    fn words_of_a_command_that_name_other_rules() {
        for (deliverer, line, expected) in [
            (Procmail, "", true),
            (Procmail, "-t -f $sender -a ${extension} USER=x DEFAULT=/var/mail/x", true),
            (Procmail, "-ta x -o", true),
            (Procmail, "-d ${recipient} x", true),
            (Procmail, "relay.rc", false),
            (Procmail, "-a x relay.rc", false),
            (Procmail, "/etc/relay.rc", false),
            (Procmail, "-m x", false),
            (Procmail, "-t -m USER=x", false),
            (Procmail, "-a", false),
            (Procmail, "-", false),
            (Procmail, "$RULES", false),
            (Procmail, "SENDMAIL=/x", false),
            (Procmail, "TRAP=x", false),
            (Maildrop, "", true),
            (Maildrop, "-d ${recipient} ${extension} ${nexthop}", true),
            (Maildrop, "-V 2 -w 90 -d x", true),
            (Maildrop, "-d x -V 2 y", true),
            (Maildrop, "-d x -M filter", false),
            (Maildrop, "-d", false),
            (Maildrop, "-f x -dx", true),
            (Maildrop, "filterfile", false),
            (Maildrop, "-V 2 filterfile", false),
            (Maildrop, "-M filter -d x", false),
            (Maildrop, "-m /x", false),
            (Maildrop, "X=y", false),
        ] {
            let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            assert_eq!(deliverer.goes_by_those(&words), expected, "{deliverer:?} {line}");
        }
    }

    /// What rules start, one command after the other.
    fn started(deliverer: Deliverer, text: &str) -> Option<String> {
        let commands = deliverer.starts(text)?;
        Some(commands.iter().map(|argv| argv.join(" ")).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn rules_of_procmail() {
        for (text, expected) in [
            ("", Some("")),
            (
                "DROPPRIVS=yes # as the user\nLOGFILE=\"$HOME/log\"\n:0fw: a.lock\n* < 256000\n| /usr/bin/spamc -s 9\n",
                { Some("/usr/bin/spamc -s 9") },
            ),
            ("# | send\n:0\n* ^To: (a|b)?\n* !^X-Loop\n/var/mail/b\n", Some("")),
            (":0\n* ^X-Spam\n{\nLOG=spam\n:0\n$MAILDIR/.Junk/\n}\n", Some("")),
            (":0\n| sesrelay -to x\n", Some("sesrelay -to x")),
            (":0c\n! joe@example.com\n", Some("/usr/sbin/sendmail")),
            (":0\n* ? /usr/local/bin/sesrelay\n/dev/null\n", None),
            (":0\n*! ? sesrelay\n/dev/null\n", None),
            (":0\n* 1^0 ? sesrelay\n/dev/null\n", None),
            (":0\n* 1^0?sesrelay\n/dev/null\n", None),
            (":0\n* B ?? ? sesrelay\n/dev/null\n", None),
            (":0\n* $ `sesrelay`\n/dev/null\n", None),
            ("TRAP=\"/usr/local/bin/sesrelay\"\n", None),
            ("UMASK=077 TRAP=sesrelay\n", None),
            ("EXITCODE=`sesrelay`\n", None),
            ("LOG=\"\nTRAP=x\n\"\n", None),
            ("INCLUDERC=/etc/x\n", None),
            ("SENDMAIL=/etc/x\n", None),
            ("PATH=/opt/x\n", None),
            ("SHELL=/opt/x\n", None),
            (":0\n| $HOME/bin/sesrelay\n", None),
            (":0\n| (sesrelay)\n", None),
            (":0\n| cat ; sesrelay\n", None),
            (":0\nX=| sesrelay\n", None),
            (":0\n$X\n", None),
            ("| sesrelay\n", None),
            (":0\n* ^To: a \\\n? sesrelay\n/x\n", None),
        ] {
            assert_eq!(started(Procmail, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn rules_of_maildrop() {
        for (text, expected) in [
            ("", Some("")),
            ("# to \"| x\"\nDEFAULT=\"$HOME/Maildir/\"\nlogfile \"/var/log/maildrop\"\n", Some("")),
            ("if ( /^X-Spam: (yes|on)/:h )\n{\n    to \"$HOME/Maildir/.Junk/\"\n}\nelse\n{\n exit\n}\n", Some("")),
            ("to \"| sesrelay -to x\"\n", Some("sesrelay -to x")),
            ("cc \"|sesrelay\"\n", Some("sesrelay")),
            ("to '|/usr/bin/cat'\n", Some("/usr/bin/cat")),
            ("exception {\n to \"| sesrelay\"\n}\n", Some("sesrelay")),
            ("to \"|\" sesrelay\n", None),
            ("X=\"| sesrelay\"\nto $X\n", None),
            ("DEFAULT=\"| sesrelay\"\n", None),
            ("to $1\n", None),
            ("cc \"!joe@example.com\"\n", None),
            ("xfilter \"/usr/bin/cat\"\n", None),
            ("include \"x\"\n", None),
            ("if (`sesrelay`)\n", None),
            ("if ( /x/ ) to \"| sesrelay\" #)\n", None),
            ("DEFAULT=/x; to \"|sesrelay\"\n", None),
        ] {
            assert_eq!(started(Maildrop, text).as_deref(), expected, "{text}");
        }
    }
}
