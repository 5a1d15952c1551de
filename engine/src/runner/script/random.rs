//! Random numbers: one stream per rank, the same on every machine for the same seed.

use std::f64::consts::TAU;

/// The golden ratio in 64 bits, SplitMix64's increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// xoshiro256++ (Blackman and Vigna 2019). Its numbers never change with a version of a library, so that what
/// a paper says about `seed(42)` stays true.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of one rank. Ranks are told apart by mixing, so that neighbours have nothing in common.
    pub(crate) fn seeded(seed: u64, rank: u64) -> Random {
        let mut mixer = mix(seed.wrapping_add(GOLDEN)) ^ mix(rank.wrapping_mul(GOLDEN).wrapping_add(1));
        let state = std::array::from_fn(|_| {
            mixer = mixer.wrapping_add(GOLDEN);
            mix(mixer)
        });
        Random { state }
    }

    /// A stream that no other process has.
    pub(crate) fn unseeded() -> Random {
        let mut bytes = [0_u8; 8];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Random::seeded(u64::from_le_bytes(bytes), 0),
            // No entropy in this sandbox: processes still differ in their id.
            Err(_) => Random::seeded(u64::from(std::process::id()), 1),
        }
    }

    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in [0, 1), all 2^53 of them.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Two independent numbers of the standard normal distribution (Box and Muller).
    pub(crate) fn normal_pair(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (TAU * self.uniform()).sin_cos();
        (radius * cosine, radius * sine)
    }

    /// Uniform in `low..high`, without the bias of a remainder. `low < high`.
    pub(crate) fn integer(&mut self, low: i64, high: i64) -> i64 {
        let width = high.wrapping_sub(low) as u64;
        loop {
            let product = u128::from(self.next()) * u128::from(width);
            // Lemire 2019: the few low halves below 2^64 mod width would make some numbers likelier.
            if product as u64 >= width.wrapping_neg() % width {
                return low.wrapping_add((product >> 64) as i64);
            }
        }
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn ranks_with_one_seed_have_different_streams_and_each_can_be_repeated() {
        let numbers = |rank| {
            let mut random = Random::seeded(42, rank);
            [random.uniform(), random.uniform()]
        };
        assert_eq!(numbers(0), numbers(0));
        assert_ne!(numbers(0), numbers(1));
    }

    #[test]
    fn integers_stay_inside_even_of_the_widest_range() {
        let mut random = Random::seeded(1, 0);
        for _ in 0..1000 {
            assert!((-2..3).contains(&random.integer(-2, 3)));
            assert!(random.integer(i64::MIN, i64::MAX) < i64::MAX);
        }
    }

    #[test]
    fn the_mean_of_many_is_as_it_should_be() {
        let mut random = Random::seeded(7, 3);
        let mean = (0..100_000).map(|_| random.uniform()).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 5e-3, "{mean}");
        let mean = (0..100_000).map(|_| random.normal_pair().0).sum::<f64>() / 1e5;
        assert!(mean.abs() < 2e-2, "{mean}");
    }
}
