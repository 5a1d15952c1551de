//! Why a task has not ended: what it waits for, and what keeps it from every engine.

use std::collections::BTreeMap;
use std::time::Instant;

use protocol::error::{ErrorContent, ename, python_repr};
use protocol::extension::{TaskExplanation, TaskState};
use protocol::frames::WireMessage;
use protocol::id::{EngineId, EngineUuid, MsgId};
use protocol::message::Status;

use crate::hub::Engine;
use crate::machine::Controller;
use crate::tasks::{BalancedState, BalancedWork, LastFailure, Task, TaskId, Work};

impl Controller {
    /// Explains one task, or says that it is unknown.
    pub(crate) fn explain(&self, now: Instant, msg_id: &MsgId) -> Result<TaskExplanation, Box<ErrorContent>> {
        let found = self.tasks.iter().find(|(_, task)| task.msg_id == *msg_id);
        let Some((id, task)) = found else {
            if self.balanced.has_ended(msg_id) {
                return Ok(explanation(msg_id, TaskState::Ended, "it has ended".to_owned()));
            }
            let text = python_repr(&format!("No such message: {msg_id}"));
            return Err(ErrorContent::new(ename::KEY_ERROR, text).into());
        };
        Ok(match &task.work {
            Work::Balanced(work) if work.state == BalancedState::Waiting => {
                self.explain_waiting(now, id, task, work)
            }
            Work::Balanced(work) => TaskExplanation {
                retries_left: work.retries,
                last_failure: last_failure(work),
                ..self.explain_running(id, task)
            },
            Work::Direct { .. } | Work::Share { .. } | Work::Probe { .. } => self.explain_running(id, task),
        })
    }

    fn explain_running(&self, id: TaskId, task: &Task) -> TaskExplanation {
        let engine = task.work.engine().and_then(|engine| self.hub.engine(engine));
        let engine = engine.expect("what does not wait has an engine");
        let before = engine.outstanding.range(..id).count();
        let reason = match before {
            0 => format!("{} runs it", engine.in_words()),
            before => format!("{} has it, behind {}", engine.in_words(), counted(before, "other request")),
        };
        TaskExplanation {
            engines: BTreeMap::from([(
                engine.id,
                reachability(engine).unwrap_or("it has the task").to_owned(),
            )]),
            ..explanation(&task.msg_id, TaskState::Running, reason)
        }
    }

    fn explain_waiting(&self, now: Instant, id: TaskId, task: &Task, work: &BalancedWork) -> TaskExplanation {
        let waits_for: Vec<MsgId> = work.after.open_ids().chain(work.follow.open_ids()).cloned().collect();
        let engines: BTreeMap<EngineId, String> =
            self.hub.engines().map(|engine| (engine.id, self.obstacle(engine, work))).collect();
        let ahead = self.balanced.ahead_of(id, work);
        let may_run = self.hub.engines().filter(|engine| work.permits(engine.id)).count();
        let reason = if !work.after.is_met() {
            format!(
                "it runs after {}, of which {} did not end as it needs so far",
                counted(work.after.count(), "task"),
                work.after.open_ids().count()
            )
        } else if !work.follow.is_met() {
            format!(
                "it runs where {} ran, of which {} did not end as it needs so far",
                counted(work.follow.count(), "other task"),
                work.follow.open_ids().count()
            )
        } else if engines.is_empty() {
            "no engine is here".to_owned()
        } else if may_run == 0 {
            "no engine that is here may run it; it waits for others until its timeout".to_owned()
        } else {
            format!("{} may run it, and none has room", counted(may_run, "engine"))
        };
        let timeout_seconds =
            self.balanced.timeout_of(id).map(|at| at.saturating_duration_since(now).as_secs_f64());
        TaskExplanation {
            waits_for,
            engines,
            ahead,
            timeout_seconds,
            retries_left: work.retries,
            last_failure: last_failure(work),
            ..explanation(&task.msg_id, TaskState::Waiting, reason)
        }
    }

    /// What keeps a task from an engine.
    fn obstacle(&self, engine: &Engine, work: &BalancedWork) -> String {
        if work.avoided.contains(&engine.id) {
            return "the task failed there, or was declined".to_owned();
        }
        if work.targets.as_ref().is_some_and(|targets| !targets.contains(&engine.id)) {
            return "it is not one of the task's targets".to_owned();
        }
        if !work.follow.permits(engine.id) {
            return "the tasks that this one follows did not run there".to_owned();
        }
        if let Some(obstacle) = reachability(engine) {
            return obstacle.to_owned();
        }
        match self.balanced.room(engine.id) {
            Some((load, window)) if load >= window => {
                format!("it has {}, as many as it may", counted(load, "balanced task"))
            }
            _ => "it has room".to_owned(),
        }
    }
}

fn reachability(engine: &Engine) -> Option<&'static str> {
    engine.lost_at.map(|_| "its connection was lost; it may come back")
}

fn explanation(msg_id: &MsgId, state: TaskState, reason: String) -> TaskExplanation {
    TaskExplanation {
        status: Status::Ok,
        msg_id: msg_id.clone(),
        state,
        reason,
        waits_for: vec![],
        engines: BTreeMap::new(),
        ahead: None,
        timeout_seconds: None,
        retries_left: 0,
        last_failure: None,
    }
}

fn last_failure(work: &BalancedWork) -> Option<String> {
    Some(match work.last_failure.as_ref()? {
        LastFailure::Lost { error, .. } => error.clone(),
        LastFailure::Replied { engine, message } | LastFailure::Declined { engine, message } => {
            reply_in_words(engine, message)
        }
    })
}

/// The error of a reply, and whose it is.
pub(super) fn reply_in_words(engine: &EngineUuid, message: &WireMessage) -> String {
    let said: serde_json::Value = serde_json::from_slice(&message.content).unwrap_or_default();
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    match (text("ename"), text("evalue")) {
        (ename, _) if ename.is_empty() => format!("an error without a name (engine {engine})"),
        (ename, evalue) if evalue.is_empty() => format!("{ename} (engine {engine})"),
        (ename, evalue) => format!("{ename}: {evalue} (engine {engine})"),
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
