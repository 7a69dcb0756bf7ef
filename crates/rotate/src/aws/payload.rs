//! A value of the store with another key in it, in the form that it has.

use relaykey_core::credential::{IAM, JsonKeys, Payload, READY, Secret, ses_smtp_password};
use relaykey_core::fault::{Class, Fault};
use serde_json::{Map, Value};

use crate::config::Form;
use crate::facts::KeyId;

/// The value that is published for a new key. `before`: what is published now, whose form and other JSON keys stay. `region`:
/// whose SMTP password a ready login has.
pub fn compose(
    form: Form,
    before: Option<&str>,
    key: &KeyId,
    secret: &Secret,
    region: Option<&str>,
) -> Result<Secret, Fault> {
    let fields = before.and_then(|text| serde_json::from_str::<Map<String, Value>>(text.trim()).ok());
    let fields = fields.unwrap_or_default();
    let has = |(user, password): &&(&str, &str)| fields.contains_key(*user) && fields.contains_key(*password);
    let (ready, iam) = (READY.iter().find(has), IAM.iter().find(has));
    let form = match (form, before) {
        (Form::Keep, None) => Form::IamKey,
        (Form::Keep, Some(_)) if ready.is_some() => Form::Json,
        (Form::Keep, Some(_)) if iam.is_some() => Form::IamKey,
        (Form::Keep, Some(_)) => Form::Pair,
        (form, _) => form,
    };
    let password = || {
        region.map(|region| ses_smtp_password(secret, region)).ok_or_else(|| {
            Fault::new(
                Class::Configuration,
                "no SES region is known, so no SMTP password can be derived from the new key",
                "set `region` in [credential.smtp], or form = \"iam-key\" in [[credential.publish]]",
            )
        })
    };
    let (names, held) = match form {
        Form::Pair | Form::Keep => {
            return Ok(Secret::new(format!("{key}:{}", password()?.expose())));
        }
        Form::Json => (ready.unwrap_or(&READY[0]), password()?),
        Form::IamKey => (iam.unwrap_or(&IAM[0]), secret.clone()),
    };
    let mut fields = fields;
    // Converted: the names of the form before would be a second login.
    for (user, password) in READY.iter().chain(&IAM) {
        fields.remove(*user);
        fields.remove(*password);
    }
    fields.insert(names.0.into(), Value::String(key.as_str().into()));
    fields.insert(names.1.into(), Value::String(held.expose().into()));
    Ok(Secret::new(Value::Object(fields).to_string()))
}

/// What a value holds, if it is a login whose user name is an access key id.
pub fn parse(text: &Secret) -> Option<Payload> {
    Payload::parse(text.expose().as_bytes(), &JsonKeys { of_ses: true, ..JsonKeys::default() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn composed(form: Form, before: Option<&str>) -> String {
        let secret = Secret::new(SECRET.into());
        let made = compose(form, before, &KeyId::new("AKIAIOSFODNN7EXAMPLE"), &secret, Some("eu-west-1"));
        made.expect("composed").expose().to_owned()
    }

    #[test]
    fn the_form_stays_and_so_do_the_other_keys() {
        let password = ses_smtp_password(&Secret::new(SECRET.into()), "eu-west-1").expose().to_owned();
        let pair = composed(Form::Keep, Some("AKIAOLDOLDOLDOLDOLD1:old"));
        assert_eq!(pair, format!("AKIAIOSFODNN7EXAMPLE:{password}"));
        let json: Value = serde_json::from_str(&composed(
            Form::Keep,
            Some(r#"{"smtp_username": "AKIAOLD", "smtp_password": "old", "host": "mail", "n": 3}"#),
        ))
        .expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({"smtp_username": "AKIAIOSFODNN7EXAMPLE", "smtp_password": password, "host": "mail", "n": 3})
        );
        let iam: Value = serde_json::from_str(&composed(
            Form::Keep,
            Some(r#"{"AccessKeyId": "AKIAOLD", "SecretAccessKey": "old", "note": "x"}"#),
        ))
        .expect("JSON");
        assert_eq!(
            iam,
            serde_json::json!({"AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": SECRET, "note": "x"})
        );
        assert!(composed(Form::Keep, None).contains("secretAccessKey"), "hosts derive it for their region");
        let converted: Value = serde_json::from_str(&composed(
            Form::IamKey,
            Some(r#"{"username": "AKIAOLD", "password": "old", "note": "x"}"#),
        ))
        .expect("JSON");
        assert_eq!(
            converted,
            serde_json::json!({"accessKeyId": "AKIAIOSFODNN7EXAMPLE", "secretAccessKey": SECRET, "note": "x"})
        );
    }

    #[test]
    fn without_a_region_there_is_no_password_and_the_error_has_no_secret() {
        let secret = Secret::new(SECRET.into());
        let error =
            compose(Form::Pair, None, &KeyId::new("AKIAIOSFODNN7EXAMPLE"), &secret, None).expect_err("no region");
        assert!(!format!("{error:?}").contains(SECRET) && error.fix.contains("region"));
        assert!(compose(Form::IamKey, None, &KeyId::new("AKIAIOSFODNN7EXAMPLE"), &secret, None).is_ok());
    }
}
