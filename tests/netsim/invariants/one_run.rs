//! On one host, one instance has one run at a time.

use narun::exec::plan::{Kept, LaunchPlan};

/// Whether `plan` may be launched beside what lives; why not.
pub(crate) fn check<'a>(plan: &LaunchPlan, mut living: impl Iterator<Item = &'a Kept>) -> Result<(), String> {
    match living.find(|kept| kept.plan.instance == plan.instance) {
        Some(kept) => Err(format!("{}: {:?} beside {:?}", plan.instance, plan.run, kept.plan.run)),
        None => Ok(()),
    }
}
