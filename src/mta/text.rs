//! A table text that is read directly, with no mail server behind it: what `relaykey demo` rolls over where no Postfix
//! can be started. The lookup is that of Postfix: the bare host name first, then the destination as it would be spelt.

use std::path::{Path, PathBuf};

use super::table::{Change, Table, TableError, fold};
use super::{Content, Entry, Mta, MtaError, Ours, Plan, PlannedFile, Running, View};
use crate::config::Smtp;
use crate::credential::Login;
use crate::host::{self, FileId};

/// The largest text that is read, in bytes.
const MAX: usize = 1 << 20;

pub struct Text {
    path: PathBuf,
    endpoint: String,
    port: u16,
}

impl Text {
    pub fn new(path: &Path, smtp: &Smtp) -> Self {
        Self { path: path.to_owned(), endpoint: smtp.endpoint.clone(), port: smtp.port }
    }

    /// The table, and the text as it was read.
    fn read(&self, path: &Path) -> Result<(Table, Option<FileId>), MtaError> {
        if std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            return Ok((self.parse(b"")?, None));
        }
        let (bytes, seen) = host::read(path, MAX)?;
        Ok((self.parse(&bytes)?, Some(seen)))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Table, MtaError> {
        Table::parse(bytes).map_err(|e| self.located(e))
    }

    fn located(&self, e: TableError) -> MtaError {
        let file = Some(self.path.clone());
        MtaError { temporary: false, class: e.class, file, line: e.line, what: e.what, fix: e.fix }
    }

    /// The keys of our one next hop, in lookup order.
    fn keys(&self) -> [String; 2] {
        [self.endpoint.clone(), format!("[{}]:{}", self.endpoint, self.port)]
    }

    /// Indexes of our entries.
    fn owned(&self, table: &Table) -> Vec<usize> {
        self.keys().iter().filter_map(|key| table.get_folded(&fold(key)).map(|(index, _)| index)).collect()
    }
}

impl Mta for Text {
    fn inspect(&self, _ours: &Ours) -> Result<View, MtaError> {
        let (table, _) = self.read(&self.path)?;
        let map = format!("texthash:{}", self.path.display());
        let owned = self.owned(&table);
        let entries = owned.iter().map(|&index| {
            let entry = &table.entries()[index];
            let login = entry.login();
            Entry {
                key: entry.key.clone(),
                map: map.clone(),
                line: Some(entry.line),
                live: login.clone(),
                text: login,
                is_live_key: true,
            }
        });
        Ok(View {
            kind: "text",
            how: "text",
            entries: entries.collect(),
            missing: if owned.is_empty() { vec![self.keys()[1].clone()] } else { Vec::new() },
            running: Running::NotApplicable,
            findings: Vec::new(),
            left_out: Vec::new(),
        })
    }

    fn plan(&self, _ours: &Ours, login: &Login) -> Result<Plan, MtaError> {
        let (table, seen) = self.read(&self.path)?;
        let owned = self.owned(&table);
        let append = self.keys()[1].clone();
        let mut lookups: Vec<String> = owned.iter().map(|&index| table.entries()[index].key.clone()).collect();
        let stale = |index: &&usize| table.entries()[**index].login().as_ref() != Some(login);
        let mut changes: Vec<Change<'_>> =
            owned.iter().filter(stale).map(|&entry| Change::Replace { entry, login }).collect();
        if owned.is_empty() {
            changes.push(Change::Append { key: &append, login });
            lookups.push(append.clone());
        }
        let live = owned.first().and_then(|&index| table.entries()[index].login());
        let diff = lookups.iter().map(|key| format!("{}: {key} {}:***", self.path.display(), login.username));
        let mut files = Vec::new();
        if !changes.is_empty() {
            let content = Content::Bytes(table.render(&changes).map_err(|e| self.located(e))?);
            files.push(PlannedFile { path: self.path.clone(), seen, content });
        }
        let diff = if files.is_empty() { Vec::new() } else { diff.collect() };
        Ok(Plan { files, text: self.path.clone(), live, lookups, reload_needed: false, diff })
    }

    fn compile(&self, staged_text: &Path) -> Result<PathBuf, MtaError> {
        // No plan of this target has a compiled file.
        Ok(staged_text.to_owned())
    }

    fn lookup(&self, text: &Path, keys: &[String]) -> Result<Vec<Option<Login>>, MtaError> {
        let (table, _) = self.read(text)?;
        Ok(keys.iter().map(|key| table.get_folded(&fold(key)).and_then(|(_, entry)| entry.login())).collect())
    }

    fn running(&self) -> Result<Running, MtaError> {
        Ok(Running::NotApplicable)
    }

    fn activate(&self) -> Result<(), MtaError> {
        Ok(())
    }
}
