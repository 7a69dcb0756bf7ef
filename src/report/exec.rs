//! Stub, filled in by the next commit.

use crate::report::{Checking, Delivering, Receiver, Undelivered, Whose};
use crate::rollover::Report;

pub struct Exec;

impl Exec {
    pub fn new(_: &[String], _: &str, _: std::time::Duration) -> Self {
        Self
    }
}

impl Receiver for Exec {
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
