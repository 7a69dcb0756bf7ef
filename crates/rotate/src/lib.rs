//! The control side: when a new IAM key is made, published and proved, and when the old one may die.
//!
//! A reconciler over evidence: facts in, one action out, look again.
//!
//! ```text
//!   IAM keys ─────┐
//!   store ────────┤                ┌─ before it: record.begin  (written under the fence)
//!   hosts' reports┼─> facts ─> look ─> plan ─> one action ─> record.done ─> everything is looked at anew
//!   own logins ───┤           │      (pure)
//!   control record┘           └─ what is no longer so is struck from the record first
//! ```
//!
//! [`plan::plan`] is pure, and so is all that it goes by: no I/O, no clock, no AWS. Who gathers the facts and does the actions
//! ([`run`], by way of [`aws`] and [`hosts`]) has no say in what is done. Recovery is the same function on fresh facts.
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod audit;
pub mod aws;
pub mod checker;
pub mod cli;
pub mod config;
pub mod demo;
pub mod evidence;
pub mod facts;
pub mod hosts;
pub mod plan;
pub mod policy;
pub mod record;
pub mod refusal;
pub mod retire;
pub mod run;
pub mod words;

#[cfg(test)]
mod imports;
#[cfg(test)]
mod model;
#[cfg(test)]
mod scenarios;
