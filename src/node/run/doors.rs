//! Ties the API's and the network's doors to the node's shells. Wiring.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::io::StreamReader;

use crate::api::doors::BlobDoor;
use crate::blobs::store::BlobStore;
use crate::gossip::join::{self, Answer, Asked};
use crate::gossip::transport::{Protocol, Transport, TransportSender};
use crate::ids::{BlobHash, ClusterId, NodeKey, NodeName};
use crate::ledger::raft::streams::Streams;
use crate::node::engine::effect::{Peer, Refusal, RefusalCode, Response};
use crate::node::engine::input::{BlobEvent, Input, NetworkEvent, Request};
use crate::node::handle::NodeHandle;
use crate::node::logs::disk::DiskLogs;
use crate::node::logs::serve::LogServer;
use crate::node::logs::{Duplex, LogPeers};
use crate::node::shells::Network;
use crate::node::usage::UsagePeers;
use crate::node::usage::serve::UsageServer;

/// Largest binary, in bytes; the API counts uploads against the same limit.
const BLOB_LEN_MAX: u64 = 8 << 30;

/// Uploads into the store.
pub(super) struct Uploads {
    pub(super) store: BlobStore,
    pub(super) inputs: mpsc::Sender<Input>,
}

impl BlobDoor for Uploads {
    fn import(
        &self,
        content: BoxStream<'static, io::Result<Bytes>>,
    ) -> BoxFuture<'_, Result<(BlobHash, u64), Refusal>> {
        Box::pin(async move {
            let imported = self.store.import_reader(StreamReader::new(content), BLOB_LEN_MAX).await;
            let (hash, size) = imported.map_err(|error| Refusal::new(RefusalCode::Unavailable, error))?;
            let stored = Input::Blob(BlobEvent::Stored(hash, size));
            // The engine hears of it before the uploader does: a deploy that follows finds it.
            let heard = self.inputs.send(stored).await;
            heard.map_err(|_| Refusal::new(RefusalCode::Unavailable, "this node is stopping"))?;
            Ok((hash, size))
        })
    }

    fn size(&self, hash: BlobHash) -> BoxFuture<'_, Result<Option<u64>, Refusal>> {
        Box::pin(async move { Ok(self.store.size(&hash)) })
    }
}

/// The way to other members' logs.
pub(super) struct LogStreams(pub(super) Transport);

impl LogPeers for LogStreams {
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>> {
        Box::pin(async move {
            let stream = self.0.open(peer, Protocol::Logs).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

/// The way to what other members' instances use.
pub(super) struct UsageStreams(pub(super) Transport);

impl UsagePeers for UsageStreams {
    fn open(&self, peer: NodeKey) -> BoxFuture<'_, Result<Box<dyn Duplex>, String>> {
        Box::pin(async move {
            let stream = self.0.open(peer, Protocol::Usage).await.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        })
    }
}

/// The network as the engine has it: messages over the transport, and questions at other nodes' doors.
pub(super) struct Links {
    pub(super) sender: TransportSender,
    pub(super) transport: Transport,
    pub(super) cluster: ClusterId,
    pub(super) inputs: mpsc::Sender<Input>,
    /// The ledger's ways to members.
    pub(super) streams: Arc<Streams>,
}

impl Network for Links {
    fn send(&mut self, to: NodeKey, bytes: Vec<u8>) {
        self.sender.send(to, bytes);
    }

    fn members(&mut self, members: Vec<Arc<Peer>>) {
        // In the order of their keys.
        self.streams.keep(|node| members.binary_search_by(|member| member.key.cmp(node)).is_ok());
        self.sender.members(members.iter().map(|member| Peer::clone(member)).collect());
    }

    fn ask_standing(&mut self, member: NodeKey) {
        let (transport, cluster, inputs) = (self.transport.clone(), self.cluster, self.inputs.clone());
        // It ends within the time that a join may take, and the engine asks seldom.
        tokio::spawn(async move {
            match join::ask_standing(&transport, cluster, member).await {
                // Fails only when the node is stopping.
                Ok(statements) => drop(inputs.send(Input::Network(NetworkEvent::Standing(statements))).await),
                Err(error) => tracing::debug!(peer = %member.short(), %error, "no answer on how this node stands"),
            }
        });
    }
}

/// Lets other members read this node's logs, until the transport stops.
pub(super) async fn serve_logs(transport: Transport, logs: Arc<DiskLogs>, node: NodeName) {
    let server = Arc::new(LogServer::new(logs, node));
    let mut incoming = transport.accept(Protocol::Logs);
    let mut readers = JoinSet::new();
    while let Some((peer, stream)) = incoming.next().await {
        while readers.try_join_next().is_some() {}
        let server = server.clone();
        readers.spawn(async move {
            if let Err(error) = server.serve(stream).await {
                tracing::debug!(peer = %peer.short(), %error, "reader of logs went away");
            }
        });
    }
}

/// Tells other members what this node's instances use, until the transport stops.
pub(super) async fn serve_usage(transport: Transport, node: NodeHandle) {
    let server = Arc::new(UsageServer::new(node));
    let mut incoming = transport.accept(Protocol::Usage);
    let mut askers = JoinSet::new();
    while let Some((peer, stream)) = incoming.next().await {
        while askers.try_join_next().is_some() {}
        let server = server.clone();
        askers.spawn(async move {
            if let Err(error) = server.serve(stream).await {
                tracing::debug!(peer = %peer.short(), %error, "asker for usage went away");
            }
        });
    }
}

/// Lets strangers in who hold a ticket, until the transport stops.
pub(super) async fn serve_joiners(transport: Transport, cluster: ClusterId, node: NodeHandle) {
    let decide = move |asked| {
        let node = node.clone();
        async move {
            let request = match asked {
                Asked::Admit(admit) => Request::Admit(admit),
                Asked::Standing(key) => Request::Standing { key },
            };
            match node.request(request).await? {
                Response::Admitted(welcome) => Ok(Answer::Welcome(welcome)),
                Response::Standing(statements) => Ok(Answer::Standing(statements)),
                other => unreachable!("a stranger was answered with {other:?}"),
            }
        }
    };
    join::serve(&transport, cluster, decide).await;
}
