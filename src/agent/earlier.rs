//! Which ready-made passwords of earlier versions their endpoint takes: SES has one password of an access key for each region, so that
//! a login of our own tells whether one is of the endpoint's. An earlier version may hold another region's by mistake, and a text may
//! hold that very one.

use futures_util::future::join_all;

use super::endpoints::login_at;
use crate::apply::NamedLogin;
use crate::config;
use crate::credential::Login;
use crate::smtp::LoginVerdict;

/// Logins of earlier versions, and what came of them at the endpoints where they were tried, once each. Lives as long as what was
/// fetched.
#[derive(Default)]
pub struct TriedEarlier(Vec<EndpointTried>);

/// The default endpoint of a target, and which of the logins it has taken.
struct EndpointTried {
    smtp: config::Smtp,
    taken: Vec<Login>,
}

impl TriedEarlier {
    fn at(&self, smtp: &config::Smtp) -> Option<&EndpointTried> {
        self.0.iter().find(|tried| tried.smtp == *smtp)
    }

    /// Has the default endpoint taken this login?
    pub(super) fn is_taken(&self, smtp: &config::Smtp, login: &Login) -> bool {
        self.at(smtp).is_some_and(|tried| tried.taken.contains(login))
    }

    /// Tries those of `logins` that are certain of no region at the default endpoint, side by side, each within the endpoint's own
    /// deadline. What comes to nothing, or is refused, leaves what is known as it is. True: one was taken.
    pub(super) async fn try_at(&mut self, smtp: &config::Smtp, logins: &[NamedLogin], hello_name: &str) -> bool {
        if self.at(smtp).is_none() {
            let mut uncertain: Vec<&Login> = Vec::new();
            for named in logins.iter().filter(|named| !named.is_certain && named.endpoint == 0) {
                if !uncertain.contains(&&named.login) {
                    uncertain.push(&named.login);
                }
            }
            let verdicts = join_all(uncertain.iter().map(|login| login_at(smtp, login, hello_name))).await;
            let taken = uncertain.into_iter().zip(verdicts);
            let taken = taken.filter(|(_, verdict)| matches!(verdict, LoginVerdict::Accepted { .. }));
            let taken = taken.map(|(login, _)| login.clone()).collect();
            self.0.push(EndpointTried { smtp: smtp.clone(), taken });
        }
        self.at(smtp).is_some_and(|tried| !tried.taken.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fetched::{try_earlier, with_named};
    use super::*;
    use crate::apply::Ours;
    use crate::credential::{JsonKeys, Payload, Secret};
    use crate::source::EarlierVersions;
    use crate::standin::{Options, Standin};

    const ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const OURS: &str = "BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
    const OTHERS: &str = "BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn smtp(port: u16, ca_file: &std::path::Path) -> config::Smtp {
        let text = format!(
            "config_version = 1\n[[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\npath = \"/x\"\n\
             [credential.smtp]\nendpoint = \"localhost\"\nport = {port}\nregion = \"us-east-1\"\nca_file = {ca_file:?}\n\
             timeout = \"5s\"\n[[credential.target]]\ntype = \"postfix\"\n"
        );
        config::parse(&text).unwrap().0.credentials[0].targets[0].smtp.clone()
    }

    /// What is known of its logins then, and whether anything is, tried twice; and how often somebody logged in.
    fn tried(port: impl Fn(&Standin) -> u16, passwords: &[&str]) -> (Vec<bool>, [bool; 2], usize) {
        let standin = Standin::start(Options::default()).unwrap();
        standin.set_key(ID, &Secret::new(OURS.to_owned()));
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, standin.ca_pem()).unwrap();
        let smtp = smtp(port(&standin), &ca_file);
        let payload =
            |password: &&str| Payload::parse(format!("{ID}:{password}").as_bytes(), &JsonKeys::default()).unwrap();
        let named = EarlierVersions { payloads: passwords.iter().map(payload).collect(), ..EarlierVersions::default() };
        let mut tried = TriedEarlier::default();
        let run_time = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = [(); 2].map(|()| run_time.block_on(try_earlier(&mut tried, &named, &smtp, "mx.example.com")));
        let ours = with_named(Ours::default(), &named, &smtp, &tried);
        (ours.named_logins.iter().map(|named| named.is_certain).collect(), told, standin.logins().len())
    }

    #[test]
    fn an_earlier_password_that_the_endpoint_takes_is_its_regions() {
        let starttls = Standin::starttls_port;
        assert_eq!(tried(starttls, &[OURS]), (vec![true], [true; 2], 1));
        // Another region's, by mistake, or of a key that is dead: that tells nothing.
        assert_eq!(tried(starttls, &[OTHERS]), (vec![false], [false; 2], 1));
        assert_eq!(tried(starttls, &[OTHERS, OURS, OURS]), (vec![false, true, true], [true; 2], 2));
        // Nobody answers.
        assert_eq!(tried(|_| 1, &[OURS]), (vec![false], [false; 2], 0));
        assert_eq!(tried(starttls, &[]), (vec![], [false; 2], 0));
    }
}
