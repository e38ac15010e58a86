//! An endpoint in a few maps: what a store and the engine do, one message at a time.

use super::{
    rows::Rows,
    step::{Outcome, Sent, Step},
};
use sagabus_core::{
    Codec, Context, Decision, Effects, EndpointInfo, Envelope, Error, Incoming, Intent, Invocation, InvocationContext,
    Limits, Message, MessageId, NodeId, Outgoing, Route, Runtime, SagaLookup, SagaRow, SendOptions, Timestamp,
};
use sagabus_sagas::{Saga, saga_routes};
use std::{
    any::type_name,
    collections::{HashSet, VecDeque},
    panic::Location,
    sync::Arc,
    time::Duration,
};

const ENDPOINT: &str = "test";
const CLIENT: &str = "client";

pub(super) struct Harness {
    saga: &'static str,
    saga_type: &'static str,
    info: Arc<EndpointInfo>,
    routes: Vec<Arc<dyn Route>>,
    pub(super) rows: Rows,
    parked: Vec<Parked>,
    handled: HashSet<MessageId>,
    last: Option<(Arc<Envelope>, u32)>,
    request: Option<Envelope>,
    pub(super) step: Step,
    /// The key of the saga that the test looks at.
    pub(super) key: Option<String>,
}

/// A message that waits for its saga.
struct Parked {
    until: Timestamp,
    lookup: SagaLookup,
    message: Arc<Envelope>,
    attempts: u32,
}

type Job = (Arc<dyn Route>, Arc<Envelope>, u32);

impl Harness {
    pub(super) fn new<S: Saga>() -> Result<Self, Error> {
        let runtime = Runtime::manual(1);
        let info = EndpointInfo {
            name: ENDPOINT.into(),
            node: NodeId(runtime.uuid()),
            codec: Codec::json(),
            limits: Limits::default(),
            runtime,
            owners: [("*".to_string(), "owner".to_string())].into(),
            reply_to: Some(ENDPOINT.to_string()),
            store: None,
        };
        Ok(Self {
            saga: S::NAME,
            saga_type: type_name::<S>(),
            info: Arc::new(info),
            routes: saga_routes::<S>(ENDPOINT)?,
            rows: Rows::default(),
            parked: Vec::new(),
            handled: HashSet::new(),
            last: None,
            request: None,
            step: Step::default(),
            key: None,
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.info.runtime.now()
    }

    #[track_caller]
    pub(super) fn begin_step(&mut self, title: String, location: &'static Location<'static>) {
        self.step.must_be_asked();
        self.step = Step::new(title, location);
    }

    /// A message from outside, which names a place for replies.
    pub(super) fn incoming<M: Message>(&self, message: &M, options: SendOptions) -> Result<Arc<Envelope>, String> {
        let encoded = self.info.outgoing(message, Intent::Command, options.to(ENDPOINT), None, None);
        let mut message = encoded.map_err(|e| format!("{e:?}"))?.message;
        message.headers.reply_to = Some(CLIENT.to_string());
        Ok(Arc::new(message))
    }

    /// A reply to the last request.
    pub(super) fn answer<M: Message>(&self, message: &M) -> Result<Arc<Envelope>, String> {
        let Some(request) = &self.request else {
            return Err(format!("`{}` has sent no command yet that could be answered", self.saga));
        };
        let asked = &request.headers;
        let options = SendOptions::new().to(ENDPOINT);
        let encoded = self.info.outgoing(message, Intent::Reply, options, Some(asked), None);
        let mut reply = encoded.map_err(|e| format!("{e:?}"))?.message;
        reply.headers.saga.clone_from(&asked.originator);
        reply.headers.correlation_id =
            Some(asked.correlation_id.clone().unwrap_or_else(|| asked.message_id.to_string()));
        reply.headers.reply_to = Some(CLIENT.to_string());
        Ok(Arc::new(reply))
    }

    #[track_caller]
    pub(super) fn again(&self) -> (Arc<Envelope>, u32) {
        match &self.last {
            Some((message, attempts)) => (Arc::clone(message), attempts + 1),
            None => panic!("there was no message yet that could be delivered again"),
        }
    }

    /// The route of a message that a test delivers, or what is wrong.
    pub(super) fn route_of(&self, message: &Envelope) -> Result<Arc<dyn Route>, String> {
        let (saga, name) = (self.saga, &*message.headers.message_type);
        let route = self.routes.iter().find(|route| route.message_type() == name);
        match route {
            Some(route) if route.is_timeout() && message.headers.intent != Intent::Timeout => Err(format!(
                "`{name}` is a timeout of `{saga}`: it comes by itself, when `.advance(…)` lets the time pass"
            )),
            Some(route) => Ok(Arc::clone(route)),
            None => Err(format!(
                "`{saga}` has no route for `{name}`: add one to `{}::routes`",
                self.saga_type.rsplit("::").next().unwrap_or(self.saga_type)
            )),
        }
    }

    /// Delivers a message, and then those that waited for what it brought about.
    pub(super) async fn deliver(&mut self, route: Arc<dyn Route>, message: Arc<Envelope>, attempts: u32) {
        self.last = Some((Arc::clone(&message), attempts));
        let mut jobs: VecDeque<Job> = [(route, message, attempts)].into();
        while let Some((route, message, attempts)) = jobs.pop_front() {
            let outcome = self.handle(route, message, attempts).await;
            self.step.outcomes.push(outcome);
            jobs.extend(self.adopted());
        }
    }

    async fn handle(&mut self, route: Arc<dyn Route>, message: Arc<Envelope>, attempts: u32) -> Outcome {
        if self.handled.contains(&message.headers.message_id) {
            return Outcome::Duplicate;
        }
        let target = match route.target(&self.info, &message) {
            Ok(target) => target,
            Err(error) => return Outcome::Dead(format!("{error:?}")),
        };
        let saga = target.saga.as_ref().and_then(|lookup| self.rows.find(lookup)).cloned();
        self.key = saga.as_ref().map(|row| row.key.clone()).or_else(|| target.saga.as_ref().and_then(key_of));
        let decision = route.decide(&message, saga.as_ref());
        let id = message.headers.message_id;
        match (decision, target.saga) {
            (Decision::Run, _) => {
                let context = Context::new(Incoming { message, attempts }, Arc::clone(&self.info), true);
                let output = route.run(Invocation { context, saga, input: target.input }).await;
                if let Err(error) = output.result {
                    return Outcome::Failed(error);
                }
                self.apply(output.context.into_parts().0);
                self.handled.insert(id);
                Outcome::Handled
            }
            (Decision::Park(wait), Some(lookup)) => {
                let until = self.now().plus(wait);
                self.parked.push(Parked { until, lookup, message, attempts });
                Outcome::Parked(wait)
            }
            (Decision::Park(_), None) => Outcome::Dead("parked without a saga".into()),
            (Decision::DeadLetter(reason), _) => Outcome::Dead(reason),
            (Decision::Drop(policy), _) => Outcome::Dropped(policy),
        }
    }

    pub(super) fn row(&self) -> Option<&SagaRow> {
        self.rows.row(self.key.as_ref()?)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.key.as_ref().is_some_and(|key| self.rows.has_ended(key))
    }

    fn apply(&mut self, effects: Effects) {
        let now = self.now();
        for change in effects.timers {
            self.rows.change_timers(change, now);
        }
        if let Some(write) = effects.saga {
            self.rows.write(write);
        }
        for outgoing in effects.sends {
            self.note(outgoing);
        }
    }

    fn note(&mut self, outgoing: Outgoing) {
        if outgoing.message.headers.intent == Intent::Command {
            self.request = Some(outgoing.message.clone());
        }
        self.step.sent.push(Sent { outgoing, asked: false });
    }

    /// Parked messages whose saga exists by now.
    fn adopted(&mut self) -> Vec<Job> {
        let mut jobs = Vec::new();
        for parked in std::mem::take(&mut self.parked) {
            match (self.rows.find(&parked.lookup), self.route_of(&parked.message)) {
                (Some(_), Ok(route)) => jobs.push((route, parked.message, parked.attempts)),
                _ => self.parked.push(parked),
            }
        }
        jobs
    }

    /// Lets the time pass, from event to event.
    pub(super) async fn advance(&mut self, time: Duration) {
        let end = self.now().plus(time);
        loop {
            let wait = self.parked.iter().map(|p| p.until).min().filter(|until| *until <= end);
            if let Some(timer) = self.rows.take_due(wait.unwrap_or(end)) {
                self.advance_to(timer.due);
                match self.route_of(&timer.message) {
                    Ok(route) => self.deliver(route, timer.message, 0).await,
                    Err(problem) => self.step.outcomes.push(Outcome::Dead(problem)),
                }
            } else if let Some(until) = wait {
                self.advance_to(until);
                self.parked.retain(|parked| parked.until != until);
                self.step.outcomes.push(Outcome::Dead("its saga was not created in time".into()));
            } else {
                break;
            }
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, moment: Timestamp) {
        self.info.runtime.advance(moment.since(self.now()));
    }

    pub(super) fn saga_name(&self) -> &'static str {
        self.saga
    }
}

fn key_of(lookup: &SagaLookup) -> Option<String> {
    match lookup {
        SagaLookup::Key { key, .. } => Some(key.clone()),
        SagaLookup::Instance(address) => Some(address.key.clone()),
        SagaLookup::Alias { .. } => None,
    }
}
