//! What asking a source costs, at AWS's list prices.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config;

/// US dollars for one request to Secrets Manager, whichever it is: $0.05 per 10,000 API calls
/// (<https://aws.amazon.com/secrets-manager/pricing/>). The secret itself, $0.40 a month whoever reads it, is not
/// counted here.
const SECRETS_MANAGER_REQUEST: f64 = 0.05 / 10_000.0;

/// US dollars for one request to Parameter Store: standard parameters at standard throughput are free of charge
/// (<https://aws.amazon.com/systems-manager/pricing/>). A look asks for no decryption, so that the key service, $0.03 per
/// 10,000 requests (<https://aws.amazon.com/kms/pricing/>), is asked once a day and when there is something new: less than
/// a hundredth of a cent a month.
const PARAMETER_STORE_REQUEST: f64 = 0.0;

/// What price lists call a month.
const DAYS_A_MONTH: f64 = 30.0;

const SECONDS_A_DAY: f64 = 86_400.0;

/// Requests to the source, and their price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// One look per poll, nothing new.
    pub requests_per_day: u64,
    /// US dollars for 30 days of that, for one host.
    pub usd_per_month: f64,
}

impl Cost {
    /// Of one credential, as it is configured. A file costs nothing. Several labels cost no more than one, and a rollover
    /// is a request or two more.
    pub fn of(credential: &config::Credential) -> Self {
        let price = match credential.source {
            config::SourceConfig::SecretsManager { .. } => SECRETS_MANAGER_REQUEST,
            config::SourceConfig::ParameterStore { .. } => PARAMETER_STORE_REQUEST,
            config::SourceConfig::File { .. } => return Self { requests_per_day: 0, usd_per_month: 0.0 },
        };
        // Jitter spreads the polls and leaves their number. A poll is 5 seconds or longer, so this fits.
        let looks = SECONDS_A_DAY / credential.poll.as_secs_f64().max(1.0);
        Self { requests_per_day: looks.round() as u64, usd_per_month: looks * DAYS_A_MONTH * price }
    }
}

/// `288 requests a day, $0.04 a month at list price`
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.requests_per_day {
            0 => return f.write_str("no requests, no charge"),
            1 => f.write_str("1 request a day, ")?,
            n => write!(f, "{n} requests a day, ")?,
        }
        match self.usd_per_month {
            usd if usd <= 0.0 => f.write_str("no charge at list price"),
            usd if usd < 0.01 => f.write_str("less than $0.01 a month at list price"),
            usd => write!(f, "${usd:.2} a month at list price"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cost(source: &str, poll: u64) -> Cost {
        let text = format!(
            "config_version = 1\n[[credential]]\nname = \"ses\"\n[credential.source]\n{source}\n[credential.smtp]\n\
             endpoint = \"smtp.example.com\"\n[[credential.target]]\ntype = \"postfix\"\n"
        );
        let (mut config, _) = config::parse(&text).expect("a good configuration");
        config.credentials[0].poll = Duration::from_secs(poll);
        Cost::of(&config.credentials[0])
    }

    #[test]
    fn by_source_and_poll() {
        let secret = "type = \"secrets-manager\"\nsecret = \"ses\"";
        let labels = "type = \"secrets-manager\"\nsecret = \"ses\"\nstage = [\"CANARY\", \"AWSCURRENT\"]";
        let parameter = "type = \"parameter-store\"\nparameter = \"/ses\"";
        let file = "type = \"file\"\npath = \"/x\"";
        for (source, poll, requests, usd, says) in [
            (secret, 300, 288, 0.0432, "288 requests a day, $0.04 a month at list price"),
            (labels, 300, 288, 0.0432, "288 requests a day, $0.04 a month at list price"),
            (secret, 5, 17_280, 2.592, "17280 requests a day, $2.59 a month at list price"),
            (secret, 3600, 24, 0.0036, "24 requests a day, less than $0.01 a month at list price"),
            (secret, 86_400, 1, 0.000_15, "1 request a day, less than $0.01 a month at list price"),
            (secret, 7, 12_343, 1.851_428_571, "12343 requests a day, $1.85 a month at list price"),
            (parameter, 300, 288, 0.0, "288 requests a day, no charge at list price"),
            (file, 5, 0, 0.0, "no requests, no charge"),
        ] {
            let cost = cost(source, poll);
            assert_eq!(cost.requests_per_day, requests, "{source} every {poll} s");
            assert!((cost.usd_per_month - usd).abs() < 1e-6, "{source} every {poll} s: {cost:?}");
            assert_eq!(cost.to_string(), says);
        }
    }
}
