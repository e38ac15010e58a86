//! A proxy that understands AMQP frames: it counts what is delivered and not settled, by what passes through it and not
//! by what our client believes; it can cut, freeze, swallow and inject.
#![allow(dead_code, reason = "each test program uses what it needs")]

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{Notify, mpsc},
};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    target: String,
    cut: AtomicBool,
    frozen: AtomicBool,
    /// Confirms of the broker that do not arrive.
    swallow_confirms: AtomicBool,
    accepted: AtomicUsize,
    connections: Mutex<Vec<Arc<Connection>>>,
}

struct Connection {
    ledger: Mutex<BTreeMap<u16, Channel>>,
    kill: Notify,
    to_client: mpsc::UnboundedSender<Vec<u8>>,
}

#[derive(Default)]
struct Channel {
    consumers: HashMap<Vec<u8>, String>,
    unacked: BTreeMap<u64, String>,
}

impl Proxy {
    pub(crate) async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { target, ..State::default() });
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

    /// Messages of this queue, and of its partitions, that are out through this proxy.
    pub(crate) fn unacked(&self, of: impl Fn(&str) -> bool) -> u64 {
        let connections = self.state.connections.lock().unwrap();
        let count = |c: &Arc<Connection>| {
            let ledger = c.ledger.lock().unwrap();
            ledger.values().flat_map(|channel| channel.unacked.values()).filter(|queue| of(queue)).count() as u64
        };
        connections.iter().map(count).sum()
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
        for connection in self.state.connections.lock().unwrap().iter() {
            connection.kill.notify_waiters();
            connection.kill.notify_one();
        }
    }

    /// Passes nothing on in either direction, and closes nothing: a peer that vanished.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::SeqCst);
    }

    pub(crate) fn swallow_confirms(&self, swallow: bool) {
        self.state.swallow_confirms.store(swallow, Ordering::SeqCst);
    }

    /// Tells the client on its latest connection that the broker takes no messages for now, or takes them again.
    pub(crate) fn block(&self, blocked: bool) {
        let mut payload = vec![0, 10, 0, if blocked { 60 } else { 61 }];
        if blocked {
            payload.extend([3, b'l', b'o', b'w']);
        }
        let mut frame = vec![1, 0, 0];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(0xce);
        let connections = self.state.connections.lock().unwrap();
        connections.last().unwrap().to_client.send(frame).unwrap();
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(state: Arc<State>, client: TcpStream) {
    let Ok(server) = TcpStream::connect(&state.target).await else { return };
    state.accepted.fetch_add(1, Ordering::SeqCst);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, mut client_out) = client.into_split();
    let (server_in, mut server_out) = server.into_split();
    let (to_client, mut client_frames) = mpsc::unbounded_channel::<Vec<u8>>();
    let connection =
        Arc::new(Connection { ledger: Mutex::default(), kill: Notify::new(), to_client: to_client.clone() });
    state.connections.lock().unwrap().push(Arc::clone(&connection));
    let upward = async {
        let mut input = Input(client_in);
        let mut head = [0; 8];
        input.0.read_exact(&mut head).await?;
        server_out.write_all(&head).await?;
        loop {
            let frame = input.frame().await?;
            while state.frozen.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sent(&connection, &frame);
            server_out.write_all(&frame).await?;
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    };
    let downward = async {
        let mut input = Input(server_in);
        loop {
            let frame = input.frame().await?;
            while state.frozen.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let confirm = matches!(method(&frame), Some((60, 80 | 120)));
            if confirm && state.swallow_confirms.load(Ordering::SeqCst) {
                continue;
            }
            received(&connection, &frame);
            let _ = to_client.send(frame);
        }
        #[allow(unreachable_code)]
        io::Result::Ok(())
    };
    let writing = async {
        while let Some(frame) = client_frames.recv().await {
            client_out.write_all(&frame).await?;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        _ = upward => {}
        _ = downward => {}
        _ = writing => {}
        () = connection.kill.notified() => {}
    }
    state.connections.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &connection));
}

struct Input(OwnedReadHalf);

impl Input {
    async fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; 7];
        self.0.read_exact(&mut frame).await?;
        let size = u32::from_be_bytes(frame[3..7].try_into().unwrap()) as usize;
        frame.resize(7 + size + 1, 0);
        self.0.read_exact(&mut frame[7..]).await?;
        Ok(frame)
    }
}

fn method(frame: &[u8]) -> Option<(u16, u16)> {
    (frame[0] == 1).then(|| {
        (u16::from_be_bytes(frame[7..9].try_into().unwrap()), u16::from_be_bytes(frame[9..11].try_into().unwrap()))
    })
}

fn short(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = usize::from(bytes[0]);
    (&bytes[1..=len], &bytes[1 + len..])
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

fn sent(connection: &Connection, frame: &[u8]) {
    let channel = u16::from_be_bytes(frame[1..3].try_into().unwrap());
    let mut ledger = connection.ledger.lock().unwrap();
    let args = &frame[11.min(frame.len())..];
    match method(frame) {
        Some((60, 20)) => {
            let (queue, rest) = short(&args[2..]);
            let (tag, _) = short(rest);
            let queue = String::from_utf8_lossy(queue).into_owned();
            ledger.entry(channel).or_default().consumers.insert(tag.to_vec(), queue);
        }
        Some((60, method @ (80 | 90 | 120))) => {
            let (tag, multiple) = (number(args), method != 90 && args[8] & 1 == 1);
            let unacked = &mut ledger.entry(channel).or_default().unacked;
            if multiple {
                *unacked = unacked.split_off(&(tag + 1));
            } else {
                unacked.remove(&tag);
            }
        }
        Some((20, 40 | 41)) => {
            ledger.remove(&channel);
        }
        _ => {}
    }
}

fn received(connection: &Connection, frame: &[u8]) {
    let channel = u16::from_be_bytes(frame[1..3].try_into().unwrap());
    let mut ledger = connection.ledger.lock().unwrap();
    match method(frame) {
        Some((60, 60)) => {
            let (tag, rest) = short(&frame[11..]);
            let channel = ledger.entry(channel).or_default();
            if let Some(queue) = channel.consumers.get(tag).cloned() {
                channel.unacked.insert(number(rest), queue);
            }
        }
        Some((20, 40)) => {
            ledger.remove(&channel);
        }
        _ => {}
    }
}
