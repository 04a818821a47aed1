//! The ways to log in to a server, and TLS: with real servers, clients and hosts.

#![cfg(unix)]

mod common;

use common::Server;
use concurrent_futures_cluster::{
    ClusterError, ClusterExecutor, ClusterExecutorBuilder, ClusterHost,
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
