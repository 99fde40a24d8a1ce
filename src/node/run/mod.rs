//! Puts a node together and runs it. Wiring.
//!
//! The order of a start: the data directory is locked, the identity read, the port bound, the database opened (and the door
//! knocked at, for a joiner), the node's new life counted durably, the keeper reached, the engine restored; then the loop runs and
//! the doors open. Whatever fails before the loop runs leaves everything as it was.
//!
//! Tasks: the engine's loop (owner of the engine), the API, the door for joiners, the provider of blobs, the providers of logs and of usage. All
//! of them end when the node ends; the loop's end ends the node.

mod address;
mod agreement;
mod doors;
mod former;
mod modes;
mod options;
mod signals;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::prctl;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::agreement::{Questions, watch};
use super::clock::SystemClock;
use super::config::{JoinOptions, Origin, Ready, StartOptions};
use super::engine::effect::{Change, Refusal, Response};
use super::engine::input::{Input, Request};
use super::engine::view::View;
use super::engine::{Engine, EngineConfig, MEMBERS_MAX, RestoreError, Stored, first_rows, next_boot};
use super::handle::{COMMANDS_MAX, NodeHandle};
use super::host;
use super::identity::{Identity, IdentityError};
use super::layout::Layout;
use super::lock::{DataDirLock, LockError};
use super::logs::disk::DiskLogs;
use super::logs::gather::Gather;
use super::runtime::{self, Doors, INPUTS_MAX, World};
use super::shells::{Clock, DiskError};
use super::store::{Store, StoreError};
use super::usage::gather::UsageGather;
use crate::api::doors::StopSender;
use crate::api::peer::Doorkeeper;
use crate::api::socket::{self, SocketError};
use crate::api::{self, ApiState};
use crate::blobs::image::Platform;
use crate::blobs::provide;
use crate::blobs::shell::BlobShell;
use crate::blobs::store::{BlobError, BlobStore};
use crate::crdt::admission::{Founding, Role, Welcome};
use crate::crdt::ticket::Ticket;
use crate::crdt::trust::{Gone, GoneCause};
use crate::exec::keeper::SHUTDOWN_GRACE_MAX;
use crate::exec::keeper::client::{ClientError, KeeperClient};
use crate::gossip::join::{self, JoinError};
use crate::gossip::transport::{Displaced, Transport, TransportConfig, TransportError};
use crate::ids::NodeName;
use crate::ledger::raft::Stopped;
use crate::ledger::raft::streams::{self, Streams};
use crate::time::Wall;

use agreement::Agreement;
use options::Options;
use signals::Ending;

/// How long the ticket is good that a new cluster's first node prints.
const FIRST_TICKET_TTL: Duration = Duration::from_secs(3600);

/// How many nodes that ticket admits: enough for the first handful of hosts.
const FIRST_TICKET_USES: u32 = 10;

/// How long answers under way and the database have to come to an end when the node stops.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// Why a node could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory cannot be made or found.
    #[error("cannot use the data directory {dir}: {cause}")]
    DataDir {
        /// Which one.
        dir: std::path::PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Its memory stays open to others.
    #[error("cannot close the node's memory to others: {0}")]
    Dumpable(nix::Error),
    /// Another node has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The node's key cannot be read or made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is not there, though the node has lived before.
    #[error(
        "the database {0} is gone, though this node has a key\nbring the file back from a copy; or move the data directory away, \
         and begin anew or join with a new ticket"
    )]
    DatabaseGone(std::path::PathBuf),
    /// What the node had of the ledger is not there any more.
    #[error(
        "the ledger's database {0} is gone, though this node has had one: without it, it could vote against what it has promised\n\
         bring the file back from a copy; or `narun node remove` this node elsewhere, move the data directory away and join with a \
         new ticket; `narun ledger recover --anew` begins an empty ledger where no other voter is left"
    )]
    LedgerGone(std::path::PathBuf),
    /// The ledger failed: the node does not know any more what it has promised.
    #[error(transparent)]
    Ledger(#[from] Stopped),
    /// The port cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The address to listen at is none.
    #[error("cannot listen at `{address}`: {cause}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The door did not open.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The data directory belongs to a node already.
    #[error(
        "the data directory {0} belongs to a member of a cluster already\n`narun start` runs it; `--data-dir` names another directory"
    )]
    AlreadyMember(std::path::PathBuf),
    /// The node is no member of its cluster any more: found at the start, or heard while it ran.
    #[error("{gone}\n{hint}", hint = former::HINT)]
    Gone {
        /// What happened to it.
        gone: Gone,
    },
    /// What is left of the former membership cannot be put aside.
    #[error("cannot put aside what is left of the former membership in {dir}: {cause}")]
    Former {
        /// The data directory.
        dir: std::path::PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// Another name was asked for than the one that the node was admitted under.
    #[error(
        "this node is `{is}`, and cannot be started as `{asked}`\na node keeps the name that it was admitted under"
    )]
    OtherName {
        /// The node's name.
        is: NodeName,
        /// What was asked for.
        asked: NodeName,
    },
    /// The blob store cannot be used.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The keeper cannot be reached or started.
    #[error(transparent)]
    Keeper(#[from] ClientError),
    /// The API's socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The node's own program cannot be found, so that no keeper can be started.
    #[error("cannot find narun's own program: {0}")]
    OwnProgram(std::io::Error),
    /// The first ticket could not be made.
    #[error("cannot make the first ticket: {0}")]
    FirstTicket(Refusal),
    /// The database failed while the node ran: it stopped, since it could promise nothing any more.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Another node has the same key, and lives: this one stopped itself.
    #[error(
        "another node runs with the key of {}{}: this directory is a copy\nhint: start this node with an empty data directory, and \
         let it join with a ticket of its own: `narun join`",
        dir.display(),
        at(&displaced.addresses)
    )]
    Copy {
        /// The data directory.
        dir: std::path::PathBuf,
        /// Who says so, and where the other one is.
        displaced: Displaced,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

fn at(addresses: &[String]) -> String {
    match addresses {
        [] => String::new(),
        some => format!(", at {}", some.join(" or ")),
    }
}

/// Runs the node of a data directory until it is told to stop. A fresh directory begins a cluster of one.
pub async fn start(options: StartOptions) -> Result<(), RunError> {
    let ground = Ground::prepare(&options).await?;
    if let Some(gone) = ground.gone()? {
        return Err(RunError::Gone { gone });
    }
    let (founding, welcome, fresh) = match ground.cluster()? {
        Some((founding, welcome)) => (founding, welcome, false),
        None => {
            let name = options.name.clone().unwrap_or_else(|| options.name_default.clone());
            let founding = Founding { founder: ground.identity.key(), name, at: now_wall(), nonce: random()? };
            ground.store.write(&first_rows(&founding, None))?;
            (founding, None, true)
        }
    };
    ground.run(founding, welcome, options, if fresh { Beginning::Founded } else { Beginning::Resumed }).await
}

/// Makes this host's node a member by a ticket, and runs it.
pub async fn join(options: JoinOptions) -> Result<(), RunError> {
    let JoinOptions { start: options, ticket } = options;
    let mut ground = Ground::prepare(&options).await?;
    if ground.gone()?.is_some() {
        ground = ground.anew(&options).await?;
    }
    if ground.cluster()?.is_some() {
        return Err(RunError::AlreadyMember(ground.layout.root().to_owned()));
    }
    let name = options.name.clone().unwrap_or_else(|| options.name_default.clone());
    let welcome = join::knock(&ground.identity, &ticket, &name, &ground.addresses).await?;
    let founding = welcome.founding.clone();
    ground.store.write(&first_rows(&founding, Some(&welcome)))?;
    ground.run(founding, Some(welcome), options, Beginning::Joined).await
}

/// What a node stands on before it is in any cluster.
struct Ground {
    layout: Layout,
    lock: DataDirLock,
    identity: Identity,
    store: Store,
    stored: Stored,
    transport: Transport,
    addresses: Vec<String>,
    kept: Options,
    inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
}

enum Beginning {
    Founded,
    Joined,
    Resumed,
}

impl Ground {
    async fn prepare(options: &StartOptions) -> Result<Self, RunError> {
        // Closes memory, environment and descriptors to its own user, as which instances may run, and forbids core dumps.
        prctl::set_dumpable(false).map_err(RunError::Dumpable)?;
        modes::make_private();
        let layout = Layout::new(prepare_data_dir(&options.data_dir)?);
        let lock = DataDirLock::take(&layout.lock())?;
        modes::set(&layout).map_err(|cause| RunError::DataDir { dir: layout.root().to_owned(), cause })?;
        // To go on without it would be to begin another cluster under the same key.
        let has_database = std::fs::metadata(layout.database()).is_ok_and(|file| file.len() > 0);
        if layout.identity().exists() && !has_database {
            return Err(RunError::DatabaseGone(layout.database()));
        }
        let identity = Identity::load_or_create(&layout.identity())?;
        let store = Store::open(&layout.database())?;
        let stored = store.read()?;
        let kept = Options::merge(&stored, options).map_err(|row| store.damaged(row))?;
        let inputs = mpsc::channel(INPUTS_MAX);
        let listen = address::resolve(&kept.listen).await?;
        let config = TransportConfig { identity: identity.clone(), listen };
        let transport = Transport::start(config, inputs.0.clone()).await?;
        let kept = kept.listening_at(transport.listen_address());
        let addresses = address::reachable_at(&kept.advertise, transport.listen_address());
        Ok(Self { layout, lock, identity, store, stored, transport, addresses, kept, inputs })
    }

    fn cluster(&self) -> Result<Option<(Founding, Option<Welcome>)>, RunError> {
        EngineConfig::read_cluster(&self.stored).map_err(|error| self.store.damaged(error).into())
    }

    fn gone(&self) -> Result<Option<Gone>, RunError> {
        EngineConfig::read_gone(&self.stored).map_err(|error| self.store.damaged(error).into())
    }

    /// The same data directory with a new key and nothing of the former membership, which is put aside.
    async fn anew(self, options: &StartOptions) -> Result<Self, RunError> {
        let Self { layout, lock, store, transport, .. } = self;
        transport.stop().await;
        drop(store);
        former::put_aside(&layout, now_wall())
            .map_err(|cause| RunError::Former { dir: layout.root().to_owned(), cause })?;
        drop(lock);
        Self::prepare(options).await
    }

    async fn run(
        self,
        founding: Founding,
        welcome: Option<Welcome>,
        options: StartOptions,
        beginning: Beginning,
    ) -> Result<(), RunError> {
        let Self { layout, lock, identity, store, mut stored, transport, addresses, kept, inputs } = self;
        let name = welcome.as_ref().map_or_else(|| founding.name.clone(), |welcome| welcome.name.clone());
        if let Some(asked) = options.name.filter(|asked| *asked != name) {
            return Err(RunError::OtherName { is: name, asked });
        }
        let boot = next_boot(&mut stored).map_err(|error| store.damaged(error))?;
        let rows: Vec<Change> = [boot, kept.row()].into();
        store.write(&rows)?;

        let cluster = founding.cluster();
        let me = identity.key();
        let (ledger_store, founds) = (agreement::open(&layout, &store, &stored)?, founding.founder == me);
        let config = EngineConfig {
            signatures: Arc::new(identity),
            founding,
            welcome,
            name: name.clone(),
            addresses,
            platform: own_platform(),
            labels: kept.labels.clone(),
            capacity: host::capacity(),
            data_dir: layout.root().to_owned(),
            user: address::own_user(),
            members_max: MEMBERS_MAX,
        };
        let seed = u64::from_le_bytes(random()?);
        let engine = Engine::restore(&stored, config, seed, SystemClock.now())
            .map_err(|error: RestoreError| store.damaged(error))?;
        drop(stored);

        let streams = Arc::new(Streams::new(transport.clone()));
        let mut agreement = Agreement::start(me, ledger_store, streams.clone(), founds).await?;
        let ledger = agreement.ledger();
        let blobs = BlobStore::open(&layout).await?;
        let exe = std::env::current_exe().map_err(RunError::OwnProgram)?;
        let (keeper, keeper_task) = KeeperClient::connect_or_start(&layout, exe, inputs.0.clone()).await?;
        let api_path = options.api_socket.unwrap_or_else(|| layout.api_socket());
        let listener = Doorkeeper::new(socket::bind(&api_path)?, keeper.keeper());

        let (commands, commands_taken) = mpsc::channel(COMMANDS_MAX);
        let (show, view) = watch::channel(Arc::new(View::default()));
        let node = NodeHandle::new(commands, view);
        let (writer, writer_thread) = store.run();
        let shell = BlobShell::new(transport.clone(), blobs.clone(), inputs.0.clone());
        let world = World {
            network: doors::Links {
                sender: transport.network(),
                transport: transport.clone(),
                cluster,
                inputs: inputs.0.clone(),
                streams,
            },
            disk: writer,
            processes: keeper.clone(),
            blobs: shell.clone(),
            ledger: Questions::new(ledger.clone(), inputs.0.clone()),
            clock: SystemClock,
        };
        let doors = Doors { inputs: inputs.1, commands: commands_taken, view: show };
        let mut engine_loop = tokio::spawn(runtime::run(engine, world, doors));
        blobs.verify_executables().await?;
        shell.report_holding().await;
        // Whoever asks earlier would be told that there are no nodes and no services.
        node.shows().await;

        let logs = Arc::new(DiskLogs::new(layout.clone()));
        let gather = Gather::new(node.clone(), logs.clone(), Arc::new(doors::LogStreams(transport.clone())));
        let (stop, stop_asked) = StopSender::new();
        let state = ApiState {
            node: node.clone(),
            blobs: Arc::new(doors::Uploads { store: blobs.clone(), inputs: inputs.0.clone() }),
            logs: Arc::new(gather),
            usage: Arc::new(UsageGather::new(node.clone(), Arc::new(doors::UsageStreams(transport.clone())))),
            ledger: Arc::new(ledger.clone()),
            network: Arc::new(transport.clone()),
            stop,
        };
        let (api_ends, api_told) = oneshot::channel::<()>();
        let api = tokio::spawn(api::serve(listener, state, async { drop(api_told.await) }));
        let mut tasks = JoinSet::new();
        tasks.spawn(doors::serve_joiners(transport.clone(), cluster, node.clone()));
        tasks.spawn({
            let (transport, blobs) = (transport.clone(), blobs.clone());
            async move { provide::serve(&transport, blobs).await }
        });
        tasks.spawn(doors::serve_logs(transport.clone(), logs, name.clone()));
        tasks.spawn(doors::serve_usage(transport.clone(), node.clone()));
        tasks.spawn(streams::serve(transport.clone(), ledger.clone()));
        tasks.spawn(watch(me, ledger.clone(), inputs.0.clone()));

        let origin = match beginning {
            Beginning::Founded => Origin::Founded(first_ticket(&node).await?),
            Beginning::Joined => Origin::Joined,
            Beginning::Resumed => Origin::Resumed,
        };
        let ready = Ready { name, listen: kept.listen.clone(), api_socket: api_path.clone(), origin };
        (options.announce)(&ready);
        tracing::info!(node = %ready.name, listen = %ready.listen, "serving");
        drop(inputs.0);

        let mut gone = None;
        let (ending, copy) = tokio::select! {
            ended = &mut engine_loop => {
                gone = Some(loop_ended(ended)?);
                (Ending::Everything, None)
            }
            ending = signals::wait(stop_asked) => (ending, None),
            // What it runs is run by the other one too.
            displaced = transport.displaced() => (Ending::Everything, Some(displaced)),
            stopped = agreement.ended() => return Err(stopped.into()),
        };
        tracing::info!(node = %ready.name, ending = ending.word(), "stopping");
        if let Some(gone) = &gone {
            tracing::warn!(node = %ready.name, "{gone}");
            former::explain(&layout, gone);
        }
        if ending == Ending::Everything {
            keeper.shutdown(SHUTDOWN_GRACE_MAX).await;
        }
        // Ends the loop: it lives as long as somebody may ask it for something.
        drop(api_ends);
        tasks.shutdown().await;
        drop(node);
        let wound_down = async {
            let _ = api.await;
            let ended = if engine_loop.is_finished() { Ok(Ok(None)) } else { engine_loop.await };
            drop(keeper);
            let _ = keeper_task.await;
            ended
        };
        let ended = tokio::time::timeout(WIND_DOWN, wound_down).await;
        drop(ledger);
        agreement.stop().await;
        transport.stop().await;
        blobs.shutdown().await;
        if let Ok(Ok(result)) = ended {
            result?;
            // The writing thread ends with the loop that owned its other end: what was handed to it is written.
            let _ = tokio::task::spawn_blocking(move || writer_thread.join()).await;
        }
        drop(std::fs::remove_file(&api_path));
        drop(lock);
        match (gone, copy) {
            (Some(Gone { cause: GoneCause::Left(_), .. }), _) | (None, None) => Ok(()),
            (Some(gone), _) => Err(RunError::Gone { gone }),
            (None, Some(displaced)) => Err(RunError::Copy { dir: layout.root().to_owned(), displaced }),
        }
    }
}

/// Why the node is no member any more; the loop ends by itself for no other reason but a failure.
fn loop_ended(ended: Result<Result<Option<Gone>, DiskError>, tokio::task::JoinError>) -> Result<Gone, RunError> {
    match ended {
        Ok(Ok(Some(gone))) => Ok(gone),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(None)) => Err(DiskError("the engine's loop ended without being told to".into()).into()),
        // A broken promise of the code: the panic has been printed, and the node must not go on without its mind.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn first_ticket(node: &NodeHandle) -> Result<Ticket, RunError> {
    let (ttl, uses, role) = (FIRST_TICKET_TTL, FIRST_TICKET_USES, Role::MEMBER);
    let request = Request::CreateTicket { ttl, uses, role, secret: random()? };
    match node.request(request).await.map_err(RunError::FirstTicket)? {
        Response::Ticket(ticket) => Ok(ticket),
        other => unreachable!("a ticket was asked for, not {other:?}"),
    }
}

/// Makes the directory where it is missing, for its owner alone, and gives its absolute path.
fn prepare_data_dir(dir: &Path) -> Result<std::path::PathBuf, RunError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |cause| RunError::DataDir { dir: dir.to_owned(), cause };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    std::fs::canonicalize(dir).map_err(failed)
}

/// This host's platform, in the words of images.
fn own_platform() -> Platform {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform::new(std::env::consts::OS, arch)
}

fn now_wall() -> Wall {
    SystemClock.now().wall
}

fn random<const N: usize>() -> Result<[u8; N], RunError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RunError::Random)?;
    Ok(bytes)
}
