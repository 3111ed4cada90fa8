//! A transcript of 100 MB: the log and the blob stay within their limits, the result is not lost.

use std::os::unix::fs::PermissionsExt as _;

use air_protocol::limits::{LOG_BYTES_MAX, TRANSCRIPT_BYTES_MAX};
use air_protocol::record::Status;
use air_tests::Agents;
use serde_json::json;

use super::{agent, run};

/// A CLI that says a hundred megabytes: a real one would need as much from its service.
const TALKATIVE: &str = r#"#!/bin/sh
cat > /dev/null
echo '{"type":"system","subtype":"init","session_id":"s","model":"m","mcp_servers":[]}'
text=$(head -c 100000 /dev/zero | tr '\0' 'x')
line="{\"type\":\"assistant\",\"message\":{\"id\":\"1\",\"model\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"$text\"}],\"usage\":{\"input_tokens\":1}}}"
i=0
while [ $i -lt 1000 ]; do echo "$line"; i=$((i+1)); done
head -c 9000000 /dev/zero | tr '\0' 'y'; echo
echo '{"type":"result","subtype":"success","is_error":false,"result":"said it all","num_turns":1,"total_cost_usd":0.5,"usage":{"input_tokens":1}}'
"#;

#[tokio::test]
async fn a_transcript_of_100_mb_does_not_hurt() {
    let mut agents = Agents::start(0).await;
    let program = agents.air.server.folder().join("talkative");
    std::fs::write(&program, TALKATIVE).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    agents.more = vec![("AIR_CLAUDE", program.display().to_string())];
    agents.add_manager(&[]);
    let record = run(&agents, "j", json!("talk")).await;
    assert_eq!(record.status, Status::Succeeded, "{:?}", record.error);
    assert_eq!(record.output, Some(json!({ "summary": "said it all" })));
    let blob = agent(&record).transcript.as_ref().unwrap();
    let raw = agents.air.nats.get_blob(blob).await.unwrap().unwrap();
    let bytes = raw.len() as u64;
    assert!(
        bytes > TRANSCRIPT_BYTES_MAX / 2 && bytes < TRANSCRIPT_BYTES_MAX + 4096,
        "{bytes}"
    );
    let end = String::from_utf8(raw[raw.len() - 400..].to_vec()).unwrap();
    assert!(
        end.contains("\"type\":\"result\"") && end.contains("\"dropped\""),
        "{end}"
    );
    let log = agents.air.log("j", "t").await;
    assert!(log.len() as u64 <= LOG_BYTES_MAX + 4096, "{}", log.len());
    assert!(log.ends_with(b"not kept]\n") || log.ends_with(b"USD]\n"));
    // The program itself, without what runs it.
    assert!(
        record.max_rss_kb.unwrap() < 200_000,
        "{:?}",
        record.max_rss_kb
    );
}
