//! What the instances of a service use right now, from all nodes. Wiring.

use axum::Json;
use axum::extract::{Path, State};

use crate::exec::usage;
use crate::ids::{NodeName, ServiceName};
use crate::node::usage as node_usage;

use super::ApiState;
use super::error::ApiError;
use super::services::find;
use super::wire::{InstanceUsage, Pressure, ServiceUsage, Silent};

/// `GET /v1/services/{name}/usage`
pub(super) async fn query(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<ServiceUsage>, ApiError> {
    let service = find(&state.node.view(), &name)?.name.clone();
    let found = state.usage.query(&service).await;
    let silent = |(node, reason): (NodeName, String)| Silent { node: node.to_string(), reason };
    Ok(Json(ServiceUsage {
        instances: found.instances.into_iter().map(|(node, one)| instance_of(&service, &node, one)).collect(),
        silent: found.silent.into_iter().map(silent).collect(),
    }))
}

fn instance_of(service: &ServiceName, node: &NodeName, found: node_usage::InstanceUsage) -> InstanceUsage {
    let usage = found.usage.unwrap_or_default();
    InstanceUsage {
        instance: format!("{service}-{}", found.index),
        node: node.to_string(),
        run: found.run.to_string(),
        memory: usage.memory,
        memory_is_summed: usage.memory_is_summed,
        memory_peak: usage.memory_peak,
        memory_max: usage.memory_max,
        oom_kills: usage.oom_kills,
        cpu_us: usage.cpu_us,
        throttled_us: usage.throttled_us,
        throttled_periods: usage.throttled_periods,
        pids: usage.pids,
        pids_peak: usage.pids_peak,
        pids_max: usage.pids_max,
        cpu_pressure: usage.cpu_pressure.map(pressure_of),
        memory_pressure: usage.memory_pressure.map(pressure_of),
        io_pressure: usage.io_pressure.map(pressure_of),
    }
}

fn pressure_of(pressure: usage::Pressure) -> Pressure {
    let percent = |hundredths: u32| f64::from(hundredths) / 100.0;
    Pressure { some_percent: percent(pressure.some), full_percent: percent(pressure.full) }
}
