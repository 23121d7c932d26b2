//! Questions that are asked by many at the same time are asked once.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use http::Response;
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_quota::cache::BrokenAnswer;

use crate::support::{
    Asked, Given, Sender, Upstream, ask, broken, cache, frames, json, layer, read, read_body, send,
    settle, status, stream, text, with,
};

/// A service that streams what is sent, and all that sends to its bodies.
fn streaming() -> (Upstream, Arc<Mutex<Vec<Sender>>>) {
    let senders = Arc::new(Mutex::new(Vec::new()));
    let upstream = Upstream::new({
        let senders = Arc::clone(&senders);
        move |_, _| {
            let (sender, body) = stream();
            senders.lock().expect("sound").push(sender);
            Ok(Response::builder().header("content-type", "text/event-stream").body(body)?)
        }
    });
    (upstream, senders)
}

fn sender(senders: &Mutex<Vec<Sender>>, of: usize) -> Sender {
    senders.lock().expect("sound")[of].clone()
}

fn close(senders: &Mutex<Vec<Sender>>) {
    senders.lock().expect("sound").iter().for_each(Sender::close_channel);
}

/// One frame as text; `None` at the end.
async fn frame(given: &mut Given) -> Option<String> {
    let frame = given.body_mut().frame().await?.expect("a part");
    Some(String::from_utf8_lossy(&frame.into_data().expect("data")).into_owned())
}

fn spawn(cache: &Asked, count: usize) -> JoinSet<Given> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let cache = cache.clone();
        tasks.spawn(async move { ask(&cache, json(r#"{"q":"hi"}"#)).await });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_that_ask_the_same_at_once_are_one_call() {
    for _ in 0..20 {
        let upstream = Upstream::new(|call, _| {
            let long = format!("answer {call} ").repeat(1_000);
            Ok(Response::new(text(&long)))
        });
        let cache = cache(&layer(), &upstream);
        let given = spawn(&cache, 50).join_all().await;
        let texts = join_all(given.into_iter().map(read_body)).await;
        assert_eq!(texts.len(), 50);
        assert!(texts.iter().all(|text| *text == "answer 1 ".repeat(1_000)));
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_that_ask_the_same_at_once_share_one_stream_as_it_comes() {
    for _ in 0..20 {
        let (upstream, senders) = streaming();
        let cache = cache(&layer(), &upstream);
        let given = spawn(&cache, 50).join_all().await;
        let one = sender(&senders, 0);
        send(&one, "data: 1\n\n");
        // The body is not over, and each has its first frame.
        let mut given = join_all(given.into_iter().map(|mut given| async move {
            assert_eq!(frame(&mut given).await.as_deref(), Some("data: 1\n\n"));
            given
        }))
        .await;
        send(&one, "data: 2\n\n");
        // One comes late and has all from the first frame on.
        let late = ask(&cache, json(r#"{"q":"hi"}"#)).await;
        send(&one, "data: [DONE]\n\n");
        close(&senders);
        let late = frames(late).await.0;
        assert_eq!(late, ["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"]);
        for given in given.drain(..) {
            assert_eq!(frames(given).await.0, late[1..]);
        }
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn who_shares_is_told_so_and_is_not_told_of_the_quota() {
    let upstream = Upstream::new(|_, _| {
        let response = Response::builder().header("ratelimit", "\"default\";r=5");
        Ok(response.body(text("an answer"))?)
    })
    .gated();
    let cache = cache(&layer(), &upstream);
    let tasks = spawn(&cache, 3);
    settle().await;
    upstream.gate.add_permits(1);
    let mut told: Vec<_> = tasks
        .join_all()
        .await
        .iter()
        .map(|given| (status(given).to_owned(), given.headers().contains_key("ratelimit")))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("tower-quota;fwd=miss;collapsed".to_owned(), false),
            ("tower-quota;fwd=miss;collapsed".to_owned(), false),
            ("tower-quota;fwd=miss;stored".to_owned(), true),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_before_the_head_leaves_the_call_to_the_others() {
    let upstream = Upstream::numbered().gated();
    let cache = cache(&layer(), &upstream);
    let mut leader = Box::pin(read(&cache, json("{}")));
    assert!((&mut leader).now_or_never().is_none());
    settle().await;
    let mut follower = Box::pin(read(&cache, json("{}")));
    assert!((&mut follower).now_or_never().is_none());
    drop(leader);
    settle().await;
    upstream.gate.add_permits(1);
    assert_eq!(follower.await, "answer 1");
    assert_eq!(read(&cache, json("{}")).await, "answer 1", "it was kept");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_goes_in_the_middle_leaves_the_stream_to_the_others() {
    let (upstream, senders) = streaming();
    let cache = cache(&layer(), &upstream);
    let mut leader = ask(&cache, json("{}")).await;
    let mut followers = Vec::new();
    for _ in 0..49 {
        followers.push(ask(&cache, json("{}")).await);
    }
    let one = sender(&senders, 0);
    send(&one, "1");
    assert_eq!(frame(&mut leader).await.as_deref(), Some("1"));
    drop(leader);
    send(&one, "2");
    // One after the other goes; the last still has the whole answer.
    while followers.len() > 1 {
        followers.pop();
        settle().await;
    }
    send(&one, "3\n\n");
    close(&senders);
    assert_eq!(frames(followers.remove(0)).await.0, ["1", "2", "3\n\n"]);
    settle().await;
    assert_eq!(read(&cache, json("{}")).await, "123\n\n", "it was kept");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_wants_is_dropped() {
    let upstream = Upstream::numbered().gated();
    let cache = cache(&layer(), &upstream);
    let mut only = Box::pin(read(&cache, json("{}")));
    assert!((&mut only).now_or_never().is_none());
    settle().await;
    assert_eq!(upstream.calls(), 1);
    let handles = Arc::strong_count(&upstream.calls);
    drop(only);
    settle().await;
    assert!(Arc::strong_count(&upstream.calls) < handles, "the call is gone");
    upstream.gate.add_permits(1);
    assert_eq!(read(&cache, json("{}")).await, "answer 2", "who comes then asks anew");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_read_a_second_longer() {
    let (upstream, senders) = streaming();
    let cache = cache(&layer(), &upstream);
    let mut given = ask(&cache, json("{}")).await;
    send(&sender(&senders, 0), "data: [DONE]\n\n");
    frame(&mut given).await;
    drop(given);
    settle().await;
    assert!(!sender(&senders, 0).is_closed());
    // One that comes meanwhile joins it, and keeps it going.
    let joined = ask(&cache, json("{}")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!sender(&senders, 0).is_closed());
    drop(joined);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(!sender(&senders, 0).is_closed());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(sender(&senders, 0).is_closed(), "the body is dropped");
    let again = ask(&cache, json("{}")).await;
    assert_eq!(status(&again), "tower-quota;fwd=miss", "nothing was kept");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_at_the_last_event_does_not_keep_the_answer_from_being_kept() {
    let (upstream, senders) = streaming();
    let cache = cache(&layer(), &upstream);
    let mut given = ask(&cache, json("{}")).await;
    send(&sender(&senders, 0), "data: [DONE]\n\n");
    frame(&mut given).await;
    drop(given);
    tokio::time::sleep(Duration::from_millis(100)).await;
    close(&senders);
    settle().await;
    assert_eq!(read(&cache, json("{}")).await, "data: [DONE]\n\n");
    assert_eq!(upstream.calls(), 1);
}

/// What fifty are told who ask at the same time a service whose first calls fail.
fn fifty_with_failures(failures: usize) -> (Upstream, JoinSet<String>) {
    let upstream = Upstream::new(move |call, _| {
        if call <= failures {
            return Err(format!("failure {call:02}").into());
        }
        Ok(Response::new(text("an answer")))
    })
    .gated();
    let cache = cache(&layer(), &upstream);
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let cache = cache.clone();
        tasks.spawn(async move {
            match cache.oneshot(json("{}")).await {
                Ok(given) => read_body(given).await,
                Err(error) => error.to_string(),
            }
        });
    }
    (upstream, tasks)
}

#[tokio::test(start_paused = true)]
async fn an_error_is_for_the_leader_and_one_of_the_others_asks() {
    let (upstream, tasks) = fifty_with_failures(1);
    for call in 1..=2 {
        settle().await;
        assert_eq!(upstream.calls(), call, "one at a time");
        upstream.gate.add_permits(1);
    }
    let mut said = tasks.join_all().await;
    said.sort_unstable();
    assert_eq!(said[..49], vec!["an answer"; 49]);
    assert_eq!(said[49], "failure 01");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_more_than_two_failures_of_others() {
    let (upstream, tasks) = fifty_with_failures(50);
    for calls in [1, 2, 50] {
        settle().await;
        assert_eq!(upstream.calls(), calls);
        upstream.gate.add_permits(1);
    }
    upstream.gate.add_permits(47);
    let said = tasks.join_all().await;
    assert!(said.iter().all(|said| said.starts_with("failure")), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_success_is_for_the_leader_alone() {
    let upstream = Upstream::new(|call, _| {
        let status = if call == 1 { 429 } else { 200 };
        Ok(Response::builder().status(status).body(text(&format!("answer {call}")))?)
    })
    .gated();
    let cache = cache(&layer(), &upstream);
    let tasks = spawn(&cache, 10);
    settle().await;
    upstream.gate.add_permits(2);
    let given = tasks.join_all().await;
    assert_eq!(given.iter().filter(|given| given.status() == 429).count(), 1);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_private_answer_is_shared_with_nobody() {
    for field in
        [("cache-control", "private"), ("cache-control", "no-store"), ("set-cookie", "a=1")]
    {
        let upstream = Upstream::new(move |call, _| {
            let response = Response::builder().header(field.0, field.1);
            Ok(response.body(text(&format!("answer {call}")))?)
        })
        .gated();
        let cache = cache(&layer().shared(), &upstream);
        let tasks = spawn(&cache, 10);
        settle().await;
        assert_eq!(upstream.calls(), 1);
        upstream.gate.add_permits(1);
        settle().await;
        assert_eq!(upstream.calls(), 10, "the others ask for themselves, and do not wait in line");
        upstream.gate.add_permits(9);
        let mut texts = join_all(tasks.join_all().await.into_iter().map(read_body)).await;
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 10, "each has one of its own");
    }
}

#[tokio::test(start_paused = true)]
async fn a_break_is_told_to_all_and_not_kept() {
    let (upstream, senders) = streaming();
    let cache = cache(&layer(), &upstream);
    let mut given = Vec::new();
    for _ in 0..5 {
        given.push(ask(&cache, json("{}")).await);
    }
    let one = sender(&senders, 0);
    send(&one, "half of ");
    one.unbounded_send(broken()).expect("a reader");
    for mut given in given {
        assert_eq!(frame(&mut given).await.as_deref(), Some("half of "));
        let error = given.body_mut().frame().await.expect("an error").expect_err("it broke off");
        let broken = error.downcast::<BrokenAnswer>().expect("an error of ours");
        assert!(!broken.is_behind());
        let source = std::error::Error::source(&*broken).expect("a source");
        assert!(source.is::<io::Error>(), "{source}");
        assert!(given.body_mut().frame().await.is_none(), "once");
    }
    let again = ask(&cache, json("{}")).await;
    assert_eq!(status(&again), "tower-quota;fwd=miss");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_the_leaders_and_another_asks() {
    let upstream = Upstream::new(|call, _| {
        assert!(call > 1, "the service panics");
        Ok(Response::new(text(&format!("answer {call}"))))
    })
    .gated();
    let cache = cache(&layer(), &upstream);
    let mut tasks = spawn(&cache, 2);
    settle().await;
    upstream.gate.add_permits(2);
    let mut ends = Vec::new();
    while let Some(end) = tasks.join_next().await {
        ends.push(match end {
            Ok(given) => read_body(given).await,
            Err(error) => error.is_panic().to_string(),
        });
    }
    ends.sort_unstable();
    assert_eq!(ends, ["answer 2", "true"]);
}

#[tokio::test(start_paused = true)]
async fn who_wants_a_new_answer_does_not_join_an_old_call() {
    let upstream = Upstream::numbered().gated();
    let cache = cache(&layer(), &upstream);
    let mut old = Box::pin(read(&cache, json("{}")));
    assert!((&mut old).now_or_never().is_none());
    settle().await;
    let mut new = Box::pin(read(&cache, with(json("{}"), "cache-control", "no-cache")));
    assert!((&mut new).now_or_never().is_none());
    settle().await;
    assert_eq!(upstream.calls(), 2);
    let mut third = Box::pin(read(&cache, json("{}")));
    assert!((&mut third).now_or_never().is_none());
    upstream.gate.add_permits(2);
    assert_eq!(
        (old.await, new.await, third.await),
        ("answer 1".to_owned(), "answer 2".to_owned(), "answer 2".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_does_not_join_a_call_of_which_nothing_comes() {
    let upstream = Upstream::numbered().gated();
    let cache = cache(&layer(), &upstream);
    let mut tasks = spawn(&cache, 1);
    for (seconds, calls) in [(29, 1), (1, 2), (29, 2), (1, 3)] {
        settle().await;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let cache = cache.clone();
        tasks.spawn(async move { ask(&cache, json(r#"{"q":"hi"}"#)).await });
        settle().await;
        assert_eq!(upstream.calls(), calls, "after {seconds} s more");
    }
    upstream.gate.add_permits(3);
    assert_eq!(tasks.join_all().await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_does_not_join_a_stream_that_has_gone_silent() {
    let (upstream, senders) = streaming();
    let cache = cache(&layer().join_within(Duration::from_secs(5)), &upstream);
    let mut given = vec![ask(&cache, json("{}")).await];
    for (seconds, calls) in [(4, 1), (4, 1), (5, 2)] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        given.push(ask(&cache, json("{}")).await);
        assert_eq!(upstream.calls(), calls, "after {seconds} s more");
        send(&sender(&senders, 0), "data: 1\n\n");
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_larger_answer_goes_at_the_pace_of_the_fastest_and_is_not_kept() {
    const PART: &str = "0123456789012345678901234567890123456789";
    let (upstream, senders) = streaming();
    let cache = cache(&layer().max_answer_bytes(2_000), &upstream);
    let mut fast = ask(&cache, json("{}")).await;
    let mut slow = ask(&cache, json("{}")).await;
    let one = sender(&senders, 0);
    for _ in 0..100 {
        send(&one, PART);
    }
    close(&senders);
    settle().await;
    assert_eq!(frame(&mut slow).await.as_deref(), Some(PART));
    for _ in 0..100 {
        assert_eq!(frame(&mut fast).await.as_deref(), Some(PART), "the slow one does not hold it");
    }
    assert_eq!(frame(&mut fast).await, None);
    let mut end = Ok(());
    while let Some(next) = slow.body_mut().frame().await {
        end = next.map(drop);
    }
    let error = end.expect_err("it is behind").downcast::<BrokenAnswer>().expect("ours");
    assert!(error.is_behind());
    settle().await;
    let again = ask(&cache, json("{}")).await;
    assert_eq!(status(&again), "tower-quota;fwd=miss", "it was too large");
}
