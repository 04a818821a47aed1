//! A network between a party and its server: a proxy that delays, stalls and cuts connections.
//!
//! TCP hides loss: bytes come late, by the time of a repetition. So *loss* is a pause of a connection here, at random.
//! A *partition* lets no byte through in either direction, while both ends believe that the connection is open.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// The time between two looks at the orders of the test.
const LOOK: Duration = Duration::from_millis(2);
/// The pause of a connection that has lost a packet.
const REPETITION: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Orders {
    ends: AtomicBool,
    is_partitioned: RwLock<bool>,
    /// The delay of each direction, in microseconds.
    delay: AtomicU64,
    /// The number of packets of a thousand that are lost.
    loss: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
    carried: AtomicU64,
}

/// A proxy on loopback.
pub(crate) struct Proxy {
    port: u16,
    orders: Arc<Orders>,
}

impl Proxy {
    /// Starts a proxy before the server at a port.
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders = Arc::<Orders>::default();
        let ours = Arc::clone(&orders);
        thread::spawn(move || accept(&listener, server, &ours));
        Self { port, orders }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Delays all packets of both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap();
        self.orders.delay.store(micros, Ordering::Relaxed);
    }

    /// Loses so many packets of a thousand.
    pub(crate) fn lose(&self, permille: u64) {
        self.orders.loss.store(permille, Ordering::Relaxed);
    }

    /// Lets no byte through until the partition is dropped. An executor ends only with its server: so the partition is
    /// declared after the executor, and ends first, also if the test fails.
    pub(crate) fn partition(&self) -> Partition<'_> {
        *self.orders.is_partitioned.write().unwrap() = true;
        Partition(&self.orders)
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        for stream in self.orders.open.lock().unwrap().drain(..) {
            // The other side may have closed it.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Returns how many bytes the proxy has carried.
    pub(crate) fn carried(&self) -> u64 {
        self.orders.carried.load(Ordering::Relaxed)
    }
}

/// A partition of the network.
pub(crate) struct Partition<'a>(&'a Orders);

impl Drop for Partition<'_> {
    fn drop(&mut self) {
        *self.0.is_partitioned.write().unwrap() = false;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders.ends.store(true, Ordering::SeqCst);
        self.cut();
    }
}

fn accept(listener: &TcpListener, server: u16, orders: &Arc<Orders>) {
    while !orders.ends.load(Ordering::SeqCst) {
        let is_partitioned = *orders.is_partitioned.read().unwrap();
        let party = match listener.accept() {
            Ok((party, _)) if !is_partitioned => party,
            // One that connects during a partition finds no server.
            Ok(_) => continue,
            Err(_) => {
                thread::sleep(LOOK);
                continue;
            }
        };
        // Without its server, the connection closes.
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
            continue;
        };
        party.set_nonblocking(false).unwrap();
        for stream in [&party, &server] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(LOOK)).unwrap();
            let mut open = orders.open.lock().unwrap();
            open.push(stream.try_clone().unwrap());
        }
        let (from, to) = (party.try_clone().unwrap(), server.try_clone().unwrap());
        let ours = Arc::clone(orders);
        thread::spawn(move || pump(from, to, &ours));
        let ours = Arc::clone(orders);
        thread::spawn(move || pump(server, party, &ours));
    }
}

/// Carries bytes in one direction, until a side closes. Bytes that come while others are delayed do not wait for those:
/// a packet has the delay of its own arrival.
fn pump(mut from: TcpStream, mut to: TcpStream, orders: &Orders) {
    let mut random = u64::from(from.local_addr().map_or(1, |address| address.port()));
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut latest = Instant::now();
    let mut buffer = vec![0; 1 << 16];
    while !orders.ends.load(Ordering::SeqCst) {
        if *orders.is_partitioned.read().unwrap() {
            thread::sleep(LOOK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let is_lost = (random >> 33) % 1000 < orders.loss.load(Ordering::Relaxed);
                let mut delay = Duration::from_micros(orders.delay.load(Ordering::Relaxed));
                if is_lost {
                    delay += REPETITION;
                }
                // In order, as in TCP.
                latest = latest.max(Instant::now() + delay);
                waiting.push_back((latest, buffer[..count].to_vec()));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        while let Some((due, bytes)) = waiting.front() {
            let left = due.saturating_duration_since(Instant::now());
            if left > LOOK {
                break;
            }
            thread::sleep(left);
            // Held meanwhile: when a partition has begun, nothing is on its way.
            let is_partitioned = orders.is_partitioned.read().unwrap();
            if *is_partitioned {
                break;
            }
            if to.write_all(bytes).is_err() {
                return;
            }
            orders
                .carried
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            waiting.pop_front();
        }
    }
    for stream in [&from, &to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
