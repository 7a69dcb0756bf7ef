//! The demo's stand-ins for tests of commands: one key, published in one secret, and no host.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use relaykey::aws::Http;
use relaykey::standin::{Options, Standin};

use super::{AwsStandin, Controller, Hooks, SECRET, USER, configuration};
use crate::cli::Session;
use crate::config::Config;

pub struct Lab {
    pub aws: AwsStandin,
    config: Config,
    http: Http,
    scratch: PathBuf,
    _ses: Arc<Standin>,
}

/// Of the process in which such a test runs.
const LOGIN: (&str, &str) = ("AWS_ACCESS_KEY_ID", "AKIADEMO999999999999");

impl Lab {
    /// For the test of this name. Whoever calls AWS finds a login in its environment, and this process must not change its own: so
    /// that the test runs in another one. `None`: it has, and passed.
    pub fn of(test: &str) -> Option<Self> {
        if std::env::var(LOGIN.0).is_ok_and(|login| login == LOGIN.1) {
            return Some(Self::start(test));
        }
        let mut again = Command::new(std::env::current_exe().expect("this program"));
        again.args(["--exact", test, "--nocapture"]);
        again.env(LOGIN.0, LOGIN.1).env("AWS_SECRET_ACCESS_KEY", "demo").env_remove("AWS_PROFILE");
        let ran = again.env_remove("AWS_SESSION_TOKEN").output().expect("it runs");
        let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        None
    }

    fn start(test: &str) -> Self {
        let name = test.replace("::", "-");
        let scratch = std::env::temp_dir().join(format!("relaykey-rotate-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&scratch).expect("a directory");
        let ses = Arc::new(Standin::start(Options::default()).expect("the SES stand-in"));
        let ca_file = scratch.join("ca.pem");
        std::fs::write(&ca_file, ses.ca_pem()).expect("written");
        let aws = AwsStandin::start(USER, SECRET, Arc::clone(&ses)).expect("the AWS stand-in");
        let config = configuration(&aws, &ses, &ca_file).expect("a configuration");
        let http = Http::new(ses.ca_pem().as_bytes());
        Self { aws, config, http, scratch, _ses: ses }
    }

    /// Another process, as far as the lease can tell.
    pub async fn controller(&self) -> Controller {
        let hooks = Hooks { http: Some(self.http.clone()), ..Hooks::default() };
        Controller::with_hooks(&self.config, &self.config.credentials[0], hooks).await.expect("a controller")
    }

    /// Where a command runs.
    pub async fn place(&self) -> Session<'_> {
        let (config, controller) = (&self.config, self.controller().await);
        Session { config, credential: &config.credentials[0], controller, json: false }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
