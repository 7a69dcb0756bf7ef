//! `relaykey-rotate reactivate`: a deactivated key is brought back, whoever deactivated it.

use clap::Args;

use super::hosts::answered;
use super::{Exit, Session};
use crate::facts::KeyId;
use crate::run::Ask;

#[derive(Debug, Args)]
pub struct ReactivateArgs {
    /// The access key id, AKIA…
    #[arg(value_name = "KEY")]
    key: String,
}

pub async fn run(mut at: Session<'_>, args: &ReactivateArgs) -> Exit {
    let key = KeyId::new(args.key.clone());
    let done = format!("{key} is active");
    let exit = answered(&mut at, Ask::Reactivate { key }, "reactivate", &done).await;
    // Whoever was at work goes on at once. Where that fails, the lease ends by itself.
    let _ = at.controller.leave().await;
    exit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::lab::Lab;
    use crate::run::Tick;

    #[tokio::test]
    async fn a_key_is_brought_back_at_once_while_a_run_runs_which_goes_on_then() {
        let Some(lab) =
            Lab::of("cli::reactivate::tests::a_key_is_brought_back_at_once_while_a_run_runs_which_goes_on_then")
        else {
            return;
        };
        let mut at_work = lab.controller().await;
        assert!(matches!(at_work.tick().await, Ok(Tick::Turned(_))));
        let (key, _) = lab.aws.keys().remove(0);
        lab.aws.deactivated(&key);
        let args = ReactivateArgs { key: key.clone() };
        assert_eq!(run(lab.place().await, &args).await, Exit::Done);
        assert_eq!(lab.aws.keys(), [(key, true)]);
        let goes_on = at_work.tick().await;
        assert!(matches!(goes_on, Ok(Tick::Turned(_))), "{goes_on:?}");
    }
}
