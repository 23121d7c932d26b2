/// How many bytes at the beginning of a string stand for themselves: all before a quotation mark, a
/// backslash or a control character. Eight are looked at together.
pub(super) fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let (words, _) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of a byte that is zero, or less than a number: right for the first such
        // byte, which is the lowest here.
        let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
        let is_control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = is_zero(word ^ (ONES * u64::from(b'"')));
        let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
        let special = (is_control | quote | backslash) & HIGHS;
        if special != 0 {
            return index * 8 + (special.trailing_zeros() / 8) as usize;
        }
    }
    let looked = words.len() * 8;
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    looked + text[looked..].iter().position(is_special).unwrap_or(text.len() - looked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_plain_up_to_its_first_special_byte() {
        for length in 0..40 {
            for filler in [b' ', b'a', 0x7f, 0x80, 0xff] {
                let plain = vec![filler; length];
                assert_eq!(plain_length(&plain), length);
                for at in 0..length {
                    for special in (0..0x20).chain([b'"', b'\\']) {
                        let mut text = plain.clone();
                        text[at] = special;
                        // What comes after it does not matter.
                        text[at + 1..].fill(special.wrapping_add(1));
                        assert_eq!(plain_length(&text), at, "{special} at {at} of {length}");
                    }
                }
            }
        }
    }
}
