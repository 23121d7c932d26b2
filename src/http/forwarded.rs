//! The grammar of `Forwarded` (RFC 7239, section 4), read from the right.
//!
//! The right end is what a trusted proxy wrote, the left what a client may have. A reader from the
//! left would be led astray by a quote that the client opened and never closed: it would swallow
//! what the proxy appended. From the right, the proxy's element is complete before the client's
//! text is seen.

use std::{iter, net::IpAddr};

use super::node::node;

/// The elements of one line, the last one first. A line has at least one, though it be empty.
pub(super) fn elements_from_right(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    iter::from_fn(move || {
        let line = rest?;
        let Some(comma) = last_comma(line) else {
            rest = None;
            return Some(line);
        };
        rest = Some(&line[..comma]);
        Some(&line[comma + 1..])
    })
}

/// The place of the last comma outside of quotes.
fn last_comma(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (place, byte) in line.iter().enumerate().rev() {
        match byte {
            b',' if !quoted => return Some(place),
            // Only a quoted string has escapes, so the quote that ends one is never escaped, and
            // the one that begins it has no backslash before it.
            b'"' if !quoted || !is_escaped(&line[..place]) => quoted = !quoted,
            _ => {}
        }
    }
    None
}

/// Whether what follows `before` is escaped: an odd number of backslashes stands before it.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The address in the `for` parameter of an element. None if there is no such parameter or two of
/// them, if it holds something else, or if anything in the element is malformed.
pub(super) fn client(element: &[u8]) -> Option<IpAddr> {
    let mut client = None;
    let mut rest = element.trim_ascii();
    while !rest.is_empty() {
        let (pair, after) = split_pair(rest)?;
        rest = after;
        let Some((name, value)) = pair else { continue };
        if name.eq_ignore_ascii_case(b"for") && client.replace(value).is_some() {
            return None;
        }
    }
    node(str::from_utf8(client?).ok()?)
}

type Pair<'l> = (&'l [u8], &'l [u8]);

/// The first pair, which may be left out, and what stands behind its semicolon. White space around
/// the semicolon is let pass: the grammar has none, but proxies write it.
fn split_pair(text: &[u8]) -> Option<(Option<Pair<'_>>, &[u8])> {
    let (name, rest) = split_token(text);
    let (pair, rest) = match (name, rest) {
        ([], rest) => (None, rest),
        (name, [b'=', b'"', rest @ ..]) => {
            let (value, rest) = split_quoted(rest)?;
            (Some((name, value)), rest)
        }
        (name, [b'=', rest @ ..]) => match split_token(rest) {
            ([], _) => return None,
            (value, rest) => (Some((name, value)), rest),
        },
        _ => return None,
    };
    match rest.trim_ascii_start() {
        [] => Some((pair, &[])),
        [b';', rest @ ..] => Some((pair, rest.trim_ascii_start())),
        _ => None,
    }
}

fn split_token(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|&byte| !is_token(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// What stands before the quote that ends a string, and after it. Escapes stay as they are: no
/// address has any, so a value with one is none.
fn split_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    for (place, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((&text[..place], &text[place + 1..])),
            _ => {}
        }
    }
    None
}

/// RFC 9110, section 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}
