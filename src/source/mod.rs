//! Sources: where versions of a credential come from.
//!
//! [`open`] gives the [`Source`] that a credential's configuration names. [`Source::look`] tells which version counts now
//! with one request and, where that is possible, without the credential itself; [`Source::fetch`] reads it. A source only
//! reads. What an answer means for the host (is it new, may it be taken) is decided
//! elsewhere; an answer with nothing in it is an error here, so that it changes nothing.

pub mod file;
mod form;
pub mod parameter_store;
pub mod secrets_manager;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_secretsmanager::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_secretsmanager::error::BoxError;

use crate::aws::Http;
use crate::config::{self, Arn};
use crate::credential::{JsonKeys, LocalKey, Payload, SourceIdentity, VersionId, is_access_key_id, ses_region};
use crate::fault::{Class, Fault};
use crate::instruction::relaykey;

/// One version, fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Which secret, parameter or file it came from.
    pub identity: SourceIdentity,
    /// Which version.
    pub id: VersionId,
    /// The credential, its form recognised.
    pub payload: Payload,
}

/// Which version counts now, without the credential itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenVersion {
    /// The same that [`Fetched::identity`] will be.
    pub identity: SourceIdentity,
    /// The same that [`Fetched::id`] will be, unless another one comes in between. Without its order where that is not known:
    /// Secrets Manager tells the age of a version only together with its value. Whether anything changed is told by identity and
    /// version.
    pub id: VersionId,
}

impl From<Fetched> for SeenVersion {
    /// The credential is dropped, and wiped.
    fn from(fetched: Fetched) -> Self {
        Self { identity: fetched.identity, id: fetched.id }
    }
}

/// What [`Source::fetch`] gives: boxed, so that sources of several kinds stand in one list.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, Fault>> + Send + 'a>>;

/// What [`Source::look`] gives: boxed for the same reason.
pub type Looking<'a> = Pin<Box<dyn Future<Output = Result<SeenVersion, Fault>> + Send + 'a>>;

/// What [`Source::earlier`] gives.
#[derive(Debug, Clone, Default)]
pub struct EarlierVersions {
    /// Those that could be read, each with an access key id. What is no access key id may be a secret in the wrong place.
    pub payloads: Vec<Payload>,
    /// The one that this host takes itself, where that was asked for too.
    pub current: Option<Payload>,
    /// Why another one could not be read, each with what it would have told; that there is none is among them.
    pub unread: Vec<Fault>,
}

impl EarlierVersions {
    /// The access key ids of the versions that could be read.
    pub fn ids(&self) -> impl Iterator<Item = String> {
        self.payloads.iter().chain(&self.current).map(|payload| payload.username().to_owned())
    }

    /// Takes in one version. `about`: which one it is.
    fn take(&mut self, about: &str, read: Result<Payload, Fault>) {
        match read {
            Ok(payload) if is_access_key_id(payload.username()) => self.payloads.push(payload),
            Ok(_) => {
                let what =
                    format!("{about} holds no access key id, so that entries with its login are not known as ours");
                self.unread.push(Fault::new(Class::Payload, what, "nothing, if no table holds its login"));
            }
            // With the first version it is as it should be.
            Err(e) if matches!(e.class, Class::NoSuchLabel | Class::NotFound) => {
                let what = format!("{about} is not there, so that no key before is known by it");
                self.unread.push(Fault { what, ..e });
            }
            Err(e) => {
                let what = format!(
                    "the access key id of {about} cannot be read, so that entries with it are not known as ours: {}",
                    e.what
                );
                self.unread.push(Fault { what, ..e });
            }
        }
    }
}

/// What [`Source::earlier`] gives, boxed.
pub type ReadingEarlier<'a> = Pin<Box<dyn Future<Output = EarlierVersions> + Send + 'a>>;

/// One place that versions of a credential come from.
pub trait Source: Send + Sync {
    /// Which version counts now? With the fewest requests that tell, and without asking for the credential itself where
    /// there is a way around it. Fails as [`Source::fetch`] does: a secret that is being deleted, or a label that is on no
    /// version, has the same class. What only reading the credential can tell (its content, who may decrypt it) is told
    /// once a day, when a look fetches: so a permission that was lost is noticed before the next rotation needs it.
    fn look(&self) -> Looking<'_>;

    /// Reads the version that counts now. Ends in half a minute per call to AWS, whatever the network does. Back-off is
    /// the caller's: sources in AWS cost money and share a rate with the whole account.
    fn fetch(&self) -> Fetching<'_>;

    /// Reads this very version once more, whatever counts now. What comes is that version of that source, or an error: of
    /// class `not-given` where something else, or nothing, has its place.
    fn fetch_version<'a>(&'a self, identity: &'a SourceIdentity, id: &'a VersionId) -> Fetching<'a>;

    /// The version in force for everybody and the one before it, whichever version this host takes: for a host that has no state, to
    /// know entries with their access key ids as ours, and by their passwords for which region each is. Nothing of them but the ids
    /// is kept after the run. Ends as [`Source::fetch`] does,
    /// and what cannot be read is no error. A file has no earlier version.
    fn earlier(&self) -> ReadingEarlier<'_> {
        Box::pin(async { EarlierVersions::default() })
    }

    /// How many requests were sent to the service so far, each attempt by itself: as AWS counts them for its price. Zero for
    /// a file.
    fn requests(&self) -> u64 {
        0
    }

    /// What a person could change so that looks cost less or show less, if anything: what is so, and what to do.
    fn advice(&self) -> Option<Advice> {
        None
    }
}

/// Something that works, and would be better otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is so.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// Opens the source of a credential. Reaches nothing yet: what is wrong with AWS or the file is told by
/// [`Source::fetch`]. `key` makes the version of a file. An ARN's region wins over the configured one.
pub fn open(credential: &config::Credential, key: &LocalKey, http: &Http) -> Result<Box<dyn Source>, Fault> {
    let is_ses = |smtp: &config::Smtp| smtp.region.is_some() || ses_region(&smtp.endpoint).is_some();
    let keys = JsonKeys { of_ses: credential.targets.iter().any(|t| is_ses(&t.smtp)), ..credential.keys.clone() };
    let source: Box<dyn Source> = match &credential.source {
        config::SourceConfig::SecretsManager { secret, stages, aws } => {
            Box::new(secrets_manager::SecretsManager::new(secret, stages, &in_region_of(secret, aws), keys, http)?)
        }
        config::SourceConfig::ParameterStore { parameter, label, aws } => {
            let aws = in_region_of(parameter, aws);
            Box::new(parameter_store::ParameterStore::new(parameter, label.as_deref(), &aws, keys, http)?)
        }
        config::SourceConfig::File { path, owner } => Box::new(file::File::new(path, owner.as_deref(), key, keys)),
    };
    Ok(Box::new(form::InForm::new(source, &credential.source)))
}

fn in_region_of(name: &str, aws: &config::Aws) -> config::Aws {
    let mut aws = aws.clone();
    if let Some(arn) = Arn::parse(name).filter(|arn| !arn.region.is_empty()) {
        aws.region = Some(arn.region.to_owned());
    }
    aws
}

/// How another value gets into a source.
#[derive(Clone, Copy)]
enum Corrected {
    AsNewVersion,
    InTheFile,
}

/// Reads the bytes a source gave. Errors of it name keys and positions, never content.
fn payload(about: &str, bytes: &[u8], keys: &JsonKeys, corrected: Corrected) -> Result<Payload, Fault> {
    Payload::parse(bytes, keys).and_then(Payload::with_a_whole_key).map_err(|e| {
        let what = format!("{about}: {e}");
        match e.setting() {
            Some(fix) => Fault::new(Class::Payload, what, fix),
            None => bad_payload(what, corrected),
        }
    })
}

/// The version that was asked for, or why it is none.
fn same_version(fetched: Fetched, about: &str, identity: &SourceIdentity, id: &VersionId) -> Result<Fetched, Fault> {
    if fetched.identity == *identity && fetched.id == *id {
        return Ok(fetched);
    }
    Err(not_given(format!("{about}: what is there now is not version {} that this host uses", id.version)))
}

fn not_given(what: String) -> Fault {
    Fault::new(
        Class::NotGiven,
        what,
        format!("see the version that waits, and decide about it: {}", relaykey("status")),
    )
}

fn bad_payload(what: String, corrected: Corrected) -> Fault {
    let fix = match corrected {
        Corrected::AsNewVersion => {
            "put a corrected value there as a new version; until then this host keeps what it has"
        }
        Corrected::InTheFile => "write the file anew with a corrected value; until then this host keeps what it has",
    };
    Fault::new(Class::Payload, what, fix)
}

/// An answer of AWS without a part that every answer has.
fn incomplete(about: &str, part: &str) -> Fault {
    Fault::new(
        Class::Service,
        format!("{about}: the answer has no {part}"),
        "nothing to do if it passes; if it stays, check `endpoint_url`: is AWS behind it",
    )
    .temporary()
}

/// AWS's time as ours.
fn timestamp(at: &aws_smithy_types::DateTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

/// So often a look reads the credential itself. Besides what is said at [`Source::look`], it keeps Secrets Manager's
/// *last accessed* date fresh, by which people find secrets that nobody uses.
pub const PROOF: Duration = Duration::from_secs(24 * 3600);

/// When the credential itself was last read.
struct Proof {
    every: Duration,
    last: Mutex<Instant>,
}

impl Proof {
    /// The first time is due a period from now: who opens a source fetches from it when there is anything new.
    fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(Instant::now()) }
    }

    fn is_due(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed() >= self.every
    }

    fn given(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Counts what the SDK sends, each attempt by itself.
#[derive(Debug, Clone, Default)]
struct Requests(Arc<AtomicU64>);

impl Requests {
    fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Requests {
    fn name(&self) -> &'static str {
        "relaykey-requests"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
