//! Scripts: the `#!` line as the kernel reads it, execve(2). Pure.

use super::{Detected, PlatformError};
use crate::blobs::image::Platform;
use crate::spec::tree::shortened;

/// How much of a file the kernel looks at for the `#!` line (BINPRM_BUF_SIZE), the `#!` counted.
const LINE_LEN_MAX: usize = 256;

/// `line` is what follows the `#!`.
pub(super) fn detect(line: &[u8]) -> Result<Detected, PlatformError> {
    let bad = |problem: String| Err(PlatformError::BadScript(problem));
    let line = match line.iter().position(|byte| *byte == b'\n') {
        Some(end) => &line[..end],
        None => line,
    };
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = line.iter().position(|byte| !blank(byte)) else {
        return bad("names no interpreter".to_owned());
    };
    let path = &line[start..];
    let path = &path[..path.iter().position(blank).unwrap_or(path.len())];
    if 2 + start + path.len() >= LINE_LEN_MAX {
        return bad(format!("is longer than the {LINE_LEN_MAX} bytes that the kernel reads"));
    }
    let Ok(path) = std::str::from_utf8(path) else {
        return bad("names an interpreter that is no text".to_owned());
    };
    if line.ends_with(b"\r") {
        return bad(
            "ends in a carriage return, which becomes a part of the name; save it with Unix line ends".to_owned()
        );
    }
    if path.contains('\0') {
        return bad("holds a NUL character".to_owned());
    }
    if !path.starts_with('/') {
        return bad(format!("names `{}`, wanted a path from the root, such as `/usr/bin/env`", shortened(path)));
    }
    Ok(Detected { platforms: vec![Platform::any()], interpreter: Some(path.to_owned()) })
}
