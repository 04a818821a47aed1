//! Figures of Linux about this process.

use std::{fs, mem, process};

/// Returns how often the threads of this process were taken off a processor, without the main thread.
pub(crate) fn context_switches() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux lists a process's threads");
    let main = process::id().to_string();
    tasks
        .map(|task| task.expect("Linux lists a process's threads"))
        .filter(|task| task.file_name() != main.as_str())
        // A thread may end while they are read.
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .map(|status| status.lines().filter_map(switches_in).sum::<f64>())
        .sum()
}

/// Returns the number in a line such as `nonvoluntary_ctxt_switches: 7`.
fn switches_in(line: &str) -> Option<f64> {
    let (name, count) = line.split_once(':')?;
    name.ends_with("ctxt_switches")
        .then(|| count.trim().parse().ok())?
}

/// The seconds that this process has spent on a processor.
pub(crate) fn processor_seconds() -> f64 {
    usage(libc::RUSAGE_SELF)
}

/// The seconds that the child processes which have ended spent on a processor.
pub(crate) fn processor_seconds_of_children() -> f64 {
    usage(libc::RUSAGE_CHILDREN)
}

fn usage(of: libc::c_int) -> f64 {
    // SAFETY: `rusage` is made of integers, for which zero is a value; the pointer is to one.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        let status = libc::getrusage(of, &raw mut usage);
        assert_eq!(status, 0, "a process may ask about itself");
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::context_switches;

    /// Shows that a count of zero means something: the count is another after a wake-up.
    #[test]
    fn a_thread_that_wakes_up_is_noticed() {
        let (begin, start) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let sleeper = thread::spawn(move || {
            start.recv().expect("the test sends");
            (0..20).for_each(|_| thread::sleep(Duration::from_millis(1)));
            end.send(()).expect("the test receives");
            start.recv().expect_err("the test ends");
        });
        let before = context_switches();
        begin.send(()).expect("the thread receives");
        ended.recv().expect("the thread sends");
        assert!(context_switches() - before >= 20.0);
        drop(begin);
        sleeper.join().expect("the thread ends");
    }
}
