//! Against the demo's AWS.

use super::*;
use crate::demo::lab::Lab;
use crate::facts::{KeyStatus, VersionId};
use crate::plan::WhyGone;
use crate::record::{Deactivated, Intention, Published};

/// The one key is Inactive by us, and its clocks are over.
async fn deactivated(lab: &Lab) -> (Controller, Kept, KeyId) {
    let mut controller = lab.controller().await;
    let key = KeyId::new(lab.aws.keys()[0].0.clone());
    let until = crate::aws::Until::new(&controller.hooks, Duration::MAX);
    controller.keys.set(&key, KeyStatus::Inactive, &until).await.map_err(|failed| failed.fault).unwrap();
    let mut kept = controller.take(false).await.unwrap().unwrap();
    let now = controller.hooks.now();
    let record = ControlRecord {
        old: Some(key.clone()),
        published: Some(Published { version: VersionId::new("v2"), key: KeyId::new("NEW"), at: now }),
        deactivated: vec![Deactivated { key: key.clone(), at: now, unanswered: false }],
        complete_at: Some(now),
        intention: Some(Intention { key: key.clone(), at: now, logged_in: true }),
        ..kept.record.clone()
    };
    controller.write(&mut kept, record, None, None).await.map_err(|failed| failed.fault).unwrap();
    (controller, kept, key)
}

#[tokio::test]
async fn what_a_person_brings_back_has_all_its_time_again() {
    let Some(lab) = Lab::of("run::tests::what_a_person_brings_back_has_all_its_time_again") else { return };
    let (mut controller, _, key) = deactivated(&lab).await;
    assert_eq!(controller.ask(Ask::Reactivate { key: key.clone() }).await.unwrap(), Answer::Done);
    assert_eq!(lab.aws.keys(), [(key.as_str().to_owned(), true)]);
    let record = controller.place.record().await.map_err(|failed| failed.fault).unwrap().unwrap().record;
    assert_eq!((record.complete_at, record.intention, record.deactivated), (None, None, Vec::new()));
}

#[tokio::test]
async fn a_key_is_brought_back_without_a_look_at_the_store_and_nothing_else_is_done_so() {
    let name = "run::tests::a_key_is_brought_back_without_a_look_at_the_store_and_nothing_else_is_done_so";
    let Some(lab) = Lab::of(name) else { return };
    let (mut controller, mut kept, key) = deactivated(&lab).await;
    let mut done = Vec::new();
    let back = Action::Reactivate { key: key.clone(), host: None };
    let gone = Action::Deactivate { key: key.clone(), why: WhyGone::Leftover };
    for action in [&back, &gone] {
        let decided = (controller.hooks.now(), controller.hooks.boot());
        let (mut look, _) = controller.looked(kept.record.clone(), decided.0, None).await;
        assert!(controller.act(&mut kept, action, &mut look, None, decided, &mut done).await.is_ok_and(|wrote| wrote));
    }
    assert_eq!(done, [(back, Outcome::Done), (gone, Outcome::Failed)]);
    assert_eq!(lab.aws.keys(), [(key.as_str().to_owned(), true)]);
    assert!(kept.record.deactivated_by_us(&key).is_none());
}

#[tokio::test]
async fn a_check_logs_in_and_asks_for_rights_and_changes_nothing() {
    let name = "run::tests::a_check_logs_in_and_asks_for_rights_and_changes_nothing";
    let Some(lab) = Lab::of(name) else { return };
    let before = lab.aws.keys();
    let denied = |checked: &Checked| {
        let rights = checked.rights.iter().filter(|right| right.fault.is_some());
        rights.map(|right| right.action).collect::<Vec<_>>()
    };
    let mut controller = lab.controller().await;
    let checked = controller.check().await.expect("a check");
    let login = checked.login.as_ref().expect("a login was tried");
    assert_eq!(login.key.as_str(), before[0].0);
    assert!(login.replies.iter().all(|(reply, _)| *reply == crate::facts::LoginReply::Accepted), "{:?}", login.replies);
    let asked: Vec<_> = checked.rights.iter().map(|right| right.action).collect();
    let all =
        ["iam:UpdateAccessKey", "iam:DeleteAccessKey", "secretsmanager:UpdateSecretVersionStage", "dynamodb:PutItem"];
    assert_eq!((asked, denied(&checked)), (all.to_vec(), Vec::new()));
    lab.aws.denies(&["DeleteAccessKey"]);
    assert_eq!(denied(&controller.check().await.expect("a check")), ["iam:DeleteAccessKey"]);
    assert_eq!(lab.aws.keys(), before);
    assert!(controller.place.record().await.map_err(|failed| failed.fault).unwrap().is_none(), "nothing was written");
}

/// Somebody put the same login once more in the first parameter: a host that reads the second one has it all the same.
#[test]
fn a_host_of_another_parameter_counts_by_what_that_gives_now() {
    use crate::facts::{CURRENT, Further, Host, HostName, Proved, Standing, Store, StoreKind, Value, Version};
    let at = Timestamp::UNIX_EPOCH;
    let key = KeyId::new("NEW");
    let version = |id: &str, labels: &[&str]| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Version { id: VersionId::new(id), created: at, labels, value: Value::Login(key.clone()) }
    };
    let store = |versions| Store { kind: StoreKind::ParameterStore, versions };
    let standing = Standing { version: VersionId::new("2"), key: key.clone(), at, proof: Proved::True };
    let mut facts = Facts {
        user: crate::facts::IamUser::default(),
        me: String::new(),
        keys: Vec::new(),
        store: store(vec![version("2", &[]), version("3", &[CURRENT])]),
        place: crate::facts::KeyPlace::secret("a"),
        further: vec![Further {
            place: KeyPlace::secret("b"),
            store: store(vec![version("2", &[CURRENT])]),
            needs_key: false,
        }],
        behind: Vec::new(),
        outdated: Vec::new(),
        fleet: vec![Host { standing: Some(standing), ..Host::never_heard(HostName::new("mx1")) }],
        gone: Vec::new(),
        record: ControlRecord::new("ses"),
        logins: Vec::new(),
        unstored: None,
        gaps: Vec::new(),
    };
    let version_of = |facts: &Facts| facts.fleet[0].standing.as_ref().map(|standing| standing.version.clone());
    let mut elsewhere = facts.clone();
    look::as_the_first_place_has_it(&mut facts);
    assert_eq!(version_of(&facts), Some(VersionId::new("3")));
    // Where no place gives that version any more, the host has an earlier one.
    elsewhere.further[0].store.versions = vec![version("2", &[]), version("4", &[CURRENT])];
    look::as_the_first_place_has_it(&mut elsewhere);
    assert_eq!(version_of(&elsewhere), Some(VersionId::new("2")));
}
