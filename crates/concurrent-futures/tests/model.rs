//! Tests of random programs against a simple model of what a program may observe of each task.

mod common;

use common::{Counted, Counter, Hold, LONG, eventually, owned, within_limit};
use concurrent_futures::{
    Future, ReturnWhen, Shutdown, TaskError, ThreadPoolExecutor, as_completed, wait,
};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The end of a task, if it runs.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Value,
    Error,
    Panic,
    /// The task returns a value, after waiting for a task that it has submitted.
    Nested,
}

/// A step of a program. Numbers choose among the tasks there are.
#[derive(Clone, Debug)]
enum Step {
    Submit(Ending),
    Cancel(usize),
    AddCallback(usize),
    Result(usize),
    ResultTimeout(usize, u64),
    Exception(usize),
    Peek(usize),
    Drop(usize),
    Wait(Vec<usize>, ReturnWhen, Option<u64>),
    AsCompleted(Vec<usize>, usize),
    /// Occupies all workers, so that tasks stay pending.
    Pause,
    Resume,
    Shutdown(bool, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let task = any::<usize>;
    let ending = prop_oneof![
        4 => Just(Ending::Value),
        1 => Just(Ending::Error),
        1 => Just(Ending::Panic),
        1 => Just(Ending::Nested),
    ];
    let mode = prop_oneof![
        Just(ReturnWhen::AllCompleted),
        Just(ReturnWhen::FirstCompleted),
        Just(ReturnWhen::FirstException),
    ];
    let limit = proptest::option::of(0..200_u64);
    let step = prop_oneof![
        12 => ending.prop_map(Step::Submit),
        4 => task().prop_map(Step::Cancel),
        6 => task().prop_map(Step::AddCallback),
        3 => task().prop_map(Step::Result),
        3 => (task(), 0..200_u64).prop_map(|(task, limit)| Step::ResultTimeout(task, limit)),
        2 => task().prop_map(Step::Exception),
        3 => task().prop_map(Step::Peek),
        3 => task().prop_map(Step::Drop),
        2 => (vec(task(), 0..6), mode, limit).prop_map(|(tasks, mode, limit)| {
            Step::Wait(tasks, mode, limit)
        }),
        2 => (vec(task(), 0..6), 0..7_usize).prop_map(|(tasks, n)| Step::AsCompleted(tasks, n)),
        3 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => any::<(bool, bool)>().prop_map(|(wait, cancel)| Step::Shutdown(wait, cancel)),
    ];
    vec(step, 1..60)
}

type Value = (usize, Counted);

/// The calls of callbacks: their numbers, and the outcome in short.
type Called = Arc<Mutex<Vec<(usize, String)>>>;

struct Task {
    number: usize,
    ending: Ending,
    /// The only handle, until it is used up.
    future: Option<Future<Value>>,
    runs: Counter,
    /// The last result of `cancel`.
    cancel_answer: Option<bool>,
    taken: bool,
    callbacks: usize,
    called: Called,
}

struct Program {
    pool: Arc<ThreadPoolExecutor>,
    tasks: Vec<Task>,
    holds: Vec<Hold>,
    alive: Counter,
    /// Tasks that wait for another one, until they end or are cancelled.
    nested: Counter,
    shut_down: bool,
}

fn in_short(result: &Result<Value, TaskError>) -> String {
    match result {
        Ok((number, _)) => format!("value {number}"),
        Err(TaskError::Failed(_)) => String::from("error"),
        Err(TaskError::Panicked(_)) => String::from("panic"),
        Err(TaskError::Cancelled) => String::from("cancelled"),
        Err(TaskError::Taken) => String::from("taken"),
        Err(error) => panic!("{error:?}"),
    }
}

impl Task {
    /// Returns the outcome of the task in short, if it has run or was cancelled.
    fn expected(&self) -> String {
        if self.runs.get() == 0 {
            return String::from("cancelled");
        }
        match self.ending {
            Ending::Value | Ending::Nested => format!("value {}", self.number),
            Ending::Error => String::from("error"),
            Ending::Panic => String::from("panic"),
        }
    }

    fn check(&self, result: &Result<Value, TaskError>) {
        let expected = if self.taken {
            String::from("taken")
        } else {
            self.expected()
        };
        assert_eq!(in_short(result), expected);
        assert!(self.runs.get() <= 1);
    }

    fn result_timeout(&mut self, limit: Duration) {
        let Some(future) = &mut self.future else {
            return;
        };
        let result = future.result_timeout(limit);
        if matches!(result, Err(TaskError::Timeout)) {
            return;
        }
        assert!(future.is_done());
        self.check(&result);
        // A cancelled future has nothing that could be taken.
        self.taken |= self.runs.get() == 1;
    }
}

impl Program {
    fn new(workers: usize) -> Self {
        Self {
            pool: Arc::new(common::pool(workers)),
            tasks: Vec::new(),
            holds: Vec::new(),
            alive: Counter::new(),
            nested: Counter::new(),
            shut_down: false,
        }
    }

    fn task(&mut self, choice: usize) -> Option<&mut Task> {
        let count = self.tasks.len();
        (count > 0).then(|| &mut self.tasks[choice % count])
    }

    fn choose(&self, choices: &[usize]) -> Vec<&Future<Value>> {
        let chosen = choices.iter().filter(|_| !self.tasks.is_empty());
        let chosen = chosen.map(|choice| &self.tasks[choice % self.tasks.len()]);
        chosen.filter_map(|task| task.future.as_ref()).collect()
    }

    fn submit(&mut self, ending: Ending) {
        let number = self.tasks.len();
        let runs = Counter::new();
        let (in_task, value) = (runs.clone(), Counted::new(&self.alive));
        let pool = Arc::downgrade(&self.pool);
        let nested = matches!(ending, Ending::Nested).then(|| Counted::new(&self.nested));
        let submitted = self.pool.spawn_fallible(move || {
            let _nested = nested;
            in_task.add();
            match ending {
                Ending::Value => {}
                Ending::Error => return Err("an error"),
                Ending::Panic => panic!("a panic"),
                Ending::Nested => {
                    // Refused after a shutdown.
                    if let Ok(nested) = pool.upgrade().unwrap().spawn(|| 1) {
                        let nested = nested.result();
                        assert!(matches!(nested, Ok(1) | Err(TaskError::Cancelled)));
                    }
                }
            }
            Ok((number, value))
        });
        assert_eq!(submitted.is_err(), self.shut_down);
        if let Ok(future) = submitted {
            self.tasks.push(Task {
                number,
                ending,
                future: Some(future),
                runs,
                cancel_answer: None,
                taken: false,
                callbacks: 0,
                called: Called::default(),
            });
        }
    }

    fn step(&mut self, step: Step) {
        let paused = !self.holds.is_empty();
        match step {
            Step::Submit(ending) => self.submit(ending),
            Step::Cancel(task) => self.cancel(task),
            Step::AddCallback(task) => {
                let alive = self.alive.clone();
                let Some(task) = self.task(task) else { return };
                let Some(future) = &task.future else { return };
                let (called, number) = (Arc::clone(&task.called), task.callbacks);
                let counted = Counted::new(&alive);
                future.add_done_callback(move |result| {
                    drop(counted);
                    called
                        .lock()
                        .unwrap()
                        .push((number, in_short(&owned(result))));
                    assert!(number % 3 != 2, "every third callback panics");
                });
                task.callbacks += 1;
            }
            Step::Result(task) => {
                self.resume();
                let Some(task) = self.task(task) else { return };
                let Some(future) = task.future.take() else {
                    return;
                };
                let result = future.result();
                task.check(&result);
            }
            Step::ResultTimeout(task, limit) => {
                let limit = Duration::from_micros(limit);
                if let Some(task) = self.task(task) {
                    task.result_timeout(limit);
                }
            }
            Step::Exception(task) => {
                self.resume();
                let Some(task) = self.task(task) else { return };
                let Some(future) = &task.future else { return };
                let is_value = future.exception().is_none();
                assert_eq!(
                    is_value,
                    !task.taken && task.expected().starts_with("value")
                );
            }
            Step::Peek(task) => {
                let Some(task) = self.task(task) else { return };
                let Some(future) = &task.future else { return };
                if let Some(result) = future.peek() {
                    assert!(future.is_done() && !future.is_running());
                    task.check(&owned(result));
                }
            }
            Step::Drop(task) => {
                if let Some(task) = self.task(task) {
                    task.future = None;
                }
            }
            Step::Wait(tasks, mode, limit) => self.wait(&tasks, mode, limit),
            Step::AsCompleted(tasks, count) => {
                self.resume();
                let futures = self.choose(&tasks);
                let expected = futures.len().min(count);
                let completed = as_completed(futures).take(count);
                assert_eq!(
                    completed
                        .inspect(|future| assert!(future.is_done()))
                        .count(),
                    expected
                );
            }
            Step::Pause => {
                if !paused && !self.shut_down {
                    // A task that waits for another keeps its worker from being held, and the
                    // other task would wait behind those that hold.
                    eventually("nested tasks end", || self.nested.get() == 0);
                    self.holds = Hold::all_workers_of(&self.pool);
                }
            }
            Step::Resume => self.resume(),
            Step::Shutdown(wait, cancel_futures) => self.shutdown(wait, cancel_futures),
        }
    }

    fn cancel(&mut self, task: usize) {
        let paused = !self.holds.is_empty();
        let Some(task) = self.task(task) else { return };
        let Some(future) = &task.future else { return };
        let was_pending = !future.is_running() && !future.is_done();
        let answer = future.cancel();
        assert!(!answer || task.runs.get() == 0);
        assert!(
            answer || !(was_pending && paused),
            "pending, but not cancelled"
        );
        assert_eq!(answer, future.is_cancelled());
        assert!(task.cancel_answer.is_none_or(|before| before == answer));
        task.cancel_answer = Some(answer);
    }

    fn wait(&mut self, tasks: &[usize], mode: ReturnWhen, limit: Option<u64>) {
        if limit.is_none() {
            self.resume();
        }
        let futures = self.choose(tasks);
        let divided = wait(futures.clone(), limit.map(Duration::from_micros), mode);
        assert_eq!(divided.done.len() + divided.not_done.len(), futures.len());
        assert!(divided.done.iter().all(|future| future.is_done()));
        let enough = match mode {
            ReturnWhen::FirstCompleted => !divided.done.is_empty(),
            ReturnWhen::FirstException => divided
                .done
                .iter()
                .any(|future| !future.is_cancelled() && future.exception().is_some()),
            ReturnWhen::AllCompleted => false,
        };
        assert!(limit.is_some() || enough || divided.not_done.is_empty());
    }

    fn shutdown(&mut self, wait: bool, cancel_futures: bool) {
        if wait {
            self.resume();
        }
        self.shut_down = true;
        self.pool.shutdown(common::shutdown(wait, cancel_futures));
        let futures = self.tasks.iter().filter_map(|task| task.future.as_ref());
        for future in futures {
            assert!(!wait || future.is_done());
        }
    }

    fn resume(&mut self) {
        self.holds.clear();
    }

    fn finish(mut self) {
        self.resume();
        self.pool.shutdown(Shutdown::Wait);
        for task in &mut self.tasks {
            assert!(task.cancel_answer != Some(true) || task.runs.get() == 0);
            if task.cancel_answer == Some(false) {
                assert_eq!(task.runs.get(), 1);
            }
            assert!(
                task.future.as_ref().is_none_or(Future::is_done),
                "lost: {:?}",
                task.future
            );
            task.result_timeout(Duration::ZERO);
            assert!(task.shut_down_or_ran(self.shut_down));
            let called = task.called.lock().unwrap();
            let numbers: Vec<_> = called.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (0..task.callbacks).collect::<Vec<_>>());
            for (_, outcome) in called.iter() {
                assert!(
                    *outcome == task.expected() || outcome == "taken",
                    "{outcome}"
                );
            }
        }
        let alive = self.alive.clone();
        drop(self);
        assert_eq!(alive.get(), 0, "leaked");
    }
}

impl Task {
    /// Checks that a task has run, unless its handle or a shutdown cancelled it.
    fn shut_down_or_ran(&self, shut_down: bool) -> bool {
        shut_down || self.cancel_answer == Some(true) || self.runs.get() == 1
    }
}

fn run(workers: usize, steps: Vec<Step>) {
    let mut program = Program::new(workers);
    for step in steps {
        program.step(step);
    }
    program.finish();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_programs_observe_what_the_model_allows(workers in 1..=4_usize, steps in steps()) {
        within_limit(move || run(workers, steps));
    }
}

#[test]
fn the_model_allows_a_program_with_every_step() {
    let mut steps = vec![Step::Pause];
    for ending in [Ending::Value, Ending::Error, Ending::Panic, Ending::Nested] {
        steps.push(Step::Submit(ending));
    }
    steps.extend((0..4).flat_map(|task| [Step::AddCallback(task), Step::AddCallback(task)]));
    steps.extend([
        Step::Cancel(0),
        Step::Resume,
        Step::Exception(3),
        Step::Peek(1),
    ]);
    steps.push(Step::Wait(vec![0, 1, 2, 3], ReturnWhen::AllCompleted, None));
    let limit = u64::try_from(LONG.as_micros()).unwrap();
    steps.extend([
        Step::ResultTimeout(1, limit),
        Step::Result(2),
        Step::Drop(3),
    ]);
    steps.extend([Step::AsCompleted(vec![0, 1], 2), Step::Shutdown(true, true)]);
    steps.push(Step::Submit(Ending::Value));
    run(2, steps);
}
