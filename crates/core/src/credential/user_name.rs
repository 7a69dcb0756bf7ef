//! What may be shown of a user name.
//!
//! A user name is public, and is shown, stored, logged and reported. What stands in its place need not be one: people
//! swap user name and password, in what they publish and in a mail server's table. So what has the shape of a secret is no
//! user name anywhere, and of names that this host does not know only access key ids are shown.

/// What is said in the place of a user name that is not shown.
pub const NOT_SHOWN: &str = "another user name (not shown)";

/// The user name, where it may be shown, stored, logged and reported: an access key id, or one that this host knows as its
/// own credential's (`is_known`).
pub fn shown(username: &str, is_known: bool) -> Option<&str> {
    let is_public = is_known || is_access_key_id(username);
    let is_text = !username.is_empty() && username.bytes().all(|b| b.is_ascii_graphic());
    (is_public && is_text && secret_in(username).is_none()).then_some(username)
}

/// The same, as a text: where it may not be shown, that is said.
pub fn shown_or_said(username: &str, is_known: bool) -> &str {
    shown(username, is_known).unwrap_or(NOT_SHOWN)
}

/// Has it the form of an access key id (IAM user guide, "IAM identifiers"): of a user, or a temporary one?
pub fn is_access_key_id(username: &str) -> bool {
    let begins = ["AKIA", "ASIA"].iter().any(|begin| username.starts_with(begin));
    begins && username.len() <= 128 && username.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// Has it the whole length of one too? IAM's have four letters and 16 more; what stands in a line of text may have been cut short.
pub fn is_whole_access_key_id(username: &str) -> bool {
    username.len() >= 20 && is_access_key_id(username)
}

/// What secret this text seems to be or to contain, in words. By its shape alone: a run of base64's characters that is as
/// long as AWS makes its secrets (40: a secret access key; 44, the base64 of 33 bytes: an SES SMTP password of any version;
/// more than 100: a session token), and that is no word and no number in hexadecimal.
pub(super) fn secret_in(text: &str) -> Option<&'static str> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    text.split(|c| !base64(c)).filter(|run| is_mixed(run)).find_map(|run| match run.len() {
        40 => Some("an AWS secret access key"),
        44 => Some("an SES SMTP password"),
        101.. => Some("a session token"),
        _ => None,
    })
}

/// Has it the shape of a secret, so that it is no user name?
pub fn has_secret_shape(text: &str) -> bool {
    secret_in(text).is_some()
}

fn is_mixed(run: &str) -> bool {
    let has = |is: fn(&u8) -> bool| run.as_bytes().iter().any(is);
    has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) || run.contains(['+', '/'])
}
