//! That somebody holds the password, shown without showing it: the proof in a report, and the short code that a person
//! types (DESIGN.md, "Report document"). Both are keyed hashes (RFC 2104) with the password as key.
//!
//! They are made with SES's own passwords alone, which are 32 random bytes: with a password that somebody thought of,
//! each of them would let others try passwords at their leisure.

use std::fmt;
use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{KeyInit as _, Mac as _};

use super::{HmacSha256, Secret, ses_password_form};

const WEAK: &str = "the password is not of SES's form, and a proof made with a weak password would help to guess it";
const CONTROL: &str = "a signed field has a control character";

/// The signed fields of a report, in the order in which the proof covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofFields {
    pub host_id: String,
    pub host: String,
    pub credential: String,
    pub version: String,
    pub username: String,
    pub target: String,
    pub region: String,
    pub outcome: String,
    pub seq: u64,
    pub at: String,
    /// What a proof of the second kind covers too; `None`: the first kind, of reports of v1.
    pub v2: Option<SignedToo>,
}

/// What the proof in a report of v2 covers beyond that of v1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedToo {
    pub source: String,
    /// When the login was accepted: RFC 3339, Z, seconds.
    pub evidence_at: String,
    /// The texts of the lists.
    pub lists: Vec<String>,
}

impl ProofFields {
    /// Name of the first field that no proof is made over, because it has a control character.
    pub fn with_control_character(&self) -> Option<&'static str> {
        let fields = [
            ("host_id", &self.host_id),
            ("host", &self.host),
            ("credential", &self.credential),
            ("version", &self.version),
            ("username", &self.username),
            ("target", &self.target),
            ("region", &self.region),
            ("outcome", &self.outcome),
            ("at", &self.at),
        ];
        let too = self.v2.iter().flat_map(|too| {
            let lists = too.lists.iter().map(|text| ("a list", text));
            [("source", &too.source), ("evidence.at", &too.evidence_at)].into_iter().chain(lists)
        });
        let mut all = fields.into_iter().chain(too);
        all.find(|(_, text)| text.chars().any(char::is_control)).map(|(name, _)| name)
    }
}

/// What the typed code is made over, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeFields {
    pub host: String,
    pub credential: String,
    pub version: String,
    /// Of the invitation; empty where there is none.
    pub nonce: String,
}

impl CodeFields {
    /// The code that goes with a report.
    pub fn of(report: &ProofFields, nonce: String) -> Self {
        let ProofFields { host, credential, version, .. } = report.clone();
        Self { host, credential, version, nonce }
    }
}

/// What a proof or a code is found to be.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofVerdict {
    /// Made with this password, over these fields.
    True,
    /// Made with another password, or over other fields.
    False,
    /// This cannot be a proof, or none is made with such a password: why.
    NoProof(&'static str),
}

/// The proof that its maker holds `password`, or why there is none.
pub fn proof(password: &Secret, fields: &ProofFields) -> Result<String, &'static str> {
    Ok(BASE64.encode(proof_mac(password, fields)?.finalize().into_bytes()))
}

/// Was this proof made with this password over these fields? Takes the same time wherever it differs.
pub fn verify_proof(password: &Secret, fields: &ProofFields, proof: &str) -> ProofVerdict {
    match BASE64.decode(proof) {
        Ok(tag) if tag.len() == 32 => verdict(proof_mac(password, fields).map(|mac| mac.verify_slice(&tag).is_ok())),
        _ => ProofVerdict::NoProof("the proof is not what relaykey writes: 32 bytes in base64"),
    }
}

/// The code that its maker holds `password`, or why there is none.
pub fn code(password: &Secret, fields: &CodeFields) -> Result<Code, &'static str> {
    let hash: [u8; 32] = code_mac(password, fields)?.finalize().into_bytes().into();
    let mut first = [0; Code::BYTES];
    first.copy_from_slice(&hash[..Code::BYTES]);
    Ok(Code(first))
}

/// Was this code made with this password over these fields? Takes the same time wherever it differs. Whoever asks lets
/// a person try five times at most: 40 bits are few.
pub fn verify_code(password: &Secret, fields: &CodeFields, code: &Code) -> ProofVerdict {
    verdict(code_mac(password, fields).map(|mac| mac.verify_truncated_left(&code.0).is_ok()))
}

fn verdict(checked: Result<bool, &'static str>) -> ProofVerdict {
    match checked {
        Ok(true) => ProofVerdict::True,
        Ok(false) => ProofVerdict::False,
        Err(why) => ProofVerdict::NoProof(why),
    }
}

fn proof_mac(password: &Secret, fields: &ProofFields) -> Result<HmacSha256, &'static str> {
    let ProofFields { host_id, host, credential, version, username, target, region, outcome, seq, at, v2 } = fields;
    let (seq, kind) = (seq.to_string(), if v2.is_some() { "relaykey-proof-v2" } else { "relaykey-proof-v1" });
    let mut texts = vec![kind, host_id, host, credential, version, username, target, region, outcome, &seq, at];
    if let Some(SignedToo { source, evidence_at, lists }) = v2 {
        texts.extend([source.as_str(), evidence_at]);
        texts.extend(lists.iter().map(String::as_str));
    }
    mac(password, &texts)
}

fn code_mac(password: &Secret, fields: &CodeFields) -> Result<HmacSha256, &'static str> {
    let CodeFields { host, credential, version, nonce } = fields;
    mac(password, &["relaykey-code-v1", host, credential, version, nonce])
}

/// Each text is followed by a line feed, and none has one inside: no other list of texts gives the same bytes.
fn mac(password: &Secret, texts: &[&str]) -> Result<HmacSha256, &'static str> {
    if ses_password_form(password.expose()).is_err() {
        return Err(WEAK);
    }
    if texts.iter().any(|text| text.chars().any(char::is_control)) {
        return Err(CONTROL);
    }
    let mut mac = HmacSha256::new_from_slice(password.expose().as_bytes()).expect("HMAC takes a key of any length");
    for text in texts {
        mac.update(text.as_bytes());
        mac.update(b"\n");
    }
    Ok(mac)
}

/// The first 40 bits of a keyed hash, for people to read out and type: eight symbols of Crockford's base 32
/// (<https://www.crockford.com/base32.html>), which has no letters that are taken for digits. `Display`: `XXXX-XXXX`.
#[derive(Debug, Clone, Copy)]
pub struct Code([u8; Code::BYTES]);

const SYMBOLS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Code {
    const BYTES: usize = 5;
    /// Symbols of a code, five bits each.
    const LENGTH: usize = 8;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for at in 0..Self::LENGTH {
            let five = bits >> (5 * (Self::LENGTH - 1 - at)) & 31;
            let dash = if at == Self::LENGTH / 2 { "-" } else { "" };
            write!(f, "{dash}{}", char::from(SYMBOLS[five as usize]))?;
        }
        Ok(())
    }
}

/// Why a text is no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    #[error("a code has 8 letters and digits, and this has {0}")]
    Length(usize),
    #[error("{0:?} is in no code: it consists of digits and of letters other than U")]
    Symbol(char),
}

impl FromStr for Code {
    type Err = CodeError;

    /// Takes what people type, as Crockford's decoding does: in either case, `O` for 0, `I` and `L` for 1; hyphens and
    /// blanks do not count.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let (mut bits, mut length) = (0_u64, 0);
        for typed in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
            let symbol = match typed.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let value = SYMBOLS.iter().position(|s| char::from(*s) == symbol).ok_or(CodeError::Symbol(typed))?;
            bits = bits << 5 | value as u64;
            length += 1;
        }
        if length != Self::LENGTH {
            return Err(CodeError::Length(length));
        }
        let mut bytes = [0; Self::BYTES];
        bytes.copy_from_slice(&bits.to_be_bytes()[8 - Self::BYTES..]);
        Ok(Self(bytes))
    }
}
