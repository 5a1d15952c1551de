//! What a seed means: the settings, and what clients do and engines suffer, at which time.
//!
//! A plan is drawn before anything runs, and none of its steps depends on another one having happened: a failure is
//! shortened by leaving steps out. What a step is about (an engine, a task) is a number that is taken modulo what
//! there is when its time has come.

use super::super::*;
use super::generator::Generator;

/// Virtual time since the start of a run, in microseconds.
pub(super) type Micros = u64;

pub(super) const MILLISECOND: Micros = 1_000;
pub(super) const SECOND: Micros = 1_000_000;

/// How long the controller is away at most.
const RESTART_TIME_MAX: Micros = SECOND / 2;

/// Everything that a seed decides, but for delays and what engines do with a task, which depend on their own names.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) settings: Settings,
    pub(super) habits: Habits,
    pub(super) clients: u64,
    /// How long the shell tries to send what cannot be sent: 5 s, or less, so that it comes to the end of it.
    pub(super) try_time: Micros,
    pub(super) steps: Vec<Step>,
    /// When faults end and everything that can come back does.
    pub(super) healed_at: Micros,
    /// Whether the controller is killed now and then; clients number their messages as stock clients do.
    pub(super) has_restarts: bool,
    /// Whether it ends with a client that shuts the cluster down; else engines leave one by one.
    pub(super) is_shut_down: bool,
}

/// How engines behave, in percent of what they are given.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    pub(super) fails: u64,
    pub(super) declines: u64,
    pub(super) crashes: u64,
    pub(super) answers_twice: u64,
    pub(super) takes_long: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Its place in the whole plan: requests are named after it.
    pub(super) number: usize,
    pub(super) at: Micros,
    pub(super) action: Action,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Launch {
        first: u32,
        ranks: u32,
        is_ours: bool,
        wish: Option<u32>,
    },
    Direct {
        client: u64,
        engine: Aim,
        msg_type: &'static str,
    },
    Control {
        client: u64,
        engine: Aim,
        order: Order,
    },
    Tasks {
        client: u64,
        count: usize,
        shape: Shape,
    },
    Broadcast {
        client: u64,
        engines: Vec<Aim>,
        is_coalescing: bool,
    },
    Ask {
        client: u64,
        question: Question,
    },
    Suffer {
        engine: u64,
        fault: Fault,
    },
    /// One of a client's connections breaks.
    Unplug {
        client: u64,
        socket: u64,
        time: Micros,
    },
    /// A client ends without waiting for its answers.
    Vanish {
        client: u64,
    },
    /// The controller is killed; another one goes on after that time.
    Restart {
        time: Micros,
    },
}

/// Which engine is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim {
    Living(u64),
    Anyone(u64),
    Nobody,
}

#[derive(Clone, Debug)]
pub(super) enum Order {
    /// These of the tasks submitted last.
    Abort(Vec<u64>),
    AbortAll,
    Signal,
    Shutdown,
    Clear,
}

/// Metadata of a balanced task.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) retries: u32,
    pub(super) timeout: Option<Micros>,
    pub(super) priority: i32,
    pub(super) targets: Vec<Aim>,
    pub(super) after: Needed,
    pub(super) follow: Needed,
    /// The client thinks better of it at once: the abort may overtake the task.
    pub(super) is_aborted: bool,
}

/// Which earlier tasks a task depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Needed {
    /// Counted back from the last one.
    pub(super) tasks: Vec<u64>,
    pub(super) all: bool,
    pub(super) success: bool,
    pub(super) failure: bool,
    pub(super) is_unknown: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    Connection,
    Queue { is_verbose: bool },
    Load,
    ClusterStatus,
    Records,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The process ends. If nobody sees it, its host is gone as well; a supervisor may tell the hub.
    Kill { is_seen: bool, told_after: Option<Micros> },
    /// The process stands still; its connections stand.
    Stop(Micros),
    /// The heart does not echo; all else works.
    Mute(Micros),
    /// The heart's connection breaks.
    BreakHeart(Micros),
    /// All connections break.
    BreakAll(Micros),
    /// One connection that is not the heart's breaks.
    BreakOne { socket: u64, time: Micros },
    /// Everything takes long.
    Slow(Micros),
    /// Ends in order: says so on the output channel, or to the hub.
    Leave { by_output: bool },
    /// Registers once more under its name.
    RegisterAnew,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Plan {
        let mut draw = Generator::of(&[seed, 0]);
        let span = draw.pick(&[SECOND / 5, SECOND, 4 * SECOND]);
        let periods: &[u64] = if span > SECOND { &[200, 500] } else { &[50, 200, 500] };
        let period = Duration::from_millis(draw.pick(periods));
        let mut settings = Settings {
            heartbeat_period: period,
            heartbeat_misses: draw.pick(&[2, 4, 10]),
            reconnect_grace: Duration::from_millis(draw.pick(&[20, 200, 200, 1_000])),
            settle_time: Duration::from_millis(draw.pick(&[0, 50])),
            registration_timeout: Duration::from_millis(draw.pick(&[500, 3_000])),
            window: draw.pick(&[None, None, Some(1), Some(2), Some(5), Some(0)]),
            scheme: draw.pick(&[
                Scheme::LeastLoad,
                Scheme::LeastLoad,
                Scheme::Lru,
                Scheme::PlainRandom,
                Scheme::TwoBin,
                Scheme::Weighted,
            ]),
            seed: draw.next(),
            connection_info: Json::Object(serde_json::Map::new()),
            restorable: draw.chance(50),
        };
        let habits = Habits {
            fails: draw.pick(&[0, 5, 15, 50]),
            declines: draw.pick(&[0, 0, 5, 20]),
            crashes: draw.pick(&[0, 0, 2, 10]),
            answers_twice: draw.pick(&[0, 0, 2]),
            takes_long: draw.pick(&[0, 0, 2, 10]),
        };
        let clients = draw.between(1, 4);
        let try_time = draw.pick(&[100 * MILLISECOND, 100 * MILLISECOND, 5 * SECOND]);
        let mut steps = Draft { draw, span, clients, engines: 0, steps: vec![] }.finish();
        let mut draw = Generator::of(&[seed, 5]);
        let has_restarts = draw.chance(35);
        if has_restarts {
            settings.restorable = true;
            for _ in 0..draw.pick(&[1, 1, 2, 3]) {
                let (at, time) = (draw.below(span), draw.between(1, RESTART_TIME_MAX));
                steps.push(Step { number: steps.len(), at, action: Action::Restart { time } });
            }
            steps.sort_by_key(|step| step.at);
        }
        let mut draw = Generator::of(&[seed, 1]);
        Plan {
            seed,
            settings,
            habits,
            clients,
            try_time,
            steps,
            healed_at: span + SECOND / 10 + if has_restarts { RESTART_TIME_MAX } else { 0 },
            has_restarts,
            is_shut_down: draw.chance(15),
        }
    }
}

/// A plan that is being drawn up.
struct Draft {
    draw: Generator,
    span: Micros,
    clients: u64,
    engines: u32,
    steps: Vec<Step>,
}

/// Kinds of steps, and of faults; a seed leaves some of them out altogether and prefers others, because what
/// happens seldom together is seldom found together.
const KINDS: usize = 9;
const FAULTS: usize = 9;

impl Draft {
    fn finish(mut self) -> Vec<Step> {
        for _ in 0..self.draw.between(1, 4) {
            let at = self.draw.below(self.span / 4);
            self.launch(at);
        }
        let kinds: Vec<u64> = (0..KINDS).map(|_| self.draw.pick(&[0, 1, 1, 4])).collect();
        let faults: Vec<u64> = (0..FAULTS).map(|_| self.draw.pick(&[0, 0, 1, 3])).collect();
        for _ in 0..self.draw.pick(&[10, 30, 60, 100]) {
            let at = self.draw.below(self.span);
            let Some(kind) = self.weighted(&kinds) else { continue };
            self.step(kind, at, &faults);
        }
        self.steps.sort_by_key(|step| step.at);
        self.steps
    }

    fn weighted(&mut self, weights: &[u64]) -> Option<usize> {
        let total: u64 = weights.iter().sum();
        let mut rest = if total == 0 { return None } else { self.draw.below(total) };
        weights.iter().position(|weight| {
            let found = rest < *weight;
            rest = rest.saturating_sub(*weight);
            found
        })
    }

    fn push(&mut self, at: Micros, action: Action) {
        self.steps.push(Step { number: self.steps.len(), at, action });
    }

    fn launch(&mut self, at: Micros) {
        let is_ours = self.draw.chance(60);
        let ranks = if is_ours && self.draw.chance(30) { self.draw.between(2, 4) as u32 } else { 1 };
        let wish = (is_ours && self.draw.chance(70)).then(|| self.draw.below(4) as u32);
        let wish = if ranks > 1 { Some(0) } else { wish };
        self.push(at, Action::Launch { first: self.engines, ranks, is_ours, wish });
        self.engines += ranks;
    }

    fn aim(&mut self) -> Aim {
        let number = self.draw.next();
        match self.draw.below(20) {
            0 => Aim::Nobody,
            1 | 2 => Aim::Anyone(number),
            _ => Aim::Living(number),
        }
    }

    fn needed(&mut self) -> Needed {
        let count = self.draw.between(1, 3);
        let success = self.draw.chance(80);
        Needed {
            tasks: (0..count).map(|_| self.draw.below(12)).collect(),
            all: self.draw.chance(60),
            success,
            failure: !success || self.draw.chance(30),
            is_unknown: self.draw.chance(3),
        }
    }

    fn shape(&mut self) -> Shape {
        let targets = if self.draw.chance(25) { self.draw.between(1, 3) } else { 0 };
        Shape {
            retries: self.draw.pick(&[0, 0, 1, 3]),
            timeout: self.draw.chance(25).then(|| self.draw.between(1, 400) * MILLISECOND),
            priority: self.draw.pick(&[0, 0, 0, -1, 7]),
            targets: (0..targets).map(|_| self.aim()).collect(),
            after: if self.draw.chance(20) { self.needed() } else { Needed::default() },
            follow: if self.draw.chance(15) { self.needed() } else { Needed::default() },
            is_aborted: self.draw.chance(4),
        }
    }

    fn step(&mut self, kind: usize, at: Micros, faults: &[u64]) {
        let client = self.draw.next();
        let action = match kind {
            0 => {
                self.launch(at);
                return;
            }
            1 => Action::Direct {
                client,
                engine: self.aim(),
                msg_type: self.draw.pick(&[
                    "apply_request",
                    "execute_request",
                    "execute_request",
                    "comm_msg",
                ]),
            },
            2 => {
                let order = match self.draw.below(10) {
                    0..=5 => Order::Abort((0..self.draw.between(1, 4)).map(|_| self.draw.below(8)).collect()),
                    6 => Order::AbortAll,
                    7 => Order::Signal,
                    8 => Order::Clear,
                    _ => Order::Shutdown,
                };
                Action::Control { client, engine: self.aim(), order }
            }
            3 | 4 => {
                let count = if kind == 3 { 1 } else { self.draw.between(2, 20) as usize };
                Action::Tasks { client, count, shape: self.shape() }
            }
            5 => {
                let count = self.draw.below(5);
                let engines = (0..count).map(|_| self.aim()).collect();
                Action::Broadcast { client, engines, is_coalescing: self.draw.chance(50) }
            }
            6 => Action::Ask {
                client,
                question: self.draw.pick(&[
                    Question::Connection,
                    Question::Queue { is_verbose: false },
                    Question::Queue { is_verbose: true },
                    Question::Load,
                    Question::ClusterStatus,
                    Question::Records,
                    Question::Unknown,
                ]),
            },
            _ => match self.draw.below(10) {
                0 => Action::Unplug { client, socket: self.draw.next(), time: self.time() },
                1 if self.clients > 1 => Action::Vanish { client },
                _ => match self.weighted(faults) {
                    Some(fault) => Action::Suffer { engine: self.draw.next(), fault: self.fault(fault) },
                    None => return,
                },
            },
        };
        self.push(at, action);
    }

    /// How long something takes: a moment or for ever, as heartbeats see it.
    fn time(&mut self) -> Micros {
        let most = self.draw.pick(&[10, 300, 1_000, 10_000]);
        self.draw.between(1, most) * MILLISECOND
    }

    fn fault(&mut self, fault: usize) -> Fault {
        let time = self.time();
        match fault {
            0 => Fault::Kill {
                is_seen: self.draw.chance(70),
                told_after: self.draw.chance(30).then(|| self.draw.below(SECOND)),
            },
            1 => Fault::Stop(time),
            2 => Fault::Mute(time),
            3 => Fault::BreakHeart(time),
            4 => Fault::BreakAll(time),
            5 => Fault::BreakOne { socket: self.draw.next(), time },
            6 => Fault::Slow(time.min(SECOND)),
            7 => Fault::Leave { by_output: self.draw.chance(50) },
            _ => Fault::RegisterAnew,
        }
    }
}
