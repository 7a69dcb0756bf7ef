use std::collections::BTreeSet;

use super::*;
use crate::config::Aws;
use crate::fault::{Class, Fault};

/// A report with this number and nothing else of note.
pub(crate) fn report(seq: u64) -> Report {
    Report { schema: "relaykey/report/v1".into(), at: "2026-01-01T00:00:00Z".into(), ..rollover::tests::report(seq) }
}

fn receiver(name: &str) -> config::ReceiverConfig {
    let kind = ReceiverKind::ParameterStore { path: "/relaykey".into(), aws: Aws::default() };
    config::ReceiverConfig { name: name.into(), kind, credentials: None, spread: None }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn down(temporary: bool) -> Fault {
    Fault::new(Class::Network, "no answer", "wait").temporary_if(temporary)
}

fn attempt(receiver: &str, seq: u64, outcome: Result<(), Fault>) -> Attempt {
    Attempt { receiver: receiver.into(), seq, outcome, took: Duration::ZERO }
}

fn seqs(outbox: &Outbox) -> Vec<u64> {
    outbox.owed.iter().map(|r| r.seq).collect()
}

#[test]
fn a_place_of_one_document_is_owed_the_latest_and_another_all() {
    for (keeps, left) in [(Keeps::Latest, vec![3]), (Keeps::Every, vec![1, 2, 3])] {
        let mut outbox = Outbox::default();
        for seq in [1, 2, 3, 3, 2] {
            outbox.owe(&report(seq), keeps, at(0));
        }
        assert_eq!(seqs(&outbox), left);
        for seq in left {
            assert_eq!(outbox.next(at(0)).map(|r| r.seq), Some(seq));
            outbox.delivered(seq);
        }
        assert_eq!((outbox.due(), outbox.delivered), (None, 3));
    }
}

#[test]
fn owing_goes_to_every_receiver_that_takes_the_credential() {
    let mut other = receiver("other");
    other.credentials = Some(vec!["another".into()]);
    let receivers = [receiver("fleet"), other, receiver("audit")];
    let mut outboxes = BTreeMap::new();
    owe(&mut outboxes, &receivers, &report(1), at(0), 0.0);
    assert_eq!(outboxes.keys().collect::<Vec<_>>(), ["audit", "fleet"]);
    assert!(outboxes.values().all(|o| o.next(at(0)) == Some(&report(1))));
    let mut none = BTreeMap::new();
    owe(&mut none, &[], &report(1), at(0), 0.0);
    assert!(none.is_empty());
}

/// That a host is there is said to places that say which hosts there are, at once; a new place of another kind is not told.
#[test]
fn a_host_says_that_it_is_there_where_hosts_are_counted() {
    let hello = Report { outcome: ReportOutcome::Hello, ..report(1) };
    let command = ReceiverKind::Exec { command: Vec::new(), user: "nobody".into(), timeout: ATTEMPT };
    let ticket = config::ReceiverConfig { name: "ticket".into(), kind: command, credentials: None, spread: None };
    let both = [receiver("fleet"), ticket.clone()];
    let mut outboxes = BTreeMap::new();
    owe(&mut outboxes, &both, &hello, at(0), 0.9);
    assert_eq!(outboxes.keys().collect::<Vec<_>>(), ["fleet"]);
    assert_eq!(outboxes["fleet"].due(), Some(at(0)), "before anything else");
    let mut outboxes = BTreeMap::new();
    reconcile(&mut outboxes, &both, "ses", Some(&hello), at(0), 0.0);
    assert_eq!((seqs(&outboxes["fleet"]), seqs(&outboxes["ticket"])), (vec![1], vec![]));
    let counted = |receivers: &[config::ReceiverConfig]| keeps_a_roster(receivers, "ses");
    let other = config::ReceiverConfig { credentials: Some(vec!["another".into()]), ..receiver("other") };
    assert_eq!([counted(&both), counted(&[ticket]), counted(&[other])], [true, false, false]);
}

#[test]
fn first_attempts_of_a_fleet_are_spread() {
    let mut due = BTreeSet::new();
    for host in 0..90 {
        let mut outboxes = BTreeMap::new();
        owe(&mut outboxes, &[receiver("fleet")], &report(1), at(0), f64::from(host) / 90.0);
        due.insert(outboxes["fleet"].due().unwrap());
    }
    let span = due.last().unwrap().duration_since(*due.first().unwrap());
    assert!(due.len() == 90 && span > SignedDuration::from_secs(29), "{span}");
    // A fleet that is larger takes longer, and says so.
    let large = config::ReceiverConfig { spread: Some(Duration::from_secs(120)), ..receiver("fleet") };
    let mut outboxes = BTreeMap::new();
    owe(&mut outboxes, &[large], &report(1), at(0), 0.5);
    assert_eq!(outboxes["fleet"].due(), Some(at(60)));
    // What a receiver that is down has been granted is kept; a new report is not held up by it.
    let mut outbox = Outbox::default();
    outbox.owe(&report(1), Keeps::Latest, at(0));
    outbox.failed(1, down(false).at(at(0)), at(0), 1.0);
    assert_eq!(outbox.due(), Some(at(900)));
    outbox.owe(&report(2), Keeps::Latest, at(40));
    assert_eq!((outbox.due(), outbox.retry.attempts), (Some(at(40)), 1));
    outbox.owe(&report(3), Keeps::Latest, at(50));
    assert_eq!(outbox.due(), Some(at(40)));
}

#[test]
fn failures_back_off_and_an_arrival_ends_that() {
    for (temporary, first, most) in [(true, 10, 900), (false, 900, 21_600)] {
        let mut outboxes = BTreeMap::new();
        owe(&mut outboxes, &[receiver("fleet")], &report(1), at(0), 0.0);
        let mut waits = Vec::new();
        let mut now = at(0);
        for _ in 0..12 {
            assert!(outboxes["fleet"].next(now).is_some());
            assert!(absorb(&mut outboxes, &attempt("fleet", 1, Err(down(temporary))), now, 1.0));
            assert!(outboxes["fleet"].next(now).is_none(), "not at once again");
            let due = outboxes["fleet"].due().unwrap();
            waits.push(due.duration_since(now).as_secs());
            now = due;
        }
        assert_eq!((waits[0], waits[1], waits[11]), (first, first * 2, most));
        let failure = outboxes["fleet"].retry.failure.as_ref().unwrap();
        assert_eq!((failure.class.word(), failure.temporary), ("network", temporary));
        assert!(absorb(&mut outboxes, &attempt("fleet", 1, Ok(())), now, 1.0));
        assert_eq!(outboxes["fleet"], Outbox { delivered: 1, ..Outbox::default() });
    }
}

#[test]
fn late_answers_change_nothing_that_is_owed() {
    let mut outboxes = BTreeMap::new();
    owe(&mut outboxes, &[receiver("fleet")], &report(1), at(0), 0.0);
    owe(&mut outboxes, &[receiver("fleet")], &report(2), at(0), 0.0);
    let before = outboxes.clone();
    assert!(!absorb(&mut outboxes, &attempt("fleet", 1, Err(down(true))), at(1), 1.0));
    assert!(!absorb(&mut outboxes, &attempt("gone", 2, Ok(())), at(1), 1.0));
    assert!(!absorb(&mut outboxes, &attempt("fleet", 9, Ok(())), at(1), 1.0), "was never sent");
    assert_eq!(outboxes, before);
    // That the first arrived is known now; the second stays owed as it was.
    assert!(absorb(&mut outboxes, &attempt("fleet", 1, Ok(())), at(1), 1.0));
    assert_eq!((seqs(&outboxes["fleet"]), outboxes["fleet"].delivered), (vec![2], 1));
    assert_eq!(outboxes["fleet"].retry, before["fleet"].retry);
}

#[test]
fn the_outboxes_follow_the_configuration() {
    let mut outboxes = BTreeMap::new();
    let both = [receiver("old"), receiver("stays")];
    for seq in [1, 2] {
        owe(&mut outboxes, &both, &report(seq), at(0), 0.0);
    }
    absorb(&mut outboxes, &attempt("stays", 2, Ok(())), at(0), 0.0);
    let mut elsewhere = receiver("elsewhere");
    elsewhere.credentials = Some(vec!["another".into()]);
    let now = [receiver("stays"), receiver("new"), elsewhere];
    let latest = report(2);
    let dropped = reconcile(&mut outboxes, &now, "ses", Some(&latest), at(10), 0.0);
    assert_eq!(dropped, [Dropped { receiver: "old".into(), owed: 1 }]);
    assert!(dropped[0].to_string().contains("\"old\" is no longer configured"), "{}", dropped[0]);
    assert_eq!(outboxes.keys().collect::<Vec<_>>(), ["new", "stays"]);
    assert_eq!((outboxes["new"].next(at(10)), outboxes["stays"].due()), (Some(&latest), None));
    // Again, and with nothing reported yet: no change.
    let before = outboxes.clone();
    assert!(reconcile(&mut outboxes, &now, "ses", Some(&latest), at(20), 0.5).is_empty());
    assert_eq!(outboxes, before);
    let mut fresh = BTreeMap::new();
    assert!(reconcile(&mut fresh, &both, "ses", None, at(0), 0.0).is_empty());
    assert!(fresh.values().all(|o| *o == Outbox::default()) && fresh.len() == 2);
    // The last receiver gone: nothing is owed.
    assert_eq!(reconcile(&mut outboxes, &[], "ses", Some(&latest), at(30), 0.0).len(), 2);
    assert!(outboxes.is_empty());
}

#[test]
fn who_asks_does_not_wait() {
    let mut outboxes = BTreeMap::new();
    owe(&mut outboxes, &[receiver("fleet")], &report(1), at(0), 0.0);
    absorb(&mut outboxes, &attempt("fleet", 1, Err(down(false))), at(0), 1.0);
    assert!(outboxes["fleet"].next(at(1)).is_none());
    hasten(&mut outboxes);
    assert_eq!((outboxes["fleet"].next(at(1)), outboxes["fleet"].retry.attempts), (Some(&report(1)), 1));
}

#[test]
fn a_state_with_ten_thousand_reports_owed_is_in_order_and_complete() {
    let mut outbox = Outbox::default();
    for seq in 1..=10_000 {
        outbox.owe(&report(seq), Keeps::Every, at(0));
    }
    let text = serde_json::to_string(&outbox).unwrap();
    let mut read: Outbox = serde_json::from_str(&text).unwrap();
    for seq in 1..=10_000 {
        assert_eq!(read.next(at(0)).map(|r| r.seq), Some(seq));
        read.delivered(seq);
    }
    assert_eq!(read.due(), None);
}

// ---------------------------------------------------------------- the model

/// What can happen, in any order.
#[derive(Debug, Clone, Copy)]
enum OutboxEvent {
    /// A commit: durable together with everything that memory holds.
    Owe,
    /// An attempt begins, if one is due and none is under way. The caller has saved before.
    Begin,
    /// What is under way reaches the place; the answer is still out.
    Arrive,
    /// It says so.
    Answer,
    /// No answer came: it may have arrived or not.
    Fail,
    Save,
    Crash,
    /// Until whatever waits is due.
    TimePasses,
}

const EVENTS: [OutboxEvent; 8] = [
    OutboxEvent::Owe,
    OutboxEvent::Begin,
    OutboxEvent::Arrive,
    OutboxEvent::Answer,
    OutboxEvent::Fail,
    OutboxEvent::Save,
    OutboxEvent::Crash,
    OutboxEvent::TimePasses,
];

#[derive(Clone)]
struct OutboxWorld {
    keeps: Keeps,
    memory: Outbox,
    disk: Outbox,
    /// Number of the report under way, and whether it is there already.
    under_way: Option<(u64, bool)>,
    /// What arrived at the place, in the order of arrival.
    arrived: Vec<u64>,
    owed: u64,
    now: i64,
}

impl OutboxWorld {
    fn new(keeps: Keeps) -> Self {
        let (memory, disk) = (Outbox::default(), Outbox::default());
        Self { keeps, memory, disk, under_way: None, arrived: Vec::new(), owed: 0, now: 0 }
    }

    /// False: it cannot happen here.
    fn happen(&mut self, event: OutboxEvent) -> bool {
        match (event, self.under_way) {
            (OutboxEvent::Owe, _) => {
                self.owed += 1;
                self.memory.owe(&report(self.owed), self.keeps, at(self.now + 5));
                self.disk = self.memory.clone();
            }
            (OutboxEvent::Begin, None) if self.memory == self.disk => {
                let Some(report) = self.memory.next(at(self.now)) else { return false };
                self.under_way = Some((report.seq, false));
            }
            (OutboxEvent::Arrive, Some((seq, false))) => {
                self.arrived.push(seq);
                self.under_way = Some((seq, true));
            }
            (OutboxEvent::Answer, Some((seq, true))) => {
                self.memory.delivered(seq);
                self.under_way = None;
            }
            (OutboxEvent::Fail, Some((seq, _))) => {
                self.memory.failed(seq, down(true).at(at(self.now)), at(self.now), 0.5);
                self.under_way = None;
            }
            (OutboxEvent::Save, _) if self.memory != self.disk => self.disk = self.memory.clone(),
            (OutboxEvent::Crash, _) => {
                self.memory = self.disk.clone();
                self.under_way = None;
            }
            (OutboxEvent::TimePasses, _) if self.memory.due().is_some_and(|due| due > at(self.now)) => self.now += 1000,
            _ => return false,
        }
        true
    }

    fn check(&self, history: &[OutboxEvent]) {
        let say = || format!("{:?}: {history:?} gave {:?}", self.keeps, self.arrived);
        // Never out of order: a repetition is of the last one only, and one document per host never goes back.
        assert!(self.arrived.is_sorted(), "{}", say());
        if self.keeps == Keeps::Every {
            assert!(self.arrived.iter().zip(1..).all(|(seq, n)| *seq <= n), "{}: left one out", say());
            let distinct: BTreeSet<_> = self.arrived.iter().copied().collect();
            assert!(distinct.iter().copied().eq(1..=distinct.len() as u64), "{}: left one out", say());
        }
        // Nothing is lost: what is not owed any more has arrived, in memory as on disk.
        for outbox in [&self.memory, &self.disk] {
            assert!(outbox.delivered <= self.arrived.last().copied().unwrap_or(0), "{}", say());
            if outbox.owed.is_empty() {
                assert_eq!(self.arrived.last().copied().unwrap_or(0), self.owed, "{}", say());
            }
            assert!(outbox.owed.last().is_none_or(|last| last.seq == self.owed), "{}", say());
            assert!(self.keeps == Keeps::Every || outbox.owed.len() <= 1, "{}", say());
        }
    }

    /// The receiver is up for good: everything comes to rest with the latest there.
    fn come_to_rest(mut self, history: &[OutboxEvent]) {
        let script = [
            OutboxEvent::Save,
            OutboxEvent::TimePasses,
            OutboxEvent::Begin,
            OutboxEvent::Arrive,
            OutboxEvent::Answer,
            OutboxEvent::Save,
        ];
        for _ in 0..history.len() + 2 {
            for event in script {
                self.happen(event);
                self.check(history);
            }
        }
        assert!(self.memory.owed.is_empty() && self.memory == self.disk, "{history:?}: still owed");
        assert_eq!(self.arrived.last().copied().unwrap_or(0), self.owed, "{history:?}");
        if self.keeps == Keeps::Every {
            let arrived: BTreeSet<_> = self.arrived.iter().copied().collect();
            assert!(arrived.into_iter().eq(1..=self.owed), "{history:?}");
        }
    }
}

/// Every history of `left` more events, and its end; gives how many there were.
fn explore(world: &OutboxWorld, history: &mut Vec<OutboxEvent>, left: usize) -> u64 {
    world.clone().come_to_rest(history);
    if left == 0 {
        return 1;
    }
    let mut all = 1;
    for event in EVENTS {
        let mut next = world.clone();
        if next.happen(event) {
            history.push(event);
            next.check(history);
            all += explore(&next, history, left - 1);
            history.pop();
        }
    }
    all
}

#[test]
fn no_order_of_events_loses_a_report_or_brings_one_out_of_order() {
    for keeps in [Keeps::Latest, Keeps::Every] {
        let histories = explore(&OutboxWorld::new(keeps), &mut Vec::new(), 9);
        assert!(histories > 20_000, "{keeps:?}: only {histories}");
    }
}

// ---------------------------------------------------------------- attempts

/// Takes every report and never answers, or answers at once.
struct FakeReceiver {
    hangs: bool,
}

impl Receiver for FakeReceiver {
    fn deliver<'a>(&'a self, _report: &'a Report) -> Delivering<'a> {
        Box::pin(async { if self.hangs { std::future::pending().await } else { Ok(()) } })
    }

    fn check<'a>(&'a self, _whose: &'a Whose) -> Checking<'a> {
        Box::pin(async { Ok("it is there".into()) })
    }

    fn describe(&self) -> String {
        "a place of the test".into()
    }
}

fn places(limit: Duration) -> Arc<Receivers> {
    let place = |hangs| Ok(Box::new(FakeReceiver { hangs }) as Box<dyn Receiver>);
    let broken = Err(Fault::new(Class::Tls, "no trust", "install it"));
    let all = [("broken", broken), ("hangs", place(true)), ("well", place(false))];
    Arc::new(Receivers { all: all.map(|(name, r)| (name.to_owned(), r)).into(), limit: Some(limit) })
}

fn all_owed() -> BTreeMap<String, Outbox> {
    let mut outboxes = BTreeMap::new();
    let receivers = ["broken", "hangs", "unknown", "well"].map(receiver);
    owe(&mut outboxes, &receivers, &report(1), at(0), 0.0);
    outboxes
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
}

#[test]
fn a_hanging_receiver_holds_up_no_other_and_is_given_up() {
    let receivers = places(Duration::from_millis(50));
    let mut outboxes = all_owed();
    run(async {
        let mut deliveries = Deliveries::new(receivers);
        assert_eq!(deliveries.due(&outboxes), Some(at(0)));
        deliveries.begin(&outboxes, at(0));
        // Nothing is begun twice, and what is under way is not due.
        deliveries.begin(&outboxes, at(0));
        assert_eq!(deliveries.due(&outboxes), None);
        let mut ended = Vec::new();
        while deliveries.is_busy() {
            let attempt = deliveries.next().await;
            absorb(&mut outboxes, &attempt, at(0), 1.0);
            ended.push((attempt.receiver, attempt.outcome.map_err(|e| (e.class.word(), e.temporary))));
        }
        let hung = ended.pop().unwrap();
        assert_eq!(hung, ("hangs".into(), Err(("timeout", true))));
        ended.sort();
        assert_eq!(ended, [("broken".into(), Err(("tls", false))), ("well".into(), Ok(()))]);
        assert_eq!(deliveries.due(&outboxes), Some(at(10)));
    });
    assert_eq!(outboxes["well"].due(), None);
    assert_eq!(outboxes["unknown"].retry, Retry { next: Some(at(0)), ..Retry::default() });
}

#[test]
fn one_round_takes_everything_in() {
    let mut outboxes = all_owed();
    let receivers = places(Duration::from_millis(50));
    let attempts = run(deliver_due(&mut outboxes, &receivers, at(0), 1.0));
    assert_eq!(attempts.len(), 3);
    let owed: Vec<_> = outboxes.iter().filter(|(_, o)| o.due().is_some()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(owed, ["broken", "hangs", "unknown"]);
    assert!(run(deliver_due(&mut outboxes, &receivers, at(0), 1.0)).is_empty());
}

#[test]
fn a_receiver_that_cannot_be_opened_says_so_at_every_attempt() {
    // Without any trusted authority no AWS endpoint can be checked.
    let receivers = Arc::new(Receivers::open(&[receiver("fleet")], &Http::new(&[])));
    let mut outboxes = BTreeMap::new();
    owe(&mut outboxes, &[receiver("fleet")], &report(1), at(0), 0.0);
    run(deliver_due(&mut outboxes, &receivers, at(0), 1.0));
    let failure = outboxes["fleet"].retry.failure.as_ref().unwrap();
    assert_eq!((failure.class.word(), failure.temporary, failure.at), ("tls", false, at(0)));
}
