//! A client that says what no library would: frames by hand.
#![allow(dead_code, reason = "each test program uses what it needs")]

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind], &channel.to_be_bytes()[..], &long(payload), &[0xce]].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat())
}

/// A table in a table in a table, so deep, as the value of one header.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..depth {
        table = [&short(b"")[..], b"F", &long(&table)].concat();
    }
    long(&table)
}

/// Publishes with these raw bytes as `type` and as the headers table.
pub(crate) async fn publish(place: &str, user: &str, password: &str, queue: &str, kind: &[u8], headers: &[u8]) {
    let mut stream = TcpStream::connect(place).await.unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    read(&mut stream).await;
    let login = long(format!("\0{user}\0{password}").as_bytes());
    let start = [&long(b"")[..], &short(b"PLAIN"), &login, &short(b"en_US")].concat();
    stream.write_all(&method(0, 10, 11, &start)).await.unwrap();
    read(&mut stream).await;
    // channels, frame size, no heartbeat
    stream.write_all(&method(0, 10, 31, &[0, 10, 0, 2, 0, 0, 0, 0])).await.unwrap();
    stream.write_all(&method(0, 10, 40, &[&short(b"/")[..], &short(b""), &[0]].concat())).await.unwrap();
    read(&mut stream).await;
    stream.write_all(&method(1, 20, 10, &short(b""))).await.unwrap();
    read(&mut stream).await;
    stream.write_all(&method(1, 85, 10, &[0])).await.unwrap();
    read(&mut stream).await;
    let publish = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    stream.write_all(&method(1, 60, 40, &publish)).await.unwrap();
    // headers, delivery mode, message id, type
    let flags: u16 = 1 << 13 | 1 << 12 | 1 << 7 | 1 << 5;
    let body = b"{}";
    let mut header =
        [&60u16.to_be_bytes()[..], &[0, 0], &(body.len() as u64).to_be_bytes(), &flags.to_be_bytes()].concat();
    header.extend([headers, &[2], &short(b"hostile-1"), &short(kind)].concat());
    stream.write_all(&frame(2, 1, &header)).await.unwrap();
    stream.write_all(&frame(3, 1, body)).await.unwrap();
    let confirm = read(&mut stream).await;
    assert_eq!(&confirm[..4], [0, 60, 0, 80], "the broker takes it");
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes(head[3..].try_into().unwrap()) as usize + 1];
    stream.read_exact(&mut payload).await.unwrap();
    payload
}
