use std::fmt;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    request, response,
};
use sha2::{Digest, Sha256};

use super::{
    body::StoredBody,
    codec::{Reader, Writer},
};

/// A request as it is kept until it has run.
#[derive(Clone)]
pub struct StoredRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An answer as it is kept until its owner has fetched it.
#[derive(Clone)]
pub struct StoredResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl StoredRequest {
    /// The method, the target, the header fields that are named, and the body.
    pub(super) fn new(parts: &request::Parts, names: &[HeaderName], body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        for name in names {
            for line in parts.headers.get_all(name) {
                headers.append(name.clone(), line.clone());
            }
        }
        Self { method: parts.method.clone(), uri: parts.uri.clone(), headers, body }
    }

    /// A request that is made by hand, for the tests of a store.
    pub fn from_request(request: Request<Bytes>) -> Self {
        let (parts, body) = request.into_parts();
        Self { method: parts.method, uri: parts.uri, headers: parts.headers, body }
    }

    /// Its method.
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// Its target.
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The header fields that were kept.
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// It as bytes, for a store.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        self.write_head(&mut writer, &self.headers);
        writer.raw(&self.body);
        writer.finish().into()
    }

    fn write_head(&self, writer: &mut Writer, headers: &HeaderMap) {
        writer.text(self.method.as_str().as_bytes());
        writer.text(self.uri.to_string().as_bytes());
        write_headers(writer, headers);
    }

    /// By what it is told from another one under the same idempotency key: all of it but what says
    /// who sends it and by which way it came, which may be another when it is sent again.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut headers = self.headers.clone();
        headers.remove(header::HOST);
        headers.remove(header::USER_AGENT);
        let mut head = Writer::new();
        self.write_head(&mut head, &headers);
        let hash = Sha256::new().chain_update(head.finish()).chain_update(&self.body);
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finalize()[..16]);
        fingerprint
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` for anything else.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        let method = Method::from_bytes(reader.text()?).ok()?;
        let uri = Uri::try_from(reader.text()?).ok()?;
        let headers = read_headers(&mut reader)?;
        Some(Self { method, uri, headers, body: bytes.slice_ref(reader.rest()) })
    }

    pub(super) fn into_request(self) -> Request<StoredBody> {
        let mut request = Request::new(StoredBody::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

impl StoredResponse {
    /// An answer without what is between two ends of a connection.
    pub(super) fn new(parts: response::Parts, body: Bytes) -> Self {
        let mut headers = parts.headers;
        let named: Vec<_> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in HOP_BY_HOP.iter().chain(&named) {
            headers.remove(name);
        }
        Self { status: parts.status, headers, body }
    }

    /// An answer that is made by hand, for the tests of a store.
    pub fn from_response(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self::new(parts, body)
    }

    /// Its status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Its header fields.
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its body.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// It as bytes, for a store.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.number(self.status.as_u16().into());
        write_headers(&mut writer, &self.headers);
        writer.raw(&self.body);
        writer.finish().into()
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` for anything else.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes)?;
        let status = StatusCode::from_u16(reader.number()?.try_into().ok()?).ok()?;
        let headers = read_headers(&mut reader)?;
        Some(Self { status, headers, body: bytes.slice_ref(reader.rest()) })
    }

    pub(super) fn into_response(self) -> Response<StoredBody> {
        let mut response = Response::new(StoredBody::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn write_headers(writer: &mut Writer, headers: &HeaderMap) {
    writer.number(headers.len() as u64);
    for (name, value) in headers {
        writer.text(name.as_str().as_bytes());
        writer.text(value.as_bytes());
    }
}

fn read_headers(reader: &mut Reader<'_>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for _ in 0..reader.number()? {
        let name = HeaderName::from_bytes(reader.text()?).ok()?;
        let value = HeaderValue::from_bytes(reader.text()?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

/// Without header fields and body, which may be secret.
impl fmt::Debug for StoredRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRequest")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("length", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Without header fields and body, which may be secret.
impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredResponse")
            .field("status", &self.status)
            .field("length", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// And the length, which the body knows.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
