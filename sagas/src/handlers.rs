use crate::{HandlerFn, Saga, ServiceRoutes, function_route, names, saga_routes, service_routes};
use sagabus_core::{Error, Message, Route, check_name};
use std::{any::type_name, sync::Arc};

/// All handlers of an endpoint, checked against each other. The endpoint's builder fills it.
pub struct Handlers {
    endpoint: String,
    routes: Vec<Arc<dyn Route>>,
    sagas: Vec<(&'static str, &'static str)>,
    problems: Vec<String>,
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers")
            .field("endpoint", &self.endpoint)
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

impl Handlers {
    /// None yet.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self { endpoint: endpoint.into(), routes: Vec::new(), sagas: Vec::new(), problems: Vec::new() }
    }

    /// Adds a saga.
    pub fn saga<S: Saga>(&mut self) -> &mut Self {
        match self.sagas.iter().find(|(name, _)| *name == S::NAME) {
            Some((name, other)) if *other == type_name::<S>() => {
                self.problems.push(format!("saga `{name}` is added twice: keep one"));
            }
            Some((name, other)) => self.problems.push(format!(
                "two sagas are named `{name}`: {} and {}; give one of them another name",
                names::short(other),
                names::of::<S>()
            )),
            None => {
                self.sagas.push((S::NAME, type_name::<S>()));
                let routes = saga_routes::<S>(&self.endpoint);
                self.add(routes);
            }
        }
        self
    }

    /// Adds a service.
    pub fn service<T: Send + Sync + 'static>(
        &mut self,
        service: T,
        routes: impl FnOnce(ServiceRoutes<T>) -> ServiceRoutes<T>,
    ) -> &mut Self {
        let routes = service_routes(service, routes);
        self.add(routes);
        self
    }

    /// Adds a function, called like its message if it gets no name.
    pub fn function<M, F>(&mut self, name: Option<&str>, function: F) -> &mut Self
    where
        M: Message,
        F: for<'a> HandlerFn<'a, M>,
    {
        self.routes.push(function_route(name, function));
        self
    }

    /// The name of one of the sagas, if there are any.
    pub fn a_saga(&self) -> Option<&'static str> {
        self.sagas.first().map(|(name, _)| *name)
    }

    fn add(&mut self, routes: Result<Vec<Arc<dyn Route>>, Error>) {
        match routes {
            Ok(routes) => self.routes.extend(routes),
            Err(error) => self.problems.push(error.to_string()),
        }
    }

    /// The routes; or one error with everything that is wrong, and how to put it right.
    pub fn build(mut self) -> Result<Vec<Arc<dyn Route>>, Error> {
        for (at, route) in self.routes.iter().enumerate() {
            for (what, name) in [("handler", &**route.handler()), ("message type", route.message_type())] {
                if let Err(error) = check_name(what, name) {
                    self.problems.push(error.to_string());
                }
            }
            let before = self.routes[..at].iter();
            let mut same = before.filter(|other| other.message_type() == route.message_type());
            if let Some(problem) = same.find_map(|other| clash(&**other, &**route)) {
                self.problems.push(problem);
            }
        }
        self.problems.dedup();
        match self.problems.len() {
            0 => Ok(self.routes),
            _ => Err(Error::invalid(format!("endpoint {}: {}", self.endpoint, self.problems.join("; ")))),
        }
    }
}

/// What is wrong with two routes of one message type.
fn clash(one: &dyn Route, two: &dyn Route) -> Option<String> {
    let (name, handler) = (two.message_type(), two.handler());
    if one.message_rust_type() != two.message_rust_type() {
        return Some(format!(
            "two types have the wire name {name}: {} and {}; give one of them another name",
            names::short(one.message_rust_type()),
            names::short(two.message_rust_type())
        ));
    }
    if one.is_timeout() != two.is_timeout() {
        return Some(format!(
            "{name} is a timeout of {} and an ordinary message of {}: make a type of its own for the timeout",
            if one.is_timeout() { one.handler() } else { handler },
            if one.is_timeout() { handler } else { one.handler() },
        ));
    }
    (one.handler() == handler).then(|| {
        format!(
            "two handlers of {name} are named `{handler}`: name one of them, \
             a function with `.on_named(\"…\", f)`, a service with `.named(\"…\")`"
        )
    })
}
