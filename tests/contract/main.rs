//! One contract for two worlds: the simulator's Docker Engine and HAProxy, and the real ones,
//! behind the same seams. Each case is run against both, and asks the same of both. Where they
//! differ the real one is right, and the simulator is mended.
//!
//! The module of a test that failed says which world broke the contract, its name says where.

#[path = "../harness/dockerd.rs"]
mod dockerd;
mod engine;
mod engine_lab;
mod engine_real;
mod engine_simulated;
mod engine_states;
#[path = "../harness/haproxy.rs"]
mod haproxy;
mod proxy;
mod proxy_lab;
mod proxy_real;
mod proxy_simulated;
mod proxy_states;
#[path = "../sim/mod.rs"]
mod sim;

use std::sync::Arc;

use engine_real::RealEngine;
use tokio::sync::Semaphore;

/// How many cases the real engine has at a time.
const AT_ONCE: usize = 10;

/// The simulated engine has a test for each case; those of the real one share it, and run side
/// by side in one test, those that need it for themselves after the others.
macro_rules! engine_cases {
    (
        together: {$($module:ident: [$($case:ident),* $(,)?]),* $(,)?},
        alone: {$($last_module:ident: [$($last:ident),* $(,)?]),* $(,)?} $(,)?
    ) => {
        mod simulated_engine {
            $($(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    crate::$module::$case(&crate::engine_simulated::SimulatedEngine::start()).await;
                }
            )*)*
            $($(
                #[tokio::test(start_paused = true)]
                async fn $last() {
                    let lab = crate::engine_simulated::SimulatedEngine::start();
                    crate::$last_module::$last(&lab).await;
                }
            )*)*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
        async fn real_engine() {
            let lab = Arc::new(RealEngine::start());
            let (mut cases, mut failed) = (Vec::new(), Vec::new());
            let places = Arc::new(Semaphore::new(AT_ONCE));
            $($({
                let (lab, places) = (lab.clone(), places.clone());
                let case = tokio::spawn(async move {
                    let _place = places.acquire().await;
                    $module::$case(&*lab).await;
                });
                cases.push((stringify!($case), case));
            })*)*
            for (name, case) in cases {
                if case.await.is_err() {
                    failed.push(name);
                }
            }
            $($({
                let lab = lab.clone();
                let case = tokio::spawn(async move { $last_module::$last(&*lab).await });
                if case.await.is_err() {
                    failed.push(stringify!($last));
                }
            })*)*
            assert!(failed.is_empty(), "the real engine fails: {failed:?}");
        }
    };
}

engine_cases! {
    together: {
        engine: [
            a_whole_life,
            what_is_gone_is_told,
            what_runs_is_not_removed,
            what_was_only_created_is_stopped_and_removed,
            a_foreign_name_is_told_and_left_alone,
            a_name_of_another_birth_of_ours,
            an_image_that_is_missing,
            a_registry_has_an_image_or_not_or_is_away,
            what_belongs_to_others_is_not_touched,
            ports_and_names_of_others_are_seen,
            a_port_that_is_taken_is_told_at_the_start,
            a_start_that_can_not_be_is_refused,
        ],
        engine_states: [
            a_signal_that_is_ignored_ends_at_the_grace,
            a_kill_by_hand_is_for_good,
            what_is_paused_is_only_stopped,
            what_is_renamed_stays_ours,
            what_dies_is_started_again_and_counted,
            what_ends_again_and_again,
            what_waits_for_its_restart_has_no_port,
            health_is_starting_and_then_healthy,
            health_is_starting_and_then_unhealthy,
            events_wake_for_ours_only,
            output_is_followed_to_the_end,
        ],
    },
    alone: {
        engine_states: [an_engine_that_is_away_is_unreachable],
    },
}

/// A test for each case and each balancer: every case has a real one of its own.
macro_rules! proxy_cases {
    ($($module:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod simulated_proxy {
            $($(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    crate::$module::$case(&crate::proxy_simulated::SimulatedProxy::new()).await;
                }
            )*)*
        }

        mod real_proxy {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    crate::$module::$case(&crate::proxy_real::RealProxy::new()).await;
                }
            )*)*
        }
    };
}

proxy_cases! {
    proxy: [
        nothing_is_there,
        a_structure_is_made_once,
        a_new_backend_is_empty_and_what_stays_is_kept,
        routes_are_set_and_removed,
        a_route_to_nowhere_changes_nothing,
        a_server_joins_with_weight_0,
        weights_go_up_and_down,
        what_a_person_did_to_a_weight_is_seen_and_undone,
        what_a_person_keeps_from_work_is_added_again,
        a_server_that_only_the_file_has,
        a_server_that_only_the_process_has,
        a_server_leaves,
        a_server_with_sessions_stays,
        an_old_worker_has_what_began_in_it,
        two_listeners_on_one_address_change_nothing,
        an_address_that_is_taken_changes_nothing,
        a_frozen_process_is_unreachable,
    ],
    proxy_states: [
        checks_follow_what_is_behind,
        a_server_that_nobody_is_behind_is_never_up,
        a_reload_forgets_no_check,
        a_reload_gives_the_weights_of_the_file,
        a_new_structure_keeps_what_serves,
        a_damaged_file_is_seen_and_mended_from_the_process,
        a_cut_file_is_what_a_reload_gives,
        a_killed_process_comes_back_with_the_file,
        whoever_is_killed_all_of_it_is_brought_back,
        a_killed_process_whose_address_is_taken,
        a_killed_process_without_a_file_begins_empty,
    ],
}
