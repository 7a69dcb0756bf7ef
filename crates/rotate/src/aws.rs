//! How the control side reaches AWS and the mail endpoints: one call at a time, each with a deadline, each error with a class that
//! comes from its code. What is decided is decided elsewhere.

pub mod keys;
pub mod logins;
pub mod parameters;
pub mod payload;
pub mod secret;
pub mod store;

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_iam::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_iam::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_iam::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_iam::operation::RequestId;
use jiff::Timestamp;
use relaykey::aws::{AwsSession, Call, Http};
use relaykey_core::config::Aws;
use relaykey_core::fault::{Class, Fault};

use crate::facts::{Part, WhyUnseen};

/// The longest that one call may take, credentials and repeated attempts included.
const DEADLINE: Duration = Duration::from_secs(40);

/// Before or after a call to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// Asked before and after every call, by the name of its action.
pub type Choke = Arc<dyn Fn(&'static str, Moment) -> bool + Send + Sync>;

/// What tests put in the place of the clocks, and between calls.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Instead of the system's time.
    pub now: Option<Arc<dyn Fn() -> Timestamp + Send + Sync>>,
    /// Instead of the clock that goes on in sleep.
    pub boot: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
    /// `false`: the process ends here, as far as this controller can tell: the call never comes back.
    pub choke: Option<Choke>,
    /// Instead of an HTTP client with the system's certificates.
    pub http: Option<Http>,
}

impl Hooks {
    pub fn now(&self) -> Timestamp {
        self.now.as_ref().map_or_else(Timestamp::now, |now| now())
    }

    /// The clock that goes on while the machine sleeps.
    pub fn boot(&self) -> Duration {
        if let Some(boot) = &self.boot {
            return boot();
        }
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    async fn choke(&self, action: &'static str, moment: Moment) {
        if self.choke.as_ref().is_some_and(|choke| !choke(action, moment)) {
            std::future::pending::<()>().await;
        }
    }

    /// One call: bounded, and seen before and after.
    pub async fn call<T>(
        &self,
        action: &'static str,
        about: &str,
        work: impl Future<Output = Result<T, CallFailed>>,
    ) -> Result<T, CallFailed> {
        self.choke(action, Moment::Before).await;
        let result = match tokio::time::timeout(DEADLINE, work).await {
            Ok(result) => result,
            Err(_) => Err(no_answer(action, about)),
        };
        self.choke(action, Moment::After).await;
        result
    }
}

/// Until when a call that changes something may go out, by the clock that goes on in sleep. It is asked before every attempt: the
/// SDK repeats what failed, waits for credentials, and may be frozen anywhere in between.
#[derive(Clone)]
pub struct Until {
    hooks: Hooks,
    end: Duration,
}

impl Until {
    pub fn new(hooks: &Hooks, end: Duration) -> Self {
        Self { hooks: hooks.clone(), end }
    }

    fn is_over(&self) -> bool {
        self.hooks.boot() >= self.end
    }
}

impl fmt::Debug for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Intercept for Until {
    fn name(&self) -> &'static str {
        "what was decided has not grown old"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.is_over() { Err("what was decided has grown old".into()) } else { Ok(()) }
    }
}

fn no_answer(action: &'static str, about: &str) -> CallFailed {
    let what = format!("{action} for {about}: no answer in {} s", DEADLINE.as_secs());
    let fix = "check that AWS is reached from here: route, firewall, proxy, VPC endpoint";
    CallFailed { kind: FailKind::NoAnswer, fault: Box::new(Fault::new(Class::Network, what, fix).temporary()) }
}

/// Why a call did not do what it was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailed {
    pub kind: FailKind,
    pub fault: Box<Fault>,
}

/// By the code of the answer, never by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailKind {
    AccessDenied,
    KmsDenied,
    Throttled,
    NotFound,
    SecretDeleting,
    LimitExceeded,
    /// Somebody else was faster: a condition did not hold.
    Conflict,
    /// A line of the audit log has that number already: the record is older than the log.
    LogAhead,
    /// The request makes no sense to AWS.
    Refused,
    /// Nobody knows what became of it: no answer, or one of a service in trouble.
    NoAnswer,
}

impl FailKind {
    fn of(code: &str, status: u16) -> Self {
        match code {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "AuthorizationError" => {
                Self::AccessDenied
            }
            "DecryptionFailure" | "EncryptionFailure" | "InvalidKeyId" => Self::KmsDenied,
            code if code.contains("KMS") || code.starts_with("Kms") => Self::KmsDenied,
            "TooManyRequestsException" | "RequestLimitExceeded" | "SlowDown" | "TooManyUpdates" => Self::Throttled,
            code if code.contains("Throttl") || code == "ProvisionedThroughputExceededException" => Self::Throttled,
            "NoSuchEntity"
            | "NoSuchEntityException"
            | "ResourceNotFoundException"
            | "ParameterNotFound"
            | "ParameterVersionNotFound" => Self::NotFound,
            "LimitExceeded"
            | "LimitExceededException"
            | "ParameterLimitExceeded"
            | "ParameterMaxVersionLimitExceeded"
            | "PreconditionNotMetException" => Self::LimitExceeded,
            "ConditionalCheckFailedException"
            | "TransactionCanceledException"
            | "TransactionConflictException"
            | "ResourceExistsException"
            | "ParameterAlreadyExists" => Self::Conflict,
            "" => Self::NoAnswer,
            _ if status >= 500 || status == 429 => Self::NoAnswer,
            _ => Self::Refused,
        }
    }

    /// Surely nothing was done.
    pub fn is_definite(self) -> bool {
        self != Self::NoAnswer
    }

    /// As what could not be looked at.
    pub fn unseen(self, part: &Part) -> WhyUnseen {
        match self {
            Self::AccessDenied => WhyUnseen::AccessDenied,
            Self::KmsDenied => WhyUnseen::KmsDenied,
            Self::Throttled => WhyUnseen::Throttled,
            Self::NotFound if *part == Part::Keys => WhyUnseen::UserMissing,
            Self::NotFound => WhyUnseen::NotFound,
            Self::SecretDeleting => WhyUnseen::SecretDeleting,
            Self::LimitExceeded | Self::Conflict | Self::LogAhead | Self::Refused | Self::NoAnswer => {
                WhyUnseen::NoAnswer
            }
        }
    }
}

/// One place in AWS: how it is reached, and from where it is watched.
pub struct Reach {
    session: AwsSession,
    pub hooks: Hooks,
}

/// A call as the words of its errors name it.
pub struct AwsCall {
    /// The IAM action.
    pub action: &'static str,
    /// `secret "SESSendSecret"`.
    pub about: String,
    /// What a policy has to allow.
    pub arn: String,
}

impl Reach {
    /// Connects to nothing yet.
    pub fn new(aws: &Aws, http: &Http, hooks: &Hooks) -> Result<Self, Fault> {
        Ok(Self { session: AwsSession::new(aws, http)?, hooks: hooks.clone() })
    }

    /// One call of the SDK.
    pub async fn send<T, E, F>(&self, asked: AwsCall, send: impl FnOnce(SdkConfig) -> F) -> Result<T, CallFailed>
    where
        F: Future<Output = Result<T, SdkError<E>>>,
        E: Error + ProvideErrorMetadata + 'static,
        SdkError<E>: RequestId,
    {
        let AwsCall { action, about, arn } = asked;
        // The SDK's futures are large, and many of them wait side by side.
        let work = Box::pin(async {
            let config = self
                .session
                .config()
                .await
                .map_err(|fault| CallFailed { kind: FailKind::NoAnswer, fault: Box::new(fault) })?;
            let region = config.region().map_or_else(String::new, |region| region.as_ref().to_owned());
            let error = match send(config).await {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            let call = Call { action, about: about.clone(), arn, region: &region, role_arn: self.session.role_arn() };
            let kind = relaykey::aws::answer(&error).map_or(FailKind::NoAnswer, |a| FailKind::of(a.code, a.status));
            Err(CallFailed { kind, fault: Box::new(self.session.explain(&error, &call, |_| None).await) })
        });
        self.hooks.call(action, &about, work).await
    }
}

/// An answer without a part that every answer has.
pub(crate) fn incomplete(about: &str, part: &str) -> CallFailed {
    let what = format!("{about}: the answer has no {part}");
    let fix = "nothing to do if it passes; if it stays, check `endpoint_url`: is AWS behind it";
    CallFailed { kind: FailKind::NoAnswer, fault: Box::new(Fault::new(Class::Service, what, fix).temporary()) }
}

/// AWS's time as ours.
pub(crate) fn timestamp(at: &aws_sdk_iam::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_known_by_its_code() {
        for (code, status, kind) in [
            ("AccessDenied", 403, FailKind::AccessDenied),
            ("DecryptionFailure", 400, FailKind::KmsDenied),
            ("Throttling", 400, FailKind::Throttled),
            ("ThrottlingException", 400, FailKind::Throttled),
            ("NoSuchEntity", 404, FailKind::NotFound),
            ("LimitExceeded", 409, FailKind::LimitExceeded),
            ("ConditionalCheckFailedException", 400, FailKind::Conflict),
            ("InternalFailure", 500, FailKind::NoAnswer),
            ("ServiceFailure", 503, FailKind::NoAnswer),
            ("", 502, FailKind::NoAnswer),
            ("ValidationError", 400, FailKind::Refused),
        ] {
            assert_eq!(FailKind::of(code, status), kind, "{code}");
        }
        assert!(FailKind::LimitExceeded.is_definite() && !FailKind::NoAnswer.is_definite());
        assert_eq!(FailKind::NotFound.unseen(&Part::Keys), WhyUnseen::UserMissing);
        assert_eq!(FailKind::NotFound.unseen(&Part::Store), WhyUnseen::NotFound);
    }
}
