//! Keys that are not addresses: headers, methods, paths, extensions, joins and lists.

#![cfg(feature = "http")]

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use http::{HeaderName, Request};
use proptest::{collection::vec, prelude::*};
use tower_quota::{
    ConfigError, Key, MaybeReady,
    http::{extension, header, method, path},
    policy::{AsyncKey, Global, KeyOf, Listed, Subject, join},
};

#[path = "support/cases.rs"]
mod cases;
#[path = "support/events.rs"]
mod events;

use cases::cases;

fn now<Req>(key: &impl KeyOf<Req>, request: &Req) -> Subject {
    key.key_of(request).try_into_ready().ok().expect("the key is known at once")
}

fn counted<Req>(key: &impl KeyOf<Req>, request: &Req) -> Key {
    match now(key, request) {
        Subject::Counted(key) => key,
        other => panic!("{other:?}"),
    }
}

fn with_lines(lines: &[&[u8]]) -> Request<()> {
    let mut request = Request::builder();
    for line in lines {
        request = request.header("x-api-key", *line);
    }
    request.body(()).unwrap()
}

#[test]
fn header_is_the_key() {
    let request = with_lines(&[b"sk-123"]);
    assert_eq!(counted(&header("x-api-key"), &request), Key::from("sk-123"));
    assert_eq!(counted(&header("X-API-Key"), &request), Key::from("sk-123"));
    let name = HeaderName::from_static("x-api-key");
    assert_eq!(counted(&header(&name), &request), Key::from("sk-123"));
    assert_eq!(counted(&header(name), &request), Key::from("sk-123"));
    assert_eq!(counted(&header(String::from("x-api-key")), &request), Key::from("sk-123"));
}

#[test]
fn secret_is_counted_but_never_shown() {
    let request = with_lines(&[b"sk-123"]);
    let secret = counted(&header("x-api-key"), &request);
    let joined = counted(&join((header("x-api-key"), method())), &request);
    for key in [&secret, &joined] {
        assert!(key.is_secret());
        assert_eq!((key.to_string(), format!("{key:?}")), ("secret".into(), "Key(secret)".into()));
        assert_eq!(format!("{:?}", Subject::from(key.clone())), "Counted(Key(secret))");
    }
    let listed =
        Listed::new(header("x-api-key")).exempt([Key::new("sk-9")]).denied(["sk-8".into()]);
    let shown = format!("{listed:?}");
    assert!(!shown.contains("sk-"), "{shown}");
}

#[test]
fn public_header_is_shown() {
    let key = counted(&header("x-api-key").public(), &with_lines(&[b"acme"]));
    assert_eq!((key.to_string(), key.is_secret()), ("acme".into(), false));
}

#[test]
fn header_that_is_absent_empty_or_repeated_is_missing() {
    for lines in [&[] as &[&[u8]], &[b""], &[b"a", b"a"], &[b"a", b"b"], &[b"", b"a"]] {
        assert_eq!(now(&header("x-api-key"), &with_lines(lines)), Subject::Missing, "{lines:?}");
    }
}

#[test]
fn name_that_is_none_is_in_no_request_and_is_reported_once() {
    events::listen();
    for name in ["", "x api key", "x-api-key:", "ü"] {
        assert_eq!(now(&header(name), &with_lines(&[b"a"])), Subject::Missing, "{name}");
        assert_eq!(header(name).check(), Err(ConfigError::MalformedHeader), "{name}");
    }
    let told = events::told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("ERROR") && told[0].contains("x-api-key"), "{told:?}");
}

#[test]
fn header_that_is_no_text_is_a_key() {
    let [one, other] = [b"\xff\xfe", b"\xff\xfd"]
        .map(|value| counted(&header("x-api-key").public(), &with_lines(&[value])));
    assert_ne!(one, other);
    assert_eq!(one.to_string(), r"\xff\xfe");
}

#[test]
fn huge_header_is_no_key() {
    let huge = vec![b'a'; 8 * 1024 + 1];
    assert_eq!(now(&header("x-api-key"), &with_lines(&[&huge])), Subject::Missing);
    assert_eq!(now(&header("x-api-key"), &with_lines(&[&huge.repeat(12)])), Subject::Missing);
    let largest = counted(&header("x-api-key"), &with_lines(&[&huge[1..]]));
    assert_eq!(largest, Key::new(&huge[1..]));
}

#[test]
fn invented_methods_are_one_key() {
    let of = |method: &str| {
        counted(&self::method(), &Request::builder().method(method).body(()).unwrap()).to_string()
    };
    for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
        assert_eq!(of(name), name);
    }
    for name in ["get", "PROPFIND", "X1", "X2", &"X".repeat(10_000)] {
        assert_eq!(of(name), "other", "{name}");
    }
}

#[test]
fn path_is_without_query() {
    let request = Request::builder().uri("http://host/a/b%20c?d=e").body(()).unwrap();
    assert_eq!(counted(&path(), &request).to_string(), "/a/b%20c");
}

#[test]
fn extension_is_asked_for_its_key() {
    #[derive(Clone)]
    struct User(u64);

    let key = extension(|user: &User| match user.0 {
        0 => Subject::Exempt,
        id => Subject::Counted(id.into()),
    });
    let of = |user| now(&key.clone(), &Request::builder().extension(user).body(()).unwrap());
    assert_eq!(of(User(7)), Subject::Counted(Key::from(7)));
    assert_eq!(of(User(0)), Subject::Exempt);
    assert_eq!(now(&key, &Request::new("any body")), Subject::Missing);
    assert!(format!("{key:?}").contains("User"));
    let optional = extension(|_: &User| None::<Key>);
    let request = Request::builder().extension(User(1)).body(()).unwrap();
    assert_eq!(now(&optional, &request), Subject::Missing);
}

/// A key that is always this subject; with or without waiting.
fn always(subject: Subject) -> impl KeyOf<()> + Clone {
    move |(): &()| subject.clone()
}

fn later(subject: Subject) -> impl KeyOf<()> {
    AsyncKey::new(move |(): &()| {
        let subject = subject.clone();
        let mut polled = false;
        poll_fn(move |context| {
            if std::mem::replace(&mut polled, true) {
                return Poll::Ready(subject.clone());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    })
}

fn wait<F: Future<Output = Subject>>(subject: MaybeReady<F>) -> Subject {
    tokio_test::block_on(subject)
}

#[test]
fn join_is_the_join_of_its_keys() {
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(Key::from);
    let key = |key: &Key| always(key.clone().into());
    assert_eq!(counted(&join((key(&a), key(&b))), &()), Key::join([&a, &b]));
    assert_eq!(counted(&join((key(&a), key(&b), key(&c))), &()), Key::join([&a, &b, &c]));
    let four = join((key(&a), key(&b), key(&c), key(&d)));
    assert_eq!(counted(&four, &()), Key::join([&a, &b, &c, &d]));
    let five = join((key(&a), key(&b), key(&c), key(&d), key(&e)));
    assert_eq!(counted(&five, &()), Key::join([&a, &b, &c, &d, &e]));
    assert_ne!(counted(&join((key(&a), key(&b))), &()), counted(&join((key(&b), key(&a))), &()));
    assert_eq!(counted(&join((Global, key(&a))), &()), Key::join([&Key::GLOBAL, &a]));
}

#[test]
fn join_is_denied_then_exempt_then_missing() {
    let counted = Subject::Counted(Key::from("a"));
    let all = [Subject::Denied, Subject::Exempt, Subject::Missing, counted];
    for (i, strong) in all.iter().enumerate() {
        for weak in &all[i..] {
            for (one, other) in [(strong, weak), (weak, strong)] {
                let expected = if i == 3 {
                    Subject::Counted(Key::join([&Key::from("a"), &Key::from("a")]))
                } else {
                    strong.clone()
                };
                let (one, other) = (one.clone(), other.clone());
                let at_once = join((always(one.clone()), always(other.clone())));
                assert_eq!(now(&at_once, &()), expected, "{one:?} {other:?}");
                let waiting = join((later(one), always(other)));
                assert_eq!(wait(waiting.key_of(&())), expected);
            }
        }
    }
}

#[test]
fn join_waits_for_keys_that_are_looked_up() {
    let [a, b, c] = ["a", "b", "c"].map(|key| Subject::Counted(Key::from(key)));
    let key = join((always(a), later(b), later(c)));
    let future = key.key_of(&()).try_into_ready().expect_err("two keys are not known yet");
    let mut future = tokio_test::task::spawn(future);
    assert!(future.poll().is_pending());
    assert!(future.is_woken());
    let expected = Key::join(&["a", "b", "c"].map(Key::from));
    // Both were looked up at the same time: one more poll is enough.
    assert_eq!(future.poll(), Poll::Ready(Subject::Counted(expected)));
}

#[test]
fn joins_of_joins_are_keys() {
    let [a, b, c] = ["a", "b", "c"].map(|key| always(Key::from(key).into()));
    let left = join((join((a.clone(), b.clone())), c.clone()));
    let right = join((a, join((b, c))));
    assert_ne!(counted(&left, &()), counted(&right, &()));
}

#[test]
fn listed_keys_are_exempt_or_denied() {
    let key = Listed::new(header("x-api-key"))
        .exempt([Key::secret("ours"), Key::secret("both")])
        .exempt([Key::new("plainly ours")])
        .denied([Key::secret("both"), Key::secret("theirs")]);
    let of = |value: &str| now(&key, &with_lines(&[value.as_bytes()]));
    assert_eq!(of("ours"), Subject::Exempt);
    assert_eq!(of("plainly ours"), Subject::Exempt);
    assert_eq!(of("theirs"), Subject::Denied);
    assert_eq!(of("both"), Subject::Denied);
    assert_eq!(of("other"), Subject::Counted(Key::from("other")));
    assert_eq!(now(&key, &with_lines(&[])), Subject::Missing);
}

#[test]
fn lists_hold_for_keys_that_are_looked_up() {
    let of = |subject| {
        let listed = Listed::new(later(subject)).exempt([Key::from(1)]).denied([Key::from(2)]);
        wait(listed.key_of(&()))
    };
    assert_eq!(of(Key::from(1).into()), Subject::Exempt);
    assert_eq!(of(Key::from(2).into()), Subject::Denied);
    assert_eq!(of(Key::from(3).into()), Subject::Counted(Key::from(3)));
    assert_eq!(of(Subject::Missing), Subject::Missing);
    assert_eq!(of(Subject::Exempt), Subject::Exempt);
}

#[test]
fn lists_of_a_clone_are_its_own() {
    let key = Listed::new(always(Key::from(1).into()));
    let denying = key.clone().denied([Key::from(1)]);
    assert_eq!(now(&denying, &()), Subject::Denied);
    assert_eq!(now(&key, &()), Subject::Counted(Key::from(1)));
}

#[test]
fn keys_and_their_futures_can_be_sent() {
    fn check<K>(key: K)
    where
        K: KeyOf<Request<()>, Future: Send + 'static> + Clone + Send + Sync + 'static,
    {
        drop(key);
    }
    let found = AsyncKey::new(|_: &Request<()>| async { Key::GLOBAL });
    check(join((Listed::new(header("x-api-key")), method(), path(), found)));
    check(Listed::new(join((found, extension(|number: &u64| Key::from(*number))))));
    check(tower_quota::http::ClientAddr::new());
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn matched_path_is_the_route() {
    use axum::{Router, body::Body, extract::Request, middleware::from_fn, routing::get};
    use tower::ServiceExt as _;
    use tower_quota::axum::matched_path;

    let show = from_fn(async |request: Request, _: axum::middleware::Next| {
        format!("{:?}", now(&matched_path(), &request))
    });
    let app = Router::new().route("/users/{id}", get(async || "")).layer(show);
    let of = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    assert_eq!(of("/users/7").await, "Counted(Key(/users/{id}))");
    assert_eq!(of("/users/8").await, "Counted(Key(/users/{id}))");
    assert_eq!(of("/elsewhere").await, "Missing");
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_server_tells_the_peer() {
    use axum::{Router, extract::Request, routing::get};
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower_quota::http::ClientAddr;

    let handler = async |request: Request| format!("{:?}", now(&ClientAddr::new(), &request));
    let app = Router::new().route("/", get(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(async { axum::serve(listener, service).await });

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("Counted(Key(127.0.0.1))"), "{answer}");
    server.abort();
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn joins_do_not_collide(
        one in [vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..300)],
        other in [vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..300)],
    ) {
        let join = |[a, b]: &[Vec<u8>; 2]| {
            let (a, b) = (always(Key::new(a).into()), always(Key::new(b).into()));
            counted(&join((a, b)), &())
        };
        prop_assert_eq!(join(&one) == join(&other), one == other);
    }

    /// Every way to cut one text in two parts is a key of its own, and so is one in three.
    #[test]
    fn cuts_of_one_text_do_not_collide(
        text in vec(0_u8..4, 2..300),
        at in any::<[prop::sample::Index; 3]>(),
    ) {
        let [one, other, third] = at.map(|at| at.index(text.len() + 1));
        let key = |bytes: &[u8]| always(Key::new(bytes).into());
        let two = |at| counted(&join((key(&text[..at]), key(&text[at..]))), &());
        prop_assert_eq!(two(one) == two(other), one == other);
        let (first, last) = (one.min(third), one.max(third));
        let three = join((key(&text[..first]), key(&text[first..last]), key(&text[last..])));
        prop_assert_ne!(counted(&three, &()), two(other));
        prop_assert_ne!(Key::new(&text), two(other));
    }

    #[test]
    fn secrets_are_never_shown(secret in "[a-z0-9]{12,200}", public in "[A-Z]{0,9}") {
        let request = Request::builder()
            .header("x-api-key", &secret)
            .header("x-tenant", &public)
            .body(())
            .unwrap();
        let by_secret = header("x-api-key");
        let by_both = join((header("x-tenant").public(), join((header("x-api-key"), path()))));
        for subject in [now(&by_secret, &request), now(&by_both, &request)] {
            let shown = format!("{subject:?}");
            prop_assert!(!shown.contains(&secret), "{}", shown);
            if let Subject::Counted(key) = subject {
                prop_assert!(!key.to_string().contains(&secret));
            }
        }
    }

    #[test]
    fn any_header_is_a_key_or_missing(value in vec(any::<u8>(), 0..2_000)) {
        let Ok(value) = http::HeaderValue::from_bytes(&value) else { return Ok(()) };
        let request = with_lines(&[value.as_bytes()]);
        match now(&header("x-api-key"), &request) {
            Subject::Missing => prop_assert!(value.is_empty()),
            subject => prop_assert_eq!(subject, Subject::Counted(Key::new(&value))),
        }
    }
}

#[test]
fn a_header_that_tells_an_address_is_reported_as_a_key_with_what_to_write_instead() {
    for name in ["X-Forwarded-For", "forwarded", "x-real-ip", "CF-Connecting-IP", "true-client-ip"]
    {
        events::listen();
        // Wherever it ends up.
        let _ = Listed::new(join((header(name), method()))).denied([Key::from("nobody")]);
        // Whoever makes it anew for each request is told once.
        let _ = header(name);
        let told = events::told();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("ERROR") && told[0].contains("ClientAddr::behind"), "{told:?}");
        let expected = ConfigError::ForgeableHeader { header: name.to_ascii_lowercase() };
        assert_eq!(header(name).check(), Err(expected));
    }
    events::listen();
    for name in ["x-api-key", "authorization", "x-tenant", "x-forwarded-proto"] {
        assert_eq!(header(name).check(), Ok(()));
    }
    assert_eq!(events::told(), Vec::<String>::new());
}

#[test]
fn a_key_is_its_kind_and_its_content_whatever_its_length() {
    let content: Vec<u8> = (0..100).map(|at| 200 - at).collect();
    for length in 0..=content.len() {
        let content = &content[..length];
        let bytes = [&[1], content].concat();
        assert_eq!(Key::new(content).as_bytes(), bytes, "{length}");
    }
}

#[test]
fn keys_of_zeros_that_differ_in_length_have_hashes_of_their_own() {
    let hash = |key: &Key| {
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(key, &mut hasher);
        std::hash::Hasher::finish(&hasher)
    };
    let zeros = [0; 100];
    let hashes: std::collections::HashSet<_> =
        (0..=zeros.len()).map(|length| hash(&Key::new(&zeros[..length]))).collect();
    assert_eq!(hashes.len(), zeros.len() + 1);
    // However it was made.
    let parts = [Key::new("a"), Key::new("b")];
    let joined = || Key::join(&parts);
    assert_eq!(hash(&joined()), hash(&joined()));
}

#[test]
fn what_is_hashed_of_a_key_is_not_how_another_begins() {
    #[derive(Default)]
    struct Written(Vec<u8>);
    impl std::hash::Hasher for Written {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let written = |key: &Key| {
        let mut written = Written::default();
        std::hash::Hash::hash(key, &mut written);
        written.0
    };
    // Bytes that could be taken for the lengths of shorter ones.
    let long: Vec<u8> = (0..64).map(|at| if at % 8 == 6 { at } else { 0 }).collect();
    for lengths in [10, 26, 34] {
        let mut long = long.clone();
        long.iter_mut().filter(|byte| **byte != 0).for_each(|byte| *byte = lengths);
        let keys: Vec<_> = (0..=long.len()).map(|length| Key::new(&long[..length])).collect();
        for (one, other) in keys.iter().flat_map(|one| keys.iter().map(move |other| (one, other))) {
            assert_eq!(written(one).starts_with(&written(other)), one == other, "{one} {other}");
        }
    }
}
