//! The frames of a message that is kept: small ones copied into one allocation, large ones shared.

use bytes::Bytes;

/// Frames below this many bytes share memory with the rest of their message when they arrive (see
/// `transport`), so that keeping one would keep them all; larger ones have memory of their own.
const SHARED_FROM: usize = 8 * 1024;

/// Header, metadata and content: what comes before the buffers.
const JSON_PARTS: usize = 3;

/// What one frame of its own costs beside its bytes.
const LARGE_FRAME_OVERHEAD: usize = 64;

/// In place of a length: the frame is the next of the large ones.
const LARGE: u32 = u32::MAX;

/// In the first word, beside the number of frames: there were buffers, and they are gone.
const BUFFERS_DROPPED: u32 = 1 << 31;

const WORD: usize = size_of::<u32>();

/// Header, metadata, content and buffers of one message.
///
/// `small` holds the number of frames, the length of each, and the bytes of the small ones: nearly the form in which a
/// file keeps them too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    small: Bytes,
    large: Box<[Bytes]>,
}

impl Frames {
    /// Copies or shares frames. Buffers of more than `bytes_max` together are left out; `None` if the rest has
    /// more than that as well.
    pub(crate) fn keep(json: [&Bytes; JSON_PARTS], buffers: &[Bytes], bytes_max: usize) -> Option<Frames> {
        let bytes_of = |frames: &[Bytes]| frames.iter().map(Bytes::len).sum::<usize>();
        if json.iter().map(|frame| frame.len()).sum::<usize>() > bytes_max {
            return None;
        }
        if bytes_of(buffers) > bytes_max {
            return Some(Frames::copy(json, &[], BUFFERS_DROPPED));
        }
        Some(Frames::copy(json, buffers, 0))
    }

    fn copy(json: [&Bytes; JSON_PARTS], buffers: &[Bytes], marks: u32) -> Frames {
        let frames = || json.into_iter().chain(buffers);
        let count = JSON_PARTS + buffers.len();
        let (mut small_bytes, mut large_count) = (0, 0);
        for frame in frames() {
            if frame.len() < SHARED_FROM {
                small_bytes += frame.len();
            } else {
                large_count += 1;
            }
        }
        let mut small = Vec::with_capacity(WORD * (1 + count) + small_bytes);
        small.extend_from_slice(&(count as u32 | marks).to_le_bytes());
        for frame in frames() {
            let length = if frame.len() < SHARED_FROM { frame.len() as u32 } else { LARGE };
            small.extend_from_slice(&length.to_le_bytes());
        }
        let mut large = Vec::with_capacity(large_count);
        for frame in frames() {
            if frame.len() < SHARED_FROM {
                small.extend_from_slice(frame);
            } else {
                large.push(frame.clone());
            }
        }
        Frames { small: Bytes::from(small), large: large.into() }
    }

    /// The form for a file: all but the buffers, and the buffers. Without large frames both are there already.
    pub(crate) fn to_blobs(&self) -> (Bytes, Bytes) {
        let head = self.head_bytes();
        let json_bytes: usize = self.frames().take(JSON_PARTS).map(Frame::len).sum();
        if self.large.is_empty() {
            return (self.small.slice(..head + json_bytes), self.small.slice(head + json_bytes..));
        }
        let mut json = Vec::with_capacity(head + json_bytes);
        json.extend_from_slice(&self.small[..WORD]);
        for frame in self.frames() {
            // Smaller than `Bounds::message_bytes_max`, which is far below 4 GiB.
            json.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        }
        self.frames().take(JSON_PARTS).for_each(|frame| json.extend_from_slice(frame.as_slice()));
        let mut buffers = Vec::with_capacity(self.buffer_bytes() as usize);
        self.frames().skip(JSON_PARTS).for_each(|frame| buffers.extend_from_slice(frame.as_slice()));
        (Bytes::from(json), Bytes::from(buffers))
    }

    /// The inverse of [`Frames::to_blobs`]; `None` if something else was in the file. Buffers that are left there
    /// are empty here.
    pub(crate) fn from_blobs(mut json: Vec<u8>, buffers: Option<Vec<u8>>) -> Option<Frames> {
        let (words, _) = json.as_chunks_mut::<WORD>();
        let count = (u32::from_le_bytes(*words.first()?) & !BUFFERS_DROPPED) as usize;
        let lengths = words.get_mut(1..count.checked_add(1)?)?;
        let (of_json, of_buffers) = lengths.split_at_mut_checked(JSON_PARTS)?;
        let json_bytes: u64 = of_json.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum();
        let mut large = vec![];
        match buffers.map(Bytes::from) {
            None => of_buffers.fill([0; WORD]),
            Some(mut rest) => {
                for word in of_buffers {
                    let length = u32::from_le_bytes(*word) as usize;
                    if length > rest.len() {
                        return None;
                    }
                    large.push(rest.split_to(length));
                    *word = LARGE.to_le_bytes();
                }
                if !rest.is_empty() {
                    return None;
                }
            }
        }
        let is_whole = (WORD * (1 + count)) as u64 + json_bytes == json.len() as u64;
        is_whole.then(|| Frames { small: Bytes::from(json), large: large.into() })
    }

    /// Frames of which nothing is known.
    pub(crate) fn empty() -> Frames {
        Frames::copy([&Bytes::new(), &Bytes::new(), &Bytes::new()], &[], 0)
    }

    pub(crate) fn header(&self) -> &[u8] {
        self.json(0)
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        self.json(1)
    }

    pub(crate) fn content(&self) -> &[u8] {
        self.json(2)
    }

    /// The buffers; none if they were dropped.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = Bytes> {
        self.frames().skip(JSON_PARTS).map(Frame::to_bytes)
    }

    /// Bytes of all buffers.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.frames().skip(JSON_PARTS).map(|frame| frame.len() as u64).sum()
    }

    /// Whether there were buffers that were too large to keep.
    pub(crate) fn has_lost_buffers(&self) -> bool {
        self.word(0) & BUFFERS_DROPPED != 0
    }

    /// What it costs to keep them.
    pub(crate) fn cost(&self) -> u64 {
        let large: usize = self.large.iter().map(|frame| frame.len() + LARGE_FRAME_OVERHEAD).sum();
        (self.small.len() + large) as u64
    }

    fn json(&self, index: usize) -> &[u8] {
        self.frames().nth(index).map(Frame::as_slice).unwrap_or_default()
    }

    fn head_bytes(&self) -> usize {
        WORD * (1 + self.count())
    }

    fn count(&self) -> usize {
        (self.word(0) & !BUFFERS_DROPPED) as usize
    }

    fn word(&self, index: usize) -> u32 {
        let (words, _) = self.small.as_chunks::<WORD>();
        u32::from_le_bytes(words[index])
    }

    fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let count = self.count();
        let mut start = self.head_bytes();
        let mut large = self.large.iter();
        (0..count).map(move |index| match self.word(1 + index) {
            LARGE => Frame::Large(large.next().expect("copy has put one there for each mark")),
            length => {
                let end = start + length as usize;
                let frame = Frame::Small { all: &self.small, start, end };
                start = end;
                frame
            }
        })
    }
}

/// One frame, wherever it is.
#[derive(Clone, Copy)]
enum Frame<'a> {
    Small { all: &'a Bytes, start: usize, end: usize },
    Large(&'a Bytes),
}

impl<'a> Frame<'a> {
    fn len(self) -> usize {
        self.as_slice().len()
    }

    fn as_slice(self) -> &'a [u8] {
        match self {
            Frame::Small { all, start, end } => &all[start..end],
            Frame::Large(frame) => frame,
        }
    }

    fn to_bytes(self) -> Bytes {
        match self {
            Frame::Small { all, start, end } => all.slice(start..end),
            Frame::Large(frame) => frame.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLENTY: usize = 1 << 30;

    fn kept(json: [&'static str; 3], buffers: &[Bytes], bytes_max: usize) -> Option<Frames> {
        let json = json.map(|text| Bytes::from_static(text.as_bytes()));
        Frames::keep([&json[0], &json[1], &json[2]], buffers, bytes_max)
    }

    #[test]
    fn small_frames_are_copied_and_large_ones_shared() {
        let (small, large) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; SHARED_FROM]));
        let frames = kept(["{}", "{ }", ""], &[small.clone(), large.clone(), small.clone()], PLENTY);
        let frames = frames.expect("there is room");
        let buffers: Vec<Bytes> = frames.buffers().collect();
        assert_eq!(buffers, [small.clone(), large.clone(), small.clone()]);
        assert_eq!(
            (frames.header(), frames.metadata(), frames.content()),
            (&b"{}"[..], &b"{ }"[..], &b""[..])
        );
        assert_ne!(buffers[0].as_ptr(), small.as_ptr());
        assert_eq!(buffers[1].as_ptr(), large.as_ptr());
        assert_eq!(frames.buffer_bytes(), 200 + SHARED_FROM as u64);
    }

    #[test]
    fn buffers_beyond_the_bound_are_left_out_and_that_is_remembered() {
        let buffers = [Bytes::from(vec![1; 60]), Bytes::from(vec![1; 41])];
        let frames = kept(["{}", "{}", "{}"], &buffers, 100).expect("the rest is small");
        assert!(frames.has_lost_buffers());
        assert_eq!(frames.buffers().count(), 0);
        assert!(!kept(["{}", "{}", "{}"], &buffers, 101).expect("there is room").has_lost_buffers());
        assert_eq!(kept(["{}", "{}", "{}"], &[], 5), None);
    }

    proptest! {
        #[test]
        fn a_file_gives_back_what_it_was_given(
            json in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 3),
            buffers in prop::collection::vec(prop_oneof![0_usize..40, 8190_usize..8194, 20_000_usize..20_001], 0..6),
            bytes_max in prop_oneof![Just(PLENTY), Just(200)],
        ) {
            let json: Vec<Bytes> = json.into_iter().map(Bytes::from).collect();
            let buffers: Vec<Bytes> = buffers.into_iter().map(|length| Bytes::from(vec![7; length])).collect();
            let frames = Frames::keep([&json[0], &json[1], &json[2]], &buffers, bytes_max).expect("small");
            let (head, tail) = frames.to_blobs();
            let back = Frames::from_blobs(head.to_vec(), Some(tail.to_vec())).expect("just written");
            let without = Frames::from_blobs(head.to_vec(), None).expect("just written");
            prop_assert_eq!((without.header(), without.content()), (frames.header(), frames.content()));
            prop_assert_eq!(without.buffers().count(), frames.buffers().count());
            prop_assert_eq!(back.header(), frames.header());
            prop_assert_eq!(back.metadata(), frames.metadata());
            prop_assert_eq!(back.content(), frames.content());
            prop_assert_eq!(back.has_lost_buffers(), frames.has_lost_buffers());
            prop_assert_eq!(back.buffers().collect::<Vec<_>>(), frames.buffers().collect::<Vec<_>>());
        }

        #[test]
        fn whatever_is_in_a_file_is_read_or_refused(
            blob in prop::collection::vec(any::<u8>(), 0..60),
            count in any::<u8>(),
            buffers in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        ) {
            let mut blob = blob;
            if let Some(first) = blob.first_chunk_mut::<WORD>() {
                *first = u32::from(count % 8).to_le_bytes();
            }
            if let Some(frames) = Frames::from_blobs(blob, buffers) {
                let _ = (frames.header(), frames.metadata(), frames.content(), frames.cost());
                let _ = frames.buffers().count();
            }
        }
    }
}
