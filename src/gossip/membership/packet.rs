//! foca's packets, opened: who sends one, and what it says of whom. Pure.
//!
//! foca believes whatever stands in a packet. This node does not, so it reads them first: the sender must be the one whom the
//! connection proves, and what is said of third parties may be left out or softened before foca sees it.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Incarnation, Member, PostcardCodec, State};

use crate::ids::NodeKey;

/// A member in one of its lives: what foca tells apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct SwimId {
    pub(super) key: [u8; 32],
    /// The boot counter in the upper bits: a restarted node overrules what was said of it before.
    pub(super) life: u64,
}

/// Room for renewals between two boots.
const BOOT_SHIFT: u32 = 24;

impl SwimId {
    /// Before the first renewal of that boot.
    pub(super) fn at_boot(key: NodeKey, boot: u64) -> Self {
        Self { key: key.0, life: boot << BOOT_SHIFT }
    }
}

/// The boot counter that a life belongs to.
pub(super) fn boot_of(life: u64) -> u64 {
    life >> BOOT_SHIFT
}

impl foca::Identity for SwimId {
    type Addr = [u8; 32];

    fn renew(&self) -> Option<Self> {
        Some(Self { key: self.key, life: self.life.checked_add(1)? })
    }

    fn addr(&self) -> [u8; 32] {
        self.key
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

/// A packet, opened.
pub(super) struct Packet {
    pub(super) header: Header<SwimId>,
    /// What it says of members.
    pub(super) updates: Vec<Member<SwimId>>,
}

impl Packet {
    /// A packet out of bytes; none when they are none, or too few or too many.
    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let header = PostcardCodec.decode_header(&mut bytes).ok()?;
        let mut updates = Vec::new();
        if !bytes.is_empty() {
            for _ in 0..bytes.try_get_u16().ok()? {
                updates.push(PostcardCodec.decode_member(&mut bytes).ok()?);
            }
        }
        bytes.is_empty().then_some(Self { header, updates })
    }

    /// Its bytes, in foca's form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = u16::try_from(self.updates.len())
            .expect("a packet holds what was decoded from one, which counts in 16 bits");
        PostcardCodec.encode_header(&self.header, &mut bytes).expect("encoding into memory cannot fail");
        if count > 0 {
            bytes.put_u16(count);
        }
        for update in &self.updates {
            PostcardCodec.encode_member(update, &mut bytes).expect("encoding into memory cannot fail");
        }
        bytes
    }
}

/// The sender's identity and incarnation in a packet that foca has made.
pub(super) fn sender(mut bytes: &[u8]) -> Option<(SwimId, Incarnation)> {
    let header: Header<SwimId> = PostcardCodec.decode_header(&mut bytes).ok()?;
    Some((header.src, header.src_incarnation))
}

/// What is thought of a member that foca knows.
pub(super) fn liveness(state: State) -> super::Liveness {
    match state {
        State::Alive => super::Liveness::Alive,
        State::Suspect => super::Liveness::Suspect,
        State::Down => super::Liveness::Down,
    }
}

/// The same in foca's word.
pub(super) fn state(liveness: super::Liveness) -> State {
    match liveness {
        super::Liveness::Alive => State::Alive,
        super::Liveness::Suspect => State::Suspect,
        super::Liveness::Down => State::Down,
    }
}
