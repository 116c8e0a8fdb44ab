//! Manifests as values that a test changes before it writes them.

use serde_json::{Value, json};

use super::engine::Engine;

/// A manifest's envelope and spec.
pub fn document(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "plimsoll/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}

pub fn environment(name: &str) -> Value {
    document("Environment", name, &json!({}))
}

pub fn host(name: &str, engine: &Engine, address: &str, ports: &str) -> Value {
    document("Host", name, &json!({"engine": engine.url(), "address": address, "ports": ports}))
}

/// The demo app in environment `production`, two replicas on each of both hosts, behind listener
/// `web` of balancer `edge` at `NAME.example.com`. Checked often, so that tests are quick.
pub fn app(name: &str) -> Value {
    let mut app = document(
        "App",
        name,
        &json!({
            "image": "web:1",
            "port": 8080,
            "hosts": ["alpha", "beta"],
            "replicas": 2,
            "routes": [
                {"balancer": "edge", "listener": "web", "host": format!("{name}.example.com")},
            ],
            "health": {"path": "/_status", "interval": "500ms", "timeout": "1s", "deadline": "20s"},
            "drain": "5s",
            "stop": {"grace": "5s"},
        }),
    );
    app["metadata"]["environment"] = json!("production");
    app
}

/// The same manifest with one more field of its spec, named by a JSON pointer such as
/// `/env/VERSION`; what is above the field is made where it is missing.
#[must_use]
pub fn set(mut manifest: Value, pointer: &str, value: impl Into<Value>) -> Value {
    let mut place = &mut manifest["spec"];
    for part in pointer.trim_start_matches('/').split('/') {
        place = &mut place[part];
    }
    *place = value.into();
    manifest
}
