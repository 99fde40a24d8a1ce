//! Several streams of lines made one, in the order of time. Pure.
//!
//! While a source still gives its history, nothing later than its next line may be shown: so the next line is only known when
//! every such source has shown its head. A source that is live takes no part: its lines are later than all history.
//! The order within a source is never changed, even where its clock was set back.

use std::collections::BTreeMap;

use super::{LogItem, LogRecord};

/// A source's number, given out by [`Merge::add`].
pub(crate) type Source = usize;

/// What is known of a source in its history.
#[derive(Debug)]
enum Head {
    /// Its next item has not come.
    Awaited,
    /// Its next line.
    Line(Box<LogRecord>),
}

/// The state of one merge.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    /// The sources in their history, with the time up to which each has come.
    sources: BTreeMap<Source, (u64, Head)>,
    count: usize,
}

/// What to do next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Give the next item of this source to [`Merge::take`].
    Await(Source),
    /// This is the next line.
    Show(Box<LogRecord>),
    /// No source has any history left.
    Done,
}

impl Merge {
    /// A new source, at the beginning of its history.
    pub(crate) fn add(&mut self) -> Source {
        let source = self.count;
        self.count += 1;
        self.sources.insert(source, (0, Head::Awaited));
        source
    }

    /// The next item of a source; none: it has ended. What is no line has no place in the order and comes back to be passed on.
    pub(crate) fn take(&mut self, source: Source, item: Option<LogItem>) -> Option<LogItem> {
        match item {
            Some(LogItem::Line(record)) => {
                let (reached, head) = self.sources.get_mut(&source).expect("only sources in their history are awaited");
                // A clock that was set back must not change the order of lines within a source.
                *reached = (*reached).max(record.line.at_ns);
                *head = Head::Line(Box::new(record));
                None
            }
            Some(LogItem::Live) | None => {
                self.sources.remove(&source);
                None
            }
            other => other,
        }
    }

    /// What to do next. Every line that was taken is shown exactly once.
    pub(crate) fn next(&mut self) -> Next {
        let awaited = self.sources.iter().find(|(_, (_, head))| matches!(head, Head::Awaited));
        if let Some((source, _)) = awaited {
            return Next::Await(*source);
        }
        let Some((_, (_, head))) = self.sources.iter_mut().min_by_key(|(source, (reached, _))| (*reached, **source))
        else {
            return Next::Done;
        };
        match std::mem::replace(head, Head::Awaited) {
            Head::Line(record) => Next::Show(record),
            Head::Awaited => unreachable!("every source has shown its head"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::super::{LocalLine, Stream};
    use super::*;
    use crate::ids::{InstanceId, NodeName, RunId, ServiceName};

    fn record(source: usize, seq: u64, at_ns: u64) -> LogRecord {
        LogRecord {
            node: NodeName::new(&format!("n{source}")).unwrap(),
            instance: InstanceId { service: ServiceName::new("web").unwrap(), index: 0 },
            line: LocalLine { seq, at_ns, run: RunId([1; 16]), stream: Stream::Stdout, bytes: vec![], cut: false },
        }
    }

    /// Merges whole histories, each given as the times of its lines.
    fn merged(histories: &[Vec<u64>]) -> Vec<(String, u64, u64)> {
        let mut merge = Merge::default();
        let mut queues: Vec<VecDeque<LogItem>> = Vec::new();
        for (source, times) in histories.iter().enumerate() {
            assert_eq!(merge.add(), source);
            let lines = times.iter().zip(0..).map(|(at, seq)| LogItem::Line(record(source, seq, *at)));
            queues.push(lines.collect());
        }
        let mut shown = Vec::new();
        loop {
            match merge.next() {
                Next::Await(source) => assert_eq!(merge.take(source, queues[source].pop_front()), None),
                Next::Show(record) => {
                    shown.push((record.node.to_string(), record.line.seq, record.line.at_ns));
                }
                Next::Done => return shown,
            }
        }
    }

    #[test]
    fn lines_come_in_the_order_of_their_times() {
        let shown = merged(&[vec![1, 4, 5], vec![2, 3], vec![]]);
        assert_eq!(shown.iter().map(|(_, _, at)| *at).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_source_that_is_live_holds_nobody_up() {
        let mut merge = Merge::default();
        let (slow, live) = (merge.add(), merge.add());
        assert_eq!(merge.next(), Next::Await(slow));
        merge.take(slow, Some(LogItem::Line(record(0, 1, 10))));
        assert_eq!(merge.next(), Next::Await(live));
        merge.take(live, Some(LogItem::Live));
        assert!(matches!(merge.next(), Next::Show(_)));
        assert_eq!(merge.next(), Next::Await(slow));
        merge.take(slow, None);
        assert_eq!(merge.next(), Next::Done);
    }

    #[test]
    fn what_is_no_line_is_passed_on_at_once() {
        let mut merge = Merge::default();
        let source = merge.add();
        let notice = LogItem::Notice("node `n2` is down".into());
        assert_eq!(merge.take(source, Some(notice.clone())), Some(notice));
        assert_eq!(merge.next(), Next::Await(source));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_repeated_or_turned_round(histories in prop::collection::vec(prop::collection::vec(0u64..50, 0..30), 0..6)) {
            let shown = merged(&histories);
            prop_assert_eq!(shown.len(), histories.iter().map(Vec::len).sum::<usize>());
            for (source, times) in histories.iter().enumerate() {
                let name = format!("n{source}");
                let own: Vec<_> = shown.iter().filter(|(node, _, _)| *node == name).map(|(_, seq, _)| *seq).collect();
                prop_assert_eq!(own, (0..times.len() as u64).collect::<Vec<_>>());
            }
        }

        #[test]
        fn sorted_sources_make_a_sorted_whole(mut histories in prop::collection::vec(prop::collection::vec(0u64..50, 0..30), 0..6)) {
            histories.iter_mut().for_each(|times| times.sort_unstable());
            let shown = merged(&histories);
            prop_assert!(shown.windows(2).all(|pair| pair[0].2 <= pair[1].2));
        }
    }
}
