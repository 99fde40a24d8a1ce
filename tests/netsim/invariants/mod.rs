//! What must hold: some of it always, some of it once everything is healed and quiet.

pub(crate) mod acknowledged;
pub(crate) mod bounded;
pub(crate) mod convergence;
pub(crate) mod copies;
pub(crate) mod membership;
pub(crate) mod one_run;
pub(crate) mod replicas;
pub(crate) mod slots;
pub(crate) mod verified;

use crate::calm::Calm;
use crate::world::World;

/// Looked at every step of the world. `one_run` and `verified` are looked at beside this, at each launch.
pub(crate) fn all_along(world: &mut World) {
    membership::only_by_admission(world);
    bounded::all_along(world);
    Calm::look(world);
}

/// What must hold some time after everything was healed; why it does not. `dead` hosts stay dead.
pub(crate) fn at_rest(world: &World, dead: &[usize]) -> Result<(), String> {
    convergence::members_see_one_another(world, dead)?;
    convergence::catalogs_agree(world)?;
    convergence::settings_agree(world)?;
    acknowledged::kept_everywhere(world)?;
    replicas::run_as_wanted(world)?;
    replicas::are_shown_everywhere(world)?;
    copies::of_every_binary(world)
}
