//! The members. Wiring.

use axum::Json;
use axum::extract::{Path, State};

use crate::ids::NodeName;
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::Request;
use crate::node::engine::view::NodeView;

use super::ApiState;
use super::error::{ApiError, invalid};
use super::services::{nearest, unexpected};
use super::wire::{Left, Node, RemovedNode};

/// `GET /v1/nodes`
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Node>> {
    Json(state.node.view().nodes.iter().map(node_of).collect())
}

/// `GET /v1/nodes/{name}`
pub(super) async fn info(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Node>, ApiError> {
    let view = state.node.view();
    let found = view.nodes.iter().find(|node| node.name.as_str() == name);
    let node = found.ok_or_else(|| {
        let refusal = Refusal::new(RefusalCode::NotFound, format!("no node `{name}`"));
        match nearest(&name, view.nodes.iter().map(|node| node.name.as_str())) {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal.hint("`narun node list` shows all nodes"),
        }
    })?;
    Ok(Json(node_of(node)))
}

/// `DELETE /v1/nodes/{name}`
pub(super) async fn remove(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<RemovedNode>, ApiError> {
    let node = NodeName::new(&name).map_err(invalid)?;
    match state.node.request(Request::RemoveNode { node }).await? {
        Response::Removed { existed } => Ok(Json(RemovedNode { node: name, removed: existed })),
        other => Err(unexpected(&other).into()),
    }
}

/// `POST /v1/leave`
pub(super) async fn leave(State(state): State<ApiState>) -> Result<Json<Left>, ApiError> {
    match state.node.request(Request::Leave).await? {
        Response::Left => Ok(Json(Left { left: true })),
        other => Err(unexpected(&other).into()),
    }
}

pub(super) fn node_of(node: &NodeView) -> Node {
    Node {
        name: node.name.to_string(),
        key: node.key.to_string(),
        status: node.status.word().to_owned(),
        since: node.since.to_string(),
        is_me: node.is_me,
        role: node.role.word().to_owned(),
        os: node.os.clone(),
        arch: node.arch.clone(),
        version: node.version.clone(),
        addresses: node.addresses.clone(),
        labels: node.labels.iter().cloned().collect(),
        joined_at: node.joined_at.to_string(),
        started_at: node.started_at.map(|at| at.to_string()),
        instances: node.instances,
    }
}
