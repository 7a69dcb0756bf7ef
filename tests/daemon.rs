//! `relaykey run`, the real program, with a real Postfix and the SES stand-in: what wakes it, what it shows, how it ends.

#[path = "lab/relaykey.rs"]
mod lab;
#[path = "lab/moto.rs"]
mod moto;
#[path = "lab/postfix.rs"]
mod postfix;

use std::time::{Duration, Instant};

use lab::{Host, Key, Program, Setup};
use postfix::wait_for;

/// The longest that the daemon may take to do what it was woken for.
const SOON: Duration = Duration::from_secs(20);

impl Host {
    /// Starts the daemon and waits until its first look is done.
    fn daemon(&self) -> Program {
        let program = self.start(&["run"]);
        wait_for("the first look of the daemon", SOON, || {
            self.path("state").join("credentials/ses.json").exists().then(|| self.state("ses"))?["applied"]
                .is_object()
                .then_some(())
        });
        program
    }

    /// Waits until this key is the applied one.
    fn applied(&self, key: &Key) -> Duration {
        let began = Instant::now();
        wait_for("the new key to be applied", SOON, || {
            (self.state("ses")["applied"]["username"] == key.id.as_str()).then_some(())
        });
        began.elapsed()
    }
}

#[test]
fn sighup_looks_at_once() {
    let (old, new) = (Key::new(), Key::new());
    let host = Host::new("hash", &old);
    host.start_postfix();
    host.configure(&Setup { source: &host.publish(old.pair()), ..Setup::default() });
    let daemon = host.daemon();
    host.standin.set_key(&new.id, &new.login.password);
    host.publish(new.pair());
    daemon.signal(rustix::process::Signal::HUP);
    host.applied(&new);
    assert_eq!(host.send(), new.id);
    daemon.terminate();
    let ran = daemon.wait(SOON);
    assert_eq!(ran.code, 0, "{}", ran.err);
}
