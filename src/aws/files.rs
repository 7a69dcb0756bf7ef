//! The AWS files of this host, read by us and handed to the SDK, which would read whatever stands at their names: who
//! writes them decides which account is asked, and may name a program to be run.
//!
//! What cannot be looked at: what a `credential_process` reads and starts itself, a command line of it that the shell has
//! to expand first, and who answers at the addresses of the container and instance metadata services.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

use crate::fault::Fault;
use crate::host::HostError;
use crate::host::trust::{self, Doubt};

type Result<T> = std::result::Result<T, HostError>;

/// The largest file that is read. Big organisations generate some thousand profiles.
const MAX_FILE: usize = 4 * 1024 * 1024;
/// Profiles that a profile leads to, at most; a circle is the SDK's to tell of.
const MAX_CHAIN: usize = 20;

/// A name of the process's environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What the SDK is to go by.
pub(super) struct SdkFiles {
    /// What the files hold. One that does not exist is empty.
    pub(super) profiles: EnvConfigFiles,
    /// What a group may change.
    pub(super) doubts: Vec<Doubt>,
}

/// Reads the files, and looks at what the profile that counts needs besides.
pub(super) fn read(profile: Option<&str>, environment: Environment<'_>) -> std::result::Result<SdkFiles, Fault> {
    try_read(profile, environment).map_err(|e| {
        let what = format!("AWS is not asked: {e}");
        match e.is_temporary() {
            true => Fault::new(e.class(), what, e.fix()).temporary(),
            false => Fault::new(e.class(), what, e.fix()),
        }
    })
}

fn try_read(profile: Option<&str>, environment: Environment<'_>) -> Result<SdkFiles> {
    let mut doubts = Vec::new();
    let mut builder = EnvConfigFiles::builder();
    let mut profiles = Profiles::default();
    for (variable, default, kind) in [
        ("AWS_CONFIG_FILE", "~/.aws/config", EnvConfigFileKind::Config),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", EnvConfigFileKind::Credentials),
    ] {
        let path = at_home(&environment(variable).unwrap_or_else(|| default.into()), environment);
        let text = match std::fs::metadata(&path) {
            // What is not there says nothing, whoever could put something there later: it is this text that counts.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            _ => {
                let mut opened = trust::open(&path, None)?;
                doubts.append(&mut opened.doubts);
                String::from_utf8_lossy(&opened.read(&path, MAX_FILE)?).into_owned()
            }
        };
        profiles.add(&text);
        builder = builder.with_contents(kind, text);
    }
    let mut look = |path: &Path| -> Result<()> {
        doubts.append(&mut trust::look(path)?.unwrap_or_default());
        Ok(())
    };
    for variable in ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] {
        if let Some(path) = environment(variable).filter(|path| !path.is_empty()) {
            look(Path::new(&path))?;
        }
    }
    let profile = profile.map(str::to_owned).or_else(|| environment("AWS_PROFILE")?.into_string().ok());
    let needed = profiles.needed_by(profile.as_deref().unwrap_or("default"));
    for path in &needed.token_files {
        look(&at_home(path.as_ref(), environment))?;
    }
    for command in &needed.commands {
        // The SDK has a shell run it, with the search path of this process.
        let shell = vec![find("sh", environment).into_os_string()];
        let given = first_word(command).map(|program| {
            let arguments =
                words(command).into_iter().skip(1).map(|word| match word.contains('/') && !word.starts_with('-') {
                    true => std::path::absolute(&word).map_or_else(|_| word.into(), PathBuf::into_os_string),
                    false => word.into(),
                });
            std::iter::once(find(program, environment).into_os_string()).chain(arguments).collect()
        });
        for argv in [Some(shell), given].into_iter().flatten() {
            match trust::command(&argv, None) {
                Ok(program) => doubts.extend(program.doubts),
                // Its start fails, and the SDK says so.
                Err(HostError::NotStarted { .. }) => {}
                Err(e) => return Err(e),
            }
        }
    }
    doubts.sort();
    doubts.dedup();
    Ok(SdkFiles { profiles: builder.build(), doubts })
}

/// `~` as the SDK takes it.
fn at_home(path: &std::ffi::OsStr, environment: Environment<'_>) -> PathBuf {
    match (path.as_bytes().strip_prefix(b"~/"), environment("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(std::ffi::OsStr::from_bytes(rest)),
        _ => path.into(),
    }
}

/// The program of a command line; `None` where only a shell could tell.
fn first_word(command: &str) -> Option<&str> {
    let word = match command.trim_start() {
        quoted if quoted.starts_with(['"', '\'']) => quoted[1..].split(&quoted[..1]).next()?,
        plain => plain.split([' ', '\t', ';', '|', '&']).next()?,
    };
    (!word.is_empty() && !word.contains(['$', '`', '~', '*', '(', '=', '\\'])).then_some(word)
}

/// The words of a command line, without their quotes. What a shell would make of variables and the like is left as it is: it
/// is not found then.
fn words(command: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_ascii_whitespace() || ";|&<>()".contains(c) => all.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

fn find(program: &str, environment: Environment<'_>) -> PathBuf {
    if program.contains('/') {
        return std::path::absolute(program).unwrap_or_else(|_| program.into());
    }
    let path = environment("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|at| at.is_file());
    found.unwrap_or_else(|| program.into())
}

/// The keys of every profile that lead out of the files. The SDK reads everything else, and says what is wrong.
#[derive(Default)]
struct Profiles(HashMap<String, HashMap<String, String>>);

/// What a profile and those it leads to need.
#[derive(Default, Debug, PartialEq, Eq)]
struct Needed {
    commands: Vec<String>,
    token_files: Vec<String>,
}

impl Profiles {
    fn add(&mut self, text: &str) {
        let mut section = None;
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            if let Some(header) = line.trim_start().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                let header = header.trim();
                section = Some(header.strip_prefix("profile").map_or(header, |rest| match rest.trim_start() {
                    name if name.len() < rest.len() => name,
                    _ => header,
                }));
            } else if let (Some(section), Some((key, value))) = (section, line.split_once('=')) {
                let keys = self.0.entry(section.to_owned()).or_default();
                keys.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
            }
        }
    }

    fn needed_by(&self, profile: &str) -> Needed {
        let mut needed = Needed::default();
        let mut next = Some(profile);
        for _ in 0..MAX_CHAIN {
            let Some(keys) = next.and_then(|name| self.0.get(name)) else { break };
            needed.commands.extend(keys.get("credential_process").cloned());
            needed.token_files.extend(keys.get("web_identity_token_file").cloned());
            next = keys.get("source_profile").map(String::as_str).filter(|source| Some(*source) != next);
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_profile_needs() {
        let mut profiles = Profiles::default();
        profiles.add(
            "[default]\nregion = eu-west-1\n# credential_process = no\n\
             [profile  mail]\nsource_profile = base\nrole_arn = arn:aws:iam::1:role/a\n\
             [profile base]\nCredential_Process = /opt/c --x\n[profile circle]\nsource_profile = circle\n\
             [profiled]\nweb_identity_token_file=/t\n",
        );
        let of = |name| {
            let Needed { commands, token_files } = profiles.needed_by(name);
            (commands.join("|"), token_files.join("|"))
        };
        assert_eq!(of("default"), (String::new(), String::new()));
        assert_eq!(of("mail"), ("/opt/c --x".into(), String::new()));
        assert_eq!(of("circle"), (String::new(), String::new()));
        assert_eq!(of("profiled"), (String::new(), "/t".into()));
        assert_eq!(of("none"), (String::new(), String::new()));
    }

    #[test]
    fn the_words_of_a_command() {
        for (command, expected) in [
            ("/bin/sh '/opt/my c' x", &["/bin/sh", "/opt/my c", "x"][..]),
            ("sh -c \"/opt/c --x\";id</etc/x", &["sh", "-c", "/opt/c --x", "id", "/etc/x"]),
            ("  a  '' ", &["a", ""]),
            ("", &[]),
        ] {
            assert_eq!(words(command), expected, "{command:?}");
        }
    }

    #[test]
    fn the_first_word_of_a_command() {
        for (command, word) in [
            ("/opt/c --x", Some("/opt/c")),
            ("\"/opt/my c\" --x", Some("/opt/my c")),
            ("'/opt/my c' --x", Some("/opt/my c")),
            ("aws-vault exec", Some("aws-vault")),
            ("/opt/c;id", Some("/opt/c")),
            ("$HOME/c", None),
            ("A=b /opt/c", None),
            ("", None),
        ] {
            assert_eq!(first_word(command), word, "{command:?}");
        }
    }
}
