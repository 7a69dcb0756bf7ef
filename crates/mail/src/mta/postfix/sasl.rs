//! Can smtp(8) log in at all? The Cyrus SASL library loads each mechanism from a file of its own, and the distributions have PLAIN
//! and LOGIN in a package that Postfix's does not need: without it mail waits with "no mechanism available".

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::Postfix;
use super::review::Problem;
use super::services::Service;

/// Where the distributions' builds of the library look for plug-ins; Debian's has a directory for each architecture.
const PLUG_INS: &[&str] = &["/usr/lib64/sasl2", "/usr/lib/sasl2", "/usr/local/lib/sasl2"];
const LIBRARIES: &str = "/usr/lib";

impl Postfix {
    /// What is to be said where the mechanisms that SES offers cannot be loaded. Where the directory is not known, nothing is.
    pub(super) fn review_plug_ins(&self, service: &Service) -> Option<Problem> {
        if !matches!(service.settings.get("smtp_sasl_type"), "" | "cyrus") {
            return None;
        }
        let architectures =
            fs::read_dir(LIBRARIES).into_iter().flatten().flatten().map(|entry| entry.path().join("sasl2"));
        let found: Vec<PathBuf> =
            PLUG_INS.iter().map(PathBuf::from).chain(architectures).filter(|path| path.is_dir()).collect();
        without_plain(&found).then(|| {
            let names = found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            Problem::warning(
                None,
                format!(
                    "the SASL plug-ins for PLAIN and LOGIN are not in {names}: smtp(8) finds no mechanism to log in with, and mail \
                     waits in the queue (\"no mechanism available\")"
                ),
                "install the package with them: libsasl2-modules (Debian, Ubuntu), cyrus-sasl-plain (Red Hat, Fedora, Amazon Linux, \
                 SUSE), cyrus-sasl-login (Alpine); nothing needs a restart"
                    .into(),
            )
        })
    }
}

/// Has none of these directories a plug-in for either mechanism? With no directory at all nothing is known.
fn without_plain(directories: &[PathBuf]) -> bool {
    let has_plain = |directory: &PathBuf| {
        let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        names.into_iter().any(|path| is_plain(&path))
    };
    !directories.is_empty() && !directories.iter().any(has_plain)
}

/// `libplain.so.2`, `liblogin.so`.
fn is_plain(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    ["libplain.so", "liblogin.so"].iter().any(|begin| name.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plug_ins_are_looked_for_in_all_directories() {
        let base = std::env::temp_dir().join(format!("relaykey-sasl-{}", std::process::id()));
        let both = ["one", "other"].map(|name| base.join(name));
        both.iter().for_each(|path| fs::create_dir_all(path).unwrap());
        assert!(without_plain(&both) && !without_plain(&[]));
        fs::write(both[0].join("libsasldb.so.2"), "").unwrap();
        assert!(without_plain(&both));
        fs::write(both[1].join("liblogin.so.2"), "").unwrap();
        assert!(!without_plain(&both) && without_plain(&both[..1]));
        fs::remove_dir_all(&base).unwrap();
    }
}
