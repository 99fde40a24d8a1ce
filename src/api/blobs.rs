//! Uploads: the bytes of a binary on their way into the store. Wiring.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};

use crate::ids::BlobHash;
use crate::node::engine::effect::{Refusal, RefusalCode};

use super::ApiState;
use super::error::{ApiError, invalid};
use super::wire::Blob;

/// Largest upload: a binary of more than this is a mistake, such as a disk image.
const UPLOAD_LEN_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// How many pieces of an upload may wait for the disk. A piece is what the socket gave at once, at most some hundred KiB.
const PIECES_MAX: usize = 8;

/// `POST /v1/blobs`: the body is the content; the answer comes when it is durable. An upload that breaks leaves nothing
pub(super) async fn upload(State(state): State<ApiState>, body: Body) -> Result<Json<Blob>, ApiError> {
    let (pieces, content) = mpsc::channel(PIECES_MAX);
    let (stored, broken) = tokio::join!(state.blobs.import(content.boxed()), feed(body, pieces));
    // The break is the cause of what the store then says.
    if let Some(refusal) = broken {
        return Err(refusal.into());
    }
    let (hash, size) = stored?;
    Ok(Json(Blob { hash: hash.to_string(), size }))
}

/// Hands the body to the store piece by piece, and says why if that was not all of it. When the store gives up, the rest of the
/// body is read all the same: a client that still writes would never see the answer.
async fn feed(body: Body, mut pieces: mpsc::Sender<io::Result<Bytes>>) -> Option<Refusal> {
    let mut stream = body.into_data_stream();
    let mut size = 0;
    while let Some(piece) = stream.next().await {
        let refusal = match piece {
            Ok(piece) => {
                size += piece.len() as u64;
                if size <= UPLOAD_LEN_MAX {
                    // Fails only when the store has given up, and that is told by the store.
                    let _ = pieces.send(Ok(piece)).await;
                    continue;
                }
                Refusal::new(RefusalCode::Limit, format!("an upload has at most {UPLOAD_LEN_MAX} bytes"))
            }
            Err(error) => invalid(format!("the upload broke off after {size} bytes: {error}")),
        };
        let _ = pieces.send(Err(io::Error::other(refusal.message.clone()))).await;
        return Some(refusal);
    }
    None
}

/// `GET /v1/blobs/{hash}`: whether the blob is whole on this node
pub(super) async fn info(State(state): State<ApiState>, Path(hash): Path<String>) -> Result<Json<Blob>, ApiError> {
    let hash: BlobHash = hash.parse().map_err(invalid)?;
    match state.blobs.size(hash).await? {
        Some(size) => Ok(Json(Blob { hash: hash.to_string(), size })),
        None => Err(Refusal::new(RefusalCode::NotFound, format!("blob `{}` is not on this node", hash.short())).into()),
    }
}
