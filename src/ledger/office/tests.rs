//! The office of a leader, called by hand.

use super::*;
use crate::ids::{RunId, ServiceName};
use crate::ledger::command::{Claim, Decide, JobKey, Reply, Stamped};
use crate::ledger::machine::{FORGET_AFTER, ORPHAN_GRACE};
use crate::ledger::run::{OnNodeLoss, Overlap, Trigger};

fn node(number: u8) -> NodeKey {
    NodeKey([number; 32])
}

fn job(name: &str) -> JobKey {
    JobKey { name: ServiceName::new(name).unwrap(), node: None }
}

fn cron(name: &str) -> LeaseKey {
    LeaseKey::Cron(job(name))
}

fn singleton(name: &str) -> LeaseKey {
    LeaseKey::Singleton(ServiceName::new(name).unwrap())
}

/// How often the office is asked, and how often nodes renew.
const ROUND: Duration = Duration::from_millis(200);
const RENEWAL_ROUNDS: u32 = 2;

/// A leader with its machine, to which all that it proposes is applied at once, and nodes that renew while they are up.
struct Cluster {
    machine: Machine,
    office: Office,
    now: Now,
    wants: Wants,
    voters: BTreeSet<NodeKey>,
    /// Nodes that are up, and by how many milliseconds their clocks are ahead.
    up: BTreeMap<u8, i64>,
    round: u32,
    proposed: Vec<Command>,
}

impl Cluster {
    /// `nodes` of them, all voters, the first of which leads.
    fn of(nodes: u8) -> Self {
        let now = Now { mono: Mono(50_000), wall: Wall(1_800_000_000_000) };
        let mut machine = Machine::default();
        for number in 1..=nodes {
            let command = Command::Open { node: node(number), life: 1 };
            machine.apply(u64::from(number), &Stamped { at: LedgerTime::default(), command, wall: now.wall });
        }
        Self {
            office: Office::begin(now.mono, &machine),
            machine,
            now,
            wants: Wants::default(),
            voters: (1..=nodes).map(node).collect(),
            up: (1..=nodes).map(|number| (number, 0)).collect(),
            round: 0,
            proposed: Vec::new(),
        }
    }

    fn give(&mut self, command: Command) -> Reply {
        let at = self.office.stamp(self.now.mono, &self.machine);
        self.machine.apply(self.machine.applied() + 1, &Stamped { at, command, wall: self.now.wall })
    }

    fn want(&mut self, lease: LeaseKey, nodes: &[u8]) {
        let wanted = Wanted { nodes: nodes.iter().map(|number| node(*number)).collect(), begin: Slot(100) };
        self.wants.leases.insert(lease, wanted);
        self.wants.version += 1;
    }

    fn renew(&mut self, number: u8) -> bool {
        let ahead = self.up.get(&number).copied().unwrap_or_default();
        let wall = Wall(self.now.wall.0.saturating_add_signed(ahead));
        let session = self.machine.session_of(&node(number));
        session.is_some_and(|session| self.office.renew(session, wall, self.now, &self.machine))
    }

    fn pass(&mut self, span: Duration) {
        self.now = Now { mono: self.now.mono + span, wall: self.now.wall.plus(span) };
    }

    /// What the office proposes in one round, which is applied.
    fn round(&mut self) -> Vec<Command> {
        if self.round.is_multiple_of(RENEWAL_ROUNDS) {
            for number in self.up.clone().into_keys() {
                self.renew(number);
            }
        }
        self.round += 1;
        let commands = self.office.due(self.now, &self.machine, &self.wants, &self.voters);
        for command in &commands {
            self.give(command.clone());
        }
        self.proposed.extend(commands.clone());
        self.pass(ROUND);
        commands
    }

    fn live(&mut self, span: Duration) {
        for _ in 0..span.as_millis() / ROUND.as_millis() {
            self.round();
        }
    }

    fn holder(&self, lease: &LeaseKey) -> Option<NodeKey> {
        self.machine.holder(lease).and_then(|session| self.machine.session(session))
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn time_goes_on_from_the_last_leader_s() {
    let mut cluster = Cluster::of(1);
    cluster.machine.apply(9, &Stamped { at: LedgerTime(70_000), command: Command::Tick, wall: Wall(0) });
    let office = Office::begin(Mono(5), &cluster.machine);
    assert_eq!(office.stamp(Mono(5), &cluster.machine), LedgerTime(70_000));
    assert_eq!(office.stamp(Mono(1_005), &cluster.machine), LedgerTime(71_000));
    cluster.machine.apply(10, &Stamped { at: LedgerTime(90_000), command: Command::Tick, wall: Wall(0) });
    assert_eq!(office.stamp(Mono(1_005), &cluster.machine), LedgerTime(90_000), "never less than what was applied");
}

#[test]
fn a_lease_goes_to_who_should_have_it() {
    let mut cluster = Cluster::of(3);
    cluster.want(cron("backup"), &[2, 1, 3]);
    cluster.want(singleton("db"), &[3, 1]);
    cluster.round();
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
    assert_eq!(cluster.holder(&singleton("db")), Some(node(3)));
    assert_eq!(cluster.machine.account(&job("backup")).unwrap().cursor, Slot(100));
    cluster.proposed.clear();
    cluster.live(5 * SECOND);
    assert_eq!(cluster.proposed, [], "nothing changes, and nothing is proposed");
}

#[test]
fn nothing_is_moved_before_anything_is_wanted() {
    let mut cluster = Cluster::of(2);
    cluster.want(cron("backup"), &[2]);
    cluster.round();
    cluster.wants = Wants::default();
    cluster.proposed.clear();
    cluster.live(30 * SECOND);
    assert_eq!(cluster.proposed, []);
}

#[test]
fn a_silent_node_loses_its_session_after_the_ttl_and_its_leases_with_it() {
    let mut cluster = Cluster::of(3);
    cluster.want(cron("backup"), &[2, 3]);
    cluster.live(SECOND);
    assert!(cluster.renew(2));
    cluster.up.remove(&2);
    cluster.live(SESSION_TTL);
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)), "not before");
    cluster.live(2 * ROUND);
    assert_eq!(cluster.machine.session_of(&node(2)), None);
    assert_eq!(cluster.holder(&cron("backup")), Some(node(3)));
    assert!(!cluster.renew(2));
}

#[test]
fn a_session_on_its_way_out_is_not_renewed() {
    let mut cluster = Cluster::of(2);
    cluster.round();
    cluster.up.remove(&2);
    for _ in 0..30 {
        cluster.renew(1);
        let now = cluster.now;
        cluster.office.due(now, &cluster.machine, &cluster.wants, &cluster.voters);
        cluster.pass(ROUND);
    }
    assert!(cluster.machine.session_of(&node(2)).is_some(), "its end is proposed, and not committed yet");
    assert!(!cluster.renew(2));
    assert!(cluster.renew(1));
}

#[test]
fn what_is_not_committed_is_proposed_again_but_not_each_round() {
    let mut cluster = Cluster::of(1);
    cluster.want(cron("backup"), &[1]);
    let mut proposed = 0;
    for _ in 0..12 {
        cluster.renew(1);
        let now = cluster.now;
        proposed += cluster.office.due(now, &cluster.machine, &cluster.wants, &cluster.voters).len();
        cluster.pass(ROUND);
    }
    assert_eq!(proposed, 3, "at once, after one second and after two");
}

#[test]
fn a_new_leader_gives_everybody_a_full_ttl() {
    let mut cluster = Cluster::of(2);
    cluster.pass(60 * SECOND);
    cluster.office = Office::begin(cluster.now.mono, &cluster.machine);
    cluster.up.remove(&2);
    cluster.live(SESSION_TTL);
    assert!(cluster.machine.session_of(&node(2)).is_some());
    cluster.live(3 * ROUND);
    assert!(cluster.machine.session_of(&node(2)).is_none());
}

#[test]
fn a_leader_that_stood_still_blames_nobody() {
    let mut cluster = Cluster::of(2);
    cluster.live(SECOND);
    cluster.pass(60 * SECOND);
    assert_eq!(cluster.round(), []);
    cluster.up.remove(&2);
    cluster.live(SESSION_TTL + 3 * ROUND);
    assert_eq!(cluster.machine.session_of(&node(2)), None);
}

#[test]
fn a_leader_that_waits_for_its_disk_did_not_stand_still() {
    let mut cluster = Cluster::of(2);
    cluster.live(SECOND);
    cluster.up.remove(&2);
    for _ in 0..25 {
        cluster.renew(1);
        cluster.pass(ROUND);
        cluster.office.beat(cluster.now.mono);
    }
    let session = cluster.machine.session_of(&node(2)).unwrap();
    assert_eq!(cluster.round(), [Command::Close { session }]);
}

#[test]
fn a_cron_lease_follows_the_wants_and_a_singleton_stays_until_it_is_let_go() {
    let mut cluster = Cluster::of(2);
    cluster.want(cron("backup"), &[1]);
    cluster.want(singleton("db"), &[1]);
    cluster.round();
    cluster.want(cron("backup"), &[2, 1]);
    cluster.want(singleton("db"), &[2]);
    cluster.live(3 * SECOND);
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
    assert_eq!(cluster.holder(&singleton("db")), Some(node(1)));
    let session = cluster.machine.session_of(&node(1)).unwrap();
    cluster.give(Command::Release { lease: singleton("db"), session });
    cluster.round();
    assert_eq!(cluster.holder(&singleton("db")), Some(node(2)));
}

#[test]
fn who_is_eligible_no_more_keeps_the_lease_while_nobody_is() {
    let mut cluster = Cluster::of(2);
    cluster.want(cron("backup"), &[2]);
    cluster.round();
    cluster.want(cron("backup"), &[]);
    cluster.live(SECOND);
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
}

#[test]
fn a_clock_that_is_off_holds_nothing_until_it_is_near_again() {
    let mut cluster = Cluster::of(3);
    cluster.want(cron("backup"), &[2, 3]);
    cluster.want(cron("alone"), &[2]);
    cluster.live(SECOND);
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
    for (ahead, holder) in [(1_900, 2), (2_100, 3), (1_500, 3), (900, 2), (-2_100, 3), (0, 2)] {
        cluster.up.insert(2, ahead);
        cluster.live(SECOND);
        assert_eq!(cluster.holder(&cron("backup")), Some(node(holder)), "{ahead} ms ahead");
        assert_eq!(cluster.holder(&cron("alone")), (holder == 2).then_some(node(2)), "{ahead} ms ahead");
    }
}

#[test]
fn a_leader_whose_clock_jumps_blames_itself() {
    let mut cluster = Cluster::of(3);
    cluster.want(cron("backup"), &[2]);
    cluster.live(SECOND);
    assert!(cluster.office.is_clock_good(cluster.now));
    cluster.now.wall = cluster.now.wall.plus(600 * SECOND);
    cluster.up = [(1, 0), (2, -600_000), (3, -600_000)].into();
    assert!(!cluster.office.is_clock_good(cluster.now));
    cluster.live(3 * SECOND);
    assert!(!cluster.office.is_clock_good(cluster.now));
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)), "it was right all along");
}

/// Found by a trial: a leader whose calendar had jumped ahead by minutes let itself decide all slots of these minutes at once, so that
/// none of them was run when it came.
#[test]
fn a_leader_whose_clock_jumps_decides_nothing_ahead_of_time() {
    let mut cluster = Cluster::of(3);
    assert_eq!(cluster.office.calendar(cluster.now.mono), None, "nobody was heard of yet");
    cluster.live(Duration::from_secs(1));
    let truth = cluster.now.wall;
    let jumped = Now { wall: truth.plus(Duration::from_secs(600)), ..cluster.now };
    let calendar = cluster.office.calendar(jumped.mono).expect("all were heard of");
    assert!(calendar.since(truth) < EARLY_MAX && truth.since(calendar) < EARLY_MAX, "{calendar} instead of {truth}");
}

#[test]
fn a_spec_begins_when_it_was_deployed_and_at_once_if_that_clock_was_ahead() {
    let mut cluster = Cluster::of(3);
    // The leader's own clock is ahead, too, which changes nothing.
    cluster.now.wall = cluster.now.wall.plus(500 * SECOND);
    cluster.up = [(1, 0), (2, -500_000), (3, -500_000)].into();
    let truth = Slot(1_800_000_000);
    for (name, deployed) in [("past", truth.0 - 90), ("now", truth.0 + 2), ("ahead", truth.0 + 600)] {
        cluster.want(cron(name), &[2]);
        cluster.wants.leases.get_mut(&cron(name)).unwrap().begin = Slot(deployed);
    }
    cluster.round();
    let cursor = |cluster: &Cluster, name| cluster.machine.account(&job(name)).unwrap().cursor;
    assert_eq!(cursor(&cluster, "past"), Slot(truth.0 - 90));
    assert_eq!(cursor(&cluster, "now"), Slot(truth.0 + 2), "so far clocks may be apart");
    assert_eq!(cursor(&cluster, "ahead"), truth);
    // It is deleted, and deployed again at the same node.
    let wanted = cluster.wants.leases.remove(&cron("ahead")).unwrap();
    cluster.wants.version += 1;
    cluster.live(20 * SECOND);
    cluster.wants.leases.insert(cron("ahead"), wanted);
    cluster.wants.version += 1;
    cluster.round();
    assert_eq!(cursor(&cluster, "ahead"), Slot(truth.0 + 20));
}

#[test]
fn before_a_majority_of_clocks_is_known_nothing_is_given_and_nothing_taken() {
    let mut cluster = Cluster::of(3);
    cluster.want(cron("backup"), &[2, 1]);
    cluster.live(SECOND);
    cluster.office = Office::begin(cluster.now.mono, &cluster.machine);
    cluster.want(cron("backup"), &[1, 2]);
    cluster.round = 1;
    cluster.renew(1);
    cluster.round();
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
    cluster.renew(2);
    cluster.round();
    assert_eq!(cluster.holder(&cron("backup")), Some(node(1)));
}

#[test]
fn of_two_clocks_that_differ_none_is_blamed_before_the_third_one_could_be_heard() {
    let mut cluster = Cluster::of(3);
    cluster.want(cron("backup"), &[2]);
    cluster.live(SECOND);
    cluster.up.insert(3, -5_000);
    cluster.live(SECOND);
    // A new leader hears the wrong one first.
    cluster.office = Office::begin(cluster.now.mono, &cluster.machine);
    cluster.round = 1;
    cluster.renew(1);
    cluster.renew(3);
    cluster.round();
    assert!(cluster.office.is_clock_good(cluster.now), "it would hand over, and the next one, too");
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
    cluster.live(2 * SECOND);
    assert!(cluster.office.is_clock_good(cluster.now));
    assert_eq!(cluster.holder(&cron("backup")), Some(node(2)));
    // Without the third one, the slower of two is believed.
    cluster.up.remove(&2);
    cluster.office = Office::begin(cluster.now.mono, &cluster.machine);
    cluster.live(2 * SECOND);
    assert!(!cluster.office.is_clock_good(cluster.now));
}

#[test]
fn ten_thousand_leases_are_given_in_batches_and_then_looked_at_no_more() {
    let mut cluster = Cluster::of(3);
    for number in 0..10_000_u32 {
        cluster.want(cron(&format!("job-{number}")), &[1 + (number % 3) as u8]);
    }
    let batches: Vec<usize> = (0..6).map(|_| cluster.round().len()).collect();
    assert_eq!(batches, [2_000, 2_000, 2_000, 2_000, 2_000, 0]);
    cluster.live(SECOND + 2 * ROUND);
    let scanned = cluster.office.assignment.scanned();
    cluster.live(5 * SECOND);
    assert_eq!(cluster.office.assignment.scanned(), scanned, "an idle round goes through no leases");
}

#[test]
fn an_orphan_that_nobody_speaks_of_is_given_up_in_time() {
    let mut cluster = Cluster::of(2);
    cluster.want(cron("backup"), &[2]);
    cluster.round();
    let session = cluster.machine.session_of(&node(2)).unwrap();
    let claim = Claim {
        run: RunId([1; 16]),
        trigger: Trigger::Slot(Slot(101)),
        scheduled: Wall(101_000),
        revision: crate::crdt::document::RevisionId { number: 1, hash: [1; 4] },
        overlap: Overlap::Skip,
        attempts_max: 1,
        on_node_loss: OnNodeLoss::Fail,
        history_limit: 20,
    };
    let decide = Decide {
        job: job("backup"),
        session,
        cursor: Slot(100),
        gaps: Vec::new(),
        claim: Some(claim),
        upto: Slot(101),
    };
    let Reply::Granted(fence) = cluster.give(Command::Decide(decide)) else { panic!("not granted") };
    cluster.give(Command::Started { job: job("backup"), run: RunId([1; 16]), fence, at: Wall(1) });
    cluster.up.remove(&2);
    cluster.live(SESSION_TTL + 3 * ROUND);
    cluster.proposed.clear();
    cluster.live(ORPHAN_GRACE);
    assert_eq!(cluster.proposed, [Command::Tick]);
    let runs = cluster.machine.account(&job("backup")).unwrap().runs;
    assert!(runs[0].end.is_some());
}

#[test]
fn a_deleted_spec_s_job_is_retired_after_a_while_and_forgotten_a_day_later() {
    let mut cluster = Cluster::of(1);
    cluster.want(cron("backup"), &[1]);
    cluster.want(cron("other"), &[1]);
    cluster.live(SECOND);
    cluster.wants.leases.remove(&cron("backup"));
    cluster.wants.version += 1;
    cluster.live(9 * SECOND);
    assert!(cluster.machine.has_spec(&job("backup")), "the catalog may be behind");
    cluster.live(2 * SECOND);
    assert!(!cluster.machine.has_spec(&job("backup")));
    assert!(cluster.machine.has_spec(&job("other")));
    cluster.proposed.clear();
    cluster.live(5 * SECOND);
    assert_eq!(cluster.proposed, []);
    cluster.pass(FORGET_AFTER);
    cluster.live(SECOND);
    assert_eq!(cluster.proposed, [Command::Forget { job: job("backup") }]);
    assert_eq!(cluster.machine.account(&job("backup")), None);
}

#[test]
fn a_spec_that_comes_back_keeps_its_cursor() {
    let mut cluster = Cluster::of(1);
    cluster.want(cron("backup"), &[1]);
    cluster.live(SECOND);
    let wanted = cluster.wants.leases.remove(&cron("backup")).unwrap();
    cluster.wants.version += 1;
    cluster.live(20 * SECOND);
    assert!(!cluster.machine.has_spec(&job("backup")));
    cluster.wants.leases.insert(cron("backup"), wanted);
    cluster.wants.version += 1;
    cluster.round();
    assert_eq!(cluster.holder(&cron("backup")), Some(node(1)));
    assert!(cluster.machine.has_spec(&job("backup")));
}

#[test]
fn a_slot_is_early_that_is_over_two_seconds_ahead() {
    let decide = |upto| {
        let (job, session, cursor) = (job("backup"), SessionId(1), Slot(100));
        Command::Decide(Decide { job, session, cursor, gaps: Vec::new(), claim: None, upto: Slot(upto) })
    };
    let at = Some(Wall(200_000));
    assert!(!is_early(&decide(200), at));
    assert!(!is_early(&decide(202), at));
    assert!(is_early(&decide(203), at));
    assert!(is_early(&decide(u64::MAX), at));
    assert!(is_early(&decide(0), None), "a leader does not take its own clock for the voters'");
    assert!(!is_early(&Command::Tick, None));
}
