//! PE: Windows. Numbers from Microsoft's "PE Format". Pure.

use super::{Detected, Endian, HEAD_LEN, Head, PlatformError};

/// Where the old DOS header says where the new one begins.
const OFFSET_AT: usize = 0x3c;

const EXECUTABLE_IMAGE: u16 = 0x0002;
const DLL: u16 = 0x2000;

pub(super) fn detect(head: Head<'_>) -> Result<Detected, PlatformError> {
    let cut_off = PlatformError::CutOff("PE");
    let dos = || PlatformError::NotAProgram("a DOS program or a file that only begins like one".to_owned());
    let Some(offset) = head.u32(OFFSET_AT, Endian::Little) else { return Err(cut_off) };
    let offset = usize::try_from(offset).map_err(|_| dos())?;
    if offset > HEAD_LEN {
        return Err(dos());
    }
    let Some(signature) = head.bytes::<4>(offset) else { return Err(cut_off) };
    if signature != *b"PE\0\0" {
        return Err(dos());
    }
    let machine = head.u16(offset + 4, Endian::Little);
    let traits = head.u16(offset + 22, Endian::Little);
    let Some((machine, traits)) = machine.zip(traits) else { return Err(cut_off) };
    if traits & DLL != 0 {
        return Err(PlatformError::NotAProgram("a Windows library (DLL)".to_owned()));
    }
    if traits & EXECUTABLE_IMAGE == 0 {
        return Err(PlatformError::NotAProgram("a PE file that was not linked".to_owned()));
    }
    let arch = match machine {
        0x8664 => "amd64",
        0xaa64 => "arm64",
        0x014c => "386",
        0x01c0 | 0x01c4 => "arm",
        other => {
            let what = format!("windows on the processor with PE number {other:#06x}");
            return Err(PlatformError::UnknownPlatform(what));
        }
    };
    Ok(Detected::one("windows", arch))
}
