//! The keys of the file, version 1, in one table: what is accepted where, with which default, and what comes later.

/// One table of the file and the keys that may stand in it.
#[derive(Debug)]
pub struct Section {
    /// As it is written in the file: `[credential.smtp]`. Empty for the top of the file.
    pub header: &'static str,
    /// Every key of the schema, accepted or to come.
    pub keys: &'static [Key],
}

/// One key of the schema.
#[derive(Debug)]
pub struct Key {
    /// As it is spelt.
    pub name: &'static str,
    /// The default, as TOML; `None` where the key is required, or is not in effect unless it is set.
    pub default: Option<&'static str>,
    /// In a source or a receiver of reports: the types that take this key; empty for all.
    pub types: &'static [&'static str],
    /// For a key that is planned and not accepted yet: what to do instead.
    pub later: Option<&'static str>,
    /// A table, or a list of tables, with a section of its own.
    pub table: bool,
    /// May its value be shown? Not where people tend to put what should stay secret.
    pub(super) shown: bool,
    /// Is its value a number, a length of time, or one of a few words? Anything else is no slip of the pen.
    pub(super) one_of_a_few: bool,
}

const fn key(name: &'static str) -> Key {
    Key { name, default: None, types: &[], later: None, table: false, shown: true, one_of_a_few: false }
}

/// A key that is a table: people may write anything into it in one line.
const fn table(name: &'static str) -> Key {
    Key { table: true, shown: false, ..key(name) }
}

impl Key {
    const fn default(self, toml: &'static str) -> Self {
        Self { default: Some(toml), ..self }
    }

    const fn only(self, types: &'static [&'static str]) -> Self {
        Self { types, ..self }
    }

    const fn later(self, fix: &'static str) -> Self {
        Self { later: Some(fix), ..self }
    }

    const fn few(self) -> Self {
        Self { one_of_a_few: true, ..self }
    }

    const fn hidden(self) -> Self {
        Self { shown: false, ..self }
    }
}

pub(super) const SECRETS_MANAGER: &str = "secrets-manager";
pub(super) const PARAMETER_STORE: &str = "parameter-store";
pub(super) const FILE: &str = "file";
pub(super) const DYNAMODB: &str = "dynamodb";
pub(super) const WEBHOOK: &str = "webhook";
pub(super) const EMAIL: &str = "email";
pub(super) const EXEC: &str = "exec";
const AWS_TYPES: &[&str] = &[SECRETS_MANAGER, PARAMETER_STORE];
/// Receivers of reports that are reached by AWS's interface; e-mail goes through SES's own where its server is "ses".
const REPORT_AWS_TYPES: &[&str] = &[PARAMETER_STORE, DYNAMODB, EMAIL];

pub(super) static TOP: Section = Section {
    header: "",
    keys: &[
        key("config_version").few(),
        table("host"),
        table("aws"),
        table("credential"),
        table("health"),
        table("report"),
    ],
};

pub(super) static HOST: Section = Section {
    header: "[host]",
    keys: &[
        key("name"),
        key("state_dir").default("\"/var/lib/relaykey\""),
        key("run_dir").default("\"/run/relaykey\""),
    ],
};

pub(super) static AWS: Section = Section {
    header: "[aws]",
    keys: &[
        key("region"),
        key("profile"),
        key("role_arn"),
        key("external_id").hidden(),
        key("endpoint_url").hidden(),
        key("proxy").hidden(),
        key("use_fips").few().default("false"),
        key("use_dualstack").few().default("false"),
    ],
};

pub(super) static CREDENTIAL: Section = Section {
    header: "[[credential]]",
    keys: &[
        key("name"),
        key("mode").few().default("\"automatic\""),
        table("source"),
        table("smtp"),
        table("target"),
        key("apply"),
        key("if_applied_dies").few().default("\"wait\""),
        table("probe"),
    ],
};

pub(super) static PROBE: Section = Section {
    header: "[credential.probe]",
    keys: &[key("from").hidden(), key("to").default("\"success@simulator.amazonses.com\"").hidden()],
};

pub(super) static SOURCE: Section = Section {
    header: "[credential.source]",
    keys: &[
        key("type").few(),
        key("secret").only(&[SECRETS_MANAGER]).hidden(),
        key("stage").only(&[SECRETS_MANAGER]).default("\"AWSCURRENT\""),
        key("parameter").only(&[PARAMETER_STORE]).hidden(),
        key("label").only(&[PARAMETER_STORE]),
        key("path").only(&[FILE]),
        key("owner").only(&[FILE]),
        key("username_key").hidden(),
        key("password_key").hidden(),
        key("region").only(AWS_TYPES),
        key("profile").only(AWS_TYPES),
        key("role_arn").only(AWS_TYPES),
        key("external_id").only(AWS_TYPES).hidden(),
        key("endpoint_url").only(AWS_TYPES).hidden(),
        key("poll").few().default("\"5m\""),
    ],
};

pub(super) static SMTP: Section = Section {
    header: "[credential.smtp]",
    keys: &[
        key("endpoint"),
        key("port").few().default("587"),
        key("tls").few().default("\"starttls\""),
        key("region"),
        key("ca_file"),
        key("timeout").few().default("\"10s\""),
        key("propagation").few().default("\"5m\""),
        key("retry").few().default("\"10s\""),
        key("endpoint_aliases").default("[]"),
    ],
};

pub(super) static TARGET: Section = Section {
    header: "[[credential.target]]",
    keys: &[
        key("name").default("\"postfix\""),
        key("type").few(),
        key("config_dir").default("\"/etc/postfix\""),
        key("reload").few().default("\"always\""),
        key("drift").few().default("\"heal\""),
        key("write").few().default("true"),
        key("keys"),
        key("log"),
        key("endpoint"),
        key("port").few(),
        key("tls").few(),
        key("region"),
        key("maps").later("remove it for now; the table is the one that smtp_sasl_password_maps names"),
    ],
};

pub(super) static HEALTH: Section = Section {
    header: "[health]",
    keys: &[key("listen"), key("public").few().default("false"), key("hosts").default("[]")],
};

pub(super) static REPORT: Section = Section {
    header: "[[report]]",
    keys: &[
        key("name"),
        key("type").few(),
        key("credentials").hidden(),
        key("path").only(&[PARAMETER_STORE]),
        key("table").only(&[DYNAMODB]),
        key("url").only(&[WEBHOOK]).hidden(),
        key("secret_file").only(&[WEBHOOK]),
        key("ca_file").only(&[WEBHOOK]),
        key("from").only(&[EMAIL]).hidden(),
        key("to").only(&[EMAIL]).hidden(),
        key("server").only(&[EMAIL]).default("\"localhost:25\"").hidden(),
        key("command").only(&[EXEC]).hidden(),
        key("user").only(&[EXEC]).default("\"nobody\""),
        key("timeout").few().only(&[EXEC]).default("\"30s\""),
        key("region").only(REPORT_AWS_TYPES),
        key("profile").only(REPORT_AWS_TYPES),
        key("role_arn").only(REPORT_AWS_TYPES),
        key("external_id").only(REPORT_AWS_TYPES).hidden(),
        key("endpoint_url").only(REPORT_AWS_TYPES).hidden(),
    ],
};

/// Every section of the file, in its order. The reader, the example and the manual page are held to it.
pub static SCHEMA: [&Section; 10] = [&TOP, &HOST, &AWS, &CREDENTIAL, &SOURCE, &SMTP, &PROBE, &TARGET, &HEALTH, &REPORT];
