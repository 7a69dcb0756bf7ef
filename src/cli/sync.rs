//! `relaykey sync`: a rollover now, through the daemon where one runs, else in this process.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::order::{self, OperatorOrder};
use super::{Exit, complain};
use crate::control;
use crate::credential::is_whole_access_key_id;
use crate::instruction::relaykey;
use crate::rollover::Wake;

#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Credentials to look at; all, where none is named.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show what would change, masked, after logging in with the candidate; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run, for root on a terminal: show what to do by hand with the password in it, instead of USER:***.
    #[arg(long, requires = "dry_run")]
    reveal: bool,
    /// Take this version although it is one that this host left behind, or not newer than the applied one.
    #[arg(long, value_name = "VERSION")]
    accept_version: Option<String>,
    /// Take this access key id as an earlier one of the credential, which is to be named: entries of the mail server that hold it
    /// are replaced from now on. For root.
    #[arg(long, value_name = "ID", conflicts_with = "dry_run")]
    previous: Option<String>,
    /// How long to wait for what fails for now, such as a key that SES does not know yet: 30s, 2m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = order::duration)]
    wait: Duration,
}

pub fn run(path: &Path, json: bool, args: &SyncArgs) -> Exit {
    if let Some((what, fix)) = may_not_reveal(json, args) {
        complain(what, fix);
        return Exit::Usage;
    }
    if let Some((what, fix)) = may_not_name(args, rustix::process::geteuid().is_root()) {
        complain(&what, &fix);
        return Exit::Usage;
    }
    let request = |names| {
        control::ControlRequest::Sync(control::SyncRequest {
            names,
            accept_version: args.accept_version.clone(),
            previous: args.previous.clone(),
            wait_seconds: order::seconds(args.wait),
        })
    };
    let order = OperatorOrder {
        names: &args.names,
        wake: Wake {
            accept_version: args.accept_version.clone(),
            previous: args.previous.clone(),
            dry_run: args.dry_run,
            ..Wake::default()
        },
        wait: args.wait,
        reveal: args.reveal,
        // One that changes nothing needs no daemon.
        request: if args.dry_run { None } else { Some(Box::new(request)) },
    };
    order::carry_out(path, json, &order)
}

/// Why `--previous` is not for this run, and what to do.
fn may_not_name(args: &SyncArgs, is_root: bool) -> Option<(String, String)> {
    let id = args.previous.as_ref()?;
    let [name] = args.names.as_slice() else {
        return Some((
            "--previous is about one credential".into(),
            format!("name it: {}", relaykey("sync NAME --previous ID")),
        ));
    };
    if !is_whole_access_key_id(id) {
        let what =
            "what --previous names has not the form of an access key id, and is not repeated here: it may be a secret"
                .into();
        let fix = format!(
            "name one as it stands in the mail server's table, AKIA and 16 more capitals and digits: {}",
            relaykey(format_args!("sync {name} --previous ID"))
        );
        return Some((what, fix));
    }
    (!is_root).then(|| ("--previous says which key is ours, and only root may".into(), "run it as root".into()))
}

/// Why `--reveal` is not for this run, and what to do; `None` where it is, or was not asked for.
fn may_not_reveal(json: bool, args: &SyncArgs) -> Option<(&'static str, &'static str)> {
    if !args.reveal {
        None
    } else if json {
        Some(("--reveal shows a password, and --json is for programs", "leave one of them out"))
    } else if !rustix::process::geteuid().is_root() {
        Some(("--reveal shows a password, and only to root", "run it as root"))
    } else if !std::io::stdout().is_terminal() {
        Some((
            "--reveal shows a password, and standard output is not a terminal",
            "run it on a terminal, with nothing behind it that could keep the output",
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_names_an_earlier_key() {
        let named = |previous: Option<&str>| SyncArgs {
            names: vec!["ses".into()],
            dry_run: false,
            reveal: false,
            accept_version: None,
            previous: previous.map(str::to_owned),
            wait: Duration::ZERO,
        };
        assert_eq!(may_not_name(&named(Some("AKIAEARLIER000000001")), true), None);
        let (what, fix) = may_not_name(&named(Some("AKIAEARLIER000000001")), false).expect("not for others");
        assert!(what.contains("only root may") && fix.contains("as root"), "{what} {fix}");
        assert_eq!(may_not_name(&named(None), false), None);
    }
}
