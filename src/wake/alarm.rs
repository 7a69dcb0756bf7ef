//! The mail log: refusals of our endpoint that a mail server wrote down.

use std::fmt;

/// A line of the mail log that is about one of our endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    pub kind: Kind,
    /// The endpoint's host name, as the configuration spells it.
    pub endpoint: String,
    /// What the server answered, or what the mail server says about it: at most 512 bytes, control characters escaped,
    /// mail addresses masked.
    pub words: String,
}

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The login was refused (535): the credential may have been revoked.
    Refused,
    /// The mail server went on without a login (530): its table has none for this endpoint.
    NoLogin,
    /// 4xx: says nothing about the credential.
    Temporary,
    /// The login was taken and the message refused: the IAM policy, or an identity that is not verified.
    Policy,
    /// The mail server has no way of logging in that the endpoint offers.
    NoMechanism,
}

impl Kind {
    /// The word in status and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Refused => "refused",
            Kind::NoLogin => "no-login",
            Kind::Temporary => "temporary",
            Kind::Policy => "policy",
            Kind::NoMechanism => "no-mechanism",
        }
    }

    /// Is it a reason to look at the credential at once?
    pub fn calls_for_a_look(self) -> bool {
        matches!(self, Kind::Refused | Kind::NoLogin)
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.words)
    }
}
