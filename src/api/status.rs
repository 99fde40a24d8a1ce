//! The node and its cluster at a glance, and the end of the node. Wiring.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::gossip::transport::PROTOCOL_MAJOR;
use crate::node::engine::view::{InstanceState, ServiceView, View};

use super::ApiState;
use super::cron::is_suspended;
use super::doors::NetworkDoor;
use super::ledger::ledger;
use super::nodes::node_of;
use super::services::mode_word;
use super::wait::is_ready;
use super::wire::cron::Ledger;
use super::wire::{API_VERSION, Problem, ServiceCount, Status, Version};

/// `GET /v1/version`
pub(super) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), api: API_VERSION })
}

/// `GET /v1/status`
pub(super) async fn status(State(state): State<ApiState>) -> Json<Status> {
    let ledger = ledger(&state).await;
    Json(status_of(&state.node.view(), &*state.network, ledger))
}

/// `POST /v1/stop`: ends instances, keeper and node; the answer comes before that
pub(super) async fn stop(State(state): State<ApiState>) -> StatusCode {
    state.stop.stop();
    StatusCode::ACCEPTED
}

fn status_of(view: &View, network: &dyn NetworkDoor, ledger: Ledger) -> Status {
    let problems = view.problems.iter().map(|problem| Problem {
        subject: problem.subject.clone(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
    });
    let newer = network.newer().into_iter().filter_map(|key| {
        let node = view.nodes.iter().find(|node| node.key == key)?;
        Some(Problem {
            subject: node.name.to_string(),
            message: format!("speaks a newer version of narun's protocol than this node ({PROTOCOL_MAJOR})"),
            hint: "upgrade narun on this node".to_owned(),
        })
    });
    let counted = network.counted().into_iter().filter(|(_, count)| *count > 0);
    Status {
        node: view.me.name.as_ref().map(ToString::to_string),
        key: view.me.key.to_string(),
        cluster: view.me.cluster.to_string(),
        boot: view.me.boot,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: view.nodes.iter().map(|node| node_of(node)).collect(),
        services: view.services.iter().map(|service| count(view, service)).collect(),
        problems: newer.chain(problems).collect(),
        network: counted.map(|(name, count)| (name.to_owned(), count)).collect(),
        cron_fires: ledger.fires,
        ledger,
    }
}

fn count(view: &View, service: &ServiceView) -> ServiceCount {
    let wanted = || view.instances.iter().filter(|instance| instance.service == service.name && instance.wanted);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    ServiceCount {
        service: service.name.to_string(),
        mode: mode_word(&service.current.spec.mode).to_owned(),
        stopped: service.current.stopped || is_suspended(&service.current),
        desired: service.wanted.iter().map(|wanted| wanted.desired).sum(),
        running: number(wanted().filter(|instance| instance.state == InstanceState::Running).count()),
        ready: number(wanted().filter(|instance| is_ready(instance)).count()),
    }
}
