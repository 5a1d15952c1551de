//! Talking to a controller's hub: who is here, who comes and goes, and the request to shut down.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use protocol::connection_file::ClientFile;
use protocol::error::ErrorContent;
use protocol::extension::{self, ClusterStatus, EngineDescription};
use protocol::id::EngineId;
use protocol::message::notification::{
    EngineNotification, REGISTRATION_NOTIFICATION, SHUTDOWN_NOTIFICATION, UNREGISTRATION_NOTIFICATION,
};
use protocol::message::{Empty, Status, control, hub};
use protocol::{Date, Message, Receiver, Session};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::poll::{PollItem, poll};
use transport::{Context, Curve, Received, Socket, SocketOptions};

use crate::failure::{Code, Failure};

/// One reply is awaited so long: the hub answers at once unless its machine is overloaded.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A hub that is merely probed for has less time.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// An engine that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Its number.
    pub id: EngineId,
    /// Where it runs, unless it is a stock engine.
    pub description: Option<EngineDescription>,
}

/// What the hub says of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An engine can be used from now on.
    Joined(Engine),
    /// An engine is gone, for this reason if the hub gave one.
    Left(EngineId, Option<String>),
    /// The controller shuts down because it was asked to.
    ShuttingDown,
    /// All engines there are: the answer to [`HubLink::ask_for_engines`].
    Engines(Vec<Engine>),
}

/// A connection to the hub: queries and notifications.
pub struct HubLink {
    queries: Socket,
    notifications: Socket,
    session: Session,
    receiver: Receiver,
    /// When the last answer was made, by the controller's clock, and when it came, by ours.
    answered: Option<(Date, Date)>,
}

impl HubLink {
    /// Connects to the controller that wrote this client connection file. That it answers is not known yet.
    pub fn connect(client_file: &Path) -> Result<HubLink, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Code::LostContact, "failed to contact the controller").because(error.to_string())
        };
        let text = transport::connection_file::read_private(client_file).map_err(|error| failed(&error))?;
        let file = ClientFile::parse(&String::from_utf8_lossy(&text)).map_err(|error| failed(&error))?;
        let options = SocketOptions {
            // The controller runs but a moment: what cannot connect at once must try again soon.
            reconnect_interval: Duration::from_millis(20),
            curve: Curve::of_peer(file.common.curve_serverkey.as_deref(), &file.common)
                .map_err(|error| failed(&error))?,
            ..SocketOptions::default()
        };
        let interface = transport::reach::choose(&file.common, &file.common.location).interface;
        let connect = || {
            let context = Context::new(1)?;
            let notifications = Socket::subscriber(&context, &options)?;
            notifications.connect(&format!("{interface}:{}", file.notification))?;
            let queries = Socket::dealer(&context, &options)?;
            queries.connect(&format!("{interface}:{}", file.common.registration))?;
            Ok((queries, notifications))
        };
        let (queries, notifications) =
            connect().map_err(|error: transport::TransportError| failed(&error))?;
        let user = std::env::var("USER").unwrap_or_else(|_| "username".to_owned());
        let id = transport::random::id().into();
        let session = Session::new(id, user, std::process::id(), &file.common.key());
        let receiver = session.receiver();
        Ok(HubLink { queries, notifications, session, receiver, answered: None })
    }

    /// Asks who is here; the answer comes as [`News::Engines`].
    pub fn ask_for_engines(&mut self) -> Result<(), Failure> {
        self.send(hub::CONNECTION_REQUEST, &Empty::default())
    }

    /// What the hub said, waiting for it until `deadline`. Messages that do not
    /// concern us or are not signed with the cluster's key are skipped.
    pub fn next_news(&mut self, deadline: Instant) -> Result<Option<News>, Failure> {
        while let Some(message) = self.next_message(deadline)? {
            if let Some(news) = news_of(&message) {
                return Ok(Some(news));
            }
        }
        Ok(None)
    }

    /// All engines there are.
    pub fn engines(&mut self, timeout: Duration) -> Result<Vec<Engine>, Failure> {
        let reply: hub::ConnectionReply =
            self.ask(hub::CONNECTION_REQUEST, &Empty::default(), hub::CONNECTION_REPLY, timeout)?;
        Ok(engines_of(reply))
    }

    /// Everything the hub knows of the cluster. A stock hub cannot answer this.
    pub fn status(&mut self) -> Result<ClusterStatus, Failure> {
        self.ask(
            extension::CLUSTER_STATUS_REQUEST,
            &Empty::default(),
            extension::CLUSTER_STATUS_REPLY,
            ANSWER_TIMEOUT,
        )
    }

    /// Asks the controller to end the engines and then itself.
    pub fn shut_down(&mut self, timeout: Duration) -> Result<(), Failure> {
        let _: serde_json::Value =
            self.ask(control::SHUTDOWN_REQUEST, &Empty::default(), control::SHUTDOWN_REPLY, timeout)?;
        Ok(())
    }

    /// How far the controller's clock is from ours, as the last answer shows.
    pub fn clock_skew(&self) -> Option<Duration> {
        let (made, came) = self.answered?;
        Some(Duration::from_micros(made.micros().abs_diff(came.micros())))
    }

    fn ask<T: DeserializeOwned>(
        &mut self,
        request: &str,
        content: &impl Serialize,
        reply: &str,
        timeout: Duration,
    ) -> Result<T, Failure> {
        self.send(request, content)?;
        let deadline = Instant::now() + timeout;
        while let Some(message) = self.next_message(deadline)? {
            let msg_type = message.header.msg_type.as_str();
            if msg_type != reply && msg_type != hub::HUB_ERROR {
                continue;
            }
            if let Ok(error) = message.content::<protocol::message::Failure>()
                && error.status == Status::Error
            {
                let ErrorContent { ename, evalue, .. } = error.error;
                return Err(Failure::failed(format!("the hub refused {request}"))
                    .because(format!("{ename}: {evalue}")));
            }
            self.answered = message.header.date.map(|made| (made, Date::from_system_time(SystemTime::now())));
            return message
                .content()
                .map_err(|error| Failure::failed("failed to read the hub's answer").caused_by(error));
        }
        Err(Failure::new(Code::LostContact, format!("the controller did not answer within {timeout:?}"))
            .hint("see its log with: cluster logs controller"))
    }

    fn send(&mut self, msg_type: &str, content: &impl Serialize) -> Result<(), Failure> {
        let now = Date::from_system_time(SystemTime::now());
        let message = self.session.message(now, msg_type, &Empty::default(), content, Vec::new());
        self.queries.send(&message.to_parts(&[])).map(|_| ()).map_err(lost)
    }

    fn next_message(&mut self, deadline: Instant) -> Result<Option<Message>, Failure> {
        loop {
            for socket in [&self.notifications, &self.queries] {
                while let Some(received) = socket.receive().map_err(lost)? {
                    // What is too large, unsigned or garbled is none of ours: the ports are open to the host.
                    if let Received::Message(multipart) = received
                        && let Ok((_, message)) = self.receiver.open(multipart.parts)
                    {
                        return Ok(Some(message));
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut items = [PollItem::socket(&self.notifications), PollItem::socket(&self.queries)];
            poll(&mut items, Some(left)).map_err(lost)?;
        }
    }
}

/// Whether a controller answers under this connection file.
pub fn answers(client_file: &Path) -> bool {
    client_file.exists()
        && HubLink::connect(client_file).and_then(|mut hub| hub.engines(PROBE_TIMEOUT)).is_ok()
}

fn news_of(message: &Message) -> Option<News> {
    match message.header.msg_type.as_str() {
        REGISTRATION_NOTIFICATION => {
            let joined: EngineNotification = message.content().ok()?;
            Some(News::Joined(Engine { id: joined.id, description: joined.extension }))
        }
        UNREGISTRATION_NOTIFICATION => {
            let left: EngineNotification = message.content().ok()?;
            Some(News::Left(left.id, left.reason))
        }
        SHUTDOWN_NOTIFICATION => Some(News::ShuttingDown),
        hub::CONNECTION_REPLY => Some(News::Engines(engines_of(message.content().ok()?))),
        _ => None,
    }
}

fn engines_of(reply: hub::ConnectionReply) -> Vec<Engine> {
    let mut descriptions = reply.extension.map(|extension| extension.engines).unwrap_or_default();
    reply.engines.into_keys().map(|id| Engine { id, description: descriptions.remove(&id) }).collect()
}

fn lost(error: transport::TransportError) -> Failure {
    Failure::new(Code::LostContact, "failed to talk to the controller").caused_by(error)
}
