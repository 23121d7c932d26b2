use std::time::Duration;

use tower_quota::testing::strict_upstream::{Admission, Answers, ProviderLimit};

use crate::support::{api, chat, chat_with};

/// What came in, as (nanoseconds, units), decided again by adding up everything each time.
struct Plain {
    amount: u128,
    period: u128,
    taken: Vec<(u128, u128)>,
}

impl Plain {
    /// A bucket that holds `amount` and is refilled with `amount` in each period: the level is found
    /// by living through all that was taken.
    fn admits(&mut self, now: u128, units: u128) -> bool {
        let (full, mut level, mut last) = (self.amount * self.period, self.amount * self.period, 0);
        for (at, taken) in self.taken.iter().copied().chain([(now, 0)]) {
            level = full.min(level + (at - last) * self.amount);
            level -= taken * self.period;
            last = at;
        }
        let admits = level >= units * self.period;
        if admits {
            self.taken.push((now, units));
        }
        admits
    }
}

#[tokio::test(start_paused = true)]
async fn the_books_agree_with_a_plain_count_of_everything() {
    let mut random = 7_u64;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for amount in [1, 7, 60, 1_000] {
        let limit = ProviderLimit::tokens(amount).per(Duration::from_secs(7));
        let api = api([limit])
            .admission(Admission::PromptAndCapKept)
            .answers(Answers::exactly(0))
            .build();
        let mut plain = Plain { amount: amount.into(), period: 7_000_000_000, taken: Vec::new() };
        let begun = tokio::time::Instant::now();
        for _ in 0..300 {
            tokio::time::advance(Duration::from_millis(draw(2_000))).await;
            let characters = 4 * draw(amount + 3);
            let units = u128::from(characters / 4 + 2);
            let admitted =
                chat_with(&api, "sk-a", characters as usize, r#","max_tokens":0"#).await.status
                    == 200;
            let now = begun.elapsed().as_nanos();
            assert_eq!(admitted, plain.admits(now, units), "{units} of {amount} at {now}");
        }
        let taken: u128 = plain.taken.iter().map(|(_, units)| units).sum();
        let record = api.record();
        assert_eq!(u128::from(record.limits[0].spent), taken);
        assert_eq!(record.admitted as usize, plain.taken.len());
        assert_eq!(record.limits[0].by_second.values().sum::<u64>(), record.limits[0].spent);
        assert!(record.limits[0].peak <= amount);
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_begins_anew_at_midnight_and_not_before() {
    let day = Duration::from_secs(86_400);
    // The books begin at noon.
    let api = api([ProviderLimit::requests(2).per(day).fixed()]).build();
    assert_eq!(chat(&api, 6).await.status, 200);
    assert_eq!(chat(&api, 6).await.header("x-ratelimit-reset-requests"), "12h0m0s");
    let refusal = chat(&api, 6).await;
    assert!(refusal.text.contains("on requests per day (RPD)"), "{}", refusal.text);
    assert_eq!(refusal.header("retry-after"), "43200");
    tokio::time::advance(Duration::from_secs(43_199)).await;
    assert_eq!(chat(&api, 6).await.status, 429);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(chat(&api, 6).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_yesterday_gives_back_is_no_room_of_today() {
    let day = Duration::from_secs(86_400);
    let api = api([ProviderLimit::tokens(100).per(day).fixed()])
        .admission(Admission::PromptAndCap)
        .answers(Answers::exactly(10))
        .latency(day, Duration::ZERO)
        .build();
    // Today's call is charged 3 + 90 and uses 15; it ends tomorrow, where another has been charged.
    let first = chat_with(&api, "sk-a", 4, r#","max_tokens":90"#);
    let second = async {
        tokio::time::sleep(Duration::from_secs(50_000)).await;
        let _ = tokio::time::timeout(
            Duration::from_secs(1),
            chat_with(&api, "sk-a", 4, r#","max_tokens":90"#),
        )
        .await;
        tokio::time::sleep(Duration::from_secs(40_000)).await;
        api.record().limits[0].used
    };
    let (answer, used) = tokio::join!(first, second);
    assert_eq!(answer.status, 200);
    // What the caller left was settled to its prompt.
    assert_eq!(used, 7);
}

#[tokio::test(start_paused = true)]
async fn each_way_to_admit_charges_what_it_says() {
    for (admission, at_once, at_the_end) in [
        (Admission::Prompt, 8, 12 + 16),
        (Admission::PromptAndCap, 8 + 40, 12 + 16),
        (Admission::PromptAndCapKept, 8 + 40, 8 + 40),
    ] {
        let api = api([ProviderLimit::tokens(1_000).per(Duration::from_secs(86_400)).fixed()])
            .admission(admission)
            .build();
        let answer = chat_with(&api, "sk-a", 23, r#","max_tokens":40"#).await;
        let remaining: u64 =
            answer.header("x-ratelimit-remaining-tokens").parse().expect("a number");
        assert_eq!(1_000 - remaining, at_once, "{admission:?}");
        assert_eq!(api.record().limits[0].used, at_the_end, "{admission:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_for_one_model_is_not_for_the_others() {
    let api = api([ProviderLimit::requests(1).model("other")]).build();
    for _ in 0..3 {
        assert_eq!(chat(&api, 6).await.status, 200);
    }
    assert_eq!(api.record().limits[0].spent, 0);
}

#[tokio::test(start_paused = true)]
async fn the_lengths_of_answers_have_a_heavy_tail_and_come_again() {
    let lengths = || async {
        let api = api([]).answers(Answers::heavy_tailed(10, 10_000, 3)).build();
        let mut lengths = Vec::new();
        for _ in 0..400 {
            let usage = chat(&api, 6).await.json();
            lengths.push(usage["usage"]["completion_tokens"].as_u64().expect("a number"));
        }
        lengths
    };
    let mut first = lengths().await;
    assert_eq!(first, lengths().await);
    first.sort_unstable();
    assert!(first[0] >= 10);
    assert!((15..=25).contains(&first[200]), "the median is {}", first[200]);
    assert!(first[399] > 500, "the longest is {}", first[399]);
}
