//! A file on this host, for those who bring credentials by other means. It is authoritative as it is.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config::{Finding, Severity};
use crate::credential::{JsonKeys, LocalKey, MAX_PAYLOAD, SourceIdentity, VersionId};
use crate::fault::{Class, Fault};
use crate::host::HostError;
use crate::host::trust::{self, WhyUntrusted};
use crate::source::{Corrected, Fetched, Fetching, Looking, SeenVersion, Source, bad_payload, not_given, payload};

/// A read that takes longer hangs in a network file system.
const DEADLINE: Duration = Duration::from_secs(30);

/// A source of type `file`.
///
/// Version: a keyed hash of the whole content. No order: the file is taken as it is. Identity: `file:PATH`.
pub struct File {
    path: PathBuf,
    /// Who may write it besides root and ourselves.
    owner: Option<String>,
    key: LocalKey,
    keys: JsonKeys,
    /// A read is under way. One that hangs keeps its thread, so that there is never a second.
    reading: Arc<AtomicBool>,
}

/// Taken while a read is under way.
struct Reading(Arc<AtomicBool>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl File {
    /// `path` may lead over symlinks, as secrets that a container platform mounts do.
    pub fn new(path: &Path, owner: Option<&str>, key: &LocalKey, keys: JsonKeys) -> Self {
        Self { path: path.to_owned(), owner: owner.map(str::to_owned), key: key.clone(), keys, reading: Arc::default() }
    }

    async fn content(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        if self.reading.swap(true, Ordering::AcqRel) {
            let what = "an earlier read has still no answer from its file system";
            return Err(temporary(&self.path, what, "check the mount it lies on"));
        }
        let (path, owner) = (self.path.clone(), self.owner.clone());
        let under_way = Reading(Arc::clone(&self.reading));
        let reading = tokio::task::spawn_blocking(move || {
            let _under_way = under_way;
            read(&path, owner.as_deref())
        });
        match tokio::time::timeout(DEADLINE, reading).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(temporary(&self.path, "reading it was broken off", "nothing to do if it passes")),
            Err(_) => {
                let what = format!("no answer from its file system in {} seconds", DEADLINE.as_secs());
                Err(temporary(&self.path, &what, "check the mount it lies on"))
            }
        }
    }

    /// What a file shows without being understood; the content is wiped when this is known.
    fn seen(&self, content: &[u8]) -> SeenVersion {
        SeenVersion {
            identity: SourceIdentity { arn: format!("file:{}", self.path.display()), created: None },
            id: VersionId { version: self.key.file_version(content), order: None },
        }
    }

    async fn get(&self) -> Result<Fetched, Fault> {
        let content = self.content().await?;
        let SeenVersion { identity, id } = self.seen(&content);
        let payload = payload(&format!("file {}", self.path.display()), &content, &self.keys, Corrected::InTheFile)?;
        Ok(Fetched { identity, id, payload })
    }
}

impl Source for File {
    fn fetch(&self) -> Fetching<'_> {
        Box::pin(self.get())
    }

    fn look(&self) -> Looking<'_> {
        Box::pin(async { Ok(self.seen(&self.content().await?)) })
    }

    fn fetch_version<'a>(&'a self, identity: &'a SourceIdentity, id: &'a VersionId) -> Fetching<'a> {
        Box::pin(async move {
            let about = format!("file {}", self.path.display());
            // Looked at before it is understood: another content need not be a credential.
            let content = self.content().await?;
            let seen = self.seen(&content);
            if (&seen.identity, &seen.id) != (identity, id) {
                return Err(not_given(format!("{about} holds another version than this host uses")));
            }
            let payload = payload(&about, &content, &self.keys, Corrected::InTheFile)?;
            Ok(Fetched { identity: seen.identity, id: seen.id, payload })
        })
    }
}

/// What works, and is not as it should be: who may read it, and what a group may change. For `check`; not a reason to stop.
pub fn doubts(path: &Path, owner: Option<&str>) -> Vec<Finding> {
    let Ok(opened) = open(path, owner) else { return Vec::new() };
    let mut found: Vec<Finding> = opened.doubts.iter().map(Finding::from).collect();
    let mode = opened.file.metadata().map_or(0, |m| m.mode()) & 0o7777;
    if mode & 0o004 != 0 {
        found.push(Finding {
            severity: Severity::Warning,
            line: None,
            file: None,
            what: format!(
                "{} holds a credential and has mode {mode:04o}: every user of this host can read it",
                path.display()
            ),
            fix: format!("chmod o-r {}", path.display()),
        });
    }
    found
}

/// Opens it if nobody could have written it but root, we, and the user that the configuration names.
fn open(path: &Path, owner: Option<&str>) -> Result<trust::Opened, Fault> {
    let uid = match owner {
        None => None,
        Some(name) => Some(trust::user_id(name).ok().flatten().ok_or_else(|| {
            let fix = format!("correct `owner` in [credential.source], or make the user: useradd --system {name}");
            permanent(path, &format!("this host has no user {name:?}, who is to own it"), &fix)
        })?),
    };
    trust::open(path, uid).map_err(|e| match &e {
        HostError::Io { source, .. } => failed(path, source),
        HostError::Untrusted { found, .. } => {
            let words = match found.reason {
                WhyUntrusted::NotTheirs { .. } => "and this host keeps what it has",
                _ => "so it could hold a login of somebody else's choice, and this host keeps what it has",
            };
            let fix = match found.reason {
                WhyUntrusted::Owner { uid } | WhyUntrusted::Listed { uid } => {
                    let owner = trust::user_name(uid).unwrap_or_else(|| uid.to_string());
                    format!(
                        "where user {owner} is the one who is to write it, add the line `owner = \"{owner}\"` below [credential.source]; \
                         else have it written by root: `{}`",
                        e.fix()
                    )
                }
                WhyUntrusted::Others { .. } | WhyUntrusted::NotTheirs { .. } => e.fix(),
            };
            Fault { class: e.class(), ..permanent(path, &format!("{found}, {words}"), &fix) }
        }
        _ => Fault { temporary: e.is_temporary(), ..permanent(path, &e.to_string(), &e.fix()) },
    })
}

fn failed(path: &Path, e: &std::io::Error) -> Fault {
    match e.kind() {
        std::io::ErrorKind::NotFound => permanent(path, "it does not exist", "create it, or correct `path`"),
        std::io::ErrorKind::PermissionDenied => {
            permanent(path, "this user may not read it", "make it readable for the user relaykey runs as, mode 0600")
        }
        _ => temporary(path, &e.to_string(), "check the file system it lies on"),
    }
}

/// Reads the whole file. Opening neither waits for the other end of a FIFO nor touches a device.
fn read(path: &Path, owner: Option<&str>) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let io = |e: std::io::Error| failed(path, &e);
    // Looked at before it is opened: opening a device can do something.
    regular(path, &std::fs::metadata(path).map_err(io)?)?;
    let content = open(path, owner)?.read(path, MAX_PAYLOAD).map_err(|e| match e {
        HostError::TooLarge { .. } => permanent(
            path,
            &format!("it is larger than {MAX_PAYLOAD} bytes"),
            "this is not a credential: correct `path`",
        ),
        HostError::Changed { .. } => temporary(
            path,
            "it was changed while it was read",
            "write it beside and rename it over, so that it is never half",
        ),
        HostError::Io { source, .. } => failed(path, &source),
        e => temporary(path, &e.to_string(), &e.fix()),
    })?;
    if content.is_empty() {
        return Err(bad_payload(format!("file {} is empty", path.display()), Corrected::InTheFile));
    }
    Ok(content)
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), Fault> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(permanent(path, &format!("it is {what}, not a regular file"), "name a regular file in `path`"))
}

fn permanent(path: &Path, what: &str, fix: &str) -> Fault {
    Fault::new(Class::File, format!("file {}: {what}", path.display()), fix)
}

fn temporary(path: &Path, what: &str, fix: &str) -> Fault {
    Fault { temporary: true, ..permanent(path, what, fix) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("relaykey-file-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap()
    }

    fn ask<T>(path: &Path, ask: impl AsyncFnOnce(File) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a run time");
        let answer = runtime.block_on(ask(File::new(path, None, &LocalKey::new([7; 32]), JsonKeys::default())));
        // A read that hangs must not hang the test.
        runtime.shutdown_background();
        answer
    }

    fn fetch(path: &Path) -> Result<Fetched, Fault> {
        ask(path, async |source| source.fetch().await)
    }

    fn look(path: &Path) -> Result<SeenVersion, Fault> {
        ask(path, async |source| source.look().await)
    }

    #[test]
    fn content_is_the_version_and_symlinks_are_followed() {
        let dir = directory();
        let (real, link) = (dir.path().join("..data"), dir.path().join("login"));
        std::fs::write(&real, "AKIAEXAMPLE:pass\n").expect("write");
        symlink(&real, &link).expect("symlink");
        let first = fetch(&link).expect("fetched");
        assert_eq!(first.payload.username(), "AKIAEXAMPLE");
        assert_eq!(first.identity.arn, format!("file:{}", link.display()));
        assert_eq!(first.id.order, None);
        assert_eq!(first.id, fetch(&real).expect("fetched").id);
        std::fs::write(&real, "AKIAEXAMPLE:other\n").expect("write");
        let second = fetch(&link).expect("fetched");
        assert_ne!(first.id, second.id);
        assert_eq!(look(&link).expect("seen"), SeenVersion::from(second), "a look sees what a fetch gets");
    }

    #[test]
    fn what_is_no_credential_file_is_refused_without_waiting() {
        let dir = directory();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("empty"), "").expect("write");
        std::fs::write(at("large"), vec![b'a'; MAX_PAYLOAD + 1]).expect("write");
        std::fs::write(at("odd"), "hunter2").expect("write");
        std::fs::create_dir(at("dir")).expect("mkdir");
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR).expect("mkfifo");
        symlink(at("loop"), at("loop")).expect("symlink");
        let table: &[(PathBuf, &str, bool, &str)] = &[
            (at("none"), "file", false, "does not exist"),
            (at("empty"), "payload", false, "is empty"),
            (at("large"), "file", false, "larger than 65536"),
            (at("odd"), "payload", false, "none of the forms"),
            (at("dir"), "file", false, "a directory"),
            (at("fifo"), "file", false, "a FIFO"),
            ("/dev/zero".into(), "file", false, "a device"),
            (at("loop"), "file", true, "symbolic link"),
        ];
        for (path, class, temporary, what) in table {
            let error = fetch(path).expect_err(&path.display().to_string());
            assert_eq!((error.class.word(), error.temporary), (*class, *temporary), "{error:?}");
            assert!(error.what.contains(what), "{error:?}");
            assert!(!error.fix.is_empty() && !format!("{error:?}").contains("hunter2"), "{error:?}");
            // A look tells the same of everything but the content, which it does not try to understand.
            match look(path) {
                Err(looked) => assert_eq!(looked, error),
                Ok(_) => assert!(path.ends_with("odd"), "{error:?}"),
            }
        }
    }

    #[test]
    fn permissions_that_let_others_in_are_told() {
        let dir = directory();
        let path = dir.path().join("login");
        std::fs::write(&path, "a:b").expect("write");
        for (mode, says) in [(0o600, None), (0o640, None), (0o644, Some("can read it"))] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let told: Vec<String> = doubts(&path, None).into_iter().map(|finding| finding.what).collect();
            assert_eq!(told.len(), usize::from(says.is_some()), "{mode:o}: {told:?}");
            assert!(says.is_none_or(|s| told[0].contains(s)), "{mode:o}: {told:?}");
        }
        assert_eq!(doubts(&dir.path().join("none"), None), []);
    }

    #[tokio::test]
    async fn a_read_that_hangs_is_not_joined_by_others() {
        let dir = directory();
        let path = dir.path().join("login");
        std::fs::write(&path, "user:password").unwrap();
        let file = File::new(&path, None, &LocalKey::new([1; 32]), JsonKeys::default());
        file.reading.store(true, Ordering::Release);
        let e = file.look().await.unwrap_err();
        assert!(e.temporary && e.what.contains("earlier read"), "{e:?}");
        file.reading.store(false, Ordering::Release);
        for _ in 0..3 {
            file.look().await.unwrap();
        }
    }
}
