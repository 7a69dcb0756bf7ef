//! One SMTP login and everything that is true of it without asking anybody: how it may be written in a source, how
//! an SES SMTP password is derived from an IAM secret key, what identifies it without giving it away, and how it is
//! kept out of texts.
//!
//! Nothing here does I/O. Passwords live in [`Secret`], which cannot be printed or serialised.

mod proof;
mod redactor;
mod user_name;

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use self::proof::{
    Code, CodeError, CodeFields, ProofFields, ProofVerdict, SignedToo, code, proof, verify_code, verify_proof,
};
use self::redactor::FRAGMENT;
pub use self::redactor::Redactor;
pub use self::user_name::{
    NOT_SHOWN, has_secret_shape, is_access_key_id, is_whole_access_key_id, shown, shown_or_said,
};

type HmacSha256 = Hmac<Sha256>;

/// The largest payload a source may hand over, in bytes. Secrets Manager allows 65,536.
pub const MAX_PAYLOAD: usize = 65_536;

/// A text that is wiped when dropped and has no `Display` and no `Serialize`; `Debug` prints `***`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text itself. Callers hand it to the mail server's file, to SMTP AUTH or to a keyed hash, and nowhere else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Compares without an early end, so that time does not tell where two secrets differ.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}
impl Eq for Secret {}

/// Which thing a source is, so that a recreated one is told from the one that state knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The ARN; for a file its path as `file:PATH`.
    pub arn: String,
    /// When the secret or parameter was created, where the source says so.
    pub created: Option<Timestamp>,
}

/// What versions of one source are ordered by: (created or modified, number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionOrder {
    pub at: Timestamp,
    pub number: i64,
}

/// A version of a source together with its order: a recreated parameter counts from 1 again, and is not the version 1 of before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// As the source names it: version id, number, keyed hash.
    pub version: String,
    /// `None` for a file: it is authoritative as it is.
    pub order: Option<VersionOrder>,
}

/// One SMTP login: the user name (for SES the access key id, which is public) and its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Secret,
}

impl Login {
    /// Refuses what Postfix tables and SASL cannot carry: anything but printable ASCII without blanks, an empty part,
    /// or a `:` in the user name (Postfix splits at the first one). Also what has the shape of a secret where the user name
    /// belongs.
    pub fn new(username: String, password: Secret) -> Result<Self, PayloadError> {
        let bad = |s: &str| s.bytes().position(|b| !b.is_ascii_graphic());
        for (what, text) in [("user name", username.as_str()), ("password", password.expose())] {
            if text.is_empty() {
                return Err(PayloadError::Empty(what));
            }
            if let Some(at) = bad(text) {
                return Err(PayloadError::NotPrintable { what, at: at + 1 });
            }
        }
        if username.contains(':') {
            return Err(PayloadError::ColonInUsername);
        }
        if let Some(what) = user_name::secret_in(&username) {
            // User names are shown; a secret must not be taken for one.
            return Err(PayloadError::SecretAsUsername(what));
        }
        Ok(Self { username, password })
    }

    /// Splits `USER:PASSWORD` at the first colon, as Postfix does.
    pub fn from_pair(text: &str) -> Result<Self, PayloadError> {
        let (user, password) = text.split_once(':').ok_or(PayloadError::Unknown)?;
        Self::new(user.to_owned(), Secret::new(password.to_owned()))
    }
}

/// Which of the documented forms a payload has. `Display` gives the words `relaykey check` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadForm {
    Pair,
    JsonReady,
    JsonIamKey,
}

impl fmt::Display for PayloadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PayloadForm::Pair => "a ready SMTP credential, USER:PASSWORD",
            PayloadForm::JsonReady => "a ready SMTP credential, JSON with user name and password",
            PayloadForm::JsonIamKey => "an IAM access key, JSON; the SMTP password is derived from it for each region",
        })
    }
}

/// Why a payload is not a usable credential. No variant carries any of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error(
        "the secret is empty: store USER:PASSWORD, or JSON with username and password, or JSON with accessKeyId and secretAccessKey"
    )]
    Nothing,
    #[error("the {0} is empty")]
    Empty(&'static str),
    #[error("the secret is {0} bytes, more than the {MAX_PAYLOAD} a credential may have: this is something else")]
    TooLong(usize),
    #[error("the secret is not UTF-8 text (byte {0}): store it as text, not as binary")]
    NotUtf8(usize),
    #[error(
        "the {what} has a character that is not printable ASCII at position {at}: SMTP logins have neither blanks nor control characters"
    )]
    NotPrintable { what: &'static str, at: usize },
    #[error("the user name contains ':', at which mail servers split user name and password")]
    ColonInUsername,
    #[error(
        "{0} stands where the user name belongs, to judge by its form: are the two in the wrong order? User names are shown, so it \
         is not taken for one"
    )]
    SecretAsUsername(&'static str),
    #[error(
        "the password stands in the user name too: user names are shown, and this one would give the password away; store a login \
         with a user name of its own"
    )]
    PasswordInUsername,
    #[error(
        "the password is a user name that this host knows: are the two in the wrong order? User names are shown, so what stands \
         in its place is not taken for one"
    )]
    Exchanged,
    #[error(
        "the user name is no access key id, which begins with AKIA: to SES the user name is the access key id that belongs to the \
         password, not the name of the IAM user, and nothing else: store USER:PASSWORD with it, or JSON with accessKeyId and \
         secretAccessKey"
    )]
    NoAccessKeyId,
    #[error(
        "the secret is none of the forms relaykey reads: store USER:PASSWORD, or JSON with username and password, or JSON with accessKeyId and secretAccessKey"
    )]
    Unknown,
    #[error("the secret is {what} alone, without {without}")]
    Alone { what: &'static str, without: &'static str },
    #[error("the secret begins like JSON but is not valid JSON (line {line}, column {column})")]
    BadJson { line: usize, column: usize },
    #[error(
        "the JSON secret has a key twice (the second one is before line {line}, column {column}): which one counts differs from program to program; keep one"
    )]
    KeyTwice { line: usize, column: usize },
    #[error(
        "the JSON secret is not an object: expected {{\"username\": …, \"password\": …}} or {{\"accessKeyId\": …, \"secretAccessKey\": …}}"
    )]
    NotAnObject,
    #[error("the JSON secret has no key {missing:?}; it is expected beside {present:?}")]
    MissingKey { missing: String, present: String },
    #[error("the JSON secret has no key {:?}, which {} names", key.name, half.setting())]
    NotUnderKey { half: LoginHalf, key: JsonKey },
    #[error(
        "the JSON secret has no key {:?}; {} names that of the {}, and {} is not set",
        half.usual_key(), half.other().setting(), half.other().words(), half.setting()
    )]
    NotNamed { half: LoginHalf, beside: JsonKey },
    #[error("the secret stands in quotation marks: store it without them")]
    Quoted,
    #[error(
        "the secret is a line of a Postfix table, with the next hop in front: store USER:PASSWORD alone, what stands after the next hop"
    )]
    TableLine,
    #[error(
        "the secret has {0} lines, and is no JSON: store one login, USER:PASSWORD on one line, or JSON with username and password, or \
         JSON with accessKeyId and secretAccessKey"
    )]
    SeveralLines(usize),
    #[error(
        "the JSON secret has none of the expected keys: it needs username and password, or accessKeyId and secretAccessKey; set username_key and password_key if yours are named otherwise"
    )]
    NoKnownKeys,
    #[error("the JSON secret has both {0:?} and {1:?}, which name different things: keep one pair")]
    Ambiguous(String, String),
    #[error("the value of key {0:?} in the JSON secret is not a string")]
    NotAString(String),
    #[error("temporary credentials ({0}): SES SMTP does not take them; store the access key of an IAM user")]
    Temporary(&'static str),
    #[error(
        "the password is an AWS secret access key (40 characters), not an SES SMTP password: store it as JSON with accessKeyId and secretAccessKey, and relaykey derives the SMTP password; or store the output of `relaykey derive`"
    )]
    SecretAccessKey,
    #[error(
        "the password is an SES SMTP password of the withdrawn Version 2 (version byte 0x02): derive a new one with `relaykey derive --region REGION`"
    )]
    Version2,
    #[error(
        "the password is no SES SMTP password (44 characters of base64 whose first byte is 0x04): store the output of `relaykey derive`, or JSON with accessKeyId and secretAccessKey"
    )]
    NotSesPassword,
    #[error("the secret access key that is stored is none: {0}; store all of it, 40 characters, and nothing else")]
    NoSecretAccessKey(&'static str),
    #[error("an IAM access key needs the SES region to derive the SMTP password, and endpoint {0:?} does not name one")]
    NoRegion(String),
}

impl PayloadError {
    /// What to do about it.
    pub fn fix(&self) -> String {
        self.setting()
            .unwrap_or_else(|| "publish a corrected version in the source; the old credential stays in place".into())
    }

    /// What to correct in the configuration, where that may be to blame and not what the source holds, which other hosts share.
    pub fn setting(&self) -> Option<String> {
        Some(match self {
            Self::NoRegion(_) => {
                "correct `endpoint` under [credential.smtp], if it is mistyped; else set `region` there, to the one in which SES answers \
                 under that name"
                    .into()
            }
            Self::NotUnderKey { half, key } => format!(
                "correct `{}`, line {} of the configuration: it is the name of the key under which the {} stands in the JSON",
                half.setting(),
                key.line,
                half.words()
            ),
            Self::NotNamed { half, beside } => format!(
                "set `{}` beside `{}`, line {} of the configuration, to the name of the key under which the {} stands in the JSON",
                half.setting(),
                half.other().setting(),
                beside.line,
                half.words()
            ),
            Self::NoKnownKeys => "set `username_key` and `password_key` in [credential.source] to the names that the JSON has; where it \
                                  holds no login, put one there"
                .into(),
            _ => return None,
        })
    }
}

/// A login is two halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginHalf {
    Username,
    Password,
}

impl LoginHalf {
    fn other(self) -> Self {
        match self {
            Self::Username => Self::Password,
            Self::Password => Self::Username,
        }
    }

    /// The setting that names its key.
    fn setting(self) -> &'static str {
        match self {
            Self::Username => "username_key",
            Self::Password => "password_key",
        }
    }

    /// Its key, where only the other one's is named.
    fn usual_key(self) -> &'static str {
        match self {
            Self::Username => "username",
            Self::Password => "password",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Username => "user name",
            Self::Password => "password",
        }
    }
}

/// The name of a key of the JSON, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonKey {
    pub name: String,
    /// The 1-based line of the configuration that names it.
    pub line: usize,
}

/// What is known beforehand of what a source holds: the names of the JSON keys that hold user name and password, where the
/// config names them (`username_key`, `password_key`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonKeys {
    pub username: Option<JsonKey>,
    pub password: Option<JsonKey>,
    /// It is for SES, where nothing but an access key id is a user name.
    pub of_ses: bool,
}

impl JsonKeys {
    /// The keys of a secret whose user name or password the configuration names the key of.
    fn find(&self, has: impl Fn(&str) -> bool) -> Result<(PayloadForm, String, String), PayloadError> {
        let name = |half: LoginHalf, own: &Option<JsonKey>, other: &Option<JsonKey>| match (own, other) {
            (Some(key), _) if !has(&key.name) => Err(PayloadError::NotUnderKey { half, key: key.clone() }),
            (Some(key), _) => Ok(key.name.clone()),
            (None, Some(beside)) if !has(half.usual_key()) => {
                Err(PayloadError::NotNamed { half, beside: beside.clone() })
            }
            (None, _) => Ok(half.usual_key().to_owned()),
        };
        // What is named and not there comes first: where it is mistyped, the other half may be as it should.
        let username = name(LoginHalf::Username, &self.username, &self.password);
        let password = name(LoginHalf::Password, &self.password, &self.username);
        match (username, password) {
            (Ok(username), Ok(password)) => Ok((PayloadForm::JsonReady, username, password)),
            (Err(PayloadError::NotNamed { .. }), Err(e)) | (Err(e), _) | (_, Err(e)) => Err(e),
        }
    }
}

/// A payload whose form was recognised. [`Payload::login`] makes the login for one endpoint of it.
#[derive(Debug, Clone)]
pub struct Payload {
    pub form: PayloadForm,
    username: String,
    secret: Secret,
}

/// Names of the JSON keys of a ready login: user name, password.
pub const READY: [(&str, &str); 2] = [("username", "password"), ("smtp_username", "smtp_password")];
/// Names of the JSON keys of an IAM key: its id, the secret.
pub const IAM: [(&str, &str); 5] = [
    ("accessKeyId", "secretAccessKey"),
    ("AccessKeyId", "SecretAccessKey"),
    ("access_key_id", "secret_access_key"),
    ("aws_access_key_id", "aws_secret_access_key"),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
];
const SESSION: [&str; 6] =
    ["sessionToken", "SessionToken", "session_token", "aws_session_token", "AWS_SESSION_TOKEN", "Token"];

impl Payload {
    /// Detects the form of what a source holds (DESIGN.md, "Payloads a source may hold"). A trailing newline and
    /// surrounding blanks are cut first. Errors name keys and positions, never content.
    pub fn parse(bytes: &[u8], keys: &JsonKeys) -> Result<Self, PayloadError> {
        if bytes.len() > MAX_PAYLOAD {
            return Err(PayloadError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| PayloadError::NotUtf8(e.valid_up_to() + 1))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
        if text.is_empty() {
            return Err(PayloadError::Nothing);
        }
        if ['"', '\'', '`'].iter().any(|mark| text.len() > 1 && text.starts_with(*mark) && text.ends_with(*mark)) {
            return Err(PayloadError::Quoted);
        }
        if is_table_line(text) {
            return Err(PayloadError::TableLine);
        }
        let payload =
            if text.starts_with(['{', '[', '"']) { Self::parse_json(text, keys)? } else { Self::parse_pair(text)? };
        if payload.username.starts_with("ASIA") {
            return Err(PayloadError::Temporary("the access key id starts with ASIA"));
        }
        let login = Login::new(payload.username, payload.secret)?;
        if (keys.of_ses || payload.form == PayloadForm::JsonIamKey) && !is_access_key_id(&login.username) {
            return Err(PayloadError::NoAccessKeyId);
        }
        let password = login.password.expose();
        if login.username == password || password.len() >= FRAGMENT && login.username.contains(password) {
            return Err(PayloadError::PasswordInUsername);
        }
        Ok(Self { form: payload.form, username: login.username, secret: login.password })
    }

    fn parse_pair(text: &str) -> Result<Self, PayloadError> {
        if let Some(half) = half_of_a_key(text) {
            return Err(half);
        }
        match text.lines().count() {
            0 | 1 => {}
            several => return Err(PayloadError::SeveralLines(several)),
        }
        let login = Login::from_pair(text)?;
        Ok(Self { form: PayloadForm::Pair, username: login.username, secret: login.password })
    }

    fn parse_json(text: &str, keys: &JsonKeys) -> Result<Self, PayloadError> {
        let value: SecretJson = serde_json::from_str(text).map_err(|e| match (e.line(), e.column()) {
            // Well-formed: nothing but a key that stands twice is refused by SecretJson.
            (line, column) if e.is_data() => PayloadError::KeyTwice { line, column },
            (line, column) => PayloadError::BadJson { line, column },
        })?;
        let SecretJson::Object(fields) = value else { return Err(PayloadError::NotAnObject) };
        let get = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, v)| v);
        let has = |key: &str| get(key).is_some();
        if fields.iter().any(|(k, v)| SESSION.contains(&k.as_str()) && !v.is_empty()) {
            return Err(PayloadError::Temporary("the secret has a session token"));
        }
        let named = (keys.username.is_some() || keys.password.is_some()).then_some(keys);
        let mut pairs: Vec<(PayloadForm, String, String)> = Vec::new();
        match named {
            Some(keys) => pairs.push(keys.find(has)?),
            None => {
                let own = |form, list: &[(&str, &str)]| {
                    list.iter().map(|(u, p)| (form, (*u).to_owned(), (*p).to_owned())).collect::<Vec<_>>()
                };
                pairs.extend(own(PayloadForm::JsonReady, &READY));
                pairs.extend(own(PayloadForm::JsonIamKey, &IAM));
                pairs.retain(|(_, u, p)| has(u) || has(p));
            }
        }
        // `username` beside `secretAccessKey` and the like is a guess; two complete pairs are one too.
        let complete: Vec<_> = pairs.iter().filter(|(_, u, p)| has(u) && has(p)).cloned().collect();
        let (form, user, password) = match (complete.as_slice(), pairs.as_slice()) {
            ([one], _) => one.clone(),
            ([a, b, ..], _) => return Err(PayloadError::Ambiguous(a.1.clone(), b.1.clone())),
            ([], []) => return Err(PayloadError::NoKnownKeys),
            ([], [(_, u, p), ..]) => {
                let (missing, present) = if has(u) { (p, u) } else { (u, p) };
                return Err(PayloadError::MissingKey { missing: missing.clone(), present: present.clone() });
            }
        };
        let text = |key: &str| match get(key) {
            Some(SecretJson::Text(s)) => Ok(s.expose().trim().to_owned()),
            _ => Err(PayloadError::NotAString(key.to_owned())),
        };
        let (username, secret) = (text(&user)?, Secret::new(text(&password)?));
        Ok(Self { form, username, secret })
    }

    /// Refuses an IAM key whose secret is none, as far as its form tells: a password can be derived from any text, and the endpoint
    /// would only say that it is wrong.
    pub fn with_a_whole_key(self) -> Result<Self, PayloadError> {
        match no_secret_access_key(self.secret.expose(), false) {
            Some(seems) if self.form == PayloadForm::JsonIamKey => Err(PayloadError::NoSecretAccessKey(seems.what)),
            _ => Ok(self),
        }
    }

    /// Refuses user name and password in the wrong order, as far as the names tell that this host knows: one of them is the
    /// password.
    pub fn in_order<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> Result<(), PayloadError> {
        // No early end, and none in the comparison: this looks at a password.
        let is_name = |name: &str| Secret::new(name.to_owned()) == self.secret;
        match known.into_iter().fold(false, |found, name| found | is_name(name)) {
            true => Err(PayloadError::Exchanged),
            false => Ok(()),
        }
    }

    /// The user name: for SES the access key id.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The login for one endpoint. `region` is the configured one, if any; an endpoint whose name is one of SES's
    /// forms, or a configured region, makes the endpoint SES, and then only SES SMTP passwords pass.
    pub fn login(&self, endpoint: &str, region: Option<&str>) -> Result<Login, PayloadError> {
        let region = region.map(str::to_owned).or_else(|| ses_region(endpoint));
        let password = match (self.form, region) {
            (PayloadForm::JsonIamKey, Some(region)) => ses_smtp_password(&self.secret, &region),
            (PayloadForm::JsonIamKey, None) => return Err(PayloadError::NoRegion(endpoint.to_owned())),
            (_, None) => self.secret.clone(),
            (_, Some(_)) => {
                if !is_access_key_id(&self.username) {
                    return Err(PayloadError::NoAccessKeyId);
                }
                ses_password_form(self.secret.expose())?;
                self.secret.clone()
            }
        };
        Login::new(self.username.clone(), password)
    }
}

/// JSON whose texts go straight into [`Secret`]; numbers and the rest are only counted as "not a string".
enum SecretJson {
    Text(Secret),
    Object(Vec<(String, SecretJson)>),
    Other,
}

impl SecretJson {
    fn is_empty(&self) -> bool {
        matches!(self, SecretJson::Text(s) if s.expose().is_empty()) || matches!(self, SecretJson::Other)
    }
}

impl<'de> serde::Deserialize<'de> for SecretJson {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = SecretJson;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_str<E>(self, v: &str) -> Result<SecretJson, E> {
                Ok(SecretJson::Text(Secret::new(v.to_owned())))
            }
            fn visit_string<E>(self, v: String) -> Result<SecretJson, E> {
                Ok(SecretJson::Text(Secret::new(v)))
            }
            fn visit_bool<E>(self, _: bool) -> Result<SecretJson, E> {
                Ok(SecretJson::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<SecretJson, E> {
                Ok(SecretJson::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<SecretJson, E> {
                Ok(SecretJson::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<SecretJson, E> {
                Ok(SecretJson::Other)
            }
            fn visit_unit<E>(self) -> Result<SecretJson, E> {
                Ok(SecretJson::Other)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut a: A) -> Result<SecretJson, A::Error> {
                while a.next_element::<SecretJson>()?.is_some() {}
                Ok(SecretJson::Other)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut a: A) -> Result<SecretJson, A::Error> {
                let mut fields: Vec<(String, SecretJson)> = Vec::new();
                while let Some((k, v)) = a.next_entry::<String, SecretJson>()? {
                    if fields.iter().any(|(have, _)| *have == k) {
                        // Which of the two would win depends on the reader; refuse as broken JSON.
                        return Err(serde::de::Error::custom("a key stands twice"));
                    }
                    fields.push((k, v));
                }
                Ok(SecretJson::Object(fields))
            }
        }
        d.deserialize_any(V)
    }
}

/// Derives the SES SMTP password (Signature Version 4 chain, published in the SES developer guide, "Obtaining Amazon
/// SES SMTP credentials"): HMAC-SHA256 over `11111111`, region, `ses`, `aws4_request`, `SendRawEmail`, keyed with
/// `AWS4` + secret access key; version byte 0x04 in front; base64.
pub fn ses_smtp_password(secret_access_key: &Secret, region: &str) -> Secret {
    let mut key = Zeroizing::new(format!("AWS4{}", secret_access_key.expose()).into_bytes());
    for part in ["11111111", region, "ses", "aws4_request", "SendRawEmail"] {
        key = Zeroizing::new(hmac(&key, &[part.as_bytes()]).to_vec());
    }
    key.insert(0, 0x04);
    Secret::new(BASE64.encode(&*key))
}

/// Is this text an SES SMTP password? Says what it is where it is not.
pub fn ses_password_form(password: &str) -> Result<(), PayloadError> {
    match BASE64.decode(password).map(Zeroizing::new) {
        Ok(bytes) if bytes.len() == 33 && bytes[0] == 0x04 => Ok(()),
        Ok(bytes) if bytes.len() == 33 && bytes[0] == 0x02 => Err(PayloadError::Version2),
        _ if password.len() == 40 => Err(PayloadError::SecretAccessKey),
        _ => Err(PayloadError::NotSesPassword),
    }
}

/// What a text seems to be that is no secret access key. Says nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seems {
    pub what: &'static str,
    pub fix: &'static str,
}

/// Secret access keys have 40 characters of base64's (IAM user guide, "Manage access keys"). `None`: this is one, as far
/// as can be seen. A password can be derived from any text, and only SES tells, a day later, that it is of no use.
/// `any_length`: the examples of AWS's documentation are shorter.
pub fn no_secret_access_key(text: &str, any_length: bool) -> Option<Seems> {
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let quotes = |c: char| matches!(c, '"' | '\'' | '`');
    let id = |text: &str| text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let seems = |what, fix| Some(Seems { what, fix });
    if text.starts_with('{') || text.starts_with('[') {
        return seems("it is JSON", "give the value of SecretAccessKey alone, without quotation marks");
    }
    if text.starts_with(quotes) || text.ends_with(quotes) {
        return seems("it stands in quotation marks", "take them out");
    }
    if text.len() == 20 && id(text) && ["AKIA", "ASIA"].iter().any(|begin| text.starts_with(begin)) {
        return seems(
            "it is an access key id",
            "give the secret that belongs to it, 40 characters: AWS shows it once, when the key is made",
        );
    }
    if ses_password_form(text).is_ok() {
        return seems(
            "it is an SES SMTP password already",
            "nothing is to be derived: use it as it is, in the region that it was made for",
        );
    }
    if text.contains([':', ',']) {
        return seems(
            "it is a pair of user name and secret",
            "give the secret access key alone, what stands after the access key id",
        );
    }
    if text.len() > 100 && text.bytes().all(|b| base64(b) || b == b'=') {
        return seems(
            "it is a session token",
            "SES SMTP takes no temporary credentials: make an access key of an IAM user",
        );
    }
    if !text.bytes().all(base64) {
        return seems("it has a character that no key has", "copy the key anew: 40 letters, digits, + and /");
    }
    if text.len() != 40 && !any_length {
        return seems(
            "it has another length than 40 characters",
            "copy all of it, and nothing else; for an example of AWS's documentation, which is shorter: --any-length",
        );
    }
    None
}

/// Is this a line of a Postfix table, `NEXT-HOP USER:PASSWORD`? A next hop is told by its brackets, or by a host name with a dot
/// in it and a port that is none or one of mail's; what stands before a blank in a login with a blank in it is neither.
fn is_table_line(text: &str) -> bool {
    let mut fields = text.lines().next().unwrap_or_default().split_ascii_whitespace();
    let (Some(hop), Some(login), None) = (fields.next(), fields.next(), fields.next()) else { return false };
    let (host, port) = match hop.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some(""))),
            None => return false,
        },
        None if !hop.contains('.') => return false,
        None => match hop.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (hop, Some("")),
        },
    };
    let is_host =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':'));
    let is_port = port.is_some_and(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) || ["smtp", "smtps", "submission", "submissions"].contains(&port)
    });
    is_host && is_port && login.contains(':')
}

/// Is this text one half of a key where both are needed? Access key ids have 20 characters, secret access keys 40 of
/// base64's (IAM user guide, "IAM identifiers" and "Manage access keys").
fn half_of_a_key(text: &str) -> Option<PayloadError> {
    let base64 = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    let id = text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let (what, without) = match text.len() {
        20 if id && (text.starts_with("AKIA") || text.starts_with("ASIA")) => {
            ("an access key id", "its secret: store USER:PASSWORD, or JSON with accessKeyId and secretAccessKey")
        }
        40 if base64 => (
            "an AWS secret access key (40 characters)",
            "its access key id: store JSON with accessKeyId and secretAccessKey, and relaykey derives the SMTP password",
        ),
        44 if ses_password_form(text).is_ok() => {
            ("an SES SMTP password", "its user name, the access key id: store USER:PASSWORD")
        }
        _ => return None,
    };
    Some(PayloadError::Alone { what, without })
}

/// The SES region that an endpoint's name contains: standard `email-smtp.REGION.amazonaws.com` (and `.com.cn`), FIPS
/// `email-smtp-fips.REGION.amazonaws.com`, and VPC endpoint names `vpce-….email-smtp[-fips].REGION.vpce.amazonaws.com`.
pub fn ses_region(endpoint: &str) -> Option<String> {
    let name = endpoint.trim_end_matches('.').to_ascii_lowercase();
    let name = name.strip_suffix(".amazonaws.com.cn").or_else(|| name.strip_suffix(".amazonaws.com"))?;
    let labels: Vec<&str> = name.split('.').collect();
    let region = match labels.as_slice() {
        ["email-smtp" | "email-smtp-fips", region] => region,
        [vpce, "email-smtp" | "email-smtp-fips", region, "vpce"] if vpce.starts_with("vpce-") => region,
        _ => return None,
    };
    region_shaped(region).then(|| (*region).to_owned())
}

/// `eu-west-1`, `us-gov-west-1`, `cn-north-1`: lower case words, then a number. New regions need no new release.
pub fn region_shaped(region: &str) -> bool {
    let parts: Vec<&str> = region.split('-').collect();
    let (Some((last, words)), true) = (parts.split_last(), parts.len() >= 3) else { return false };
    last.bytes().all(|b| b.is_ascii_digit())
        && !last.is_empty()
        && words.iter().all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase()))
}

/// What is odd about a region of the right form, and what to write instead where that can be told. Every region of AWS has a
/// direction before its number (`us-gov-east-1`, `ap-southeast-2`); a password that is derived for a misspelt one is refused by
/// the endpoint, which does not say why.
pub fn odd_region(region: &str) -> Option<String> {
    let mut words: Vec<&str> = region.split('-').collect();
    let at = words.len().checked_sub(2)?;
    if !region_shaped(region) || DIRECTIONS.contains(&words[at]) {
        return None;
    }
    let near = DIRECTIONS.iter().find(|known| is_nearly(words[at], known));
    let instead = near.map(|known| {
        words[at] = known;
        format!(": did you mean {:?}", words.join("-"))
    });
    Some(format!(
        "region {region:?} is none that AWS has, as far as is known: before the number stands no direction, such as west or \
         southeast{}",
        instead.unwrap_or_default()
    ))
}

const DIRECTIONS: [&str; 9] =
    ["north", "south", "east", "west", "central", "northeast", "northwest", "southeast", "southwest"];

/// One letter too many, too few, or another one.
fn is_nearly(word: &str, known: &str) -> bool {
    let (word, known) = (word.as_bytes(), known.as_bytes());
    let alike = word.iter().zip(known).take_while(|(a, b)| a == b).count();
    let rest = |of: &'_ [u8], skip: usize| of.get(alike + skip..).map(<[u8]>::to_vec);
    rest(word, 1) == rest(known, 0) || rest(word, 0) == rest(known, 1) || rest(word, 1) == rest(known, 1)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One of several logins of a version, a password for each SES region: which region's, and its live id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct RegionalLogin {
    pub region: String,
    pub live_id: String,
}

/// A random key of this installation under which contents are identified without being given away: a bare hash of
/// a password could be guessed against.
#[derive(Clone)]
pub struct LocalKey {
    key: Zeroizing<[u8; 32]>,
    /// It is not kept: the next process makes another one.
    is_passing: bool,
}

impl LocalKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(bytes), is_passing: false }
    }

    /// One that this process makes and may not keep. What is named by it would be named otherwise by the next process.
    pub fn passing(bytes: [u8; 32]) -> Self {
        Self { is_passing: true, ..Self::new(bytes) }
    }

    /// The live id of a login: what state and drift checks compare instead of the login. 64 hex digits.
    pub fn live_id(&self, login: &Login) -> String {
        hex(&hmac(&*self.key, &[b"login\0", login.username.as_bytes(), b"\0", login.password.expose().as_bytes()]))
    }

    /// A keyed hash of a content. 32 hex digits.
    pub fn content_version(&self, content: &[u8]) -> String {
        hex(&hmac(&*self.key, &[b"file\0", content]))[..32].to_owned()
    }

    /// The version of a `file` source: [`Self::content_version`], or, where the key is not kept, that there is none yet.
    pub fn file_version(&self, content: &[u8]) -> String {
        if self.is_passing { NO_VERSION_YET.to_owned() } else { self.content_version(content) }
    }
}

/// What a `file`'s version is called before this host has a key to name it by.
pub const NO_VERSION_YET: &str = "not-named-yet";

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalKey(***)")
    }
}

#[cfg(test)]
mod tests;
