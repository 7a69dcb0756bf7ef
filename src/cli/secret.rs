//! Secrets that a person types or another program hands over: not in arguments, not in the environment.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::credential::MAX_PAYLOAD;

/// What went wrong, and what to do.
pub type Unread = (String, String);

/// Does the terminal show what is typed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    On,
    Off,
}

/// One line that a person types at the terminal, whatever standard input is. `instead`: how to do without one.
pub fn ask(prompt: &str, echo: Echo, instead: &str) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let unread = |e: io::Error| (format!("cannot ask at the terminal: {e}"), instead.to_owned());
    let mut terminal = File::options().read(true).write(true).open("/dev/tty").map_err(unread)?;
    let quiet = (echo == Echo::Off).then(|| EchoOff::new(&terminal)).flatten();
    (&terminal).write_all(prompt.as_bytes()).map_err(unread)?;
    // By hand, because a buffered reader would keep a copy.
    let (mut line, mut have) = (Zeroizing::new(vec![0; MAX_PAYLOAD + 1]), 0);
    while have < line.len() && !line[..have].ends_with(b"\n") {
        match (&terminal).read(&mut line[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(unread(e)),
        }
    }
    line.truncate(have);
    drop(quiet);
    if echo == Echo::Off {
        let _ = terminal.write_all(b"\n");
    }
    Ok(line)
}

/// Everything that a file descriptor gives, which whoever started this program has opened for it.
pub fn from_descriptor(number: u32) -> Result<Zeroizing<Vec<u8>>, Unread> {
    let fix = format!("open it for relaykey, for example {number}<FILE at the end of the command line");
    let unread = |e: io::Error| match e.kind() {
        ErrorKind::NotFound => (format!("file descriptor {number} is not open"), fix.clone()),
        _ => (format!("cannot read file descriptor {number}: {e}"), fix.clone()),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PAYLOAD + 1));
    let file = File::open(format!("/proc/self/fd/{number}")).map_err(unread)?;
    file.take(MAX_PAYLOAD as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() > MAX_PAYLOAD {
        let what = format!("file descriptor {number} gives more than {MAX_PAYLOAD} bytes: that is something else");
        return Err((what, fix));
    }
    Ok(bytes)
}

/// Turns the echo of a terminal off until dropped.
pub struct EchoOff<T: AsFd> {
    terminal: T,
    before: Termios,
}

impl<T: AsFd> EchoOff<T> {
    /// `None`: it is no terminal.
    pub fn new(terminal: T) -> Option<Self> {
        let before = tcgetattr(&terminal).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &quiet).ok()?;
        Some(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for EchoOff<T> {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}
