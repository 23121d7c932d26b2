use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// A body that is there as a whole: that of a stored request or answer, or of an answer of ours.
#[derive(Clone, Default)]
pub struct StoredBody {
    unread: Option<Bytes>,
}

impl StoredBody {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { unread: (!bytes.is_empty()).then_some(bytes) }
    }

    /// The bytes that have not been read.
    pub fn into_bytes(self) -> Bytes {
        self.unread.unwrap_or_default()
    }
}

impl Body for StoredBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.unread.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.unread.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.unread.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

impl fmt::Debug for StoredBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread = self.unread.as_ref().map_or(0, Bytes::len);
        f.debug_struct("StoredBody").field("unread", &unread).finish()
    }
}

pin_project! {
    /// The body of a response that went by a [`Deferred`](super::Deferred) service: the inner
    /// service's, or one of ours.
    #[derive(Debug)]
    pub struct DeferredBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProjection]
    enum Kind<B> {
        Passed { #[pin] body: B },
        Own { body: StoredBody },
    }
}

impl<B> DeferredBody<B> {
    pub(super) const fn passed(body: B) -> Self {
        Self { kind: Kind::Passed { body } }
    }

    pub(super) const fn own(body: StoredBody) -> Self {
        Self { kind: Kind::Own { body } }
    }
}

impl<B: Body<Data = Bytes>> Body for DeferredBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Passed { body } => body.poll_frame(context),
            KindProjection::Own { body } => {
                Pin::new(body).poll_frame(context).map_err(|never| match never {})
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Own { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Passed { body } => body.size_hint(),
            Kind::Own { body } => body.size_hint(),
        }
    }
}
