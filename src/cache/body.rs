use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    answer::{Answer, Part},
    flight::Reader,
};

pin_project! {
    /// The body of a response that went by a cache: the service's own, or one that is read by
    /// several as it comes, or one that was kept. All come in the frames that the service made.
    pub struct AnswerBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Own { text: Bytes },
        Passed { #[pin] body: B },
        Shared { reader: Reader },
        Kept { answer: Arc<Answer>, next: usize, unsent: u64 },
    }
}

impl<B> AnswerBody<B> {
    pub(super) const fn empty() -> Self {
        Self { kind: Kind::EMPTY }
    }

    pub(super) const fn passed(body: B) -> Self {
        Self { kind: Kind::Passed { body } }
    }

    pub(super) const fn shared(reader: Reader) -> Self {
        Self { kind: Kind::Shared { reader } }
    }

    pub(super) fn kept(answer: Arc<Answer>) -> Self {
        let unsent = answer.parts().iter().map(|part| part.len() as u64).sum();
        Self { kind: Kind::Kept { answer, next: 0, unsent } }
    }
}

impl<B> Kind<B> {
    const EMPTY: Self = Self::Own { text: Bytes::new() };
}

/// Empty: with the next one it lets a layer that answers by itself, as a limit does, stand outside.
impl<B> Default for AnswerBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

/// A text in one frame.
impl<B> From<String> for AnswerBody<B> {
    fn from(text: String) -> Self {
        Self { kind: Kind::Own { text: text.into() } }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut kind = self.project().kind;
        let frame = match kind.as_mut().project() {
            KindProjection::Own { text } => {
                let text = std::mem::take(text);
                return Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))));
            }
            KindProjection::Passed { body } => {
                return body.poll_frame(context).map_err(Into::into);
            }
            KindProjection::Kept { answer, next, unsent } => {
                let Some(part) = answer.parts().get(*next) else { return Poll::Ready(None) };
                *next += 1;
                *unsent -= part.len() as u64;
                return Poll::Ready(Some(Ok(part.clone().into_frame())));
            }
            KindProjection::Shared { reader } => ready!(reader.poll_part(context)),
        };
        if !matches!(frame, Some(Ok(_))) {
            // Whoever is at the end does not keep the flight.
            kind.set(Kind::EMPTY);
        }
        Poll::Ready(frame.map(|part| part.map(Part::into_frame).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own { text } => text.is_empty(),
            Kind::Passed { body } => body.is_end_stream(),
            Kind::Shared { reader } => reader.is_at_end(),
            Kind::Kept { answer, next, .. } => *next == answer.parts().len(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own { text } => SizeHint::with_exact(text.len() as u64),
            Kind::Passed { body } => body.size_hint(),
            Kind::Shared { reader } => reader.size_hint(),
            Kind::Kept { answer, unsent, .. } => match answer.head().length {
                Some(_) => SizeHint::with_exact(*unsent),
                // A stream stays a stream.
                None => SizeHint::default(),
            },
        }
    }
}

impl<B> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Own { .. } => "Own",
            Kind::Passed { .. } => "Passed",
            Kind::Shared { .. } => "Shared",
            Kind::Kept { .. } => "Kept",
        };
        f.debug_tuple("AnswerBody").field(&kind).finish()
    }
}
