//! Sample sort: ranks agree on where to cut by samples of what they have, send each other what belongs there, and sort
//! what they got.

use commworld_module::{Array1, ArrayView1, Call, Error};
use mpi::datatype::{Partition, PartitionMut};
use mpi::traits::CommunicatorCollectives;

/// Samples that each rank gives, for each rank.
const OVERSAMPLING: usize = 16;

pub(crate) fn sorted(call: &Call<'_>, a: ArrayView1<'_, f64>) -> Result<Array1<f64>, Error> {
    let (world, ranks) = (call.world()?, call.size());
    let mut own = a.to_vec();
    own.sort_by(f64::total_cmp);

    let samples = evenly(&own, OVERSAMPLING * ranks);
    let mut all_samples = vec![0.0; samples.len() * ranks];
    world.all_gather_into(&samples[..], &mut all_samples[..]);
    all_samples.sort_by(f64::total_cmp);
    let ends = cuts(&own, &all_samples, ranks);

    let send_counts: Vec<i32> = parts(&ends).map(|(from, to)| (to - from) as i32).collect();
    let mut receive_counts = vec![0_i32; ranks];
    world.all_to_all_into(&send_counts[..], &mut receive_counts[..]);

    let mut received = vec![0.0; receive_counts.iter().map(|&count| count as usize).sum()];
    let (send_starts, receive_starts) = (starts(&send_counts), starts(&receive_counts));
    let send = Partition::new(&own[..], &send_counts[..], &send_starts[..]);
    let mut receive = PartitionMut::new(&mut received[..], &receive_counts[..], &receive_starts[..]);
    world.all_to_all_varcount_into(&send, &mut receive);
    received.sort_by(f64::total_cmp);
    Ok(Array1::from(received))
}

/// So many elements at equal distances; of a rank that has none, infinity, which cuts nothing.
fn evenly(sorted: &[f64], count: usize) -> Vec<f64> {
    let at = |i: usize| sorted.get((i * sorted.len() + sorted.len() / 2) / count);
    (0..count).map(|i| at(i).copied().unwrap_or(f64::INFINITY)).collect()
}

/// Where each rank's part of `sorted` ends.
fn cuts(sorted: &[f64], samples: &[f64], ranks: usize) -> Vec<usize> {
    let cut = |rank: usize| match samples.get(rank * samples.len() / ranks) {
        Some(limit) => sorted.partition_point(|element| element.total_cmp(limit).is_lt()),
        None => sorted.len(),
    };
    (1..=ranks).map(cut).collect()
}

fn parts(ends: &[usize]) -> impl Iterator<Item = (usize, usize)> + '_ {
    std::iter::once(0).chain(ends.iter().copied()).zip(ends.iter().copied())
}

fn starts(counts: &[i32]) -> Vec<i32> {
    let before = |at: usize| counts[..at].iter().sum();
    (0..counts.len()).map(before).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_belongs_to_one_rank() {
        let ends = cuts(&[1.0, 2.0, 2.0, 9.0], &[0.0, 2.0, 5.0, 7.0], 4);
        assert_eq!(ends, [1, 3, 3, 4]);
        assert_eq!(parts(&ends).collect::<Vec<_>>(), [(0, 1), (1, 3), (3, 3), (3, 4)]);
    }

    #[test]
    fn parts_follow_each_other() {
        assert_eq!(starts(&[3, 0, 2]), [0, 3, 3]);
    }

    #[test]
    fn a_rank_without_elements_cuts_nothing() {
        assert_eq!(evenly(&[], 2), [f64::INFINITY; 2]);
        assert_eq!(evenly(&[1.0, 2.0, 3.0, 4.0], 2), [2.0, 4.0]);
    }
}
