//! Starts the processes of a cluster, watches them and ends them: the shell around `lifecycle.rs`. It lives as long
//! as what it started.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use protocol::Date;
use protocol::id::EngineId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use slurm_pbs::{Exit, JobEnd, JobStatus, Ranks};

use crate::cluster_file::{self, ClusterFile, Controller, EngineSet, ProcessState};
use crate::failure::{Code, Failure, LastLines};
use crate::hub::{HubLink, News};
use crate::job::JobState;
use crate::launch::{self, Explanation, Launcher};
use crate::lifecycle::{Effect, Event, Lifecycle, Note, Process, Reason};
use crate::log_file::{LAST_LINES_MAX, last_lines, tail};
use crate::output::{Output, Ready, Report, duration};
use crate::process::{ProcessId, wait_until_gone};
use crate::profile::Profile;
use crate::run_command::{CommandLine, Running};
use crate::teardown::{self, Teardown};

/// How often we look for the connection files. A controller needs some ten milliseconds, and a directory on a
/// network file system tells nobody when a file appears in it.
const FILE_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// After subscribing, the list of engines is asked for again at growing intervals: the hub may not have seen our
/// subscription when it announced the first one.
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(250);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(60);

/// How long the commands that watch over other engine sets of the cluster get to end them.
pub const OTHER_SUPERVISORS_GRACE: Duration = Duration::from_secs(15);

/// What to start and how.
pub struct Plan {
    /// When the user asked for it.
    pub asked_at: Instant,
    /// Where.
    pub profile: Profile,
    /// Which controller the engines join.
    pub controller: WhichController,
    /// Whether this is the part of a cluster that runs inside its job: the cluster file is that of the command that
    /// handed the job in.
    pub part_of_job: bool,
    /// What starts the engines.
    pub launcher: Box<dyn Launcher>,
    /// How many.
    pub ranks: Ranks,
    /// All must be up within this time.
    pub timeout: Duration,
    /// Whether logs stay after an end in order.
    pub keep_logs: bool,
    /// Whether the user's command has returned by the time all is ready.
    pub in_background: bool,
}

/// See [`Plan::controller`].
pub enum WhichController {
    /// One that is to be started here.
    Start(CommandLine),
    /// One that the job starts together with the engines.
    InJob,
    /// One that runs.
    Running,
}

impl Plan {
    /// Whether the end of this is the end of the cluster.
    fn owns_controller(&self) -> bool {
        !matches!(self.controller, WhichController::Running)
    }
}

/// What threads tell the supervisor.
enum Happening {
    Signal(i32),
    Ended(Process),
    News(News),
    HubUnusable(Failure),
    Job(Result<JobStatus, Failure>),
}

/// The job that was handed in for our engines.
struct OurJob {
    state: JobState,
    status: Option<JobStatus>,
    /// Something that makes its watcher look at once.
    hasten: mpsc::Sender<()>,
    /// The last time left, in seconds, that the user was warned of.
    warned_at: u64,
}

/// A job's end is announced when so many seconds are left.
const WALLTIME_WARNINGS: [u64; 3] = [60, 300, 600];

/// How long a job may take to end by itself after its engines were told to.
const JOB_ORDERLY_GRACE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Supervisor {
    plan: Plan,
    output: Output,
    started: Instant,
    life: Lifecycle,
    set: u32,
    controller: Option<Running>,
    engines: Vec<Running>,
    job: Option<OurJob>,
    /// When all must be up; none while a job waits for its turn.
    deadline: Option<Instant>,
    sender: mpsc::Sender<Happening>,
    receiver: mpsc::Receiver<Happening>,
    /// Somebody asked twice for the end.
    hurry: Arc<AtomicBool>,
}

impl Supervisor {
    /// Starts what the plan says and stays until all of it has ended. Call it from the main thread.
    pub fn run(plan: Plan, output: Output) -> Result<(), Failure> {
        let (sender, receiver) = mpsc::channel();
        let hurry = Arc::new(AtomicBool::new(false));
        watch_signals(sender.clone(), Arc::clone(&hurry))?;
        plan.profile.create()?;
        let set = claim(&plan)?;
        let life =
            Lifecycle::new(plan.ranks.get() as usize, matches!(plan.controller, WhichController::Start(_)));
        let started = plan.asked_at;
        let deadline = Some(started + plan.timeout);
        let mut supervisor = Supervisor {
            plan,
            output,
            started,
            life,
            set,
            controller: None,
            engines: Vec::new(),
            job: None,
            deadline,
            sender,
            receiver,
            hurry,
        };
        let ended = supervisor.live();
        supervisor.end(ended)
    }

    /// Until the end: why it came, or what went wrong on our side.
    fn live(&mut self) -> Result<Reason, Failure> {
        self.start_controller()?;
        self.watch_hub()?;
        loop {
            let due = [self.deadline, self.output.next_progress()];
            let event = match self.next_happening(due.into_iter().flatten().min()) {
                None if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    self.deadline = None;
                    Some(Event::TimeIsUp)
                }
                None => None,
                Some(happening) => self.event_of(happening)?,
            };
            for effect in event.map(|event| self.life.on(event)).unwrap_or_default() {
                match effect {
                    Effect::StartEngines => self.start_engines()?,
                    Effect::AnnounceReady => self.announce_ready()?,
                    Effect::Note(note) => self.note(&note),
                    Effect::Stop(reason) => return Ok(reason),
                }
            }
            self.progress();
        }
    }

    fn next_happening(&self, due: Option<Instant>) -> Option<Happening> {
        let Some(due) = due else { return self.receiver.recv().ok() };
        match self.receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(happening) => Some(happening),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
        }
    }

    fn event_of(&mut self, happening: Happening) -> Result<Option<Event>, Failure> {
        Ok(Some(match happening {
            Happening::Signal(signal) => Event::StopAsked(signal),
            Happening::Ended(process) => Event::ProcessEnded(process, self.reap(process)),
            Happening::News(News::Joined(engine)) => Event::EngineJoined(engine.id),
            Happening::News(News::Left(engine, reason)) => {
                if let Some(job) = &self.job {
                    let _ = job.hasten.send(()); // Its watcher is gone if it has told of the end.
                }
                Event::EngineLeft(engine, reason)
            }
            Happening::Job(status) => return Ok(self.on_job(status)),
            Happening::News(News::ShuttingDown) => Event::HubShutsDown,
            Happening::News(News::Engines(engines)) => {
                Event::HubAnswered(engines.into_iter().map(|engine| engine.id).collect())
            }
            Happening::HubUnusable(failure) if self.life.hub_answered() => {
                self.tell_note(failure.to_string());
                return Ok(None);
            }
            Happening::HubUnusable(failure) => return Err(failure),
        }))
    }

    fn reap(&mut self, process: Process) -> Exit {
        let running = match process {
            Process::Controller => self.controller.as_mut(),
            Process::Engines(index) => self.engines.get_mut(index),
        };
        running.map_or(Exit::Code(-1), Running::reap)
    }

    fn start_controller(&mut self) -> Result<(), Failure> {
        let line = match &self.plan.controller {
            WhichController::Start(line) => line,
            WhichController::InJob => return self.start_engines(),
            WhichController::Running => return Ok(()),
        };
        let running = line.spawn()?;
        self.watch(&running, Process::Controller)?;
        let state = ProcessState::of(&running);
        self.controller = Some(running);
        self.update_file(|file, _| {
            if let Some(controller) = &mut file.controller {
                controller.state = Some(state);
            }
        })
    }

    fn start_engines(&mut self) -> Result<(), Failure> {
        if let Some(job) = self.plan.launcher.job(&self.plan.profile, self.set, self.plan.ranks)? {
            return self.submit(&job);
        }
        for (index, line) in
            self.plan.launcher.commands(&self.plan.profile, self.set, self.plan.ranks).iter().enumerate()
        {
            let running = line.spawn()?;
            self.watch(&running, Process::Engines(index))?;
            self.engines.push(running);
        }
        self.life.engines_started(self.engines.len());
        self.write_engines()
    }

    /// Hands a job in. From now on the time to come up is the queue's, which has no bound.
    fn submit(&mut self, job: &crate::job::Job) -> Result<(), Failure> {
        let state = job.submit()?;
        let (hasten, hastened) = mpsc::channel();
        self.job = Some(OurJob { state: state.clone(), status: None, hasten, warned_at: u64::MAX });
        self.deadline = None;
        self.life.engines_started(1);
        let recorded = state.clone();
        self.update_file(|file, set| {
            if let Some(set) = file.engines.sets.get_mut(&set) {
                set.job = Some(recorded);
            }
        })?;
        let sender = self.sender.clone();
        state
            .watch(hastened, move |status| sender.send(Happening::Job(status)).is_ok())
            .map_err(|error| Failure::new(Code::LaunchFailed, "failed to start a thread").caused_by(error))
    }

    fn on_job(&mut self, status: Result<JobStatus, Failure>) -> Option<Event> {
        let job = self.job.as_mut().expect("only its watcher tells of it");
        let status = match status {
            Ok(status) => status,
            Err(failure) => {
                self.tell_note(failure.to_string()); // It is asked again.
                return None;
            }
        };
        let was_running = matches!(job.status, Some(JobStatus::Running { .. }));
        let mut warning = None;
        let mut event = None;
        match &status {
            JobStatus::Running { seconds_left, .. } => {
                if !was_running && !self.life.is_ready() {
                    self.deadline = Some(Instant::now() + self.plan.timeout);
                }
                if let Some(left) = *seconds_left
                    && let Some(&at) = WALLTIME_WARNINGS.iter().find(|&&at| left <= at)
                    && at < std::mem::replace(&mut job.warned_at, at)
                    && was_running
                {
                    warning = Some(format!(
                        "{} has {} left",
                        job.state.label(),
                        duration(Duration::from_secs(left))
                    ));
                }
            }
            JobStatus::Ended { end } => {
                event = Some(Event::ProcessEnded(Process::Engines(0), exit_of(end)));
            }
            JobStatus::Queued { .. } | JobStatus::Ending => {}
        }
        job.status = Some(status);
        if let Some(warning) = warning {
            self.tell_note(warning);
        }
        event
    }

    /// Writes who the engine processes are, and what they have started so far.
    fn write_engines(&self) -> Result<(), Failure> {
        let state = |running: &Running| {
            let mut state = ProcessState::of(running);
            state.members = running.id.descendants();
            state
        };
        let states: BTreeMap<usize, ProcessState> = self.engines.iter().map(state).enumerate().collect();
        self.update_file(|file, set| {
            if let Some(set) = file.engines.sets.get_mut(&set) {
                set.engines = states;
            }
        })
    }

    fn watch(&self, running: &Running, process: Process) -> Result<(), Failure> {
        let sender = self.sender.clone();
        running
            .on_end(move || drop(sender.send(Happening::Ended(process))))
            .map_err(|error| Failure::new(Code::LaunchFailed, "failed to start a thread").caused_by(error))
    }

    fn watch_hub(&self) -> Result<(), Failure> {
        let files = [self.plan.profile.client_file(), self.plan.profile.engine_file()];
        let sender = self.sender.clone();
        let watch = move || {
            if let Err(failure) = follow_hub(&files, &sender) {
                let _ = sender.send(Happening::HubUnusable(failure)); // Nobody listens once we are at the end.
            }
        };
        std::thread::Builder::new()
            .name("hub watch".into())
            .spawn(watch)
            .map(drop)
            .map_err(|error| Failure::new(Code::LaunchFailed, "failed to start a thread").caused_by(error))
    }

    fn announce_ready(&mut self) -> Result<(), Failure> {
        let profile = &self.plan.profile;
        let stop = if self.plan.owns_controller() {
            profile.command("cluster", "stop")
        } else {
            format!("kill {}", ProcessId::own().pid)
        };
        let report = Report::Ready(Ready {
            cluster: profile.label(),
            profile_dir: profile.dir().display().to_string(),
            cluster_id: profile.cluster_id().to_owned(),
            engines: self.engines_text(),
            ids: self.life.joined_ids().iter().map(|EngineId(id)| *id).collect(),
            seconds: self.started.elapsed().as_secs_f64(),
            supervisor: ProcessId::own().pid,
            in_background: self.plan.in_background,
            client_file: profile.client_file().display().to_string(),
            next: profile.command("client", "px 'rank()'"),
            stop,
        });
        self.output.tell(&report).map_err(|error| {
            Failure::failed("failed to report that the cluster is ready, so it was stopped").caused_by(error)
        })?;
        // Only now, as it takes a look at every process of the machine.
        self.write_engines()
    }

    fn engines_text(&self) -> String {
        let text = format!("{} {}", self.plan.ranks, self.plan.launcher.describe());
        if self.plan.ranks.get() == 1 { text.replacen("engines", "engine", 1) } else { text }
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::EngineLeft(EngineId(id), Some(reason)) => {
                self.tell_note(format!("engine {id} left: {reason}"))
            }
            Note::EngineLeft(EngineId(id), None) => self.tell_note(format!("engine {id} left")),
            Note::EnginesEnded(index, exit) => {
                let mut failure = self.engines_failure(Code::LostContact, "", *index, *exit);
                if exit.is_success() {
                    failure = Failure::new(Code::LostContact, failure.message); // Nobody has to look for a cause.
                }
                let more = self.plan.profile.command("cluster", &format!("engines -n {}", self.plan.ranks));
                let hint = if exit.is_success() {
                    String::new()
                } else {
                    format!("\n  hint: start new ones with: {more}")
                };
                self.tell_note(format!("{failure}{hint}"));
            }
        }
    }

    fn tell_note(&mut self, text: String) {
        let _ = self.output.tell(&Report::Note { text }); // That nobody reads it is no reason to end.
    }

    fn progress(&mut self) {
        let waiting = self.job.as_ref().and_then(OurJob::waits);
        let text = if let Some(waiting) = waiting {
            waiting
        } else if self.life.hub_answered() {
            format!("{} of {} engines registered", self.life.joined(), self.plan.ranks)
        } else {
            "waiting for the controller".to_owned()
        };
        if self.life.joined() < self.plan.ranks.get() as usize && self.output.next_progress().is_none() {
            let _ = self.output.tell(&Report::Progress { text }); // As above.
        }
    }

    /// Ends every process, cleans up, and says how it was.
    fn end(mut self, ended: Result<Reason, Failure>) -> Result<(), Failure> {
        let began = Instant::now();
        // Before the teardown adds its own noise to the logs.
        let verdict = ended.and_then(|reason| self.verdict(reason));
        let hurry = Arc::clone(&self.hurry);
        if matches!(self.plan.controller, WhichController::InJob) && self.life.hub_answered() {
            // If it cannot be told any more, the job is cancelled below.
            let _ = HubLink::connect(&self.plan.profile.client_file())
                .and_then(|mut hub| hub.shut_down(crate::hub::ANSWER_TIMEOUT));
        }
        let outcome = Teardown {
            engines: self.engines.iter().map(ProcessState::of).collect(),
            controller: self.controller.as_ref().map(ProcessState::of),
            client_file: self.controller.is_some().then(|| self.plan.profile.client_file()),
        }
        .run(|| hurry.load(Ordering::Relaxed));
        for running in self.engines.iter_mut().chain(&mut self.controller) {
            running.try_reap();
        }
        // Its engines were told by the hub if that could be asked.
        let job_ended = self.job.as_ref().map_or(Ok(()), |job| {
            if job.is_known_to_have_ended() {
                return Ok(());
            }
            job.state.end(JOB_ORDERLY_GRACE, || hurry.load(Ordering::Relaxed)).map(drop)
        });
        if let Err(failure) = job_ended {
            // The file stays, so that `cluster stop` can be tried again.
            return Err(match verdict {
                Ok(_) => failure,
                Err(verdict) => verdict.because(failure.to_string()),
            });
        }
        for killed in &outcome.killed {
            launch::remove_leftovers(self.plan.launcher.kind(), killed.pid);
        }
        let cleaned = self.clean_up(verdict.is_ok());
        let text = verdict?;
        outcome.check()?;
        cleaned?;
        let seconds = began.elapsed().as_secs_f64();
        let _ = self.output.tell(&Report::Stopped { text, seconds }); // The terminal may be gone by now.
        Ok(())
    }

    fn clean_up(&self, in_order: bool) -> Result<(), Failure> {
        if let Some(controller) = &self.controller {
            teardown::remove_connection_files(&self.plan.profile, &ProcessState::of(controller))?;
        }
        if self.plan.part_of_job {
            return Ok(());
        }
        if matches!(self.plan.controller, WhichController::InJob) {
            // A job that was killed had no time for it.
            for path in [self.plan.profile.client_file(), self.plan.profile.engine_file()] {
                let _ = cluster_file::remove_if_there(&path); // The next start does it otherwise.
            }
        }
        let own = ProcessId::own();
        let has_controller = self.plan.owns_controller();
        let file = cluster_file::update(&self.plan.profile, |file| {
            let mut file = file.unwrap_or_else(|| new_file(&self.plan));
            file.engines.sets.retain(|_, set| set.supervisor != own);
            if has_controller {
                file.controller = None;
            }
            Ok(file)
        })?;
        if has_controller {
            // Engines that were added later have lost their controller: their own commands end them.
            let others = file.live_supervisors();
            for other in &others {
                let _ = other.signal(nix::sys::signal::Signal::SIGTERM);
            }
            wait_until_gone(&others, Instant::now() + OTHER_SUPERVISORS_GRACE, || {
                self.hurry.load(Ordering::Relaxed)
            });
        }
        if in_order && !self.plan.keep_logs {
            let logs = self.engines.iter().chain(&self.controller).map(|running| running.line.log.clone());
            let of_job = self.job.iter().flat_map(|job| job.state.files());
            let logs = logs.chain(of_job);
            for log in logs.chain(self.plan.in_background.then(|| background_log(&self.plan.profile, own))) {
                let _ = cluster_file::remove_if_there(&log); // A log too many is no failure.
            }
        }
        Ok(())
    }

    /// What the end means to who started us.
    fn verdict(&self, reason: Reason) -> Result<String, Failure> {
        let launch_failed = |ready| if ready { Code::LostContact } else { Code::LaunchFailed };
        let cluster = self.plan.profile.label();
        match reason {
            Reason::Asked { ready: true, .. } => Ok(format!("cluster {cluster}: stopped")),
            Reason::Asked { signal, ready: false } => Err(Failure::failed(format!(
                "cluster {cluster}: stopped by {} before it was ready",
                slurm_pbs::exit::signal_name(signal).map_or("a signal", |(name, _)| name)
            ))),
            Reason::ShutDown => Ok(format!("cluster {cluster}: shut down by a client")),
            Reason::NothingLeft { in_order: true } => Ok(format!("cluster {cluster}: all engines ended")),
            Reason::NothingLeft { in_order: false } => Err(Failure::new(
                Code::LostContact,
                format!("cluster {cluster}: the last of these engines is gone"),
            )),
            Reason::ControllerEnded { exit, ready } => {
                Err(self.controller_failure(launch_failed(ready), exit, ready))
            }
            Reason::EnginesFailed { index, exit } => {
                Err(self.engines_failure(Code::LaunchFailed, "failed to start engines: ", index, exit))
            }
            Reason::TooLate { hub_answered, joined } => Err(self.too_late(hub_answered, joined)),
        }
    }

    fn controller_failure(&self, code: Code, exit: Exit, ready: bool) -> Failure {
        let message = if ready { "lost the controller: it " } else { "failed to start the controller: it " };
        let failure = Failure::new(code, format!("{message}{exit}"));
        let Some(controller) = &self.controller else { return failure };
        failure
            .because(format!("the command was: {}", controller.line))
            .with_last_lines(last_lines(&controller.line.log, LAST_LINES_MAX))
    }

    fn engines_failure(&self, code: Code, prefix: &str, index: usize, exit: Exit) -> Failure {
        if let Some(job) = &self.job {
            return self.job_failure(code, prefix, job);
        }
        let Some(running) = self.engines.get(index) else {
            return Failure::new(code, format!("{prefix}{exit}"));
        };
        let log = &running.line.log;
        let Explanation { what, hint } =
            self.plan.launcher.explain(index, exit, &tail(log).unwrap_or_default());
        let mut failure = Failure::new(code, format!("{prefix}{what}"));
        failure.hint = hint;
        failure
            .because(format!("the command was: {}", running.line))
            .with_last_lines(self.plan.launcher.last_lines(log))
    }

    fn job_failure(&self, code: Code, prefix: &str, job: &OurJob) -> Failure {
        let end = match &job.status {
            Some(JobStatus::Ended { end }) => end.to_string(),
            _ => "is gone".to_owned(),
        };
        Failure::new(code, format!("{prefix}{} {end}", job.state.label()))
            .with_last_lines(self.plan.launcher.last_lines(&job.state.output_file))
    }

    fn too_late(&self, hub_answered: bool, joined: usize) -> Failure {
        let within = duration(self.plan.timeout);
        let failure = |text: String| Failure::new(Code::LaunchFailed, text);
        if !hub_answered {
            let last =
                self.controller.as_ref().and_then(|running| last_lines(&running.line.log, LAST_LINES_MAX));
            return failure(format!("failed to reach the controller within {within}"))
                .with_last_lines(last)
                .hint("give it more time with --timeout, or see whether its address can be reached (--ip)");
        }
        let job_log = self.job.as_ref().map(|job| &job.state.output_file);
        let log = job_log.or(self.engines.last().map(|running| &running.line.log));
        let last: Option<LastLines> = log.and_then(|log| self.plan.launcher.last_lines(log));
        failure(format!(
            "failed to start engines: {joined} of {} registered within {within}",
            self.plan.ranks
        ))
        .with_last_lines(last)
        .hint("give them more time with --timeout, or see whether they can reach the controller (--ip)")
    }

    fn update_file(&self, change: impl FnOnce(&mut ClusterFile, u32)) -> Result<(), Failure> {
        if self.plan.part_of_job {
            return Ok(());
        }
        cluster_file::update(&self.plan.profile, |file| {
            let mut file = file.unwrap_or_else(|| new_file(&self.plan));
            change(&mut file, self.set);
            Ok(file)
        })
        .map(drop)
    }
}

/// The log of a supervisor in the background, which is its standard error.
pub fn background_log(profile: &Profile, supervisor: ProcessId) -> PathBuf {
    profile.log_file(&format!("cluster-{}", supervisor.pid))
}

/// Enters what we are about to start in the cluster file, so that nobody else starts the same; gives the number
/// of our set of engines.
fn claim(plan: &Plan) -> Result<u32, Failure> {
    if plan.part_of_job {
        return Ok(0);
    }
    if plan.owns_controller() {
        refuse_foreign_controller(plan)?;
    }
    let mut number = 0;
    cluster_file::update(&plan.profile, |found| {
        if let Some(file) = &found {
            refuse_living_jobs(&plan.profile, file)?;
        }
        let live = found.filter(ClusterFile::is_live);
        let mut file = match (live, plan.owns_controller()) {
            (Some(file), true) => return Err(already_running(&plan.profile, &file)),
            (Some(file), false) => file,
            (None, _) => new_file(plan),
        };
        if plan.owns_controller() {
            let is_kept = |argument: &String| matches!(argument.as_str(), "--reuse" | "--restore");
            let kept = match &plan.controller {
                WhichController::Start(line) => line.arguments.iter().any(is_kept),
                WhichController::InJob | WhichController::Running => false,
            };
            if !kept {
                // Of a controller that was killed: our engines must not read them.
                for path in [plan.profile.client_file(), plan.profile.engine_file()] {
                    cluster_file::remove_if_there(&path).map_err(|error| {
                        Failure::failed(format!("failed to remove the stale {}", path.display()))
                            .caused_by(error)
                    })?;
                }
            }
            file.controller =
                Some(Controller { class: controller_class(plan), supervisor: ProcessId::own(), state: None });
        }
        number = file.engines.sets.keys().next_back().map_or(0, |last| last + 1);
        file.engines.sets.insert(
            number,
            EngineSet {
                class: plan.launcher.kind(),
                n: plan.ranks.get(),
                started_at: Date::from_system_time(SystemTime::now()),
                supervisor: ProcessId::own(),
                engines: BTreeMap::new(),
                job: None,
            },
        );
        Ok(file)
    })?;
    Ok(number)
}

fn controller_class(plan: &Plan) -> String {
    match plan.controller {
        WhichController::InJob => plan.launcher.kind().to_string(),
        WhichController::Start(_) | WhichController::Running => "local".to_owned(),
    }
}

/// Jobs go on when the command that handed them in was killed, and when this machine was rebooted.
fn refuse_living_jobs(profile: &Profile, file: &ClusterFile) -> Result<(), Failure> {
    if file.is_live() {
        return Ok(()); // Somebody watches over them.
    }
    for job in file.jobs() {
        if !job.has_ended()? {
            return Err(Failure::failed(format!("cluster {} still has {}", profile.label(), job.label()))
                .hint(format!("end it with: {}", profile.command("cluster", "stop"))));
        }
    }
    Ok(())
}

fn exit_of(end: &JobEnd) -> Exit {
    match end {
        JobEnd::Completed => Exit::Code(0),
        JobEnd::Failed { signal: Some(signal), .. } => Exit::Signal(*signal),
        JobEnd::Failed { code, .. } => Exit::Code(code.unwrap_or(1)),
        JobEnd::Cancelled | JobEnd::TimeLimit => Exit::Signal(SIGTERM),
        JobEnd::NodeFailed | JobEnd::OutOfMemory => Exit::Signal(9),
        JobEnd::Other { .. } | JobEnd::Forgotten => Exit::Code(1),
    }
}

impl OurJob {
    fn is_known_to_have_ended(&self) -> bool {
        matches!(self.status, Some(JobStatus::Ended { .. }))
    }

    /// What it waits for, in words, unless it runs.
    fn waits(&self) -> Option<String> {
        let label = self.state.label();
        match &self.status {
            None => Some(format!("{label} was handed in")),
            Some(JobStatus::Queued { reason }) if reason.is_empty() => {
                Some(format!("{label} waits in the queue"))
            }
            Some(JobStatus::Queued { reason }) => Some(format!("{label} waits in the queue: {reason}")),
            Some(_) => None,
        }
    }
}

fn new_file(plan: &Plan) -> ClusterFile {
    let now = Date::from_system_time(SystemTime::now());
    ClusterFile::new(&plan.profile, plan.launcher.kind(), plan.ranks.get(), now)
}

fn already_running(profile: &Profile, file: &ClusterFile) -> Failure {
    let failure = Failure::failed(format!("cluster {} is already running", profile.label()));
    if !file.is_of_this_host() {
        return failure.because(format!("it was started on {}", file.cluster.host)).hint(format!(
            "stop it there with: {}; if that machine is gone: {}",
            profile.command("cluster", "stop"),
            profile.command("cluster", "clean --force")
        ));
    }
    failure.hint(format!(
        "stop it with: {}; or start another one with --cluster-id NAME",
        profile.command("cluster", "stop")
    ))
}

/// A controller that was started by hand has no cluster file, but it answers.
fn refuse_foreign_controller(plan: &Plan) -> Result<(), Failure> {
    let profile = &plan.profile;
    if ClusterFile::read(&profile.cluster_file())?.is_some() || !crate::hub::answers(&profile.client_file()) {
        return Ok(());
    }
    Err(Failure::failed(format!("a controller of {} is already running", profile.label())).hint(format!(
        "add engines to it with: {}; or start another cluster with --cluster-id NAME",
        profile.command("cluster", &format!("engines -n {}", plan.ranks))
    )))
}

/// Tells what the hub says, from the moment its files exist.
fn follow_hub(files: &[PathBuf; 2], sender: &mpsc::Sender<Happening>) -> Result<(), Failure> {
    while !files.iter().all(|file| file.exists()) {
        std::thread::sleep(FILE_LOOK_INTERVAL);
    }
    let mut hub = HubLink::connect(&files[0])?;
    let mut pause = ASK_AGAIN_FIRST;
    loop {
        hub.ask_for_engines()?;
        let ask_again = Instant::now() + pause;
        while let Some(news) = hub.next_news(ask_again)? {
            if sender.send(Happening::News(news)).is_err() {
                return Ok(());
            }
        }
        pause = (pause * 2).min(ASK_AGAIN_MAX);
    }
}

/// The first signal asks for the end, the second for a quick one.
fn watch_signals(sender: mpsc::Sender<Happening>, hurry: Arc<AtomicBool>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed("failed to watch for signals").caused_by(error);
    let mut watched = vec![SIGINT, SIGTERM];
    // `nohup cluster start` is to go on when the terminal closes.
    watched.extend((!is_ignored(SIGHUP)).then_some(SIGHUP));
    let mut signals = Signals::new(watched).map_err(failed)?;
    let watch = move || {
        for (count, signal) in signals.forever().enumerate() {
            hurry.store(count > 0, Ordering::Relaxed);
            if sender.send(Happening::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(drop).map_err(failed)
}

/// Whether who started us made us ignore this signal.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0").trim();
    u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & (1 << (signal - 1)) != 0)
}
