use super::{
    kind::{Kind, Role},
    route::{SagaRoute, Value},
};
use crate::{Handle, Saga, names};
use sagabus_core::{Error, Message, NotFound, OnExisting, Route, check_name};
use std::{
    any::type_name,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Collects which messages a saga handles; see [`Saga::routes`].
///
/// Name the message type with a turbofish: `r.started_by::<OrderPlaced>(|m| m.order)`.
pub struct Routes<S> {
    entries: Vec<Entry>,
    saga: PhantomData<fn() -> S>,
}

impl<S> std::fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

struct Entry {
    message_type: &'static str,
    rust_type: &'static str,
    role: Role,
    build: Box<dyn FnOnce(Arc<Kind>, Role) -> Arc<dyn Route>>,
}

/// What [`Routes::started_by`] returns: the routes again, with a policy for the route just added.
pub struct StartedBy<'a, S>(&'a mut Routes<S>);

impl<S> std::fmt::Debug for StartedBy<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StartedBy").field("routes", &self.0).finish_non_exhaustive()
    }
}

/// What [`Routes::continued_by`] returns: the routes again, with a policy for the route just added.
pub struct ContinuedBy<'a, S>(&'a mut Routes<S>);

impl<S> std::fmt::Debug for ContinuedBy<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContinuedBy").field("routes", &self.0).finish_non_exhaustive()
    }
}

impl<S: Saga> Routes<S> {
    fn new() -> Self {
        Self { entries: Vec::new(), saga: PhantomData }
    }

    fn add<M: Message>(&mut self, role: Role, value: Value<M>)
    where
        S: Handle<M>,
    {
        self.entries.push(Entry {
            message_type: M::NAME,
            rust_type: type_name::<M>(),
            role,
            build: Box::new(move |kind, role| Arc::new(SagaRoute::<S, M> { kind, role, value, saga: PhantomData })),
        });
    }

    /// This message starts a saga, unless one lives under its key already; then that one handles it, or what
    /// [`on_existing`](StartedBy::on_existing) says.
    pub fn started_by<M: Message>(&mut self, key: impl Fn(&M) -> S::Key + Send + Sync + 'static) -> StartedBy<'_, S>
    where
        S: Handle<M>,
    {
        self.add::<M>(Role::Start(OnExisting::default()), Box::new(move |message| key(message).to_string()));
        StartedBy(self)
    }

    /// This message is for a saga that lives under its key. If none does, it waits for one for five minutes, or what
    /// [`on_not_found`](ContinuedBy::on_not_found) says. A reply to the saga's own request needs no key: it finds the
    /// saga that asked.
    pub fn continued_by<M: Message>(&mut self, key: impl Fn(&M) -> S::Key + Send + Sync + 'static) -> ContinuedBy<'_, S>
    where
        S: Handle<M>,
    {
        self.add::<M>(Role::Continue(NotFound::default()), Box::new(move |message| key(message).to_string()));
        ContinuedBy(self)
    }

    /// The same by another value, which the saga has given itself under this name with
    /// [`ctx.alias`](crate::SagaContext::alias).
    pub fn continued_by_alias<M: Message>(
        &mut self,
        alias: &'static str,
        value: impl Fn(&M) -> String + Send + Sync + 'static,
    ) -> ContinuedBy<'_, S>
    where
        S: Handle<M>,
    {
        self.add::<M>(Role::Alias(alias, NotFound::default()), Box::new(value));
        ContinuedBy(self)
    }

    /// A message that the saga sends to itself with [`ctx.timeout`](crate::SagaContext::timeout). It finds the instance
    /// that asked for it; once that has ended, it is dropped and counted.
    pub fn timeout<M: Message>(&mut self) -> &mut Self
    where
        S: Handle<M>,
    {
        self.add::<M>(Role::Timeout, Box::new(|_| String::new()));
        self
    }

    fn last(&mut self) -> Option<&mut Role> {
        self.entries.last_mut().map(|entry| &mut entry.role)
    }
}

impl<S: Saga> StartedBy<'_, S> {
    /// What becomes of this message if the saga exists already. The saga handles it, unless this says otherwise.
    pub fn on_existing(self, policy: OnExisting) -> Self {
        if let Some(Role::Start(current)) = self.0.last() {
            *current = policy;
        }
        self
    }
}

impl<S: Saga> ContinuedBy<'_, S> {
    /// What becomes of this message if the saga does not exist. It waits for five minutes, unless this says otherwise.
    pub fn on_not_found(self, policy: NotFound) -> Self {
        if let Some(Role::Continue(current) | Role::Alias(_, current)) = self.0.last() {
            *current = policy;
        }
        self
    }
}

macro_rules! is_routes {
    ($type:ident) => {
        impl<S> Deref for $type<'_, S> {
            type Target = Routes<S>;
            fn deref(&self) -> &Routes<S> {
                self.0
            }
        }

        impl<S> DerefMut for $type<'_, S> {
            fn deref_mut(&mut self) -> &mut Routes<S> {
                self.0
            }
        }
    };
}
is_routes!(StartedBy);
is_routes!(ContinuedBy);

/// The routes of a saga in an endpoint. An error names the saga, the message and the fix.
pub fn saga_routes<S: Saga>(endpoint: &str) -> Result<Vec<Arc<dyn Route>>, Error> {
    let mut routes = Routes::<S>::new();
    S::routes(&mut routes);
    check::<S>(endpoint, &routes.entries)?;
    let named = |pick: fn(&Role, &'static str) -> Option<&'static str>| {
        let names = routes.entries.iter().filter_map(|e| pick(&e.role, e.message_type));
        names.collect::<Vec<_>>()
    };
    let mut aliases = named(|role, _| match role {
        Role::Alias(alias, _) => Some(alias),
        _ => None,
    });
    aliases.sort_unstable();
    aliases.dedup();
    let kind = Arc::new(Kind {
        name: S::NAME.into(),
        kind: format!("{endpoint}/{}", S::NAME).into(),
        timeouts: named(|role, message_type| matches!(role, Role::Timeout).then_some(message_type)),
        aliases,
    });
    let built = routes.entries.into_iter();
    Ok(built.map(|entry| (entry.build)(Arc::clone(&kind), entry.role)).collect())
}

fn check<S: Saga>(endpoint: &str, entries: &[Entry]) -> Result<(), Error> {
    check_name("endpoint", endpoint)?;
    check_name("saga", S::NAME)?;
    let saga = format!("saga `{}` ({})", S::NAME, names::of::<S>());
    if S::NAME.contains('/') {
        return Err(Error::invalid(format!(
            "the name of {saga} contains '/', which separates endpoint and saga: use '.' or '-'"
        )));
    }
    if !entries.iter().any(|entry| matches!(entry.role, Role::Start(_))) {
        return Err(Error::invalid(format!(
            "{saga} has no message that starts it: add `.started_by::<…>(|m| …)` to its routes"
        )));
    }
    for (at, entry) in entries.iter().enumerate() {
        check_name("message type", entry.message_type)?;
        if let Role::Alias(alias, _) = entry.role {
            check_name("alias", alias)?;
        }
        if let Some(before) = entries[..at].iter().find(|e| e.message_type == entry.message_type) {
            return Err(Error::invalid(twice(&saga, before, entry)));
        }
    }
    Ok(())
}

fn twice(saga: &str, one: &Entry, two: &Entry) -> String {
    let name = two.message_type;
    if one.rust_type != two.rust_type {
        return format!(
            "{saga} handles two types with the wire name {name}: {} and {}; give one of them another name",
            names::short(one.rust_type),
            names::short(two.rust_type)
        );
    }
    if matches!(one.role, Role::Timeout) != matches!(two.role, Role::Timeout) {
        return format!(
            "{saga} uses {name} both as a timeout and as an ordinary message: make a type of its own for the timeout"
        );
    }
    format!("{saga} routes {name} twice: keep one of the routes")
}
