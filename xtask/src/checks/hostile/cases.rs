//! The list: research/reliability.md 9.3, as far as it concerns core, queues and store.

use serde_json::{Value, json};

use super::given::Row;
use super::messages;
use sagabus_testkit::rng::Rng;

/// What is to become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// A dead letter whose reason and detail contain this, and no effect.
    Dead(&'static str),
    /// Exactly this effect: (kind, key).
    Effect(&'static str, String),
    /// Neither: a declared policy dropped it.
    Dropped,
    /// An effect, and a dead letter of something it sent, with this reason.
    EffectAndDead(&'static str, &'static str),
}

/// A row of the list.
pub struct Case {
    /// What is done.
    pub name: String,
    /// SQL on the store before it.
    pub before: Option<String>,
    /// The message.
    pub row: Row,
    /// What must come of it.
    pub expect: Expect,
    /// It may end the process, which is then started again.
    pub lethal: bool,
}

pub(super) struct List<'a> {
    pub(super) rng: &'a mut Rng,
    cases: Vec<Case>,
}

impl List<'_> {
    pub(super) fn add(&mut self, name: impl Into<String>, row: Row, expect: Expect) -> &mut Case {
        self.cases.push(Case { name: name.into(), before: None, row, expect, lethal: false });
        let last = self.cases.len() - 1;
        &mut self.cases[last]
    }

    pub(super) fn body(&mut self, name: &str, body: impl Into<Vec<u8>>, expect: Expect) {
        let row = Row::good(self.rng, "hostile.typed", body);
        self.add(format!("body: {name}"), row, expect);
    }

    pub(super) fn headers(&mut self, name: &str, change: Value, expect: Expect) {
        let row = Row::with(self.rng, "hostile.typed", GOOD, change);
        self.add(format!("headers: {name}"), row, expect);
    }

    pub(super) fn raw(&mut self, name: &str, headers: impl Into<Vec<u8>>) {
        let row = Row::raw(self.rng, headers);
        self.add(format!("headers: {name}"), row, Expect::Dead("undecodable"));
    }

    fn key(&mut self, name: &str, key: &str, expect: Expect) {
        let row = Row::good(self.rng, "hostile.open", json!({ "key": key }).to_string());
        self.add(format!("key: {name}"), row, expect);
    }

    fn boom(&mut self, how: &str, expect: Expect, lethal: bool) {
        let row = Row::good(self.rng, "hostile.boom", json!({ "how": how }).to_string());
        self.add(format!("handler: {how}"), row, expect).lethal = lethal;
    }

    fn state(&mut self, name: &str, key: &str, change: &str, expect: Expect) {
        let row = Row::good(self.rng, "hostile.poke", json!({ "key": key }).to_string());
        let insert = format!(
            "insert into saga (kind, key, instance, version, state, schema, created_at, updated_at)
             values ('victim/account', '{key}', randomblob(16), 1, cast('{{\"pokes\":0}}' as blob), 1, 0, 0);
             update saga set {change} where key = '{key}'"
        );
        self.add(format!("state: {name}"), row, expect).before = Some(insert);
    }
}

pub(super) const GOOD: &str = r#"{"a":1,"b":"red","c":-1}"#;
pub(super) const UNDECODABLE: Expect = Expect::Dead("undecodable");
pub(super) const LIMITS: Expect = Expect::Dead("over the limits");

pub(super) fn handled() -> Expect {
    Expect::Effect("typed", String::new())
}

/// All cases. Lethal ones come last.
pub fn all(rng: &mut Rng) -> Vec<Case> {
    let mut list = List { rng, cases: Vec::new() };
    messages::bodies(&mut list);
    messages::headers(&mut list);
    addresses(&mut list);
    keys(&mut list);
    states(&mut list);
    handlers(&mut list);
    list.cases
}

fn addresses(list: &mut List<'_>) {
    let saga = |kind: &str| json!({ "k": kind, "v": "spoofed", "i": "018f0000-0000-7000-8000-000000000000" });
    let mut put = |name: &str, message_type: &str, body: &str, change: Value, expect: Expect| {
        let row = Row::with(list.rng, message_type, body, change);
        list.add(format!("address: {name}"), row, expect);
    };
    let tock = "hostile.tock";
    put(
        "a timeout over the transport",
        tock,
        "null",
        json!({ "intent": "timeout", "to": saga("victim/account") }),
        Expect::Dead("not a timer's"),
    );
    put("a timeout without a saga", tock, "null", json!({ "intent": "timeout" }), Expect::Dead("not a timer's"));
    put("a timeout's type as a command", tock, "null", json!({}), Expect::Dead("unknown message type"));
    let poke = r#"{"key":"spoofed"}"#;
    let reply = |kind: &str| json!({ "intent": "reply", "to": saga(kind) });
    put("a reply to an unknown life", "hostile.poke", poke, reply("victim/account"), Expect::Dead(""));
    put("a reply to another kind of saga", "hostile.poke", poke, reply("other/tenant"), Expect::Dead(""));
    put("a reply to a saga with SQL", "hostile.poke", poke, reply("x'; drop table saga; --"), Expect::Dead(""));
    put(
        "a command that names a saga (ignored)",
        "hostile.poke",
        poke,
        json!({ "to": saga("victim/account") }),
        Expect::Dead("there is no saga"),
    );
    put("a broken saga address", "hostile.poke", poke, json!({ "to": { "k": 1 } }), UNDECODABLE);
    let asks = |to: &str| json!({ "reply": to });
    put("replies nowhere", "hostile.ask", "{}", json!({}), Expect::Dead("names no place for replies"));
    put(
        "replies to a queue that is not there",
        "hostile.ask",
        "{}",
        asks("nobody"),
        Expect::EffectAndDead("asked", "unroutable"),
    );
    put("replies to SQL", "hostile.ask", "{}", asks("x; DROP TABLE queue"), Expect::Dead(""));
    put(
        "replies to itself",
        "hostile.ask",
        "{}",
        asks("victim"),
        Expect::EffectAndDead("asked", "unknown message type"),
    );
    put("replies to a path", "hostile.ask", "{}", asks("../../../etc"), Expect::EffectAndDead("asked", "unroutable"));
}

fn keys(list: &mut List<'_>) {
    let opened = |key: &str| Expect::Effect("opened", key.to_owned());
    list.key("empty", "", UNDECODABLE);
    list.key("255 bytes", &"k".repeat(255), opened(&"k".repeat(255)));
    list.key("256 bytes", &"k".repeat(256), UNDECODABLE);
    list.key("900 KB", &"k".repeat(900_000), UNDECODABLE);
    list.key("with NUL", "a\0b", UNDECODABLE);
    for (name, key) in [
        ("plain", "case"),
        ("other case", "Case"),
        ("space behind", "case "),
        ("combined character", "e\u{301}"),
        ("single character", "\u{e9}"),
        ("zero width", "ca\u{200b}se"),
        ("right to left", "\u{202e}case"),
        ("SQL", "'; drop table saga; --"),
        ("format", "{}%s%n"),
        ("newline", "a\nb"),
    ] {
        list.key(name, key, opened(key));
    }
}

fn states(list: &mut List<'_>) {
    list.state("as it should be", "s0", "version = version", Expect::Effect("poked", "s0".into()));
    list.state("no JSON", "s1", "state = cast('{\"pok' as blob)", Expect::Dead("cannot decode the state"));
    list.state("empty", "s2", "state = zeroblob(0)", Expect::Dead("cannot decode the state"));
    list.state("NUL bytes", "s3", "state = zeroblob(100)", Expect::Dead("cannot decode the state"));
    list.state(
        "another type",
        "s4",
        "state = cast('{\"pokes\":\"x\"}' as blob)",
        Expect::Dead("cannot decode the state"),
    );
    list.state(
        "nested deep",
        "s5",
        "state = cast(replace(hex(zeroblob(50000)), '00', '[') as blob)",
        Expect::Dead("cannot decode the state"),
    );
    list.state("newer schema", "s6", "schema = 99", Expect::Dead("schema 99"));
    list.state("older schema", "s7", "schema = 0", Expect::Dead("schema 0"));
    list.state("origin is rubbish", "s9", "origin = x'ff00'", Expect::Effect("poked", "s9".into()));
}

fn handlers(list: &mut List<'_>) {
    list.boom("fine", Expect::Effect("boom", "fine".into()), false);
    list.boom("panic", Expect::Dead("panicked: as it was told"), false);
    list.boom("block", Expect::Effect("boom", "block".into()), false);
    list.boom("hold", Expect::Effect("boom", "hold".into()), false);
    list.boom("secret", Expect::Dead("handler failed"), false);
    list.boom("long", Expect::Dead("permanent failure"), false);
    list.boom("exit", Expect::Dead("the process died"), true);
    list.boom("abort", Expect::Dead("the process died"), true);
    list.boom("alloc", Expect::Dead(""), true);
}
