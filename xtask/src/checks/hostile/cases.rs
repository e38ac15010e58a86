//! The list: research/reliability.md 9.3, as far as it concerns core, queues and store.

use serde_json::{Value, json};

use super::given::Row;
use crate::rng::Rng;

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

struct List<'a> {
    rng: &'a mut Rng,
    cases: Vec<Case>,
}

impl List<'_> {
    fn add(&mut self, name: impl Into<String>, row: Row, expect: Expect) -> &mut Case {
        self.cases.push(Case { name: name.into(), before: None, row, expect, lethal: false });
        let last = self.cases.len() - 1;
        &mut self.cases[last]
    }

    fn body(&mut self, name: &str, body: impl Into<Vec<u8>>, expect: Expect) {
        let row = Row::good(self.rng, "hostile.typed", body);
        self.add(format!("body: {name}"), row, expect);
    }

    fn headers(&mut self, name: &str, change: Value, expect: Expect) {
        let row = Row::with(self.rng, "hostile.typed", GOOD, change);
        self.add(format!("headers: {name}"), row, expect);
    }

    fn raw(&mut self, name: &str, headers: impl Into<Vec<u8>>) {
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

const GOOD: &str = r#"{"a":1,"b":"red","c":-1}"#;
const UNDECODABLE: Expect = Expect::Dead("undecodable");
const LIMITS: Expect = Expect::Dead("over the limits");

fn handled() -> Expect {
    Expect::Effect("typed", String::new())
}

/// All cases. Lethal ones come last.
pub fn all(rng: &mut Rng) -> Vec<Case> {
    let mut list = List { rng, cases: Vec::new() };
    bodies(&mut list);
    headers(&mut list);
    addresses(&mut list);
    keys(&mut list);
    states(&mut list);
    handlers(&mut list);
    list.cases
}

fn bodies(list: &mut List<'_>) {
    list.body("as it should be", GOOD, handled());
    list.body("empty", "", UNDECODABLE);
    list.body("truncated", &GOOD.as_bytes()[..GOOD.len() - 3], UNDECODABLE);
    list.body("trailing bytes", format!("{GOOD} x"), UNDECODABLE);
    list.body("two values", format!("{GOOD}{GOOD}"), UNDECODABLE);
    list.body("byte order mark", format!("\u{feff}{GOOD}"), UNDECODABLE);
    list.body("NUL behind", format!("{GOOD}\0"), UNDECODABLE);
    list.body("NUL only", "\0\0\0\0", UNDECODABLE);
    list.body("comment", format!("/* hi */ {GOOD}"), UNDECODABLE);
    list.body("NaN", r#"{"a":1,"b":"red","c":1,"d":NaN}"#, UNDECODABLE);
    list.body("1e999", r#"{"a":1,"b":"red","c":1,"d":1e999}"#, UNDECODABLE);
    list.body("duplicate keys", r#"{"a":1,"a":2,"b":"red","c":1}"#, UNDECODABLE);
    list.body("lone surrogate", r#"{"a":1,"b":"red","c":1,"text":"\ud800"}"#, UNDECODABLE);
    list.body("no UTF-8", b"{\"a\":1,\"b\":\"red\",\"c\":1,\"text\":\"\xff\xfe\"}".to_vec(), UNDECODABLE);
    list.body("random bytes", (0..200u16).map(|n| (n * 7 % 256) as u8).collect::<Vec<_>>(), UNDECODABLE);
    list.body("MessagePack", vec![0x83, 0xa1, b'a', 1, 0xa1, b'b', 0xa3, b'r', b'e', b'd'], UNDECODABLE);
    for (depth, expect) in [(100, handled()), (129, UNDECODABLE), (100_000, UNDECODABLE)] {
        let nested = format!(r#"{{"a":1,"b":"red","c":1,"any":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        list.body(&format!("nested {depth} deep"), nested, expect);
    }
    list.body("unclosed 500,000 deep", "[".repeat(500_000), UNDECODABLE);
    let wide = format!(r#"{{"a":1,"b":"red","c":1,"any":[{}0]}}"#, "0,".repeat(200_000));
    list.body("array of 200,000", wide, handled());
    let large = format!(r#"{{"a":1,"b":"red","c":1,"any":"{}"}}"#, "x".repeat((1 << 20) + 1));
    list.body("over 1 MiB", large, LIMITS);
    list.body("64 MiB", vec![b'x'; 64 << 20], LIMITS);
    list.body("array for a struct's name", r#"["a"]"#, UNDECODABLE);
    list.body("null", "null", UNDECODABLE);
    list.body("missing field", r#"{"a":1,"b":"red"}"#, UNDECODABLE);
    list.body("unknown field (taken)", r#"{"a":1,"b":"red","c":1,"z":1}"#, handled());
    list.body("wrong type", r#"{"a":"1","b":"red","c":1}"#, UNDECODABLE);
    list.body("unknown enum value", r#"{"a":1,"b":"blue","c":1}"#, UNDECODABLE);
    list.body("-1 for u64", r#"{"a":-1,"b":"red","c":1}"#, UNDECODABLE);
    list.body("2^64 for u64", r#"{"a":18446744073709551616,"b":"red","c":1}"#, UNDECODABLE);
    list.body("2^31 for i32", r#"{"a":1,"b":"red","c":2147483648}"#, UNDECODABLE);
    list.body("1.5 for u64", r#"{"a":1.5,"b":"red","c":1}"#, UNDECODABLE);
}

fn headers(list: &mut List<'_>) {
    list.raw("empty", "");
    list.raw("not JSON", "hello");
    list.raw("truncated", r#"{"id":"#);
    list.raw("array", "[]");
    list.raw("empty object", "{}");
    list.raw("nested 100,000 deep", "[".repeat(100_000));
    list.raw("no UTF-8", b"\xff\xfe\xfd".to_vec());
    list.raw("NUL", b"{\0}".to_vec());
    list.raw("1 MiB of spaces", " ".repeat(1 << 20));
    list.headers("no id (the queue's is taken)", json!({ "id": Value::Null }), UNDECODABLE);
    list.headers("id is no UUID", json!({ "id": "'; drop table queue; --" }), UNDECODABLE);
    list.headers("no type", json!({ "type": Value::Null }), UNDECODABLE);
    list.headers("unknown type", json!({ "type": "hostile.none" }), Expect::Dead("unknown message type"));
    list.headers("type is a path", json!({ "type": "../../etc/passwd" }), Expect::Dead(""));
    list.headers("type with SQL", json!({ "type": "x'; drop table saga; --" }), LIMITS);
    list.headers("type with CRLF and ANSI", json!({ "type": "a\r\nb\u{1b}[31m" }), LIMITS);
    list.headers("type of 10 KB", json!({ "type": "x".repeat(10_000) }), LIMITS);
    list.headers("empty type", json!({ "type": "" }), LIMITS);
    list.headers("unknown intent", json!({ "intent": "order" }), UNDECODABLE);
    list.headers("intent is a number", json!({ "intent": 7 }), UNDECODABLE);
    list.headers("unknown encoding", json!({ "ct": "application/x-bomb" }), UNDECODABLE);
    list.headers("unknown header (ignored)", json!({ "zzz": [1, 2, 3] }), handled());
    list.headers("sent in 1970", json!({ "sent": 0 }), handled());
    list.headers("sent in 2099", json!({ "sent": 4_070_908_800_000_000_i64 }), handled());
    list.headers("sent at the end of time", json!({ "sent": i64::MAX }), handled());
    list.headers("sent before all time", json!({ "sent": i64::MIN }), handled());
    list.headers("sent is text", json!({ "sent": "yesterday" }), UNDECODABLE);
    list.headers("sent is 1e400", json!({ "sent": 1e300 }), UNDECODABLE);
    list.headers("expired", json!({ "exp": 1_000_000 }), Expect::Dropped);
    list.headers("expired before all time", json!({ "exp": i64::MIN }), Expect::Dropped);
    list.headers("never expires", json!({ "exp": i64::MAX }), handled());
    list.headers("4 billion attempts", json!({ "att": u32::MAX }), handled());
    list.headers("-1 attempts", json!({ "att": -1 }), UNDECODABLE);
    list.headers("traceparent is rubbish", json!({ "tp": "00-zz-\u{0}-'; --" }), handled());
    list.headers("traceparent of 64 KB", json!({ "tp": "0".repeat(65_536) }), LIMITS);
    list.headers("tracestate of 10,000 entries", json!({ "ts": "a=b,".repeat(10_000) }), LIMITS);
    let many: Value =
        (0..1000).map(|n| (format!("h{n}"), json!({ "v": "x" }))).collect::<serde_json::Map<_, _>>().into();
    list.headers("1,000 user headers", json!({ "user": many }), LIMITS);
    list.headers("a user header of 100 KB", json!({ "user": { "h": { "v": "x".repeat(100_000) } } }), LIMITS);
    list.headers("a user header that is a list", json!({ "user": { "h": [1] } }), UNDECODABLE);
    list.headers("order key of 1 MB", json!({ "key": "k".repeat(1 << 20) }), LIMITS);
    list.headers("order key with NUL", json!({ "key": "a\u{0}b" }), handled());
    list.headers("correlation with SQL", json!({ "corr": "'; drop table inbox; --" }), handled());
    let row = Row { id: vec![1, 2, 3], ..Row::good(list.rng, "hostile.typed", GOOD) };
    list.add("headers: the queue's id has 3 bytes (made one)", row, handled());
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
