//! Who this node is: its ed25519 key, for as long as its data directory lives. Shell.
//!
//! The key is drawn from the system's source on the first start and never changes. Whoever reads the file can speak as this
//! node, so it is created with mode 0600 and refused when others may read it. The file is written beside its place and
//! renamed, so that it is never seen half written.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libp2p::identity::{Keypair, PublicKey, ed25519};

use crate::crdt::admission::Signatures;
use crate::ids::NodeKey;

/// The first byte of the file: its format.
const VERSION: u8 = 1;

/// Version, secret, and the first bytes of the secret's hash, by which a damaged file is told from a key.
const FILE_LEN: usize = 1 + 32 + CHECK_LEN;
const CHECK_LEN: usize = 4;

/// A node's key pair.
#[derive(Clone)]
pub struct Identity {
    keypair: Keypair,
    key: NodeKey,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there and cannot be read.
    #[error("cannot read the node's key `{}`: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot create the node's key `{}`: {cause}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others than its owner may read the file.
    #[error(
        "the node's key `{}` has mode {mode:04o}: others can read it and speak as this node\nhint: if nobody has, run `chmod 600 {}`",
        path.display(),
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold a key.
    #[error(
        "the node's key `{}` is damaged: {found}\nhint: restore it from a backup, or start with a new data directory and join again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
}

impl Identity {
    /// Reads the key at `path`, or draws a new one and makes it durable there. Fails without touching a file that is there.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match fs::metadata(path) {
            Ok(metadata) => Self::load(path, metadata.mode() & 0o777),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(cause) => Err(IdentityError::Read { path: path.to_owned(), cause }),
        }
    }

    /// A new identity that stands on no disk: for the moment, or for a test.
    pub fn generate() -> Self {
        Self::of(ed25519::Keypair::generate())
    }

    /// The public half.
    pub fn key(&self) -> NodeKey {
        self.key
    }

    /// Both halves, for the handshake.
    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    fn of(pair: ed25519::Keypair) -> Self {
        let key = NodeKey(pair.public().to_bytes());
        Self { keypair: Keypair::from(pair), key }
    }

    fn load(path: &Path, mode: u32) -> Result<Self, IdentityError> {
        if mode & 0o077 != 0 {
            return Err(IdentityError::Open { path: path.to_owned(), mode });
        }
        let mut bytes = fs::read(path).map_err(|cause| IdentityError::Read { path: path.to_owned(), cause })?;
        let read = decode(&mut bytes);
        bytes.fill(0);
        read.map(Self::of).map_err(|found| IdentityError::Damaged { path: path.to_owned(), found })
    }

    fn create(path: &Path) -> Result<Self, IdentityError> {
        let pair = ed25519::Keypair::generate();
        let mut bytes = encode(&pair);
        let written = write_durably(path, &bytes);
        bytes.fill(0);
        written.map_err(|cause| IdentityError::Create { path: path.to_owned(), cause })?;
        Ok(Self::of(pair))
    }
}

impl Signatures for Identity {
    fn key(&self) -> NodeKey {
        self.key
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.keypair.sign(bytes).expect("an ed25519 key in memory can always sign")
    }

    fn verify(&self, key: &NodeKey, bytes: &[u8], signature: &[u8]) -> bool {
        // Not every thirty-two bytes are a point on the curve: then nobody holds that key.
        ed25519::PublicKey::try_from_bytes(&key.0).is_ok_and(|public| PublicKey::from(public).verify(bytes, signature))
    }
}

/// The secret half is never shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.key.short())
    }
}

fn encode(pair: &ed25519::Keypair) -> [u8; FILE_LEN] {
    let secret = pair.secret();
    let mut bytes = [0; FILE_LEN];
    bytes[0] = VERSION;
    bytes[1..33].copy_from_slice(secret.as_ref());
    bytes[33..].copy_from_slice(&blake3::hash(secret.as_ref()).as_bytes()[..CHECK_LEN]);
    bytes
}

fn decode(bytes: &mut [u8]) -> Result<ed25519::Keypair, String> {
    if bytes.first().is_some_and(|version| *version > VERSION) {
        return Err(format!("its format {} is newer than this version of narun", bytes[0]));
    }
    if bytes.len() != FILE_LEN || bytes[0] != VERSION {
        return Err(format!("it is {} bytes long; expected {FILE_LEN}", bytes.len()));
    }
    let (secret, check) = bytes[1..].split_at_mut(32);
    if blake3::hash(secret).as_bytes()[..CHECK_LEN] != *check {
        return Err("its checksum does not match".to_owned());
    }
    let secret = ed25519::SecretKey::try_from_bytes(secret).map_err(|cause| cause.to_string())?;
    Ok(ed25519::Keypair::from(secret))
}

/// Renamed into place only when every byte is on the disk, and returned from only when the name is, too.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        // A start that was cut short left it; nobody has seen that key.
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(cause),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.key(), second.key());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
        assert_ne!(Identity::generate().key(), first.key());
    }

    #[test]
    fn a_start_that_was_cut_short_does_not_hinder_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        fs::write(path.with_extension("new"), b"half").unwrap();
        Identity::load_or_create(&path).unwrap();
        assert!(!path.with_extension("new").exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        Identity::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Open { mode: 0o644, .. }), "{error}");
        assert!(error.to_string().contains("0644") && error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn every_damaged_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        Identity::load_or_create(&path).unwrap();
        let good = fs::read(&path).unwrap();
        let mut bad = vec![Vec::new(), good[..20].to_vec(), [good.clone(), vec![0]].concat()];
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 0x40;
            bad.push(flipped);
        }
        for bytes in bad {
            fs::write(&path, &bytes).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Identity::load_or_create(&folder.path().join("no/identity.key")).unwrap_err();
        assert!(error.to_string().contains("no/identity.key"), "{error}");
    }

    #[test]
    fn a_signature_holds_for_its_bytes_and_its_signer_only() {
        let (one, two) = (Identity::generate(), Identity::generate());
        let signature = one.sign(b"hello");
        assert!(two.verify(&one.key(), b"hello", &signature));
        assert!(!two.verify(&one.key(), b"hullo", &signature));
        assert!(!two.verify(&two.key(), b"hello", &signature));
        assert!(!two.verify(&one.key(), b"hello", &signature[1..]));
        assert!(!two.verify(&NodeKey([0xff; 32]), b"hello", &signature));
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let one = Identity::generate();
        assert_eq!(format!("{one:?}"), format!("Identity({})", one.key().short()));
    }
}
