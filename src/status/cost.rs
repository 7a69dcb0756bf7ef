//! What asking a source costs, at AWS's list prices.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config;

/// Requests to the source, and their price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// One look per poll, nothing new.
    pub requests_per_day: u64,
    /// US dollars for 30 days of that, for one host.
    pub usd_per_month: f64,
}

impl Cost {
    /// Of one credential, as it is configured.
    pub fn of(_credential: &config::Credential) -> Self {
        Self { requests_per_day: 0, usd_per_month: 0.0 }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests a day, ${:.2} a month", self.requests_per_day, self.usd_per_month)
    }
}
