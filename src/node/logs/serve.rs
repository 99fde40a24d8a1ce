//! The answering side: what another member asks of this node's logs. A shell over one stream.
//!
//! The transport lets only members through. A member that reads slowly holds up its own answer and nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::ids::NodeName;

use super::wire::{self, Frame, Question, WireError};
use super::{Duplex, LocalLogs, local};

/// How long a member may take to say what it wants: it asks at once after opening the stream.
const QUESTION_WITHIN: Duration = Duration::from_secs(5);

/// Why a stream of lines broke off.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection failed or ended early.
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    /// What came is not what belongs here.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// As many are answered as may be.
    #[error("{ANSWERS_MAX} questions are being answered already")]
    Busy,
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Silent(Duration),
}

/// How many questions are answered at once. Each costs a task for each log that it reads; a person has a handful open, and
/// every node of a cluster may hand on some.
const ANSWERS_MAX: usize = 256;

/// Answers the other members' questions.
pub struct LogServer {
    logs: Arc<dyn LocalLogs>,
    node: NodeName,
    room: Semaphore,
}

impl LogServer {
    /// A server of the logs of the node with this name.
    pub fn new(logs: Arc<dyn LocalLogs>, node: NodeName) -> Self {
        Self { logs, node, room: Semaphore::new(ANSWERS_MAX) }
    }

    /// Answers one stream until all was said, or the asker goes away. Broken off at once where too many are answered already: the
    /// asker tries again.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin) -> Result<(), StreamError> {
        let _place = self.room.try_acquire().map_err(|_| StreamError::Busy)?;
        serve(stream, self.logs.clone(), self.node.clone()).await
    }
}

/// Answers one stream of [`wire::PROTOCOL`] until all was said, or the asker goes away.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    logs: Arc<dyn LocalLogs>,
    node: NodeName,
) -> Result<(), StreamError> {
    let question: Question = tokio::time::timeout(QUESTION_WITHIN, read_frame(&mut stream))
        .await
        .map_err(|_| StreamError::Silent(QUESTION_WITHIN))??;
    let mut items = local::lines(logs, node, question);
    let (mut reading, mut writing) = tokio::io::split(stream);
    let mut rest = [0; 1];
    loop {
        tokio::select! {
            item = items.next() => match item {
                Some(item) => writing.write_all(&wire::encode(&Frame::Item(item))).await?,
                None => break,
            },
            // The asker says nothing more: whatever can be read is its end, also while there is no line to write.
            _ = reading.read(&mut rest) => return Ok(()),
        }
        // A line is shown when it is written, not when a buffer is full.
        writing.flush().await?;
    }
    writing.write_all(&wire::encode(&Frame::End)).await?;
    writing.shutdown().await?;
    Ok(())
}

/// Reads one frame.
pub(in crate::node) async fn read_frame<T: for<'b> minicbor::Decode<'b, ()>>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, StreamError> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; wire::frame_len(header)?];
    stream.read_exact(&mut body).await?;
    Ok(wire::decode(&body)?)
}

/// Asks a question.
pub(super) async fn ask(stream: &mut dyn Duplex, question: &Question) -> Result<(), StreamError> {
    stream.write_all(&wire::encode(question)).await?;
    stream.flush().await?;
    Ok(())
}
