//! An engine out of what the disk held. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::absence::Absence;
use super::acks::Acks;
use super::cluster::Cluster;
use super::copies::Copies;
use super::demand::Demand;
use super::effect::{Change, Table};
use super::housekeeping::Housekeeping;
use super::instances::Instances;
use super::jobs::Jobs;
use super::known::Known;
use super::leases::Leases;
use super::node_settings::Settings;
use super::readmodel::ReadModel;
use super::services::Services;
use super::singletons::Singletons;
use super::tickets::Tickets;
use super::trust::{Belonging, GONE, gone_row};
use super::view::Me;
use super::{Dirty, Engine, EngineConfig};
use crate::crdt::admission::{Founding, Signed, Welcome};
use crate::crdt::catalog::{Catalog, DocKey, RowError};
use crate::crdt::roster::{Roster, Subject, Taken, parse_record_key};
use crate::crdt::trust::{Gone, Trust};
use crate::gossip::dissemination::Dissemination;
use crate::gossip::membership::Membership;
use crate::gossip::sync::Rounds;
use crate::time::Now;

/// All rows of all tables, as the disk held them.
pub type Stored = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// The row that counts the node's lives.
const BOOT: &[u8] = b"boot";

/// The row that holds the founding record.
const FOUNDING: &[u8] = b"founding";

/// The row that holds what the door said.
const WELCOME: &[u8] = b"welcome";

/// The database does not hold what it must.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A row cannot be read.
    #[error("the row `{0}` is damaged")]
    Damaged(&'static str),
    /// A document cannot be read.
    #[error(transparent)]
    Document(#[from] RowError),
}

/// Counts a new life of the node. The change must be durable before the engine says its first word, since stamps and the
/// actors of changes carry the count.
pub fn next_boot(stored: &mut Stored) -> Result<Change, RestoreError> {
    let before = match stored.get(&(Table::Meta, BOOT.to_vec())) {
        Some(row) => u64::from_be_bytes(row.as_slice().try_into().map_err(|_| RestoreError::Damaged("boot"))?),
        None => 0,
    };
    let row = (before + 1).to_be_bytes().to_vec();
    stored.insert((Table::Meta, BOOT.to_vec()), row.clone());
    Ok(Change { table: Table::Meta, key: BOOT.to_vec(), value: Some(row) })
}

/// The first rows of a new node's database: of the founder without, of a joiner with a welcome.
pub fn first_rows(founding: &Founding, welcome: Option<&Welcome>) -> Vec<Change> {
    let row = |key: &[u8], value| Change { table: Table::Meta, key: key.to_vec(), value: Some(value) };
    let mut rows = vec![row(FOUNDING, minicbor::to_vec(founding).expect("encoding into memory cannot fail"))];
    if let Some(welcome) = welcome {
        rows.push(row(WELCOME, minicbor::to_vec(welcome).expect("encoding into memory cannot fail")));
    }
    rows
}

impl EngineConfig {
    /// Why the node of this database is no member of its cluster any more, if so: it must not be started.
    pub fn read_gone(stored: &Stored) -> Result<Option<Gone>, RestoreError> {
        let row = stored.get(&(Table::Meta, GONE.to_vec()));
        row.map(|row| gone_row(row).ok_or(RestoreError::Damaged("gone"))).transpose()
    }

    /// The cluster that a database belongs to; none when it belongs to none yet.
    pub fn read_cluster(stored: &Stored) -> Result<Option<(Founding, Option<Welcome>)>, RestoreError> {
        let Some(row) = stored.get(&(Table::Meta, FOUNDING.to_vec())) else { return Ok(None) };
        let founding = minicbor::decode(row).map_err(|_| RestoreError::Damaged("founding"))?;
        let welcome = match stored.get(&(Table::Meta, WELCOME.to_vec())) {
            Some(row) => Some(minicbor::decode(row).map_err(|_| RestoreError::Damaged("welcome"))?),
            None => None,
        };
        Ok(Some((founding, welcome)))
    }
}

impl Engine {
    /// An engine out of what the disk held, in the life that [`next_boot`] counted. `seed` feeds all its randomness.
    pub fn restore(stored: &Stored, config: EngineConfig, seed: u64, now: Now) -> Result<Engine, RestoreError> {
        let boot = stored.get(&(Table::Meta, BOOT.to_vec())).and_then(|row| row.as_slice().try_into().ok());
        let boot = u64::from_be_bytes(boot.ok_or(RestoreError::Damaged("boot"))?);
        let me = config.signatures.key();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let membership = Membership::new(me, boot, rng.random());
        let view_of_me = Me { key: me, name: Some(config.name.clone()), cluster: config.founding.cluster(), boot };
        let welcomed = config.welcome.iter().flat_map(|welcome| &welcome.members);
        let mut engine = Engine {
            me,
            boot,
            rng,
            now,
            started_at: now.wall,
            catalog: Catalog::default(),
            roster: Roster::default(),
            stamped: 0,
            membership,
            dissemination: Dissemination::new(me),
            rounds: Rounds::new(now.mono),
            caught_up: false,
            cluster: Cluster::new(me, now),
            belonging: Belonging::new(Trust::new(&config.founding), now.mono),
            standings: Vec::new(),
            peers: Vec::new(),
            welcomed: welcomed.map(|peer| (peer.key, peer.addresses.clone())).collect(),
            known: Known::default(),
            services: Services::default(),
            settings: Settings::default(),
            drains: BTreeMap::new(),
            seats: BTreeMap::new(),
            demand: Demand::default(),
            copies: Copies::default(),
            instances: Instances::default(),
            leases: Leases::default(),
            jobs: Jobs::new(me, boot, now.mono),
            singletons: Singletons::default(),
            handover: None,
            deadlines: BTreeMap::new(),
            tickets: Tickets::default(),
            acks: Acks::default(),
            housekeeping: Housekeeping::new(now.mono),
            absence: Absence::default(),
            refused: BTreeMap::new(),
            dirty: Dirty { cluster: true, copies: true, view: true, ..Dirty::default() },
            overlooked: 0,
            read_model: ReadModel::new(Arc::new(view_of_me)),
            config,
        };
        engine.read_rows(stored)?;
        Ok(engine)
    }

    fn read_rows(&mut self, stored: &Stored) -> Result<(), RestoreError> {
        for ((table, key), row) in stored {
            match table {
                Table::Meta => {}
                Table::Catalog => self.catalog.restore(key, row)?,
                Table::Forgotten => self.catalog.restore_forgotten(key, row),
                Table::Roster => self.restore_record(key, row),
                Table::Tickets => self.tickets.restore(key, row),
            }
        }
        let names: Vec<_> = self.catalog.iter().filter_map(|(key, _)| key.as_service()).collect();
        for name in names {
            self.service_changed(&name);
        }
        let nodes: Vec<_> = self.catalog.iter().filter_map(|(key, _)| key.as_node()).collect();
        for node in nodes {
            self.node_settings_changed(node);
        }
        // What this node said in its last life and has not said again is to be looked at: it may not be true any more.
        let mine = self.roster.subjects().filter(|(node, _)| **node == self.me);
        self.dirty.services.extend(mine.filter_map(|(_, subject)| Subject::as_service(subject)).collect::<Vec<_>>());
        self.read_welcome();
        let statements = |key: &&DocKey| key.as_admission().is_some() || key.as_removal().is_some();
        let documents: Vec<DocKey> = self.catalog.iter().map(|(key, _)| key).filter(statements).cloned().collect();
        for key in documents {
            self.read_statements(&key);
        }
        self.refresh_restored();
        self.look_back_at_last_life();
        Ok(())
    }

    /// A record of the roster that cannot be read is left out: its author will say it again.
    fn restore_record(&mut self, key: &[u8], row: &[u8]) {
        let Some((node, _)) = parse_record_key(key) else { return };
        let Ok(signed) = minicbor::decode::<Signed>(row) else { return };
        if let Taken::New(record) = self.roster.take(&*self.config.signatures, &signed)
            && record.node == node
        {
            self.known.take(&record);
        }
    }
}
