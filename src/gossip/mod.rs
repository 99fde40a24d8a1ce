//! Who is here, and how news travels.

pub mod join;
pub mod transport;
