//! The cases about one message: its body and its headers.

use serde_json::{Value, json};

use super::cases::{Expect, GOOD, LIMITS, List, UNDECODABLE, handled};
use super::given::Row;

pub(super) fn bodies(list: &mut List<'_>) {
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

pub(super) fn headers(list: &mut List<'_>) {
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
