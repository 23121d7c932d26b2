//! Input of strangers, as the fuzzers of `tests/fuzz` give it: every seed, and what a few thousand
//! changes make of each. It finds nothing that a fuzzer would not find; it sees to it that what one has
//! found stays mended, on stable Rust and in seconds.

mod targets;

use std::{fs, path::Path};

/// What changes are made with: half of an input is as long as something that matters.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n\n",
    b"\r\n",
    b"\r",
    b"data: ",
    b"event: error\n",
    b"error",
    b"usage",
    b"null",
    b"-",
    b".",
    b"0",
    b"9s",
    b"1e999",
    b"18446744073709551616",
    b"\x00\x00\x00\x10",
    b"\xff\xff\xff\xff",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\xf0\x9f\x92\xa9",
    b";",
    b"=",
    b" ",
];

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    /// Below `bound`; zero if that is.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new("tests/hostile/seeds").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("a seed")).collect()
}

/// What a fuzzer has learned: inputs that reach what no seed does, one to a line. Bytes that are no
/// sign of ASCII, and the backslash, are written as `\xhh`.
fn learned(target: &str) -> Vec<Vec<u8>> {
    let path = Path::new("tests/hostile/learned").join(target);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.lines().map(unescaped).collect()
}

fn unescaped(line: &str) -> Vec<u8> {
    let mut parts = line.split('\\');
    let mut input = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (byte, rest) = part[1..].split_at(2);
        input.push(u8::from_str_radix(byte, 16).expect("two digits"));
        input.extend_from_slice(rest.as_bytes());
    }
    input
}

fn changed(random: &mut Random, seeds: &[Vec<u8>], seed: &[u8]) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(16)).min(input.len());
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 => drop(input.drain(at..end)),
            2 => input.truncate(at),
            3 => {
                let again = input[at..end].repeat(1 + random.below(40));
                drop(input.splice(at..at, again));
            }
            4 => {
                let piece = PIECES[random.below(PIECES.len())];
                drop(input.splice(at..at, piece.iter().copied()));
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len())..]);
            }
        }
    }
    input
}

#[test]
fn no_seed_and_nothing_like_one_breaks_a_promise() {
    for (name, target) in targets::TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 2, "{name} has seeds");
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for seed in &seeds {
            target(seed);
            for _ in 0..3_000 / seeds.len() {
                let input = changed(&mut random, &seeds, seed);
                let told = std::panic::catch_unwind(|| target(&input));
                assert!(told.is_ok(), "{name}: {:?}", String::from_utf8_lossy(&input));
            }
        }
    }
}

#[test]
fn nothing_that_a_fuzzer_has_learned_breaks_a_promise() {
    for (name, target) in targets::TARGETS {
        for input in learned(name) {
            target(&input);
        }
    }
}
