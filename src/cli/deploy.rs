//! `narun deploy`: a specification and its binaries become a revision. Wiring; `binaries` reads the files.
//!
//! Everything is checked before anything is sent: the specification and the files here, the whole of it by the node in a dry
//! run. Then what the node lacks is uploaded, and one request makes the revision. A deploy that fails anywhere before that
//! request leaves the service as it was.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use clap::{ArgAction, Args};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::api::client::Client;
use crate::api::wire::{self, ImageRef};
use crate::spec::{Flags, RunMode, ServiceSpec};

use super::binaries::{self, Binary};
use super::cron;
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::reach::{Reach, TIMEOUT_DEFAULT};
use super::spec::{indented, read};
use super::wait::WaitArgs;

/// How much of a file is read at once.
const PIECE_LEN: usize = 256 * 1024;

/// Store a new revision of a service or cron spec and run it
///
/// The specification comes from a file (--config) or from the options below. Give one binary for each platform that the
/// service should run on; the platform is read from the file itself. Nothing is changed unless all of it is good.
/// Of a cron spec the next due times are shown, in UTC and in its zone. JSON keys: service, revision, changed, dry_run, images, desired,
/// ready, next (a list, as `narun cron next` prints it).
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  narun deploy --config web.yaml ./web-amd64 ./web-arm64
  narun deploy --name web --tag v1 --replicas 2 --env PORT=8080 --arg --verbose ./web --wait
  narun deploy --config nightly.yaml ./backup.sh
  narun deploy --name nightly --tag v1 --run-mode cron --cron-schedule '0 2 * * *' ./backup.sh

Scripts that begin with `#!` run on every platform. `--node` is `local` (the node that takes the deploy), `any`, `all` or a
node's name.")]
pub(crate) struct Deploy {
    /// The programs: one for each platform
    #[arg(required = true, value_name = "BINARY")]
    binaries: Vec<PathBuf>,
    /// The specification, YAML or JSON
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["name", "tag", "node", "replicas", "run_mode", "cron_schedule", "timezone", "job_max_retries", "job_timeout_seconds", "arg", "env"])]
    config: Option<PathBuf>,
    /// The service's name
    #[arg(long, required_unless_present = "config", help_heading = "Specification")]
    name: Option<String>,
    /// The version label of the binaries
    #[arg(long, required_unless_present = "config", help_heading = "Specification")]
    tag: Option<String>,
    /// Where it runs: `local`, `any`, `all` or a node's name [default: local; for a cron spec any]
    #[arg(long, help_heading = "Specification")]
    node: Option<String>,
    /// How many instances [default: 1]
    #[arg(long, value_name = "N", help_heading = "Specification", allow_hyphen_values = true)]
    replicas: Option<String>,
    /// `service` (kept running) or `cron` (run at due times) [default: service]
    #[arg(long, alias = "runMode", value_name = "MODE", help_heading = "Specification")]
    run_mode: Option<String>,
    /// When a cron spec is due, such as `0 2 * * *` or `@every 5m`
    #[arg(long, alias = "cronSchedule", value_name = "EXPRESSION", help_heading = "Specification")]
    cron_schedule: Option<String>,
    /// The zone that the schedule is read in, such as `Europe/Berlin` [default: UTC]
    #[arg(long, value_name = "ZONE", help_heading = "Specification")]
    timezone: Option<String>,
    /// How often a failed cron run is tried again [default: 0]
    #[arg(long, alias = "jobMaxRetries", value_name = "N", help_heading = "Specification", allow_hyphen_values = true)]
    job_max_retries: Option<String>,
    /// After how many seconds a cron run is ended [default: 0, never]
    #[arg(
        long,
        alias = "jobTimeoutSeconds",
        value_name = "N",
        help_heading = "Specification",
        allow_hyphen_values = true
    )]
    job_timeout_seconds: Option<String>,
    /// An argument for the program; may be given again
    #[arg(long, value_name = "ARG", action = ArgAction::Append, help_heading = "Specification", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// A variable for the program; may be given again
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append, help_heading = "Specification")]
    env: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
    /// Check everything, upload nothing, change nothing
    #[arg(long, alias = "dryRun")]
    dry_run: bool,
    /// On how many nodes' disks the revision must be before it counts as stored
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    acks: u32,
}

impl Deploy {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let spec = self.spec()?;
        let binaries = binaries::look_at(&self.binaries)?;
        let acks_timeout = reach.timeout().unwrap_or(TIMEOUT_DEFAULT);
        let request = wire::Deploy {
            spec: spec.to_yaml(),
            images: binaries.iter().flat_map(images_of).collect(),
            acks: self.acks,
            timeout_ms: u64::try_from(acks_timeout.as_millis()).unwrap_or(u64::MAX),
            dry_run: true,
        };
        let client = reach.client()?;
        let checked = client.deploy(&request).await?;
        if let RunMode::Cron(cron) = &spec.mode {
            cron::note_firing(&client, spec.name.as_str(), cron.policy.suspend).await?;
        }
        let next = cron::slots(&spec, cron::now(), cron::NEXT)?;
        if self.dry_run {
            return output.answer(&answer(&checked, &request, None, &next), || {
                let done = format!("service `{}` would be deployed; nothing was changed\n", checked.service);
                done + &due(&next)
            });
        }
        for binary in &binaries {
            upload(&client, binary).await?;
        }
        let request = wire::Deploy { dry_run: false, ..request };
        let revised = client.deploy(&request).await?;
        let arrived = self.wait.arrived(reach, &client, &revised.service, revised.revision).await?;
        output.answer(&answer(&revised, &request, arrived.as_ref(), &next), || {
            let (service, revision) = (&revised.service, revised.revision);
            let done = match revised.changed {
                true => format!("service `{service}` deployed: revision {revision}"),
                false => format!("service `{service}` is unchanged: revision {revision}"),
            };
            match &arrived {
                Some(arrived) if arrived.desired > 0 => {
                    format!("{done}, {} of {} instances ready\n", arrived.ready, arrived.desired)
                }
                _ => format!("{done}\n{}", due(&next)),
            }
        })
    }

    /// The specification, checked.
    fn spec(&self) -> Result<ServiceSpec, Failure> {
        if let Some(file) = &self.config {
            return read(file);
        }
        let flags = Flags {
            name: self.name.clone(),
            tag: self.tag.clone(),
            node: self.node.clone(),
            replicas: self.replicas.clone(),
            run_mode: self.run_mode.clone(),
            cron_schedule: self.cron_schedule.clone(),
            timezone: self.timezone.clone(),
            job_max_retries: self.job_max_retries.clone(),
            job_timeout_seconds: self.job_timeout_seconds.clone(),
            args: self.arg.clone(),
            env: self.env.clone(),
        };
        ServiceSpec::from_flags(&flags).map_err(|mistakes| {
            Failure::usage(format!("the options make no good specification:\n{}", indented(&mistakes)))
        })
    }
}

fn images_of(binary: &Binary) -> Vec<ImageRef> {
    let image = |platform: &crate::blobs::image::Platform| ImageRef {
        os: platform.os.clone(),
        arch: platform.arch.clone(),
        hash: binary.hash.to_string(),
        size: binary.size,
        file_name: binary.file_name.clone(),
    };
    binary.platforms.iter().map(image).collect()
}

fn answer(
    revised: &wire::Revised,
    request: &wire::Deploy,
    arrived: Option<&super::wait::Arrived>,
    next: &[cron::Slot],
) -> serde_json::Value {
    json!({
        "service": revised.service,
        "revision": revised.revision,
        "changed": revised.changed,
        "dry_run": request.dry_run,
        "images": request.images,
        "desired": arrived.map(|arrived| arrived.desired),
        "ready": arrived.map(|arrived| arrived.ready),
        "next": next,
    })
}

/// The lines below what was deployed: when it is due.
fn due(next: &[cron::Slot]) -> String {
    if next.is_empty() { String::new() } else { format!("\nNext due\n{}", cron::text(next)) }
}

/// Uploads what the node has not got.
async fn upload(client: &Client, binary: &Binary) -> Result<(), Failure> {
    if client.blob(binary.hash).await?.is_some_and(|blob| blob.size == binary.size) {
        return Ok(());
    }
    let shown = binary.path.display();
    let file = tokio::fs::File::open(&binary.path)
        .await
        .map_err(|error| Failure::failed(format!("cannot read {shown}: {error}")))?;
    let progress = Progress::new(&binary.file_name, binary.size);
    let uploaded = client.upload(pieces(file, progress.clone())).await;
    progress.done();
    let uploaded = uploaded.map_err(|error| match Failure::from(error) {
        Failure::Said { code, message, hint } => {
            Failure::Said { code, message: format!("cannot upload {shown}: {message}"), hint }
        }
        other => other,
    })?;
    if uploaded.hash != binary.hash.to_string() {
        return Err(Failure::failed(format!("{shown} changed while it was being uploaded; nothing was deployed"))
            .hint("deploy it again when it is finished"));
    }
    Ok(())
}

fn pieces(file: tokio::fs::File, progress: Progress) -> BoxStream<'static, io::Result<Bytes>> {
    futures::stream::try_unfold(file, move |mut file| {
        let progress = progress.clone();
        async move {
            let mut piece = bytes::BytesMut::with_capacity(PIECE_LEN);
            let len = file.read_buf(&mut piece).await?;
            progress.sent(len);
            Ok(if len == 0 { None } else { Some((piece.freeze(), file)) })
        }
    })
    .boxed()
}
