//! The tests of the real program: one crate with a module for each subject, linked once.
//!
//! `tests/run` has the lanes: which module needs what.

#[path = "../lab/mod.rs"]
mod lab;

mod advice;
mod apply;
mod by_hand;
mod clone;
mod commands;
mod config;
mod control;
mod crash;
mod crash_apply;
mod crash_audit;
mod crash_report;
mod crowd;
mod daemon;
mod dynamodb;
mod earlier_keys;
mod email;
mod exec;
mod field;
mod hangs;
mod health;
mod history;
mod host;
mod instances;
mod kinds;
mod legacy;
mod manual;
mod page;
mod postfix;
mod proof;
mod report;
mod rotate;
mod rotate_cli;
mod secrets;
mod settings;
mod smtp;
mod sources;
mod status;
mod structure;
mod sync;
mod systemd;
mod tables;
mod told;
mod trust;
mod wake;
mod webhook;
