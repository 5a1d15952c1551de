//! The operands of one collective on their way, in pieces that are small enough for C counts and for an
//! interrupt to be obeyed between them.
//!
//! All ranks know the same lengths, hence post the same pieces. Before every piece but the first they agree
//! whether one of them was interrupted; if so all of them stop there.

use protocol::value::DType;

use super::Fabric;
use super::calls::{self, Layout, MpiError, Request};
use super::memory::{Sink, Source, start_of};
use crate::array::Array;
use crate::communicator::ReduceOp;

/// What goes where.
#[derive(Debug)]
pub(super) enum Movement {
    /// The root's bytes to all. Others have no source.
    Broadcast { source: Option<Source>, bytes: usize, root: usize },
    /// Elements to their reduction.
    Reduce { source: Source, op: ReduceOp, to: ReduceTo },
    /// Blocks of bytes: what this rank sends, and what it receives.
    Exchange(Exchange),
}

/// Who gets a reduction.
#[derive(Clone, Copy, Debug)]
pub(super) enum ReduceTo {
    Root(usize),
    All,
    /// Each rank that of the ranks up to itself.
    Prefix,
}

/// Blocks that lie one behind the other at both ends, in rank order.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) pattern: Pattern,
    /// `None` where this rank sends nothing of its own (a scatter's receivers).
    pub(super) source: Option<Source>,
    /// The lengths of the blocks sent: one per rank, or for gathers the one that all receivers get.
    pub(super) outgoing: Vec<usize>,
    /// The lengths of the blocks received: one per rank, or for a scatter the only one.
    pub(super) incoming: Vec<usize>,
    /// The longest block of any rank.
    pub(super) longest: usize,
    pub(super) staging: Staging,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    Scatter { root: usize },
    Gather { root: usize },
    AllGather,
    AllToAll,
}

/// Where the pieces of several blocks are packed, and the C counts that describe them.
#[derive(Debug, Default)]
pub(super) struct Staging {
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    from: Layout,
    into: Layout,
}

/// Whether all pieces were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Complete,
    /// A rank was interrupted; every rank stopped at the same piece.
    Stopped,
}

/// A movement under way.
#[derive(Debug)]
pub(super) struct Transfer {
    movement: Movement,
    result: Option<(Sink, Vec<usize>)>,
    piece: usize,
    pieces: usize,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// To be posted next.
    Ready,
    Moving(Request),
    /// The next piece waits for all ranks to say that they go on.
    Asking(Request, Box<[i32; 2]>),
}

impl Transfer {
    /// `result` is where the result goes and its shape, if this rank gets one.
    pub(super) fn new(movement: Movement, result: Option<(Sink, Vec<usize>)>, fabric: &Fabric) -> Transfer {
        let pieces = match &movement {
            Movement::Broadcast { bytes, .. } => bytes.div_ceil(fabric.piece_bytes),
            Movement::Reduce { source, .. } => {
                source.array().len().div_ceil(elements_per_piece(source.array().dtype(), fabric))
            }
            Movement::Exchange(exchange) => exchange.longest.div_ceil(block_piece(fabric)),
        };
        Transfer { movement, result, piece: 0, pieces, step: Step::Ready }
    }

    /// How many pieces have been moved.
    pub(super) fn pieces_moved(&self) -> usize {
        self.piece
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn drive(&mut self, fabric: &Fabric, interrupted: bool) -> Result<Option<Moved>, MpiError> {
        loop {
            match &mut self.step {
                Step::Ready if self.piece == self.pieces => return Ok(Some(Moved::Complete)),
                Step::Ready => self.step = Step::Moving(self.post(fabric)?),
                Step::Moving(request) => {
                    if !request.test()? {
                        return Ok(None);
                    }
                    self.unpack(fabric);
                    self.piece += 1;
                    self.step = if self.piece == self.pieces {
                        Step::Ready
                    } else {
                        let mut stop = Box::new([i32::from(interrupted), 0]);
                        let [mine, all] = &mut *stop;
                        // SAFETY: the box moves into the step, which lives until the request is complete
                        // (rounds in flight are never dropped, see `Round`).
                        let request = unsafe { calls::all_reduce_max(&fabric.rounds, mine, all)? };
                        Step::Asking(request, stop)
                    };
                }
                Step::Asking(request, stop) => {
                    if !request.test()? {
                        return Ok(None);
                    }
                    if stop[1] != 0 {
                        return Ok(Some(Moved::Stopped));
                    }
                    self.step = Step::Ready;
                }
            }
        }
    }

    /// What this rank gets, once all has been moved.
    pub(super) fn into_result(self) -> Option<Array> {
        if let Movement::Broadcast { source: Some(source), .. } = &self.movement {
            return Some(source.array().clone());
        }
        let (sink, shape) = self.result?;
        // SAFETY: room for the shape was reserved with it, and the movement, being complete, has covered it:
        // the lengths of its pieces add up to the shape's.
        Some(unsafe { sink.into_array(&shape) })
    }

    /// Starts the next piece.
    fn post(&mut self, fabric: &Fabric) -> Result<Request, MpiError> {
        let comm = &fabric.rounds;
        let receive = self.result.as_mut().map_or(std::ptr::null_mut(), |(sink, _)| sink.as_mut_ptr());
        match &mut self.movement {
            Movement::Broadcast { source, bytes, root } => {
                let start = self.piece * fabric.piece_bytes;
                let n = (*bytes - start).min(fabric.piece_bytes);
                let buffer = source.as_ref().map_or(receive, |source| source.as_ptr().cast_mut());
                // SAFETY: `start + n` is within the array on both sides, which live with this transfer; the
                // root's is only read.
                unsafe { comm.broadcast(buffer.add(start), n, *root) }
            }
            Movement::Reduce { source, op, to } => {
                let dtype = source.array().dtype();
                let per_piece = elements_per_piece(dtype, fabric);
                let start = self.piece * per_piece;
                let n = (source.array().len() - start).min(per_piece);
                let (elements, op) = (calls::element_type(dtype), calls::reduction(*op, dtype));
                // SAFETY: `start + n` elements are within both arrays, which live with this transfer; where
                // there is no result (not the root), `receive` is null and not looked at.
                unsafe {
                    let send = source.as_ptr().add(start * dtype.size());
                    let receive = receive.wrapping_add(start * dtype.size());
                    match to {
                        ReduceTo::Root(root) => comm.reduce(send, receive, n, elements, op, *root),
                        ReduceTo::All => comm.all_reduce(send, receive, n, elements, op),
                        ReduceTo::Prefix => comm.scan(send, receive, n, elements, op),
                    }
                }
            }
            Movement::Exchange(exchange) => exchange.post(self.piece, self.pieces, receive, fabric),
        }
    }

    /// Puts a piece of several blocks where it belongs.
    fn unpack(&mut self, fabric: &Fabric) {
        if let (Movement::Exchange(exchange), Some((sink, _))) = (&mut self.movement, &mut self.result)
            && self.pieces > 1
            && !exchange.staging.incoming.is_empty()
        {
            exchange.unpack(self.piece, sink, block_piece(fabric));
        }
    }
}

impl Exchange {
    /// Starts a piece. A single piece goes from array to array; of several, those that hold parts of many
    /// blocks go through staging memory, so that displacements stay small.
    fn post(
        &mut self,
        piece: usize,
        pieces: usize,
        receive: *mut u8,
        fabric: &Fabric,
    ) -> Result<Request, MpiError> {
        let limit = block_piece(fabric);
        let slice = |length: &usize| length.saturating_sub(piece * limit).min(limit);
        let start = piece * limit;
        let send = self.source.as_ref().map_or(std::ptr::null(), Source::as_ptr);
        self.staging.from = Layout::packed(self.outgoing.iter().map(slice));
        self.staging.into = Layout::packed(self.incoming.iter().map(slice));
        let mine_out = self.outgoing.first().map_or(0, slice);
        let mine_in = self.incoming.first().map_or(0, slice);
        let sends_many = matches!(self.pattern, Pattern::Scatter { .. } | Pattern::AllToAll);
        let receives_many = !matches!(self.pattern, Pattern::Scatter { .. });

        let send = if !sends_many {
            send.wrapping_add(start.min(self.outgoing[0]))
        } else if pieces == 1 || self.source.is_none() {
            send
        } else {
            self.pack(start, limit);
            start_of(&mut self.staging.outgoing).cast_const()
        };
        let receive = if !receives_many {
            receive.wrapping_add(start.min(self.incoming[0]))
        } else if pieces == 1 || receive.is_null() {
            receive
        } else {
            self.staging.incoming.resize(self.incoming.iter().map(slice).sum(), 0);
            start_of(&mut self.staging.incoming)
        };

        let (from, into, comm) = (&self.staging.from, &self.staging.into, &fabric.rounds);
        // SAFETY: the layouts are those of the memory that the pointers were chosen for: all of the array, or
        // its part from `start`, or the staging memory. All of it lives with this exchange, unmoved, until
        // the request is complete; only then is the next piece posted.
        unsafe {
            match self.pattern {
                Pattern::Scatter { root } => comm.scatter(send, from, receive, mine_in, root),
                Pattern::Gather { root } => comm.gather(send, mine_out, receive, into, root),
                Pattern::AllGather => comm.all_gather_varying(send, mine_out, receive, into),
                Pattern::AllToAll => comm.all_to_all(send, from, receive, into),
            }
        }
    }

    fn pack(&mut self, start: usize, limit: usize) {
        let Some(source) = &self.source else { return };
        self.staging.outgoing.clear();
        let mut rest = source.bytes();
        for &length in &self.outgoing {
            let (block, behind) = rest.split_at(length);
            let from = start.min(length);
            self.staging.outgoing.extend_from_slice(&block[from..length.min(start.saturating_add(limit))]);
            rest = behind;
        }
    }

    fn unpack(&mut self, piece: usize, sink: &mut Sink, limit: usize) {
        let start = piece * limit;
        let (mut block, mut packed) = (0, 0);
        for &length in &self.incoming {
            let n = length.saturating_sub(start).min(limit);
            let bytes = &self.staging.incoming[packed..packed + n];
            // SAFETY: the blocks' lengths add up to the sink's room, and `start + n` is within this block.
            unsafe {
                let into = sink.as_mut_ptr().add(block + start.min(length));
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), into, n);
            }
            block += length;
            packed += n;
        }
    }
}

fn elements_per_piece(dtype: DType, fabric: &Fabric) -> usize {
    (fabric.piece_bytes / dtype.size()).max(1)
}

/// How much of each block one piece has, so that all blocks together are within the limit.
fn block_piece(fabric: &Fabric) -> usize {
    (fabric.piece_bytes / fabric.size).max(1)
}
