use tower_quota::{
    Cost,
    upstream::{Dimension, Profile},
};

use crate::support::ready;

#[test]
fn every_ready_made_profile_is_one() {
    for name in Profile::READY {
        let profile = ready(name);
        assert_eq!(profile.name(), *name);
        assert_eq!(profile.dimensions()[0], Dimension::Requests, "{name}");
    }
    assert!(Profile::ready("nobody").is_none());
    assert!(Profile::READY.is_sorted());
}

#[test]
fn a_profile_takes_what_it_does_not_say_from_another() {
    let profile: Profile = "name = \"house\"\nlike = \"anthropic\"\n[weights]\noutput = 500\n"
        .parse()
        .expect("a profile");
    assert_eq!(profile.dimensions(), ready("anthropic").dimensions());
    assert_eq!(profile.limits().count(), ready("anthropic").limits().count());
}

#[test]
fn an_error_names_the_key_and_the_remedy() {
    let head = "name = \"x\"\ndimensions = [\"requests\"]\n";
    let rows = [
        ("name = \"x\"", "`dimensions`", "name one to four"),
        ("name = \"x\"\ndimensions = [\"requests\", \"requests\"]", "`dimensions`", "once"),
        ("name = \"x\"\nlike = \"nobody\"", "`like`", "ready-made"),
        ("name = \"x\"\nlimits = 5", "limits", "expected one of"),
        ("name = \"x\"\ndimensions = [\"words\"]", "words", "input-tokens"),
        ("name = ", "name", "correct"),
        (
            &format!("{head}[[limit]]\ndimension = \"requests\"\nreset = \"x-a\""),
            "`limit[0].form`",
            "duration",
        ),
        (
            &format!("{head}[[limit]]\ndimension = \"requests\"\nlimit = \"x a\""),
            "`limit[0].limit`",
            "header",
        ),
        (
            &format!("{head}[[limit]]\ndimension = \"requests\"\nwindow = \"soon\""),
            "`limit[0].window`",
            "`1m`",
        ),
        (
            &format!(
                "{head}[[limit]]\ndimension = \"requests\"\n[[limit]]\ndimension = \"requests\""
            ),
            "`limit[1].name`",
            "of its own",
        ),
        (
            &format!("{head}[[limit]]\nname = \"told-x\"\ndimension = \"requests\""),
            "`limit[0].name`",
            "begin it otherwise",
        ),
        (&format!("{head}[[refusal]]\nclass = \"daily\""), "`refusal[0]`", "`status`"),
        (
            &format!("{head}[[refusal]]\nstatus = [429]\nis = \"x\"\nclass = \"daily\""),
            "`refusal[0].path`",
            "where",
        ),
        (
            &format!("{head}[[refusal]]\nstatus = [429]\nclass = \"daily\"\nlimit = \"x\""),
            "`refusal[0].limit`",
            "`[[limit]]`",
        ),
        (
            &format!("{head}[estimate]\ncharacters-per-token = 0"),
            "`estimate.characters-per-token`",
            "4",
        ),
    ];
    for (text, key, remedy) in rows {
        let error = text.parse::<Profile>().expect_err(text).to_string();
        assert!(error.contains(key) && error.contains(remedy), "{text}\n{error}");
    }
}

#[test]
fn a_failure_counts_as_the_profile_says() {
    let reserved = Cost::new(1).with(1, 50);
    assert_eq!(ready("openai").failed(reserved), reserved);
    let of = |counts: &str| {
        let text = format!(
            "name = \"x\"\ndimensions = [\"requests\", \"tokens\"]\n[usage]\ncounts-on-failure = \"{counts}\""
        );
        text.parse::<Profile>().expect("a profile").failed(reserved)
    };
    assert_eq!(of("request"), Cost::ONE);
    assert_eq!(of("nothing"), Cost::ZERO);
}

#[test]
fn weights_are_rounded_up() {
    let text = "name = \"x\"\ndimensions = [\"tokens\"]\n[usage]\ninput = [\"i\"]\ncache-read = [\"c\"]\n[weights]\ncache-read = 10";
    let profile: Profile = text.parse().expect("a profile");
    use tower_quota::{reserve::Reading, upstream::UsageReading};
    let mut reading = UsageReading::json(&profile);
    reading.data(br#"{"i": 20, "c": 11}"#);
    assert_eq!(profile.cost(&reading.usage()), Cost::new(9 + 2));
}
