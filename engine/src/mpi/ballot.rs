//! What a rank says about its call when it enters a round, and how two such statements become one.
//!
//! All ranks' ballots are merged by one all-reduce with [`merge`] as its operation, so that every rank reads
//! the same outcome. A ballot has room for small operands: short reductions and broadcasts are done when the
//! vote is.

use num_complex::Complex64;
use protocol::limits::ARRAY_RANK_MAX;
use protocol::value::DType;

use crate::communicator::ReduceOp;

/// Operands of up to this many bytes travel in the ballot. Eight numbers: scalars and small vectors.
pub(super) const PAYLOAD_MAX: usize = 64;

/// No root has spoken yet.
const NO_SHAPE: u64 = u64::MAX;

/// Every field is plain words, so that any bytes that arrive are a ballot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ballot {
    round: u64,
    /// A digest of what must agree: operation, reduction, root, and where they matter dtype and shape.
    signature: u64,
    /// Signatures or rounds differed.
    differs: u64,
    cell_min: i64,
    cell_max: i64,
    /// The lowest rank that is in cell `cell_max`.
    newest_rank: u64,
    rows_min: u64,
    rows_max: u64,
    /// The number of axes of the root's array, or [`NO_SHAPE`].
    axes: u64,
    dtype: u64,
    shape: [u64; ARRAY_RANK_MAX],
    /// How to merge the payloads: an index into [`ReduceOp::ALL`], or past its end for none.
    reduction: u64,
    payload_len: u64,
    payload: [u8; PAYLOAD_MAX],
}

impl Ballot {
    pub(super) fn new(round: u64, rank: usize, cell: i64, signature: u64) -> Ballot {
        Ballot {
            round,
            signature,
            differs: 0,
            cell_min: cell,
            cell_max: cell,
            newest_rank: rank as u64,
            rows_min: 0,
            rows_max: 0,
            axes: NO_SHAPE,
            dtype: 0,
            shape: [0; ARRAY_RANK_MAX],
            reduction: u64::MAX,
            payload_len: 0,
            payload: [0; PAYLOAD_MAX],
        }
    }

    /// This rank contributes so many rows.
    pub(super) fn set_rows(&mut self, rows: usize) {
        self.rows_min = rows as u64;
        self.rows_max = rows as u64;
    }

    /// This rank is the root, and this is what it gives.
    pub(super) fn set_shape(&mut self, dtype: DType, shape: &[usize]) {
        assert!(shape.len() <= ARRAY_RANK_MAX, "{} axes are refused before", shape.len());
        self.axes = shape.len() as u64;
        self.dtype = index_of(&DType::ALL, dtype);
        for (word, &extent) in self.shape.iter_mut().zip(shape) {
            *word = extent as u64;
        }
    }

    /// A small operand of a reduction, to be merged with the others'.
    pub(super) fn set_operand(&mut self, op: ReduceOp, dtype: DType, bytes: &[u8]) {
        self.reduction = index_of(&ReduceOp::ALL, op);
        self.dtype = index_of(&DType::ALL, dtype);
        self.set_payload(bytes);
    }

    /// The small array of a root.
    pub(super) fn set_payload(&mut self, bytes: &[u8]) {
        self.payload[..bytes.len()].copy_from_slice(bytes);
        self.payload_len = bytes.len() as u64;
    }

    /// Whether ranks are in different cells, all of them known.
    pub(super) fn cells_differ(&self) -> bool {
        self.cell_min != self.cell_max && self.cell_min > 0
    }

    /// Whether a rank in `cell` is in an older one than some other rank, and the lowest such rank.
    pub(super) fn newer_rank(&self, cell: i64) -> Option<usize> {
        (self.cells_differ() && cell < self.cell_max).then_some(self.newest_rank as usize)
    }

    /// Whether all ranks made the same call.
    pub(super) fn is_unanimous(&self) -> bool {
        self.differs == 0 && !self.cells_differ()
    }

    /// The round, if the ranks agree at least on that.
    pub(super) fn is_of_round(&self, round: u64) -> bool {
        self.round == round
    }

    /// The number of rows, if all ranks contribute as many.
    pub(super) fn common_rows(&self) -> Option<usize> {
        (self.rows_min == self.rows_max).then_some(self.rows_min as usize)
    }

    /// What the root gives. `None` also for words that no ballot has.
    pub(super) fn shape(&self) -> Option<(DType, Vec<usize>)> {
        let axes = usize::try_from(self.axes).ok().filter(|&axes| axes <= ARRAY_RANK_MAX)?;
        let dtype = *DType::ALL.get(self.dtype as usize)?;
        Some((dtype, self.shape[..axes].iter().map(|&extent| extent as usize).collect()))
    }

    /// The merged operand, or the root's array.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload[..(self.payload_len as usize).min(PAYLOAD_MAX)]
    }
}

fn index_of<T: PartialEq>(all: &[T], item: T) -> u64 {
    all.iter().position(|candidate| *candidate == item).expect("ALL names every variant") as u64
}

/// Merges `other` into `into`. Commutative and, but for the rounding of floats, associative. Cannot panic: MPI
/// calls it.
pub(super) fn merge(into: &mut Ballot, other: &Ballot) {
    let same = into.signature == other.signature && into.round == other.round;
    into.differs |= other.differs | u64::from(!same);
    into.round = into.round.max(other.round);
    into.signature = into.signature.min(other.signature);
    into.newest_rank = match into.cell_max.cmp(&other.cell_max) {
        std::cmp::Ordering::Less => other.newest_rank,
        std::cmp::Ordering::Equal => into.newest_rank.min(other.newest_rank),
        std::cmp::Ordering::Greater => into.newest_rank,
    };
    into.cell_min = into.cell_min.min(other.cell_min);
    into.cell_max = into.cell_max.max(other.cell_max);
    into.rows_min = into.rows_min.min(other.rows_min);
    into.rows_max = into.rows_max.max(other.rows_max);
    if into.differs != 0 {
        return; // There will be no result; what the rest says does not matter.
    }
    if other.axes != NO_SHAPE {
        into.axes = other.axes;
        into.dtype = other.dtype;
        into.shape = other.shape;
        into.payload_len = other.payload_len;
        into.payload = other.payload;
    } else if let Some(op) = ReduceOp::ALL.get(into.reduction as usize)
        && let Some(dtype) = DType::ALL.get(into.dtype as usize)
        && into.payload_len == other.payload_len
    {
        let len = (into.payload_len as usize).min(PAYLOAD_MAX);
        combine(*op, *dtype, &mut into.payload[..len], &other.payload[..len]);
    }
}

/// `into = into op other`, element by element, as the MPI libraries compute it: integers wrap, and a NaN in a
/// minimum or maximum is not special.
fn combine(op: ReduceOp, dtype: DType, into: &mut [u8], other: &[u8]) {
    macro_rules! numbers {
        ($type:ty, $add:expr, $multiply:expr) => {
            elements::<$type, { size_of::<$type>() }>(
                into,
                other,
                <$type>::from_le_bytes,
                <$type>::to_le_bytes,
                |a, b| match op {
                    ReduceOp::Sum => $add(a, b),
                    ReduceOp::Prod => $multiply(a, b),
                    ReduceOp::Min => {
                        if b < a {
                            b
                        } else {
                            a
                        }
                    }
                    ReduceOp::Max => {
                        if b > a {
                            b
                        } else {
                            a
                        }
                    }
                    ReduceOp::And | ReduceOp::Or => a,
                },
            )
        };
    }
    match dtype {
        DType::F64 => numbers!(f64, |a: f64, b| a + b, |a: f64, b| a * b),
        DType::F32 => numbers!(f32, |a: f32, b| a + b, |a: f32, b| a * b),
        DType::I64 => numbers!(i64, i64::wrapping_add, i64::wrapping_mul),
        DType::I32 => numbers!(i32, i32::wrapping_add, i32::wrapping_mul),
        DType::U8 => numbers!(u8, u8::wrapping_add, u8::wrapping_mul),
        DType::Bool => elements::<u8, 1>(into, other, u8::from_le_bytes, u8::to_le_bytes, |a, b| match op {
            ReduceOp::And | ReduceOp::Min => a & b,
            _ => a | b,
        }),
        DType::C64 => elements::<Complex64, 16>(into, other, complex_from, complex_to, |a, b| match op {
            ReduceOp::Prod => a * b,
            _ => a + b,
        }),
    }
}

fn elements<T, const N: usize>(
    into: &mut [u8],
    other: &[u8],
    from: fn([u8; N]) -> T,
    to: fn(T) -> [u8; N],
    op: impl Fn(T, T) -> T,
) {
    for (a, b) in into.as_chunks_mut::<N>().0.iter_mut().zip(other.as_chunks::<N>().0) {
        *a = to(op(from(*a), from(*b)));
    }
}

fn complex_from(bytes: [u8; 16]) -> Complex64 {
    let number = u128::from_le_bytes(bytes);
    Complex64::new(f64::from_bits(number as u64), f64::from_bits((number >> 64) as u64))
}

fn complex_to(number: Complex64) -> [u8; 16] {
    (u128::from(number.re.to_bits()) | u128::from(number.im.to_bits()) << 64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(ballots: &[Ballot]) -> Ballot {
        let mut outcome = ballots[0];
        ballots[1..].iter().for_each(|ballot| merge(&mut outcome, ballot));
        outcome
    }

    #[test]
    fn equal_calls_are_unanimous_and_unequal_ones_are_not() {
        let calls = |signatures: &[u64]| {
            let ballots: Vec<Ballot> =
                signatures.iter().enumerate().map(|(rank, s)| Ballot::new(5, rank, 0, *s)).collect();
            merged(&ballots).is_unanimous()
        };
        assert!(calls(&[7, 7, 7]));
        assert!(!calls(&[7, 8, 7]));
        assert!(!calls(&[7, 7, 8]));
    }

    #[test]
    fn the_lowest_rank_of_the_newest_cell_is_named_whatever_the_order() {
        let mut ballots = [Ballot::new(1, 0, 3, 7), Ballot::new(1, 1, 4, 7), Ballot::new(1, 2, 4, 7)];
        for _ in 0..3 {
            ballots.rotate_left(1);
            let outcome = merged(&ballots);
            assert!(!outcome.is_unanimous());
            assert_eq!(outcome.newer_rank(3), Some(1));
            assert_eq!(outcome.newer_rank(4), None);
        }
    }

    #[test]
    fn unknown_cells_are_not_compared() {
        assert!(merged(&[Ballot::new(1, 0, 0, 7), Ballot::new(1, 1, 4, 7)]).is_unanimous());
    }

    #[test]
    fn small_operands_are_reduced_by_the_vote() {
        let ballots: Vec<Ballot> = (0..4)
            .map(|rank| {
                let mut ballot = Ballot::new(1, rank, 0, 7);
                let bytes: Vec<u8> = [rank as f64, 0.5].iter().flat_map(|x| x.to_le_bytes()).collect();
                ballot.set_operand(ReduceOp::Sum, DType::F64, &bytes);
                ballot
            })
            .collect();
        let expected: Vec<u8> = [6.0f64, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(merged(&ballots).payload(), expected);
    }

    #[test]
    fn the_roots_shape_and_payload_reach_all_whatever_the_order() {
        let mut root = Ballot::new(1, 1, 0, 7);
        root.set_shape(DType::U8, &[3]);
        root.set_payload(&[1, 2, 3]);
        let mut ballots = [Ballot::new(1, 0, 0, 7), root, Ballot::new(1, 2, 0, 7)];
        for _ in 0..3 {
            ballots.rotate_left(1);
            let outcome = merged(&ballots);
            assert_eq!(outcome.shape(), Some((DType::U8, vec![3])));
            assert_eq!(outcome.payload(), [1, 2, 3]);
        }
    }

    #[test]
    fn every_element_type_is_combined_as_mpi_does() {
        let mut wrapped = i32::MAX.to_le_bytes();
        combine(ReduceOp::Sum, DType::I32, &mut wrapped, &1i32.to_le_bytes());
        assert_eq!(i32::from_le_bytes(wrapped), i32::MIN);

        let mut truths = [1, 1, 0, 0];
        combine(ReduceOp::And, DType::Bool, &mut truths, &[1, 0, 1, 0]);
        assert_eq!(truths, [1, 0, 0, 0]);
        combine(ReduceOp::Max, DType::Bool, &mut truths, &[0, 0, 1, 0]);
        assert_eq!(truths, [1, 0, 1, 0]);

        let mut product = complex_to(Complex64::new(0.0, 1.0));
        combine(ReduceOp::Prod, DType::C64, &mut product, &complex_to(Complex64::new(0.0, 1.0)));
        assert_eq!(complex_from(product), Complex64::new(-1.0, 0.0));
    }
}
