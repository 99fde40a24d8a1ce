//! What a host offers: its size and what its kernel can do. Pure, plain data.
//!
//! Each node reads this of its own host once, when it starts (`node/host.rs`), and reports it with its facts; constraints are
//! held against it.

/// What a node's host offers.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Capacity {
    /// Processors that are switched on.
    #[n(0)]
    pub cores: u32,
    /// Memory in bytes, without swap.
    #[n(1)]
    pub memory_bytes: u64,
    /// The kernel's release, as uname(2) tells it.
    #[n(2)]
    pub kernel: String,
    /// The version of Landlock's interface; 0: the kernel has none, or it is switched off.
    #[n(3)]
    pub landlock_abi: u32,
    /// Which hierarchies of control groups are mounted.
    #[n(4)]
    pub cgroup: CgroupLayout,
    /// The controllers whose groups the node can make, by name.
    #[n(5)]
    pub cgroup_controllers: Vec<String>,
    /// Whether the node runs as root.
    #[n(6)]
    pub is_root: bool,
}

/// Which hierarchies of control groups are mounted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub enum CgroupLayout {
    /// None.
    #[n(0)]
    None,
    /// Those of version 1 alone.
    #[n(1)]
    V1,
    /// The unified one alone.
    #[n(2)]
    V2,
    /// Both: limits are set by version 1, and the unified one groups processes.
    #[n(3)]
    Hybrid,
}

impl CgroupLayout {
    /// The layouts that a specification can ask for, by the words of its field.
    pub const ASKED_FOR: [Self; 3] = [Self::V1, Self::V2, Self::Hybrid];

    /// The word in tables, JSON and specifications.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A host as good as any.
    pub(crate) fn some_capacity() -> Capacity {
        Capacity {
            cores: 4,
            memory_bytes: 8 << 30,
            kernel: "6.12.0".into(),
            landlock_abi: 6,
            cgroup: CgroupLayout::V2,
            cgroup_controllers: vec!["cpu".into(), "memory".into()],
            is_root: true,
        }
    }
}
