use serde::{Serialize, de::DeserializeOwned};

/// Something that one endpoint tells another: a command, an event, a reply or a timeout.
///
/// The wire name is explicit and stable. It is never derived from a Rust type name, so that moving or renaming a type
/// does not lose messages that are already under way. Derive it:
///
/// ```ignore
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(name = "shop.order-placed")]
/// struct OrderPlaced { order: u64 }
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
