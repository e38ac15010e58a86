//! The task that reads ahead.

use super::{read_ahead::NextRead, shared::ReceiverState};
use crate::lock;
use futures::{FutureExt as _, future::BoxFuture};
use sagabus_core::{Error, LeaseView, QueueRow};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Most rows of one read.
const MAX_ROWS_PER_READ: usize = 500;

/// About so many bytes are read at once, judged by the rows read before.
const MAX_BYTES_PER_READ: usize = 8 << 20;

/// How often rows behind the cursor are looked for while there is always something ahead of it.
const RESCAN_INTERVAL: Duration = Duration::from_secs(1);

/// The share of the time that looking behind the cursor may take: one part in this many.
const RESCAN_SHARE: u32 = 20;

pub(super) struct Prefetcher {
    shared: Arc<ReceiverState>,
    view: watch::Receiver<Arc<LeaseView>>,
    /// Fires when something may have been added. Armed before a read, so that nothing added after the read is missed.
    hint: Option<BoxFuture<'static, ()>>,
    limit: usize,
    failures: u32,
    last_rescan: Duration,
    rescan_cost: Duration,
}

enum Step {
    Read(NextRead),
    Wait,
    Closed,
}

impl Prefetcher {
    pub(super) fn new(shared: Arc<ReceiverState>) -> Self {
        let view = shared.keeper.watch();
        Self {
            last_rescan: shared.options.runtime.elapsed(),
            shared,
            view,
            hint: None,
            limit: MAX_ROWS_PER_READ,
            failures: 0,
            rescan_cost: Duration::ZERO,
        }
    }

    /// Runs until the receiver is closed.
    pub(super) async fn run(mut self) {
        loop {
            self.shared.follow(&self.view.borrow_and_update().clone());
            match self.step() {
                Step::Closed => return,
                Step::Read(plan) => self.read(plan).await,
                Step::Wait => self.wait().await,
            }
        }
    }

    fn step(&mut self) -> Step {
        let now = self.shared.options.runtime.elapsed();
        let mut read_ahead = lock(&self.shared.read_ahead);
        if self.shared.is_closed() {
            return Step::Closed;
        }
        let pause = RESCAN_INTERVAL.max(self.rescan_cost * RESCAN_SHARE);
        if !read_ahead.at_start() && now.saturating_sub(self.last_rescan) >= pause {
            read_ahead.rescan();
        }
        if read_ahead.at_start() {
            self.last_rescan = now;
            self.rescan_cost = Duration::ZERO;
        }
        match read_ahead.plan() {
            Some(plan) => Step::Read(plan),
            None => Step::Wait,
        }
    }

    async fn read(&mut self, plan: NextRead) {
        self.arm();
        let ReceiverState { queues, options, .. } = &*self.shared;
        let limit = self.limit + plan.extra;
        let start = options.runtime.elapsed();
        let result = queues.read(&options.queue, &plan.shards, plan.after, limit).await;
        let now = options.runtime.elapsed();
        match result {
            Ok(rows) => {
                self.failures = 0;
                self.shared.recovered();
                self.limit = page_size(&rows, self.limit);
                let end = rows.len() < limit;
                let new = lock(&self.shared.read_ahead).take_in(&plan, rows, end);
                if new {
                    self.shared.arrived.notify_waiters();
                } else {
                    // nothing but rows that were known: that is what looking behind the cursor costs
                    self.rescan_cost += now.saturating_sub(start);
                }
            }
            Err(error) => {
                lock(&self.shared.read_ahead).give_up();
                self.fail(error).await;
            }
        }
    }

    async fn fail(&mut self, error: Error) {
        tracing::warn!(queue = %self.shared.options.queue, %error, "reading ahead failed");
        self.shared.report(error);
        self.failures = (self.failures + 1).min(6);
        let runtime = &self.shared.options.runtime;
        let pause = Duration::from_millis(20 << self.failures);
        let pause = pause + runtime.jitter(pause / 4);
        tokio::select! {
            biased;
            () = runtime.sleep(pause) => {}
            _ = self.view.changed() => {}
            () = self.shared.closing.notified() => {}
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) {
        self.arm();
        let runtime = self.shared.options.runtime.clone();
        let at_end = lock(&self.shared.read_ahead).at_end();
        let hint = async {
            match &mut self.hint {
                Some(hint) if at_end => hint.await,
                _ => std::future::pending().await,
            }
        };
        let hinted = tokio::select! {
            biased;
            () = hint => true,
            () = self.shared.demand.notified() => false,
            changed = self.view.changed() => {
                if changed.is_err() {
                    // the keeper has ended: only closing does that
                    self.shared.closing.notified().await;
                }
                false
            }
            () = self.shared.closing.notified() => false,
            () = runtime.sleep(RESCAN_INTERVAL) => false,
        };
        if hinted {
            self.hint = None;
            lock(&self.shared.read_ahead).hint();
        }
    }

    /// Listens for what is added from now on.
    fn arm(&mut self) {
        if self.hint.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut hint = async move { shared.queues.wait(&shared.options.queue, shared.poll).await }.boxed();
        // polled once, it is registered; if it fires at once, there is something to read anyhow
        if (&mut hint).now_or_never().is_some() {
            hint = std::future::ready(()).boxed();
        }
        self.hint = Some(hint);
    }
}

/// How many rows the next read asks for, so that large bodies do not pile up.
fn page_size(rows: &[QueueRow], before: usize) -> usize {
    if rows.is_empty() {
        return before;
    }
    let bytes: usize = rows.iter().map(|row| row.headers.len() + row.body.len()).sum();
    (MAX_BYTES_PER_READ / (bytes / rows.len()).max(1)).clamp(8, MAX_ROWS_PER_READ)
}
