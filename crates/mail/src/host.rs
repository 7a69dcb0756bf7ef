//! The operating system's side: files that are replaced whole or not at all, locks, commands, the process itself.
//!
//! Words: a [`Directory`] was checked from `/` down and is held open, and all work on its files is relative to it. A
//! *live* file is one that somebody reads; a *staged* one is its successor beside it, complete before it is renamed
//! over the live one. Live files are only ever renamed over: a hard link to the old one, or moving it aside, would
//! keep a running Postfix on the old credential, which looks at the link count.
//!
//! Every call that changes anything but a lock file, which holds nothing, passes [`mutate`], which numbers them, so that
//! tests can stop the program at exactly the n-th and replay every prefix. With the cargo feature `crash-at`, which
//! packages never have, `CRASH_AT=n` aborts the process just before the n-th call (counted from 1) and `CRASH_LOG=FILE`
//! records each.

mod choke;
mod command;
mod error;
mod files;
mod locks;
mod machine;
pub mod trust;
pub mod way;

pub use self::command::{Output, ending, looks_until, run, run_checking, run_listing, run_mutating};
pub use self::error::{HostError, Result, make_room};
pub use self::files::{
    Directory, FileId, Permissions, create_dir, look_marks, read, read_own, remove_successor, replace,
};
pub use self::locks::{Holder, Lock, LockHolder, PLACE as LOCK_PLACE, holder, lock_name, name_holder};
pub use self::machine::{boot_id, boot_seconds, process_hardening, time_namespace};

use self::choke::{Op, mutate};
use self::command::COMMAND_PATH;
use self::files::{ACL, MAX_LINKS, Stat, names, trusted};
