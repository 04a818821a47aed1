//! The ways to log in to a server, and TLS: with real servers, clients and hosts.

#![cfg(unix)]

mod common;

use common::Server;
use concurrent_futures::TaskError;
use concurrent_futures_cluster::{
    ClusterError, ClusterExecutor, ClusterExecutorBuilder, ClusterHost, ClusterObserver,
    ClusterOptions, ClusterRole, OnHostLoss, authorization, authorization_of,
};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair as Nkey;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// A server, and the seeds of a client, of a host, and of an observer.
type Roles = Option<(Server, [String; 3])>;

/// Runs the command of clusters, and returns what it prints.
fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_concurrent-futures"))
        .args(arguments)
        .envs(variables.iter().copied())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns a server with roles, by the configuration that the command prints, and the seeds of the roles.
fn server_with_roles() -> Result<Roles, Box<dyn Error>> {
    let keys = [Nkey::new_user(), Nkey::new_user(), Nkey::new_user()];
    let [client, host, observer] = keys.each_ref().map(Nkey::public_key);
    let part = command(
        &[
            "authorization",
            "default",
            &format!("client={client}"),
            &format!("host={host}"),
            &format!("observer={observer}"),
        ],
        &[],
    )?;
    let [client, host, observer] = keys.each_ref().map(Nkey::seed);
    let seeds = [client?, host?, observer?];
    Ok(Server::start_with("nats", &part).map(|server| (server, seeds)))
}

#[test]
fn each_role_may_do_what_it_needs() -> Test {
    let Some((server, [client, host, observer])) = server_with_roles()? else {
        return Ok(());
    };
    let cluster = server.executor().nkey(&client).priority(2).build()?;
    let early = cluster.submit(double, 1)?;
    assert!(early.cancel());
    let host = server.host_with(1, &[("CONCURRENT_FUTURES_NKEY", &host)]);
    let observer = ClusterObserver::builder().url(server.url()).nkey(observer);
    let observer = observer.queue("default").build()?;
    check_roles(&cluster, &host, &observer)?;
    drop(cluster);
    let shown = || -> Result<Vec<(String, u64)>, Box<dyn Error>> {
        let queues = observer.look()?.queues.into_iter();
        Ok(queues.map(|queue| (queue.name, queue.outcomes)).collect())
    };
    assert_eq!(shown()?, [(String::from("default"), 0)]);
    // A session as well, which a later client finds.
    let builder = server.executor().nkey(&client);
    let cluster = builder.clone().session("s").build()?;
    let once = ClusterOptions::new().on_host_loss(OnHostLoss::Fail);
    let bytes = |bytes: Vec<u8>| bytes;
    cluster
        .submit_with(once, bytes, vec![7_u8; 1 << 20])?
        .result()?;
    let [(default, 0), (kept, outcomes)] = &shown()?[..] else {
        panic!("{:?}", shown());
    };
    assert_eq!((&**default, &**kept), ("default", "default+kept"));
    // The outcome, and the mark of its run.
    assert!(*outcomes > 0);
    let pending = cluster.submit(bytes, vec![1])?;
    pending.cancel();
    drop(cluster);
    let cluster = builder.clone().attach("s")?;
    for future in cluster.futures::<Vec<u8>>()? {
        future.result()?;
    }
    cluster.discard()?;
    drop(cluster);
    let attached = builder.attach("s");
    assert!(matches!(attached, Err(ClusterError::UnknownSession { .. })));
    Ok(())
}

/// Checks that each role can do its work: the client and the host, which is a process, and the observer.
fn check_roles(cluster: &ClusterExecutor, host: &common::Host, observer: &ClusterObserver) -> Test {
    let details = || {
        let view = observer.look().unwrap();
        view.queues[0]
            .hosts
            .first()
            .and_then(|host| host.details.clone())
    };
    common::wait_until("the host is seen", || details().is_some());
    assert_eq!(details().map(|details| details.pid), Some(host.pid()));
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
    let Some((server, [client, host, observer])) = server_with_roles()? else {
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
        "cf.o.default+kept.session.1",
        "$JS.ACK.cf-tasks-default+kept.e-1.1.1.1.1.1",
        "$JS.API.CONSUMER.MSG.NEXT.cf-tasks-default+kept.e-1",
        "$JS.API.STREAM.DELETE.cf-records-default+kept",
        "cf.r.other+kept.session.1",
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
        "cf.t.default+kept.e.1.session.1",
        "cf.r.default+kept.session.1",
        "cf.s.default.session",
        "cf.n.default",
        "$JS.API.STREAM.CREATE.cf-tasks-default+kept",
        "$JS.API.STREAM.PURGE.cf-outcomes-default+kept",
        "$JS.API.DIRECT.GET.cf-sessions-default.cf.s.default.session",
    ];
    let said = refusals(&server, &host, &of_clients, &for_clients)?;
    assert_eq!(
        said.len(),
        of_clients.len() + for_clients.len(),
        "{said:#?}"
    );
    let of_others = [
        "cf.c.*",
        "cf.q.*",
        "cf.h.default.all",
        "cf.t.default.>",
        "cf.o.default.>",
        "cf.i.client.>",
        "cf.i.host.>",
        ">",
    ];
    let for_others = [
        "cf.t.default.e.1",
        "cf.h.default.all",
        "cf.c.session",
        "cf.o.default.session.1",
        "cf.p.default.session.hash.0",
        "$KV.cf-hosts-default.e.mine",
        "$JS.API.STREAM.CREATE.cf-tasks-default",
        "$JS.API.STREAM.DELETE.cf-tasks-default",
        "$JS.API.STREAM.PURGE.cf-payloads-default",
        "$JS.API.STREAM.MSG.DELETE.cf-tasks-default",
        "$JS.API.CONSUMER.CREATE.cf-tasks-default.mine.cf.t.default.>",
        "$JS.API.CONSUMER.MSG.NEXT.cf-tasks-default.e-1",
        "$JS.API.DIRECT.GET.cf-tasks-default.cf.t.default.e.1",
        "$JS.API.DIRECT.GET.cf-payloads-default.cf.p.default.session.hash.0",
        "$JS.API.STREAM.INFO.cf-tasks-other",
        "cf.s.default.session",
        "$JS.API.DIRECT.GET.cf-records-default+kept.cf.r.default+kept.session.1",
        "$JS.API.STREAM.PURGE.cf-records-default+kept",
    ];
    let said = refusals(&server, &observer, &of_others, &for_others)?;
    assert_eq!(said.len(), of_others.len() + for_others.len(), "{said:#?}");
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
        let refused = authorization_of("default", &[(ClusterRole::Observer, other)]);
        assert!(matches!(refused, Err(ClusterError::PublicKey(_))));
    }
}

/// Returns a signed statement about a party: a JSON web token, as servers of NATS read it.
fn statement(issuer: &Nkey, party: &str, nats: &Value) -> Result<String, Box<dyn Error>> {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({
        "jti": party, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": party, "name": party, "nats": nats,
    });
    let encoded = [header, claims].map(|one| BASE64URL_NOPAD.encode(one.to_string().as_bytes()));
    let text = encoded.join(".");
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(text.as_bytes())?);
    Ok(format!("{text}.{signature}"))
}

/// Writes the credentials of a role into a file, by the permissions that the command prints.
fn credentials(folder: &Path, account: &Nkey, role: &str) -> Result<PathBuf, Box<dyn Error>> {
    let user = Nkey::new_user();
    let printed = command(&["permissions", "default", role], &[])?;
    let mut nats: Value = serde_json::from_str(&printed)?;
    for (name, value) in [("subs", -1), ("data", -1), ("payload", -1), ("version", 2)] {
        nats[name] = value.into();
    }
    nats["type"] = "user".into();
    let statement = statement(account, &user.public_key(), &nats)?;
    let path = folder.join(format!("{role}.creds"));
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{statement}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed()?
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn each_role_may_do_what_it_needs_with_a_file_of_credentials() -> Test {
    let folder = tempfile::tempdir()?;
    let (operator, account, system) = (
        Nkey::new_operator(),
        Nkey::new_account(),
        Nkey::new_account(),
    );
    let of_operator = json!({"type": "operator", "version": 2});
    let of_account = json!({
        "type": "account", "version": 2,
        "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
        },
    });
    let of_system = json!({"type": "account", "version": 2, "limits": {
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    }});
    let settings = format!(
        "authorization {{ timeout: 20 }}\noperator: {}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{ {account}: {}, {system}: {} }}\n",
        statement(&operator, &operator.public_key(), &of_operator)?,
        statement(&operator, &account.public_key(), &of_account)?,
        statement(&operator, &system.public_key(), &of_system)?,
        account = account.public_key(),
        system = system.public_key(),
    );
    let Some(server) = Server::start_with("nats", &settings) else {
        return Ok(());
    };
    assert_refused(server.executor());
    let of = |role: &str| credentials(folder.path(), &account, role);
    let host = of("host")?;
    let host = host.to_str().ok_or("a path that is not text")?;
    let host = server.host_with(1, &[("CONCURRENT_FUTURES_CREDENTIALS", host)]);
    let cluster = server.executor().credentials(of("client")?).build()?;
    let observer = ClusterObserver::builder().url(server.url());
    let observer = observer.credentials(of("observer")?).queue("default");
    check_roles(&cluster, &host, &observer.build()?)?;
    // A client's credentials make no host: it can take no task.
    drop(host);
    let other = ClusterHost::builder()
        .url(server.url())
        .credentials(of("client")?);
    let other = other.workers(1).lease(common::LEASE).start();
    let task = cluster.submit(double, 1)?;
    std::thread::sleep(common::LEASE);
    assert!(!task.is_done());
    drop(other);
    assert!(task.cancel());
    Ok(())
}

fn fail(n: u64) -> u64 {
    panic!("{n} is refused");
}

#[test]
fn the_command_shows_hosts_and_queues() -> Test {
    let Some((server, [client, host, observer])) = server_with_roles()? else {
        return Ok(());
    };
    let key = ("CONCURRENT_FUTURES_KEY", "secret");
    let host = server.host_with(1, &[("CONCURRENT_FUTURES_NKEY", &host), key]);
    let cluster = server.executor().nkey(&client).key("secret").build()?;
    let notes = common::Notes::new();
    let running = cluster.submit(common::note_and_wait, (notes.path(), "run".into()))?;
    common::wait_until("it runs", || running.is_running());
    let waiting: Vec<_> = (0..5)
        .map(|n| cluster.submit(double, n))
        .collect::<Result<_, _>>()?;
    let failing = cluster.submit(fail, 1)?;
    let login = ("CONCURRENT_FUTURES_NKEY", &*observer);
    let url = server.url();
    let top = |options: &[&str], variables: &[(&str, &str)]| {
        let first = [
            "top",
            &url,
            "--queue",
            "default",
            "--once",
            "--interval",
            "0.1",
        ];
        command(&[&first[..], options].concat(), variables)
    };
    let json = || -> Value {
        let text = top(&["--json"], &[login, key]).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let mut view = Value::Null;
    common::wait_until("all tasks are shown", || {
        view = json();
        let queue = &view["queues"][0];
        let tasks = queue["waiting"].as_u64().unwrap() + queue["held"].as_u64().unwrap();
        tasks == 7 && queue["hosts"][0]["details"]["running"] == 1
    });
    let queue = &view["queues"][0];
    assert!(queue["published"].as_u64() >= Some(7), "{view}");
    assert!(queue["done_rate"].is_number(), "{view}");
    assert_eq!(queue["hosts"][0]["details"]["pid"], host.pid());
    assert_eq!(queue["hosts"][0]["details"]["workers"], 1);
    // The host asks for tasks of all priorities.
    let lanes = queue["lanes"].as_array().ok_or("no lanes")?;
    let tasks = |lane: &Value| lane["waiting"].as_u64().unwrap() + lane["held"].as_u64().unwrap();
    let by_priority: Vec<u64> = lanes.iter().map(tasks).collect();
    assert_eq!(by_priority, [0, 7, 0]);
    // Without the key, the host is counted only.
    let blind = top(&["--json"], &[login])?;
    let blind: Value = serde_json::from_str(&blind)?;
    assert!(
        blind["queues"][0]["hosts"][0]["details"].is_null(),
        "{blind}"
    );
    assert!(top(&[], &[login])?.contains("(another key)"));
    notes.write("go");
    running.result()?;
    for future in waiting {
        future.result()?;
    }
    assert!(failing.result().is_err());
    common::wait_until("all are done", || {
        view = json();
        let details = &view["queues"][0]["hosts"][0]["details"];
        details["ended"] == 7 && details["failed"] == 1
    });
    assert_eq!(view["queues"][0]["waiting"], 0);
    let table = top(&[], &[login, key])?;
    assert!(
        table.contains("queue default: 0 waiting, 0 with hosts"),
        "{table}"
    );
    assert!(table.contains(&host.pid().to_string()), "{table}");
    Ok(())
}

#[test]
fn the_command_finds_all_queues() {
    let Some(server) = Server::start() else {
        return;
    };
    let _hosts = [
        server.host(1),
        server.host_with(1, &[("CONCURRENT_FUTURES_QUEUE", "images")]),
    ];
    common::wait_until("both queues are shown", || {
        let text = command(&["top", &server.url(), "--once", "--interval", "0"], &[]).unwrap();
        text.contains("queue default:")
            && text.contains("queue images:")
            && text.contains("2 queues")
    });
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
