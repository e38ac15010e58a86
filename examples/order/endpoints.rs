//! The endpoints: the shop with its saga, payment, shipping, and one that only places orders.

use crate::{
    mail,
    messages::*,
    options::{Options, Role},
    payment::Payment,
    saga::OrderSaga,
    shipping::Shipping,
};
use sagabus::{EndpointBuilder, RunningEndpoint, prelude::*};
use std::time::Duration;

/// The names under which dead letters are looked for.
pub(crate) const NAMES: [&str; 3] = ["shop", "payment", "shipping"];

type Make = fn(&Options) -> EndpointBuilder;

/// Builds all of them, and starts those of this process's role.
///
/// Building declares an endpoint's queue and subscriptions. Every process declares all of them, so that it does not
/// matter which one comes first: an event that is published before anyone has subscribed to it reaches nobody.
pub(crate) async fn start(options: &Options) -> Result<Vec<RunningEndpoint>, Error> {
    let all: [(Role, Make); 4] =
        [(Role::Saga, shop), (Role::Payment, payment), (Role::Shipping, shipping), (Role::Place, placer)];
    let mut endpoints = Vec::new();
    for (role, builder) in all {
        let endpoint = build(builder, options).await?;
        if options.role.includes(role) {
            endpoints.push(endpoint);
        }
    }
    let mut running = Vec::new();
    for endpoint in endpoints {
        running.push(endpoint.start().await?);
    }
    Ok(running)
}

/// Builds it, as soon as the file can be written. SQLite has one writer, and a process that was stopped (SIGSTOP) at the
/// wrong moment keeps everyone else out until it goes on or dies.
async fn build(builder: Make, options: &Options) -> Result<Endpoint, Error> {
    loop {
        match builder(options).build().await {
            Err(error) if error.is_transient() => eprintln!("{error}; trying again"),
            other => return other,
        }
    }
}

fn builder(name: &str, options: &Options) -> EndpointBuilder {
    // a short lease, so that others soon take over from a process that hangs
    let builder = Endpoint::builder(name).store(options.store.as_str()).lease(Duration::from_secs(2));
    match &options.transport {
        Some(url) => builder.transport(url.as_str()),
        None => builder,
    }
}

fn placer(options: &Options) -> EndpointBuilder {
    builder("placer", options)
}

fn shop(options: &Options) -> EndpointBuilder {
    let shop = builder("shop", options)
        .saga::<OrderSaga>()
        .route::<ReservePayment>("payment")
        .route::<CapturePayment>("payment")
        .route::<ReleasePayment>("payment")
        .route::<ShipOrder>("shipping");
    if options.mail { shop.on_named(mail::HANDLER, mail::confirm_by_mail) } else { shop }
}

fn payment(options: &Options) -> EndpointBuilder {
    let late = options.timeout + Duration::from_secs(1);
    builder("payment", options).service(Payment { seed: options.seed, late }, |s| {
        s.on::<ReservePayment>().on::<CapturePayment>().on::<ReleasePayment>()
    })
}

fn shipping(options: &Options) -> EndpointBuilder {
    builder("shipping", options).service(Shipping { seed: options.seed }, |s| s.on::<ShipOrder>())
}
