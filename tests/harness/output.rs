//! The shapes that `-o json` prints, as DESIGN.md section 8 promises them to scripts. A field
//! that is missing or renamed fails the tests; one that was added doesn't.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `diff -o json` and `apply -o json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    pub commit: String,
    pub digest: String,
    pub steps: Vec<Step>,
    pub routes: Vec<Route>,
    pub waiting: Vec<Waiting>,
    pub blocked: Vec<BlockedApp>,
    /// What waits for a person as a whole, such as a rewritten history.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// Of `apply` only.
    #[serde(default)]
    pub outcome: Vec<Outcome>,
}

impl Plan {
    /// The ids of approvals that a person may give, with the reasons why they are asked.
    pub fn approvals(&self) -> BTreeMap<String, String> {
        let of_apps = self
            .waiting
            .iter()
            .filter_map(|waiting| waiting.approval.clone().map(|id| (id, waiting.reason.clone())));
        let of_all = self.approvals.iter().map(|asked| (asked.id.clone(), asked.reason.clone()));
        of_apps.chain(of_all).collect()
    }

    /// The one approval that is asked for: its id.
    #[track_caller]
    pub fn approval(&self) -> String {
        let ids: Vec<_> = self.approvals().into_keys().collect();
        assert_eq!(ids.len(), 1, "one approval is asked for: {self:#?}");
        ids[0].clone()
    }

    /// The steps that concern an app.
    pub fn steps_of<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a Step> {
        self.steps.iter().filter(move |step| step.app.as_deref() == Some(app))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Step {
    /// A word or a number, unique in its plan.
    pub id: serde_json::Value,
    pub kind: String,
    #[serde(default)]
    pub app: Option<String>,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub balancer: Option<String>,
    pub after: Vec<serde_json::Value>,
    pub summary: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    pub route: String,
    pub app: String,
    pub lowest_healthy: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Waiting {
    #[serde(default)]
    pub app: Option<String>,
    pub reason: String,
    #[serde(default)]
    pub approval: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct BlockedApp {
    #[serde(default)]
    pub app: Option<String>,
    pub file: String,
    pub line: u32,
    pub reason: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Outcome {
    pub id: serde_json::Value,
    pub result: String,
    pub seconds: f64,
    #[serde(default)]
    pub error: Option<String>,
}

/// `status -o json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    pub commit: Commits,
    pub approvals: Vec<Approval>,
    pub apps: Vec<AppStatus>,
    pub hosts: Vec<Reachable>,
    pub balancers: Vec<Reachable>,
    /// How often what was done, of a controller since it began.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

impl Status {
    /// An app by `ENVIRONMENT/NAME`.
    #[track_caller]
    pub fn app(&self, id: &str) -> &AppStatus {
        self.find(id).unwrap_or_else(|| panic!("status has no app {id}: {self:?}"))
    }

    pub fn find(&self, id: &str) -> Option<&AppStatus> {
        self.apps.iter().find(|app| format!("{}/{}", app.environment, app.name) == id)
    }

    /// Nothing differs and everybody is well at that commit.
    pub fn is_converged_at(&self, commit: &str) -> bool {
        self.commit.applied.as_deref() == Some(commit)
            && self.apps.iter().all(|app| app.sync == "InSync" && app.health == "Healthy")
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct Commits {
    pub applied: Option<String>,
    pub attempted: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Approval {
    pub id: String,
    pub reason: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    pub environment: String,
    pub name: String,
    pub sync: String,
    pub health: String,
    pub revision: Option<String>,
    pub observed_generation: Option<u64>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Reachable {
    pub name: String,
    pub reachable: bool,
    #[serde(default)]
    pub message: Option<String>,
}
