//! AMQP frames by hand, and a hostile client made of them: it says what no library would.

#![allow(clippy::disallowed_methods, reason = "a client stands outside of the product, in real time")]

use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long the broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How many bytes of a frame follow its first seven.
pub fn rest(head: &[u8]) -> usize {
    u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1
}

/// Class and method of a frame, if it is a method's.
pub fn method(frame: &[u8]) -> Option<(u16, u16)> {
    let at = |n: usize| Some(u16::from_be_bytes([*frame.get(n)?, *frame.get(n + 1)?]));
    if frame.first() == Some(&1) { Some((at(7)?, at(9)?)) } else { None }
}

/// A short string.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8], text].concat()
}

/// A long string, or a table.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xce]].concat()
}

/// The frame of a method.
pub fn call(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
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

/// Publishes to a queue of the broker at `amqp://user:password@host:port`, with these bytes as the property `type` and as
/// the headers, whatever they are; waits for the confirm.
///
/// # Errors
/// If the broker does not answer, or does not take it.
pub async fn publish(address: &str, queue: &str, kind: &[u8], headers: &[u8], id: &str) -> io::Result<()> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, "no amqp URL with a login");
    let (login, host) = address.split_once("://").and_then(|(_, rest)| rest.split_once('@')).ok_or_else(bad)?;
    let (user, password) = login.split_once(':').ok_or_else(bad)?;
    let mut stream = TcpStream::connect(host.split('/').next().unwrap_or(host)).await?;
    let mut say = async |bytes: &[u8]| -> io::Result<Vec<u8>> {
        stream.write_all(bytes).await?;
        tokio::time::timeout(ANSWER_TIMEOUT, read(&mut stream)).await?
    };
    let login = long(format!("\0{user}\0{password}").as_bytes());
    say(b"AMQP\0\0\x09\x01").await?;
    say(&call(0, 10, 11, &[&long(b"")[..], &short(b"PLAIN"), &login, &short(b"en_US")].concat())).await?;
    // channels, frame size, no heartbeat; then the virtual host
    let tune = call(0, 10, 31, &[0, 10, 0, 2, 0, 0, 0, 0]);
    say(&[tune, call(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat())].concat()).await?;
    say(&call(1, 20, 10, &short(b""))).await?;
    say(&call(1, 85, 10, &[0])).await?;
    // headers, delivery mode, message id, type
    let flags: u16 = 1 << 13 | 1 << 12 | 1 << 7 | 1 << 5;
    let mut header = [&60u16.to_be_bytes()[..], &[0, 0], &2u64.to_be_bytes(), &flags.to_be_bytes()].concat();
    header.extend([headers, &[2], &short(id.as_bytes()), &short(kind)].concat());
    let publish = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    let confirm = say(&[call(1, 60, 40, &publish), frame(2, 1, &header), frame(3, 1, b"{}")].concat()).await?;
    if method(&confirm) != Some((60, 80)) {
        return Err(io::Error::other(format!("the broker does not take it: {:?}", method(&confirm))));
    }
    Ok(())
}

async fn read(input: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    input.read_exact(&mut frame).await?;
    frame.resize(7 + rest(&frame), 0);
    input.read_exact(&mut frame[7..]).await?;
    Ok(frame)
}
