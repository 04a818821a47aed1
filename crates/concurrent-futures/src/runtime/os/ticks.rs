//! A counter of the processor, as a clock that costs a part of the system's.
//!
//! The counter is used where the kernel makes its own clock of it. The kernel has found then that the counter has one
//! rate, also while processors are idle, and that all processors count the same. Elsewhere there is none.

/// The counter of the processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter(());

impl Counter {
    /// Returns the counter, if the system's monotonic clock is made of it at the moment.
    pub(crate) fn of_system() -> Option<Self> {
        is_clock_of_system().then_some(Self(()))
    }

    /// Returns the ticks. The processor may read the counter before it has got the last values that the thread loads: some
    /// hundredths of a microsecond early.
    #[inline]
    #[allow(clippy::unused_self, reason = "there is a counter")]
    pub(crate) fn read(self) -> u64 {
        ticks()
    }

    /// Returns the ticks, read behind all loads of the calling thread that come before. This takes twice as long.
    #[inline]
    pub(crate) fn read_behind(self) -> u64 {
        wait_for_loads();
        self.read()
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
fn is_clock_of_system() -> bool {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read(path).is_ok_and(|name| name.trim_ascii() == b"tsc")
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
#[inline]
fn ticks() -> u64 {
    // SAFETY: all processors of this architecture have the instruction. The kernel's clock, which is this counter, uses
    // the instruction in the program as well.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
#[inline]
fn wait_for_loads() {
    // SAFETY: all processors of this architecture have the instruction.
    unsafe { std::arch::x86_64::_mm_lfence() }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", not(miri))))]
fn is_clock_of_system() -> bool {
    false
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", not(miri))))]
fn ticks() -> u64 {
    0
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", not(miri))))]
fn wait_for_loads() {}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
    fn ticks_of_all_threads_are_in_the_order_of_events() {
        let Some(counter) = Counter::of_system() else {
            println!("skipped: the system's clock is not the counter of the processor");
            return;
        };
        // Each thread passes the largest number on, which it has read before.
        let (requests, received) = std::sync::mpsc::channel::<u64>();
        let (replies, answers) = std::sync::mpsc::channel::<u64>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for before in received {
                    let now = counter.read_behind();
                    assert!(now >= before, "{now} after {before}");
                    if replies.send(now).is_err() {
                        return;
                    }
                }
            });
            for _ in 0..1000 {
                requests.send(counter.read()).unwrap();
                let before = answers.recv().unwrap();
                let now = counter.read_behind();
                assert!(now >= before, "{now} after {before}");
            }
            drop(requests);
        });
    }
}
