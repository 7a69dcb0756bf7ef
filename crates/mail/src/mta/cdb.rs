//! The records of a `cdb` file (<https://cr.yp.to/cdb/cdb.txt>), one after the other: `postmap -s` cannot list that format.
//! Pure: it reads what it is handed, and keeps one record at a time.
//!
//! A file begins with 256 pairs (position, slots) of hash tables; the records follow, each as two lengths, key and data, up to
//! the first hash table. All numbers are 32 bits, little end first.

use std::io::{self, Read};

use zeroize::Zeroizing;

/// 256 pairs of two numbers of four bytes.
const HEADER: u64 = 2048;

/// Why the records cannot be listed. Carries none of them.
#[derive(Debug, thiserror::Error)]
pub enum CdbError {
    /// Not a file that `postmap` finished.
    #[error("it is no cdb file: {0}")]
    Format(&'static str),
    /// The file could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Calls `each` with key and data of every record of a file of `size` bytes, in the order in which they were added. The NUL
/// with which Postfix may end both is taken off.
///
/// # Errors
/// [`CdbError`]; records that come before what is wrong are given all the same.
pub fn records(file: impl Read, size: u64, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), CdbError> {
    let mut file = file.take(size);
    let mut header = [0; HEADER as usize];
    read(&mut file, &mut header, "it is shorter than its header")?;
    // Where the first of the hash tables begins, those without a slot included: that is where the records end.
    let mut end = size;
    for pair in header.chunks_exact(8) {
        let (position, slots) = (number(&pair[..4]), number(&pair[4..]));
        if position < HEADER || position + 8 * slots > size {
            return Err(CdbError::Format("a hash table lies outside"));
        }
        end = end.min(position);
    }
    let mut at = HEADER;
    let mut record = Zeroizing::new(Vec::new());
    while at < end {
        let mut lengths = [0; 8];
        if end - at < 8 {
            return Err(CdbError::Format("a record is cut"));
        }
        read(&mut file, &mut lengths, "a record is cut")?;
        let (key, data) = (number(&lengths[..4]), number(&lengths[4..]));
        at += 8 + key + data;
        if at > end {
            return Err(CdbError::Format("a record is longer than the file"));
        }
        let whole = usize::try_from(key + data).map_err(|_| CdbError::Format("a record is too long"))?;
        if record.capacity() < whole {
            // Not grown: that would leave a copy behind.
            record = Zeroizing::new(Vec::with_capacity(whole.next_power_of_two()));
        }
        record.resize(whole, 0);
        read(&mut file, &mut record, "a record is cut")?;
        let (key, data) = record.split_at(usize::try_from(key).expect("a part of it"));
        each(key.strip_suffix(b"\0").unwrap_or(key), data.strip_suffix(b"\0").unwrap_or(data));
    }
    Ok(())
}

fn number(bytes: &[u8]) -> u64 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes")).into()
}

fn read(file: &mut impl Read, into: &mut [u8], cut: &'static str) -> Result<(), CdbError> {
    file.read_exact(into).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => CdbError::Format(cut),
        _ => CdbError::Io(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without slots in its hash tables: they are not read.
    fn file(records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, data) in records {
            for part in [key, data] {
                body.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
            }
            body.extend_from_slice(key);
            body.extend_from_slice(data);
        }
        let end = u32::try_from(2048 + body.len()).unwrap();
        let mut file: Vec<u8> = (0..256).flat_map(|_| [end.to_le_bytes(), [0; 4]].concat()).collect();
        file.extend(body);
        file
    }

    fn list(file: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, CdbError> {
        let mut found = Vec::new();
        records(file, file.len() as u64, |key, data| found.push((key.to_vec(), data.to_vec())))?;
        Ok(found)
    }

    #[test]
    fn records_come_in_their_order() {
        assert_eq!(list(&file(&[])).unwrap(), []);
        let pair = |key: &[u8], data: &[u8]| (key.to_vec(), data.to_vec());
        let found = list(&file(&[(b"k\0", b"user:pass\0"), (b"", b""), (b"k", b"second")])).unwrap();
        assert_eq!(found, [pair(b"k", b"user:pass"), pair(b"", b""), pair(b"k", b"second")]);
    }

    #[test]
    fn a_broken_file_is_an_error_and_nothing_worse() {
        let whole = file(&[(b"key", b"user:pass"), (b"other", b"a:b")]);
        for cut in 0..whole.len() {
            assert!(list(&whole[..cut]).is_err(), "{cut}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = byte;
                let _ = list(&broken);
            }
        }
        // Lengths of four gigabytes, in a file that has no room for them.
        let mut broken = whole.clone();
        broken[2048..2056].fill(0xff);
        assert!(matches!(list(&broken), Err(CdbError::Format(_))));
    }
}
