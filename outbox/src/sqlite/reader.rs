//! Connections that only read.

use super::shared::FileState;
use sagabus_core::Result;
use sqlx::SqliteConnection;

/// A connection that only reads. Made when first needed, and again after a failure.
pub(crate) struct Reader(tokio::sync::Mutex<Option<SqliteConnection>>);

impl Reader {
    pub(super) fn new() -> Self {
        Self(tokio::sync::Mutex::new(None))
    }

    /// Runs a reading; a connection on which one failed or was given up is not used again.
    pub(crate) async fn run<T>(
        &self,
        shared: &FileState,
        reading: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        let mut slot = self.0.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => shared.connect_reader().await?,
        };
        let answer = reading(&mut connection).await?;
        *slot = Some(connection);
        Ok(answer)
    }

    pub(super) async fn close(&self) {
        use sqlx::Connection as _;
        if let Some(connection) = self.0.lock().await.take() {
            // only reads went over it
            let _ = connection.close().await;
        }
    }
}
