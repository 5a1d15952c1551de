//! From the command line to an engine that serves, and back to an exit code.
//!
//! MPI comes first, on the main thread, before any other thread; then the connection file, the registration, the
//! sockets, the user's start-up code, and last the heart: its first beat says that the engine can be used.

pub mod failure;
pub mod file;
pub mod join;
pub mod log;
pub mod place;

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use protocol::buffer_digest::BufferDigests;
use protocol::extension::{EngineDescription, identity};
use protocol::id::EngineUuid;
use protocol::message::output::ExecutionState;
use protocol::{Date, Key, Receiver, Session};
use transport::monitor::Monitor;
use transport::poll::{PollItem, poll};
use transport::profile::Profile;
use transport::tunnel::Tunnel;
use transport::wake::waker;
use transport::{Context, Socket, hygiene, libzmq_version};

use crate::cli::{self, Settings};
use crate::executor::{Executor, Name, Parts};
use crate::interrupt::Interrupt;
use crate::output::Iopub;
use crate::python::{self, Interpreter, Python, PythonRunner};
use crate::queries::Remembered;
use crate::runner::Runner;
use crate::runner::native::{Registry, RegistryError};
use crate::runner::script::is_builtin;
use crate::shell::control::{self, Control};
use crate::shell::ready::Ready;
use crate::shell::shared::{Ending, Shared};
use crate::shell::signals::Signals;
use crate::shell::sockets::Plugs;
use crate::shell::{EXIT_CONTROLLER_LOST, EXIT_LAUNCHER_LOST, Shell};
use failure::Failure;
use join::{Joined, Joining};
use place::Place;

/// How long the controller may take to listen to output.
const SUBSCRIPTION_PATIENCE: Duration = Duration::from_secs(1);

/// How long a rank that ends with its job waits for the others before it leaves MPI without them.
const FINALIZE_PATIENCE: Duration = Duration::from_secs(8);

/// How long a rank that was shut down alone waits: for as long as the others live. Leaving MPI without them
/// would make the launcher end them.
const FINALIZE_PATIENCE_ALONE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a runner is made of: where the engine is, and how it is called there.
pub struct Backdrop<'a> {
    /// The world.
    pub place: &'a Place,
    /// The engine.
    pub name: &'a Name,
    /// Takes output.
    pub iopub: &'a Arc<Iopub>,
    /// Ends a task.
    pub interrupt: &'a Interrupt,
    /// The profile that the engine belongs to.
    pub profile: &'a Profile,
}

/// The program: see [`crate::Engine::run`].
pub(crate) fn main(
    wrong: Option<RegistryError>,
    registry: Registry,
    make_runner: impl FnOnce(Registry, &Place) -> Box<dyn Runner>,
) -> ExitCode {
    hygiene::keep_key_out_of_core_dumps();
    let settings = match cli::parse(std::env::args(), libraries) {
        Ok(settings) => settings,
        Err(cli::Stop::Clap(error)) => {
            let code = if error.use_stderr() { failure::EXIT_USAGE } else { 0 };
            // The reader may be gone (`engine --help | head`).
            let _ = error.print();
            return ExitCode::from(code);
        }
        Err(cli::Stop::Usage(text)) => return failure::report(&Failure::usage(text)),
    };
    if let Some(error) = wrong {
        return failure::report(&Failure::internal(error.to_string()));
    }
    match start(&settings, registry, make_runner) {
        Ok((served, place)) => end(served, place),
        Err(failure) => failure::report(&failure),
    }
}

fn start(
    settings: &Settings,
    registry: Registry,
    make_runner: impl FnOnce(Registry, &Place) -> Box<dyn Runner>,
) -> Result<(Served, Place), Failure> {
    // Asked before MPI starts: it runs the interpreter, and a process of MPI's should not fork.
    let interpreter = match &settings.python {
        Some(named) => {
            let found = Interpreter::find(named.as_deref()).map_err(Failure::python)?;
            python::let_blocking_calls_yield();
            Some(found)
        }
        None => None,
    };
    let interrupt = Interrupt::new();
    let place = Place::take(settings, &interrupt)?;
    load_modules(settings, &registry)?;
    let served = match interpreter {
        None => run(settings, &place, interrupt, |backdrop| Ok(make_runner(registry, backdrop.place))),
        Some(interpreter) => {
            let python = Python::load(&interpreter).map_err(Failure::python)?;
            run(settings, &place, interrupt, |backdrop| python_runner(python, registry, settings, backdrop))
        }
    }?;
    Ok((served, place))
}

/// After MPI has started, which a module's own start-up code may rely on.
fn load_modules(settings: &Settings, registry: &Registry) -> Result<(), Failure> {
    for path in &settings.modules {
        registry.load_file(path, is_builtin).map_err(|error| Failure::module(path, error))?;
    }
    Ok(())
}

fn python_runner(
    python: Python,
    registry: Registry,
    settings: &Settings,
    backdrop: Backdrop<'_>,
) -> Result<Box<dyn Runner>, Failure> {
    let runner = PythonRunner::start(
        python,
        python::Parts {
            engine_id: backdrop.name.id.0,
            uuid: backdrop.name.uuid.to_string(),
            communicator: backdrop.place.communicator(),
            iopub: Arc::clone(backdrop.iopub),
            interrupt: backdrop.interrupt.clone(),
            registry,
            options: settings.others.clone(),
            profile_dir: backdrop.profile.dir().to_owned(),
        },
    );
    Ok(Box::new(runner.map_err(Failure::python)?))
}

/// What the program is linked to, for `--version`.
fn libraries() -> String {
    let (major, minor, patch) = libzmq_version();
    format!("libzmq {major}.{minor}.{patch}\n{}", place::mpi_library())
}

/// Joins the cluster and serves until the engine ends.
pub fn run(
    settings: &Settings,
    place: &Place,
    interrupt: Interrupt,
    make_runner: impl FnOnce(Backdrop<'_>) -> Result<Box<dyn Runner>, Failure>,
) -> Result<Served, Failure> {
    if let Some(directory) = &settings.work_dir {
        std::env::set_current_dir(directory).map_err(|error| Failure::work_dir(directory, error))?;
    }
    let profile = Profile::locate(&settings.profile, |name| std::env::var_os(name));
    let profile = profile.map_err(|error| Failure::usage(error.to_string()))?;
    log::init(settings, &profile)?;
    if hygiene::is_root() && place.rank() == 0 {
        tracing::warn!("{}", hygiene::ROOT_WARNING);
    }
    if settings.python.is_none() {
        for name in settings.others.keys() {
            tracing::debug!(name, "option ignored");
        }
    }

    let mut membership = join_cluster(settings, &profile, place)?;
    let tunnel = membership.tunnel.take();
    let (mut main, control, shared) =
        assemble(settings, &profile, place, membership, interrupt, make_runner)?;
    let ending = main.serve().unwrap_or_else(|error| Ending::Broken(error.to_string()));
    tracing::info!(?ending, "engine ends");
    drop(main); // It holds the world, which MPI can leave only as a whole.
    shared.leave();
    Ok(Served { ending, shared, control, _tunnel: tunnel })
}

/// The voices of one engine: sessions of one name that number their messages each for itself, so that none needs
/// a lock.
struct Voices {
    uuid: EngineUuid,
    user: String,
    pid: u32,
    key: Key,
    digests: BufferDigests,
}

impl Voices {
    /// For requests to the hub and control replies.
    fn control(&self) -> Session {
        self.voice(0)
    }

    /// For replies.
    fn shell(&self) -> Session {
        self.voice(1)
    }

    /// For output.
    fn iopub(&self) -> Session {
        self.voice(2)
    }

    /// For what the shell socket says unasked.
    fn ready(&self) -> Session {
        self.voice(3)
    }

    /// Process ids have 22 bits; the number of the voice is put above them.
    fn voice(&self, number: u32) -> Session {
        let process = self.pid | (number << 30);
        Session::new(self.uuid.as_str().into(), self.user.clone(), process, &self.key)
            .with_digests(self.digests)
    }

    fn receiver(&self) -> Receiver {
        self.control().receiver()
    }
}

/// An engine that the hub knows.
struct Membership {
    voices: Voices,
    plugs: Plugs,
    registration: Socket,
    session: Session,
    receiver: Receiver,
    joined: Joined,
    tunnel: Option<Tunnel>,
}

/// # Collective
/// Finds the controller and registers.
fn join_cluster(settings: &Settings, profile: &Profile, place: &Place) -> Result<Membership, Failure> {
    let (file, tunnel) = file::find(settings, profile, place)?;
    let voices = Voices {
        uuid: EngineUuid::from(transport::random::id()),
        user: std::env::var("USER").unwrap_or_else(|_| "username".to_owned()),
        pid: std::process::id(),
        key: file::key(&file),
        digests: file.common.buffer_digests,
    };
    let context = Context::new(1).map_err(Failure::transport)?;
    let plugs = Plugs::new(&context, &voices.uuid, file).map_err(Failure::transport)?;
    let url = settings.url.clone();
    let url = url.unwrap_or_else(|| plugs.file().common.url(plugs.file().common.registration));
    let registration = plugs.registration(&url).map_err(Failure::transport)?;
    let (mut session, mut receiver) = (voices.control(), voices.receiver());
    let joined = join::join(Joining {
        settings,
        place,
        socket: &registration,
        url: &url,
        uuid: &voices.uuid,
        description: EngineDescription {
            version: protocol::extension::VERSION,
            host: transport::reach::hostname(),
            pid: voices.pid,
            world: None,
            rank: u32::try_from(place.rank()).unwrap_or(u32::MAX),
            world_size: u32::try_from(place.size()).unwrap_or(u32::MAX),
            runner: if settings.python.is_some() { "python" } else { "script" }.to_owned(),
            job: crate::job::description(|name| std::env::var(name).ok(), SystemTime::now()),
        },
        session: &mut session,
        receiver: &mut receiver,
    })?;
    Ok(Membership { voices, plugs, registration, session, receiver, joined, tunnel })
}

/// Connects everything, the heart last, and starts the control thread.
fn assemble(
    settings: &Settings,
    profile: &Profile,
    place: &Place,
    membership: Membership,
    interrupt: Interrupt,
    make_runner: impl FnOnce(Backdrop<'_>) -> Result<Box<dyn Runner>, Failure>,
) -> Result<(Shell, JoinHandle<()>, Arc<Shared>), Failure> {
    let Membership { voices, plugs, registration, mut session, receiver, joined, tunnel: _ } = membership;
    let Joined { id, heartbeat_interval, extended, description } = joined;
    let name = Name { uuid: voices.uuid.clone(), id };
    let (main_waker, main_wake) = waker().map_err(Failure::transport)?;
    let (control_waker, control_wake) = waker().map_err(Failure::transport)?;
    let status = place.wait_status();
    let shared = Arc::new(Shared::new(interrupt.clone(), status, main_waker, control_waker.clone()));

    let shell = Rc::new(plugs.shell(id).map_err(Failure::transport)?);
    let control = plugs.control().map_err(Failure::transport)?;
    let iopub = plugs.iopub().map_err(Failure::transport)?;
    wait_for_subscription(&iopub)?;
    let iopub = Iopub::new(Box::new(iopub), voices.iopub(), voices.uuid.clone(), id, control_waker.clone());
    let iopub = Arc::new(iopub);
    iopub.status(ExecutionState::Starting);
    let backdrop = Backdrop { place, name: &name, iopub: &iopub, interrupt: &interrupt, profile };
    let mut executor = Executor::new(Parts {
        runner: make_runner(backdrop)?,
        communicator: place.communicator(),
        interrupt: interrupt.clone(),
        name: name.clone(),
        session: voices.shell(),
        shell: Box::new(Rc::clone(&shell)),
        iopub: Arc::clone(&iopub),
    });
    let signals = Signals::install(&interrupt, &control_waker).map_err(Failure::signals)?;
    run_startup_code(settings, &mut executor)?;
    shared.activity().remembered = Remembered::of(executor.runner());

    let leaf = identity::broadcast_leaf(id.0 as usize % plugs.file().broadcast.len());
    let tell = |identities: &[&str], session: &mut Session| {
        if extended { Ready::tell(identities, session, now()) } else { Ready::nobody() }
    };
    let shell_ready = tell(&[identity::MUX_OUT, identity::TASK_OUT, &leaf], &mut voices.ready());
    let control_ready = tell(&[identity::CONTROL_OUT], &mut session);
    let heart = plugs.heart().map_err(Failure::transport)?;
    let monitor = Monitor::attach(plugs.context(), &heart.ping).map_err(Failure::transport)?;
    plugs.start_heart(&heart).map_err(Failure::transport)?;

    let control = Control::new(control::Parts {
        control,
        registration,
        heart,
        monitor,
        iopub,
        shared: Arc::clone(&shared),
        wake: control_wake,
        signals,
        receiver,
        session,
        ready: control_ready,
        name,
        description,
        silence_max: settings.silence.limit(heartbeat_interval),
        // Other ranks come from a launcher. An engine alone may outlive the shell that it was started from.
        launcher: (place.size() > 1).then(std::os::unix::process::parent_id),
    });
    let thread = std::thread::Builder::new().name("control".to_owned());
    let thread = thread.spawn(move || control.run()).map_err(Failure::thread)?;
    tracing::info!(rank = place.rank(), "Completed registration with id {id}");
    let main = Shell {
        socket: shell,
        executor,
        receiver: voices.receiver(),
        ready: shell_ready,
        shared: Arc::clone(&shared),
        wake: main_wake,
        drive: place.driver(),
        names_changed: true,
    };
    Ok((main, thread, shared))
}

/// An engine that has left its cluster, but not yet its world.
pub struct Served {
    /// Why it ended.
    pub ending: Ending,
    shared: Arc<Shared>,
    control: JoinHandle<()>,
    /// What the connections went through.
    _tunnel: Option<Tunnel>,
}

impl Served {
    /// Nothing is left to be waited for: ends the control thread.
    pub fn finish(self) {
        self.shared.end();
        if self.control.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

/// Leaves MPI; returns what the process reports. Without the other ranks' consent the process just ends, and the
/// launcher ends them.
fn end(served: Served, place: Place) -> ExitCode {
    let (patience, code) = match &served.ending {
        Ending::Requested => (FINALIZE_PATIENCE_ALONE, 0),
        Ending::Terminated => (FINALIZE_PATIENCE, 0),
        Ending::ControllerLost => (FINALIZE_PATIENCE, EXIT_CONTROLLER_LOST),
        // Finalizing needs the launcher.
        Ending::LauncherLost => (Duration::ZERO, EXIT_LAUNCHER_LOST),
        Ending::Broken(_) => (FINALIZE_PATIENCE, 1),
    };
    let start = Instant::now();
    let left = place.finalize(patience);
    served.finish();
    tracing::debug!(seconds = start.elapsed().as_secs_f64(), "left the world");
    match left {
        Ok(()) => ExitCode::from(code),
        Err(reason) => {
            tracing::warn!(reason, "MPI not finalized");
            ExitCode::from(code.max(1))
        }
    }
}

/// Waits until the controller listens to output: an engine is not usable before.
fn wait_for_subscription(iopub: &Socket) -> Result<(), Failure> {
    let listens =
        poll(&mut [PollItem::socket(iopub)], Some(SUBSCRIPTION_PATIENCE)).map_err(Failure::transport)?;
    if listens == 0 {
        tracing::warn!("the controller does not listen to output yet; the first of it may be lost");
    }
    iopub.receive().map_err(Failure::transport)?;
    Ok(())
}

fn run_startup_code(settings: &Settings, executor: &mut Executor) -> Result<(), Failure> {
    let script = match &settings.script {
        Some(path) => {
            let code = std::fs::read_to_string(path).map_err(|error| Failure::script(path, error))?;
            Some((path.display().to_string(), code))
        }
        None => None,
    };
    let code = settings.code.clone().map(|code| ("--code".to_owned(), code));
    for (label, code) in script.into_iter().chain(code) {
        let start = Instant::now();
        executor.run_at_start(&label, &code).map_err(|error| Failure::startup(&label, &error))?;
        tracing::info!(label, seconds = start.elapsed().as_secs_f64(), "start-up code ran");
    }
    Ok(())
}

fn now() -> Date {
    Date::from_system_time(SystemTime::now())
}

#[cfg(test)]
mod tests;
