//! Ids and keys from the system's random numbers, in the forms that the ipyparallel 9 wire uses.

use std::fmt::Write as _;

/// A fresh id as stock peers write theirs: 8 hex digits, a dash, 24 hex digits (128 random bits).
///
/// # Panics
///
/// If the system has no random numbers to give; nothing that relies on them could go on.
pub fn id() -> String {
    let digits = hex(random::<16>());
    format!("{}-{}", &digits[..8], &digits[8..])
}

/// A fresh key for message signatures: 256 random bits as 64 hex digits.
///
/// # Panics
///
/// As [`id`].
pub fn key() -> String {
    hex(random::<32>())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().fold(String::with_capacity(2 * N), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes what is written to it");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_eight_digits_a_dash_and_twenty_four() {
        let id = id();

        let (head, tail) = id.split_once('-').unwrap();
        assert_eq!((head.len(), tail.len()), (8, 24));
        assert!(format!("{head}{tail}").bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(id, super::id());
    }

    #[test]
    fn a_key_has_256_bits() {
        assert_eq!(key().len(), 64);
        assert_ne!(key(), key());
    }
}
