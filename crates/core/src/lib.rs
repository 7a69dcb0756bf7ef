//! What every program of relaykey shares: logins and what proves them, what may be shown to people, what people are told to
//! do, and how a configuration file is read. No I/O, no clock, no run time, no network.
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod audit;
#[cfg(feature = "config")]
pub mod config;
pub mod credential;
pub mod exit;
pub mod fault;
pub mod finding;
pub mod instruction;
pub mod report;
pub mod target;
pub mod text;
pub mod word;
