//! `relaykey-rotate hosts`: who has a say in a rotation, and what people know about them.

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use relaykey::host;
use relaykey_core::config::value::is_host_name;
use relaykey_core::config::value::similar;

use super::view::{Document, Stand, confirmed, hosts, hosts_reported, number, put, seals_now, span, stamp};
use super::{Exit, Session, complain, print_json, print_json_line, refused, view};
use crate::evidence::is_silent;
use crate::facts::{Host, HostName, Part};
use crate::retire;
use crate::run::{Answer, Ask, Look};
use crate::words::called;

/// The longest time that a waiver may be for.
const LONGEST_WAIVER: SignedDuration = SignedDuration::from_hours(90 * 24);

#[derive(Debug, Subcommand)]
pub enum HostsCommand {
    /// Every host that is counted, the worst first.
    List,
    /// A host that has not reported yet is waited for.
    Add(AddArgs),
    /// A host that is gone is not waited for any more, until it reports again.
    Remove(RemoveArgs),
    /// A host is silent, or cannot prove what it says, and a person vouches for it. Never covers a host that names the old key.
    Waive(WaiveArgs),
    /// Takes a waiver back.
    Unwaive(HostArgs),
    /// The roster is complete: no old key is retired before that was said. Said again, it starts the clocks anew.
    Seal(SealArgs),
    /// Another machine, or another AWS identity, may report under this host's name.
    Accept(AcceptArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    #[arg(value_name = "HOST", value_parser = a_host_name)]
    host: String,
}

#[derive(Debug, Args)]
pub struct HostArgs {
    #[arg(value_name = "HOST")]
    host: String,
}

#[derive(Debug, Args)]
pub struct AcceptArgs {
    #[arg(value_name = "HOST")]
    host: String,
    /// Which one, where several write under this name: its principal, or its host_id. What the others wrote is deleted.
    #[arg(value_name = "WHO")]
    who: Option<String>,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[arg(value_name = "HOST")]
    host: String,
    /// It reports, and is removed all the same.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct WaiveArgs {
    #[arg(value_name = "HOST")]
    host: String,
    /// Why, in ten characters or more; it is shown wherever the host is, with who you are to AWS.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long; 90d at most.
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = days)]
    length: SignedDuration,
    /// More than a tenth of the hosts may be waived.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub struct SealArgs {
    /// How many mail servers there are. May be left out where it was said before.
    #[arg(long, value_name = "N", value_parser = how_many)]
    expect: Option<usize>,
}

/// `30d`, or anything that has hours, minutes and seconds.
pub fn days(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let length = match days {
        Some(days) => SignedDuration::from_hours(i64::from(days) * 24),
        None => text.parse().map_err(|_| "write a number with its unit: 30d, 4h, 90s".to_owned())?,
    };
    match length.is_positive() && length <= SignedDuration::from_hours(366 * 24) {
        true => Ok(length),
        false => Err("choose a time of more than nothing, and less than a year".into()),
    }
}

/// A name that no agent reports under would be waited for in vain: the agent takes none but these either.
pub fn a_host_name(text: &str) -> Result<String, String> {
    match is_host_name(text) {
        true => Ok(text.to_owned()),
        false => Err("write the host's name as `relaykey status` on it says it: letters, digits, `-` and `.`".into()),
    }
}

fn how_many(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write how many mail servers there are, as a number".into())
}

pub async fn run(mut at: Session<'_>, command: &HostsCommand) -> Exit {
    let name = |args: &HostArgs| HostName::new(args.host.clone());
    match command {
        HostsCommand::List => list(at).await,
        HostsCommand::Add(args) => {
            let done = format!("{} is waited for", args.host);
            answered(&mut at, Ask::Add { host: HostName::new(args.host.clone()) }, "add", &done).await
        }
        HostsCommand::Remove(args) => remove(at, args).await,
        HostsCommand::Unwaive(args) => {
            if let Err(exit) = known(&mut at, &args.host).await {
                return exit;
            }
            let done = format!("{} has to speak for itself again", args.host);
            answered(&mut at, Ask::Unwaive { host: name(args) }, "unwaive", &done).await
        }
        HostsCommand::Accept(args) => {
            if let Err(exit) = known(&mut at, &args.host).await {
                return exit;
            }
            let who = args.who.as_ref().map_or_else(|| format!("the one that writes as {}", args.host), Clone::clone);
            let done = format!("{who} is {} from now on", args.host);
            let ask = Ask::Accept { host: HostName::new(args.host.clone()), who: args.who.clone() };
            answered(&mut at, ask, "accept", &done).await
        }
        HostsCommand::Waive(args) => waive(at, args).await,
        HostsCommand::Seal(args) => seal(at, args).await,
    }
}

/// A look, if this is the name of a host in it: what is said of a misspelt one would stand there for nothing.
async fn known(at: &mut Session<'_>, name: &str) -> Result<Look, Exit> {
    let look = at.controller.look().await.map_err(|fault| refused(&fault))?;
    if let Some(fault) = look.faults.first().filter(|_| look.facts.gaps.iter().any(|gap| gap.part == Part::Fleet)) {
        return Err(refused(fault));
    }
    let facts = &look.facts;
    let all = facts.fleet.iter().map(|host| &host.name).chain(&facts.gone).chain(&facts.record.roster.names);
    let all: BTreeSet<&str> = all.map(HostName::as_str).collect();
    if all.contains(name) {
        return Ok(look);
    }
    let fix = match (similar(name, &all.iter().copied().collect::<Vec<_>>()), all.len()) {
        (_, 0) => "no host has reported yet".to_owned(),
        (Some(meant), _) => format!("did you mean {meant}? `{} hosts list` shows all", called()),
        (None, n) if n <= 10 => format!("there are: {}", all.into_iter().collect::<Vec<_>>().join(", ")),
        (None, _) => format!("`{} hosts list` shows all", called()),
    };
    complain(&format!("no host is named {name:?}"), &fix);
    Err(Exit::Usage)
}

/// It reports: nothing says that it is gone.
fn lives<'a>(look: &'a Look, name: &str) -> Option<&'a Host> {
    let alive = |host: &&Host| host.name.as_str() == name && host.heard.is_some() && !is_silent(host, look.now);
    look.facts.fleet.iter().find(alive)
}

async fn remove(mut at: Session<'_>, args: &RemoveArgs) -> Exit {
    let look = match known(&mut at, &args.host).await {
        Ok(look) => look,
        Err(exit) => return exit,
    };
    let host = lives(&look, &args.host);
    if let Some((host, heard)) = host.filter(|_| !args.yes).and_then(|host| Some((host, host.heard?))) {
        let uses = host.standing.as_ref().map(|standing| format!(", and uses {}", standing.key)).unwrap_or_default();
        complain(
            &format!(
                "{} reported {} ago{uses}: nobody would wait for it",
                args.host,
                span(look.now.duration_since(heard))
            ),
            &format!(
                "shut relaykey down on it first; if it is meant so, `{} hosts remove {} --yes`",
                called(),
                host::trust::quoted(&args.host)
            ),
        );
        return Exit::Usage;
    }
    let done = match host {
        Some(_) => format!("{} is not waited for any more, until it reports again", args.host),
        None => format!("{} is not waited for any more", args.host),
    };
    answered(&mut at, Ask::Remove { host: HostName::new(args.host.clone()) }, "remove", &done).await
}

async fn list(mut at: Session<'_>) -> Exit {
    let look = match at.controller.look().await {
        Ok(look) => look,
        Err(fault) => return refused(&fault),
    };
    if at.json {
        print_json(&Document::of(at.credential, &look, at.config.lab, Exit::Done));
    } else {
        at.say(list_text(&look).trim_end());
    }
    // That they could be listed is all that was asked.
    match Stand::of(&look) {
        Stand::ForGood if !look.facts.gaps.is_empty() => Exit::ForGood,
        Stand::ForNow if !look.facts.gaps.is_empty() => Exit::ForNow,
        _ => Exit::Done,
    }
}

fn list_text(look: &Look) -> String {
    let mut out = String::new();
    let hosts = hosts(look);
    let roster = &look.facts.record.roster;
    let sealed = match (roster.sealed_at, roster.expect) {
        (Some(_), _) if seals_now(look) => "the roster is sealed with the next look of a run".into(),
        (Some(at), _) => {
            format!("the roster is sealed since {}, with {}", stamp(at), number(roster.names.len(), "host"))
        }
        (None, Some(expect)) => format!("the roster is sealed when {}", hosts_reported(expect)),
        (None, None) => "the roster is not sealed".into(),
    };
    let reported = hosts_reported(retire::heard_of(&look.facts, look.now));
    put(&mut out, "", "  ", &format!("{reported}; {sealed}"));
    put(&mut out, "", "  ", &confirmed(&hosts));
    for view in &hosts {
        let host = view.host;
        let heard = match host.heard {
            Some(at) => format!("heard of {} ago", span(look.now.duration_since(at))),
            None => "never heard of".into(),
        };
        let poll = host.poll.map(|poll| format!(", asks every {}", span(poll))).unwrap_or_default();
        let key = host.standing.as_ref().map(|standing| format!(", uses {}", standing.key)).unwrap_or_default();
        let waived = match (&host.waiver, view.waived) {
            (Some(waiver), true) => format!(", waived until {}: {}", stamp(waiver.until), waiver.reason),
            _ => String::new(),
        };
        let words = format!("{}{key}; {heard}{poll}{waived}", view.verdict);
        put(&mut out, &format!("  {:<16} ", host.name.as_str()), "      ", &words);
    }
    out
}

async fn waive(mut at: Session<'_>, args: &WaiveArgs) -> Exit {
    if args.reason.trim().chars().count() < 10 {
        complain(
            "the reason has less than ten characters",
            "say why the host need not prove it: --reason \"down for repair\"",
        );
        return Exit::Usage;
    }
    if args.length > LONGEST_WAIVER {
        complain("a waiver is for 90 days at most", "--for 90d; whoever still needs it then says so again");
        return Exit::Usage;
    }
    let look = match known(&mut at, &args.host).await {
        Ok(look) => look,
        Err(exit) => return exit,
    };
    let others = hosts(&look).iter().filter(|view| view.waived && view.host.name.as_str() != args.host).count();
    let all = look.facts.fleet.len();
    if (others + 1) * 10 > all && !args.yes {
        complain(
            &format!(
                "{} of {} would be waived: more than a tenth proves little about the rest",
                others + 1,
                number(all, "host")
            ),
            "look at the host; if it is meant so, the same with --yes",
        );
        return Exit::Usage;
    }
    let until = Timestamp::now() + args.length;
    let done = format!("{} is waived until {}", args.host, stamp(until));
    let ask = Ask::Waive { host: HostName::new(args.host.clone()), reason: args.reason.trim().to_owned(), until };
    answered(&mut at, ask, "waive", &done).await
}

async fn seal(mut at: Session<'_>, args: &SealArgs) -> Exit {
    let look = match at.controller.look().await {
        Ok(look) => look,
        Err(fault) => return refused(&fault),
    };
    let (roster, heard) = (&look.facts.record.roster, retire::heard_of(&look.facts, look.now));
    let before = roster.expect.or(Some(roster.names.len()).filter(|_| roster.sealed_at.is_some()));
    let Some(expect) = args.expect.or(before) else {
        complain(
            &format!("how many mail servers are there? {} so far", hosts_reported(heard)),
            &format!("count your mail servers, and say it: `{} hosts seal --expect N`", called()),
        );
        return Exit::Usage;
    };
    if expect == 0 {
        complain("a roster of no hosts protects nobody", "count your mail servers, and say it with --expect");
        return Exit::Usage;
    }
    let counted = retire::counted(&look.facts);
    if args.expect.is_some() && expect < counted {
        complain(
            &format!("more hosts than {expect} are counted already: {counted}"),
            &format!(
                "take out what is gone (`{} hosts list`, `{} hosts remove HOST`); else say how many there are",
                called(),
                called()
            ),
        );
        return Exit::Usage;
    }
    let done = match heard >= expect {
        true => format!("the roster is sealed: {} expected, {heard} reported", number(expect, "host")),
        false => format!("the roster is sealed as soon as {}; {heard} so far", hosts_reported(expect)),
    };
    let exit = answered(&mut at, Ask::Seal { expect }, "seal", &done).await;
    // It waits for the others.
    if exit == Exit::Done && heard < expect { Exit::People } else { exit }
}

/// Asks, and says what became of it.
pub async fn answered(at: &mut Session<'_>, ask: Ask, word: &str, done: &str) -> Exit {
    let answer = match at.controller.ask(ask).await {
        Ok(answer) => answer,
        Err(fault) => return refused(&fault),
    };
    let (outcome, words) = match &answer {
        Answer::Done => ("done", done.to_owned()),
        Answer::WasSo => ("was-so", format!("{done}; it was so already")),
    };
    if at.json {
        print_json_line(&serde_json::json!({
            "schema": view::SCHEMA,
            "credential": at.credential.name,
            "asked": word,
            "outcome": outcome,
            "words": words,
            "exit": Exit::Done.code(),
        }));
    } else {
        at.say(&words);
    }
    Exit::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::lab::Lab;

    #[tokio::test]
    async fn what_is_said_of_hosts_is_not_said_by_mistake() {
        let Some(lab) = Lab::of("cli::hosts::tests::what_is_said_of_hosts_is_not_said_by_mistake") else { return };
        let said = async |command: HostsCommand| run(lab.place().await, &command).await;
        for name in ["mx1", "mx2"] {
            assert_eq!(said(HostsCommand::Add(AddArgs { host: name.into() })).await, Exit::Done);
        }
        // Nobody of that name is there.
        let remove = |host: &str| HostsCommand::Remove(RemoveArgs { host: host.into(), yes: true });
        assert_eq!(said(remove("mx3")).await, Exit::Usage);
        assert_eq!(said(HostsCommand::Unwaive(HostArgs { host: "mx3".into() })).await, Exit::Usage);
        // The first waiver is half of all.
        let waive = |host: &str, yes| {
            let (host, reason) = (host.to_owned(), "down for repair".to_owned());
            HostsCommand::Waive(WaiveArgs { host, reason, length: SignedDuration::from_hours(24), yes })
        };
        assert_eq!(said(waive("mx3", true)).await, Exit::Usage);
        assert_eq!(said(waive("mx1", false)).await, Exit::Usage);
        assert_eq!(said(waive("mx1", true)).await, Exit::Done);
        // Who is counted already is not left out.
        assert_eq!(said(HostsCommand::Seal(SealArgs { expect: Some(1) })).await, Exit::Usage);
        assert_eq!(said(HostsCommand::Seal(SealArgs { expect: Some(2) })).await, Exit::People);
        assert_eq!(said(remove("mx2")).await, Exit::Done);
    }
}
