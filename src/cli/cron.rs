//! `narun cron`: due times, runs, and what became of them. Wiring; what is shown of slots is made by pure functions here, of runs in
//! `cron_text`.

use std::time::Duration;

use chrono::Utc;
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::time::Instant;

use crate::api::client::Client;
use crate::api::wire::cron::{CronHistory, HistoryWanted};
use crate::api::wire::{Revised, Service};
use crate::spec::schedule::{SLOTS_MAX, Schedule};
use crate::spec::{RunMode, ServiceSpec};
use crate::time::Wall;

use super::cron_run::Run;
use super::cron_text;
use super::failure::Failure;
use super::output::{Output, note};
use super::reach::Reach;
use super::table::table;
use super::words;

/// How many slots are shown where nobody says how many.
pub(super) const NEXT: usize = 5;

/// How long the ledger may be without a leader before a deploy tells of it: a node that has just started, and an election, take less.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked at until then.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Subcommand, Debug)]
pub(crate) enum Cron {
    Next(Next),
    Run(Run),
    Pause(Pause),
    Resume(Resume),
    History(History),
}

/// Show when a cron spec is due next
///
/// Columns and JSON keys: SCHEDULED_AT LOCAL_TIME TIMEZONE; in order, the first slot after this moment first. They follow from the
/// specification alone: whether one is run is decided when it is due.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun cron next nightly\n  narun cron next nightly -n 20 -o json")]
pub(crate) struct Next {
    /// The cron spec's name
    #[arg(value_name = "NAME")]
    cron: String,
    /// How many slots
    #[arg(short = 'n', long, value_name = "N", default_value_t = NEXT as u64, value_parser = clap::value_parser!(u64).range(1..=SLOTS_MAX as u64))]
    count: u64,
}

/// Fire no slot of a cron spec for now
///
/// Makes a revision with `suspend: true`. Runs that are open go on; slots that pass meanwhile are recorded as `suspended`, and are not made
/// up for later. `narun cron run` runs it all the same. JSON keys: service, revision, changed.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun cron pause nightly")]
pub(crate) struct Pause {
    /// The cron spec's name
    #[arg(value_name = "NAME")]
    cron: String,
}

/// Fire the slots of a cron spec again
///
/// Undoes `narun cron pause` and `narun service stop`. JSON keys: service, revision, changed.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun cron resume nightly")]
pub(crate) struct Resume {
    /// The cron spec's name
    #[arg(value_name = "NAME")]
    cron: String,
}

/// Show what became of a cron spec's slots, newest first
///
/// Columns: RUN_ID SCHEDULED_AT STARTED_AT ENDED_AT STATUS EXIT_CODE ATTEMPTS ERROR. A run is pending (claimed), running, retrying (waits
/// for its next attempt), success, failure, timeout, failure-to-start, replaced, aborted, or lost with its node. Slots without a
/// run are skipped (an earlier run was open), missed, suspended, or caught-up (a later slot was run in their place); several in
/// a row are one line. JSON keys: those in lower case, and attempts_max, node, trigger (slot or asked), count, last_scheduled_at,
/// revision, request.
///
/// The ledger's voters tell it. Where none of them can be reached, the node that is asked shows what it knows of its own runs, and says so.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun cron history nightly\n  narun cron history nightly -n 5 -o json")]
pub(crate) struct History {
    /// The cron spec's name
    #[arg(value_name = "NAME")]
    cron: String,
    /// With `cronScope: node`: of the runs on this node alone
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// At most so many lines
    #[arg(short = 'n', long, value_name = "LIMIT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

impl Cron {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Next(next) => next.run(reach, output).await,
            Self::Run(run) => run.run(reach, output).await,
            Self::Pause(Pause { cron }) => {
                let revised = reach.client()?.cron_pause(&cron).await?;
                output.answer(&revised, || told(&revised, "paused: no slot is fired until `narun cron resume`"))
            }
            Self::Resume(Resume { cron }) => {
                let revised = reach.client()?.cron_resume(&cron).await?;
                output.answer(&revised, || told(&revised, "resumed"))
            }
            Self::History(history) => history.run(reach, output).await,
        }
    }
}

fn told(revised: &Revised, done: &str) -> String {
    let Revised { service, revision, changed } = revised;
    match changed {
        true => format!("cron spec `{service}` {done}: revision {revision}\n"),
        false => format!("cron spec `{service}` was so already: revision {revision}\n"),
    }
}

impl History {
    async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let wanted = HistoryWanted { node: self.node, limit: self.limit };
        let history = reach.client()?.cron_history(&self.cron, &wanted).await?;
        note_source(&history);
        if history.rows.is_empty() {
            note(match &history.only_node {
                None => format!("no slot of `{}` was decided yet", self.cron),
                Some(node) => format!("node {node} knows of no run of `{}` of its own", self.cron),
            });
        }
        output.answer(&history.rows, || cron_text::history(&history))
    }
}

/// Says so where a history may be old, or is not the ledger's.
pub(super) fn note_source(history: &CronHistory) {
    if let Some(node) = &history.only_node {
        note(cron_text::only(node));
    }
    if let Some(as_of) = history.jobs.iter().filter_map(|job| job.as_of.as_deref()).min() {
        let as_of = words::seconds(as_of);
        note(format!("no voter in reach leads the ledger: this is what one of them knew at {as_of}"));
    }
}

/// Tells whoever deploys a cron spec what is easily overlooked: that it was paused and will not be any more, and that nothing is fired.
pub(super) async fn note_firing(client: &Client, name: &str, suspend: bool) -> Result<(), Failure> {
    let was_paused = match client.service(name).await {
        Ok(service) => service.revision.suspended,
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error.into()),
    };
    if was_paused && !suspend {
        note(format!("`{name}` is paused, and a deploy without `suspend: true` resumes it"));
    }
    let deadline = Instant::now() + SETTLED_WITHIN;
    while let Some(why) = client.ledger().await?.why {
        if Instant::now() >= deadline {
            note(format!("no slot of any cron spec is fired at this moment: {why}"));
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

impl Next {
    async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let service = reach.client()?.service(&self.cron).await?;
        let spec = spec_of(&service)?;
        if !matches!(spec.mode, RunMode::Cron(_)) {
            return Err(Failure::failed(format!("`{}` is a service; only cron specs have due times", self.cron)));
        }
        if service.revision.suspended {
            note(format!("`{0}` is paused: none of these is fired until `narun cron resume {0}`", self.cron));
        }
        let slots = slots(&spec, now(), usize::try_from(self.count).unwrap_or(SLOTS_MAX))?;
        output.answer(&slots, || text(&slots))
    }
}

/// The specification of a service, as this narun reads it.
pub(super) fn spec_of(service: &Service) -> Result<ServiceSpec, Failure> {
    ServiceSpec::parse(&service.revision.spec).map_err(|mistakes| {
        let name = &service.service;
        Failure::failed(format!("this narun does not understand the specification of `{name}`:\n{mistakes}"))
            .hint("it may have been written by a newer version")
    })
}

/// A due time, as it is shown.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    /// In UTC.
    scheduled_at: String,
    /// As clocks of the zone show it.
    local_time: String,
    /// The zone.
    timezone: &'static str,
}

impl Slot {
    fn new(schedule: &Schedule, slot: Wall) -> Self {
        Self {
            scheduled_at: words::seconds(&slot.to_string()),
            local_time: schedule.local_time(slot),
            timezone: schedule.zone().name(),
        }
    }
}

impl Slot {
    /// For one line: in UTC, and as clocks of its zone show it.
    pub(super) fn shown(&self) -> String {
        if self.timezone == "UTC" {
            self.scheduled_at.clone()
        } else {
            format!("{} ({})", self.scheduled_at, self.local_time)
        }
    }
}

/// The present time by this host's clock.
pub(super) fn now() -> Wall {
    Wall(u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default())
}

/// The first `count` slots of a cron spec after `now`; none of a service.
pub(super) fn slots(spec: &ServiceSpec, now: Wall, count: usize) -> Result<Vec<Slot>, Failure> {
    let RunMode::Cron(cron) = &spec.mode else { return Ok(Vec::new()) };
    let schedule = cron.slots(spec.name.as_str()).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(schedule.slots_between(now, Wall(u64::MAX), count).map(|slot| Slot::new(&schedule, slot)).collect())
}

/// The table of `cron next`.
pub(super) fn text(slots: &[Slot]) -> String {
    let row = |slot: &Slot| [slot.scheduled_at.clone(), slot.local_time.clone(), slot.timezone.to_owned()];
    table(["SCHEDULED_AT", "LOCAL_TIME", "TIMEZONE"], slots.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &str, count: usize) -> Vec<Slot> {
        let spec = ServiceSpec::parse(&format!("name: nightly\ntag: v1\n{lines}")).unwrap();
        // 2026-10-24T12:00:00Z, the day before clocks are put back in Berlin.
        slots(&spec, Wall(1_792_843_200_000), count).unwrap()
    }

    #[test]
    fn slots_are_shown_in_utc_and_in_their_zone() {
        let slots = shown("cronSchedule: 30 2 * * *\ntimezone: Europe/Berlin", 3);
        assert_eq!(
            text(&slots),
            "\
SCHEDULED_AT          LOCAL_TIME                 TIMEZONE
2026-10-25T00:30:00Z  2026-10-25T02:30:00+02:00  Europe/Berlin
2026-10-26T01:30:00Z  2026-10-26T02:30:00+01:00  Europe/Berlin
2026-10-27T01:30:00Z  2026-10-27T02:30:00+01:00  Europe/Berlin
"
        );
        assert_eq!(
            serde_json::to_value(&slots[0]).unwrap(),
            serde_json::json!({
                "scheduled_at": "2026-10-25T00:30:00Z",
                "local_time": "2026-10-25T02:30:00+02:00",
                "timezone": "Europe/Berlin",
            })
        );
    }

    #[test]
    fn a_service_has_no_slots_and_a_cron_spec_as_many_as_are_asked_for() {
        assert_eq!(shown("replicas: 1", 5), []);
        assert_eq!(shown("cronSchedule: '@hourly'", 20).len(), 20);
    }
}
