//! The groups of one data directory: a base group in each hierarchy, and where a specification names a parent, beneath that. Shell.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::delegation::{self, Delegated};
use super::error::GroupError;
use super::files::{read, remove_tree};
use super::group::Group;
use super::hierarchy::{Controller, Hierarchies, Hierarchy, Version};
use super::memory::Protection;
use super::sweep::Record;
use super::{base_name, run_name};
use crate::confinement::Limits;
use crate::exec::plan::LaunchPlan;

/// The base groups of one data directory.
#[derive(Debug)]
pub(crate) struct BaseGroup {
    name: String,
    hierarchies: Hierarchies,
    own: Rc<Base>,
    /// Those beneath parents that specifications name, by the parents' names.
    named: RefCell<BTreeMap<String, Rc<Base>>>,
    record: RefCell<Record>,
}

/// One base group, in all hierarchies.
#[derive(Debug)]
pub(super) struct Base {
    /// In that of version 2: for membership, for killing, and for the controllers that no other hierarchy has.
    pub(super) unified: PathBuf,
    /// The controllers that it could not be given, and why.
    lacking: BTreeMap<Controller, String>,
    /// In those of version 1: made when the first instance needs it.
    legacy: BTreeMap<Controller, PathBuf>,
    pub(super) protection: Rc<Protection>,
    /// Groups that were missing above them, the topmost first: removed again at the end, where nobody else uses them by then.
    pub(super) made: RefCell<Vec<PathBuf>>,
}

impl Base {
    fn new(delegated: Delegated, legacy: BTreeMap<Controller, PathBuf>, made: Vec<PathBuf>) -> Rc<Self> {
        let Delegated { base, lacking } = delegated;
        let protection = Protection::of(&base);
        Rc::new(Self { unified: base, lacking, legacy, protection, made: RefCell::new(made) })
    }

    /// The folder beneath which groups have that controller's files.
    pub(super) fn of(&self, controller: Controller) -> Result<(Version, &Path), GroupError> {
        if let Some(path) = self.legacy.get(&controller) {
            return Ok((Version::One, path));
        }
        match self.lacking.get(&controller) {
            Some(reason) => Err(GroupError::NoController { controller, reason: reason.clone() }),
            None => Ok((Version::Two, &self.unified)),
        }
    }

    fn folders(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.unified).chain(self.legacy.values()).map(PathBuf::as_path)
    }
}

impl BaseGroup {
    /// Makes the group of `data_dir` beneath this process's own and records it. Fails where no hierarchy of version 2 is mounted or
    /// this process may not write to it; whether processes can be moved is known only after [`Group::enter`].
    pub(crate) fn make(data_dir: &Path) -> Result<Self, GroupError> {
        let hierarchies = super::hierarchies()?;
        let unified = hierarchies.unified.as_ref().ok_or(GroupError::NotMounted)?;
        let name = base_name(data_dir);
        let offered = Offered::by(unified, &hierarchies);
        let mut delegated = delegation::make_base(unified, &name, &offered.wanted)?;
        if !delegated.base.join("cgroup.kill").exists() {
            let _ = fs::remove_dir(&delegated.base);
            return Err(GroupError::NoKill(delegated.base));
        }
        delegated.lacking.extend(offered.nowhere);
        for (controller, reason) in &delegated.lacking {
            tracing::info!(controller = controller.name(), reason, "cannot be limited here");
        }
        let legacy = legacy_bases(&hierarchies, &name, |hierarchy| Some(hierarchy.own_folder()));
        let own = Base::new(delegated, legacy, Vec::new());
        let mut record = Record::new(data_dir);
        record.add(own.folders())?;
        Ok(Self { name, hierarchies, own, named: RefCell::default(), record: RefCell::new(record) })
    }

    /// A group for one run of an instance, with its limits. What was asked for and cannot be applied is an error, unless the plan
    /// leaves such things out: then it is told by [`Group::missing`].
    pub(crate) fn instance(&self, plan: &LaunchPlan) -> Result<Group, GroupError> {
        let (limits, best_effort) = (&plan.confinement.limits, plan.confinement.best_effort);
        let mut missing = Vec::new();
        let base = match &limits.cgroup_parent {
            None => self.own.clone(),
            Some(parent) => match self.beneath(parent) {
                Ok(base) => base,
                Err(error) if best_effort => {
                    missing.push(error.to_string());
                    self.own.clone()
                }
                Err(error) => return Err(error),
            },
        };
        let name = run_name(&plan.instance, &plan.run);
        let mut group = Group::make(base.unified.join(&name))?;
        for controller in Controller::ALL {
            match group.limit(controller, &base, &name, limits) {
                Ok(()) => {}
                // A default holds where it can.
                Err(_) if !controller.is_asked(limits) => {}
                Err(error) if best_effort => missing.push(error.to_string()),
                Err(error) => {
                    // Whoever it was that refused a limit, the groups without it are of no use.
                    if let Err(error) = group.remove() {
                        tracing::warn!(%error, "left a control group behind");
                    }
                    return Err(error);
                }
            }
        }
        group.missing = missing;
        Ok(group)
    }

    /// A group of any name, without limits.
    pub(crate) fn child(&self, name: &str) -> Result<Group, GroupError> {
        Group::make(self.own.unified.join(name))
    }

    /// Removes all base groups and their record, once all of their groups are gone.
    pub(crate) fn remove(&self, data_dir: &Path) -> Result<(), GroupError> {
        let named = self.named.borrow();
        for base in named.values().chain([&self.own]) {
            base.folders().try_for_each(remove_tree)?;
            for folder in base.made.borrow().iter().rev() {
                // Others may use it by now.
                let _ = fs::remove_dir(folder);
            }
        }
        Record::remove(data_dir);
        Ok(())
    }

    /// The base group beneath the group that a specification names.
    fn beneath(&self, parent: &str) -> Result<Rc<Base>, GroupError> {
        // Whoever owns the parent may have removed it, with a base group in it that had nothing to do.
        if let Some(base) = self.named.borrow().get(parent).filter(|base| base.unified.exists()) {
            return Ok(base.clone());
        }
        let refused = |reason: String| GroupError::NoParent { parent: parent.to_owned(), reason };
        let outside = || refused("it leads out of the hierarchy".to_owned());
        let unified = self.hierarchies.unified.as_ref().ok_or(GroupError::NotMounted)?;
        let folder = unified.named(parent).ok_or_else(outside)?;
        let legacy = legacy_bases(&self.hierarchies, &self.name, |hierarchy| hierarchy.named(parent));
        // Written down before anything is made there, so that nothing of it can be left behind unknown.
        self.record
            .borrow_mut()
            .add(legacy.values().map(PathBuf::as_path).chain([folder.join(&self.name).as_path()]))?;
        let offered = Offered::by(unified, &self.hierarchies);
        let (mut delegated, made) = delegation::make_base_in(unified, &folder, &self.name, &offered.wanted)
            .map_err(|error| refused(error.to_string()))?;
        delegated.lacking.extend(offered.nowhere);
        let base = Base::new(delegated, legacy, made);
        self.named.borrow_mut().insert(parent.to_owned(), base.clone());
        Ok(base)
    }
}

/// What version 2 has of the controllers that no hierarchy of version 1 has.
struct Offered {
    wanted: Vec<Controller>,
    nowhere: BTreeMap<Controller, String>,
}

impl Offered {
    fn by(unified: &Hierarchy, hierarchies: &Hierarchies) -> Self {
        let listed = read(&unified.top().join("cgroup.controllers")).unwrap_or_default();
        let left = Controller::ALL.into_iter().filter(|controller| hierarchies.legacy(*controller).is_none());
        let (wanted, nowhere): (Vec<_>, Vec<_>) =
            left.partition(|controller| listed.split_whitespace().any(|word| word == controller.name()));
        let reason = |controller: Controller| {
            (
                controller,
                format!("no hierarchy of cgroups that is mounted here has the controller `{}`", controller.name()),
            )
        };
        Self { wanted, nowhere: nowhere.into_iter().map(reason).collect() }
    }
}

fn legacy_bases(
    hierarchies: &Hierarchies,
    name: &str,
    folder: impl Fn(&Hierarchy) -> Option<PathBuf>,
) -> BTreeMap<Controller, PathBuf> {
    let base = |controller| Some((controller, folder(hierarchies.legacy(controller)?)?.join(name)));
    Controller::ALL.into_iter().filter_map(base).collect()
}

/// Says what of the limits cannot hold where there are no groups at all: as an error for the first that was asked for, or as lines
/// where the plan leaves such things out.
pub(crate) fn without_groups(plan: &LaunchPlan, why: &str) -> Result<Vec<String>, GroupError> {
    let limits: &Limits = &plan.confinement.limits;
    let mut missing: Vec<GroupError> = Controller::ALL
        .into_iter()
        .filter(|controller| controller.is_asked(limits))
        .map(|controller| GroupError::NoController { controller, reason: why.to_owned() })
        .collect();
    if let Some(parent) = &limits.cgroup_parent {
        missing.push(GroupError::NoParent { parent: parent.clone(), reason: why.to_owned() });
    }
    if plan.confinement.best_effort || missing.is_empty() {
        return Ok(missing.iter().map(GroupError::to_string).collect());
    }
    Err(missing.swap_remove(0))
}
