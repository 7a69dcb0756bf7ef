//! Against the demo's AWS, in this process.

use std::sync::Arc;

use relaykey::standin::{Options, Standin};

use super::*;
use crate::demo::aws::AwsStandin;
use crate::demo::{SECRET, USER, configuration};
use crate::facts::{KeyStatus, VersionId};
use crate::plan::WhyGone;
use crate::record::{Deactivated, Intention, Published};

/// The one key is Inactive by us, and its clocks are over.
async fn deactivated(aws: &AwsStandin, ses: &Standin) -> (Controller, Kept, KeyId) {
    let config = configuration(aws, ses, std::path::Path::new("/nonexistent")).unwrap();
    let hooks = Hooks { http: Some(Http::new(ses.ca_pem().as_bytes())), ..Hooks::default() };
    let mut controller = Controller::with_hooks(&config, &config.credentials[0], hooks).await.unwrap();
    let key = KeyId::new(aws.keys()[0].0.clone());
    controller.keys.set(&key, KeyStatus::Inactive).await.map_err(|failed| failed.fault).unwrap();
    let mut kept = controller.take(false).await.unwrap().unwrap();
    let now = controller.hooks.now();
    let record = ControlRecord {
        old: Some(key.clone()),
        published: Some(Published { version: VersionId::new("v2"), key: KeyId::new("NEW"), at: now }),
        deactivated: vec![Deactivated { key: key.clone(), at: now }],
        complete_at: Some(now),
        intention: Some(Intention { key: key.clone(), at: now, logged_in: true }),
        ..kept.record.clone()
    };
    controller.write(&mut kept, record, None, None).await.map_err(|failed| failed.fault).unwrap();
    (controller, kept, key)
}

/// Credentials come from the environment, which a program cannot change of itself: the test is started once more.
fn run(name: &str, test: impl AsyncFnOnce(AwsStandin, Arc<Standin>)) {
    const STARTED: &str = "ROTATE_TEST_STARTED";
    if std::env::var_os(STARTED).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", &format!("run::tests::{name}"), "--nocapture"]).env_clear();
        again.envs([(STARTED, "1"), ("AWS_ACCESS_KEY_ID", "AKIADEMO999999999999")]);
        again.envs([("AWS_SECRET_ACCESS_KEY", "demo"), ("HOME", "/nonexistent")]);
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let whole = output.status.success() && said.contains("1 passed");
        assert!(whole, "{said}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ses = Arc::new(Standin::start(Options::default()).unwrap());
    let aws = AwsStandin::start(USER, SECRET, Arc::clone(&ses)).unwrap();
    runtime.block_on(test(aws, ses));
}

#[test]
fn what_a_person_brings_back_has_all_its_time_again() {
    run("what_a_person_brings_back_has_all_its_time_again", async |aws, ses| {
        let (mut controller, _, key) = deactivated(&aws, &ses).await;
        assert_eq!(controller.ask(Ask::Reactivate { key: key.clone() }).await.unwrap(), Answer::Done);
        assert_eq!(aws.keys(), [(key.as_str().to_owned(), true)]);
        let record = controller.place.record().await.map_err(|failed| failed.fault).unwrap().unwrap().record;
        assert_eq!((record.complete_at, record.intention, record.deactivated), (None, None, Vec::new()));
    });
}

#[test]
fn a_key_is_brought_back_without_a_look_at_the_store_and_nothing_else_is_done_so() {
    run("a_key_is_brought_back_without_a_look_at_the_store_and_nothing_else_is_done_so", async |aws, ses| {
        let (mut controller, mut kept, key) = deactivated(&aws, &ses).await;
        let mut done = Vec::new();
        let back = Action::Reactivate { key: key.clone(), host: None };
        let gone = Action::Deactivate { key: key.clone(), why: WhyGone::Leftover };
        for action in [&back, &gone] {
            let decided = (controller.hooks.now(), controller.hooks.boot());
            let (mut look, _) = controller.looked(kept.record.clone(), decided.0, false).await;
            assert!(
                controller.act(&mut kept, action, &mut look, None, decided, &mut done).await.is_ok_and(|wrote| wrote)
            );
        }
        assert_eq!(done, [(back, Outcome::Done), (gone, Outcome::Failed)]);
        assert_eq!(aws.keys(), [(key.as_str().to_owned(), true)]);
        assert!(kept.record.deactivated_by_us(&key).is_none());
    });
}
