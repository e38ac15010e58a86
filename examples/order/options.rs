//! The flags.

use std::{path::PathBuf, time::Duration};

pub(crate) const HELP: &str = "\
An order saga with its payment and shipping services.

  cargo run --example order -- [FLAGS]

  --transport URL   what carries the messages           (default: the store's own queues)
  --store URL       what holds state and the own rows   (default: sqlite://order.db)
                    amqp:// needs --features rabbitmq, postgres:// needs --features postgres
  --orders N        how many orders, in all             (default: 12)
  --role ROLE       all, saga, payment, shipping or place: what this process does (default: all)
  --seed S          which orders fail, and how          (default: 1)
  --pace MS         pause between placed orders         (default: 100; 0 places 50 per transaction)
  --window N        most orders that are open at once   (default: 64)
  --timeout MS      how long the shop waits for a payment (default: 1000)
  --load            as fast as it goes: --pace 0 --window 1000 --timeout 5000 --quiet
  --mail            send mail about confirmed orders; some bounces, and is a dead letter
  --quiet           the summary only
  --log FILE        append a line of JSON per placed order and started handler, each synced
  --crash-at POINT[:NTH[:kill|stop]]
                    SIGKILL or SIGSTOP itself there; needs --features __crash

Killed and started again with the same arguments, it goes on where it was. Processes with different roles share the
work when they are given the same URLs, orders and seed.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    All,
    Saga,
    Payment,
    Shipping,
    Place,
}

impl Role {
    pub(crate) fn includes(self, other: Role) -> bool {
        self == Role::All || self == other
    }
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) transport: Option<String>,
    pub(crate) store: String,
    pub(crate) orders: u64,
    pub(crate) role: Role,
    pub(crate) seed: u64,
    pub(crate) pace: Duration,
    pub(crate) window: u64,
    pub(crate) timeout: Duration,
    pub(crate) mail: bool,
    pub(crate) quiet: bool,
    pub(crate) log: Option<PathBuf>,
    pub(crate) crash_at: Option<String>,
}

impl Options {
    /// `None` if help was asked for.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut store = None;
        let mut options = Self {
            transport: None,
            store: String::new(),
            orders: 12,
            role: Role::All,
            seed: 1,
            pace: Duration::from_millis(100),
            window: 64,
            timeout: Duration::from_secs(1),
            mail: false,
            quiet: false,
            log: None,
            crash_at: None,
        };
        let mut words = arguments.flat_map(|word| match word.split_once('=') {
            // both `--flag value` and `--flag=value`
            Some((flag, value)) if flag.starts_with("--") => vec![flag.to_string(), value.to_string()],
            _ => vec![word],
        });
        while let Some(flag) = words.next() {
            let mut value = || words.next().ok_or(format!("{flag} needs a value; see --help"));
            match flag.as_str() {
                "--help" | "-h" => return Ok(None),
                "--transport" => options.transport = Some(value()?),
                "--store" => store = Some(value()?),
                "--orders" => options.orders = number(&flag, &value()?)?,
                "--role" => options.role = role(&value()?)?,
                "--seed" => options.seed = number(&flag, &value()?)?,
                "--pace" => options.pace = Duration::from_millis(number(&flag, &value()?)?),
                "--window" => options.window = number(&flag, &value()?)?.max(1),
                "--timeout" => options.timeout = Duration::from_millis(number(&flag, &value()?)?),
                "--load" => {
                    options.pace = Duration::ZERO;
                    options.window = 1000;
                    options.timeout = Duration::from_secs(5);
                    options.quiet = true;
                }
                "--mail" => options.mail = true,
                "--quiet" => options.quiet = true,
                "--log" => options.log = Some(value()?.into()),
                "--crash-at" => options.crash_at = Some(value()?),
                other => return Err(format!("unknown flag {other}; see --help")),
            }
        }
        // a transport that is a file of its own can hold everything
        let one_file =
            options.transport.clone().filter(|url| url.starts_with("sqlite:") || url.starts_with("postgres"));
        options.store = store.or(one_file).unwrap_or_else(|| "sqlite://order.db".into());
        crate::database::choose(&options.store)?;
        Ok(Some(options))
    }
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{flag} needs a number, and got {text:?}"))
}

fn role(text: &str) -> Result<Role, String> {
    Ok(match text {
        "all" => Role::All,
        "saga" => Role::Saga,
        "payment" => Role::Payment,
        "shipping" => Role::Shipping,
        "place" => Role::Place,
        other => return Err(format!("there is no role {other:?}: all, saga, payment, shipping or place")),
    })
}
