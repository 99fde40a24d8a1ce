//! The joiner's side of the door. Shell: one dial, one question, and the answer checked.

use std::fmt;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::crdt::admission::{Signed, Welcome};
use crate::crdt::ticket::Ticket;
use crate::crdt::trust::Trust;
use crate::gossip::transport::{AddressFailure, OpenError, Protocol, Stream, Transport, TransportError};
use crate::ids::{ClusterId, NodeKey, NodeName};
use crate::node::engine::effect::Peer;
use crate::node::identity::Identity;

use super::{ANSWER_LEN_MAX, Answer, JOIN_MAX, Request};

/// Why this node did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The network cannot be used at all.
    #[error(transparent)]
    Network(#[from] TransportError),
    /// None of the ticket's addresses answers.
    #[error("cannot reach the node that made this ticket: {}", Failures(.0))]
    Unreachable(Vec<AddressFailure>),
    /// At an address of the ticket somebody else answers. Nothing was said to it.
    #[error("the node at `{address}` is not the one that made this ticket{}", others(failures))]
    WrongNode {
        /// Where.
        address: String,
        /// What happened at each address.
        failures: Vec<AddressFailure>,
    },
    /// The node does not serve the door: it stands in no cluster yet, or speaks another version of the protocol.
    #[error("the node that made this ticket lets nobody in: it has no cluster, or runs another version of narun")]
    NoDoor,
    /// The maker closed the connection.
    #[error("the node that made this ticket closed the connection: {0}\nhint: try again in a few seconds")]
    Closed(String),
    /// It took longer than [`JOIN_MAX`].
    #[error("the node that made this ticket did not answer within {} s", JOIN_MAX.as_secs())]
    TimedOut,
    /// The maker refused.
    #[error("refused: {message}{}", hint.as_deref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Refused {
        /// A stable word.
        code: String,
        /// In the maker's words.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The answer is no answer.
    #[error("the answer of the node that made this ticket cannot be read: {0}")]
    Garbled(String),
    /// The welcome is to another cluster than the ticket's.
    #[error("the ticket is for cluster {wanted}, but the answer is of cluster {found}")]
    OtherCluster {
        /// The ticket's.
        wanted: String,
        /// The answer's.
        found: String,
    },
    /// The welcome does not hold what makes this node a member.
    #[error("the answer does not admit this node: no chain of admissions leads to its key")]
    NotAdmitted,
}

struct Failures<'a>(&'a [AddressFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it names no address");
        }
        for (index, failure) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
        }
        Ok(())
    }
}

fn others(failures: &[AddressFailure]) -> String {
    match failures {
        [_] => String::new(),
        all => format!(" (all addresses: {})", Failures(all)),
    }
}

/// Redeems `ticket`: asks its maker to make the node `identity` a member called `name`, reachable at `addresses`. The secret is
/// sent to nobody but the maker. Fails within [`JOIN_MAX`]; a failure after the request was sent may have burnt a use, and
/// asking again with the same identity is safe.
pub async fn knock(
    identity: &Identity,
    ticket: &Ticket,
    name: &NodeName,
    addresses: &[String],
) -> Result<Welcome, JoinError> {
    let transport = Transport::outward(identity).await?;
    // The maker greets its new member before it has said welcome; to be refused would make it hang up.
    let _links = transport.leave_ungreeted();
    let maker = Peer { key: ticket.maker, addresses: ticket.addresses.clone() };
    transport.set_members(vec![maker]);
    let request = Request {
        cluster: ticket.cluster,
        secret: Some(ticket.secret),
        name: name.to_string(),
        addresses: addresses.to_vec(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let asking = async {
        let stream = transport.open(ticket.maker, Protocol::Join).await.map_err(explain)?;
        ask(stream, &request).await
    };
    let answer = timeout(JOIN_MAX, asking).await.unwrap_or(Err(JoinError::TimedOut));
    transport.stop().await;
    match answer? {
        Answer::Welcome(welcome) => check(identity, ticket, *welcome),
        Answer::Refused(refused) => {
            Err(JoinError::Refused { code: refused.code, message: refused.message, hint: refused.hint })
        }
        Answer::Standing(_) => Err(JoinError::Garbled("it answers another question".to_owned())),
    }
}

/// Asks a member that takes this node for a stranger how it stands with the cluster. The statements are not checked here.
/// Fails within [`JOIN_MAX`].
pub async fn ask_standing(
    transport: &Transport,
    cluster: ClusterId,
    member: NodeKey,
) -> Result<Vec<Signed>, JoinError> {
    let request = Request {
        cluster,
        secret: None,
        name: String::new(),
        addresses: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let asking = async {
        let stream = transport.open(member, Protocol::Join).await.map_err(explain)?;
        ask(stream, &request).await
    };
    match timeout(JOIN_MAX, asking).await.unwrap_or(Err(JoinError::TimedOut))? {
        Answer::Standing(statements) => Ok(statements),
        Answer::Refused(refused) => {
            Err(JoinError::Refused { code: refused.code, message: refused.message, hint: refused.hint })
        }
        Answer::Welcome(_) => Err(JoinError::Garbled("it answers another question".to_owned())),
    }
}

async fn ask(mut stream: Stream, request: &Request) -> Result<Answer, JoinError> {
    let closed = |error: std::io::Error| JoinError::Closed(error.to_string());
    let mut bytes = minicbor::to_vec(request).expect("encoding into memory cannot fail");
    let length = u32::try_from(bytes.len()).expect("a name and some addresses are short");
    stream.write_u32(length).await.map_err(closed)?;
    stream.write_all(&bytes).await.map_err(closed)?;
    stream.flush().await.map_err(closed)?;
    bytes.fill(0);

    let length = stream.read_u32().await.map_err(closed)? as usize;
    if length > ANSWER_LEN_MAX {
        return Err(JoinError::Garbled(format!("it is {length} bytes long; at most {ANSWER_LEN_MAX}")));
    }
    let mut bytes = Vec::new();
    (&mut stream).take(length as u64).read_to_end(&mut bytes).await.map_err(closed)?;
    if bytes.len() < length {
        return Err(JoinError::Garbled(format!("it ends after {} of {length} bytes", bytes.len())));
    }
    minicbor::decode(&bytes).map_err(|error| JoinError::Garbled(error.to_string()))
}

fn check(identity: &Identity, ticket: &Ticket, welcome: Welcome) -> Result<Welcome, JoinError> {
    let found = welcome.founding.cluster();
    if found != ticket.cluster {
        return Err(JoinError::OtherCluster { wanted: ticket.cluster.short(), found: found.short() });
    }
    let mut trust = Trust::new(&welcome.founding);
    for signed in welcome.admissions.iter().chain(&welcome.removals) {
        trust.take(identity, signed);
    }
    let members = &trust.verdict().members;
    let admitted = members.get(&identity.key()).is_some_and(|admission| admission.name == welcome.name);
    if admitted { Ok(welcome) } else { Err(JoinError::NotAdmitted) }
}

fn explain(error: OpenError) -> JoinError {
    match error {
        OpenError::Unreachable { failures, .. } => match failures.iter().find(|failure| failure.impostor) {
            Some(impostor) => JoinError::WrongNode { address: impostor.address.clone(), failures },
            None => JoinError::Unreachable(failures),
        },
        OpenError::Unsupported(_) | OpenError::Newer(_) => JoinError::NoDoor,
        OpenError::TimedOut => JoinError::TimedOut,
        // The bytes of the maker's key are no key at all: nobody can be reached under it.
        OpenError::NotMember(_) => JoinError::Unreachable(Vec::new()),
        other => JoinError::Closed(other.to_string()),
    }
}
