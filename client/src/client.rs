//! The connection to a cluster, and who is there.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use protocol::extension::{
    CLUSTER_STATUS_REQUEST, ClusterStatus, ENGINE_STATUS_REQUEST, EngineStatus, ExplainRequest,
    TASK_EXPLAIN_REQUEST, TaskExplanation,
};
use protocol::id::{EngineId, MsgId, SessionId};
use protocol::message::Empty;
use protocol::message::control::{SHUTDOWN_REQUEST, Shutdown};
use protocol::message::hub::{QUEUE_REQUEST, QueueLengths, QueueRequest, Target};
use protocol::session::Session;
use transport::tunnel::Tunnel;
use transport::wake::waker;

use crate::async_result::AsyncResult;
use crate::connection::{Board, Connection};
use crate::engines::{Engine, EngineTable};
use crate::error::ClientError;
use crate::machine::Contact;
use crate::options::{ConnectOptions, interface};
use crate::outcome::Answer;
use crate::shell::{Channels, Shell};
use crate::targets::Targets;
use crate::view::{BalancedView, View};

/// How long a connection may take before it is looked at whether anybody listens at all.
const PROBE_AFTER: Duration = Duration::from_millis(300);

/// A connection to a cluster. Clones share it; it closes with the last of clones, views and results.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
    timeout: Duration,
}

impl Client {
    /// Connects to the cluster that the options name, or the default one.
    pub fn connect(options: &ConnectOptions) -> Result<Client, ClientError> {
        let (path, file) = options.load()?;
        let tunnel = options.tunnel(&path, &file)?.map(Arc::new);
        let interface = tunnel.as_ref().map_or_else(|| interface(&file), |tunnel| tunnel.interface());
        let channels = Channels::connect(&file, &interface)?;
        let id = SessionId::from(transport::random::id());
        let key = file.common.key();
        let user = std::env::var("USER").unwrap_or_else(|_| "username".to_owned());
        let digests = file.common.buffer_digests;
        let session = Session::new(id.clone(), &user, std::process::id(), &key).with_digests(digests);
        // The background thread numbers its own messages: another process number keeps them apart.
        let own = Session::new(id, &user, 0, &key).with_digests(digests);

        let (waker, wake) = waker()?;
        let (sender, commands) = mpsc::channel();
        let board = Arc::new(Board::default());
        let shell = Shell::new(channels, own, commands, wake, Arc::clone(&board), tunnel.clone());
        let thread = std::thread::Builder::new()
            .name("cluster client".to_owned())
            .spawn(move || shell.run())
            .map_err(|error| ClientError::Invalid(format!("start the client's thread: {error}")))?;
        let connection = Connection::new(session, sender, waker, board, thread);
        let address = format!("{interface}:{}", file.common.registration);
        let client = Client { connection, timeout: options.timeout };
        client.await_contact(&path, &address, tunnel.as_deref())?;
        Ok(client)
    }

    fn await_contact(&self, path: &Path, address: &str, tunnel: Option<&Tunnel>) -> Result<(), ClientError> {
        let begun = Instant::now();
        let contact = |timeout| {
            self.connection.board().wait(timeout, |news| match &news.contact {
                Contact::Unknown => None,
                contact => Some(contact.clone()),
            })
        };
        let first = contact(PROBE_AFTER.min(self.timeout));
        let answer = match first {
            Some(contact) => Some(contact),
            None if nobody_listens(address) => None,
            None => contact(self.timeout.saturating_sub(begun.elapsed())),
        };
        let reason = match answer {
            Some(Contact::Good) => return Ok(()),
            Some(Contact::Lost { cause }) => cause.to_string(),
            Some(Contact::Unknown) | None => {
                let news = self.connection.board().lock();
                match (&news.obstacle, news.connected) {
                    (Some(obstacle), _) => obstacle.clone(),
                    (None, true) => format!(
                        "it did not answer within {:.1} s: it hangs, or the key in the file is not its own",
                        begun.elapsed().as_secs_f64()
                    ),
                    (None, false) if begun.elapsed() < self.timeout => "nobody listens there".to_owned(),
                    (None, false) => {
                        format!("no connection within {:.1} s", begun.elapsed().as_secs_f64())
                    }
                }
            }
        };
        let reason = match tunnel {
            Some(tunnel) => {
                format!("{reason}; through ssh to {}, which said: {}", tunnel.server(), tunnel.last_words())
            }
            None => reason,
        };
        Err(ClientError::NoAnswer { path: path.to_owned(), address: address.to_owned(), reason })
    }

    /// The ids of the engines that are here now, in order.
    pub fn ids(&self) -> Vec<EngineId> {
        self.connection.engines().ids()
    }

    /// The engines that are here now, in order of their ids.
    pub fn engines(&self) -> Vec<Arc<Engine>> {
        self.connection.engines().iter().cloned().collect()
    }

    /// The engines that are here now, as a table.
    pub fn engine_table(&self) -> Arc<EngineTable> {
        self.connection.engines()
    }

    /// How it stands with the controller.
    pub fn contact(&self) -> Contact {
        self.connection.board().lock().contact.clone()
    }

    /// Waits until at least `count` engines are here.
    pub fn wait_for_engines(&self, count: usize, timeout: Duration) -> Result<Vec<EngineId>, ClientError> {
        enum Found {
            Enough(Vec<EngineId>),
            Lost(Arc<str>),
        }
        let found = self.connection.board().wait(timeout, |news| match &news.contact {
            Contact::Lost { cause } => Some(Found::Lost(Arc::clone(cause))),
            _ => (news.engines.len() >= count).then(|| Found::Enough(news.engines.ids())),
        });
        match found {
            Some(Found::Enough(ids)) => Ok(ids),
            Some(Found::Lost(cause)) => Err(ClientError::LostContact(cause)),
            None => {
                let here = self.ids().len();
                Err(ClientError::Timeout {
                    waited: timeout,
                    missing: format!("{} of {count} engines", count - here.min(count)),
                })
            }
        }
    }

    /// These engines, each addressed by name.
    pub fn direct(&self, targets: impl Into<Targets>) -> View {
        View::new(self.connection.clone(), targets.into(), self.timeout)
    }

    /// All engines that are here when something is asked.
    pub fn all(&self) -> View {
        self.direct(Targets::All)
    }

    /// These engines, asked with one message that the controller multiplies.
    ///
    /// The same as [`Client::direct`], which does so wherever the engines can take it; here for readers who come
    /// from ipyparallel.
    pub fn broadcast(&self, targets: impl Into<Targets>) -> View {
        self.direct(targets)
    }

    /// Whichever engines have room.
    pub fn balanced(&self) -> BalancedView {
        BalancedView::new(self.connection.clone())
    }

    /// How much waits and runs on each engine, and how many balanced tasks wait for one.
    pub fn queue_status(
        &self,
        targets: &Targets,
    ) -> Result<(BTreeMap<EngineId, QueueLengths>, usize), ClientError> {
        let targets = match targets {
            Targets::All => None,
            some => {
                let engines = some.resolve(&self.connection.engines())?;
                let ids = engines.iter().map(|engine| Target::Id(i64::from(engine.id.0))).collect();
                Some(protocol::message::hub::Targets::Many(ids))
            }
        };
        let content = QueueRequest { targets, verbose: false };
        let reply: serde_json::Map<String, serde_json::Value> =
            self.connection.query_now(QUEUE_REQUEST, &content, self.timeout)?;
        let unassigned = reply.get("unassigned").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let lengths = reply.into_iter().filter_map(|(key, value)| {
            Some((EngineId(key.parse().ok()?), serde_json::from_value(value).ok()?))
        });
        Ok((lengths.collect(), usize::try_from(unassigned).unwrap_or(usize::MAX)))
    }

    /// Everything worth seeing of the controller and its engines. Stock controllers do not know this request.
    pub fn cluster_status(&self) -> Result<ClusterStatus, ClientError> {
        self.connection.query_now(CLUSTER_STATUS_REQUEST, &Empty {}, self.timeout)
    }

    /// Why a task has not ended. Stock controllers do not know this request; an unknown task is a `KeyError`.
    pub fn explain(&self, task: &MsgId) -> Result<TaskExplanation, ClientError> {
        let request = ExplainRequest { msg_id: task.clone() };
        self.connection.query_now(TASK_EXPLAIN_REQUEST, &request, self.timeout)
    }

    /// The balanced tasks that wait in the controller, of all clients, in the order of their submission.
    pub fn waiting_tasks(&self) -> Result<Vec<MsgId>, ClientError> {
        #[derive(serde::Deserialize)]
        struct Unassigned {
            unassigned: Vec<MsgId>,
        }
        let request = QueueRequest { targets: None, verbose: true };
        let queues: Unassigned = self.connection.query_now(QUEUE_REQUEST, &request, self.timeout)?;
        Ok(queues.unassigned)
    }

    /// What each engine of ours does now, answered within `timeout` even while user code runs. Engines that did
    /// not answer are left out.
    pub fn engine_status(
        &self,
        targets: &Targets,
        timeout: Duration,
    ) -> Result<BTreeMap<EngineId, EngineStatus>, ClientError> {
        let mut engines = targets.resolve(&self.connection.engines())?;
        engines.retain(|engine| engine.is_ours());
        let asked = self.connection.control(&engines, ENGINE_STATUS_REQUEST, &Empty {});
        asked.wait(timeout);
        let outcomes = asked.outcomes().into_iter().flatten();
        let statuses = outcomes.filter_map(|outcome| match (outcome.id(), outcome.result) {
            (Some(id), Ok(Answer::Content(content))) => Some((id, serde_json::from_value(content).ok()?)),
            _ => None,
        });
        Ok(statuses.collect())
    }

    /// Ends the whole cluster: the controller tells the engines and ends.
    pub fn shutdown_cluster(&self) -> Result<(), ClientError> {
        let engines = self.engines();
        let asked = self.connection.control(&engines, SHUTDOWN_REQUEST, &Shutdown::default());
        // Engines that are stuck or gone end with the controller.
        asked.wait(Duration::from_secs(2).min(self.timeout));
        match self.connection.query_now::<serde_json::Value>(SHUTDOWN_REQUEST, &Empty {}, self.timeout) {
            // The news that it ends may overtake its reply.
            Ok(_) | Err(ClientError::LostContact(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends everything that these requests have not begun.
    pub fn abort<'a>(&self, results: impl IntoIterator<Item = &'a AsyncResult>) -> Result<(), ClientError> {
        results.into_iter().try_for_each(|result| {
            let asked = result.abort()?;
            asked.join(self.timeout).map(drop)
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("engines", &self.ids()).finish_non_exhaustive()
    }
}

/// Whether a TCP address refuses connections: libzmq tries again in silence, a person wants to know at once.
fn nobody_listens(address: &str) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    let tried = match address.split_once("://") {
        Some(("tcp", place)) => match place.parse::<SocketAddr>() {
            Ok(place) => TcpStream::connect_timeout(&place, Duration::from_secs(1)).map(drop),
            Err(_) => return false,
        },
        Some(("ipc", path)) => UnixStream::connect(path).map(drop),
        _ => return false,
    };
    tried.is_err_and(|error| matches!(error.kind(), ConnectionRefused | NotFound))
}
