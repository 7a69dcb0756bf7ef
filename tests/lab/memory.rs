//! What is in the memory of a process. Needs root.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

/// Everything in the private memory of a process, as the kernel shows it to root.
pub fn memory_has(pid: u32, needle: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its memory map");
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let writable = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|p| p.starts_with("rw")));
    for line in writable {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
        let mut bytes = vec![0; usize::try_from(number(to) - number(from)).expect("a size")];
        // Some regions are not there to be read, such as the kernel's own.
        let read = memory.seek(SeekFrom::Start(number(from))).and_then(|_| memory.read_exact(&mut bytes));
        if read.is_ok() && String::from_utf8_lossy(&bytes).contains(needle) {
            return true;
        }
    }
    false
}
