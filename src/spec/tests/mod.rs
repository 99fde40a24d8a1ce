//! Tests of the written and the stored form: what is taken, what is refused in which words, and that all forms say the same.

mod forms;
mod refused;
mod taken;
mod text;

use super::{Mistakes, ServiceSpec};

/// The specification that `text` says.
fn parsed(text: &str) -> ServiceSpec {
    ServiceSpec::parse(text).unwrap_or_else(|mistakes| panic!("refused:\n{mistakes}\n--- text:\n{text}"))
}

fn refused(text: &str) -> Mistakes {
    match ServiceSpec::parse(text) {
        Ok(spec) => panic!("taken as {spec:?}\n--- text:\n{text}"),
        Err(mistakes) => mistakes,
    }
}
