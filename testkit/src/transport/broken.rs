//! Transports with a defect, which the suite must find.

use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, Delivery, Destination, MessageId, Outgoing, ReceiveOptions, Receiver, Result, Runtime,
    SendOutcome, Settle, Settlement, Topology, Transport,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// What is wrong with a [`Broken`] transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// One in fifty sends is lost, and reported as done.
    LosesSends,
    /// One in fifty sends is done twice.
    DoublesSends,
    /// Bodies are cut after 100 KiB.
    CutsBodies,
    /// User headers do not arrive.
    LosesHeaders,
    /// The order key does not arrive.
    LosesOrderKeys,
    /// Every delivery has a new id.
    RenamesMessages,
    /// A send to nowhere is reported as done.
    HidesUnroutable,
    /// A publish reaches nobody.
    LosesEvents,
    /// Settled when it is handed out.
    SettlesEarly,
    /// Nothing is ever settled.
    NeverSettles,
    /// What is returned is settled as done.
    ReturnIsDone,
    /// The window is twice as wide.
    WideWindow,
    /// More than was asked for.
    IgnoresMax,
    /// Each batch is handed out backwards.
    Backwards,
    /// Nothing is ever suspect.
    NeverSuspect,
    /// Everything is suspect.
    AlwaysSuspect,
    /// A stop does not end `next`.
    IgnoresStop,
    /// A close settles what is in flight.
    CloseSettles,
    /// A close keeps what is in flight, as a crash would, and frees nothing.
    CloseLeaks,
    /// `next` loses what it has if it is cancelled at the wrong moment.
    CancelLoses,
    /// Everything takes a while.
    Slow,
    /// Subscriptions are only ever added.
    KeepsSubscriptions,
    /// Names are not checked.
    AnyName,
    /// What is missing is accepted.
    AcceptsAnything,
    /// Defects are not told.
    HidesDefects,
    /// Works on after it was closed.
    IgnoresClose,
}

impl Defect {
    /// All of them.
    pub const ALL: &[Defect] = &[
        Defect::LosesSends,
        Defect::DoublesSends,
        Defect::CutsBodies,
        Defect::LosesHeaders,
        Defect::LosesOrderKeys,
        Defect::RenamesMessages,
        Defect::HidesUnroutable,
        Defect::LosesEvents,
        Defect::SettlesEarly,
        Defect::NeverSettles,
        Defect::ReturnIsDone,
        Defect::WideWindow,
        Defect::IgnoresMax,
        Defect::Backwards,
        Defect::NeverSuspect,
        Defect::AlwaysSuspect,
        Defect::IgnoresStop,
        Defect::CloseSettles,
        Defect::CloseLeaks,
        Defect::CancelLoses,
        Defect::Slow,
        Defect::KeepsSubscriptions,
        Defect::AnyName,
        Defect::AcceptsAnything,
        Defect::HidesDefects,
        Defect::IgnoresClose,
    ];
}

/// A sound transport with one defect.
pub struct Broken {
    inner: Arc<dyn Transport>,
    defect: Defect,
    runtime: Runtime,
    sends: AtomicU64,
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broken").finish_non_exhaustive()
    }
}

impl Broken {
    /// Breaks a sound one.
    pub fn new(inner: Arc<dyn Transport>, defect: Defect, runtime: Runtime) -> Self {
        Self { inner, defect, runtime, sends: AtomicU64::new(0) }
    }

    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    async fn send(&self, outgoing: &Outgoing) -> SendOutcome {
        let mut outgoing = outgoing.clone();
        let headers = &mut outgoing.message.headers;
        let fiftieth = self.sends.fetch_add(1, Ordering::Relaxed) % 50 == 49;
        let topic = matches!(outgoing.to, Destination::Topic(_));
        match self.defect {
            Defect::LosesSends if fiftieth => return SendOutcome::Done,
            Defect::LosesEvents if topic => return SendOutcome::Done,
            Defect::LosesHeaders => headers.user.clear(),
            Defect::LosesOrderKeys => headers.order_key = None,
            Defect::CutsBodies => {
                let body = &mut outgoing.message.body;
                body.truncate(100 << 10);
            }
            Defect::DoublesSends if fiftieth => {
                self.inner.send_batch(std::slice::from_ref(&outgoing)).await;
            }
            _ => {}
        }
        let outcome = self.inner.send_batch(std::slice::from_ref(&outgoing)).await.remove(0);
        match outcome {
            SendOutcome::Unroutable(_) if self.is(Defect::HidesUnroutable) => SendOutcome::Done,
            outcome => outcome,
        }
    }
}

#[async_trait]
impl Transport for Broken {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn database(&self) -> Option<&DatabaseId> {
        self.inner.database()
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        let mut topology = topology.clone();
        let queue = topology.queue.as_ref();
        if self.is(Defect::AnyName) && queue.is_some_and(|q| sagabus_core::check_name("queue", q).is_err()) {
            return Ok(());
        }
        if self.is(Defect::KeepsSubscriptions) && topology.subscriptions == ["kit.two"] {
            topology.subscriptions.push("kit.one".into());
        }
        if self.is(Defect::AcceptsAnything) {
            let can = self.inner.capabilities();
            topology.ordered &= can.ordered;
            topology.temporary &= can.reply_queues;
            topology.subscriptions.retain(|_| can.topics);
        }
        self.inner.provision(&topology).await
    }

    async fn receive(&self, mut options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        if self.is(Defect::WideWindow) {
            options.window *= 2;
        }
        let runtime = self.runtime.clone();
        let inner = self.inner.receive(options).await?;
        let stopped = AtomicBool::new(false);
        Ok(Arc::new(BrokenReceiver { inner, defect: self.defect, runtime, stopped, out: Default::default() }))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if self.is(Defect::Slow) {
            self.runtime.sleep(Duration::from_millis(100)).await;
        }
        let mut outcomes = Vec::new();
        for outgoing in batch {
            outcomes.push(self.send(outgoing).await);
        }
        outcomes
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn close(&self) {
        if !self.is(Defect::IgnoresClose) {
            self.inner.close().await;
        }
    }
}

struct BrokenReceiver {
    inner: Arc<dyn Receiver>,
    defect: Defect,
    runtime: Runtime,
    stopped: AtomicBool,
    out: std::sync::Mutex<Vec<sagabus_core::Token>>,
}

impl BrokenReceiver {
    async fn settle_all(&self, deliveries: &[Delivery]) -> Result<()> {
        let done = |d: &Delivery| Settlement { token: d.token, settle: Settle::Done };
        self.inner.settle(deliveries.iter().map(done).collect()).await
    }
}

#[async_trait]
impl Receiver for BrokenReceiver {
    async fn next(&self, max: usize) -> Result<Vec<Delivery>> {
        if self.defect == Defect::Slow {
            self.runtime.sleep(Duration::from_millis(100)).await;
        }
        if self.defect == Defect::IgnoresStop && self.stopped.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let max = if self.defect == Defect::IgnoresMax { max * 2 } else { max };
        let mut deliveries = self.inner.next(max).await?;
        match self.defect {
            Defect::SettlesEarly => self.settle_all(&deliveries).await?,
            // what was taken is forgotten if nobody waits any more
            Defect::CancelLoses => self.runtime.sleep(Duration::from_millis(5)).await,
            Defect::Backwards => deliveries.reverse(),
            _ => {}
        }
        for delivery in &mut deliveries {
            self.out.lock().unwrap().push(delivery.token);
            match self.defect {
                Defect::RenamesMessages => {
                    Arc::make_mut(&mut delivery.message).headers.message_id = MessageId(self.runtime.uuid());
                }
                Defect::NeverSuspect => delivery.suspect = false,
                Defect::AlwaysSuspect => delivery.suspect = true,
                Defect::HidesDefects => delivery.defect = None,
                _ => {}
            }
        }
        Ok(deliveries)
    }

    async fn settle(&self, mut settlements: Vec<Settlement>) -> Result<()> {
        for settlement in &mut settlements {
            settlement.settle = match (self.defect, settlement.settle) {
                (Defect::ReturnIsDone, Settle::Return) => Settle::Done,
                (_, settle) => settle,
            };
        }
        if self.defect == Defect::NeverSettles {
            settlements.retain(|s| s.settle != Settle::Done);
        }
        self.inner.settle(settlements).await
    }

    async fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if self.defect != Defect::IgnoresStop {
            self.inner.stop().await;
        }
    }

    async fn close(&self) {
        match self.defect {
            Defect::CloseSettles => {
                let tokens = std::mem::take(&mut *self.out.lock().unwrap());
                let done = |token| Settlement { token, settle: Settle::Done };
                // an error would only make the defect milder
                let _ = self.inner.settle(tokens.into_iter().map(done).collect()).await;
                self.inner.close().await;
            }
            Defect::CloseLeaks => std::mem::forget(self.inner.clone()),
            _ => self.inner.close().await,
        }
    }
}
