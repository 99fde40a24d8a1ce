//! Mach-O: macOS, thin (one platform) and fat (several). Numbers from `mach-o/loader.h` and `mach-o/fat.h`. Pure.

use super::{Detected, Endian, Head, PlatformError};
use crate::blobs::image::Platform;

/// Most slices of a fat file. A Java class begins with the same four bytes; where a fat file has its count, the class has its
/// version, which is 45 or more. No fat file comes near.
const SLICES_MAX: u32 = 30;

/// None where the head is no Mach-O at all.
pub(super) fn detect(head: Head<'_>) -> Option<Result<Detected, PlatformError>> {
    match head.bytes(0)? {
        [0xfe, 0xed, 0xfa, 0xce | 0xcf] => Some(thin(head, Endian::Big)),
        [0xce | 0xcf, 0xfa, 0xed, 0xfe] => Some(thin(head, Endian::Little)),
        [0xca, 0xfe, 0xba, 0xbe] if head.u32(4, Endian::Big).is_none_or(|count| count <= SLICES_MAX) => {
            Some(fat(head, 20))
        }
        // Its offsets have 64 bits; the number belongs to no Java class.
        [0xca, 0xfe, 0xba, 0xbf] => Some(fat(head, 32)),
        _ => None,
    }
}

fn thin(head: Head<'_>, endian: Endian) -> Result<Detected, PlatformError> {
    let cut_off = || PlatformError::CutOff("Mach-O");
    let processor = head.u32(4, endian).ok_or_else(cut_off)?;
    let file_type = head.u32(12, endian).ok_or_else(cut_off)?;
    let kind = match file_type {
        2 => return arch(processor).map(|arch| Detected::one("darwin", arch)).ok_or_else(|| unknown(processor)),
        1 => "an object file (it was not linked)".to_owned(),
        4 => "a core dump".to_owned(),
        6 => "a shared library".to_owned(),
        8 => "a plug-in bundle".to_owned(),
        10 => "a file of debug symbols".to_owned(),
        other => format!("a Mach-O file of type {other}"),
    };
    Err(PlatformError::NotAProgram(kind))
}

fn fat(head: Head<'_>, slice_len: usize) -> Result<Detected, PlatformError> {
    let cut_off = || PlatformError::CutOff("fat Mach-O");
    let count = head.u32(4, Endian::Big).ok_or_else(cut_off)?;
    if count == 0 || count > SLICES_MAX {
        return Err(PlatformError::NotAProgram(format!("a fat Mach-O file with {count} slices")));
    }
    let mut platforms: Vec<Platform> = Vec::new();
    let mut unknown_processor = 0;
    for position in 0..count as usize {
        let processor = head.u32(8 + position * slice_len, Endian::Big).ok_or_else(cut_off)?;
        match arch(processor) {
            // One processor may have two slices, for its sub-types.
            Some(arch) if platforms.iter().all(|known| known.arch != arch) => {
                platforms.push(Platform::new("darwin", arch));
            }
            Some(_) => {}
            None => unknown_processor = processor,
        }
    }
    // A slice for a processor of long ago does not keep the others from running.
    if platforms.is_empty() { Err(unknown(unknown_processor)) } else { Ok(Detected { platforms, interpreter: None }) }
}

fn arch(processor: u32) -> Option<&'static str> {
    Some(match processor {
        0x0100_0007 => "amd64",
        0x0100_000c => "arm64",
        0x0000_0007 => "386",
        0x0000_000c => "arm",
        0x0000_0012 => "ppc",
        0x0100_0012 => "ppc64",
        _ => return None,
    })
}

fn unknown(processor: u32) -> PlatformError {
    PlatformError::UnknownPlatform(format!("darwin on the processor with Mach-O number {processor:#x}"))
}
