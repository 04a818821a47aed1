//! Loom models of the channel, of claims, and of the wake-ups of supervisor and helpers.

use crate::process::channel::{Claim, Memory, ParkState, Reader, Writer};
use crate::process::contract::CallSpan;
use crate::process::items::{Items, Span};
use crate::process::pool::wake::{MustWake, Streams, WakeState};
use crate::runtime::explored;
use crate::runtime::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use crate::runtime::sync::{Arc, Mutex, thread};
use loom::sync::Condvar;
use std::time::Duration;

/// Checks a model in all orders with at most `preemptions` preemptions.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    explored::check(Some(preemptions), model);
}

/// A socket or a bell: a wake-up that was sent stays until it is received.
struct Bell(Mutex<bool>, Condvar);

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(false), Condvar::new()))
    }

    fn ring(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.0.lock().unwrap();
        while !*rung {
            rung = self.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// A limit for sleeps; time does not pass in models.
const FOR_EVER: Duration = Duration::ZERO;

#[test]
fn a_sleeping_reader_gets_all_bytes() {
    check(3, || {
        let memory = Memory::new(4);
        let bell = Bell::new();
        let mut writer = Writer::from_worker(&memory);
        let mut reader = Reader::from_worker(&memory);
        let sender = thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                for byte in [1, 2] {
                    assert_eq!(writer.write(&[byte]), Ok(1));
                    if writer.publish(true) {
                        bell.ring();
                    }
                }
            }
        });
        let mut bytes = Vec::new();
        while bytes.len() < 2 {
            if reader.read(2, &mut bytes) == Ok(0) {
                reader.set_rest(ParkState::Asleep);
                if reader.available() == Ok(0) {
                    bell.sleep();
                }
                reader.set_rest(ParkState::Awake);
            }
        }
        assert_eq!(bytes, [1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn a_long_value_runs_through_a_short_stream_while_both_sides_are_patient() {
    check(2, || {
        const LONG: [u8; 5] = [1, 2, 3, 4, 5];
        let memory = Memory::new(4);
        let [here, there] = [Bell::new(), Bell::new()];
        let mut writer = Writer::to_worker(&memory);
        let mut reader = Reader::to_worker(&memory);
        let sender = thread::spawn({
            let (here, there) = (Arc::clone(&here), Arc::clone(&there));
            move || {
                let mut left = &LONG[..];
                while !left.is_empty() {
                    let written = writer.write(&left[..left.len().min(2)]).unwrap();
                    left = &left[written..];
                    if writer.publish(left.is_empty()) {
                        there.ring();
                    }
                    if written == 0 {
                        writer.set_rest(ParkState::Patient);
                        if writer.room() == Ok(0) {
                            here.sleep();
                        }
                        writer.set_rest(ParkState::Awake);
                    }
                }
            }
        });
        let mut bytes = Vec::new();
        while bytes.len() < LONG.len() {
            let read = reader.read(1, &mut bytes).unwrap();
            // A side that is about to sleep says that this is all for now.
            if reader.release(read == 0) {
                here.ring();
            }
            if read == 0 {
                reader.set_rest(ParkState::Patient);
                if reader.available() == Ok(0) {
                    there.sleep();
                }
                reader.set_rest(ParkState::Awake);
            }
        }
        assert_eq!(bytes, LONG);
        sender.join().unwrap();
    });
}

#[test]
fn a_nap_ends_when_something_comes() {
    check(3, || {
        let memory = Memory::new(4);
        let mut writer = Writer::from_worker(&memory);
        let reader = Reader::from_worker(&memory);
        let sender = thread::spawn(move || {
            assert_eq!(writer.write(&[1]), Ok(1));
            // Perhaps by the socket, if the nap was over already.
            let _ = writer.publish(true);
        });
        let nap = reader.begin_nap().unwrap();
        if reader.available() == Ok(0) {
            nap.sleep(FOR_EVER);
        }
        // A reader that finds the flag changed has not seen the bytes for that: it says that it sleeps,
        // and looks once more, as always.
        reader.set_rest(ParkState::Asleep);
        assert_eq!(reader.available(), Ok(1));
        sender.join().unwrap();
    });
}

#[test]
fn a_nap_ends_when_somebody_ends_it() {
    check(3, || {
        let memory = Memory::new(4);
        let reader = Reader::from_worker(&memory);
        let nap = Arc::new(reader.begin_nap().unwrap());
        let other = thread::spawn({
            let nap = Arc::clone(&nap);
            move || nap.end()
        });
        nap.sleep(FOR_EVER);
        other.join().unwrap();
    });
}

#[test]
fn a_frame_is_either_claimed_by_the_worker_or_recalled() {
    check(3, || {
        let word = Arc::new(AtomicU32::new(Claim::Ready as u32));
        let run = Arc::new(AtomicUsize::new(0));
        let worker = thread::spawn({
            let (word, run) = (Arc::clone(&word), Arc::clone(&run));
            move || {
                if Claim::Taken.claim(&word) {
                    run.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // A supervisor that recalls the task, and a thread that cancels it.
        let canceller = thread::spawn({
            let word = Arc::clone(&word);
            move || Claim::Recalled.claim(&word)
        });
        let taken_back = Claim::Recalled.claim(&word);
        let cancelled = canceller.join().unwrap();
        worker.join().unwrap();
        let runs = run.load(Ordering::Relaxed);
        assert_eq!(runs + usize::from(taken_back) + usize::from(cancelled), 1);
        assert_eq!(Claim::Taken.holds(&word), runs == 1);
    });
}

/// A pool with one worker, reduced to the state of its receivers.
struct Pool {
    state: Mutex<State>,
    /// The supervisor's bell, and the sockets that it polls.
    bell: Arc<Bell>,
}

struct State {
    awake: WakeState,
    reader: Reader,
    received: Vec<u8>,
    /// The number of changes that only the supervisor can handle.
    orders: usize,
}

struct Single<'a>(&'a Reader);

impl Streams for Single<'_> {
    fn set_asleep(&self, asleep: bool) {
        self.0.set_rest(if asleep {
            ParkState::Asleep
        } else {
            ParkState::Awake
        });
    }

    fn has_work(&self) -> bool {
        self.0.available() != Ok(0)
    }
}

impl Pool {
    fn new() -> (Arc<Self>, Writer) {
        let memory = Memory::new(4);
        let state = State {
            awake: WakeState::default(),
            reader: Reader::from_worker(&memory),
            received: Vec::new(),
            orders: 0,
        };
        let pool = Self {
            state: Mutex::new(state),
            bell: Bell::new(),
        };
        (Arc::new(pool), Writer::from_worker(&memory))
    }

    fn answer(&self, writer: &mut Writer, byte: u8) {
        assert_eq!(writer.write(&[byte]), Ok(1));
        if writer.publish(true) {
            self.bell.ring();
        }
    }

    fn ring(&self, ring: MustWake) {
        if ring == MustWake::Needed {
            self.bell.ring();
        }
    }

    /// Works until this many answers and orders have come.
    fn supervise(&self, answers: usize, orders: usize) {
        loop {
            {
                let mut state = self.state.lock().unwrap();
                let state = &mut *state;
                state.awake.look();
                state.receive();
                if state.received.len() == answers && state.orders == orders {
                    return;
                }
            }
            let falls_asleep = {
                let mut state = self.state.lock().unwrap();
                let state = &mut *state;
                state.awake.fall_asleep(&Single(&state.reader))
            };
            if falls_asleep {
                self.sleep();
            }
        }
    }

    fn sleep(&self) {
        self.bell.sleep();
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        state.awake.wake_up(&Single(&state.reader));
    }

    /// Receives replies as a helper: looks once, naps if it may, and goes to sleep elsewhere.
    fn help(&self) {
        let with_state = |f: &dyn Fn(&mut State)| f(&mut self.state.lock().unwrap());
        with_state(&|state| state.awake.enter(&Single(&state.reader)));
        let received = {
            let mut state = self.state.lock().unwrap();
            state.receive();
            // Threads that wait for the answer are woken; in this model, the supervisor is the only one.
            let is_answer = !state.received.is_empty();
            is_answer.then(|| state.awake.change())
        };
        received.into_iter().for_each(|ring| self.ring(ring));
        let nap = {
            let mut state = self.state.lock().unwrap();
            let state = &mut *state;
            let mut nap = None;
            if state.awake.lets_nap() {
                let begun = state.reader.begin_nap().unwrap();
                if state.reader.available() == Ok(0) {
                    nap = Some(state.awake.begin_nap(begun));
                } else {
                    state.reader.set_rest(ParkState::Awake);
                }
            }
            nap
        };
        // Time passes at once: to be woken is the matter of other models.
        drop(nap);
        with_state(&|state| state.awake.end_nap());
        let ring = {
            let mut state = self.state.lock().unwrap();
            let state = &mut *state;
            state.awake.leave(&Single(&state.reader))
        };
        self.ring(ring);
    }
}

impl State {
    fn receive(&mut self) {
        let _ = self.reader.read(4, &mut self.received);
    }
}

#[test]
fn the_supervisor_receives_replies_that_a_helper_leaves() {
    check(2, || {
        let (pool, mut writer) = Pool::new();
        let helper = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.help()
        });
        let worker = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.answer(&mut writer, 1)
        });
        // Should it stay asleep with the answer there, loom finds the deadlock.
        pool.supervise(1, 0);
        helper.join().unwrap();
        worker.join().unwrap();
        assert_eq!(pool.state.lock().unwrap().received, [1]);
    });
}

#[test]
fn the_supervisor_notices_every_change() {
    check(2, || {
        let (pool, mut writer) = Pool::new();
        let submitter = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                let ring = {
                    let mut state = pool.state.lock().unwrap();
                    state.orders += 1;
                    state.awake.change()
                };
                pool.ring(ring);
            }
        });
        let worker = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.answer(&mut writer, 1)
        });
        pool.supervise(1, 1);
        submitter.join().unwrap();
        worker.join().unwrap();
    });
}

#[test]
fn tasks_behind_a_returned_span_never_begin_before_it() {
    check(3, || {
        let memory = Memory::new(8);
        let bell = Bell::new();
        let mut tasks = Writer::to_worker(&memory);
        let frames = Reader::to_worker(&memory);
        let mut answers = Writer::from_worker(&memory);
        let mut answered = Reader::from_worker(&memory);
        // The frame behind; perhaps there is none yet when the worker stops.
        tasks.word(0).store(Claim::Ready as u32, Ordering::Relaxed);
        let worker = thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                assert_eq!(answers.write(&[1]), Ok(1));
                let _ = answers.publish(true);
                let is_read = || answers.consumed() == Ok(answers.position());
                while !is_read() {
                    answers.set_rest(ParkState::Asleep);
                    if !is_read() {
                        bell.sleep();
                    }
                    answers.set_rest(ParkState::Awake);
                }
                let mut bytes = Vec::new();
                let is_there = frames.peek(1, &mut bytes) == Ok(true);
                is_there && Claim::Taken.claim(frames.word())
            }
        });
        assert_eq!(tasks.write(&[1]), Ok(1));
        let _ = tasks.publish(true);
        let mut bytes = Vec::new();
        while answered.read(1, &mut bytes) == Ok(0) {
            thread::yield_now();
        }
        assert!(Claim::Recalled.claim(tasks.word(0)));
        if answered.release(true) {
            bell.ring();
        }
        assert!(!worker.join().unwrap());
    });
}

/// Pushes one item. Returns the tail that is to be submitted for the item, if there is no tail.
fn push(items: &Arc<Items>, byte: u8) -> Option<Span> {
    let is_without_tail = items.push(&mut vec![byte], &mut vec![1]);
    is_without_tail.then(|| Span::of_call(CallSpan::Tail(Arc::clone(items))))
}

#[test]
fn each_item_of_a_span_that_grows_is_in_one_part() {
    check(4, || {
        let items = Items::new();
        let queue = Arc::new(Mutex::new(Vec::new()));
        queue.lock().unwrap().extend(push(&items, 0));
        let producer = thread::spawn({
            let (items, queue) = (Arc::clone(&items), Arc::clone(&queue));
            move || {
                for byte in [1, 2] {
                    let tail = push(&items, byte);
                    queue.lock().unwrap().extend(tail);
                }
                items.complete();
            }
        });
        let mut handed = Vec::new();
        let mut hand = |most| {
            let mut queue = queue.lock().unwrap();
            assert!(queue.len() <= 1);
            let Some(mut part) = queue.pop() else {
                return false;
            };
            queue.extend(part.cut(most));
            assert!(!part.items.is_empty());
            handed.extend(items.bytes_of(&part.items));
            true
        };
        hand(1);
        hand(2);
        producer.join().unwrap();
        while hand(1) {}
        assert_eq!(handed, [0, 1, 2]);
    });
}
