//! The stand-in engines of `benches/fleet` against a real Docker Engine: the same calls are made
//! on both, through Plimsoll's own client and as plain HTTP, and what comes of them has to be
//! the same. So what is measured on stand-ins holds for engines, but for the time that these
//! take.

#[path = "standin/adapter.rs"]
mod adapter;
mod harness;
#[path = "standin/http.rs"]
mod http;
#[path = "standin/plain.rs"]
mod plain;
#[path = "standin/shape.rs"]
mod shape;
#[path = "../benches/fleet/standin/mod.rs"]
mod standin;
#[path = "standin/transcript.rs"]
mod transcript;
#[path = "standin/world.rs"]
mod world;

use world::Worlds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stand_in_answers_as_a_real_engine_does() {
    let worlds = Worlds::start();
    let mut failed = Vec::new();
    for (name, case) in adapter::cases() {
        let (real, standin) = tokio::join!(case(&worlds.real), case(&worlds.standin));
        failed.extend(transcript::difference(name, &real, &standin));
    }
    for (name, case) in plain::cases() {
        let (real, standin) = tokio::join!(case(&worlds.real), case(&worlds.standin));
        failed.extend(transcript::difference(name, &real.lines, &standin.lines));
        failed.extend(plain::shapes(name, &real, &standin));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What a real engine can't be made to do at will.
#[tokio::test]
async fn a_stand_in_counts_hangs_and_takes_its_time() {
    use std::time::Duration;
    let folder = tempfile::tempdir().unwrap();
    let fleet = standin::Fleet::start(folder.path(), 2).unwrap();
    let [first, second] = fleet.engines() else { panic!("two engines") };
    let ping =
        async |engine: &standin::StandIn| http::ask(engine.socket(), "GET", "/_ping", "").await;
    assert_eq!(ping(first).await.status, 200);
    assert_eq!(first.counts().of(standin::Call::Ping), 1);
    assert_eq!(second.counts().total(), 0);

    first.set_hanging(true);
    assert_eq!(ping(second).await.status, 200);
    let mut hanging = std::pin::pin!(ping(first));
    let none = tokio::time::timeout(Duration::from_millis(100), &mut hanging).await;
    assert!(none.is_err(), "an engine that hangs answers");
    first.set_hanging(false);
    assert_eq!(hanging.await.status, 200);

    second.set_delay(Duration::from_millis(50));
    let begin = tokio::time::Instant::now();
    ping(second).await;
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(fleet.counts().of(standin::Call::Ping), 4);
}
