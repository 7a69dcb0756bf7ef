//! The control side against the local AWS server and the SES stand-in, with the real SDK: whole rotations, two controllers that are
//! killed, and the scenarios of hosts, keys, labels and AWS in trouble. Agents are simulated, their proofs are real.

mod faults;
mod fleet;
mod killed;
pub mod lab;
mod places;
mod scenarios;
mod vanished;
mod whole;
