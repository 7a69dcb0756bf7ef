//! Whom outgoing TLS trusts: the certificates of a `ca_file`, or the system's.
//!
//! Bundles are read and validated here, once, for SMTP and for the AWS client alike. The AWS client panics when it is
//! handed a broken PEM, and the usual loader reads every file of the system's certificate directory each time, so
//! neither is left to them.
//!
//! A `ca_file` is taken at its word: whatever in it is not usable is an error that names the line. The system's bundle
//! is nobody's single decision, and one odd certificate in it must not stop a host's rollovers: such ones are left
//! out and listed by [`Roots::skipped`]. Lines that are not part of a certificate (comments, as bundles have them) and
//! PEM sections of other kinds are passed over; a private key never is.

use std::collections::HashSet;
use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use crate::host::{HostError, trust};

/// The largest bundle that is read, in bytes. Distributions ship about a quarter of a megabyte.
pub const MAX_BUNDLE: u64 = 4 * 1024 * 1024;

/// Where distributions keep their bundle, in the order of search: Debian, Alpine and Gentoo; Red Hat and Amazon Linux;
/// SUSE; BSD and macOS; older Red Hat.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/cacert.pem",
];

/// Where distributions keep single certificates.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// A file whose status changed less than this long before it was read is read again next time: file systems stamp
/// times in ticks, and a second change within one tick leaves the stamp as it was.
const SETTLED: Duration = Duration::from_secs(2);

/// Makes the TLS library ready for its first connection, on a thread of its own. For its first random numbers AWS-LC
/// gathers CPU jitter, which is 20 ms of computing in every process; meanwhile the mail server can be looked at. Who needs
/// them sooner waits as without this.
pub fn warm_up() {
    let gather = || {
        let mut byte = [0];
        // What fails here fails again, with somebody to tell it to, at the first connection.
        let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut byte);
    };
    let _ = std::thread::Builder::new().name("tls-warm-up".into()).spawn(gather);
}

/// Certificates that are trusted as issuers; at least one, each known to parse as a trust anchor. Cheap to clone.
#[derive(Clone)]
pub struct Roots {
    certificates: Arc<[CertificateDer<'static>]>,
    skipped: Arc<[TrustError]>,
}

impl Roots {
    /// The system's: the file that `SSL_CERT_FILE` names if it is set, else the first bundle found where distributions
    /// keep theirs, else what the platform's own means find.
    ///
    /// # Errors
    /// There is no bundle, or it cannot be read, or it has no usable certificate, or it has a private key.
    pub fn system() -> Result<Self, TrustError> {
        match system_bundle(std::env::var_os("SSL_CERT_FILE"), &SYSTEM_BUNDLES) {
            Some(path) => Self::parse(&path, &read(&path, &open(&path)?)?, Strictness::Lenient),
            None => Self::native(),
        }
    }

    /// Exactly the certificates of one PEM file, such as a `ca_file`.
    ///
    /// # Errors
    /// The file cannot be read, is larger than [`MAX_BUNDLE`], is no PEM, or has anything unusable in it.
    pub fn from_file(path: &Path) -> Result<Self, TrustError> {
        Self::parse(path, &read(path, &open(path)?)?, Strictness::Strict)
    }

    fn native() -> Result<Self, TrustError> {
        let named = std::env::var_os("SSL_CERT_DIR").unwrap_or_default();
        let named: Vec<PathBuf> = std::env::split_paths(&named).filter(|dir| !dir.as_os_str().is_empty()).collect();
        if !named.is_empty() {
            return Self::from_directories(&named);
        }
        let usual = SYSTEM_DIRECTORIES.map(PathBuf::from);
        match Self::from_directories(&usual) {
            Err(TrustError::NoSystemRoots { .. }) => {}
            found => return found,
        }
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let certificates: Vec<_> = found.certs.into_iter().filter(|c| store.add(c.clone()).is_ok()).collect();
        if certificates.is_empty() {
            let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
            return Err(TrustError::NoSystemRoots { reason });
        }
        Ok(Self { certificates: certificates.into(), skipped: Arc::new([]) })
    }

    /// Every certificate of every file in directories as `openssl rehash` makes them. Of a file it is the descriptor that is
    /// judged and read; one that others could have written ends it, and in one without certificates there is nothing to find.
    fn from_directories(directories: &[PathBuf]) -> Result<Self, TrustError> {
        let (mut certificates, mut seen) = (Vec::new(), HashSet::new());
        for directory in directories {
            // One that does not exist has nothing.
            let Some(_) = trust::look(directory).map_err(|source| TrustError::Untrusted { source })? else { continue };
            let io = |source| TrustError::Io { path: directory.clone(), source };
            for entry in std::fs::read_dir(directory).map_err(io)? {
                let path = entry.map_err(io)?.path();
                // A link that leads nowhere; a directory.
                if !std::fs::metadata(&path).is_ok_and(|found| found.is_file()) {
                    continue;
                }
                let file = open(&path)?;
                let id = file.metadata().map(|m| (m.dev(), m.ino())).map_err(io)?;
                // The same under another name, as a rule.
                if !seen.insert(id) {
                    continue;
                }
                let parsed = read(&path, &file).and_then(|bytes| Self::parse(&path, &bytes, Strictness::Lenient));
                certificates.extend(parsed.iter().flat_map(|found| found.certificates.iter().cloned()));
            }
        }
        if certificates.is_empty() {
            return Err(TrustError::NoSystemRoots { reason: "none found".to_owned() });
        }
        certificates.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        certificates.dedup();
        Ok(Self { certificates: certificates.into(), skipped: Arc::new([]) })
    }

    fn parse(path: &Path, bytes: &[u8], strictness: Strictness) -> Result<Self, TrustError> {
        let path = || path.to_owned();
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(TrustError::Empty { path: path() });
        }
        let mut store = RootCertStore::empty();
        let (mut certificates, mut skipped) = (Vec::new(), Vec::new());
        for section in sections(bytes) {
            let bad = |reason| TrustError::BadCertificate { path: path(), line: section.line, reason };
            if section.label.contains("PRIVATE KEY") {
                return Err(TrustError::PrivateKey { path: path(), line: section.line });
            }
            let usable = match section.label.as_str() {
                "CERTIFICATE" => CertificateDer::from_pem_slice(section.text)
                    .map_err(|e| bad(pem_reason(&e)))
                    .and_then(|der| store.add(der.clone()).map(|()| der).map_err(|e| bad(e.to_string()))),
                "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => {
                    Err(bad(format!("it is a {:?}, a form that only OpenSSL reads", section.label)))
                }
                _ => continue,
            };
            match (usable, strictness) {
                (Ok(certificate), _) => certificates.push(certificate),
                (Err(error), Strictness::Lenient) => skipped.push(error),
                (Err(error), Strictness::Strict) => return Err(error),
            }
        }
        if certificates.is_empty() {
            // In a bundle in which nothing can be used, the first reason says more than "nothing".
            return Err(skipped.into_iter().next().unwrap_or_else(|| match bytes.first() {
                // DER begins with a SEQUENCE tag whose length takes two bytes (X.690, 8.1 and 8.9).
                Some(0x30) if bytes.get(1) == Some(&0x82) => TrustError::Der { path: path() },
                _ => TrustError::NoCertificate { path: path() },
            }));
        }
        Ok(Self { certificates: certificates.into(), skipped: skipped.into() })
    }

    /// How many certificates there are: at least one.
    pub fn count(&self) -> usize {
        self.certificates.len()
    }

    /// What was left out of the system's bundle, and why.
    pub fn skipped(&self) -> &[TrustError] {
        &self.skipped
    }

    /// The certificates as PEM, encoded anew from what was validated; for the AWS client's trust store.
    pub fn pem(&self) -> Vec<u8> {
        let mut pem = Vec::new();
        for certificate in self.certificates.iter() {
            pem.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
            // RFC 7468, section 2: lines of 64 characters.
            for line in BASE64.encode(certificate).as_bytes().chunks(64) {
                pem.extend_from_slice(line);
                pem.push(b'\n');
            }
            pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
        }
        pem
    }

    /// A client configuration that trusts these certificates and no others: TLS 1.2 and 1.3, aws-lc, post-quantum key exchange first.
    pub fn client_config(&self) -> ClientConfig {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.certificates.iter().cloned());
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("aws-lc has cipher suites for TLS 1.2 and 1.3")
            .with_root_certificates(store)
            .with_no_client_auth()
    }
}

/// Two are equal when they trust the same certificates in the same order: whoever built a client from one knows by it
/// when to build another.
impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.certificates, &other.certificates) || self.certificates == other.certificates
    }
}
impl Eq for Roots {}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} certificates, {} skipped)", self.count(), self.skipped.len())
    }
}

#[derive(Clone, Copy)]
enum Strictness {
    Strict,
    Lenient,
}

/// One PEM section: the label of its first line (RFC 7468), that line's number, and the text up to the next section.
struct PemSection<'a> {
    label: String,
    line: usize,
    text: &'a [u8],
}

fn sections(bytes: &[u8]) -> Vec<PemSection<'_>> {
    let mut starts: Vec<(usize, usize, String)> = Vec::new();
    let mut offset = 0;
    for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let label = line.trim_ascii().strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----"));
        if let Some(label) = label {
            starts.push((index + 1, offset, String::from_utf8_lossy(label).into_owned()));
        }
        offset += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).map(|(_, offset, _)| *offset).chain([bytes.len()]).collect();
    let section = |((line, start, label), end): ((usize, usize, String), usize)| PemSection {
        label,
        line,
        text: &bytes[start..end],
    };
    starts.into_iter().zip(ends).map(section).collect()
}

/// Words without the file's content, which rustls's own would quote.
fn pem_reason(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "its -----END CERTIFICATE----- line is missing".into(),
        Error::Base64Decode(_) => "what stands between its BEGIN and END lines is not base64".into(),
        _ => "it cannot be read as PEM".into(),
    }
}

/// The bundle of the system, if there is one: the environment's word, even when that file is not there, goes first.
fn system_bundle(environment: Option<OsString>, candidates: &[&str]) -> Option<PathBuf> {
    let found = || candidates.iter().map(PathBuf::from).find(|path| path.exists());
    environment.filter(|name| !name.is_empty()).map(PathBuf::from).or_else(found)
}

fn open(path: &Path) -> Result<File, TrustError> {
    let opened = trust::open(path, None).map_err(|e| match e {
        HostError::Io { source, .. } => TrustError::Io { path: path.to_owned(), source },
        HostError::NotRegular { .. } => TrustError::NotAFile { path: path.to_owned(), directory: path.is_dir() },
        source => TrustError::Untrusted { source },
    })?;
    Ok(opened.file)
}

/// What of the certificates' file a group may change; `None` in `path`: of the system's.
pub fn doubts(path: Option<&Path>) -> Vec<trust::Doubt> {
    let path = path.map(Path::to_owned).or_else(|| system_bundle(std::env::var_os("SSL_CERT_FILE"), &SYSTEM_BUNDLES));
    path.and_then(|path| trust::open(&path, None).ok()).map(|opened| opened.doubts).unwrap_or_default()
}

fn read(path: &Path, file: &File) -> Result<Vec<u8>, TrustError> {
    let mut bytes = Vec::new();
    file.take(MAX_BUNDLE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| TrustError::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_BUNDLE {
        return Err(TrustError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// What tells whether a file is still the one that was read: device, inode, size, and both times to the nanosecond.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl FileStamp {
    fn of(m: &Metadata) -> Self {
        Self {
            dev: m.dev(),
            ino: m.ino(),
            size: m.size(),
            mtime: (m.mtime(), m.mtime_nsec()),
            ctime: (m.ctime(), m.ctime_nsec()),
        }
    }

    fn settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.ctime.0).unwrap_or(0);
        now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(changed)).is_ok_and(|age| age > SETTLED)
    }
}

/// The certificates of one `ca_file` or of the system, kept until the file changes.
#[derive(Default)]
pub struct CaFile {
    path: Option<PathBuf>,
    kept: Option<(PathBuf, FileStamp, Roots)>,
}

impl CaFile {
    /// For the file that the configuration names, or for the system's certificates where it names none.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, kept: None }
    }

    /// The certificates as they are now. Costs one `stat` while the file stays as it was. An error keeps nothing: a
    /// broken file is not trusted for what it was before.
    ///
    /// # Errors
    /// As [`Roots::from_file`] and [`Roots::system`].
    pub fn roots(&mut self) -> Result<Roots, TrustError> {
        let (path, strictness) = match &self.path {
            Some(path) => (path.clone(), Strictness::Strict),
            None => match system_bundle(std::env::var_os("SSL_CERT_FILE"), &SYSTEM_BUNDLES) {
                Some(path) => (path, Strictness::Lenient),
                None => return Roots::native(),
            },
        };
        let kept = self.kept.take();
        let now = SystemTime::now();
        let file = open(&path)?;
        let stamp = FileStamp::of(&file.metadata().map_err(|source| TrustError::Io { path: path.clone(), source })?);
        let roots = match kept {
            Some((kept_path, kept_stamp, roots)) if kept_path == path && kept_stamp == stamp => roots,
            _ => Roots::parse(&path, &read(&path, &file)?, strictness)?,
        };
        if stamp.settled(now) {
            self.kept = Some((path, stamp, roots.clone()));
        }
        Ok(roots)
    }
}

/// Is it a name of Amazon's own? Nobody else can have a certificate for it.
pub fn is_amazons(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".api.amazonwebservices.com.cn"]
        .iter()
        .any(|suffix| host.ends_with(suffix))
}

/// What it means that a server's certificate was refused, and what to do. `name` is the name that the server was reached
/// under, `setting` the key of the configuration that holds it, `ca_file` the bundle that alone is trusted, where one is set for
/// an endpoint.
///
/// A certificate of another name or of an unknown CA may be that of somebody in between: first it is to be found out who
/// answers, and what to trust or to ask instead is said for a server alone that is known to be one's own.
pub fn explain(problem: &CertificateError, name: &str, setting: &str, ca_file: Option<&Path>) -> (String, String) {
    let at = |t: &UnixTime| {
        i64::try_from(t.as_secs())
            .ok()
            .and_then(|s| jiff::Timestamp::from_second(s).ok())
            .map_or_else(|| "an unknown time".to_owned(), |t| t.to_string())
    };
    let renew = "renew the server's certificate; or set this host's clock, if that is wrong";
    let who = format!(
        "find out who answers under {name}: look at DNS and /etc/hosts, and for a proxy, a firewall or somebody else who intercepts \
         TLS on the way"
    );
    let unless_own = |own: &str| match is_amazons(name) {
        true => format!(
            "{who}; Amazon's own servers have certificates of public CAs for this name, so leave the configuration as it is"
        ),
        false => format!("{who}; only if the server is known to be yours, {own}"),
    };
    let rename = || unless_own(&format!("set `{setting}` to the name that it should have"));
    // Such a one, too, may be of somebody in between.
    let replace = unless_own("have the certificate replaced");
    if let (CertificateError::UnknownIssuer, Some(ca_file)) = (problem, ca_file)
        && is_amazons(name)
    {
        // No CA of this host counts beside it.
        return (
            format!(
                "{UNKNOWN_ISSUER}: `ca_file` is set, so that nothing is trusted but what is in {}",
                ca_file.display()
            ),
            format!(
                "take `ca_file` = {:?} out of the configuration, as Amazon's own servers have certificates of public CAs; where a \
                 proxy that is known to be yours answers in their name, put its CA's certificate into that file",
                ca_file.display().to_string()
            ),
        );
    }
    match problem {
        CertificateError::ExpiredContext { not_after, .. } => {
            (format!("its certificate expired on {}", at(not_after)), renew.to_owned())
        }
        CertificateError::Expired => ("its certificate has expired".into(), renew.into()),
        CertificateError::NotValidYetContext { not_before, .. } => (
            format!("its certificate is not valid before {}", at(not_before)),
            "set this host's clock; or wait, if it is right".into(),
        ),
        CertificateError::UnknownIssuer => (
            UNKNOWN_ISSUER.into(),
            unless_own("set `ca_file` to the certificate of the CA that issued it, as that CA itself gives it out"),
        ),
        CertificateError::BadSignature => (
            "its certificate was not signed by the CA that it names (bad signature)".into(),
            unless_own(
                "put its CA's present certificate into `ca_file`: it has the name of one there, but another key",
            ),
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            (format!("its certificate is not for the name {name:?} but for {}", names(presented)), rename())
        }
        CertificateError::NotValidForName => (format!("its certificate is not for the name {name:?}"), rename()),
        CertificateError::Revoked => ("its certificate was revoked by the CA that issued it".into(), replace),
        CertificateError::BadEncoding => ("its certificate cannot be read".into(), replace),
        CertificateError::UnhandledCriticalExtension => {
            ("its certificate demands that something be checked which is not known here".into(), replace)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ("its certificate was not issued for a server".into(), replace)
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            ("its certificate is signed in a way that is not taken any more, or not yet".into(), replace)
        }
        CertificateError::Other(other) => {
            (format!("its certificate is not good: {}", spelled(&other.to_string())), replace)
        }
        other => (format!("its certificate is not good: {}", spelled(&other.to_string())), replace),
    }
}

const UNKNOWN_ISSUER: &str = "its certificate was issued by nobody that this host trusts (unknown issuer)";

/// The names that a certificate has, for a sentence. Of them the TLS library says no more than a text each, with the kind
/// before it.
fn names(presented: &[String]) -> String {
    let of = |kind: &str, name: &str| Some(name.strip_prefix(kind)?.strip_suffix(')')?.trim_matches('"').to_owned());
    let all: Vec<String> =
        presented.iter().filter_map(|name| of("DnsName(", name).or_else(|| of("IpAddress(", name))).collect();
    let shown = all.iter().take(5).map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "no name of a host at all".into(),
        1..=5 => shown,
        more => format!("{shown} and {} more", more - 5),
    }
}

/// Why TLS failed, where it is neither a certificate nor something that is no TLS: words for "TLS failed: …".
pub fn failed(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, PeerIncompatible};
    match error {
        rustls::Error::AlertReceived(AlertDescription::Unknown(number)) => {
            format!("the other side broke it off (alert {number})")
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the other side broke it off: {} (alert {})", spelled(&format!("{alert:?}")), u8::from(*alert))
        }
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the other side speaks neither TLS 1.2 nor TLS 1.3".into()
        }
        rustls::Error::PeerIncompatible(why) => {
            format!("the two sides have too little in common: {}", spelled(&format!("{why:?}")))
        }
        rustls::Error::PeerMisbehaved(why) => {
            format!("the other side breaks the rules of TLS: {}", spelled(&format!("{why:?}")))
        }
        rustls::Error::InappropriateMessage { .. } | rustls::Error::InappropriateHandshakeMessage { .. } => {
            "the other side sent something that has no place there".into()
        }
        rustls::Error::InvalidMessage(_) => "what the other side sends is not TLS".into(),
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }) => {
            format!("its certificate is not for the name {:?} but for {}", expected.to_str(), names(presented))
        }
        rustls::Error::InvalidCertificate(problem) => explain(problem, "that was asked for", "", None).0,
        other => other.to_string(),
    }
}

/// `NoCipherSuitesInCommon`, as the TLS library calls it, in words: `no cipher suites in common`.
fn spelled(name: &str) -> String {
    let mut words = String::new();
    let mut before = ' ';
    for c in name.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
        before = c;
    }
    words
}

/// The first error of type `T` on the way down the sources: what TLS says is found below what its user makes of it.
pub fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An io::Error that wraps another has that one's source, not that one, as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        next = match wrapped {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Why there is nothing to trust. `Display` says what is wrong and where, [`TrustError::fix`] what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read the CA certificates in {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} should hold CA certificates but is {}", path.display(), if *directory { "a directory" } else { "not a regular file" })]
    NotAFile { path: PathBuf, directory: bool },
    #[error("the CA certificates are not taken: {source}")]
    Untrusted { source: HostError },
    #[error("{} is larger than {MAX_BUNDLE} bytes: that is no bundle of CA certificates", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is empty: it should hold CA certificates", path.display())]
    Empty { path: PathBuf },
    #[error("{} holds no PEM certificate: no line says -----BEGIN CERTIFICATE-----", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} is a certificate in binary (DER) form, and PEM is expected", path.display())]
    Der { path: PathBuf },
    #[error("{}:{line}: the certificate that begins here cannot be used: {reason}", path.display())]
    BadCertificate { path: PathBuf, line: usize, reason: String },
    #[error("{}:{line}: a private key stands in this file of CA certificates", path.display())]
    PrivateKey { path: PathBuf, line: usize },
    #[error("this system has no CA certificates that can be used: {reason}")]
    NoSystemRoots { reason: String },
}

impl TrustError {
    /// What a person should do.
    pub fn fix(&self) -> String {
        match self {
            TrustError::Io { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("make {} readable for the user that relaykey runs as", path.display())
            }
            TrustError::Untrusted { source } => source.fix(),
            TrustError::Io { .. } => "correct `ca_file` (or SSL_CERT_FILE), or put the file there".into(),
            TrustError::NotAFile { .. } => "name one PEM file: `cat` the certificates of a directory into it".into(),
            TrustError::TooLarge { .. } => "name a file with the issuing CA's certificates only".into(),
            TrustError::Empty { .. } | TrustError::NoCertificate { .. } => {
                "put the issuing CA's certificate into it as PEM, or name another file".into()
            }
            TrustError::Der { path } => {
                format!("convert it: openssl x509 -inform der -in {} -out ca.pem", path.display())
            }
            TrustError::BadCertificate { .. } => "replace that certificate by a good copy, or delete it".into(),
            TrustError::PrivateKey { .. } => {
                "take the key out of it, and replace the key if others could read this file".into()
            }
            TrustError::NoSystemRoots { .. } => {
                "install the system's CA certificates (package ca-certificates), or set `ca_file`".into()
            }
        }
    }

    /// Can trying again help without anybody doing anything? Only where the system was short of something.
    pub fn is_temporary(&self) -> bool {
        use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
        matches!(self, TrustError::Io { source, .. }
            if !matches!(source.kind(), NotFound | PermissionDenied | NotADirectory | IsADirectory | InvalidInput))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of its own, 0700, gone at the end.
    fn directory() -> tempfile::TempDir {
        tempfile::Builder::new()
            .prefix("relaykey-tls-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap()
    }

    fn written(dir: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("write");
        path
    }

    /// Whoever has a good certificate for another name may be in between: following the advice must not lead to them.
    #[test]
    fn no_advice_leads_to_whoever_answers_in_a_servers_place() {
        use rustls::pki_types::ServerName;
        let misnamed = |name: &str| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from(name.to_owned()).expect("a name"),
            presented: vec!["DnsName(\"evil.example\")".into()],
        };
        for (name, setting) in [
            ("email-smtp.eu-west-1.amazonaws.com", "endpoint"),
            ("vpce-1.email-smtp.eu-west-1.vpce.amazonaws.com", "endpoint"),
            ("EMAIL-SMTP.cn-north-1.amazonaws.com.cn.", "endpoint"),
        ] {
            for problem in [
                misnamed(name.trim_end_matches('.')),
                CertificateError::NotValidForName,
                CertificateError::UnknownIssuer,
                CertificateError::BadSignature,
                CertificateError::BadEncoding,
                CertificateError::InvalidPurpose,
                // As a certificate authority's own is refused in the place of a server's.
                CertificateError::Other(rustls::OtherError(std::sync::Arc::new(std::io::Error::other(
                    "CaUsedAsEndEntity",
                )))),
            ] {
                let (words, fix) = explain(&problem, name, setting, None);
                assert!(fix.starts_with("find out who answers"), "{words}: {fix}");
                assert!(!fix.contains("set `") && !fix.contains("put "), "{words}: {fix}");
            }
        }
        for (name, setting) in [("relay.example.com", "endpoint"), ("hooks.example.com", "url")] {
            for problem in [
                misnamed(name),
                CertificateError::UnknownIssuer,
                CertificateError::BadSignature,
                CertificateError::InvalidPurpose,
            ] {
                let (words, fix) = explain(&problem, name, setting, None);
                assert!(fix.starts_with("find out who answers"), "{words}: {fix}");
                let own = fix.find("only if the server is known to be yours").expect(&fix);
                assert!(!fix[..own].contains('`'), "{words}: {fix}");
            }
        }
    }

    fn certificate(name: &str) -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).expect("certificate")
    }

    #[test]
    fn no_file_of_others_in_a_directory_of_certificates_is_believed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let scratch = directory();
        let directories = [scratch.path().to_owned(), scratch.path().join("none")];
        let found = || Roots::from_directories(&directories).map(|roots| roots.certificates.len());
        assert!(matches!(found(), Err(TrustError::NoSystemRoots { .. })));
        written(&scratch, "one.pem", certificate("one.example").pem());
        let two = written(&scratch, "two.pem", certificate("two.example").pem());
        symlink("one.pem", scratch.path().join("8d33f237.0")).expect("link");
        symlink("gone.pem", scratch.path().join("0d33f237.0")).expect("link");
        std::fs::create_dir(scratch.path().join("below")).expect("mkdir");
        written(&scratch, "README", "no certificate");
        assert_eq!(found().expect("read"), 2);
        std::fs::set_permissions(&two, std::fs::Permissions::from_mode(0o666)).expect("chmod");
        let e = found().expect_err("everybody may write it");
        assert!(matches!(e, TrustError::Untrusted { .. }), "{e}");
        assert!(e.fix().contains("chmod go-w") && e.fix().contains("two.pem"), "{}", e.fix());
    }

    #[test]
    fn what_tls_says_is_told_in_words() {
        use rustls::{AlertDescription, Error, PeerIncompatible, PeerMisbehaved};
        let wrong_name = |presented: &[&str]| {
            let expected = rustls::pki_types::ServerName::try_from("mx.example.com").expect("a name");
            let presented = presented.iter().map(|name| (*name).to_owned()).collect();
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })
        };
        let many = ["DnsName(\"a.example\")"; 7];
        let table: [(Error, &str); 10] = [
            (
                wrong_name(&["DnsName(\"smtp.example.com\")"]),
                "not for the name \"mx.example.com\" but for smtp.example.com",
            ),
            (
                wrong_name(&["DnsName(\"*.a.example\")", "IpAddress(192.0.2.1)", "DirectoryName", "Unsupported(0x82)"]),
                "but for *.a.example, 192.0.2.1",
            ),
            (wrong_name(&[]), "but for no name of a host at all"),
            (wrong_name(&["UniformResourceIdentifier(\"http://a\")"]), "but for no name of a host at all"),
            (wrong_name(&many), "but for a.example, a.example, a.example, a.example, a.example and 2 more"),
            (CertificateError::Revoked.into(), "its certificate was revoked by the CA that issued it"),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), "broke it off: handshake failure (alert 40)"),
            (Error::AlertReceived(AlertDescription::Unknown(200)), "broke it off (alert 200)"),
            (PeerIncompatible::NoCipherSuitesInCommon.into(), "too little in common: no cipher suites in common"),
            (
                PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into(),
                "rules of TLS: illegal middlebox change cipher spec",
            ),
        ];
        for (error, expected) in table {
            let words = failed(&error);
            assert!(words.ends_with(expected), "{error:?}: {words}");
        }
    }

    #[test]
    fn a_bundle_is_taken_as_it_should_be() {
        let (a, b) = (certificate("a.example"), certificate("b.example"));
        let scratch = directory();
        let text = format!("# A\n{}\n\n# B\r\n{}", a.pem(), b.pem().replace('\n', "\r\n"));
        let roots = Roots::from_file(&written(&scratch, "two.pem", text)).expect("two certificates");
        assert_eq!(roots.count(), 2);
        let again = Roots::from_file(&written(&scratch, "again.pem", roots.pem())).expect("our own PEM");
        assert_eq!(again, roots);
        let other = Roots::from_file(&written(&scratch, "one.pem", a.pem())).expect("one certificate");
        assert_ne!(other, roots);
        let first = roots.client_config().crypto_provider().kx_groups.first().map(|group| group.name());
        assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn what_is_no_bundle_is_named_for_what_it_is() {
        let good = certificate("a.example").pem();
        let der = certificate("a.example").der().to_vec();
        let key = rcgen::KeyPair::generate().expect("key").serialize_pem();
        let cut = good.replace("-----END CERTIFICATE-----", "");
        let not_base64 = good.replacen("MII", "M!!", 1);
        let truncated = good.replacen("MII", "MIIM", 1);
        let only_openssl = good.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        let table: [(&str, Vec<u8>, &str); 10] = [
            ("empty", Vec::new(), "is empty"),
            ("blank", b" \n\n".to_vec(), "is empty"),
            ("large", vec![b'x'; 10_000_000], "is larger than 4194304 bytes"),
            ("text", b"hello\n".to_vec(), "holds no PEM certificate"),
            ("der", der, "binary (DER)"),
            ("key", format!("{good}{key}").into_bytes(), "a private key stands in this file"),
            ("cut", format!("{good}\n{cut}").into_bytes(), "END CERTIFICATE----- line is missing"),
            ("not-base64", not_base64.into_bytes(), "not base64"),
            ("truncated", truncated.into_bytes(), ":1: the certificate that begins here cannot be used"),
            ("openssl", only_openssl.into_bytes(), "a form that only OpenSSL reads"),
        ];
        let scratch = directory();
        for (name, content, expected) in table {
            let path = written(&scratch, name, content);
            let error = Roots::from_file(&path).expect_err(name);
            let words = error.to_string();
            assert!(words.contains(expected), "{name}: {words}");
            assert!(words.starts_with(path.to_str().expect("UTF-8")), "{name}: {words}");
            assert!(!error.fix().is_empty() && !error.is_temporary(), "{name}");
        }
        let error = Roots::from_file(scratch.path()).expect_err("directory");
        assert!(error.to_string().contains("is a directory"), "{error}");
        let error = Roots::from_file(&scratch.path().join("missing")).expect_err("missing");
        assert!(error.to_string().contains("No such file"), "{error}");
        assert!(!error.is_temporary());
    }

    #[test]
    fn an_error_names_the_line() {
        let good = certificate("a.example").pem();
        let scratch = directory();
        let path = written(&scratch, "ca.pem", format!("{good}# second\n{}", good.replacen("MII", "M!!", 1)));
        let Err(TrustError::BadCertificate { line, .. }) = Roots::from_file(&path) else { panic!("should be refused") };
        assert_eq!(line, good.lines().count() + 2);
    }

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let scratch = directory();
        let path = scratch.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("fifo");
        let error = Roots::from_file(&path).expect_err("fifo");
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn one_odd_certificate_does_not_spoil_the_systems_bundle() {
        let good = certificate("a.example").pem();
        let text = format!("{good}{}", good.replacen("MII", "MIIM", 1));
        let roots = Roots::parse(Path::new("/bundle"), text.as_bytes(), Strictness::Lenient).expect("one is good");
        assert_eq!((roots.count(), roots.skipped().len()), (1, 1));
        let bad = good.replacen("MII", "MIIM", 1);
        Roots::parse(Path::new("/bundle"), bad.as_bytes(), Strictness::Lenient).expect_err("none is good");
    }

    #[test]
    fn the_environment_chooses_the_systems_bundle() {
        let scratch = directory();
        let here = written(&scratch, "here.pem", "");
        let here = here.to_str().expect("UTF-8");
        let table = [
            (None, vec!["/nonexistent/a", here], Some(here)),
            (Some(""), vec![here], Some(here)),
            (Some("/nonexistent/b"), vec![here], Some("/nonexistent/b")),
            (None, vec!["/nonexistent/a"], None),
        ];
        for (environment, candidates, expected) in table {
            let got = system_bundle(environment.map(OsString::from), &candidates);
            assert_eq!(got, expected.map(PathBuf::from), "{environment:?} {candidates:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_not_trusted() {
        let scratch = directory();
        let (a, b) = (certificate("a.example").pem(), certificate("b.example").pem());
        let path = written(&scratch, "ca.pem", &a);
        let mut file = CaFile::new(Some(path.clone()));
        let first = file.roots().expect("first");
        assert_eq!(file.roots().expect("unchanged"), first);
        std::fs::write(&path, &b).expect("write");
        assert_ne!(file.roots().expect("changed in place at once"), first);
        std::fs::write(&path, "broken").expect("write");
        file.roots().expect_err("broken");
        let new = written(&scratch, "new.pem", &a);
        std::fs::rename(new, &path).expect("rename");
        assert_eq!(file.roots().expect("replaced"), first);
    }

    #[test]
    fn an_unchanged_file_is_not_parsed_again() {
        // The system's was installed long ago, so its stamp is settled; a host without one has nothing to show.
        if !system_bundle(std::env::var_os("SSL_CERT_FILE"), &SYSTEM_BUNDLES).is_some_and(|path| path.exists()) {
            return;
        }
        let mut file = CaFile::new(None);
        let (first, second) = (file.roots().expect("bundle"), file.roots().expect("bundle"));
        assert!(Arc::ptr_eq(&first.certificates, &second.certificates));
    }

    #[test]
    fn a_stamp_settles() {
        let stamp = FileStamp { dev: 1, ino: 1, size: 1, mtime: (100, 0), ctime: (100, 0) };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!([99, 100, 102, 103].map(|s| stamp.settled(at(s))), [false, false, false, true]);
    }

    #[test]
    fn a_cause_is_found_inside_an_io_error() {
        let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let outer = io::Error::other(inner);
        assert_eq!(cause::<rustls::Error>(&outer), Some(&rustls::Error::DecryptError));
        assert!(cause::<rustls::Error>(&io::Error::other("else")).is_none());
    }
}
