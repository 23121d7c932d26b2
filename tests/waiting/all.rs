//! Requests that have to meet limits on several keys together, and wait for the one that binds.

use std::time::Duration;

use futures::future::join_all;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_quota::{
    AllLayer, Key, Limit, Limiter, PolicyName, Quota, Rejection, RetryAfter,
    algorithm::{Algorithm, FixedWindow, LeakyBucket, TokenBucket},
    backend::Local,
    http::TooManyRequests,
    limiter::All,
    policy::OnBackendError,
    queue::{AllQueue, Bound, QueueError},
};

use super::{
    SECOND,
    support::{Broken, Paused, paused},
};

type Store<A> = Local<A, Paused>;

fn named<A: Algorithm>(name: &'static str, algorithm: A) -> Limiter<A, Store<A>> {
    Limiter::of(Limit::new(PolicyName::from_static(name), algorithm), paused())
}

/// One of a user each second, and one of all users each tenth of one.
#[derive(Clone)]
struct Limits {
    user: Limiter<TokenBucket, Store<TokenBucket>>,
    team: Limiter<TokenBucket, Store<TokenBucket>>,
}

impl Limits {
    fn new() -> Self {
        let user = TokenBucket::new(Quota::per_second(1));
        let team = TokenBucket::new(Quota::per_second(10)).burst(2);
        Self { user: named("user", user), team: named("team", team) }
    }

    fn of(&self, user: u64) -> All {
        All::new().and(&self.user, &Key::from(user), 1).and(&self.team, &Key::GLOBAL, 1)
    }
}

async fn waits(queue: &AllQueue, all: All, begun: Instant) -> u128 {
    let _charges = queue.acquire(all).await.expect("its turn comes");
    begun.elapsed().as_millis()
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_waits_for_the_limit_that_binds_and_nobody_else_does() {
    let (limits, queue, begun) = (Limits::new(), AllQueue::new(), Instant::now());
    // The first user is held up by its own limit; the others by that of the team.
    let users = [1, 1, 1, 2, 3, 4];
    let waited = join_all(users.map(|user| waits(&queue, limits.of(user), begun))).await;
    assert_eq!(waited, [0, 1_000, 2_000, 0, 100, 200]);
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_line_is_first_come_first_served_and_a_large_cost_is_not_passed_in_it() {
    let team = named("team", TokenBucket::new(Quota::per_second(10)));
    let (queue, begun) = (AllQueue::new(), Instant::now());
    let costs = [10, 8, 1, 1];
    let asked = costs.map(|cost| waits(&queue, All::new().and(&team, &Key::GLOBAL, cost), begun));
    assert_eq!(join_all(asked).await, [0, 800, 900, 1_000]);
}

#[tokio::test(start_paused = true)]
async fn a_large_cost_is_not_passed_by_those_who_came_later_and_wait_for_another_limit_first() {
    let user = named("user", TokenBucket::new(Quota::per_second(1)));
    let team = named("team", TokenBucket::new(Quota::per_second(4)).burst(20));
    let (queue, begun) = (AllQueue::new(), Instant::now());
    let of_team = |cost: u64| All::new().and(&team, &Key::GLOBAL, cost);
    let of_user = |request: u64| {
        All::new().and(&user, &Key::from(request % 4), 1).and(&team, &Key::GLOBAL, 1)
    };
    drop(queue.acquire(of_team(3)).await.expect("there is room"));
    // Each user has one admitted, and one that waits for the user's limit.
    let early = join_all((0..8).map(|request| waits(&queue, of_user(request), begun)));
    let large = waits(&queue, of_team(20), begun);
    // They wait for their user's limit, and need what the large one waits for.
    let late = join_all((0..40).map(|request| waits(&queue, of_user(request), begun)));
    let (early, large, late) = futures::join!(early, large, late);
    assert_eq!(early, [0, 0, 0, 0, 1_000, 1_000, 1_000, 1_000]);
    assert_eq!(large, 2_750, "as if nobody had come behind it");
    assert!(late.iter().all(|started| *started > large), "{late:?}");
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_held_up_by_one_before_it_asks_when_that_has_gone() {
    let user = named("user", TokenBucket::new(Quota::per_second(1)));
    let team = named("team", TokenBucket::new(Quota::per_hour(2)));
    let (queue, begun) = (AllQueue::new(), Instant::now());
    let ask = |all: All| {
        let queue = queue.clone();
        tokio::spawn(async move { waits(&queue, all, begun).await })
    };
    let of_user = || All::new().and(&user, &Key::GLOBAL, 1).and(&team, &Key::GLOBAL, 1);
    assert_eq!(ask(of_user()).await.expect("no panic"), 0);
    let first = ask(All::new().and(&user, &Key::GLOBAL, 1));
    tokio::task::yield_now().await;
    let large = ask(All::new().and(&team, &Key::GLOBAL, 2));
    tokio::task::yield_now().await;
    let held_up = ask(of_user());
    assert_eq!(first.await.expect("no panic"), 1_000);
    tokio::time::sleep(2 * SECOND + SECOND / 2).await;
    assert!(!held_up.is_finished(), "the large one came before it");
    large.abort();
    assert_eq!(held_up.await.expect("no panic"), 3_500);
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_too_late_is_told_at_once_which_limit_binds_and_when() {
    let (limits, begun) = (Limits::new(), Instant::now());
    let queue = AllQueue::new().max_wait(SECOND / 2);
    let _charges = queue.acquire(limits.of(1)).await.expect("there is room");
    let refused = queue.acquire(limits.of(1)).await.expect_err("it would be a second");
    let QueueError::TooLate(denial) = refused else { panic!("{refused}") };
    assert_eq!(denial.policy().expect("one of them").name.as_str(), "user");
    assert_eq!(denial.retry_after, RetryAfter::After(SECOND));
    assert_eq!(begun.elapsed(), Duration::ZERO);

    let never = All::new().and(&limits.user, &Key::GLOBAL, 2);
    let never = queue.acquire(never).await.expect_err("the limit holds one");
    assert!(matches!(never, QueueError::Never(_)), "{never}");
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_stands_behind_others_gives_up_when_its_time_is_over() {
    let (limits, begun) = (Limits::new(), Instant::now());
    let queue = AllQueue::new();
    let ask = |wait: Duration| {
        let (queue, all) = (queue.clone(), limits.of(1));
        tokio::spawn(async move { queue.acquire_within(all, wait).await })
    };
    let _first = ask(SECOND).await.expect("no panic").expect("there is room");
    let front = ask(3 * SECOND);
    tokio::task::yield_now().await;
    let hurried = ask(SECOND / 2).await.expect("no panic");
    assert!(matches!(hurried, Err(QueueError::TooLate(_))), "{hurried:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO, "the front itself has its turn later");
    let patient = ask(3 * SECOND / 2).await.expect("no panic");
    assert!(matches!(patient, Err(QueueError::TooLate(_))), "{patient:?}");
    let _charges = front.await.expect("no panic").expect("its turn comes");
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_full_refuses_and_one_that_nobody_may_join_has_nobody() {
    let limits = Limits::new();
    for most in 0..3 {
        let queue = AllQueue::new().max_waiters(most);
        let user = 10 + most as u64;
        let _charges = queue.acquire(limits.of(user)).await.expect("there is room");
        let waiting: Vec<_> = (0..most)
            .map(|_| {
                let (queue, all) = (queue.clone(), limits.of(user));
                tokio::spawn(async move { queue.acquire(all).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let full = queue.acquire(limits.of(user)).await.expect_err("there is no place");
        assert!(matches!(full, QueueError::Full { bound: Bound::Waiters, .. }), "{full}");
        assert!(full.retry_after().is_some());
        for waited in join_all(waiting).await {
            let _charges = waited.expect("no panic").expect("its turn comes");
        }
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_front_that_goes_away_lets_the_next_one_ask() {
    let (limits, queue, begun) = (Limits::new(), AllQueue::new(), Instant::now());
    let ask = || {
        let (queue, all) = (queue.clone(), limits.of(1));
        tokio::spawn(async move { waits(&queue, all, begun).await })
    };
    ask().await.expect("no panic");
    let (front, next) = (ask(), ask());
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(queue.waiting(), 2);
    front.abort();
    assert_eq!(next.await.expect("no panic"), 1_000);
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_shaper_is_waited_for_and_comes_back_if_it_is_too_late() {
    let shaped = named("shaped", LeakyBucket::new(Quota::per_second(1)).depth(3));
    let day = named("day", FixedWindow::new(Quota::per_day(10)));
    let ask = || All::new().and(&shaped, &Key::GLOBAL, 1).and(&day, &Key::GLOBAL, 1);
    let (queue, begun) = (AllQueue::new().max_wait(3 * SECOND / 2), Instant::now());
    assert_eq!(waits(&queue, ask(), begun).await, 0);
    assert_eq!(waits(&queue, ask(), begun).await, 1_000);
    let waiting = tokio::spawn({
        let (queue, all) = (queue.clone(), ask());
        async move { queue.acquire(all).await }
    });
    tokio::task::yield_now().await;
    let late = queue.acquire(ask()).await.expect_err("it starts in two seconds");
    let QueueError::TooLate(denial) = late else { panic!("{late}") };
    assert_eq!(denial.policy().expect("one of them").name.as_str(), "shaped");
    let left = day.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining;
    assert_eq!(left, 7, "it has come back");
    // So does the place of one who goes away before its turn.
    waiting.abort();
    waiting.await.expect_err("it was dropped");
    let left = day.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining;
    assert_eq!(left, 8);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_whoever_goes_away_and_whenever() {
    let mut random = 0x9e37_79b9_u64;
    let mut below = move |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % bound
    };
    let (limits, queue) = (Limits::new(), AllQueue::new().max_wait(4 * SECOND));
    let day = named("day", FixedWindow::new(Quota::per_day(100_000)));
    let asked: Vec<_> = (0..2_000)
        .map(|_| {
            let all = limits.of(below(20)).and(&day, &Key::GLOBAL, 1);
            let (queue, comes, stays) = (queue.clone(), below(60_000), below(6_000));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(comes)).await;
                let waits = queue.acquire(all);
                tokio::time::timeout(Duration::from_millis(stays), waits)
                    .await
                    .is_ok_and(|waited| waited.is_ok())
            })
        })
        .collect();
    let admitted = join_all(asked).await.into_iter().filter(|one| *one.as_ref().expect("no panic"));
    let admitted = admitted.count() as u64;
    assert_eq!(queue.waiting(), 0);
    let left = day.peek(&Key::GLOBAL, 0).await.expect("it answers").snapshot().remaining;
    assert_eq!(100_000 - left, admitted, "who was admitted is charged, and nobody else");
    // Ten a second, for as long as some come or wait.
    assert!((500..=10 * 66 + 2).contains(&admitted), "{admitted}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_lets_requests_meet_all_of_their_limits() {
    let limits = Limits::new();
    let layer = AllLayer::new({
        let limits = limits.clone();
        move |user: &u64| limits.of(*user)
    });
    let echo = || service_fn(|user: u64| async move { Ok::<_, BoxError>(user) });
    let service = layer.clone().layer(echo());
    assert_eq!(service.clone().oneshot(1).await.expect("there is room"), 1);
    let refused = service.clone().oneshot(1).await.expect_err("it has had its one");
    let Some(Rejection::OverLimit(denial)) = Rejection::of(&*refused) else { panic!("{refused}") };
    assert_eq!(denial.policy().expect("one of them").name.as_str(), "user");
    assert_eq!(denial.retry_after, RetryAfter::After(SECOND));
    service.oneshot(2).await.expect("the first one has taken nothing from the team");

    let begun = Instant::now();
    let service = layer.wait(2 * SECOND).layer(echo());
    service.oneshot(1).await.expect("its turn comes");
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_response_tells_the_limit_that_is_nearest_to_refusing() {
    let user = named("user", FixedWindow::new(Quota::per_day(100)));
    let team = named("team", FixedWindow::new(Quota::per_day(10)));
    let layer = AllLayer::new(move |_: &Request<()>| {
        All::new().and(&user, &Key::GLOBAL, 1).and(&team, &Key::GLOBAL, 1)
    });
    let service = layer.answer(TooManyRequests::new()).layer(service_fn(|_: Request<()>| async {
        Ok::<_, BoxError>(Response::new(Full::<bytes::Bytes>::default()))
    }));
    let response = service.oneshot(Request::new(())).await.expect("there is room");
    let told = format!("{:?}", response.headers());
    assert!(told.contains("team") && !told.contains("user"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_request_if_a_backend_fails_is_the_layers() {
    for (then, goes_on) in [(OnBackendError::Allow, true), (OnBackendError::Deny, false)] {
        let broken = Limiter::new(TokenBucket::new(Quota::per_second(1)), Broken);
        let layer = AllLayer::new(move |_: &u64| All::new().and(&broken, &Key::GLOBAL, 1));
        let service = layer
            .on_backend_error(then)
            .wait(SECOND)
            .layer(service_fn(|user: u64| async move { Ok::<_, BoxError>(user) }));
        assert_eq!(service.oneshot(1).await.is_ok(), goes_on);
    }
}
