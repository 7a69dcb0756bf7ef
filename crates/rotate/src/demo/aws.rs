//! As much of AWS as a rotation needs, in this process, on loopback, in its own protocols, for the real SDK: IAM and STS (Query),
//! Secrets Manager and DynamoDB (JSON). One user, one secret, one table. What becomes of a key becomes known at the SES stand-in at
//! once.
//!
//! How it differs from AWS: signatures and policies are not looked at, everything is known everywhere at once, and of DynamoDB's
//! expressions it understands those that this program writes.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use relaykey::standin::Standin;
use relaykey_core::credential::{Secret, ses_smtp_password};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// The region of everything here.
pub const REGION: &str = "us-east-1";
/// The one account.
const ACCOUNT: &str = "111122223333";
/// Who asks, as STS names them.
pub const CALLER: &str = "arn:aws:iam::111122223333:user/you";

type ItemJson = Map<String, Value>;

struct IamKey {
    id: String,
    active: bool,
    created: Timestamp,
}

struct AwsVersion {
    id: String,
    value: Secret,
    labels: Vec<String>,
    created: Timestamp,
}

#[derive(Default)]
struct AwsState {
    keys: Vec<IamKey>,
    made: u32,
    versions: Vec<AwsVersion>,
    items: Vec<ItemJson>,
    #[cfg(test)]
    denied: Vec<&'static str>,
    #[cfg(test)]
    denied_after: Option<(&'static str, &'static str)>,
    #[cfg(test)]
    asked: Vec<String>,
}

/// Names of the table's keys.
pub const PARTITION: &str = "principal";
pub const SORT: &str = "credential#host_id";

struct AwsShared {
    user: String,
    secret: String,
    ses: Arc<Standin>,
    state: Mutex<AwsState>,
}

/// A running stand-in. Dropping it ends its thread.
pub struct AwsStandin {
    shared: Arc<AwsShared>,
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a service says no with: its code, and words.
struct AwsRefusal(&'static str, String);

type AwsAnswer = Result<Value, AwsRefusal>;

fn no<T>(code: &'static str, words: impl Into<String>) -> Result<T, AwsRefusal> {
    Err(AwsRefusal(code, words.into()))
}

impl AwsStandin {
    /// With one IAM user that has one key, which is published in one secret.
    pub fn start(user: &str, secret: &str, ses: Arc<Standin>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let state = Mutex::default();
        let shared = Arc::new(AwsShared { user: user.into(), secret: secret.into(), ses, state });
        shared.first_key()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("aws-standin".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = accept(serving, listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { shared, port, stop: Some(stop), thread: Some(thread) })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The ids of all keys, with whether each is active.
    pub fn keys(&self) -> Vec<(String, bool)> {
        self.shared.lock().keys.iter().map(|key| (key.id.clone(), key.active)).collect()
    }
}

/// What tests of commands do with it.
#[cfg(test)]
impl AwsStandin {
    /// From now on these are denied, and no others.
    pub fn denies(&self, actions: &[&'static str]) {
        self.shared.lock().denied = actions.to_vec();
    }

    /// As soon as the first was asked, the other is denied.
    pub fn denies_after(&self, action: &'static str, denied: &'static str) {
        self.shared.lock().denied_after = Some((action, denied));
    }

    /// How often this was asked.
    pub fn asked(&self, action: &str) -> usize {
        self.shared.lock().asked.iter().filter(|asked| *asked == action).count()
    }

    /// Somebody else's hand.
    pub fn deactivated(&self, id: &str) {
        self.shared.lock().keys.iter_mut().filter(|key| key.id == id).for_each(|key| key.active = false);
    }

    /// The same with AWSPENDING.
    pub fn staged(&self, value: &str) {
        let mut state = self.shared.lock();
        move_label(&mut state.versions, "AWSPENDING", None);
        let (id, value) = ("99999999-9999-4999-8999-999999999999".into(), Secret::new(value.into()));
        state.versions.push(AwsVersion { id, value, labels: vec!["AWSPENDING".into()], created: Timestamp::now() });
    }
}

#[cfg(test)]
impl AwsShared {
    fn allowed(&self, action: &str) -> Result<(), AwsRefusal> {
        let mut state = self.lock();
        state.asked.push(action.to_owned());
        let after = state.denied_after.take_if(|(first, _)| *first == action);
        state.denied.extend(after.map(|(_, denied)| denied));
        match state.denied.contains(&action) {
            true => no("AccessDeniedException", format!("not authorized to perform: {action}")),
            false => Ok(()),
        }
    }
}

impl Drop for AwsStandin {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(shared: Arc<AwsShared>, listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            // A client that goes away is none of our business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(shared: Arc<AwsShared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok()).map(str::to_owned);
    let body = match Limited::new(request.into_body(), 1 << 20).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(reply(StatusCode::BAD_REQUEST, "text/plain", String::new())),
    };
    Ok(match target.as_deref().and_then(|target| target.rsplit_once('.')) {
        Some((service, action)) => {
            let input = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let answered = match service {
                "secretsmanager" => shared.secrets_manager(action, &input),
                _ => shared.dynamodb(action, &input),
            };
            let kind =
                if service == "secretsmanager" { "application/x-amz-json-1.1" } else { "application/x-amz-json-1.0" };
            match answered {
                Ok(value) => reply(StatusCode::OK, kind, value.to_string()),
                Err(AwsRefusal(code, words)) => {
                    let mut value = json!({"__type": code, "message": words});
                    if code == "TransactionCanceledException" {
                        value["CancellationReasons"] = json!([{"Code": "ConditionalCheckFailed", "Message": words}]);
                    }
                    reply(StatusCode::BAD_REQUEST, kind, value.to_string())
                }
            }
        }
        None => match shared.query(&form(&body)) {
            Ok(xml) => reply(StatusCode::OK, "text/xml", xml),
            Err(AwsRefusal(code, words)) => {
                let status = if code == "NoSuchEntity" { StatusCode::NOT_FOUND } else { StatusCode::CONFLICT };
                let error = format!("<Type>Sender</Type><Code>{code}</Code><Message>{words}</Message>");
                let xml = format!("<ErrorResponse><Error>{error}</Error><RequestId>demo</RequestId></ErrorResponse>");
                reply(status, "text/xml", xml)
            }
        },
    })
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(kind));
    response.headers_mut().insert("x-amzn-requestid", hyper::header::HeaderValue::from_static("demo"));
    response
}

/// `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let hex: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&hex, 16).unwrap_or(b'?')
                }
                other => other,
            });
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let body = String::from_utf8_lossy(body).into_owned();
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn text<'a>(input: &'a Value, name: &str) -> &'a str {
    input[name].as_str().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "AWS tells times as floating point numbers")]
fn epoch(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

impl AwsShared {
    fn lock(&self) -> MutexGuard<'_, AwsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_key(&self) -> io::Result<()> {
        let mut state = self.lock();
        let (id, secret) = self.make(&mut state).map_err(|AwsRefusal(_, words)| io::Error::other(words))?;
        let value = json!({"accessKeyId": id, "secretAccessKey": secret.expose()}).to_string();
        state.versions.push(AwsVersion {
            id: "11111111-1111-4111-8111-111111111111".into(),
            value: Secret::new(value),
            labels: vec!["AWSCURRENT".into()],
            created: Timestamp::now(),
        });
        Ok(())
    }

    /// A new key, which SES knows at once.
    fn make(&self, state: &mut AwsState) -> Result<(String, Secret), AwsRefusal> {
        state.made += 1;
        let random = || getrandom::u64().map_err(|e| AwsRefusal("ServiceFailure", e.to_string()));
        let id = format!("AKIADEMO{:012}", state.made);
        let secret = Secret::new(format!("demo{:016x}{:016x}{:04x}", random()?, random()?, random()? & 0xffff));
        self.ses.set_key(&id, &ses_smtp_password(&secret, REGION));
        state.keys.push(IamKey { id: id.clone(), active: true, created: Timestamp::now() });
        Ok((id, secret))
    }

    /// IAM and STS.
    fn query(&self, form: &[(String, String)]) -> Result<String, AwsRefusal> {
        let get = |name: &str| form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        let action = get("Action");
        #[cfg(test)]
        self.allowed(action)?;
        let wrap = |namespace: &str, result: &str| {
            format!(
                "<{action}Response xmlns=\"{namespace}\"><{action}Result>{result}</{action}Result><ResponseMetadata><RequestId>demo\
                 </RequestId></ResponseMetadata></{action}Response>"
            )
        };
        if action == "GetCallerIdentity" {
            let result = format!("<Arn>{CALLER}</Arn><UserId>AIDADEMOYOU</UserId><Account>{ACCOUNT}</Account>");
            return Ok(wrap("https://sts.amazonaws.com/doc/2011-06-15/", &result));
        }
        let mut state = self.lock();
        if !get("UserName").is_empty() && get("UserName") != self.user {
            return no("NoSuchEntity", "The user cannot be found.");
        }
        let id = get("AccessKeyId").to_owned();
        let at = state.keys.iter().position(|key| key.id == id);
        let known =
            at.ok_or_else(|| AwsRefusal("NoSuchEntity", format!("The Access Key with id {id} cannot be found.")));
        let word = |active: bool| if active { "Active" } else { "Inactive" };
        let result = match action {
            "ListAccessKeys" => {
                let mut members = String::new();
                for key in &state.keys {
                    members += &format!(
                        "<member><UserName>{}</UserName><AccessKeyId>{}</AccessKeyId><Status>{}</Status><CreateDate>{:.0}</CreateDate>\
                         </member>",
                        self.user,
                        key.id,
                        word(key.active),
                        key.created
                    );
                }
                format!("<AccessKeyMetadata>{members}</AccessKeyMetadata><IsTruncated>false</IsTruncated>")
            }
            "GetAccessKeyLastUsed" => {
                known?;
                let logins = self.ses.logins();
                let used =
                    logins.iter().rev().find(|login| login.accepted && login.username == id).map(|login| login.at);
                let used = match used {
                    Some(at) => {
                        format!(
                            "<LastUsedDate>{at:.0}</LastUsedDate><ServiceName>ses</ServiceName><Region>{REGION}</Region>"
                        )
                    }
                    None => "<ServiceName>N/A</ServiceName><Region>N/A</Region>".into(),
                };
                format!("<UserName>{}</UserName><AccessKeyLastUsed>{used}</AccessKeyLastUsed>", self.user)
            }
            "CreateAccessKey" => {
                if state.keys.len() > 1 {
                    return no("LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2");
                }
                let (id, secret) = self.make(&mut state)?;
                format!(
                    "<AccessKey><UserName>{}</UserName><AccessKeyId>{id}</AccessKeyId><Status>Active</Status><SecretAccessKey>{}\
                     </SecretAccessKey><CreateDate>{:.0}</CreateDate></AccessKey>",
                    self.user,
                    secret.expose(),
                    Timestamp::now()
                )
            }
            "UpdateAccessKey" => {
                let active = get("Status") == "Active";
                state.keys[known?].active = active;
                if active {
                    self.ses.activate(&id)
                } else {
                    self.ses.deactivate(&id)
                }
                String::new()
            }
            "DeleteAccessKey" => {
                state.keys.remove(known?);
                self.ses.remove(&id);
                String::new()
            }
            _ => return no("InvalidAction", format!("{action} is not in the demo's AWS")),
        };
        Ok(wrap("https://iam.amazonaws.com/doc/2010-05-08/", &result))
    }

    fn secrets_manager(&self, action: &str, input: &Value) -> AwsAnswer {
        #[cfg(test)]
        self.allowed(action)?;
        let mut state = self.lock();
        if text(input, "SecretId") != self.secret {
            return no("ResourceNotFoundException", "Secrets Manager can't find the specified secret.");
        }
        let arn = format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{}-AbCdEf", self.secret);
        let mut answer = json!({"ARN": arn, "Name": self.secret});
        let missing =
            || AwsRefusal("ResourceNotFoundException", "Secrets Manager can't find the specified secret value.".into());
        match action {
            "DescribeSecret" => {
                let labelled = state.versions.iter().filter(|version| !version.labels.is_empty());
                let stages: ItemJson = labelled.map(|version| (version.id.clone(), json!(version.labels))).collect();
                answer["VersionIdsToStages"] = Value::Object(stages);
                answer["CreatedDate"] = json!(epoch(state.versions[0].created));
            }
            "ListSecretVersionIds" => {
                let all = input["IncludeDeprecated"].as_bool().unwrap_or(false);
                let shown = state.versions.iter().filter(|version| all || !version.labels.is_empty());
                let version = |v: &AwsVersion| json!({"VersionId": v.id, "VersionStages": v.labels, "CreatedDate": epoch(v.created)});
                answer["Versions"] = shown.map(version).collect();
            }
            "GetSecretValue" => {
                let stage = input["VersionStage"].as_str().unwrap_or("AWSCURRENT");
                let fits = |version: &&AwsVersion| match input["VersionId"].as_str() {
                    Some(id) => version.id == id,
                    None => version.labels.iter().any(|label| label == stage),
                };
                let version = state.versions.iter().find(fits).ok_or_else(missing)?;
                answer["VersionId"] = json!(version.id);
                answer["SecretString"] = json!(version.value.expose());
                answer["VersionStages"] = json!(version.labels);
                answer["CreatedDate"] = json!(epoch(version.created));
            }
            "PutSecretValue" => {
                let id = text(input, "ClientRequestToken").to_owned();
                let labels: Vec<String> = input["VersionStages"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect();
                let labels = if labels.is_empty() { vec!["AWSCURRENT".to_owned()] } else { labels };
                if state.versions.iter().all(|version| version.id != id) {
                    let value = Secret::new(text(input, "SecretString").to_owned());
                    for label in &labels {
                        move_label(&mut state.versions, label, None);
                    }
                    let created = Timestamp::now();
                    state.versions.push(AwsVersion { id: id.clone(), value, labels: labels.clone(), created });
                }
                answer["VersionId"] = json!(id);
                answer["VersionStages"] = json!(labels);
            }
            "UpdateSecretVersionStage" => {
                let label = text(input, "VersionStage");
                let holder = state.versions.iter().find(|version| version.labels.iter().any(|l| l == label));
                let holder = holder.map(|version| version.id.clone());
                let from = input["RemoveFromVersionId"].as_str();
                if holder.is_some() && holder.as_deref() != from {
                    return no(
                        "InvalidParameterException",
                        "The label is on another version than RemoveFromVersionId.",
                    );
                }
                move_label(&mut state.versions, label, input["MoveToVersionId"].as_str());
            }
            _ => return no("InvalidRequestException", format!("{action} is not in the demo's AWS")),
        }
        Ok(answer)
    }

    fn dynamodb(&self, action: &str, input: &Value) -> AwsAnswer {
        #[cfg(test)]
        self.allowed(action)?;
        let mut state = self.lock();
        let items = &mut state.items;
        match action {
            "DescribeTable" => {
                let key = |name: &str, kind: &str| json!({"AttributeName": name, "KeyType": kind});
                let schema = [key(PARTITION, "HASH"), key(SORT, "RANGE")];
                Ok(
                    json!({"Table": {"TableName": text(input, "TableName"), "TableStatus": "ACTIVE", "KeySchema": schema}}),
                )
            }
            "GetItem" => Ok(match position(items, &input["Key"]) {
                Some(at) => json!({"Item": items[at]}),
                None => json!({}),
            }),
            "PutItem" => {
                put(items, input)?;
                Ok(json!({}))
            }
            "TransactWriteItems" => {
                let puts = input["TransactItems"].as_array().cloned().unwrap_or_default();
                for one in &puts {
                    if !holds(items, &one["Put"]) {
                        return no("TransactionCanceledException", "The conditional request failed");
                    }
                }
                for one in &puts {
                    put(items, &one["Put"])?;
                }
                Ok(json!({}))
            }
            "BatchWriteItem" => {
                let tables = input["RequestItems"].as_object().cloned().unwrap_or_default();
                for request in tables.values().filter_map(Value::as_array).flatten() {
                    if request["PutRequest"].is_object() {
                        put(items, &request["PutRequest"])?;
                    } else if let Some(at) = position(items, &request["DeleteRequest"]["Key"]) {
                        items.remove(at);
                    }
                }
                Ok(json!({"UnprocessedItems": {}}))
            }
            "Query" | "Scan" => {
                // One segment has them all.
                let first = input["Segment"].as_u64().unwrap_or(0) == 0;
                let expression = match action {
                    "Query" => text(input, "KeyConditionExpression"),
                    _ => text(input, "FilterExpression"),
                };
                let fits = |item: &&ItemJson| first && is_so(expression, Some(item), input);
                let mut found: Vec<&ItemJson> = items.iter().filter(fits).collect();
                found.sort_by_key(|item| item[SORT]["S"].as_str().unwrap_or_default().to_owned());
                Ok(json!({"Items": found, "Count": found.len(), "ScannedCount": found.len()}))
            }
            _ => no("UnknownOperationException", format!("{action} is not in the demo's AWS")),
        }
    }
}

/// A label stands on one version. AWSPREVIOUS follows AWSCURRENT.
fn move_label(versions: &mut [AwsVersion], label: &str, to: Option<&str>) {
    let mut left = None;
    for version in versions.iter_mut() {
        if version.labels.iter().any(|known| known == label) {
            version.labels.retain(|known| known != label);
            left = Some(version.id.clone());
        }
    }
    if let Some(version) = versions.iter_mut().find(|version| Some(version.id.as_str()) == to) {
        version.labels.push(label.into());
    }
    if let Some(left) = left.filter(|_| label == "AWSCURRENT") {
        move_label(versions, "AWSPREVIOUS", Some(&left));
    }
}

fn position(items: &[ItemJson], key: &Value) -> Option<usize> {
    items.iter().position(|item| [PARTITION, SORT].iter().all(|name| item.get(*name) == key.get(*name)))
}

/// Does the condition of this put hold?
fn holds(items: &[ItemJson], put: &Value) -> bool {
    let there = position(items, &put["Item"]).map(|at| &items[at]);
    is_so(text(put, "ConditionExpression"), there, put)
}

fn put(items: &mut Vec<ItemJson>, put: &Value) -> Result<(), AwsRefusal> {
    let Some(item) = put["Item"].as_object().cloned() else {
        return no("ValidationException", "there is no item");
    };
    if !holds(items, put) {
        return no("ConditionalCheckFailedException", "The conditional request failed");
    }
    match position(items, &put["Item"]) {
        Some(at) => items[at] = item,
        None => items.push(item),
    }
    Ok(())
}

/// Conditions with AND between them: `attribute_not_exists(#a)`, `begins_with(#a, :b)`, `#a = :b`.
fn is_so(expression: &str, item: Option<&ItemJson>, request: &Value) -> bool {
    let attribute = |name: &str| {
        let name = request["ExpressionAttributeNames"][name.trim()].as_str().unwrap_or(name.trim());
        item.and_then(|item| item.get(name))
    };
    let value = |name: &str| &request["ExpressionAttributeValues"][name.trim()];
    let one = |condition: &str| {
        if let Some(name) = inside(condition, "attribute_not_exists") {
            return attribute(name).is_none();
        }
        if let Some((name, start)) = inside(condition, "begins_with").and_then(|inside| inside.split_once(',')) {
            let there = attribute(name).and_then(|value| value["S"].as_str()).unwrap_or_default();
            return there.starts_with(value(start)["S"].as_str().unwrap_or("\0"));
        }
        condition.split_once('=').is_some_and(|(name, wanted)| attribute(name) == Some(value(wanted)))
    };
    expression.is_empty() || expression.split(" AND ").all(|condition| one(condition.trim()))
}

fn inside<'a>(condition: &'a str, function: &str) -> Option<&'a str> {
    condition.strip_prefix(function)?.trim().strip_prefix('(')?.strip_suffix(')')
}
