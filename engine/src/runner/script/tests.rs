//! Sessions of the prompt language: what is typed, and what is shown.

mod arrays;
mod errors;
mod fuzz;
mod session;

use std::cell::RefCell;
use std::rc::Rc;

use crate::array::Array;
use crate::communicator::{CommError, Communicator, Operation, ReduceOp};
use crate::interrupt::Interrupt;
use crate::runner::native::Registry;
use crate::runner::{CellContext, Output, RunError, Runner, Stream};

use super::Script;

/// A world of one rank.
struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn enter_cell(&self, _: i64) {}
    fn completed(&self) -> u64 {
        0
    }
    fn barrier(&self) -> Result<(), CommError> {
        Err(CommError::Interrupted { operation: Operation::Barrier, missing: vec![3] })
    }
    fn broadcast(&self, array: Option<&Array>, _: usize) -> Result<Array, CommError> {
        Ok(array.expect("the only rank is the root").clone())
    }
    fn reduce(&self, array: &Array, _: ReduceOp, _: usize) -> Result<Option<Array>, CommError> {
        Ok(Some(array.clone()))
    }
    fn all_reduce(&self, array: &Array, _: ReduceOp) -> Result<Array, CommError> {
        Ok(array.clone())
    }
    fn scan(&self, array: &Array, _: ReduceOp) -> Result<Array, CommError> {
        Ok(array.clone())
    }
    fn scatter(&self, array: Option<&Array>, _: usize) -> Result<Array, CommError> {
        Ok(array.expect("the only rank is the root").clone())
    }
    fn gather(&self, array: &Array, _: usize) -> Result<Option<Array>, CommError> {
        self.all_gather(array).map(Some)
    }
    fn all_gather(&self, array: &Array) -> Result<Array, CommError> {
        Ok(super::arrays::make::reshape(array, &[array.len()]).expect("the same elements"))
    }
    fn all_to_all(&self, array: &Array) -> Result<Array, CommError> {
        Ok(array.clone())
    }
    fn send(&self, _: &Array, _: usize, _: i32) -> Result<(), CommError> {
        Ok(())
    }
    fn receive(&self, _: Option<usize>, _: i32) -> Result<(Array, usize), CommError> {
        Err(CommError::Mismatch { calls: vec!["rank 0 called recv".into()] })
    }
}

#[derive(Default)]
struct Collected(String);

impl Output for Collected {
    fn write(&mut self, _: Stream, text: &str) {
        self.0 += text;
    }
}

/// A session at a prompt.
struct Prompt {
    script: Script,
    output: Rc<RefCell<Collected>>,
    interrupt: Interrupt,
    cell: usize,
}

impl Prompt {
    fn new() -> Prompt {
        Prompt::with(Registry::new())
    }

    fn with(natives: Registry) -> Prompt {
        Prompt { script: Script::new(natives), output: Rc::default(), interrupt: Interrupt::new(), cell: 0 }
    }

    fn context(&self) -> CellContext {
        let label = format!("cell {}", self.cell);
        CellContext::new(label, self.output.clone(), Rc::new(Alone), self.interrupt.clone())
    }

    fn run(&mut self, code: &str) -> Result<String, RunError> {
        self.cell += 1;
        let context = self.context();
        let displayed = self.script.execute(code, &context)?;
        Ok(displayed.map_or(String::new(), |displayed| displayed.text))
    }

    fn shows(&mut self, code: &str) -> String {
        self.run(code).unwrap_or_else(|error| panic!("{code}: {error}\n{}", error.traceback.join("\n")))
    }

    fn fails(&mut self, code: &str) -> RunError {
        self.run(code).expect_err(code)
    }

    fn printed(&self) -> String {
        std::mem::take(&mut self.output.borrow_mut().0)
    }
}

/// What a cell shows in a fresh session.
fn shown(code: &str) -> String {
    Prompt::new().shows(code)
}

fn assert_shows(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(code, expected)| {
            let found = Prompt::new().run(code).unwrap_or_else(|error| error.to_string());
            (found != *expected).then(|| format!("{code}\n  shows    {found}\n  expected {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
