//! The pure node: all that narun decides is decided here.

pub mod effect;
pub mod input;
pub mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::blobs::image::Platform;
use crate::crdt::admission::{Founding, Signatures};
use crate::ids::NodeName;
use crate::time::{Mono, Now};

use effect::{Table, Turn};
use input::Input;
use view::View;

/// All rows of all tables, as the disk held them.
pub type Stored = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// What an engine is told about its host and its place when it is made.
pub struct EngineConfig {
    /// Signs what this node says and checks what others say.
    pub signatures: Arc<dyn Signatures>,
    /// The cluster's founding record.
    pub founding: Founding,
    /// This node's name, as it was admitted.
    pub name: NodeName,
    /// Where it can be reached, `HOST:PORT`, best first.
    pub addresses: Vec<String>,
    /// What its programs must be made for.
    pub platform: Platform,
    /// Labels by key.
    pub labels: BTreeMap<String, String>,
    /// Absolute path of the data directory, for the paths in launch plans.
    pub data_dir: PathBuf,
}

/// One node's mind.
pub struct Engine {
    view: Arc<View>,
}

impl Engine {
    /// An engine out of what the disk held. `seed` feeds all its randomness.
    pub fn restore(stored: Stored, config: EngineConfig, seed: u64, now: Now) -> Engine {
        let _ = (stored, config, seed, now);
        Engine { view: Arc::new(View::default()) }
    }

    /// Applies a batch of inputs and settles.
    pub fn handle(&mut self, now: Now, inputs: Vec<Input>) -> Turn {
        let _ = (now, inputs);
        Turn::default()
    }

    /// When it wants to be called with [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Mono {
        Mono(u64::MAX)
    }

    /// The read model.
    pub fn view(&self) -> Arc<View> {
        self.view.clone()
    }
}
