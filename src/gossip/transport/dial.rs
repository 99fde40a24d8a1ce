//! When to dial a member, and at which address. Pure: it takes the time and gives back what to do.
//!
//! Its addresses are tried one after another, each a moment after the one before it, so that a dead address delays the next
//! ones by little. They are never handed to libp2p together: where one of them led to somebody else, it would not try the rest.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::AddressFailure;

/// The pause after the first failure: a node that restarts is back within it.
pub const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest pause: a member that returns, or a network that heals, is found within it.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How much longer or shorter a pause is made, in percent, lest a whole cluster dials a returning node at one moment.
const JITTER: u32 = 20;

/// Of two members the one with the lesser key dials first; the other only if nothing has come after this long. Otherwise both
/// would dial at once, and hold two connections for one.
pub(super) const HEAD_START: Duration = Duration::from_millis(200);

/// How long one address is tried alone: a handshake between continents fits in.
const STAGGER: Duration = Duration::from_millis(500);

/// Dialling one member.
#[derive(Debug)]
pub(super) struct Dial {
    state: State,
    pause: Duration,
}

#[derive(Debug)]
enum State {
    /// Nothing to do: it is connected, or no address is known.
    Idle,
    /// The next attempt is due then.
    Waiting(Instant),
    /// Its addresses are being looked up.
    Resolving,
    /// Its addresses are being dialled.
    Trying(Attempt),
}

#[derive(Debug)]
struct Attempt {
    left: VecDeque<(String, SocketAddr)>,
    under_way: BTreeMap<ConnectionId, String>,
    next_at: Instant,
    failures: Vec<AddressFailure>,
}

impl Dial {
    /// The first attempt is due at `at`.
    pub(super) fn new(at: Instant) -> Self {
        Self { state: State::Waiting(at), pause: PAUSE_MIN }
    }

    /// When it wants to be asked again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(at) => Some(*at),
            State::Trying(attempt) if !attempt.left.is_empty() => Some(attempt.next_at),
            _ => None,
        }
    }

    /// Whether an attempt is due; then the addresses are to be looked up.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let due = matches!(self.state, State::Waiting(at) if at <= now);
        if due {
            self.state = State::Resolving;
        }
        due
    }

    /// The next attempt is due now, unless one is under way.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Idle | State::Waiting(_) = self.state {
            self.state = State::Waiting(now);
        }
    }

    /// The addresses were looked up.
    pub(super) fn resolved(&mut self, now: Instant, found: Vec<(String, SocketAddr)>, failures: Vec<AddressFailure>) {
        if let State::Resolving = self.state {
            let (left, under_way) = (found.into(), BTreeMap::new());
            self.state = State::Trying(Attempt { left, under_way, next_at: now, failures });
        }
    }

    /// The address to dial now, if any.
    pub(super) fn next_address(&mut self, now: Instant) -> Option<(String, SocketAddr)> {
        let State::Trying(attempt) = &mut self.state else { return None };
        if attempt.next_at > now && !attempt.under_way.is_empty() {
            return None;
        }
        attempt.next_at = now + STAGGER;
        attempt.left.pop_front()
    }

    /// `address` is being dialled.
    pub(super) fn dialling(&mut self, connection: ConnectionId, address: String) {
        if let State::Trying(attempt) = &mut self.state {
            attempt.under_way.insert(connection, address);
        }
    }

    /// That one failed.
    pub(super) fn failed(&mut self, connection: ConnectionId, cause: String, impostor: bool) {
        if let State::Trying(attempt) = &mut self.state
            && let Some(address) = attempt.under_way.remove(&connection)
        {
            attempt.failures.push(AddressFailure { address, cause, impostor });
        }
    }

    /// The attempt's failures, when nothing is left to try: then the next one is due after a pause. `chance` is any number.
    pub(super) fn exhausted(&mut self, now: Instant, chance: u32) -> Option<Vec<AddressFailure>> {
        match &mut self.state {
            State::Trying(attempt) if attempt.left.is_empty() && attempt.under_way.is_empty() => {
                let failures = std::mem::take(&mut attempt.failures);
                self.pause(now, chance);
                Some(failures)
            }
            _ => None,
        }
    }

    /// The next attempt is due after a pause, the one after that after a longer one.
    pub(super) fn pause(&mut self, now: Instant, chance: u32) {
        let percent = 100 - JITTER + chance % (2 * JITTER + 1);
        self.state = State::Waiting(now + self.pause * percent / 100);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// The next attempt is due at `at`, whatever was under way.
    pub(super) fn wait_until(&mut self, at: Instant) {
        self.state = State::Waiting(at);
    }

    /// A connection stands: nothing more to dial. The pauses stay long until the member has greeted us.
    pub(super) fn reached(&mut self) {
        self.state = State::Idle;
    }

    /// The member has greeted us: the next pause is short again.
    pub(super) fn greeted(&mut self) {
        self.pause = PAUSE_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> (String, SocketAddr) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        (address.to_string(), address)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_greeting() {
        let mut now = Instant::now();
        let mut dial = Dial::new(now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(dial.begin(now) && !dial.begin(now));
            dial.resolved(now, Vec::new(), Vec::new());
            assert_eq!(dial.exhausted(now, JITTER), Some(Vec::new()));
            let due = dial.deadline().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        dial.reached();
        dial.greeted();
        dial.pause(now, JITTER);
        assert_eq!(dial.deadline(), Some(now + PAUSE_MIN));
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let now = Instant::now();
        for chance in 0..200 {
            let mut dial = Dial::new(now);
            dial.pause(now, chance);
            let pause = dial.deadline().unwrap() - now;
            assert!((160..=240).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn addresses_are_tried_one_after_another_and_a_dead_one_delays_by_little() {
        let now = Instant::now();
        let mut dial = Dial::new(now);
        assert!(dial.begin(now));
        dial.resolved(now, vec![address(1), address(2), address(3)], Vec::new());
        let first = ConnectionId::new_unchecked(1);
        assert_eq!(dial.next_address(now), Some(address(1)));
        dial.dialling(first, address(1).0);
        assert_eq!(dial.next_address(now), None, "the first one has its moment");
        let later = now + STAGGER;
        assert_eq!(dial.deadline(), Some(later));
        assert_eq!(dial.next_address(later), Some(address(2)));
        let second = ConnectionId::new_unchecked(2);
        dial.dialling(second, address(2).0);
        dial.failed(second, "refused".into(), false);
        dial.failed(first, "no route".into(), false);
        assert_eq!(dial.next_address(later), Some(address(3)), "nothing is under way: no need to wait");
        let third = ConnectionId::new_unchecked(3);
        dial.dialling(third, address(3).0);
        assert_eq!(dial.exhausted(later, 0), None);
        dial.failed(third, "somebody else".into(), true);
        let failures = dial.exhausted(later, 0).unwrap();
        let told: Vec<_> = failures.iter().map(|failure| (failure.cause.as_str(), failure.impostor)).collect();
        assert_eq!(told, [("refused", false), ("no route", false), ("somebody else", true)]);
    }
}
