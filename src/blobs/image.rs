//! A binary for one platform, as a revision names it. Pure.

use std::fmt;

use crate::ids::{BlobHash, ServiceName};

/// What a binary runs on, in Go's words (`linux`, `amd64`), as the predecessors' users know them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Platform {
    /// `linux`, `darwin`, `windows`, `freebsd`, ...; `any` for a script.
    #[n(0)]
    pub os: String,
    /// `amd64`, `arm64`, ...; `any` for a script.
    #[n(1)]
    pub arch: String,
}

impl Platform {
    /// A platform by its two words.
    pub fn new(os: &str, arch: &str) -> Self {
        Self { os: os.to_owned(), arch: arch.to_owned() }
    }

    /// What scripts run on.
    pub fn any() -> Self {
        Self::new("any", "any")
    }

    /// Whether a binary for this platform runs on a node of platform `node`.
    pub fn runs_on(&self, node: &Platform) -> bool {
        (self.os == "any" || self.os == node.os) && (self.arch == "any" || self.arch == node.arch)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.os, self.arch))
    }
}

/// One binary of a revision.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Image {
    /// What it runs on.
    #[n(0)]
    pub platform: Platform,
    /// Its content.
    #[n(1)]
    pub hash: BlobHash,
    /// Its size in bytes.
    #[n(2)]
    pub size: u64,
    /// The name of the file that was deployed, without its folder; for people.
    #[n(3)]
    pub file_name: String,
}

impl Image {
    /// The name in `list-images`: `<name>-<tag>-<os>-<arch>`.
    pub fn object_name(&self, service: &ServiceName, tag: &str) -> String {
        format!("{service}-{tag}-{}-{}", self.platform.os, self.platform.arch)
    }
}
