//! How nodes ask one another what instances use: one question, one answer. Pure.
//!
//! Framed as the logs are: a length (four bytes, big-endian) and a CBOR value.

use super::InstanceUsage;
use crate::ids::ServiceName;

/// The protocol's name on a connection between members.
pub const PROTOCOL: &str = "/narun/usage/1";

/// Most instances in an answer: as many as a keeper holds. With every figure there is, each takes some 200 bytes, so that an answer
/// fits a frame (`logs::wire::FRAME_LEN_MAX`).
pub const INSTANCES_MAX: usize = 4096;

/// The question.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Question {
    /// Of which service.
    #[n(0)]
    pub service: ServiceName,
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Answer {
    /// Its instances that run there.
    #[n(0)]
    pub instances: Vec<InstanceUsage>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::usage::{Pressure, Usage};
    use crate::ids::RunId;
    use crate::node::logs::wire::{FRAME_LEN_MAX, encode};

    #[test]
    fn the_largest_answer_fits_a_frame() {
        let (most, pressure) = (Some(u64::MAX), Some(Pressure { some: 10_000, full: 10_000 }));
        let usage = Usage {
            memory: most,
            memory_is_summed: true,
            memory_peak: most,
            memory_max: most,
            oom_kills: most,
            cpu_us: most,
            throttled_us: most,
            throttled_periods: most,
            pids: most,
            pids_peak: most,
            pids_max: most,
            cpu_pressure: pressure,
            memory_pressure: pressure,
            io_pressure: pressure,
        };
        let one = InstanceUsage { index: u32::MAX, run: RunId([7; 16]), usage: Some(usage) };
        let answer = Answer { instances: vec![one; INSTANCES_MAX] };
        let len = encode(&answer).len() - 4;
        assert!(len <= FRAME_LEN_MAX, "{len}");
    }
}
