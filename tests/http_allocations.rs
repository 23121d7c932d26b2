//! What the fields on an admitted response cost.

#![cfg(feature = "http")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use http::{Request, Response};
use tower_quota::{
    Policies, PolicyName, QuotaPolicy, Snapshot, http::TooManyRequests, policy::Answer,
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
