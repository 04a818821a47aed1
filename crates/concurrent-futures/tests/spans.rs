//! Spans of tasks for `tracing`: each under the span of its submitter.

#![cfg(feature = "spans")]

mod common;

use common::pool;
use concurrent_futures::Shutdown;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[cfg(all(feature = "process", target_os = "linux"))]
concurrent_futures::init_before_main!();

/// A span, as the subscriber knows it.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: HashMap<&'static str, String>,
    entered: Vec<ThreadId>,
    exits: usize,
    is_closed: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

#[derive(Default)]
struct State {
    spans: Vec<Seen>,
    /// The number of handles of each span.
    handles: Vec<usize>,
    stacks: HashMap<ThreadId, Vec<u64>>,
}

/// A subscriber of all threads that keeps what it is told.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<State>>);

fn place(id: &Id) -> usize {
    usize::try_from(id.into_u64() - 1).unwrap()
}

impl Log {
    fn current(state: &State) -> Option<u64> {
        state.stacks.get(&thread::current().id())?.last().copied()
    }

    fn named(&self, name: &str) -> Vec<Seen> {
        let state = self.0.lock().unwrap();
        let spans = state.spans.iter().filter(|span| span.name == name);
        spans.cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut state = self.0.lock().unwrap();
        let mut span = Seen {
            name: attributes.metadata().name(),
            parent: match attributes.parent() {
                Some(parent) => Some(parent.into_u64()),
                None if attributes.is_contextual() => Self::current(&state),
                None => None,
            },
            ..Seen::default()
        };
        attributes.record(&mut span);
        state.spans.push(span);
        state.handles.push(1);
        Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        values.record(&mut self.0.lock().unwrap().spans[place(id)]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, id: &Id) {
        let mut state = self.0.lock().unwrap();
        let thread = thread::current().id();
        state.stacks.entry(thread).or_default().push(id.into_u64());
        state.spans[place(id)].entered.push(thread);
    }

    fn exit(&self, id: &Id) {
        let mut state = self.0.lock().unwrap();
        let thread = thread::current().id();
        assert_eq!(
            state.stacks.get_mut(&thread).and_then(Vec::pop),
            Some(id.into_u64())
        );
        state.spans[place(id)].exits += 1;
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.0.lock().unwrap().handles[place(id)] += 1;
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut state = self.0.lock().unwrap();
        let place = place(&id);
        state.handles[place] -= 1;
        state.spans[place].is_closed = state.handles[place] == 0;
        state.spans[place].is_closed
    }
}

fn answer(n: u32) -> u32 {
    n + 1
}

fn fail(text: String) -> Result<u32, String> {
    Err(text)
}

#[cfg(all(feature = "process", target_os = "linux"))]
fn exit(code: i32) {
    std::process::exit(code);
}

/// One test, as a program has one subscriber for all threads.
#[test]
fn each_task_has_a_span_under_that_of_its_submitter() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    of_threads(&log);
    #[cfg(all(feature = "process", target_os = "linux"))]
    of_processes(&log);
}

fn of_threads(log: &Log) {
    let pool = Arc::new(pool(2));
    let inner = Arc::clone(&pool);
    {
        let _entered = tracing::info_span!("request").entered();
        let outer = pool
            .spawn(move || inner.submit(answer, 1).unwrap().result().unwrap())
            .unwrap();
        assert_eq!(outer.result().unwrap(), 2);
        let failed = pool.submit_fallible(fail, "no luck".to_owned()).unwrap();
        failed.result().unwrap_err();
    }
    let panicked = pool.spawn(|| panic!("oh")).unwrap();
    panicked.result().unwrap_err();
    let held = common::Hold::all_workers_of(&pool);
    let cancelled = pool.submit(answer, 9).unwrap();
    assert!(cancelled.cancel());
    held.into_iter().for_each(common::Hold::release);
    pool.shutdown(Shutdown::Wait);
    let spans = log.named("task");
    let [outer, inner, failed, panicked, .., cancelled] = &spans[..] else {
        panic!("{spans:?}");
    };
    let request = Some(1);
    assert_eq!(log.named("request")[0].fields.len(), 0);
    assert_eq!((outer.parent, inner.parent), (request, Some(2)));
    assert_eq!((failed.parent, panicked.parent), (request, None));
    assert!(inner.fields["function"].ends_with("answer"));
    assert!(!inner.fields.contains_key("error"));
    assert!(failed.fields["error"].contains("no luck"));
    assert!(panicked.fields["error"].contains("oh"));
    for span in [outer, inner, failed, panicked] {
        assert_eq!((span.entered.len(), span.exits), (1, 1));
        assert_ne!(span.entered[0], thread::current().id());
    }
    assert_eq!(cancelled.entered.len(), 0);
    assert!(spans.iter().all(|span| span.is_closed), "{spans:?}");
}

#[cfg(all(feature = "process", target_os = "linux"))]
fn of_processes(log: &Log) {
    use concurrent_futures::ProcessPoolExecutor;

    let before = log.named("task").len();
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .build()
        .unwrap();
    let request = tracing::info_span!("request");
    request.in_scope(|| {
        assert_eq!(pool.submit(answer, 1).unwrap().result().unwrap(), 2);
        let failed = pool.submit_fallible(fail, "no luck".to_owned()).unwrap();
        failed.result().unwrap_err();
        pool.submit(exit, 3).unwrap().result().unwrap_err();
    });
    pool.shutdown(Shutdown::Wait);
    let spans = &log.named("task")[before..];
    let [finished, failed, died] = spans else {
        panic!("{spans:?}");
    };
    let parent = request.id().map(|id| id.into_u64());
    for span in spans {
        assert_eq!(span.parent, parent);
        assert!(span.is_closed && span.entered.is_empty());
    }
    assert!(finished.fields["function"].ends_with("answer"));
    assert!(!finished.fields.contains_key("error"));
    assert!(failed.fields["error"].contains("no luck"));
    assert!(died.fields["error"].contains('3'), "{died:?}");
}
