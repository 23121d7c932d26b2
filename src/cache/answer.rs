use std::time::Duration;

use bytes::{Bytes, BytesMut};
#[cfg(feature = "redis")]
use http::HeaderValue;
use http::{HeaderMap, StatusCode, Version};
use http_body::Frame;

/// A whole answer as it is kept: its head, and its body in the frames in which it came.
#[derive(Clone, Debug)]
pub struct Answer {
    head: Head,
    parts: Box<[Part]>,
    fresh_for: Duration,
    weight: usize,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    /// The length of the body where the service knew it before.
    pub(super) length: Option<u64>,
}

/// A frame that can be sent more than once.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Answer {
    /// An answer of these parts, in memory of its own: a part may be a small piece of a large
    /// buffer, which would then be kept.
    pub(super) fn new<'p>(
        head: Head,
        parts: impl Iterator<Item = &'p Part> + Clone,
        fresh_for: Duration,
    ) -> Self {
        let mut data = BytesMut::with_capacity(parts.clone().map(Part::len).sum());
        let parts: Box<[_]> = parts
            .map(|part| match part {
                Part::Data(bytes) => {
                    data.extend_from_slice(bytes);
                    Part::Data(data.split().freeze())
                }
                Part::Trailers(trailers) => Part::Trailers(trailers.clone()),
            })
            .collect();
        Self::of_parts(head, parts, fresh_for)
    }

    /// An answer of these parts as they are.
    pub(super) fn of_parts(head: Head, parts: Box<[Part]>, fresh_for: Duration) -> Self {
        let weight = head.weight() + parts.iter().map(Part::weight).sum::<usize>();
        Self { head, parts, fresh_for, weight }
    }

    /// One without fields and body, for a try.
    #[cfg(feature = "redis")]
    pub(super) fn empty() -> Self {
        let head = Head {
            status: StatusCode::NO_CONTENT,
            version: Version::HTTP_11,
            headers: HeaderMap::new(),
            length: Some(0),
        };
        Self::of_parts(head, Box::default(), Duration::from_secs(1))
    }

    /// How long after it was made it may be given without a look at the service.
    pub const fn fresh_for(&self) -> Duration {
        self.fresh_for
    }

    /// What it takes in memory, in bytes: names, values and frames with what stands around them.
    pub const fn weight(&self) -> usize {
        self.weight
    }

    /// Its status.
    pub const fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Its header fields.
    pub const fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The data of its body, frame by frame.
    pub fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().filter_map(|part| match part {
            Part::Data(bytes) => Some(bytes),
            Part::Trailers(_) => None,
        })
    }

    /// Whether one of its fields is marked as sensitive.
    #[cfg(feature = "redis")]
    pub(super) fn is_sensitive(&self) -> bool {
        let trailers = self.parts.iter().filter_map(|part| match part {
            Part::Trailers(trailers) => Some(trailers),
            Part::Data(_) => None,
        });
        std::iter::once(&self.head.headers)
            .chain(trailers)
            .any(|fields| fields.values().any(HeaderValue::is_sensitive))
    }

    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl Head {
    pub(super) fn weight(&self) -> usize {
        AROUND_ANSWER + weight_of(&self.headers)
    }
}

impl Part {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Trailers(_) => 0,
        }
    }

    pub(super) fn weight(&self) -> usize {
        AROUND_PART
            + match self {
                Self::Data(bytes) => bytes.len(),
                Self::Trailers(trailers) => weight_of(trailers),
            }
    }

    pub(super) fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(bytes) => Frame::data(bytes),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    /// `None` for a frame of a kind that is not known.
    pub(super) fn from_frame(frame: Frame<Bytes>) -> Option<Self> {
        match frame.into_data() {
            Ok(data) => Some(Self::Data(data)),
            Err(frame) => frame.into_trailers().ok().map(Self::Trailers),
        }
    }
}

fn weight_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| AROUND_FIELD + name.as_str().len() + value.len()).sum()
}

/// What stands around an answer, a part and a header field in memory, from above: it keeps a body
/// of a million empty frames from weighing nothing.
const AROUND_ANSWER: usize = 512;
pub(super) const AROUND_PART: usize = 128;
pub(super) const AROUND_FIELD: usize = 128;
