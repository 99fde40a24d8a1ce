//! Writes whose askers wait until other nodes have them on disk. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{Refusal, RefusalCode, Response};
use crate::gossip::message::NewsId;
use crate::ids::NodeKey;
use crate::time::Mono;

/// After how long who has not answered is asked again: the news or the answer may have been lost with a connection, or the
/// member may have lacked what the news builds on and have been given it since.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// One write.
#[derive(Debug)]
struct Waiting {
    request: u64,
    news: NewsId,
    wanted: u32,
    have: BTreeSet<NodeKey>,
    deadline: Mono,
    ask_again: Mono,
    response: Response,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: Vec<Waiting>,
}

impl Acks {
    /// Waits until `wanted` nodes, this one counted, have the news on disk. They were asked for that just now.
    pub(super) fn wait(
        &mut self,
        now: Mono,
        request: u64,
        news: NewsId,
        wanted: u32,
        deadline: Mono,
        response: Response,
    ) {
        let ask_again = now + ASK_AGAIN;
        self.waiting.push(Waiting { request, news, wanted, have: BTreeSet::new(), deadline, ask_again, response });
    }

    /// Whether this request has not been answered yet.
    pub(super) fn is_waited_for(&self, request: u64) -> bool {
        self.waiting.iter().any(|waiting| waiting.request == request)
    }

    /// Who is to be asked again, and for which news.
    pub(super) fn ask_again(&mut self, now: Mono, connected: &BTreeSet<NodeKey>) -> Vec<(NodeKey, NewsId)> {
        let mut asked = Vec::new();
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.ask_again <= now) {
            waiting.ask_again = now + ASK_AGAIN;
            asked.extend(connected.difference(&waiting.have).map(|node| (*node, waiting.news)));
        }
        asked
    }

    /// A node has it. Gives back the answers that are complete with that.
    pub(super) fn acknowledge(&mut self, news: NewsId, node: NodeKey) -> Vec<(u64, Response)> {
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.news == news) {
            waiting.have.insert(node);
        }
        let complete = |waiting: &mut Waiting| waiting.have.len() + 1 >= waiting.wanted as usize;
        self.waiting.extract_if(.., complete).map(|waiting| (waiting.request, waiting.response)).collect()
    }

    /// Gives up those whose time is over.
    pub(super) fn tick(&mut self, now: Mono) -> Vec<(u64, Refusal)> {
        let late = self.waiting.extract_if(.., |waiting| waiting.deadline <= now);
        late.map(|waiting| {
            let have = waiting.have.len() + 1;
            let text = format!("stored here, but only {have} of {} nodes have confirmed it in time", waiting.wanted);
            let hint = "it stays stored and goes on spreading; deploying it again is harmless";
            (waiting.request, Refusal::new(RefusalCode::TimedOut, text).hint(hint))
        })
        .collect()
    }

    /// When [`Acks::tick`] and [`Acks::ask_again`] want to be called.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.waiting.iter().map(|waiting| waiting.deadline.min(waiting.ask_again)).min()
    }
}
