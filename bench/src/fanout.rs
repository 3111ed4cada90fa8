//! One task queues very many others, spread over jobs; all of them run, each is committed once.

use std::time::{Duration, Instant};

use air_protocol::record::Status;
use air_tests::{Installation, ServerOptions, wait_for_within};

/// Jobs over which the sub-tasks are spread.
const JOBS: usize = 16;
/// The longest that all of it may take.
const MOST: Duration = Duration::from_secs(3600);

/// Runs a fan-out of `count` sub-tasks, and says what came of it.
pub(crate) async fn run(count: usize) {
    let air = Installation::start_on(ServerOptions::default(), 1).await;
    let line = r#"{"exec":["true"],"job":"part%d"}"#;
    let script = format!(
        r#"awk 'BEGIN {{ for (n = 0; n < {count}; n++) printf "{}\n", n % {JOBS} }}' >> $AIR_TASKS"#,
        line.replace('"', "\\\"")
    );
    let task = serde_json::json!({ "id": "root", "run": script });
    let start = Instant::now();
    air.publish("root", &task.to_string()).await;
    let mut told = Instant::now();
    wait_for_within(MOST, "end of all sub-tasks", async || {
        let done = done(&air).await;
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!(
                "{done} of {count} after {:.0} s",
                start.elapsed().as_secs_f64()
            );
        }
        if done >= count as u64 {
            Ok(())
        } else {
            Err(done)
        }
    })
    .await;
    let all = start.elapsed();
    let mut records = 0;
    for job in 0..JOBS {
        for (_, record) in air.records(&format!("part{job}")).await {
            assert_eq!(
                (record.status, record.attempt),
                (Status::Succeeded, 1),
                "{record:?}"
            );
            records += 1;
        }
    }
    assert_eq!(records, count, "each sub-task has one record");
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let rate = count as f64 / all.as_secs_f64();
    println!(
        "{count} sub-tasks of one task, over {JOBS} jobs: all committed once in {:.1} s, {rate:.0} tasks/s",
        all.as_secs_f64()
    );
}

async fn done(air: &Installation) -> u64 {
    let mut done = 0;
    for job in 0..JOBS {
        let state = air.state(&format!("part{job}")).await;
        done += state.map_or(0, |state| state.ledger.counters.succeeded);
    }
    done
}
