//! The API from the other end: typed requests to a node's socket. A shell.
//!
//! A connection is made for each request: a local socket costs microseconds, and no state is left that could go stale.

mod cron;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::BlobHash;

use super::socket;
use super::wire::{
    Blob, Deleted, Deploy, ErrorBody, ErrorWords, HasLeft, Image, Label, Labelled, LogEvent, Logs, MadeTicket,
    NewTicket, Node, NodeSet, RemovedNode, Revised, Revision, Scale, Service, ServiceUsage, Status, Ticket, Version,
    WaitFor, WaitForDrain, Waited,
};

/// Longest answer that is taken whole. A list of ten thousand instances has some ten megabytes.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;

/// Longest line of a stream of lines: one line of output in JSON, escaped.
const LINE_LEN_MAX: usize = 8 * 1024 * 1024;

/// Longest that a connection to a local socket may take: only a node with a full backlog lets anybody wait.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How much longer than asked for a held-back answer may take on its way.
const HELD_ANSWER_SLACK: Duration = Duration::from_secs(5);

type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

/// Why a request was not answered as wished.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node answers at the socket.
    #[error("no node answers at {path}: {cause}")]
    NoNode {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The node refused it.
    #[error("{}", .0.message)]
    Refused(ErrorWords),
    /// The node did not answer in time.
    #[error("the node did not answer within {0:?}")]
    TimedOut(Duration),
    /// The connection broke, or the answer is none of ours.
    #[error("the node's answer broke off: {0}")]
    Broken(String),
}

impl ClientError {
    /// Whether the node refused because there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(words) if words.code == "not_found")
    }
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// A node's API.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// The API at `socket`, each of whose answers may take `timeout`; streams may take as long as they will.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self { socket: socket.into(), timeout }
    }

    /// The socket that it speaks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The node's version.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version").await
    }

    /// The cluster at a glance.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Ends instances, keeper and node; does not wait for the end.
    pub async fn stop(&self) -> Result<(), ClientError> {
        self.send(Method::POST, "/v1/stop", empty()).await.map(drop)
    }

    /// All members.
    pub async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        self.get("/v1/nodes").await
    }

    /// One member.
    pub async fn node(&self, name: &str) -> Result<Node, ClientError> {
        self.get(&node_path(name, "")).await
    }

    /// Sets and removes labels of a member.
    pub async fn label_node(&self, name: &str, label: &Label) -> Result<Labelled, ClientError> {
        self.post(&node_path(name, "/labels"), label).await
    }

    /// Gives a member nothing new, and moves away what it runs.
    pub async fn drain_node(&self, name: &str) -> Result<NodeSet, ClientError> {
        self.post(&node_path(name, "/drain"), &()).await
    }

    /// Undoes that.
    pub async fn uncordon_node(&self, name: &str) -> Result<NodeSet, ClientError> {
        self.post(&node_path(name, "/uncordon"), &()).await
    }

    /// Waits until a member is not draining any more, or the time is over; gives it as it is then.
    pub async fn wait_for_drain(&self, name: &str, wanted: &WaitForDrain) -> Result<Node, ClientError> {
        let query = query_text(&[("timeout_ms", &wanted.timeout_ms.to_string())]);
        let timeout = Duration::from_millis(wanted.timeout_ms) + HELD_ANSWER_SLACK;
        let patient = Self { timeout, ..self.clone() };
        patient.get(&format!("{}?{query}", node_path(name, "/wait"))).await
    }

    /// Takes a member's membership away, for good.
    pub async fn remove_node(&self, name: &str) -> Result<RemovedNode, ClientError> {
        decode(&self.send(Method::DELETE, &format!("/v1/nodes/{}", escaped(name)), empty()).await?)
    }

    /// Takes the node that answers out of its cluster, for good; it ends.
    pub async fn leave(&self) -> Result<HasLeft, ClientError> {
        decode(&self.send(Method::POST, "/v1/leave", empty()).await?)
    }

    /// All services.
    pub async fn services(&self) -> Result<Vec<Service>, ClientError> {
        self.get("/v1/services").await
    }

    /// One service.
    pub async fn service(&self, name: &str) -> Result<Service, ClientError> {
        self.get(&service_path(name, "")).await
    }

    /// What the instances of a service use right now.
    pub async fn usage(&self, name: &str) -> Result<ServiceUsage, ClientError> {
        self.get(&service_path(name, "/usage")).await
    }

    /// All kept revisions of a service, newest first.
    pub async fn history(&self, name: &str) -> Result<Vec<Revision>, ClientError> {
        self.get(&service_path(name, "/history")).await
    }

    /// Stores a revision. May take as long as its `timeout_ms` more.
    pub async fn deploy(&self, deploy: &Deploy) -> Result<Revised, ClientError> {
        let timeout = self.timeout + Duration::from_millis(deploy.timeout_ms);
        let patient = Self { timeout, ..self.clone() };
        patient.post("/v1/services", deploy).await
    }

    /// Forgets a service.
    pub async fn delete(&self, name: &str) -> Result<Deleted, ClientError> {
        decode(&self.send(Method::DELETE, &service_path(name, ""), empty()).await?)
    }

    /// Changes how many instances are wanted.
    pub async fn scale(&self, name: &str, scale: &Scale) -> Result<Revised, ClientError> {
        self.post(&service_path(name, "/scale"), scale).await
    }

    /// Stops all instances of a service.
    pub async fn stop_service(&self, name: &str) -> Result<Revised, ClientError> {
        self.post(&service_path(name, "/stop"), &()).await
    }

    /// Undoes that.
    pub async fn start_service(&self, name: &str) -> Result<Revised, ClientError> {
        self.post(&service_path(name, "/start"), &()).await
    }

    /// Replaces every instance of a service.
    pub async fn restart_service(&self, name: &str) -> Result<Revised, ClientError> {
        self.post(&service_path(name, "/restart"), &()).await
    }

    /// Waits until a revision has arrived or failed, or the time is over.
    pub async fn wait(&self, name: &str, wanted: &WaitFor) -> Result<Waited, ClientError> {
        let query =
            query_text(&[("revision", &wanted.revision.to_string()), ("timeout_ms", &wanted.timeout_ms.to_string())]);
        let timeout = Duration::from_millis(wanted.timeout_ms) + HELD_ANSWER_SLACK;
        let patient = Self { timeout, ..self.clone() };
        patient.get(&format!("{}?{query}", service_path(name, "/wait"))).await
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<Image>, ClientError> {
        self.get("/v1/images").await
    }

    /// The size of a blob on the node; none: it is not there.
    pub async fn blob(&self, hash: BlobHash) -> Result<Option<Blob>, ClientError> {
        match self.get(&format!("/v1/blobs/{hash}")).await {
            Ok(blob) => Ok(Some(blob)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Uploads a blob, for as long as it takes. An error of `content` breaks the upload off, and leaves nothing on the node.
    pub async fn upload(&self, content: BoxStream<'static, io::Result<Bytes>>) -> Result<Blob, ClientError> {
        let body = StreamBody::new(content.map_ok(Frame::data)).boxed_unsync();
        let response = self.respond(Method::POST, "/v1/blobs", body).await?;
        decode(&whole(response).await?)
    }

    /// The tickets that the node made.
    pub async fn tickets(&self) -> Result<Vec<Ticket>, ClientError> {
        self.get("/v1/tickets").await
    }

    /// Makes a ticket.
    pub async fn create_ticket(&self, new: &NewTicket) -> Result<MadeTicket, ClientError> {
        self.post("/v1/tickets", new).await
    }

    /// Makes a ticket worthless.
    pub async fn revoke_ticket(&self, id: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, &format!("/v1/tickets/{}", escaped(id)), empty()).await.map(drop)
    }

    /// Lines of output. The stream ends after [`LogEvent::End`]; without that it was broken off, and its last item says so.
    pub async fn logs(&self, query: &Logs) -> Result<BoxStream<'static, Result<LogEvent, ClientError>>, ClientError> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        let texts = [
            ("app", &query.app),
            ("node", &query.node),
            ("instance", &query.instance),
            ("run", &query.run),
            ("stream", &query.stream),
            ("grep", &query.grep),
        ];
        pairs.extend(texts.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        let numbers = [("since_ns", query.since_ns), ("until_ns", query.until_ns), ("tail", query.tail)];
        pairs.extend(numbers.into_iter().filter_map(|(key, value)| Some((key, value?.to_string()))));
        pairs.push(("follow", query.follow.to_string()));
        let query = query_text(&pairs.iter().map(|(key, value)| (*key, value)).collect::<Vec<_>>());
        let path = format!("/v1/logs?{query}");
        let asked = self.respond(Method::GET, &path, empty());
        let response =
            tokio::time::timeout(self.timeout, asked).await.map_err(|_| ClientError::TimedOut(self.timeout))??;
        Ok(lines(response.into_body()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(&self.send(Method::GET, path, empty()).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(broken)?;
        decode(&self.send(Method::POST, path, full(bytes)).await?)
    }

    /// Sends a request and takes its whole answer, within the time.
    async fn send(&self, method: Method, path: &str, body: RequestBody) -> Result<Bytes, ClientError> {
        let answer = async { whole(self.respond(method, path, body).await?).await };
        tokio::time::timeout(self.timeout, answer).await.map_err(|_| ClientError::TimedOut(self.timeout))?
    }

    /// Sends a request and gives back an answer that is no refusal.
    async fn respond(&self, method: Method, path: &str, body: RequestBody) -> Result<Response<Incoming>, ClientError> {
        let no_node = |cause| ClientError::NoNode { path: self.socket.clone(), cause };
        let stream = tokio::time::timeout(CONNECT_WITHIN, socket::connect(&self.socket))
            .await
            .map_err(|_| no_node(io::ErrorKind::TimedOut.into()))?
            .map_err(no_node)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Carries the bytes of this one exchange, and ends with it.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "narun")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(broken)?;
        let response = sender.send_request(request).await.map_err(|error| broken(chain(&error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(refusal(status, &whole(response).await?))
    }
}

/// An error with its causes: hyper's own texts name only the step.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => ClientError::Refused(body.error),
        Err(_) => broken(format!("HTTP status {status} without an error of ours")),
    }
}

fn empty() -> RequestBody {
    full(Vec::new())
}

fn full(bytes: Vec<u8>) -> RequestBody {
    Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| broken(format!("it cannot be read: {error}")))
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let limited = http_body_util::Limited::new(response.into_body(), ANSWER_LEN_MAX);
    Ok(limited.collect().await.map_err(broken)?.to_bytes())
}

/// The body's JSON lines. Ends with an error unless the last one was `end`.
fn lines(body: Incoming) -> BoxStream<'static, Result<LogEvent, ClientError>> {
    struct Reading {
        body: Incoming,
        rest: BytesMut,
        done: bool,
    }
    let reading = Reading { body, rest: BytesMut::new(), done: false };
    futures::stream::try_unfold(reading, async |mut reading| {
        if reading.done {
            return Ok(None);
        }
        loop {
            if let Some(end) = reading.rest.iter().position(|byte| *byte == b'\n') {
                let line = reading.rest.split_to(end + 1);
                let event: LogEvent = decode(&line)?;
                reading.done = event == LogEvent::End;
                return Ok(Some((event, reading)));
            }
            if reading.rest.len() > LINE_LEN_MAX {
                return Err(broken(format!("a line has more than {LINE_LEN_MAX} bytes")));
            }
            match reading.body.frame().await {
                Some(Ok(frame)) => reading.rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
                Some(Err(error)) => return Err(broken(chain(&error))),
                None => return Err(broken("the node went away")),
            }
        }
    })
    .boxed()
}

fn node_path(name: &str, rest: &str) -> String {
    format!("/v1/nodes/{}{rest}", escaped(name))
}

fn service_path(name: &str, rest: &str) -> String {
    format!("/v1/services/{}{rest}", escaped(name))
}

/// A text as one part of a path or a query (RFC 3986, 2.3).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    // A part of only dots would be taken for a step in the path.
    if out.bytes().all(|byte| byte == b'.') { out.replace('.', "%2E") } else { out }
}

fn query_text(pairs: &[(&str, &String)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect::<Vec<_>>().join("&")
}
