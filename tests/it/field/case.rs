//! One set-up as it stands in `tests/field`, and how its placeholders are filled in.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// All of them.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/field")
}

/// `expected.json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Case {
    #[serde(skip)]
    pub dir: PathBuf,
    /// Nothing is this credential's at first, and all of its next hops hold the other IAM user's login: on a host without state that
    /// is taken for the key before.
    #[serde(skip)]
    pub taken_over: bool,
    /// The set-up, and what should come of it, in words.
    pub setup: String,
    pub should: String,
    pub tables: BTreeMap<String, TableFile>,
    pub flows: Vec<Flow>,
    /// The agent is new, and meets the new version first.
    pub fresh: bool,
    /// No mail leaves before, of one flow at least.
    pub broken: bool,
    /// The secret held another key before the one in the table, which still works.
    pub prev: bool,
    /// That version held its ready-made password for the other region, by mistake.
    pub prev_of_eu: bool,
    /// `iam`: the source holds the IAM key, and the password is derived.
    pub payload: String,
    /// `refuse`: it is right to refuse by name, and better to move.
    pub sync: String,
    /// What the findings of `check` have to contain: extended regular expressions.
    pub check_names: Vec<String>,
    /// The same, of `check` and `sync` together, where it is refused.
    pub refusal_names: Vec<String>,
    /// One more `sync` before the reports count.
    pub confirm_again: bool,
    /// Not looked at: it only says how the case was meant.
    pub after_auth: String,
    pub notes_ok: bool,
}

/// A table of the set-up.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableFile {
    /// What `postmap` makes of it; `none`, or one that is not compiled: nothing.
    #[serde(rename = "type")]
    pub kind: String,
    pub mode: String,
    /// `USER:GROUP`.
    pub owner: Option<String>,
}

impl Default for TableFile {
    fn default() -> Self {
        Self { kind: "hash".into(), mode: "0600".into(), owner: None }
    }
}

impl TableFile {
    pub fn is_compiled(&self) -> bool {
        ["hash", "btree", "lmdb", "cdb"].contains(&self.kind.as_str())
    }
}

/// A message, and what has to become of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    pub from: String,
    pub to: String,
    pub server: Server,
    /// `None`: nobody logs in.
    pub auth: Option<Whose>,
    /// Of the instances, which one takes it.
    pub instance: usize,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            from: "u@a.example".into(),
            to: "b@example.com".into(),
            server: Server::Ses,
            auth: Some(Whose::Ours),
            instance: 0,
        }
    }
}

/// Where mail goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// SES in us-east-1.
    Ses,
    /// SES in eu-west-1.
    SesEu,
    /// Another provider.
    Other,
    /// The recipient's own server.
    Direct,
}

/// Whose login has to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    Ours,
    /// Of another IAM user of the same account.
    Foreign,
    Other,
    /// The key before: works before, and is ours afterwards.
    Prev,
    /// The other IAM user's before, ours afterwards.
    TakenOver,
}

impl Case {
    pub fn read(name: &str) -> Self {
        let dir = folder().join(name);
        let path = dir.join("expected.json");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut case: Self = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if case.flows.is_empty() {
            case.flows.push(Flow::default());
        }
        case.dir = dir;
        case
    }

    /// May it be refused, by name?
    pub fn may_refuse(&self) -> bool {
        self.sync == "refuse" || self.broken
    }

    /// A file of the folder, if it is there.
    pub fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    /// The agent's configuration from the first credential on.
    pub fn agent(&self) -> String {
        self.file("relaykey.toml")
            .unwrap_or_else(|| fs::read_to_string(folder().join("default.toml")).expect("default.toml"))
    }
}

/// What stands for a placeholder.
#[derive(Clone, Default)]
pub struct Words(Vec<(&'static str, String)>);

impl Words {
    /// From now on `{name}` is this.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.retain(|(have, _)| *have != name);
        self.0.push((name, value.into()));
        self
    }

    pub fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }
}
