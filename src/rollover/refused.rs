//! What to do about a key that the endpoint refuses (535): the advice of a run, of `check`, of the page and of reports, in one place.

use crate::credential::is_access_key_id;
use crate::instruction::relaykey;

/// A new key that was refused, with what is known of it where the advice is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedNewKey<'a> {
    /// In a run. It knows no more of the password than the region that `region` of the configuration names.
    InRun { region: Option<&'a str> },
    /// In `check`, which has the credential at hand: for which region relaykey derived the password, and what says so.
    InCheck { derived_for: Option<(&'a str, RegionSaidBy)> },
    /// On the page, with the user name of the key and what the source is called.
    OnPage { username: &'a str, source: &'a str },
}

/// What says in which region an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionSaidBy {
    /// `region`.
    Configuration,
    /// Its host name, as SES has it.
    EndpointName,
}

impl RefusedNewKey<'_> {
    /// What to do.
    pub fn fix(self) -> String {
        match self {
            Self::InRun { region: Some(region) } => format!(
                "nothing was changed by it; check that the access key is active and that this mail relay is in region {region}, which \
                 the configuration names: of an IAM access key relaykey derives the SMTP password for that region, and a ready-made \
                 one must be made for it; if both are right, publish a valid key at the source"
            ),
            Self::InRun { region: None } => {
                "nothing was changed by it; check that the access key is active and that what is stored is the SMTP password made from \
                 it for the region of this mail relay; if not, publish a valid one at the source"
                    .to_owned()
            }
            Self::InCheck { derived_for: Some((region, said_by)) } => {
                let says = match said_by {
                    RegionSaidBy::Configuration => "`region` in the configuration",
                    RegionSaidBy::EndpointName => "the endpoint's name",
                };
                format!(
                    "check that the access key is active, and that the endpoint is in region {region}, for which relaykey derived the SMTP \
                     password, as {says} says; a new key may need some minutes"
                )
            }
            Self::InCheck { derived_for: None } => {
                "check that the access key is active and that the SMTP password was derived for this endpoint's region; a new key may \
                 need some minutes"
                    .to_owned()
            }
            Self::OnPage { username, source } => {
                let check = match is_access_key_id(username) {
                    true => format!(
                        "check in AWS that the access key {username} is active, and that the stored password is the SMTP password made from \
                         it for the region of this mail relay; if not, publish a valid one"
                    ),
                    false => "check at the mail relay that user name and password are valid; if not, publish valid ones".to_owned(),
                };
                format!("{check} as a new version at the source, {source}")
            }
        }
    }
}

/// What to do about a key in use that is refused.
pub const REPLACE_REFUSED: &str = "activate the key again, or publish a valid one at the source";

/// The same on a host where a new version may wait for approval (`waits`: that one).
pub fn instead_of_the_refused(credential: &str, waits: Option<&str>) -> String {
    match waits {
        Some(version) => format!(
            "put the new key into use: `{}`; or activate the old one again",
            relaykey(format_args!("approve {credential} --version {version}"))
        ),
        None => REPLACE_REFUSED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ASIA` is AWS's too; what only begins like a key of AWS is somebody else's user name.
    #[test]
    fn aws_is_named_for_access_keys_alone() {
        for (username, is_aws) in [
            ("AKIAIOSFODNN7EXAMPLE", true),
            ("ASIAIOSFODNN7EXAMPLE", true),
            ("AKIA-of-the-office", false),
            ("apikey", false),
        ] {
            let fix = RefusedNewKey::OnPage { username, source: "file /etc/ses" }.fix();
            assert_eq!((fix.contains("in AWS"), fix.contains(username)), (is_aws, is_aws), "{fix}");
            assert!(fix.ends_with(" as a new version at the source, file /etc/ses"), "{fix}");
        }
    }

    /// What is said of a derivation is known to be so.
    #[test]
    fn a_derived_password_is_spoken_of_where_relaykey_derived_it() {
        let derived = |said_by| RefusedNewKey::InCheck { derived_for: Some(("eu-west-1", said_by)) }.fix();
        assert!(derived(RegionSaidBy::Configuration).contains("as `region` in the configuration says"));
        assert!(derived(RegionSaidBy::EndpointName).contains("as the endpoint's name says"));
        for unknown in [RefusedNewKey::InCheck { derived_for: None }, RefusedNewKey::InRun { region: None }] {
            assert!(!unknown.fix().contains("relaykey derive"), "{}", unknown.fix());
        }
    }
}
