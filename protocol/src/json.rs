//! Whether a frame is exactly one JSON object: the form of it, without its meaning.
//!
//! Every message that arrives has four such frames, so this is one pass over the bytes that allocates nothing and
//! does not recurse. It accepts exactly what `serde_json` accepts, in bounded depth; a test holds it to that.

use crate::limits::JSON_DEPTH_MAX;

/// Which of the open brackets are braces, the innermost in the lowest bit.
type Braces = u128;

const _: () = assert!(JSON_DEPTH_MAX <= Braces::BITS as usize, "every open bracket has a bit");

/// Whether `frame` is one JSON object with at most white space around it, valid UTF-8, and nested at most
/// [`JSON_DEPTH_MAX`] deep.
pub(crate) fn is_one_object(frame: &[u8]) -> bool {
    if frame == b"{}" {
        return true;
    }
    let mut scanner = Scanner { rest: frame, is_ascii: true };
    scanner.object().is_some()
        && scanner.skip_space().is_none()
        && (scanner.is_ascii || std::str::from_utf8(frame).is_ok())
}

/// What is left to read. Its methods return `None` where the text is no JSON.
struct Scanner<'a> {
    rest: &'a [u8],
    /// Whether all strings so far were ASCII. Elsewhere other bytes are no JSON anyway.
    is_ascii: bool,
}

impl Scanner<'_> {
    /// The object that comes next.
    fn object(&mut self) -> Option<()> {
        self.skip_space()?;
        self.expect(b'{')?;
        let (mut braces, mut depth): (Braces, usize) = (1, 1);
        // Whether a bracket was opened just now: only then may it close without a value.
        let mut is_fresh = true;
        loop {
            let is_object = braces & 1 == 1;
            let closing = if is_object { b'}' } else { b']' };
            let next = self.skip_space()?;
            if next == closing {
                self.advance(1);
                braces >>= 1;
                depth -= 1;
                if depth == 0 {
                    return Some(());
                }
                is_fresh = false;
                continue;
            }
            if !is_fresh {
                self.expect(b',')?;
                self.skip_space()?;
            }
            is_fresh = false;
            if is_object {
                self.expect(b'"')?;
                self.string()?;
                self.skip_space()?;
                self.expect(b':')?;
            }
            match self.skip_space()? {
                b'"' => {
                    self.advance(1);
                    self.string()?;
                }
                opening @ (b'{' | b'[') => {
                    if depth == JSON_DEPTH_MAX {
                        return None;
                    }
                    self.advance(1);
                    braces = braces << 1 | Braces::from(opening == b'{');
                    depth += 1;
                    is_fresh = true;
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
        }
    }

    /// The rest of a string whose opening quote has been read.
    fn string(&mut self) -> Option<()> {
        loop {
            while let Some(eight) = self.rest.first_chunk()
                && is_plain(u64::from_ne_bytes(*eight))
            {
                self.advance(8);
            }
            match self.take()? {
                b'"' => return Some(()),
                b'\\' => match self.take()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits: &[u8; 4] = self.rest.first_chunk()?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.advance(4);
                    }
                    _ => return None,
                },
                0..=0x1f => return None,
                byte => self.is_ascii &= byte.is_ascii(),
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        if self.rest.first() == Some(&b'-') {
            self.advance(1);
        }
        match self.take()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.rest.first() == Some(&b'.') {
            self.advance(1);
            self.digits()?;
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.advance(1);
            if matches!(self.rest.first(), Some(b'+' | b'-')) {
                self.advance(1);
            }
            self.digits()?;
        }
        Some(())
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        self.take()?.is_ascii_digit().then(|| self.skip_digits())
    }

    fn skip_digits(&mut self) {
        while self.rest.first().is_some_and(u8::is_ascii_digit) {
            self.advance(1);
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// The next byte that is not white space, which stays.
    fn skip_space(&mut self) -> Option<u8> {
        loop {
            match *self.rest.first()? {
                b' ' | b'\n' | b'\t' | b'\r' => self.advance(1),
                byte => return Some(byte),
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.take()? == byte).then_some(())
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Only over bytes that were seen.
    fn advance(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}

/// Whether none of eight bytes ends a run of plain ASCII text: a quote, a backslash, a control character, a byte
/// of a longer character. Each of these sets the top bit of its byte in one of the four terms; a byte above one
/// that does may do so as well, which costs a look at the bytes one by one.
fn is_plain(eight: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let less_than = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit));
    let equal = |byte: u8| less_than(eight ^ (ONES * u64::from(byte)), 1);
    (less_than(eight, 0x20) | equal(b'"') | equal(b'\\') | eight) & TOPS == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// What is checked, said with other means.
    fn is_one_object_slowly(frame: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(frame) else { return false };
        let (mut depth, mut deepest, mut in_string, mut escaped) = (0_i64, 0, false, false);
        for byte in frame {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' | b'[' if !in_string => depth += 1,
                b'}' | b']' if !in_string => depth -= 1,
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        text.trim_ascii_start().starts_with('{')
            && deepest <= JSON_DEPTH_MAX as i64
            && serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn objects_are_accepted() {
        for text in [
            "{}",
            " { } ",
            "\r\n\t{\"a\":1}\n",
            r#"{"a": [], "b": {}, "c": [[], {}, [{}]], "a": null}"#,
            r#"{"": [0, -0, 10, 1.5, -1.25e+10, 1E5, 1e-5, 0.0e0, 1e999], "t": [true, false, null]}"#,
            r#"{"escapes": "\"\\\/\b\f\n\r\t\u00e4\uD800", "\u0000": "12345678\"", "long": "12345678901234567"}"#,
            "{\"ä\": \"日本語, \u{10ffff}\", \"\u{7f}\": \"12345678ä\"}",
        ] {
            assert!(is_one_object_slowly(text.as_bytes()), "the test is wrong: {text}");
            assert!(is_one_object(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in [
            "",
            " ",
            "[]",
            "1",
            "\"a\"",
            "null",
            "{",
            "}",
            "{}}",
            "{} {}",
            "{}{",
            "{},",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1,,\"b\":2}",
            "{a:1}",
            "{1:1}",
            "{\"a\":[1,]}",
            "{\"a\":[,1]}",
            "{\"a\":[1 2]}",
            "{\"a\":[1}",
            "{\"a\":{1]}",
            "{\"a\":[}]",
            "{\"a\":tru}",
            "{\"a\":nul",
            "{\"a\":truefalse}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":-}",
            "{\"a\":.5}",
            "{\"a\":5.}",
            "{\"a\":1e}",
            "{\"a\":1e+}",
            "{\"a\":0x1}",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":'b'}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"1234567\u{1}\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\",
            "{\"a\":\"",
            "\u{feff}{}",
            "\u{c}{}",
            "{}\0",
            "{/**/}",
        ] {
            assert!(!is_one_object_slowly(text.as_bytes()), "the test is wrong: {text}");
            assert!(!is_one_object(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_in_keys_and_values() {
        for frame in [
            &b"{\"a\":\"\xff\"}"[..],
            b"{\"\xc3\":1}",
            b"{\"a\":\"12345678\xc0\xaf\"}",
            b"{\"a\":\"\xed\xa0\x80\"}",
            b"{\"a\":1}\xc3\xa4",
            b"{\xc3\xa4}",
        ] {
            assert!(!is_one_object(frame), "{frame:x?}");
        }
    }

    #[test]
    fn nesting_is_bounded_to_the_last_bracket() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |inner: usize| {
                let value = if open == "[" { "" } else { "0" };
                format!("{{\"a\":{}{value}{}}}", open.repeat(inner), close.repeat(inner))
            };
            assert!(is_one_object(nested(JSON_DEPTH_MAX - 1).as_bytes()));
            assert!(!is_one_object(nested(JSON_DEPTH_MAX).as_bytes()));
            assert!(!is_one_object(nested(100_000).as_bytes()));
        }
        let many = format!("{{\"a\":[{}0]}}", "[],".repeat(1000));
        assert!(is_one_object(many.as_bytes()), "many brackets are not deep ones");
        assert!(is_one_object(br#" {"a": "[[[[\"{{{"} "#));
    }

    #[test]
    fn every_byte_at_every_place_of_a_string_is_judged_alike() {
        for byte in 0..=u8::MAX {
            for place in 0..24 {
                let mut frame = b"{\"a\": \"012345678901234567890123\"}".to_vec();
                frame[7 + place] = byte;
                assert_eq!(is_one_object(&frame), is_one_object_slowly(&frame), "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn it_agrees_with_serde_json_about_what_looks_like_json(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"a\":", "\"\\u00e4\"", "\"ä\"", "\"long enough\"", "0", "-1", "1.5",
                "1e3", "true", "null", " ", "\\", "\"", "{}", "[]", ",\"b\":",
            ]), 0..14),
        ) {
            for text in [tokens.concat(), format!("{{{}}}", tokens.concat()), format!("{{\"a\":{}}}", tokens.concat())] {
                prop_assert_eq!(is_one_object(text.as_bytes()), is_one_object_slowly(text.as_bytes()), "{}", text);
            }
        }

        #[test]
        fn it_agrees_with_serde_json_about_objects_with_a_byte_changed(
            position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut frame = "{\"msg_id\": \"a_1\", \"date\": null, \"x\": [1.5e-3, {\"ä\": true}, \"\\u00e4\\n\"], \"y\": {}}"
                .as_bytes()
                .to_vec();
            let position = position.index(frame.len());
            if cut {
                frame.remove(position);
            } else {
                frame[position] = byte;
            }
            prop_assert_eq!(is_one_object(&frame), is_one_object_slowly(&frame), "{}", frame.escape_ascii());
        }
    }
}
