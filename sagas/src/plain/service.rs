use super::route::{Plain, PlainRoute};
use crate::{Result, names};
use sagabus_core::{Context, Error, Message, Route};
use std::{future::Future, marker::PhantomData, sync::Arc};

/// How a service handles one type of message.
///
/// A service is one value, shared by all messages that are handled at the same time; what it needs (clients, pools)
/// lies in its fields. What it says through the context happens if and only if it returns Ok and its unit commits.
///
/// ```
/// # use sagabus_core::{Context, Message};
/// # use sagabus_sagas::{Consume, Result};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct ShipOrder { order: u64 }
/// # impl Message for ShipOrder { const NAME: &'static str = "shop.ship-order"; }
/// # #[derive(Serialize, Deserialize)] struct OrderShipped { order: u64, label: String }
/// # impl Message for OrderShipped { const NAME: &'static str = "shop.order-shipped"; }
/// # struct Carrier;
/// # impl Carrier { async fn book(&self, _: u64) -> std::io::Result<String> { Ok(String::new()) } }
/// struct Shipping { carrier: Carrier }
///
/// impl Consume<ShipOrder> for Shipping {
///     async fn consume(&self, message: ShipOrder, ctx: &mut Context) -> Result {
///         let label = self.carrier.book(message.order).await?; // any error: retried by policy
///         ctx.publish(OrderShipped { order: message.order, label });
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not consume `{M}`",
    label = "this service has no such handler",
    note = "write `impl Consume<{M}> for {Self} {{ async fn consume(&self, message: {M}, ctx: &mut Context) -> Result {{ .. }} }}`"
)]
pub trait Consume<M: Message>: Send + Sync {
    /// Handles a message.
    fn consume(&self, message: M, ctx: &mut Context) -> impl Future<Output = Result> + Send;
}

struct Service<T>(Arc<T>);

impl<M: Message, T: Consume<M> + 'static> Plain<M> for Service<T> {
    fn call(&self, message: M, context: &mut Context) -> impl Future<Output = Result> + Send {
        self.0.consume(message, context)
    }
}

/// Collects which messages a service consumes: `.service(Shipping { carrier }, |s| s.on::<ShipOrder>())`.
#[must_use]
pub struct ServiceRoutes<T> {
    service: Arc<T>,
    name: Option<String>,
    entries: Vec<Build<T>>,
}

impl<T> std::fmt::Debug for ServiceRoutes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceRoutes")
            .field("name", &self.name)
            .field("routes", &self.entries.len())
            .finish_non_exhaustive()
    }
}

type Build<T> = fn(&Arc<T>, Option<&str>) -> Arc<dyn Route>;

impl<T: Send + Sync + 'static> ServiceRoutes<T> {
    /// The service consumes this message.
    pub fn on<M: Message>(mut self) -> Self
    where
        T: Consume<M>,
    {
        self.entries.push(|service, name| {
            Arc::new(PlainRoute {
                name: name.unwrap_or(M::NAME).into(),
                handler: Service(Arc::clone(service)),
                message: PhantomData::<fn(M)>,
            })
        });
        self
    }

    /// Names the service. The name is stored with what it has handled, so keep it. Without one, each message's handler
    /// is called like the message, which suffices unless another handler of the endpoint gets the same event.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

/// The routes of a service.
pub fn service_routes<T: Send + Sync + 'static>(
    service: T,
    routes: impl FnOnce(ServiceRoutes<T>) -> ServiceRoutes<T>,
) -> Result<Vec<Arc<dyn Route>>, Error> {
    let routes = routes(ServiceRoutes { service: Arc::new(service), name: None, entries: Vec::new() });
    if routes.entries.is_empty() {
        return Err(Error::invalid(format!("service {} consumes nothing: add `.on::<…>()`", names::of::<T>())));
    }
    let entries = routes.entries.iter();
    Ok(entries.map(|build| build(&routes.service, routes.name.as_deref())).collect())
}
