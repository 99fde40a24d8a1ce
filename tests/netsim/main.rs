//! The simulator: whole nodes, the binary's engine and the binary's loop, on a simulated world in virtual time.
//!
//! `world` is where to begin: N `host`s on one `network`, each with a `clock`, a `disk`, a keeper of `processes` and a shelf of
//! `blobs`. `faults` break them, the `workload` asks for things, the `journal` remembers what was promised, and the
//! `invariants` say what must hold. `scenarios` are named; `random_seeds` draws as many worlds as one likes:
//!
//! ```text
//! cargo test --test netsim                                        the named ones and some hundred seeds
//! NARUN_SIM_SEEDS=5000 cargo test --test netsim random_seeds      more seeds
//! NARUN_SIM_SEED=42 cargo test --test netsim random_seeds         one of them
//! NARUN_SIM_SLOTS=100000 cargo test --test netsim random_slots    more slots of cron specs
//! NARUN_SIM_HOURS=24 cargo test --test netsim long_lives          worlds with cron specs that last longer
//! NARUN_SIM_TRACE=1                                               with it: every event, when it happens
//! ```

mod world;

mod host;
mod life;

mod agreement;
mod blobs;
mod clock;
mod disk;
mod ledger_disk;
mod network;
mod processes;
mod program;
mod signatures;

mod outbox;
mod random;
mod stamps;
mod trace;

mod calm;
mod comings;
mod faults;
mod forgery;
mod wish;
mod workload;

mod invariants;
mod journal;

mod random_seeds;
mod random_slots;
mod scenarios;
mod speed;
mod spread;
