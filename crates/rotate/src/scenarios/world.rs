//! A small world for the scenarios: IAM, a secret, hosts, SES and a clock, changed by lines of text.

use crate::checker;
use crate::facts::{
    CURRENT, Facts, Generation, Host, HostName, Key, KeyId, KeyStatus, LastUsed, Login, LoginReply, PENDING, PREVIOUS,
    Proved, Registered, Standing, Store, StoreKind, TookBack, Value, Version, VersionId, Waiver, WhyTakenBack,
};
use crate::plan::{Action, Decision, Outcome, plan};
use crate::policy::Policy;
use crate::record::{ControlRecord, Wanted, look};
use jiff::{SignedDuration, Timestamp};

const ENDPOINT: &str = "email-smtp.eu-west-1.amazonaws.com";

pub struct World {
    now: Timestamp,
    facts: Facts,
    policy: Policy,
    /// Keys that SES knows.
    taken: Vec<KeyId>,
    silent: Vec<HostName>,
    made: usize,
    /// Die after the next action of this kind, before anything is written about it.
    killed_after: Option<String>,
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

impl World {
    /// One key, published long ago.
    pub fn new() -> Self {
        let now: Timestamp = "2026-03-02T08:00:00Z".parse().expect("a time");
        let first = now - hours(24 * 80);
        let (key, version) = (KeyId::new("AKIA1"), VersionId::new("v1"));
        let facts = Facts {
            me: "controller".into(),
            user: crate::facts::IamUser::default(),
            keys: vec![Key { id: key.clone(), status: KeyStatus::Active, created: first, last_used: LastUsed::Never }],
            store: Store {
                kind: StoreKind::SecretsManager,
                versions: vec![Version {
                    id: version,
                    created: first,
                    labels: vec![CURRENT.into()],
                    value: Value::Login(key.clone()),
                }],
            },
            place: crate::facts::KeyPlace::secret("a"),
            further: Vec::new(),
            behind: Vec::new(),
            outdated: Vec::new(),
            fleet: Vec::new(),
            gone: Vec::new(),
            record: ControlRecord::new("ses"),
            logins: Vec::new(),
            unstored: None,
            gaps: Vec::new(),
        };
        let policy = Policy::new(vec![ENDPOINT.into()]);
        Self { now, facts, policy, taken: vec![key], silent: Vec::new(), made: 1, killed_after: None }
    }

    /// One line: what happens. Gives what was said to it.
    pub fn hear(&mut self, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["plan"] => {
                let decision = self.look();
                self.tell(&decision)
            }
            ["go"] => self.go(),
            ["clock", by] => {
                let by = by.trim_start_matches('+');
                let days = by.strip_suffix('d').map(|days| hours(24 * days.parse::<i64>().expect("a number")));
                let by = days.unwrap_or_else(|| by.parse().expect("a duration"));
                self.now += by;
                let (now, silent) = (self.now, self.silent.clone());
                for host in self.facts.fleet.iter_mut().filter(|host| !silent.contains(&host.name)) {
                    (host.heard, host.alive_due) = (Some(now), Some(now + hours(24)));
                }
                vec![format!("it is {now}")]
            }
            ["asked"] => {
                self.facts.record.want = Some(Wanted { by: "anna".into(), at: self.now });
                Vec::new()
            }
            ["seal", expect] => {
                let roster = &mut self.facts.record.roster;
                (roster.expect, roster.by) = (Some(expect.parse().expect("a number")), Some("anna".into()));
                self.facts.record.complete_at = None;
                Vec::new()
            }
            ["canary", label] => {
                self.policy.canary = Some(label.to_owned());
                Vec::new()
            }
            ["record", "lost"] => {
                self.facts.record = ControlRecord::new("ses");
                Vec::new()
            }
            ["killed", "after", action] => {
                self.killed_after = Some(action.to_owned());
                Vec::new()
            }
            ["key", key, what] => self.key(&KeyId::new(key), what),
            ["ses", "takes", key] => {
                self.taken.push(KeyId::new(key));
                Vec::new()
            }
            ["ses", "refuses", key] => {
                self.taken.retain(|taken| taken.as_str() != key);
                Vec::new()
            }
            ["label", label, version] => {
                self.label(label, &VersionId::new(version));
                Vec::new()
            }
            ["stage", key] => {
                self.put(Value::Login(KeyId::new(key)), PENDING);
                Vec::new()
            }
            ["stage"] => {
                self.put(Value::Empty, PENDING);
                Vec::new()
            }
            ["waive", host] => {
                let until = self.now + hours(24 * 30);
                let waiver = Waiver { reason: "down for repair".into(), by: "anna".into(), until };
                self.host(host).waiver = Some(waiver);
                Vec::new()
            }
            [host, what] => self.host_does(host, what, None),
            [host, what, of] => self.host_does(host, what, Some(of)),
            _ => panic!("nobody knows: {line}"),
        }
    }

    fn host(&mut self, name: &str) -> &mut Host {
        let id = HostName::new(name);
        if self.facts.fleet.iter().all(|host| host.name != id) {
            let new = Host {
                registered: Registered::Evidence,
                generation: Generation::V2,
                poll: Some(SignedDuration::from_mins(5)),
                heard: Some(self.now),
                alive_due: Some(self.now + hours(24)),
                ..Host::never_heard(id.clone())
            };
            self.facts.fleet.push(new);
        }
        self.facts.fleet.iter_mut().find(|host| host.name == id).expect("it is there")
    }

    fn host_does(&mut self, name: &str, what: &str, of: Option<&str>) -> Vec<String> {
        let now = self.now;
        let version = match of.filter(|_| matches!(what, "confirms" | "forges" | "fails")) {
            Some(version) => self.facts.store.version(&VersionId::new(version)),
            None => self.facts.store.labelled(CURRENT),
        };
        let version = version.cloned().expect("a version");
        let key = version.key().cloned();
        let host = self.host(name);
        let named = || vec![KeyId::new(of.expect("a key"))];
        match what {
            "joins" => {}
            "confirms" | "forges" => {
                let proof = if what == "confirms" { Proved::True } else { Proved::False };
                host.standing = Some(Standing { version: version.id, key: key.expect("a key"), at: now, proof });
                (host.took_back, host.failed, host.heard) = (None, None, Some(now));
            }
            "fails" => host.failed = Some(version.id),
            "watches" => host.watches = vec![of.expect("a label").to_owned()],
            "withdraws" => {
                host.standing = None;
                host.took_back = Some(TookBack { why: WhyTakenBack::Withdrawn, keys: named() });
            }
            "refused" => {
                host.standing = None;
                host.took_back = Some(TookBack { why: WhyTakenBack::AppliedRefused, keys: named() });
            }
            "holds" => host.lists.others = named(),
            "cleaned" => (host.lists.others, host.lists.remaining_old) = (Vec::new(), Vec::new()),
            "remaining" => host.lists.remaining_old = vec![of.expect("an entry").to_owned()],
            "incomplete" => host.lists.incomplete = vec![of.expect("a table").to_owned()],
            "old-agent" => host.generation = Generation::V1,
            "ahead" => host.clock_ahead = true,
            "relays-to" => host.region_refused = of.map(str::to_owned),
            "twice" => host.name_twice = true,
            "silent" => self.silent.push(HostName::new(name)),
            "back" => {
                (host.heard, host.alive_due) = (Some(now), Some(now + hours(24)));
                self.silent.retain(|silent| silent.as_str() != name);
            }
            "leaves" => {
                self.facts.gone.push(HostName::new(name));
                self.facts.fleet.retain(|host| host.name.as_str() != name);
            }
            // Its item is gone, and it did not say so.
            "vanishes" => self.facts.fleet.retain(|host| host.name.as_str() != name),
            _ => panic!("no host does {what}"),
        }
        Vec::new()
    }

    fn key(&mut self, id: &KeyId, what: &str) -> Vec<String> {
        let now = self.now;
        let keys = &mut self.facts.keys;
        match what {
            "made" => {
                keys.push(Key { id: id.clone(), status: KeyStatus::Active, created: now, last_used: LastUsed::Never });
            }
            "deleted" => keys.retain(|key| key.id != *id),
            _ => {
                let key = keys.iter_mut().find(|key| key.id == *id).expect("a key");
                match what {
                    "deactivated" => key.status = KeyStatus::Inactive,
                    "used" => {
                        key.last_used = LastUsed::At { at: now, service: "ses".into(), region: "eu-west-1".into() }
                    }
                    "unknown-use" => key.last_used = LastUsed::Unknown,
                    _ => panic!("nothing is {what} with a key"),
                }
            }
        }
        Vec::new()
    }

    fn label(&mut self, label: &str, version: &VersionId) {
        if label == CURRENT {
            let current = self.facts.store.labelled(CURRENT).map(|version| version.id.clone());
            if let Some(current) = current {
                self.label(PREVIOUS, &current);
            }
        }
        for one in &mut self.facts.store.versions {
            one.labels.retain(|l| l != label);
            if one.id == *version {
                one.labels.push(label.to_owned());
            }
        }
    }

    fn put(&mut self, value: Value, label: &str) -> VersionId {
        let id = VersionId::new(format!("v{}", self.facts.store.versions.len() + 1));
        self.facts.store.versions.push(Version { id: id.clone(), created: self.now, labels: Vec::new(), value });
        self.label(label, &id);
        id
    }

    fn look(&mut self) -> Decision {
        let (facts, policy, now) = (&mut self.facts, &self.policy, self.now);
        facts.record.take(&facts.me, facts.unstored.as_ref(), policy, now).expect("nobody else is at work");
        facts.record = look(facts, policy, now);
        plan(facts, policy, now)
    }

    fn tell(&self, decision: &Decision) -> Vec<String> {
        let mut said = vec![format!("{}: {}", decision.phase, decision.reason)];
        said.extend(decision.action.as_ref().map(|action| format!("-> {action}")));
        for refusal in &decision.refusals {
            said.push(format!("{}: {}", refusal.class(), refusal.words()));
            said.push(format!("    {}", refusal.fix()));
        }
        let hosts = decision.hosts.iter().map(|(host, verdict)| format!("{host}: {verdict}"));
        said.extend(hosts);
        let wrong = checker::check(decision, &self.facts, &self.policy, self.now);
        said.extend(wrong.iter().map(|wrong| format!("UNSAFE: {wrong:?}")));
        said
    }

    /// Acts until it waits, or is killed; says what was done, and then what is waited for.
    fn go(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        for _ in 0..30 {
            let decision = self.look();
            let wrong = checker::check(&decision, &self.facts, &self.policy, self.now);
            said.extend(wrong.iter().map(|wrong| format!("UNSAFE: {wrong:?}")));
            let Some(action) = decision.action.clone() else {
                said.extend(self.tell(&decision).into_iter().filter(|line| !line.ends_with(": confirmed")));
                return said;
            };
            said.push(format!("{action} ({})", decision.reason));
            if !self.act(&action) {
                said.push("killed".into());
                return said;
            }
        }
        panic!("no end: {said:?}");
    }

    fn act(&mut self, action: &Action) -> bool {
        let (now, policy) = (self.now, self.policy.clone());
        let token = VersionId::new(format!("v{}", self.facts.store.versions.len() + 1));
        self.facts.record.begin(action, Some(token), now);
        let outcome = self.call(action);
        let kind = action.to_string();
        if self.killed_after.as_ref().is_some_and(|killed| kind.starts_with(killed.as_str())) {
            (self.killed_after, self.facts.unstored) = (None, None);
            return false;
        }
        let mut record = self.facts.record.clone();
        record.done(action, &outcome, &self.facts, &policy, now);
        self.facts.record = record;
        true
    }

    fn status(&mut self, key: &KeyId, status: KeyStatus) {
        if let Some(key) = self.facts.keys.iter_mut().find(|k| k.id == *key) {
            key.status = status;
        }
    }

    fn call(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Create => {
                self.made += 1;
                let key = KeyId::new(format!("AKIA{}", self.made));
                self.key(&key, "made");
                self.facts.unstored = Some(key.clone());
                return Outcome::Created(key);
            }
            Action::Put { key, publishes } => {
                let version = self.put(Value::Login(key.clone()), if *publishes { CURRENT } else { PENDING });
                self.facts.unstored = None;
                return if *publishes { Outcome::Published(version) } else { Outcome::Done };
            }
            Action::Republish { key, .. } => {
                self.put(Value::Login(key.clone()), PENDING);
            }
            Action::LogIn { key, .. } => {
                let active = self.facts.status(key) == Some(KeyStatus::Active) && self.taken.contains(key);
                let reply = if active { LoginReply::Accepted } else { LoginReply::Refused };
                self.facts.logins.push(Login { key: key.clone(), endpoint: ENDPOINT.into(), reply, at: self.now });
                if active {
                    self.key(&key.clone(), "used");
                }
                return Outcome::logged_in(&[reply]);
            }
            Action::Promote { version, .. } => {
                self.label(CURRENT, version);
                for one in &mut self.facts.store.versions {
                    one.labels.retain(|label| label != PENDING);
                }
            }
            Action::TakeOff { .. } => self.label(PENDING, &VersionId::new("none")),
            Action::Label { version, label } => self.label(label, version),
            Action::Unlabel { label, .. } => self.label(label, &VersionId::new("none")),
            Action::Reactivate { key, .. } => self.status(key, KeyStatus::Active),
            Action::Deactivate { key, .. } => self.status(key, KeyStatus::Inactive),
            Action::Delete { key, .. } => {
                self.key(&key.clone(), "deleted");
            }
            Action::Forget { .. } => self.facts.unstored = None,
            Action::CopyTo { .. } | Action::PromoteAt { .. } => unreachable!("there is one place"),
            Action::RecordPublished { .. } | Action::Intend { .. } | Action::RecordProvedDead { .. } => {}
        }
        Outcome::Done
    }
}
