//! Random numbers that depend on their seed alone (splitmix64).

/// A stream of numbers.
pub(super) struct Generator(u64);

impl Generator {
    /// The stream of these numbers: what draws from a stream of its own leaves all others as they are, so a run in
    /// which something does not happen resembles the run in which it does.
    pub(super) fn of(parts: &[u64]) -> Generator {
        let mut generator = Generator(0);
        for part in parts {
            generator.0 ^= part.wrapping_mul(0xd6e8_feb8_6659_fd93);
            generator.0 = generator.next();
        }
        generator
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the bound.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number of this range, both ends included.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times in a hundred.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}
