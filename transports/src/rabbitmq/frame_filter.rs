//! The connection as the client library sees it: every frame has gone through [`mend`] before.

use super::frame_repair::repair;
use async_rs::{Tokio, traits::Reactor, util::RuntimeParts};
use futures::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig};
use lapin::{Connection, ConnectionProperties, uri::AMQPUri};
use std::{
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// Connects, with the frames mended on their way in; below them TLS, if the URI says so.
pub(super) async fn connect(
    uri: AMQPUri,
    properties: ConnectionProperties,
    tls: OwnedTLSConfig,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let runtime = async_rs::Runtime::new(RuntimeParts::new(tokio.clone(), FilteringReactor(tokio.clone())));
    let below = async_rs::Runtime::new(tokio);
    let open = async move |uri: AMQPUri, _| {
        let stream = AMQPUriTcpExt::connect_with_config_async(&uri, tls.as_ref(), &below).await?;
        Ok(AsyncTcpStream::Plain(FrameFilter::new(stream)))
    };
    Box::pin(Connection::connector(uri, runtime, open, properties)).await
}

type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Tokio, with another type of streams.
#[derive(Clone, Debug)]
pub(super) struct FilteringReactor(Tokio);

impl Reactor for FilteringReactor {
    type TcpStream = FrameFilter<Socket>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Nobody asks for it: lapin connects.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(FrameFilter::new(AsyncTcpStream::Plain(connecting.await?))) }
    }
}

/// How much is read at once; more where a frame is larger.
const READ_BUFFER_BYTES: usize = 128 << 10;

/// A frame that is said to be longer than this is none of AMQP's.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Holds method and header frames back until they are whole and mended; everything else goes through.
pub(super) struct FrameFilter<S> {
    inner: S,
    buffer: Vec<u8>,
    /// What is handed out next, what may be handed out, and what was read.
    begin: usize,
    repaired: usize,
    end: usize,
    /// How much of a body is still to come.
    body: usize,
    /// It is not AMQP: an answer to another version, or an end in the middle.
    raw: bool,
}

impl<S> FrameFilter<S> {
    fn new(inner: S) -> Self {
        Self { inner, buffer: vec![0; READ_BUFFER_BYTES], begin: 0, repaired: 0, end: 0, body: 0, raw: false }
    }

    fn filter_frames(&mut self) {
        while self.repaired < self.end {
            let there = self.end - self.repaired;
            if self.raw || self.body > 0 {
                let passed = if self.raw { there } else { there.min(self.body) };
                self.body = self.body.saturating_sub(passed);
                self.repaired += passed;
                continue;
            }
            let frame = &mut self.buffer[self.repaired..self.end];
            let &mut [kind, _, _, a, b, c, d, ..] = frame else { return };
            // with the head and the end byte
            let size = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(8);
            match kind {
                3 | 8 => self.body = size,
                1 | 2 if size <= MAX_FRAME_BYTES => {
                    let Some(frame) = frame.get_mut(..size) else { return };
                    repair(kind == 2, &mut frame[7..size - 1]);
                    self.repaired += size;
                }
                _ => self.raw = true,
            }
        }
    }

    /// Room behind what was read.
    fn make_space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.repaired, self.end, self.begin) = (self.repaired - self.begin, self.end - self.begin, 0);
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end * 2, 0);
        }
        &mut self.buffer[self.end..]
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameFilter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.begin < this.repaired {
                let count = into.len().min(this.repaired - this.begin);
                into[..count].copy_from_slice(&this.buffer[this.begin..this.begin + count]);
                this.begin += count;
                return Poll::Ready(Ok(count));
            }
            this.make_space();
            let (inner, make_space) = (&mut this.inner, &mut this.buffer[this.end..]);
            match ready!(Pin::new(inner).poll_read(cx, make_space))? {
                0 if this.end == this.begin => return Poll::Ready(Ok(0)),
                0 => this.raw = true,
                count => this.end += count,
            }
            this.filter_frames();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameFilter<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{AsyncReadExt as _, FutureExt as _};

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1], &u32::try_from(payload.len()).unwrap().to_be_bytes()[..], payload, &[0xce]].concat()
    }

    /// A header frame whose only property is the type.
    fn header(kind: &[u8]) -> Vec<u8> {
        let fixed = [&[0, 60, 0, 0][..], &[0; 8], &(1u16 << 5).to_be_bytes()].concat();
        frame(2, &[&fixed[..], &[u8::try_from(kind.len()).unwrap()], kind].concat())
    }

    /// Gives so many bytes at a time.
    struct Drops(Vec<u8>, usize);

    impl AsyncRead for Drops {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let count = this.1.min(into.len()).min(this.0.len());
            into[..count].copy_from_slice(&this.0[..count]);
            this.0.drain(..count);
            Poll::Ready(Ok(count))
        }
    }

    fn through(bytes: &[u8], at_once: usize) -> Vec<u8> {
        let mut read = Vec::new();
        let mut filter = FrameFilter::new(Drops(bytes.to_vec(), at_once));
        filter.read_to_end(&mut read).now_or_never().unwrap().unwrap();
        read
    }

    #[test]
    fn frames_are_mended_however_they_arrive() {
        let body = frame(3, &[0xff; 5000]);
        let long = "x".repeat(250);
        let came = [header(b"\xff\xfe"), body.clone(), frame(8, b""), header(long.as_bytes()), body.clone()].concat();
        let wanted = [header(b"\x1a\x1a"), body.clone(), frame(8, b""), header(long.as_bytes()), body].concat();
        for at_once in [1, 3, 7, 100, 4096, usize::MAX] {
            assert_eq!(through(&came, at_once), wanted, "{at_once} at once");
        }
    }

    #[test]
    fn what_is_not_amqp_goes_through() {
        for bytes in [&b"AMQP\x00\x00\x09\x01"[..], b"HTTP/1.1 400 Bad Request\r\n", &header(b"cut off")[..12], b"\x02"]
        {
            assert_eq!(through(bytes, 5), bytes);
        }
        let large = frame(2, &vec![7; 300 << 10]);
        assert_eq!(through(&large, 50_000), large, "larger than the room that there was");
    }
}
