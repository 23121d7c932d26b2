//! What a key costs: keys that fit inline are made without an allocation.

#![cfg(feature = "http")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    net::SocketAddr,
};

use http::Request;
use tower_quota::{
    Key,
    http::{
        ClientAddr, Networks, PeerAddr, ProxyHeader, TrustedProxies, extension, header, method,
        path,
    },
    policy::{KeyOf, Listed, join},
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn request() -> Request<()> {
    let peer = PeerAddr(SocketAddr::from(([10, 0, 0, 1], 4711)));
    Request::builder()
        .uri("/a/short/path")
        .header("x-api-key", "sk-1234567890")
        .header("x-forwarded-for", "6.6.6.6, 2001:db8::1, 10.0.0.2")
        .header("x-forwarded-for", "10.0.0.3:80")
        .header("forwarded", r#"for=6.6.6.6, for="[2001:db8::1]:80";host="a,b", for=10.0.0.2"#)
        .header("cf-connecting-ip", "2001:db8::1")
        .extension(peer)
        .extension(7_u64)
        .body(())
        .unwrap()
}

fn allocations(key: &impl KeyOf<Request<()>>) -> u64 {
    let request = request();
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        black_box(key.key_of(&request).try_into_ready().is_ok());
    }
    ALLOCATIONS.get() - before
}

#[test]
fn addresses_are_found_without_an_allocation() {
    let proxies = TrustedProxies::private_ranges;
    let cloudflare = ProxyHeader::Single(http::HeaderName::from_static("cf-connecting-ip"));
    for key in [
        ClientAddr::new(),
        ClientAddr::behind(proxies()),
        ClientAddr::behind(proxies().header(ProxyHeader::Forwarded)),
        ClientAddr::behind(proxies().header(cloudflare)),
        ClientAddr::behind(proxies().hops(2).unwrap()).denied(Networks::loopback()),
    ] {
        assert_eq!(allocations(&key), 0, "{key:?}");
    }
}

#[test]
fn short_keys_are_made_without_an_allocation() {
    assert_eq!(allocations(&header("x-api-key")), 0);
    assert_eq!(allocations(&method()), 0);
    assert_eq!(allocations(&path()), 0);
    assert_eq!(allocations(&extension(|user: &u64| Key::from(*user))), 0);
    assert_eq!(allocations(&join((ClientAddr::new(), method(), header("x-api-key")))), 0);
    let listed = Listed::new(header("x-api-key")).denied([Key::secret("sk-0")]);
    assert_eq!(allocations(&listed), 0);
}
