//! Refusals that do not say when to come back, as those of some providers: each of them that is tried
//! is one too many.

use std::time::Duration;

use tower_quota::{
    Quota,
    backend::LocalBuilder,
    time::Timestamp,
    upstream::{Account, AccountBuilder, Board},
};

use crate::support::{Answer, Paused, Provider, Store, ask_all, millis, profile, question};

const RATE: &str = r#"{"code":"Throttling.RateQuota","message":"Requests rate limit exceeded, please try again later."}"#;
const DAY: &str = r#"{"__type":"ThrottlingException","message":"Too many tokens per day, please wait before trying again."}"#;
const MINUTE: &str =
    r#"{"__type":"ThrottlingException","message":"Too many requests, please wait."}"#;
const START: Timestamp = Timestamp::from_secs(1_790_000_000);

fn builder(name: &str) -> AccountBuilder<Store> {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(START));
    Account::builder(profile(name)).backend(store).board(Board::starting_at(START))
}

fn refusals<const N: usize>(body: &'static str) -> [Answer; N] {
    std::array::from_fn(|_| Answer::new(429, body).after(millis(100)))
}

/// So many calls come, so far apart. When they went to the provider, from the first on.
async fn went(
    account: Account<Store>,
    provider: &Provider,
    calls: u32,
    apart: Duration,
) -> Vec<Duration> {
    let client = provider.by(account);
    let asks = (0..calls).map(|number| {
        let client = client.clone();
        async move {
            tokio::time::sleep(apart * number).await;
            ask_all(&client, question(10)).await
        }
    });
    futures::future::join_all(asks).await;
    let asked = provider.asked();
    asked.iter().map(|one| one.at - asked[0].at).collect()
}

#[tokio::test(start_paused = true)]
async fn who_refuses_on_and_on_is_asked_by_one_call_at_a_time_and_ever_more_seldom() {
    let account = builder("dashscope").limit("requests", Quota::per_minute(60_000));
    let account = account.max_wait(Duration::from_secs(600)).build().expect("a limit");
    let provider = Provider::new(refusals::<8>(RATE));
    let went = went(account, &provider, 600, millis(200)).await;
    assert_eq!(went.len(), 600);
    for (number, secs) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let pause = went[number + 1] - went[number];
        let least = Duration::from_secs(secs);
        assert!((least..least + millis(1_000)).contains(&pause), "{number}: {pause:?}");
    }
    // When all is well again, all who wait are let through by and by.
    assert!(went[599] - went[8] < Duration::from_secs(60), "{:?}", went[599] - went[8]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_well_makes_the_next_refusal_the_first_of_its_kind() {
    let account = builder("dashscope").limit("requests", Quota::per_minute(60_000)).build();
    let [one, two] = refusals(RATE);
    let provider = Provider::new([one, Answer::used(0), two, Answer::used(0)]);
    let went = went(account.expect("a limit"), &provider, 4, millis(0)).await;
    assert_eq!(went.len(), 4);
    assert!(went[3] - went[2] < millis(1_500), "{went:?}");
}

/// The stop before was told to all.
#[tokio::test(start_paused = true)]
async fn another_instance_goes_on_from_what_the_first_was_told() {
    let board = Board::starting_at(START);
    let of = || builder("dashscope").board(board.clone()).build().expect("an account");
    let (here, there) = (of(), of());
    let [one, other] = refusals(RATE);
    let (before, behind) = (Provider::new([one]), Provider::new([other]));
    let (here_client, there_client) = (before.by(here.clone()), behind.by(there.clone()));
    ask_all(&here_client, question(10)).await;
    // It waits for the end of the stop.
    ask_all(&there_client, question(10)).await;
    let stop = here.notice("").stop.expect("it holds");
    let until = stop.until.expect("it ends").saturating_since(START);
    assert!((millis(3_000)..millis(3_500)).contains(&until), "one and two seconds: {until:?}");
}

/// When its day ends nobody says.
#[tokio::test(start_paused = true)]
async fn after_a_refusal_for_a_day_of_which_nobody_knows_the_end_one_more_call_goes_in_a_day() {
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let account = builder("bedrock").max_wait(hours(60)).build().expect("an account");
    let provider = Provider::new(refusals::<2>(DAY));
    let went = went(account, &provider, 240, Duration::from_secs(600)).await;
    assert!((hours(1)..hours(1) + millis(2_000)).contains(&went[1]), "{:?}", went[1]);
    assert!(went[2] >= hours(25), "{:?}", went[2]);
    assert!(went[2] < hours(25) + millis(2_000), "{:?}", went[2]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_was_ended_by_hand_says_nothing_of_the_next() {
    let account = builder("bedrock").build().expect("an account");
    let [day] = refusals(DAY);
    let [one, two] = refusals(MINUTE);
    let provider = Provider::new([day]);
    ask_all(&provider.by(account.clone()), question(10)).await;
    account.resume("");
    provider.then([one, two]);
    let went = went(account, &provider, 3, millis(0)).await;
    // That of the day, two that are refused, and one that goes well.
    assert_eq!(went.len(), 4);
    for (number, secs) in [(1, 1), (2, 2)] {
        let pause = went[number + 1] - went[number];
        let least = Duration::from_secs(secs);
        assert!((least..least + millis(1_000)).contains(&pause), "{number}: {went:?}");
    }
}

/// It has heard nothing of the stop while that held, and is the first to ask again.
#[tokio::test(start_paused = true)]
async fn an_instance_that_sent_nothing_meanwhile_goes_on_from_what_the_other_was_told() {
    let (board, since) = (Board::starting_at(START), tokio::time::Instant::now());
    let of = || builder("dashscope").board(board.clone()).build().expect("an account");
    let (here, there) = (of(), of());
    let provider = Provider::new(refusals::<4>(RATE));
    let client = provider.by(here.clone());
    for _ in 0..3 {
        ask_all(&client, question(10)).await;
    }
    // One and two seconds are over, and of the four a part is.
    tokio::time::sleep(millis(4_100)).await;
    let begun = START.saturating_add(since.elapsed());
    ask_all(&provider.by(there.clone()), question(10)).await;
    let until = there.notice("").stop.and_then(|stop| stop.until).expect("it holds");
    let told = until.saturating_since(begun);
    assert!((millis(7_900)..millis(8_500)).contains(&told), "twice four seconds: {told:?}");
}

/// Of what is refused at once, one may say more than another.
#[tokio::test(start_paused = true)]
async fn a_stop_of_another_class_while_one_holds_is_the_one_that_counts() {
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let account = builder("bedrock").max_wait(hours(60)).build().expect("an account");
    let soon = Answer::new(429, MINUTE).header("retry-after", "1").after(millis(100));
    let [day, again] = refusals(DAY);
    let provider = Provider::new([Answer::used(0), soon, day.after(millis(200)), again]);
    let client = provider.by(account);
    ask_all(&client, question(10)).await;
    // Two at a time by now.
    let all = (0..6).map(|_| ask_all(&client, question(10)));
    futures::future::join_all(all).await;
    let asked = provider.asked();
    let pause = |one: usize, other: usize| asked[other].at - asked[one].at;
    assert!(pause(1, 2) < millis(10), "both are under way");
    assert!((hours(1)..hours(1) + millis(2_000)).contains(&pause(2, 3)), "{:?}", pause(2, 3));
    assert!(pause(3, 4) >= hours(24), "one tries it, and a day later another: {:?}", pause(3, 4));
}

/// Eight instances that share a ledger and a board, and five calls at each.
#[tokio::test(start_paused = true)]
async fn of_a_whole_fleet_one_call_tries_whether_it_is_over_and_the_others_go_by_its_word() {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(START));
    let board = Board::starting_at(START);
    let provider = Provider::new(refusals::<3>(RATE));
    let clients = (0..8).map(|_| {
        let account =
            Account::builder(profile("dashscope")).limit("requests", Quota::per_minute(60_000));
        let account = account.backend(store.clone()).board(board.clone()).build();
        provider.by(account.expect("a limit"))
    });
    let clients: Vec<_> = clients.collect();
    ask_all(&clients[0], question(10)).await;
    let begun = tokio::time::Instant::now();
    let all = clients.iter().flat_map(|client| (0..5).map(|_| ask_all(client, question(10))));
    futures::future::join_all(all).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let asked = provider.asked();
    assert_eq!(asked.len(), 41);
    // After one second, after two, and when that went well.
    let pauses: Vec<_> = (1..4).map(|number| asked[number].at - asked[number - 1].at).collect();
    for (pause, secs) in pauses.iter().zip([1, 2, 4]) {
        let least = Duration::from_secs(secs);
        assert!((least..least + millis(500)).contains(pause), "{pauses:?}");
    }
}

/// Its caller went away, say, or the instance died.
#[tokio::test(start_paused = true)]
async fn where_no_word_comes_of_who_tries_another_does_some_seconds_later() {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(START));
    let board = Board::starting_at(START);
    let of = || {
        let account =
            Account::builder(profile("dashscope")).limit("requests", Quota::per_minute(60_000));
        account.backend(store.clone()).board(board.clone()).build().expect("a limit")
    };
    let [first] = refusals(RATE);
    let provider = Provider::new([first, Answer::used(0).after(Duration::from_secs(300))]);
    let (here, there) = (provider.by(of()), provider.by(of()));
    ask_all(&here, question(10)).await;
    let slow = tokio::spawn(async move { ask_all(&here, question(10)).await });
    while provider.asked().len() < 2 {
        tokio::time::sleep(millis(10)).await;
    }
    let begun = tokio::time::Instant::now();
    ask_all(&there, question(10)).await;
    let waited = begun.elapsed();
    assert!((millis(8_000)..millis(12_000)).contains(&waited), "{waited:?}");
    slow.abort();
}

/// What is told ends by itself, and so does what is ended by hand: nobody has to wait for somebody's word.
#[tokio::test(start_paused = true)]
async fn where_another_stop_is_told_or_it_is_ended_by_hand_nobody_tries_for_others() {
    for is_told in [true, false] {
        let store = LocalBuilder::new().build_with_clock(Paused::starting_at(START));
        let board = Board::starting_at(START);
        let [first, second] = refusals(RATE);
        let provider = Provider::new([first, second.header("retry-after", "2")]);
        let accounts: Vec<_> = (0..8)
            .map(|_| {
                let account = Account::builder(profile("dashscope")).backend(store.clone());
                let account = account.limit("requests", Quota::per_minute(60_000));
                account.board(board.clone()).build().expect("a limit")
            })
            .collect();
        let clients: Vec<_> = accounts.iter().map(|account| provider.by(account.clone())).collect();
        ask_all(&clients[0], question(10)).await;
        let begun = tokio::time::Instant::now();
        let end = async {
            if !is_told {
                accounts[0].resume("");
            }
        };
        let all = clients.iter().map(|client| ask_all(client, question(10)));
        tokio::join!(end, futures::future::join_all(all));
        // One second, two, and a moment each.
        assert!(begun.elapsed() < millis(4_500), "{is_told}: {:?}", begun.elapsed());
    }
}

/// A wrong request is refused before anybody looks at a limit: it tells nothing of that.
#[tokio::test(start_paused = true)]
async fn what_is_answered_badly_sends_nobody_into_a_stop_that_may_hold_still() {
    let store = LocalBuilder::new().build_with_clock(Paused::starting_at(START));
    let board = Board::starting_at(START);
    let [refusal] = refusals(RATE);
    let wrong = || Answer::new(400, "{}").after(millis(100));
    let provider = Provider::new([refusal, wrong(), wrong(), Answer::used(0).after(millis(100))]);
    let clients = (0..8).map(|_| {
        let account = Account::builder(profile("dashscope")).backend(store.clone());
        let account = account.limit("requests", Quota::per_minute(60_000)).board(board.clone());
        provider.by(account.build().expect("a limit"))
    });
    let clients: Vec<_> = clients.collect();
    ask_all(&clients[0], question(10)).await;
    let all = clients.iter().flat_map(|client| (0..5).map(|_| ask_all(client, question(10))));
    futures::future::join_all(all).await;
    let asked = provider.asked();
    assert_eq!(asked.len(), 41);
    // The two that are wrong, and the one that goes well.
    for number in 1..4 {
        let pause = asked[number + 1].at - asked[number].at;
        assert!(pause >= millis(100), "{number}: {pause:?}");
    }
}
