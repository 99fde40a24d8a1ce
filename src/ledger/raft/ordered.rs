//! A watched value that wakes those who wait in the order in which they began to. Shell.
//!
//! tokio's own wakes them in a random order, which a seed cannot fix: of two voters that are sent the same entry in one moment, now one
//! would be first and now the other, and no simulated run could be repeated.

use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::{OptionalSend, OptionalSync};
use openraft_rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use tokio::sync::Notify;

/// See the module.
pub struct OrderedWatch;

struct Shared<T> {
    held: RwLock<Held<T>>,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

struct Held<T> {
    value: T,
    /// Counts the changes.
    version: u64,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, Held<T>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held<T>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value, while it is looked at.
pub struct Ref<'a, T>(RwLockReadGuard<'a, Held<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Changes the value.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// Sees the value, and waits for its changes.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (Sender<T>, Receiver<T>) {
        let held = RwLock::new(Held { value, version: 0 });
        let (senders, receivers) = (AtomicUsize::new(1), AtomicUsize::new(1));
        let shared = Arc::new(Shared { held, changed: Notify::new(), senders, receivers });
        (Sender(shared.clone()), Receiver { shared, seen: 0 })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        self.send_if_modified(|held| {
            *held = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        {
            let mut held = self.0.write();
            if !modify(&mut held.value) {
                return false;
            }
            held.version += 1;
        }
        self.0.changed.notify_waiters();
        true
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        let seen = self.0.read().version;
        Receiver { shared: self.0.clone(), seen }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let shared = self.shared.clone();
            let mut changed = pin!(shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let version = shared.read().version;
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if shared.senders.load(Ordering::Acquire) == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let held = self.shared.read();
        self.seen = held.version;
        Ref(held)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_order() {
        for _ in 0..20 {
            let (sender, receiver) = OrderedWatch::channel(0);
            let woken = Arc::new(Mutex::new(Vec::new()));
            let waiting = (0..16).map(|number| {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(number);
                })
            });
            let waiting: Vec<_> = waiting.collect();
            tokio::task::yield_now().await;
            sender.send(1).unwrap();
            for one in waiting {
                one.await.unwrap();
            }
            assert_eq!(*woken.lock().unwrap(), (0..16).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_end_after_it() {
        let (sender, mut receiver) = OrderedWatch::channel("first");
        assert!(!sender.send_if_modified(|_| false));
        sender.send("second").unwrap();
        let late = sender.subscribe();
        assert_eq!(*late.borrow_watched(), "second");
        drop(sender);
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), "second");
        assert_eq!(receiver.changed().await, Err(RecvError(())));
        assert_eq!(late.clone().changed().await, Err(RecvError(())), "it was there before");
    }

    #[test]
    fn without_anybody_who_sees_it_nothing_is_sent() {
        let (sender, receiver) = OrderedWatch::channel(1);
        drop(receiver);
        assert_eq!(sender.send(2), Err(SendError(2)));
        let receiver = sender.subscribe();
        assert_eq!(*receiver.borrow_watched(), 1);
        sender.send(3).unwrap();
        assert_eq!(*receiver.borrow_watched(), 3);
    }
}
