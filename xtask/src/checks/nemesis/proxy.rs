//! A proxy that understands AMQP frames: it swallows confirms on their way to the clients, or acks on their way to the
//! broker, and breaks connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::frames;

/// See the module. It ends with the process.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    confirms: AtomicBool,
    acks: AtomicBool,
    swallowed: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// In front of `host:port`.
    pub fn start(target: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for the proxy")?;
        let port = listener.local_addr().context("the proxy's port")?.port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // a broker that is down: the client sees its connection end
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let _ = serve(&shared, client, server);
            }
        });
        Ok(Self { port, state })
    }

    /// Confirms do not arrive any more, or do again.
    pub fn swallow_confirms(&self, on: bool) {
        self.state.confirms.store(on, Ordering::SeqCst);
    }

    /// Acks do not arrive any more, or do again.
    pub fn swallow_acks(&self, on: bool) {
        self.state.acks.store(on, Ordering::SeqCst);
    }

    /// How many frames were swallowed.
    pub fn swallowed(&self) -> u64 {
        self.state.swallowed.load(Ordering::SeqCst)
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        for stream in self.state.streams().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to keep it from arriving: an ack and a confirm are the same frame in different directions.
    fn swallows(&self, frame: &[u8], wanted: &AtomicBool) -> bool {
        let swallowed = wanted.load(Ordering::SeqCst) && matches!(frames::method(frame), Some((60, 80 | 120)));
        if swallowed {
            self.swallowed.fetch_add(1, Ordering::SeqCst);
        }
        swallowed
    }
}

fn serve(state: &Arc<State>, client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    state.streams().extend([client.try_clone()?, server.try_clone()?]);
    let (up, down) = (Arc::clone(state), Arc::clone(state));
    let (from_client, to_client) = (client.try_clone()?, client);
    let (from_server, to_server) = (server.try_clone()?, server);
    thread::spawn(move || {
        let mut head = [0; 8];
        let mut to_server = to_server;
        let mut from_client = from_client;
        let begun = from_client.read_exact(&mut head).and_then(|()| to_server.write_all(&head));
        if begun.is_ok() {
            pass(from_client, to_server, |frame| up.swallows(frame, &up.acks));
        }
    });
    thread::spawn(move || pass(from_server, to_client, |frame| down.swallows(frame, &down.confirms)));
    Ok(())
}

/// Frame after frame, until one side ends.
fn pass(from: TcpStream, mut to: TcpStream, swallow: impl Fn(&[u8]) -> bool) {
    let mut input = std::io::BufReader::with_capacity(64 << 10, from);
    while let Ok(frame) = frames::read(&mut input) {
        if !swallow(&frame) && to.write_all(&frame).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = input.get_ref().shutdown(Shutdown::Both);
}
