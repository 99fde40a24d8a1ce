//! Who is here, and how news travels.

pub mod transport;
