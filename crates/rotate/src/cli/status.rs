//! `relaykey-rotate status`: how far a rotation is; `--watch`: again and again, until it is stopped.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use relaykey_core::text::json;

use super::plan::said_last;
use super::view::{Document, Stand, text};
use super::{Exit, Session, is_read, lab, refused};

/// How often is looked while somebody watches: each look reads every host's report.
const WATCH: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again and again, until it is stopped.
    #[arg(long)]
    watch: bool,
}

pub async fn run(mut at: Session<'_>, args: &StatusArgs) -> Exit {
    if !args.watch {
        return super::plan::run(at).await;
    }
    let clears = std::io::stdout().is_terminal() && !at.json;
    let pause = WATCH.min(Duration::try_from(at.credential.policy.reconcile).unwrap_or(WATCH));
    loop {
        let exit = match at.controller.look().await {
            Ok(look) => {
                let exit = Stand::of(&look).exit();
                let words = if at.json {
                    let document = Document::of(at.credential, &look, at.config.lab, exit);
                    json(&serde_json::to_string(&document).expect("documents have only text keys")).into_owned()
                } else {
                    let said = said_last(&mut at, &look).await;
                    if clears {
                        clear();
                    }
                    lab(at.config.lab, &text(at.credential, &look, said.as_deref()))
                };
                if !is_read(&words) {
                    return exit;
                }
                exit
            }
            Err(fault) if fault.temporary => refused(&fault),
            Err(fault) => return refused(&fault),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => return exit,
        }
    }
}

/// Home, and everything below it erased (ECMA-48, CUP and ED).
fn clear() {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(b"\x1b[H\x1b[J").and_then(|()| out.flush());
}
