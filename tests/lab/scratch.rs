//! Directories of a test's own. Their names are random: process ids come round, and tests that are killed leave theirs behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

/// A new directory that only this user may look into, by its canonical path; removed at the end.
pub fn private(name: &str) -> TempDir {
    directory(name, 0o700)
}

/// As [`private`], with this mode whatever the umask.
pub fn directory(name: &str, mode: u32) -> TempDir {
    let place = std::env::temp_dir().canonicalize().expect("the place for temporary files");
    let permissions = fs::Permissions::from_mode(mode);
    let made = tempfile::Builder::new()
        .prefix(&format!("relaykey-{name}-"))
        .permissions(permissions.clone())
        .tempdir_in(place)
        .expect("a fresh directory");
    fs::set_permissions(made.path(), permissions).expect("chmod");
    made
}

/// Files in such a directory.
pub trait Files {
    /// Writes one; gives its path.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf;
}

impl Files for TempDir {
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).expect("written");
        path
    }
}
