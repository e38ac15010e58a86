//! From committed units to the transport.

use super::{EndpointContext, Event, add};
use foldhash::HashSet;
use sagabus_core::{Backoff, Error, OutboxId, Outgoing, SendOutcome, Transport, crash, sabotage};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// Most messages in one send.
const MAX_MESSAGES_PER_SEND: usize = 500;
/// A backlog at which no more handlers start, and one at which they start again.
const BACKLOG_HIGH_WATERMARK: usize = 10_000;
const BACKLOG_LOW_WATERMARK: usize = 5_000;
/// The pauses before messages that failed are sent again.
const SEND_BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2));
/// How long confirmed rows wait for a commit to ride on.
const CONFIRM_DELETE_DELAY: Duration = Duration::from_millis(50);

type Item = (OutboxId, Outgoing);

/// The engine's and the relay's end of the dispatcher.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    items: mpsc::UnboundedSender<Vec<Item>>,
    state: Arc<Mutex<RowTracking>>,
    sweep: Arc<Notify>,
}

#[derive(Default)]
struct RowTracking {
    /// Confirmed, row still there.
    confirmed: Vec<OutboxId>,
    /// Queued, under way, or confirmed with the row still there.
    tracked: HashSet<OutboxId>,
    /// About how many wait for their first attempt, or for what comes of it.
    unattempted: usize,
}

/// The receiving end: what [`run`](Outbound::run) works on.
pub(crate) struct Outbound {
    items: mpsc::UnboundedReceiver<Vec<Item>>,
    dispatcher: Dispatcher,
}

pub(crate) fn dispatcher() -> (Dispatcher, Outbound) {
    let (sender, items) = mpsc::unbounded_channel();
    let dispatcher = Dispatcher { items: sender, state: Arc::default(), sweep: Arc::default() };
    (dispatcher.clone(), Outbound { items, dispatcher })
}

impl Dispatcher {
    /// Queues messages whose rows are committed.
    pub(crate) fn send(&self, items: Vec<Item>) {
        let mut state = self.state();
        state.tracked.extend(items.iter().map(|(id, _)| *id));
        state.unattempted += items.len();
        drop(state);
        // without a dispatcher the relay of another node finds the rows
        let _ = self.items.send(items);
    }

    /// Whether messages are on their way whose fate is not known yet, other than those that failed before.
    pub(super) fn is_busy(&self) -> bool {
        self.state().unattempted > 0
    }

    /// Decrements the count of unattempted messages. Retries are not counted apart, so `is_busy` may turn false a little early.
    fn mark_attempted(&self, count: usize) {
        let mut state = self.state();
        state.unattempted = state.unattempted.saturating_sub(count);
    }

    /// Asks the relay to look for rows of this node that nobody has in memory.
    pub(crate) fn sweep(&self) {
        self.sweep.notify_one();
    }

    pub(super) async fn sweep_wanted(&self) {
        self.sweep.notified().await;
    }

    pub(super) fn tracks(&self, id: OutboxId) -> bool {
        self.state().tracked.contains(&id)
    }

    /// Confirmed rows, for the next commit to remove.
    pub(super) fn take_confirmed(&self) -> Vec<OutboxId> {
        std::mem::take(&mut self.state().confirmed)
    }

    /// The commit did not remove them.
    pub(super) fn restore_confirmed(&self, sent: Vec<OutboxId>) {
        self.state().confirmed.extend(sent);
    }

    /// Their rows are gone.
    pub(super) fn untrack(&self, ids: &[OutboxId]) {
        let mut state = self.state();
        for id in ids {
            state.tracked.remove(id);
        }
    }

    fn state(&self) -> MutexGuard<'_, RowTracking> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbound {
    /// Sends until the engine and the relay are gone and everything is confirmed. Whoever stops it earlier loses nothing:
    /// the rows are there, and the relay of another node, or of the next start, takes them over.
    pub(crate) async fn run(
        mut self,
        shared: Arc<EndpointContext>,
        transport: Arc<dyn Transport>,
        events: mpsc::UnboundedSender<Event>,
    ) {
        // its own sender would keep the channel open
        let (closed, _) = mpsc::unbounded_channel();
        self.dispatcher.items = closed;
        let runtime = shared.info.runtime.clone();
        let mut queue: VecDeque<Item> = VecDeque::new();
        let mut held: VecDeque<Item> = VecDeque::new();
        let mut held_keys: HashSet<String> = HashSet::default();
        let mut failures = 0u32;
        let mut open = true;
        let mut full = false;
        while open || !queue.is_empty() || !held.is_empty() {
            if queue.is_empty() {
                let wait = if held.is_empty() { CONFIRM_DELETE_DELAY } else { SEND_BACKOFF.pause(failures, &runtime) };
                match runtime.timeout(wait, self.items.recv()).await {
                    Some(Some(items)) => queue.extend(items),
                    Some(None) if held.is_empty() => open = false,
                    Some(None) => {
                        open = false;
                        runtime.sleep(wait).await;
                    }
                    None => {}
                }
                if queue.is_empty() {
                    self.delete_confirmed(&shared).await;
                    held_keys.clear();
                    queue.append(&mut held);
                    continue;
                }
            }
            while let Ok(items) = self.items.try_recv() {
                queue.extend(items);
            }
            if (queue.len() > BACKLOG_HIGH_WATERMARK) != full && (full == (queue.len() < BACKLOG_LOW_WATERMARK)) {
                full = !full;
                // the engine may have ended meanwhile
                let _ = events.send(Event::Backlog(full));
            }
            let batch = take(&mut queue, &mut held, &held_keys);
            if batch.is_empty() {
                continue;
            }
            let count = batch.len();
            let failed = self.send_batch(&shared, &*transport, batch).await;
            self.dispatcher.mark_attempted(count);
            // the engine may have ended meanwhile
            let _ = events.send(Event::Dispatched);
            failures = if failed.is_empty() { 0 } else { failures + 1 };
            held_keys.extend(failed.iter().filter_map(|(_, out)| out.message.headers.order_key.clone()));
            for item in failed.into_iter().rev() {
                held.push_front(item);
            }
            if failures > 0 && queue.is_empty() {
                runtime.sleep(SEND_BACKOFF.pause(failures, &runtime)).await;
            } else if failures > 3 {
                // nothing gets through: what waits behind would only fail too
                runtime.sleep(SEND_BACKOFF.pause(failures, &runtime)).await;
                held.append(&mut queue);
                queue = std::mem::take(&mut held);
                held_keys.clear();
            }
        }
        self.delete_confirmed(&shared).await;
    }

    /// Sends one batch; returns what has to be sent again, in order.
    async fn send_batch(&self, shared: &EndpointContext, transport: &dyn Transport, batch: Vec<Item>) -> Vec<Item> {
        let (ids, messages): (Vec<OutboxId>, Vec<Outgoing>) = batch.into_iter().unzip();
        if sabotage::active("outbox-delete-early") {
            let _ = shared.store.outbox_delete(&ids).await;
            crash::reach("confirmed");
        }
        tracing::debug!(messages = messages.len(), endpoint = %shared.info.name, "dispatch");
        let outcomes = transport.send_batch(&messages).await;
        crash::reach("publish-sent");
        let mut again = Vec::new();
        let mut unroutable = Vec::new();
        let mut confirmed = Vec::new();
        for ((id, message), outcome) in ids.into_iter().zip(messages).zip(outcomes) {
            match outcome {
                SendOutcome::Done => confirmed.push(id),
                SendOutcome::Unroutable(reason) => unroutable.push((id, reason)),
                SendOutcome::Retry(error) | SendOutcome::Unknown(error) => {
                    warn_failed(&error, &message);
                    let mut message = message;
                    message.message.headers.first_attempt = false;
                    again.push((id, message));
                }
            }
        }
        crash::reach("confirmed");
        add(&shared.counters.dispatched, confirmed.len());
        self.dispatcher.state().confirmed.extend(confirmed.iter().filter(|id| id.0 >= 0));
        if !unroutable.is_empty() {
            self.dead_letter(shared, &unroutable).await;
        }
        again
    }

    async fn dead_letter(&self, shared: &EndpointContext, rows: &[(OutboxId, String)]) {
        let runtime = &shared.info.runtime;
        let mut failures = 0;
        while let Err(error) = shared.store.outbox_dead_letter(&shared.owner, rows).await {
            tracing::warn!(%error, rows = rows.len(), "burying unroutable messages failed, trying again");
            failures += 1;
            if error.is_closed() || failures > 20 {
                // the rows stay in the outbox; the next start tries again
                return;
            }
            runtime.sleep(SEND_BACKOFF.pause(failures, runtime)).await;
        }
        add(&shared.counters.dead, rows.len());
        let ids: Vec<OutboxId> = rows.iter().map(|(id, _)| *id).collect();
        self.dispatcher.untrack(&ids);
    }

    /// Removes confirmed rows when no commit came to do it.
    async fn delete_confirmed(&self, shared: &EndpointContext) {
        let sent = self.dispatcher.take_confirmed();
        if sent.is_empty() {
            return;
        }
        match shared.store.outbox_delete(&sent).await {
            Ok(()) => self.dispatcher.untrack(&sent),
            Err(error) => {
                tracing::debug!(%error, "removing confirmed outbox rows failed; they ride with the next commit");
                self.dispatcher.restore_confirmed(sent);
            }
        }
    }
}

/// The next batch, leaving out what must wait behind an earlier message of its key.
fn take(queue: &mut VecDeque<Item>, held: &mut VecDeque<Item>, held_keys: &HashSet<String>) -> Vec<Item> {
    let mut batch = Vec::with_capacity(queue.len().min(MAX_MESSAGES_PER_SEND));
    while batch.len() < MAX_MESSAGES_PER_SEND {
        let Some(item) = queue.pop_front() else { break };
        match &item.1.message.headers.order_key {
            Some(key) if held_keys.contains(key) => held.push_back(item),
            _ => batch.push(item),
        }
    }
    batch
}

fn warn_failed(error: &Error, outgoing: &Outgoing) {
    let id = outgoing.message.headers.message_id;
    tracing::warn!(%error, message.id = %id, to = outgoing.to.name(), "sending failed, trying again");
}
