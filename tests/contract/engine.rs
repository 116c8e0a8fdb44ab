//! What both engines keep of containers, names, ports and images. Each case leaves nothing behind.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use plimsoll::docker::EngineError;
use plimsoll::model::{CommitId, ContainerState, ImageContent, Owner, Pin, Sha256};

use crate::engine_lab::{Case, EngineLab, NO_GRACE, Program, exited};

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
    case.says_begun(&id).await;

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
    assert_eq!(
        ours.iter().map(|it| (&it.id, &it.birth)).collect::<Vec<_>>(),
        [(&second, &new.birth)]
    );
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

pub async fn a_registry_has_an_image_or_not_or_is_away(lab: &dyn EngineLab) {
    let case = Case::new(lab, "registry");
    let engine = case.engine();
    let reference = lab.begin_registry();
    let digest = engine.resolve(&reference).await.unwrap();
    assert_eq!(engine.resolve(&reference).await.unwrap(), digest);
    let pin = Pin { reference: reference.clone(), content: ImageContent::Digest(digest) };
    assert_eq!(engine.image(&pin.engine_name()).await.unwrap(), None);
    let mut new = case.container(Program::Runs);
    new.birth.pin = pin.clone();
    let missing = case.create(&new).await.unwrap_err();
    assert!(matches!(missing, EngineError::ImageMissing { .. }), "{missing}");
    for _ in 0..2 {
        engine.pull(&pin).await.unwrap();
        let info = engine.image(&pin.engine_name()).await.unwrap().unwrap();
        assert_eq!(info.repository_digests, [pin.engine_name()]);
    }
    let id = case.create(&new).await.unwrap();
    case.remove(&id).await.unwrap();

    let lacking = Pin {
        reference: format!("{}:2-nopull", reference.repository()).parse().unwrap(),
        content: ImageContent::Digest(Sha256::of(b"nowhere")),
    };
    let error = engine.pull(&lacking).await.unwrap_err();
    assert!(matches!(error, EngineError::ImageMissing { .. }), "{error}");
    assert!(!error.may_pass());

    lab.end_registry();
    engine.pull(&pin).await.unwrap();
    let other = Pin {
        reference: format!("{}:3", reference.repository()).parse().unwrap(),
        content: ImageContent::Digest(Sha256::of(b"elsewhere")),
    };
    for error in [
        engine.resolve(&reference).await.map(drop).unwrap_err(),
        engine.pull(&other).await.unwrap_err(),
    ] {
        assert!(matches!(error, EngineError::Transient { .. }), "{error}");
        assert!(error.may_pass());
    }
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
    case.says_begun(&id).await;
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
