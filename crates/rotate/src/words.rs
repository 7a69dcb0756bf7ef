//! The words of everything here, made once. A fix can be pasted: its ids are those of the facts.

use std::fmt::{self, Write as _};
use std::sync::{PoisonError, RwLock};

use relaykey::host::trust::quoted;

use crate::evidence::Verdict;
use crate::facts::{HostName, KeyId, KeyPlace, Part, StoreKind, VersionId, WhyMissing};
use crate::plan::{Action, Phase, Purpose, Reason, WhyGone};
use crate::refusal::{AtPlace, KnownUse, Refusal};

/// Ids with a comma between them.
fn list(keys: &[KeyId]) -> String {
    keys.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", ")
}

/// A host's name comes from whoever can write a report: in a command that is pasted it is one word, whatever is in it.
fn pasted(host: &HostName) -> String {
    quoted(host.as_str())
}

/// A region comes from whoever can write a report, and is printed into a line to paste: nothing but what regions are made of.
fn is_plain_region(region: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&region.len()) && region.bytes().all(fits)
}

/// What facts do not name and words do: how commands that are printed begin here, and what the configuration calls things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `relaykey-rotate`, with the options that whoever pastes it needs.
    pub us: String,
    /// `aws`, with its profile and address.
    pub aws: String,
    /// The IAM user.
    pub user: String,
    /// The first place: `secret "SESSendSecret"`.
    pub store: String,
    /// Every place that is published in, the first one first.
    pub places: Vec<(KeyPlace, AwsCommand)>,
    /// `table "relaykey"`.
    pub fleet: String,
}

/// How `aws` is called for one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCommand {
    /// `aws`, with the profile and the address that lead there.
    pub aws: String,
    /// Of the secret or parameter.
    pub name: String,
    /// Its region, as an option with a blank in front; empty where nothing says it.
    pub region: String,
}

impl Default for Names {
    /// Those of the examples in the documents.
    fn default() -> Self {
        Self {
            us: "relaykey-rotate".into(),
            aws: "aws".into(),
            user: "ses-smtp".into(),
            store: "secret \"SESSendSecret\"".into(),
            places: Vec::new(),
            fleet: "table \"relaykey\"".into(),
        }
    }
}

static NAMES: RwLock<Option<Names>> = RwLock::new(None);

/// From now on it is this that is spoken of.
pub fn speak_of(names: Names) {
    *NAMES.write().unwrap_or_else(PoisonError::into_inner) = Some(names);
}

pub fn names() -> Names {
    NAMES.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
}

/// `relaykey-rotate`, with the options that it needs here.
pub fn called() -> String {
    names().us
}

impl Names {
    /// How `aws` is called for this place.
    fn at(&self, place: &KeyPlace) -> AwsCommand {
        let known = self.places.iter().find(|(known, _)| known == place).map(|(_, called)| called.clone());
        known.unwrap_or_else(|| AwsCommand {
            aws: self.aws.clone(),
            name: quoted(&place.name),
            region: place.region.as_ref().map_or_else(String::new, |region| format!(" --region {}", quoted(region))),
        })
    }

    /// A command about the secret of this part.
    fn secrets_manager(&self, command: &str, part: &Part) -> String {
        let AwsCommand { aws, name, region } = match part {
            Part::Further(place) => self.at(place),
            Part::Keys | Part::Store | Part::Fleet => {
                let first = self.places.first().map(|(_, called)| called.clone());
                first.unwrap_or_else(|| AwsCommand {
                    aws: self.aws.clone(),
                    name: "SESSendSecret".into(),
                    region: String::new(),
                })
            }
        };
        format!("{aws} secretsmanager {command} --secret-id {name}{region}")
    }

    /// The command that deactivates a key: it can be undone.
    fn deactivate(&self, key: &KeyId) -> String {
        format!(
            "`{} iam update-access-key --status Inactive --access-key-id {key} --user-name {}`",
            self.aws, self.user
        )
    }

    /// The command that deletes a key: it cannot be undone.
    fn delete(&self, key: &KeyId) -> String {
        format!("`{} iam delete-access-key --access-key-id {key} --user-name {}`", self.aws, self.user)
    }
}

impl Refusal {
    /// Its class: one word, for programs.
    pub fn class(&self) -> &'static str {
        use Refusal::*;
        match self {
            DeactivatedByHand { .. } => "deactivated-by-hand",
            BroughtBack { .. } => "brought-back",
            NoHosts => "no-hosts",
            RosterOpen { .. } => "roster-open",
            HostUnconfirmed { .. } => "host-unconfirmed",
            HostSilent { .. } => "host-silent",
            ProofFalse { .. } => "proof-false",
            ProofMissing { .. } => "proof-missing",
            AgentTooOld { .. } => "agent-too-old",
            OtherVersion { .. } => "other-version",
            RemainingOld { .. } => "remaining-old",
            OldKeyElsewhere { .. } => "old-key-elsewhere",
            Incomplete { .. } => "incomplete",
            Withdrawn { .. } => "withdrawn",
            NameTwice { .. } => "name-twice",
            IdentityShared { .. } => "identity-shared",
            Clock { .. } => "clock",
            OldKeyUsed { .. } => "old-key-used",
            LastUsedUnknown { .. } => "last-used-unknown",
            Grace { .. } => "grace",
            Observe { .. } => "observe",
            CanaryNone { .. } => "canary-none",
            CanaryFailed { .. } => "canary-failed",
            SesRefuses { .. } => "ses-refuses",
            RegionRefused { .. } => "region-refused",
            TwoLiveKeys { .. } => "two-live-keys",
            UnexplainedKey { .. } => "unexplained-key",
            NotListed { .. } => "not-listed",
            OurClock { .. } => "our-clock",
            NotDead { .. } => "not-dead",
            LabelMoved { .. } | LabelElsewhere { .. } => "label-moved",
            PendingForeign { .. } => "pending-foreign",
            PendingEmpty { .. } => "pending-empty",
            VersionUnreadable { .. } => "version-unreadable",
            ValueNotOurs { .. } => "value-not-ours",
            ReplicaBehind { .. } => "replica-behind",
            NotEverywhere { why: AtPlace::Behind, .. } => "not-everywhere",
            NotEverywhere { why: AtPlace::Moved, .. } => "label-moved",
            NotEverywhere { why: AtPlace::PendingForeign, .. } => "pending-foreign",
            NotEverywhere { why: AtPlace::PendingEmpty, .. } => "pending-empty",
            NotEverywhere { why: AtPlace::NeedsKey, .. } => "needs-key",
            NotEverywhere { why: AtPlace::NotOurs, .. } => "value-not-ours",
            PlaceDropped { .. } => "place-dropped",
            PlaceOrder { .. } => "place-order",
            KmsDenied { .. } => "kms-denied",
            AccessDenied { .. } => "access-denied",
            Throttled => "throttled",
            UserMissing => "user-missing",
            WrongUser { .. } => "wrong-user",
            SecretDeleting { .. } => "secret-deleting",
            NotFound { .. } => "not-found",
            NoAnswer { .. } => "no-answer",
            Busy { .. } => "busy",
            RevokedKeyPublished { .. } => "revoked-key-published",
            WouldCut { .. } => "would-cut",
        }
    }

    /// What is wrong.
    pub fn words(&self) -> String {
        use Refusal::*;
        match self {
            DeactivatedByHand { key } => format!("somebody else deactivated {key}"),
            BroughtBack { key } => {
                format!("{key} was deactivated and is active again: whoever did that needs it, and its time began anew")
            }
            NoHosts => "no host has reported yet".into(),
            RosterOpen { heard, expect: None, lost: lost @ 1.., .. } => {
                format!("what was known of {lost} hosts is gone from the registry; {heard} hosts reported so far")
            }
            RosterOpen { heard, expect: None, .. } => {
                format!("nobody has said how many hosts there are; {heard} reported so far")
            }
            RosterOpen { heard, expect: Some(expect), sealed_with: Some(with), .. } => format!(
                "the roster was sealed with {with}, and `expected_hosts` is {expect} now; {heard} of {expect} hosts reported so far"
            ),
            RosterOpen { heard, expect: Some(expect), .. } => format!("{heard} of {expect} hosts reported so far"),
            HostUnconfirmed { host } => format!("{host} has not confirmed the new key"),
            HostSilent { host, since } => format!("{host} was last heard of at {since:.0}"),
            ProofFalse { host } => {
                format!("{host}'s proof was not made with the new key: the report is forged, or a fault")
            }
            ProofMissing { host, why } => format!("{host} has not proved that it uses the new key: {}", why.words()),
            AgentTooOld { host } => {
                format!("the agent of {host} does not report which other keys its mail server holds")
            }
            OtherVersion { host, version, key } => format!("{host} uses key {key} (version {version})"),
            RemainingOld { host, entries } => {
                format!("{host} still has entries with an earlier key: {}", entries.join(", "))
            }
            OldKeyElsewhere { host, key } => {
                format!("{host} names the old key {key}: in a login table, or as a login in use")
            }
            Incomplete { host, tables } if tables.is_empty() => format!("a list in {host}'s report is not whole"),
            Incomplete { host, tables } => format!("{host} could not list these login tables: {}", tables.join(", ")),
            Withdrawn { host } => format!("{host} took its confirmation back"),
            NameTwice { host } => format!("two installations report as {host}"),
            IdentityShared { host } => format!("{host} reports under an AWS identity that other hosts use too"),
            Clock { host } => format!("the clock of {host} is more than five minutes ahead"),
            OldKeyUsed { key, at, service } => {
                format!(
                    "the old key {key} was used at {at:.0} ({service}), after all hosts had moved: by something that does not report"
                )
            }
            LastUsedUnknown { key } => format!("IAM did not say when {key} was last used"),
            Grace { until } => format!("all hosts have moved; the old key stays until {until:.0}"),
            Observe { until } => format!("the old key lies deactivated until {until:.0}"),
            CanaryNone { label } => format!("no host watches the label {label}"),
            CanaryFailed { host } => format!("canary {host} could not take the new key"),
            SesRefuses { key } => format!("the login with {key} was refused, or got no answer"),
            RegionRefused { host, region } if !is_plain_region(region) => {
                format!("{host} reports a region that is none")
            }
            RegionRefused { host, region } => {
                format!("{host} relays to {region}, where no login is tried before a key is published")
            }
            TwoLiveKeys { keys } => format!("the IAM user has two keys already: {}", list(keys)),
            UnexplainedKey { key, used } => {
                let known = match used {
                    KnownUse::Inactive => "it is inactive".to_owned(),
                    KnownUse::Nothing => "no use of it is known".to_owned(),
                    KnownUse::Used { at, service } => format!("it was last used at {at:.0} ({service})"),
                    KnownUse::Named { host } => format!("{host} names it"),
                    KnownUse::NotKnown => "whether something uses it is not known".to_owned(),
                };
                format!("nobody knows what {key} is for, as this program did not make it; {known}")
            }
            NotListed { key, .. } => {
                format!("IAM does not list {key}, which was made just now: its list is late, or somebody deleted it")
            }
            OurClock { behind } => {
                format!("the clock of this machine is {} minutes behind that of AWS", behind.as_mins())
            }
            NotDead { key } => format!("{key} is deactivated and still logs in"),
            LabelElsewhere { place, label, version, .. } => {
                format!(
                    "hosts read {place} by its label {label}, which is on version {version}, without the published key"
                )
            }
            LabelMoved { kind: StoreKind::ParameterStore, current: Some(version) } => {
                format!("somebody else put version {version} of the parameter")
            }
            LabelMoved { kind: StoreKind::ParameterStore, current: None } => {
                "the parameter is not there any more".into()
            }
            LabelMoved { current: Some(version), .. } => format!("somebody else made version {version} AWSCURRENT"),
            LabelMoved { current: None, .. } => "no version is AWSCURRENT".into(),
            PendingForeign { version } => format!("somebody else made version {version} AWSPENDING"),
            PendingEmpty { version } => format!("version {version} was AWSPENDING for 20 minutes without a value"),
            VersionUnreadable { key } => {
                format!("no version that can be read holds {key}, so that it cannot be shown dead")
            }
            ReplicaBehind { of, region, failed: false } => {
                format!(
                    "the replica in {region} of {} is not in sync yet; nothing is published, and no key dies, before that",
                    of.words()
                )
            }
            ReplicaBehind { of, region, failed: true } => {
                format!(
                    "the replica in {region} of {} failed; nothing is published, and no key dies, before it is in sync",
                    of.words()
                )
            }
            NotEverywhere { place, why: AtPlace::Behind } => format!("{place} does not give the published key yet"),
            NotEverywhere { place: place @ KeyPlace { kind: StoreKind::ParameterStore, .. }, why: AtPlace::Moved } => {
                format!("somebody else put another value in {place}")
            }
            NotEverywhere { place, why: AtPlace::Moved } => {
                format!("somebody else made another version AWSCURRENT in {place}")
            }
            NotEverywhere { place, why: AtPlace::PendingEmpty } => {
                format!("AWSPENDING has no value yet in {place}: Secrets Manager is at work there")
            }
            NotEverywhere { place, why: AtPlace::NeedsKey } => {
                format!(
                    "{place} holds a secret access key, and the first place an SMTP password, from which none can be made"
                )
            }
            NotEverywhere { place, why: AtPlace::PendingForeign } => {
                format!("somebody else's version is AWSPENDING in {place}")
            }
            NotEverywhere { place, why: AtPlace::NotOurs } => {
                format!("{place} gives no login of this IAM user's, nor the one that this program put there last")
            }
            ValueNotOurs { version, key: Some(key) } => {
                format!("version {version} holds the login of {key}, a key that this IAM user does not have")
            }
            ValueNotOurs { version, key: None } => {
                format!("version {version} holds no login whose user name is a key id: it may be somebody else's")
            }
            PlaceDropped { place, gives } => {
                let given = gives.as_ref().map_or_else(String::new, |key| format!(", and was last seen to give {key}"));
                format!(
                    "{place} is not in rotate.toml any more{given}: no other key is published, and none dies, as long as hosts may read it"
                )
            }
            PlaceOrder { first } => {
                format!(
                    "this rotation began with {first} as its first place, and rotate.toml has another one first now"
                )
            }
            KmsDenied { part } => format!("KMS does not let us decrypt {}", part.words()),
            AccessDenied { part } => format!("AWS does not let us read {}", part.words()),
            Throttled => "AWS throttles us".into(),
            UserMissing => format!("IAM user {:?} does not exist", names().user),
            WrongUser { user, is } => {
                format!("this rotation is about the keys of IAM user {user}, and rotate.toml leads to {is}")
            }
            SecretDeleting { part } => format!("{} is scheduled for deletion", part.words()),
            NotFound { part } => format!("{} cannot be read: AWS knows nothing of that name", part.words()),
            NoAnswer { part } => format!("{} cannot be read: no answer came in time", part.words()),
            Busy { holder, .. } if holder.is_empty() => "this look was made without the lease".into(),
            Busy { holder, until } => format!("{holder} is at work, until {until:.0} at the latest"),
            RevokedKeyPublished { key } => format!("the published key {key} is revoked"),
            WouldCut { host: Some(host), key } => format!("{host} still names {key}, which was about to go"),
            WouldCut { host: None, key } => format!("{key} is published, and was about to go"),
        }
    }

    /// What to do about it. What stands in backquotes is pasted as it is.
    pub fn fix(&self) -> String {
        use Refusal::*;
        let names = names();
        let us = &names.us;
        match self {
            DeactivatedByHand { key } => format!(
                "if it was stolen, leave it so: `{us} run` publishes another one where it is published still, and comes to its end when \
                 this one is deleted, which cannot be undone: {}; else `{us} reactivate {key}`",
                names.delete(key)
            ),
            BroughtBack { key } => {
                format!("find what needs {key}, and give it the published key; if nothing does, it goes on by itself")
            }
            NoHosts => format!(
                "install relaykey on the mail servers, with a [[report]] to {}; `{us} check` says if hosts report there under \
                 another name than this credential's",
                names.fleet
            ),
            RosterOpen { heard, counted, expect: Some(_), .. } if heard == counted && *heard > 0 => format!(
                "start relaykey on the hosts that are missing; if there are no more, `{us} hosts seal --expect {counted}`"
            ),
            RosterOpen { expect: Some(_), .. } => format!(
                "start relaykey on the hosts that are missing or silent: `{us} hosts list` says which are; what is gone is \
                 removed with `hosts remove`"
            ),
            // The number is a person's to say: how many have reported is what it is to be held against.
            RosterOpen { expect: None, .. } => format!(
                "when all of your mail servers are in `{us} hosts list`, count them, and say how many they are: `{us} hosts seal \
                 --expect N`"
            ),
            HostUnconfirmed { host } => {
                let pasted = pasted(host);
                format!("on {host}, `relaykey status`; if it is no mail server any more, `{us} hosts remove {pasted}`")
            }
            HostSilent { host, .. } => {
                let pasted = pasted(host);
                format!(
                    "start relaykey on {host}; if it is down and will not come back with the old key, \
                     `{us} hosts waive {pasted} --reason \"down for repair\"`; if it is gone, `{us} hosts remove {pasted}`"
                )
            }
            ProofFalse { host } => format!("on {host}, `relaykey confirm`; find out who else can write its reports"),
            ProofMissing { host, .. } => {
                let pasted = pasted(host);
                format!(
                    "on {host}, `relaykey confirm`; if it cannot prove it, look for yourself and \
                     `{us} hosts waive {pasted} --reason \"looked at its table\"`"
                )
            }
            AgentTooOld { host } => {
                let pasted = pasted(host);
                format!(
                    "update relaykey on {host}; or look at its login tables yourself and \
                     `{us} hosts waive {pasted} --reason \"looked at its tables\"`"
                )
            }
            OtherVersion { host, .. } | RemainingOld { host, .. } => format!("on {host}, `relaykey sync`"),
            OldKeyElsewhere { host, .. } => format!(
                "on {host}, `relaykey check` names the entry: give it the new key, or remove it; what only uses it, `relaykey \
                 sync` moves"
            ),
            Incomplete { host, .. } => {
                format!(
                    "on {host}, `relaykey check` names the tables: list them in unlisted_ok if no login for SES is in them"
                )
            }
            Withdrawn { host } => format!("on {host}, `relaykey sync`; it confirms again when it has the new key"),
            NameTwice { host } | IdentityShared { host } => {
                let pasted = pasted(host);
                format!(
                    "give each host a name and an AWS identity of its own; or, if it is meant so, `{us} hosts accept {pasted}`"
                )
            }
            Clock { host } => format!("set the clock of {host}; it needs time synchronisation"),
            OldKeyUsed { key, .. } => {
                format!("find what uses {key} and give it the new key; then start the clocks anew: `{us} hosts seal`")
            }
            LastUsedUnknown { .. } => {
                format!("allow iam:GetAccessKeyLastUsed: `{us} policy --for controller`")
            }
            Grace { .. } | Observe { .. } | Busy { .. } | Throttled | NoAnswer { .. } => {
                "nothing: it goes on by itself".into()
            }
            CanaryNone { label } => format!(
                "on a host, `stage = [\"{label}\", \"AWSCURRENT\"]` in config.toml; or take `canary` out of rotate.toml"
            ),
            CanaryFailed { host } => format!("on {host}, `relaykey status` says why; then `{us} run`"),
            SesRefuses { .. } => {
                format!("`{us} history` says at which endpoint, and in its words; when that is mended, `{us} run`")
            }
            RegionRefused { host, region } if !is_plain_region(region) => format!(
                "on {host}, look at the region that its login is for: its report names none that could be one; it is not shown here"
            ),
            RegionRefused { region, .. } => {
                format!(
                    "in rotate.toml, add [[credential.smtp.also]] below [credential.smtp], with `endpoint = \"email-smtp.{region}.amazonaws.com\"`"
                )
            }
            TwoLiveKeys { .. } => format!(
                "one of them has to go, and what is said of it here says how: `{us} plan`; `{us} hosts list` names who uses which"
            ),
            UnexplainedKey { key, used: KnownUse::Inactive } => {
                format!("if nobody has missed it: {}", names.delete(key))
            }
            UnexplainedKey { key, used: KnownUse::Nothing } => format!(
                "if it is nobody's, deactivate it first, which can be undone: {}; delete it when nobody has missed it for some days",
                names.deactivate(key)
            ),
            UnexplainedKey { used: KnownUse::Used { .. } | KnownUse::Named { .. }, .. } => format!(
                "leave it alone, as mail may depend on it: find what uses it (`{us} hosts list` names what hosts use), and give \
                 that the published key"
            ),
            UnexplainedKey { used: KnownUse::NotKnown, .. } => {
                format!(
                    "leave it alone, as mail may depend on it: `{us} check` says what cannot be seen; look again in a day"
                )
            }
            NotListed { until, .. } => {
                format!("nothing: at {until:.0} it is known; another key is published then if this one is gone")
            }
            OurClock { .. } => "set the clock of this machine; it needs time synchronisation".into(),
            NotDead { key } => {
                format!("`{us} history` says which endpoint takes it; ask AWS why {key} still works")
            }
            LabelElsewhere { place, label, version, current } => {
                let AwsCommand { aws, name, region } = names.at(place);
                let label = quoted(label);
                match place.kind {
                    StoreKind::ParameterStore => format!(
                        "`{aws} ssm label-parameter-version --name {name} --parameter-version {current} --labels {label}{region}`"
                    ),
                    StoreKind::SecretsManager => format!(
                        "`{aws} secretsmanager update-secret-version-stage --secret-id {name} --version-stage {label} \
                         --remove-from-version-id {version} --move-to-version-id {current}{region}`"
                    ),
                }
            }
            LabelMoved { kind: StoreKind::ParameterStore, .. } => {
                format!("put the login there again that was published last: `{us} history` names its key")
            }
            LabelMoved { .. } => {
                format!("move AWSCURRENT back to the version that was published last: `{us} history` names it")
            }
            PendingForeign { version } => {
                format!("end that rotation, or take the label off version {version}; this program does not publish it")
            }
            PendingEmpty { .. } => "nothing: the label was taken off".into(),
            VersionUnreadable { key } => {
                format!("it is deactivated already; when you are sure that nothing uses it: {}", names.delete(key))
            }
            ValueNotOurs { key: Some(key), .. } => format!(
                "are `iam_user` and [[credential.publish]] in rotate.toml right? If nothing needs the login with {key} any more, it is \
                 written over: `{us} run --yes-overwrite {key}`"
            ),
            ValueNotOurs { key: None, .. } => {
                "correct [[credential.publish]] in rotate.toml; or put the login that hosts use now there, as USER:PASSWORD".into()
            }
            ReplicaBehind { failed: false, .. } => "nothing: it goes on by itself".into(),
            ReplicaBehind { of, region, failed: true } => format!(
                "`{}` says why; mend that, and replicate the secret to {region} again",
                names.secrets_manager("describe-secret", of)
            ),
            NotEverywhere { why: AtPlace::Behind, .. } => {
                format!("nothing: it goes on by itself; if it stays, `{us} history` says what failed")
            }
            NotEverywhere { place: place @ KeyPlace { kind: StoreKind::ParameterStore, .. }, why: AtPlace::Moved } => {
                format!("put the login in {place} again that was published last: `{us} status` names its key")
            }
            NotEverywhere { place, why: AtPlace::Moved } => format!(
                "move AWSCURRENT of {place} back to the version that was published last: `{us} status` names its key"
            ),
            NotEverywhere { place, why: AtPlace::PendingForeign } => {
                format!(
                    "end that rotation, or take AWSPENDING off in {place}; nothing is published anywhere before that"
                )
            }
            NotEverywhere { why: AtPlace::PendingEmpty, .. } => {
                "nothing: it goes on by itself; after 20 minutes without a value it is taken for left over".into()
            }
            NotEverywhere { place, why: AtPlace::NeedsKey } => {
                format!("in rotate.toml, put the [[credential.publish]] of {place} first; or give it `form = \"pair\"`")
            }
            PlaceDropped { place, .. } => format!(
                "put its [[credential.publish]] back in rotate.toml; if no host reads it any more, `{us} places remove {}`",
                place.word()
            ),
            PlaceOrder { first } => {
                format!("in rotate.toml, put the [[credential.publish]] of {first} first until the old key is gone")
            }
            NotEverywhere { place, why: AtPlace::NotOurs } => format!(
                "if {place} is the right place, put the login there that is published; else correct [[credential.publish]] in rotate.toml"
            ),
            KmsDenied { .. } => format!(
                "attach what `{us} policy --for controller` prints, with --kms-key and the ARN of the key that encrypts it"
            ),
            AccessDenied { .. } => format!("attach what `{us} policy --for controller` prints"),
            UserMissing => "correct `iam_user` in rotate.toml, or the account that [aws] leads to".into(),
            WrongUser { user, is } => format!(
                "in rotate.toml, set `iam_user = {:?}`, or let [aws] lead to the account that it was; to rotate the keys of {:?} from \
                 now on, `{us} user accept {}`: those of {:?} are left as they are, and the roster is sealed again",
                user.name,
                is.name,
                quoted(&is.name),
                user.name
            ),
            NotFound { .. } => "correct the name, the region or the account in rotate.toml".into(),
            SecretDeleting { part } => {
                format!("`{}`", names.secrets_manager("restore-secret", part))
            }
            RevokedKeyPublished { .. } => format!("`{us} run` publishes another one"),
            WouldCut { host: Some(host), .. } => format!("on {host}, `relaykey sync`"),
            WouldCut { host: None, .. } => format!("`{us} status` says what is published and why"),
        }
    }
}

impl Part {
    pub fn words(&self) -> String {
        let names = names();
        match self {
            Part::Keys => format!("the keys of IAM user {:?}", names.user),
            Part::Store => names.store,
            Part::Further(place) => place.to_string(),
            Part::Fleet => format!("the hosts' reports in {}", names.fleet),
        }
    }
}

impl WhyMissing {
    pub fn words(self) -> &'static str {
        match self {
            WhyMissing::NoConfirmation => "it has confirmed nothing",
            WhyMissing::NoProof => "the report came without proof",
            WhyMissing::UnknownKind => "this program cannot check proofs of that kind",
            WhyMissing::NoPassword => "the password to check it with cannot be read",
            WhyMissing::Clock => "its clock is ahead",
        }
    }
}

impl Action {
    /// Its kind: one word, for programs.
    pub fn class(&self) -> &'static str {
        match self {
            Action::Reactivate { .. } => "reactivate",
            Action::Republish { .. } => "republish",
            Action::Create => "create",
            Action::Put { .. } => "put",
            Action::Forget { .. } => "forget",
            Action::LogIn { .. } => "log-in",
            Action::TakeOff { .. } => "take-off",
            Action::Label { .. } => "label",
            Action::Unlabel { .. } => "unlabel",
            Action::Promote { .. } => "promote",
            Action::CopyTo { .. } => "copy-to",
            Action::PromoteAt { .. } => "promote-at",
            Action::RecordPublished { .. } => "record-published",
            Action::Intend { .. } => "intend",
            Action::Deactivate { .. } => "deactivate",
            Action::RecordProvedDead { .. } => "record-proved-dead",
            Action::Delete { .. } => "delete",
        }
    }

    /// The key it is about.
    pub fn key(&self) -> Option<&KeyId> {
        match self {
            Action::Reactivate { key, .. }
            | Action::Republish { key, .. }
            | Action::Put { key, .. }
            | Action::Forget { key, .. }
            | Action::LogIn { key, .. }
            | Action::Promote { key, .. }
            | Action::CopyTo { key, .. }
            | Action::PromoteAt { key, .. }
            | Action::RecordPublished { key, .. }
            | Action::Intend { key }
            | Action::Deactivate { key, .. }
            | Action::RecordProvedDead { key }
            | Action::Delete { key, .. } => Some(key),
            Action::TakeOff { refused, .. } => refused.as_ref(),
            Action::Create | Action::Label { .. } | Action::Unlabel { .. } => None,
        }
    }

    /// The version it is about.
    pub fn version(&self) -> Option<&VersionId> {
        match self {
            Action::Republish { from: version, .. }
            | Action::TakeOff { version, .. }
            | Action::Label { version, .. }
            | Action::Unlabel { version, .. }
            | Action::Promote { version, .. }
            | Action::PromoteAt { version, .. }
            | Action::RecordPublished { version, .. } => Some(version),
            _ => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Reactivate { key, .. } => write!(f, "reactivate {key}"),
            Action::Republish { from, key } => {
                write!(f, "publish {key} again (the value of version {from}, as a new version)")
            }
            Action::Create => f.write_str("create a new key"),
            Action::Put { key, publishes: false } => write!(f, "put {key} as AWSPENDING"),
            Action::Put { key, publishes: true } => write!(f, "publish {key}"),
            Action::Forget { key, .. } => write!(f, "forget the secret of {key}"),
            Action::LogIn { key, purpose } => {
                write!(f, "log in with {key}")?;
                f.write_str(match purpose {
                    Purpose::Verify => "",
                    Purpose::LastLogin => ", for the last time",
                    Purpose::ProveDead => ", which must be refused",
                })
            }
            Action::TakeOff { version, .. } => write!(f, "take AWSPENDING off version {version}"),
            Action::Label { version, label } => write!(f, "put the label {label} on version {version}"),
            Action::Unlabel { version, label } => write!(f, "take the label {label} off version {version}"),
            Action::Promote { version, key, .. } => write!(f, "publish {key}: make version {version} AWSCURRENT"),
            Action::CopyTo { place, key, publishes: false, .. } => write!(f, "put {key} as AWSPENDING in {place}"),
            Action::CopyTo { place, key, publishes: true, .. } => write!(f, "publish {key} in {place}"),
            Action::PromoteAt { place, version, key, .. } => {
                write!(f, "publish {key} in {place}: make version {version} AWSCURRENT")
            }
            Action::RecordPublished { version, key } => write!(f, "note that {key} is published (version {version})"),
            Action::Intend { key } => write!(f, "note that {key} is about to be deactivated"),
            Action::Deactivate { key, .. } => write!(f, "deactivate {key}"),
            Action::RecordProvedDead { key } => write!(f, "note that {key} is dead"),
            Action::Delete { key, why: WhyGone::Retired } => write!(f, "delete {key}"),
            Action::Delete { key, why: WhyGone::Leftover } => write!(f, "delete {key}, of which nothing came"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::PublishedKeyInactive(key) => {
                write!(f, "the published key {key} is inactive, and we deactivated it")
            }
            Reason::PublishedKeyGone(key) => write!(f, "the published key {key} is gone"),
            Reason::HostCutOff(host, key) => write!(f, "{host} says that it still needs {key}"),
            Reason::NotStored(key) => write!(f, "{key} is new, and not stored yet"),
            Reason::BeingMade { until } => write!(f, "a key is being made, until {until:.0} at the latest"),
            Reason::LeaseOver(key) => write!(f, "{key} could not be stored in time"),
            Reason::ToVerify(key) => write!(f, "does SES take {key}?"),
            Reason::Propagating { key, until } => write!(f, "SES does not take {key} yet; tried until {until:.0}"),
            Reason::Unanswered { key, until } => {
                write!(f, "a login with {key} got no answer yet; tried until {until:.0}")
            }
            Reason::NotTaken(key) => write!(f, "no login with {key} was accepted"),
            Reason::EmptyPending { until } => write!(f, "AWSPENDING has no value; it is left alone until {until:.0}"),
            Reason::EmptyPendingOld => f.write_str("AWSPENDING has had no value for too long"),
            Reason::PendingDead(version) => write!(f, "the key of version {version} is gone or inactive"),
            Reason::Canary(label) => write!(f, "the hosts that watch {label} come first"),
            Reason::CanaryWaits { confirmed, of } => write!(f, "{confirmed} of {of} canary hosts have confirmed"),
            Reason::CanarySoaks { until } => write!(f, "the canary hosts have confirmed; watched until {until:.0}"),
            Reason::NotEverywhere(place) => write!(f, "{place} gets the same key"),
            Reason::Verified(version) => write!(f, "SES takes the key of version {version}"),
            Reason::PromotedBefore(version) => write!(f, "version {version} was published, and not noted"),
            Reason::Outdated(version) => {
                write!(f, "what is AWSCURRENT was written anew after version {version} was composed from it")
            }
            Reason::CanaryOver(version) => write!(f, "version {version} is not tried any more"),
            Reason::OldEnough { since } => write!(f, "the published key is of {since:.0}"),
            Reason::Asked { by } => write!(f, "{by} asked for it"),
            Reason::MakesRoom(key) => write!(f, "a new key needs the place of {key}, which is dead"),
            Reason::Confirmed { until } => write!(f, "all hosts have confirmed; the old key stays until {until:.0}"),
            Reason::AllQuiet(key) => write!(f, "all hosts have confirmed, and nothing uses {key}"),
            Reason::Settles { until } => {
                write!(f, "before the old key goes, everything is looked at once more, at {until:.0}")
            }
            Reason::LastLogin(key) => write!(f, "what must turn into a refusal has to be an acceptance first: {key}"),
            Reason::Retires(key) => write!(f, "all hosts have confirmed, and nothing uses {key}, still"),
            Reason::MustDie(key) => write!(f, "is {key} dead?"),
            Reason::StillAlive(key) => write!(f, "{key} still logs in"),
            Reason::IsDead(key) => write!(f, "SES refuses {key}"),
            Reason::Observed(key) => write!(f, "{key} lay dead, and nobody missed it"),
            Reason::Observing { until } => write!(f, "the old key lies dead until {until:.0}"),
            Reason::Leftover(key) => write!(f, "{key} is of ours, and nothing came of it"),
            Reason::LeftoverLies { key, until } => {
                write!(f, "{key} is of ours, nothing came of it, and it lies deactivated until {until:.0}")
            }
            Reason::Refused => f.write_str("something stands in the way"),
            Reason::NothingDue { until: Some(until) } => write!(f, "the next rotation is due at {until:.0}"),
            Reason::NothingDue { until: None } => f.write_str("nothing is due"),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Phase::Idle => "idle",
            Phase::Creating => "creating",
            Phase::Pending => "pending",
            Phase::Canary => "canary",
            Phase::Waiting => "waiting",
            Phase::Grace => "grace",
            Phase::Lag => "lag",
            Phase::Retiring => "retiring",
            Phase::Observing => "observing",
            Phase::Trouble => "trouble",
            Phase::Revoked => "revoked",
            Phase::Stuck(refusal) => {
                f.write_str("stuck (")?;
                f.write_str(refusal.class())?;
                return f.write_char(')');
            }
        };
        f.write_str(word)
    }
}

impl Verdict {
    /// Its kind: one word, for programs.
    pub fn class(&self) -> &'static str {
        match self {
            Verdict::True { by_code: false } => "confirmed",
            Verdict::True { by_code: true } => "confirmed-by-code",
            Verdict::False => "proof-false",
            Verdict::Missing(_) => "proof-missing",
            Verdict::Old { .. } => "other-version",
            Verdict::Stale { .. } => "silent",
            Verdict::NeverHeard => "never-heard",
            Verdict::Unconfirmed => "unconfirmed",
            Verdict::TookBack => "took-back",
            Verdict::Clock => "clock",
            Verdict::TooOld => "agent-too-old",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::True { by_code: false } => f.write_str("confirmed"),
            Verdict::True { by_code: true } => f.write_str("confirmed by a typed code"),
            Verdict::False => f.write_str("the proof is false"),
            Verdict::Missing(why) => write!(f, "not proved: {}", why.words()),
            Verdict::Old { version, key } => write!(f, "on {key} (version {version})"),
            Verdict::Stale { since } => write!(f, "silent since {since:.0}"),
            Verdict::NeverHeard => f.write_str("never heard of"),
            Verdict::Unconfirmed => f.write_str("has confirmed nothing"),
            Verdict::TookBack => f.write_str("took its confirmation back"),
            Verdict::Clock => f.write_str("its clock is ahead"),
            Verdict::TooOld => f.write_str("its agent is too old"),
        }
    }
}

#[cfg(test)]
mod tests;
