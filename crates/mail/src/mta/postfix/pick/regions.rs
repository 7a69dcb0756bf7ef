//! What is said of an entry whose region cannot be told (pure).

use super::super::hops::host_part;
use super::super::ownership::{EntryAt, RegionDoubt};
use super::super::review::Problem;
use super::Answering;
use crate::finding::Severity;
use crate::mta::alias::{Alias, is_told_by_port};
use crate::mta::shown;

impl Answering<'_> {
    /// Which region's password it is to get cannot be told.
    pub(super) fn region_unknown(&self, at: EntryAt, why: RegionDoubt) -> Problem {
        let entry = self.entry(at);
        let (key, host) = (shown::quoted_key(&entry.key, entry.on_line()), shown::hop(host_part(&entry.key)));
        // Of an address its port belongs to the name, or it would stand for all of them.
        let name = Alias::parse(&entry.key).filter(|alias| alias.port.is_some() && is_told_by_port(&alias.host));
        let name = name.map_or_else(|| host.clone(), |alias| format!("\"{alias}\""));
        let apart = format!(
            "list in the target's keys every key but {key}, which then keeps its login, and make a credential with its own endpoint for it"
        );
        let what = match why {
            RegionDoubt::SeveralRoutes => {
                "its SES region cannot be told: its key names none, no route that can be read leads from it to just one, and its password \
                 is none that is known"
                    .to_owned()
            }
            RegionDoubt::AnotherPassword => {
                "it holds the same access key id as another entry, as the source, or as this host has confirmed, with another \
                 password, and SES has one for each region: it is another region's, and which cannot be told"
                    .to_owned()
            }
            RegionDoubt::OnlyTheId => {
                "its SES region cannot be told: its key names none, its access key id was in use here before and nothing is known of its \
                 password, and its mail may go to another region"
                    .to_owned()
            }
            RegionDoubt::AnotherName { endpoint } => format!(
                "{host} is another name of the endpoint in {}, and the password is another than the one known of the same access key \
                 id: SES has one for each region, so that the line or that name is wrong",
                self.region(endpoint)
            ),
        };
        let fix = match why {
            RegionDoubt::AnotherName { endpoint } => format!(
                "if {host} leads to another region, take it out of the endpoint_aliases of {}, and name it in those of that region's \
                 endpoint, in [[credential.smtp.also]] where the source holds the access key itself; if it leads there at another port \
                 only, {apart}; if it does lead to {}, write the password that the same id has there into the line",
                self.endpoints[endpoint].host, self.endpoints[endpoint].host
            ),
            _ if entry.key.contains('@') => format!(
                "if the source holds the access key itself, name that region's endpoint in [[credential.smtp.also]], with a line for its \
                 host that holds the login of {key}; else {apart}"
            ),
            _ => format!(
                "if the source holds the access key itself, name the endpoint that {name} leads to, with that in its endpoint_aliases: in \
                 [credential.smtp], or for another region in [[credential.smtp.also]]; else {apart}"
            ),
        };
        // The login that is about to be put in place may tell.
        let severity = if self.candidate.is_some() { Severity::Error } else { Severity::Warning };
        self.of_entry(at, severity, what, fix)
    }
}
