//! `#[derive(Message)]` for sagabus.
//!
//! Use it through `sagabus`, which re-exports it next to the trait.

mod attribute;
mod message;
mod name;

use proc_macro::TokenStream;

/// Implements `Message` for a type: gives it its wire name.
///
/// ```
/// use sagabus_macros::Message; // with the crate `sagabus`: use sagabus::Message
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(name = "shop.order-placed", crate = "sagabus_core")] // with the crate `sagabus`, the name is enough
/// struct OrderPlaced { order: u64 }
///
/// assert_eq!(<OrderPlaced as sagabus_core::Message>::NAME, "shop.order-placed");
/// ```
///
/// The attribute takes
///
/// - `name = "…"`, required: 1 to 128 characters of `a-z A-Z 0-9 . _ - : /`, checked at compile time. It is written into
///   every stored message, so choose it once and keep it; the Rust type may be renamed and moved freely.
/// - `crate = "path"`: where `Message` is found, if not in `::sagabus`. For libraries that re-export sagabus.
///
/// A generic type is refused: all of its instances would share one wire name.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: TokenStream) -> TokenStream {
    message::derive(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
