use serde::{Serialize, de::DeserializeOwned};

/// Something that one endpoint tells another: a command, an event, a reply or a timeout.
///
/// The wire name is explicit and stable. It is never derived from a Rust type name, so that moving or renaming a type
/// does not lose messages that are already under way. Derive it (`#[derive(Message)] #[message(name = "…")]`, re-exported
/// by `sagabus`), or write the one line:
///
/// ```
/// use sagabus_core::Message;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct OrderPlaced { order: u64 }
///
/// impl Message for OrderPlaced {
///     const NAME: &'static str = "shop.order-placed";
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "has no wire name",
    note = "add `#[derive(Message, Serialize, Deserialize)]` and `#[message(name = \"...\")]` to `{Self}`"
)]
pub trait Message: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The wire name: 1 to 128 characters of `a-z A-Z 0-9 . _ - : /`.
    const NAME: &'static str;
}
