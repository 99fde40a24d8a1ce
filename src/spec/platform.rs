//! What a program runs on, from the first bytes of its file. Pure.
//!
//! ELF, Mach-O (thin and fat) and PE say so in their headers; a script with `#!` runs wherever its interpreter is. Everything
//! else is refused by what it is, for a wrong file in a deploy is most often an archive, an object file or a page of text.
//! The file is never executed nor read beyond its head: that it runs is found out by running it.

mod elf;
mod macho;
mod pe;
mod script;

use crate::blobs::image::Platform;

/// How much of a file has to be looked at, in bytes. Linkers put the PE header within the first kilobyte, and a fat Mach-O file
/// has its list of platforms at its very beginning.
pub const HEAD_LEN: usize = 4_096;

/// What the head of a program says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detected {
    /// What it runs on: at least one, each once; several for a fat Mach-O file.
    pub platforms: Vec<Platform>,
    /// The interpreter of a script.
    pub interpreter: Option<String>,
}

impl Detected {
    fn one(os: &str, arch: &str) -> Self {
        Self { platforms: vec![Platform::new(os, arch)], interpreter: None }
    }
}

/// Why a file is no program. The messages say "it"; who knows the file's name puts it in front.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlatformError {
    /// The file is empty.
    #[error("it is empty")]
    Empty,
    /// The file ends, or the head that was read, before the header does.
    #[error("it is cut off: its {0} header is not whole")]
    CutOff(&'static str),
    /// An executable format, and yet no program: an object file, a library, a core dump.
    #[error("it is {0}, not a program")]
    NotAProgram(String),
    /// A program for a processor or system that narun has no name for.
    #[error("it is a program for {0}, which narun does not know")]
    UnknownPlatform(String),
    /// A `#!` line that no kernel can follow.
    #[error("its `#!` line {0}")]
    BadScript(String),
    /// Something else altogether.
    #[error("it is {0}; wanted an ELF, Mach-O or PE program, or a script that begins with `#!`")]
    NoExecutable(String),
}

/// Tells the platforms of a program by its head: the first [`HEAD_LEN`] bytes of its file, or all of a shorter one.
pub fn detect(head: &[u8]) -> Result<Detected, PlatformError> {
    if head.is_empty() {
        return Err(PlatformError::Empty);
    }
    let head = Head(head);
    match head.0 {
        [0x7f, b'E', b'L', b'F', ..] => elf::detect(head),
        [b'M', b'Z', ..] => pe::detect(head),
        [b'#', b'!', line @ ..] => script::detect(line),
        _ => macho::detect(head).unwrap_or_else(|| Err(PlatformError::NoExecutable(described(head.0)))),
    }
}

/// The head with numbers in it; what lies behind its end is none.
#[derive(Clone, Copy)]
struct Head<'a>(&'a [u8]);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Endian {
    Little,
    Big,
}

impl Head<'_> {
    fn bytes<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(self, at: usize, endian: Endian) -> Option<u16> {
        let bytes = self.bytes(at)?;
        Some(match endian {
            Endian::Little => u16::from_le_bytes(bytes),
            Endian::Big => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, at: usize, endian: Endian) -> Option<u32> {
        let bytes = self.bytes(at)?;
        Some(match endian {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        })
    }
}

/// What a file that is no program is, as far as its first bytes tell.
fn described(head: &[u8]) -> String {
    const BEGINNINGS: [(&[u8], &str); 16] = [
        (b"\x1f\x8b", "a gzip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"BZh", "a bzip2 archive"),
        (b"\xfd7zXZ\0", "an xz archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"!<arch>\n", "an ar archive (a static library or a Debian package)"),
        (b"\xed\xab\xee\xdb", "an RPM package"),
        (b"\xca\xfe\xba\xbe", "a Java class"),
        (b"\0asm", "a WebAssembly module"),
        (b"BC\xc0\xde", "LLVM bitcode"),
        (b"dex\n", "Android bytecode"),
        (b"%PDF", "a PDF document"),
        (b"\x89PNG", "a PNG image"),
        (b"\xef\xbb\xbf#!", "a script with a byte order mark before its `#!`, which the kernel does not skip"),
    ];
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| head.starts_with(beginning)) {
        return (*what).to_owned();
    }
    // The magic of tar(5) stands behind the header's names and numbers.
    if head.get(257..262) == Some(b"ustar") {
        return "a tar archive".to_owned();
    }
    if let Some(line) = first_line(head) {
        return format!("text without `#!` (it begins with `{}`)", super::tree::shortened(line));
    }
    let bytes: Vec<_> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("of no known format (it begins with the bytes {})", bytes.join(" "))
}

/// The first line, where the head is text. A character that the head's end cuts in two does not make it less so.
fn first_line(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{c}' | '\u{1b}');
    text.chars().all(printable).then(|| text.trim().lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests;
