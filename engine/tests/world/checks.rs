//! What each rank does.
//!
//! Ranks that must be late wait for marks of the others (see [`Rank::mark`]), never for a time. What has to be
//! quick is done several times: each time must be within [`PATIENCE`], the best of them within what a person
//! takes for at once. On a machine that is busy with other things the one may take long, not all of them.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::array::{Array, Element};
use engine::communicator::{CommError, Communicator, Operation, ReduceOp};
use engine::interrupt::Interrupt;
use engine::mpi::World;
use num_complex::Complex64;

use super::users::{self, Kernel};

/// A rank, and what the checks need.
pub(crate) struct Rank {
    pub(crate) world: Rc<World>,
    interrupt: Interrupt,
    pub(crate) rank: usize,
    pub(crate) size: usize,
    cell: Cell<i64>,
    /// User code that calls MPI itself.
    pub(crate) kernel: Kernel,
    /// Where ranks leave marks for each other: MPI itself is what is tested here.
    marks: PathBuf,
    marks_made: Cell<u32>,
}

type Check = (&'static str, fn(&Rank));

const CHECKS: [Check; 28] = [
    ("reductions_are_elementwise_on_every_type", reductions_are_elementwise_on_every_type),
    ("movements_keep_order_types_and_shapes", movements_keep_order_types_and_shapes),
    ("wrong_arguments_are_errors_and_nothing_else", wrong_arguments_are_errors_and_nothing_else),
    ("different_calls_are_quoted", different_calls_are_quoted),
    ("a_rank_in_an_older_cell_is_told", a_rank_in_an_older_cell_is_told),
    ("an_interrupt_names_the_missing_rank", an_interrupt_names_the_missing_rank),
    ("the_late_rank_may_make_the_abandoned_call", the_late_rank_may_make_the_abandoned_call),
    ("two_abandoned_calls_drain", two_abandoned_calls_drain),
    (
        "an_interrupt_of_some_ranks_leaves_the_others_waiting",
        an_interrupt_of_some_ranks_leaves_the_others_waiting,
    ),
    ("random_calls_of_random_ranks_in_known_cells", |rank| random_calls(rank, true)),
    ("random_calls_of_random_ranks_in_unknown_cells", |rank| random_calls(rank, false)),
    ("an_interrupted_transfer_stops_on_all_ranks", an_interrupted_transfer_stops_on_all_ranks),
    ("a_stopped_peer_does_not_hold_an_interrupted_rank", a_stopped_peer_does_not_hold_an_interrupted_rank),
    ("messages_arrive_whole_and_in_order", messages_arrive_whole_and_in_order),
    ("an_interrupted_receive_loses_nothing", an_interrupted_receive_loses_nothing),
    ("bytes_are_gathered_and_broadcast", bytes_are_gathered_and_broadcast),
    ("a_wait_is_visible_and_idle", a_wait_is_visible_and_idle),
    ("long_runs_of_calls_agree", long_runs_of_calls_agree),
    ("a_librarys_collectives_have_mpis_results", users::a_librarys_collectives_have_mpis_results),
    ("a_librarys_messages_have_mpis_results", users::a_librarys_messages_have_mpis_results),
    (
        "an_interrupt_ends_a_librarys_collective_and_names_the_missing_rank",
        users::an_interrupt_ends_a_librarys_collective_and_names_the_missing_rank,
    ),
    ("a_library_that_makes_communicators_can_be_interrupted", users::a_library_that_makes_communicators),
    ("different_calls_of_a_library_are_quoted", users::different_calls_of_a_library_are_quoted),
    ("a_librarys_call_and_one_of_ours_are_quoted", users::a_librarys_call_and_one_of_ours_are_quoted),
    ("an_interrupted_receive_of_a_library_takes_nothing", users::an_interrupted_receive_takes_nothing),
    ("an_interrupted_wait_leaves_its_requests", users::an_interrupted_wait_leaves_its_requests),
    ("random_calls_of_a_library_on_random_ranks", users::random_calls_of_a_library_on_random_ranks),
    ("calls_left_behind_do_not_hinder_the_end", calls_left_behind_do_not_hinder_the_end),
];

/// How many lines starting with `ok ` a run prints.
pub(crate) const COUNT: usize = CHECKS.len() + 1;

pub(crate) fn run_all(ranks: usize, marks: PathBuf) {
    let interrupt = Interrupt::new();
    let world = Rc::new(World::init(Some(ranks), interrupt.clone()).expect("a world"));
    world.take_over_user_calls(true).expect("all ranks want it");
    let kernel = Kernel::load(&marks);
    let rank = Rank {
        rank: world.rank(),
        size: world.size(),
        world,
        interrupt,
        cell: Cell::new(0),
        kernel,
        marks,
        marks_made: Cell::new(0),
    };
    assert_eq!(rank.size, ranks);
    for (name, check) in CHECKS {
        let started = Instant::now();
        check(&rank);
        rank.next_cell();
        rank.check_sums(name);
        if rank.rank == 0 {
            println!("ok {name} ({} ms)", started.elapsed().as_millis());
        }
    }
    let Rank { world, rank, .. } = rank;
    let world = Rc::try_unwrap(world).expect("nobody else has it");
    world.finalize(Duration::from_secs(20)).expect("all ranks come");
    if rank == 0 {
        println!("ok finalize");
    }
}

impl Rank {
    pub(crate) fn next_cell(&self) {
        self.cell.set(self.cell.get() + 1);
        self.world.enter_cell(self.cell.get());
    }

    pub(crate) fn last(&self) -> usize {
        self.size - 1
    }

    fn sum(&self, value: f64) -> f64 {
        let Array::F64(sum) = self.world.all_reduce(&Array::scalar(value), ReduceOp::Sum).expect("a sum")
        else {
            panic!("sums keep their type");
        };
        sum[[].as_slice()]
    }

    /// A few calls whose results all ranks know.
    pub(crate) fn check_sums(&self, after: &str) {
        for step in 0..3 {
            let expected: f64 = (0..self.size).map(|rank| (rank * 10 + step) as f64).sum();
            assert_eq!(self.sum((self.rank * 10 + step) as f64), expected, "after {after}, step {step}");
        }
        let mine = Array::from_vec(vec![self.rank as i64; 20]);
        let all = self.world.all_gather(&mine).expect("gathered");
        let expected: Vec<i64> = (0..self.size).flat_map(|rank| vec![rank as i64; 20]).collect();
        assert_eq!(all, Array::from_vec(expected), "after {after}");
    }

    /// Runs `call` as a task that is interrupted after some time.
    pub(crate) fn interrupted_after<T>(&self, delay: Duration, call: impl FnOnce() -> T) -> (T, Duration) {
        self.interrupt.arm();
        let raiser = raise_after(self.interrupt.clone(), delay);
        let result = call();
        let returned = Instant::now();
        let raised = raiser.join().expect("raised");
        self.interrupt.disarm();
        (result, returned.saturating_duration_since(raised))
    }

    /// Says to a rank that is late on purpose that this one is where that one waits for.
    pub(crate) fn mark(&self) {
        leave_mark(&self.marks, self.next_mark(), self.rank);
    }

    fn next_mark(&self) -> u32 {
        self.marks_made.set(self.marks_made.get() + 1);
        self.marks_made.get()
    }

    /// Waits, outside of MPI, for the next mark of each of these ranks.
    pub(crate) fn wait_for_marks_of(&self, peers: impl IntoIterator<Item = usize>) {
        let number = self.next_mark();
        let started = Instant::now();
        for peer in peers {
            while !self.marks.join(format!("{number}-{peer}")).exists() {
                assert!(started.elapsed() < PATIENCE, "rank {peer} did not leave mark {number}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn leave_mark(marks: &std::path::Path, number: u32, rank: usize) {
    std::fs::write(marks.join(format!("{number}-{rank}")), "").expect("the folder is this test's own");
}

fn raise_after(interrupt: Interrupt, delay: Duration) -> JoinHandle<Instant> {
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        interrupt.raise();
        Instant::now()
    })
}

pub(crate) const SOON: Duration = Duration::from_millis(40);

/// Nothing here may take longer, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long an interrupted rank may take to return when nothing else wants its core.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(250);

fn reductions_are_elementwise_on_every_type(rank: &Rank) {
    fn check<T: Element + std::fmt::Debug>(
        rank: &Rank,
        op: ReduceOp,
        of: impl Fn(usize, usize) -> T,
        join: impl Fn(T, T) -> T,
    ) {
        for len in [0, 1, 3, 100, 1000] {
            let of_rank = |r: usize| (0..len).map(|i| of(r, i)).collect::<Vec<T>>();
            let upto = |last: usize| {
                let mut joined = of_rank(0);
                for r in 1..=last {
                    joined = joined.into_iter().zip(of_rank(r)).map(|(a, b)| join(a, b)).collect();
                }
                Array::from_vec(joined)
            };
            let mine = Array::from_vec(of_rank(rank.rank));
            let context = format!("{} of {len} {}", op.name(), T::DTYPE);
            assert_eq!(rank.world.all_reduce(&mine, op), Ok(upto(rank.last())), "{context}");
            assert_eq!(rank.world.scan(&mine, op), Ok(upto(rank.rank)), "{context}");
            let root = len % rank.size;
            let expected = (rank.rank == root).then(|| upto(rank.last()));
            assert_eq!(rank.world.reduce(&mine, op, root), Ok(expected), "{context}");
        }
    }
    for piece in [160, 1000, 32 << 20] {
        rank.world.set_piece_bytes(piece);
        let number = |r: usize, i: usize| (r + 2) * (i % 7 + 1);
        check(rank, ReduceOp::Sum, |r, i| number(r, i) as f64, |a, b| a + b);
        check(rank, ReduceOp::Max, |r, i| number(r, i) as f32, f32::max);
        check(rank, ReduceOp::Min, |r, i| -(number(r, i) as i64), i64::min);
        check(rank, ReduceOp::Prod, |r, i| number(r, i) as i32, i32::wrapping_mul);
        // Small enough not to overflow on 8 ranks: Open MPI's sums of bytes stop at 255 where it has AVX.
        check(rank, ReduceOp::Sum, |r, i| ((r + 1) * (i % 7)) as u8, |a, b| a + b);
        check(rank, ReduceOp::And, |r, i| (r + i) % 3 != 0, |a, b| a && b);
        check(rank, ReduceOp::Or, |r, i| (r + i) % 3 == 0, |a, b| a || b);
        check(rank, ReduceOp::Min, |r, i| (r + i) % 3 != 0, |a, b| a && b);
        check(rank, ReduceOp::Sum, |r, i| Complex64::new(r as f64, i as f64), |a, b| a + b);
        check(rank, ReduceOp::Prod, |r, i| Complex64::new((r % 2) as f64, (i % 3) as f64), |a, b| a * b);
    }
}

fn movements_keep_order_types_and_shapes(rank: &Rank) {
    fn rows<T: Element + Default>(n: usize, width: usize, of: impl Fn(usize) -> T) -> Array {
        let elements: Vec<T> = (0..n * width).map(of).collect();
        T::wrap(ndarray::ArrayD::from_shape_vec(vec![n, width], elements).expect("fits").into_shared())
    }
    fn check<T: Element + Default>(rank: &Rank, of: impl Fn(usize) -> T + Copy) {
        let (me, size, world) = (rank.rank, rank.size, &rank.world);
        for (n, width) in [(0, 3), (1, 1), (size, 2), (size + 1, 3), (37, 5), (11, 0)] {
            let root = n % size;
            let whole = rows(n, width, of);
            let given = (me == root).then_some(&whole);
            assert_eq!(world.broadcast(given, root), Ok(whole.clone()));

            let part = |r: usize| n / size + usize::from(r < n % size);
            let before = |r: usize| (0..r).map(part).sum::<usize>();
            let mine = rows(part(me), width, |i| of(before(me) * width + i));
            assert_eq!(world.scatter(given, root), Ok(mine.clone()), "{n} rows of {width}");
            assert_eq!(
                world.gather(&mine, root),
                Ok((me == root).then(|| whole.clone())),
                "{n} rows of {width}"
            );
            assert_eq!(world.all_gather(&mine), Ok(whole.clone()), "{n} rows of {width}");

            // Rank r has n + r rows; rank d gets its part of each.
            let of_rank = |r: usize| move |i: usize| of(1000 * r + i);
            let exchanged: Vec<T> = (0..size)
                .flat_map(|r| {
                    let rows = n + r;
                    let part = |d: usize| rows / size + usize::from(d < rows % size);
                    let start = (0..me).map(part).sum::<usize>() * width;
                    (start..start + part(me) * width).map(of_rank(r)).collect::<Vec<T>>()
                })
                .collect();
            let got = world.all_to_all(&rows(n + me, width, of_rank(me))).expect("exchanged");
            assert_eq!(got.shape()[1], width);
            let flat = rows(exchanged.len(), 1, |i| exchanged[i]);
            assert_eq!(got.to_wire().data, flat.to_wire().data, "{n} rows of {width}");
        }
    }
    for piece in [7, 64, 32 << 20] {
        rank.world.set_piece_bytes(piece);
        check(rank, |i| i as f64 + 0.5);
        check(rank, |i| i as u8);
        check(rank, |i| i % 3 == 0);
        if piece > 7 {
            check(rank, |i| i as f32);
            check(rank, |i| i as i64);
            check(rank, |i| i as i32);
            check(rank, |i| Complex64::new(i as f64, -1.0));
        }
    }
    let scalars = rank.world.all_gather(&Array::scalar(rank.rank as i32));
    assert_eq!(scalars, Ok(Array::from_vec((0..rank.size as i32).collect())));
    let transposed = ndarray::Array2::from_shape_fn((3, 40), |(i, j)| (i * 40 + j) as f64).reversed_axes();
    let transposed = Array::F64(transposed.into_dyn().into_shared());
    assert_eq!(rank.world.broadcast(Some(&transposed), rank.last()), Ok(transposed));
    // 24 MB in pieces of 1 MB, beginning at odd places.
    rank.world.set_piece_bytes(1 << 20);
    let mine = Array::from_vec(vec![rank.rank as f64; 1_000_003]);
    let all = rank.world.all_gather(&mine).expect("gathered");
    let expected: Vec<f64> = (0..rank.size).flat_map(|r| vec![r as f64; 1_000_003]).collect();
    assert_eq!(all, Array::from_vec(expected));
    rank.world.set_piece_bytes(32 << 20);
}

fn wrong_arguments_are_errors_and_nothing_else(rank: &Rank) {
    let array = Array::from_vec(vec![true]);
    let is_invalid = |error: CommError| assert!(matches!(error, CommError::Invalid { .. }), "{error}");
    is_invalid(rank.world.all_reduce(&array, ReduceOp::Sum).expect_err("a sum of truths"));
    is_invalid(rank.world.broadcast(Some(&array), rank.size).expect_err("no such root"));
    is_invalid(rank.world.gather(&array, 99).expect_err("no such root"));
    is_invalid(rank.world.send(&array, rank.size, 0).expect_err("no such rank"));
    is_invalid(rank.world.send(&array, 0, -1).expect_err("a negative tag"));
    is_invalid(rank.world.receive(Some(0), 1 << 20).expect_err("a large tag"));
}

fn different_calls_are_quoted(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    let error = if rank.rank == rank.last() {
        rank.world.barrier().map(|()| None)
    } else {
        rank.world.all_reduce(&Array::from_vec(vec![0.0f64; 100]), ReduceOp::Sum).map(Some)
    };
    let others: Vec<usize> = (0..rank.last()).collect();
    let calls = vec![
        format!("{} called allreduce(f64[100], sum)", engine::communicator::ranks(&others)),
        format!("rank {} called barrier()", rank.last()),
    ];
    assert_eq!(error, Err(CommError::Mismatch { calls }));
    rank.check_sums("a mismatch");
    let shape = vec![1.0f64; 3 + rank.rank];
    let error = rank.world.all_reduce(&Array::from_vec(shape), ReduceOp::Sum).expect_err("shapes differ");
    assert!(error.to_string().contains("rank 1 called allreduce(f64[4], sum)"), "{error}");
    let error = rank.world.gather(&Array::from_vec(vec![1.0f64]), rank.rank % 2).expect_err("roots differ");
    assert!(error.to_string().contains("root 1"), "{error}");
}

/// The last rank finishes the cell with one call less.
fn a_rank_in_an_older_cell_is_told(rank: &Rank) {
    rank.next_cell();
    if rank.rank != rank.last() {
        let error = rank.world.barrier().expect_err("the last rank has moved on");
        assert_eq!(error, CommError::LeftBehind { operation: Operation::Barrier, peers: vec![rank.last()] });
    }
    rank.next_cell();
    rank.check_sums("being left behind");
}

fn an_interrupt_names_the_missing_rank(rank: &Rank) {
    const TRIALS: usize = 5;
    for cells in [true, false] {
        let mut exact = 0;
        let mut quickest = PATIENCE;
        for _ in 0..TRIALS {
            enter(rank, cells);
            if rank.rank == rank.last() {
                rank.wait_for_marks_of(0..rank.last());
            } else {
                let (result, latency) = rank.interrupted_after(SOON, || rank.world.barrier());
                rank.mark();
                let Err(CommError::Interrupted { operation: Operation::Barrier, missing }) = result else {
                    panic!("{result:?}");
                };
                assert!(missing.contains(&rank.last()), "{missing:?}");
                // A rank that the system kept from answering is taken for missing.
                exact += usize::from(missing == [rank.last()]);
                quickest = quickest.min(latency);
            }
            enter(rank, cells);
            rank.check_sums("an interrupt");
        }
        if rank.rank != rank.last() {
            assert!(exact > 0, "in none of {TRIALS} trials only the last rank was missing");
            assert!(quickest < AT_ONCE, "{quickest:?}");
            if rank.rank == 0 && cells {
                println!("interrupt answered in {:.1} ms", quickest.as_secs_f64() * 1e3);
            }
        }
    }
}

/// A new cell, stamped or not.
pub(crate) fn enter(rank: &Rank, known: bool) {
    rank.next_cell();
    if !known {
        rank.world.enter_cell(0);
    }
}

fn the_late_rank_may_make_the_abandoned_call(rank: &Rank) {
    for cells in [true, false] {
        for large in [false, true] {
            let array =
                |base: i64| Array::from_vec(vec![base + rank.rank as i64; if large { 5000 } else { 1 }]);
            enter(rank, cells);
            if rank.rank == rank.last() {
                rank.wait_for_marks_of(0..rank.last());
            } else {
                let call = || rank.world.all_reduce(&array(100), ReduceOp::Max);
                rank.interrupted_after(SOON, call).0.expect_err("the last rank did not call");
                rank.mark();
            }
            enter(rank, cells);
            let expected = vec![7 + rank.last() as i64; if large { 5000 } else { 1 }];
            assert_eq!(rank.world.all_reduce(&array(7), ReduceOp::Max), Ok(Array::from_vec(expected)));

            // A root that gives without waiting must not leave the others waiting.
            enter(rank, cells);
            let root = rank.last();
            let given = |base: i64| (rank.rank == root).then(|| array(base));
            if rank.rank == root {
                rank.wait_for_marks_of(0..rank.last());
            } else {
                let call = || rank.world.broadcast(None, root);
                rank.interrupted_after(SOON, call).0.expect_err("the root did not call");
                rank.mark();
            }
            enter(rank, cells);
            let got = rank.world.broadcast(given(5).as_ref(), root).expect("the second array");
            assert_eq!(got.shape(), array(0).shape());
        }
    }
}

fn two_abandoned_calls_drain(rank: &Rank) {
    for cells in [true, false] {
        for _ in 0..2 {
            enter(rank, cells);
            if rank.rank != rank.last() {
                let large = Array::from_vec(vec![1.0f64; 3000]);
                let call = || rank.world.gather(&large, 0);
                rank.interrupted_after(SOON / 2, call).0.expect_err("the last rank did not call");
            }
        }
        if rank.rank == rank.last() {
            rank.wait_for_marks_of(0..rank.last());
        } else {
            rank.mark();
        }
        enter(rank, cells);
        rank.check_sums("two interrupts");
    }
}

/// Rank 0 is interrupted and comes back; the others have waited in a call of the same kind all the time.
fn an_interrupt_of_some_ranks_leaves_the_others_waiting(rank: &Rank) {
    if rank.size < 3 {
        return;
    }
    enter(rank, false);
    if rank.rank == 0 {
        let call = || rank.world.all_reduce(&Array::scalar(50i64), ReduceOp::Sum);
        rank.interrupted_after(SOON, call).0.expect_err("the last rank did not call");
    }
    rank_0_was_interrupted(rank);
    let mine = Array::scalar(1i64 << (4 * rank.rank));
    let sum = rank.world.all_reduce(&mine, ReduceOp::Sum);
    let expected = (0..rank.size).map(|r| 1i64 << (4 * r)).sum::<i64>();
    assert_eq!(sum, Ok(Array::scalar(expected)));
    // In stamped cells the ranks that waited on are told instead.
    rank.next_cell();
    if rank.rank == 0 {
        rank.interrupted_after(SOON, || rank.world.barrier()).0.expect_err("the last rank did not call");
        rank_0_was_interrupted(rank);
        rank.next_cell();
    } else if rank.rank == rank.last() {
        rank_0_was_interrupted(rank);
        rank.next_cell();
    } else {
        rank_0_was_interrupted(rank);
        let error = rank.world.barrier().expect_err("ranks have moved on");
        assert!(matches!(error, CommError::LeftBehind { .. }), "{error}");
        rank.next_cell();
    }
    rank.check_sums("an interrupt of one rank");
}

/// Rank 0 says so, the last rank waits for it, and the others go on.
fn rank_0_was_interrupted(rank: &Rank) {
    if rank.rank == rank.last() {
        rank.wait_for_marks_of([0]);
    } else {
        rank.mark();
    }
}

/// Numbers that all ranks draw alike.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % sides
    }
}

fn any_call(world: &World, kind: usize, len: usize, root: usize) -> Result<(), CommError> {
    let array = Array::from_vec(vec![1.0f64; len]);
    match kind {
        0 => world.barrier(),
        1 => world.broadcast(Some(&array), root).map(drop),
        2 => world.reduce(&array, ReduceOp::Sum, root).map(drop),
        3 => world.all_reduce(&array, ReduceOp::Max).map(drop),
        4 => world.scan(&array, ReduceOp::Sum).map(drop),
        5 => world.scatter(Some(&array), root).map(drop),
        6 => world.gather(&array, root).map(drop),
        7 => world.all_gather(&array).map(drop),
        _ => world.all_to_all(&array).map(drop),
    }
}

/// A seed that all ranks have, printed.
pub(crate) fn seed_of(rank: &Rank) -> u64 {
    let seed = std::env::var("WORLD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let seed: u64 = seed.unwrap_or(now.subsec_nanos().into());
    let seed = rank.world.broadcast(Some(&Array::scalar(seed as i64)), 0).expect("the seed");
    let Array::I64(seed) = seed else { panic!("seeds are integers") };
    let seed = seed[[].as_slice()] as u64;
    if rank.rank == 0 {
        println!("seed {seed}: WORLD_TEST_SEED repeats it");
    }
    seed
}

fn random_calls(rank: &Rank, known_cells: bool) {
    let seed = seed_of(rank);
    let mut dice = Dice(seed | 1);
    for trial in 0..100 {
        enter(rank, known_cells);
        let calls: Vec<bool> = (0..rank.size).map(|_| dice.throw(3) > 0).collect();
        let kinds: Vec<usize> = (0..rank.size).map(|_| dice.throw(9)).collect();
        let same = dice.throw(2) == 0;
        let (len, root) = ([1, 8, 9, 3000][dice.throw(4)], dice.throw(rank.size));
        let delays: Vec<u64> = (0..rank.size).map(|_| dice.throw(8) as u64).collect();
        if calls[rank.rank] {
            let kind = if same { kinds[0] } else { kinds[rank.rank] };
            let delay = Duration::from_millis(delays[rank.rank]);
            let (result, _) = rank.interrupted_after(delay, || any_call(&rank.world, kind, len, root));
            if let Err(error @ (CommError::Broken { .. } | CommError::Mpi { .. })) = result {
                panic!("trial {trial}: {error}");
            }
        }
        if !known_cells {
            // Without cells, whoever comes early is taken for a caller: wait for those who called.
            for peer in (0..rank.size).filter(|&peer| peer != rank.rank) {
                rank.world.send(&Array::scalar(trial), peer, 9).expect("sent");
            }
            for peer in (0..rank.size).filter(|&peer| peer != rank.rank) {
                assert_eq!(rank.world.receive(Some(peer), 9), Ok((Array::scalar(trial), peer)));
            }
        }
        enter(rank, known_cells);
        rank.check_sums(&format!("trial {trial} of seed {seed}"));
    }
}

fn an_interrupted_transfer_stops_on_all_ranks(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    rank.world.set_piece_bytes(64 << 10);
    for trial in 0..6 {
        enter(rank, false);
        let victim = trial % rank.size;
        let mine = Array::from_vec(vec![(rank.rank + trial) as f64; 1 << 20]);
        let call = || rank.world.all_reduce(&mine, ReduceOp::Sum);
        let mut result = if rank.rank == victim {
            rank.interrupted_after(Duration::from_millis(trial as u64 * 3), call).0
        } else {
            call()
        };
        if rank.rank == victim {
            // The others go on for as long as the victim does not take part, or have completed the call with it:
            // before the interrupt, or after it where they were too slow for the victim's patience.
            let completed = rank.world.completed();
            let started = Instant::now();
            while rank.world.progress() {
                assert!(started.elapsed() < PATIENCE, "the others did not end what they were in");
            }
            match result {
                Err(CommError::Interrupted { .. }) if rank.world.completed() == completed => result = call(),
                Err(CommError::Interrupted { .. }) | Ok(_) => continue,
                Err(error) => panic!("trial {trial}: {error}"),
            }
        }
        let expected = (0..rank.size).map(|r| (r + trial) as f64).sum::<f64>();
        let Ok(Array::F64(sums)) = result else { panic!("trial {trial}: {result:?}") };
        assert!(sums.iter().all(|&sum| sum == expected), "trial {trial}");
    }
    rank.world.set_piece_bytes(32 << 20);
}

/// A rank that is stopped between two steps of a round (as by a debugger) is not waited for after an interrupt.
fn a_stopped_peer_does_not_hold_an_interrupted_rank(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    let pids = rank.world.all_gather(&Array::scalar(std::process::id() as i32)).expect("pids");
    let Array::I32(pids) = pids else { panic!("pids are integers") };
    let victim = pids[[rank.last()].as_slice()];
    let mut quickest = PATIENCE;
    for trial in 0..3 {
        rank.next_cell();
        rank.check_sums("all are here");
        rank.next_cell();
        let stopper = (rank.rank == 0).then(|| {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20 + trial * 7));
                // SAFETY: signals to a rank of this test.
                unsafe { libc::kill(victim, libc::SIGSTOP) };
                std::thread::sleep(Duration::from_millis(400));
                // SAFETY: as above.
                unsafe { libc::kill(victim, libc::SIGCONT) };
            })
        });
        let large = Array::from_vec(vec![1.0f64; 4000]);
        let ((), latency) = rank.interrupted_after(Duration::from_millis(100), || {
            while rank.world.all_reduce(&large, ReduceOp::Sum).is_ok() {}
        });
        quickest = quickest.min(latency);
        rank.next_cell();
        rank.check_sums("a stopped peer");
        if let Some(stopper) = stopper {
            stopper.join().expect("stopped and continued");
        }
    }
    assert!(quickest < AT_ONCE, "{quickest:?}");
}

fn messages_arrive_whole_and_in_order(rank: &Rank) {
    let (me, size, world) = (rank.rank, rank.size, &rank.world);
    world.set_piece_bytes(10_000);
    let (next, previous) = ((me + 1) % size, (me + size - 1) % size);
    let of = |r: usize| {
        [
            Array::scalar(r as f64),
            Array::from_vec(vec![r as i32; 5]),
            Array::from_vec(Vec::<f32>::new()),
            Array::from_vec((0..40_000).map(|i| (i * r) as i64).collect()),
            Array::from_vec(vec![r.is_multiple_of(2); 30_000]),
            Array::from_vec(vec![Complex64::new(1.0, r as f64); 3]),
            Array::from_vec(vec![r as u8; 16 * 1024 + 1]),
        ]
    };
    for array in of(me) {
        // Large ones wait for their receiver, so the ring starts at one rank.
        if me == 0 {
            world.send(&array, next, 3).expect("sent");
        }
        let index = of(me).iter().position(|a| *a == array).expect("it is one of them");
        assert_eq!(world.receive(Some(previous), 3), Ok((of(previous)[index].clone(), previous)));
        if me != 0 {
            world.send(&array, next, 3).expect("sent");
        }
    }
    // To itself, and from any.
    for tag in [5, 6] {
        world.send(&Array::scalar(tag), me, tag).expect("queued");
    }
    assert_eq!(world.receive(None, 6), Ok((Array::scalar(6), me)));
    assert_eq!(world.receive(Some(me), 5), Ok((Array::scalar(5), me)));
    if me == 0 {
        let mut from: Vec<usize> = (1..size).map(|_| world.receive(None, 7).expect("from any").1).collect();
        from.sort_unstable();
        assert_eq!(from, (1..size).collect::<Vec<_>>());
    } else {
        world.send(&Array::scalar(me as i64), 0, 7).expect("sent");
    }
    world.set_piece_bytes(32 << 20);
}

fn an_interrupted_receive_loses_nothing(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    rank.world.set_piece_bytes(100_000);
    let message = |n: usize| Array::from_vec(vec![n as f64; 1 << 20]);
    if rank.rank == 0 {
        let (result, _) = rank.interrupted_after(SOON, || rank.world.receive(Some(1), 1));
        assert_eq!(result, Err(CommError::Interrupted { operation: Operation::Receive, missing: vec![1] }));
        rank.world.send(&Array::scalar(1u8), 1, 0).expect("the other side starts");
        let mut interrupts = 0;
        for n in 0..20 {
            let delay = Duration::from_micros(200 * n as u64);
            let mut received = rank.interrupted_after(delay, || rank.world.receive(Some(1), 1)).0;
            if received.is_err() {
                interrupts += 1;
                received = rank.world.receive(None, 1);
            }
            assert_eq!(received, Ok((message(n), 1)), "message {n}");
        }
        println!("{interrupts} of 20 receives were interrupted");
    } else if rank.rank == 1 {
        rank.world.receive(Some(0), 0).expect("rank 0 is ready");
        for n in 0..20 {
            // An interrupted send goes on when its receiver comes.
            let delay = Duration::from_micros(300 * n as u64);
            let (sent, _) = rank.interrupted_after(delay, || rank.world.send(&message(n), 0, 1));
            assert!(matches!(sent, Ok(()) | Err(CommError::Interrupted { .. })), "{sent:?}");
        }
    }
    rank.world.set_piece_bytes(32 << 20);
}

fn bytes_are_gathered_and_broadcast(rank: &Rank) {
    let name = format!("host-{}", "x".repeat(rank.rank * 50));
    let all = rank.world.gather_bytes(name.as_bytes(), 0).expect("gathered");
    let expected: Vec<Vec<u8>> =
        (0..rank.size).map(|r| format!("host-{}", "x".repeat(r * 50)).into_bytes()).collect();
    assert_eq!(all, (rank.rank == 0).then_some(expected));
    let reply = rank.world.broadcast_bytes((rank.rank == 0).then_some(b"welcome".as_slice()), 0);
    assert_eq!(reply, Ok(b"welcome".to_vec()));
}

fn a_wait_is_visible_and_idle(rank: &Rank) {
    if rank.size == 1 {
        return;
    }
    rank.check_sums("all are here");
    if rank.rank == rank.last() {
        rank.wait_for_marks_of(0..rank.last());
        rank.world.barrier().expect("all are here");
        return;
    }
    let hook_calls = Arc::new(AtomicU32::new(0));
    let status = rank.world.wait_status();
    assert_eq!(status.get(), None);
    let watcher = std::thread::spawn({
        let (marks, number, me) = (rank.marks.clone(), rank.next_mark(), rank.rank);
        let hook_calls = hook_calls.clone();
        move || {
            let started = Instant::now();
            while status.get().is_none() || hook_calls.load(Ordering::SeqCst) < 2 {
                assert!(started.elapsed() < PATIENCE, "the wait was not shown, or the idle hook not called");
                std::thread::sleep(Duration::from_millis(1));
            }
            let seen = status.get();
            leave_mark(&marks, number, me);
            seen
        }
    });
    let counter = hook_calls.clone();
    rank.world.set_idle_hook(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let started = Instant::now();
    rank.world.barrier().expect("all come");
    let waited = started.elapsed();
    rank.world.set_idle_hook(|| {});
    let seen = watcher.join().expect("looked").expect("the rank waited");
    assert_eq!(seen.operation, Operation::Barrier);
    assert!(seen.since_us > 1_500_000_000_000_000);
    let calls = hook_calls.load(Ordering::SeqCst);
    assert!(u128::from(calls) <= waited.as_millis() / 20 + 1, "{calls} calls of the idle hook in {waited:?}");
    assert_eq!(rank.world.wait_status().get(), None);
}

fn long_runs_of_calls_agree(rank: &Rank) {
    let started = Instant::now();
    let before = rank.world.completed();
    for i in 0..2000 {
        let expected = (rank.size * i) as f64 + (0..rank.size).sum::<usize>() as f64;
        assert_eq!(rank.sum((rank.rank + i) as f64), expected);
    }
    assert_eq!(rank.world.completed() - before, 2000);
    if rank.rank == 0 {
        println!("{:.1} us per 8-byte allreduce", started.elapsed().as_secs_f64() * 1e6 / 2000.0);
    }
}

/// The last check: what it leaves open, the end of the world must cope with.
fn calls_left_behind_do_not_hinder_the_end(rank: &Rank) {
    if rank.rank != rank.last() {
        rank.interrupted_after(SOON / 2, || rank.world.barrier()).0.expect_err("the last rank did not call");
        let large = Array::from_vec(vec![0u8; 1 << 20]);
        let call = || rank.world.send(&large, rank.last(), 77);
        rank.interrupted_after(SOON / 2, call).0.expect_err("nobody receives");
    }
}
