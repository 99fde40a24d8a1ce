//! Cron on five real nodes while everything goes wrong: each due time is run once, or narun owns up to it.
//!
//! Runs stamp themselves outside of narun (`stamps`), hosts suffer (`field`), narun is asked what became of each slot (`history`), and the
//! checker (`checker`), which shares no code with narun, holds one against the other. How late runs were is printed and not asserted.
//!
//! Needs root, `ip` and `nft` (see `netns`). `NARUN_CRON_MINUTES=n cargo test --test real cron:: -- --nocapture` goes on for longer,
//! with troubles drawn from `NARUN_CRON_SEED`.

mod checker;
mod field;
mod history;
mod stamps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::checker::{Evidence, Plan, Series, Told, judge};
use self::field::{Field, Trouble, millis};
use self::history::{Books, is_over};
use crate::cluster::{WAIT_MAX, within};
use crate::netns::Network;
use crate::skip::skip;

/// How many nodes: as many as vote at most.
const NODES: u8 = 5;

/// How long after a spec was deployed it is judged: by then each node knows of it, and somebody holds its lease.
const BEGIN_S: u64 = 10;

/// What lies between two troubles at least: most of them meet a cluster that has come to rest, and not all.
const REST: Duration = Duration::from_secs(3);

/// A spec of this test: what the checker is to know of it, and what narun is told.
struct Spec {
    plan: Plan,
    schedule: String,
    /// How long a run takes, in seconds.
    work: &'static str,
    fields: &'static str,
}

/// A spec that runs every so many seconds, side by side with itself, and is given a minute for each slot.
fn every(seconds: u64, name: &str, work: &'static str, fields: &'static str) -> Spec {
    let schedule = match seconds {
        1 => "* * * * * *".to_owned(),
        // Slots of `@every` are multiples since 1970.
        _ => format!("@every {seconds}s"),
    };
    let plan = Plan {
        name: name.to_owned(),
        period: seconds,
        deadline: 60,
        is_concurrent: true,
        is_everywhere: false,
        attempts: 1,
        is_rerun: false,
        deployed: 0,
        judged: 0..=0,
    };
    Spec { plan, schedule, work, fields }
}

/// All policies that decide whether and where a slot is run.
fn specs() -> Vec<Spec> {
    let mut specs = vec![
        every(1, "second-a", "0.2", "concurrencyPolicy: allow\ncatchUp: none"),
        every(1, "second-b", "0.2", "concurrencyPolicy: allow\ncatchUp: none"),
        every(1, "second-c", "1.5", "concurrencyPolicy: allow\ncatchUp: none"),
        every(2, "skips", "2.5", "catchUp: none"),
        every(2, "strict", "0.1", "concurrencyPolicy: allow\ncatchUp: none\nstartingDeadlineSeconds: 5"),
        every(2, "latest", "0.1", "concurrencyPolicy: allow\ncatchUp: latest\nstartingDeadlineSeconds: 5"),
        every(3, "retries", "0.1", "concurrencyPolicy: allow\njobMaxRetries: 1\njobRetryBackoffSeconds: 1"),
        every(3, "rerun", "1", "concurrencyPolicy: allow\nonNodeLoss: rerun"),
        every(
            5,
            "everywhere",
            "0.1",
            "concurrencyPolicy: allow\ncronScope: node\ncatchUp: none\nstartingDeadlineSeconds: 5",
        ),
    ];
    for spec in &mut specs {
        let plan = &mut spec.plan;
        plan.is_concurrent = spec.fields.contains("concurrencyPolicy: allow");
        plan.is_everywhere = spec.fields.contains("cronScope: node");
        plan.is_rerun = spec.fields.contains("onNodeLoss: rerun");
        plan.attempts = if spec.fields.contains("jobMaxRetries: 1") { 2 } else { 1 };
        plan.deadline = if spec.fields.contains("startingDeadlineSeconds: 5") { 5 } else { 60 };
    }
    specs
}

/// A field on which these specs fire.
struct Trial {
    field: Field,
    specs: Vec<Spec>,
    books: Books,
    program: String,
    stamps: PathBuf,
    deploys: u32,
}

impl Trial {
    fn start() -> Self {
        let field = Field::start(NODES);
        let stamps = field.cluster.dir().join("stamps");
        std::fs::write(&stamps, "").expect("a file in a temporary directory");
        let program = field.cluster.script("stamps", &stamps::script(&stamps));
        let mut trial = Self { field, specs: specs(), books: Books::default(), program, stamps, deploys: 0 };
        for at in 0..trial.specs.len() {
            trial.specs[at].plan.deployed = millis() / 1_000;
            trial.deploy(at, 0);
        }
        trial
    }

    /// Deploys a spec as one revision more.
    fn deploy(&mut self, at: usize, host: usize) {
        self.deploys += 1;
        let Spec { plan, schedule, work, fields } = &self.specs[at];
        let config = format!(
            "name: {name}\ntag: v1\nnodes: [{{name: {place}}}]\ncronSchedule: '{schedule}'\nhistoryLimit: {rows}\n{fields}\n\
             env: [{{name: SPEC, value: {name}}}, {{name: WORK, value: '{work}'}}, {{name: NEEDED, value: '{needed}'}}, \
             {{name: DEPLOY, value: '{deploy}'}}]\n",
            name = plan.name,
            place = if plan.is_everywhere { "all" } else { "any" },
            rows = history::ROWS,
            needed = plan.attempts,
            deploy = self.deploys,
        );
        let config = self.field.cluster.file("spec.yaml", config);
        self.field.cluster[host].ok(&["deploy", "--config", &config, &self.program]);
    }

    fn series(&self) -> Vec<Series> {
        let nodes = &self.field.faults.nodes;
        let of = |spec: &Spec| {
            let name = spec.plan.name.clone();
            match spec.plan.is_everywhere {
                true => nodes.iter().map(|node| Series { name: name.clone(), node: Some(node.clone()) }).collect(),
                false => vec![Series { name, node: None }],
            }
        };
        self.specs.iter().flat_map(of).collect()
    }

    /// One trouble, and a rest; in the rest one spec is deployed anew by somebody, and narun is asked what became of slots.
    fn suffer(&mut self, trouble: &Trouble, lasts: Duration) {
        self.field.suffer(trouble, lasts);
        let rest = Instant::now() + REST;
        let spec = self.deploys as usize % self.specs.len();
        self.deploy(spec, self.deploys as usize % self.field.count());
        let series = self.series();
        self.books.read(&self.field.cluster[0], &series);
        std::thread::sleep(rest.saturating_duration_since(Instant::now()));
    }

    /// Waits until narun has had its last word on every slot so far, and judges.
    fn end(mut self) {
        let until = millis() / 1_000;
        for spec in &mut self.specs {
            spec.plan.judged = spec.plan.deployed + BEGIN_S..=until;
        }
        let series = self.series();
        // One more round, since what is told of a slot may come before what it writes of itself.
        within(WAIT_MAX, || {
            self.books.read(&self.field.cluster[0], &series);
            let told = self.books.told();
            let is_told = |series: &Series| {
                let rows = told.get(series)?;
                let last = rows.iter().map(last_slot).max()?;
                (last >= until && rows.iter().all(|row| first_slot(row) > until || is_over(row))).then_some(())
            };
            series.iter().all(|one| is_told(one).is_some()).then_some(())
        });
        let evidence = Evidence {
            plans: self.specs.iter().map(|spec| spec.plan.clone()).collect(),
            nodes: self.field.faults.nodes.clone(),
            stamps: stamps::read(&self.stamps),
            told: self.books.told(),
            faults: self.field.faults.clone(),
        };
        let verdict = judge(&evidence);
        eprintln!("{} troubles, {} deploys; {verdict}", self.field.faults.all.len(), self.deploys);
        if !verdict.is_clean() {
            let folder = self.keep(&evidence);
            // All that the nodes have said is kept: their last lines would only hide the verdict.
            drop(self);
            panic!("{verdict}what is known is kept in {}", folder.display());
        }
        assert!(verdict.ran * 2 > verdict.slots, "hardly anything ran");
    }

    /// Keeps what a verdict rests on, and what the nodes have said meanwhile, for whoever looks for the reason.
    fn keep(&self, evidence: &Evidence) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("narun-cron-{}", std::process::id()));
        let keep = |name: &str, content: String| std::fs::write(folder.join(name), content);
        let kept = std::fs::create_dir_all(&folder).and_then(|()| keep("evidence", format!("{evidence:#?}")));
        let logs = self.field.cluster.nodes.iter().map(|node| keep(&format!("{}.log", node.name), node.log()));
        if let Err(error) = kept.and_then(|()| logs.collect::<std::io::Result<()>>()) {
            eprintln!("not all is kept: {error}");
        }
        folder
    }
}

fn first_slot(told: &Told) -> u64 {
    match told {
        Told::Run { slot: first, .. } | Told::Gap { first, .. } => *first,
    }
}

fn last_slot(told: &Told) -> u64 {
    match told {
        Told::Run { slot, .. } => *slot,
        // Near enough: the next slot comes a few seconds later.
        Told::Gap { first, count, .. } => first + count - 1,
    }
}

/// Troubles, one of each kind; where somebody leads, it is the leader whom most of them befall.
fn one_of_each(trial: &mut Trial) {
    let seconds = Duration::from_secs;
    let leader = |trial: &Trial| trial.field.leader().unwrap_or(0);
    let other = |host: usize| (host + 1) % usize::from(NODES);
    let host = leader(trial);
    trial.suffer(&Trouble::Cut(vec![host, other(host)]), seconds(7));
    trial.suffer(&Trouble::Frozen(leader(trial)), seconds(5));
    trial.suffer(&Trouble::Mute(leader(trial)), seconds(6));
    trial.suffer(&Trouble::Crashed(leader(trial)), seconds(3));
    trial.suffer(&Trouble::Deaf(other(leader(trial))), seconds(6));
    trial.suffer(&Trouble::Shattered, seconds(8));
    trial.suffer(&Trouble::Full, seconds(6));
    trial.suffer(&Trouble::Dead(leader(trial)), seconds(4));
    let host = leader(trial);
    trial.suffer(&Trouble::OneWay(host, other(host)), seconds(5));
}

/// A trouble of any kind that befalls anybody.
fn any(random: &mut ChaCha8Rng) -> Trouble {
    let hosts = usize::from(NODES);
    let (host, step) = (random.random_range(0..hosts), random.random_range(1..hosts));
    let other = (host + step) % hosts;
    match random.random_range(0..10) {
        0 => Trouble::Cut(vec![host]),
        1 => Trouble::Cut(vec![host, other]),
        2 => Trouble::Shattered,
        3 => Trouble::Mute(host),
        4 => Trouble::Deaf(host),
        5 => Trouble::OneWay(host, other),
        6 => Trouble::Frozen(host),
        7 => Trouble::Crashed(host),
        8 => Trouble::Dead(host),
        _ => Trouble::Full,
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not `{value}`")))
}

#[test]
fn every_slot_is_run_once_or_owned_up_to_whatever_befalls_the_hosts() {
    if let Some(why) = Network::missing() {
        return skip("cron on hosts that suffer", &why);
    }
    let begun = Instant::now();
    let mut trial = Trial::start();
    // Some slots in peace first.
    std::thread::sleep(Duration::from_secs(BEGIN_S + 5));
    one_of_each(&mut trial);
    if let Some(minutes) = number("NARUN_CRON_MINUTES") {
        let seed = number("NARUN_CRON_SEED").unwrap_or(1);
        eprintln!("seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        while begun.elapsed() < Duration::from_secs(60 * minutes) {
            let lasts = Duration::from_millis(random.random_range(500..12_000));
            trial.suffer(&any(&mut random), lasts);
        }
    }
    std::thread::sleep(Duration::from_secs(5));
    trial.end();
}
