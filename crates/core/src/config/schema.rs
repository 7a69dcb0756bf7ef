//! The keys of a file, as values: what is accepted where, with which default, and what comes later. The keys of `[aws]`
//! stand beside it ([`super::aws`]); each program has the rest.

/// What a file may have in it, and what the program that reads it calls things.
#[derive(Debug)]
pub struct Schema {
    /// The program: `relaykey`.
    pub program: &'static str,
    /// The version of the file that the program reads, as in `config_version`.
    pub version: i64,
    /// Where people find what each key is: `config.example.toml`.
    pub explained_in: &'static str,
    /// A sentence: where logins are, as they are not in this file.
    pub no_login: &'static str,
    /// What to do about a key that is meant for a login.
    pub instead_of_login: &'static str,
    /// Headers of its own, as examples: `[host] or [credential.smtp]`.
    pub tables: &'static str,
    /// The same for tables of which there may be several.
    pub lists: &'static str,
    /// What is wrong, and what to do, where the header of this name stands twice, the second time in double brackets or not.
    pub twice: fn(name: &str, in_double_brackets: bool) -> (&'static str, &'static str),
    /// The top of the file.
    pub top: &'static Section,
    /// Every section, in the order of the file; the top is the first.
    pub sections: &'static [&'static Section],
}

/// One table of the file and the keys that may stand in it.
#[derive(Debug)]
pub struct Section {
    /// As it is written in the file: `[credential.smtp]`. Empty for the top of the file.
    pub header: &'static str,
    /// Every key of the schema, accepted or to come.
    pub keys: &'static [SchemaKey],
}

/// One key of the schema.
#[derive(Debug)]
pub struct SchemaKey {
    /// As it is spelt.
    pub name: &'static str,
    /// The default, as TOML; `None` where the key is required, or is not in effect unless it is set.
    pub default: Option<&'static str>,
    /// In a table that has a `type`: the types that take this key; empty for all.
    pub types: &'static [&'static str],
    /// For a key that is planned and not accepted yet: what to do instead.
    pub later: Option<&'static str>,
    /// A table, or a list of tables, with a section of its own.
    pub table: bool,
    /// May its value be shown? Not where people tend to put what should stay secret.
    pub shown: bool,
    /// Is its value a number, a length of time, or one of a few words? Anything else is no slip of the pen.
    pub one_of_a_few: bool,
    /// Where an `@` in its value tells of no login.
    pub at: AtSign,
}

/// What an `@` in a value tells, where the value may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtSign {
    /// A login may stand there.
    Login,
    /// A login in what is said of the value; in the line as it stands in the file it belongs there.
    BelongsInLine,
    /// The value is a mail address.
    Belongs,
}

/// A key without a default, whose value may be shown.
pub const fn key(name: &'static str) -> SchemaKey {
    SchemaKey {
        name,
        default: None,
        types: &[],
        later: None,
        table: false,
        shown: true,
        one_of_a_few: false,
        at: AtSign::Login,
    }
}

/// A key that is a table: people may write anything into it in one line.
pub const fn table(name: &'static str) -> SchemaKey {
    SchemaKey { table: true, shown: false, ..key(name) }
}

impl SchemaKey {
    /// Has this default, as TOML.
    pub const fn default(self, toml: &'static str) -> Self {
        Self { default: Some(toml), ..self }
    }

    /// Only these types take it.
    pub const fn only(self, types: &'static [&'static str]) -> Self {
        Self { types, ..self }
    }

    /// Not accepted yet; what to do instead.
    pub const fn later(self, fix: &'static str) -> Self {
        Self { later: Some(fix), ..self }
    }

    /// Its value is a number, a duration, or one of a few words.
    pub const fn few(self) -> Self {
        Self { one_of_a_few: true, ..self }
    }

    /// Its value is not shown.
    pub const fn hidden(self) -> Self {
        Self { shown: false, ..self }
    }

    /// An `@` may stand in its value.
    pub const fn at(self, at: AtSign) -> Self {
        Self { at, ..self }
    }
}
