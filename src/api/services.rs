//! Services and cron specs: reading, deploying, scaling, stopping, waiting. Wiring.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};

use crate::blobs::image::{Image, Platform};
use crate::ids::{BlobHash, NodeName, ServiceName};
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::{self, Request};
use crate::node::engine::view::{InstanceState, InstanceView, RevisionStatus, RevisionView, ServiceView, View};
use crate::spec::{RunMode, ServiceSpec};

use super::ApiState;
use super::error::{ApiError, Body, Params, invalid};
use super::wait;
use super::wire::{self, Deleted, Instance, Placement, Revised, Revision, Service, Waited};

/// Longest that one request waits; a caller that has more patience asks again.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Longest that a deploy may wait for other nodes' disks: a node that has not answered by then is cut off.
const ACKS_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// `GET /v1/services`
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Service>> {
    let view = state.node.view();
    Json(view.services.iter().map(|service| service_of(&view, service)).collect())
}

/// `GET /v1/services/{name}`
pub(super) async fn info(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Service>, ApiError> {
    let view = state.node.view();
    Ok(Json(service_of(&view, find(&view, &name)?)))
}

/// `GET /v1/services/{name}/history`, newest first
pub(super) async fn history(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Vec<Revision>>, ApiError> {
    let view = state.node.view();
    Ok(Json(find(&view, &name)?.history.iter().map(revision_of).collect()))
}

/// `POST /v1/services`
pub(super) async fn deploy(
    State(state): State<ApiState>,
    Body(asked): Body<wire::Deploy>,
) -> Result<Json<Revised>, ApiError> {
    let spec = ServiceSpec::parse(&asked.spec).map_err(invalid)?;
    let images = images_of(&asked.images)?;
    if asked.acks == 0 {
        return Err(invalid("`acks` must be at least 1: the node that takes the deploy counts").into());
    }
    if !asked.dry_run {
        for image in &images {
            expect_blob(&state, image).await?;
        }
    }
    let service = spec.name.clone();
    let request = Request::Deploy(Box::new(input::Deploy {
        spec,
        images,
        acks: asked.acks,
        acks_timeout: Duration::from_millis(asked.timeout_ms).min(ACKS_TIMEOUT_MAX),
        dry_run: asked.dry_run,
    }));
    revise(&state, service, request).await
}

/// `DELETE /v1/services/{name}`
pub(super) async fn delete(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Deleted>, ApiError> {
    let service = service_name(&name)?;
    match state.node.request(Request::Delete { service: service.clone() }).await? {
        Response::Deleted { existed } => Ok(Json(Deleted { service: service.to_string(), existed })),
        other => Err(unexpected(&other).into()),
    }
}

/// `POST /v1/services/{name}/scale`
pub(super) async fn scale(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Body(asked): Body<wire::Scale>,
) -> Result<Json<Revised>, ApiError> {
    let service = service_name(&name)?;
    let node = asked.node.as_deref().map(NodeName::new).transpose().map_err(invalid)?;
    let request = Request::Scale { service: service.clone(), node, replicas: asked.replicas };
    revise(&state, service, request).await
}

/// `POST /v1/services/{name}/stop`
pub(super) async fn stop(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Revised>, ApiError> {
    let service = service_name(&name)?;
    revise(&state, service.clone(), Request::Stop { service }).await
}

/// `POST /v1/services/{name}/start`
pub(super) async fn start(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Revised>, ApiError> {
    let service = service_name(&name)?;
    revise(&state, service.clone(), Request::Start { service }).await
}

/// `POST /v1/services/{name}/restart`
pub(super) async fn restart(
    State(state): State<ApiState>,
    Path(name): Path<String>,
) -> Result<Json<Revised>, ApiError> {
    let service = service_name(&name)?;
    revise(&state, service.clone(), Request::Restart { service }).await
}

/// `GET /v1/services/{name}/wait`: answers when the revision has arrived or failed, or at the latest when the time is over
pub(super) async fn wait(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    Params(asked): Params<wire::WaitFor>,
) -> Result<Json<Waited>, ApiError> {
    let service = service_name(&name)?;
    let look = |view: &View| wait::progress(view, &service, asked.revision);
    let settled = state.node.when(|view| Some(look(view)).filter(|found| found.verdict != wait::Verdict::Waiting));
    let timeout = Duration::from_millis(asked.timeout_ms).min(WAIT_MAX);
    let progress = match tokio::time::timeout(timeout, settled).await {
        Ok(Some(progress)) => progress,
        Ok(None) => return Err(Refusal::new(RefusalCode::Unavailable, "this node is stopping").into()),
        Err(_) => look(&state.node.view()),
    };
    let wait::Progress { verdict, desired, ready, reasons } = progress;
    Ok(Json(Waited { outcome: verdict.word().to_owned(), desired, ready, reasons }))
}

pub(super) async fn revise(
    state: &ApiState,
    service: ServiceName,
    request: Request,
) -> Result<Json<Revised>, ApiError> {
    match state.node.request(request).await? {
        Response::Revised { revision, changed } => {
            Ok(Json(Revised { service: service.to_string(), revision, changed }))
        }
        other => Err(unexpected(&other).into()),
    }
}

/// The engine answered a request with another request's answer: a broken promise, but no reason to end the node.
pub(super) fn unexpected(response: &Response) -> Refusal {
    tracing::error!(?response, "the engine's answer does not fit the request");
    Refusal::new(RefusalCode::Unavailable, "the node answered something else than was asked; see its log")
}

pub(super) fn service_name(text: &str) -> Result<ServiceName, Refusal> {
    ServiceName::new(text).map_err(invalid)
}

pub(super) fn find<'a>(view: &'a View, name: &str) -> Result<&'a ServiceView, Refusal> {
    view.service(name).ok_or_else(|| {
        let refusal = Refusal::new(RefusalCode::NotFound, format!("no service `{name}`"));
        let names = view.services.iter().map(|service| service.name.as_str());
        match nearest(name, names) {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal.hint("`narun service list` shows all services"),
        }
    })
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A slip of the finger or two: turned letters, a letter too many or too few.
    let close = (name.chars().count() / 3).clamp(1, 2);
    let distances = names.map(|near| (strsim::damerau_levenshtein(name, near), near));
    distances.filter(|(distance, _)| *distance <= close).min().map(|(_, near)| near)
}

fn images_of(asked: &[wire::ImageRef]) -> Result<Vec<Image>, Refusal> {
    let mut images: Vec<Image> = Vec::with_capacity(asked.len());
    for image in asked {
        let platform = Platform::new(&image.os, &image.arch);
        if let Some(same) = images.iter().find(|other| other.platform == platform) {
            let (first, second) = (&same.file_name, &image.file_name);
            return Err(invalid(format!(
                "`{first}` and `{second}` are both for {platform}: one binary for each platform"
            )));
        }
        let hash: BlobHash = image.hash.parse().map_err(invalid)?;
        images.push(Image { platform, hash, size: image.size, file_name: image.file_name.clone() });
    }
    Ok(images)
}

/// Refuses an image whose content is not whole on this node, or has another size than was said.
async fn expect_blob(state: &ApiState, image: &Image) -> Result<(), Refusal> {
    match state.blobs.size(image.hash).await? {
        Some(size) if size == image.size => Ok(()),
        Some(size) => Err(invalid(format!("`{}` has {size} bytes, not {}", image.file_name, image.size))),
        None => Err(Refusal::new(
            RefusalCode::NotFound,
            format!("the content of `{}`, blob `{}`, is not on this node", image.file_name, image.hash.short()),
        )
        .hint("upload it to this node before the deploy")),
    }
}

pub(super) fn service_of(view: &View, service: &ServiceView) -> Service {
    let own = view.instances.iter().filter(|instance| instance.service == service.name);
    Service {
        service: service.name.to_string(),
        revision: revision_of(&service.current),
        placements: placements(view, service),
        instances: own.map(instance_of).collect(),
    }
}

/// What is wanted and what runs, node by node: first the nodes of the specification, then those that run what it does not
/// want there, last what no node can take.
fn placements(view: &View, service: &ServiceView) -> Vec<Placement> {
    let mut running: BTreeMap<&NodeName, Vec<String>> = BTreeMap::new();
    for instance in view.instances.iter().filter(|instance| instance.service == service.name) {
        if matches!(instance.state, InstanceState::Running | InstanceState::Stopping) {
            let ids = running.entry(&instance.node).or_default();
            ids.push(format!("{}-{}", instance.service, instance.index));
        }
    }
    let mut rows = Vec::new();
    for wanted in service.wanted.iter().filter(|wanted| wanted.node.is_some()) {
        let ids = wanted.node.as_ref().and_then(|node| running.remove(node)).unwrap_or_default();
        rows.push(placement(view, wanted.node.as_ref(), wanted.desired, true, ids));
    }
    for (node, ids) in running {
        rows.push(placement(view, Some(node), 0, false, ids));
    }
    for wanted in service.wanted.iter().filter(|wanted| wanted.node.is_none() && wanted.desired > 0) {
        rows.push(placement(view, None, wanted.desired, true, Vec::new()));
    }
    rows
}

fn placement(view: &View, name: Option<&NodeName>, desired: u32, in_spec: bool, ids: Vec<String>) -> Placement {
    let node = name.and_then(|name| view.nodes.iter().find(|node| node.name == *name));
    let platform = node.and_then(|node| Some(format!("{}/{}", node.os.as_ref()?, node.arch.as_ref()?)));
    Placement {
        node: name.map(ToString::to_string),
        node_status: node.map(|node| node.status.word().to_owned()),
        node_platform: platform,
        desired,
        in_spec,
        running: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        instance_ids: ids,
    }
}

fn revision_of(revision: &RevisionView) -> Revision {
    let cron = match &revision.spec.mode {
        RunMode::Service => None,
        RunMode::Cron(cron) => Some(cron.schedule.clone()),
    };
    Revision {
        revision: revision.number,
        id: revision.id.clone(),
        status: match revision.status {
            RevisionStatus::Current => "current",
            RevisionStatus::Past => "past",
            RevisionStatus::Superseded => "superseded",
        }
        .to_owned(),
        tag: revision.spec.tag.clone(),
        mode: mode_word(&revision.spec.mode).to_owned(),
        cron_schedule: cron,
        stopped: revision.stopped,
        cause: revision.cause.clone(),
        author: revision.author.clone(),
        at: revision.at.to_string(),
        images: revision.images.iter().map(image_ref).collect(),
        spec: revision.spec.to_yaml(),
        suspended: super::cron::is_suspended(revision),
    }
}

pub(super) fn mode_word(mode: &RunMode) -> &'static str {
    match mode {
        RunMode::Service => "service",
        RunMode::Cron(_) => "cron",
    }
}

fn image_ref(image: &Image) -> wire::ImageRef {
    wire::ImageRef {
        os: image.platform.os.clone(),
        arch: image.platform.arch.clone(),
        hash: image.hash.to_string(),
        size: image.size,
        file_name: image.file_name.clone(),
    }
}

fn instance_of(instance: &InstanceView) -> Instance {
    Instance {
        instance: format!("{}-{}", instance.service, instance.index),
        service: instance.service.to_string(),
        index: instance.index,
        node: instance.node.to_string(),
        node_status: instance.node_status.word().to_owned(),
        state: instance.state.word().to_owned(),
        ready: instance.ready,
        revision: instance.revision,
        current: instance.current,
        wanted: instance.wanted,
        run: instance.run.map(|run| run.to_string()),
        pid: instance.pid,
        started_at: instance.started_at.map(|at| at.to_string()),
        restarts: instance.restarts,
        exit: instance.exit.map(|ended| wire::Exit {
            code: ended.code,
            signal: ended.signal,
            at: ended.at.to_string(),
            oom_kills: ended.oom_kills,
        }),
        error: instance.error.clone(),
        retry_at: instance.retry_at.map(|at| at.to_string()),
        enforced: wire::Enforced {
            landlock_abi: instance.enforced.landlock_abi,
            missing: instance.enforced.missing.clone(),
        },
    }
}
