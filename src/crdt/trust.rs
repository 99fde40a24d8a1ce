//! Who is a member: what follows from all admissions and removals together. Pure.
//!
//! Statements are only ever added, and the verdict depends on the set of them, not on the order in which they came: all nodes
//! that hold the same statements come to the same members. The rules, in the order in which they are applied:
//!
//! 1. A statement counts if the key that it names as its author signed it.
//! 2. Whoever was ever let in has a *rank*: how many admissions lie between it and the founder, then its key.
//! 3. In the order of ranks: the removals that a node signed hold, unless somebody of higher rank has removed it. So two members
//!    that remove one another do not both go, and which of them stays is the same everywhere.
//! 4. A member is who has a chain of admissions to the founder and is not removed. Of a removed node those admissions count
//!    that its removal names: whoever else it let in, before or after, is out.
//! 5. Of two members with one name, let in on two sides of a partition, the one that came first stays.
//!
//! A removed key never comes back; its host joins again with a new one. The rank protects the older of two members, not the
//! better one: who holds the key of a member can do harm until all have heard of its removal.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::admission::{ADMISSION_DOMAIN, Admission, Founding, REMOVAL_DOMAIN, Removal, Role, Signatures, Signed};
use crate::ids::{ClusterId, NodeKey, NodeName};
use crate::time::Wall;

/// Most admissions that a cluster ever makes: each costs about 400 bytes on every node for good, and a joiner is told all of them.
/// A host that is replaced every hour takes a year to use them up.
pub const ADMISSIONS_MAX: usize = 10_000;

/// Names a statement: the hash of all its bytes.
type StatementId = [u8; 32];

#[derive(Clone, Debug)]
enum Statement {
    Admission(Admission),
    Removal(Removal),
}

impl Statement {
    /// Whether it says something about this key.
    fn concerns(&self, key: &NodeKey) -> bool {
        match self {
            Self::Admission(admission) => admission.key == *key,
            Self::Removal(removal) => removal.key == *key || removal.admissions.iter().any(|one| one.key == *key),
        }
    }

    /// Whose standing decides what it is worth.
    fn hangs_on(&self) -> Vec<NodeKey> {
        match self {
            Self::Admission(admission) => vec![admission.by],
            Self::Removal(removal) => vec![removal.by, removal.key],
        }
    }
}

/// Why a key that was let in once is no member.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub struct Gone {
    /// Its name.
    #[n(0)]
    pub name: NodeName,
    /// What happened.
    #[n(1)]
    pub cause: GoneCause,
}

/// What makes a node no member.
#[derive(Clone, PartialEq, Eq, Debug, minicbor::Encode, minicbor::Decode)]
pub enum GoneCause {
    /// It left by itself.
    #[n(0)]
    Left(#[n(0)] Wall),
    /// A member removed it.
    #[n(1)]
    Removed {
        /// That member's name.
        #[n(0)]
        by: NodeName,
        /// When.
        #[n(1)]
        at: Wall,
    },
    /// It was let in by a member that was removed before it had told anybody.
    #[n(2)]
    Unvouched {
        /// That member's name.
        #[n(0)]
        by: NodeName,
    },
    /// Another node of its name was let in before it, on the other side of a partition.
    #[n(3)]
    NameTaken {
        /// That node's key.
        #[n(0)]
        by: NodeKey,
        /// When that one was let in.
        #[n(1)]
        at: Wall,
    },
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.name;
        match &self.cause {
            GoneCause::Left(at) => write!(f, "`{name}` left the cluster at {at}"),
            GoneCause::Removed { by, at } => write!(f, "`{name}` was removed from the cluster by `{by}` at {at}"),
            GoneCause::Unvouched { by } => {
                write!(f, "`{name}` was let in by `{by}`, which was removed before it had told anybody")
            }
            GoneCause::NameTaken { by, at } => {
                let other = by.short();
                write!(
                    f,
                    "another node named `{name}` ({other}) was let in before this one, at {at}, while they were cut off"
                )
            }
        }
    }
}

/// What all statements together say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// The members.
    pub members: BTreeMap<NodeKey, Admission>,
    /// Who was one, or was let in and never became one.
    pub gone: BTreeMap<NodeKey, Gone>,
}

/// All statements on who is a member.
#[derive(Clone, Debug)]
pub struct Trust {
    cluster: ClusterId,
    founder: Admission,
    statements: BTreeMap<StatementId, (Statement, Signed)>,
    admissions: usize,
    /// What follows from them; none once a statement came of which that is not plain.
    verdict: Option<Verdict>,
}

impl Trust {
    /// The cluster with its founder alone.
    pub fn new(founding: &Founding) -> Self {
        let founder = Admission {
            cluster: founding.cluster(),
            key: founding.founder,
            name: founding.name.clone(),
            by: founding.founder,
            ticket: String::new(),
            at: founding.at,
            addresses: Vec::new(),
            role: Role::MEMBER,
        };
        Self { cluster: founder.cluster, founder, statements: BTreeMap::new(), admissions: 0, verdict: None }
    }

    /// Takes a statement in, if its author signed it and it is of this cluster; false when not. Each is checked once.
    pub fn take(&mut self, signatures: &dyn Signatures, signed: &Signed) -> bool {
        let id = id_of(signed);
        if self.statements.contains_key(&id) {
            return true;
        }
        let Some(statement) = self.read(signatures, signed) else { return false };
        self.verdict = match (&statement, self.verdict.take()) {
            (Statement::Admission(admission), Some(verdict)) => self.with(verdict, admission),
            _ => None,
        };
        self.admissions += usize::from(matches!(statement, Statement::Admission(_)));
        self.statements.insert(id, (statement, signed.clone()));
        true
    }

    /// The verdict with one more admission, where that is plain: a wave of joins would cost the square of its size otherwise. It is
    /// while nobody was ever removed, the admitter is a member, and neither the key nor the name was heard of before.
    fn with(&self, mut verdict: Verdict, new: &Admission) -> Option<Verdict> {
        let nobody_was_removed = self.admissions == self.statements.len() && verdict.gone.is_empty();
        let is_fresh = |known: &Admission| known.key != new.key && known.by != new.key && known.name != new.name;
        let is_plain = nobody_was_removed
            && verdict.members.contains_key(&new.by)
            && is_fresh(&self.founder)
            && self.admissions().all(is_fresh);
        is_plain.then(|| {
            verdict.members.insert(new.key, new.clone());
            verdict
        })
    }

    /// Whether its author signed a statement of this cluster; one that is known need not be checked again.
    pub fn is_signed(&self, signatures: &dyn Signatures, signed: &Signed) -> bool {
        self.statements.contains_key(&id_of(signed)) || self.read(signatures, signed).is_some()
    }

    fn read(&self, signatures: &dyn Signatures, signed: &Signed) -> Option<Statement> {
        if let Ok(admission) = minicbor::decode::<Admission>(&signed.body)
            && admission.cluster == self.cluster
            && signed.is_by(signatures, ADMISSION_DOMAIN, &admission.by)
        {
            return Some(Statement::Admission(admission));
        }
        let removal = minicbor::decode::<Removal>(&signed.body).ok()?;
        let good = removal.cluster == self.cluster && signed.is_by(signatures, REMOVAL_DOMAIN, &removal.by);
        good.then_some(Statement::Removal(removal))
    }

    /// How many admissions were ever made.
    pub fn admissions_made(&self) -> usize {
        self.admissions
    }

    /// All statements as they were signed: the admissions, and the removals.
    pub fn signed(&self) -> (Vec<Signed>, Vec<Signed>) {
        let of = |wanted: fn(&Statement) -> bool| {
            let all = self.statements.values().filter(move |(statement, _)| wanted(statement));
            all.map(|(_, signed)| signed.clone()).collect()
        };
        (of(|one| matches!(one, Statement::Admission(_))), of(|one| matches!(one, Statement::Removal(_))))
    }

    /// The admissions that a node has made, as far as they are known: what a removal of it may name.
    pub fn admissions_by(&self, key: &NodeKey) -> Vec<Admission> {
        self.all_admissions().filter(|admission| admission.by == *key).cloned().collect()
    }

    /// The removals of others that hang on the word of this node.
    pub fn removals_by(&self, key: &NodeKey) -> Vec<Removal> {
        let by = |removal: &&Removal| removal.by == *key && removal.key != *key;
        self.removals().filter(by).cloned().collect()
    }

    /// The statements from which somebody who knows the founder alone can see how a key stands: those on it, on those
    /// on whom they hang, and so on up to the founder.
    pub fn proof(&self, key: &NodeKey) -> Vec<Signed> {
        let mut asked = BTreeSet::from([*key]);
        if let Some(Gone { cause: GoneCause::NameTaken { by, .. }, .. }) = self.judge().gone.get(key) {
            asked.insert(*by);
        }
        let mut open: Vec<NodeKey> = asked.iter().copied().collect();
        let mut proof: BTreeMap<&StatementId, &Signed> = BTreeMap::new();
        while let Some(subject) = open.pop() {
            for (id, (statement, signed)) in self.statements.iter().filter(|(_, (one, _))| one.concerns(&subject)) {
                proof.insert(id, signed);
                open.extend(statement.hangs_on().into_iter().filter(|key| asked.insert(*key)));
            }
        }
        proof.into_values().cloned().collect()
    }

    /// What follows from all of it.
    pub fn verdict(&mut self) -> &Verdict {
        if self.verdict.is_none() {
            self.verdict = Some(self.judge());
        }
        self.verdict.as_ref().expect("it was just made")
    }

    /// The same from nothing.
    fn judge(&self) -> Verdict {
        let removed = self.removed();
        let reached = self.reached(&removed);
        let mut verdict = Verdict::default();
        for (key, admission) in &reached {
            match removed.get(key).and_then(|removals| removals.first()) {
                None => {
                    verdict.members.insert(*key, admission.clone());
                }
                Some(removal) => {
                    let cause = if removal.by == *key {
                        GoneCause::Left(removal.at)
                    } else {
                        GoneCause::Removed { by: removal.by_name.clone(), at: removal.at }
                    };
                    verdict.gone.insert(*key, Gone { name: admission.name.clone(), cause });
                }
            }
        }
        for admission in self.admissions().filter(|admission| !reached.contains_key(&admission.key)) {
            if let Some(admitter) = reached.get(&admission.by) {
                let cause = GoneCause::Unvouched { by: admitter.name.clone() };
                verdict.gone.insert(admission.key, Gone { name: admission.name.clone(), cause });
            }
        }
        settle_names(&mut verdict);
        verdict
    }

    fn all_admissions(&self) -> impl Iterator<Item = &Admission> {
        // An admission that a removal names was made by the removed node and is said again by the remover.
        self.admissions().chain(self.removals().flat_map(|removal| &removal.admissions))
    }

    fn admissions(&self) -> impl Iterator<Item = &Admission> {
        self.statements.values().filter_map(|(statement, _)| match statement {
            Statement::Admission(admission) => Some(admission),
            Statement::Removal(_) => None,
        })
    }

    fn removals(&self) -> impl Iterator<Item = &Removal> {
        self.statements.values().filter_map(|(statement, _)| match statement {
            Statement::Removal(removal) => Some(removal),
            Statement::Admission(_) => None,
        })
    }

    /// Everybody who was ever let in, the highest rank first.
    fn by_rank(&self) -> Vec<NodeKey> {
        let mut admitted: BTreeMap<NodeKey, BTreeSet<NodeKey>> = BTreeMap::new();
        for admission in self.admissions() {
            admitted.entry(admission.by).or_default().insert(admission.key);
        }
        let mut ranked = Vec::new();
        let mut known = BTreeSet::from([self.founder.key]);
        let mut rank = known.clone();
        while !rank.is_empty() {
            let by_admission = rank.iter().flat_map(|key| admitted.get(key).into_iter().flatten());
            // What a removal names was said by the removed node, if the remover is to be believed: so it must be known otherwise.
            let believed = |removal: &&Removal| known.contains(&removal.by) && known.contains(&removal.key);
            let named = self
                .removals()
                .filter(believed)
                .flat_map(|removal| removal.admissions.iter().filter(|one| one.by == removal.key).map(|one| &one.key));
            let next: BTreeSet<NodeKey> =
                by_admission.chain(named).filter(|key| !known.contains(*key)).copied().collect();
            known.extend(&next);
            ranked.extend(std::mem::replace(&mut rank, next));
        }
        ranked
    }

    /// The removals that hold, by who is removed.
    fn removed(&self) -> BTreeMap<NodeKey, Vec<&Removal>> {
        let mut by_author: BTreeMap<NodeKey, Vec<&Removal>> = BTreeMap::new();
        for removal in self.removals() {
            by_author.entry(removal.by).or_default().push(removal);
        }
        let mut removed: BTreeMap<NodeKey, Vec<&Removal>> = BTreeMap::new();
        if by_author.is_empty() {
            return removed;
        }
        for author in self.by_rank() {
            // Who has left spoke as a member until then.
            let by_another = |removals: &Vec<&Removal>| removals.iter().any(|removal| removal.by != author);
            if removed.get(&author).is_some_and(by_another) {
                continue;
            }
            for removal in by_author.remove(&author).unwrap_or_default() {
                removed.entry(removal.key).or_default().push(removal);
            }
        }
        removed
    }

    /// Who has a chain of admissions that count.
    fn reached(&self, removed: &BTreeMap<NodeKey, Vec<&Removal>>) -> BTreeMap<NodeKey, Admission> {
        let mut counting: BTreeMap<NodeKey, Vec<&Admission>> = BTreeMap::new();
        for admission in self.admissions().filter(|admission| !removed.contains_key(&admission.by)) {
            counting.entry(admission.by).or_default().push(admission);
        }
        for (key, removals) in removed {
            let named = removals.iter().flat_map(|removal| &removal.admissions);
            counting.entry(*key).or_default().extend(named.filter(|admission| admission.by == *key));
        }
        let mut reached = BTreeMap::from([(self.founder.key, self.founder.clone())]);
        let mut open = VecDeque::from([self.founder.key]);
        while let Some(admitter) = open.pop_front() {
            let mut admissions = counting.remove(&admitter).unwrap_or_default();
            admissions.sort_by_key(|admission| (admission.key, admission.at, &admission.name));
            for admission in admissions {
                reached.entry(admission.key).or_insert_with(|| {
                    open.push_back(admission.key);
                    admission.clone()
                });
            }
        }
        reached
    }
}

/// Of members with one name the first stays.
fn settle_names(verdict: &mut Verdict) {
    let mut first: BTreeMap<NodeName, (Wall, NodeKey)> = BTreeMap::new();
    for (key, admission) in &verdict.members {
        let own = (admission.at, *key);
        let stays = first.entry(admission.name.clone()).or_insert(own);
        *stays = own.min(*stays);
    }
    let late = verdict.members.extract_if(.., |key, admission| first[&admission.name].1 != *key);
    for (key, admission) in late {
        let (at, by) = first[&admission.name];
        verdict.gone.insert(key, Gone { name: admission.name, cause: GoneCause::NameTaken { by, at } });
    }
}

fn id_of(signed: &Signed) -> StatementId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(signed.body.len() as u64).to_be_bytes());
    hasher.update(&signed.body);
    hasher.update(&signed.signature);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
