//! The credential as the source gives it: whether it has to be fetched at all, what of it may be shown, and whether it is the
//! version that it is taken for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::OpenedSource;
use super::earlier::TriedEarlier;
use super::steps::{ours, target_id};
use crate::apply::{Logins, NamedLogin, Ours, Request};
use crate::config;
use crate::credential::{Login, NOT_SHOWN, Payload, PayloadError, PayloadForm, is_access_key_id, shown_or_said};
use crate::fault::{Class, Failure, Fault};
use crate::rollover::{self, Facts, Outcome, SourceVersion, State, Step};
use crate::source::{EarlierVersions, Fetched};

/// The credential that was fetched, for the steps that need it.
#[derive(Default)]
pub(super) struct FetchedCredential {
    last: Mutex<Option<Fetched>>,
    /// Its logins, made once for each target.
    logins: Mutex<BTreeMap<String, Logins>>,
    /// On a host without state: which earlier versions the source has, once it was asked.
    named: OnceCell<EarlierVersions>,
    /// And those of their logins that were tried.
    tried: tokio::sync::Mutex<TriedEarlier>,
}

impl FetchedCredential {
    pub(super) fn get(&self) -> MutexGuard<'_, Option<Fetched>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the place of what was fetched before.
    pub(super) fn keep(&self, fetched: Option<Fetched>) {
        *self.get() = fetched;
        self.logins().clear();
    }

    /// Tries the earlier logins that are certain of no region, once. True: more is known of one of them than before.
    pub(super) async fn try_earlier(&self, smtp: &config::Smtp, hello_name: &str) -> bool {
        match self.named.get() {
            Some(named) => try_earlier(&mut *self.tried.lock().await, named, smtp, hello_name).await,
            None => false,
        }
    }

    fn logins(&self) -> MutexGuard<'_, BTreeMap<String, Logins>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`logins_for`], made once.
    pub(super) fn logins_for(&self, target: &config::Target) -> Result<Logins, Failure> {
        if let Some(made) = self.logins().get(&target.name) {
            return Ok(made.clone());
        }
        let made = logins_for(&self.get(), target)?;
        self.logins().insert(target.name.clone(), made.clone());
        Ok(made)
    }
}

/// On a host without state: the version that it would take, and those before it, as the source has them.
/// What cannot be read is not known, and that is no failure; `check` says so.
pub async fn named(source: &OpenedSource) -> EarlierVersions {
    let Ok(source) = source else { return EarlierVersions::default() };
    let (current, mut earlier) = futures_util::future::join(source.fetch(), source.earlier()).await;
    // Why it cannot be fetched is told by the step that needs it.
    let current = current.ok().map(|current| current.payload);
    earlier.current = current.filter(|payload| is_access_key_id(payload.username()));
    earlier
}

/// Whose logins are this credential's, as far as is known: on a host without state the source is asked, once in a run.
pub(super) async fn known_as_ours(
    state: &State,
    source: &OpenedSource,
    fetched: &FetchedCredential,
    smtp: &config::Smtp,
) -> Ours {
    let known = ours(Some(state));
    match state.applied {
        None => {
            let named = fetched.named.get_or_init(|| named(source)).await;
            with_named(known, named, smtp, &*fetched.tried.lock().await)
        }
        Some(_) => known,
    }
}

/// With what the source names as earlier versions: their key ids, and the logins that tell which region's each entry has.
pub fn with_named(ours: Ours, named: &EarlierVersions, smtp: &config::Smtp, tried: &TriedEarlier) -> Ours {
    // What this host takes is tried before anything is written.
    let taken = named.current.iter().flat_map(|payload| named_logins(payload, smtp, true).0);
    let earlier = named.payloads.iter().flat_map(|payload| named_logins(payload, smtp, false).0);
    let earlier = earlier.map(|named| NamedLogin {
        is_certain: named.is_certain || named.endpoint == 0 && tried.is_taken(smtp, &named.login),
        ..named
    });
    Ours { named: named.ids().collect(), named_logins: earlier.chain(taken).collect(), ..ours }
}

/// Tries at a target's default endpoint what earlier versions hold ready-made, once. True: one was taken, so that
/// [`with_named`] tells more.
pub async fn try_earlier(
    tried: &mut TriedEarlier,
    named: &EarlierVersions,
    smtp: &config::Smtp,
    hello_name: &str,
) -> bool {
    let logins: Vec<NamedLogin> =
        named.payloads.iter().flat_map(|payload| named_logins(payload, smtp, false).0).collect();
    tried.try_at(smtp, &logins, hello_name).await
}

/// An endpoint, and why a version has no login for it.
type WithoutLogin<'s> = (&'s config::Smtp, PayloadError);

/// The logins of a version at an endpoint and its further regions, as far as it has them, and at which of them it has none. A ready-made
/// one is said to be the default endpoint's, and certain only where it is tried there.
fn named_logins<'s>(
    payload: &Payload,
    smtp: &'s config::Smtp,
    is_tried: bool,
) -> (Vec<NamedLogin>, Vec<WithoutLogin<'s>>) {
    let is_made = payload.form == PayloadForm::JsonIamKey;
    let (mut known, mut without) = (Vec::new(), Vec::new());
    for (endpoint, at) in smtp.endpoints().enumerate().filter(|(endpoint, _)| is_made || *endpoint == 0) {
        match payload.login(&at.endpoint, at.region.as_deref()) {
            Ok(login) => known.push(NamedLogin { login, endpoint, is_certain: is_made || is_tried }),
            Err(e) => without.push((at, e)),
        }
    }
    (known, without)
}

/// What earlier versions do not tell of entries with their key ids, though they were read, each with what follows from it.
pub fn not_told<'a>(named: &EarlierVersions, smtps: impl Iterator<Item = &'a config::Smtp> + Clone) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for payload in &named.payloads {
        let id = shown_or_said(payload.username(), false);
        for (at, e) in smtps.clone().flat_map(|smtp| named_logins(payload, smtp, false).1) {
            let what = format!(
                "the earlier key {id} has no password for {}, as far as the source tells ({e}), so that no entry with it is known by \
                 its password as one of there",
                at.endpoint
            );
            if !all.contains(&what) {
                all.push(what);
            }
        }
    }
    all
}

/// Asks the source. Where it still has the applied version, nothing more is asked: the credential itself stays where it is
/// until a step needs it.
pub(super) async fn look(
    facts: &Facts,
    source: &OpenedSource,
    fetched: &FetchedCredential,
) -> Result<SourceVersion, Failure> {
    fetched.keep(None);
    let state = &facts.state;
    let source = source.as_ref().map_err(|e| e.clone().at(Timestamp::now()))?;
    if let (Some(applied), Some(identity)) = (&state.applied, &state.source) {
        let seen = source.look().await.map_err(|e| e.at(Timestamp::now()))?;
        // What waits for a person may wait for days: it need not be fetched at every look, no more than what is applied.
        let waits = |c: &&rollover::Candidate| c.held.is_some() || facts.rejection(&c.id).is_some();
        let waits = state.candidate.iter().filter(waits).map(|c| (&c.id, &c.username));
        // A name that did not show would stand in reports; it is in the credential alone.
        let waits = waits.filter(|(_, username)| *username != NOT_SHOWN);
        let known = std::iter::once((&applied.id, &applied.username)).chain(waits).find(|(id, _)| {
            // A recreated parameter counts from 1 again: its version 1 is not the version 1 of before.
            seen.id.version == id.version && seen.id.order.is_none_or(|order| Some(order) == id.order)
        });
        if let Some((id, username)) = known.filter(|_| seen.identity == *identity) {
            return Ok(SourceVersion {
                identity: seen.identity,
                id: id.clone(),
                username: username.clone(),
                at: Timestamp::now(),
            });
        }
    }
    let new = source.fetch().await.map_err(|e| e.at(Timestamp::now()))?;
    in_order(&new, Some(state), in_use(facts)).map_err(|e| e.at(Timestamp::now()))?;
    let found = without_secret(&new, Some(state), Timestamp::now());
    fetched.keep(Some(new));
    Ok(found)
}

/// The credential itself, now that a step needs it: of the version that was decided upon, or not at all.
pub(super) async fn have(facts: &Facts, source: &OpenedSource, fetched: &FetchedCredential) -> Result<(), Failure> {
    let Some(found) = &facts.fetched else { return Ok(()) };
    let is_it = |new: &Fetched| new.identity == found.identity && new.id == found.id;
    // Another one may be at hand: the one that was put back before.
    if fetched.get().as_ref().is_some_and(is_it) {
        return Ok(());
    }
    fetched.keep(None);
    let source = source.as_ref().map_err(|e| e.clone().at(Timestamp::now()))?;
    let new = source.fetch().await.map_err(|e| e.at(Timestamp::now()))?;
    if !is_it(&new) {
        return Err(Fault::new(
            Class::Changed,
            format!("the source had version {}, and a moment later version {}", found.id.version, new.id.version),
            "nothing: it is looked at anew",
        )
        .temporary()
        .at(Timestamp::now()));
    }
    in_order(&new, Some(&facts.state), in_use(facts)).map_err(|e| e.at(Timestamp::now()))?;
    fetched.keep(Some(new));
    Ok(())
}

/// The applied version once more, by its number.
pub(super) async fn applied(facts: &Facts, source: &OpenedSource) -> Result<Fetched, Failure> {
    let (Some(applied), Some(identity)) = (&facts.state.applied, &facts.state.source) else {
        unreachable!("it is asked of an applied version only")
    };
    let source = source.as_ref().map_err(|e| e.clone().at(Timestamp::now()))?;
    let again = source.fetch_version(identity, &applied.id).await.map_err(|e| e.at(Timestamp::now()))?;
    if again.payload.username() != applied.username {
        return Err(another_login(&facts.state, again.payload.username()));
    }
    Ok(again)
}

/// The user names that were found in use, as the mail servers' tables have them.
fn in_use(facts: &Facts) -> impl Iterator<Item = &str> {
    facts.targets.iter().filter_map(|target| target.inspected.as_ref()?.username.as_deref())
}

/// Refuses a credential with user name and password in the wrong order, as far as the names tell that are known here or in
/// use: what it has for a user name is a password then, and must not be shown.
pub fn in_order<'a>(
    fetched: &Fetched,
    state: Option<&State>,
    in_use: impl Iterator<Item = &'a str>,
) -> Result<(), Fault> {
    let mut known = state.map(State::known_usernames).unwrap_or_default();
    known.extend(in_use.map(str::to_owned));
    fetched.payload.in_order(known.iter().map(String::as_str)).map_err(|e| {
        Fault::new(
            Class::Payload,
            format!("version {}: {e}", fetched.id.version),
            "put USER:PASSWORD there as a new version, in this order; until then this host keeps what it has. A password that \
             was written in the place of the user name may have been shown by other programs: make a new one",
        )
    })
}

/// The user name of what a source gives, as it may be shown before the endpoint has taken it for one.
pub fn shown_before_the_login(fetched: &Fetched, state: Option<&State>) -> String {
    let username = fetched.payload.username();
    let is_known = state.is_some_and(|state| state.known_usernames().iter().any(|known| known == username));
    shown_or_said(username, is_known).to_owned()
}

/// Once the endpoint has taken what stands in the user name's place for one, the facts have it.
pub(super) fn name_once_accepted(facts: &mut Facts, step: &Step, outcome: &Outcome, fetched: Option<&Fetched>) {
    if let (Step::Verify { .. }, Outcome::Accepted(_), Some(of)) = (step, outcome, fetched) {
        facts.logged_in_as(&of.id, of.payload.username());
    }
}

/// What a source has given, without its secret, and without what may be one.
pub(super) fn without_secret(fetched: &Fetched, state: Option<&State>, at: Timestamp) -> SourceVersion {
    SourceVersion {
        identity: fetched.identity.clone(),
        id: fetched.id.clone(),
        username: shown_before_the_login(fetched, state),
        at,
    }
}

/// Where what is at hand counts as the applied version: is its login that version's?
pub(super) fn asks_whether_applied(
    facts: &Facts,
    credential: &config::Credential,
    target: &config::Target,
    login: &Login,
) -> Option<Request> {
    let (state, found) = (&facts.state, facts.fetched.as_ref()?);
    let is_it = state.applied.as_ref()?.id == found.id && state.source.as_ref() == Some(&found.identity);
    is_it.then(|| asks_whether_login_is_applied(state, credential, target, login)).flatten()
}

pub(super) fn asks_whether_login_is_applied(
    state: &State,
    credential: &config::Credential,
    target: &config::Target,
    login: &Login,
) -> Option<Request> {
    state.applied.as_ref().filter(|applied| applied.username != NOT_SHOWN)?;
    let (target, ours, login) = (target_id(credential, target), ours(Some(state)), login.clone());
    Some(Request::IsApplied { target, ours, login })
}

/// What the answer to that comes to.
pub(super) fn not_as_applied(state: &State, login: &Login, e: Fault) -> Failure {
    match e.class {
        Class::Changed => another_login(state, &login.username),
        _ => e.at(Timestamp::now()),
    }
}

/// The source gives the applied version with another login in it than this host has applied. AWS does not do that.
fn another_login(state: &State, username: &str) -> Failure {
    let (version, before) =
        state.applied.as_ref().map(|a| (a.id.version.as_str(), a.username.as_str())).unwrap_or_default();
    let holds = match shown_or_said(username, username == before) {
        same if same == before => format!("another password for {before}"),
        other => format!("the login of {other} instead of {before}"),
    };
    Fault::new(
        Class::Changed,
        format!(
            "the source gives version {version} with another content than this host has applied: {holds}. It is not \
             put in place, because nobody could tell the two apart by their version"
        ),
        format!(
            "find out who changed the source (AWS never changes a version: was it restored, or is something else behind \
             `endpoint_url`?), and store the credential that is to be used there as a new version: relaykey takes that, also \
             where it is {before} again. Where the mail server no longer has the login of {before}, put that back by hand until then"
        ),
    )
    .at(Timestamp::now())
}

/// The logins of the fetched payload for one target's endpoints. A ready-made one is for the default endpoint's region alone.
pub(super) fn logins_for(fetched: &Option<Fetched>, target: &config::Target) -> Result<Logins, Failure> {
    let payload = &fetched.as_ref().expect("verifying comes first, and fetches").payload;
    logins_of(payload, &target.smtp).map_err(|(smtp, e)| {
        Fault::new(Class::Payload, format!("what the source holds is no login for {}: {e}", smtp.endpoint), e.fix())
            .at(Timestamp::now())
    })
}

/// The logins of a payload for an endpoint and its further regions.
///
/// # Errors
/// For which endpoint there is none, and why.
pub fn logins_of<'s>(payload: &Payload, smtp: &'s config::Smtp) -> Result<Logins, (&'s config::Smtp, PayloadError)> {
    let login = |smtp: &'s config::Smtp| payload.login(&smtp.endpoint, smtp.region.as_deref()).map_err(|e| (smtp, e));
    let is_made = payload.form == PayloadForm::JsonIamKey;
    let further = smtp.also.iter().map(|also| if is_made { login(also).map(Some) } else { Ok(None) });
    Ok(Logins::new(login(smtp)?, further.collect::<Result<_, _>>()?))
}

/// The login for one target's default endpoint.
pub(super) fn login_for(fetched: &Option<Fetched>, target: &config::Target) -> Result<Login, Failure> {
    logins_for(fetched, target).map(|logins| logins.default_login().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::tz::TimeZone;

    use super::*;
    use crate::credential::{JsonKeys, Payload, SourceIdentity, VersionId, VersionOrder};
    use crate::rollover::{Applied, Completion, Policy, Wake};
    use crate::source::{Fetching, Looking, SeenVersion, Source};

    /// A source that says the same each time, and counts how often the credential itself was asked for.
    struct Fixed {
        seen: SeenVersion,
        holds: Fetched,
        fetches: Arc<AtomicUsize>,
    }

    impl Source for Fixed {
        fn look(&self) -> Looking<'_> {
            Box::pin(async { Ok(self.seen.clone()) })
        }

        fn fetch(&self) -> Fetching<'_> {
            self.fetches.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(self.holds.clone()) })
        }

        fn fetch_version<'a>(&'a self, _: &'a SourceIdentity, _: &'a VersionId) -> Fetching<'a> {
            self.fetch()
        }
    }

    const FIRST: &str = "arn:aws:ssm:eu-west-1:111122223333:parameter/ses";
    const OTHER: &str = "arn:aws:ssm:eu-west-1:111122223333:parameter/other";

    fn at(seconds: i64) -> Option<VersionOrder> {
        Some(VersionOrder { at: Timestamp::from_second(seconds).unwrap(), number: 1 })
    }

    fn source(arn: &str, version: &str, order: Option<VersionOrder>) -> (OpenedSource, Arc<AtomicUsize>) {
        let identity = SourceIdentity { arn: arn.into(), created: None };
        let fetches = Arc::new(AtomicUsize::new(0));
        let holds = Fetched {
            identity: identity.clone(),
            id: VersionId { version: version.into(), order },
            payload: Payload::parse(b"AKIAFETCHED:secret", &JsonKeys::default()).unwrap(),
        };
        let seen = SeenVersion { identity, id: holds.id.clone() };
        (Ok(Box::new(Fixed { seen, holds, fetches: fetches.clone() })), fetches)
    }

    /// Version 1 of the first parameter, of second 100, is applied.
    fn facts() -> Facts {
        let text = "config_version = 1\n[[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\npath = \"/x\"\n\
                    [credential.smtp]\nendpoint = \"localhost\"\n[[credential.target]]\ntype = \"postfix\"\n";
        let (config, _) = config::parse(text).unwrap();
        let mut state = State::new("ses");
        state.source = Some(SourceIdentity { arn: FIRST.into(), created: None });
        state.applied = Some(Applied {
            id: VersionId { version: "1".into(), order: at(100) },
            username: "AKIAAPPLIED".into(),
            previous_username: None,
            outcome: Completion::Confirmed,
            since: Timestamp::UNIX_EPOCH,
        });
        Facts::new(state, &Policy::new(&config.credentials[0], TimeZone::UTC), Wake::default(), false)
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    const ID: &str = "AKIAIOSFODNN7EXAMPLE";

    fn smtp() -> config::Smtp {
        let text = "config_version = 1\n[[credential]]\nname = \"ses\"\n[credential.source]\ntype = \"file\"\npath = \"/x\"\n\
                    [credential.smtp]\nendpoint = \"email-smtp.us-east-1.amazonaws.com\"\n\
                    [[credential.smtp.also]]\nendpoint = \"relay.internal\"\nregion = \"eu-west-1\"\n\
                    [[credential.smtp.also]]\nendpoint = \"email-smtp.us-east-2.amazonaws.com\"\n\
                    [[credential.target]]\ntype = \"postfix\"\n";
        config::parse(text).unwrap().0.credentials[0].targets[0].smtp.clone()
    }

    fn known(named: &EarlierVersions, smtp: &config::Smtp) -> Vec<(usize, bool)> {
        let ours = with_named(Ours::default(), named, smtp, &TriedEarlier::default());
        ours.named_logins.iter().map(|named| (named.endpoint, named.is_certain)).collect()
    }

    #[test]
    fn of_an_earlier_version_is_kept_what_is_known_and_said_what_is_not() {
        let iam =
            format!(r#"{{"accessKeyId": "{ID}", "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}}"#);
        let payload = |text: &str| Payload::parse(text.as_bytes(), &JsonKeys::default()).unwrap();
        let named = EarlierVersions { payloads: vec![payload(&iam)], ..EarlierVersions::default() };
        let mut smtp = smtp();
        let not_told_of = |named: &EarlierVersions, smtp: &config::Smtp| not_told(named, std::iter::once(smtp));
        assert_eq!(known(&named, &smtp), [(0, true), (1, true), (2, true)]);
        assert_eq!(not_told_of(&named, &smtp), Vec::<String>::new());
        smtp.also[0].region = None;
        assert_eq!(known(&named, &smtp), [(0, true), (2, true)]);
        let [said] = &not_told_of(&named, &smtp)[..] else { panic!("one") };
        assert!(said.contains(ID) && said.contains("relay.internal") && !said.contains("wJalr"), "{said}");
    }

    #[test]
    fn an_earlier_ready_made_password_is_certain_of_no_region() {
        let ready =
            |password: &str| Payload::parse(format!("{ID}:{password}").as_bytes(), &JsonKeys::default()).unwrap();
        let good = ready("BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS");
        let named = EarlierVersions { payloads: vec![good.clone()], current: Some(good), ..EarlierVersions::default() };
        // What this host takes itself is tried before anything is written.
        assert_eq!(known(&named, &smtp()), [(0, false), (0, true)]);
        assert_eq!(named.ids().collect::<Vec<_>>(), [ID, ID]);
        let withdrawn = EarlierVersions { payloads: vec![ready("not-derived")], ..EarlierVersions::default() };
        assert_eq!(known(&withdrawn, &smtp()), []);
        let said = not_told(&withdrawn, std::iter::once(&smtp()));
        assert!(said.len() == 1 && said[0].contains("us-east-1"), "{said:?}");
    }

    #[test]
    fn only_the_applied_version_of_the_same_source_is_not_fetched() {
        for (arn, version, order, fetched) in [
            (FIRST, "1", at(100), false),
            // As Secrets Manager tells it: without the age.
            (FIRST, "1", None, false),
            (FIRST, "2", at(200), true),
            // Deleted and made again: it counts from 1 again.
            (FIRST, "1", at(200), true),
            (OTHER, "1", at(100), true),
        ] {
            let (source, fetches) = source(arn, version, order);
            let kept = FetchedCredential::default();
            let found = now(look(&facts(), &source, &kept)).unwrap();
            let username = if fetched { "AKIAFETCHED" } else { "AKIAAPPLIED" };
            assert_eq!(
                (found.username.as_str(), kept.get().is_some()),
                (username, fetched),
                "{arn} {version} {order:?}"
            );
            assert_eq!(fetches.load(Ordering::Relaxed), usize::from(fetched), "{arn} {version} {order:?}");
        }
    }

    #[test]
    fn a_credential_that_is_needed_later_is_that_of_the_version_decided_upon() {
        for (arn, version, order, same) in [
            (FIRST, "1", at(100), true),
            (FIRST, "2", at(100), false),
            (FIRST, "1", at(200), false),
            (OTHER, "1", at(100), false),
        ] {
            let mut facts = facts();
            facts.fetched = Some(SourceVersion {
                identity: SourceIdentity { arn: FIRST.into(), created: None },
                id: VersionId { version: "1".into(), order: at(100) },
                username: "AKIAAPPLIED".into(),
                at: Timestamp::UNIX_EPOCH,
            });
            let (source, _) = source(arn, version, order);
            let kept = FetchedCredential::default();
            let result = now(have(&facts, &source, &kept));
            assert_eq!((result.is_ok(), kept.get().is_some()), (same, same), "{arn} {version} {order:?}");
            if let Err(failure) = result {
                assert!(failure.temporary && failure.class == Class::Changed, "{failure:?}");
            }
        }
    }
}
