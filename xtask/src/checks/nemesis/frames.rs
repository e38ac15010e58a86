//! AMQP 0-9-1 frames by hand: enough for a proxy to tell them apart, and for a client that says what no library would.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Reads one frame whole, from its type to its end byte.
pub fn read(input: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    input.read_exact(&mut frame)?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
    frame.resize(7 + size + 1, 0);
    input.read_exact(&mut frame[7..])?;
    Ok(frame)
}

/// Class and method, if it is a method.
pub fn method(frame: &[u8]) -> Option<(u16, u16)> {
    let at = |n: usize| Some(u16::from_be_bytes([*frame.get(n)?, *frame.get(n + 1)?]));
    if frame.first() == Some(&1) { Some((at(7)?, at(9)?)) } else { None }
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xce]].concat()
}

fn call(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())
}

/// A headers table of names and values; a value begins with its type.
pub fn headers(entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let entry = |(name, value): &(&[u8], &[u8])| [&short(name)[..], value].concat();
    long(&entries.iter().flat_map(entry).collect::<Vec<u8>>())
}

/// A headers table with a table (`F`) or an array (`A`) in another, and so on, so deep.
pub fn nested(kind: u8, depth: usize) -> Vec<u8> {
    let name = if kind == b'F' { short(b"") } else { Vec::new() };
    let mut inner = Vec::new();
    for _ in 0..depth {
        inner = [&name[..], &[kind], &long(&inner)].concat();
    }
    headers(&[(&b"deep"[..], &[&[kind][..], &long(&inner)].concat())])
}

/// Publishes to a queue with these bytes as the property `type` and as the headers, whatever they are; waits for the
/// confirm.
pub fn publish(address: &str, queue: &str, kind: &[u8], headers: &[u8], id: &str) -> Result<()> {
    let (login, environment) =
        address.split_once("://").and_then(|(_, rest)| rest.split_once('@')).context("an amqp URL")?;
    let (user, password) = login.split_once(':').context("a login in the amqp URL")?;
    let environment = environment.split('/').next().unwrap_or(environment);
    let mut stream = TcpStream::connect(environment).context("connect to the broker")?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).context("set a timeout")?;
    let login = long(format!("\0{user}\0{password}").as_bytes());
    let publish = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    let mut say = |bytes: &[u8]| -> Result<Vec<u8>> {
        stream.write_all(bytes).context("write to the broker")?;
        read(&mut stream).context("read from the broker")
    };
    say(b"AMQP\0\0\x09\x01")?;
    say(&call(0, 10, 11, &[&long(b"")[..], &short(b"PLAIN"), &login, &short(b"en_US")].concat()))?;
    // channels, frame size, no heartbeat; then the virtual host
    let tune = call(0, 10, 31, &[0, 10, 0, 2, 0, 0, 0, 0]);
    say(&[tune, call(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat())].concat())?;
    say(&call(1, 20, 10, &short(b"")))?;
    say(&call(1, 85, 10, &[0]))?;
    // headers, delivery mode, message id, type
    let flags: u16 = 1 << 13 | 1 << 12 | 1 << 7 | 1 << 5;
    let mut header = [&60u16.to_be_bytes()[..], &[0, 0], &2u64.to_be_bytes(), &flags.to_be_bytes()].concat();
    header.extend([headers, &[2], &short(id.as_bytes()), &short(kind)].concat());
    let confirm = say(&[call(1, 60, 40, &publish), frame(2, 1, &header), frame(3, 1, b"{}")].concat())?;
    ensure!(method(&confirm) == Some((60, 80)), "the broker does not take it: {:?}", method(&confirm));
    Ok(())
}
