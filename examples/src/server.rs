//! A small HTTP server on loopback, with faults to order: the programs download from it.

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The answer of the server to one request.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    latency: Duration,
    ending: Ending,
}

/// The event half way through the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The whole body is sent.
    Complete,
    /// The connection is closed.
    BreaksOff,
    /// Nothing more comes, and the connection stays open.
    Stalls,
}

impl Reply {
    /// Makes a reply of status 200 with this body.
    #[must_use]
    pub fn ok(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body: body.into(),
            latency: Duration::ZERO,
            ending: Ending::Complete,
        }
    }

    /// Makes a reply of another status, with the name of the status as its body.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self {
            status,
            ..Self::ok("text/plain", status.to_string())
        }
    }

    /// Delays the reply, so that the client has to wait for it.
    #[must_use]
    pub fn after(self, latency: Duration) -> Self {
        Self { latency, ..self }
    }

    /// Closes the connection half way through the body.
    #[must_use]
    pub fn broken_off(self) -> Self {
        Self {
            ending: Ending::BreaksOff,
            ..self
        }
    }

    /// Keeps the second half of the body back.
    #[must_use]
    pub fn stalled(self) -> Self {
        Self {
            ending: Ending::Stalls,
            ..self
        }
    }
}

/// A running server; dropping it closes its connections and ends its thread.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1. `site` is given each request's path (with
    /// its query) and must not block, for all connections share one thread.
    ///
    /// # Errors
    /// If the system gives no port or no thread.
    pub fn start(site: impl Fn(&str) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(String::from("server"))
            .spawn(move || {
                runtime.spawn(accept(listener, Arc::new(site)));
                // An error: the sender is dropped, as is then all that runs here.
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns the URL of a path, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropping the sender is the signal.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed where it happened.
            let _ = thread.join();
        }
    }
}

type Site = dyn Fn(&str) -> Reply + Send + Sync;

async fn accept(listener: TcpListener, site: Arc<Site>) {
    loop {
        // A connection that failed before it was accepted is its client's concern.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&site)));
        }
    }
}

async fn serve(stream: TcpStream, site: Arc<Site>) {
    // Without it, small replies wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let path = request.uri().path_and_query();
        let reply = site(path.map_or("/", |path| path.as_str()));
        async {
            tokio::time::sleep(reply.latency).await;
            Ok::<_, Infallible>(reply.into_response())
        }
    });
    // The errors are those that were ordered, and clients that went away.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Reply {
    fn into_response(self) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody {
            unsent: self.body,
            ending: self.ending,
            half_sent: false,
        });
        *response.status_mut() = self.status;
        let content_type = self.content_type.parse();
        if let Ok(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    }
}

struct ReplyBody {
    unsent: Bytes,
    ending: Ending,
    half_sent: bool,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.ending == Ending::Complete {
            let body = std::mem::take(&mut self.unsent);
            return Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))));
        }
        if !self.half_sent {
            self.half_sent = true;
            let half = self.unsent.len() / 2;
            return Poll::Ready(Some(Ok(Frame::data(self.unsent.split_to(half)))));
        }
        if self.ending == Ending::BreaksOff && self.unsent.is_empty() {
            return Poll::Ready(Some(Err(io::Error::other("broken off as ordered"))));
        }
        if self.ending == Ending::BreaksOff {
            // Break off when asked again: until then, hyper sends the first half.
            self.unsent.clear();
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Returns the whole length, which hyper announces also where half is sent.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unsent.len() as u64)
    }
}
