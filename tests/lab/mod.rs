//! What tests share: private mail servers, an AWS API server, hosts with relaykey on them.

pub mod acl;
pub mod book;
pub mod container;
pub mod daemon;
pub mod health;
pub mod isolated;
pub mod memory;
pub mod moto;
#[cfg(feature = "crash-at")]
pub mod points;
pub mod postfix;
pub mod relaykey;
pub mod sample;
pub mod scratch;
pub mod several;
