//! The ways to log in to a server, and TLS: with real servers, clients and hosts.

#![cfg(unix)]

mod common;

use common::Server;
use concurrent_futures::TaskError;
use concurrent_futures_cluster::{
    ClusterError, ClusterExecutor, ClusterExecutorBuilder, ClusterHost, authorization,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::error::Error;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error>>;

fn double(n: u64) -> u64 {
    2 * n
}

/// Checks that an executor, and a host that is a process of its own, work together.
fn check(
    server: &Server,
    variables: &[(&str, &str)],
    built: Result<ClusterExecutor, ClusterError>,
) -> Test {
    let _host = server.host_with(1, variables);
    let cluster = built?;
    assert_eq!(cluster.submit(double, 21)?.result()?, 42);
    assert_eq!(cluster.hosts()?.len(), 1);
    Ok(())
}

fn assert_refused(builder: ClusterExecutorBuilder) {
    let built = builder.build();
    assert!(
        matches!(built, Err(ClusterError::Connect { .. })),
        "{built:?}"
    );
}

#[test]
fn a_token_opens_the_server() -> Test {
    let Some(server) = Server::start_with("nats", "authorization { token: \"secret\" }") else {
        return Ok(());
    };
    assert_refused(server.executor());
    assert_refused(server.executor().token("other"));
    let host = ClusterHost::builder().url(server.url()).token("other");
    assert!(matches!(host.start(), Err(ClusterError::Connect { .. })));
    check(
        &server,
        &[("CONCURRENT_FUTURES_TOKEN", "secret")],
        server.executor().token("secret").build(),
    )
}

#[test]
fn a_user_and_a_password_in_the_address_open_the_server() -> Test {
    let users = "authorization { users: [{ user: \"ann\", password: \"secret\" }] }";
    let Some(server) = Server::start_with("nats", users) else {
        return Ok(());
    };
    let with = |login: &str| server.url().replace("//", &format!("//{login}@"));
    assert_refused(server.executor().url(with("ann:other")));
    // The address of the host has the password as well.
    let host = ClusterHost::builder().url(with("ann:secret")).workers(1);
    let _host = host.lease(common::LEASE).start()?;
    let cluster = server.executor().url(with("ann:secret")).build()?;
    assert_eq!(cluster.submit(double, 21)?.result()?, 42);
    Ok(())
}

#[test]
fn an_nkey_opens_the_server() -> Test {
    let (ours, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let users = format!(
        "authorization {{ users: [{{ nkey: \"{}\" }}] }}",
        ours.public_key()
    );
    let Some(server) = Server::start_with("nats", &users) else {
        return Ok(());
    };
    assert_refused(server.executor().nkey(other.seed()?));
    let seed = ours.seed()?;
    check(
        &server,
        &[("CONCURRENT_FUTURES_NKEY", &seed)],
        server.executor().nkey(&seed).build(),
    )
}

/// A server, and the seeds of a client and of a host.
type Roles = Option<(Server, String, String)>;

/// Returns a server with roles, and the seeds of a client and of a host.
fn server_with_roles() -> Result<Roles, Box<dyn Error>> {
    let (client, host) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let part = authorization("default", &client.public_key(), &host.public_key())?;
    let seeds = (client.seed()?, host.seed()?);
    Ok(Server::start_with("nats", &part).map(|server| (server, seeds.0, seeds.1)))
}

#[test]
fn each_role_may_do_what_it_needs() -> Test {
    let Some((server, client, host)) = server_with_roles()? else {
        return Ok(());
    };
    let cluster = server.executor().nkey(&client).priority(2).build()?;
    let early = cluster.submit(double, 1)?;
    assert!(early.cancel());
    let _host = server.host_with(1, &[("CONCURRENT_FUTURES_NKEY", &host)]);
    assert_eq!(cluster.submit(double, 21)?.result()?, 42);
    assert_eq!(cluster.hosts()?.len(), 1);
    let long = vec![7_u8; 1 << 20];
    let back = cluster.submit(|bytes: Vec<u8>| bytes, long.clone())?;
    assert!(back.result()? == long);
    let notes = common::Notes::new();
    let running = cluster.submit(common::note_and_wait, (notes.path(), "run".into()))?;
    notes.wait_for_prefix("run");
    common::wait_until("it runs", || running.is_running());
    assert!(!running.cancel() && running.terminate());
    assert!(matches!(running.result(), Err(TaskError::Terminated)));
    Ok(())
}

/// Returns the refusals of the server to a party that asks for each subject.
fn refusals(
    server: &Server,
    seed: &str,
    listens: &[&str],
    writes: &[&str],
) -> Result<Vec<String>, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, said) = std::sync::mpsc::channel();
    runtime.block_on(async {
        let options = async_nats::ConnectOptions::with_nkey(seed.to_owned());
        let options = options.event_callback(move |event| {
            // The receiver lives longer than the connection.
            let _ = sender.send(event.to_string());
            std::future::ready(())
        });
        let party = options.connect(server.url()).await?;
        let mut kept = Vec::new();
        for subject in listens {
            kept.push(party.subscribe(String::from(*subject)).await?);
        }
        for subject in writes {
            party.publish(String::from(*subject), "".into()).await?;
        }
        party.flush().await?;
        // The server reads a connection in order, and answers in order: this is refused as well, behind all others.
        party.publish("end.of.questions", "".into()).await?;
        party.flush().await?;
        let mut refusals = Vec::new();
        loop {
            let text = loop {
                match said.try_recv() {
                    Ok(text) => break text.to_lowercase(),
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                }
            };
            if text.contains("end.of.questions") {
                return Ok(refusals);
            }
            if text.contains("permissions violation") {
                refusals.push(text);
            }
        }
    })
}

#[test]
fn no_role_may_do_what_the_other_one_does() -> Test {
    let Some((server, client, host)) = server_with_roles()? else {
        return Ok(());
    };
    let of_hosts = [
        "cf.h.default.all",
        "cf.t.default.>",
        "cf.i.host.>",
        "cf.>",
        "_inbox.>",
        ">",
    ];
    let for_hosts = [
        "$JS.API.CONSUMER.MSG.NEXT.cf-tasks-default.e-1",
        "$JS.API.CONSUMER.CREATE.cf-tasks-default.mine.cf.t.default.>",
        "$JS.API.STREAM.DELETE.cf-tasks-default",
        "$JS.ACK.cf-tasks-default.e-1.1.1.1.1.1",
        "$KV.cf-hosts-default.e.mine",
        "cf.o.default.session.1",
        "cf.c.session",
        "cf.t.other.e.1",
    ];
    let said = refusals(&server, &client, &of_hosts, &for_hosts)?;
    assert_eq!(said.len(), of_hosts.len() + for_hosts.len(), "{said:#?}");
    let of_clients = [
        "cf.c.*",
        "cf.q.*",
        "cf.i.client.>",
        "cf.t.default.>",
        "cf.o.default.>",
        ">",
    ];
    let for_clients = [
        "cf.t.default.e.1",
        "cf.h.default.all",
        "$JS.API.STREAM.MSG.DELETE.cf-tasks-default",
        "$JS.API.STREAM.PURGE.cf-tasks-default",
        "$JS.API.STREAM.PURGE.cf-outcomes-default",
    ];
    let said = refusals(&server, &host, &of_clients, &for_clients)?;
    assert_eq!(
        said.len(),
        of_clients.len() + for_clients.len(),
        "{said:#?}"
    );
    // A check of the test itself: nothing is refused that a role needs.
    let needed = refusals(&server, &host, &["cf.h.default.all"], &["cf.c.session"])?;
    assert_eq!(needed.len(), 0, "{needed:#?}");
    Ok(())
}

#[test]
fn a_configuration_is_made_of_names_and_keys_only() {
    let key = nkeys::KeyPair::new_user().public_key();
    let refused = authorization("a b", &key, &key);
    assert!(matches!(refused, Err(ClusterError::QueueName(_))));
    for other in ["", "U\" }", &nkeys::KeyPair::new_account().public_key()] {
        let refused = authorization("default", &key, other);
        assert!(matches!(refused, Err(ClusterError::PublicKey(_))));
    }
}

/// Makes an authority for certificates.
fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate()?)
}

#[test]
fn the_certificate_of_a_server_is_checked() -> Test {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, pem: String| -> Result<String, Box<dyn Error>> {
        let path = folder.path().join(name);
        std::fs::write(&path, pem)?;
        Ok(path.to_str().ok_or("a path that is not text")?.to_owned())
    };
    let (ours, other) = (authority()?, authority()?);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &ours)?;
    let settings = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        write("server.pem", certificate.pem())?,
        write("server.key", key.serialize_pem())?,
    );
    let Some(server) = Server::start_with("tls", &settings) else {
        return Ok(());
    };
    // By the system's certificates, and by another authority's.
    assert_refused(server.executor());
    let other = write("other.pem", other.pem())?;
    assert_refused(server.executor().root_certificates(other));
    let ours = write("authority.pem", ours.pem())?;
    check(
        &server,
        &[("CONCURRENT_FUTURES_ROOT_CERTIFICATES", &ours)],
        server.executor().root_certificates(&ours).build(),
    )
}

#[test]
fn a_server_without_tls_is_refused_if_the_address_asks_for_it() {
    if let Some(server) = Server::start_with("tls", "") {
        assert_refused(server.executor());
    }
}
