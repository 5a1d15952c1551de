//! Shell patterns over whole texts, as Python's `fnmatch` reads them: `*`, `?`, `[seq]`, `[!seq]`.

/// Characters of a pattern. Matching takes at worst the product of pattern and text.
const PATTERN_CHARACTERS_MAX: usize = 4096;

/// A pattern, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// `None` if it is too long.
    pub(crate) fn parse(pattern: &str) -> Option<Glob> {
        let characters: Vec<char> = pattern.chars().collect();
        if characters.len() > PATTERN_CHARACTERS_MAX {
            return None;
        }
        let mut tokens = vec![];
        let mut rest = characters.as_slice();
        while let Some((&first, behind)) = rest.split_first() {
            rest = behind;
            tokens.push(match first {
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => match class(behind) {
                    Some((token, behind)) => {
                        rest = behind;
                        token
                    }
                    None => Token::Literal('['),
                },
                literal => Token::Literal(literal),
            });
        }
        Some(Glob(tokens))
    }

    /// Whether the pattern matches all of a text.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let tokens = self.0.as_slice();
        let (mut token, mut rest) = (0, text.chars());
        // Where to go on if what follows the last star does not match: only the last one need ever be tried again.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if tokens.get(token) == Some(&Token::Star) {
                token += 1;
                retry = Some((token, rest.clone()));
                continue;
            }
            match (tokens.get(token), rest.next()) {
                (None, None) => return true,
                (Some(wanted), Some(character)) if wanted.accepts(character) => token += 1,
                _ => {
                    let Some((after_star, from)) = &mut retry else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (token, rest) = (*after_star, from.clone());
                }
            }
        }
    }
}

impl Token {
    fn accepts(&self, character: char) -> bool {
        match self {
            Token::Star => unreachable!("stars are dealt with before"),
            Token::Any => true,
            Token::Literal(literal) => *literal == character,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *negated
            }
        }
    }
}

/// A class and what follows it; `None` if no bracket ends it. A bracket in the first place does not.
fn class(behind: &[char]) -> Option<(Token, &[char])> {
    let (negated, members) = match behind {
        ['!', members @ ..] => (true, members),
        members => (false, members),
    };
    let end = 1 + members.iter().skip(1).position(|character| *character == ']')?;
    let (mut members, behind) = (&members[..end], &members[end + 1..]);
    let mut ranges = vec![];
    while let [first, after @ ..] = members {
        let last = if let ['-', last, after @ ..] = after {
            members = after;
            last
        } else {
            members = after;
            first
        };
        ranges.push((*first, *last));
    }
    Some((Token::Class { negated, ranges }, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).expect("short").matches(text)
    }

    /// What Python 3.11 says.
    #[test]
    fn patterns_match_what_they_match_in_python() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "a\nb", true),
            ("?", "", false),
            ("?", "é", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("*b*d", "abcbd", true),
            ("*aab", "aaaab", true),
            ("group_a/subgroup_[ab]", "group_a/subgroup_b", true),
            ("group_a/subgroup_[ab]", "group_a/subgroup_c", false),
            ("*[*]*", "label*task", true),
            ("*[*]*", "label?task", false),
            ("[!a-c]", "d", true),
            ("[!a-c]", "b", false),
            ("[^a]", "^", true),
            ("[^a]", "b", false),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[!]]", "x", true),
            ("[]-a]", "^", true),
            ("[]", "[]", true),
            ("[!", "[!", true),
            ("[!]", "[!]", true),
            ("a[", "a[", true),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[--a]", "5", true),
            ("[a-c-e]", "d", false),
            ("[a-c-e]", "-", true),
            ("[z-a]", "m", false),
            ("[!z-a]", "m", true),
            ("[z-ab]", "b", true),
            ("A", "a", false),
            (".", "x", false),
            ("\\*", "\\x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_pattern_has_a_bounded_length() {
        assert_eq!(Glob::parse(&"a".repeat(PATTERN_CHARACTERS_MAX + 1)), None);
        assert!(Glob::parse(&"é".repeat(PATTERN_CHARACTERS_MAX)).is_some());
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(&"a*".repeat(100), &"b".repeat(10_000)));
        assert!(!matches(&format!("{}b", "*a".repeat(100)), &"a".repeat(10_000)));
    }

    /// The definition, with all its backtracking.
    fn naive(tokens: &[Token], text: &[char]) -> bool {
        match (tokens, text) {
            ([], []) => true,
            ([Token::Star, rest @ ..], _) => (0..=text.len()).any(|skipped| naive(rest, &text[skipped..])),
            ([token, tokens @ ..], [first, text @ ..]) => token.accepts(*first) && naive(tokens, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_its_definition(pattern in "[ab*?\\[\\]!-]{0,10}", text in "[ab\\[\\]-]{0,10}") {
            let glob = Glob::parse(&pattern).expect("short");
            let characters: Vec<char> = text.chars().collect();
            prop_assert_eq!(glob.matches(&text), naive(&glob.0, &characters));
        }

        #[test]
        fn no_pattern_panics(pattern in ".{0,20}", text in ".{0,20}") {
            let _ = matches(&pattern, &text);
        }
    }
}
