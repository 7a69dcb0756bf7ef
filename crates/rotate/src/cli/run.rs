//! `relaykey-rotate run`: a rotation, from the wish for it to the end of the old key, by the one loop that every other way to
//! call it uses.
//!
//! Each action is one line on standard output: a sentence at a terminal, else one line of JSON. How far it is goes to standard
//! error, only when something changed.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use relaykey::fault::{Class, Fault};
use serde::Serialize;
use tokio::time::Instant;

use super::check::published;
use super::hosts::days;
use super::view::{self, ActionView, Document, SCHEMA, Stand, is_complete, old_is_gone, put, rfc3339, undone};
use super::{Exit, Session, ca_files, print_json_line, refused, say, tell};
use crate::facts::{CURRENT, KeyId, Value};
use crate::plan::{Action, Outcome};
use crate::record::Lease;
use crate::refusal::Refusal;
use crate::run::{Ask, Look, Tick, Turned};

/// The longest time between two looks of a `run`: hosts may have reported.
const LONGEST: Duration = Duration::from_secs(300);
/// The least time between two looks that found nothing to do.
const LEAST: Duration = Duration::from_millis(500);
/// How often is looked whether another holder is done; and the least pause after something failed.
const BUSY: Duration = Duration::from_secs(10);
/// The longest pause after something failed while a new key is held: within the lease it has to be stored.
const HELD: Duration = Duration::from_secs(60);
/// So long it is tried to store a new key that only this process has, whatever the store says: whoever ends before loses it.
const HOPE: Duration = Duration::from_secs(600);
/// After the end was asked for, a turn may come to its own end for so long: what is killed in between goes on at the next start.
const GRACE: Duration = Duration::from_secs(20);
/// And the lease may be given back for so long.
const LEAVES: Duration = Duration::from_secs(5);
/// What fails for good so often, one time after the other, ends a `run`: once may have been a race with somebody.
const FOR_GOOD: u32 = 2;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// One look and one action at most, then the end: what a timer calls. Asks for no rotation: one comes when the key is old.
    #[arg(long, conflicts_with = "wait")]
    once: bool,
    /// Wait so long for the end of the rotation; without it, for as long as it takes.
    #[arg(long, value_name = "TIME", value_parser = days)]
    wait: Option<SignedDuration>,
    /// What is published holds the login of this key, which is not of the IAM user: it is written over all the same.
    #[arg(long, value_name = "KEY_ID", conflicts_with = "once")]
    yes_overwrite: Option<String>,
}

pub async fn run(mut at: Session<'_>, args: &RunArgs) -> Exit {
    let by = match at.controller.caller().await {
        Ok(caller) => caller.arn,
        Err(fault) => return refused(&fault),
    };
    let mut teller = Teller::new(&at, by);
    let exit = match args.once {
        true => once(&mut at, &mut teller).await,
        false => whole(&mut at, &mut teller, args).await,
    };
    // Where that fails, the lease ends by itself.
    let _ = tokio::time::timeout(LEAVES, at.controller.leave()).await;
    exit
}

/// One turn; `None`: the end was asked for, and the turn did not come to its own in time.
async fn turn(at: &mut Session<'_>, stop: &mut Stop) -> Option<Result<Tick, Fault>> {
    tokio::select! {
        biased;
        turned = at.controller.tick() => Some(turned),
        () = stop.insisted() => None,
    }
}

/// What a timer calls. A new key whose secret only this process has is stored before it ends.
async fn once(at: &mut Session<'_>, teller: &mut Teller) -> Exit {
    let mut stop = Stop::new();
    let mut failing = VainTurns::new(at);
    let mut holds_key = false;
    loop {
        let Some(turned) = turn(at, &mut stop).await else { return teller.stopped(holds_key) };
        let goes_on = |failing: &VainTurns, holds_key| failing.must_go_on(holds_key) && !stop.was_asked();
        let pause = match turned {
            Ok(Tick::Busy(lease)) => {
                let exit = teller.busy(&lease);
                if !goes_on(&failing, holds_key) {
                    return exit;
                }
                failing.again(holds_key)
            }
            Ok(Tick::Turned(turned)) => {
                for (action, outcome) in &turned.done {
                    teller.did(&turned.look, action, outcome);
                }
                holds_key = turned.holds_key;
                let pause = failing.after(&turned);
                if !goes_on(&failing, holds_key) {
                    return teller.ends(at, &turned.look, Stand::after(&turned).exit());
                }
                pause
            }
            Err(fault) if goes_on(&failing, holds_key) => {
                teller.failed(&fault);
                failing.again(holds_key)
            }
            Err(fault) => return refused(&fault),
        };
        teller.holds();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.asked() => return teller.stopped(holds_key),
        }
    }
}

async fn whole(at: &mut Session<'_>, teller: &mut Teller, args: &RunArgs) -> Exit {
    let deadline = args.wait.and_then(|wait| Instant::now().checked_add(Duration::try_from(wait).unwrap_or_default()));
    let look = match at.controller.look().await {
        Ok(look) => look,
        Err(fault) => return refused(&fault),
    };
    // One that is under way is gone on with: an old key is to go. Whatever else is begun ends with the one that is asked for,
    // and somebody else's AWSPENDING is no rotation.
    let under_way = !old_is_gone(&look, at.credential.policy.delete) && look.facts.record.published.is_some();
    if !under_way && let Err(fault) = begins(at, &look, args.yes_overwrite.as_deref()).await {
        return refused(&fault);
    }
    let mut stop = Stop::new();
    let mut failing = VainTurns::new(at);
    let mut holds_key = false;
    let mut last: Option<(Look, Stand)> = None;
    loop {
        let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let ends = stop.was_asked() || over && !failing.must_go_on(holds_key);
        if over && !ends {
            teller.holds();
        }
        if let Some((look, stand)) = last.as_ref().filter(|_| ends) {
            if holds_key {
                teller.stopped(true);
            }
            return teller.ends(at, look, stand.exit_at_the_end());
        }
        if stop.was_asked() {
            return teller.stopped(holds_key);
        }
        let Some(turned) = turn(at, &mut stop).await else { return teller.stopped(holds_key) };
        let pause = match turned {
            Ok(Tick::Busy(lease)) => {
                teller.waits_for(&lease);
                if ends {
                    return Exit::ForNow;
                }
                if holds_key { failing.again(true) } else { BUSY }
            }
            Ok(Tick::Turned(turned)) => {
                holds_key = turned.holds_key;
                teller.shows(&turned.look);
                for (action, outcome) in &turned.done {
                    teller.did(&turned.look, action, outcome);
                }
                let stand = Stand::after(&turned);
                let pause = failing.after(&turned);
                if !failing.must_go_on(holds_key) {
                    if turned.done.is_empty() && is_complete(&turned.look, at.credential.policy.delete) {
                        return teller.ends(at, &turned.look, Exit::Done);
                    }
                    if stand == Stand::ForGood && (turned.done.is_empty() || failing.turns >= FOR_GOOD) {
                        return teller.ends(at, &turned.look, Exit::ForGood);
                    }
                }
                last = Some((turned.look, stand));
                pause
            }
            // A new key that is held here must be stored first.
            Err(fault) if fault.temporary || failing.must_go_on(holds_key) => {
                teller.failed(&fault);
                if ends {
                    return Exit::ForNow;
                }
                failing.again(holds_key)
            }
            Err(fault) => return refused(&fault),
        };
        let until = Instant::now() + pause;
        let until = deadline.map_or(until, |deadline| until.min(deadline.max(Instant::now() + LEAST)));
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = stop.asked(), if !stop.was_asked() => {}
        }
    }
}

/// Asks for a rotation, where nothing is in its way that can be known beforehand.
async fn begins(at: &mut Session<'_>, look: &Look, over: Option<&str>) -> Result<(), Fault> {
    ca_files(at.credential)?;
    // A value that is no login may be somebody else's: it is not written over.
    let current = look.facts.store.labelled(CURRENT);
    if current.is_some_and(|current| current.value == Value::Unreadable) {
        published(look).map_err(|fault| *fault)?;
    }
    // Nor is a login of another user, unless a person names it.
    let over = over.map(KeyId::new);
    let is_not_ours = |refusal: &&Refusal| matches!(refusal, Refusal::ValueNotOurs { key, .. } if *key != over);
    let not_ours = look.decision.refusals.iter().find(is_not_ours);
    if let Some(refusal) = not_ours {
        return Err(Fault::new(Class::Configuration, refusal.words(), refusal.fix()));
    }
    let ask = over.map_or(Ask::Run, |key| Ask::RunOver { key });
    at.controller.ask(ask).await.map(|_| ())
}

/// Turns that came to nothing, one after the other: the pause after each is longer.
struct VainTurns {
    least: Duration,
    turns: u32,
    since: Instant,
}

impl VainTurns {
    fn new(at: &Session<'_>) -> Self {
        // In a lab everything is faster.
        let reconcile = Duration::try_from(at.credential.policy.reconcile).unwrap_or(BUSY);
        Self { least: BUSY.min(reconcile).max(LEAST), turns: 0, since: Instant::now() }
    }

    /// One more.
    fn again(&mut self, holds_key: bool) -> Duration {
        if self.turns == 0 {
            self.since = Instant::now();
        }
        let longest = if holds_key { HELD } else { LONGEST };
        let pause = self.least * 2_u32.pow(self.turns.min(8));
        self.turns += 1;
        pause.min(longest)
    }

    /// How long until it is worth looking again.
    fn after(&mut self, turned: &Turned) -> Duration {
        // Nor is it any better where it could not even be looked.
        let blind = turned.done.is_empty() && !turned.look.facts.gaps.is_empty();
        if undone(turned).is_some() || blind {
            return self.again(turned.holds_key);
        }
        self.turns = 0;
        pause(&turned.look, !turned.done.is_empty())
    }

    /// A new key that only this process has is to be stored first, as long as there is hope.
    fn must_go_on(&self, holds_key: bool) -> bool {
        holds_key && (self.turns == 0 || self.since.elapsed() < HOPE)
    }
}

/// How long until it is worth looking again.
fn pause(look: &Look, acted: bool) -> Duration {
    if acted {
        return Duration::ZERO;
    }
    let next = look.decision.next.map(|next| next.duration_since(Timestamp::now()));
    let next = next.map_or(LONGEST, |next| Duration::try_from(next).unwrap_or_default());
    next.clamp(LEAST, LONGEST)
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: Option<tokio::signal::unix::Signal>,
    interrupt: Option<tokio::signal::unix::Signal>,
    asked: bool,
}

impl Stop {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let of = |kind| signal(kind).ok();
        Self { terminate: of(SignalKind::terminate()), interrupt: of(SignalKind::interrupt()), asked: false }
    }

    fn was_asked(&self) -> bool {
        self.asked
    }

    /// The end was asked for once more, or some time ago.
    async fn insisted(&mut self) {
        if !self.asked {
            self.asked().await;
            tell("the end is asked for: what is under way comes to its own; asked for again, it ends at once");
        }
        tokio::select! {
            () = tokio::time::sleep(GRACE) => {}
            () = self.asked() => {}
        }
    }

    async fn asked(&mut self) {
        async fn comes(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = comes(&mut self.terminate) => {}
            () = comes(&mut self.interrupt) => {}
        }
        self.asked = true;
    }
}

/// One action, as a line on standard output.
#[derive(Serialize)]
struct ActionLine<'a> {
    schema: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lab: bool,
    event: &'static str,
    credential: &'a str,
    at: String,
    by: &'a str,
    #[serde(flatten)]
    action: ActionView,
    reason: String,
    outcome: &'static str,
    /// Of a new key.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    /// Of a version that was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<&'a str>,
}

/// Tells people how it goes: only what changed.
struct Teller {
    credential: String,
    lab: bool,
    by: String,
    json: bool,
    /// Sentences on standard output instead of JSON.
    terminal: bool,
    shown: String,
    /// It was told what it waits for although its time is over.
    held: bool,
}

impl Teller {
    fn new(at: &Session<'_>, by: String) -> Self {
        let terminal = std::io::stdout().is_terminal() && !at.json;
        let teller = Self {
            credential: at.credential.name.clone(),
            lab: at.config.lab,
            by,
            json: at.json,
            terminal,
            shown: String::new(),
            held: false,
        };
        if at.config.lab && !at.json {
            tell("LAB  (no number here protects anything)");
        }
        teller
    }

    fn did(&self, look: &Look, action: &Action, outcome: &Outcome) {
        let (word, sentence) = match outcome {
            Outcome::Failed => ("failed", "that failed".to_owned()),
            Outcome::Unknown => ("unknown", "nobody knows what became of it; the next look sees".to_owned()),
            Outcome::Created(key) => ("done", format!("made {key}")),
            Outcome::Published(version) => ("done", format!("published as version {version}")),
            Outcome::LoggedIn { accepted: true, .. } => ("accepted", "accepted at every endpoint".to_owned()),
            Outcome::LoggedIn { accepted: false, .. } => ("not-accepted", "not accepted everywhere".to_owned()),
            Outcome::Done => ("done", String::new()),
        };
        if self.terminal {
            let more = if sentence.is_empty() { sentence } else { format!(": {sentence}") };
            let mut out = String::new();
            put(&mut out, &format!("{}  * ", view::stamp(look.now)), "            ", &format!("{action}{more}"));
            return say(out.trim_end());
        }
        print_json_line(&ActionLine {
            schema: SCHEMA,
            lab: self.lab,
            event: "action",
            credential: &self.credential,
            at: rfc3339(look.now),
            by: &self.by,
            action: ActionView::of(action),
            reason: look.decision.reason.to_string(),
            outcome: word,
            created: match outcome {
                Outcome::Created(key) => Some(key.as_str()),
                _ => None,
            },
            stored: match outcome {
                Outcome::Published(version) => Some(version.as_str()),
                _ => None,
            },
        });
    }

    fn shows(&mut self, look: &Look) {
        if self.json {
            return;
        }
        let text = view::progress(look);
        if text == self.shown {
            return;
        }
        let mut lines = text.lines();
        let mut out = String::new();
        put(&mut out, &format!("{}  ", view::stamp(look.now)), "            ", lines.next().unwrap_or_default());
        for line in lines {
            put(&mut out, "            ", "              ", line);
        }
        tell(out.trim_end());
        self.shown = text;
    }

    fn waits_for(&mut self, lease: &Lease) {
        let text = view::at_work(lease);
        if !self.json && text != self.shown {
            tell(&text);
            self.shown = text;
        }
    }

    fn busy(&mut self, lease: &Lease) -> Exit {
        self.waits_for(lease);
        Exit::ForNow
    }

    /// It does not end yet, and why.
    fn holds(&mut self) {
        if !self.held {
            tell(
                "a new key is in the memory of this process alone: it ends when the key is stored, or given up; SIGTERM gives it up \
                 at once",
            );
        }
        self.held = true;
    }

    /// The end was asked for.
    fn stopped(&self, holds_key: bool) -> Exit {
        if holds_key {
            tell(
                "ended: the new key was not stored and is given up; the next run deactivates it, and deletes it a day later",
            );
        } else {
            tell("ended, as was asked for; the next run goes on from here");
        }
        Exit::ForNow
    }

    fn failed(&mut self, fault: &Fault) {
        if fault.what != self.shown {
            super::complain(&fault.what, &fault.fix);
            self.shown.clone_from(&fault.what);
        }
    }

    /// The last word.
    fn ends(&self, at: &Session<'_>, look: &Look, exit: Exit) -> Exit {
        if self.json || !self.terminal {
            print_json_line(&Document::of(at.credential, look, self.lab, exit));
        }
        if self.json {
            return exit;
        }
        if is_complete(look, at.credential.policy.delete) && exit == Exit::Done {
            tell(&format!("{}  {}", view::stamp(look.now), view::over(look)));
        } else {
            tell(view::text(at.credential, look, None).trim_end());
        }
        exit
    }
}

#[cfg(test)]
mod tests;
