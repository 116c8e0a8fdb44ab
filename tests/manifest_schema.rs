//! The schema and the reader agree: what one takes the other takes, and each field is known to
//! both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plimsoll::manifest::schema::{
    AppDocument, AppSpec, BalancerDocument, EnvironmentDocument, HostDocument, InstallationDocument,
};
use plimsoll::manifest::{Reader, json_schema, reference_markdown};
use plimsoll::model::{CommitId, Content, Files, Guards, Health, Rollout, Stop};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/manifest/ok")
}

/// The documents of the fixture: text, and value as YAML has it.
fn documents() -> Vec<String> {
    let mut documents = Vec::new();
    for file in [
        "installation.yaml",
        "fleet/hosts.YAML",
        "fleet/balancers.yml",
        "fleet/environments.yaml",
        "apps/production/web.yaml",
        "apps/production/database.yaml",
        "apps/worker.yml",
    ] {
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        let text = text.replace("\n...\n", "\n");
        let parts = text.split("---\n").filter(|part| part.contains("kind:"));
        documents.extend(parts.map(str::to_owned));
    }
    documents
}

fn value(document: &str) -> Value {
    serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{document}"))
}

#[test]
fn the_schema_is_a_schema_and_takes_the_fixture() {
    let schema = json_schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for document in documents() {
        let value = value(&document);
        let errors: Vec<_> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{document}");
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let app = |spec: Value| {
        json!({"apiVersion": "plimsoll/v1alpha1", "kind": "App",
            "metadata": {"name": "web", "environment": "production"}, "spec": spec})
    };
    let fine = json!({"image": "web:1", "hosts": ["alpha"]});
    assert!(validator.is_valid(&app(fine.clone())));
    for wrong in [
        json!({"replica": 2}),
        json!({"image": 5}),
        json!({"replicas": -1}),
        json!({"weights": {"alpha": 257}}),
        json!({"health": {"interval": "1 second"}}),
        json!({"rollout": {"strategy": "canary"}}),
        json!({"volumes": [{"name": "a", "host": "/a", "at": "/a"}]}),
        json!({"env": {"A": {"secert": "x"}}}),
    ] {
        let mut spec = fine.clone();
        spec.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        assert!(!validator.is_valid(&app(spec)), "{wrong}");
    }
    assert!(!validator.is_valid(&app(json!({"image": "web:1"}))));
    assert!(validator.is_valid(&app(json!({"base": "web.yaml"}))));
    assert!(!validator.is_valid(&json!({"kind": "Pod"})));
}

#[test]
fn the_types_take_the_fixture() {
    for document in documents() {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind: ")).unwrap();
        let result = match kind {
            "Installation" => serde_saphyr::from_str::<InstallationDocument>(&document).map(drop),
            "Environment" => serde_saphyr::from_str::<EnvironmentDocument>(&document).map(drop),
            "Host" => serde_saphyr::from_str::<HostDocument>(&document).map(drop),
            "Balancer" => serde_saphyr::from_str::<BalancerDocument>(&document).map(drop),
            _ => serde_saphyr::from_str::<AppDocument>(&document).map(drop),
        };
        assert!(result.is_ok(), "{result:?}\n{document}");
    }
    for base in ["base/service.yaml", "base/web.yaml"] {
        let text = std::fs::read_to_string(folder().join(base)).unwrap();
        let base = serde_saphyr::from_str::<AppSpec>(&text);
        assert!(base.is_ok(), "{base:?}");
    }
}

/// The fields that the reader knows of a mapping, from what it says to an unknown one.
fn known_to_the_reader(document: &str) -> BTreeSet<String> {
    let bytes = Bytes::from(document.to_owned());
    let content = Content::Bytes { blob: "b".into(), bytes };
    let files = BTreeMap::from([("a.yaml".to_owned(), content)]);
    let reading = Reader::new().read(&Files { commit: CommitId::worktree(), files });
    let hint = reading
        .diagnostics
        .iter()
        .find(|diagnostic| diagnostic.message.starts_with("`zzzzzz` is no field"))
        .and_then(|diagnostic| diagnostic.hint.clone())
        .unwrap_or_else(|| panic!("{:?}\n{document}", reading.diagnostics));
    let names = hint
        .strip_prefix("the fields are ")
        .or_else(|| hint.strip_prefix("the only field is "))
        .unwrap();
    names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn each_field_is_known_to_both() {
    let schema = json_schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let spec = |kind: &str, spec: &str| {
        let environment = if kind == "App" { ", environment: e" } else { "" };
        format!(
            "apiVersion: plimsoll/v1alpha1\nkind: {kind}\nmetadata: {{name: n{environment}}}\nspec: {spec}\n"
        )
    };
    let metadata = |kind: &str| {
        let document = spec(kind, "{}");
        document.replace("{name: n", "{zzzzzz: 1, name: n")
    };
    let mut checked = BTreeSet::new();
    for (definition, document) in [
        ("Installation", format!("zzzzzz: 1\n{}", spec("Installation", "{}"))),
        ("InstallationMetadata", metadata("Installation")),
        ("InstallationSpec", spec("Installation", "{zzzzzz: 1}")),
        ("GuardsSpec", spec("Installation", "{guards: {zzzzzz: 1}}")),
        ("Environment", format!("zzzzzz: 1\n{}", spec("Environment", "{}"))),
        ("NameMetadata", metadata("Host")),
        ("EnvironmentSpec", spec("Environment", "{zzzzzz: 1}")),
        ("SecretSpec", spec("Environment", "{env: {A: {zzzzzz: 1}}}")),
        ("Host", format!("zzzzzz: 1\n{}", spec("Host", "{}"))),
        ("HostSpec", spec("Host", "{zzzzzz: 1}")),
        ("AllowSpec", spec("Host", "{allow: {zzzzzz: 1}}")),
        ("Balancer", format!("zzzzzz: 1\n{}", spec("Balancer", "{}"))),
        ("BalancerSpec", spec("Balancer", "{zzzzzz: 1}")),
        ("ListenerSpec", spec("Balancer", "{listen: [{zzzzzz: 1}]}")),
        ("ListenerTlsSpec", spec("Balancer", "{listen: [{tls: {zzzzzz: 1}}]}")),
        ("ExternalSpec", spec("Balancer", "{external: {zzzzzz: 1}}")),
        ("App", format!("zzzzzz: 1\n{}", spec("App", "{}"))),
        ("AppMetadata", metadata("App")),
        ("AppSpec", spec("App", "{zzzzzz: 1}")),
        ("VolumeSpec", spec("App", "{volumes: [{zzzzzz: 1}]}")),
        ("CapabilitiesSpec", spec("App", "{capabilities: {zzzzzz: 1}}")),
        ("UlimitPair", spec("App", "{ulimits: {nofile: {zzzzzz: 1}}}")),
        ("LimitsSpec", spec("App", "{limits: {zzzzzz: 1}}")),
        ("StopSpec", spec("App", "{stop: {zzzzzz: 1}}")),
        ("RouteSpec", spec("App", "{routes: [{zzzzzz: 1}]}")),
        ("HealthSpec", spec("App", "{health: {zzzzzz: 1}}")),
        ("RolloutSpec", spec("App", "{rollout: {zzzzzz: 1}}")),
    ] {
        let fields = definitions[definition]["properties"].as_object().unwrap();
        let fields: BTreeSet<_> = fields.keys().cloned().collect();
        assert_eq!(fields, known_to_the_reader(&document), "{definition}");
        checked.insert(definition.to_owned());
    }
    let with_fields = definitions.iter().filter(|(_, value)| value.get("properties").is_some());
    let with_fields: BTreeSet<_> = with_fields.map(|(name, _)| name.clone()).collect();
    assert_eq!(with_fields, checked);
}

#[test]
fn the_defaults_are_those_of_the_model() {
    let schema = json_schema();
    let default = |definition: &str, field: &str| {
        schema["$defs"][definition]["properties"][field]["default"].clone()
    };
    let health = Health::default();
    let Rollout::Rolling { surge, unavailable } = Rollout::default();
    for (definition, field, value) in [
        ("HealthSpec", "interval", json!(health.interval)),
        ("HealthSpec", "timeout", json!(health.timeout)),
        ("HealthSpec", "deadline", json!(health.deadline)),
        ("HealthSpec", "settle", json!(health.settle)),
        ("StopSpec", "grace", json!(Stop::default().grace)),
        ("RolloutSpec", "surge", json!(surge)),
        ("RolloutSpec", "unavailable", json!(unavailable)),
        ("GuardsSpec", "prune", json!(format!("{}%", Guards::default().prune_percent))),
    ] {
        assert_eq!(default(definition, field), value, "{definition}.{field}");
    }
}

#[test]
fn everything_is_described_and_in_the_reference() {
    let schema = json_schema();
    let reference = reference_markdown();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        assert!(definition.get("description").is_some(), "{name} isn't described");
        for (field, value) in definition["properties"].as_object().into_iter().flatten() {
            let is_described =
                ["description", "$ref", "anyOf"].iter().any(|key| value.get(key).is_some());
            assert!(is_described, "{name}.{field} isn't described");
            let is_envelope = matches!(&**field, "apiVersion" | "kind" | "metadata" | "spec");
            assert!(is_envelope || reference.contains(&format!("| `{field}` |")), "{name}.{field}");
        }
    }
    assert_eq!(reference, reference_markdown());
}

#[test]
fn the_reference_reads_well() {
    let reference = reference_markdown();
    println!("{reference}");
    for line in [
        "| `image` | text |  | The image, `[REGISTRY/]NAME[:TAG][@sha256:DIGEST]`. A tag is resolved to a digest when this field changes, and pinned. | `image: localhost:5000/web:1.5.0` |",
        "| `grace` | text | `10s` | How long it has until it is killed. |  |",
    ] {
        assert!(reference.contains(line), "{line}");
    }
}
