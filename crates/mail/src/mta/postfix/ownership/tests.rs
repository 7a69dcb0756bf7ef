//! Every sentence of the rule, as a row: what is set up, and what must come out.

use super::super::hops::PortNames;
use super::super::origin::Origin;
use super::*;
use crate::credential::{LocalKey, ses_region};
use crate::mta::alias::Alias;
use crate::mta::{KnownLogins, KnownPassword, RegionalLogin};

const SES: &str = "email-smtp.us-east-1.amazonaws.com";
const HOP: &str = "[email-smtp.us-east-1.amazonaws.com]:587";
const EU: &str = "email-smtp.eu-west-1.amazonaws.com";
const EU_HOP: &str = "[email-smtp.eu-west-1.amazonaws.com]:587";

/// A host. Tables hold `KEY USER` lines; passwords are the user name in small letters.
struct Host {
    /// `name tables…`, with `no-auth` and `by-sender` among them where it is so.
    services: &'static [&'static str],
    /// `service hop`, with `for-senders` behind it where it is so; `unread-for-senders` is a table of such that cannot be read.
    hops: &'static [&'static str],
    /// A routing table cannot be read.
    is_blind: bool,
    /// A line that is `fixed`, `static` or `unlisted` says so of the table.
    tables: &'static [&'static str],
    /// `applied=`, `previous=`, `known=`, `earlier=`, `remembered=`, `root=`, `candidate=`.
    ids: &'static [&'static str],
    keys: Option<&'static [&'static str]>,
    endpoints: &'static [&'static str],
}

/// One service, one next hop, one table.
const PLAIN: Host = Host {
    services: &["smtp 0"],
    hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587"],
    is_blind: false,
    tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
    ids: &["applied=AKIAOLD", "candidate=AKIANEW"],
    keys: None,
    endpoints: &["email-smtp.us-east-1.amazonaws.com"],
};

impl Host {
    fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |spelt: &&str| {
            let mut words = spelt.split(' ');
            let host = words.next().unwrap().to_owned();
            let region = ses_region(&host);
            let aliases = words.filter_map(Alias::parse).collect();
            Endpoint { host, port: 587, region, aliases, port_names: PortNames::default() }
        };
        self.endpoints.iter().map(endpoint).collect()
    }

    /// `region=eu-west-1 USER:PASSWORD`: a login that is known with its region. `password=eu-west-1 USER:PASSWORD`: the same, and that
    /// the key has no other there; `said=` in the place of that: what only an earlier ready-made version says. `confirmed=USER:PASSWORD`: of the applied version; `found=USER:PASSWORD`: in use before anything was.
    fn known_logins(&self) -> KnownLogins {
        let key = LocalKey::new([1; 32]);
        let known = |name: &str, id: &&str| {
            let is_certain = name != "said=";
            let (region, pair) = id.strip_prefix(name)?.split_once(' ')?;
            let login = Login::from_pair(pair).unwrap();
            let live_id = key.live_id(&login);
            Some(KnownPassword {
                username: login.username,
                login: RegionalLogin { region: region.to_owned(), live_id },
                is_certain,
            })
        };
        let mut logins = KnownLogins::default();
        logins.know_regional(self.ids.iter().filter_map(|id| Some(known("region=", id)?.login)).collect());
        let found = self.ids.iter().filter_map(|id| id.strip_prefix("found="));
        logins.others.extend(found.map(|pair| key.live_id(&Login::from_pair(pair).unwrap())));
        let passwords = |name| self.ids.iter().filter_map(move |id| known(name, id));
        logins.passwords = passwords("password=").chain(passwords("said=")).collect();
        logins.applied = self
            .ids
            .iter()
            .filter_map(|id| id.strip_prefix("confirmed="))
            .map(|pair| key.live_id(&Login::from_pair(pair).unwrap()))
            .collect();
        let is_empty = logins.regional.is_empty() && logins.passwords.is_empty() && logins.applied.is_empty();
        logins.key = Some(key).filter(|_| !is_empty);
        logins
    }

    fn ask<T>(&self, use_it: impl FnOnce(&Ownership, &[Table]) -> T) -> T {
        let endpoints = self.endpoints();
        let text = |lines: &&str| {
            let lines = lines.lines().map(str::trim).filter(|line| !matches!(*line, "fixed" | "static" | "unlisted"));
            let with_password = |line: &str| match line.split_once(' ') {
                Some((_, value)) if value.contains(':') || value == "no-login" => format!("{line}\n"),
                Some((_, user)) => format!("{line}:{}\n", user.to_ascii_lowercase()),
                None => format!("{line}\n"),
            };
            Table::parse(lines.map(with_password).collect::<String>().as_bytes()).unwrap()
        };
        let texts: Vec<Table> = self.tables.iter().map(text).collect();
        let tables: Vec<LoginTable<'_>> = (self.tables.iter().zip(&texts).enumerate())
            .map(|(number, (lines, text))| LoginTable {
                id: TableId::new(format!("hash:/{number}")),
                entries: match *lines {
                    lines if lines.contains("fixed") => Entries::Fixed(text),
                    lines if lines.contains("static") => Entries::Static(text),
                    // What it answers.
                    lines if lines.contains("unlisted") => {
                        let answer = |entry: Entry<'_>| entry.login().map_or(Answer::NoLogin, Answer::Login);
                        Entries::Unlisted(text.entries().map(|entry| (fold(&entry.key), answer(entry))).collect())
                    }
                    _ => Entries::Writable(text),
                },
            })
            .collect();
        let clients: Vec<Client<'_>> = (self.services.iter())
            .map(|spelt| {
                let mut words = spelt.split(' ');
                Client {
                    service: words.next().unwrap(),
                    logs_in: !spelt.contains("no-auth"),
                    by_sender: spelt.contains("by-sender"),
                    tables: words.filter_map(|word| word.parse().ok()).collect(),
                }
            })
            .collect();
        let hop = |spelt: &&str| {
            let (service, hop) = spelt.split_once(' ')?;
            let for_senders = hop.strip_suffix(" for-senders");
            let origin = if for_senders.is_some() { Origin::SenderRelayhost } else { Origin::Relayhost };
            Some(NextHop::new(service, origin, for_senders.unwrap_or(hop), None, &endpoints))
        };
        let is_blind_for_senders = self.hops.contains(&"unread-for-senders");
        let blind = [(self.is_blind, Origin::TransportMaps), (is_blind_for_senders, Origin::SenderRelayhost)];
        let unread = blind.into_iter().filter(|(is_so, _)| *is_so).map(|(_, origin)| (origin, "mysql:/t".to_owned()));
        let hops = Hops {
            all: self.hops.iter().filter_map(hop).collect(),
            unread: unread.collect(),
            without_login: Vec::new(),
        };
        let id = |name: &str| {
            let ids = self.ids.iter().filter_map(|id| id.strip_prefix(name)?.strip_prefix('='));
            ids.map(str::to_owned).collect::<Vec<_>>()
        };
        let ours = Ours {
            named: Vec::new(),
            named_logins: Vec::new(),
            remembered: id("remembered"),
            named_by_root: id("root"),
            applied: id("applied").pop(),
            previous: id("previous").pop(),
            known: [id("known"), id("remembered"), id("root")].concat(),
            earlier: id("earlier"),
            one_region: self.ids.contains(&"ready-made"),
            logins: self.known_logins(),
        };
        let candidate = id("candidate").pop();
        let keys: Option<Vec<String>> = self.keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
        let known = KnownIds { ours: &ours, candidate: candidate.as_deref() };
        let scope = Scope { endpoints: &endpoints, keys: keys.as_deref() };
        use_it(&ownership(&clients, &hops, &tables, &known, &scope), &texts)
    }

    /// What is moved (`table:line`, with `*` under a live key and `@n` for another endpoint than the first), added (`+table key`),
    /// and said.
    fn comes_to(&self) -> String {
        self.ask(|found, texts| {
            let at = |at: &EntryAt| format!("{}:{}", at.table, texts[at.table].entry(at.entry).line);
            let of = |endpoint: usize| if endpoint == 0 { String::new() } else { format!("@{endpoint}") };
            let mut said: Vec<String> = Vec::new();
            for moved in &found.moved {
                let live = if moved.is_live { "*" } else { "" };
                said.push(format!("{}{live}{}", at(&moved.at), of(moved.endpoint)));
            }
            for added in &found.added {
                said.push(format!("+{} {}{}", added.table, added.key, of(added.endpoint)));
            }
            for (left, _) in &found.left_out {
                said.push(format!("old {}", at(left)));
            }
            said.extend(found.without_login.iter().map(|(service, hop)| format!("without {service} {hop}")));
            for fact in &found.facts {
                said.push(match fact {
                    Fact::AnotherLogin { at: entry } => format!("another {}", at(entry)),
                    Fact::AnsweredElsewhere { key, table, is_ours } => {
                        format!("{} in {table}: {key}", if *is_ours { "ours" } else { "another" })
                    }
                    Fact::AnotherLoginNotListed { at: entry } => format!("not listed {}", at(entry)),
                    Fact::SameName { at: entry } => format!("same name {}", at(entry)),
                    Fact::OtherRegionLeft { at: entry, region } => format!("left {region} {}", at(entry)),
                    Fact::OtherRegion { at: Some(entry), region, .. } => format!("{region} {}", at(entry)),
                    Fact::OtherRegion { key, region, .. } => format!("{region} +{key}"),
                    Fact::RegionUnknown { at: entry, .. } => format!("region? {}", at(entry)),
                    Fact::RegionUnknownLeft { at: entry, .. } => format!("region? left {}", at(entry)),
                    Fact::NoPassword { at: Some(entry), endpoint, .. } => {
                        format!("no password {}@{endpoint}", at(entry))
                    }
                    Fact::NoPassword { key, endpoint, .. } => format!("no password +{key}@{endpoint}"),
                    Fact::NoPasswordLeft { at: entry, endpoint } => format!("left {}@{endpoint}", at(entry)),
                    Fact::CannotBeWritten { at: entry } => format!("fixed {}", at(entry)),
                    Fact::NowhereToAdd { service, .. } => format!("nowhere {service}"),
                    Fact::SenderAnswers { at: entry, .. } => format!("sender answers {}", at(entry)),
                    Fact::UnknownSenders { at: entry, .. } => format!("unknown senders {}", at(entry)),
                    Fact::Shadowed { at: entry, by } => format!("shadowed {} by {}", at(entry), at(by)),
                    Fact::LogsInNowhere { service, .. } => format!("no auth {service}"),
                    Fact::NoTable { service, .. } => format!("no table {service}"),
                    Fact::Left { service } => format!("left {service}"),
                    Fact::Taken { username } => format!("taken {username}"),
                    Fact::NoLiveKey => "no live key".into(),
                });
            }
            said.join(", ")
        })
    }
}

fn check(cases: &[(Host, &str)]) {
    for (host, expected) in cases {
        assert_eq!(host.comes_to(), *expected, "{:?} {:?} {:?}", host.tables, host.hops, host.ids);
    }
}

#[test]
fn what_holds_an_id_of_ours_is_moved_whatever_its_key() {
    check(&[
        (PLAIN, "0:1*"),
        (
            Host {
                hops: &["smtp [relay.example]:587"],
                endpoints: &["relay.example"],
                tables: &["[relay.example]:587 AKIAOLD
                           a@b.example AKIAOLD
                           @c.example AKIAPREV
                           [other.example]:25 AKIASTAGED
                           [more.example]:25 AKIANEW
                           [mail.example]:25 AKIAELSE
                           d@b.example joe"],
                ids: &["applied=AKIAOLD", "previous=AKIAPREV", "known=AKIASTAGED", "candidate=AKIANEW"],
                ..PLAIN
            },
            "0:1*, 0:2, 0:3, 0:4, 0:5",
        ),
        // In every table, also where no next hop of ours leads to its service.
        (
            Host {
                services: &["smtp 0", "bulk 1"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "[x.example]:25 AKIAOLD"],
                ..PLAIN
            },
            "0:1*, 1:1",
        ),
        // But not under an SES host of a region that is not configured.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD
                           [email-smtp.eu-west-1.amazonaws.com]:25 AKIAELSE"],
                ..PLAIN
            },
            "0:1*, old 0:2, left eu-west-1 0:2",
        ),
        // Where mail goes by it, or may, it is an error.
        (
            Host {
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "smtp [email-smtp.eu-west-1.amazonaws.com]:2587",
                ],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:1*, eu-west-1 0:2",
        ),
        (
            Host {
                is_blind: true,
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:1*, eu-west-1 0:2",
        ),
        // What is known of earlier is named, and not written.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           @c.example AKIAOLDEST"],
                ids: &["applied=AKIAOLD", "earlier=AKIAOLDEST", "candidate=AKIANEW"],
                ..PLAIN
            },
            "0:1*, old 0:2",
        ),
    ]);
}

/// A host without state, to which the source has named ids.
#[test]
fn ids_that_the_source_names_are_ours_on_a_host_without_state() {
    let two = |tables, ids| Host {
        services: &["smtp 0", "team 1"],
        hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587", "team [email-smtp.us-east-1.amazonaws.com]:587"],
        tables,
        ids,
        ..PLAIN
    };
    let senders = |ids| Host {
        services: &["smtp 0 by-sender"],
        tables: &["@a.example AKIAOLD
                   @b.example AKIATEAM"],
        ids,
        ..PLAIN
    };
    const THEIRS: &[&str] =
        &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "[email-smtp.us-east-1.amazonaws.com]:587 AKIATEAM"];
    const HALF: &[&str] =
        &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "[email-smtp.us-east-1.amazonaws.com]:587 AKIAPREV"];
    check(&[
        // Nothing is known: which of the two is this credential's cannot be told.
        (two(THEIRS, &["candidate=AKIANEW"]), "0:1*, 1:1*, another 0:1, another 1:1"),
        // The service of another account is left.
        (two(THEIRS, &["known=AKIAOLD", "candidate=AKIANEW"]), "0:1*, left team"),
        // The key before, which an earlier rotation by hand has left in one of them.
        (two(HALF, &["known=AKIAOLD", "known=AKIAPREV", "candidate=AKIANEW"]), "0:1*, 1:1*"),
        // Only senders have logins, and one of them is another account's.
        (senders(&["known=AKIAOLD", "candidate=AKIANEW"]), "0:1*, sender answers 0:1"),
        (senders(&["candidate=AKIANEW"]), "unknown senders 0:1, no live key"),
    ]);
}

#[test]
fn look_up_order() {
    check(&[
        // The bare host, then the destination as spelt; both are ours.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           email-smtp.us-east-1.amazonaws.com AKIAOLD"],
                ..PLAIN
            },
            "0:2*, 0:1*",
        ),
        (Host { tables: &["email-smtp.us-east-1.amazonaws.com AKIAOLD"], ..PLAIN }, "0:1*"),
        // Not another port, nor without one: neither is found.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com] AKIAOLD
                           [email-smtp.us-east-1.amazonaws.com]:25 AKIAOLD"],
                ..PLAIN
            },
            "0:1, 0:2, +0 [email-smtp.us-east-1.amazonaws.com]:587",
        ),
        // Keys fold case.
        (Host { tables: &["[Email-SMTP.US-east-1.amazonaws.com]:587 AKIAOLD"], ..PLAIN }, "0:1*"),
        // The first of equal keys wins; one of ours that loses is moved too, another's is left and told.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           [EMAIL-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"],
                ..PLAIN
            },
            "0:1*, 0:2, shadowed 0:3 by 0:1",
        ),
        // Tables in their order, each key in all of them before the next key.
        (
            Host {
                services: &["smtp 1 0"],
                tables: &[
                    "email-smtp.us-east-1.amazonaws.com AKIAOLD",
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD",
                ],
                ..PLAIN
            },
            "0:1*, 1:1*",
        ),
        (
            Host {
                services: &["smtp 1 0"],
                tables: &[
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE",
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD",
                ],
                ..PLAIN
            },
            "1:1*",
        ),
        // A sender comes first, and only with sender-dependent authentication.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@a.example AKIAOLD
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:2*, 0:1*",
        ),
        (
            Host {
                tables: &["@a.example AKIAOLD
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:2*, 0:1",
        ),
    ]);
}

#[test]
fn without_brackets_any_name_of_the_endpoint_answers() {
    let host = Host {
        hops: &["smtp mailout.corp.example:587"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com mailout.corp.example"],
        ..PLAIN
    };
    check(&[
        // The mail exchanger of our own name: nothing is added, and nothing else of the same host is.
        (Host { tables: &["email-smtp.us-east-1.amazonaws.com AKIAOLD"], ..host }, "0:1*"),
    ]);
    let host = Host {
        hops: &["smtp mailout.corp.example:587"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com mailout.corp.example"],
        ..PLAIN
    };
    check(&[
        (Host { tables: &["mailout.corp.example:587 AKIAOLD"], ..host }, "0:1*"),
        (
            Host {
                hops: &["smtp mailout.corp.example:587"],
                endpoints: &["email-smtp.us-east-1.amazonaws.com mailout.corp.example"],
                tables: &["[mailout.corp.example]:587 AKIAELSE"],
                ..PLAIN
            },
            "+0 mailout.corp.example:587",
        ),
        // A bracketed one is its own host alone.
        (
            Host {
                hops: &["smtp [mailout.corp.example]:587"],
                endpoints: &["email-smtp.us-east-1.amazonaws.com mailout.corp.example"],
                tables: &["email-smtp.us-east-1.amazonaws.com AKIAOLD"],
                ..PLAIN
            },
            "0:1, +0 [mailout.corp.example]:587",
        ),
    ]);
}

#[test]
fn another_name_under_a_key_of_a_next_hop() {
    check(&[
        (Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"], ..PLAIN }, "0:1*, another 0:1"),
        // The bare host of another account before our own line.
        (
            Host {
                tables: &["email-smtp.us-east-1.amazonaws.com AKIAELSE
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:1*, 0:2*, another 0:1",
        ),
        (Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 no-login"], ..PLAIN }, "0:1*, another 0:1"),
        // Under a sender it is left, and no error.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@b.example AKIAELSE
                           c@b.example joe
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:3*",
        ),
        // A service whose tables hold none of ours is left, where another's do.
        (
            Host {
                services: &["smtp 0", "bulk 1"],
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "bulk [email-smtp.us-east-1.amazonaws.com]:587",
                ],
                tables: &[
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD",
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE",
                ],
                ..PLAIN
            },
            "0:1*, left bulk",
        ),
        // It is not, where they hold one of ours under whatever key.
        (
            Host {
                services: &["smtp 0", "bulk 1"],
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "bulk [email-smtp.us-east-1.amazonaws.com]:587",
                ],
                tables: &[
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD",
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE
                     @x.example AKIAOLD",
                ],
                ..PLAIN
            },
            "0:1*, 1:1*, 1:2, another 1:1",
        ),
    ]);
}

#[test]
fn a_host_without_state() {
    const FRESH: Host = Host { ids: &["candidate=AKIANEW"], ..PLAIN };
    check(&[
        // One and the same access key id under all such keys is the one before.
        (FRESH, "0:1*, taken AKIAOLD"),
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           email-smtp.us-east-1.amazonaws.com AKIAOLD
                           @a.example AKIAOLD
                           @b.example AKIAELSE"],
                ..FRESH
            },
            "0:2*, 0:1*, 0:3, taken AKIAOLD",
        ),
        // Two are not.
        (
            Host {
                tables: &["email-smtp.us-east-1.amazonaws.com AKIAELSE
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..FRESH
            },
            "0:1*, 0:2*, another 0:1, another 0:2",
        ),
        // Where something is ours, nothing else is taken for it.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           @a.example AKIANEW"],
                ..FRESH
            },
            "0:1*, 0:2, another 0:1",
        ),
        (Host { ids: &["known=AKIAOLD", "candidate=AKIANEW"], ..FRESH }, "0:1*"),
        // A name that is no access key id is never overwritten at SES; elsewhere it is as good as any.
        (Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 joe"], ..FRESH }, "0:1*, another 0:1"),
        (
            Host {
                hops: &["smtp [relay.example]:587"],
                endpoints: &["relay.example"],
                tables: &["[relay.example]:587 joe"],
                ids: &["candidate=ann"],
                ..PLAIN
            },
            "0:1*, taken joe",
        ),
        // With state nothing is taken.
        (Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"], ..PLAIN }, "0:1*, another 0:1"),
        // Only senders hold anything, and whose that is nobody knows.
        (
            Host { services: &["smtp 0 by-sender"], tables: &["@a.example AKIAOLD\n@b.example AKIAOLD"], ..FRESH },
            "unknown senders 0:1, no live key",
        ),
        // The name of the version before says it.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@a.example AKIAOLD\n@b.example AKIAOLD"],
                ids: &["known=AKIAOLD", "candidate=AKIANEW"],
                ..FRESH
            },
            "0:1*, 0:2*, sender answers 0:1",
        ),
        // Nothing at all is there: the first one is made.
        (Host { tables: &["# none"], ..FRESH }, "+0 [email-smtp.us-east-1.amazonaws.com]:587"),
    ]);
}

#[test]
fn a_next_hop_without_an_entry() {
    check(&[
        (Host { tables: &["[x.example]:25 AKIAELSE"], ..PLAIN }, "+0 [email-smtp.us-east-1.amazonaws.com]:587"),
        // As its route spells it, once for all services on the table.
        (
            Host {
                services: &["smtp 0", "relay 0"],
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "relay [Email-smtp.us-east-1.amazonaws.com]:587",
                    "smtp [email-smtp.us-east-1.amazonaws.com]:2587",
                ],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:1*, +0 [email-smtp.us-east-1.amazonaws.com]:2587",
        ),
        // In the first table that can be written.
        (
            Host { services: &["smtp 0 1 2"], tables: &["fixed\n[x.example]:1 AKIAELSE", "# none", "# none"], ..PLAIN },
            "+1 [email-smtp.us-east-1.amazonaws.com]:587",
        ),
        (Host { tables: &["fixed\n[x.example]:1 AKIAELSE"], ..PLAIN }, "nowhere smtp, no live key"),
        // Not in a service that is left,
        (
            Host {
                services: &["smtp 0", "bulk 1"],
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "bulk [email-smtp.us-east-1.amazonaws.com]:587",
                ],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "[x.example]:1 AKIAELSE"],
                ..PLAIN
            },
            "0:1*, left bulk",
        ),
        // nor where a sender's entry of ours answers,
        (
            Host { services: &["smtp 0 by-sender"], tables: &["@a.example AKIAOLD"], ..PLAIN },
            "0:1*, sender answers 0:1",
        ),
        (Host { tables: &["@a.example AKIAOLD"], ..PLAIN }, "0:1, +0 [email-smtp.us-east-1.amazonaws.com]:587"),
        // nor where a service does not log in, or has no table.
        (
            Host {
                services: &["smtp 0", "bulk 0 no-auth", "plain"],
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "bulk [email-smtp.us-east-1.amazonaws.com]:2587",
                    "plain [email-smtp.us-east-1.amazonaws.com]:25",
                ],
                ..PLAIN
            },
            "0:1*, no auth bulk, no table plain",
        ),
        (Host { services: &["smtp 0 no-auth"], ..PLAIN }, "0:1, no auth smtp, no live key"),
        // No next hop of ours: no live key, and never a confirmation.
        (Host { hops: &["smtp [other.example]:587"], ..PLAIN }, "0:1, no live key"),
    ]);
}

#[test]
fn loopback_names_go_by_host_and_port() {
    let host = |hops, endpoints| Host {
        hops,
        endpoints,
        tables: &["[127.0.0.1]:2525 AKIAOLD\n[127.0.0.1]:10025 AKIAELSE"],
        ..PLAIN
    };
    check(&[
        (
            host(
                &["smtp [127.0.0.1]:2525", "smtp [127.0.0.1]:10025"],
                &["email-smtp.us-east-1.amazonaws.com 127.0.0.1:2525"],
            ),
            "0:1*",
        ),
        (host(&["smtp [127.0.0.1]:10025"], &["email-smtp.us-east-1.amazonaws.com 127.0.0.1:2525"]), "0:1, no live key"),
        // An alias without a port stands for all of them.
        (
            host(
                &["smtp [127.0.0.1]:2525", "smtp [127.0.0.1]:10025"],
                &["email-smtp.us-east-1.amazonaws.com 127.0.0.1"],
            ),
            "0:1*, 0:2*, another 0:2",
        ),
    ]);
}

#[test]
fn a_route_that_cannot_be_read_may_lead_to_any_name_of_the_endpoint() {
    const BLIND: Host = Host {
        is_blind: true,
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                   [email-smtp.us-east-1.amazonaws.com]:2587 AKIAOLD
                   [relay.internal]:25 AKIAOLD
                   [other.example]:25 AKIAOLD"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com relay.internal"],
        ..PLAIN
    };
    check(&[
        (BLIND, "0:1*, 0:2*, 0:3*, 0:4"),
        (Host { is_blind: false, ..BLIND }, "0:1*, 0:2, 0:3, 0:4"),
        // Also where no route that can be read leads there.
        (Host { hops: &[], ..BLIND }, "0:1*, 0:2*, 0:3*, 0:4"),
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD\n[relay.internal]:25 AKIAELSE"],
                ..BLIND
            },
            "0:1*, 0:2*, another 0:2",
        ),
    ]);
}

#[test]
fn where_mail_goes_without_a_login_none_is_put_unless_one_is_surely_asked_for() {
    const GATEWAY: Host = Host {
        hops: &["smtp [gateway.internal]:587", "smtp [gateway.internal]:25"],
        tables: &["[gateway.internal]:587 AKIAOLD"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com gateway.internal"],
        ..PLAIN
    };
    check(&[
        (GATEWAY, "0:1*, without smtp [gateway.internal]:25"),
        // As the endpoint itself, by its own port,
        (Host { endpoints: &["gateway.internal"], ..GATEWAY }, "0:1*, without smtp [gateway.internal]:25"),
        // and at any port of an address.
        (
            Host {
                hops: &["smtp [127.0.0.1]:2525", "smtp [127.0.0.1]:587"],
                tables: &["[127.0.0.1]:2525 AKIAOLD"],
                endpoints: &["email-smtp.us-east-1.amazonaws.com 127.0.0.1"],
                ..PLAIN
            },
            "0:1*, without smtp [127.0.0.1]:587",
        ),
        // The port of the configuration, a port with a login of ours, SES itself: a login is asked for.
        (
            Host {
                hops: &["smtp [gateway.internal]:2526", "smtp [gateway.internal]:587"],
                tables: &["[gateway.internal]:2526 AKIAOLD"],
                ..GATEWAY
            },
            "0:1*, +0 [gateway.internal]:587",
        ),
        (
            Host {
                services: &["smtp 0", "bulk 1"],
                hops: &["smtp [gateway.internal]:25", "bulk [gateway.internal]:25"],
                tables: &["[gateway.internal]:25 AKIAOLD", "[x.example]:25 AKIAOLD"],
                ..GATEWAY
            },
            "0:1*, 1:1, +1 [gateway.internal]:25",
        ),
        (
            Host {
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "smtp [email-smtp.us-east-1.amazonaws.com]:25",
                ],
                ..PLAIN
            },
            "0:1*, +0 [email-smtp.us-east-1.amazonaws.com]:25",
        ),
        // What is listed is meant to have one.
        (
            Host { keys: Some(&["[gateway.internal]:587", "[gateway.internal]:25"]), ..GATEWAY },
            "0:1*, +0 [gateway.internal]:25",
        ),
        (Host { keys: Some(&["[gateway.internal]:587"]), ..GATEWAY }, "0:1*, without smtp [gateway.internal]:25"),
        // A service that logs in nowhere, or has no table.
        (
            Host { services: &["smtp 0", "bulk 0 no-auth"], hops: &["bulk [gateway.internal]:25"], ..GATEWAY },
            "0:1, without bulk [gateway.internal]:25, no live key",
        ),
        (
            Host { hops: &["smtp [gateway.internal]:25"], tables: &["[x.example]:25 joe"], ..GATEWAY },
            "without smtp [gateway.internal]:25, no live key",
        ),
    ]);
}

#[test]
fn several_regions_of_one_key() {
    const TWO: Host = Host {
        hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587", "smtp [email-smtp.eu-west-1.amazonaws.com]:587"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com", "email-smtp.eu-west-1.amazonaws.com relay.eu"],
        ..PLAIN
    };
    check(&[
        // By the host of the key,
        (TWO, "0:1*, 0:2*@1"),
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [email-smtp-fips.eu-west-1.amazonaws.com]:587 AKIAOLD:eu
                           [relay.eu]:25 AKIAOLD:eu
                           [email-smtp.ap-south-1.amazonaws.com]:587 AKIAOLD:ap"],
                hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587"],
                ..TWO
            },
            "0:1*, 0:2@1, 0:3@1, old 0:4, left ap-south-1 0:4",
        ),
        // by its present password,
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@a.example AKIAOLD:us
                           @b.example AKIAOLD:eu
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu"],
                ..TWO
            },
            "0:3*, 0:4*@1, 0:1*, 0:2*@1",
        ),
        // by where its routes lead,
        (
            Host {
                services: &["smtp 0 by-sender"],
                hops: &["smtp [email-smtp.eu-west-1.amazonaws.com]:587"],
                tables: &["@a.example AKIAOLD:x"],
                ..TWO
            },
            "0:1*@1, sender answers 0:1",
        ),
        (
            Host {
                services: &["smtp 0", "x 1"],
                tables: &[
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu",
                    "[mx.example]:1 AKIAOLD:y",
                ],
                ..TWO
            },
            "0:1*, 0:2*@1, old 1:1, region? left 1:1",
        ),
        // and where they lead to several, it is not guessed.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@a.example AKIAOLD:x
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu"],
                ..TWO
            },
            "0:2*, 0:3*@1, region? 0:1",
        ),
        // What is added has the endpoint of its hop.
        (
            Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us"], ..TWO },
            "0:1*, +0 [email-smtp.eu-west-1.amazonaws.com]:587@1",
        ),
        // A login that is known with its region is that region's, wherever mail under it goes: with half of the tables changed,
        // no host's entry has the same.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@a.example AKIANEW:new-eu
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu"],
                ids: &[
                    "applied=AKIAOLD",
                    "candidate=AKIANEW",
                    "region=eu-west-1 AKIANEW:new-eu",
                    "region=us-east-1 AKIANEW:new",
                ],
                ..TWO
            },
            "0:2*, 0:3*@1, 0:1*@1",
        ),
    ]);
    assert_ne!((SES, HOP), (EU, EU_HOP));
}

/// One access key id has one password in each region.
#[test]
fn another_password_of_a_known_key_id_is_another_regions() {
    const BY_SENDER: Host = Host { services: &["smtp 0 by-sender"], ..PLAIN };
    check(&[
        // Under a sender, and under a host that is nobody's: what mail uses it now is not known.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n@eu.example AKIAOLD:eu"],
                ..BY_SENDER
            },
            "0:1*, region? 0:2",
        ),
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[eu.internal]:587 AKIAOLD:eu"],
                ..PLAIN
            },
            "0:1*, old 0:2, region? left 0:2",
        ),
        // Where mail goes to that host, it is not ours, whatever else stands there.
        (
            Host {
                hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587", "smtp [eu.internal]:587"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[eu.internal]:587 AKIAOLD:eu"],
                ..PLAIN
            },
            "0:1*, old 0:2, region? left 0:2",
        ),
        // The same password is the same region's.
        (
            Host {
                tables: &[
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n@a.example AKIAOLD:us\n[a.internal]:1 AKIAOLD:us",
                ],
                ..BY_SENDER
            },
            "0:1*, 0:2*, 0:3",
        ),
        // Another id's is another's.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n@a.example AKIAPREV:x"],
                ids: &["applied=AKIAOLD", "previous=AKIAPREV", "candidate=AKIANEW"],
                ..BY_SENDER
            },
            "0:1*, 0:2*",
        ),
        // Under a host that names the endpoint it is wrong there.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:eu\n@a.example AKIAOLD:eu"],
                ..BY_SENDER
            },
            "0:1*, 0:2*",
        ),
        // Two passwords, and no host says whose; unless this host knows one of them.
        (
            Host { tables: &["@a.example AKIAOLD:us\n@b.example AKIAOLD:eu"], ..BY_SENDER },
            "sender answers 0:1, region? 0:1, region? 0:2",
        ),
        (
            Host {
                tables: &["@a.example AKIAOLD:us\n@b.example AKIAOLD:eu"],
                ids: &["applied=AKIAOLD", "candidate=AKIANEW", "region=us-east-1 AKIAOLD:us"],
                ..BY_SENDER
            },
            "0:1*, sender answers 0:1, region? 0:2",
        ),
        (
            Host {
                tables: &["@b.example AKIAOLD:eu"],
                ids: &["applied=AKIAOLD", "candidate=AKIANEW", "confirmed=AKIAOLD:us"],
                ..BY_SENDER
            },
            "sender answers 0:1, region? 0:1",
        ),
        // One that was confirmed here is no other region's, with half of the entries changed to the next password of the id.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:right\n@b.example AKIAOLD:wrong"],
                ids: &["applied=AKIAOLD", "candidate=AKIAOLD", "confirmed=AKIAOLD:wrong"],
                ..BY_SENDER
            },
            "0:1*, 0:2*",
        ),
        // With another region's line the password says that it is for that one.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu
                           @eu.example AKIAOLD:eu"],
                ..BY_SENDER
            },
            "0:1*, old 0:2, eu-west-1 0:3, left eu-west-1 0:2",
        ),
        // Alone it is not told by where our mail goes, if some goes to SES elsewhere, or just to that host.
        (
            Host {
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "smtp [email-smtp.eu-west-1.amazonaws.com]:587",
                ],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIANEW:us\n@eu.example AKIAOLD:eu"],
                ..BY_SENDER
            },
            "0:1*, region? 0:2",
        ),
        (
            Host {
                hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587", "smtp [eu.internal]:587"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIANEW:us\n[eu.internal]:587 AKIAOLD:eu"],
                ..PLAIN
            },
            "0:1*, old 0:2, region? left 0:2",
        ),
        // Where the endpoint is not SES's there are no regions.
        (
            Host {
                hops: &["smtp [relay.example]:587"],
                endpoints: &["relay.example"],
                tables: &["[relay.example]:587 AKIAOLD:a\n@a.example AKIAOLD:b"],
                ..BY_SENDER
            },
            "0:1*, 0:2*",
        ),
    ]);
}

/// What may go where nothing here says is not taken for our region's.
#[test]
fn a_line_that_no_route_leads_from_is_of_no_region_that_is_known() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const PREVIOUS: Host = Host { ids: &["applied=AKIAOLD", "previous=AKIAPREV", "candidate=AKIANEW"], ..PLAIN };
    const BY_SENDER: Host = Host {
        services: &["smtp 0 by-sender"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n@a.example AKIAPREV:x"],
        ..PREVIOUS
    };
    check(&[
        // A host that no route names, as of a policy server or a mail exchanger,
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[eu.internal]:587 AKIAPREV:x"],
                ..PREVIOUS
            },
            "0:1*, old 0:2, region? left 0:2",
        ),
        // whatever has become of its key since: this one was confirmed.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIANEW:us\n[eu.internal]:587 AKIAOLD:x"],
                ids: &["applied=AKIANEW", "previous=AKIAOLD", "confirmed=AKIANEW:us"],
                ..PLAIN
            },
            "0:1*, old 0:2, region? left 0:2",
        ),
        // One without a domain may be a local sender's,
        (
            Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\ncron AKIAPREV:x"], ..BY_SENDER },
            "0:1*, 0:2",
        ),
        // where senders are looked up.
        (
            Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\ncron AKIAPREV:x"], ..PREVIOUS },
            "0:1*, old 0:2, region? left 0:2",
        ),
        // A sender's with routes for all mail alone,
        (Host { hops: &[OURS], ..BY_SENDER }, "0:1*, 0:2*"),
        // with one for senders to such a host,
        (Host { hops: &[OURS, "smtp [eu.internal]:587 for-senders"], ..BY_SENDER }, "0:1*, region? 0:2"),
        (Host { hops: &[OURS, "unread-for-senders"], ..BY_SENDER }, "0:1*, region? 0:2"),
        // to one of ours, or of a relay with a login of its own,
        (Host { hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587 for-senders"], ..BY_SENDER }, "0:1*, 0:2*"),
        (
            Host {
                hops: &[OURS, "smtp [other.example]:587 for-senders"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [other.example]:587 someone:else
                           @a.example AKIAPREV:x"],
                ..BY_SENDER
            },
            "0:1*, 0:3*",
        ),
        // which is none of SES's,
        (
            Host {
                hops: &[OURS, "smtp [eu.internal]:587 for-senders"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [eu.internal]:587 AKIAOTHER:z
                           @a.example AKIAPREV:x"],
                ..BY_SENDER
            },
            "0:1*, region? 0:3",
        ),
        // and where all that its service hands on goes there.
        (
            Host {
                services: &["smtp 0", "eu 1 by-sender"],
                hops: &[OURS, "eu [eu.internal]:587"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us", "@a.example AKIAPREV:x"],
                ..PREVIOUS
            },
            "0:1*, old 1:1, region? left 1:1",
        ),
        (
            Host {
                services: &["smtp 0 by-sender", "eu 0 by-sender"],
                hops: &[OURS, "eu [eu.internal]:587"],
                ..BY_SENDER
            },
            "0:1*, region? 0:2",
        ),
        // At SES alone there are regions.
        (
            Host {
                hops: &["smtp [relay.example]:587"],
                endpoints: &["relay.example"],
                tables: &["[relay.example]:587 AKIAOLD:a\n[idle.internal]:587 AKIAPREV:b"],
                ..PREVIOUS
            },
            "0:1*, 0:2",
        ),
    ]);
}

/// `endpoint_aliases` may be wrong; a password of another region cannot be that endpoint's.
#[test]
fn another_name_of_an_endpoint_is_believed_unless_a_password_belies_it() {
    const ALIAS: Host = Host {
        endpoints: &["email-smtp.us-east-1.amazonaws.com gateway.internal"],
        hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587", "smtp [gateway.internal]:587"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[gateway.internal]:587 AKIAOLD:eu"],
        ..PLAIN
    };
    const TWO: Host = Host {
        endpoints: &["email-smtp.us-east-1.amazonaws.com gateway.internal", "email-smtp.eu-west-1.amazonaws.com"],
        ..ALIAS
    };
    check(&[
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[gateway.internal]:587 AKIAOLD:us"],
                ..ALIAS
            },
            "0:1*, 0:2*",
        ),
        (
            Host { hops: &["smtp [gateway.internal]:587"], tables: &["[gateway.internal]:587 AKIAOLD:x"], ..ALIAS },
            "0:1*",
        ),
        // The same id has another password there,
        (ALIAS, "0:1*, region? 0:2"),
        // in another line of that name too,
        (
            Host {
                hops: &["smtp [gateway.internal]:587", "smtp [gateway.internal]:2587"],
                tables: &["[gateway.internal]:587 AKIAOLD:us\n[gateway.internal]:2587 AKIAOLD:eu"],
                ids: &["applied=AKIAOLD", "candidate=AKIANEW", "confirmed=AKIAOLD:us"],
                ..ALIAS
            },
            "0:1*, region? 0:2",
        ),
        // or had, where that was confirmed.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIANEW:us\n[gateway.internal]:587 AKIAOLD:eu"],
                ids: &["applied=AKIANEW", "previous=AKIAOLD", "confirmed=AKIANEW:us"],
                ..ALIAS
            },
            "0:1*, region? 0:2",
        ),
        // It is the one of SES's own name in another region,
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAPREV:eu
                           [gateway.internal]:587 AKIAPREV:eu"],
                ids: &["applied=AKIAOLD", "previous=AKIAPREV", "candidate=AKIANEW"],
                ..TWO
            },
            "0:1*, 0:2@1, region? 0:3",
        ),
        // or known as that region's: so is a sender's with the same.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [gateway.internal]:587 AKIAOLD:eu
                           @a.example AKIAOLD:eu"],
                ids: &[
                    "applied=AKIAOLD",
                    "candidate=AKIANEW",
                    "region=eu-west-1 AKIAOLD:eu",
                    "region=us-east-1 AKIAOLD:us",
                ],
                ..TWO
            },
            "0:1*, 0:3*@1, region? 0:2",
        ),
        // What holds the same as a line that is belied is of no region that is known.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [gateway.internal]:587 AKIAOLD:eu
                           @a.example AKIAOLD:eu"],
                ..ALIAS
            },
            "0:1*, region? 0:2, region? 0:3",
        ),
        // SES's own names are right, whatever stands there; and one that was ours is.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:x
                           [email-smtp.us-east-1.amazonaws.com]:25 AKIAOLD:y
                           [gateway.internal]:587 AKIAOLD:y"],
                ..ALIAS
            },
            "0:1*, 0:3*, 0:2",
        ),
        (Host { ids: &["applied=AKIAOLD", "candidate=AKIANEW", "confirmed=AKIAOLD:eu"], ..ALIAS }, "0:1*, 0:2*"),
        // At another port of an address there is another server.
        (
            Host {
                endpoints: &["email-smtp.us-east-1.amazonaws.com 127.0.0.1:2525"],
                hops: &["smtp [127.0.0.1]:2525", "smtp [127.0.0.1]:2526"],
                tables: &["[127.0.0.1]:2525 AKIAOLD:us\n[127.0.0.1]:2526 AKIAPREV:x"],
                ids: &["applied=AKIAOLD", "previous=AKIAPREV", "candidate=AKIANEW"],
                ..PLAIN
            },
            "0:1*, old 0:2, region? left 0:2",
        ),
    ]);
}

/// What the source says of an earlier key on a host without state: its password tells its lines from those of other regions.
#[test]
fn a_password_that_is_known_of_a_key_is_the_only_one_of_its_region() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const PREVIOUS: Host = Host {
        ids: &["known=AKIAOLD", "known=AKIAPREV", "candidate=AKIAOLD", PREV_US],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   [gateway.internal]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        hops: &[OURS, "smtp [gateway.internal]:587"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com gateway.internal"],
        ..PLAIN
    };
    const PREV_US: &str = "password=us-east-1 AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const FOUND: &str = "found=AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const CONFIRMED: &str = "confirmed=AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const BY_SENDER: Host = Host {
        services: &["smtp 0 by-sender"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   @eu.example AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        hops: &[OURS],
        endpoints: &["email-smtp.us-east-1.amazonaws.com"],
        ..PREVIOUS
    };
    const OF_OURS: &str = "[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           @a.example AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
                           john.doe AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    check(&[
        // Under another name of the endpoint it belies that name,
        (PREVIOUS, "0:1*, region? 0:2"),
        // also where that line is the only one, and of the version that is put in place,
        (
            Host {
                hops: &["smtp [gateway.internal]:587"],
                tables: &["[gateway.internal]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ids: &["known=AKIAPREV", "candidate=AKIAPREV", PREV_US, FOUND],
                ..PREVIOUS
            },
            "region? 0:1",
        ),
        // where it was not confirmed here, as before the endpoint was another region's,
        (
            Host {
                hops: &["smtp [gateway.internal]:587"],
                tables: &["[gateway.internal]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ids: &["applied=AKIAPREV", CONFIRMED, "candidate=AKIAPREV", PREV_US],
                ..PREVIOUS
            },
            "0:1*",
        ),
        // and at one port of a gateway with another region's behind it.
        (
            Host {
                hops: &["smtp [gateway.internal]:587", "smtp [gateway.internal]:2587"],
                tables: &["[gateway.internal]:587 AKIAOLD:us
                           [gateway.internal]:2587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ..PREVIOUS
            },
            "0:1*, region? 0:2",
        ),
        // With the password that the key has there the name is right; what is no password of SES's is none of another region.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [gateway.internal]:587 AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ..PREVIOUS
            },
            "0:1*, 0:2*",
        ),
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n[gateway.internal]:587 AKIAPREV:raw"],
                ..PREVIOUS
            },
            "0:1*, 0:2*",
        ),
        // Of a sender's line, whatever route leads from it,
        (BY_SENDER, "0:1*, region? 0:2"),
        (Host { hops: &[OURS, "smtp [gateway.internal]:587"], ..BY_SENDER }, "0:1*, region? 0:2"),
        // and which of the endpoints it is for.
        (
            Host { tables: &[OF_OURS], hops: &[OURS, "smtp [gateway.internal]:587 for-senders"], ..BY_SENDER },
            "0:1*, 0:2*, 0:3",
        ),
        (
            Host {
                endpoints: &["email-smtp.us-east-1.amazonaws.com", "email-smtp.eu-west-1.amazonaws.com"],
                ids: &[
                    "known=AKIAPREV",
                    "known=AKIAOLD",
                    PREV_US,
                    "password=eu-west-1 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                ],
                ..BY_SENDER
            },
            "0:1*, 0:2*@1",
        ),
        // SES's own name is right, whatever stands there.
        (
            Host {
                tables: &[
                    "[email-smtp.us-east-1.amazonaws.com]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                ],
                ..BY_SENDER
            },
            "0:1*",
        ),
    ]);
}

/// A ready-made password that an earlier version held was never tried at the endpoint: it may be another region's by mistake.
#[test]
fn an_earlier_ready_made_password_makes_others_doubtful_and_is_no_regions_for_certain() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const SAID_US: &str = "said=us-east-1 AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const MISTAKEN: &str = "said=us-east-1 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const ALIAS: Host = Host {
        ids: &["known=AKIAOLD", "known=AKIAPREV", "candidate=AKIAOLD", SAID_US],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   [gateway.internal]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        hops: &[OURS, "smtp [gateway.internal]:587"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com gateway.internal"],
        ..PLAIN
    };
    const BY_SENDER: Host = Host {
        services: &["smtp 0 by-sender"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   @eu.example AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        hops: &[OURS, "smtp [gateway.internal]:587 for-senders"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com"],
        ..ALIAS
    };
    const WITH_MISTAKEN: &[&str] = &["known=AKIAOLD", "known=AKIAPREV", "candidate=AKIAOLD", MISTAKEN];
    check(&[
        // Another password of the same key under another name of the endpoint: one of the two is another region's.
        (ALIAS, "0:1*, region? 0:2"),
        // The very same one says nothing against that name,
        (Host { ids: WITH_MISTAKEN, ..ALIAS }, "0:1*, 0:2*"),
        // unless SES's own name says which region's it is.
        (
            Host {
                ids: WITH_MISTAKEN,
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [gateway.internal]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
                           [email-smtp.eu-west-1.amazonaws.com]:587 AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ..ALIAS
            },
            "0:1*, old 0:3, region? 0:2, left eu-west-1 0:3",
        ),
        // Of a sender's line, whose mail may go anywhere, it does not tell which region's it is;
        (Host { ids: WITH_MISTAKEN, ..BY_SENDER }, "0:1*, region? 0:2"),
        // where all its mail goes to one, that does.
        (Host { ids: WITH_MISTAKEN, hops: &[OURS], ..BY_SENDER }, "0:1*, 0:2*"),
    ]);
}

/// What one target's look has shown is remembered for all of the credential's: another one may have the same table, and other routes.
#[test]
fn a_line_of_an_id_that_is_only_remembered_is_left() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const SHARED: Host = Host {
        ids: &["applied=AKIAOLD", "earlier=AKIAPREV", "remembered=AKIAPREV", "candidate=AKIANEW"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   @eu.example AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        ..PLAIN
    };
    const FOUND_US: &str = "found=AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const LEFT: &str = "0:1*, old 0:2, region? left 0:2";
    check(&[
        // Nobody looks it up here; or somebody does, whose routes all lead to us, or elsewhere too.
        (SHARED, LEFT),
        (Host { services: &["smtp 0 by-sender"], ..SHARED }, LEFT),
        (
            Host {
                services: &["smtp 0 by-sender"],
                hops: &[OURS, "smtp [gateway.internal]:587 for-senders"],
                ..SHARED
            },
            LEFT,
        ),
        // Of SES's own name the region is known, and so it is of a login that stands there, and of one that was ours.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAPREV:us\n@eu.example AKIAPREV:us"],
                ..SHARED
            },
            "0:1*, 0:2",
        ),
        (
            Host {
                ids: &["applied=AKIAOLD", "remembered=AKIAPREV", "candidate=AKIANEW", "confirmed=AKIAOLD:us", FOUND_US],
                ..SHARED
            },
            "0:1*, 0:2",
        ),
        // A caller that names it knows more; and of a relay that is not SES's a user name has one password.
        (Host { ids: &["applied=AKIAOLD", "known=AKIAPREV", "candidate=AKIANEW"], ..SHARED }, "0:1*, 0:2"),
        (
            Host {
                endpoints: &["relay.example"],
                hops: &["smtp [relay.example]:587"],
                tables: &["[relay.example]:587 AKIAOLD:us\n@eu.example AKIAPREV:eu"],
                ..SHARED
            },
            "0:1*, 0:2",
        ),
    ]);
}

/// Of an id that root has named nothing but the id is known: its line may be for any host that mail goes to.
#[test]
fn a_line_of_an_id_that_root_has_named_is_ours_where_all_its_mail_goes_to_us() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const NAMED: Host = Host {
        services: &["smtp 0 by-sender"],
        ids: &["applied=AKIAOLD", "confirmed=AKIAOLD:us", "root=AKIAROOT", "candidate=AKIANEW"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   @a.example AKIAROOT:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        ..PLAIN
    };
    check(&[
        (NAMED, "0:1*, 0:2*"),
        (Host { hops: &[OURS, "smtp [gateway.internal]:587"], ..NAMED }, "0:1*, region? 0:2"),
        (Host { is_blind: true, ..NAMED }, "0:1*, region? 0:2"),
        // No service looks it up here: another instance may.
        (Host { services: &["smtp 0"], ..NAMED }, "0:1*, old 0:2, region? left 0:2"),
        // That other host has a login of its own.
        (
            Host {
                hops: &[OURS, "smtp [gateway.internal]:587"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           [gateway.internal]:587 gateway
                           @a.example AKIAROOT:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ..NAMED
            },
            "0:1*, 0:3*",
        ),
    ]);
}

/// A login at the endpoint would tell which region's an earlier ready-made password is: it is asked for where that matters.
#[test]
fn a_proof_is_asked_for_where_an_entry_waits_for_it() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const SAID: &str = "said=us-east-1 AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const PROVED: &str = "password=us-east-1 AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const SENDER: Host = Host {
        services: &["smtp 0 by-sender"],
        hops: &[OURS, "smtp [gateway.internal]:587 for-senders"],
        ids: &["known=AKIAOLD", "known=AKIAPREV", "candidate=AKIAOLD", SAID],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   @a.example AKIAPREV:BAusAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        ..PLAIN
    };
    let asks = |host: &Host| host.ask(|found, _| found.asks_for_proof);
    for (host, comes_to, asked) in [
        (SENDER, "0:1*, region? 0:2", true),
        // It is there.
        (
            Host { ids: &["known=AKIAOLD", "known=AKIAPREV", "candidate=AKIAOLD", PROVED], ..SENDER },
            "0:1*, 0:2*",
            false,
        ),
        // Routes tell.
        (Host { hops: &[OURS], ..SENDER }, "0:1*, 0:2*", false),
        // It is another password than that.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                           @a.example AKIAPREV:BAeuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
                ..SENDER
            },
            "0:1*, region? 0:2",
            false,
        ),
    ] {
        assert_eq!((host.comes_to().as_str(), asks(&host)), (comes_to, asked), "{:?} {:?}", host.tables, host.ids);
    }
}

/// The bare name of an address answers for all its ports, and at each of them may be another server.
#[test]
fn a_bare_address_is_not_ours_where_all_mail_to_it_goes_to_other_ports() {
    const OURS: &str = "smtp [email-smtp.us-east-1.amazonaws.com]:587";
    const BARE: Host = Host {
        endpoints: &["email-smtp.us-east-1.amazonaws.com 127.0.0.1:2525"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us\n127.0.0.1 AKIAPREV:x"],
        ids: &["applied=AKIAOLD", "previous=AKIAPREV", "candidate=AKIANEW"],
        ..PLAIN
    };
    check(&[
        (Host { hops: &[OURS, "smtp [127.0.0.1]:2525"], ..BARE }, "0:1*, 0:2*"),
        (Host { hops: &[OURS, "smtp [127.0.0.1]:2526"], ..BARE }, "0:1*, old 0:2, region? left 0:2"),
        (Host { hops: &[OURS, "smtp [127.0.0.1]:2525", "smtp [127.0.0.1]:2526"], ..BARE }, "0:1*, 0:2*"),
    ]);
}

/// A table that cannot be listed, and one that gives the same for every key.
#[test]
fn nothing_is_put_in_the_place_of_a_login_that_is_in_use() {
    const TWO: Host = Host { services: &["smtp 0 1"], ..PLAIN };
    const OURS: &str = "[email-smtp.us-east-1.amazonaws.com]:2587 AKIAOLD";
    const ADDED: &str = "0:1, +0 [email-smtp.us-east-1.amazonaws.com]:587";
    check(&[
        (Host { tables: &[OURS, "unlisted"], ..TWO }, ADDED),
        (
            Host { tables: &[OURS, "unlisted\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"], ..TWO },
            "0:1, another in 1: [email-smtp.us-east-1.amazonaws.com]:587, no live key",
        ),
        (
            Host { tables: &[OURS, "unlisted\nemail-smtp.us-east-1.amazonaws.com no-login"], ..TWO },
            "0:1, another in 1: [email-smtp.us-east-1.amazonaws.com]:587, no live key",
        ),
        // One of ours that comes after an entry of the same key is not found any more; any other is.
        (Host { tables: &[OURS, "unlisted\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"], ..TWO }, ADDED),
        (
            Host { tables: &[OURS, "unlisted\nemail-smtp.us-east-1.amazonaws.com AKIAOLD"], ..TWO },
            "0:1, ours in 1: [email-smtp.us-east-1.amazonaws.com]:587, no live key",
        ),
        (
            Host {
                services: &["smtp 1 0"],
                tables: &[OURS, "unlisted\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..PLAIN
            },
            "0:1, ours in 1: [email-smtp.us-east-1.amazonaws.com]:587, no live key",
        ),
        // It answers for the bare host, which is asked for first.
        (
            Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "static\n* AKIAELSE"], ..TWO },
            "0:1*, another in 1: email-smtp.us-east-1.amazonaws.com",
        ),
        (Host { tables: &[OURS, "static\n* AKIAOLD"], ..TWO }, "0:1, fixed 1:1"),
    ]);
}

#[test]
fn a_ready_made_password_serves_one_region() {
    const TWO: Host = Host {
        ids: &["applied=AKIAOLD", "candidate=AKIANEW", "ready-made"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us
                   [email-smtp.eu-west-1.amazonaws.com]:587 AKIAOLD:eu"],
        endpoints: &["email-smtp.us-east-1.amazonaws.com", "email-smtp.eu-west-1.amazonaws.com"],
        ..PLAIN
    };
    check(&[
        // Nothing goes to the other region: its entry is left, and holds the key before.
        (TWO, "0:1*, old 0:2, left 0:2@1"),
        (
            Host {
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "smtp [email-smtp.eu-west-1.amazonaws.com]:587",
                ],
                ..TWO
            },
            "0:1*, no password 0:2@1",
        ),
        (
            Host {
                hops: &[
                    "smtp [email-smtp.us-east-1.amazonaws.com]:587",
                    "smtp [email-smtp.eu-west-1.amazonaws.com]:587",
                ],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD:us"],
                ..TWO
            },
            "0:1*, no password +[email-smtp.eu-west-1.amazonaws.com]:587@1",
        ),
    ]);
}

#[test]
fn keys_restrict() {
    const LISTED: Host = Host { keys: Some(&["[email-smtp.us-east-1.amazonaws.com]:587"]), ..PLAIN };
    check(&[
        (LISTED, "0:1*"),
        // What is left out stays, is no error, and is named where it holds a key id of ours.
        (
            Host {
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD
                           a@b.example AKIAOLD
                           [x.example]:25 AKIAELSE"],
                ..LISTED
            },
            "0:1*, old 0:2",
        ),
        (
            Host {
                tables: &["email-smtp.us-east-1.amazonaws.com AKIAELSE
                           [email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"],
                ..LISTED
            },
            "0:2*, not listed 0:1",
        ),
        // What is listed is ours, whatever it holds, and made where it is not there.
        (Host { tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"], ..LISTED }, "0:1*"),
        (Host { tables: &["# none"], ..LISTED }, "+0 [email-smtp.us-east-1.amazonaws.com]:587"),
        (
            Host { keys: Some(&["carol@b.example", "[email-smtp.us-east-1.amazonaws.com]:587"]), ..LISTED },
            "0:1*, +0 carol@b.example",
        ),
        // A sender's line alone, of another account than the relay's.
        (
            Host {
                services: &["smtp 0 by-sender"],
                tables: &["@b.example AKIATEAM\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"],
                keys: Some(&["@b.example"]),
                ids: &["applied=AKIATEAM", "candidate=AKIANEW"],
                ..PLAIN
            },
            "0:1*, not listed 0:2",
        ),
        // It has no effect without sender-dependent authentication.
        (
            Host {
                tables: &["@b.example AKIATEAM\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAELSE"],
                keys: Some(&["@b.example"]),
                ids: &["applied=AKIATEAM", "candidate=AKIANEW"],
                ..PLAIN
            },
            "0:1, not listed 0:2, no live key",
        ),
    ]);
}

#[test]
fn what_cannot_be_written() {
    check(&[
        (Host { tables: &["fixed\n[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD"], ..PLAIN }, "fixed 0:1"),
        (
            Host {
                services: &["smtp 0 1"],
                tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "unlisted"],
                ..PLAIN
            },
            "0:1*",
        ),
    ]);
    let host =
        Host { services: &["smtp 0 1"], tables: &["@x.example AKIAELSE\n[y.example]:1 AKIAOLD", "unlisted"], ..PLAIN };
    host.ask(|found, _| {
        let others: Vec<_> = found.held.others(Some("AKIAOLD")).named.into_iter().map(|held| held.id).collect();
        assert_eq!(others, ["AKIAELSE"], "what is not ours is left, and never silently");
    });
}

#[test]
fn live_keys_of_each_service() {
    let host = Host {
        services: &["smtp 0", "bulk 1 0 by-sender"],
        hops: &["smtp [email-smtp.us-east-1.amazonaws.com]:587", "bulk [email-smtp.us-east-1.amazonaws.com]:2587"],
        tables: &["[email-smtp.us-east-1.amazonaws.com]:587 AKIAOLD", "@a.example AKIAOLD"],
        ..PLAIN
    };
    host.ask(|found, _| {
        let keys = |live: &LiveKeys| live.keys.iter().map(|(key, at)| (key.clone(), at.map(|at| at.table))).collect();
        let live: Vec<(String, Vec<usize>, Vec<(String, Option<usize>)>)> =
            found.live.iter().map(|live| (live.service.clone(), live.tables.clone(), keys(live))).collect();
        assert_eq!(
            live,
            [
                ("smtp".into(), vec![0], vec![(HOP.into(), Some(0))]),
                ("bulk".into(), vec![1, 0], vec![("@a.example".into(), Some(1))]),
            ]
        );
        assert_eq!(found.live[1].tried, [[SES.to_owned(), format!("[{SES}]:2587")]]);
    });
}
