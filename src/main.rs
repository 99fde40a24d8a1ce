//! The `narun` program.

fn main() {}
