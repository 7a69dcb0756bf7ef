//! Logs in at an SMTP endpoint and says what that proves (RFC 5321, RFC 3207 STARTTLS, RFC 4954 AUTH).

/// What one login attempt says about the credential. Only `Refused` blames it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// 235. The reply as the server worded it.
    Accepted { reply: String },
    /// 535: the server knows the credential and says no, or does not know it yet.
    Refused { reply: String },
    /// Nothing was proved: network, TLS, time-out, 4xx, any other 5xx.
    Unknown { class: Class, temporary: bool, words: String, fix: Option<String> },
}

/// What stood in the way of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Name resolution, connect, reset.
    Network,
    Timeout,
    /// Certificate, name, protocol version, no STARTTLS offered.
    Tls,
    /// The `ca_file` cannot be used.
    Trust,
    /// A reply that is neither 235 nor 535.
    Smtp,
}
