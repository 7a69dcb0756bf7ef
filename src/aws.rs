//! How AWS is reached: one HTTP client given by hand, roles, regions, proxies. What its errors mean is in [`explain`].
//!
//! A [`AwsSession`] belongs to one `config::Aws`. It loads the SDK's configuration lazily, so that a host whose network
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

mod explain;
mod files;
mod words;

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
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_sdk_secretsmanager::config::{RuntimeComponents, SharedHttpClient};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
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
use http_body_util::Limited;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

pub use self::explain::{Call, ServiceError, answer, explain, explain_answer};
pub use self::words::words;
use crate::config::Aws;
use crate::fault::{Class, Fault};
use crate::host::trust::Doubt;
use crate::tls;

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
    /// `roots_pem`: the trusted certificate authorities, PEM, concatenated. That there are any is asked when a [`AwsSession`]
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
pub struct AwsSession {
    settings: Aws,
    client: SharedHttpClient,
    limits: Limits,
    loaded: Mutex<Option<SdkConfig>>,
    reached_for: ReachedFor,
}

/// What AWS is reached for: where people set a region for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReachedFor {
    /// One thing or another of a program.
    #[default]
    Anything,
    Secret,
    Parameter,
    Report,
}

impl ReachedFor {
    fn where_region_goes(self) -> &'static str {
        match self {
            Self::Anything => "set `region` under [aws]",
            Self::Secret => "set `region` in [credential.source] or under [aws], or name the secret by its ARN",
            Self::Parameter => "set `region` in [credential.source] or under [aws], or name the parameter by its ARN",
            Self::Report => "set `region` in this [[report]], or under [aws]",
        }
    }
}

impl AwsSession {
    /// Makes the HTTP client; connects to nothing yet. Fails when there is no usable root certificate or `proxy` is no
    /// URL.
    pub fn new(settings: &Aws, http: &Http) -> Result<Self, Fault> {
        Ok(Self {
            settings: settings.clone(),
            client: http.client(settings.proxy.as_deref())?,
            limits: http.limits,
            loaded: Mutex::new(None),
            reached_for: ReachedFor::default(),
        })
    }

    /// Says what it is for.
    #[must_use]
    pub fn reached_for(self, reached_for: ReachedFor) -> Self {
        Self { reached_for, ..self }
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

    /// The same for STS, which another service's endpoint does not answer for.
    pub async fn config_of_sts(&self) -> Result<SdkConfig, Fault> {
        Ok(self.sts_of(&self.config().await?))
    }

    fn sts_of(&self, config: &SdkConfig) -> SdkConfig {
        let mut sts = config.to_builder();
        if !self.settings.endpoint_url.as_deref().is_none_or(serves_all_services) {
            sts.set_endpoint_url(None);
        }
        sts.build()
    }

    /// What the error of a call means: what `special` makes of the answer, if there is one and it is the service's alone,
    /// else what [`explain`] says. Every error of a call comes here: one that blames the identity or the settings makes
    /// the next [`AwsSession::config`] read profile files and credentials anew.
    pub async fn explain<E>(
        &self,
        error: &SdkError<E>,
        call: &Call<'_>,
        special: impl FnOnce(ServiceError<'_>) -> Option<Fault>,
    ) -> Fault
    where
        E: Error + ProvideErrorMetadata + 'static,
        SdkError<E>: RequestId,
    {
        let mut explained = answer(error).and_then(special).unwrap_or_else(|| explain(error, call));
        if let (Class::Credentials, Some(profile)) = (explained.class, &self.settings.profile) {
            explained.what += &format!(" (profile {profile:?})");
        }
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
    async fn files(&self) -> Result<files::SdkFiles, Fault> {
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
                self.reached_for.where_region_goes(),
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
            let sts = self.sts_of(&config);
            let mut assumed = AssumeRoleProvider::builder(role).session_name("relaykey").configure(&sts);
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

/// The partition a region belongs to, as ARNs name it.
pub fn partition(region: &str) -> &'static str {
    match region {
        r if r.starts_with("cn-") => "aws-cn",
        r if r.starts_with("us-gov-") => "aws-us-gov",
        r if r.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_set_where_it_is_missing() {
        let places = [ReachedFor::Secret, ReachedFor::Parameter, ReachedFor::Report].map(ReachedFor::where_region_goes);
        assert_eq!(
            places.map(|place| (
                place.contains("[[report]]"),
                place.contains("the secret"),
                place.contains("the parameter")
            )),
            [(false, true, false), (false, false, true), (true, false, false)]
        );
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
    fn no_roots_and_no_proxy_url_are_errors_that_give_nothing_away() {
        let Err(error) = AwsSession::new(
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

    #[test]
    fn a_region_says_its_partition() {
        assert_eq!(
            (partition("eu-west-1"), partition("us-gov-west-1"), partition("cn-north-1")),
            ("aws", "aws-us-gov", "aws-cn")
        );
    }
}
