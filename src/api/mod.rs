//! HTTP/1.1 and JSON over the local socket: what the CLI, and every program on this host, speaks with a node. Wiring.
//!
//! One file a resource. Reading is answered from the node's view, changing goes through the node's handle; nothing is decided
//! here beyond whether a request is well-formed. `client` is the same API seen from the other end. The wire types of `wire`
//! are a contract: keys are added, never renamed.
//!
//! Invariant: an answer to a change is given only after the node has confirmed it.

pub mod client;
pub mod doors;
pub mod error;
pub mod peer;
pub mod socket;
pub mod wait;
pub mod wire;

mod blobs;
mod cron;
mod images;
mod ledger;
mod logs;
mod nodes;
mod services;
mod status;
mod tickets;
mod usage;

#[cfg(test)]
pub(crate) mod cron_tests;
#[cfg(test)]
pub(crate) mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::sync::oneshot;

use crate::node::engine::effect::{Refusal, RefusalCode};
use crate::node::handle::NodeHandle;

use doors::{BlobDoor, LedgerDoor, LogDoor, NetworkDoor, StopSender, UsageDoor};
use error::ApiError;
use peer::{Caller, Doorkeeper};

/// What every resource can reach.
#[derive(Clone)]
pub struct ApiState {
    /// The engine.
    pub node: NodeHandle,
    /// The blob store.
    pub blobs: Arc<dyn BlobDoor>,
    /// All nodes' logs.
    pub logs: Arc<dyn LogDoor>,
    /// What all nodes' instances use.
    pub usage: Arc<dyn UsageDoor>,
    /// The ledger.
    pub ledger: Arc<dyn LedgerDoor>,
    /// The network.
    pub network: Arc<dyn NetworkDoor>,
    /// Ends the node.
    pub stop: StopSender,
}

/// How long answers under way may go on when the API ends: enough for every answer but a stream of lines, which has no end.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Serves the API until `shutdown` is ready, and then for a moment the answers under way. When this returns, nobody can connect
/// any more: `narun stop` takes that for the end of the node.
pub async fn serve(
    listener: Doorkeeper,
    state: ApiState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<Caller>();
    let (ending, ended) = oneshot::channel::<()>();
    let shutdown = async move {
        shutdown.await;
        // Fails only when nobody serves any more.
        let _ = ending.send(());
    };
    let out_of_time = async {
        // An error means that the serving ended by itself; then this must not be faster than its result.
        if ended.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LAST_ANSWERS_WITHIN).await;
    };
    tokio::select! {
        served = axum::serve(listener, service).with_graceful_shutdown(shutdown) => served,
        () = out_of_time => Ok(()),
    }
}

fn router(state: ApiState) -> Router {
    Router::new()
        .route("/v1/version", get(status::version))
        .route("/v1/status", get(status::status))
        .route("/v1/stop", post(status::stop))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{name}", get(nodes::info).delete(nodes::remove))
        .route("/v1/leave", post(nodes::leave))
        .route("/v1/nodes/{name}/labels", post(nodes::label))
        .route("/v1/nodes/{name}/drain", post(nodes::drain))
        .route("/v1/nodes/{name}/uncordon", post(nodes::uncordon))
        .route("/v1/nodes/{name}/wait", get(nodes::wait))
        .route("/v1/services", get(services::list).post(services::deploy))
        .route("/v1/services/{name}", get(services::info).delete(services::delete))
        .route("/v1/services/{name}/history", get(services::history))
        .route("/v1/services/{name}/wait", get(services::wait))
        .route("/v1/services/{name}/usage", get(usage::query))
        .route("/v1/services/{name}/scale", post(services::scale))
        .route("/v1/services/{name}/stop", post(services::stop))
        .route("/v1/services/{name}/start", post(services::start))
        .route("/v1/services/{name}/restart", post(services::restart))
        .route("/v1/cron/{name}/history", get(cron::history))
        .route("/v1/cron/{name}/run", post(cron::run))
        .route("/v1/cron/{name}/pause", post(cron::pause))
        .route("/v1/cron/{name}/resume", post(cron::resume))
        .route("/v1/ledger", get(ledger::standing))
        .route("/v1/images", get(images::list))
        .route("/v1/blobs", post(blobs::upload))
        .route("/v1/blobs/{hash}", get(blobs::info))
        .route("/v1/tickets", get(tickets::list).post(tickets::create))
        .route("/v1/tickets/{id}", delete(tickets::revoke))
        .route("/v1/logs", get(logs::query))
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(guard))
        .with_state(state)
}

/// Turns away callers that may not use the API at all.
async fn guard(ConnectInfo(caller): ConnectInfo<Caller>, request: Request, next: Next) -> Response {
    match caller.verdict() {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::warn!(reason = %refusal, "api caller refused");
            ApiError::from(refusal).into_response()
        }
    }
}

async fn no_such_resource(State(_): State<ApiState>, request: Request) -> ApiError {
    Refusal::new(RefusalCode::NotFound, format!("no resource `{}`", request.uri().path())).into()
}

async fn no_such_method(State(_): State<ApiState>, request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    Refusal::new(RefusalCode::Invalid, format!("`{method}` cannot be used on `{path}`")).into()
}
