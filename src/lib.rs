//! relaykey keeps the SMTP credential of a mail relay fresh: it notices a new version, proves it with a real
//! SMTP AUTH, rewrites the mail server's configuration atomically, reloads, and reads back what will be used.
//!
//! `docs/code-structure.md` explains the whole on one page; `tests/it/structure.rs` keeps who may import whom.
#![forbid(unsafe_code)]
// They panic when the reader has gone away; `cli` has functions that do not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

// What every program shares, and the mail server's side: crates of their own, which link no network, no AWS and no run time.
pub use relaykey_core::{credential, fault, finding, instruction, text};
pub use relaykey_mail::{apply, host, mta};

// Pure: no I/O, no clock, no run time.
pub mod config;
pub mod rollover;
pub mod status;

// The world's side.
pub mod audit;
pub mod aws;
pub mod control;
pub mod health;
pub mod net;
pub mod report;
pub mod service;
pub mod smtp;
pub mod source;
pub mod standin;
pub mod state;
pub mod tls;
pub mod wake;

// Assembly.
pub mod agent;
pub mod cli;
pub mod daemon;
