//! The document in words, for people and for the service manager's line; and sentences that are said elsewhere too.

use jiff::{SignedDuration, Timestamp};

use super::{
    ChangeStatus, CredentialState, CredentialStatus, FailureStatus, HeldStatus, InUseStatus, NotListening, Notice,
    PendingStatus, Status,
};
use crate::config;
use crate::fault::{Class, Failure};
use crate::instruction::relaykey;
use crate::rollover::{Holds, OLD_KEY, OwnResult, Tried, rfc3339, whole_seconds};

/// So long `relaykey status` tells that the installation is a copy of another one.
const CLONE_NEWS: SignedDuration = SignedDuration::from_hours(30 * 24);

impl Status {
    /// For the service manager: one line that tells what stands in the way, else that nothing does.
    pub fn line(&self) -> String {
        let troubled: Vec<String> = self
            .credentials
            .iter()
            .filter_map(|c| Some(format!("{}: {}", c.name, c.not_ready.first()?.what)))
            .collect();
        let refused = self.daemon.as_ref().is_some_and(|d| d.config_refused.is_some());
        let mut line = match (troubled.as_slice(), self.credentials.as_slice()) {
            ([], [one]) => match &one.applied {
                Some(a) => format!("{} up to date: version {} ({})", one.name, a.version, a.username),
                None => one.name.clone(),
            },
            ([], all) => format!("{} credentials up to date", all.len()),
            (troubled, _) => troubled.join("; "),
        };
        if refused {
            line.push_str("; the changed configuration was refused, the old one stays in force");
        }
        for place in self.not_listening() {
            line.push_str("; ");
            line.push_str(&place.what);
        }
        line
    }

    /// For people.
    pub fn text(&self, now: Timestamp) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        if let Some(refused) = self.daemon.as_ref().and_then(|d| d.config_refused.as_ref()) {
            let _ = writeln!(out, "configuration: refused {}, the old one stays in force", ago(refused.at, now));
            for m in &refused.mistakes {
                let _ = writeln!(out, "  error     {}\n  fix       {}", m.what, m.fix);
            }
        }
        for place in self.not_listening() {
            let _ = writeln!(out, "health: not answered since {}; {}", ago(place.since, now), NotListening::GOES_ON);
            let _ = writeln!(out, "  error     {}\n  fix       {}", place.what, place.fix);
        }
        if let Some(original) = self.clone_of.as_ref().filter(|c| now.duration_since(c.at) < CLONE_NEWS) {
            let _ = writeln!(
                out,
                "this installation is a copy of {}, noticed {}: reports that the original owed are not sent from here, and \
                 every credential is adopted anew",
                original.host_id,
                ago(original.at, now)
            );
        }
        for c in &self.credentials {
            c.text(now, &mut out);
        }
        if self.daemon.is_none() {
            let _ = writeln!(out, "(no daemon answers: this is what the state files say)");
        }
        out
    }
}

impl CredentialStatus {
    fn text(&self, now: Timestamp, out: &mut String) {
        use std::fmt::Write as _;
        let junk = |f: &FailureStatus| f.target.is_none() && f.failure.class == Class::Payload;
        let meaning = match self.state {
            CredentialState::Hindered(Class::SourceDown) if self.failures.iter().any(junk) => {
                Some("source gives no version that can be used")
            }
            state => state.in_words(),
        };
        let word = self.state.word();
        let _ = match meaning {
            Some(words) => writeln!(out, "{}: {word} ({words})", self.name),
            None => writeln!(out, "{}: {word}", self.name),
        };
        let mut line = |label: &str, text: String| {
            let _ = writeln!(out, "  {label:<9} {text}");
        };
        line("source", self.source.clone());
        match &self.applied {
            Some(a) => {
                line(
                    "applied",
                    format!("version {} ({}), {} {}", a.version, a.username, a.outcome.word(), ago(a.since, now)),
                );
                let age = SignedDuration::from_secs(a.key_age_seconds);
                let replaced = self.pending.as_ref().is_some_and(|p| p.rejected.is_none());
                let old = match age > OLD_KEY {
                    true if replaced => ": older than 90 days; the pending one takes its place",
                    true if self.mail_not_known().is_some() => ": older than 90 days; publish a new one at the source",
                    true => ": older than 90 days; mail is not affected; publish a new one at the source",
                    false => "",
                };
                match &a.version_stored {
                    Some(_) => line("stored", format!("{} ago (this version; the key may be older){old}", words(age))),
                    None => line("key age", format!("at least {}{old}", words(age))),
                }
            }
            None => line("applied", format!("nothing yet: run `{}`", relaykey("sync"))),
        }
        for found in &self.in_use {
            let target = if self.in_use.len() > 1 { format!("target {}: ", found.target) } else { String::new() };
            let differs = match (&self.applied, found.holds) {
                (Some(a), Holds::Other | Holds::Nothing) => format!("; {}", self.had_been(&found.target, a)),
                (_, Holds::Pending) => "; this is the new key, not confirmed yet".to_owned(),
                (_, Holds::Begun) if found.begun_by_hand => format!(
                    "; put there by hand, as relaykey had asked (version {}), and never confirmed",
                    found.begun.as_deref().unwrap_or("not known")
                ),
                (_, Holds::Begun) => format!(
                    "; relaykey put it there (version {}) and never confirmed it",
                    found.begun.as_deref().unwrap_or("not known")
                ),
                _ => String::new(),
            };
            let who = self.applied.as_ref().map_or_else(|| found.who(), |a| found.who_else(a));
            // What does not run uses nothing; what was not told of it perhaps what was there before.
            let only_in_place = self.mail_server_stopped.contains(&found.target)
                || self.is_unread(&found.target)
                || self.unread.iter().any(|unread| unread.target == found.target);
            // A look from before a swap says neither what is in place since, nor what the mail server has read.
            let overtaken = found.holds == Holds::Applied && self.is_unread_since(&found.target, found.at);
            let (label, when) = match (overtaken, only_in_place) {
                (true, _) => ("seen", ", before the reload was owed"),
                (false, true) => ("in place", ""),
                (false, false) => ("in use", ""),
            };
            line(label, format!("{target}{who}, looked up {}{when}{differs}", ago(found.at, now)));
        }
        for unread in &self.unread {
            let since = ago(unread.owed.since, now);
            line("not read", format!("target {}, {since}: {}", unread.target, unread.owed.why));
            line("fix", UNREAD_FIX.to_owned());
        }
        for half in &self.half_done {
            line("half done", half.said());
        }
        for HeldStatus { target, held } in &self.held {
            let target = if self.in_use.len() > 1 { format!("target {target}: ") } else { String::new() };
            for said in held.said() {
                line("besides", format!("{target}{said}"));
            }
        }
        if let Some(first) = &self.found_first {
            line("before", format!("{first}, found before any version was put in its place: do not delete it yet"));
        }
        if self.in_use.is_empty() && self.applied.is_some() {
            line("in use", "not looked up yet".into());
        }
        if let Some(own) = &self.own_login {
            line("mail log", own_login_words(own, self.in_use.iter().any(InUseStatus::is_foreign), now));
            if let OwnResult::NotGiven { fix, .. } = &own.result {
                line("fix", fix.clone());
            }
        }
        if let Some(p) = &self.pending {
            let refused = p.first_refused.map(|at| format!(", first refused {}", ago(at, now)));
            line(
                "pending",
                format!(
                    "version {} ({}), seen {}{}",
                    p.version,
                    p.username,
                    ago(p.first_seen, now),
                    refused.unwrap_or_default()
                ),
            );
        }
        if let Some(p) = &self.pending {
            self.text_of_pending(p, now, &mut line);
        }
        if let Some(f) = self.pending.as_ref().and_then(|p| p.not_newer.as_ref()) {
            line("", f.what.clone());
            line("fix", f.fix.clone());
        }
        if let Some(known) = self.mail_not_known().filter(|_| self.applied.is_some()) {
            line("mail", known);
            let stopped = self.not_ready.iter().find(|n| n.class == Class::NotRunning);
            stopped.into_iter().for_each(|n| line("fix", n.fix.clone()));
        }
        if self.applied_refused.is_some() {
            line("mail", "is probably held back in the queue: the mail relay refuses the key in use".into());
            let refused = self.not_ready.iter().find(|n| n.class == Class::AppliedRefused);
            refused.into_iter().for_each(|n| line("fix", n.fix.clone()));
        }
        if self.is_doubtful() {
            line("mail", "may be failing, or going out with another login: do not delete any key".into());
        }
        if let Some(at) = self.withdrawn.filter(|_| self.holds_again()) {
            let at = ago(at, now);
            line(
                "withdrawn",
                format!("{at}: the mail server held something else. It holds the key again, which is confirmed"),
            );
            let confirm = relaykey(format_args!("confirm {}", self.name));
            line("", format!("with the next change, or at once: {confirm}"));
        } else if let Some(at) = self.withdrawn {
            line(
                "withdrawn",
                format!("{}: the mail server no longer holds the key that this host had reported;", ago(at, now)),
            );
            line("", "where reports go out, that one is taken back, so that nobody deletes the old key".into());
        }
        if let Some(at) = self.left {
            line(
                "left",
                format!("the hosts that share this key, {} (relaykey deregister): nobody waits for it", ago(at, now)),
            );
            let confirm = relaykey(format_args!("confirm {}", self.name));
            line("", format!("before an old key is deleted; if it still sends mail: {confirm}"));
        }
        for o in &self.owed {
            line("owed", format!("target {}: a reload, since {}: {}", o.target, rfc3339(o.owed.since), o.owed.why));
        }
        for r in &self.reports_owed {
            let why = r.failure.as_ref().map(|f| format!(": {}", f.what)).unwrap_or_default();
            let count = if r.count == 1 { "a report".to_owned() } else { format!("{} reports", r.count) };
            line("owed", format!("{count} to {}, since {}{why}", r.receiver, r.since));
            if let Some(f) = &r.failure {
                line("fix", f.fix.clone());
            }
        }
        let mut said: Vec<&Failure> = Vec::new();
        // What a person is to change stands above, step by step.
        let by_hand = self.pending.iter().flat_map(|p| &p.changes).any(|c| c.by_hand);
        let is_told = self.failures.iter().any(|f| f.failure.class == Class::Drift);
        let not_put_back = self.not_put_back.iter().filter(|_| !is_told);
        for f in self.failures.iter().chain(not_put_back).filter(|f| !by_hand || f.failure.class != Class::ByHand) {
            if said.iter().any(|said| said.says_the_same(&f.failure)) {
                continue;
            }
            said.push(&f.failure);
            line(
                "error",
                format!(
                    "{} ({} attempt{}, last {}{})",
                    f.failure.what,
                    f.attempts,
                    if f.attempts == 1 { "" } else { "s" },
                    ago(f.failure.at, now),
                    f.next.map(|next| format!(", again at {}", rfc3339(next))).unwrap_or_default()
                ),
            );
            line("fix", f.failure.fix.clone());
        }
        // What our own logins have proved is not told as a hint besides.
        let proved = |n: &&Notice| n.class == Class::Refused && self.applied_refused.is_some();
        for n in self.notices.iter().filter(|n| !proved(n)) {
            line("notice", format!("{} ({})", n.what, ago(n.at, now)));
            line("fix", n.fix.clone());
        }
        match (&self.live, &self.next) {
            (Some(live), _) => {
                let cause = live.woken.as_ref().map(|woken| format!(" ({})", woken.by.cause)).unwrap_or_default();
                match live.source_asked {
                    Some(at) => line("looked", format!("{}{cause}", ago(at, now))),
                    None => line("looked", "not since relaykey started".into()),
                }
                if let Some(step) = &live.step {
                    line("doing", step.word().to_owned());
                } else if let Some(next) = live.next_wake {
                    let sync = relaykey("sync");
                    line("next", format!("in {}; `{sync}` looks at once", words(next.duration_since(now))));
                }
            }
            (None, Some(next)) => {
                line("next", format!("not before {}; `{}` tries at once", rfc3339(*next), relaykey("sync")));
            }
            (None, None) => {}
        }
        line("cost", self.cost.to_string());
    }

    /// What a person has to know who is to decide, or to make the change. Commands and steps stand on lines of their own.
    fn text_of_pending(&self, p: &PendingStatus, now: Timestamp, line: &mut impl FnMut(&str, String)) {
        let (name, version) = (&self.name, &p.version);
        let approve = relaykey(format_args!("approve {name} --version {version}"));
        // Where something else is in place than what was confirmed, nobody knows whether it does.
        let sure = self.mail_not_known().is_none() && !self.is_doubtful() && self.applied_refused.is_none();
        // Nothing may be applied yet: a first run that was killed has left a key in use all the same.
        let keep = self
            .key_in_use()
            .or_else(|| self.applied.as_ref().map(|a| a.username.clone()))
            .filter(|_| sure)
            .map(|who| format!("goes on with {who}: do not delete that key yet"));
        let decide = p.for_approval && p.approval.is_none();
        if let Some(r) = &p.rejected {
            line("rejected", format!("by {} {}: {}", r.by, ago(r.at, now), r.reason));
            keep.into_iter().for_each(|keep| line("mail", keep));
            line("to do", "nothing, if that was meant; else publish another version, or take this one:".into());
            line("", approve);
            return;
        }
        if let Some(a) = &p.approval {
            line("approved", format!("by {} {}", a.by, ago(a.at, now)));
        }
        if decide {
            let since = p.waits_since.map(|at| format!(", for {}", words(now.duration_since(at)))).unwrap_or_default();
            line("waits", format!("for somebody to approve it{since}"));
            keep.iter().for_each(|keep| line("mail", keep.clone()));
            // It is tried again every day while it waits, and may be refused by then.
            if !self.not_ready.iter().any(|n| n.class == Class::Refused) {
                line("approve", approve);
            }
            line("reject", relaykey(format_args!("reject {name} --version {version} --reason \"...\"")));
            match &p.window {
                Some(window) => line("or wait", format!("it goes into use by itself: {window}, local time")),
                None => {
                    let dies = if p.if_applied_dies { ", or the mail relay refuses the key in use" } else { "" };
                    line("or wait", format!("nothing changes until somebody decides{dies}"));
                    if let Some(why) = &p.dies_in_vain {
                        line("", format!("(if_applied_dies = \"apply\" has no effect: {why})"));
                    }
                }
            }
        }
        for c in p.changes.iter().filter(|c| !c.by_hand) {
            c.change.diff.iter().enumerate().for_each(|(n, diff)| {
                line(if n == 0 { "change" } else { "" }, diff.clone());
            });
        }
        let by_hand: Vec<&ChangeStatus> = p.changes.iter().filter(|c| c.by_hand).collect();
        if !decide && !by_hand.is_empty() {
            keep.iter().for_each(|keep| line("mail", keep.clone()));
        }
        // A new key that cannot be put into use does nothing to the mail either.
        if !decide
            && by_hand.is_empty()
            && self.not_ready.iter().any(|n| matches!(n.class, Class::Refused | Class::Failing))
        {
            keep.iter().for_each(|keep| line("mail", keep.clone()));
        }
        for c in &by_hand {
            let since = p.waits_since.map(|at| format!(", for {}", words(now.duration_since(at)))).unwrap_or_default();
            let waits = match decide {
                true => "is for a person to change, after the approval".to_owned(),
                false => format!("waits for a person to change it{since}"),
            };
            line("by hand", format!("target {} {waits}:", c.target));
            c.todo().iter().enumerate().for_each(|(n, step)| line("", format!("{}. {step}", n + 1)));
            c.change.differences.iter().enumerate().for_each(|(n, difference)| {
                line(if n == 0 { "as it is" } else { "" }, difference.clone());
            });
        }
        if !by_hand.is_empty() {
            let reveal = relaykey(format_args!("sync {name} --dry-run --reveal"));
            line("password", format!("*** stands for it; root sees it with: {reveal}"));
            let confirm = relaykey(format_args!("confirm {name}"));
            line("then", format!("relaykey sees it and reports it; where it does not run: {confirm}"));
        }
    }
}

impl CredentialState {
    /// What it is, in a few words; `None`: its name says it, or what is wrong has to be said.
    pub fn in_words(self) -> Option<&'static str> {
        let Self::Hindered(class) = self else { return None };
        Some(match class {
            Class::Pending => "new key on its way",
            Class::PendingApproval => "new key waits for approval",
            Class::ByHand => "new key waits for a change by hand",
            Class::Rejected => "new key rejected",
            Class::Refused => "key refused",
            Class::AppliedRefused => "key in use refused",
            Class::ReloadOwed => "reload missing",
            Class::Drift => "changed by somebody else",
            Class::Superseded => "key in use not confirmed",
            Class::ReportOwed => "report not delivered",
            Class::NotRunning => "mail server is not running",
            Class::SourceDown => "source does not answer",
            Class::NeverApplied => "not yet in use",
            Class::Failing => "something stands in the way",
            _ => return None,
        })
    }
}

/// That the mail servers of these targets do not run; `None`: there are no such targets.
pub fn not_running(targets: &[String]) -> Option<String> {
    let names = targets.join(", ");
    (!targets.is_empty()).then(|| format!("the mail server is not running (target {names}): no mail goes out from it"))
}

/// That the key in use is refused, as logins of our own have proved.
pub fn key_refused(endpoint: &str, username: &str, first: Timestamp, latest: Timestamp) -> String {
    format!(
        "{endpoint} refuses the key in use, {username}: two logins of our own with it were refused, the first {}, the latest {}",
        rfc3339(first),
        rfc3339(latest)
    )
}

/// How the mail servers of these targets are started, each by the name of its instance.
pub fn how_to_start(credential: &config::Credential, targets: &[String]) -> String {
    let stopped = credential.targets.iter().filter(|t| targets.contains(&t.name));
    let commands: Vec<String> =
        stopped.map(|target| target.kind.how_to_start().unwrap_or_else(|| target.name.clone())).collect();
    format!("start it ({})", commands.join("; "))
}

/// What settles it where nothing may reload the mail server.
pub const UNREAD_FIX: &str =
    "restart the mail server, which settles it (reload = \"never\"; a reload by hand is not seen)";

/// What a login of our own with the applied version says about what the mail log tells. `another`: a mail server was looked up
/// and does not hold that version.
pub fn own_login_words(own: &Tried, another: bool, now: Timestamp) -> String {
    let told = "tells that the mail server's login is refused";
    let at = ago(own.at, now);
    match &own.result {
        OwnResult::Accepted if another => format!(
            "{told}; a login of our own with the key that this host had confirmed is accepted at {} ({at}): the mail server uses \
             another login than that, as was looked up",
            own.endpoint
        ),
        OwnResult::Accepted => format!(
            "{told}; a login of our own is accepted at {} ({at}): another table, service or instance uses another login, or \
             the line is not Postfix's",
            own.endpoint
        ),
        OwnResult::Refused { reply } => {
            format!("{told}; {} refused a login of our own with the key in use ({at}): {reply}", own.endpoint)
        }
        OwnResult::Unknown { what } => format!("{told}; a login of our own proved nothing ({at}): {what}"),
        OwnResult::NotGiven { what, .. } => {
            format!("{told}; that cannot be tried with a login of our own ({at}), so nothing is done about it: {what}")
        }
    }
}

/// `3 days 4 hours ago`.
fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", words(now.duration_since(whole_seconds(then))))
}

/// The two largest units of a duration, in words.
pub fn words(d: SignedDuration) -> String {
    let s = d.as_secs().max(0);
    let units = [("day", s / 86400), ("hour", s / 3600 % 24), ("minute", s / 60 % 60), ("second", s % 60)];
    let parts: Vec<String> = units
        .iter()
        .skip_while(|(_, n)| *n == 0)
        .take(2)
        .filter(|(_, n)| *n > 0)
        .map(|(unit, n)| format!("{n} {unit}{}", if *n == 1 { "" } else { "s" }))
        .collect();
    if parts.is_empty() { "0 seconds".into() } else { parts.join(" ") }
}
