//! Amazon SES by its API (version 2): with this host's own rights in AWS, not with the SMTP credential that is reported
//! about, so that a report gets through when that credential does not.
//!
//! Needs `ses:SendEmail` and `ses:SendRawEmail` on the identity of the sender; the check asks `ses:GetAccount`, and does
//! without where that is not granted.

use std::fmt;

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sesv2::operation::RequestId;
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, RawMessage};
use lettre::address::Address;

use super::Envelope;
use crate::aws::{self, AwsSession, Call, Http, ReachedFor, ServiceError};
use crate::config::Aws;
use crate::fault::{Class, Fault};

use crate::smtp::dialogue::WireMessage;

/// Recipients of one message (SES quotas).
const MOST_RECIPIENTS: usize = 50;

pub(super) struct Ses {
    region: Option<String>,
    session: AwsSession,
}

impl fmt::Display for Ses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SES in {}", self.region.as_deref().unwrap_or("the default region"))
    }
}

impl Ses {
    pub(super) fn new(envelope: &Envelope, aws: &Aws, http: &Http) -> Result<Self, Fault> {
        if envelope.to.len() > MOST_RECIPIENTS {
            return Err(Fault::new(
                Class::Configuration,
                format!("`to` names {} recipients, and SES takes {MOST_RECIPIENTS}", envelope.to.len()),
                "name a mailing list in `to` of [[report]], or make a second receiver for the others",
            ));
        }
        Ok(Self { region: aws.region.clone(), session: AwsSession::new(aws, http)?.reached_for(ReachedFor::Report) })
    }

    pub(super) async fn send(&self, envelope: &Envelope, message: WireMessage) -> Result<(), Fault> {
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref());
        let raw = RawMessage::builder().data(Blob::new(message.into_bytes())).build().expect("it has data");
        let to = envelope.to.iter().map(Address::to_string).collect();
        let request = Client::new(&config)
            .send_email()
            .from_email_address(envelope.from.to_string())
            .destination(Destination::builder().set_to_addresses(Some(to)).build())
            .content(EmailContent::builder().raw(raw).build());
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) => Err(self.explain(&e, "ses:SendEmail", &envelope.from, region).await),
        }
    }

    /// SES can be reached, and the account may send. Whether the sender is verified and the right to send is there is
    /// known when a message is sent.
    pub(super) async fn check(&self, envelope: &Envelope) -> Result<String, Fault> {
        let config = self.session.config().await?;
        let region = config.region().map_or("", |r| r.as_ref());
        let untried =
            format!("the right to send as {} (ses:SendEmail and ses:SendRawEmail) is not tried", envelope.from);
        match Client::new(&config).get_account().send().await {
            Ok(account) if !account.sending_enabled() => {
                let from = envelope.from.to_string();
                let call = self.call("ses:GetAccount", &from, region);
                Err(paused(&call, "GetAccount gives SendingEnabled = false"))
            }
            Ok(account) if !account.production_access_enabled() => Ok(format!(
                "the account sends by SES in {region}, but is in the sandbox there: sender and each recipient must be verified; {untried}"
            )),
            Ok(_) => Ok(format!("the account sends by SES in {region}; {untried}")),
            Err(e) => match self.explain(&e, "ses:GetAccount", &envelope.from, region).await {
                denied if denied.class == Class::AccessDenied => Ok(format!(
                    "SES in {region} answers; the account's state is not known here (that needs ses:GetAccount, which reports do not), \
                     and {untried}"
                )),
                other => Err(other),
            },
        }
    }

    fn call<'a>(&'a self, action: &'static str, from: &str, region: &'a str) -> Call<'a> {
        Call {
            action,
            about: format!("mail from {from}"),
            arn: format!("arn:{}:ses:{region}:*:identity/{from}", aws::partition(region)),
            region,
            role_arn: self.session.role_arn(),
        }
    }

    async fn explain<E>(&self, error: &SdkError<E>, action: &'static str, from: &Address, region: &str) -> Fault
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        SdkError<E>: RequestId,
    {
        let call = self.call(action, from.as_ref(), region);
        let mut explained = self.session.explain(error, &call, |answer| special(answer, &call, from)).await;
        match explained.class {
            Class::Throttled => {
                explained.fix =
                    "nothing to do if it passes; if it stays, the account sends more than its quota: look at the SES \
                                 console, under Account dashboard, and ask AWS for a higher one"
                        .into();
            }
            Class::AccessDenied => {
                explained.fix += "; a message with an attachment needs ses:SendRawEmail as well, on the sender's address or its domain";
            }
            _ => {}
        }
        explained
    }
}

fn paused(call: &Call, said: &str) -> Fault {
    Fault::new(
        Class::Refused,
        format!("sending is paused for this account in {}. AWS says: {said}", call.region),
        "look at the SES console, under Account dashboard, and at AWS's mails to the account's owner; resume sending there",
    )
}

/// What SES alone says, or means differently.
fn special(answer: ServiceError, call: &Call, from: &Address) -> Option<Fault> {
    let said = answer.words();
    let region = call.region;
    match answer.code {
        // One code for all that is wrong with a message; the words tell.
        "MessageRejected" if answer.message.to_ascii_lowercase().contains("verified") => Some(Fault::new(
            Class::Refused,
            format!("SES in {region} does not take {}: an address is not verified there. AWS says: {said}", call.about),
            format!(
                "verify {from}, or the domain {}, in SES in {region}; while the account is in the sandbox there, each recipient as well",
                from.domain()
            ),
        )),
        "MessageRejected" => Some(Fault::new(
            Class::Refused,
            format!("SES in {region} does not take {}. AWS says: {said}", call.about),
            format!(
                "do what SES says; {from}, which is `from` in [[report]], and each address in `to` must be such that SES in {region} takes it"
            ),
        )),
        "MailFromDomainNotVerifiedException" => Some(Fault::new(
            Class::Refused,
            format!(
                "SES in {region} does not take {}: the MAIL FROM domain set up for {} is not verified. AWS says: {said}",
                call.about,
                from.domain()
            ),
            "repair the MX record of that MAIL FROM domain (SES console, Identities, Custom MAIL FROM domain), or let SES use its own \
             when it fails",
        )),
        "AccountSuspendedException" => Some(Fault::new(
            Class::Refused,
            format!("AWS has shut down sending for this account in {region}. AWS says: {said}"),
            "answer AWS's mail to the account's owner; until then report in another way as well",
        )),
        "SendingPausedException" => Some(paused(call, &said)),
        "BadRequestException" => Some(Fault::new(
            Class::Refused,
            format!("SES in {region} does not take the message, {}. AWS says: {said}", call.about),
            "correct what SES names; `from` and `to` in [[report]] are the addresses",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_says_is_explained() {
        let call = Call {
            action: "ses:SendEmail",
            about: "mail from relaykey@example.com".into(),
            arn: "arn:aws:ses:eu-west-1:*:identity/relaykey@example.com".into(),
            region: "eu-west-1",
            role_arn: None,
        };
        let from: Address = "relaykey@example.com".parse().unwrap();
        let unverified = "Email address is not verified. The following identities failed the check in region EU-WEST-1: \
                          relaykey@example.com";
        for (code, message, fix) in [
            (
                "MessageRejected",
                unverified,
                "verify relaykey@example.com, or the domain example.com, in SES in eu-west-1",
            ),
            ("MessageRejected", "Too many recipients.", "`to`"),
            ("MailFromDomainNotVerifiedException", "", "MX record"),
            ("AccountSuspendedException", "", "account's owner"),
            ("SendingPausedException", "", "resume sending"),
            ("BadRequestException", "Invalid domain", "`from`"),
        ] {
            let e = special(ServiceError { code, message, ..ServiceError::default() }, &call, &from).expect(code);
            assert_eq!((e.class.word(), e.temporary), ("refused", false), "{code}");
            assert!(e.fix.contains(fix) && e.what.contains(code) && e.what.contains("eu-west-1"), "{code}: {e:?}");
        }
        for code in ["TooManyRequestsException", "LimitExceededException", "AccessDeniedException"] {
            assert!(
                special(ServiceError { code, message: "", ..ServiceError::default() }, &call, &from).is_none(),
                "{code}"
            );
            let general = aws::explain_answer(ServiceError { code, message: "", ..ServiceError::default() }, &call);
            assert_eq!(general.temporary, code != "AccessDeniedException", "{code}");
        }
    }
}
