//! What both engines keep. Each case leaves nothing behind.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use plimsoll::docker::{EngineError, LogLine, Stir};
use plimsoll::model::{
    CommitId, ContainerId, ContainerState, Ended, EngineHealth, ImageContent, Owner, Sha256, Span,
};
use tokio::time::{Instant, timeout};

use crate::engine_lab::{Case, EngineLab, PATIENCE, Program};

const NO_GRACE: Span = Span::from_millis(0);

pub async fn a_whole_life(lab: &dyn EngineLab) {
    let case = Case::new(lab, "life");
    let (engine, owner) = (case.engine(), &case.owner);
    assert!(!engine.version().await.unwrap().is_empty());
    let new = case.published(Program::Runs, lab.free_port());
    let name = new.birth.container_name();
    assert!(engine.image(&new.birth.pin.engine_name()).await.unwrap().is_some());
    engine.pull(&new.birth.pin).await.unwrap();

    let id = case.create(&new).await.unwrap();
    assert_eq!(case.create(&new).await.unwrap(), id, "made twice");
    let created = engine.inspect(owner, &name).await.unwrap().unwrap();
    assert_eq!((&created.id, &created.name, &created.birth), (&id, &name, &new.birth));
    assert_eq!((&created.state, created.health), (&ContainerState::Created, None));
    assert_eq!((created.restarts, case.ours().await), (0, vec![created]));

    engine.start(owner, &name).await.unwrap();
    engine.start(owner, &id.0).await.unwrap();
    assert_eq!(case.create(&new).await.unwrap(), id, "made anew while it runs");
    let running = case.inspected(&id).await.unwrap();
    assert!(running.is_ready(), "{running:?}");
    assert_eq!(case.ours().await, [running]);
    says_begun(&case, &id).await;

    case.stop(&id).await.unwrap();
    case.stop(&id).await.unwrap();
    let ended = case.inspected(&id).await.unwrap();
    assert_eq!(ended.state, exited(0));
    assert_eq!(case.ours().await, [ended]);
    assert_eq!(case.create(&new).await.unwrap(), id, "made anew when it has ended");

    case.start(&id).await.unwrap();
    case.until(&id, |container| container.runs()).await;
    case.destroy(&id).await;
    case.remove(&id).await.unwrap();
    assert_eq!(engine.inspect(owner, &name).await.unwrap(), None);
    assert_eq!(case.ours().await, []);
}

fn exited(code: i64) -> ContainerState {
    ContainerState::Exited { code, out_of_memory: false }
}

/// Waits until the program has said so: then it also minds signals.
async fn says_begun(case: &Case<'_>, id: &ContainerId) {
    let deadline = Instant::now() + PATIENCE;
    let begun = LogLine { is_error: true, text: "begun".into() };
    loop {
        let lines = case.engine().logs(&case.owner, id, Some(1), false).await.unwrap();
        let lines: Vec<_> = lines.map(Result::unwrap).collect().await;
        if lines == [begun.clone()] {
            return;
        }
        assert!(Instant::now() < deadline, "it said {lines:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn what_is_gone_is_told(lab: &dyn EngineLab) {
    let case = Case::new(lab, "gone");
    let id = case.create(&case.container(Program::Runs)).await.unwrap();
    lab.remove_by_hand(&id);
    assert_eq!(case.inspected(&id).await, None);
    case.stop(&id).await.unwrap();
    case.remove(&id).await.unwrap();
    let started = case.start(&id).await.unwrap_err();
    let read = case.engine().logs(&case.owner, &id, None, false).await.map(drop).unwrap_err();
    for error in [started, read] {
        assert!(matches!(&error, EngineError::NotOurs { id: of, .. } if *of == id), "{error}");
        assert!(!error.may_pass());
    }
}

pub async fn what_runs_is_not_removed(lab: &dyn EngineLab) {
    let case = Case::new(lab, "runs");
    let id = case.run(&case.container(Program::Runs)).await;
    let refused = case.remove(&id).await.unwrap_err();
    assert!(matches!(refused, EngineError::Refused { .. }), "{refused}");
    assert!(!refused.may_pass());
    assert!(case.inspected(&id).await.unwrap().runs());
    case.engine().stop(&case.owner, &id, NO_GRACE).await.unwrap();
    // Side by side: whoever comes when a removal is under way waits for its end.
    for removed in join_all((0..6).map(|_| case.remove(&id))).await {
        removed.unwrap();
    }
    assert_eq!(case.ours().await, []);
}

pub async fn what_was_only_created_is_stopped_and_removed(lab: &dyn EngineLab) {
    let case = Case::new(lab, "created");
    let id = case.create(&case.container(Program::Runs)).await.unwrap();
    case.stop(&id).await.unwrap();
    assert_eq!(case.inspected(&id).await.unwrap().state, ContainerState::Created);
    case.remove(&id).await.unwrap();
    assert_eq!(case.ours().await, []);
}

pub async fn a_foreign_name_is_told_and_left_alone(lab: &dyn EngineLab) {
    let case = Case::new(lab, "held");
    let new = case.container(Program::Runs);
    let name = new.birth.container_name();
    for runs in [false, true] {
        let holder = lab.foreign(&name, lab.free_port(), runs);
        let before = lab.status(&holder);
        for _ in 0..2 {
            let error = case.create(&new).await.unwrap_err();
            assert!(
                matches!(&error, EngineError::NameTaken { name: n, id } if *n == name && *id == holder),
                "{error}"
            );
            assert!(!error.may_pass());
        }
        let state = case.engine().observe(&case.owner).await.unwrap();
        assert_eq!(state.foreign_names, BTreeMap::from([(name.clone(), holder.clone())]));
        assert_eq!(lab.status(&holder), before);
        assert_eq!(state.containers, []);
        lab.remove_by_hand(&holder);
    }
    let id = case.create(&new).await.unwrap();
    case.remove(&id).await.unwrap();
}

/// The name holds what the label of a revision says, the birth may differ all the same.
pub async fn a_name_of_another_birth_of_ours(lab: &dyn EngineLab) {
    let case = Case::new(lab, "birth");
    let old = case.container(Program::Runs);
    let mut new = old.clone();
    new.birth.commit = CommitId("d".repeat(40));
    assert_eq!(old.birth.container_name(), new.birth.container_name());
    // One that never ran makes room.
    let first = case.create(&old).await.unwrap();
    let second = case.create(&new).await.unwrap();
    assert_ne!(first, second);
    let ours = case.ours().await;
    assert_eq!(ours.iter().map(|it| (&it.id, &it.birth)).collect::<Vec<_>>(), [(
        &second, &new.birth
    )]);
    // One that runs, or ran, doesn't.
    case.start(&second).await.unwrap();
    for state in ["running", "exited"] {
        let refused = case.create(&old).await.unwrap_err();
        assert!(matches!(refused, EngineError::Refused { .. }), "{refused}");
        assert!(!refused.may_pass());
        assert_eq!(lab.status(&second).as_deref(), Some(state));
        case.engine().stop(&case.owner, &second, NO_GRACE).await.unwrap();
    }
    case.remove(&second).await.unwrap();
}

pub async fn an_image_that_is_missing(lab: &dyn EngineLab) {
    let case = Case::new(lab, "image");
    let mut new = case.container(Program::Runs);
    new.birth.pin.content = ImageContent::Id(Sha256::of(b"nowhere"));
    let name = new.birth.container_name();
    assert_eq!(case.engine().image(&new.birth.pin.engine_name()).await.unwrap(), None);
    let created = case.create(&new).await.unwrap_err();
    let pulled = case.engine().pull(&new.birth.pin).await.unwrap_err();
    // Nor is it told otherwise where the name is taken as well.
    let holder = lab.foreign(&name, lab.free_port(), false);
    let held = case.create(&new).await.unwrap_err();
    for error in [created, pulled, held] {
        let image = new.birth.pin.reference.to_string();
        assert!(
            matches!(&error, EngineError::ImageMissing { image: of, .. } if *of == image),
            "{error}"
        );
        assert!(!error.may_pass());
    }
    assert_eq!(case.ours().await, []);
    lab.remove_by_hand(&holder);
}

pub async fn what_belongs_to_others_is_not_touched(lab: &dyn EngineLab) {
    let case = Case::new(lab, "mine");
    let (engine, owner) = (case.engine(), &case.owner);
    let mine = case.run(&case.container(Program::Runs)).await;
    let foreign = lab.foreign("mine-not", lab.free_port(), true);
    let other = Owner { uid: "00000000".parse().unwrap(), ..owner.clone() };
    for (owner, id) in [(&other, &mine), (owner, &foreign)] {
        assert_eq!(engine.inspect(owner, &id.0).await.unwrap(), None);
        let seen = engine.observe(owner).await.unwrap();
        assert!(seen.containers.iter().all(|container| container.id != *id));
        for refused in [
            engine.start(owner, &id.0).await,
            engine.stop(owner, id, NO_GRACE).await,
            engine.remove(owner, id).await,
            engine.logs(owner, id, None, false).await.map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(&error, EngineError::NotOurs { id: of, .. } if of == id), "{error}");
            assert!(!error.may_pass());
        }
        assert_eq!(lab.status(id).as_deref(), Some("running"));
    }
    let names = engine.observe(&other).await.unwrap().foreign_names;
    assert!(names.values().any(|id| *id == mine), "the name of another's: {names:?}");
    lab.remove_by_hand(&foreign);
    case.destroy(&mine).await;
}

pub async fn ports_and_names_of_others_are_seen(lab: &dyn EngineLab) {
    let case = Case::new(lab, "ports");
    let (running, stopped, mine) = (lab.free_port(), lab.free_port(), lab.free_port());
    let one = lab.foreign("ports.x", running, true);
    let two = lab.foreign("portsmouth", stopped, false);
    let three = case.run(&case.published(Program::Runs, mine)).await;
    // What of it was asked for once is told again.
    for _ in 0..2 {
        let state = case.engine().observe(&case.owner).await.unwrap();
        let has = |port| state.foreign_ports.contains(&port);
        assert_eq!((has(running), has(stopped), has(mine)), (true, true, false));
        assert_eq!(state.foreign_names, BTreeMap::from([("ports.x".into(), one.clone())]));
        let ids: Vec<_> = state.containers.iter().map(|container| &container.id).collect();
        assert_eq!(ids, [&three]);
    }
    lab.remove_by_hand(&one);
    lab.remove_by_hand(&two);
    let state = case.engine().observe(&case.owner).await.unwrap();
    assert!(!state.foreign_ports.contains(&running) && !state.foreign_ports.contains(&stopped));
    assert_eq!(state.foreign_names, BTreeMap::new());
    case.destroy(&three).await;
}

pub async fn a_port_that_is_taken_is_told_at_the_start(lab: &dyn EngineLab) {
    let case = Case::new(lab, "port");
    let port = lab.free_port();
    let taken = |error: EngineError| {
        assert!(matches!(error, EngineError::PortTaken { port: of, .. } if of == port), "{error}");
        assert!(!error.may_pass());
    };
    // By a program, then by a container.
    let held = lab.hold_port(port);
    let id = case.create(&case.published(Program::Runs, port)).await.unwrap();
    for _ in 0..2 {
        taken(case.start(&id).await.unwrap_err());
        assert_eq!(case.seen(&id).await.unwrap().state, ContainerState::Created);
    }
    drop(held);
    let holder = lab.foreign("port-holder", port, true);
    taken(case.start(&id).await.unwrap_err());
    lab.remove_by_hand(&holder);
    case.start(&id).await.unwrap();
    case.until(&id, |container| container.runs()).await;
    says_begun(&case, &id).await;
    // One that ran and has ended tells that its start failed by the code 128.
    case.stop(&id).await.unwrap();
    let held = lab.hold_port(port);
    taken(case.start(&id).await.unwrap_err());
    assert_eq!(case.seen(&id).await.unwrap().state, exited(128));
    drop(held);
    case.start(&id).await.unwrap();
    assert!(case.inspected(&id).await.unwrap().runs());
    case.destroy(&id).await;
}

pub async fn a_start_that_can_not_be_is_refused(lab: &dyn EngineLab) {
    let case = Case::new(lab, "nobody");
    let id = case.create(&case.container(Program::Unstartable)).await.unwrap();
    for _ in 0..2 {
        let error = case.start(&id).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
        assert!(!error.may_pass());
        assert!(!case.inspected(&id).await.unwrap().runs());
    }
    case.remove(&id).await.unwrap();
}

pub async fn a_signal_that_is_ignored_ends_at_the_grace(lab: &dyn EngineLab) {
    let case = Case::new(lab, "deaf");
    let id = case.run(&case.container(Program::Deaf)).await;
    says_begun(&case, &id).await;
    let begun = Instant::now();
    case.engine().stop(&case.owner, &id, Span::from_secs(2)).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(12), "{took:?}");
    assert_eq!(case.inspected(&id).await.unwrap().state, exited(137));
    case.remove(&id).await.unwrap();
}

pub async fn a_kill_by_hand_is_for_good(lab: &dyn EngineLab) {
    let case = Case::new(lab, "hand");
    let id = case.run(&case.container(Program::Runs)).await;
    lab.kill_by_hand(&id);
    let ended = case.until(&id, |container| container.state == exited(137)).await;
    assert_eq!(ended.restarts, 0);
    case.start(&id).await.unwrap();
    assert!(case.inspected(&id).await.unwrap().runs());
    case.destroy(&id).await;
}

pub async fn what_dies_is_started_again_and_counted(lab: &dyn EngineLab) {
    let case = Case::new(lab, "dies");
    let id = case.run(&case.container(Program::Runs)).await;
    for deaths in 1..=2 {
        lab.kill_program(&id);
        let again = case.until(&id, |it| it.restarts == deaths && it.runs()).await;
        assert_eq!(again.state, ContainerState::Running);
    }
    assert_eq!(case.seen(&id).await.unwrap().restarts, 0, "a list doesn't tell");
    // A start that was asked for begins the count anew.
    case.stop(&id).await.unwrap();
    case.start(&id).await.unwrap();
    assert_eq!(case.inspected(&id).await.unwrap().restarts, 0);
    case.destroy(&id).await;
}

pub async fn what_ends_again_and_again(lab: &dyn EngineLab) {
    let case = Case::new(lab, "loop");
    let id = case.run(&case.container(Program::Crashes)).await;
    let ended = Some(Ended { code: 1, out_of_memory: false });
    let restarting = ContainerState::Restarting { ended };
    let waits = case.until(&id, |it| it.state == restarting && it.restarts >= 5).await;
    // Asked to start meanwhile, it still waits for its time.
    let begun = Instant::now();
    case.start(&id).await.unwrap();
    let seen = case.inspected(&id).await.unwrap();
    if begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(seen, waits);
    }
    case.until(&id, |it| it.state == restarting).await;
    let refused = case.remove(&id).await.unwrap_err();
    assert!(matches!(refused, EngineError::Refused { .. }), "{refused}");
    // Stopped, it tells how it ended last.
    case.stop(&id).await.unwrap();
    assert_eq!(case.inspected(&id).await.unwrap().state, exited(1));
    assert_eq!(case.seen(&id).await.unwrap().state, exited(1));
    case.remove(&id).await.unwrap();
}

/// While it waits for its restart, what it published is free.
pub async fn what_waits_for_its_restart_has_no_port(lab: &dyn EngineLab) {
    let case = Case::new(lab, "waits");
    let port = lab.free_port();
    let id = case.run(&case.published(Program::Crashes, port)).await;
    let restarting = |state: &ContainerState| matches!(state, ContainerState::Restarting { .. });
    case.until(&id, |it| restarting(&it.state) && it.restarts >= 5).await;
    let mut other = case.published(Program::Runs, port);
    other.birth.slot.0 = 1;
    let other = case.run(&other).await;
    assert!(case.inspected(&other).await.unwrap().runs());
    // Its restart fails then, and is the last.
    case.until(&id, |it| it.state == exited(1)).await;
    case.destroy(&id).await;
    case.destroy(&other).await;
}

pub async fn health_is_starting_and_then_healthy(lab: &dyn EngineLab) {
    let case = Case::new(lab, "well");
    let id = case.run(&case.container(Program::Well)).await;
    let first = case.inspected(&id).await.unwrap();
    assert!(first.runs() || first.health == Some(EngineHealth::Starting), "{first:?}");
    let well = case.until(&id, |it| it.health == Some(EngineHealth::Healthy)).await;
    assert!(well.is_ready());
    assert_eq!(case.seen(&id).await.unwrap(), well);
    // What ended has no health, and a new start begins anew.
    lab.kill_by_hand(&id);
    let ended = case.until(&id, |it| it.state == exited(137)).await;
    assert_eq!(ended.health, None);
    case.start(&id).await.unwrap();
    case.until(&id, |it| it.health == Some(EngineHealth::Healthy)).await;
    case.destroy(&id).await;
}

pub async fn health_is_starting_and_then_unhealthy(lab: &dyn EngineLab) {
    let case = Case::new(lab, "sick");
    let id = case.run(&case.container(Program::Sick)).await;
    let first = case.inspected(&id).await.unwrap();
    assert_eq!(first.health, Some(EngineHealth::Starting));
    assert!(!first.is_ready());
    let sick = case.until(&id, |it| it.health != Some(EngineHealth::Starting)).await;
    assert_eq!(sick.health, Some(EngineHealth::Unhealthy));
    assert_eq!(sick.state, ContainerState::Running);
    assert!(!sick.runs() && !sick.is_ready());
    assert_eq!(case.seen(&id).await.unwrap(), sick);
    case.destroy(&id).await;
}

pub async fn events_wake_for_ours_only(lab: &dyn EngineLab) {
    let case = Case::new(lab, "events");
    let mut events = case.engine().events(&case.owner).await.unwrap();
    let foreign = lab.foreign("events-not", lab.free_port(), true);
    let quiet = timeout(Duration::from_millis(300), events.next()).await;
    assert!(quiet.is_err(), "woken by {foreign}");
    let id = case.create(&case.container(Program::Runs)).await.unwrap();
    let mut about_it = async || {
        let wait = async {
            // One step may be told several times.
            let first = events.next().await.expect("the events ended");
            while let Ok(next) = timeout(Duration::from_millis(200), events.next()).await {
                assert!(next.is_some(), "the events ended");
            }
            first
        };
        let stir = timeout(PATIENCE, wait).await.expect("nobody was woken");
        assert!(stir == Stir::Container(id.clone()) || stir == Stir::More, "{stir:?}");
    };
    about_it().await;
    case.start(&id).await.unwrap();
    about_it().await;
    lab.kill_program(&id);
    about_it().await;
    case.engine().stop(&case.owner, &id, NO_GRACE).await.unwrap();
    about_it().await;
    case.remove(&id).await.unwrap();
    about_it().await;
    lab.remove_by_hand(&foreign);
}

pub async fn output_is_followed_to_the_end(lab: &dyn EngineLab) {
    let case = Case::new(lab, "output");
    let id = case.run(&case.container(Program::Runs)).await;
    let mut lines = case.engine().logs(&case.owner, &id, None, true).await.unwrap();
    let begun = LogLine { is_error: true, text: "begun".into() };
    let first = timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, begun);
    let quiet = timeout(Duration::from_millis(300), lines.next()).await;
    assert!(quiet.is_err(), "while it runs there may be more: {quiet:?}");
    case.engine().stop(&case.owner, &id, NO_GRACE).await.unwrap();
    let end = timeout(PATIENCE, lines.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    // What it said is kept, and said again after each start.
    case.start(&id).await.unwrap();
    case.engine().stop(&case.owner, &id, Span::from_secs(5)).await.unwrap();
    for (tail, count) in [(None, 2), (Some(1), 1), (Some(9), 2)] {
        let said = case.engine().logs(&case.owner, &id, tail, false).await.unwrap();
        let said: Vec<_> = said.map(Result::unwrap).collect().await;
        assert_eq!(said, vec![begun.clone(); count], "the last {tail:?}");
    }
    case.remove(&id).await.unwrap();
}

/// Alone on the engine.
pub async fn an_engine_that_is_away_is_unreachable(lab: &dyn EngineLab) {
    let case = Case::new(lab, "away");
    let (engine, owner) = (case.engine(), &case.owner);
    let new = case.container(Program::Runs);
    let id = case.run(&new).await;
    let mut events = engine.events(owner).await.unwrap();
    lab.end_engine();
    let ended = async { while events.next().await.is_some() {} };
    timeout(PATIENCE, ended).await.expect("the events didn't end");
    let none = BTreeMap::new();
    for failed in [
        engine.observe(owner).await.map(drop),
        engine.inspect(owner, &id.0).await.map(drop),
        engine.image(&new.birth.pin.engine_name()).await.map(drop),
        engine.pull(&new.birth.pin).await,
        engine.create(&new, &none).await.map(drop),
        engine.start(owner, &id.0).await,
        engine.stop(owner, &id, NO_GRACE).await,
        engine.remove(owner, &id).await,
        engine.events(owner).await.map(drop),
        engine.logs(owner, &id, None, false).await.map(drop),
        engine.version().await.map(drop),
    ] {
        let error = failed.unwrap_err();
        assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
        assert!(error.may_pass());
    }
    lab.begin_engine();
    // Whether it brought the container back is the engine's affair; that it obeys again is ours.
    assert_eq!(case.create(&new).await.unwrap(), id);
    case.start(&id).await.unwrap();
    case.until(&id, |container| container.runs()).await;
    case.destroy(&id).await;
}
