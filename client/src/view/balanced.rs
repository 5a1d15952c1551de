//! Tasks for whichever engine has room.

use std::path::Path;
use std::time::Duration;

use protocol::extension::RequestMetadata;
use protocol::message::execute::{Dependency, TaskMetadata};
use protocol::value::Value;
use serde_json::Value as Json;

use super::TaskIds;
use crate::async_result::AsyncResult;
use crate::connection::{CallWork, Connection, Work};
use crate::error::ClientError;
use crate::targets::Targets;

/// How the scheduler treats tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskOptions {
    /// How often a task is tried again after a failure, also after the loss of its engine.
    pub retries: u32,
    /// How long a task may wait for an engine; `None`: for ever.
    pub timeout: Option<Duration>,
    /// The engines that may run it.
    pub targets: Targets,
    /// Tasks that must have ended before.
    pub after: Dependency,
    /// Tasks on whose engines it must run.
    pub follow: Dependency,
    /// Whatever you want to find it by.
    pub label: Json,
    /// Tasks of a higher priority run before those of a lower one, whoever submitted them. Stock controllers ignore it.
    pub priority: i32,
}

/// See [`crate::Client::balanced`]. Tasks run in any order, each on one engine; they must not call collectives.
#[derive(Clone)]
pub struct BalancedView {
    connection: Connection,
    options: TaskOptions,
}

impl BalancedView {
    pub(crate) fn new(connection: Connection) -> BalancedView {
        BalancedView { connection, options: TaskOptions::default() }
    }

    /// The same view with other options.
    #[must_use]
    pub fn with(mut self, options: TaskOptions) -> BalancedView {
        self.options = options;
        self
    }

    /// Tries tasks again that often.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> BalancedView {
        self.options.retries = retries;
        self
    }

    /// Fails tasks that waited that long for an engine.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> BalancedView {
        self.options.timeout = Some(timeout);
        self
    }

    /// Runs tasks on these engines only.
    #[must_use]
    pub fn targets(mut self, targets: impl Into<Targets>) -> BalancedView {
        self.options.targets = targets.into();
        self
    }

    /// Runs tasks only after all of those have succeeded.
    #[must_use]
    pub fn after(mut self, tasks: &(impl TaskIds + ?Sized)) -> BalancedView {
        self.options.after.dependencies.extend(tasks.task_ids());
        self
    }

    /// Runs tasks only on an engine where all of those have succeeded.
    #[must_use]
    pub fn follow(mut self, tasks: &(impl TaskIds + ?Sized)) -> BalancedView {
        self.options.follow.dependencies.extend(tasks.task_ids());
        self
    }

    /// Runs tasks before those of lower priority, which is 0 if none is given.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> BalancedView {
        self.options.priority = priority;
        self
    }

    /// Labels tasks.
    #[must_use]
    pub fn label(mut self, label: impl Into<Json>) -> BalancedView {
        self.options.label = label.into();
        self
    }

    /// Runs a cell on one engine.
    pub fn execute(&self, code: &str) -> Result<AsyncResult, ClientError> {
        self.ask([Work::Execute { code: code.to_owned(), silent: false }])
    }

    /// Runs the text of a file, read here, on one engine.
    pub fn run_file(&self, path: &Path) -> Result<AsyncResult, ClientError> {
        self.execute(&super::read_text(path)?)
    }

    /// Calls a function by name on one engine.
    pub fn apply(
        &self,
        function: &str,
        arguments: &[Value],
        keywords: &[(&str, Value)],
    ) -> Result<AsyncResult, ClientError> {
        let keywords = keywords.iter().map(|(name, value)| (*name, value));
        self.ask([Work::Call(CallWork::new(function, arguments, keywords))])
    }

    /// Calls a function once for each item, a task each. The results are in the order of the items.
    pub fn map(&self, function: &str, items: &[Value]) -> Result<AsyncResult, ClientError> {
        let works =
            items.iter().map(|item| Work::Call(CallWork::new(function, std::slice::from_ref(item), [])));
        self.ask(works)
    }

    fn ask(&self, works: impl IntoIterator<Item = Work>) -> Result<AsyncResult, ClientError> {
        let metadata = self.metadata()?;
        Ok(self.connection.ask_anybody(works, &metadata))
    }

    fn metadata(&self) -> Result<TaskMetadata, ClientError> {
        let engines = self.connection.engines();
        let targets = match &self.options.targets {
            // Stock engines cannot run what we send; where all are ours, anybody will do.
            Targets::All if engines.iter().all(|engine| engine.is_ours()) => vec![],
            targets => {
                let mut chosen = targets.resolve(&engines)?;
                chosen.retain(|engine| engine.is_ours());
                if chosen.is_empty() {
                    return Err(ClientError::NoSuchEngine {
                        what: "an engine that calls functions by name".to_owned(),
                        present: "stock engines only".to_owned(),
                    });
                }
                chosen.iter().map(|engine| engine.uuid.clone()).collect()
            }
        };
        Ok(TaskMetadata {
            after: self.options.after.clone(),
            follow: self.options.follow.clone(),
            targets,
            retries: self.options.retries,
            timeout: self.options.timeout.map(|timeout| timeout.as_secs_f64()),
            label: self.options.label.clone(),
            extension: (self.options.priority != 0)
                .then(|| RequestMetadata { priority: self.options.priority, ..RequestMetadata::default() }),
        })
    }
}
