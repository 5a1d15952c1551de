//! Engines and clients that do nothing but speak the wire, so that what is measured or tested is the controller.
//!
//! They behave like stock peers: no extension is announced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use protocol::connection_file::{ClientFile, EngineFile};
use protocol::id::{EngineId, EngineUuid, SessionId};
use protocol::message::execute::{APPLY_REPLY, APPLY_REQUEST};
use protocol::message::hub::{CONNECTION_REQUEST, REGISTRATION_REQUEST, RegistrationReply};
use protocol::message::{Empty, StatusContent};
use protocol::{Date, Session, frames};
use serde_json::json;
use transport::poll::{PollItem, poll};
use transport::{Context, Received, Sent, Socket, SocketOptions};

/// Patience with anything that must happen.
const DEADLINE: Duration = Duration::from_secs(20);

fn now() -> Date {
    Date::from_system_time(SystemTime::now())
}

fn session(id: &str, key: &protocol::Key) -> Session {
    Session::new(SessionId::from(id), "bench", std::process::id(), key)
}

/// Receives one message, or gives up.
fn receive(socket: &Socket, patience: Duration) -> Result<Vec<Bytes>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(Received::Message(message)) = socket.receive()? {
            return Ok(message.parts);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer within {patience:?}");
        }
        poll(&mut [PollItem::socket(socket)], Some(left))?;
    }
}

fn send(socket: &Socket, parts: &[Bytes]) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while socket.send(parts)? != Sent::Done {
        if Instant::now() > deadline {
            bail!("a message could not be sent within {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Engines that answer every request at once, on a thread of their own until dropped.
pub struct StubEngines {
    /// Their names, in the order of their registration.
    pub uuids: Vec<EngineUuid>,
    /// Their ids, in the same order.
    pub ids: Vec<EngineId>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct StubEngine {
    id: EngineId,
    session: Session,
    shell: Socket,
    ping: Option<Socket>,
    pong: Option<Socket>,
    /// Kept open: the controller knows an engine by it.
    _control: Option<Socket>,
}

impl StubEngines {
    /// Registers `n` engines with a controller, all at once.
    pub fn register(context: &Context, file: &EngineFile, n: usize) -> Result<StubEngines> {
        let asked = (0..n).map(|_| Registering::ask(context, file)).collect::<Result<Vec<_>>>()?;
        let engines =
            asked.into_iter().map(|asked| asked.finish(context, file)).collect::<Result<Vec<_>>>()?;
        Ok(StubEngines::serve(engines))
    }

    /// One engine at a relay that knows no registration.
    pub fn at_relay(context: &Context, endpoint: &str, key: &protocol::Key) -> Result<StubEngines> {
        let uuid = transport::random::id();
        let shell = Socket::router(context, &SocketOptions::identified(uuid.as_bytes()))?;
        shell.connect(endpoint)?;
        let engine = StubEngine {
            id: EngineId(0),
            session: session(&uuid, key),
            shell,
            ping: None,
            pong: None,
            _control: None,
        };
        Ok(StubEngines::serve(vec![engine]))
    }

    fn serve(engines: Vec<StubEngine>) -> StubEngines {
        let uuids = engines.iter().map(|engine| EngineUuid::from(engine.session.id().as_str())).collect();
        let ids = engines.iter().map(|engine| engine.id).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(engines, &stopped));
        StubEngines { uuids, ids, stop, thread: Some(thread) }
    }
}

impl Drop for StubEngines {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = self.thread.take().and_then(|thread| thread.join().ok()) {
            eprintln!("bench: the stub engines failed: {error:#}");
        }
    }
}

/// An engine that has asked to join.
struct Registering {
    session: Session,
    options: SocketOptions,
    registration: Socket,
}

impl Registering {
    fn ask(context: &Context, file: &EngineFile) -> Result<Registering> {
        let uuid = transport::random::id();
        let mut session = session(&uuid, &file.common.key());
        let options = SocketOptions::identified(uuid.as_bytes());
        let registration = Socket::dealer(context, &options)?;
        registration.connect(&file.common.url(file.common.registration))?;
        let request =
            session.message(now(), REGISTRATION_REQUEST, &Empty {}, &json!({ "uuid": uuid }), vec![]);
        send(&registration, &request.to_parts(&[]))?;
        Ok(Registering { session, options, registration })
    }

    fn finish(self, context: &Context, file: &EngineFile) -> Result<StubEngine> {
        let Registering { session, options, registration } = self;
        let (_, reply) = frames::split(receive(&registration, DEADLINE).context("registration")?)?;
        let reply: RegistrationReply = serde_json::from_slice(&reply.content)?;

        let shell = Socket::router(context, &options)?;
        for port in [file.common.mux, file.common.task, file.broadcast_port(reply.id)] {
            shell.connect(&file.common.url(port))?;
        }
        let control = Socket::router(context, &options)?;
        control.connect(&file.common.url(file.common.control))?;
        let ping = Socket::subscriber(context, &SocketOptions::default())?;
        ping.connect(&file.common.url(file.hb_ping))?;
        let pong = Socket::dealer(context, &options)?;
        pong.connect(&file.common.url(file.hb_pong))?;
        let (ping, pong, _control) = (Some(ping), Some(pong), Some(control));
        Ok(StubEngine { id: reply.id, session, shell, ping, pong, _control })
    }
}

impl StubEngine {
    fn answer(&mut self, parts: Vec<Bytes>) -> Result<()> {
        let (routing, request) = frames::split(parts)?;
        let metadata = json!({
            "started": now(), "dependencies_met": true, "engine": self.session.id(), "is_broadcast": false,
            "is_coalescing": false, "original_msg_id": "", "label": null, "status": "ok",
        });
        let reply = self.session.reply(
            now(),
            APPLY_REPLY,
            &request.header,
            &metadata,
            &StatusContent::OK,
            request.buffers,
        );
        send(&self.shell, &reply.to_parts(&routing))
    }
}

fn serve(mut engines: Vec<StubEngine>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut items: Vec<PollItem<'_>> = engines
            .iter()
            .flat_map(|engine| std::iter::once(&engine.shell).chain(&engine.ping))
            .map(PollItem::socket)
            .collect();
        poll(&mut items, Some(Duration::from_millis(50)))?;
        drop(items);
        for engine in &mut engines {
            while let Some(Received::Message(message)) = engine.shell.receive()? {
                engine.answer(message.parts)?;
            }
            if let (Some(ping), Some(pong)) = (&engine.ping, &engine.pong) {
                while let Some(Received::Message(message)) = ping.receive()? {
                    let _ = pong.send(&message.parts)?;
                }
            }
        }
    }
    Ok(())
}

/// A client of one channel.
pub struct StubClient {
    session: Session,
    socket: Socket,
}

impl StubClient {
    /// Connects to one channel of a controller.
    pub fn connect(context: &Context, endpoint: &str, key: &protocol::Key) -> Result<StubClient> {
        let socket = Socket::dealer(context, &SocketOptions::default())?;
        socket.connect(endpoint)?;
        Ok(StubClient { session: session(&transport::random::id(), key), socket })
    }

    /// Submits a request that asks for nothing; `target` is the engine on the direct channel.
    pub fn submit(&mut self, target: Option<&EngineUuid>, payload: &Bytes) -> Result<()> {
        let metadata = json!({ "label": null });
        let buffers = if payload.is_empty() { vec![] } else { vec![payload.clone()] };
        let request = self.session.message(now(), APPLY_REQUEST, &metadata, &Empty {}, buffers);
        let routing: Vec<Bytes> =
            target.map(|uuid| Bytes::copy_from_slice(uuid.as_str().as_bytes())).into_iter().collect();
        send(&self.socket, &request.to_parts(&routing))
    }

    /// Submits a request that asks for nothing to all of these; each answers by itself.
    pub fn submit_to_all(&mut self, targets: &[(EngineUuid, EngineId)]) -> Result<()> {
        let metadata = json!({ "targets": targets, "is_broadcast": true, "is_coalescing": false });
        let request = self.session.message(now(), APPLY_REQUEST, &metadata, &Empty {}, vec![]);
        send(&self.socket, &request.to_parts(&[]))
    }

    /// Waits for the next reply.
    pub fn reply(&mut self) -> Result<()> {
        let (_, reply) = frames::split(receive(&self.socket, DEADLINE).context("reply")?)?;
        let content: StatusContent = serde_json::from_slice(&reply.content)?;
        if content.status != protocol::message::Status::Ok {
            bail!("a request failed: {}", String::from_utf8_lossy(&reply.content));
        }
        Ok(())
    }

    /// Submits until one reply comes: what was sent before the engine was connected is lost.
    pub fn wait_for_route(&mut self, target: &EngineUuid) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            self.submit(Some(target), &Bytes::new())?;
            if receive(&self.socket, Duration::from_millis(100)).is_ok() {
                // Answers to earlier attempts may still come.
                while receive(&self.socket, Duration::from_millis(100)).is_ok() {}
                return Ok(());
            }
        }
        bail!("the engine could not be reached within {DEADLINE:?}")
    }
}

/// Waits until a controller counts `n` engines.
pub fn wait_for_engines(context: &Context, file: &ClientFile, n: usize) -> Result<()> {
    let query = Socket::dealer(context, &SocketOptions::default())?;
    query.connect(&file.common.url(file.common.registration))?;
    let mut session = session(&transport::random::id(), &file.common.key());
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let request = session.message(now(), CONNECTION_REQUEST, &Empty {}, &Empty {}, vec![]);
        send(&query, &request.to_parts(&[]))?;
        let (_, reply) = frames::split(receive(&query, DEADLINE)?)?;
        let content: serde_json::Value = serde_json::from_slice(&reply.content)?;
        if content["engines"].as_object().is_some_and(|engines| engines.len() >= n) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("{n} engines did not register within {DEADLINE:?}")
}
