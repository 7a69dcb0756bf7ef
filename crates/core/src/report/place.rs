//! Where reports lie: the keys of a table in DynamoDB, and the names in Parameter Store. Hosts write there, and the control side
//! reads; what is its own lies beside them, where no host may write.

/// By which keys a table of reports holds its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLayout {
    /// Layout 1, of 0.1.0: `credential` and `host`. Anybody may write any item who may write one.
    ByHost,
    /// Layout 2: `principal`, which IAM vouches for, and `credential#host_id`.
    ByPrincipal,
}

impl TableLayout {
    /// Its number, as documents have it.
    pub fn number(self) -> u8 {
        match self {
            TableLayout::ByHost => 1,
            TableLayout::ByPrincipal => 2,
        }
    }

    /// The names of partition key and sort key. Both are strings.
    pub fn keys(self) -> [&'static str; 2] {
        match self {
            TableLayout::ByHost => ["credential", "host"],
            TableLayout::ByPrincipal => ["principal", "credential#host_id"],
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            TableLayout::ByHost => TableLayout::ByPrincipal,
            TableLayout::ByPrincipal => TableLayout::ByHost,
        }
    }

    /// The layout of a table with these keys, if hosts write to such a one.
    pub fn of(partition: &str, sort: &str) -> Option<Self> {
        match (partition, [partition, sort]) {
            ("principal", _) => Some(TableLayout::ByPrincipal),
            (_, keys) if keys == TableLayout::ByHost.keys() => Some(TableLayout::ByHost),
            _ => None,
        }
    }
}

/// The sort key of a host's item in layout 2.
pub fn sort_key(credential: &str, host_id: &str) -> String {
    format!("{}{host_id}", sort_keys_begin(credential))
}

/// What the sort keys of all items of a credential begin with in layout 2.
pub fn sort_keys_begin(credential: &str) -> String {
    format!("{credential}#")
}

/// The credential of such a sort key.
pub fn credential_of(sort_key: &str) -> Option<&str> {
    sort_key.rsplit_once('#').map(|(credential, _)| credential)
}

/// A partition that is the control side's own: no identity in AWS has such a name.
pub fn own_partition(kind: &str, credential: &str) -> String {
    format!("!{kind}/{credential}")
}

/// Is this partition one of the control side's own, whosever it is?
pub fn is_own_partition(partition: &str) -> bool {
    partition.starts_with('!')
}

/// The name of a host's parameter.
pub fn parameter(path: &str, credential: &str, host: &str) -> String {
    format!("{}/{host}", parameters_of(path, credential))
}

/// What the names of all hosts' parameters of a credential begin with.
pub fn parameters_of(path: &str, credential: &str) -> String {
    format!("{path}/{credential}")
}

/// A parameter of the control side's own: no credential has such a name.
pub fn own_parameter(path: &str, kind: &str, credential: &str) -> String {
    format!("{path}/.{kind}/{credential}")
}

/// The credential of a host's parameter below the path; `None`: it is none, but the control side's own.
pub fn credential_of_parameter<'n>(path: &str, name: &'n str) -> Option<&'n str> {
    let below = name.strip_prefix(path)?.trim_start_matches('/');
    below.split_once('/').map(|(credential, _)| credential).filter(|credential| !credential.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_write_is_told_from_what_is_the_control_sides() {
        assert!(is_own_partition(&own_partition("control", "ses")) && !is_own_partition("AROA1:i-0a"));
        assert_eq!(credential_of(&sort_key("ses#a", "6f1e")), Some("ses#a"));
        assert_eq!(credential_of_parameter("/relaykey", &parameter("/relaykey", "ses", "mx1")), Some("ses"));
        assert_eq!(credential_of_parameter("/relaykey", &own_parameter("/relaykey", "control", "ses")), None);
    }

    #[test]
    fn a_layout_is_told_by_its_keys() {
        for layout in [TableLayout::ByHost, TableLayout::ByPrincipal] {
            let [partition, sort] = layout.keys();
            assert_eq!(TableLayout::of(partition, sort), Some(layout));
            assert_ne!(layout.other(), layout);
        }
        assert_eq!(TableLayout::of("credential", "credential#host_id"), None);
    }
}
