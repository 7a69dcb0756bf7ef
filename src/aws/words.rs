//! What AWS, a proxy or a program that gives credentials said, as it may be shown: one line, bounded, without secrets.

use std::borrow::Cow;

use crate::credential::has_secret_shape;
use crate::text::line_of;

/// AWS's own words are cut to this many characters in an error.
const MAX_WORDS: usize = 700;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
