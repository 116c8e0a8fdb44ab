//! The engine's seam against a real Docker Engine. All cases share one engine and run side by
//! side; each has an app, names and ports of its own.

#[path = "harness/claim.rs"]
mod claim;
#[path = "harness/dockerd.rs"]
mod dockerd;
#[path = "harness/engine_proxy.rs"]
mod engine_proxy;

#[path = "docker/faults.rs"]
mod faults;
#[path = "docker/fixture.rs"]
mod fixture;
#[path = "docker/lifecycle.rs"]
mod lifecycle;
#[path = "docker/ownership.rs"]
mod ownership;
#[path = "docker/registries.rs"]
mod registries;
#[path = "docker/remote.rs"]
mod remote;
#[path = "docker/states.rs"]
mod states;
#[path = "docker/streams.rs"]
mod streams;

use std::sync::Arc;

use fixture::Fixture;

macro_rules! side_by_side {
    ($fixture:expr, $($module:ident::$case:ident),* $(,)?) => {{
        let cases = vec![$((
            concat!(stringify!($module), "::", stringify!($case)),
            tokio::spawn($module::$case($fixture.clone())),
        )),*];
        let mut failed = Vec::new();
        for (name, case) in cases {
            if case.await.is_err() {
                failed.push(name);
            }
        }
        failed
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_seam_holds_on_a_real_engine() {
    let fixture = Arc::new(Fixture::start());
    let failed = side_by_side!(
        fixture,
        lifecycle::a_whole_life,
        lifecycle::what_a_container_is_told,
        lifecycle::a_named_volume_keeps_its_data,
        lifecycle::a_missing_folder_and_a_missing_program_are_refused,
        lifecycle::a_signal_that_is_ignored_ends_at_the_grace,
        ownership::what_belongs_to_others_is_not_touched,
        ownership::a_name_that_others_hold_is_told,
        ownership::a_name_of_ours_is_taken_over_or_refused,
        ownership::ports_and_names_of_others_are_seen,
        states::health_is_seen_as_it_changes,
        states::death_for_want_of_memory_is_seen,
        states::paused_restarting_and_ended_are_told_apart,
        faults::a_lost_reply_makes_nothing_twice,
        faults::broken_replies_are_typed_errors,
        faults::a_taken_port_is_told,
        faults::a_removal_under_way_is_waited_for,
        faults::secrets_are_in_no_label_and_no_error,
        faults::an_idle_look_is_one_call,
        streams::events_wake,
        streams::output_is_read_and_followed,
        registries::tags_are_resolved_and_digests_pulled,
        registries::credentials_open_a_registry,
        remote::an_engine_behind_ssh,
        remote::an_engine_behind_tls,
    );
    assert!(failed.is_empty(), "failed: {failed:?}");
    let fixture = Arc::try_unwrap(fixture).ok().expect("a case still holds the fixture");
    faults::an_engine_that_restarts_is_found_again(fixture).await;
}
