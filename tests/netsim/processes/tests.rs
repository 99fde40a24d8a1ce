//! The keeper by itself.

use super::*;

use narun::confinement::Confinement;
use narun::exec::plan::Stop;
use narun::ids::{BlobHash, InstanceId, ServiceName};
use narun::node::layout::Layout;
use tokio::time::timeout;

struct Bench {
    keeper: Keeper,
    shelf: Shelf,
    trace: Trace,
    layout: Layout,
}

fn bench() -> Bench {
    let (trace, layout) = (Trace::new(), Layout::new("/n0"));
    let shelf = Shelf::alone("n0", layout.clone(), trace.clone());
    let (clock, stream, stamps) = (SimClock::new("n0", 0), random::stream(1, "keeper"), Stamps::new(trace.clone()));
    let keeper = Keeper::new("n0", clock, shelf.clone(), stream, stamps, trace.clone());
    Bench { keeper, shelf, trace, layout }
}

impl Bench {
    fn node(&self) -> (SimProcesses, mpsc::Receiver<Input>) {
        let (inputs, events) = mpsc::channel(64);
        self.keeper.attach(inputs);
        (SimProcesses { keeper: self.keeper.clone(), life: Life::new() }, events)
    }

    fn plan(&self, run: u8, program: Program) -> LaunchPlan {
        let instance = InstanceId { service: ServiceName::new("web").unwrap(), index: 0 };
        let blob = BlobHash::of(b"program");
        LaunchPlan {
            run: RunId([run; 16]),
            launch_hash: BlobHash::of(b"launch"),
            binary: self.layout.executable(&blob),
            interpreter: None,
            args: program.args("1"),
            env: Vec::new(),
            work_dir: self.layout.work_dir(&instance),
            log_dir: self.layout.log_dir(&instance),
            replaceable: run % 2 == 1,
            revision: 1,
            confinement: Confinement::default(),
            identity: None,
            stop: Stop::default(),
            is_job: false,
            lease_until: None,
            instance,
        }
    }

    fn have_program(&self) {
        self.shelf.put(BlobHash::of(b"program"), 10);
        self.shelf.make_executable_now(BlobHash::of(b"program"));
    }
}

async fn event(events: &mut mpsc::Receiver<Input>) -> Option<ProcessEvent> {
    match timeout(Duration::from_secs(5), events.recv()).await.ok()?? {
        Input::Process(event) => Some(event),
        other => panic!("the keeper made {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_launched_stopped_kept_and_forgotten_once_acknowledged() {
    let bench = bench();
    bench.have_program();
    let (mut node, mut events) = bench.node();
    assert_eq!(event(&mut events).await, Some(ProcessEvent::Holding(Vec::new())));
    let run = RunId([1; 16]);
    node.launch(bench.plan(1, Program::Runs));
    assert!(matches!(event(&mut events).await, Some(ProcessEvent::Launched { run: r, .. }) if r == run));
    node.signal(run, SIGTERM);
    let ended = event(&mut events).await;
    assert!(
        matches!(ended, Some(ProcessEvent::Exited { ended: Ended { signal: Some(SIGTERM), .. }, .. })),
        "{ended:?}"
    );
    assert_eq!(bench.keeper.held(), 1);
    node.acknowledge(run);
    assert_eq!(bench.keeper.held(), 0);
    assert_eq!(bench.trace.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn each_program_does_what_its_arguments_say() {
    let bench = bench();
    bench.have_program();
    let (mut node, mut events) = bench.node();
    event(&mut events).await;
    node.launch(bench.plan(1, Program::Fails));
    assert!(matches!(event(&mut events).await, Some(ProcessEvent::LaunchFailed { .. })));
    node.launch(bench.plan(3, Program::Ends { code: 7, after_ms: 900 }));
    assert!(matches!(event(&mut events).await, Some(ProcessEvent::Launched { .. })));
    let ended = event(&mut events).await;
    assert!(matches!(ended, Some(ProcessEvent::Exited { ended: Ended { code: Some(7), .. }, .. })), "{ended:?}");
    node.launch(bench.plan(5, Program::Stubborn));
    assert!(matches!(event(&mut events).await, Some(ProcessEvent::Launched { .. })));
    node.signal(RunId([5; 16]), SIGTERM);
    assert_eq!(event(&mut events).await, None);
    node.kill(RunId([5; 16]));
    let ended = event(&mut events).await;
    assert!(
        matches!(ended, Some(ProcessEvent::Exited { ended: Ended { signal: Some(SIGKILL), .. }, .. })),
        "{ended:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_process_of_the_node_finds_its_runs_and_the_exits_of_the_gap() {
    let bench = bench();
    bench.have_program();
    let (mut node, mut events) = bench.node();
    event(&mut events).await;
    node.launch(bench.plan(2, Program::Ends { code: 1, after_ms: 2_000 }));
    event(&mut events).await;
    node.life.end();
    bench.keeper.detach();
    node.kill(RunId([2; 16]));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (_node, mut events) = bench.node();
    let Some(ProcessEvent::Holding(held)) = event(&mut events).await else { panic!("not told what is held") };
    let codes: Vec<_> = held.iter().map(|kept| kept.ended.and_then(|ended| ended.code)).collect();
    assert_eq!(codes, [Some(1)], "ended by itself: the dead process could not kill it");
}

#[tokio::test(start_paused = true)]
async fn without_its_node_a_keeper_stops_what_others_take_over_and_nothing_else() {
    let bench = bench();
    bench.have_program();
    let (mut node, mut events) = bench.node();
    event(&mut events).await;
    node.launch(bench.plan(1, Program::Stubborn));
    let mut other = bench.plan(2, Program::Runs);
    other.instance.index = 1;
    node.launch(other);
    bench.keeper.detach();
    tokio::time::sleep(ORPHAN_GRACE - Duration::from_secs(1)).await;
    assert_eq!(bench.keeper.living().len(), 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let living: Vec<_> = bench.keeper.living().iter().map(|kept| kept.plan.run).collect();
    assert_eq!(living, [RunId([2; 16])]);
}

#[tokio::test(start_paused = true)]
async fn a_second_run_of_an_instance_and_unverified_bytes_are_found() {
    let bench = bench();
    let (mut node, _events) = bench.node();
    node.launch(bench.plan(1, Program::Runs));
    assert!(bench.trace.violations()[0].starts_with("verified bytes only: on n0: web-0"));
    bench.have_program();
    node.launch(bench.plan(3, Program::Runs));
    assert!(bench.trace.violations()[1].starts_with("one run an instance: on n0: web-0"));
    bench.keeper.die(false);
    assert_eq!(bench.keeper.held(), 0);
}
