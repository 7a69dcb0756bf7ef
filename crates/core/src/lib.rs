//! What every program of relaykey shares: logins and what proves them, what may be shown to people, what people are told to
//! do. No I/O, no clock, no run time, no network.
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod credential;
pub mod fault;
pub mod finding;
pub mod instruction;
pub mod text;
