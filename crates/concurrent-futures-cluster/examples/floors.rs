//! Measures an executor on many machines beside the server's own floors, in one run on one machine.
//!
//! `cargo run --release -p concurrent-futures-cluster --example floors`, with `nats-server` in `PATH` or in
//! `CONCURRENT_FUTURES_NATS_SERVER`. Prints microseconds, the best of several rounds.

#![allow(clippy::print_stdout, reason = "prints its results")]

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{RetentionPolicy, StorageType};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use concurrent_futures_cluster::ClusterExecutor;
use futures_util::StreamExt;
use std::error::Error;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const ROUNDS: u32 = 5;
const SEQUENTIAL: u32 = 500;
const PIPELINED: u32 = 20_000;

fn main() -> Outcome<()> {
    concurrent_futures_cluster::init();
    let start = Instant::now();
    let cluster = ClusterExecutor::builder()
        .url("embedded")
        .workers(2)
        .build()?;
    cluster.submit(u64::count_ones, 7)?.result()?;
    show(
        "start of the embedded mode to the first result",
        start.elapsed(),
        1,
    );
    let (url, token) = cluster.embedded_server().ok_or("no embedded server")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(floors(&url, &token))?;
    tasks(&cluster)
}

fn show(what: &str, took: Duration, count: u32) {
    let micros = took.as_secs_f64() * 1e6 / f64::from(count);
    println!("{what:<60} {micros:>10.1} us");
}

async fn connect(url: &str, token: &str) -> Outcome<Client> {
    Ok(ConnectOptions::with_token(token.to_owned())
        .connect(url)
        .await?)
}

/// Measures the server without this crate. Asker and answerer have a connection each.
async fn floors(url: &str, token: &str) -> Outcome<()> {
    let (asker, answerer) = (connect(url, token).await?, connect(url, token).await?);
    let mut questions = answerer.subscribe("floor.ask").await?;
    // The server reads a connection in order: when it has refused this, it knows of the subscription.
    let _ = answerer.request("floor.nowhere", "".into()).await;
    let answering = answerer.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let Some(reply) = question.reply {
                let _ = answering.publish(reply, question.payload).await;
            }
        }
    });
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..SEQUENTIAL {
            asker.request("floor.ask", "question".into()).await?;
        }
        best = best.min(start.elapsed());
    }
    show("floor: request and reply", best, SEQUENTIAL);

    let context = jetstream::new(asker.clone());
    let made = context.create_stream(stream::Config {
        name: "floor".into(),
        subjects: vec!["floor.task".into()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::Memory,
        ..stream::Config::default()
    });
    let stream = made.await?;
    best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..SEQUENTIAL {
            context.publish("floor.task", "task".into()).await?.await?;
        }
        best = best.min(start.elapsed());
    }
    show("floor: publish with acknowledgement", best, SEQUENTIAL);
    best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut acks = Vec::new();
        for _ in 0..PIPELINED / 10 {
            acks.push(context.publish("floor.task", "task".into()).await?);
        }
        for ack in acks {
            ack.await?;
        }
        best = best.min(start.elapsed());
    }
    show(
        "floor: publish with acknowledgement, pipelined",
        best,
        PIPELINED / 10,
    );
    stream.purge().await?;

    // A task without anything around it: published, pulled, answered, acknowledged.
    let theirs = jetstream::new(answerer.clone());
    let consumer: pull::Config = pull::Config {
        durable_name: Some("floor".into()),
        ..pull::Config::default()
    };
    let consumer = theirs
        .get_stream("floor")
        .await?
        .create_consumer(consumer)
        .await?;
    let mut pulled = consumer.messages().await?;
    let answering = answerer.clone();
    tokio::spawn(async move {
        while let Some(Ok(task)) = pulled.next().await {
            let _ = answering
                .request("floor.outcome", task.payload.clone())
                .await;
            let _ = task.ack().await;
        }
    });
    let mut outcomes = asker.subscribe("floor.outcome").await?;
    let _ = asker.request("floor.nowhere", "".into()).await;
    best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..SEQUENTIAL {
            context.publish("floor.task", "task".into()).await?.await?;
            let outcome = outcomes.next().await.ok_or("no outcome")?;
            let reply = outcome.reply.ok_or("no request")?;
            asker.publish(reply, "".into()).await?;
        }
        best = best.min(start.elapsed());
    }
    show("floor: round trip of a bare task", best, SEQUENTIAL);
    context.delete_stream("floor").await?;
    Ok(())
}

/// Measures tasks.
fn tasks(cluster: &ClusterExecutor) -> Outcome<()> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for n in 0..SEQUENTIAL {
            cluster.submit(u32::count_ones, n)?.result()?;
        }
        best = best.min(start.elapsed());
    }
    show(
        "round trip: submit and result, one after the other",
        best,
        SEQUENTIAL,
    );
    best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let futures: Vec<_> = (0..PIPELINED)
            .map(|n| cluster.submit(u32::count_ones, n))
            .collect::<Result<_, _>>()?;
        for future in futures {
            future.result()?;
        }
        best = best.min(start.elapsed());
    }
    show("submit and result, many at once", best, PIPELINED);
    best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for bits in cluster.map(u32::count_ones, 0..100_000)? {
            bits?;
        }
        best = best.min(start.elapsed());
    }
    show("map of tiny items", best, 100_000);
    let bytes = vec![7_u8; 8_000_000];
    best = Duration::MAX;
    for _ in 0..ROUNDS {
        let bytes = bytes.clone();
        let start = Instant::now();
        cluster.submit(|bytes: Vec<u8>| bytes, bytes)?.result()?;
        best = best.min(start.elapsed());
    }
    let rate = 2.0 * 8.0 / best.as_secs_f64();
    println!("{:<60} {rate:>10.1} MB/s", "8 MB there and back");
    Ok(())
}
