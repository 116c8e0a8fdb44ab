//! `plimsoll status`: how things are, on one screen.

use clap::Args;

use super::failure::Failure;
use super::output::{Output, Paint};
use super::settings::GlobalArguments;
use super::table::{self, Cell, Tone};
use super::{code, connect, diff, joints, text};
use crate::api::{self, AppStatus, CommitStatus, Health, ReachStatus, Sync};
use crate::model::CommitId;

/// Show the commit, what waits for approval, and the apps, hosts and balancers
#[derive(Debug, Args)]
pub struct Status {}

impl Status {
    pub async fn run(self, global: &GlobalArguments, output: &mut Output) -> Result<u8, Failure> {
        let status = connect::operations(global).await?.status().await?;
        if output.is_text() {
            output.text(&render(&status, output.paint()))?;
        } else {
            output.value(&status)?;
        }
        Ok(code::DONE)
    }
}

fn render(status: &api::Status, paint: Paint) -> String {
    let api::Status {
        installation,
        source,
        commit,
        approvals,
        apps,
        hosts,
        balancers,
        source_error,
        store_error,
        diagnostics,
        // For programs: they say how often, not how it is.
        counters: _,
    } = status;
    let mut head = String::new();
    if !installation.is_empty() {
        head += &format!("installation  {}\n", paint.strong(&text::plain(installation)));
    }
    if !source.is_empty() {
        head += &format!("source        {}\n", text::plain(source));
    }
    head += &format!("commit        {}\n", commit_line(commit));
    if let Some(error) = source_error {
        head += &format!("{} {}\n", paint.bad("source error "), text::plain(error));
    }
    if let Some(error) = store_error {
        head += &format!("{} {}\n", paint.bad("store error  "), text::plain(error));
    }
    let mut sections = vec![head];
    if !approvals.is_empty() {
        sections.push(diff::approvals(approvals, paint));
    }
    if !diagnostics.is_empty() {
        let title = text::count(diagnostics.len(), "mistake");
        let details = joints::render_diagnostics(diagnostics, paint.is_on());
        let title = paint.bad(&format!("{title} in the manifests"));
        sections.push(format!("{title}\n{}\n", details.trim_end()));
    }
    sections.push(if apps.is_empty() { "no apps\n".into() } else { app_table(apps, paint) });
    sections.extend(concerns(apps, paint));
    sections.extend(reach_table("HOST", hosts, paint));
    sections.extend(reach_table("BALANCER", balancers, paint));
    sections.join("\n")
}

/// The applied commit, and the attempted one where it is another.
fn commit_line(commit: &CommitStatus) -> String {
    let short = |commit: &CommitId| text::plain(commit.short()).into_owned();
    match commit {
        CommitStatus { applied: None, attempted: None } => "none yet".into(),
        CommitStatus { applied: None, attempted: Some(attempted) } => {
            format!("none applied yet, {} attempted", short(attempted))
        }
        CommitStatus { applied: Some(applied), attempted } => match attempted {
            Some(attempted) if attempted != applied => {
                format!("{} applied, {} attempted", short(applied), short(attempted))
            }
            _ => format!("{} applied", short(applied)),
        },
    }
}

fn app_table(apps: &[AppStatus], paint: Paint) -> String {
    let rows: Vec<_> = apps.iter().map(app_row).collect();
    table::render(&["APP", "SYNC", "HEALTH", "READY", "REVISION", "IMAGE"], &rows, paint)
}

fn app_row(app: &AppStatus) -> Vec<Cell> {
    let ready_tone = if app.ready < app.replicas { Tone::Caution } else { Tone::Plain };
    vec![
        Cell::new(format!("{}/{}", app.environment, app.name)),
        Cell::toned(format!("{:?}", app.sync), sync_tone(app.sync)),
        Cell::toned(format!("{:?}", app.health), health_tone(app.health)),
        Cell::toned(format!("{}/{}", app.ready, app.replicas), ready_tone),
        Cell::new(app.revision.as_deref().unwrap_or_default()),
        Cell::new(app.image.as_deref().unwrap_or_default()),
    ]
}

fn sync_tone(sync: Sync) -> Tone {
    match sync {
        Sync::InSync => Tone::Good,
        Sync::OutOfSync | Sync::Unknown => Tone::Caution,
    }
}

fn health_tone(health: Health) -> Tone {
    match health {
        Health::Healthy => Tone::Good,
        Health::Progressing | Health::Paused | Health::Unknown => Tone::Caution,
        Health::Degraded | Health::RolledBack => Tone::Bad,
    }
}

/// Why an app isn't in sync and healthy: the messages of its conditions.
fn concerns(apps: &[AppStatus], paint: Paint) -> Option<String> {
    let mut lines = String::new();
    for app in
        apps.iter().filter(|app| !(app.sync == Sync::InSync && app.health == Health::Healthy))
    {
        for condition in app.conditions.iter().filter(|condition| !condition.message.is_empty()) {
            let reason = paint.caution(&text::plain(&condition.reason));
            let message = text::plain(&condition.message);
            lines += &format!("{}/{}  {reason}: {message}\n", app.environment, app.name);
        }
    }
    (!lines.is_empty()).then_some(lines)
}

fn reach_table(heading: &str, all: &[ReachStatus], paint: Paint) -> Option<String> {
    let row = |reach: &ReachStatus| {
        let reachable = if reach.reachable {
            Cell::toned("yes", Tone::Good)
        } else {
            Cell::toned("no", Tone::Bad)
        };
        vec![Cell::new(&reach.name), reachable, Cell::new(&reach.message)]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    (!rows.is_empty()).then(|| table::render(&[heading, "REACHABLE", "MESSAGE"], &rows, paint))
}
