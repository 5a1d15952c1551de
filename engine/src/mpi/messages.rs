//! `send` and `recv`: arrays between two ranks.
//!
//! A message is a header (element type, shape, and the elements if they are few), found by a probe, so that a
//! waiting `recv` has posted nothing; and, if the elements are many, pieces of them with a tag of their own.
//! Messages between two ranks with one tag do not overtake each other (MPI 3.1, section 3.5), so pieces follow
//! their headers. What an interrupt leaves half done stays here: a send goes on when its receiver comes, and
//! a message that was half received is what the next matching `recv` gets.

use protocol::limits::ARRAY_RANK_MAX;
use protocol::value::DType;

use super::calls::{Comm, MpiError, Request};
use super::memory::{Sink, Source, reserve, small_array};
use crate::arguments::TAG_MAX;
use crate::array::Array;

/// Elements of up to this many bytes travel in the header.
const INLINE_MAX: usize = 16 * 1024;

/// Sends that were interrupted and whose receivers have not come; each keeps its array alive.
pub(super) const UNRECEIVED_MAX: usize = 1024;

/// Pieces are of a size that C counts can hold.
pub(super) const PIECE_BYTES_MAX: usize = 1 << 30;

const FIXED_HEADER: usize = 16;

/// Messages under way. Requests point into it; it must not be dropped before they are complete.
#[derive(Debug)]
pub(super) struct Messages {
    comm: Comm,
    outgoing: Vec<Outgoing>,
    incoming: Vec<Incoming>,
    sent: u64,
    /// How often something arrived or left.
    steps: u64,
}

#[derive(Debug)]
struct Outgoing {
    number: u64,
    requests: Vec<Request>,
    _header: Vec<u8>,
    _source: Source,
}

#[derive(Debug)]
struct Incoming {
    source: usize,
    tag: i32,
    part: Part,
}

#[derive(Debug)]
enum Part {
    Header { request: Request, bytes: Vec<u8> },
    Elements { header: Header, target: Target, received: usize, request: Option<Request> },
}

#[derive(Debug)]
enum Target {
    Result(Sink),
    /// There is no memory for the result; the pieces are received and forgotten, and this is the error.
    Discard {
        scratch: Vec<u8>,
        reason: String,
    },
}

#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    shape: Vec<usize>,
    piece_bytes: usize,
    inline: Option<Vec<u8>>,
}

/// Why nothing was received.
#[derive(Debug)]
pub(super) enum ReceiveError {
    Mpi(MpiError),
    /// The message was taken, but cannot be held.
    Refused(String),
    /// The header is not one of ours.
    Malformed,
}

impl From<MpiError> for ReceiveError {
    fn from(error: MpiError) -> ReceiveError {
        ReceiveError::Mpi(error)
    }
}

impl Messages {
    pub(super) fn new(comm: Comm) -> Messages {
        Messages { comm, outgoing: Vec::new(), incoming: Vec::new(), sent: 0, steps: 0 }
    }

    /// How often something arrived or left.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether so many sends were left unreceived that no more can be.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.len() >= UNRECEIVED_MAX
    }

    /// Starts to send; the number is for [`Messages::is_sent`].
    pub(super) fn send(
        &mut self,
        source: Source,
        to: usize,
        tag: i32,
        piece_bytes: usize,
    ) -> Result<u64, MpiError> {
        let header = header_of(&source, piece_bytes);
        let total = source.bytes().len();
        self.sent += 1;
        let pieces = if total <= INLINE_MAX { 0 } else { total.div_ceil(piece_bytes) };
        let mut requests = Vec::with_capacity(1 + pieces);
        // SAFETY: the header is on the heap and goes, as the array, into `outgoing` below, where both stay
        // until every request is complete.
        match unsafe { self.comm.send(header.as_ptr(), header.len(), to, tag) } {
            Ok(request) => requests.push(request),
            Err(error) => return Err(error),
        }
        let mut failed = None;
        for piece in 0..pieces {
            let start = piece * piece_bytes;
            let n = (total - start).min(piece_bytes);
            // SAFETY: `start + n` is within the array, which lives as said above.
            match unsafe { self.comm.send(source.as_ptr().add(start), n, to, payload_tag(tag)) } {
                Ok(request) => requests.push(request),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let number = self.sent;
        self.outgoing.push(Outgoing { number, requests, _header: header, _source: source });
        failed.map_or(Ok(number), Err)
    }

    /// Whether the message of that number may be forgotten.
    pub(super) fn is_sent(&mut self, number: u64) -> Result<bool, MpiError> {
        self.progress()?;
        Ok(!self.outgoing.iter().any(|message| message.number == number))
    }

    /// Forgets messages that have been sent.
    pub(super) fn progress(&mut self) -> Result<(), MpiError> {
        for message in &mut self.outgoing {
            for request in &mut message.requests {
                if !request.is_complete() && request.test()? {
                    self.steps += 1;
                }
            }
        }
        self.outgoing.retain(|message| !message.requests.iter().all(Request::is_complete));
        Ok(())
    }

    /// The next matching message, if all of it has come.
    pub(super) fn receive(
        &mut self,
        from: Option<usize>,
        tag: i32,
    ) -> Result<Option<(Array, usize)>, ReceiveError> {
        let matches = |m: &Incoming| m.tag == tag && from.is_none_or(|from| m.source == from);
        let index = match self.incoming.iter().position(matches) {
            Some(index) => index,
            None => {
                let Some(matched) = self.comm.probe(from, tag)? else { return Ok(None) };
                let source = matched.source;
                let mut bytes = vec![0u8; matched.bytes];
                // SAFETY: the bytes are on the heap and go into `incoming`, where they stay until the request
                // is complete.
                let request = unsafe { matched.receive(bytes.as_mut_ptr())? };
                self.incoming.push(Incoming { source, tag, part: Part::Header { request, bytes } });
                self.incoming.len() - 1
            }
        };
        let before = self.incoming[index].received();
        let complete = self.incoming[index].is_complete(&self.comm)?;
        self.steps += u64::from(complete || self.incoming[index].received() != before);
        if !complete {
            return Ok(None);
        }
        let message = self.incoming.remove(index);
        let source = message.source;
        message.into_array().map(|array| Some((array, source)))
    }

    /// Gives the communicator back if nothing is under way.
    pub(super) fn into_comm(self) -> Result<Comm, Messages> {
        if self.outgoing.is_empty() && self.incoming.is_empty() { Ok(self.comm) } else { Err(self) }
    }
}

impl Incoming {
    fn received(&self) -> Option<usize> {
        match &self.part {
            Part::Header { .. } => None,
            Part::Elements { received, .. } => Some(*received),
        }
    }

    /// Goes on as far as it can without waiting; whether all has come.
    fn is_complete(&mut self, comm: &Comm) -> Result<bool, ReceiveError> {
        loop {
            match &mut self.part {
                Part::Header { request, bytes } => {
                    if !request.test()? {
                        return Ok(false);
                    }
                    let header = Header::parse(bytes).ok_or(ReceiveError::Malformed)?;
                    let target = match reserve(header.dtype, &header.shape) {
                        Ok(sink) => Target::Result(sink),
                        Err(reason) => Target::Discard { scratch: vec![0; header.piece_bytes], reason },
                    };
                    self.part = Part::Elements { header, target, received: 0, request: None };
                }
                Part::Elements { header, target, received, request } => {
                    if let Some(pending) = request {
                        if !pending.test()? {
                            return Ok(false);
                        }
                        *request = None;
                        *received += header.piece_bytes;
                    }
                    let total = header.byte_len();
                    if header.inline.is_some() || *received >= total {
                        return Ok(true);
                    }
                    let n = (total - *received).min(header.piece_bytes);
                    let buffer = match target {
                        // SAFETY: `received + n` bytes are within what was reserved for `total`.
                        Target::Result(sink) => unsafe { sink.as_mut_ptr().add(*received) },
                        Target::Discard { scratch, .. } => scratch.as_mut_ptr(),
                    };
                    // SAFETY: the buffer is on the heap, has room for `n` bytes, and stays in `incoming` until
                    // the request is complete.
                    *request = Some(unsafe { comm.receive(buffer, n, self.source, payload_tag(self.tag))? });
                }
            }
        }
    }

    fn into_array(self) -> Result<Array, ReceiveError> {
        let Part::Elements { header, target, .. } = self.part else {
            return Err(ReceiveError::Malformed);
        };
        match (header.inline, target) {
            (_, Target::Discard { reason, .. }) => Err(ReceiveError::Refused(reason)),
            (Some(bytes), _) => {
                small_array(header.dtype, &header.shape, &bytes).ok_or(ReceiveError::Malformed)
            }
            // SAFETY: all of its bytes have been received: `is_complete` said so.
            (None, Target::Result(sink)) => Ok(unsafe { sink.into_array(&header.shape) }),
        }
    }
}

/// Tags of pieces; twice the range of tags is within what MPI guarantees.
fn payload_tag(tag: i32) -> i32 {
    tag + TAG_MAX + 1
}

fn header_of(source: &Source, piece_bytes: usize) -> Vec<u8> {
    let array = source.array();
    let dtype = DType::ALL.iter().position(|dtype| *dtype == array.dtype()).expect("ALL names every type");
    let inline = source.bytes().len() <= INLINE_MAX;
    let mut bytes = vec![dtype as u8, array.shape().len() as u8, u8::from(inline), 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&(piece_bytes as u64).to_le_bytes());
    for &extent in array.shape() {
        bytes.extend_from_slice(&(extent as u64).to_le_bytes());
    }
    if inline {
        bytes.extend_from_slice(source.bytes());
    }
    bytes
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        let (fixed, rest) = bytes.split_at_checked(FIXED_HEADER)?;
        let axes = usize::from(fixed[1]);
        if axes > ARRAY_RANK_MAX {
            return None;
        }
        let (shape, elements) = rest.split_at_checked(axes * 8)?;
        let word = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
        let shape = shape.as_chunks::<8>().0.iter().map(word).collect::<Option<Vec<usize>>>()?;
        let piece_bytes = word(fixed[8..].try_into().ok()?)?;
        if piece_bytes == 0 || piece_bytes > PIECE_BYTES_MAX {
            return None;
        }
        let inline = (fixed[2] == 1).then(|| elements.to_vec());
        Some(Header { dtype: *DType::ALL.get(usize::from(fixed[0]))?, shape, piece_bytes, inline })
    }

    fn byte_len(&self) -> usize {
        self.shape.iter().fold(self.dtype.size(), |product, &extent| product.saturating_mul(extent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        let source = Source::of(&Array::from_vec(vec![1i32, 2]));
        let header = Header::parse(&header_of(&source, 64)).expect("well formed");
        assert_eq!(
            header,
            Header {
                dtype: DType::I32,
                shape: vec![2],
                piece_bytes: 64,
                inline: Some(source.bytes().to_vec())
            }
        );
    }

    #[test]
    fn what_is_not_a_header_is_refused() {
        let good = header_of(&Source::of(&Array::from_vec(vec![1i32, 2])), 64);
        assert_eq!(Header::parse(&[]), None);
        assert_eq!(Header::parse(&good[..20]), None);
        let mut unknown = good.clone();
        unknown[0] = 99;
        assert_eq!(Header::parse(&unknown), None);
        let mut too_deep = good;
        too_deep[1] = 200;
        assert_eq!(Header::parse(&too_deep), None);
    }
}
