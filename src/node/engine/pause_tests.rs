//! Pause and resume of cron specs, with an engine called by hand.

use super::effect::{RefusalCode, Response};
use super::input::Request;
use super::tests::Node;
use super::view::RevisionView;
use crate::ids::ServiceName;
use crate::spec::RunMode;

fn nightly() -> ServiceName {
    ServiceName::new("nightly").unwrap()
}

fn suspend(node: &mut Node, suspended: bool) -> Response {
    node.request(Request::Suspend { service: nightly(), suspended }).unwrap()
}

fn current(node: &Node) -> RevisionView {
    node.engine.view().services[0].current.clone()
}

fn is_suspended(revision: &RevisionView) -> bool {
    let RunMode::Cron(cron) = &revision.spec.mode else { panic!("a cron spec") };
    cron.policy.suspend
}

fn revised(revision: u32, changed: bool) -> Response {
    Response::Revised { revision, changed }
}

#[test]
fn pause_and_resume_are_revisions() {
    let mut node = Node::founder();
    node.deploy("{name: nightly, tag: v1, cronSchedule: '0 2 * * *', jobMaxRetries: 2}").unwrap();
    assert_eq!(suspend(&mut node, false), revised(1, false), "it is not paused");
    assert_eq!(suspend(&mut node, true), revised(2, true));
    assert_eq!(suspend(&mut node, true), revised(2, false));
    let paused = current(&node);
    assert_eq!((is_suspended(&paused), paused.stopped, paused.cause.as_str()), (true, false, "pause"));
    assert_eq!(suspend(&mut node, false), revised(3, true));
    let resumed = current(&node);
    assert_eq!((is_suspended(&resumed), resumed.cause.as_str()), (false, "resume"));
    assert_eq!(resumed.spec, node.engine.view().services[0].history[2].spec, "nothing else was changed");
}

#[test]
fn a_stop_and_a_pause_are_two_things_and_resume_undoes_both() {
    let mut node = Node::founder();
    node.deploy("{name: nightly, tag: v1, cronSchedule: '0 2 * * *'}").unwrap();
    node.request(Request::Stop { service: nightly() }).unwrap();
    assert_eq!(suspend(&mut node, true), revised(3, true));
    assert!(current(&node).stopped, "a pause starts nothing");
    node.request(Request::Start { service: nightly() }).unwrap();
    let started = current(&node);
    assert_eq!((started.stopped, is_suspended(&started)), (false, true));
    node.request(Request::Stop { service: nightly() }).unwrap();
    assert_eq!(suspend(&mut node, false), revised(6, true));
    let resumed = current(&node);
    assert_eq!((resumed.stopped, is_suspended(&resumed)), (false, false));
}

#[test]
fn what_has_no_sense_is_refused_by_name() {
    let mut node = Node::founder();
    node.deploy("{name: web, tag: v1}").unwrap();
    let refusal =
        node.request(Request::Suspend { service: ServiceName::new("web").unwrap(), suspended: true }).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Invalid);
    assert!(refusal.message.contains("`web` is a service") && refusal.hint.unwrap().contains("service stop web"));
    let missing = node.request(Request::Suspend { service: nightly(), suspended: true }).unwrap_err();
    assert_eq!(missing.code, RefusalCode::NotFound);

    node.deploy("{name: nightly, tag: v1, cronSchedule: '0 2 * * *'}").unwrap();
    for (request, hint) in [
        (Request::Restart { service: nightly() }, "`narun cron run nightly`"),
        (Request::Scale { service: nightly(), node: None, replicas: 2 }, "`concurrencyPolicy: allow`"),
    ] {
        let refusal = node.request(request).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Invalid);
        assert!(refusal.message.contains("is a cron spec") && refusal.hint.unwrap().contains(hint));
    }
}
