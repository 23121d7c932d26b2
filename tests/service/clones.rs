use tower::{BoxError, Layer, Service, ServiceExt};
use tower_quota::{
    FixedWindowLayer, Key, LeakyBucketLayer, Quota, SlidingWindowLayer, TokenBucketLayer,
};

use crate::support::Strict;

async fn admitted<S: Service<u32, Error = BoxError>>(services: Vec<S>) -> usize {
    let mut admitted = 0;
    for mut service in services {
        for request in 0..5 {
            let ready = service.ready().await.expect("it becomes ready");
            admitted += usize::from(ready.call(request).await.is_ok());
        }
    }
    admitted
}

#[tokio::test(start_paused = true)]
async fn services_and_clones_of_one_layer_share_one_budget() {
    macro_rules! check {
        ($($layer:expr),+) => {$({
            let layer = $layer;
            let one = layer.layer(Strict::new());
            let mut services = vec![one.clone(), one];
            services.extend([layer.layer(Strict::new()), layer.clone().layer(Strict::new())]);
            assert_eq!(admitted(services).await, 7, stringify!($layer));
        })+};
    }
    let quota = Quota::per_day(7);
    check!(
        TokenBucketLayer::new(quota),
        FixedWindowLayer::new(quota),
        SlidingWindowLayer::new(quota)
    );
}

#[tokio::test]
async fn two_layers_that_were_made_apart_have_two_budgets() {
    let services = vec![
        TokenBucketLayer::new(Quota::per_day(2)).layer(Strict::new()),
        TokenBucketLayer::new(Quota::per_day(2)).layer(Strict::new()),
    ];
    assert_eq!(admitted(services).await, 4);
}

#[tokio::test]
async fn each_key_has_a_budget_of_its_own() {
    let layer =
        TokenBucketLayer::new(Quota::per_day(2)).key(|user: &u32| Key::from(u64::from(*user)));
    assert_eq!(admitted(vec![layer.layer(Strict::new()); 2]).await, 10);
    assert_eq!(admitted(vec![layer.layer(Strict::new())]).await, 0);
}

#[test]
fn a_service_is_clone_send_and_sync_and_its_future_send() {
    fn check<T: Clone + Send + Sync>(_: &T) {}
    fn is_send<T: Send>(_: &T) {}
    let layer = LeakyBucketLayer::new(Quota::per_second(1));
    check(&layer);
    let mut service = layer.layer(Strict::new());
    check(&service);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Service::<u32>::poll_ready(&mut service, &mut context).is_ready());
    is_send(&Service::<u32>::call(&mut service, 1));
}
