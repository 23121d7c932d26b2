use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

use super::*;

const MUCH: usize = 1 << 20;

fn fields() -> impl Strategy<Value = HeaderMap> {
    let value = prop::collection::vec(prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8], 0..40);
    let field = ("[a-z0-9-]{1,20}", value, any::<bool>());
    prop::collection::vec(field, 0..8).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value, is_sensitive) in fields {
            let mut value = HeaderValue::from_bytes(&value).expect("a value");
            value.set_sensitive(is_sensitive);
            map.append(name.parse::<HeaderName>().expect("a name"), value);
        }
        map
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let part = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..200).prop_map(|data| Part::Data(data.into())),
        1 => "(data: abc\n\n){0,40}".prop_map(|data| Part::Data(data.into())),
        1 => fields().prop_map(Part::Trailers),
    ];
    let numbers = (100..1000_u16, 0..5_u8, any::<u64>(), 0..1_000_000_000_u32);
    let length = prop::option::of(0..u64::MAX);
    (numbers, length, fields(), prop::collection::vec(part, 0..12)).prop_map(
        |((status, version, seconds, nanos), length, headers, parts)| {
            let status = StatusCode::from_u16(status).expect("a status");
            let version = version_of(version).expect("a version");
            let head = Head { status, version, headers, length };
            Answer::of_parts(head, parts.into(), Duration::new(seconds, nanos))
        },
    )
}

/// All that an answer is, as text: sensitive values too.
fn told(answer: &Answer) -> String {
    let mut told = format!("{answer:?}");
    let trailers = answer.parts().iter().filter_map(|part| match part {
        Part::Trailers(trailers) => Some(trailers),
        Part::Data(_) => None,
    });
    for fields in std::iter::once(answer.headers()).chain(trailers) {
        let all: Vec<_> = fields.iter().map(|(name, value)| (name, value.as_bytes())).collect();
        told += &format!("{all:?}");
    }
    told
}

/// Bytes with a digest that is right.
fn sealed_again(bytes: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest(bytes);
    [bytes, &digest[..]].concat()
}

fn small() -> Answer {
    let head = Head {
        status: StatusCode::OK,
        version: Version::HTTP_11,
        headers: HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))]),
        length: Some(300),
    };
    let parts = Box::new([Part::Data(Bytes::from_static(&[b'x'; 300]))]);
    Answer::of_parts(head, parts, Duration::from_secs(60))
}

/// The same cases each time, and no file of old failures: they become tests of their own.
fn cases() -> Config {
    Config { rng_seed: RngSeed::Fixed(0x71AE), failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_written_is_read(answer in answer()) {
        let bytes = answer.encode();
        prop_assert!(bytes.len() <= answer.weight());
        let read = Answer::decode(bytes.clone(), MUCH).expect("it is ours");
        prop_assert_eq!(told(&read), told(&answer));
        prop_assert_eq!(read.encode(), bytes);
    }

    #[cfg(feature = "cache-compression")]
    #[test]
    fn what_is_packed_is_read(answer in answer()) {
        let bytes = answer.encode_packed();
        prop_assert!(bytes.len() <= answer.encode().len());
        prop_assert_eq!(told(&Answer::decode(bytes, MUCH).expect("it is ours")), told(&answer));
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        form in 0..3_u8,
    ) {
        prop_assert!(Answer::decode(bytes.clone(), MUCH).is_err());
        let mut begun = b"TQA\x01".to_vec();
        begun.push(form);
        begun.extend(u32::try_from(bytes.len()).expect("few").to_be_bytes());
        begun.extend(bytes);
        let _ = Answer::decode(sealed_again(&begun), MUCH);
    }

    #[test]
    fn a_change_is_found_and_one_with_a_digest_does_no_harm(
        answer in answer(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        most in 0..5_000_usize,
    ) {
        let mut bytes = answer.encode();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(Answer::decode(bytes.clone(), MUCH).is_err());
        bytes.truncate(bytes.len() - DIGEST);
        // It may be another answer by now, and then no larger than it may be.
        if let Ok(read) = Answer::decode(sealed_again(&bytes), most) {
            prop_assert!(read.weight() <= most);
        }
    }

    #[test]
    fn a_piece_of_an_answer_is_none(answer in answer(), cut in any::<prop::sample::Index>()) {
        let bytes = answer.encode();
        prop_assert!(Answer::decode(bytes[..cut.index(bytes.len())].to_vec(), MUCH).is_err());
    }

    #[test]
    fn an_answer_is_read_up_to_its_weight(answer in answer()) {
        let bytes = answer.encode();
        prop_assert!(Answer::decode(bytes.clone(), answer.weight()).is_ok());
        let less = Answer::decode(bytes, answer.weight() - 1);
        prop_assert_eq!(less.expect_err("too large"), MalformedAnswer::TooLarge);
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let bytes = small().encode();
    let error = |bytes: &[u8]| Answer::decode(bytes.to_vec(), 10_000).expect_err("it is none");
    assert_eq!(error(b""), MalformedAnswer::Foreign);
    assert_eq!(error(&[b'x'; 100]), MalformedAnswer::Foreign);
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes[..bytes.len() - DIGEST].to_vec();
        bytes[at] = byte;
        sealed_again(&bytes)
    };
    assert_eq!(error(&with(3, 2)), MalformedAnswer::Version);
    assert_eq!(error(&with(4, 2)), MalformedAnswer::Form);
    assert_eq!(error(&with(5, 255)), MalformedAnswer::TooLarge, "four gigabytes, it says");
    assert_eq!(error(&with(8, 255)), MalformedAnswer::Content, "another length");
    assert_eq!(error(&with(9, 255)), MalformedAnswer::Content, "no status");
    let mut damaged = bytes.clone();
    damaged[40] ^= 1;
    assert_eq!(error(&damaged), MalformedAnswer::Damaged);
}

/// Bytes of a format are kept for days: a change of it needs another version.
#[test]
fn the_first_version_is_what_it_was() {
    let hex: String = small().encode().iter().take(40).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "54514101000000013f00c8023c00ad02020865746167032231\
         22d804787878787878787878787878"
    );
}

#[test]
fn many_empty_frames_and_fields_are_too_large_before_they_take_memory() {
    let head = |fields: &[u8]| [&[0, 200, 2, 60, 0, 0][..], fields].concat();
    let mut frames = head(&[0]);
    frames.extend(vec![0; 500_000]);
    let mut many = vec![0x80, 0x89, 0x7a];
    many.extend([2, b'a', 0].repeat(1_000_000));
    for content in [frames, head(&many)] {
        let mut bytes = b"TQA\x01\x00".to_vec();
        bytes.extend(u32::try_from(content.len()).expect("few").to_be_bytes());
        bytes.extend(content);
        let error = Answer::decode(sealed_again(&bytes), 4 * MUCH).expect_err("too large");
        assert_eq!(error, MalformedAnswer::TooLarge);
    }
}

#[cfg(feature = "cache-compression")]
#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = |said: u32, zeros: usize| {
        let mut bytes = b"TQA\x01\x01".to_vec();
        bytes.extend(said.to_be_bytes());
        bytes.extend(lz4_flex::block::compress(&vec![0; zeros]));
        sealed_again(&bytes)
    };
    let most = 10_000_000;
    let error = |bytes| Answer::decode(bytes, most).expect_err("it is none");
    assert_eq!(error(bomb(100_000_000, 100_000_000)), MalformedAnswer::TooLarge);
    assert_eq!(error(bomb(1_000, 8_000_000)), MalformedAnswer::Content, "more than it said");
    assert_eq!(error(bomb(9_000_000, 1_000)), MalformedAnswer::Content, "less than it said");
}
