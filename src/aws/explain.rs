//! What the errors of AWS mean, of any call of any service, and what a person does about each.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ConnectorError, ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::RequestId;
use http_body_util::LengthLimitError;

use super::MAX_ANSWER;
use super::words::words;
use crate::fault::{Class, Fault};
use crate::tls;

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
pub struct ServiceError<'a> {
    /// `AccessDeniedException`; empty where the answer has none, as a proxy's has not.
    pub code: &'a str,
    /// AWS's sentence; may be empty.
    pub message: &'a str,
    /// HTTP status; 0 where it is not known.
    pub status: u16,
    /// What AWS support asks for.
    pub request_id: Option<&'a str>,
}

impl ServiceError<'_> {
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
pub fn answer<E>(error: &SdkError<E>) -> Option<ServiceError<'_>>
where
    E: ProvideErrorMetadata,
    SdkError<E>: RequestId,
{
    let SdkError::ServiceError(service) = error else { return None };
    Some(ServiceError {
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
        let answer = ServiceError {
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

fn explain_assume_role(answer: ServiceError, call: &Call) -> Fault {
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
pub fn explain_answer(answer: ServiceError, call: &Call) -> Fault {
    let ServiceError { code, message, status, .. } = answer;
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
    if is(&["ResourceNotFoundException", "ParameterNotFound", "NoSuchEntity", "NoSuchEntityException"]) {
        let service = call.action.split_once(':').map_or("", |(service, _)| service);
        // IAM has no regions.
        let place = if service == "iam" { String::new() } else { format!(" in {}", call.region) };
        return Fault::new(
            Class::NotFound,
            format!("{} does not exist{place} for this account. AWS says: {said}", call.about),
            match service {
                "ssm" => {
                    "check its name and the region; a parameter of another account has to be shared, and is named by its whole ARN"
                }
                "secretsmanager" => {
                    "check its name and the region; a secret of another account is named by its whole ARN"
                }
                "iam" => "check its name, and the account that these credentials belong to",
                _ => "check its name, the region, and the account that these credentials belong to",
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
            let answer = ServiceError { code, message, status, request_id: Some("req-1") };
            let error = explain_answer(answer, &call());
            assert_eq!((error.class.word(), error.temporary), (class, temporary), "{code}: {message}: {error:?}");
            assert!(error.what.contains(what), "{code}: {}", error.what);
            assert!(error.what.ends_with("(request req-1)"), "{code}: {}", error.what);
            assert!(error.fix.contains(fix), "{code}: {}", error.fix);
        }
    }

    #[test]
    fn a_denied_role_names_both_sides_of_the_trust() {
        let answer = ServiceError {
            code: "AccessDenied",
            message: "User: arn:aws:iam::1:user/mx is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:role/ses",
            ..ServiceError::default()
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
}
