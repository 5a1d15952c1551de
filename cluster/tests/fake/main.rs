//! A controller and an engine that know just enough to be started, watched and stopped, and that misbehave when
//! told to.
//!
//! `fake_cluster controller [--exit-with=CODE] [--deaf] …`, `fake_cluster engine [--exit-with=CODE] [--silent]
//! [--deaf] [--slow] …`. All other arguments are those that `cluster` gives.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use protocol::connection_file::{ClientFile, Common, EngineFile};
use protocol::id::{EngineId, EngineUuid};
use protocol::message::notification::{EngineNotification, REGISTRATION_NOTIFICATION, SHUTDOWN_NOTIFICATION};
use protocol::message::{Empty, Status, StatusContent, control, hub};
use protocol::{Date, Message, Receiver, Session};
use serde_json::json;
use transport::poll::{PollItem, poll};
use transport::profile::{Profile, ProfileOptions};
use transport::{Context, Received, Sent, Socket, SocketOptions, connection_file, random};

/// Every test is over long before; nothing is left even if a test forgets its processes.
const LIFE_MAX: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = value(&arguments, "exit-with")
        && is_my_rank(&arguments)
    {
        eprintln!("fake {}: something is wrong", arguments[0]);
        return ExitCode::from(code.parse::<u8>().expect("a code below 256"));
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // The deaf one still catches the signal, and then does nothing.
        let flag = if has(&arguments, "deaf") { Arc::default() } else { Arc::clone(&ended) };
        signal_hook::flag::register(signal, flag).expect("signals can be caught");
    }
    let born = std::time::Instant::now();
    let parent = nix::unistd::getppid();
    let is_rank = has(&arguments, "mpi");
    let goes_on = move || {
        // As MPI libraries do: a rank ends when it has lost what started it.
        let lost = is_rank && nix::unistd::getppid() != parent;
        !lost && !ended.load(Ordering::SeqCst) && born.elapsed() < LIFE_MAX
    };
    match arguments[0].as_str() {
        "controller" => Controller::run(&arguments, goes_on),
        "engine" => engine(&arguments, goes_on),
        other => panic!("neither controller nor engine: {other}"),
    }
    println!("fake {}: ended in order", arguments[0]);
    ExitCode::SUCCESS
}

struct Controller {
    queries: Socket,
    notifications: Socket,
    session: Session,
    receiver: Receiver,
    engines: BTreeMap<EngineId, EngineUuid>,
    deaf: bool,
}

impl Controller {
    fn run(arguments: &[String], goes_on: impl Fn() -> bool) {
        let profile = profile(arguments);
        connection_file::create_directories(&profile).unwrap();
        let context = Context::new(1).unwrap();
        let options = SocketOptions::default();
        let queries = Socket::router(&context, &options).unwrap();
        let notifications = Socket::publisher(&context, &options).unwrap();
        let port = |socket: &Socket| {
            let endpoint = socket.bind("tcp://127.0.0.1:*").unwrap();
            endpoint.rsplit(':').next().unwrap().parse().unwrap()
        };
        let common = common(port(&queries));
        let session = Session::new(random::id().into(), "fake", std::process::id(), &common.key());
        let client = ClientFile {
            common: common.clone(),
            notification: port(&notifications),
            broadcast: 1,
            task_scheme: "leastload".into(),
        };
        let engine = EngineFile { common, hb_ping: 1, hb_pong: 1, broadcast: vec![1] };
        let files = [
            connection_file::write(&profile.client_file(), &client).unwrap(),
            connection_file::write(&profile.engine_file(), &engine).unwrap(),
        ];
        let receiver = Receiver::new(session.signer().clone());
        let deaf = has(arguments, "deaf");
        let mut controller =
            Controller { queries, notifications, session, receiver, engines: BTreeMap::new(), deaf };
        while goes_on() && controller.serve() {}
        if !deaf {
            for file in files {
                file.remove_if_ours().unwrap();
            }
        }
    }

    /// Answers what is there; false: a client has asked for the end.
    fn serve(&mut self) -> bool {
        poll(&mut [PollItem::socket(&self.queries)], Some(Duration::from_millis(20))).unwrap();
        while let Some(received) = self.queries.receive().unwrap() {
            let Received::Message(multipart) = received else { continue };
            let Ok((routing, message)) = self.receiver.open(multipart.parts) else { continue };
            match message.header.msg_type.as_str() {
                hub::CONNECTION_REQUEST => {
                    let content = json!({ "status": "ok", "engines": self.engines });
                    self.reply(&routing, &message, hub::CONNECTION_REPLY, &content);
                }
                hub::REGISTRATION_REQUEST => {
                    let request: hub::RegistrationRequest = message.content().unwrap();
                    let id = EngineId(u32::try_from(self.engines.len()).unwrap());
                    self.engines.insert(id, request.uuid.clone());
                    let content = json!({ "status": "ok", "id": id, "hb_period": 3000 });
                    self.reply(&routing, &message, hub::REGISTRATION_REPLY, &content);
                    let joined = EngineNotification { id, uuid: request.uuid, extension: None, reason: None };
                    self.publish(REGISTRATION_NOTIFICATION, &joined);
                }
                control::SHUTDOWN_REQUEST if !self.deaf => {
                    self.reply(
                        &routing,
                        &message,
                        control::SHUTDOWN_REPLY,
                        &StatusContent { status: Status::Ok },
                    );
                    self.publish(SHUTDOWN_NOTIFICATION, &StatusContent::OK);
                    // Time for what is on its way; a real controller stays even longer.
                    poll(&mut [], Some(Duration::from_millis(200))).unwrap();
                    return false;
                }
                _ => {}
            }
        }
        true
    }

    fn reply(
        &mut self,
        routing: &[bytes::Bytes],
        to: &Message,
        msg_type: &str,
        content: &impl serde::Serialize,
    ) {
        let reply = self.session.reply(now(), msg_type, &to.wire.header, &Empty::default(), content, vec![]);
        assert_eq!(self.queries.send(&reply.to_parts(routing)).unwrap(), Sent::Done);
    }

    fn publish(&mut self, msg_type: &str, content: &impl serde::Serialize) {
        let message = self.session.message(now(), msg_type, &Empty::default(), content, vec![]);
        assert_eq!(self.notifications.send(&message.to_parts(&[])).unwrap(), Sent::Done);
    }
}

fn engine(arguments: &[String], goes_on: impl Fn() -> bool) {
    let profile = profile(arguments);
    let file: EngineFile = connection_file::read(&profile.engine_file()).unwrap();
    let client_file: ClientFile = connection_file::read(&profile.client_file()).unwrap();
    let context = Context::new(1).unwrap();
    let uuid = random::id();
    let hub = Socket::dealer(&context, &SocketOptions::identified(uuid.as_bytes())).unwrap();
    let news = Socket::subscriber(&context, &SocketOptions::default()).unwrap();
    news.connect(&file.common.url(client_file.notification)).unwrap();
    hub.connect(&file.common.url(file.common.registration)).unwrap();
    let mut session = Session::new(uuid.as_str().into(), "fake", std::process::id(), &file.common.key());
    let mut receiver = Receiver::new(session.signer().clone());
    if !has(arguments, "silent") {
        let request = json!({ "uuid": uuid });
        let request = session.message(now(), hub::REGISTRATION_REQUEST, &Empty::default(), &request, vec![]);
        assert_eq!(hub.send(&request.to_parts(&[])).unwrap(), Sent::Done);
    }
    while goes_on() {
        poll(&mut [PollItem::socket(&news)], Some(Duration::from_millis(20))).unwrap();
        while let Some(received) = news.receive().unwrap() {
            let Received::Message(multipart) = received else { continue };
            let (_, message) = receiver.open(multipart.parts).unwrap();
            if message.header.msg_type == SHUTDOWN_NOTIFICATION && !has(arguments, "deaf") {
                if has(arguments, "slow") {
                    // As one whose user code ends in a moment.
                    poll(&mut [], Some(Duration::from_millis(300))).unwrap();
                    println!("fake engine: {}", if goes_on() { "took its time" } else { "was hurried" });
                }
                return;
            }
        }
    }
}

fn common(registration: u16) -> Common {
    Common {
        ssh: String::new(),
        interface: "tcp://127.0.0.1".into(),
        registration,
        control: 1,
        mux: 1,
        task: 1,
        iopub: 1,
        key: random::key(),
        curve_serverkey: None,
        curve_publickey: None,
        curve_secretkey: None,
        location: String::new(),
        addresses: vec![],
        buffer_digests: Default::default(),
        pack: "json".into(),
        unpack: "json".into(),
        signature_scheme: "hmac-sha256".into(),
    }
}

fn profile(arguments: &[String]) -> Profile {
    let options = ProfileOptions {
        profile_dir: Some(value(arguments, "profile-dir").expect("cluster tells the profile").into()),
        cluster_id: value(arguments, "cluster-id"),
        ..ProfileOptions::default()
    };
    Profile::locate(&options, |_| None).unwrap()
}

/// With `--rank=R`, only that rank of an MPI world misbehaves.
fn is_my_rank(arguments: &[String]) -> bool {
    let own = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].iter().find_map(|name| std::env::var(name).ok());
    value(arguments, "rank").is_none_or(|rank| own == Some(rank))
}

fn value(arguments: &[String], name: &str) -> Option<String> {
    arguments.iter().find_map(|argument| argument.strip_prefix(&format!("--{name}="))).map(str::to_owned)
}

fn has(arguments: &[String], name: &str) -> bool {
    arguments.iter().any(|argument| *argument == format!("--{name}"))
}

fn now() -> Date {
    Date::from_system_time(SystemTime::now())
}
