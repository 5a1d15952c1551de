//! Who may speak: HMAC-SHA256 over the four JSON frames, and the refusal of repeats.
//!
//! The MAC runs over the frames without their lengths, so `{"h":1}|{}` and `{"h":1}{}|` would have the same one;
//! [`crate::receive`] closes that by demanding exactly one JSON object per frame.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::limits::SIGNATURES_REMEMBERED;

/// The name of the only scheme that we write and accept.
pub const SIGNATURE_SCHEME: &str = "hmac-sha256";

const DIGEST_BYTES: usize = 32;

/// The secret of a cluster: the bytes of the connection file's `key`, as written. Empty: no signing.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<String>);

impl Key {
    /// The key of that text.
    pub fn new(text: impl Into<String>) -> Key {
        Key(Zeroizing::new(text.into()))
    }

    /// The key's text, to be written into a connection file and nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether messages go unsigned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_empty() { "Key(none)" } else { "Key(…)" })
    }
}

/// Signs messages and checks signatures with one key.
#[derive(Clone)]
pub struct Signer {
    /// Keyed once: cloning it is three times as fast as keying again.
    keyed: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.keyed.is_some() { "Signer(keyed)" } else { "Signer(none)" })
    }
}

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signature frame is empty although this cluster has a key.
    #[error("not signed")]
    Missing,
    /// It was made with another key, or the message was changed.
    #[error("wrongly signed")]
    Wrong,
}

impl Signer {
    /// A signer with that key; with an empty one it signs nothing and accepts everything.
    pub fn new(key: &Key) -> Signer {
        let keyed = (!key.is_empty()).then(|| {
            Hmac::<Sha256>::new_from_slice(key.reveal().as_bytes()).expect("HMAC takes keys of any length")
        });
        Signer { keyed }
    }

    /// The signature of four JSON frames: 64 lower-case hex digits, or nothing without a key.
    pub fn sign(&self, frames: [&[u8]; 4]) -> Bytes {
        self.digest(frames).map_or_else(Bytes::new, |digest| Bytes::copy_from_slice(&to_hex(&digest)))
    }

    /// Checks a signature, in time that does not depend on where it differs. Returns the digest, by which a
    /// repeat is recognised; `None` without a key.
    pub fn verify(
        &self,
        frames: [&[u8]; 4],
        signature: &[u8],
    ) -> Result<Option<[u8; DIGEST_BYTES]>, SignatureError> {
        let Some(expected) = self.digest(frames) else {
            return Ok(None);
        };
        if signature.is_empty() {
            return Err(SignatureError::Missing);
        }
        // Text against text: to read the claimed digits would take a branch for each of them.
        let claimed: &[u8; 2 * DIGEST_BYTES] = signature.try_into().map_err(|_| SignatureError::Wrong)?;
        if is_same(claimed, &to_hex(&expected)) { Ok(Some(expected)) } else { Err(SignatureError::Wrong) }
    }

    fn digest(&self, frames: [&[u8]; 4]) -> Option<[u8; DIGEST_BYTES]> {
        let mut mac = self.keyed.clone()?;
        for frame in frames {
            mac.update(frame);
        }
        Some(mac.finalize().into_bytes().into())
    }
}

fn to_hex(digest: &[u8; DIGEST_BYTES]) -> [u8; 2 * DIGEST_BYTES] {
    let mut hex = [0; 2 * DIGEST_BYTES];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        pair[0] = hex_digit(byte >> 4);
        pair[1] = hex_digit(byte & 15);
    }
    hex
}

/// Without a branch or a table, so that it takes the same time for every digest.
fn hex_digit(nibble: u8) -> u8 {
    const GAP: u8 = b'a' - b'9' - 1;
    let is_letter = (9_u8.wrapping_sub(nibble)) >> 7;
    b'0' + nibble + is_letter * GAP
}

/// Compares in constant time, eight bytes at once: byte by byte it took longer than the digest's last block.
fn is_same(left: &[u8; 2 * DIGEST_BYTES], right: &[u8; 2 * DIGEST_BYTES]) -> bool {
    let words = |hex: &[u8; 2 * DIGEST_BYTES]| -> [u64; DIGEST_BYTES / 4] {
        std::array::from_fn(|index| {
            let bytes = hex[8 * index..].first_chunk().expect("a digest has a whole number of words");
            u64::from_ne_bytes(*bytes)
        })
    };
    words(left).ct_eq(&words(right)).into()
}

/// What is kept of a digest: enough that two are never alike by chance, and half the memory to walk through.
type Trace = u128;

/// Hashes a trace to half of its bits: they are as good as random, and only the holder of the key can choose them.
#[derive(Clone, Copy, Debug, Default)]
struct TraceHasher(u64);

impl Hasher for TraceHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, trace: Trace) {
        self.0 = trace as u64;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("traces are hashed as numbers");
    }
}

/// The digests seen lately. Bounded: the oldest is forgotten when the newest comes.
#[derive(Debug, Default)]
pub struct SeenSignatures {
    seen: HashSet<Trace, BuildHasherDefault<TraceHasher>>,
    order: VecDeque<Trace>,
}

impl SeenSignatures {
    /// Nothing seen yet.
    pub fn new() -> SeenSignatures {
        SeenSignatures::default()
    }

    /// Remembers a digest; false if it was there already.
    pub fn insert(&mut self, digest: [u8; DIGEST_BYTES]) -> bool {
        let trace = Trace::from_ne_bytes(*digest.first_chunk().expect("a digest is longer than its trace"));
        if !self.seen.insert(trace) {
            return false;
        }
        if self.order.len() == SIGNATURES_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(trace);
        true
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "521c7a5a-cef389d554380fe2641b9678";
    const HEADER: &[u8] = br#"{"msg_id": "s_1_0", "msg_type": "connection_request", "username": "u", "session": "s", "date": "2026-01-02T03:04:05.678901Z", "version": "5.4"}"#;
    const SIGNATURE: &[u8] = b"661dd95645e7ca9f1f6681e1cae83167550185f0c442b4057b8a797d5742ca0f";

    fn frames() -> [&'static [u8]; 4] {
        [HEADER, b"{}", b"{}", b"{}"]
    }

    #[test]
    fn the_test_vector_of_the_wire_is_met() {
        assert_eq!(Signer::new(&Key::new(KEY)).sign(frames()).as_ref(), SIGNATURE);
    }

    #[test]
    fn a_right_signature_is_accepted_and_any_other_is_not() {
        let signer = Signer::new(&Key::new(KEY));
        assert!(signer.verify(frames(), SIGNATURE).is_ok());
        assert_eq!(signer.verify(frames(), b""), Err(SignatureError::Missing));
        assert_eq!(signer.verify(frames(), &SIGNATURE[..63]), Err(SignatureError::Wrong));
        assert_eq!(signer.verify(frames(), &SIGNATURE.to_ascii_uppercase()), Err(SignatureError::Wrong));
        for position in 0..SIGNATURE.len() {
            let mut changed = SIGNATURE.to_vec();
            changed[position] ^= 1;
            assert!(signer.verify(frames(), &changed).is_err(), "digit {position}");
        }
        let changed = [HEADER, b"{}", b"{}", b"{ }"];
        assert_eq!(signer.verify(changed, SIGNATURE), Err(SignatureError::Wrong));
    }

    #[test]
    fn without_a_key_nothing_is_signed_and_everything_accepted() {
        let signer = Signer::new(&Key::new(""));
        assert!(signer.sign(frames()).is_empty());
        assert_eq!(signer.verify(frames(), b"whatever"), Ok(None));
    }

    #[test]
    fn a_repeat_is_recognised_and_the_memory_is_bounded() {
        let mut seen = SeenSignatures::new();
        let digest = |number: usize| {
            let mut digest = [0; DIGEST_BYTES];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            digest
        };
        for number in 0..SIGNATURES_REMEMBERED + 10 {
            assert!(seen.insert(digest(number)));
            assert!(!seen.insert(digest(number)));
        }
        assert_eq!(seen.len(), SIGNATURES_REMEMBERED);
        assert!(seen.insert(digest(0)), "the oldest were forgotten");
    }

    #[test]
    fn a_key_never_shows_in_debug_output() {
        assert_eq!(format!("{:?} {:?}", Key::new(KEY), Signer::new(&Key::new(KEY))), "Key(…) Signer(keyed)");
    }
}
