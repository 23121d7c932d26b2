//! One answer for every body that servers use.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Body;
use tower_quota::{Rejection, http::TooManyRequests};

use crate::support::{exhausted, refused, secs};

fn grpc() -> Request<()> {
    Request::builder().header("content-type", "application/grpc").body(()).unwrap()
}

async fn length(body: impl Body<Data = Bytes, Error: std::fmt::Debug>) -> usize {
    body.collect().await.unwrap().to_bytes().len()
}

#[tokio::test]
async fn one_answer_serves_axum_for_http_and_grpc() {
    let answer = TooManyRequests::default();
    let http: Response<axum::body::Body> = refused(&answer, &Request::new(()), exhausted(secs(5)));
    assert!(length(http.into_body()).await > 0);

    let grpc: Response<axum::body::Body> = refused(&answer, &grpc(), exhausted(secs(5)));
    assert!(grpc.body().is_end_stream());
}

#[tokio::test]
async fn bodies_made_of_a_string_explain_the_refusal() {
    let answer = TooManyRequests::new();
    let full: Response<Full<Bytes>> = refused(&answer, &Request::new(()), Rejection::NoKey);
    assert!(length(full.into_body()).await > 0);
    let reqwest: Response<reqwest::Body> = refused(&answer, &Request::new(()), Rejection::NoKey);
    assert!(length(reqwest.into_body()).await > 0);
    let grpc: Response<Full<Bytes>> = refused(&answer, &grpc(), Rejection::NoKey);
    assert!(grpc.body().is_end_stream());
}

#[test]
fn an_empty_body_needs_a_default_only() {
    let answer = TooManyRequests::new().empty_body();
    let tonic: Response<tonic::body::Body> = refused(&answer, &grpc(), exhausted(secs(5)));
    assert!(tonic.body().is_end_stream());

    let empty: Response<Empty<Bytes>> = refused(&answer, &Request::new(()), exhausted(secs(5)));
    assert_eq!(empty.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(empty.headers()["retry-after"], "5");
    for name in ["content-type", "content-length"] {
        assert!(!empty.headers().contains_key(name), "there is no content to speak of: {name}");
    }
}

#[tokio::test]
async fn any_other_body_is_made_by_a_closure() {
    type Boxed = UnsyncBoxBody<Bytes, std::convert::Infallible>;
    let answer = TooManyRequests::new().body(|text: String| Full::from(text).boxed_unsync());

    let http: Response<Boxed> = refused(&answer, &Request::new(()), exhausted(secs(5)));
    assert!(length(http.into_body()).await > 0);
    let grpc: Response<Boxed> = refused(&answer, &grpc(), exhausted(secs(5)));
    assert!(grpc.body().is_end_stream());
}

/// A request's body is nobody's business: not even `Send` is asked of it.
#[test]
fn any_request_body_is_answered() {
    struct Opaque(#[expect(dead_code, reason = "it makes the type not `Send`")] std::rc::Rc<()>);
    let request = Request::new(Opaque(std::rc::Rc::new(())));
    let response: Response<String> = refused(&TooManyRequests::new(), &request, Rejection::Denied);
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}
