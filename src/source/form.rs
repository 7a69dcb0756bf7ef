//! What an answer names has the form of such names, for every type of source: versions and sources stand in lines that people
//! and programs read, in state, in reports and in the audit log, and whoever answers is not always AWS.

use super::{Advice, Fetched, Fetching, Looking, ReadingEarlier, SeenVersion, Source};
use crate::config;
use crate::credential::{SourceIdentity, VersionId};
use crate::fault::{Class, Fault};
use crate::text;

/// Version ids of Secrets Manager have 64 characters at most, and numbers fewer.
const LONGEST_VERSION: usize = 256;
/// AWS's own limit.
const LONGEST_ARN: usize = 2048;
/// Of a path (`PATH_MAX`), with what stands in front of it.
const LONGEST_PATH: usize = 4096 + 16;

/// A source whose answers are taken only in form.
pub struct InForm {
    source: Box<dyn Source>,
    /// What it is called.
    words: String,
    /// Its identity is the path of a file, which the configuration names and which may hold blanks.
    is_file: bool,
}

impl InForm {
    pub fn new(source: Box<dyn Source>, of: &config::SourceConfig) -> Self {
        Self { source, words: of.words(), is_file: of.file().is_some() }
    }

    fn check(&self, identity: &SourceIdentity, version: &str) -> Result<(), Fault> {
        let is_name = |text: &str, most: usize| {
            !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let arn = &identity.arn;
        if self.is_file && !(arn.len() <= LONGEST_PATH && arn.chars().all(text::shows)) {
            let what = "the path of the source is too long, or has a character in it that does not show";
            return Err(Fault::new(Class::File, what, "move the file to another path, and name that in `path`"));
        }
        if !self.is_file && !is_name(arn, LONGEST_ARN) {
            return Err(self.odd("ARN", arn, LONGEST_ARN));
        }
        if !is_name(version, LONGEST_VERSION) {
            return Err(self.odd("version id", version, LONGEST_VERSION));
        }
        Ok(())
    }

    fn odd(&self, part: &str, text: &str, most: usize) -> Fault {
        let how = match text.len() {
            0 => "is empty".to_owned(),
            length if length > most => format!("has {length} bytes, and none of AWS has more than {most}"),
            _ => "has blanks or other characters in it that none of AWS has".to_owned(),
        };
        Fault::new(
            Class::Service,
            format!("{}: the {part} in the answer {how}, so that the answer is not taken", self.words),
            "nothing to do if it passes; if it stays, check `endpoint_url`: is AWS behind it",
        )
        .temporary()
    }

    fn checked(&self, fetched: Fetched) -> Result<Fetched, Fault> {
        self.check(&fetched.identity, &fetched.id.version).map(|()| fetched)
    }
}

impl Source for InForm {
    fn look(&self) -> Looking<'_> {
        Box::pin(async {
            let seen: SeenVersion = self.source.look().await?;
            self.check(&seen.identity, &seen.id.version).map(|()| seen)
        })
    }

    fn fetch(&self) -> Fetching<'_> {
        Box::pin(async { self.checked(self.source.fetch().await?) })
    }

    fn fetch_version<'a>(&'a self, identity: &'a SourceIdentity, id: &'a VersionId) -> Fetching<'a> {
        // What comes is the version that was asked for, or an error.
        self.source.fetch_version(identity, id)
    }

    fn earlier(&self) -> ReadingEarlier<'_> {
        self.source.earlier()
    }

    fn requests(&self) -> u64 {
        self.source.requests()
    }

    fn advice(&self) -> Option<Advice> {
        self.source.advice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Answers(SourceIdentity, String);

    impl Source for Answers {
        fn look(&self) -> Looking<'_> {
            Box::pin(async {
                Ok(SeenVersion { identity: self.0.clone(), id: VersionId { version: self.1.clone(), order: None } })
            })
        }

        fn fetch(&self) -> Fetching<'_> {
            Box::pin(async {
                let payload = crate::credential::Payload::parse(b"AKIAEXAMPLE:password", &Default::default());
                let (identity, version) = (self.0.clone(), self.1.clone());
                Ok(Fetched { identity, id: VersionId { version, order: None }, payload: payload.expect("a login") })
            })
        }

        fn fetch_version<'a>(&'a self, _: &'a SourceIdentity, _: &'a VersionId) -> Fetching<'a> {
            self.fetch()
        }
    }

    /// How a look and a fetch end that are given these.
    fn asked(is_file: bool, arn: &str, version: &str) -> Option<Fault> {
        let identity = SourceIdentity { arn: arn.into(), created: None };
        let source = Box::new(Answers(identity, version.into()));
        let source = InForm { source, words: "the source".into(), is_file };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a run time");
        let (looked, fetched) = (runtime.block_on(source.look()).err(), runtime.block_on(source.fetch()).err());
        assert_eq!(looked, fetched);
        looked
    }

    #[test]
    fn what_an_answer_names_has_the_form_of_such_names_or_is_not_taken() {
        let arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:S-abcdef";
        let file = "file:/etc/relaykey/the credential \u{fc}";
        for (is_file, arn) in [(false, arn), (true, file)] {
            for version in ["1", "01234567-89ab-cdef-0123-456789abcdef", &"x".repeat(256)] {
                assert_eq!(asked(is_file, arn, version), None);
            }
            for version in
                ["", "v-3\n2026-11-29T00:00:00Z info ses: confirmed", "a b", "\u{fc}", "\u{1b}[2J", &"x".repeat(257)]
            {
                let fault = asked(is_file, arn, version).expect("not taken");
                assert!(
                    fault.class == Class::Service && fault.temporary && fault.what.contains("version id"),
                    "{fault:?}"
                );
                assert!(text::line(&fault.what) == fault.what && fault.what.len() < 200, "{fault:?}");
            }
        }
        for odd in ["", "arn:x\n", "arn:a b", "arn:\u{202e}", &"y".repeat(2049)] {
            let fault = asked(false, odd, "1").expect("not taken");
            assert!(fault.class == Class::Service && fault.what.contains("ARN"), "{fault:?}");
        }
        assert!(asked(true, "file:/a\nb", "1").is_some_and(|fault| fault.class == Class::File));
    }
}
