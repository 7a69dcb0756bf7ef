//! SMTP as it is on the wire (RFC 5321), both ways, for whoever sends: the login, the probe, e-mail reports.
//!
//! What is sent is a [`SmtpCommand`] or a [`WireMessage`], and there is no other way to make a byte leave: each is checked when it is
//! made, and each ends where it is meant to. A line end or a control character in a name, an address or a text would be
//! another command (RUSTSEC-2026-0561 was such a hole in a library).
//!
//! What is read is a [`SmtpReply`], or it is said why there is none: that the connection ended, or that what came is no SMTP. It is
//! read byte by byte, so that nothing is held back of what follows a reply: what comes after the answer to STARTTLS is left
//! to TLS, which refuses it.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// The longest command, without its end (RFC 5321, section 4.5.3.1.4).
const MAX_COMMAND: usize = 510;
/// The longest line of AUTH (RFC 4954, section 4), without its end.
const MAX_AUTH: usize = 12_286;
/// The longest line of a message, without its end (RFC 5321, section 4.5.3.1.6).
const MAX_LINE: usize = 998;

/// Why a text cannot be sent. It says where, and nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "byte {at} of the {what} is {byte:#04x}, which a mail server could take for the end of it, or for another command"
    )]
    Byte { what: &'static str, at: usize, byte: u8 },
    #[error("the {what} has {length} characters in one line, and SMTP has room for {most}")]
    Long { what: &'static str, length: usize, most: usize },
}

/// One line of a client's: printable ASCII and single blanks' worth of it, with its end. Wiped when dropped.
pub struct SmtpCommand(Zeroizing<Vec<u8>>);

impl SmtpCommand {
    /// Any command but AUTH. `what` it is about, for the error.
    pub fn new(what: &'static str, line: &str) -> Result<Self, Unfit> {
        Self::of(what, line, MAX_COMMAND)
    }

    /// A line of AUTH, which may be longer.
    pub fn auth(line: &str) -> Result<Self, Unfit> {
        Self::of("login", line, MAX_AUTH)
    }

    /// `EHLO NAME`.
    pub fn hello(name: &str) -> Result<Self, Unfit> {
        word("name of this host", name, "")?;
        Self::new("name of this host", &format!("EHLO {name}"))
    }

    /// `MAIL FROM:<ADDRESS>`.
    pub fn mail(address: &str) -> Result<Self, Unfit> {
        word("sender's address", address, "<>")?;
        Self::new("sender's address", &format!("MAIL FROM:<{address}>"))
    }

    /// `RCPT TO:<ADDRESS>`.
    pub fn rcpt(address: &str) -> Result<Self, Unfit> {
        word("recipient's address", address, "<>")?;
        Self::new("recipient's address", &format!("RCPT TO:<{address}>"))
    }

    /// A command of one word of ours.
    pub fn fixed(word: &'static str) -> Self {
        Self::new("command", word).expect("a word of ours fits")
    }

    fn of(what: &'static str, line: &str, most: usize) -> Result<Self, Unfit> {
        if let Some(at) = line.bytes().position(|b| !matches!(b, b' '..=b'~')) {
            return Err(Unfit::Byte { what, at: at + 1, byte: line.as_bytes()[at] });
        }
        if line.len() > most {
            return Err(Unfit::Long { what, length: line.len(), most });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(line.len() + 2));
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        Ok(Self(bytes))
    }
}

/// A text that is one argument: no blanks either, and none of these.
fn word(what: &'static str, text: &str, none_of: &str) -> Result<(), Unfit> {
    match text.bytes().position(|b| !b.is_ascii_graphic() || none_of.as_bytes().contains(&b)) {
        Some(at) => Err(Unfit::Byte { what, at: at + 1, byte: text.as_bytes()[at] }),
        None => Ok(()),
    }
}

/// A message, header and body: lines of ASCII that end with CR LF and fit (RFC 5321, section 4.5.3.1.6), without NUL, and
/// without a CR or an LF that stands alone. What some servers take for the end of a message, or of a line, it does not have.
pub struct WireMessage(Vec<u8>);

impl WireMessage {
    /// A line that ends with LF alone gets its CR; anything else that does not fit is an error.
    pub fn new(text: &[u8]) -> Result<Self, Unfit> {
        let mut lines = Vec::with_capacity(text.len() + 2);
        let mut at = 0;
        for line in text.split_inclusive(|b| *b == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            let content = content.strip_suffix(b"\r").filter(|_| line.ends_with(b"\n")).unwrap_or(content);
            // ASCII alone, since 8BITMIME is not asked for; and of its control characters the tab.
            if let Some(bad) = content.iter().position(|b| !matches!(b, b'\t' | b' '..=b'~')) {
                return Err(Unfit::Byte { what: "message", at: at + bad + 1, byte: content[bad] });
            }
            if content.len() > MAX_LINE {
                return Err(Unfit::Long { what: "message", length: content.len(), most: MAX_LINE });
            }
            lines.extend_from_slice(content);
            lines.extend_from_slice(b"\r\n");
            at += line.len();
        }
        Ok(Self(lines))
    }

    /// As it is stored: for a service that is no SMTP server.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// As it stands after DATA: a dot before each that begins a line, the end mark after it (RFC 5321, section 4.5.2).
    fn stuffed(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() + 16);
        for line in self.0.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(b".") {
                out.push(b'.');
            }
            out.extend_from_slice(line);
        }
        if out.is_empty() {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        out
    }
}

/// One reply: its code and its lines. The words are whatever the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpReply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl fmt::Display for SmtpReply {
    /// Code and words; further lines on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.lines.join("\n");
        match words.is_empty() {
            true => write!(f, "{}", self.code),
            false => write!(f, "{} {words}", self.code),
        }
    }
}

impl SmtpReply {
    /// The keyword of an extension in the answer to EHLO, and what follows it; keywords are the same in any case.
    pub fn extensions(&self) -> impl Iterator<Item = (String, &str)> {
        self.lines.iter().skip(1).map(|line| {
            // `AUTH=LOGIN` is how it was before RFC 2554; some still say so.
            let (keyword, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
            (keyword.trim().to_ascii_uppercase(), rest)
        })
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub enum DialogueError {
    /// The network, or TLS; `UnexpectedEof`: the other side closed the connection.
    Lost(io::Error),
    /// What came is no SMTP: what it was, whole and as it came, since what is quoted or cut hides a password from whoever
    /// looks for one before it is shown.
    Nonsense(String),
}

/// One connection.
pub struct Dialogue<S> {
    stream: S,
    /// How many bytes of replies are read, and how many still: whoever never ends one must not fill memory.
    most: usize,
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    /// Reads at most so many bytes in all.
    pub fn new(stream: S, most: usize) -> Self {
        Self { stream, most, left: most }
    }

    /// The stream, of which nothing was read beyond the last reply.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Sends one command and reads the reply.
    pub async fn ask(&mut self, command: &SmtpCommand) -> Result<SmtpReply, DialogueError> {
        self.send(&command.0).await?;
        self.reply().await
    }

    /// Sends a message, after DATA was answered with 354, and reads the reply.
    pub async fn hand_over(&mut self, message: &WireMessage) -> Result<SmtpReply, DialogueError> {
        self.send(&message.stuffed()).await?;
        self.reply().await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), DialogueError> {
        self.stream.write_all(bytes).await.map_err(DialogueError::Lost)?;
        self.stream.flush().await.map_err(DialogueError::Lost)
    }

    /// One reply (RFC 5321, section 4.2): every line with the same code, which may stand alone in the last one.
    pub async fn reply(&mut self) -> Result<SmtpReply, DialogueError> {
        let mut reply: Option<SmtpReply> = None;
        loop {
            let line = self.line().await?;
            let (code, last, words) = parse(&line)?;
            let reply = reply.get_or_insert(SmtpReply { code, lines: Vec::new() });
            if reply.code != code {
                return Err(DialogueError::Nonsense(format!("one reply with two codes, {} and {code}", reply.code)));
            }
            reply.lines.push(words);
            if last {
                return Ok(reply.clone());
            }
        }
    }

    /// One line, without its end. Of a server a line that ends with LF alone is taken.
    async fn line(&mut self) -> Result<Vec<u8>, DialogueError> {
        let mut line = Vec::new();
        loop {
            let Some(left) = self.left.checked_sub(1) else {
                return Err(DialogueError::Nonsense(format!("more than {} bytes of replies", self.most)));
            };
            let mut byte = [0];
            match self.stream.read(&mut byte).await.map_err(DialogueError::Lost)? {
                0 => return Err(DialogueError::Lost(io::ErrorKind::UnexpectedEof.into())),
                _ if byte == *b"\n" => break,
                _ => line.push(byte[0]),
            }
            self.left = left;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(line)
    }
}

/// Does it begin with a line of a reply, whole or not yet?
pub fn begins_as_a_reply(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    parse(line.strip_suffix(b"\r").unwrap_or(line)).is_ok()
}

/// Code, whether it is the last line, and the words of one line of a reply.
fn parse(line: &[u8]) -> Result<(u16, bool, String), DialogueError> {
    let nonsense = || DialogueError::Nonsense(String::from_utf8_lossy(line).into_owned());
    let (code, rest) = line.split_at_checked(3).ok_or_else(nonsense)?;
    // RFC 5321, section 4.2.1: the first digit is 2 to 5, the second 0 to 5; servers have gone beyond in the second.
    if !matches!(code, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return Err(nonsense());
    }
    let number = code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let (last, words) = match rest {
        [] => (true, &[][..]),
        [b' ', words @ ..] => (true, words),
        [b'-', words @ ..] => (false, words),
        _ => return Err(nonsense()),
    };
    Ok((number, last, String::from_utf8_lossy(words).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server that says these bytes and closes has said.
    fn heard(said: &[u8]) -> Result<SmtpReply, DialogueError> {
        let stream = tokio::io::join(said, tokio::io::sink());
        let run_time = tokio::runtime::Builder::new_current_thread().build().unwrap();
        run_time.block_on(Dialogue::new(stream, 4096).reply())
    }

    #[test]
    fn a_reply_is_a_reply_however_it_is_written() {
        let long = format!("250 {}\r\n", "x".repeat(4000));
        let table: [(&[u8], u16, &str); 15] = [
            (b"235 2.7.0 ok\r\n", 235, "235 2.7.0 ok"),
            (b"235\r\n", 235, "235"),
            (b"235 \r\n", 235, "235"),
            (b"235\n", 235, "235"),
            (b"535\r\n", 535, "535"),
            (b"535 no\n", 535, "535 no"),
            (b"235 ok\r\n535 more\r\n", 235, "235 ok"),
            (b"250-a\r\n250-b\r\n250 c\r\n", 250, "250 a\nb\nc"),
            (b"250-a\r\n250\r\n", 250, "250 a\n"),
            (b"250-\r\n250 \r\n", 250, "250 \n"),
            (b"454 \xff\xfe later\r\n", 454, "454 \u{fffd}\u{fffd} later"),
            (b"235 a\rb\r\n", 235, "235 a\rb"),
            (b"235\x20\x20two\r\n", 235, "235  two"),
            (b"599 x\r\n", 599, "599 x"),
            (long.as_bytes(), 250, long.trim_end()),
        ];
        for (said, code, words) in table {
            let reply = heard(said).unwrap_or_else(|e| panic!("{:?}: {e:?}", String::from_utf8_lossy(said)));
            assert_eq!((reply.code, reply.to_string().as_str()), (code, words), "{:?}", String::from_utf8_lossy(said));
        }
    }

    #[test]
    fn what_is_none_is_told_from_a_connection_that_ended() {
        let long = format!("235 {}", "x".repeat(5000));
        let endless = "250-a\r\n".repeat(1000);
        let nonsense: [&[u8]; 18] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"\n235 ok\r\n",
            b"23\r\n",
            b"235ok\r\n",
            b"235_ok\r\n",
            b"235\tok\r\n",
            b"2350\r\n",
            b"135 ok\r\n",
            b"635 ok\r\n",
            b"two three five\r\n",
            b"ok\r\n",
            b" 235 ok\r\n",
            b"235-ok\r\n535 no\r\n",
            b"235-ok\r\nAUTH\r\n",
            b"\x16\x03\x01\x02\n",
            long.as_bytes(),
            endless.as_bytes(),
        ];
        for said in nonsense {
            assert!(matches!(heard(said), Err(DialogueError::Nonsense(_))), "{:?}", String::from_utf8_lossy(said));
        }
        let cut: [&[u8]; 6] = [b"", b"2", b"235", b"235 ok\r", b"235-", b"235-ok\r\n"];
        for said in cut {
            let Err(DialogueError::Lost(e)) = heard(said) else { panic!("{:?}", String::from_utf8_lossy(said)) };
            assert_eq!(e.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn extensions_are_known_in_any_case() {
        let reply =
            heard(b"250-localhost\r\n250-starttls\r\n250-Auth plain LOGIN\r\n250-AUTH=PLAIN\r\n250 8bitmime\r\n")
                .unwrap();
        let all: Vec<_> = reply.extensions().collect();
        let expected = [("STARTTLS", ""), ("AUTH", "plain LOGIN"), ("AUTH", "PLAIN"), ("8BITMIME", "")];
        assert_eq!(all.iter().map(|(k, r)| (k.as_str(), *r)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_command_has_a_second_one_in_it() {
        for bad in [
            "a\r\nRCPT TO:<x@y>",
            "a\nb",
            "a\rb",
            "a\0b",
            "a b",
            "a\tb",
            "h\u{f6}st",
            "a\u{7f}",
            "\u{202e}a",
            "a\u{85}b",
        ] {
            assert!(SmtpCommand::hello(bad).is_err(), "{bad:?}");
            assert!(SmtpCommand::mail(&format!("{bad}@example.com")).is_err(), "{bad:?}");
            assert!(SmtpCommand::rcpt(&format!("x@{bad}")).is_err(), "{bad:?}");
        }
        for bad in ["a>b@example.com", "a@example.com> SIZE=1", "<a@example.com"] {
            assert!(SmtpCommand::mail(bad).is_err() && SmtpCommand::rcpt(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            *SmtpCommand::mail("o'hara+x@example.com").ok().unwrap().0,
            *b"MAIL FROM:<o'hara+x@example.com>\r\n"
        );
        assert_eq!(*SmtpCommand::hello("[IPv6:::1]").ok().unwrap().0, *b"EHLO [IPv6:::1]\r\n");
        let long = format!("{}@example.com", "x".repeat(600));
        assert!(matches!(SmtpCommand::rcpt(&long), Err(Unfit::Long { most: 510, .. })));
        assert!(SmtpCommand::auth(&"x".repeat(12_286)).is_ok() && SmtpCommand::auth(&"x".repeat(12_287)).is_err());
        assert!(SmtpCommand::auth("AUTH PLAIN a\r\nb").is_err());
    }

    #[test]
    fn a_message_ends_where_it_ends() {
        let sent = |text: &str| WireMessage::new(text.as_bytes()).map(|m| String::from_utf8(m.stuffed()).unwrap());
        for (text, expected) in [
            ("a\r\n.\r\n..b\r\nc.\r\n", "a\r\n..\r\n...b\r\nc.\r\n.\r\n"),
            ("a\n.\nMAIL FROM:<x@y>\n", "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"),
            ("a\n.\r\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("\n.\n", "\r\n..\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            ("", "\r\n.\r\n"),
            ("\ta\r\n", "\ta\r\n.\r\n"),
        ] {
            assert_eq!(sent(text).as_deref(), Ok(expected), "{text:?}");
            let end = sent(text).unwrap().find("\r\n.\r\n").unwrap();
            assert_eq!(end + 5, expected.len(), "{text:?}: nothing in it is taken for the end");
        }
        for bad in
            ["a\rb", "\r.\r\n", "a\r\r\n", "a\r", "\n\r.\n", "\0", "a\0\r\n", "\u{e4}", "\u{1b}[m", "\u{b}", "\u{7f}"]
        {
            assert!(matches!(sent(bad), Err(Unfit::Byte { .. })), "{bad:?}");
        }
        assert!(WireMessage::new(b"a\x85b").is_err());
        assert!(sent(&"x".repeat(998)).is_ok());
        assert_eq!(
            sent(&format!("{}\r\n", "x".repeat(999))),
            Err(Unfit::Long { what: "message", length: 999, most: 998 })
        );
    }
}
