//! Processes whose clocks are wrong: a library that is loaded before that of the system shifts the time of day.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The variable with the seconds by which the clock of a process is ahead.
pub(crate) const AHEAD: &str = "CLUSTER_TEST_CLOCK_AHEAD";

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void)
{
    const char *text = getenv("CLUSTER_TEST_CLOCK_AHEAD");
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *time)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (time)
        *time = now.tv_sec;
    return now.tv_sec;
}
"#;

/// Makes the library. None, with the reason in print, if there is no C compiler.
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
pub(crate) fn library(folder: &Path) -> io::Result<Option<PathBuf>> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SOURCE)?;
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source]);
    match command.status() {
        Ok(status) if status.success() => Ok(Some(library)),
        failed => {
            eprintln!("skipped: there is no C compiler that makes a library: {failed:?}");
            Ok(None)
        }
    }
}
