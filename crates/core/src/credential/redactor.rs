//! Secrets are taken out of what others say.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::{Login, Secret};

/// So many bytes of a secret in a row are taken out of a text, in upper or lower case.
pub(super) const FRAGMENT: usize = 8;

/// What is shown in the place of a text that would tell a short password.
pub(super) const HIDDEN: &str = "(its words are not shown: a password of fewer than 8 characters may stand in them)";

/// Takes secrets out of texts that come from SES or from child processes: whole forms of them, and, as one that quotes
/// what it was sent may cut it or change its case, every run of eight bytes. Where a password is shorter than that, what is left
/// around it would tell it: of a text in which one stands nothing is shown.
#[derive(Default)]
pub struct Redactor {
    short: Vec<Secret>,
    whole: Vec<Zeroizing<String>>,
    fragments: HashSet<[u8; FRAGMENT]>,
}

impl Redactor {
    /// Knows the raw, base64 and AUTH PLAIN (RFC 4616) forms of each login's password.
    pub fn new<'a>(logins: impl IntoIterator<Item = &'a Login>) -> Self {
        let mut redactor = Self::default();
        for login in logins {
            let forms = Forms::of(login);
            redactor.fragments.extend(forms.telling().flat_map(fragments));
            redactor.whole.extend(forms.whole);
            if login.password.expose().len() < FRAGMENT {
                redactor.short.push(login.password.clone());
            }
        }
        // Longest first, so that no tail of a longer form is left standing.
        redactor.whole.sort_by_key(|n| std::cmp::Reverse(n.len()));
        redactor
    }

    /// Knows those of the logins of which anything stands in `text`, for this text alone: of a million logins these are few.
    pub fn for_text(text: &str, logins: impl IntoIterator<Item = Login>) -> Self {
        let said: HashSet<[u8; FRAGMENT]> = fragments(text).collect();
        // By their first two bytes: most fragments need no better look.
        let mut begins = vec![false; 1 << 16];
        let begin = |fragment: &[u8; FRAGMENT]| usize::from(u16::from_le_bytes([fragment[0], fragment[1]]));
        said.iter().for_each(|fragment| begins[begin(fragment)] = true);
        let stands = |login: &Login| {
            let forms = Forms::of(login);
            let is_said = |fragment: [u8; FRAGMENT]| begins[begin(&fragment)] && said.contains(&fragment);
            forms.telling().flat_map(fragments).any(is_said)
                || forms.whole.iter().any(|form| text.contains(form.as_str()))
        };
        Self::new(&logins.into_iter().filter(stands).collect::<Vec<_>>())
    }

    /// The text with secrets replaced by `***` and what does not show escaped, on one line: of its first 4 lines 512 bytes each,
    /// with ` | ` between them. A line that others begin could pass for one of ours.
    pub fn clean(&self, text: &str) -> String {
        if self.short.iter().any(|password| text.contains(password.expose())) {
            return HIDDEN.to_owned();
        }
        let mut text = text.to_owned();
        for needle in &self.whole {
            if text.contains(needle.as_str()) {
                text = text.replace(needle.as_str(), "***");
            }
        }
        let text = self.without_fragments(&text);
        let mut lines = Vec::new();
        for line in text.trim_end().lines().take(4) {
            let mut out = crate::text::line(line).into_owned();
            while out.len() > 512 {
                out.pop();
            }
            lines.push(out);
        }
        lines.join(" | ")
    }

    fn without_fragments(&self, text: &str) -> String {
        let mut secret = vec![false; text.len()];
        for (start, fragment) in fragments(text).enumerate() {
            if self.fragments.contains(&fragment) {
                secret[start..start + FRAGMENT].fill(true);
            }
        }
        let mut out = String::new();
        for (at, c) in text.char_indices() {
            // A fragment is ASCII, so it begins and ends where characters do.
            match (secret[at], at > 0 && secret[at - 1]) {
                (false, _) => out.push(c),
                (true, false) => out.push_str("***"),
                (true, true) => {}
            }
        }
        out
    }
}

/// What a password may look like: as it is, in AUTH PLAIN with and without an identity, and in the table; each also in base64.
struct Forms {
    whole: [Zeroizing<String>; 8],
    /// Its middle in base64 where one or two bytes of something else stand before it, or any number that is not of a group.
    shifted: [Zeroizing<String>; 2],
}

impl Forms {
    fn of(Login { username, password }: &Login) -> Self {
        let raw = password.expose();
        let plain = [
            Zeroizing::new(raw.to_owned()),
            Zeroizing::new(format!("\0{username}\0{raw}")),
            Zeroizing::new(format!("{username}\0{username}\0{raw}")),
            Zeroizing::new(format!("{username}:{raw}")),
        ];
        let encode = |n: usize| Zeroizing::new(BASE64.encode(plain[n].as_bytes()));
        let encoded = [encode(0), encode(1), encode(2), encode(3)];
        let shifted = ["x", "xx"].map(|before| {
            let all = Zeroizing::new(format!("{before}{raw}"));
            let encoded = Zeroizing::new(BASE64.encode(all.as_bytes()));
            // Without the characters that say something of what stands before it, or behind it.
            let end = all.len() * 4 / 3;
            Zeroizing::new(encoded.get(before.len() + 1..end).unwrap_or_default().to_owned())
        });
        let [a, b, c, d] = plain;
        let [e, f, g, h] = encoded;
        Self { whole: [a, b, c, d, e, f, g, h], shifted }
    }

    /// Those of which a part gives the password away: the user name is in none of them that can be read.
    fn telling(&self) -> impl Iterator<Item = &str> {
        let whole = [0, 4, 5].into_iter().map(|n| self.whole[n].as_str());
        whole.chain(self.shifted.iter().map(|form| form.as_str()))
    }
}

fn fragments(text: &str) -> impl Iterator<Item = [u8; FRAGMENT]> + '_ {
    text.as_bytes().windows(FRAGMENT).map(|window| std::array::from_fn(|i| window[i].to_ascii_lowercase()))
}
