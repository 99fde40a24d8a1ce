//! The answering side: what another member asks of this node's instances. A shell over one stream.
//!
//! The transport lets only members through.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::node::handle::NodeHandle;
use crate::node::logs::serve::{StreamError, read_frame};
use crate::node::logs::wire::encode;

use super::local;
use super::wire::{Answer, Question};

/// How long a question may take from the first byte to the last of its answer: longer than any asker waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How many questions are answered at once. Each reads some thousand small files at most.
const ANSWERS_MAX: usize = 16;

/// Answers the other members' questions.
pub struct UsageServer {
    node: NodeHandle,
    room: Semaphore,
}

impl UsageServer {
    /// A server over what this node runs.
    pub fn new(node: NodeHandle) -> Self {
        Self { node, room: Semaphore::new(ANSWERS_MAX) }
    }

    /// Answers one stream. Broken off at once where too many are answered already.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin) -> Result<(), StreamError> {
        let _place = self.room.try_acquire().map_err(|_| StreamError::Busy)?;
        let answered = tokio::time::timeout(ANSWER_WITHIN, answer(&self.node, stream)).await;
        answered.unwrap_or(Err(StreamError::Silent(ANSWER_WITHIN)))
    }
}

async fn answer(node: &NodeHandle, mut stream: impl AsyncRead + AsyncWrite + Send + Unpin) -> Result<(), StreamError> {
    let question: Question = read_frame(&mut stream).await?;
    let instances = local::own(&node.view(), &question.service).await;
    let instances = instances.map_err(|reason| StreamError::Broken(std::io::Error::other(reason)))?;
    stream.write_all(&encode(&Answer { instances })).await?;
    stream.shutdown().await?;
    Ok(())
}
