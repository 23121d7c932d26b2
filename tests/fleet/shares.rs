//! Tenants have their shares of an account though each waits at instances of its own.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, Response, request::Parts},
};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_quota::{
    Cost, Key, PolicyName, Quota,
    algorithm::Plan,
    backend::redis::{RedisBuilder, Server},
    http::{PeekedBody, TooManyRequests},
    queue::Ask,
    upstream::{Account, Board, Dimension, KnownLimit, Profile, UpstreamBody, UpstreamLayer},
};

use crate::{fleet::OnRedis, servers::Standalone};

/// Who asks, with which weight, and how often at each of the instances.
type Tenants<const INSTANCES: usize> = [(&'static str, u32, [usize; INSTANCES]); 2];

/// In a second. The bucket holds as much. A line asks for one after the other: on a machine that is busy it must
/// be able to.
const RATE: u64 = 30;

fn account(server: &Standalone) -> Account<OnRedis> {
    account_at(&server.url())
}

fn account_at(url: &str) -> Account<OnRedis> {
    let server = Server::open(url).expect("a URL");
    let name = PolicyName::from_static("account");
    let redis = RedisBuilder::new(server.clone(), name.clone());
    let redis = redis.timeout(Duration::from_secs(5)).build::<Plan>();
    let profile = Profile::ready("openai").expect("it is ready-made");
    let account = Account::builder(profile).backend(redis).board(Board::shared(server, name));
    let account = account.limit("requests", Quota::per_second(RATE)).max_waiters(10_000);
    account.jitter(Duration::ZERO).build().expect("a limit that the profile has")
}

/// On whose account a call waits, as its head says.
fn turn(request: &Parts, cost: Cost) -> Ask {
    let head = |name| request.headers.get(name).and_then(|value| value.to_str().ok());
    let weight = head("weight").and_then(|weight| weight.parse().ok());
    Ask::new(cost)
        .flow(Key::from(head("tenant").unwrap_or_default()))
        .weight(weight.unwrap_or(NonZeroU32::MIN))
}

/// Asks, and reads the answer to its end.
fn call<S>(client: S, tenant: &str, weight: u32) -> impl Future<Output = ()> + Send + use<S>
where
    S: Service<Request<Body>, Response = Response<UpstreamBody<Body>>, Error = Infallible>,
    S: Send + 'static,
    S::Future: Send,
{
    let request = Request::post("/v1/chat/completions").header("tenant", tenant);
    let request = request.header("weight", weight).body(Body::from("{}"));
    let request = request.expect("a valid request");
    async move {
        let answer = client.oneshot(request).await.expect("it answers always");
        answer.into_body().collect().await.expect("a whole body");
    }
}

/// Of how many tenants the server has been told.
fn told_of(server: &Standalone) -> usize {
    let fields: Vec<String> = server.ask(&["HKEYS", "tq:account:shares"]);
    let others = ["frame", "time", "waiting", "swept"];
    fields.iter().filter(|field| others.iter().all(|other| !field.ends_with(other))).count()
}

/// The tenants in the order in which their calls went, from when all instances know of each other.
async fn order<const INSTANCES: usize>(tenants: Tenants<INSTANCES>, calls: usize) -> Vec<String> {
    let server = Standalone::start();
    let went = Arc::new(Mutex::new(Vec::new()));
    let mut asking = JoinSet::new();
    let accounts: Vec<_> = (0..INSTANCES).map(|_| account(&server)).collect();
    let mut clients = Vec::new();
    for (instance, account) in accounts.iter().enumerate() {
        let went = Arc::clone(&went);
        let provider = service_fn(move |request: Request<PeekedBody<Body>>| {
            let tenant = request.headers()["tenant"].to_str().expect("ASCII").to_owned();
            went.lock().unwrap_or_else(PoisonError::into_inner).push(tenant);
            async { Ok::<_, Infallible>(Response::new(Body::from("{}"))) }
        });
        let layer = UpstreamLayer::new(account.clone()).ask(turn).answer(TooManyRequests::new());
        let client = layer.layer(provider);
        call(client.clone(), &format!("the first at {instance}"), 1).await;
        crate::fleet::until(|| told_of(&server) > instance).await;
        clients.push(client);
    }
    for (instance, client) in clients.iter().enumerate() {
        for (tenant, weight, times) in tenants {
            for _ in 0..times[instance] {
                asking.spawn(call(client.clone(), tenant, weight));
            }
        }
    }
    let count = || went.lock().unwrap_or_else(PoisonError::into_inner).len();
    crate::fleet::until(|| count() >= calls).await;
    asking.shutdown().await;
    let went = went.lock().unwrap_or_else(PoisonError::into_inner);
    went[INSTANCES..calls].to_vec()
}

fn percent_of(tenant: &str, went: &[String]) -> usize {
    went.iter().filter(|own| *own == tenant).count() * 100 / went.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_calls_all_come_to_one_instance_has_its_share_of_what_all_instances_use() {
    let tenants =
        [("gold", 3, [300, 0, 0, 0, 0, 0, 0, 0]), ("silver", 1, [0, 25, 25, 25, 25, 25, 25, 25])];
    let gold = percent_of("gold", &order(tenants, 300).await);
    // It would be an eighth if each instance had as much as the others.
    assert!((50..=90).contains(&gold), "{gold} % of the calls are of the tenant that has 75 %");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_calls_come_to_all_instances_has_no_more_than_one_that_is_at_one() {
    let tenants = [("loud", 1, [50; 4]), ("quiet", 1, [0, 200, 0, 0])];
    let quiet = percent_of("quiet", &order(tenants, 300).await);
    assert!((35..=70).contains(&quiet), "{quiet} % of the calls are of the tenant that has 50 %");
}

/// Whoever wrote them, or how many calls had them come so far.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_no_count_reaches_are_counted_anew() {
    let server = Standalone::start();
    let account = account(&server);
    let provider = service_fn(|_: Request<PeekedBody<Body>>| async {
        Ok::<_, Infallible>(Response::new(Body::from("{}")))
    });
    let layer = UpstreamLayer::new(account.clone()).ask(turn).answer(TooManyRequests::new());
    let client = layer.layer(provider);
    let field = |end: &str| {
        let fields: Vec<String> = server.ask(&["HKEYS", "tq:account:shares"]);
        fields.into_iter().find(|field| field.ends_with(end))
    };
    for absurd in ["nonsense", "-1", "nan", "1e300", "18446744073709551616"] {
        call(client.clone(), "gold", 1).await;
        crate::fleet::until(|| told_of(&server) > 0).await;
        let time = field(" time").expect("it was told");
        for field in server.ask::<Vec<String>>(&["HKEYS", "tq:account:shares"]) {
            let _: i64 = server.ask(&["HSET", "tq:account:shares", &field, absurd]);
        }
        call(client.clone(), "gold", 1).await;
        let is_sound = || {
            let told: String = server.ask(&["HGET", "tq:account:shares", &time]);
            told.parse().is_ok_and(|time: u64| time <= 1 << 51) && told_of(&server) > 0
        };
        crate::fleet::until(is_sound).await;
    }
    // It is known for a minute, and not for ever.
    assert!((1..=60_000).contains(&server.ask::<i64>(&["PTTL", "tq:account:shares"])));
}

/// What the guide prints after these words, in code.
fn printed(words: &str) -> &'static str {
    let (_, rest) =
        include_str!("../../src/guide/redis.md").split_once(words).expect("it is in the guide");
    let code = rest.trim_start().trim_start_matches('`');
    code.split(['`', '\n']).next().expect("there is some")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_board_needs_the_rights_that_the_guide_prints_and_no_others() {
    let server = Standalone::start();
    let decisions = printed("ACL SETUSER quota on >PASSWORD ");
    let besides = printed("A [shared board](crate::upstream::Board::shared) needs");
    server.acl_set_user("quota", &format!("on >right {decisions} {besides}"));
    let (here, there) = (account_at(&server.url_of("quota", "right")), account(&server));
    let provider = service_fn(|_: Request<PeekedBody<Body>>| async {
        Ok::<_, Infallible>(Response::new(Body::from("{}")))
    });
    let layer = UpstreamLayer::new(here.clone()).ask(turn).answer(TooManyRequests::new());
    call(layer.layer(provider), "gold", 1).await;
    crate::fleet::until(|| told_of(&server) > 0).await;
    for (from, to, limit) in [(&here, &there, 7), (&there, &here, 8)] {
        from.tell("", KnownLimit::new("requests", Dimension::Requests, limit))
            .expect("it is counted");
        let is_known = || to.notice("").limits.iter().any(|known| known.limit == limit);
        crate::fleet::until(is_known).await;
        from.resume("");
    }
    let log: Vec<Vec<redis::Value>> = server.ask(&["ACL", "LOG"]);
    assert!(log.is_empty(), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tenants_are_is_not_told_to_the_server() {
    let server = Standalone::start();
    let account = account(&server);
    let provider = service_fn(|_: Request<PeekedBody<Body>>| async {
        Ok::<_, Infallible>(Response::new(Body::from("{}")))
    });
    let client = UpstreamLayer::new(account.clone())
        .ask(turn)
        .answer(TooManyRequests::new())
        .layer(provider);
    call(client, "sk-secret-tenant", 1).await;
    let told = || server.ask::<Vec<String>>(&["HGETALL", "tq:account:shares"]).join("\n");
    crate::fleet::until(|| told().contains("waiting")).await;
    assert!(!told().contains("secret"), "{}", told());
}
