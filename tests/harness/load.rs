//! Users: a steady stream of requests through HAProxy that counts everything that a user would
//! notice. GET and POST, on connections that are kept and on a new one for each request.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// A port of 127.0.0.1.
    pub port: u16,
    /// The Host header.
    pub host: String,
    /// Where GET goes. POST goes to `/echo` and has to come back as it was.
    pub path: String,
    /// How many users of each of the four kinds there are.
    pub users_of_each_kind: usize,
    /// Requests that each user sends in a second.
    pub requests_per_second: u32,
    /// An answer that takes longer is lost.
    pub timeout: Duration,
    /// Half of the users keep their connections.
    pub keeps_alive: bool,
}

impl LoadOptions {
    /// Eight users with 320 requests a second together: enough to hit every moment of a
    /// rollout, little enough to leave two processors to Plimsoll.
    pub fn new(port: u16, host: &str) -> Self {
        Self {
            port,
            host: host.to_owned(),
            path: "/".to_owned(),
            users_of_each_kind: 2,
            requests_per_second: 40,
            timeout: Duration::from_secs(5),
            keeps_alive: true,
        }
    }

    /// Users who open a connection for each request. An old worker closes kept connections when
    /// HAProxy is reloaded, and a request that was just sent on one is reset: HAProxy 2.6 did so
    /// to 374 of 2,124,880 at 40 reloads, and to none with a connection for each request.
    ///
    /// A worker that was replaced lets those go, with 408 and within two seconds, who have
    /// connected and haven't asked for anything yet. On a machine so busy that a user comes to
    /// that late, they connect once more, as browsers do.
    pub fn through_reloads(self) -> Self {
        Self { keeps_alive: false, ..self }
    }
}

/// What the users saw.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    pub requests: u64,
    /// Answers with status 200 and the right body.
    pub good: u64,
    /// Answers with another status, by status.
    pub wrong_status: BTreeMap<u16, u64>,
    /// Answers to a POST whose body isn't what was sent.
    pub wrong_body: u64,
    /// Connections that were refused or couldn't be made.
    pub refused: u64,
    /// Connections that ended after a request was sent and before its answer was whole.
    pub reset: u64,
    pub timed_out: u64,
    pub slowest: Duration,
    /// Good answers by the server that the header `X-Host` names.
    pub by_server: BTreeMap<String, u64>,
    /// The first failures, in words, with the time since the load began.
    pub first_failures: Vec<String>,
}

impl LoadReport {
    /// Requests that a user would have noticed.
    pub fn lost(&self) -> u64 {
        self.requests - self.good
    }

    /// Panics when a request was lost, or when there were too few to tell.
    #[track_caller]
    pub fn expect_none_lost(&self, at_least: u64) {
        assert!(self.lost() == 0, "{} requests were lost: {self:#?}", self.lost());
        assert!(self.good >= at_least, "too few requests to tell: {self:#?}");
    }
}

enum Failure {
    Refused(String),
    Reset(String),
    TimedOut,
    Status(u16),
    Body,
}

/// Load that runs on a thread of its own until it is stopped.
pub struct Load {
    stop: watch::Sender<bool>,
    report: Arc<Mutex<LoadReport>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Load {
    pub fn start(options: LoadOptions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let report = Arc::new(Mutex::new(LoadReport::default()));
        let written = report.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(send_all(options, &stopped, &written));
        });
        Self { stop, report, thread: Some(thread) }
    }

    /// What was seen so far.
    pub fn so_far(&self) -> LoadReport {
        self.report.lock().unwrap().clone()
    }

    /// Lets the requests that are under way end, and returns what was seen.
    pub fn stop(mut self) -> LoadReport {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

async fn send_all(
    options: LoadOptions,
    stopped: &watch::Receiver<bool>,
    report: &Arc<Mutex<LoadReport>>,
) {
    let begin = Instant::now();
    let mut users = tokio::task::JoinSet::new();
    for number in 0..options.users_of_each_kind * 4 {
        let user = User {
            options: options.clone(),
            method: if number % 2 == 0 { Method::GET } else { Method::POST },
            keeps_alive: options.keeps_alive && number % 4 < 2,
            connection: None,
            begin,
        };
        users.spawn(user.run(stopped.clone(), report.clone()));
    }
    users.join_all().await;
}

struct User {
    options: LoadOptions,
    method: Method,
    keeps_alive: bool,
    connection: Option<SendRequest<Full<Bytes>>>,
    begin: Instant,
}

impl User {
    async fn run(mut self, stopped: watch::Receiver<bool>, report: Arc<Mutex<LoadReport>>) {
        let mut turn = interval(Duration::from_secs(1) / self.options.requests_per_second);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u64;
        while !*stopped.borrow() {
            turn.tick().await;
            number += 1;
            let sent = Instant::now();
            let result = timeout(self.options.timeout, self.ask_patiently(number)).await;
            let result = result.unwrap_or(Err(Failure::TimedOut));
            if result.is_err() || !self.keeps_alive {
                self.connection = None;
            }
            self.note(&mut report.lock().unwrap(), result, sent.elapsed());
        }
    }

    fn note(&self, report: &mut LoadReport, result: Result<String, Failure>, took: Duration) {
        report.requests += 1;
        report.slowest = report.slowest.max(took);
        let why = match result {
            Ok(server) => {
                report.good += 1;
                *report.by_server.entry(server).or_default() += 1;
                return;
            }
            Err(Failure::Refused(why)) => {
                report.refused += 1;
                format!("refused: {why}")
            }
            Err(Failure::Reset(why)) => {
                report.reset += 1;
                format!("reset: {why}")
            }
            Err(Failure::TimedOut) => {
                report.timed_out += 1;
                "timed out".to_owned()
            }
            Err(Failure::Status(status)) => {
                *report.wrong_status.entry(status).or_default() += 1;
                format!("status {status}")
            }
            Err(Failure::Body) => {
                report.wrong_body += 1;
                "wrong body".to_owned()
            }
        };
        if report.first_failures.len() < 10 {
            let kept = if self.keeps_alive { "kept" } else { "new" };
            let at = self.begin.elapsed().as_secs_f64();
            let method = &self.method;
            report
                .first_failures
                .push(format!("{at:.3} s: {method} on a {kept} connection: {why}"));
        }
    }

    /// Sends one request, and once more where it came too late to an old worker.
    async fn ask_patiently(&mut self, number: u64) -> Result<String, Failure> {
        match self.ask(number).await {
            Err(Failure::Status(408)) if !self.options.keeps_alive => {
                self.connection = None;
                self.ask(number).await
            }
            result => result,
        }
    }

    /// Sends one request. Returns the server that answered.
    async fn ask(&mut self, number: u64) -> Result<String, Failure> {
        let body = match self.method {
            Method::POST => Bytes::from(format!("message {number} of {:p}", &raw const *self)),
            _ => Bytes::new(),
        };
        let response = self.send(&body).await?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let server = header("x-host").unwrap_or_default();
        let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let answer = response.into_body().collect().await;
        let answer = answer.map_err(|error| Failure::Reset(describe(&error)))?.to_bytes();
        if closes {
            self.connection = None;
        }
        if status != 200 {
            return Err(Failure::Status(status));
        }
        if self.method == Method::POST && answer != body {
            return Err(Failure::Body);
        }
        Ok(server)
    }

    /// A kept connection that was closed before anything was sent on it is no loss: any client
    /// opens another one then.
    async fn send(&mut self, body: &Bytes) -> Result<Response<hyper::body::Incoming>, Failure> {
        loop {
            let kept = self.connection.take();
            let is_new = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            if connection.ready().await.is_err() && !is_new {
                continue;
            }
            match connection.send_request(self.request(body)).await {
                Ok(response) => {
                    self.connection = Some(connection);
                    return Ok(response);
                }
                Err(error) if error.is_canceled() && !is_new => {}
                Err(error) => return Err(Failure::Reset(describe(&error))),
            }
        }
    }

    fn request(&self, body: &Bytes) -> Request<Full<Bytes>> {
        let path = if self.method == Method::POST { "/echo" } else { &self.options.path };
        let mut request =
            Request::builder().method(&self.method).uri(path).header("host", &self.options.host);
        if !self.keeps_alive {
            request = request.header("connection", "close");
        }
        request.body(Full::new(body.clone())).expect("the request is well-formed")
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.options.port));
        let refused = |error: std::io::Error| Failure::Refused(error.to_string());
        let stream = TcpStream::connect(address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Reset(describe(&error)))?;
        // Its end is seen by the sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
