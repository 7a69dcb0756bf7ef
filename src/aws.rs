//! How AWS is reached: one HTTP client given by hand, roles, regions, proxies, and what its errors mean.
//!
//! A [`Session`] belongs to one `config::Aws`. It loads the SDK's configuration lazily, so that a host whose network
//! comes up late starts all the same, and forgets it after an error that blames the identity: the SDK keeps keys it
//! read from a profile file for as long as its configuration lives, and a person may have repaired the file.
//!
//! Where credentials come from, in the SDK's order: the environment, the profile, a web identity, the container, the
//! instance metadata. A `profile` in the configuration names one and so comes before the environment. A `role_arn` is
//! assumed with what these give.
//!
//! Proxies: `proxy` is used for every HTTPS connection and nothing else, so that instance metadata and container
//! credentials, plain HTTP on link-local addresses, are asked directly. Without it HTTPS_PROXY, HTTP_PROXY, ALL_PROXY
//! and NO_PROXY are honoured as the SDK does; where HTTP_PROXY is set, NO_PROXY has to name 169.254.169.254.
//!
//! No answer is held in memory beyond [`MAX_ANSWER`], whoever gives it: the service, the metadata of the instance, a proxy.

mod files;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_sdk_secretsmanager::config::{RuntimeComponents, SharedHttpClient};
use aws_sdk_secretsmanager::error::{ConnectorError, ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::RequestId;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http_body_util::{LengthLimitError, Limited};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::config::Aws;
use crate::credential::has_secret_shape;
use crate::fault::{Class, Fault};
use crate::host::trust::Doubt;
use crate::text::line_of;
use crate::tls;

/// AWS's own words are cut to this many characters in an error.
const MAX_WORDS: usize = 700;
/// The most that is taken of one answer. A secret has 64 KiB at most, and no other answer that is asked for has much more.
const MAX_ANSWER: usize = 1024 * 1024;

/// What all AWS connections of this process share: the certificates that are trusted, and how long is waited.
#[derive(Clone)]
pub struct Http {
    /// Those that can be used, PEM. A quarter of a megabyte as a rule: once for all clients.
    roots_pem: Arc<[u8]>,
    limits: Limits,
}

impl Http {
    /// `roots_pem`: the trusted certificate authorities, PEM, concatenated. That there are any is asked when a [`Session`]
    /// is made: a host that reaches no AWS service needs none.
    pub fn new(roots_pem: &[u8]) -> Self {
        let usable: Vec<u8> = usable_roots(roots_pem).flatten().collect();
        Self { roots_pem: usable.into(), limits: Limits::default() }
    }

    /// Which certificate authorities are trusted, as a hash: another one, and connections have to be made anew.
    pub fn trust(&self) -> [u8; 32] {
        Sha256::digest(&self.roots_pem).into()
    }

    /// With other limits than the default ones.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The SDK's HTTP client, with these roots and `proxy`, or the environment's proxies.
    fn client(&self, proxy: Option<&str>) -> Result<SharedHttpClient, Fault> {
        if self.roots_pem.is_empty() {
            return Err(Fault::new(
                Class::Tls,
                "no trusted certificate authority is known, so no AWS endpoint can be checked",
                "install the system's certificates (package ca-certificates), or set SSL_CERT_FILE to a bundle in PEM form",
            ));
        }
        let roots_pem = Arc::clone(&self.roots_pem);
        let proxy = match proxy {
            Some(url) => explicit_proxy(url)?,
            None => ProxyConfig::from_env(),
        };
        // The SDK's plain `build_https` knows no proxy; this constructor is the one its own default client uses.
        let client = Builder::new().build_with_connector_fn(move |settings, components| {
            // Made when a connector is, which is once for each kind of call, and gone with it: only what TLS itself needs
            // of the certificates stays.
            let trust = TrustStore::empty().with_pem_certificate(&*roots_pem);
            let tls = TlsContext::builder().with_trust_store(trust).build().expect("a context is only its parts");
            let mut connector = Connector::builder()
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .tls_context(tls)
                .proxy_config(proxy.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|c| c.sleep_impl()));
            connector.build()
        });
        Ok(SharedHttpClient::new(Bounded(client)))
    }
}

/// An HTTP client, or a connector of one, whose answers end with an error after [`MAX_ANSWER`]. The SDK itself reads an answer
/// to its end before it looks at it.
#[derive(Debug)]
struct Bounded<T>(T);

impl HttpClient for Bounded<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Bounded(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for Bounded<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let bounded = |body| SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER));
            answer.await.map(|answer| answer.map(bounded))
        })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("roots_pem", &self.roots_pem.len()).field("limits", &self.limits).finish()
    }
}

/// The certificates that rustls takes as roots, each as PEM of its own. The SDK panics on any other, and a system
/// bundle may well hold one that is too old for it.
fn usable_roots(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).filter_map(|der| {
        rustls::RootCertStore::empty().add(der.clone()).ok()?;
        let body = BASE64.encode(&der);
        let mut pem = b"-----BEGIN CERTIFICATE-----\n".to_vec();
        for line in body.as_bytes().chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
        Some(pem)
    })
}

/// The configured proxy. It may hold a password, so no error repeats it.
fn explicit_proxy(url: &str) -> Result<ProxyConfig, Fault> {
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    ProxyConfig::https(full).map_err(|_| {
        Fault::new(
            Class::Configuration,
            "the value of `proxy` is not a proxy URL",
            "write it as http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before the host where the proxy asks for it",
        )
    })
}

/// How long AWS calls may take. A call is tried three times at most, within `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Name resolution, TCP and TLS.
    pub connect: Duration,
    /// One attempt, from its start to the last byte of the answer.
    pub attempt: Duration,
    /// One call with all its attempts.
    pub operation: Duration,
    /// Finding credentials: the metadata service, a credential process, assuming a role.
    pub credentials: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            attempt: Duration::from_secs(10),
            operation: Duration::from_secs(30),
            credentials: Duration::from_secs(20),
        }
    }
}

/// AWS as one source (or one place of reports) reaches it.
pub struct Session {
    settings: Aws,
    client: SharedHttpClient,
    limits: Limits,
    loaded: Mutex<Option<SdkConfig>>,
}

impl Session {
    /// Makes the HTTP client; connects to nothing yet. Fails when there is no usable root certificate or `proxy` is no
    /// URL.
    pub fn new(settings: &Aws, http: &Http) -> Result<Self, Fault> {
        Ok(Self {
            settings: settings.clone(),
            client: http.client(settings.proxy.as_deref())?,
            limits: http.limits,
            loaded: Mutex::new(None),
        })
    }

    /// The SDK's configuration: loaded at the first call, then kept, with the credentials the SDK caches in it. With a
    /// region configured nothing is asked over the network here.
    pub async fn config(&self) -> Result<SdkConfig, Fault> {
        let mut loaded = self.loaded.lock().await;
        // Looked at each time: a program that the profile names is run again whenever keys run out.
        let files = self.files().await?;
        if let Some(config) = loaded.as_ref() {
            return Ok(config.clone());
        }
        let config = self.load(files.profiles).await?;
        *loaded = Some(config.clone());
        Ok(config)
    }

    /// What the error of a call means: what `special` makes of the answer, if there is one and it is the service's alone,
    /// else what [`explain`] says. Every error of a call comes here: one that blames the identity or the settings makes
    /// the next [`Session::config`] read profile files and credentials anew.
    pub async fn explain<E>(
        &self,
        error: &SdkError<E>,
        call: &Call<'_>,
        special: impl FnOnce(Answer<'_>) -> Option<Fault>,
    ) -> Fault
    where
        E: Error + ProvideErrorMetadata + 'static,
        SdkError<E>: RequestId,
    {
        let explained = answer(error).and_then(special).unwrap_or_else(|| explain(error, call));
        if matches!(explained.class, Class::Credentials | Class::Clock | Class::Configuration) {
            *self.loaded.lock().await = None;
        }
        explained
    }

    /// The role that is assumed, where one is configured.
    pub fn role_arn(&self) -> Option<&str> {
        self.settings.role_arn.as_deref()
    }

    /// The files that it goes by; they may lie on a file system that gives no answer.
    async fn files(&self) -> Result<files::Files, Fault> {
        let profile = self.settings.profile.clone();
        let reading =
            tokio::task::spawn_blocking(move || files::read(profile.as_deref(), &|name| std::env::var_os(name)));
        match tokio::time::timeout(self.limits.operation, reading).await {
            Ok(Ok(read)) => read,
            _ => {
                let what = "the AWS configuration files cannot be read: their file system gives no answer";
                Err(Fault::new(Class::Configuration, what, "check the mount that ~/.aws lies on").temporary())
            }
        }
    }

    async fn load(&self, profiles: EnvConfigFiles) -> Result<SdkConfig, Fault> {
        let s = &self.settings;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.limits.connect)
            .operation_attempt_timeout(self.limits.attempt)
            .operation_timeout(self.limits.operation)
            .build();
        let retries = RetryConfig::standard().with_max_attempts(3);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.client.clone())
            .timeout_config(timeouts.clone())
            .retry_config(retries.clone())
            .profile_files(profiles.clone())
            .identity_cache(IdentityCache::lazy().load_timeout(self.limits.credentials).build());
        if let Some(region) = &s.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &s.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &s.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        // `false` leaves the word to the environment and the profile.
        if s.use_fips {
            loader = loader.use_fips(true);
        }
        if s.use_dualstack {
            loader = loader.use_dual_stack(true);
        }
        let mut config = loader.load().await;
        let Some(region) = config.region().cloned() else {
            return Err(Fault::new(
                Class::Configuration,
                "no AWS region is known: not from the configuration, an ARN, the environment, a profile, or instance metadata",
                "set `region` under [aws], or name the secret by its ARN",
            ));
        };
        if let Some(profile) = &s.profile {
            let known = ProviderConfig::without_region()
                .with_region(Some(region))
                .with_http_client(self.client.clone())
                .with_retry_config(retries)
                .with_timeout_config(timeouts)
                .with_use_fips(config.use_fips())
                .with_use_dual_stack(config.use_dual_stack());
            let provider = ProfileFileCredentialsProvider::builder()
                .configure(&known)
                .profile_files(profiles)
                .profile_name(profile)
                .build();
            config = config.to_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build();
        }
        if let Some(role) = &s.role_arn {
            let mut sts = config.to_builder();
            if !s.endpoint_url.as_deref().is_none_or(serves_all_services) {
                sts.set_endpoint_url(None);
            }
            let mut assumed = AssumeRoleProvider::builder(role).session_name("relaykey").configure(&sts.build());
            if let Some(id) = &s.external_id {
                assumed = assumed.external_id(id);
            }
            let provider = SharedCredentialsProvider::new(assumed.build().await);
            config = config.to_builder().credentials_provider(provider).build();
        }
        Ok(config)
    }
}

/// What of the AWS files of this host a group may change.
pub fn doubts(settings: &Aws) -> Vec<Doubt> {
    files::read(settings.profile.as_deref(), &|name| std::env::var_os(name))
        .map(|files| files.doubts)
        .unwrap_or_default()
}

/// An endpoint under one of AWS's own names belongs to one service (a VPC endpoint of Secrets Manager cannot assume
/// roles); any other stands in for all of AWS.
fn serves_all_services(endpoint_url: &str) -> bool {
    let rest = endpoint_url.split_once("://").map_or(endpoint_url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    !tls::is_amazons(host)
}

/// May anybody on this host answer there? Where nobody listens at a loopback port from 1024 on, every user can; without TLS
/// nothing tells who it is.
pub fn anybody_may_answer(endpoint_url: &str) -> bool {
    let Ok(url) = endpoint_url.parse::<hyper::Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme_str() == Some("http") && loopback && url.port_u16().unwrap_or(80) >= 1024
}

/// Parts of an Amazon Resource Name, `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `secretsmanager`, `ssm`, …
    pub service: &'a str,
    /// Empty for global services.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// All that follows, colons included.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// `None` where the text is no ARN.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        if parts.next()? != "arn" || !parts.next()?.starts_with("aws") {
            return None;
        }
        let (service, region) = (parts.next()?, parts.next()?);
        Some(Self { service, region, account: parts.next()?, resource: parts.next()? })
    }
}

/// The partition a region belongs to, as ARNs name it.
pub fn partition(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        r if r.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

/// One API call, for the words of its errors.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The IAM action, `secretsmanager:GetSecretValue`.
    pub action: &'static str,
    /// What it was asked about, as people named it: `secret "SESSendSecret"`.
    pub about: String,
    /// The ARN that a policy has to allow; account `*` where it is not known.
    pub arn: String,
    /// The region that was asked.
    pub region: &'a str,
    /// The role that is assumed first, where one is configured.
    pub role_arn: Option<&'a str>,
}

/// An error that a service answered with, in the parts that decide what it means.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer<'a> {
    /// `AccessDeniedException`; empty where the answer has none, as a proxy's has not.
    pub code: &'a str,
    /// AWS's sentence; may be empty.
    pub message: &'a str,
    /// HTTP status; 0 where it is not known.
    pub status: u16,
    /// What AWS support asks for.
    pub request_id: Option<&'a str>,
}

impl Answer<'_> {
    /// AWS's own words, bounded, on one line.
    pub fn words(&self) -> String {
        let mut said = match (self.code, self.message) {
            ("", "") => format!("HTTP status {}", self.status),
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        said = words(&said);
        match self.request_id {
            Some(id) if !id.is_empty() => format!("{said} (request {})", words(id)),
            _ => said,
        }
    }
}

/// What a service answered, if that is what the error is.
pub fn answer<E>(error: &SdkError<E>) -> Option<Answer<'_>>
where
    E: ProvideErrorMetadata,
    SdkError<E>: RequestId,
{
    let SdkError::ServiceError(service) = error else { return None };
    Some(Answer {
        code: service.err().code().unwrap_or_default(),
        message: service.err().message().unwrap_or_default(),
        status: service.raw().status().as_u16(),
        request_id: error.request_id(),
    })
}

/// What any error of any call means. The modules of the services look at [`answer`] first for what is theirs alone.
///
/// Never formats an error with `Debug`: that prints the response, and the response may be the secret.
pub fn explain<E>(error: &SdkError<E>, call: &Call) -> Fault
where
    E: Error + ProvideErrorMetadata + 'static,
    SdkError<E>: RequestId,
{
    if let Some(answer) = answer(error) {
        return explain_answer(answer, call);
    }
    if chain(error).iter().any(|e| e.is::<LengthLimitError>()) {
        return Fault::new(
            Class::Service,
            format!(
                "the answer to {} for {} is larger than any that AWS gives ({MAX_ANSWER} bytes), and was not read to its end",
                call.action, call.about
            ),
            WHO_ANSWERS,
        ).temporary();
    }
    match error {
        // The source would name the byte at which JSON stopped making sense; the response is not quoted.
        SdkError::ResponseError(_) => Fault::new(
            Class::Service,
            format!("the answer to {} for {} broke off or made no sense", call.action, call.about),
            WHO_ANSWERS,
        )
        .temporary(),
        SdkError::TimeoutError(_) => timed_out(call),
        other => explain_chain(other, call),
    }
}

fn timed_out(call: &Call) -> Fault {
    Fault::new(
        Class::Network,
        format!("{} for {} in {}: no answer in time", call.action, call.about, call.region),
        "check that this host reaches the AWS endpoint: route, firewall, proxy, VPC endpoint",
    )
    .temporary()
}

/// Errors that never got an answer: no credentials, no connection, no trust.
fn explain_chain(error: &(dyn Error + 'static), call: &Call) -> Fault {
    let chain = chain(error);
    let find = |wanted: &str| chain.iter().map(ToString::to_string).find(|text| text.contains(wanted));
    let from_credentials = chain.iter().find_map(|e| e.downcast_ref::<CredentialsError>());
    let context = match (from_credentials, call.role_arn) {
        (Some(_), Some(role)) => format!("the credentials for {} (role {role})", call.action),
        (Some(_), None) => format!("the credentials for {}", call.action),
        (None, _) => format!("{} for {} in {}", call.action, call.about, call.region),
    };
    if let Some(tls) = chain.iter().find_map(|e| e.downcast_ref::<rustls::Error>()) {
        return explain_tls(tls, &context);
    }
    if find("proxy authorization required").is_some() {
        return Fault::new(
            Class::Proxy,
            format!("{context}: the proxy asks for user name and password (407)"),
            "put USER:PASSWORD@ before the host in `proxy` or HTTPS_PROXY, or let the proxy pass this host",
        );
    }
    if find("tunnel error: unsuccessful").is_some() {
        return Fault::new(
            Class::Proxy,
            format!("{context}: the proxy refused to connect to the AWS endpoint"),
            "allow CONNECT to the endpoint, port 443, on the proxy; or take the endpoint out with NO_PROXY",
        )
        .temporary();
    }
    // A failed AssumeRole: the answer of STS is in the chain, its type is not ours to name.
    if let Some(meta) =
        chain.iter().find_map(|e| e.downcast_ref::<ErrorMetadata>()).filter(|_| from_credentials.is_some())
    {
        let answer = Answer {
            code: meta.code().unwrap_or_default(),
            message: meta.message().unwrap_or_default(),
            status: 0,
            request_id: meta.extra("aws_request_id"),
        };
        return explain_assume_role(answer, call);
    }
    let said = words(&sentence(&chain));
    let of_a_program = find("Stderr:").is_some();
    let unreachable = |said: &str| {
        Fault::new(
            Class::Network,
            format!("{context}: {said}"),
            "check name resolution, route, firewall and proxy of this host; a misspelt region gives a name that does not exist",
        ).temporary()
    };
    if let Some(connector) = chain.iter().find_map(|e| e.downcast_ref::<ConnectorError>())
        && (connector.is_timeout() || connector.is_io())
    {
        return unreachable(&said);
    }
    let file = "a profile in ~/.aws or AWS_CONFIG_FILE";
    match from_credentials {
        Some(CredentialsError::CredentialsNotLoaded(_)) => Fault::new(
            Class::Credentials,
            match call.role_arn {
                Some(role) => format!("no AWS credentials to assume the role {role} with: {said}"),
                None => format!("no AWS credentials: {said}"),
            },
            format!(
                "looked at, in this order: AWS_ACCESS_KEY_ID in the environment, {file}, a web identity token, the container's credentials, the instance metadata. Give the instance a role, or set `profile` under [aws]"
            ),
        ),
        Some(_) if of_a_program => Fault::new(
            Class::Credentials,
            format!("{context} could not be loaded: {said}"),
            format!(
                "what the program said is not shown, as it may hold a secret: run what `credential_process` names in {file} by \
                 hand, as the user that relaykey runs as"
            ),
        ).temporary(),
        Some(CredentialsError::InvalidConfiguration(_)) => Fault::new(
            Class::Credentials,
            format!("{context} are not set up correctly: {said}"),
            format!("correct {file}; single sign-on profiles need a person and do not serve here"),
        ),
        Some(CredentialsError::ProviderTimedOut(_)) => Fault::new(
            Class::Credentials,
            format!("{context} did not come in time: {said}"),
            "check the instance metadata service, the credential process or the way to AWS STS",
        )
        .temporary(),
        Some(_) => Fault::new(
            Class::Credentials,
            format!("{context} could not be loaded: {said}"),
            format!("check {file}, the credential process it may name, and the instance metadata service"),
        )
        .temporary(),
        None if chain.iter().any(|e| e.downcast_ref::<std::io::Error>().is_some()) => unreachable(&said),
        None => Fault::new(
            Class::Configuration,
            // A construction error's own text may be the whole request.
            format!(
                "{context}: the request could not be made{}",
                if said.contains('{') { String::new() } else { format!(": {said}") }
            ),
            "check `region`, `endpoint_url`, `use_fips` and `use_dualstack`, and AWS_ENDPOINT_URL in the environment",
        ),
    }
}

fn explain_tls(error: &rustls::Error, context: &str) -> Fault {
    use rustls::CertificateError as C;
    let fix = match error {
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "find out who answers in the place of AWS: DNS, a proxy, somebody in between; only if it is a proxy of your own that inspects TLS, add its certificate authority to the system's trust store (update-ca-certificates) or to SSL_CERT_FILE"
        }
        rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => "check this host's clock first, then the certificate of the endpoint",
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "find out who answers under that name: DNS, a proxy, somebody in between; and check `endpoint_url` where it is set"
        }
        _ => "check `endpoint_url` and the proxy: is this port one that speaks TLS",
    };
    Fault::new(Class::Tls, format!("{context}: TLS failed: {}", words(&tls::failed(error))), fix)
}

fn explain_assume_role(answer: Answer, call: &Call) -> Fault {
    let said = answer.words();
    let role = call.role_arn.unwrap_or("the role of the profile");
    if answer.code.starts_with("AccessDenied") {
        return Fault::new(
            Class::AccessDenied,
            format!("sts:AssumeRole on {role} was denied. AWS says: {said}"),
            format!(
                "allow sts:AssumeRole on {role} for {}, and let the role's trust policy name that identity, with the configured `external_id` where it asks for one",
                denied_identity(answer.message).unwrap_or("the identity of this host")
            ),
        );
    }
    let sts = Call { action: "sts:AssumeRole", about: format!("role {role}"), arn: role.to_owned(), ..call.clone() };
    explain_answer(answer, &sts)
}

/// What to do where something answers that is not AWS.
const WHO_ANSWERS: &str = "find out who answers in the place of AWS: a proxy, a firewall or the log-in page of a network (a captive \
                           portal) on the way; check HTTPS_PROXY, and `proxy` and `endpoint_url` where they are set; it is tried \
                           again";

/// What a service's error answer means, by its code; by its words only where one code means several things.
pub fn explain_answer(answer: Answer, call: &Call) -> Fault {
    let Answer { code, message, status, .. } = answer;
    let said = answer.words();
    let about = format!("{} for {} in {}", call.action, call.about, call.region);
    let lower = message.to_ascii_lowercase();
    let is = |codes: &[&str]| codes.iter().any(|c| code.eq_ignore_ascii_case(c));

    if code.contains("Throttl")
        || is(&["TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "LimitExceededException"])
        || status == 429
    {
        return Fault::new(
            Class::Throttled,
            format!("{about} was throttled. AWS says: {said}"),
            "nothing to do if it passes; if it stays, lengthen `poll`, or ask AWS for a higher rate",
        )
        .temporary();
    }
    // AWS gives every error a code.
    if code.is_empty() && (status < 500 || status == 511) {
        return Fault::new(Class::Proxy, format!("{about}: the answer is not one of AWS: {said}"), WHO_ANSWERS)
            .temporary();
    }
    if status >= 500 || is(&["InternalServiceError", "InternalServerError", "InternalFailure", "ServiceUnavailable"]) {
        return Fault::new(
            Class::Service,
            format!("{about} failed at AWS. AWS says: {said}"),
            "nothing to do: it is tried again; https://health.aws.amazon.com tells about outages",
        )
        .temporary();
    }
    if is(&["DecryptionFailure", "InvalidKeyId"])
        || code.contains("KMS")
        || lower.contains("kms:")
        || lower.contains("aws kms")
        || lower.contains("awskms")
        || lower.contains("access to kms")
        || lower.contains("customer master key")
    {
        let key = word_with(message, ":kms:").map_or_else(
            || {
                "the key that the secret is encrypted with (a customer managed key; see the secret's settings)"
                    .to_owned()
            },
            str::to_owned,
        );
        return Fault::new(
            Class::Kms,
            format!("{about}: the key service did not decrypt it. AWS says: {said}"),
            format!(
                "allow kms:Decrypt on {key} for {}, in its IAM policy and in the key's policy; check that the key exists in {} and is enabled",
                denied_identity(message).unwrap_or("the identity that relaykey uses"),
                call.region
            ),
        );
    }
    if is(&["AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "AuthorizationError"]) {
        let action = after(message, "perform: ").unwrap_or(call.action);
        let arn = after(message, "on resource: ").filter(|r| r.starts_with("arn:")).unwrap_or(&call.arn);
        let who = denied_identity(message).unwrap_or("the identity that relaykey uses");
        let fix = if lower.contains("explicit deny") {
            format!("a policy denies {action} on {arn} to {who} explicitly: an allow does not help, the deny has to go")
        } else if lower.contains("vpc endpoint policy") {
            format!("allow {action} on {arn} for {who} in the policy of the VPC endpoint")
        } else {
            format!("allow {action} on {arn} for {who}")
        };
        return Fault::new(Class::AccessDenied, format!("{action} on {arn} was denied. AWS says: {said}"), fix);
    }
    let clock = "set this host's clock: run chronyd or systemd-timesyncd, and see `timedatectl`";
    if is(&["RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"])
        || lower.contains("signature expired")
        || lower.contains("signature not yet current")
    {
        return Fault::new(Class::Clock, format!("{about}: AWS does not believe the time. AWS says: {said}"), clock);
    }
    if lower.contains("valid region") || code == "RegionDisabledException" {
        return Fault::new(
            Class::Configuration,
            format!("{about}: wrong region. AWS says: {said}"),
            "set `region` under [aws] or in the source to the region the secret is in, and enable that region in the account",
        );
    }
    if is(&["ExpiredTokenException", "ExpiredToken", "TokenRefreshRequired"]) {
        return Fault::new(
            Class::Credentials,
            format!("{about}: the AWS credentials of this host have expired. AWS says: {said}"),
            "renew the session token in the environment or profile; better, use a role or an access key that does not expire",
        );
    }
    if is(&["InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature"]) {
        return Fault::new(
            Class::Credentials,
            format!("{about}: AWS does not accept the signature. AWS says: {said}"),
            format!(
                "the secret access key does not belong to the access key id: correct the environment or profile; or {clock}"
            ),
        );
    }
    if is(&[
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "AuthFailure",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "NotAuthorized",
    ]) {
        return Fault::new(
            Class::Credentials,
            format!("{about}: AWS does not know the credentials of this host. AWS says: {said}"),
            "the access key was deleted or deactivated, is new (wait a minute), belongs to another partition, or the region is not enabled in the account: correct the environment or profile",
        );
    }
    if is(&["ResourceNotFoundException", "ParameterNotFound"]) {
        return Fault::new(
            Class::NotFound,
            format!("{} does not exist in {} for this account. AWS says: {said}", call.about, call.region),
            match is(&["ParameterNotFound"]) {
                true => {
                    "check its name and the region; a parameter of another account has to be shared, and is named by its whole ARN"
                }
                false => "check its name and the region; a secret of another account is named by its whole ARN",
            },
        );
    }
    if is(&["ValidationException", "InvalidParameterException", "InvalidRequestException"]) {
        return Fault::new(
            Class::Configuration,
            format!("{about}: AWS does not take the request. AWS says: {said}"),
            "check the name or ARN and the label in the configuration",
        );
    }
    Fault::new(
        Class::Service,
        format!("{about} failed. AWS says: {said}"),
        "look the code up in the API reference of the service; check `endpoint_url` if one is set",
    )
}

/// The identity that an AccessDenied text names: `User: arn:… is not authorized`.
fn denied_identity(message: &str) -> Option<&str> {
    after(message, "User: ").filter(|who| who.starts_with("arn:"))
}

/// The word that follows `mark`, without the punctuation of the sentence around it.
fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let start = text.find(mark)? + mark.len();
    let word = text[start..].split_whitespace().next()?.trim_end_matches(['.', ',', ';', ')', '"']);
    (!word.is_empty()).then_some(word)
}

/// The word of an ARN kind, such as a key's.
fn word_with<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.split_whitespace()
        .map(|w| w.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .find(|w| w.starts_with("arn:") && w.contains(part))
}

/// What stands before a secret where a program, a server or a proxy quotes what it was sent, and where the secret ends: at the
/// end of the text, of the line, or of the word.
const TELLING: [(&str, &[char]); 9] = [
    ("stderr", &[]),
    ("authorization", LINE_ENDS),
    ("cookie", LINE_ENDS),
    ("security-token", WORD_ENDS),
    ("sessiontoken", WORD_ENDS),
    ("session_token", WORD_ENDS),
    ("secretaccesskey", WORD_ENDS),
    ("secret_access_key", WORD_ENDS),
    ("signature", WORD_ENDS),
];
const LINE_ENDS: &[char] = &['\n', '\r', '"', '\'', '<', '>', '}'];
const WORD_ENDS: &[char] = &[' ', '\t', '&', ',', ';', '\n', '\r', '"', '\'', '<', '>', '}', '\\'];

/// Without what tells a secret: what a program that gives credentials said on its standard error, session tokens and
/// signatures of requests that an answer quotes, what has the shape of a secret, and the login in an address.
fn masked(text: &str) -> String {
    let mut out = text.to_owned();
    for (marker, ends) in TELLING {
        let mut from = 0;
        // ASCII alone changes, so that places stay.
        while let Some(at) = out[from..].to_ascii_lowercase().find(marker) {
            from += at + marker.len();
            // As in a header, a query, JSON, or XML. A word alone tells nothing.
            let rest = out[from..].trim_start_matches(['"', '\'', '\\', ' ', '\t']);
            let Some(value) = rest.strip_prefix([':', '=', '>']) else { continue };
            let value = value.trim_start_matches(['"', '\'', '\\', ' ', '\t']);
            let start = out.len() - value.len();
            let end = value.find(ends).map_or(out.len(), |end| start + end);
            if start < end {
                out.replace_range(start..end, HIDDEN);
                from = start + HIDDEN.len();
            }
        }
    }
    let mut from = 0;
    while let Some(at) = out[from..].find("://") {
        let start = from + at + 3;
        let whole = out[start..].find(['/', ' ', '"', '\'', '>', '\n']).map_or(out.len(), |end| start + end);
        if let Some(end) = out[start..whole].rfind('@') {
            out.replace_range(start..start + end, HIDDEN);
        }
        from = start;
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    out.split_inclusive(|c| !is_base64(c))
        .map(|piece| {
            let run = piece.trim_end_matches(|c| !is_base64(c));
            // A path has its shape too, but seldom a digit among both cases.
            let tells = has_secret_shape(run) && run.contains(|c: char| c.is_ascii_digit());
            if tells { Cow::Owned(format!("{HIDDEN}{}", &piece[run.len()..])) } else { Cow::Borrowed(piece) }
        })
        .collect()
}

const HIDDEN: &str = "***";

/// One line, bounded, without what tells a secret: fit for a log.
pub fn words(text: &str) -> String {
    line_of(&masked(text).trim().replace(['\n', '\r', '\t'], " "), MAX_WORDS).into_owned()
}

/// An error and all that caused it. `io::Error` hides the error it was made of from `source()`.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut all = vec![error];
    let mut current = error;
    loop {
        let inner = current.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => current.source(),
        };
        let Some(next) = next else { return all };
        all.push(next);
        current = next;
    }
}

/// The chain in words, without what merely repeats the cause.
fn sentence(chain: &[&(dyn Error + 'static)]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for text in chain.iter().map(|e| e.to_string()) {
        if !text.is_empty() && !parts.iter().any(|have| have.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call<'static> {
        Call {
            action: "secretsmanager:GetSecretValue",
            about: "secret \"ses\"".into(),
            arn: "arn:aws:secretsmanager:eu-west-1:*:secret:ses-*".into(),
            region: "eu-west-1",
            role_arn: None,
        }
    }

    /// Texts as the services word them.
    #[test]
    fn answers_are_classified_and_say_what_is_missing() {
        let user = "User: arn:aws:sts::111122223333:assumed-role/mail/i-0abc";
        let no_allow = format!(
            "{user} is not authorized to perform: secretsmanager:GetSecretValue on resource: ses because no identity-based policy allows the secretsmanager:GetSecretValue action"
        );
        let deny = format!(
            "{user} is not authorized to perform: ssm:GetParameter on resource: arn:aws:ssm:eu-west-1:111122223333:parameter/ses with an explicit deny in a service control policy"
        );
        let kms = format!(
            "{user} is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:111122223333:key/1234-abcd because no identity-based policy allows the kms:Decrypt action"
        );
        // code, message, status; class, temporary, in what, in fix
        let table: &[(&str, &str, u16, &str, bool, &str, &str)] = &[
            (
                "AccessDeniedException",
                &no_allow,
                400,
                "access-denied",
                false,
                "secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-west-1:*:secret:ses-* was denied",
                "allow secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-west-1:*:secret:ses-* for arn:aws:sts::111122223333:assumed-role/mail/i-0abc",
            ),
            (
                "AccessDeniedException",
                &deny,
                400,
                "access-denied",
                false,
                "ssm:GetParameter on arn:aws:ssm:eu-west-1:111122223333:parameter/ses was denied",
                "the deny has to go",
            ),
            (
                "AccessDeniedException",
                &kms,
                400,
                "kms",
                false,
                "key service",
                "allow kms:Decrypt on arn:aws:kms:eu-west-1:111122223333:key/1234-abcd for arn:aws:sts::111122223333:assumed-role/mail/i-0abc",
            ),
            (
                "AccessDeniedException",
                "Access to KMS is not allowed",
                400,
                "kms",
                false,
                "Access to KMS",
                "kms:Decrypt",
            ),
            (
                "AccessDeniedException",
                "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or you are not allowed to access. (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException)",
                400,
                "kms",
                false,
                "customer master key",
                "exists in eu-west-1",
            ),
            (
                "DecryptionFailure",
                "Secrets Manager can't decrypt the protected secret text using the provided KMS key.",
                400,
                "kms",
                false,
                "can't decrypt",
                "kms:Decrypt",
            ),
            (
                "InvalidKeyId",
                "arn:aws:kms:eu-west-1:111122223333:key/9 is disabled.",
                400,
                "kms",
                false,
                "disabled",
                "key/9",
            ),
            ("ThrottlingException", "Rate exceeded", 400, "throttled", true, "Rate exceeded", "poll"),
            ("KMSThrottlingException", "Rate exceeded", 400, "throttled", true, "Rate exceeded", "poll"),
            ("", "", 429, "throttled", true, "HTTP status 429", "poll"),
            ("InternalServiceError", "oops", 500, "service", true, "oops", "again"),
            ("", "<html>Bad Gateway</html>", 502, "service", true, "Bad Gateway", "again"),
            (
                "InvalidSignatureException",
                "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z",
                400,
                "clock",
                false,
                "Signature expired",
                "timedatectl",
            ),
            ("RequestTimeTooSkewed", "The difference is too large", 403, "clock", false, "difference", "clock"),
            (
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
                400,
                "credentials",
                false,
                "signature",
                "secret access key",
            ),
            (
                "InvalidSignatureException",
                "Credential should be scoped to a valid region, not 'eu-wst-1'.",
                400,
                "configuration",
                false,
                "wrong region",
                "region",
            ),
            (
                "ExpiredTokenException",
                "The security token included in the request is expired",
                400,
                "credentials",
                false,
                "expired",
                "renew",
            ),
            (
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
                400,
                "credentials",
                false,
                "does not know",
                "deactivated",
            ),
            (
                "ResourceNotFoundException",
                "Secrets Manager can't find the specified secret.",
                400,
                "not-found",
                false,
                "secret \"ses\" does not exist in eu-west-1",
                "region",
            ),
            ("ValidationException", "Invalid name", 400, "configuration", false, "Invalid name", "label"),
            ("Whatever", "new", 400, "service", false, "Whatever: new", "reference"),
        ];
        for &(code, message, status, class, temporary, what, fix) in table {
            let answer = Answer { code, message, status, request_id: Some("req-1") };
            let error = explain_answer(answer, &call());
            assert_eq!((error.class.word(), error.temporary), (class, temporary), "{code}: {message}: {error:?}");
            assert!(error.what.contains(what), "{code}: {}", error.what);
            assert!(error.what.ends_with("(request req-1)"), "{code}: {}", error.what);
            assert!(error.fix.contains(fix), "{code}: {}", error.fix);
        }
    }

    #[test]
    fn a_denied_role_names_both_sides_of_the_trust() {
        let answer = Answer {
            code: "AccessDenied",
            message: "User: arn:aws:iam::1:user/mx is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:role/ses",
            ..Answer::default()
        };
        let error = explain_assume_role(answer, &Call { role_arn: Some("arn:aws:iam::2:role/ses"), ..call() });
        assert_eq!((error.class.word(), error.temporary), ("access-denied", false));
        assert!(
            error.fix.contains("allow sts:AssumeRole on arn:aws:iam::2:role/ses for arn:aws:iam::1:user/mx"),
            "{}",
            error.fix
        );
        assert!(error.fix.contains("external_id"), "{}", error.fix);
    }

    #[test]
    fn words_hold_no_secret_of_a_program_or_a_request() {
        for text in [
            "exited with code exit status: 1. Stderr: token ZqSecretPw77 is bad\nmore ZqSecretPw77",
            "denied: GET /?X-Amz-Security-Token=ZqSecretPw77&x=1",
            "you sent x-amz-security-token: ZqSecretPw77\nhost: x",
            "you sent {\"x-amz-security-token\": \"ZqSecretPw77\"}",
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=ZqSecretPw77",
            "'Authorization': 'Basic ZqSecretPw77'",
            "{\"authorization\": \"Bearer ZqSecretPw77\"}",
            "Proxy-Authorization: Basic ZqSecretPw77",
            "X-Amz-Signature=ZqSecretPw77",
            "X-Amz-Date=1&X-Amz-Signature=ZqSecretPw77&x",
            r#"{"SessionToken": "ZqSecretPw77"}"#,
            "<SecretAccessKey>ZqSecretPw77</SecretAccessKey>",
            "aws_session_token = ZqSecretPw77",
            "invalid endpoint ht!tp://u:ZqSecretPw77@x/y",
            &format!("you sent {} to me", "ZqSecretPw77".repeat(10)),
        ] {
            let said = words(text);
            assert!(!said.contains("ZqSecretPw77") && said.contains("***"), "{text}: {said}");
        }
        let text = "User: arn:aws:iam::1:user/x is not authorized to perform: a, https://x.example/@y";
        assert_eq!(words(text), text);
        assert!(words(&"stderr: Signature= ".repeat(9)).len() < 400);
    }

    #[test]
    fn words_are_one_bounded_line() {
        assert_eq!(words(" a\nb\u{1b}[31m "), "a b\\u{1b}[31m");
        assert!(words(&"ü".repeat(5000)).chars().count() <= MAX_WORDS);
    }

    #[test]
    fn only_aws_names_belong_to_one_service() {
        for (url, all) in [
            ("http://127.0.0.1:5000", true),
            ("https://localstack.internal:4566/", true),
            ("https://amazonaws.com.example.net", true),
            ("https://vpce-1.secretsmanager.eu-west-1.vpce.amazonaws.com", false),
            ("https://secretsmanager.cn-north-1.amazonaws.com.cn:443/x", false),
            ("https://secretsmanager.eu-west-1.api.aws", false),
        ] {
            assert_eq!(serves_all_services(url), all, "{url}");
        }
    }

    #[test]
    fn a_high_port_of_this_host_without_tls_is_anybodys() {
        for (url, anybodys) in [
            ("http://127.0.0.1:5000", true),
            ("http://localhost:4566/", true),
            ("http://[::1]:1024", true),
            ("http://127.0.0.1:1023", false),
            ("http://127.0.0.1", false),
            ("https://127.0.0.1:5000", false),
            ("http://10.0.0.1:5000", false),
            ("http://169.254.169.254", false),
        ] {
            assert_eq!(anybody_may_answer(url), anybodys, "{url}");
        }
    }

    #[test]
    fn arns_are_taken_apart() {
        let arn = Arn::parse("arn:aws-cn:ssm:cn-north-1:111122223333:parameter/a:b").unwrap();
        assert_eq!(
            (arn.service, arn.region, arn.account, arn.resource),
            ("ssm", "cn-north-1", "111122223333", "parameter/a:b")
        );
        for text in ["ses", "/ses/smtp", "arn:aws:ssm", "arn:other:ssm:r:1:parameter/x", ""] {
            assert_eq!(Arn::parse(text), None, "{text}");
        }
        assert_eq!(
            (partition("eu-west-1"), partition("us-gov-west-1"), partition("cn-north-1")),
            ("aws", "aws-us-gov", "aws-cn")
        );
    }

    #[test]
    fn no_roots_and_no_proxy_url_are_errors_that_give_nothing_away() {
        let Err(error) = Session::new(
            &Aws::default(),
            &Http::new(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ) else {
            panic!("a broken bundle is no trust")
        };
        assert_eq!((error.class.word(), error.temporary), ("tls", false));
        for bad in ["ftp://u:hunter2@proxy:1", "http://", "http://u:hunter2@pro xy"] {
            let error = explicit_proxy(bad).expect_err(bad);
            assert_eq!(error.class, Class::Configuration);
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        for good in ["http://proxy:3128", "proxy.example.com:3128", "https://u:p@proxy:443"] {
            explicit_proxy(good).expect(good);
        }
    }
}
