//! One fleet from nothing to converged, and what is measured on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll::api::{Health, Sync};
use tokio::time::Instant;

use crate::controller::Controller;
use crate::home::Home;
use crate::options::{Options, Size};
use crate::process;
use crate::repository::{IMAGE, Repository};
use crate::standin::{Counts, Fleet, Image, StandIn};
use crate::table::Table;

/// Between two looks at what the engines hold, which takes nobody's time but ours.
const PAUSE: Duration = Duration::from_millis(5);

/// How often one app is changed; the median counts.
const CHANGES: usize = 5;

/// From push to converged, 1,000 apps on 100 hosts whose engines answer at once.
const THOUSAND_SECONDS: f64 = 2.0;

/// How much later the others may be because one host hangs: less than one look.
const HANG_SECONDS: f64 = 0.5;

struct Trial<'a> {
    size: Size,
    options: &'a Options,
    table: &'a mut Table,
    home: Home,
    repository: Repository,
    controller: Controller,
}

/// How a push was followed.
struct Followed {
    /// Until the controller read the branch.
    noticed: Duration,
    /// Until everything was as the commit says.
    whole: Duration,
}

/// Measures a fleet of that size. A part that fails is told, and the rest left out.
pub async fn run(size: Size, options: &Options, table: &mut Table) {
    let folder = tempfile::Builder::new().prefix("plf-").tempdir().expect("a folder can be made");
    let sockets = folder.path().join("e");
    std::fs::create_dir(&sockets).expect("a folder can be made");
    let home = Home::of(&sockets, size.hosts);
    for engine in home.fleet.engines() {
        engine.add_image(&image());
        engine.set_delay(options.delay);
    }
    let sockets = home.fleet.engines().iter().map(StandIn::socket);
    let repository = Repository::new(folder.path(), size, sockets);
    let commit = repository.commit();
    repository.publish(&commit);
    let controller = Controller::start(options, folder.path(), &repository.url());
    table.say(&format!("\n{size}, a container each"));
    let mut trial = Trial { size, options, table, home, repository, controller };
    if let Err(why) = trial.measure(&commit).await {
        let last_words = trial.controller.last_words();
        trial.table.failed(&format!("{size}: the rest"), &format!("{why}\n{last_words}"));
    }
}

fn image() -> Image {
    Image {
        id: format!("sha256:{}", "1d".repeat(32)),
        repository: IMAGE.into(),
        tag: "1".into(),
        digest: Some(digest()),
        command: vec!["/web".into()],
    }
}

fn digest() -> String {
    format!("sha256:{}", "d1".repeat(32))
}

impl Trial<'_> {
    async fn measure(&mut self, empty: &str) -> Result<(), String> {
        let by = self.deadline();
        if !self.controller.reaches(empty, by).await {
            return Err("the controller doesn't reach a commit without apps".into());
        }
        self.first_convergence().await?;
        self.one_changed_app().await?;
        self.idle_minute().await;
        self.hanging_host().await?;
        let (now, highest) = self.controller.memory();
        self.table
            .row("controller's resident memory", &format!("{now} MiB, at most {highest} MiB"));
        Ok(())
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.deadline
    }

    fn fleet(&self) -> &Fleet {
        &self.home.fleet
    }

    /// All apps in one push.
    async fn first_convergence(&mut self) -> Result<(), String> {
        self.repository.declare(0..self.size.apps, &digest());
        let commit = self.repository.commit();
        let (calls, time) = (self.fleet().counts(), self.controller.processor_time());
        let ours = process::processor_time(std::process::id());
        let begin = Instant::now();
        let readers = self.repository.publish(&commit);
        let (mut noticed, mut first) = (None, None);
        while self.fleet().running() < self.size.apps {
            noticed = noticed.or_else(|| readers.came().then(Instant::now));
            first = first.or_else(|| (self.fleet().running() > 0).then(Instant::now));
            if begin.elapsed() > self.options.deadline || !self.controller.lives() {
                let (running, apps) = (self.fleet().running(), self.size.apps);
                return Err(format!("{running} of {apps} containers run in the end"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let all = begin.elapsed();
        let by = self.deadline();
        if !self.controller.reaches(&commit, by).await {
            return Err("all containers run, and the commit isn't reached".into());
        }
        let whole = begin.elapsed();
        let calls = self.fleet().counts() - &calls;
        let since = |at: Option<Instant>| at.map_or(0.0, |at| (at - begin).as_secs_f64());
        let what = format!("push to converged, {}", self.size);
        match self.size {
            Size { apps: 1000, hosts: 100 } => {
                self.table.seconds(&what, whole.as_secs_f64(), THOUSAND_SECONDS);
            }
            _ => self.table.row(&what, &format!("{:.2} s", whole.as_secs_f64())),
        }
        self.table.row(
            "  of it until the branch was read, the first ran, all ran",
            &format!("{:.2} s, {:.2} s, {:.2} s", since(noticed), since(first), all.as_secs_f64()),
        );
        let time = self.controller.processor_time() - time;
        let ours = process::processor_time(std::process::id()) - ours;
        self.table.row(
            "  processor time of the controller; of the engines",
            &format!("{:.2} s; {:.2} s", time.as_secs_f64(), ours.as_secs_f64()),
        );
        self.calls("  engine calls per created container", &calls, self.size.apps as f64);
        let most = self.fleet().engines().iter().map(StandIn::most_connections).max();
        let most = most.unwrap_or_default().to_string();
        self.table.row("  connections at one time to one engine, at most", &most);
        self.confirm().await
    }

    /// The controller says itself that all is well.
    async fn confirm(&mut self) -> Result<(), String> {
        let status = self.controller.status().await.ok_or("the controller gives no status")?;
        let well = |app: &&plimsoll::api::AppStatus| {
            app.sync == Sync::InSync && app.health == Health::Healthy
        };
        let well = status.apps.iter().filter(well).count();
        if well != self.size.apps {
            return Err(format!("{well} of {} apps are in sync and healthy", self.size.apps));
        }
        let counters: Vec<_> = status.counters.iter().map(|(k, v)| format!("{k} {v}")).collect();
        self.table.row("  counters since the start", &counters.join(", "));
        Ok(())
    }

    fn calls(&self, what: &str, calls: &Counts, by: f64) {
        let text = format!("{:.2}: {}", calls.total() as f64 / by, calls.per(by));
        self.table.row(what, &text);
    }

    /// One app is declared differently, a few times.
    async fn one_changed_app(&mut self) -> Result<(), String> {
        let counters = self.controller.counters().await;
        let calls = self.fleet().counts();
        let mut followed = Vec::new();
        for number in 0..CHANGES {
            self.repository.declare([number * 7 % self.size.apps].into_iter(), &digest());
            let commit = self.repository.commit();
            followed.push(self.follow(&commit).await?);
        }
        let calls = self.fleet().counts() - &calls;
        let whole = median(followed.iter().map(|f| f.whole));
        let own = median(followed.iter().map(|f| f.whole.saturating_sub(f.noticed)));
        self.table.row(
            "one changed app, push to converged (from the read of the branch)",
            &format!("{whole:.3} s ({own:.3} s), median of {CHANGES}"),
        );
        self.calls("  engine calls per change", &calls, CHANGES as f64);
        let now = self.controller.counters().await;
        self.table.row("  counters per change", &grown(&counters, &now, CHANGES as f64));
        Ok(())
    }

    /// Publishes a commit and waits until it is reached.
    async fn follow(&mut self, commit: &str) -> Result<Followed, String> {
        let begin = Instant::now();
        let readers = self.repository.publish(commit);
        let by = self.deadline();
        while !readers.came() && Instant::now() < by {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let noticed = begin.elapsed();
        match self.controller.reaches(commit, by).await {
            true => Ok(Followed { noticed, whole: begin.elapsed() }),
            false => Err(format!("commit {commit} isn't reached")),
        }
    }

    /// Nothing happens.
    async fn idle_minute(&mut self) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (calls, time) = (self.fleet().counts(), self.controller.processor_time());
        tokio::time::sleep(self.options.idle).await;
        let calls = self.fleet().counts() - &calls;
        let time = self.controller.processor_time() - time;
        let minutes = self.options.idle.as_secs_f64() / 60.0;
        let what =
            format!("engine calls per idle minute (watched for {} s)", self.options.idle.as_secs());
        self.calls(&what, &calls, minutes);
        self.calls("  of it per host", &calls, minutes * self.size.hosts as f64);
        let share = time.as_secs_f64() / self.options.idle.as_secs_f64() * 100.0;
        self.table
            .row("  processor time of the controller", &format!("{share:.1} % of one processor"));
    }

    /// The same change on every host: with all of them well, as one of them begins to hang, and
    /// while it hangs. Counted is how long the others take.
    async fn hanging_host(&mut self) -> Result<(), String> {
        let hanging = self.size.hosts / 2;
        let well = self.change_on_all_but(hanging).await?;
        self.fleet().engines()[hanging].set_hanging(true);
        let begins = self.change_on_all_but(hanging).await?;
        let hangs = self.change_on_all_but(hanging).await?;
        self.fleet().engines()[hanging].set_hanging(false);
        let what = format!("an app changed on each of {} hosts, all well", self.size.hosts - 1);
        self.table.row(&what, &format!("{well:.2} s from the read of the branch"));
        let bound = well + HANG_SECONDS;
        self.table.seconds("  the same as one more host begins to hang", begins, bound);
        self.table.seconds("  the same while it hangs", hangs, bound);
        let (begin, by) = (Instant::now(), self.deadline());
        let commit = self.repository.commit();
        self.repository.publish(&commit);
        if !self.controller.reaches(&commit, by).await {
            return Err("the host that hung doesn't converge when it answers again".into());
        }
        let seconds = begin.elapsed().as_secs_f64();
        self.table.row("  all converged after it answers again", &format!("{seconds:.2} s"));
        Ok(())
    }

    /// Changes an app on each host, and waits until all hosts but one have it, and nothing
    /// beside. Returns the seconds from the read of the branch to the last of them.
    async fn change_on_all_but(&mut self, left_out: usize) -> Result<f64, String> {
        self.repository.declare(0..self.size.hosts, &digest());
        let commit = self.repository.commit();
        let begin = Instant::now();
        let readers = self.repository.publish(&commit);
        let mut noticed = None;
        let mut open: Vec<usize> = (0..self.size.hosts).filter(|host| *host != left_out).collect();
        while !open.is_empty() {
            noticed = noticed.or_else(|| readers.came().then(Instant::now));
            open.retain(|host| !self.has_settled(*host, &commit));
            if begin.elapsed() > self.options.deadline {
                return Err(format!("{} hosts don't get what was changed", open.len()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(noticed.unwrap_or(begin).elapsed().as_secs_f64())
    }

    /// True where a host runs one container of that commit, and as many as it has apps.
    fn has_settled(&self, host: usize, commit: &str) -> bool {
        let engine = &self.fleet().engines()[host];
        let apps = (host..self.size.apps).step_by(self.size.hosts).count();
        let of_commit = engine.count(|container| {
            container.running
                && container.labels.get("plimsoll.commit").is_some_and(|label| label == commit)
        });
        of_commit == 1
            && engine.count(|container| container.running) == apps
            && engine.count(|_| true) == apps
    }
}

fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// By how much each counter has grown, divided by `by`.
fn grown(then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, by: f64) -> String {
    let of = |(name, count): (&String, &u64)| {
        let grown = count - then.get(name).copied().unwrap_or_default();
        format!("{name} {:.1}", grown as f64 / by)
    };
    now.iter().map(of).collect::<Vec<_>>().join(", ")
}
