//! Queues three tasks, follows the job to its end and prints the result, with async-nats.
//!
//!     NATS_URL=nats://127.0.0.1:4222 cargo run -- demo
//!
//! Run it twice: the second run queues nothing, since the server knows each Nats-Msg-Id for two minutes.

use std::error::Error;

use async_nats::jetstream::{self, kv::Operation, message::PublishMessage};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

const TEXT: &str = "the quick brown fox";

fn tasks() -> [Value; 3] {
    let letters = json!({"id": "letters", "input": TEXT, "run": "tr -cd a-z < $AIR_INPUT | wc -c > $AIR_OUTPUT"});
    [
        json!({"id": "words", "input": TEXT, "run": "wc -w < $AIR_INPUT > $AIR_OUTPUT"}),
        // Queues a sub-task, which it got as its input.
        json!({"id": "plan", "input": letters, "run": "cat $AIR_INPUT >> $AIR_TASKS"}),
        // Waits for that sub-task too, and gets the outputs of what it needs.
        json!({"id": "report", "needs": ["words", "letters"], "run": "cat $AIR_NEEDS > $AIR_OUTPUT"}),
    ]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let job = std::env::args().nth(1).ok_or("usage: rust-client JOB")?;
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    let mut seq = 0;
    for task in tasks() {
        let id = task["id"].as_str().unwrap_or_default();
        let message = PublishMessage::build()
            .message_id(format!("{job}-{id}"))
            .payload(task.to_string().into());
        // The first await sends, the second waits for the acknowledgement.
        let ack = jetstream
            .send_publish(format!("air.tasks.{job}"), message)
            .await?
            .await?;
        seq = ack.sequence;
        println!("{} {id}", if ack.duplicate { "known" } else { "queued" });
    }

    // The job is over when it has failed, or when its queue was seen empty up to our last task (`drained`).
    let jobs = jetstream.get_key_value("air-jobs").await?;
    let mut watch = jobs.watch_with_history(&job).await?;
    while let Some(entry) = watch.try_next().await? {
        if entry.operation != Operation::Put {
            continue;
        }
        let state: Value = serde_json::from_slice(&entry.value)?;
        let status = state["status"].as_str().unwrap_or_default();
        if status != "failed" && state["drained"].as_u64().unwrap_or(0) < seq {
            continue;
        }
        println!(
            "{job} {status}: {} succeeded",
            state["counters"]["succeeded"]
        );
        if status != "completed" {
            return Err(format!("the job is {status}").into());
        }
        break;
    }

    // The last record of a task is the truth about it.
    let stream = jetstream.get_stream("AIR").await?;
    let record = stream
        .get_last_raw_message_by_subject(&format!("air.results.{job}.report"))
        .await?;
    let record: Value = serde_json::from_slice(&record.payload)?;
    println!("report {}", record["output"]);
    Ok(())
}
