//! A TCP proxy between a client and a server that passes frames on, or does not: it breaks connections, freezes them, and
//! lets a [`Filter`] change, swallow and count what passes.
//!
//! It runs on the tokio runtime that it is started on, in real time.

#![allow(clippy::disallowed_methods, reason = "a proxy stands outside of the product, in real time")]

pub mod amqp;
pub mod kafka;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{Notify, mpsc},
};

/// A protocol's frames, and what is done with them.
pub trait Filter: Send + Sync + 'static {
    /// The bytes that a client sends before its first frame.
    const PREAMBLE: usize;
    /// The length of the part of a frame that says how long the frame is.
    const HEAD: usize;
    /// State of one connection.
    type Connection: Default + Send + Sync;

    /// How many bytes follow this head.
    fn rest(head: &[u8]) -> usize;

    /// A frame from the client; none if the server is not to see it.
    fn upward(&self, _: &Self::Connection, frame: Vec<u8>) -> Option<Vec<u8>> {
        Some(frame)
    }

    /// A frame from the server; none if the client is not to see it.
    fn downward(&self, _: &Self::Connection, frame: Vec<u8>) -> Option<Vec<u8>> {
        Some(frame)
    }
}

/// A proxy on a port of 127.0.0.1. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy<F: Filter> {
    /// The port that it listens on.
    pub port: u16,
    state: Arc<State<F>>,
    task: tokio::task::JoinHandle<()>,
}

struct State<F: Filter> {
    target: String,
    filter: F,
    refuses: AtomicBool,
    upward_frozen: AtomicBool,
    downward_frozen: AtomicBool,
    accepted: AtomicUsize,
    links: Mutex<Vec<Arc<Link<F::Connection>>>>,
}

impl<F: Filter> std::fmt::Debug for State<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("target", &self.target).finish_non_exhaustive()
    }
}

/// An open connection.
struct Link<C> {
    connection: C,
    kill: Notify,
    to_client: mpsc::UnboundedSender<Vec<u8>>,
}

impl<F: Filter> Proxy<F> {
    /// Starts a proxy before `host:port`; `make` builds the filter for the port that it listens on.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(target: impl Into<String>, make: impl FnOnce(u16) -> F) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            target: target.into(),
            filter: make(port),
            refuses: AtomicBool::new(false),
            upward_frozen: AtomicBool::new(false),
            downward_frozen: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            links: Mutex::default(),
        });
        let accepting = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !accepting.refuses.load(Ordering::SeqCst) {
                    tokio::spawn(serve(Arc::clone(&accepting), client));
                }
            }
        });
        Ok(Self { port, state, task })
    }

    /// The filter.
    pub fn filter(&self) -> &F {
        &self.state.filter
    }

    /// Breaks every connection; new ones are refused until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.state.refuses.store(true, Ordering::SeqCst);
        self.kill();
    }

    /// Accepts connections again.
    pub fn mend(&self) {
        self.state.refuses.store(false, Ordering::SeqCst);
    }

    /// Breaks every connection; new ones are welcome.
    pub fn kill(&self) {
        self.state.links().iter().for_each(|link| link.kill.notify_one());
    }

    /// Passes nothing on in either direction, and closes nothing: a peer that vanished.
    pub fn freeze(&self, frozen: bool) {
        self.state.upward_frozen.store(frozen, Ordering::SeqCst);
        self.freeze_answers(frozen);
    }

    /// Passes nothing on to clients, and closes nothing.
    pub fn freeze_answers(&self, frozen: bool) {
        self.state.downward_frozen.store(frozen, Ordering::SeqCst);
    }

    /// How many connections there have been.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Sends a frame to the client of the latest connection; false if there is none.
    pub fn inject(&self, frame: Vec<u8>) -> bool {
        self.state.links().last().is_some_and(|link| link.to_client.send(frame).is_ok())
    }

    /// The sum of a number of each open connection.
    pub fn sum(&self, number: impl Fn(&F::Connection) -> u64) -> u64 {
        self.state.links().iter().map(|link| number(&link.connection)).sum()
    }
}

impl<F: Filter> Drop for Proxy<F> {
    fn drop(&mut self) {
        self.task.abort();
        self.kill();
    }
}

impl<F: Filter> State<F> {
    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link<F::Connection>>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve<F: Filter>(state: Arc<State<F>>, client: TcpStream) {
    // a server that is down: the client sees its connection end
    let Ok(server) = TcpStream::connect(&state.target).await else { return };
    state.accepted.fetch_add(1, Ordering::SeqCst);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut client_out) = client.into_split();
    let (mut from_server, mut server_out) = server.into_split();
    let (to_client, mut client_frames) = mpsc::unbounded_channel::<Vec<u8>>();
    let link = Arc::new(Link { connection: F::Connection::default(), kill: Notify::new(), to_client });
    state.links().push(Arc::clone(&link));
    let upward = async {
        let mut preamble = vec![0; F::PREAMBLE];
        from_client.read_exact(&mut preamble).await?;
        server_out.write_all(&preamble).await?;
        loop {
            let frame = read::<F>(&mut from_client).await?;
            thawed(&state.upward_frozen).await;
            if let Some(frame) = state.filter.upward(&link.connection, frame) {
                server_out.write_all(&frame).await?;
            }
        }
        #[allow(unreachable_code, reason = "it says the type of the error")]
        io::Result::Ok(())
    };
    let downward = async {
        while let Ok(frame) = read::<F>(&mut from_server).await {
            thawed(&state.downward_frozen).await;
            if let Some(frame) = state.filter.downward(&link.connection, frame) {
                let _ = link.to_client.send(frame);
            }
        }
    };
    let writing = async {
        while let Some(frame) = client_frames.recv().await {
            if client_out.write_all(&frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = upward => {}
        () = downward => {}
        () = writing => {}
        () = link.kill.notified() => {}
    }
    state.links().retain(|other| !Arc::ptr_eq(other, &link));
}

async fn thawed(frozen: &AtomicBool) {
    while frozen.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn read<F: Filter>(input: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; F::HEAD];
    input.read_exact(&mut frame).await?;
    frame.resize(F::HEAD + F::rest(&frame), 0);
    input.read_exact(&mut frame[F::HEAD..]).await?;
    Ok(frame)
}
