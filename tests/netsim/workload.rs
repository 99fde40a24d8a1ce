//! Users: they ask random nodes for random things, and remember what they were answered.

use std::time::Duration;

use rand::RngExt;
use tokio::task::JoinHandle;

use narun::ids::ServiceName;
use narun::node::engine::effect::{Refusal, Response};
use narun::node::engine::input::Request;

use crate::program::Program;
use crate::random::{self, Stream};
use crate::wish::{Deployment, Wish, anywhere, everywhere, on, service_name};
use crate::world::World;

/// What a user hears.
pub(crate) type Answer = Result<Response, Refusal>;

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many services there are: few, so that wishes meet.
const SERVICES: usize = 3;

/// Most wishes for one service: fewer than the revisions that are kept, so that none is forgotten by rights.
const WISHES_PER_SERVICE_MAX: usize = 16;

/// Makes a wish at a host whose node runs, in the background: whatever comes of it goes into the journal, and comes back. A
/// deploy must be on the disks of `acks` nodes.
pub(crate) fn submit(world: &World, host: usize, wish: Wish, acks: u32) -> JoinHandle<Option<Answer>> {
    let (handle, journal, shelf) = (world.handle(host), world.journal.clone(), world.hosts[host].shelf.clone());
    let number = journal.begin(host, wish.clone(), &handle.view());
    tokio::spawn(async move {
        if let Wish::Deploy(deployment) = &wish {
            shelf.import(deployment.blob, deployment.size).await;
        }
        let answer = tokio::time::timeout(PATIENCE, handle.request(wish.request(acks))).await.ok();
        journal.end(number, answer.clone());
        answer
    })
}

/// Makes a wish and lets the world go on until it is answered.
pub(crate) async fn demand(world: &mut World, host: usize, wish: Wish, acks: u32) -> Option<Answer> {
    let answer = submit(world, host, wish, acks);
    world.answer(answer).await
}

/// One random wish at a random node, if any node runs and the service has not had too many.
pub(crate) fn random_wish(world: &World, stream: &mut Stream) {
    let up = world.up();
    if up.is_empty() {
        return;
    }
    let host = *random::pick(stream, &up);
    let service = service_name(&format!("s{}", stream.random_range(0..SERVICES)));
    let so_far = world.journal.entries().iter().filter(|entry| *entry.wish.service() == service).count();
    if so_far >= WISHES_PER_SERVICE_MAX {
        return;
    }
    let wish = match stream.random_range(0..20) {
        0..10 => Wish::Deploy(deployment(world, stream, &service)),
        10..14 => Wish::Scale { service, node: None, replicas: stream.random_range(1..5) },
        14..16 => Wish::Restart(service),
        16 => Wish::Stop(service),
        17..19 => Wish::Start(service),
        _ => Wish::Delete(service),
    };
    submit(world, host, wish, 1);
}

/// Drains one random host or brings it back, at a random node.
pub(crate) fn random_drain(world: &World, stream: &mut Stream) {
    let up = world.up();
    if up.is_empty() {
        return;
    }
    let handle = world.handle(*random::pick(stream, &up));
    let node = world.hosts[stream.random_range(0..world.hosts.len())].name.clone();
    let drains = stream.random_bool(0.5);
    world.trace.record(node.as_str(), if drains { "drain" } else { "uncordon" }, &[]);
    let request = if drains { Request::DrainNode { node } } else { Request::UncordonNode { node } };
    // Whether it was taken is seen in what the nodes show in the end.
    tokio::spawn(async move { handle.request(request).await });
}

fn deployment(world: &World, stream: &mut Stream, service: &ServiceName) -> Deployment {
    let mark = format!("m{}", world.journal.entries().len());
    let hosts = world.hosts.len();
    let placement = match stream.random_range(0..5) {
        0..3 => anywhere(stream.random_range(1..5)),
        3 => everywhere(stream.random_range(1..3)),
        _ => on(&[stream.random_range(0..hosts)], stream.random_range(1..4)),
    };
    let program = match stream.random_range(0..10) {
        0 => Program::Stubborn,
        1 => Program::Ends { code: stream.random_range(0..3), after_ms: stream.random_range(10..5_000) },
        2 => Program::Fails,
        _ => Program::Runs,
    };
    let earlier = world.journal.deployments().into_values().find(|earlier| earlier.service == *service);
    let deployment = Deployment::new(service.as_str(), &mark, placement).program(program);
    match earlier {
        // Often only the words change and the binary stays.
        Some(earlier) if stream.random_bool(0.4) => Deployment { blob: earlier.blob, size: earlier.size, ..deployment },
        _ => deployment.size(stream.random_range(10_000..6_000_000)),
    }
}
