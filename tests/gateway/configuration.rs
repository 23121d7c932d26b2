use std::fs;

use crate::support::{configuration, fail};

/// A configuration with one thing changed, what is said of it, and on which line.
#[test]
fn what_is_wrong_is_told_with_its_line_and_a_remedy() {
    let good = configuration(([127, 0, 0, 1], 9).into(), "[cache]\n\n[deferred]");
    for (from, to, says) in [
        ("plan = \"small\"", "plan = \"tiny\"", "there is no plan `tiny`"),
        ("plan = \"small\"", "plan = \"tiny\"", "or use one of: large, small"),
        ("[\"one\"]", "[\"three\"]", "there is no account `three`"),
        ("provider = \"anth\"", "provider = \"x\"", "there is no provider `x`"),
        ("profile = \"openai\"", "profile = \"opanai\"", "there is no profile `opanai`"),
        ("profile = \"openai\"", "profile = \"a.toml\"", "cannot be read"),
        ("base_url = \"http://127", "base_url = \"ftp://127", "is no base URL"),
        ("\"TENANT_BOB\"", "\"TENANT_BOBBY\"", "export TENANT_BOBBY=... before the start"),
        ("\"TENANT_BOB\"", "\"TENANT_ALICE\"", "another tenant has the same key"),
        ("2 per hour", "2 per fortnight", "is no limit; write one like"),
        ("read_timeout = \"60s\"", "read_timeout = \"2 s\"", "is no duration; write one like"),
        ("read_timeout = \"60s\"", "read_timeout = \"0s\"", "nothing is done within no time"),
        (
            "max_body_bytes = 100000",
            "max_connections = 4000000000000000000",
            "more than can be counted",
        ),
        ("drain =", "darin =", "unknown field `darin`, expected one of"),
        ("name = \"large\"", "name = \"small\"", "plan `small` is declared twice"),
        ("key_env = \"TENANT_BOB\"", "key_sha256 = \"abc\"", "printf %s KEY | sha256sum"),
        ("\"ACCOUNT_ONE\"", "\"ACCOUNT_ONE\"\nmax_waiting = 0", "a line of 0 refuses"),
        (
            "\"ACCOUNT_ONE\"",
            "\"ACCOUNT_ONE\"\nmax_waiting_per_tenant = 1001",
            "a tenant has between 1 and 1000 places",
        ),
        ("speaks = \"anthropic\"", "speaks = \"latin\"", "unknown variant `latin`"),
        ("key_env = \"ACCOUNT_ONE\"", "key_envs = [\"NONE\"]", "export NONE=... before the start"),
        (
            "key_env = \"ACCOUNT_ONE\"",
            "key_envs = [\"ACCOUNT_ONE\", \"ACCOUNT_ONE\"]",
            "has this key already",
        ),
        (
            "speaks = \"anthropic\"",
            "speaks = \"anthropic\"\nca_file = \"none.pem\"",
            "`none.pem` cannot be read",
        ),
        (
            "speaks = \"anthropic\"",
            "speaks = \"anthropic\"\nca_file = \"Cargo.toml\"",
            "name a file of certificates",
        ),
        ("[cache]", "[cache]\nshared = true", "no server to share answers by"),
        ("[cache]", "[cache]\nredis_env = \"ACCOUNT_ONE\"", "answers are not shared"),
        ("[deferred]", "[deferred]\nconcurrency = 0", "nonzero"),
        ("[deferred]", "[deferred]\nlease = \"0s\"", "nothing is done within no time"),
    ] {
        let wrong = good.replacen(from, to, 1);
        assert_ne!(wrong, good, "{from}");
        let output = fail(&wrong);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.contains(says));
        let line = line.unwrap_or_else(|| panic!("{says} is not in: {said}"));
        let (_, number) = line.split_once("gateway.toml:").expect("the file, and the line");
        let number: usize = number[..number.find(':').expect("a colon")].parse().expect("a number");
        // The second of two is the one that is told.
        let lines: Vec<_> = wrong.lines().collect();
        let (changed, _) = good
            .lines()
            .zip(&lines)
            .enumerate()
            .find(|(_, (was, is))| was != *is)
            .map(|(number, _)| (number + 1, ()))
            .expect("one line is changed");
        let second = says
            .contains("twice")
            .then(|| lines.iter().rposition(|line| *line == to).map(|number| number + 1));
        assert_eq!(number, second.flatten().unwrap_or(changed), "{line}");
    }
}

#[test]
fn a_secret_that_stands_in_the_file_is_not_repeated() {
    let good = configuration(([127, 0, 0, 1], 9).into(), "");
    let output = fail(&good.replace("\"ACCOUNT_ONE\"", "\"sk-account-one\""));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the name of an environment variable"), "{said}");
    assert!(!said.contains("sk-account-one"), "{said}");
}

#[test]
fn the_file_that_explains_all_is_understood() {
    let text = fs::read_to_string("examples/gateway/gateway.toml").expect("it is there");
    let said = fail(&text).stderr;
    let said = String::from_utf8_lossy(&said);
    // All that it lacks is the secrets.
    assert_eq!(said.lines().count(), 5, "{said}");
    assert!(said.lines().all(|line| line.contains("the environment has no")), "{said}");
    // And what is commented out is written as it is meant.
    let key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| {
            !key.is_empty()
                && key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
        })
    };
    let all: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| key(line)).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    assert_ne!(all, text);
    let all = all.replace("\"private-ca.pem\"", "\"tests/redis_faults/tls/authority.pem\"");
    let said = fail(&all).stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.lines().all(|line| line.contains("the environment has no")), "{said}");
}

#[test]
fn the_file_that_explains_all_has_every_key() {
    let text = fs::read_to_string("examples/gateway/gateway.toml").expect("it is there");
    let shape = fs::read_to_string("examples/gateway/config/shape.rs").expect("it is there");
    let (mut keys, mut attributes, mut is_read) = (0, String::new(), false);
    for line in shape.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes += line;
            continue;
        }
        if line.starts_with("pub(crate) struct ") {
            is_read = attributes.contains("deny_unknown_fields");
        }
        let field = line.strip_prefix("pub(crate) ").and_then(|line| line.split_once(": "));
        if let Some((field, _)) = field.filter(|_| is_read && !attributes.contains("serde(skip)")) {
            let table = field.trim_end_matches('s');
            let ways = [
                format!("\n{field} = "),
                format!("\n# {field} = "),
                format!("\n[{field}]\n"),
                format!("\n[[{table}]]\n"),
            ];
            assert!(ways.iter().any(|way| text.contains(way)), "nothing explains `{field}`");
            keys += 1;
        }
        if !line.starts_with("///") {
            attributes.clear();
        }
    }
    assert!(keys > 60, "{keys} keys are few: is it read as it is written?");
}
