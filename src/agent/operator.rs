//! Who asks, and what this host calls itself.

use crate::audit::{By, RecordCause};
use crate::text;

/// Whoever runs this process, by the kernel's word, and sudo's user as claimed.
pub fn operator() -> By {
    let plain = |text: String| text::plain(&text, 64);
    let claimed = std::env::var("SUDO_USER").ok().filter(|user| !user.is_empty()).map(plain);
    operator_with(rustix::process::getuid().as_raw(), claimed)
}

/// An operator with this user id. `claimed`: who they say to be, cut, and without what a terminal would obey; the control
/// socket sees to that for those who ask there.
pub fn operator_with(uid: u32, claimed: Option<String>) -> By {
    By { cause: RecordCause::Operator, user: user_name(uid), uid: Some(uid), claimed, detail: None }
}

/// The name of a user that this host knows itself; those of a directory service have none here.
fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    })
}

/// The fully qualified host name where the system knows one: the kernel's name if it has a dot, else the canonical
/// name that the hosts file gives for it, else the bare name.
pub fn host_name() -> String {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if node.contains('.') {
        return node;
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let full = hosts.lines().filter_map(|line| {
        let names: Vec<&str> = line.split('#').next()?.split_whitespace().skip(1).collect();
        names.contains(&node.as_str()).then(|| names.iter().find(|n| n.contains('.')).map(|n| (*n).to_owned()))?
    });
    full.into_iter().next().unwrap_or(node)
}
