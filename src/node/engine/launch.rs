//! The plan of one start, out of a revision and what is known of this host. Pure.

use std::collections::BTreeMap;

use super::EngineConfig;
use super::services::Rev;
use crate::blobs::image::Image;
use crate::exec::plan::{LaunchPlan, Stop};
use crate::ids::{InstanceId, RunId};
use crate::ledger::run::{Fence, Run};
use crate::node::layout::Layout;
use crate::spec::Placement;
use crate::time::Mono;

/// Where programs are looked for when nothing else is said.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is to be started.
pub(super) struct Start<'a> {
    /// By which revision.
    pub(super) rev: &'a Rev,
    /// Its binary for this node.
    pub(super) image: &'a Image,
    /// As what.
    pub(super) id: &'a InstanceId,
    /// What the keeper is to call it.
    pub(super) name: RunId,
    /// The run of a cron spec that this is an attempt of.
    pub(super) run: Option<&'a Run>,
    /// For a singleton, until when it may run, and its fence.
    pub(super) lease: Option<(Mono, Fence)>,
}

impl Start<'_> {
    pub(super) fn plan(&self, config: &EngineConfig) -> LaunchPlan {
        let layout = Layout::new(&config.data_dir);
        let spec = &self.rev.spec;
        let work_dir = layout.work_dir(self.id);
        LaunchPlan {
            instance: self.id.clone(),
            run: self.name,
            launch_hash: self.rev.launch_hash,
            binary: layout.executable(&self.image.hash),
            interpreter: spec.command.clone(),
            args: spec.args.clone(),
            env: self.environment(config, &work_dir.to_string_lossy()),
            log_dir: layout.log_dir(self.id),
            work_dir,
            // A run that was started is not undone when its node is lost: it holds a fence.
            replaceable: self.run.is_none() && matches!(spec.placement, Placement::Cluster { .. }),
            revision: self.rev.revision.number,
            confinement: spec.confinement.clone(),
            identity: None,
            stop: stop_of(self.rev),
            is_job: self.run.is_some(),
            lease_until: self.lease.map(|(until, _)| until),
        }
    }

    /// A small base, the specification's own, then the documented variables; nothing of the node's.
    fn environment(&self, config: &EngineConfig, root: &str) -> Vec<(String, String)> {
        let spec = &self.rev.spec;
        let base = [
            ("PATH", PATH),
            ("HOME", root),
            ("USER", spec.confinement.user.as_ref().unwrap_or(&config.user)),
            ("TMPDIR", root),
            ("LANG", "C.UTF-8"),
        ];
        let mut env: BTreeMap<String, String> = base.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        env.extend(spec.env.iter().map(|var| (var.name.clone(), var.value.clone())));
        let documented = [
            ("NARUN_APP_NAME", self.id.service.to_string()),
            ("NARUN_INSTANCE_ID", self.id.to_string()),
            ("NARUN_RUN_ID", self.run.map_or(self.name, |run| run.id).to_string()),
            ("NARUN_REPLICA_INDEX", self.run.map_or_else(|| self.id.index.to_string(), |_| "-1".to_owned())),
            ("NARUN_NODE_ID", config.name.to_string()),
            ("NARUN_NODE_OS", config.platform.os.clone()),
            ("NARUN_NODE_ARCH", config.platform.arch.clone()),
            ("NARUN_INSTANCE_ROOT", root.to_owned()),
        ];
        env.extend(documented.map(|(name, value)| (name.to_owned(), value)));
        if let Some(run) = self.run {
            let of_run = [
                ("NARUN_FENCE", run.fence.0.to_string()),
                ("NARUN_JOB_ATTEMPT", run.attempt.to_string()),
                ("NARUN_JOB_SCHEDULED_TIME", run.scheduled.to_string()),
            ];
            env.extend(of_run.map(|(name, value)| (name.to_owned(), value)));
        }
        env.extend(self.lease.map(|(_, fence)| ("NARUN_FENCE".to_owned(), fence.0.to_string())));
        env.into_iter().collect()
    }
}

/// How the processes of a revision are asked to stop.
pub(super) fn stop_of(rev: &Rev) -> Stop {
    let supervision = &rev.spec.supervision;
    Stop { signal: supervision.stop_signal, grace_ms: supervision.stop_grace_seconds.saturating_mul(1_000) }
}

/// The binary for this node: one made for its platform before one that runs anywhere.
pub(super) fn image_for<'a>(rev: &'a Rev, config: &EngineConfig) -> Option<&'a Image> {
    let images = &rev.revision.images;
    let exact = images.iter().find(|image| image.platform == config.platform);
    exact.or_else(|| images.iter().find(|image| image.platform.runs_on(&config.platform)))
}
