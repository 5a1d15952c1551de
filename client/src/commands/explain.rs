//! `client explain`: why a task has not ended.

use std::fmt::Write as _;

use protocol::extension::{TaskExplanation, TaskState};
use protocol::id::MsgId;

use crate::cli::App;

/// Tasks that are explained when none is named.
const TASKS_MAX: usize = 20;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tasks of every client of this cluster can be asked after, also those of Python clients (`ar.msg_ids`).\n\nExamples:\n  client explain\n  client explain 3f2a-77_4242_17"
)]
pub(crate) struct Args {
    /// Ids of tasks; without any, the first that wait for an engine
    #[arg(value_name = "ID")]
    tasks: Vec<String>,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> anyhow::Result<()> {
        let (tasks, waiting) = if self.tasks.is_empty() {
            let waiting = app.client.waiting_tasks()?;
            (waiting.iter().take(TASKS_MAX).cloned().collect(), Some(waiting.len()))
        } else {
            (self.tasks.iter().map(|id| MsgId::from(id.as_str())).collect::<Vec<_>>(), None)
        };
        let explained = tasks.iter().map(|task| app.client.explain(task)).collect::<Result<Vec<_>, _>>()?;
        let page = if app.global.json {
            format!("{}\n", serde_json::to_string(&explained)?)
        } else {
            page(&explained, waiting)
        };
        crate::watch::print(&page);
        Ok(())
    }
}

fn page(explained: &[TaskExplanation], waiting: Option<usize>) -> String {
    let mut page = String::new();
    let mut line = |text: String| writeln!(page, "{text}").expect("a string takes what is written to it");
    if waiting == Some(0) {
        line("no task waits for an engine".to_owned());
    }
    for task in explained {
        let state = match task.state {
            TaskState::Waiting => "waits",
            TaskState::Running => "runs",
            TaskState::Ended => "has ended",
        };
        line(format!("{} {state}: {}", task.msg_id, task.reason));
        if let Some(ahead) = task.ahead {
            line(format!("  tasks ahead of it: {ahead}"));
        }
        for other in &task.waits_for {
            line(format!("  needs {other}"));
        }
        for (engine, why) in &task.engines {
            line(format!("  engine {engine}: {why}"));
        }
        if let Some(seconds) = task.timeout_seconds {
            line(format!("  fails if it still waits in {seconds:.1} s"));
        }
        if let Some(failure) = &task.last_failure {
            line(format!("  failed before: {failure}; retries left: {}", task.retries_left));
        }
    }
    if let Some(more) =
        waiting.and_then(|waiting| waiting.checked_sub(explained.len())).filter(|more| *more > 0)
    {
        line(format!("… and {more} more that wait"));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use protocol::id::EngineId;
    use protocol::message::Status;

    use super::*;

    #[test]
    fn a_waiting_task_is_explained_engine_by_engine() {
        let explained = TaskExplanation {
            status: Status::Ok,
            msg_id: "s_1_4".into(),
            state: TaskState::Waiting,
            reason: "1 engine may run it, and none has room".to_owned(),
            waits_for: vec![],
            engines: BTreeMap::from([
                (EngineId(0), "it has 1 balanced task, as many as it may".to_owned()),
                (EngineId(1), "the task failed there, or was declined".to_owned()),
            ]),
            ahead: Some(3),
            timeout_seconds: Some(12.0),
            retries_left: 1,
            last_failure: Some("ValueError: no (engine e1)".to_owned()),
        };
        expect![[r#"
            s_1_4 waits: 1 engine may run it, and none has room
              tasks ahead of it: 3
              engine 0: it has 1 balanced task, as many as it may
              engine 1: the task failed there, or was declined
              fails if it still waits in 12.0 s
              failed before: ValueError: no (engine e1); retries left: 1
            … and 4 more that wait
        "#]]
        .assert_eq(&page(&[explained], Some(5)));
        assert_eq!(page(&[], Some(0)), "no task waits for an engine\n");
    }
}
