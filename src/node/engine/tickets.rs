//! The tickets that this node made. Pure.
//!
//! Each use is burnt on this node's disk before the door answers; nobody else redeems them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::effect::{Refusal, RefusalCode, Table};
use super::out::Out;
use super::view::TicketView;
use crate::crdt::admission::Role;
use crate::crdt::ticket::ticket_id;
use crate::time::Wall;

/// Longest validity of a ticket: one that is still good after this is more likely lost than needed.
pub(super) const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Most members that one ticket admits.
pub(super) const USES_MAX: u32 = 1_000;

/// Most tickets that are good at once: nobody keeps more of them in sight.
const TICKETS_MAX: usize = 1_000;

/// How long an expired or used-up ticket is remembered, so that its bearer is told what is the matter.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a ticket is to be good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    /// How long.
    pub(super) ttl: Duration,
    /// For how many members.
    pub(super) uses: u32,
    /// For members of which kind.
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Held {
    #[n(0)]
    expires: Wall,
    #[n(1)]
    uses_left: u32,
    #[n(2)]
    #[cbor(default)]
    role: Role,
}

/// Tickets by the identifier that people see. Secrets are not kept: the identifier is made of a secret's hash.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    held: BTreeMap<String, Held>,
}

impl Tickets {
    /// Takes in a row of the table.
    pub(super) fn restore(&mut self, key: &[u8], row: &[u8]) {
        if let (Ok(id), Ok(held)) = (std::str::from_utf8(key), minicbor::decode(row)) {
            self.held.insert(id.to_owned(), held);
        }
    }

    /// Writes down a new ticket.
    pub(super) fn create(
        &mut self,
        now: Wall,
        secret: &[u8; 32],
        grant: Grant,
        out: &mut Out,
    ) -> Result<Wall, Refusal> {
        let Grant { ttl, uses, role } = grant;
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(Refusal::new(
                RefusalCode::Invalid,
                "a ticket is good for at least a second and at most 30 days",
            ));
        }
        if uses == 0 || uses > USES_MAX {
            return Err(Refusal::new(
                RefusalCode::Invalid,
                format!("a ticket admits 1 to {USES_MAX} nodes, not {uses}"),
            ));
        }
        self.drop_old(now, out);
        if self.held.len() >= TICKETS_MAX {
            return Err(Refusal::new(RefusalCode::Limit, format!("there are {TICKETS_MAX} tickets already"))
                .hint("see `narun ticket list`, and revoke those that nobody needs"));
        }
        let held = Held { expires: now.plus(ttl), uses_left: uses, role };
        self.put(ticket_id(secret), held, out);
        Ok(held.expires)
    }

    /// Checks a ticket's secret and burns one use. Gives back its identifier, and what it makes of its bearer.
    pub(super) fn redeem(&mut self, now: Wall, secret: &[u8; 32], out: &mut Out) -> Result<(String, Role), Refusal> {
        let id = ticket_id(secret);
        let refuse = |what: &str| {
            Err(Refusal::new(RefusalCode::NotAllowed, format!("this ticket {what}"))
                .hint("make another one with `narun ticket create` on a member"))
        };
        let Some(held) = self.held.get(&id).copied() else { return refuse("was revoked or is not one of this node's") };
        if held.expires <= now {
            return refuse(&format!("expired at {}", held.expires));
        }
        let Some(uses_left) = held.uses_left.checked_sub(1) else { return refuse("is used up") };
        self.put(id.clone(), Held { uses_left, ..held }, out);
        Ok((id, held.role))
    }

    /// Makes a ticket worthless.
    pub(super) fn revoke(&mut self, id: &str, out: &mut Out) -> Result<(), Refusal> {
        if self.held.remove(id).is_none() {
            return Err(Refusal::new(RefusalCode::NotFound, format!("this node has made no ticket `{id}`"))
                .hint("a ticket is listed and revoked on the node that made it"));
        }
        out.remove(Table::Tickets, id.as_bytes());
        Ok(())
    }

    /// Those that are still good.
    pub(super) fn view(&self, now: Wall) -> Vec<TicketView> {
        let good = self.held.iter().filter(|(_, held)| held.expires > now && held.uses_left > 0);
        let view = |(id, held): (&String, &Held)| TicketView {
            id: id.clone(),
            expires: held.expires,
            uses_left: held.uses_left,
            role: held.role,
        };
        good.map(view).collect()
    }

    fn put(&mut self, id: String, held: Held, out: &mut Out) {
        out.put(Table::Tickets, id.as_bytes(), minicbor::to_vec(held).expect("encoding into memory cannot fail"));
        self.held.insert(id, held);
    }

    fn drop_old(&mut self, now: Wall, out: &mut Out) {
        let old = |held: &Held| held.expires.plus(REMEMBER) <= now;
        let ids: Vec<String> = self.held.iter().filter(|(_, held)| old(held)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.held.remove(&id);
            out.remove(Table::Tickets, id.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn grant(ttl: Duration, uses: u32) -> Grant {
        Grant { ttl, uses, role: Role::MEMBER }
    }

    #[test]
    fn uses_are_counted_and_time_runs_out() {
        let (mut tickets, mut out) = (Tickets::default(), Out::default());
        tickets.create(Wall(0), &[1; 32], grant(HOUR, 2), &mut out).unwrap();
        assert_eq!(tickets.view(Wall(1)).len(), 1);
        tickets.redeem(Wall(1), &[1; 32], &mut out).unwrap();
        tickets.redeem(Wall(1), &[1; 32], &mut out).unwrap();
        let refusal = tickets.redeem(Wall(1), &[1; 32], &mut out).unwrap_err();
        assert!(refusal.message.contains("used up"));
        tickets.create(Wall(0), &[2; 32], grant(HOUR, 1), &mut out).unwrap();
        let refusal = tickets.redeem(Wall(3_600_000), &[2; 32], &mut out).unwrap_err();
        assert!(refusal.message.contains("expired at 1970-01-01T01:00:00"));
        assert!(tickets.redeem(Wall(1), &[3; 32], &mut out).is_err());
        assert!(tickets.view(Wall(3_600_000)).is_empty());
    }

    #[test]
    fn a_revoked_ticket_is_worthless() {
        let (mut tickets, mut out) = (Tickets::default(), Out::default());
        tickets.create(Wall(0), &[1; 32], grant(HOUR, 1), &mut out).unwrap();
        tickets.revoke(&ticket_id(&[1; 32]), &mut out).unwrap();
        assert!(tickets.redeem(Wall(1), &[1; 32], &mut out).is_err());
        assert!(tickets.revoke("nonsense", &mut out).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let (mut tickets, mut out) = (Tickets::default(), Out::default());
        assert!(tickets.create(Wall(0), &[1; 32], grant(Duration::ZERO, 1), &mut out).is_err());
        assert!(tickets.create(Wall(0), &[1; 32], grant(HOUR, 0), &mut out).is_err());
        assert!(tickets.create(Wall(0), &[1; 32], grant(TTL_MAX + HOUR, 1), &mut out).is_err());
    }
}
