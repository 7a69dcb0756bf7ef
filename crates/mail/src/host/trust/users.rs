//! The users of this host, as its passwd(5) has them.

use std::path::Path;

use super::read;
use crate::host::Result;

/// Where users are looked up. Directory services are not asked: they may hang, and their answer is somebody else's word.
const PASSWD: &str = "/etc/passwd";
/// The largest `passwd` that is read.
const MAX_PASSWD: usize = 4 * 1024 * 1024;

/// The number of a user of this host, by name, or the number itself: a container need not know the name.
///
/// # Errors
/// `/etc/passwd` cannot be read.
pub fn user_id(name: &str) -> Result<Option<u32>> {
    if let Ok(uid) = name.parse() {
        return Ok(Some(uid));
    }
    let passwd = read(Path::new(PASSWD), MAX_PASSWD)?;
    Ok(entries(&passwd).find(|entry| entry.name == name).map(|entry| entry.uid))
}

/// What a user is called, for messages.
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = read(Path::new(PASSWD), MAX_PASSWD).ok()?;
    entries(&passwd).find(|entry| entry.uid == uid).map(|entry| entry.name)
}

/// The group that processes of a user have, where there is such a user.
pub fn user_group(name: &str) -> Option<u32> {
    let passwd = read(Path::new(PASSWD), MAX_PASSWD).ok()?;
    entries(&passwd).find(|entry| entry.name == name).map(|entry| entry.gid)
}

/// What of a line of passwd(5) is used.
#[derive(Debug, PartialEq)]
pub(super) struct PasswdUser {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The users of a passwd(5) file; lines that are no entries are passed over.
pub(super) fn entries(passwd: &[u8]) -> impl Iterator<Item = PasswdUser> {
    passwd.split(|b| *b == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some(PasswdUser { name: name.to_owned(), uid: fields.nth(1)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    })
}
