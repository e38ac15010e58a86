//! A proxy before a broker that says it is on 127.0.0.1: in the broker's answers it puts its own port in place of the
//! broker's, so that a client never learns where the broker really is. It can cut, and freeze.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::Notify,
};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    target: (String, u16),
    port: u16,
    cut: AtomicBool,
    frozen: AtomicBool,
    kill: Notify,
}

impl Proxy {
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (host, broker) = target.rsplit_once(':').unwrap();
        let state = Arc::new(State {
            target: (host.to_string(), broker.parse().unwrap()),
            port,
            cut: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            kill: Notify::new(),
        });
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if !state.cut.load(Ordering::SeqCst) {
                        tokio::spawn(serve(Arc::clone(&state), client));
                    }
                }
            }
        });
        Self { port, state, task }
    }

    /// Breaks every connection; new ones are refused until [`mend`](Self::mend).
    pub(crate) fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        self.kill();
    }

    pub(crate) fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Breaks every connection; new ones are welcome.
    pub(crate) fn kill(&self) {
        self.state.kill.notify_waiters();
    }

    /// Passes no answer on, and closes nothing.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.kill();
    }
}

async fn serve(state: Arc<State>, client: TcpStream) {
    let killed = state.kill.notified();
    tokio::pin!(killed);
    killed.as_mut().enable();
    let Ok(broker) = TcpStream::connect((state.target.0.as_str(), state.target.1)).await else { return };
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        () = killed => {}
        _ = requests(from_client, to_broker) => {}
        _ = answers(&state, from_broker, to_client) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await.map(drop)
}

async fn answers(state: &State, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let host = b"127.0.0.1";
    let (theirs, ours) = (u32::from(state.target.1).to_be_bytes(), u32::from(state.port).to_be_bytes());
    loop {
        let size = from.read_u32().await?;
        let mut frame = vec![0; size as usize];
        from.read_exact(&mut frame).await?;
        // wherever a host is followed by a port, in whatever version of whatever answer
        for at in 0..frame.len().saturating_sub(host.len() + 3) {
            let port = at + host.len();
            if frame[at..].starts_with(host) && frame[port..].starts_with(&theirs) {
                frame[port..port + 4].copy_from_slice(&ours);
            }
        }
        while state.frozen.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        to.write_u32(size).await?;
        to.write_all(&frame).await?;
    }
}
