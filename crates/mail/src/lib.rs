//! The mail server's side: what a mail server would use, and the atomic change of its files. It links no network, no AWS and
//! no run time; one day it is a root process of its own.
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod apply;
pub mod host;
pub mod mta;

pub use relaykey_core::{credential, fault, finding, instruction, text};
