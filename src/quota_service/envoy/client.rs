use std::error::Error;

use http::uri::PathAndQuery;
use tonic::{
    IntoRequest, Status,
    body::Body,
    client::{Grpc, GrpcService},
};
use tonic_prost::ProstCodec;

use super::{
    proto::{RateLimitRequest, RateLimitResponse},
    server::PATH,
};

/// Asks a rate limit service over gRPC: this one, or any other of the protocol.
///
/// It goes over any tonic channel, and whatever is layered around one.
#[derive(Clone, Debug)]
pub struct RateLimitClient<T> {
    grpc: Grpc<T>,
}

impl<T> RateLimitClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<Box<dyn Error + Send + Sync>>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    /// Asks over this channel.
    pub fn new(channel: T) -> Self {
        Self { grpc: Grpc::new(channel) }
    }

    /// Asks whether a request may pass.
    ///
    /// # Errors
    ///
    /// The call failed, or the service could not decide. That says nothing about the quota.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the answer, whether it was charged is not known.
    pub async fn should_rate_limit(
        &mut self,
        request: impl IntoRequest<RateLimitRequest>,
    ) -> Result<RateLimitResponse, Status> {
        self.grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<RateLimitRequest, RateLimitResponse>::default();
        let path = PathAndQuery::from_static(PATH);
        self.grpc.unary(request.into_request(), path, codec).await.map(tonic::Response::into_inner)
    }
}
