//! Stub, filled in by the next commit.

use crate::report::{Checking, Delivering, Receiver, Undelivered, Whose};
use crate::rollover::Report;

pub struct Webhook;

impl Webhook {
    pub fn new(_: &str, _: &std::path::Path, _: Option<&std::path::Path>) -> Result<Self, Undelivered> {
        Ok(Self)
    }
}

impl Receiver for Webhook {
    fn deliver<'a>(&'a self, _: &'a Report) -> Delivering<'a> {
        Box::pin(async { Err(Undelivered::new("stub", "not built", "wait")) })
    }

    fn check<'a>(&'a self, _: &'a Whose) -> Checking<'a> {
        Box::pin(async { Err(Undelivered::new("stub", "not built", "wait")) })
    }

    fn describe(&self) -> String {
        String::new()
    }
}
