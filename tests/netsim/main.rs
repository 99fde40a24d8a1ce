//! The simulator.
mod blobs;
mod clock;
mod disk;
mod life;
mod network;
mod outbox;
mod processes;
mod program;
mod random;
mod signatures;
mod trace;
