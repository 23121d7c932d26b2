//! What the fields on an admitted response cost.

#![cfg(feature = "http")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{HeaderName, HeaderValue, Request, Response};
use tower::{Layer, Service};
use tower_quota::{
    Policies, PolicyName, Quota, QuotaPolicy, Snapshot, TokenBucketLayer,
    http::{FieldStyle, FieldStyles, TooManyRequests},
    policy::Answer,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be counted in another way")]
// SAFETY: every method hands its arguments to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Polls a request through `service`; everything here is there at once.
fn call<S>(service: &mut S) -> Response<()>
where
    S: Service<Request<()>, Response = Response<()>, Error = Infallible>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    match pin!(service.call(Request::new(()))).poll(&mut context) {
        Poll::Ready(Ok(response)) => response,
        Poll::Pending => panic!("nothing here waits"),
    }
}

/// What a request through `layer` allocates that it does not without: of a service whose response
/// has so many fields of its own, in a map that has grown to them and no further.
fn added<L>(layer: &L, fields: usize) -> usize
where
    L: Layer<Plain, Service: Service<Request<()>, Response = Response<()>, Error = Infallible>>,
{
    let count = |run: &mut dyn FnMut() -> Response<()>| {
        // The first requests write the policies, and are looked at for being counted twice.
        (0..50).for_each(|_| drop(run()));
        let before = ALLOCATIONS.get();
        drop(run());
        ALLOCATIONS.get() - before
    };
    let (mut plain, mut limited) = (Plain(fields), layer.layer(Plain(fields)));
    count(&mut || call(&mut limited)) - count(&mut || call(&mut plain))
}

/// Answers with so many fields.
#[derive(Clone)]
struct Plain(usize);

impl Service<Request<()>> for Plain {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        const NAMES: [&str; 4] = ["content-type", "content-length", "date", "vary"];
        let mut response = Response::new(());
        for name in &NAMES[..self.0] {
            let name = HeaderName::from_static(name);
            response.headers_mut().insert(name, HeaderValue::from_static("value"));
        }
        ready(Ok(response))
    }
}

/// What the documentation of `TooManyRequests` says.
#[test]
fn a_request_through_a_layer_with_fields_is_two_allocations_and_the_growth_of_the_map() {
    let layer = || TokenBucketLayer::new(Quota::per_day(1_000_000));
    let answer = || TooManyRequests::new().empty_body();
    let silent = layer().answer(answer().fields(FieldStyles::NONE));
    let draft = layer().answer(answer());
    let legacy = layer().answer(answer().fields(FieldStyle::XRateLimit));
    let counts = |fields| [added(&silent, fields), added(&draft, fields), added(&legacy, fields)];
    // A response without a field has no map yet; that is two more. Six fields have room in its
    // first.
    assert_eq!(counts(0), [0, 4, 6]);
    for fields in 1..=3 {
        assert_eq!(counts(fields), [0, 2, 4], "{fields} fields of the service's own");
    }
    assert_eq!(counts(4), [0, 2, 6]);
}

#[test]
fn fields_of_an_admitted_response_are_one_allocation() {
    let answer = TooManyRequests::new();
    let policies = Policies::new(vec![QuotaPolicy::new(
        PolicyName::DEFAULT,
        100,
        std::time::Duration::from_secs(60),
    )]);
    let snapshot = Snapshot::new(100, 60, std::time::Duration::from_secs(58));
    let mut counts = Vec::with_capacity(4);
    for _ in 0..4 {
        // A response that a service made has room for two more fields.
        let mut response = Response::new(());
        response.headers_mut().reserve(4);
        response.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        let before = ALLOCATIONS.get();
        Answer::<Request<()>, _, ()>::annotate(
            &answer.clone().empty_body(),
            &snapshot,
            &policies,
            &mut response,
        );
        counts.push(ALLOCATIONS.get() - before);
        assert_eq!(response.headers().len(), 3);
    }
    // The first one writes the policies, once for all.
    assert_eq!(counts[1..], [1, 1, 1], "{counts:?}");
}
