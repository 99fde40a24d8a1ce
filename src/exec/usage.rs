//! What an instance uses, with all its descendants: plain data, and the texts that the kernel tells it in. Pure.
//!
//! Every figure may be missing: a host has the controllers that it has, and some figures are told by version 2 of control groups
//! alone (Documentation/admin-guide/cgroup-v2.rst).

use minicbor::{Decode, Encode};

/// What a tree of processes uses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Usage {
    /// Memory now, in bytes.
    #[n(0)]
    pub memory: Option<u64>,
    /// Whether that is the sum over its processes: no controller counts its memory, and what they share counts for each.
    #[n(1)]
    #[cbor(default)]
    pub memory_is_summed: bool,
    /// The most memory so far, in bytes.
    #[n(2)]
    pub memory_peak: Option<u64>,
    /// The memory that it cannot exceed, in bytes.
    #[n(3)]
    pub memory_max: Option<u64>,
    /// Processes that were killed because it had used up its memory.
    #[n(4)]
    pub oom_kills: Option<u64>,
    /// Processor time so far, in microseconds.
    #[n(5)]
    pub cpu_us: Option<u64>,
    /// How long it was held back because it had used up its processor time, in microseconds.
    #[n(6)]
    pub throttled_us: Option<u64>,
    /// In how many periods it was held back.
    #[n(7)]
    pub throttled_periods: Option<u64>,
    /// Processes and threads now.
    #[n(8)]
    pub pids: Option<u64>,
    /// The most so far.
    #[n(9)]
    pub pids_peak: Option<u64>,
    /// How many it cannot exceed.
    #[n(10)]
    pub pids_max: Option<u64>,
    /// How much it waits for processors.
    #[n(11)]
    pub cpu_pressure: Option<Pressure>,
    /// How much it waits for memory.
    #[n(12)]
    pub memory_pressure: Option<Pressure>,
    /// How much it waits for disks.
    #[n(13)]
    pub io_pressure: Option<Pressure>,
}

/// How much a tree waits for a resource (Documentation/accounting/psi.rst): the share of the last ten seconds, in hundredths of a
/// per cent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Pressure {
    /// In which at least one of its tasks waited.
    #[n(0)]
    pub some: u32,
    /// In which all of them did.
    #[n(1)]
    pub full: u32,
}

impl Pressure {
    /// Out of a file of pressure.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let share = |kind: &str| {
            let mut words = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?.split(' ');
            let percent: f64 = words.find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
            // Told with two digits after the point, and never beyond a hundred.
            (0.0..=100.0).contains(&percent).then_some((percent * 100.0).round() as u32)
        };
        // Older kernels have no second line for processors.
        Some(Self { some: share("some")?, full: share("full").unwrap_or(0) })
    }
}

/// The number behind `key` in a file of lines with a key and a number each.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A number by itself; none where the file says `max`: no limit.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let events = "low 0\nhigh 0\nmax 35\noom 1\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((keyed(events, "oom_kill"), keyed(events, "oom")), (Some(2), Some(1)));
        assert_eq!(keyed(events, "oom_"), None);
        assert_eq!((number("4096\n"), number("max\n")), (Some(4096), None));
        let pressure =
            "some avg10=12.34 avg60=1.00 avg300=0.20 total=77\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(Pressure::parse(pressure), Some(Pressure { some: 1234, full: 50 }));
        let one_line = pressure.lines().next().unwrap();
        assert_eq!(Pressure::parse(one_line), Some(Pressure { some: 1234, full: 0 }));
        assert_eq!(Pressure::parse("some avg10=nan"), None);
        assert_eq!(Pressure::parse(""), None);
    }

    #[test]
    fn usage_of_a_later_version_is_still_read() {
        let usage =
            Usage { memory: Some(1 << 40), pids: Some(3), cpu_pressure: Some(Pressure::default()), ..Usage::default() };
        let bytes = minicbor::to_vec(&usage).unwrap();
        assert_eq!(minicbor::decode::<Usage>(&bytes).unwrap(), usage);
        let mut later = Vec::new();
        minicbor::Encoder::new(&mut later)
            .map(2)
            .unwrap()
            .u8(8)
            .unwrap()
            .u8(3)
            .unwrap()
            .u8(99)
            .unwrap()
            .str("x")
            .unwrap();
        assert_eq!(minicbor::decode::<Usage>(&later).unwrap(), Usage { pids: Some(3), ..Usage::default() });
    }
}
