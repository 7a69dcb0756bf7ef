//! What a person is told to do, as values: every renderer (e-mail, page, `status`, JSON, log) makes its own sentence of
//! them, and nobody has to find a command in a sentence. Pure, but for the configuration file that is named, said once at the start.

use std::fmt;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The configuration file that this process goes by, as a shell takes it, where it is not the usual one.
static CONFIG: OnceLock<String> = OnceLock::new();

/// What [`relaykey`] names from now on; said once, at the start of the program: a process goes by one file for as long as it
/// lives. `None`: the usual one, which need not be named.
pub fn goes_by(config: Option<String>) {
    if let Some(config) = config {
        // The first word counts: there is no other.
        let _ = CONFIG.set(config);
    }
}

/// A command of ours as it is to be pasted: `relaykey ARGUMENTS`, and where this process goes by another file than the usual
/// one, with that. Every sentence that names such a command takes it from here.
pub fn relaykey(arguments: impl fmt::Display) -> String {
    with_config(&arguments, CONFIG.get().map(String::as_str))
}

fn with_config(arguments: &dyn fmt::Display, config: Option<&str>) -> String {
    match config {
        Some(config) => format!("relaykey {arguments} --config {config}"),
        None => format!("relaykey {arguments}"),
    }
}

/// One thing to do. In JSON `{"text": …}` or `{"command": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Instruction {
    /// An edit, or something to see to, in words.
    Text(String),
    /// A command for a shell, to be pasted as it is, whole and on one line: whoever breaks or splits it makes another one.
    Command(String),
}

impl Instruction {
    /// The words, or the command.
    pub fn as_str(&self) -> &str {
        match self {
            Instruction::Text(text) | Instruction::Command(text) => text,
        }
    }

    /// As lists of plain text have it, which programs of before read.
    pub fn plain(all: &[Self]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    /// All of them on one line, for where there is only one: each with its number, so that a `;` is a command's own.
    pub fn on_one_line(all: &[Self]) -> String {
        let numbered = all.iter().enumerate().map(|(n, step)| match step {
            Instruction::Text(text) => format!("({}) {text}", n + 1),
            Instruction::Command(command) => format!("({}) run `{command}`", n + 1),
        });
        numbered.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What 0.1.0 wrote is a plain text, of which nobody knows what it is.
impl<'de> Deserialize<'de> for Instruction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Tagged {
            Text(String),
            Command(String),
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Plain(String),
            Tagged(Tagged),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Plain(text) | Written::Tagged(Tagged::Text(text)) => Instruction::Text(text),
            Written::Tagged(Tagged::Command(command)) => Instruction::Command(command),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_configuration_where_it_is_not_the_usual_one() {
        let command = format_args!("approve {} --version {}", "ses", 7);
        assert_eq!(with_config(&command, None), "relaykey approve ses --version 7");
        let named = "relaykey approve ses --version 7 --config '/etc/relay key.toml'";
        assert_eq!(with_config(&command, Some("'/etc/relay key.toml'")), named);
    }

    #[test]
    fn what_was_written_as_plain_text_is_read_as_words() {
        let all: Vec<Instruction> =
            serde_json::from_str(r#"["postmap /t", {"text": "edit"}, {"command": "(umask 077; a > b)"}]"#).unwrap();
        let text = |text: &str| Instruction::Text(text.into());
        assert_eq!(all, [text("postmap /t"), text("edit"), Instruction::Command("(umask 077; a > b)".into())]);
        assert_eq!(serde_json::to_string(&all[1..]).unwrap(), r#"[{"text":"edit"},{"command":"(umask 077; a > b)"}]"#);
        assert_eq!(Instruction::on_one_line(&all[1..]), "(1) edit (2) run `(umask 077; a > b)`");
    }
}
