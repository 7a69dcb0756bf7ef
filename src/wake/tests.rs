use std::collections::BTreeMap;
use std::time::Instant;

use super::alarm::AlarmKind;
use super::*;

fn alarm(kind: AlarmKind, endpoint: &str, words: &str) -> Cause {
    Cause::LogAlarm(Alarm { kind, endpoint: endpoint.into(), words: words.into() })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

/// Numbers in [0, 1) that look random and are the same in every run.
fn numbers() -> impl FnMut() -> f64 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn run_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn every_cause_has_its_word() {
    let file = Cause::FileWatch("/etc/postfix/sasl\npasswd".into());
    let log = alarm(AlarmKind::Refused, "ses", "535 no");
    let causes = [Cause::Start, Cause::Timer, Cause::Retry, Cause::Signal, Cause::Operator, file.clone(), log];
    let words: Vec<&str> = causes.iter().map(Cause::word).collect();
    assert_eq!(words, ["start", "timer", "retry", "signal", "operator", "file-watch", "log-alarm"]);
    assert_eq!(file.detail().as_deref(), Some("/etc/postfix/sasl\\npasswd"));
}

#[test]
fn what_arrives_during_a_run_becomes_one_run_with_every_distinct_cause() {
    let mailbox = Mailbox::new();
    for _ in 0..3 {
        mailbox.post(Cause::Timer);
        mailbox.post(Cause::FileWatch("/a".into()));
        mailbox.post(alarm(AlarmKind::Refused, "ses", "535 one"));
        mailbox.post(alarm(AlarmKind::Refused, "ses", "535 two"));
        mailbox.post(Cause::FileWatch("/b".into()));
        mailbox.post(Cause::Operator);
    }
    let causes = run_time().block_on(mailbox.recv());
    let said: Vec<String> = causes.iter().map(Cause::to_string).collect();
    let refused = alarm(AlarmKind::Refused, "ses", "535 one").to_string();
    assert_eq!(said, ["operator", refused.as_str(), "file-watch (/a)", "file-watch (/b)", "timer"]);
    assert!(mailbox.take().is_empty());
}

#[test]
fn a_flood_takes_no_more_memory_and_shuts_nobody_out() {
    let mailbox = Mailbox::new();
    for n in 0..100_000 {
        mailbox.post(Cause::FileWatch(format!("/{n}").into()));
    }
    mailbox.post(Cause::Operator);
    let causes = mailbox.take();
    assert_eq!(causes.len(), MAX_CAUSES + 1);
    assert_eq!(causes[0], Cause::Operator);
}

#[test]
fn a_cause_from_another_thread_ends_the_wait_and_giving_up_loses_none() {
    let mailbox = Mailbox::new();
    run_time().block_on(async {
        let given_up = tokio::time::timeout(Duration::from_millis(1), mailbox.recv()).await;
        assert!(given_up.is_err());
        let sender = mailbox.clone();
        let thread = std::thread::spawn(move || sender.post(Cause::Signal));
        let causes = tokio::time::timeout(Duration::from_secs(10), mailbox.recv()).await;
        assert_eq!(causes.expect("the cause that the other thread posted"), [Cause::Signal]);
        thread.join().unwrap();
    });
}

#[test]
fn polls_are_half_to_one_and_a_half_intervals_apart_and_one_on_average() {
    for poll in [1, 30, 300, 3600, 86_400] {
        let (mut random, interval) = (numbers(), Duration::from_secs(poll));
        for host in 0..20 {
            let (begin, mut now, polls) = (at(host * 7), at(host * 7), 500);
            for _ in 0..polls {
                let next = next_poll(now, interval, &format!("host-{host}"), "ses", random());
                let apart = next.duration_since(now).as_secs_f64() / poll as f64;
                assert!((0.5..=1.5).contains(&apart), "poll {poll}: {apart} intervals apart");
                // The look itself takes a moment.
                now = next + SignedDuration::from_millis(poll as i64 * 20);
            }
            let mean = now.duration_since(begin).as_secs_f64() / (poll * polls) as f64;
            assert!((0.99..1.01).contains(&mean), "poll {poll}: {mean} intervals on average");
        }
    }
}

#[test]
fn ten_thousand_hosts_that_start_together_do_not_come_together() {
    let (poll, hosts) = (Duration::from_secs(300), 10_000);
    let mut random = numbers();
    let mut due: Vec<(String, Timestamp)> = (0..hosts).map(|n| (format!("{n:032x}"), at(0))).collect();
    for round in 1..=5 {
        let mut buckets: BTreeMap<i64, u32> = BTreeMap::new();
        for (host, then) in &mut due {
            *then = next_poll(*then, poll, host, "ses", random());
            *buckets.entry(then.as_second()).or_default() += 1;
        }
        // 10,000 over 300 s are 33 a second; a Poisson spread of that stays below 33 + 6 * sqrt(33) = 68.
        let busiest = buckets.values().max().unwrap();
        assert!(*busiest < 68, "{busiest} hosts in one second in round {round}");
        assert!(buckets.len() >= 300, "only {} seconds in round {round} have a poll", buckets.len());
    }
}

#[test]
fn two_credentials_of_one_host_have_places_of_their_own() {
    let due = |credential| next_poll(at(0), Duration::from_secs(300), "host", credential, 0.5);
    assert_ne!(due("ses"), due("ses-2"));
    assert_eq!(due("ses"), due("ses"));
}

#[test]
fn impossible_numbers_are_taken_for_sensible_ones() {
    for jitter in [f64::NAN, f64::INFINITY, -3.0, 7.0] {
        let apart = next_poll(at(0), Duration::from_secs(60), "h", "c", jitter).duration_since(at(0));
        assert!((30..=90).contains(&apart.as_secs()), "{jitter}: {apart:?}");
    }
    assert!(next_poll(at(0), Duration::ZERO, "h", "c", 0.5) > at(0));
    assert_eq!(next_poll(Timestamp::MAX, Duration::MAX, "h", "c", 0.5), Timestamp::MAX);
    assert_eq!(until(at(0), at(9)), Duration::ZERO);
    assert_eq!(until(at(9), at(0)), Duration::from_secs(9));
}

#[test]
fn a_wait_takes_as_long_as_it_says_and_many_wait_side_by_side() {
    run_time().block_on(async {
        let begun = Instant::now();
        wait(Duration::ZERO).await;
        let (long, short) = (Duration::from_millis(120), Duration::from_millis(40));
        tokio::select! {
            () = wait(Duration::from_secs(3600)) => panic!("an hour has not passed"),
            () = wait(short) => {}
        }
        assert!(begun.elapsed() >= short);
        tokio::join!(wait(long), wait(short), wait(long));
        assert!(begun.elapsed() >= short + long);
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}
