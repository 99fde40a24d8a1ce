//! The members: reading, labels, drains. Wiring.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};

use crate::capacity::Capacity;
use crate::ids::NodeName;
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::Request;
use crate::node::engine::view::{DrainView, NodeView, View};

use super::ApiState;
use super::error::{ApiError, Body, Params, invalid};
use super::services::{WAIT_MAX, nearest, unexpected};
use super::wire::{self, HasLeft, Label, Labelled, Left, Node, NodeSet, RemovedNode};

/// `GET /v1/nodes`
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Node>> {
    Json(state.node.view().nodes.iter().map(|node| node_of(node)).collect())
}

/// `GET /v1/nodes/{name}`
pub(super) async fn info(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Node>, ApiError> {
    let view = state.node.view();
    Ok(Json(node_of(find(&view, &name)?)))
}

/// `POST /v1/nodes/{name}/labels`
pub(super) async fn label(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Body(asked): Body<Label>,
) -> Result<Json<Labelled>, ApiError> {
    let node = member(&state, &name)?;
    let request = Request::LabelNode { node: node.clone(), set: asked.set, remove: asked.remove };
    match state.node.request(request).await? {
        Response::Labelled { labels, changed } => Ok(Json(Labelled { node: node.to_string(), labels, changed })),
        other => Err(unexpected(&other).into()),
    }
}

/// `POST /v1/nodes/{name}/drain`: answers as soon as it is wanted durably; `/wait` tells how far it is
pub(super) async fn drain(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<NodeSet>, ApiError> {
    let node = member(&state, &name)?;
    set(&state, &node, Request::DrainNode { node: node.clone() }).await
}

/// `POST /v1/nodes/{name}/uncordon`
pub(super) async fn uncordon(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<NodeSet>, ApiError> {
    let node = member(&state, &name)?;
    set(&state, &node, Request::UncordonNode { node: node.clone() }).await
}

/// `GET /v1/nodes/{name}/wait`: answers when the node is not draining any more, or at the latest when the time is over
pub(super) async fn wait(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Params(asked): Params<wire::WaitForDrain>,
) -> Result<Json<Node>, ApiError> {
    let is_over = |view: &View| match find(view, &name) {
        Ok(node) => node.drain.as_ref().is_none_or(|drain| drain.left.is_empty()),
        Err(_) => true,
    };
    let over = state.node.when(|view| is_over(view).then_some(()));
    let timeout = Duration::from_millis(asked.timeout_ms).min(WAIT_MAX);
    if let Ok(None) = tokio::time::timeout(timeout, over).await {
        return Err(Refusal::new(RefusalCode::Unavailable, "this node is stopping").into());
    }
    let view = state.node.view();
    Ok(Json(node_of(find(&view, &name)?)))
}

async fn set(state: &ApiState, node: &NodeName, request: Request) -> Result<Json<NodeSet>, ApiError> {
    match state.node.request(request).await? {
        Response::NodeSet { changed } => Ok(Json(NodeSet { node: node.to_string(), changed })),
        other => Err(unexpected(&other).into()),
    }
}

/// The name of a member that is there, in this node's eyes: a slip of the finger is told here, with what was meant.
fn member(state: &ApiState, name: &str) -> Result<NodeName, Refusal> {
    let name = NodeName::new(name).map_err(invalid)?;
    find(&state.node.view(), name.as_str()).map(|node| node.name.clone())
}

pub(super) fn find<'a>(view: &'a View, name: &str) -> Result<&'a NodeView, Refusal> {
    let found = view.nodes.iter().find(|node| node.name.as_str() == name);
    found.map(|node| &**node).ok_or_else(|| {
        let refusal = Refusal::new(RefusalCode::NotFound, format!("no node `{name}`"));
        match nearest(name, view.nodes.iter().map(|node| node.name.as_str())) {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal.hint("`narun node list` shows all nodes"),
        }
    })
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
pub(super) async fn leave(State(state): State<ApiState>) -> Result<Json<HasLeft>, ApiError> {
    match state.node.request(Request::Leave).await? {
        Response::Left => Ok(Json(HasLeft { left: true })),
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
        capacity: node.capacity.as_ref().map(capacity_of),
        drain: node.drain.as_ref().map(drain_of),
    }
}

fn capacity_of(capacity: &Capacity) -> wire::Capacity {
    wire::Capacity {
        cores: capacity.cores,
        memory_bytes: capacity.memory_bytes,
        kernel: capacity.kernel.clone(),
        landlock_abi: capacity.landlock_abi,
        cgroup: capacity.cgroup.word().to_owned(),
        cgroup_controllers: capacity.cgroup_controllers.clone(),
        is_root: capacity.is_root,
    }
}

fn drain_of(drain: &DrainView) -> wire::Drain {
    let left = drain
        .left
        .iter()
        .map(|left| Left { instance: format!("{}-{}", left.service, left.index), reason: left.why.clone() });
    wire::Drain {
        state: drain.word().to_owned(),
        since: drain.since.to_string(),
        asked_at: drain.asked_at.clone(),
        left: left.collect(),
    }
}
