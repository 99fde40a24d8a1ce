//! The files of a deploy: what they are, before anything is sent. A shell that reads files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::blobs::image::Platform;
use crate::ids::BlobHash;
use crate::spec::platform::{HEAD_LEN, detect};

use super::failure::Failure;

/// A program, looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Binary {
    pub(super) path: PathBuf,
    /// Without its folder.
    pub(super) file_name: String,
    /// What it runs on: several for a fat Mach-O file.
    pub(super) platforms: Vec<Platform>,
    pub(super) hash: BlobHash,
    pub(super) size: u64,
}

/// Looks at every file: each must be a program for platforms that no other one is for. Reads each of them to its end, so that
/// an unreadable one is found before the first upload. All that is wrong is told at once.
pub(super) fn look_at(paths: &[PathBuf]) -> Result<Vec<Binary>, Failure> {
    let mut binaries: Vec<Binary> = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        match look(path) {
            Ok(binary) => {
                wrong.extend(clash(&binaries, &binary));
                binaries.push(binary);
            }
            Err(reason) => wrong.push(format!("cannot deploy {}: {reason}", path.display())),
        }
    }
    match wrong.as_slice() {
        [] => Ok(binaries),
        [one] => Err(Failure::failed(one)),
        several => Err(Failure::failed(format!("the binaries cannot be deployed:\n  {}", several.join("\n  ")))),
    }
}

fn clash(others: &[Binary], binary: &Binary) -> Option<String> {
    let other =
        others.iter().find(|other| other.platforms.iter().any(|platform| binary.platforms.contains(platform)))?;
    let platform = other.platforms.iter().find(|platform| binary.platforms.contains(platform))?;
    let (first, second) = (other.path.display(), binary.path.display());
    Some(format!("{first} and {second} are both for {platform}: one binary for each platform"))
}

fn look(path: &Path) -> Result<Binary, String> {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    let found = std::fs::metadata(path).map_err(told)?;
    if found.is_dir() {
        return Err("it is a directory; name the program in it".to_owned());
    }
    if !found.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut file = File::open(path).map_err(told)?;
    let mut head = Vec::with_capacity(HEAD_LEN);
    (&mut file).take(HEAD_LEN as u64).read_to_end(&mut head).map_err(told)?;
    let platforms = detect(&head).map_err(|error| error.to_string())?.platforms;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head);
    hasher.update_reader(&file).map_err(told)?;
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Binary {
        path: path.to_owned(),
        file_name,
        platforms,
        hash: BlobHash(*hasher.finalize().as_bytes()),
        size: hasher.count(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The smallest thin Mach-O head of that processor.
    fn mach_o(cpu: u32) -> Vec<u8> {
        let words = [0xfeed_facf_u32, cpu, 0, 2, 0, 0, 0, 0];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn told(paths: &[PathBuf]) -> String {
        look_at(paths).unwrap_err().text()
    }

    #[test]
    fn a_program_is_known_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let content = [b"#!/bin/sh\n".to_vec(), vec![b'#'; 3 * HEAD_LEN]].concat();
        let script = file(dir.path(), "run.sh", &content);
        let me = PathBuf::from("/proc/self/exe");
        let found = look_at(&[script, me]).unwrap();
        assert_eq!((found[0].platforms.as_slice(), found[0].size), (&[Platform::any()][..], content.len() as u64));
        assert_eq!((found[0].hash, found[0].file_name.as_str()), (BlobHash::of(&content), "run.sh"));
        assert_eq!(found[1].platforms[0].os, "linux");
    }

    #[test]
    fn what_is_no_program_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let empty = file(dir.path(), "empty", b"");
        let text = file(dir.path(), "notes.txt", b"hello");
        assert!(told(&[dir.path().into()]).contains("it is a directory"));
        assert!(told(std::slice::from_ref(&empty)).contains("it is empty"));
        assert!(told(&[dir.path().join("nothing")]).contains("there is no such file"));
        assert!(told(&["/dev/null".into()]).contains("no regular file"));
        let all = told(&[empty, text]);
        assert!(all.contains("/empty: it is empty") && all.contains("/notes.txt: it is"), "{all}");
    }

    #[test]
    fn two_files_for_one_platform_are_both_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = file(dir.path(), "first", &mach_o(0x0100_0007));
        let second = file(dir.path(), "second", &mach_o(0x0100_0007));
        let arm = file(dir.path(), "arm", &mach_o(0x0100_000c));
        let text = told(&[first.clone(), second]);
        assert!(text.contains("/first and ") && text.contains("/second are both for darwin/amd64"), "{text}");
        assert_eq!(look_at(&[first, arm]).unwrap().len(), 2);
    }
}
