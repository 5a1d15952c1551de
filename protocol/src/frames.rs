//! A message as frames: `routing… <IDS|MSG> signature header parent_header metadata content buffers…`.
//!
//! This is the only place where the parts of a message are told apart.

use bytes::Bytes;

use crate::limits::{
    CONTENT_BYTES_MAX, FRAMES_MAX, HEADER_BYTES_MAX, METADATA_BYTES_MAX, ROUTING_FRAMES_MAX,
};

/// Ends the routing frames.
pub const DELIMITER: &[u8] = b"<IDS|MSG>";

static DELIMITER_FRAME: Bytes = Bytes::from_static(DELIMITER);

/// Frames between the delimiter and the buffers.
const SIGNED_PARTS: usize = 5;

/// The frames of one message after its delimiter, as they were or will be on the wire.
///
/// Nothing here is verified or decoded. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireMessage {
    /// HMAC of the four JSON frames in lower-case hex; empty when messages are not signed.
    pub signature: Bytes,
    /// JSON.
    pub header: Bytes,
    /// JSON: the header of the message that caused this one, `{}` if none did.
    pub parent_header: Bytes,
    /// JSON.
    pub metadata: Bytes,
    /// JSON.
    pub content: Bytes,
    /// Raw bytes, not signed.
    pub buffers: Vec<Bytes>,
}

/// Why frames are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too many to be one message.
    #[error("more than {FRAMES_MAX} frames")]
    TooMany,
    /// No frame is the delimiter, or it comes too late.
    #[error("no delimiter after at most {ROUTING_FRAMES_MAX} routing frames")]
    NoDelimiter,
    /// Signature, header, parent header, metadata or content is missing.
    #[error("{found} frames after the delimiter, at least 5 are needed")]
    TooFew {
        /// Frames after the delimiter.
        found: usize,
    },
    /// A JSON frame is larger than its limit.
    #[error("the {frame} has {found} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Which frame.
        frame: &'static str,
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

/// Splits a received multipart message at its first delimiter into routing frames and message.
pub fn split(mut parts: Vec<Bytes>) -> Result<(Vec<Bytes>, WireMessage), FrameError> {
    if parts.len() > FRAMES_MAX {
        return Err(FrameError::TooMany);
    }
    let delimiter = parts
        .iter()
        .take(ROUTING_FRAMES_MAX + 1)
        .position(|part| part.as_ref() == DELIMITER)
        .ok_or(FrameError::NoDelimiter)?;
    let found = parts.len() - delimiter - 1;
    if found < SIGNED_PARTS {
        return Err(FrameError::TooFew { found });
    }
    // From the back, so that the routing frames stay where they are: two allocations fewer a message.
    let buffers = parts.split_off(delimiter + 1 + SIGNED_PARTS);
    let mut last = || parts.pop().expect("counted above");
    let (content, metadata, parent_header, header, signature) = (last(), last(), last(), last(), last());
    parts.truncate(delimiter);
    let (routing, message) =
        (parts, WireMessage { signature, header, parent_header, metadata, content, buffers });
    for (frame, bytes, limit) in [
        ("header", &message.header, HEADER_BYTES_MAX),
        ("parent header", &message.parent_header, HEADER_BYTES_MAX),
        ("metadata", &message.metadata, METADATA_BYTES_MAX),
        ("content", &message.content, CONTENT_BYTES_MAX),
    ] {
        if bytes.len() > limit {
            return Err(FrameError::TooLarge { frame, found: bytes.len(), limit });
        }
    }
    Ok((routing, message))
}

impl WireMessage {
    /// The four frames that the signature covers, in order.
    pub fn signed_frames(&self) -> [&[u8]; 4] {
        [&self.header, &self.parent_header, &self.metadata, &self.content]
    }

    /// All frames in order of sending, from the delimiter on.
    pub fn frames(&self) -> impl Iterator<Item = &Bytes> {
        let signed = [
            &DELIMITER_FRAME,
            &self.signature,
            &self.header,
            &self.parent_header,
            &self.metadata,
            &self.content,
        ];
        signed.into_iter().chain(&self.buffers)
    }

    /// All frames in order of sending, behind the given routing frames.
    pub fn to_parts(&self, routing: &[Bytes]) -> Vec<Bytes> {
        let mut parts = Vec::with_capacity(routing.len() + 1 + SIGNED_PARTS + self.buffers.len());
        parts.extend(routing.iter().chain(self.frames()).cloned());
        parts
    }

    /// Bytes of all frames: what it costs to keep this message.
    pub fn byte_len(&self) -> usize {
        self.signature.len()
            + self.signed_frames().iter().map(|frame| frame.len()).sum::<usize>()
            + self.buffers.iter().map(Bytes::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    #[test]
    fn routing_signed_frames_and_buffers_are_told_apart() {
        let (routing, message) =
            split(parts(&["a", "b", "<IDS|MSG>", "s", "h", "p", "m", "c", "x", "y"])).expect("well formed");
        assert_eq!(routing, parts(&["a", "b"]));
        assert_eq!(message.signed_frames(), [b"h", b"p", b"m", b"c"]);
        assert_eq!(message.buffers, parts(&["x", "y"]));
    }

    #[test]
    fn the_first_delimiter_counts() {
        let (routing, message) = split(parts(&["<IDS|MSG>", "<IDS|MSG>", "h", "p", "m", "c"]))
            .expect("a signature may be anything");
        assert!(routing.is_empty());
        assert_eq!(message.signature.as_ref(), DELIMITER);
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        let whole = parts(&["a", "<IDS|MSG>", "s", "h", "p", "m", "c"]);
        for length in 0..whole.len() {
            let cut = whole.iter().take(length).cloned().collect();
            assert!(split(cut).is_err(), "{length} frames");
        }
    }

    #[test]
    fn a_delimiter_behind_too_many_routing_frames_is_not_searched_for() {
        let mut parts = vec![Bytes::from_static(b"r"); ROUTING_FRAMES_MAX + 1];
        parts.extend([DELIMITER; 6].map(Bytes::from_static));
        assert_eq!(split(parts), Err(FrameError::NoDelimiter));
    }

    #[test]
    fn a_giant_header_is_refused() {
        let mut parts = parts(&["<IDS|MSG>", "s", "h", "p", "m", "c"]);
        parts[2] = Bytes::from(vec![b' '; HEADER_BYTES_MAX + 1]);
        assert!(matches!(split(parts), Err(FrameError::TooLarge { frame: "header", .. })));
    }

    #[test]
    fn more_frames_than_the_limit_are_refused() {
        let parts = vec![Bytes::from_static(DELIMITER); FRAMES_MAX + 1];
        assert_eq!(split(parts), Err(FrameError::TooMany));
    }

    proptest! {
        #[test]
        fn splitting_then_joining_gives_the_same_frames(
            routing in prop::collection::vec("[a-z]{0,4}", 0..4),
            signed in prop::collection::vec("[a-z<]{0,9}", 5),
            buffers in prop::collection::vec("[a-z]{0,4}", 0..4),
        ) {
            let routing: Vec<Bytes> = routing.into_iter().map(Bytes::from).collect();
            let mut parts = routing.clone();
            parts.push(Bytes::from_static(DELIMITER));
            parts.extend(signed.into_iter().chain(buffers).map(Bytes::from));
            let (found, message) = split(parts.clone()).expect("well formed");
            prop_assert_eq!(&found, &routing);
            prop_assert_eq!(message.to_parts(&found), parts);
        }
    }
}
