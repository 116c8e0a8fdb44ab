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
#[path = "../harness/haproxy.rs"]
mod haproxy;
#[path = "../sim/mod.rs"]
mod sim;

use std::sync::Arc;

use engine_real::RealEngine;

/// The simulated engine has a test for each case; those of the real one share it, and run side
/// by side in one test, those that need it for themselves after the others.
macro_rules! engine_cases {
    (together: [$($case:ident),* $(,)?], alone: [$($last:ident),* $(,)?]) => {
        mod simulated_engine {
            $(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    crate::engine::$case(&crate::engine_simulated::SimulatedEngine::start()).await;
                }
            )*
            $(
                #[tokio::test(start_paused = true)]
                async fn $last() {
                    crate::engine::$last(&crate::engine_simulated::SimulatedEngine::start()).await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn real_engine() {
            let lab = Arc::new(RealEngine::start());
            let mut cases = Vec::new();
            $({
                let lab = lab.clone();
                let case = tokio::spawn(async move { engine::$case(&*lab).await });
                cases.push((stringify!($case), case));
            })*
            let mut failed = Vec::new();
            for (name, case) in cases {
                if case.await.is_err() {
                    failed.push(name);
                }
            }
            $({
                let lab = lab.clone();
                let case = tokio::spawn(async move { engine::$last(&*lab).await });
                if case.await.is_err() {
                    failed.push(stringify!($last));
                }
            })*
            assert!(failed.is_empty(), "the real engine fails: {failed:?}");
        }
    };
}

engine_cases! {
    together: [
        a_whole_life,
        what_is_gone_is_told,
        what_runs_is_not_removed,
        what_was_only_created_is_stopped_and_removed,
        a_foreign_name_is_told_and_left_alone,
        a_name_of_another_birth_of_ours,
        an_image_that_is_missing,
        what_belongs_to_others_is_not_touched,
        ports_and_names_of_others_are_seen,
        a_port_that_is_taken_is_told_at_the_start,
        a_start_that_can_not_be_is_refused,
        a_signal_that_is_ignored_ends_at_the_grace,
        a_kill_by_hand_is_for_good,
        what_dies_is_started_again_and_counted,
        what_ends_again_and_again,
        what_waits_for_its_restart_has_no_port,
        health_is_starting_and_then_healthy,
        health_is_starting_and_then_unhealthy,
        events_wake_for_ours_only,
        output_is_followed_to_the_end,
    ],
    alone: [an_engine_that_is_away_is_unreachable]
}
