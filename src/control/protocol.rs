//! What goes over the socket: requests, lines of answers, and who may say how much.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ANSWER_TIME;
use crate::instruction::relaykey;

/// The version of the protocol, in every request.
pub const VERSION: u64 = 1;

/// The longest line of an answer that is sent and taken, in bytes: a status document with its history is far shorter.
pub(super) const MAX_ANSWER: usize = 16 << 20;

/// The longest wait that a client may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How much longer than `wait_seconds` a rollover may be silent: a step that was begun is finished.
const STEP_TIME: Duration = Duration::from_secs(120);

/// Of a text from outside, what is kept.
const MAX_CLAIMED: usize = 64;

/// Of the reason of a rejection, in characters.
pub const MAX_REASON: usize = 500;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlRequest {
    /// A rollover now, of what is new.
    Sync(SyncRequest),
    /// The version that waits may go.
    Approve(ApproveRequest),
    /// The version that waits is not to be taken.
    Reject(RejectRequest),
    /// Reads back what is there, and confirms it if it is right.
    Confirm(ConfirmRequest),
    /// This host leaves the fleet.
    Deregister(DeregisterRequest),
    /// The status document.
    Status,
}

/// What `sync` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// Credentials to look at; empty: all.
    pub names: Vec<String>,
    /// A version to take although it was left behind.
    pub accept_version: Option<String>,
    /// An access key id to take as an earlier one of the one credential, for root alone. A daemon that does not know it refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How long to wait for what fails for now; at most [`MAX_WAIT`].
    pub wait_seconds: u64,
}

/// What `approve` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// One credential.
    pub names: Vec<String>,
    /// The version that is meant; without it the one that waits.
    pub version: Option<String>,
    /// As for `sync`.
    pub wait_seconds: u64,
}

/// What `reject` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    /// One credential.
    pub names: Vec<String>,
    /// The version that is meant; without it the one that waits.
    pub version: Option<String>,
    /// At most [`MAX_REASON`] characters are kept.
    pub reason: String,
}

/// What `confirm` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// One credential.
    pub names: Vec<String>,
    /// Where the typed code is wanted too: the nonce of the invitation, or an empty text.
    pub code: Option<String>,
    /// As for `sync`.
    pub wait_seconds: u64,
}

/// What `deregister` is asked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeregisterRequest {
    /// Credentials; empty: all.
    pub names: Vec<String>,
}

impl ControlRequest {
    /// How long the daemon may be silent over it.
    pub(super) fn patience(&self) -> Duration {
        match self {
            ControlRequest::Sync(SyncRequest { wait_seconds, .. })
            | ControlRequest::Approve(ApproveRequest { wait_seconds, .. })
            | ControlRequest::Confirm(ConfirmRequest { wait_seconds, .. }) => {
                Duration::from_secs(*wait_seconds).min(MAX_WAIT) + STEP_TIME
            }
            ControlRequest::Reject(_) | ControlRequest::Deregister(_) => STEP_TIME,
            ControlRequest::Status => ANSWER_TIME,
        }
    }
}

impl ControlRequest {
    /// As a line of the protocol.
    pub(super) fn bytes(&self, claimed: Option<&str>) -> Vec<u8> {
        let (command, fields) = match self {
            ControlRequest::Sync(sync) => ("sync", serde_json::to_value(sync)),
            ControlRequest::Approve(approve) => ("approve", serde_json::to_value(approve)),
            ControlRequest::Reject(reject) => ("reject", serde_json::to_value(reject)),
            ControlRequest::Confirm(confirm) => ("confirm", serde_json::to_value(confirm)),
            ControlRequest::Deregister(deregister) => ("deregister", serde_json::to_value(deregister)),
            ControlRequest::Status => ("status", Ok(Value::Object(serde_json::Map::new()))),
        };
        let fields = fields.expect("a request has only text keys");
        let Value::Object(mut map) = fields else { unreachable!("a struct is an object") };
        map.insert("relaykey".into(), VERSION.into());
        map.insert("command".into(), command.into());
        if let Some(claimed) = claimed {
            map.insert("claimed".into(), plain(claimed, MAX_CLAIMED).into());
        }
        let mut bytes = serde_json::to_vec(&map).expect("text keys");
        bytes.push(b'\n');
        bytes
    }

    /// From a line of the protocol: the request, and who its sender claims to be.
    ///
    /// A field that is not known is an error: what it asks to be done otherwise must not be done the usual way.
    pub(super) fn parse(line: &[u8]) -> Result<(Self, Option<String>), RequestRefusal> {
        let value: Value =
            serde_json::from_slice(line).map_err(|e| malformed(format!("the request is not JSON: {}", said(&e))))?;
        let Value::Object(mut map) = value else { return Err(malformed("the request is not a JSON object")) };
        match map.remove("relaykey").as_ref().and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(RequestRefusal {
                    what: format!("the request is in version {other} of the protocol, the daemon speaks {VERSION}"),
                    fix: "after an upgrade restart the daemon: systemctl restart relaykey".into(),
                    temporary: false,
                });
            }
            None => return Err(malformed("the request does not say `\"relaykey\":1`")),
        }
        let claimed = match map.remove("claimed") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(plain(&text, MAX_CLAIMED)),
            Some(_) => return Err(malformed("`claimed` is not a text")),
        };
        let Some(Value::String(command)) = map.remove("command") else {
            return Err(malformed("the request names no command"));
        };
        let request = match command.as_str() {
            "sync" => {
                let mut sync: SyncRequest = fields(map, "sync")?;
                sync.wait_seconds = sync.wait_seconds.min(MAX_WAIT.as_secs());
                ControlRequest::Sync(sync)
            }
            "approve" => {
                let mut approve: ApproveRequest = fields(map, "approve")?;
                approve.wait_seconds = approve.wait_seconds.min(MAX_WAIT.as_secs());
                ControlRequest::Approve(approve)
            }
            "reject" => {
                let mut reject: RejectRequest = fields(map, "reject")?;
                // It goes to logs, reports and pages.
                reject.reason = plain(&reject.reason, MAX_REASON).trim().to_owned();
                if reject.reason.is_empty() {
                    return Err(malformed("reject: a reason is missing"));
                }
                ControlRequest::Reject(reject)
            }
            "confirm" => {
                let mut confirm: ConfirmRequest = fields(map, "confirm")?;
                confirm.wait_seconds = confirm.wait_seconds.min(MAX_WAIT.as_secs());
                ControlRequest::Confirm(confirm)
            }
            "deregister" => ControlRequest::Deregister(fields(map, "deregister")?),
            "status" => match map.keys().next() {
                None => ControlRequest::Status,
                Some(key) => return Err(malformed(format!("status: unknown field `{}`", plain(key, 64)))),
            },
            other => {
                return Err(RequestRefusal {
                    what: format!("the daemon has no command {:?}", plain(other, 64)),
                    fix: format!(
                        "it is relaykey {}: after an upgrade restart it: systemctl restart relaykey",
                        env!("CARGO_PKG_VERSION")
                    ),
                    temporary: false,
                });
            }
        };
        Ok((request, claimed))
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As the kernel says it.
    pub uid: u32,
    /// The same.
    pub gid: u32,
    /// The same; `None`: a process of another pid namespace.
    pub pid: Option<i32>,
    /// Who they say to be, such as sudo's user: at most 64 characters, none of them a control character.
    pub claimed: Option<String>,
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRefusal {
    /// What stands in the way.
    pub what: String,
    /// What to do about it.
    pub fix: String,
    /// Will asking again help without anybody doing anything?
    pub temporary: bool,
}

/// What a request comes to.
pub type RequestAnswer = Result<Value, RequestRefusal>;

/// One line of an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AnswerLine {
    Taken(bool),
    Progress(String),
    Document(Value),
    Error(RequestRefusal),
}

impl AnswerLine {
    /// What is said can be heard: what is longer than a client takes is said to be so.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("lines have only text keys");
        if bytes.len() > MAX_ANSWER {
            let refusal = RequestRefusal {
                what: format!("the answer has {} bytes, and at most {MAX_ANSWER} are taken", bytes.len()),
                fix: "ask for one credential at a time; what was asked for was done".into(),
                temporary: false,
            };
            bytes = serde_json::to_vec(&AnswerLine::Error(refusal)).expect("lines have only text keys");
        }
        bytes.push(b'\n');
        bytes
    }
}

impl From<RequestAnswer> for AnswerLine {
    fn from(answer: RequestAnswer) -> Self {
        match answer {
            Ok(document) => AnswerLine::Document(document),
            Err(refusal) => AnswerLine::Error(refusal),
        }
    }
}

fn fields<T: DeserializeOwned>(map: serde_json::Map<String, Value>, command: &str) -> Result<T, RequestRefusal> {
    serde_json::from_value(Value::Object(map)).map_err(|e| malformed(format!("{command}: {}", said(&e))))
}

pub(super) fn malformed(what: impl Into<String>) -> RequestRefusal {
    RequestRefusal {
        what: what.into(),
        fix: format!("ask with `relaykey`, such as `{}` or `{}`", relaykey("sync"), relaykey("status")),
        temporary: false,
    }
}

/// What a parser says, which may quote what was sent.
pub(super) fn said(e: &serde_json::Error) -> String {
    plain(&e.to_string(), 200)
}

/// A text from outside, cut, and without what a terminal would obey.
fn plain(text: &str, max: usize) -> String {
    crate::text::plain(text, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_longer_than_a_client_takes() {
        let long = AnswerLine::Document(Value::String("x".repeat(MAX_ANSWER)));
        let bytes = long.bytes();
        assert!(bytes.len() < 1000 && bytes.ends_with(b"\n"));
        let AnswerLine::Error(refusal) = serde_json::from_slice(&bytes).expect("a line") else { panic!("an error") };
        assert!(!refusal.temporary && refusal.what.contains("bytes"), "{refusal:?}");
        let fits = AnswerLine::Document(Value::String("x".repeat(MAX_ANSWER - 100)));
        assert!(matches!(serde_json::from_slice(&fits.bytes()), Ok(AnswerLine::Document(_))));
    }

    #[test]
    fn what_a_client_writes_is_what_the_daemon_reads() {
        let sync = |names: &[&str], accept_version: Option<&str>, wait_seconds| {
            ControlRequest::Sync(SyncRequest {
                names: names.iter().map(|n| (*n).to_owned()).collect(),
                accept_version: accept_version.map(str::to_owned),
                previous: None,
                wait_seconds,
            })
        };
        let ControlRequest::Sync(plain) = sync(&["ses"], None, 1) else { unreachable!("as it was made") };
        let previous = ControlRequest::Sync(SyncRequest { previous: Some("AKIAEARLIER".into()), ..plain });
        let table = [
            (previous, None),
            (ControlRequest::Status, None),
            (ControlRequest::Status, Some("alice")),
            (sync(&[], None, 0), None),
            (sync(&["ses", "other"], Some("v \" 1\n"), MAX_WAIT.as_secs()), Some("bob")),
        ];
        for (request, claimed) in table {
            let bytes = request.bytes(claimed);
            assert_eq!(bytes.iter().position(|b| *b == b'\n'), Some(bytes.len() - 1), "one line");
            let read = ControlRequest::parse(&bytes[..bytes.len() - 1]);
            assert_eq!(read, Ok((request, claimed.map(str::to_owned))));
        }
        let bytes = sync(&[], None, u64::MAX).bytes(None);
        let (read, _) = ControlRequest::parse(&bytes).expect("read");
        assert_eq!(read, sync(&[], None, MAX_WAIT.as_secs()), "no wait without an end");
    }

    #[test]
    fn every_line_of_an_answer_is_one_key() {
        let refusal = RequestRefusal { what: "a".into(), fix: "b".into(), temporary: true };
        let table = [
            (AnswerLine::Taken(true), r#"{"taken":true}"#),
            (AnswerLine::Progress("a\nb".into()), r#"{"progress":"a\nb"}"#),
            (Ok(Value::from(1)).into(), r#"{"document":1}"#),
            (Err(refusal).into(), r#"{"error":{"what":"a","fix":"b","temporary":true}}"#),
        ];
        for (line, text) in table {
            assert_eq!(String::from_utf8(line.bytes()), Ok(format!("{text}\n")));
        }
    }
}
