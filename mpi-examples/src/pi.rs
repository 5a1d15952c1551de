//! π by throwing darts: every rank draws its own random numbers, one reduction adds up the hits.

use engine::array::Array;
use engine::communicator::ReduceOp;
use engine::{RunError, TaskContext, Value};

/// Points between two looks at the interrupt flag: a few milliseconds.
const POINTS_PER_LOOK: u64 = 1 << 20;

/// # Collective
/// Estimates π from `points` random points in the unit square, shared out over all ranks. The same `seed` on the same
/// number of ranks gives the same estimate.
pub fn estimate_pi(task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let (points, seed) = match arguments.as_slice() {
        &[Value::Int(points), Value::Int(seed)] if points > 0 => {
            (points.unsigned_abs(), seed.cast_unsigned())
        }
        _ => {
            return Err(RunError::new(
                "TypeError",
                "estimate_pi(points, seed) takes two integers, points > 0",
            ));
        }
    };
    let world = &task.communicator;
    let (rank, size) = (world.rank() as u64, world.size() as u64);
    let own = points / size + u64::from(rank < points % size);

    let mut random = Random::new(seed, rank);
    let mut inside = 0_i64;
    for start in (0..own).step_by(POINTS_PER_LOOK as usize) {
        // Collectives look at the flag themselves. A loop of one's own has to, or Ctrl-C waits for its end.
        if task.interrupt.is_raised() {
            return Err(RunError::new("KeyboardInterrupt", format!("interrupted after {start} points")));
        }
        for _ in start..own.min(start + POINTS_PER_LOOK) {
            let (x, y) = (random.next(), random.next());
            inside += i64::from(x * x + y * y < 1.0);
        }
    }

    // Hits are counted in integers: their sum is exact, in whatever order MPI adds.
    let hits = world.all_reduce(&Array::scalar(inside), ReduceOp::Sum)?;
    let Array::I64(hits) = hits else { unreachable!("a reduction keeps the element type") };
    Ok(Value::Float(4.0 * hits.sum() as f64 / points as f64))
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and any start is a good one, so that ranks get streams of their
/// own from starts that are far apart.
struct Random(u64);

impl Random {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    fn new(seed: u64, rank: u64) -> Random {
        // Scrambled, because ranks that start one step apart would draw the same numbers one later.
        Random(scramble(scramble(seed) ^ rank))
    }

    /// Uniform in [0, 1), with 53 random bits.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(Random::STEP);
        (scramble(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn scramble(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
