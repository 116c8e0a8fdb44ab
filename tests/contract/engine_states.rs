//! What both engines keep of programs that end, of health, events and output, and of an engine
//! that is away.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use plimsoll::docker::{EngineError, LogLine, Stir};
use plimsoll::model::{ContainerState, Ended, EngineHealth, Span};
use tokio::time::{Instant, timeout};

use crate::engine_lab::{Case, EngineLab, NO_GRACE, PATIENCE, Program, exited};

pub async fn a_signal_that_is_ignored_ends_at_the_grace(lab: &dyn EngineLab) {
    let case = Case::new(lab, "deaf");
    let id = case.run(&case.container(Program::Deaf)).await;
    case.says_begun(&id).await;
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

pub async fn what_is_paused_is_only_stopped(lab: &dyn EngineLab) {
    let case = Case::new(lab, "paused");
    let id = case.run(&case.container(Program::Runs)).await;
    lab.pause_by_hand(&id);
    let paused = case.inspected(&id).await.unwrap();
    assert_eq!(paused.state, ContainerState::Paused);
    assert!(!paused.runs());
    assert_eq!(case.ours().await, [paused]);
    for refused in [case.start(&id).await, case.remove(&id).await] {
        let error = refused.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
        assert!(!error.may_pass());
    }
    case.engine().stop(&case.owner, &id, NO_GRACE).await.unwrap();
    let ended = case.inspected(&id).await.unwrap().state;
    assert!(matches!(ended, ContainerState::Exited { .. }), "{ended:?}");
    case.remove(&id).await.unwrap();
}

/// A name is free again when its container has another, and whose that is its labels tell.
pub async fn what_is_renamed_stays_ours(lab: &dyn EngineLab) {
    let case = Case::new(lab, "renamed");
    let new = case.container(Program::Runs);
    let first = case.run(&new).await;
    lab.rename_by_hand(&first, "another-name");
    let seen = case.inspected(&first).await.unwrap();
    assert_eq!((seen.name.as_str(), &seen.birth), ("another-name", &new.birth));
    assert_eq!(case.ours().await, [seen]);
    let second = case.create(&new).await.unwrap();
    assert_ne!(first, second);
    let names: Vec<_> = case.ours().await.into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["another-name".to_owned(), new.birth.container_name()]);
    case.destroy(&first).await;
    case.remove(&second).await.unwrap();
}

pub async fn what_dies_is_started_again_and_counted(lab: &dyn EngineLab) {
    let case = Case::new(lab, "dies");
    let id = case.run(&case.container(Program::Runs)).await;
    for deaths in 1..=4 {
        lab.kill_program(&id);
        let again = case.until(&id, |it| it.restarts == deaths && it.runs()).await;
        assert_eq!(again.state, ContainerState::Running);
    }
    assert_eq!(case.seen(&id).await.unwrap().restarts, 0, "a list doesn't tell");
    // Who kills isn't taken for the kernel that is out of memory.
    lab.kill_program(&id);
    let ended = Some(Ended { code: 137, out_of_memory: false });
    case.until(&id, |it| it.state == ContainerState::Restarting { ended }).await;
    case.stop(&id).await.unwrap();
    assert_eq!(case.inspected(&id).await.unwrap().state, exited(137));
    // A start that was asked for begins the count anew.
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
