//! The parts that the tasks of one function share, so that a task that waits takes little memory.

#![forbid(unsafe_code)]

use super::recorded::Named;
use crate::client::{CallKind, ClusterOptions};
use crate::wire::Call;
use concurrent_futures::Value;
use concurrent_futures::engine::{Callbacks, RemoteFunction, RemotePool};
use std::any::{Any, type_name};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The functions whose tasks share memory also if they alternate.
const RECENT: usize = 8;

/// The part that the futures of the tasks of one function share.
pub(super) struct Family<A, T> {
    pub(super) function: RemoteFunction<A, T>,
    pub(super) callbacks: Arc<Callbacks>,
    pub(super) named: Named,
}

/// A function that was submitted of late, with its options.
struct Recent<A, T> {
    kind: Arc<CallKind>,
    family: Arc<Family<A, T>>,
}

/// The functions that were submitted of late.
///
/// The lock is held for comparisons only.
pub(super) struct Families {
    callbacks: Arc<Callbacks>,
    pool: Arc<RemotePool>,
    /// Each is a [`Recent`], the oldest first.
    recent: Mutex<VecDeque<Box<dyn Any + Send + Sync>>>,
    /// The last call of another frontend.
    opaque: Mutex<Option<Arc<CallKind>>>,
}

impl Families {
    pub(super) fn new(callbacks: Arc<Callbacks>, pool: Arc<RemotePool>) -> Self {
        Self {
            callbacks,
            pool,
            recent: Mutex::default(),
            opaque: Mutex::default(),
        }
    }

    /// Makes the part that the futures of a function share. Its name may be unknown.
    pub(super) fn family<A, T>(
        &self,
        function: RemoteFunction<A, T>,
        name: Option<Cow<'static, str>>,
    ) -> Arc<Family<A, T>> {
        Arc::new(Family {
            function,
            callbacks: Arc::clone(&self.callbacks),
            named: Named {
                pool: Arc::clone(&self.pool),
                name,
            },
        })
    }

    /// Returns the parts that a task shares with the tasks of its function that have the same options.
    pub(super) fn of<A: Value, T: Send + 'static>(
        &self,
        call: Call,
        options: ClusterOptions,
        function: RemoteFunction<A, T>,
    ) -> (Arc<CallKind>, Arc<Family<A, T>>) {
        let is_it = |recent: &Recent<A, T>| {
            recent.kind.is_of(&call, &options) && recent.family.function.name() == function.name()
        };
        let mut all = lock(&self.recent);
        // The last one first.
        let mut same_type = all.iter().rev().filter_map(|any| any.downcast_ref());
        if let Some(Recent { kind, family }) = same_type.find(|recent| is_it(recent)) {
            return (Arc::clone(kind), Arc::clone(family));
        }
        let name = match &call {
            Call::Named { name, .. } => Cow::Owned(name.clone()),
            _ => Cow::Borrowed(function.name()),
        };
        let kind = Arc::new(CallKind::new(call, options, type_name::<T>()));
        let family = self.family(function, Some(name));
        let recent = Recent {
            kind: Arc::clone(&kind),
            family: Arc::clone(&family),
        };
        let oldest = (all.len() == RECENT).then(|| all.pop_front());
        all.push_back(Box::new(recent));
        drop(all);
        drop(oldest);
        (kind, family)
    }

    /// Returns the part of a call of another frontend that it shares with the one before, if only their arguments differ.
    pub(super) fn opaque(&self, call: Call, options: ClusterOptions) -> Arc<CallKind> {
        let mut last = lock(&self.opaque);
        if let Some(kind) = last.as_ref().filter(|kind| kind.is_of(&call, &options)) {
            return Arc::clone(kind);
        }
        let kind = Arc::new(CallKind::new(call, options, ""));
        *last = Some(Arc::clone(&kind));
        kind
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::driver::RustSink;
    use super::*;

    fn families() -> Families {
        Families::new(Arc::default(), Arc::new(RemotePool::new("test")))
    }

    fn shared_by<F>(families: &Families, f: F, options: ClusterOptions) -> Arc<CallKind>
    where
        F: Fn(u32) -> u32 + concurrent_futures::Function,
    {
        let function = RemoteFunction::plain(f);
        let Ok((entry, _)) = function.send(7) else {
            panic!("a number can be sent");
        };
        let (kind, family) = families.of(Call::Entry(entry), options, function);
        assert_eq!(family.named.name.as_deref(), Some(function.name()));
        kind
    }

    #[test]
    fn tasks_of_one_function_and_the_same_options_share_also_if_functions_alternate() {
        let (families, options) = (families(), ClusterOptions::new());
        let ones = || shared_by(&families, u32::count_ones, options);
        let zeros = || shared_by(&families, u32::count_zeros, options);
        let (first, other) = (ones(), zeros());
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(Arc::ptr_eq(&first, &ones()) && Arc::ptr_eq(&other, &zeros()));
        let again = shared_by(&families, u32::count_ones, options.retries(1));
        assert!(!Arc::ptr_eq(&first, &again));
        // The place of the first one goes to another in the end.
        for retries in 2..=u32::try_from(RECENT).unwrap() {
            assert!(Arc::ptr_eq(&other, &zeros()));
            shared_by(&families, u32::count_ones, options.retries(retries));
        }
        assert!(!Arc::ptr_eq(&first, &ones()));
        assert_eq!(lock(&families.recent).len(), RECENT);
    }

    #[test]
    fn calls_of_another_frontend_share_with_the_one_before() {
        let (families, options) = (families(), ClusterOptions::new());
        let call = |name: &str| families.opaque(Call::Opaque(name.into()), options);
        let first = call("a");
        assert!(Arc::ptr_eq(&first, &call("a")));
        assert!(!Arc::ptr_eq(&first, &call("b")));
    }

    #[test]
    fn the_sink_of_a_future_takes_24_bytes() {
        assert_eq!(size_of::<RustSink<String, Vec<u64>>>(), 24);
    }
}
