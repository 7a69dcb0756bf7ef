//! A value of the store with another key in it, in the form that it has.

use std::ops::Range;

use relaykey_core::credential::{IAM, JsonKeys, Payload, READY, Secret, ses_smtp_password};
use relaykey_core::fault::{Class, Fault};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::config::Form;
use crate::facts::KeyId;

/// What is known of a key whose login is put somewhere.
#[derive(Clone, Copy)]
pub enum Held<'a> {
    /// Its secret access key, from which every region's password is derived.
    Key(&'a Secret),
    /// The SMTP password of one region alone.
    Password(&'a Secret),
}

impl Held<'_> {
    fn password(self, region: Option<&str>) -> Result<Secret, Fault> {
        match self {
            Held::Password(password) => Ok(password.clone()),
            Held::Key(secret) => region.map(|region| ses_smtp_password(secret, region)).ok_or_else(|| {
                Fault::new(
                    Class::Configuration,
                    "no SES region is known, so no SMTP password can be derived from the new key",
                    "set `region` in [credential.smtp], or form = \"iam-key\" in [[credential.publish]]",
                )
            }),
        }
    }

    fn secret(self) -> Result<Secret, Fault> {
        match self {
            Held::Key(secret) => Ok(secret.clone()),
            Held::Password(_) => Err(Fault::new(
                Class::Configuration,
                "the first place has an SMTP password, from which no secret access key can be made for a further one",
                "publish first where the form is iam-key: put that [[credential.publish]] first",
            )),
        }
    }
}

/// The region whose SMTP password a further place gets: its own, where a login is tried in that; else that of the first endpoint.
pub fn region_of(place: Option<&str>, mut tried: impl Iterator<Item = Option<String>>) -> Option<String> {
    let first = tried.next()?;
    let is_its_own = |region: &String| place == Some(region.as_str());
    tried.flatten().find(is_its_own).or(first)
}

/// The same login in the form of another place. `from`: a value that holds it.
pub fn copied(form: Form, before: Option<&str>, from: &Secret, region: Option<&str>) -> Result<Secret, Fault> {
    let login = parse(from).ok_or_else(|| {
        let what = "the value to be copied is no login whose user name is an access key id";
        Fault::new(Class::Configuration, what, "`relaykey-rotate check` says what is published")
    })?;
    let fields = members(from.expose());
    let name = pair_of(&fields, &IAM).map(|(_, secret)| *secret);
    let secret = fields.iter().find(|field| Some(field.name.as_str()) == name);
    let secret = secret.and_then(|field| serde_json::from_str::<String>(&from.expose()[field.value_at.clone()]).ok());
    let secret = secret.map(|secret| Secret::new(secret.trim().to_owned()));
    let key = KeyId::new(login.username());
    match secret {
        Some(secret) => compose(form, before, &key, Held::Key(&secret), region),
        None => {
            let ready = login.login("", region).map_err(|e| {
                Fault::new(Class::Configuration, e.to_string(), "`relaykey-rotate check` says what is published")
            })?;
            compose(form, before, &key, Held::Password(&ready.password), region)
        }
    }
}

/// Does a value of this form, put after this one, hold a secret access key?
pub fn holds_key(form: Form, before: Option<&Secret>) -> bool {
    let has = |before: &Secret, names| pair_of(&members(before.expose()), names).is_some();
    match (form, before) {
        (Form::IamKey, _) | (Form::Keep, None) => true,
        (Form::Keep, Some(before)) => !has(before, &READY) && has(before, &IAM),
        (Form::Pair | Form::Json, _) => false,
    }
}

/// The value that is published for a new key. `before`: what is published now, whose form and other JSON keys stay. `region`:
/// whose SMTP password a ready login has.
pub fn compose(
    form: Form,
    before: Option<&str>,
    key: &KeyId,
    held: Held,
    region: Option<&str>,
) -> Result<Secret, Fault> {
    let fields = before.map(members).unwrap_or_default();
    let (ready, iam) = (pair_of(&fields, &READY), pair_of(&fields, &IAM));
    let form = match (form, before) {
        (Form::Keep, None) if matches!(held, Held::Password(_)) => Form::Pair,
        (Form::Keep, None) => Form::IamKey,
        (Form::Keep, Some(_)) if ready.is_some() => Form::Json,
        (Form::Keep, Some(_)) if iam.is_some() => Form::IamKey,
        (Form::Keep, Some(_)) => Form::Pair,
        (form, _) => form,
    };
    // Converted: under names that nothing else in it has.
    let is_free = |names: &&(&str, &str)| fields.iter().all(|field| field.name != names.0 && field.name != names.1);
    let (names, held) = match form {
        Form::Pair | Form::Keep => {
            return Ok(Secret::new(format!("{key}:{}", held.password(region)?.expose())));
        }
        Form::Json => (ready.or_else(|| READY.iter().find(is_free)).unwrap_or(&READY[0]), held.password(region)?),
        Form::IamKey => (iam.or_else(|| IAM.iter().find(is_free)).unwrap_or(&IAM[0]), held.secret()?),
    };
    let login = [(names.0, key.as_str()), (names.1, held.expose())];
    let text = match (before, ready.or(iam)) {
        (Some(before), Some(was)) => replaced(before, &fields, [was.0, was.1], login),
        _ => object(login),
    };
    Ok(Secret::new(text))
}

/// One member of a JSON object, and where it stands in the text.
struct Member {
    name: String,
    name_at: Range<usize>,
    value_at: Range<usize>,
}

/// The members of a value that is a JSON object; of any other none. Everything that is not the login stays as it is written:
/// numbers of any size, order, spaces.
fn members(text: &str) -> Vec<Member> {
    members_of(text).unwrap_or_default()
}

fn members_of(text: &str) -> Option<Vec<Member>> {
    // A byte order mark is no part of it.
    let begin = text.len() - text.strip_prefix('\u{feff}').unwrap_or(text).len();
    let blank = |at: usize| at + text[at..].len() - text[at..].trim_ascii_start().len();
    let next = |at: usize, mark: char| text[at..].starts_with(mark).then(|| blank(at + 1));
    let mut at = next(blank(begin), '{')?;
    let mut all = Vec::new();
    if text[at..].starts_with('}') {
        return Some(all);
    }
    loop {
        let mut names = serde_json::Deserializer::from_str(&text[at..]).into_iter::<String>();
        let name = names.next()?.ok()?;
        let name_at = at..at + names.byte_offset();
        at = next(blank(name_at.end), ':')?;
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        let value_at = at..at + values.byte_offset();
        at = blank(value_at.end);
        all.push(Member { name, name_at, value_at });
        match next(at, ',') {
            Some(after) => at = after,
            None => return next(at, '}').filter(|end| *end == text.len()).map(|_| all),
        }
    }
}

/// Which of these pairs of names it has.
fn pair_of(
    fields: &[Member],
    pairs: &'static [(&'static str, &'static str)],
) -> Option<&'static (&'static str, &'static str)> {
    let has = |name: &str| fields.iter().any(|field| field.name == name);
    pairs.iter().find(|(user, password)| has(user) && has(password))
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn object(login: [(&str, &str); 2]) -> String {
    let [user, password] = login.map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)));
    format!("{{{user},{password}}}")
}

/// The text with another login in it, in the place of the one that has these names.
fn replaced(text: &str, fields: &[Member], was: [&str; 2], login: [(&str, &str); 2]) -> String {
    let (mut out, mut from) = (String::new(), 0);
    for field in fields {
        let Some(n) = was.iter().position(|name| *name == field.name) else { continue };
        out += &text[from..field.name_at.start];
        out += &quoted(login[n].0);
        out += &text[field.name_at.end..field.value_at.start];
        out += &quoted(login[n].1);
        from = field.value_at.end;
    }
    out + &text[from..]
}

/// Is it the same, however it is written?
pub fn says_the_same(one: &Secret, other: &Secret) -> bool {
    let json = |text: &Secret| {
        let text = text.expose();
        serde_json::from_str::<Value>(text.strip_prefix('\u{feff}').unwrap_or(text).trim()).ok()
    };
    one.expose().trim() == other.expose().trim() || json(one).is_some_and(|one| json(other) == Some(one))
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
        let made = compose(form, before, &KeyId::new("AKIAIOSFODNN7EXAMPLE"), Held::Key(&secret), Some("eu-west-1"));
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

    /// Names of another form beside the login, numbers that no float holds, a byte order mark, order and spaces: all stays.
    #[test]
    fn what_is_no_part_of_the_login_stays_to_the_letter() {
        let password = ses_smtp_password(&Secret::new(SECRET.into()), "eu-west-1").expose().to_owned();
        let id = "AKIAIOSFODNN7EXAMPLE";
        for (before, after) in [
            (
                r#"{"accessKeyId": "AKIAOLD", "secretAccessKey": "old", "username": "ses-smtp"}"#,
                format!(r#"{{"accessKeyId": "{id}", "secretAccessKey": "{SECRET}", "username": "ses-smtp"}}"#),
            ),
            (
                "{\"password\":\"of the database\",\n \"smtp_username\":\"AKIAOLD\",\"smtp_password\":\"old\" }\n",
                format!(
                    "{{\"password\":\"of the database\",\n \"smtp_username\":\"{id}\",\"smtp_password\":\"{password}\" }}\n"
                ),
            ),
            (
                "\u{feff}{\"username\":\"AKIAOLD\",\"password\":\"old\",\"n\":123456789012345678901234567890,\"f\":1.10}",
                format!(
                    "\u{feff}{{\"username\":\"{id}\",\"password\":\"{password}\",\"n\":123456789012345678901234567890,\"f\":1.10}}"
                ),
            ),
        ] {
            assert_eq!(composed(Form::Keep, Some(before)), after);
        }
        // Converted: what has the usual names is not the login.
        let converted =
            composed(Form::Json, Some(r#"{"accessKeyId":"AKIAOLD","secretAccessKey":"old","username":"ses-smtp"}"#));
        let expected = format!(r#"{{"smtp_username":"{id}","smtp_password":"{password}","username":"ses-smtp"}}"#);
        assert_eq!(converted, expected);
    }

    /// A further place keeps its own form; what is derived for one region is not turned back into a key.
    #[test]
    fn a_copy_has_the_form_of_its_own_place() {
        let id = "AKIAIOSFODNN7EXAMPLE";
        let password = ses_smtp_password(&Secret::new(SECRET.into()), "eu-west-1").expose().to_owned();
        let iam = Secret::new(format!(r#"{{"accessKeyId": "{id}", "secretAccessKey": "{SECRET}"}}"#));
        let pair = Secret::new(format!("{id}:{password}"));
        let copied =
            |before, from| copied(Form::Keep, before, from, Some("eu-west-1")).map(|text| text.expose().to_owned());
        let of_a_pair = Some("AKIAOLDOLDOLDOLDOLD1:old");
        let of_a_key = Some(r#"{"AccessKeyId": "AKIAOLD", "SecretAccessKey": "old", "note": "x"}"#);
        assert_eq!(copied(of_a_pair, &iam).unwrap(), pair.expose());
        assert_eq!(copied(None, &pair).unwrap(), pair.expose());
        let as_key: Value = serde_json::from_str(&copied(of_a_key, &iam).unwrap()).unwrap();
        assert_eq!(as_key, serde_json::json!({"AccessKeyId": id, "SecretAccessKey": SECRET, "note": "x"}));
        let refused = copied(of_a_key, &pair).expect_err("no key in it");
        assert!(refused.fix.contains("iam-key") && !format!("{refused:?}").contains(&password));
    }

    /// A password of another region would be refused in its own.
    #[test]
    fn a_further_place_gets_the_password_of_its_own_region() {
        let tried = |primary: Option<&str>| [primary.map(str::to_owned), Some("us-east-1".to_owned())].into_iter();
        let of = |place, primary| region_of(place, tried(primary));
        assert_eq!(of(Some("us-east-1"), Some("eu-west-1")).as_deref(), Some("us-east-1"));
        assert_eq!(of(Some("eu-west-1"), Some("eu-west-1")).as_deref(), Some("eu-west-1"));
        // Where no login is tried, nothing is known of SES.
        assert_eq!(of(Some("eu-west-3"), Some("eu-west-1")).as_deref(), Some("eu-west-1"));
        assert_eq!(of(None, None), None);
    }

    /// What a value will hold is known before there is a key.
    #[test]
    fn whether_a_value_will_hold_a_key_goes_by_its_form_and_the_value_before() {
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        let (pair, json) =
            (secret("AKIAOLDOLDOLDOLDOLD1:old"), secret(r#"{"username": "AKIAOLD", "password": "old"}"#));
        let iam = secret(r#"{"AccessKeyId": "AKIAOLD", "SecretAccessKey": "old"}"#);
        for (form, before, holds) in [
            (Form::Keep, &None, true),
            (Form::Keep, &pair, false),
            (Form::Keep, &json, false),
            (Form::Keep, &iam, true),
            (Form::IamKey, &pair, true),
            (Form::Pair, &iam, false),
            (Form::Json, &None, false),
        ] {
            assert_eq!(holds_key(form, before.as_ref()), holds, "{form:?} {}", before.is_some());
            let made = composed(form, before.as_ref().map(|text| text.expose()));
            assert_eq!(made.contains(SECRET), holds, "{form:?}: as it is made");
        }
    }

    #[test]
    fn without_a_region_there_is_no_password_and_the_error_has_no_secret() {
        let secret = Secret::new(SECRET.into());
        let error = compose(Form::Pair, None, &KeyId::new("AKIAIOSFODNN7EXAMPLE"), Held::Key(&secret), None)
            .expect_err("no region");
        assert!(!format!("{error:?}").contains(SECRET) && error.fix.contains("region"));
        assert!(compose(Form::IamKey, None, &KeyId::new("AKIAIOSFODNN7EXAMPLE"), Held::Key(&secret), None).is_ok());
    }
}
