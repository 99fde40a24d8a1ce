//! What attempts of runs leave behind, outside narun's books: who started, for which slot, from when until when.
//!
//! Each pretend program of a cron spec writes here what stands in its environment, as a real one would write to a file. What must never
//! happen is looked at with each stamp: a slot with two runs, an attempt that is made twice, attempts of one run beside one another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::DateTime;
use tokio::time::Instant;

use narun::exec::plan::LaunchPlan;
use narun::ids::ServiceName;
use narun::ledger::time::Slot;

use crate::trace::Trace;

/// In the environment of a spec that each node runs for itself.
pub(crate) const EACH_NODE: (&str, &str) = ("SIM_EACH_NODE", "yes");

/// In the environment of a spec whose runs are tried again when their node is lost.
pub(crate) const RERUNS: (&str, &str) = ("SIM_RERUNS", "yes");

/// One attempt.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// Of which spec.
    pub(crate) service: ServiceName,
    /// On which host.
    pub(crate) host: String,
    /// Of which run.
    pub(crate) run: String,
    /// For which slot.
    pub(crate) slot: Slot,
    /// Under which fence.
    pub(crate) fence: u64,
    /// Which attempt.
    pub(crate) attempt: u32,
    /// When it was started, since the world began.
    pub(crate) began: Duration,
    /// When it ended.
    pub(crate) ended: Option<Duration>,
    /// Whether every node runs the slot for itself.
    pub(crate) is_each_node: bool,
    is_rerun: bool,
}

/// All stamps of a world; cheap to clone.
#[derive(Clone)]
pub(crate) struct Stamps {
    stamps: Arc<Mutex<Vec<Stamp>>>,
    start: Instant,
    trace: Trace,
}

impl Stamps {
    /// No stamps yet.
    pub(crate) fn new(trace: Trace) -> Self {
        Self { stamps: Arc::default(), start: Instant::now(), trace }
    }

    /// Since the world began.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// An attempt begins. Gives back the number of its stamp.
    pub(crate) fn begin(&self, host: &str, plan: &LaunchPlan) -> usize {
        let stamp = match read(host, plan, self.now()) {
            Ok(stamp) => stamp,
            Err(text) => panic!("{} on {host} was started with an environment without {text}", plan.instance),
        };
        let mut stamps = self.lock();
        for earlier in stamps.iter().rev().filter(|earlier| earlier.service == stamp.service) {
            if let Err(text) = may_follow(earlier, &stamp) {
                self.trace.violated("one run a slot", &format!("{text}: {stamp:?} after {earlier:?}"));
            }
        }
        stamps.push(stamp);
        stamps.len() - 1
    }

    /// It has ended.
    pub(crate) fn end(&self, number: usize) {
        let now = self.now();
        self.lock()[number].ended.get_or_insert(now);
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Stamp> {
        self.lock().clone()
    }

    /// Those of a spec, oldest first.
    pub(crate) fn of(&self, service: &ServiceName) -> Vec<Stamp> {
        self.lock().iter().filter(|stamp| stamp.service == *service).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Stamp>> {
        self.stamps.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why two stamps of one spec cannot both be.
fn may_follow(earlier: &Stamp, stamp: &Stamp) -> Result<(), &'static str> {
    let is_same_series = !stamp.is_each_node || earlier.host == stamp.host;
    if earlier.fence == stamp.fence {
        return Err("one attempt was made twice");
    }
    if earlier.run != stamp.run {
        return if is_same_series && earlier.slot == stamp.slot { Err("a slot has two runs") } else { Ok(()) };
    }
    match stamp {
        _ if earlier.slot != stamp.slot => Err("a run is of two slots"),
        _ if earlier.fence > stamp.fence || earlier.attempt >= stamp.attempt => {
            Err("an earlier attempt was made later")
        }
        _ if earlier.ended.is_none() && !stamp.is_rerun => Err("two attempts of a run are beside one another"),
        _ => Ok(()),
    }
}

fn read(host: &str, plan: &LaunchPlan, began: Duration) -> Result<Stamp, &'static str> {
    let env: BTreeMap<&str, &str> = plan.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let get = |name: &'static str| env.get(name).copied().ok_or(name);
    let number = |name: &'static str| get(name)?.parse::<u64>().map_err(|_| name);
    let scheduled = get("NARUN_JOB_SCHEDULED_TIME")?;
    let scheduled = DateTime::parse_from_rfc3339(scheduled).map_err(|_| "a time that was scheduled")?;
    Ok(Stamp {
        service: plan.instance.service.clone(),
        host: host.to_owned(),
        run: get("NARUN_RUN_ID")?.to_owned(),
        slot: Slot(u64::try_from(scheduled.timestamp()).map_err(|_| "a time after 1970")?),
        fence: number("NARUN_FENCE")?,
        attempt: u32::try_from(number("NARUN_JOB_ATTEMPT")?).map_err(|_| "a small number of attempts")?,
        began,
        ended: None,
        is_each_node: env.get(EACH_NODE.0) == Some(&EACH_NODE.1),
        is_rerun: env.get(RERUNS.0) == Some(&RERUNS.1),
    })
}
