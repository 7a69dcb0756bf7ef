//! A receiver of reports that keeps them all: a program, as `exec` starts it.
//!

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use super::scratch;
use tempfile::TempDir;

/// Where a program without rights writes down every report that it is given; gone at the end.
pub struct Book(TempDir);

impl Book {
    pub fn new() -> Self {
        let dir = scratch::directory("book", 0o755);
        fs::create_dir(dir.path().join("out")).expect("a directory");
        fs::set_permissions(dir.path().join("out"), fs::Permissions::from_mode(0o777)).expect("chmod");
        Self(dir)
    }

    fn out(&self) -> PathBuf {
        self.0.path().join("out")
    }

    /// Takes none from now on, or all.
    #[cfg(feature = "crash-at")]
    pub fn set_down(&self, down: bool) {
        let flag = self.out().join("down");
        if down { fs::write(flag, "").expect("written") } else { fs::remove_file(flag).expect("removed") }
    }

    /// A `[[report]]` table called `book`: all reports come here.
    pub fn receiver(&self) -> String {
        let script = "test ! -e \"$1/down\" || exit 75; cat >> \"$1/book\"";
        let out = self.out();
        let command = ["/bin/sh", "-c", script, "report", out.to_str().expect("UTF-8")];
        format!("[[report]]\nname = \"book\"\ntype = \"exec\"\ncommand = {command:?}\n")
    }

    /// As [`Self::receiver`], of a program that takes a minute for each.
    pub fn slow_receiver(&self) -> String {
        let out = self.out();
        let script = "touch \"$1/busy\"; exec sleep 60";
        let command = ["/bin/sh", "-c", script, "report", out.to_str().expect("UTF-8")];
        format!("[[report]]\nname = \"book\"\ntype = \"exec\"\ntimeout = \"2m\"\ncommand = {command:?}\n")
    }

    /// Has the slow one begun?
    pub fn is_busy(&self) -> bool {
        self.out().join("busy").exists()
    }

    /// What it was given, in order.
    pub fn reports(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.out().join("book")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a report is one line of JSON")).collect()
    }
}
