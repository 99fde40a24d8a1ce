//! ELF: Linux and the BSDs. Numbers from elf(5) and the registries of the System V ABI. Pure.

use super::{Detected, Endian, Head, PlatformError};

const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;

pub(super) fn detect(head: Head<'_>) -> Result<Detected, PlatformError> {
    read(head).unwrap_or(Err(PlatformError::CutOff("ELF")))
}

/// None where the header ends too early.
fn read(head: Head<'_>) -> Option<Result<Detected, PlatformError>> {
    let [class, data, _, os_abi] = head.bytes(4)?;
    let endian = match data {
        1 => Endian::Little,
        2 => Endian::Big,
        _ => return Some(Err(not_a_program(format!("a damaged ELF file (byte order {data})")))),
    };
    let header_len = match class {
        CLASS_32 => 52,
        CLASS_64 => 64,
        _ => return Some(Err(not_a_program(format!("a damaged ELF file (class {class})")))),
    };
    head.0.get(..header_len)?;
    let file_type = head.u16(16, endian)?;
    let machine = head.u16(18, endian)?;
    // Eight bytes in class 64, four in class 32: all zero means that there is no entry point.
    let entry = head.0.get(24..if class == CLASS_64 { 32 } else { 28 })?;
    let kind = match file_type {
        2 => None,
        // A program that can be loaded anywhere, or a library; only the program has a place to begin at.
        3 if entry.iter().any(|byte| *byte != 0) => None,
        3 => Some("a shared library".to_owned()),
        1 => Some("an object file (it was not linked)".to_owned()),
        4 => Some("a core dump".to_owned()),
        other => Some(format!("an ELF file of type {other}")),
    };
    Some(match kind {
        Some(kind) => Err(not_a_program(kind)),
        None => platform(os_abi, machine, class, endian),
    })
}

fn not_a_program(what: String) -> PlatformError {
    PlatformError::NotAProgram(what)
}

fn platform(os_abi: u8, machine: u16, class: u8, endian: Endian) -> Result<Detected, PlatformError> {
    let os = match os_abi {
        // Linux's own programs say "System V" as a rule, and "Linux" where they use GNU extensions.
        0 | 3 => "linux",
        2 => "netbsd",
        6 => "solaris",
        9 => "freebsd",
        12 => "openbsd",
        other => return Err(PlatformError::UnknownPlatform(format!("the system with ELF number {other}"))),
    };
    let arch = match (machine, class, endian) {
        (62, CLASS_64, Endian::Little) => "amd64",
        (183, CLASS_64, Endian::Little) => "arm64",
        (243, CLASS_64, Endian::Little) => "riscv64",
        (3, CLASS_32, Endian::Little) => "386",
        (40, CLASS_32, Endian::Little) => "arm",
        (21, CLASS_64, Endian::Little) => "ppc64le",
        (21, CLASS_64, Endian::Big) => "ppc64",
        (20, CLASS_32, Endian::Big) => "ppc",
        (22, CLASS_64, Endian::Big) => "s390x",
        (258, CLASS_64, Endian::Little) => "loong64",
        (8, CLASS_32, Endian::Big) => "mips",
        (8, CLASS_32, Endian::Little) => "mipsle",
        (8, CLASS_64, Endian::Big) => "mips64",
        (8, CLASS_64, Endian::Little) => "mips64le",
        (43, CLASS_64, Endian::Big) => "sparc64",
        _ => {
            let bits = if class == CLASS_64 { 64 } else { 32 };
            let order = if endian == Endian::Little { "little" } else { "big" };
            let what = format!("{os} on the processor with ELF number {machine} ({bits} bits, {order} endian)");
            return Err(PlatformError::UnknownPlatform(what));
        }
    };
    Ok(Detected::one(os, arch))
}
