//! `[aws]`: how AWS is reached, and what else has a form of AWS's own.

use toml::de::DeValue;

use super::reader::{At, Reader, SectionView};
use super::schema::{Section, key};
use super::url::{ClearText, UrlRule, url};
use super::value::{self, Judged, mistake, trimmed};
use crate::credential::{odd_region, region_shaped};
use crate::finding::Severity;

/// The table in which AWS is said for the whole file.
pub static AWS: Section = Section {
    header: "[aws]",
    keys: &[
        key("region"),
        key("profile"),
        key("role_arn"),
        key("external_id").hidden(),
        key("endpoint_url").hidden(),
        key("proxy").hidden(),
        key("use_fips").few().default("false"),
        key("use_dualstack").few().default("false"),
    ],
};

const ENDPOINT: UrlRule = UrlRule {
    usage: "write it like https://HOST or https://HOST:PORT",
    no_login: NO_LOGIN,
    takes_query: false,
    // A secret comes back from there, so without TLS it must not leave the machine.
    clear: ClearText::OnThisMachine(
        "the secret would cross the network without encryption",
        "use https; http is for this machine itself (127.0.0.1)",
    ),
};

const PROXY: UrlRule = UrlRule {
    usage: "write it like http://HOST:PORT",
    no_login: NO_LOGIN,
    takes_query: false,
    clear: ClearText::Taken,
};

const NO_LOGIN: &str = "remove the user name and the password: no secret stands in this file; let the proxy admit this host by its \
                        address";

/// How AWS is reached. A `secrets-manager` or `parameter-store` source carries its own, with `[aws]` filled in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aws {
    /// In a source: the ARN's region where the source is named by an ARN, else the configured one. `None`: the SDK's
    /// default chain decides.
    pub region: Option<String>,
    /// A profile of the AWS configuration files.
    pub profile: Option<String>,
    /// The role to assume.
    pub role_arn: Option<String>,
    /// What the role's trust policy asks for; only beside `role_arn`.
    pub external_id: Option<String>,
    /// Replaces the service's own address. `https`, or `http` to this machine itself.
    pub endpoint_url: Option<String>,
    /// HTTP proxy, without user name and password. `None`: HTTPS_PROXY and NO_PROXY decide.
    pub proxy: Option<String>,
    /// Use FIPS endpoints.
    pub use_fips: bool,
    /// Use endpoints that answer over IPv6 too.
    pub use_dualstack: bool,
}

/// `[aws]`, or what another table says over `base`, which is `[aws]`.
pub fn read(reader: &mut Reader, view: &SectionView, base: &Aws) -> Aws {
    let mut aws = base.clone();
    let set = |slot: &mut Option<String>, at: Option<At<String>>| {
        if let Some(at) = at {
            *slot = Some(at.value);
        }
    };
    set(&mut aws.region, read_region(reader, view));
    set(&mut aws.profile, reader.read(view, "profile", value::word));
    let role = reader.read(view, "role_arn", role_arn);
    if role.is_some() {
        // An external id belongs to a role's trust policy: one for another role is of no use.
        aws.external_id = None;
    }
    set(&mut aws.role_arn, role);
    let id = reader.read(view, "external_id", external_id);
    if let Some(At { line, .. }) = id
        && !view.has("role_arn")
        && aws.role_arn.is_none()
    {
        reader.error(line, "external_id has no effect without role_arn", "add role_arn, or remove external_id");
    }
    set(&mut aws.external_id, id);
    let endpoint = reader.read(view, "endpoint_url", |v| url(v, &ENDPOINT));
    let line = endpoint.as_ref().map(|at| at.line);
    set(&mut aws.endpoint_url, endpoint);
    if view.section.header == AWS.header {
        set(&mut aws.proxy, reader.read(view, "proxy", |v| url(v, &PROXY)));
        aws.use_fips = reader.read(view, "use_fips", value::boolean).is_some_and(|at| at.value);
        aws.use_dualstack = reader.read(view, "use_dualstack", value::boolean).is_some_and(|at| at.value);
    }
    if let Some(line) = line
        && (aws.use_fips || aws.use_dualstack)
    {
        reader.error(
            line,
            "endpoint_url cannot go with use_fips or use_dualstack: they choose the address, and it replaces it",
            "remove endpoint_url, or set use_fips and use_dualstack to false",
        );
    }
    aws
}

/// The key `region` of a section; one that is probably misspelt is said.
pub fn read_region(reader: &mut Reader, view: &SectionView) -> Option<At<String>> {
    let at = reader.read(view, "region", region)?;
    if let Some(odd) = odd_region(&at.value) {
        reader.find(
            Severity::Warning,
            at.line,
            odd,
            "correct `region`, if it is mistyped; a password is made for one region",
        );
    }
    Some(at)
}

/// A region, as AWS spells them.
pub fn region(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    if region_shaped(text) {
        return Ok(text.to_owned());
    }
    let mut lower = text.to_ascii_lowercase();
    let fix = if region_shaped(&lower) {
        format!("write {lower:?}")
    } else if lower.pop().is_some_and(|c| c.is_ascii_lowercase()) && region_shaped(&lower) {
        format!("write {lower:?}: with a letter at its end it is an availability zone")
    } else {
        "write it as AWS does: \"eu-west-1\"".to_owned()
    };
    mistake(format!("{text:?} is not a region"), fix)
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

/// The ARN, where the text has the whole shape of one.
pub fn arn(text: &str) -> Option<Arn<'_>> {
    let arn = Arn::parse(text)?;
    let account_fits = arn.account.len() == 12 && arn.account.bytes().all(|b| b.is_ascii_digit());
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic());
    (account_fits && is_plain && !arn.resource.is_empty()).then_some(arn)
}

/// The ARN of an IAM role.
pub fn role_arn(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let example = "write it like arn:aws:iam::111122223333:role/relaykey";
    match arn(text) {
        None => mistake(format!("{text:?} is not an ARN"), example),
        Some(Arn { service: "iam", region: "", resource, .. })
            if resource.strip_prefix("role/").is_some_and(|r| !r.is_empty()) =>
        {
            Ok(text.to_owned())
        }
        Some(_) => mistake(format!("{text:?} is not the ARN of an IAM role"), example),
    }
}

/// What AssumeRole takes as `ExternalId`.
pub fn external_id(value: &DeValue) -> Judged<String> {
    let text = trimmed(value)?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b);
    if !(2..=1224).contains(&text.len()) || !text.bytes().all(fits) {
        return mistake("this is no external id", "use 2 to 1224 letters, digits and _+=,.@:/-");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
