//! Reports with the real SDK against a local AWS API server: what is owed arrives, in order, once the place takes it,
//! through outages, refusals and crashes.
//!
//! The SDK takes its keys from the environment, so every test runs in a process of its own: this program again, with
//! the name of the test. The state is a real state directory, and a crash here is what memory held and the disk did
//! not.

use crate::lab::isolated;
use crate::lab::moto;
use crate::lab::sample;
use crate::lab::scratch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use isolated::KEY;
use jiff::{SignedDuration, Timestamp};
use moto::{Moto, REGION};
use relaykey::aws::{Http, Limits};
use relaykey::config::{self, Aws, ReceiverKind};
use relaykey::fault::Fault;
use relaykey::report::{self, Attempt, Deliveries, Receivers};
use relaykey::rollover::{Outbox, Report, State};
use relaykey::state::{Access, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest a single round of attempts may take here.
const ROUND: Duration = Duration::from_secs(20);
const NAME: &str = "/relaykey/ses/mx1.example.com";
/// What the test's clock says first.
const START: i64 = 1_800_000_000;

/// Runs a test in a process with AWS keys in its environment and nothing else.
fn isolated(name: &str, test: impl FnOnce(&mut Lab)) {
    isolated::isolated(&format!("report::{name}"), || test(&mut Lab::new()));
}

/// One host with its state, one receiver, one place.
struct Lab {
    moto: Moto,
    dir: TempDir,
    configured: Vec<config::ReceiverConfig>,
    receivers: Arc<Receivers>,
    run_time: tokio::runtime::Runtime,
    store: Option<Store>,
    /// What the process has in memory.
    state: State,
    /// The test's clock, in seconds.
    now: i64,
}

impl Lab {
    fn new() -> Self {
        let moto = Moto::start();
        let aws = Aws { region: Some(REGION.into()), endpoint_url: Some(moto.endpoint()), ..Aws::default() };
        let kind = ReceiverKind::ParameterStore { path: "/relaykey".into(), aws };
        let configured = vec![config::ReceiverConfig { name: "fleet".into(), kind, credentials: None, spread: None }];
        let dir = scratch::private("report");
        let mut lab = Self {
            receivers: Arc::new(Receivers::open(&configured, &http(&moto, Limits::default()))),
            moto,
            configured,
            run_time: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a run time"),
            store: None,
            state: State::new("ses"),
            now: START,
            dir,
        };
        lab.start();
        lab
    }

    /// Forgets what memory holds, and reads what the disk does.
    fn start(&mut self) {
        self.store = None;
        let store = Store::open(&self.dir.path().join("state"), Access::Write, ROUND).expect("a state directory");
        self.state = store.load("ses").expect("readable").unwrap_or_else(|| State::new("ses"));
        self.store = Some(store);
    }

    fn save(&mut self) {
        self.store.as_mut().expect("started").save(&self.state).expect("saved");
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("a time")
    }

    /// A rollover's commit: what was done and what is owed in one rename.
    fn commit(&mut self) -> u64 {
        let (report, now) = (sample(self.state.seq + 1), self.time());
        self.state.seq = report.seq;
        report::owe(&mut self.state.outbox, &self.configured, &report, now, 0.0);
        self.state.report = Some(report);
        self.save();
        self.state.seq
    }

    /// One round of attempts, taken in and not saved.
    fn round(&mut self) -> Vec<Attempt> {
        let (now, receivers) = (self.time(), Arc::clone(&self.receivers));
        let round = report::deliver_due(&mut self.state.outbox, &receivers, now, 0.5);
        self.run_time.block_on(async { tokio::time::timeout(ROUND, round).await.expect("a round ends in time") })
    }

    /// One round that has to come to one failure.
    #[track_caller]
    fn refused(&mut self, class: &str, temporary: bool) -> Fault {
        let mut attempts = self.round();
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        let e = attempts.remove(0).outcome.expect_err("not delivered");
        assert_eq!((e.class.word(), e.temporary), (class, temporary), "{e:?}");
        assert_eq!(self.outbox().owed.len(), 1);
        self.save();
        e
    }

    /// One round that has to deliver.
    #[track_caller]
    fn arrives(&mut self) {
        let attempts = self.round();
        assert!(matches!(attempts.as_slice(), [Attempt { outcome: Ok(()), .. }]), "{attempts:?}");
        assert_eq!(self.outbox().due(), None);
        self.save();
    }

    fn outbox(&self) -> &Outbox {
        &self.state.outbox["fleet"]
    }

    /// What is owed is due by then.
    fn time_passes(&mut self) {
        self.now += SignedDuration::from_hours(7).as_secs();
    }

    fn fault(&self, action: &str, fault: Value) {
        self.moto.fault(KEY, action, fault);
    }

    /// The numbers of all reports that the place has held, the latest last.
    fn held(&self) -> Vec<u64> {
        let versions = self.moto.call("AmazonSSM.GetParameterHistory", json!({"Name": NAME, "MaxResults": 50}));
        let versions = versions["Parameters"].as_array().expect("versions");
        let seq =
            |v: &Value| serde_json::from_str::<Report>(v["Value"].as_str().expect("a value")).expect("a report").seq;
        versions.iter().map(seq).collect()
    }

    /// Writes a report past this host's agent.
    fn put_by_another(&self, report: &Report) {
        let value = serde_json::to_string(report).expect("JSON");
        let input = json!({"Name": NAME, "Value": value, "Type": "String", "Overwrite": true});
        self.moto.call("AmazonSSM.PutParameter", input);
    }

    fn calls(&self, action: &str) -> usize {
        self.moto.calls(KEY).iter().filter(|call| call["action"] == action).count()
    }
}

fn http(moto: &Moto, limits: Limits) -> Http {
    Http::new(moto.ca_pem().as_bytes()).with_limits(limits)
}

fn sample(seq: u64) -> Report {
    sample::report("5f0c2d9a7b6e4c3f8a1d0e9b2c7f6a54", seq)
}

fn throttled() -> Value {
    json!({"kind": "error", "status": 400, "code": "ThrottlingException", "message": "Rate exceeded", "count": 0})
}

#[test]
fn a_report_arrives_whole_at_path_credential_host() {
    isolated("a_report_arrives_whole_at_path_credential_host", |lab| {
        let seq = lab.commit();
        lab.arrives();
        let stored = lab.moto.call("AmazonSSM.GetParameter", json!({"Name": NAME}));
        assert_eq!(stored["Parameter"]["Type"], "String");
        let text = stored["Parameter"]["Value"].as_str().expect("a value");
        assert_eq!(serde_json::from_str::<Report>(text).expect("a report"), sample(seq));
        assert!(!text.contains("{{"), "{text}");
        let described = lab.moto.call(
            "AmazonSSM.DescribeParameters",
            json!({"ParameterFilters": [{"Key": "Name", "Option": "Equals", "Values": [NAME]}]}),
        );
        assert_eq!(described["Parameters"][0]["Tier"], "Standard");
        // Delivered is delivered, after a start too.
        lab.start();
        assert_eq!((lab.outbox().due(), lab.outbox().delivered), (None, seq));
        assert!(lab.round().is_empty());
    });
}

#[test]
fn reports_arrive_in_order() {
    isolated("reports_arrive_in_order", |lab| {
        for _ in 0..4 {
            lab.commit();
            lab.arrives();
        }
        assert_eq!(lab.held(), [1, 2, 3, 4]);
    });
}

#[test]
fn of_two_hundred_rollovers_with_the_place_down_exactly_the_latest_arrives() {
    isolated("of_two_hundred_rollovers_with_the_place_down_exactly_the_latest_arrives", |lab| {
        lab.commit();
        lab.arrives();
        let down = json!({"kind": "error", "status": 503, "code": "ServiceUnavailable", "count": 0});
        lab.fault("PutParameter", down);
        for n in 0..200 {
            lab.commit();
            // The SDK tries three times at a call: now and then is enough.
            if n % 100 == 99 {
                let e = lab.refused("service", true);
                assert!(e.what.contains("ssm:PutParameter") && e.what.contains(NAME), "{e}");
            }
        }
        assert_eq!((lab.outbox().owed.len(), lab.outbox().owed[0].seq), (1, 201));
        assert_eq!(lab.outbox().retry.attempts, 2);
        assert_eq!(lab.held(), [1]);
        lab.start();
        up_again(lab);
        assert_eq!((lab.held(), lab.outbox().delivered), (vec![1, 201], 201));
    });
}

/// Later, with the faults over: what is owed arrives.
#[track_caller]
fn up_again(lab: &mut Lab) {
    lab.moto.heal(KEY);
    lab.time_passes();
    lab.arrives();
}

#[test]
fn throttling_passes_and_says_what_to_do_if_it_does_not() {
    isolated("throttling_passes_and_says_what_to_do_if_it_does_not", |lab| {
        lab.commit();
        lab.fault("PutParameter", throttled());
        let e = lab.refused("throttled", true);
        assert!(e.fix.contains("higher"), "{e:?}");
        let wait = lab.outbox().due().expect("owed").duration_since(lab.time());
        assert!(wait > SignedDuration::ZERO && wait <= SignedDuration::from_secs(10), "{wait}");
        assert!(lab.round().is_empty(), "not before its time");
        up_again(lab);
        assert_eq!(lab.held(), [1]);
    });
}

#[test]
fn denied_access_names_action_and_resource_and_waits_long() {
    isolated("denied_access_names_action_and_resource_and_waits_long", |lab| {
        lab.commit();
        let denied = json!({"kind": "error", "status": 400, "code": "AccessDeniedException", "count": 0,
            "message": "User: arn:aws:iam::123456789012:role/mx is not authorized because no identity-based policy allows it"});
        for action in ["PutParameter", "GetParameter"] {
            lab.fault(action, denied.clone());
            let e = lab.refused("access-denied", false);
            let resource = format!("arn:aws:ssm:{REGION}:*:parameter{NAME}");
            assert!(e.fix.contains(&format!("ssm:{action}")) && e.fix.contains(&resource), "{e:?}");
            assert!(e.fix.contains("role/mx"), "{e:?}");
            let wait = lab.outbox().due().expect("owed").duration_since(lab.time());
            assert!(wait >= SignedDuration::from_secs(90), "{wait}");
            lab.time_passes();
        }
        up_again(lab);
    });
}

#[test]
fn after_a_crash_between_arrival_and_save_the_report_comes_again_and_does_no_harm() {
    isolated("after_a_crash_between_arrival_and_save_the_report_comes_again_and_does_no_harm", |lab| {
        lab.commit();
        assert!(lab.round()[0].outcome.is_ok());
        lab.start();
        assert_eq!(lab.outbox().owed.len(), 1, "the disk does not know of it");
        lab.arrives();
        // It was there: looked at, and not written again.
        assert_eq!((lab.held(), lab.calls("PutParameter")), (vec![1], 1));
        lab.commit();
        lab.arrives();
        assert_eq!(lab.held(), [1, 2]);
    });
}

#[test]
fn an_answer_that_was_lost_ends_in_one_report() {
    isolated("an_answer_that_was_lost_ends_in_one_report", |lab| {
        lab.commit();
        // Written, and the answer breaks off: the SDK tries again, and finds the parameter made.
        lab.fault("PutParameter", json!({"kind": "truncate"}));
        lab.refused("service", true);
        up_again(lab);
        assert_eq!(lab.held(), [1]);
    });
}

#[test]
fn a_later_report_of_this_installation_is_never_replaced() {
    isolated("a_later_report_of_this_installation_is_never_replaced", |lab| {
        lab.put_by_another(&sample(50));
        lab.commit();
        let e = lab.refused("newer-there", false);
        assert!(e.what.contains("number 50 there, 1 here") && e.fix.contains("delete-parameter"), "{e:?}");
        assert_eq!(lab.held(), [50]);
        // Another installation under the same name is the one that was here before this.
        lab.put_by_another(&Report { host_id: "another".into(), ..sample(60) });
        up_again(lab);
        assert_eq!(lab.held(), [50, 60, 1]);
    });
}

#[test]
fn what_is_no_report_is_left_as_it_is() {
    isolated("what_is_no_report_is_left_as_it_is", |lab| {
        let credential = "AKIAIOSFODNN7EXAMPLE:BMPPgbAHoFVbze1Ud0oA5uNdXRwUXUZ+qOwphGJbl/cS";
        lab.moto.parameter(NAME, credential);
        lab.commit();
        let e = lab.refused("occupied", false);
        assert!(!format!("{e:?}").contains("BMPP"), "{e:?}");
        assert_eq!(lab.calls("PutParameter"), 0);
        let stored = lab.moto.call("AmazonSSM.GetParameter", json!({"Name": NAME, "WithDecryption": true}));
        assert_eq!(stored["Parameter"]["Value"], credential);
    });
}

#[test]
fn a_place_that_never_answers_is_given_up_and_holds_nothing_up() {
    isolated("a_place_that_never_answers_is_given_up_and_holds_nothing_up", |lab| {
        lab.fault("GetParameter", json!({"kind": "hang", "seconds": 15, "count": 0}));
        let patient = Limits { attempt: ROUND, operation: ROUND, ..Limits::default() };
        let receivers = Receivers::open(&lab.configured, &http(&lab.moto, patient));
        lab.receivers = Arc::new(receivers.with_limit(Duration::from_secs(4)));
        lab.commit();
        let began = Instant::now();
        let (outboxes, receivers, now) = (lab.state.outbox.clone(), Arc::clone(&lab.receivers), lab.time());
        let attempt = lab.run_time.block_on(async {
            let mut deliveries = Deliveries::new(receivers);
            deliveries.begin(&outboxes, now);
            assert!(began.elapsed() < Duration::from_millis(500), "beginning an attempt waits for nothing");
            // Other work goes on meanwhile, and gives up the wait for the attempt without losing it.
            for _ in 0..3 {
                tokio::select! {
                    biased;
                    _ = deliveries.next() => panic!("there was no answer"),
                    () = tokio::task::yield_now() => {}
                }
            }
            tokio::time::timeout(ROUND, deliveries.next()).await.expect("given up in time")
        });
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(report::absorb(&mut lab.state.outbox, &attempt, now, 0.5));
        let failure = lab.outbox().retry.failure.as_ref().expect("why");
        assert_eq!((failure.class.word(), failure.temporary), ("timeout", true));
        assert!(failure.what.contains("Parameter Store /relaykey"), "{}", failure.what);
        lab.save();
        up_again(lab);
    });
}

#[test]
fn a_receiver_that_is_new_learns_of_this_host_and_one_that_is_gone_is_owed_nothing() {
    isolated("a_receiver_that_is_new_learns_of_this_host_and_one_that_is_gone_is_owed_nothing", |lab| {
        let configured = std::mem::take(&mut lab.configured);
        lab.commit();
        assert!(lab.state.outbox.is_empty(), "without a receiver nothing is owed");
        lab.configured = configured;
        let (now, latest) = (lab.time(), lab.state.report.clone());
        let reconcile = |lab: &mut Lab, receivers: &[config::ReceiverConfig]| {
            let dropped = report::reconcile(&mut lab.state.outbox, receivers, "ses", latest.as_ref(), now, 0.0);
            lab.save();
            dropped
        };
        let configured = lab.configured.clone();
        assert!(reconcile(lab, &configured).is_empty());
        lab.start();
        lab.arrives();
        assert_eq!(lab.held(), [1]);
        lab.commit();
        let dropped = reconcile(lab, &[]);
        assert_eq!(dropped.iter().map(|d| (d.receiver.as_str(), d.owed)).collect::<Vec<_>>(), [("fleet", 1)]);
        lab.start();
        assert!(lab.state.outbox.is_empty());
    });
}
