//! What nodes say to one another on `/narun/ledger/1`: one request, one answer. Pure.
//!
//! Raft's own messages and the nodes' questions go the same way. The forms are ours ([`super::forms`]), the limits as well: what
//! is longer is refused before it is read.

use minicbor::bytes::ByteVec;

use crate::ids::NodeKey;
use crate::ledger::question::{Answer, Question};

use super::forms::{EntryForm, LogIdForm, MetaForm, VoteForm};

/// The protocol's name on a connection between members.
pub const PROTOCOL: &str = "/narun/ledger/1";

/// Longest message. The largest are: a message of entries ([`super::store::APPEND_LEN_MAX`] and what comes round it), and an
/// answer with all that concerns one node, of which ten thousand jobs with an open run each take some 4 MiB.
pub const FRAME_LEN_MAX: usize = 8 << 20;

/// Longest question: a claim that records a thousand gaps takes a tenth of it. So the longest entry fits a message by far.
pub const QUESTION_LEN_MAX: usize = 512 << 10;

/// Bytes of a snapshot in one message, so that one lost message costs little.
pub const PART_LEN: usize = 1 << 20;

/// Longest snapshot that is taken from a leader: ten thousand jobs with full histories take a tenth of it.
pub const SNAPSHOT_LEN_MAX: u64 = 512 << 20;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) enum Request {
    /// By a leader: entries to be appended, or none, as a sign that it leads.
    #[n(0)]
    Append(#[n(0)] Append),
    /// By a candidate: a vote.
    #[n(1)]
    Vote(#[n(0)] VoteWanted),
    /// By a node that would stand for election: whether it would get a vote.
    #[n(2)]
    PreVote(#[n(0)] VoteWanted),
    /// By a leader: a part of a snapshot.
    #[n(3)]
    Part(#[n(0)] Part),
    /// By a leader that wants to lead no more: whoever gets this stands for election at once.
    #[n(4)]
    Lead {
        #[n(0)]
        from: VoteForm,
        #[n(1)]
        last: Option<LogIdForm>,
    },
    /// By any node: a question.
    #[n(5)]
    Ask {
        #[n(0)]
        question: Question,
        /// By a voter that does not lead, for the node that asked it. It is not handed on again.
        #[n(1)]
        by: Option<NodeKey>,
    },
}

/// See [`Request::Append`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Append {
    #[n(0)]
    pub(super) vote: VoteForm,
    /// The entry before the first of these.
    #[n(1)]
    pub(super) before: Option<LogIdForm>,
    #[n(2)]
    pub(super) entries: Vec<EntryForm>,
    /// What is committed.
    #[n(3)]
    pub(super) committed: Option<LogIdForm>,
}

/// See [`Request::Vote`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct VoteWanted {
    #[n(0)]
    pub(super) vote: VoteForm,
    #[n(1)]
    pub(super) last: Option<LogIdForm>,
    /// The leader itself wants it.
    #[n(2)]
    pub(super) is_transfer: bool,
}

/// See [`Request::Part`].
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Part {
    #[n(0)]
    pub(super) vote: VoteForm,
    #[n(1)]
    pub(super) covers: MetaForm,
    /// Bytes of the whole snapshot.
    #[n(2)]
    pub(super) total: u64,
    /// Where this part begins; parts come in order, from 0.
    #[n(3)]
    pub(super) offset: u64,
    #[n(4)]
    pub(super) bytes: ByteVec,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) enum Response {
    /// To [`Request::Append`].
    #[n(0)]
    Appended(#[n(0)] Appended),
    /// To [`Request::Vote`] and [`Request::PreVote`].
    #[n(1)]
    Voted {
        #[n(0)]
        vote: VoteForm,
        #[n(1)]
        is_granted: bool,
        #[n(2)]
        last: Option<LogIdForm>,
    },
    /// To a part that is not the last: go on.
    #[n(2)]
    Taken,
    /// To the last part, and to any part of a leader that was deposed: the vote that holds here.
    #[n(3)]
    Installed(#[n(0)] VoteForm),
    /// To [`Request::Lead`].
    #[n(4)]
    Leading,
    /// To [`Request::Ask`].
    #[n(5)]
    Answered(#[n(0)] Answer),
    /// To anything: it cannot be done here, in words for an operator.
    #[n(6)]
    Refused(#[n(0)] String),
}

/// What became of entries.
#[derive(Clone, Debug, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub(super) enum Appended {
    /// They are on the disk.
    #[n(0)]
    All,
    /// Up to this one they are.
    #[n(1)]
    Upto(#[n(0)] Option<LogIdForm>),
    /// The entry before them is not here, or another one is.
    #[n(2)]
    Conflict,
    /// There is a later leader, or candidate.
    #[n(3)]
    Deposed(#[n(0)] VoteForm),
}

/// A message as bytes.
pub(super) fn encode<T: minicbor::Encode<()>>(message: &T) -> Vec<u8> {
    minicbor::to_vec(message).expect("encoding into memory cannot fail")
}

/// A message from bytes.
pub(super) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(bytes: &[u8]) -> Result<T, minicbor::decode::Error> {
    minicbor::decode(bytes)
}

/// Whether bytes are a request or an answer that a node takes; for `decoders.rs`.
pub(crate) fn understands(bytes: &[u8]) -> bool {
    decode::<Request>(bytes).is_ok_and(|request| super::sound::is_sound(&request)) | decode::<Response>(bytes).is_ok()
}

/// Messages of every kind, each with a word that says what it is; the corpus of the fuzz targets.
#[cfg(test)]
pub(crate) fn samples() -> Vec<(&'static str, Vec<u8>)> {
    use openraft::entry::RaftEntry;
    use openraft::vote::RaftVote;

    use super::forms::Form;
    use super::types::{Entry, Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id};
    use crate::ledger::command::{Command, Stamped};
    use crate::ledger::time::LedgerTime;
    use crate::time::Wall;

    let leader = openraft::alias::LeaderIdOf::<TypeConfig> { term: 2, voted_for: NodeKey([1; 32]) };
    let leading = Vote::from_leader_id(leader, true).form();
    let standing = Vote::from_leader_id(leader, false).form();
    let last = log_id(1, 4);
    let members = Membership::new_with_defaults(vec![[NodeKey([1; 32]), NodeKey([2; 32])].into()], [NodeKey([3; 32])]);
    let command = Command::Open { node: NodeKey([2; 32]), life: 7 };
    let stamped = Stamped { at: LedgerTime(9), command: command.clone(), wall: Wall(10) };
    let payloads = [
        openraft::EntryPayload::Blank,
        openraft::EntryPayload::Normal(stamped),
        openraft::EntryPayload::Membership(members.clone()),
    ];
    let entries = (5..).zip(payloads).map(|(index, payload)| Entry::new(log_id(2, index), payload).form());
    let append =
        Append { vote: leading, before: Some(last.form()), entries: entries.collect(), committed: Some(last.form()) };
    let wanted = VoteWanted { vote: standing, last: Some(last.form()), is_transfer: false };
    let covers = SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), members) };
    let part = Part { vote: leading, covers: covers.form(), total: 5, offset: 0, bytes: vec![1, 2, 3].into() };
    let requests = [
        ("entries", Request::Append(append)),
        ("vote", Request::Vote(wanted.clone())),
        ("pre-vote", Request::PreVote(wanted)),
        ("part", Request::Part(part)),
        ("lead", Request::Lead { from: leading, last: None }),
        ("question", Request::Ask { question: Question::Propose(command), by: Some(NodeKey([4; 32])) }),
    ];
    let responses = [
        ("appended", Response::Appended(Appended::Upto(Some(last.form())))),
        ("deposed", Response::Appended(Appended::Deposed(standing))),
        ("voted", Response::Voted { vote: standing, is_granted: true, last: None }),
        ("installed", Response::Installed(leading)),
        ("answered", Response::Answered(Answer::NotLeader { leader: Some(NodeKey([1; 32])) })),
        ("refused", Response::Refused("not so".to_owned())),
    ];
    let requests = requests.iter().map(|(word, request)| (*word, encode(request)));
    requests.chain(responses.iter().map(|(word, response)| (*word, encode(response)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::raft::sound::is_sound;

    #[test]
    fn messages_survive_the_wire() {
        for (word, bytes) in samples() {
            let request = decode::<Request>(&bytes);
            let again = match &request {
                Ok(request) => encode(request),
                Err(_) => encode(&decode::<Response>(&bytes).unwrap()),
            };
            assert_eq!(again, bytes, "{word}");
        }
    }

    /// What a liar could send, and openraft would take for a fault of its own.
    #[test]
    fn messages_that_no_honest_node_sends_are_refused() {
        let sample = |wanted: &str| {
            let (_, bytes) = samples().into_iter().find(|(word, _)| *word == wanted).unwrap();
            decode::<Request>(&bytes).unwrap()
        };
        let Request::Append(append) = sample("entries") else { panic!() };
        assert!(is_sound(&Request::Append(append.clone())));
        let mut holed = append.clone();
        holed.entries.remove(1);
        assert!(!is_sound(&Request::Append(holed)), "a hole between entries");
        let mut apart = append.clone();
        apart.before = None;
        assert!(!is_sound(&Request::Append(apart)), "a hole before the first");
        let Request::Vote(wanted) = sample("vote") else { panic!() };
        let mut led = append.clone();
        led.vote = wanted.vote;
        assert!(!is_sound(&Request::Append(led)), "entries by a candidate");
        let mut crowned = wanted.clone();
        crowned.vote = append.vote;
        assert!(!is_sound(&Request::Vote(crowned)), "a candidate that leads already");
        let Request::Part(part) = sample("part") else { panic!() };
        let mut long = part.clone();
        long.total = SNAPSHOT_LEN_MAX + 1;
        assert!(!is_sound(&Request::Part(long)), "a snapshot beyond the limit");
        let mut beyond = part.clone();
        beyond.offset = u64::MAX;
        assert!(!is_sound(&Request::Part(beyond)), "a part beyond the end");
    }
}
