//! What is owed to whom. It stands with the durable state, and not with the receivers: what is owed becomes durable in the one
//! rename that makes durable what it tells of, and `report`, which changes it, is on the world's side, which nothing pure may
//! import.

use relaykey_core::report::Report;
use serde::{Deserialize, Serialize};

use super::target_state::Retry;

/// What is owed to one receiver.
#[derive(Debug, Clone, PartialEq, Hash, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// In the order of their `seq`; only the latest for a receiver that holds one document per host.
    pub owed: Vec<Report>,
    /// Attempts at the first of them, and when it is due again.
    pub retry: Retry,
    /// `seq` of the last report that arrived there.
    pub delivered: u64,
}
