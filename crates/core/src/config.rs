//! Reading a configuration file: every mistake at once, each with its line and its fix. Pure: whoever has the text, and made
//! sure of who could have written it, asks [`read`] for what is in it.
//!
//! Each program has its own file with its own sections. What they share is here: the walk over the file ([`Reader`]), what
//! may stand where ([`Schema`], a value), judges of single values ([`value`], [`url`]), weekly hours ([`Window`]) and the
//! section `[aws]`. A program says in its [`Schema`] what it calls things; nothing here knows a program's own keys.
//!
//! A configuration holds no secrets, but people put them there by mistake. So a finding names an unknown key without
//! its value, and a quoted line shows the value only of keys whose values are harmless.

pub mod aws;
mod hidden;
mod reader;
mod render;
pub mod schema;
mod syntax;
pub mod url;
pub mod value;
mod window;

pub use toml::de::DeValue;

pub use self::aws::{AWS, Aws};
pub use self::hidden::may_hold_a_secret;
pub use self::reader::{At, Reader, SectionView, read, text_at};
pub use self::render::{quotable, render_text};
pub use self::schema::{Schema, SchemaKey, Section};
pub use self::window::{Opening, Window};

/// The largest configuration file, in bytes. A file above it is something else.
pub const MAX_FILE: u64 = 1 << 20;

/// A file that is not UTF-8 text, or has a NUL byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotText {
    /// 1-based, of the first byte that is wrong.
    pub line: usize,
    /// 0-based offset of that byte in the file.
    pub offset: usize,
    /// The byte itself.
    pub byte: u8,
}

/// The text of a file.
///
/// # Errors
/// It is none: where the first byte is that cannot be.
pub fn text_of(bytes: Vec<u8>) -> Result<String, NotText> {
    let nul = bytes.iter().position(|b| *b == 0);
    let not_text = |bytes: &[u8], offset: usize| NotText {
        line: bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1,
        offset,
        byte: bytes[offset],
    };
    match String::from_utf8(bytes) {
        Ok(text) => match nul {
            Some(offset) => Err(not_text(text.as_bytes(), offset)),
            None => Ok(text),
        },
        Err(e) => {
            let broken = e.utf8_error().valid_up_to();
            Err(not_text(e.as_bytes(), nul.map_or(broken, |nul| nul.min(broken))))
        }
    }
}

#[cfg(test)]
mod tests;
