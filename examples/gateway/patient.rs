//! A connection whose other end may let us wait for so long and no longer.

use std::{
    io,
    num::NonZeroU32,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// A stream whose reader is waited for with patience: the time that it lets us wait adds up, and what it
/// reads at the least rate is taken off. So who reads nothing is cut off after the patience, who reads a
/// little slower than that rate a little later, and who keeps up never, however long an answer takes to
/// be made.
pub(crate) struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Bytes a second.
    least_rate: NonZeroU32,
    /// Since when it takes nothing.
    blocked: Option<Instant>,
    /// How long it has let us wait before that.
    waited: Duration,
    /// Made when there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, patience: Duration, least_rate: NonZeroU32) -> Self {
        let (blocked, waited, timer) = (None, Duration::ZERO, None);
        Self { stream, patience, least_rate, blocked, waited, timer }
    }

    /// What became of a write, unless the patience is over.
    fn judge(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                let blocked = self.blocked.take().map_or(Duration::ZERO, |since| since.elapsed());
                let taken = time_for(bytes, self.least_rate);
                self.waited = (self.waited + blocked).saturating_sub(taken);
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                let since = *self.blocked.get_or_insert_with(Instant::now);
                let end = since + self.patience.saturating_sub(self.waited);
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
                if timer.deadline() != end {
                    timer.as_mut().reset(end);
                }
                timer.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            failed => failed,
        }
    }
}

/// How long so many bytes take at a rate.
pub(crate) fn time_for(bytes: usize, rate: NonZeroU32) -> Duration {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Duration::from_millis(bytes.saturating_mul(1_000) / u64::from(rate.get()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
