use http::{HeaderMap, HeaderName};

/// Whether a request prefers to be answered later: `respond-async` of RFC 7240.
pub(super) fn prefers_async(headers: &HeaderMap) -> bool {
    headers.get_all(&PREFER).iter().filter_map(|line| line.to_str().ok()).flat_map(preferences).any(
        |preference| {
            // What else it says, a value or parameters, is not known to us.
            let end = preference.find(['=', ';']).unwrap_or(preference.len());
            preference[..end].trim().eq_ignore_ascii_case("respond-async")
        },
    )
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
            assert_eq!(prefers_async(&headers), expected, "{lines:?}");
        }
    }
}
