//! A connection that is made again when it broke.

use super::{error::failed, frame_filter, options::RabbitMqOptions};
use crate::lock;
use futures::StreamExt;
use lapin::{Connection, ConnectionProperties, Event, tcp::OwnedTLSConfig, uri::AMQPUri};
use sagabus_core::{Error, ErrorKind, Result, Task};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// One of the two connections of a process: for publishing, or for everything else. The broker stops reading from a
/// connection that publishes when it is short of memory or disk; were it the same one, that would stop the acks as well.
///
/// lapin's own recovery is not used: it knows nothing of channels that the broker closed, and one way to recover is enough.
pub(super) struct ConnectionManager {
    role: &'static str,
    hosts: Vec<AMQPUri>,
    options: RabbitMqOptions,
    state: tokio::sync::Mutex<ConnectionState>,
    closed: AtomicBool,
    trouble: Mutex<Option<Error>>,
}

#[derive(Default)]
struct ConnectionState {
    live: Option<Arc<LiveConnection>>,
    failures: u32,
    not_before: Duration,
}

/// A connection that was made.
pub(super) struct LiveConnection {
    pub(super) connection: Connection,
    blocked: Arc<Mutex<Option<String>>>,
    listener: Task<()>,
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl LiveConnection {
    /// Why the broker takes nothing from this connection, if so.
    pub(super) fn blocked(&self) -> Option<String> {
        lock(&self.blocked).clone()
    }

    pub(super) fn usable(&self) -> bool {
        self.connection.status().connected()
    }
}

const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(50);
const FIRST_RECONNECT_DELAY: Duration = Duration::from_millis(100);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(30);

impl ConnectionManager {
    pub(super) fn new(role: &'static str, hosts: Vec<AMQPUri>, options: RabbitMqOptions) -> Self {
        Self {
            role,
            hosts,
            options,
            state: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// The connection, made now if there is none. After failures there is a pause before the next attempt, with jitter
    /// and growing; who is patient waits for it, everyone else is told at once.
    pub(super) async fn get(&self, patient: bool) -> Result<Arc<LiveConnection>> {
        let runtime = &self.options.runtime;
        let mut state = loop {
            let mut state = self.state.lock().await;
            if self.closed.load(Ordering::Acquire) {
                return Err(Error::closed("the transport is closed"));
            }
            if let Some(live) = state.live.as_ref().filter(|live| live.usable()) {
                return Ok(Arc::clone(live));
            }
            state.live = None;
            let pause = state.not_before.saturating_sub(runtime.elapsed());
            if pause.is_zero() {
                break state;
            }
            // others want to be told, or to close it, meanwhile
            drop(state);
            if !patient {
                let none = || Error::new(ErrorKind::Transient, "not connected to rabbitmq");
                return Err(self.trouble().unwrap_or_else(none));
            }
            runtime.sleep(pause.min(Duration::from_millis(500))).await;
        };
        match self.connect().await {
            Ok(live) => {
                let live = Arc::new(live);
                state.live = Some(Arc::clone(&live));
                state.failures = 0;
                *lock(&self.trouble) = None;
                Ok(live)
            }
            Err(error) => {
                let most =
                    (FIRST_RECONNECT_DELAY * 2u32.saturating_pow(state.failures.min(12))).min(MAX_RECONNECT_DELAY);
                state.failures += 1;
                state.not_before = runtime.elapsed() + MIN_RECONNECT_DELAY + runtime.jitter(most);
                *lock(&self.trouble) = Some(error.clone());
                Err(error)
            }
        }
    }

    /// A connection for one use, made now. It ends when it is dropped.
    pub(super) async fn open_single_use(&self) -> Result<LiveConnection> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the transport is closed"));
        }
        self.connect().await
    }

    /// Why there is no connection, if that is so.
    pub(super) fn trouble(&self) -> Option<Error> {
        lock(&self.trouble).clone()
    }

    /// Each host once, beginning anywhere.
    async fn connect(&self) -> Result<LiveConnection> {
        let runtime = &self.options.runtime;
        let start = usize::try_from(runtime.random() % 1024).unwrap_or(0);
        let mut last = Error::new(ErrorKind::Transient, "the rabbitmq URL names no host");
        for number in 0..self.hosts.len() {
            let Some(uri) = self.hosts.get((start + number) % self.hosts.len()) else { continue };
            let action = format!("connect to rabbitmq at {}:{}", uri.authority.host, uri.authority.port);
            match runtime.timeout(self.options.connect_timeout, self.open(uri)).await {
                Some(Ok(connection)) => return Ok(self.adopt(connection)),
                Some(Err(error)) => last = failed(action, error),
                None => last = Error::new(ErrorKind::Transient, format!("{action}: no answer in time")),
            }
        }
        Err(last)
    }

    async fn open(&self, uri: &AMQPUri) -> lapin::Result<Connection> {
        let name = format!("sagabus {} {}", self.role, std::process::id());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = OwnedTLSConfig {
            identity: self.options.identity_pem.clone().map(|(pem, key)| lapin::tcp::OwnedIdentity::PKCS8 { pem, key }),
            cert_chain: self.options.ca_pem.clone(),
        };
        frame_filter::connect(uri.clone(), properties, tls).await
    }

    fn adopt(&self, connection: Connection) -> LiveConnection {
        let blocked = Arc::new(Mutex::new(None));
        let mut events = Box::pin(connection.events_listener());
        let listener = {
            let (blocked, role) = (Arc::clone(&blocked), self.role);
            self.options.runtime.spawn(async move {
                while let Some(event) = events.next().await {
                    match event {
                        Event::ConnectionBlocked(reason) => {
                            tracing::warn!(role, reason, "rabbitmq takes no messages for now");
                            *lock(&blocked) = Some(reason);
                        }
                        Event::ConnectionUnblocked => *lock(&blocked) = None,
                        Event::Error(error) => tracing::warn!(role, %error, "the connection to rabbitmq broke"),
                        _ => {}
                    }
                }
            })
        };
        LiveConnection { connection, blocked, listener }
    }

    /// Lets go of it for good.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let live = self.state.lock().await.live.take();
        if let Some(live) = live.filter(|live| live.usable()) {
            let bye = live.connection.close(200, "goodbye".into());
            // a broker that does not answer loses the connection when it is dropped
            let _ = self.options.runtime.timeout(Duration::from_secs(5), bye).await;
        }
    }
}
