use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// What a request prefers, of RFC 7240.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Preferences {
    /// `respond-async`: to be answered later.
    pub(super) is_async: bool,
    /// `wait`: so much later, if it must be.
    pub(super) wait: Option<Duration>,
}

impl Preferences {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(&PREFER);
        let mut known = Self::default();
        let mut has_wait = false;
        for preference in lines.iter().filter_map(|line| line.to_str().ok()).flat_map(preferences) {
            // Its parameters are not known to us.
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let name = name.trim();
            known.is_async |= name.eq_ignore_ascii_case("respond-async");
            // Of several the first counts, also if it says nothing that could be done.
            if name.eq_ignore_ascii_case("wait") && !has_wait {
                has_wait = true;
                known.wait = seconds(value.trim().trim_matches('"'));
            }
        }
        known
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // One that is too large is bounded anyhow.
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(u32::MAX as u64)))
}

/// The preferences of a line. A comma in a quoted string parts nothing.
fn preferences(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.split(move |letter| {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    })
}

pub(super) static PREFER: HeaderName = HeaderName::from_static("prefer");
pub(super) static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(super) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn respond_async_is_found_wherever_it_stands() {
        for (lines, expected) in [
            (&["respond-async"][..], true),
            (&["Respond-Async"], true),
            (&["respond-async, wait=10"], true),
            (&["wait=10 , respond-async;foo=bar"], true),
            (&["return=minimal", "respond-async"], true),
            (&["foo=\"a, b\", respond-async"], true),
            (&[], false),
            (&["return=representation"], false),
            (&["respond-asynchronously"], false),
            (&["foo=\"x, respond-async, y\""], false),
            (&["foo=\"\\\", respond-async\""], false),
            (&["foo=respond-async"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER.clone(), HeaderValue::from_static(line));
            }
            assert_eq!(Preferences::of(&headers).is_async, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_first_wait_counts() {
        for (lines, expected) in [
            (&["respond-async, wait=10"][..], Some(10)),
            (&["WAIT = \"10\" ; foo, respond-async"], Some(10)),
            (&["wait=1, wait=2"], Some(1)),
            (&["wait=1", "wait=2"], Some(1)),
            (&["wait=0"], Some(0)),
            (&["wait=99999999999999999999"], Some(u64::from(u32::MAX))),
            (&["wait=ten, wait=2"], None),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["wait"], None),
            (&["foo=\"wait=3\""], None),
            (&["respond-async; wait=3"], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER.clone(), HeaderValue::from_static(line));
            }
            let expected = expected.map(Duration::from_secs);
            assert_eq!(Preferences::of(&headers).wait, expected, "{lines:?}");
        }
    }
}
