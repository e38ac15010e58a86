//! The schema: made and upgraded by the process that comes first, and checked by every process.

use super::{
    error::{doing, failed},
    open::OpenSchema,
    pool::Conn,
    sql::{self, Reader, Sql},
};
use sagabus_core::{Error, ErrorKind, Result};

/// The scripts from one version of the schema to the next.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_start.sql"),
    include_str!("../../migrations/postgres/0002_position.sql"),
    include_str!("../../migrations/postgres/0003_outbox_owner.sql"),
    include_str!("../../migrations/postgres/0004_probes.sql"),
];

/// The oldest server version that is known to work.
const OLDEST_SERVER_VERSION: i32 = 140_000;

impl OpenSchema {
    /// One lock per schema, for everything that changes tables: FNV-1a of its name, as a number that fits.
    pub(crate) fn lock_key(&self) -> i64 {
        let name = format!("sagabus {}", self.address.schema.name);
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        i64::from_ne_bytes(hash.to_ne_bytes())
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        let mut conn = self.work.take().await?;
        // up to date: nothing is locked, and a role without the right to create tables is enough
        if !matches!(self.version(&mut conn).await, Ok(Some(version)) if version == MIGRATIONS.len()) {
            // a failure drops the connection, and with it the transaction
            self.upgrade(&mut conn).await?;
        }
        self.create_partitions(&mut conn).await?;
        conn.release();
        Ok(())
    }

    async fn upgrade(&self, conn: &mut Conn) -> Result<()> {
        let (schema, location) = (self.address.schema.quoted(), &self.address.location);
        let wrong = |error| failed(&format!("migrate the schema {schema} of {location}"), error);
        sql::script(conn, format!("begin;select pg_advisory_xact_lock({})", self.lock_key())).await.map_err(wrong)?;
        let exists = Sql::new("select 1 from pg_namespace where nspname=$1").with(&self.address.schema.name);
        if exists.run(conn).await.map_err(wrong)?.is_empty() {
            sql::script(conn, format!("create schema {schema}")).await.map_err(wrong)?;
        }
        let version = self.version(conn).await?.unwrap_or(0);
        if version > MIGRATIONS.len() {
            return Err(self.other_version(version));
        }
        if version == 0 {
            sql::script(conn, format!("create table {schema}.sagabus_schema (version integer not null)"))
                .await
                .map_err(wrong)?;
        }
        for step in &MIGRATIONS[version..] {
            sql::script(conn, step.replace("{schema}", &schema)).await.map_err(wrong)?;
        }
        let end = format!(
            "delete from {schema}.sagabus_schema;insert into {schema}.sagabus_schema values ({});commit",
            MIGRATIONS.len()
        );
        sql::script(conn, end).await.map_err(wrong)
    }

    /// The schema's version, if there is one.
    async fn version(&self, conn: &mut Conn) -> Result<Option<usize>> {
        let table = format!("{}.sagabus_schema", self.address.schema.quoted());
        let what = doing("read the version of the schema");
        let found =
            Sql::new("select 1 where to_regclass($1) is not null").with(&table).run(conn).await.map_err(&what)?;
        if found.is_empty() {
            return Ok(None);
        }
        let rows = Sql::new(format!("select version from {table}")).run(conn).await.map_err(&what)?;
        let version: Option<i32> = rows.first().map(|row| Reader::new(row).get()).transpose()?;
        Ok(version.and_then(|version| usize::try_from(version).ok()))
    }

    fn other_version(&self, version: usize) -> Error {
        Error::new(
            ErrorKind::Backend,
            format!(
                "the schema {} of {} has version {version}, this program knows {}: run the newest program's `migrate`",
                self.address.schema.name,
                self.address.location,
                MIGRATIONS.len()
            ),
        )
    }

    /// Refuses what the store's promises cannot rest on.
    pub(crate) async fn check(&self) -> Result<()> {
        let mut conn = self.work.take().await?;
        match self.version(&mut conn).await? {
            Some(version) if version == MIGRATIONS.len() => {}
            Some(version) => return Err(self.other_version(version)),
            None => {
                let text = format!(
                    "there is no schema {} in {}: run `migrate` first",
                    self.address.schema.name, self.address.location
                );
                return Err(Error::new(ErrorKind::Backend, text));
            }
        }
        let settings = Sql::new(
            "select current_setting('server_version_num')::int,current_setting('fsync'),\
             current_setting('synchronous_commit'),current_setting('full_page_writes'),pg_is_in_recovery()",
        );
        let rows = settings.run(&mut conn).await.map_err(doing("read the settings of postgres"))?;
        if let Some(row) = rows.first() {
            self.check_settings(&mut Reader::new(row))?;
        }
        self.create_partitions(&mut conn).await?;
        conn.release();
        Ok(())
    }

    fn check_settings(&self, row: &mut Reader<'_>) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::Backend, format!("{}: {text}", self.address.location)));
        let (version, fsync, commit): (i32, String, String) = (row.get()?, row.get()?, row.get()?);
        let (pages, standby): (String, bool) = (row.get()?, row.get()?);
        if version < OLDEST_SERVER_VERSION {
            return refuse(format!("postgres {} is too old, 14 or later is needed", version / 10_000));
        }
        if standby {
            return refuse("this is a standby, which cannot be written to; connect to the primary".into());
        }
        if self.options.volatile {
            return Ok(());
        }
        for (name, value) in [("fsync", fsync), ("synchronous_commit", commit), ("full_page_writes", pages)] {
            if value == "off" {
                return refuse(format!(
                    "{name} is off, so a commit could be lost after it was reported; turn it on, or open the store as volatile"
                ));
            }
        }
        Ok(())
    }
}
