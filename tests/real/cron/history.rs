//! What narun says became of slots: `narun cron history`, gathered while it is there to be read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::checker::{Millis, Series, Told};
use super::stamps::seconds;
use crate::cluster::{Node, text};

/// What was said of one series, by what it was said of: the last word on a run counts, and the longest on a gap.
#[derive(Default)]
pub(super) struct Book {
    runs: BTreeMap<String, Told>,
    gaps: BTreeMap<u64, Told>,
}

/// All of it.
#[derive(Default)]
pub(super) struct Books {
    all: BTreeMap<Series, Book>,
}

/// How many rows are asked for: as many as the specs of this test let be kept.
pub(super) const ROWS: &str = "1000";

impl Books {
    /// Reads what a node says of these series. One that cannot say changes nothing.
    pub(super) fn read(&mut self, node: &Node, series: &[Series]) {
        for one in series {
            let mut words = vec!["cron", "history", &one.name, "-n", ROWS, "-o", "json"];
            words.extend(one.node.iter().flat_map(|name| ["--node", name]));
            let answer = node.run(&words);
            match serde_json::from_str::<Value>(&answer.stdout) {
                Ok(Value::Array(rows)) if answer.code == 0 => {
                    let book = self.all.entry(one.clone()).or_default();
                    rows.iter().for_each(|row| book.take(row));
                }
                _ => eprintln!("{} says nothing of {one}: {}", node.name, answer.stderr.trim_end()),
            }
        }
    }

    pub(super) fn told(&self) -> BTreeMap<Series, Vec<Told>> {
        let told = |book: &Book| book.runs.values().chain(book.gaps.values()).cloned().collect();
        self.all.iter().map(|(series, book)| (series.clone(), told(book))).collect()
    }
}

/// Statuses of runs that are not over.
const OPEN: [&str; 3] = ["pending", "running", "retrying"];

/// Whether what is told is the last word on it.
pub(super) fn is_over(told: &Told) -> bool {
    match told {
        Told::Run { status, .. } => !OPEN.contains(&status.as_str()),
        Told::Gap { .. } => true,
    }
}

impl Book {
    fn take(&mut self, row: &Value) {
        let scheduled = text(&row["scheduled_at"]);
        let slot = seconds(&scheduled).unwrap_or_else(|| panic!("when was it due? {row}"));
        let status = text(&row["status"]);
        match row["run_id"].as_str() {
            Some(id) => {
                let node = row["node"].as_str().map(str::to_owned);
                let ended = row["ended_at"].as_str().and_then(moment);
                let (id, why) = (id.to_owned(), row["error"].as_str().unwrap_or_default().to_owned());
                self.runs.insert(id.clone(), Told::Run { id, slot, node, status, ended, why });
            }
            None => {
                let count = row["count"].as_u64().unwrap_or_else(|| panic!("how many slots? {row}"));
                let is_longer = |told: &Told| matches!(told, Told::Gap { count: before, .. } if *before < count);
                if self.gaps.get(&slot).is_none_or(is_longer) {
                    self.gaps.insert(slot, Told::Gap { first: slot, count, status, why: text(&row["error"]) });
                }
            }
        }
    }
}

fn moment(time: &str) -> Option<Millis> {
    chrono::DateTime::parse_from_rfc3339(time).ok()?.timestamp_millis().try_into().ok()
}
