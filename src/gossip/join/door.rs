//! The maker's side of the door. Shell: it reads a request, asks, and writes the answer.

use std::future::Future;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::gossip::transport::{Bucket, Buckets, DoorFault, ORIGINS_MAX, Rate, STRANGERS_MAX, Stream, Transport};
use crate::ids::{ClusterId, NodeKey};
use crate::node::engine::effect::{Refusal, RefusalCode};
use crate::node::engine::input::Admit;

use super::{ANSWER_LEN_MAX, Answer, Asked, JOIN_MAX, REQUEST_LEN_MAX, Request};

/// How many requests are read, over all strangers. A secret of 256 bits is safe from guessing at any rate; this keeps the engine
/// and its disk free for others. A burst is a rack of hosts that are installed together.
pub const ATTEMPTS: Rate = Rate { per_second: 20, burst: 40 };

/// How many of those may come from one address: half, so that nobody can keep the door busy alone.
pub const ATTEMPTS_FROM_ONE: Rate = Rate { per_second: 10, burst: 20 };

/// How many may be under way at once: all strangers that may be there, and members that ask again.
const UNDER_WAY_MAX: usize = 2 * STRANGERS_MAX;

/// Answers at the door until the transport stops. `decide` has made it durable when it says welcome.
pub async fn serve<A, F>(transport: &Transport, cluster: ClusterId, decide: A)
where
    A: Fn(Asked) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Answer, Refusal>> + Send,
{
    let decide = Arc::new(decide);
    let mut door = transport.door();
    let mut attempts = Bucket::new(ATTEMPTS, Instant::now());
    let mut attempts_from = Buckets::new(ATTEMPTS_FROM_ONE, ORIGINS_MAX);
    let mut under_way = JoinSet::new();
    while let Some((from, stream)) = door.next().await {
        while under_way.try_join_next().is_some() {}
        let now = Instant::now();
        let refused = if stream.origin().is_some_and(|origin| !attempts_from.takes(origin, now)) {
            Some(DoorFault::Pestered)
        } else if under_way.len() >= UNDER_WAY_MAX || !attempts.takes(now) {
            Some(DoorFault::Hurried)
        } else {
            None
        };
        let (transport, decide) = (transport.clone(), decide.clone());
        under_way.spawn(async move {
            let attended = async {
                if let Some(fault) = refused {
                    transport.count_at_door(fault);
                    return answer(stream, Err(busy())).await;
                }
                attend(&transport, from, stream, cluster, decide.as_ref()).await;
            };
            if timeout(JOIN_MAX, attended).await.is_err() {
                transport.count_at_door(DoorFault::Slow);
            }
        });
    }
}

async fn attend<A, F>(transport: &Transport, from: NodeKey, mut stream: Stream, cluster: ClusterId, decide: &A)
where
    A: Fn(Asked) -> F,
    F: Future<Output = Result<Answer, Refusal>>,
{
    let request = match read_request(&mut stream, cluster).await {
        Ok(request) => request,
        Err((fault, refusal)) => {
            tracing::debug!(peer = %from.short(), ?fault, "nothing came of a knock at the door");
            transport.count_at_door(fault);
            return answer(stream, Err(refusal)).await;
        }
    };
    let decision = match (request.secret, request.checked()) {
        (None, _) => decide(Asked::Standing(from)).await,
        (Some(secret), Ok(name)) => {
            tracing::info!(peer = %from.short(), node = %name, version = request.version, "a node asks to join");
            decide(Asked::Admit(Admit { key: from, name, addresses: request.addresses, secret })).await
        }
        (Some(_), Err(message)) => Err(Refusal::new(RefusalCode::Invalid, message)),
    };
    answer(stream, decision).await;
}

async fn read_request(stream: &mut Stream, cluster: ClusterId) -> Result<Request, (DoorFault, Refusal)> {
    let garbled = || {
        let message = "the request cannot be read: it was made by another version of narun";
        (DoorFault::Garbled, Refusal::new(RefusalCode::Invalid, message))
    };
    let length = stream.read_u32().await.map_err(|_| garbled())? as usize;
    if length > REQUEST_LEN_MAX {
        let message = format!("a request of {length} bytes is too long; at most {REQUEST_LEN_MAX}");
        return Err((DoorFault::Oversized, Refusal::new(RefusalCode::Invalid, message)));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(|_| garbled())?;
    let request = minicbor::decode::<Request>(&bytes).map_err(|_| garbled())?;
    if request.cluster != cluster {
        let refusal = Refusal::new(RefusalCode::NotAllowed, "this ticket is of another cluster");
        return Err((DoorFault::OtherCluster, refusal));
    }
    Ok(request)
}

/// A joiner that has gone away is no fault: the ticket's use is burnt, and it may ask again.
async fn answer(mut stream: Stream, decision: Result<Answer, Refusal>) {
    let answer = decision.unwrap_or_else(|refusal| Answer::Refused(refusal.into()));
    let mut bytes = minicbor::to_vec(&answer).expect("encoding into memory cannot fail");
    if bytes.len() > ANSWER_LEN_MAX {
        tracing::error!(length = bytes.len(), "the cluster is too large to be told at the door");
        let refusal = Refusal::new(RefusalCode::Limit, "this cluster has more members than a joiner can be told of");
        bytes = minicbor::to_vec(Answer::Refused(refusal.into())).expect("encoding into memory cannot fail");
    }
    let length = u32::try_from(bytes.len()).expect("bounded by ANSWER_LEN_MAX");
    let written = async {
        stream.write_u32(length).await?;
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        // Until the joiner has read it all and leaves: closing first could throw the answer away.
        stream.read(&mut [0]).await
    };
    if let Err(error) = written.await {
        tracing::debug!(%error, "a joiner left before its answer");
    }
}

fn busy() -> Refusal {
    Refusal::new(RefusalCode::Unavailable, "too many nodes are joining at this moment")
        .hint("try again in a few seconds")
}
