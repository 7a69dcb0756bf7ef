//! The kinds of mail server, and what each is called and told by.

use std::path::{Path, PathBuf};

/// The kind of mail server a target is.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    /// One Postfix instance.
    Postfix {
        /// What `postconf -c` takes. Absolute.
        config_dir: PathBuf,
    },
    /// A key-value text read directly, with no mail server behind it: what `relaykey demo` rolls over where no Postfix
    /// is installed. Not offered in the configuration file.
    Text {
        /// The text. Absolute.
        path: PathBuf,
    },
}

impl TargetKind {
    /// The word of a Postfix instance.
    pub const POSTFIX: &str = "postfix";
    /// Where the configuration of a host's only Postfix instance is, or of its first.
    pub const POSTFIX_CONFIG_DIR: &str = "/etc/postfix";

    /// The word of the configuration file and of reports.
    pub fn word(&self) -> &'static str {
        match self {
            TargetKind::Postfix { .. } => Self::POSTFIX,
            TargetKind::Text { .. } => "text",
        }
    }

    /// The command that starts it, by the name of its instance; `None`: there is nothing to start.
    pub fn start(&self) -> Option<String> {
        match self {
            TargetKind::Postfix { config_dir } => Some(format!("postfix -c {} start", config_dir.display())),
            TargetKind::Text { .. } => None,
        }
    }

    /// How people start it: the host's only instance as the host itself does.
    pub fn how_to_start(&self) -> Option<String> {
        match self {
            TargetKind::Postfix { config_dir } if config_dir == Path::new(Self::POSTFIX_CONFIG_DIR) => {
                Some("`postfix start`, or `systemctl start postfix`".into())
            }
            kind => kind.start().map(|command| format!("`{command}`")),
        }
    }

    /// The command by which people have it read its files again; `None`: it reads them whenever it is asked.
    pub fn reload(&self) -> Option<&'static str> {
        match self {
            TargetKind::Postfix { .. } => Some("postfix reload"),
            TargetKind::Text { .. } => None,
        }
    }

    /// How it is read back what it uses.
    pub(super) fn read_back_by(&self) -> &'static str {
        match self {
            TargetKind::Postfix { .. } => "postmap -q",
            TargetKind::Text { .. } => "text",
        }
    }
}
