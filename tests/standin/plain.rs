//! Cases in plain HTTP: status codes, texts of errors, the shapes of answers, events and output
//! as they come over the wire.

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::http;
use crate::shape;
use crate::transcript::Transcript;
use crate::world::{IMAGE, RUNS, World, until};

type Case = for<'a> fn(&'a World) -> LocalBoxFuture<'a, Heard>;

/// What came of a case: lines that have to be equal, and answers whose shape has to be.
#[derive(Default)]
pub struct Heard {
    pub lines: Vec<String>,
    pub shapes: Vec<(String, Value)>,
}

/// What people choose: keys there are equal because they were asked for.
const OPEN: [&str; 3] = ["Labels", "Networks", "RootFS"];

pub fn cases() -> [(&'static str, Case); 3] {
    [
        ("refusals", |world| refusals(world).boxed_local()),
        ("answers", |world| answers(world).boxed_local()),
        ("events", |world| events(world).boxed_local()),
    ]
}

/// Where a stand-in's answers have another shape than the engine's.
pub fn shapes(name: &str, real: &Heard, standin: &Heard) -> Vec<String> {
    let pairs = real.shapes.iter().zip(&standin.shapes);
    let of = |((what, real), (_, standin)): (&(String, Value), &(String, Value))| {
        let mut found = shape::differences("", standin, real, &OPEN);
        found.extend(shape::shortness(standin, real).filter(|_| what.contains("/containers/")));
        found.into_iter().map(|found| format!("{name}, {what}: {found}")).collect::<Vec<_>>()
    };
    pairs.flat_map(of).collect()
}

struct Run<'a> {
    world: &'a World,
    transcript: Transcript,
    shapes: Vec<(String, Value)>,
}

impl<'a> Run<'a> {
    fn of(world: &'a World) -> Self {
        Self { world, transcript: Transcript::default(), shapes: Vec::new() }
    }

    /// Asks, and notes the status with the text of an error.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let answer = http::ask(&self.world.socket, method, path, body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let said = if answer.status >= 400 { text.trim() } else { "" };
        let line = format!("{method} {path}");
        let line = self.transcript.without_ids(&line);
        self.transcript.say(&line, (answer.status, said));
        answer.body
    }

    /// Asks, and keeps the answer for its shape.
    async fn shape(&mut self, path: &str) -> Value {
        let body = self.ask("GET", path, "").await;
        let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        self.shapes.push((path.to_owned(), value.clone()));
        value
    }

    /// Makes a container with a plain call.
    async fn create(&mut self, name: &str, body: &Value) -> String {
        let path = format!("/v1.41/containers/create?name={name}");
        let made = self.ask("POST", &path, &body.to_string()).await;
        let made: Value = serde_json::from_slice(&made).unwrap();
        made["Id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    fn end(self) -> Heard {
        Heard { lines: self.transcript.lines, shapes: self.shapes }
    }
}

fn runs() -> Value {
    json!({
        "Image": IMAGE, "Cmd": ["/bin/sh", "-c", RUNS], "Labels": {"team": "a", "b": "c"},
        "Env": ["A=1"], "StopTimeout": 5,
    })
}

async fn refusals(world: &World) -> Heard {
    let mut run = Run::of(world);
    for (method, path) in [
        ("GET", "/v1.99/version"),
        ("GET", "/v1.11/version"),
        ("GET", "/v1.41/nothing"),
        ("GET", "/v1.41/containers/nothing/json"),
        ("POST", "/v1.41/containers/nothing/start"),
        ("POST", "/v1.41/containers/nothing/stop"),
        ("POST", "/v1.41/containers/nothing/kill"),
        ("DELETE", "/v1.41/containers/nothing"),
        ("GET", "/v1.41/containers/nothing/logs?stdout=1"),
        ("GET", "/v1.41/images/nothing/json"),
        ("GET", "/v1.41/images/nothing:1/json"),
    ] {
        run.ask(method, path, "").await;
    }
    let without = json!({"Image": "nothing:1", "Cmd": ["/x"]}).to_string();
    run.ask("POST", "/v1.41/containers/create?name=refused", &without).await;
    let fine = runs().to_string();
    run.ask("POST", "/v1.41/containers/create?name=-x", &fine).await;
    let id = run.create("refused", &runs()).await;
    run.ask("POST", "/v1.41/containers/create?name=refused", &fine).await;
    run.ask("GET", "/v1.41/containers/refused/logs", "").await;
    run.ask("POST", "/v1.41/containers/refused/kill", "").await;
    run.ask("POST", "/v1.41/containers/refused/stop", "").await;
    run.ask("POST", "/v1.41/containers/refused/start", "").await;
    run.ask("POST", "/v1.41/containers/refused/start", "").await;
    run.ask("DELETE", "/v1.41/containers/refused", "").await;
    run.ask("POST", "/v1.41/containers/refused/kill", "").await;
    let gone = format!("/v1.41/containers/{id}/json");
    until("it has ended", async || {
        let answer = http::ask(&world.socket, "GET", &gone, "").await;
        let answer: Value = serde_json::from_slice(&answer.body).ok()?;
        (answer["State"]["Status"] == "exited").then_some(())
    })
    .await;
    run.ask("POST", "/v1.41/containers/refused/kill", "").await;
    run.ask("DELETE", &format!("/v1.41/containers/{}", &id[..12]), "").await;
    run.ask("GET", &gone, "").await;
    run.end()
}

async fn answers(world: &World) -> Heard {
    let mut run = Run::of(world);
    let ping = run.ask("GET", "/_ping", "").await;
    run.transcript.say("ping", String::from_utf8_lossy(&ping));
    run.shape("/version").await;
    run.shape("/v1.41/info").await;
    run.shape(&format!("/v1.41/images/{IMAGE}/json")).await;
    run.shape(&format!("/v1.41/distribution/{}:1/json", world.repository)).await;
    let port = world.port.to_string();
    let mut body = runs();
    body["ExposedPorts"] = json!({"8080/tcp": {}});
    body["HostConfig"] = json!({
        "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]},
        "RestartPolicy": {"Name": "unless-stopped"}, "Memory": 64 << 20,
    });
    body["Cmd"] = json!(["/bin/sh", "-c", format!("echo one; {RUNS}")]);
    let id = run.create("answers", &body).await;
    let inspect = format!("/v1.41/containers/{id}/json");
    let list = "/v1.41/containers/json?all=1&filters=%7B%22name%22%3A%5B%22answers%22%5D%7D";
    for step in ["", "start", "stop"] {
        if !step.is_empty() {
            run.ask("POST", &format!("/v1.41/containers/{id}/{step}"), "").await;
        }
        let inspected = run.shape(&inspect).await;
        let listed = run.shape(list).await;
        let listed = &listed[0];
        let state = &inspected["State"];
        for value in [
            &inspected["Name"],
            &inspected["Path"],
            &inspected["Args"],
            &inspected["RestartCount"],
            &inspected["Config"]["Labels"],
            &inspected["Config"]["Env"],
            &inspected["Config"]["Image"],
            &inspected["HostConfig"]["PortBindings"],
            &inspected["HostConfig"]["RestartPolicy"],
            &inspected["NetworkSettings"]["Ports"],
            &state["Status"],
            &state["Running"],
            &state["ExitCode"],
            &listed["Id"],
            &listed["Names"],
            &listed["Image"],
            &listed["ImageID"],
            &listed["Command"],
            &listed["Labels"],
            &listed["Ports"],
            &listed["State"],
        ] {
            run.transcript.say(if step.is_empty() { "created" } else { step }, value);
        }
        let status = listed["Status"].as_str().unwrap_or_default();
        let words: Vec<_> =
            status.split(' ').take(2).filter(|w| w.parse::<u8>().is_err()).collect();
        run.transcript.say("status", words.first());
    }
    for filter in [
        r#"{"label":["team=a"]}"#,
        r#"{"label":["team=b"]}"#,
        r#"{"label":["team","b=c"]}"#,
        r#"{"status":["exited"],"label":["team"]}"#,
        r#"{"status":["running"],"label":["team"]}"#,
        r#"{"id":["nothing"]}"#,
    ] {
        let filters: String = url::form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        let path = format!("/v1.41/containers/json?all=1&filters={filters}");
        let listed = run.ask("GET", &path, "").await;
        let listed: Value = serde_json::from_slice(&listed).unwrap();
        run.transcript.say(filter, listed.as_array().map(Vec::len));
    }
    let path = format!("/v1.41/containers/{id}/logs?stdout=1&stderr=1");
    let output = run.ask("GET", &path, "").await;
    run.transcript.say("output", output);
    run.ask("DELETE", &format!("/v1.41/containers/{id}?force=1&v=1"), "").await;
    run.end()
}

/// The events of a life, read until the last of it.
async fn events(world: &World) -> Heard {
    let mut run = Run::of(world);
    let filters = r#"{"type":["container"],"label":["team=a"]}"#;
    let filters: String = url::form_urlencoded::byte_serialize(filters.as_bytes()).collect();
    let path = format!("/v1.41/events?filters={filters}");
    let mut stream = http::open(&world.socket, "GET", &path, "").await.into_body();
    let id = run.create("events", &runs()).await;
    for (method, path) in [
        ("POST", format!("/v1.41/containers/{id}/start")),
        ("POST", format!("/v1.41/containers/{id}/stop")),
        ("POST", format!("/v1.41/containers/{id}/start")),
        ("POST", format!("/v1.41/containers/{id}/kill")),
    ] {
        run.ask(method, &path, "").await;
        // The next call comes after the end of its program.
        until("it is what it was asked to be", async || {
            let answer =
                http::ask(&world.socket, "GET", &format!("/containers/{id}/json"), "").await;
            let answer: Value = serde_json::from_slice(&answer.body).ok()?;
            let running = answer["State"]["Running"] == true;
            (running == path.ends_with("start")).then_some(())
        })
        .await;
    }
    run.ask("DELETE", &format!("/v1.41/containers/{id}"), "").await;
    let mut text = String::new();
    while !text.contains("destroy") {
        let frame = stream.frame().await.unwrap().unwrap();
        text += &String::from_utf8_lossy(frame.data_ref().unwrap());
    }
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let mut said = event.clone();
        for time in ["time", "timeNano"] {
            said[time] = event[time].is_number().into();
        }
        run.transcript.say("event", said.to_string());
    }
    run.end()
}
