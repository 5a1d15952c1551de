//! A digest of a message's buffers, in its signed metadata: the wire's signature covers the four JSON frames alone, and
//! whoever can change bytes on the way could change an array.
//!
//! Recipients check it. The controller passes it on, as it passes on the buffers, and adds it where it makes messages
//! with buffers itself. Stock peers neither make nor look at it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{ErrorContent, ename};

/// Its name in metadata; the value is 64 hexadecimal digits.
pub const NAME: &str = "buffer_digest";

/// Whether the peers of a cluster make and demand digests, as its connection files say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BufferDigests {
    /// None are made; one that is there is checked.
    #[default]
    Off,
    /// Our peers make them.
    On,
    /// And a message with buffers and without a digest is an error, so that stock peers are shut out.
    Required,
}

impl BufferDigests {
    /// Whether connection files need not say it.
    pub fn is_off(&self) -> bool {
        *self == BufferDigests::Off
    }
}

/// What is wrong with a message's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// They are not what the sender signed.
    Changed,
    /// The sender has not signed them, and should have.
    Unsigned,
}

impl Damage {
    /// What the user is told.
    pub fn error(self) -> ErrorContent {
        let text = match self {
            Damage::Changed => {
                "the data of this message was changed on its way: its digest is another one; encrypt the connection \
                 (the controller's --enable-curve)"
            }
            Damage::Unsigned => {
                "the data of this message has no digest, which this cluster requires (--require-buffer-digest); stock \
                 clients and engines make none"
            }
        };
        ErrorContent::new(ename::BUFFER_ERROR, text)
    }
}

/// SHA-256 over each buffer's length, as eight bytes with the lowest first, and its bytes.
fn digest(buffers: &[Bytes]) -> String {
    let mut hash = Sha256::new();
    for buffer in buffers {
        hash.update((buffer.len() as u64).to_le_bytes());
        hash.update(buffer);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Deserialize)]
struct Claimed {
    #[serde(default)]
    buffer_digest: Option<String>,
}

fn claimed(metadata: &[u8]) -> Option<String> {
    // Most metadata has none, and need not be read.
    if !metadata.windows(NAME.len()).any(|window| window == NAME.as_bytes()) {
        return None;
    }
    serde_json::from_slice::<Claimed>(metadata).ok().and_then(|claimed| claimed.buffer_digest)
}

/// The metadata with the digest, if there are buffers and it has none.
pub(crate) fn add(metadata: Bytes, buffers: &[Bytes]) -> Bytes {
    if buffers.is_empty() || claimed(&metadata).is_some() {
        return metadata;
    }
    let rest = metadata.strip_prefix(b"{").unwrap_or(b"}");
    let comma = if rest.trim_ascii_start() == b"}" { "" } else { "," };
    let mut text = format!("{{\"{NAME}\":\"{}\"{comma}", digest(buffers)).into_bytes();
    text.extend_from_slice(rest);
    Bytes::from(text)
}

/// What is wrong, if anything is.
pub(crate) fn check(policy: BufferDigests, metadata: &[u8], buffers: &[Bytes]) -> Option<Damage> {
    if buffers.is_empty() {
        return None;
    }
    match claimed(metadata) {
        None => (policy == BufferDigests::Required).then_some(Damage::Unsigned),
        Some(claimed) => {
            let is_right = bool::from(claimed.as_bytes().ct_eq(digest(buffers).as_bytes()));
            (!is_right).then_some(Damage::Changed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn what_was_changed_cut_differently_or_left_out_is_noticed() {
        let sent = buffers(&["ab", "c"]);
        for metadata in ["{}", r#"{"x":1}"#, "{ }"] {
            let metadata = add(Bytes::from_static(metadata.as_bytes()), &sent);
            assert!(serde_json::from_slice::<serde_json::Value>(&metadata).is_ok(), "{metadata:?}");
            assert_eq!(check(BufferDigests::Off, &metadata, &sent), None);
            for other in [&["ab", "d"][..], &["a", "bc"], &["ab"], &["ab", "c", ""]] {
                let found = check(BufferDigests::Off, &metadata, &buffers(other));
                assert_eq!(found, Some(Damage::Changed), "{other:?}");
            }
        }
    }

    #[test]
    fn a_missing_digest_is_an_error_only_where_it_is_required() {
        let sent = buffers(&["ab"]);
        assert_eq!(check(BufferDigests::On, b"{}", &sent), None);
        assert_eq!(check(BufferDigests::Required, b"{}", &sent), Some(Damage::Unsigned));
        assert_eq!(check(BufferDigests::Required, b"{}", &[]), None);
    }

    #[test]
    fn a_digest_that_is_there_is_kept() {
        let once = add(Bytes::from_static(b"{}"), &buffers(&["ab"]));
        assert_eq!(add(once.clone(), &buffers(&["ab"])), once);
        assert_eq!(add(Bytes::from_static(b"{}"), &[]), Bytes::from_static(b"{}"));
    }

    #[test]
    fn a_digest_that_is_no_text_counts_as_none() {
        let metadata = br#"{"buffer_digest":7}"#;
        assert_eq!(check(BufferDigests::Required, metadata, &buffers(&["a"])), Some(Damage::Unsigned));
    }
}
