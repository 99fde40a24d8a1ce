//! A process is started only from the verified executable of a blob that is whole on its host.

use narun::exec::plan::LaunchPlan;

use crate::blobs::Shelf;

/// Whether `plan` may be launched from what the host holds; why not.
pub(crate) fn check(plan: &LaunchPlan, shelf: &Shelf) -> Result<(), String> {
    shelf.may_run(&plan.binary).map_err(|reason| format!("{}: {reason}", plan.instance))
}
