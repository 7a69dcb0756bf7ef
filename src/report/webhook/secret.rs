//! The secret that reports are signed with, as Standard Webhooks has it.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::credential::{Login, Redactor, Secret};
use crate::fault::{Class, Fault};
use crate::host::{Directory, trust};

/// The largest file that is read for a secret: the longest one has 95 characters.
const MAX_SECRET_FILE: usize = 4096;
/// Bytes of a secret, from Standard Webhooks, "Signature scheme".
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What reports are signed with.
pub(super) struct SigningSecret {
    pub(super) key: Zeroizing<Vec<u8>>,
    /// For texts from a receiver, which knows the secret and could quote it.
    redactor: Redactor,
}

impl SigningSecret {
    /// Reads the secret. The file is root's (or ours where we are not root) in a directory that nobody else can change,
    /// and nobody else reads it: who knows the secret can sign reports.
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let wrong = |what: String, fix: String| Fault::new(Class::Secret, format!("{}: {what}", path.display()), fix);
        let (directory, name) = Directory::of(path)?;
        let permissions = directory.permissions(&name)?;
        let close = format!("chown root: {0} && chmod 600 {0}", path.display());
        if let Some(found) = permissions {
            let mode = found.mode;
            let group_is_ours = [0, rustix::process::getegid().as_raw()].contains(&found.gid);
            if !found.is_trusted() {
                return Err(wrong(format!("it holds a secret and belongs to user id {}", found.uid), close));
            }
            if mode & 0o037 != 0 || mode & 0o040 != 0 && !group_is_ours {
                return Err(wrong(
                    format!("it holds a secret, and others may read or change it (mode {mode:04o})"),
                    close,
                ));
            }
        }
        let (bytes, _) = directory.read(&name, MAX_SECRET_FILE)?;
        Self::parse(&bytes).map_err(|what| {
            let again = format!(
                "write the secret into it as the receiver gave it, whole: whsec_ and base64; or make a new one, for the receiver \
                 too: (umask 077; echo \"whsec_$(head -c 32 /dev/urandom | base64)\" > {})",
                trust::quoted(path)
            );
            wrong(what, again)
        })
    }

    /// `whsec_` and base64. Says what is wrong without quoting any of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let trimmed = bytes.trim_ascii();
        if trimmed.is_empty() {
            return Err("it is empty".into());
        }
        if let Some(at) = trimmed.iter().position(|b| !b.is_ascii_graphic()) {
            let what = match trimmed[at] {
                0 => "a NUL byte",
                b' ' | b'\t' | b'\r' | b'\n' => "a blank or a line end",
                _ => "a byte that is not printable ASCII",
            };
            return Err(format!("{what} stands at position {} of the secret", at + 1));
        }
        let text = std::str::from_utf8(trimmed).expect("ASCII");
        let Some(encoded) = text.strip_prefix("whsec_") else {
            return Err("what it holds does not begin with whsec_".into());
        };
        // Room for the whole at once: a vector that grows leaves pieces behind.
        let mut key = Zeroizing::new(Vec::with_capacity(encoded.len()));
        BASE64
            .decode_vec(encoded, &mut key)
            .map_err(|_| "what follows whsec_ is not base64, or a part of it is missing".to_owned())?;
        if !SECRET_BYTES.contains(&key.len()) {
            let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            return Err(format!("the secret has {} bytes, and Standard Webhooks has {least} to {most}", key.len()));
        }
        let login = Login::new("webhook".into(), Secret::new(text.to_owned())).expect("printable ASCII");
        Ok(Self { key, redactor: Redactor::new([&login]) })
    }

    /// The header `webhook-signature`: Standard Webhooks, "Signature scheme".
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }

    pub(super) fn hide(&self, text: &str) -> String {
        self.redactor.clean(text)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{HookDirectory, SECRET};
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_other_libraries_make() {
        // Made with the Python library of Standard Webhooks, 1.1.0.
        let secret = SigningSecret::parse(SECRET.as_bytes()).expect("a secret");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_named_without_being_quoted() {
        for good in [24, 32, 64] {
            let text = format!(" whsec_{}\r\n", BASE64.encode(vec![7; good]));
            assert_eq!(SigningSecret::parse(text.as_bytes()).expect("a secret").key.len(), good);
        }
        let long = format!("whsec_{}", BASE64.encode([7; 65]));
        let cases: [(&[u8], &str); 11] = [
            (b"", "is empty"),
            (b" \n\n", "is empty"),
            (b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
            (b"whsec_", "has 0 bytes"),
            (b"whsec_MfKQ9r8GKYqrTwjU", "has 12 bytes"),
            (b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "not base64, or a part of it is missing"),
            (b"whsec_MfKQ9r8G!YqrTwjUPD8ILPZIo2LaLaSw", "not base64"),
            (b"whsec_MfKQ9r8GKYqr\0wjUPD8ILPZIo2LaLaSw", "a NUL byte stands at position 19"),
            (b"whsec_MfKQ9r8GKYqr\nwjUPD8ILPZIo2LaLaSw", "a blank or a line end"),
            (b"whsec_MfKQ9r8GKYqr\xffwjUPD8ILPZIo2LaLaSw", "not printable ASCII"),
            (long.as_bytes(), "has 65 bytes"),
        ];
        for (bytes, expected) in cases {
            let Err(what) = SigningSecret::parse(bytes) else { panic!("{expected}") };
            assert!(what.contains(expected) && !what.contains("MfKQ9r8G"), "{what}");
        }
    }

    #[test]
    fn a_secret_file_is_for_root_alone() {
        let dir = HookDirectory::new();
        let line = format!("{SECRET}\n");
        for mode in [0o600, 0o640, 0o400] {
            let path = dir.file("good", line.as_bytes(), mode);
            // A temporary directory may hand its group on, which is then not ours.
            std::os::unix::fs::chown(&path, None, Some(rustix::process::getegid().as_raw())).expect("chown");
            assert!(SigningSecret::read(&path).is_ok(), "{mode:o}");
        }
        let open = dir.0.path().join("open");
        std::fs::create_dir(&open).expect("a directory");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).expect("chmod");
        dir.file("open/secret", line.as_bytes(), 0o600);
        let fifo = dir.0.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("a FIFO");
        for (path, class, what) in [
            (dir.file("others", line.as_bytes(), 0o644), "secret", "mode 0644"),
            (dir.file("write", line.as_bytes(), 0o620), "secret", "mode 0620"),
            (dir.file("empty", b"", 0o600), "secret", "is empty"),
            (dir.file("large", &vec![b'a'; 10_000_000], 0o600), "too-large", "10000000 bytes"),
            (dir.0.path().to_owned(), "unsupported", "a directory"),
            (fifo, "unsupported", "a FIFO"),
            ("/dev/zero".into(), "unsupported", "a device"),
            (open.join("secret"), "permissions", "may be changed by others"),
            (dir.0.path().join("none"), "io", "No such file"),
        ] {
            let Err(e) = SigningSecret::read(&path) else { panic!("{what}") };
            assert_eq!((e.class.word(), e.temporary), (class, false), "{e:?}");
            assert!(e.what.contains(what) && !e.fix.is_empty() && !format!("{e:?}").contains("MfKQ"), "{e:?}");
            assert!(e.what.contains(&*path.to_string_lossy()), "{e:?}");
        }
        if rustix::process::geteuid().is_root() {
            let path = dir.file("stranger", line.as_bytes(), 0o600);
            std::os::unix::fs::chown(&path, Some(65534), None).expect("chown");
            let Err(e) = SigningSecret::read(&path) else { panic!("a stranger's") };
            assert!(e.class == Class::Secret && e.what.contains("user id 65534"), "{e:?}");
            let path = dir.file("group", line.as_bytes(), 0o640);
            std::os::unix::fs::chown(&path, None, Some(65534)).expect("chown");
            assert!(SigningSecret::read(&path).is_err(), "readable for a group that is not root's");
        }
    }
}
