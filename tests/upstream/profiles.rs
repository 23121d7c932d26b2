use std::{collections::BTreeSet, time::Duration};

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
        (
            "name = \"x\"\ndimensions = [\"requests\", \"images\"]",
            "`dimensions`",
            "is read, and not kept",
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

#[test]
fn the_text_of_each_ready_made_profile_is_there_to_start_from() {
    for name in Profile::READY {
        let text = Profile::ready_text(name).expect("it is ready-made");
        let own = text.replace(&format!("name = \"{name}\""), "name = \"house\"");
        let own: Profile = own.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(own.name(), "house");
        assert!(own.limits().eq(ready(name).limits()), "{name}");
    }
    assert_eq!(Profile::ready_text("nobody"), None);
}

/// The part of the page that is about a table.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| {
        panic!("the page has no part {heading}");
    });
    rest.split("\n## ").next().unwrap_or_default()
}

/// The keys of each table are the fields of its type, and the words that a key can be are its
/// variants.
#[test]
fn the_guide_has_every_key_and_every_word_of_a_profile() {
    let page = include_str!("../../src/guide/profiles.md");
    let sources = [
        include_str!("../../src/upstream/profile/shape.rs"),
        include_str!("../../src/upstream/dimension.rs"),
        include_str!("../../src/upstream/observation.rs"),
        include_str!("../../src/upstream/form.rs"),
    ];
    let headings = [
        ("Written", "At the top"),
        ("LimitShape", "`[[limit]]`"),
        ("WaitShape", "`[wait]`"),
        ("RuleShape", "`[[refusal]]`"),
        ("InsideShape", "`[inside]`"),
        ("UsageShape", "`[usage]`"),
        ("EstimateShape", "`[estimate]`"),
        ("Weights", "`[weights]`"),
        ("Dimension", "At the top"),
        ("Class", "`[[refusal]]`"),
        ("Settles", "`[usage]`"),
        ("OnFailure", "`[usage]`"),
        ("ReserveOutput", "`[estimate]`"),
        ("Form", "Forms"),
    ];
    for (name, heading) in headings {
        let part = section(page, heading);
        let declared = |keyword: &str| format!("{keyword} {name} {{\n");
        let of_type = sources.iter().find_map(|source| {
            let (_, body) = ["struct", "enum"]
                .iter()
                .find_map(|keyword| source.split_once(&declared(keyword)))?;
            body.split_once("\n}").map(|(body, _)| body)
        });
        let of_type = of_type.unwrap_or_else(|| panic!("{name} is declared"));
        let lines = of_type.lines().map(str::trim).filter(|line| !line.starts_with(['/', '#']));
        let mut keys = 0;
        for line in lines {
            let line = line.strip_prefix("pub(in crate::upstream) ").unwrap_or(line);
            let end = line.find([':', ',']).expect("a field or a variant");
            let key = match &line[..end] {
                "Rfc3339" => "rfc-3339".to_owned(),
                key => kebab(key),
            };
            assert!(part.contains(&format!("`{key}`")), "{heading} says nothing of {key}");
            keys += 1;
        }
        assert!(keys > 0, "{name} has something");
    }
}

/// `build` refuses any other name, so whoever sets limits by hand begins with these.
#[test]
fn the_guide_has_the_limits_of_every_profile_by_their_times() {
    let page = include_str!("../../src/guide/upstream.md");
    let (_, part) =
        page.split_once("\n# The names of the limits\n").expect("the page has the part");
    for name in Profile::READY {
        let profile = ready(name);
        let of = |time: Option<u64>| -> BTreeSet<&str> {
            let of_time = |window: &Option<Duration>| window.map(|window| window.as_secs()) == time;
            let limits = profile.limits().filter(|(limit, _, window)| {
                // Those that are read and not kept cannot be set.
                of_time(window) && !limit.starts_with("priority-") && !limit.starts_with("fast-")
            });
            limits.map(|(limit, ..)| limit).collect()
        };
        let row = part.lines().find_map(|line| line.strip_prefix(&format!("| `{name}` |")));
        let cells = row.unwrap_or("|||").split('|').map(|cell| {
            cell.split(',')
                .map(|word| word.trim().trim_matches('`'))
                .filter(|word| !word.is_empty())
        });
        let cells: Vec<BTreeSet<&str>> = cells.map(Iterator::collect).take(3).collect();
        assert_eq!(cells, [of(Some(60)), of(Some(86_400)), of(None)], "{name}");
    }
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for letter in name.chars() {
        match letter {
            '_' => kebab.push('-'),
            'A'..='Z' if kebab.is_empty() => kebab.push(letter.to_ascii_lowercase()),
            'A'..='Z' => kebab.extend(['-', letter.to_ascii_lowercase()]),
            _ => kebab.push(letter),
        }
    }
    kebab
}
