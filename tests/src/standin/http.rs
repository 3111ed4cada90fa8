//! As much HTTP as the CLI asks for: one request a connection, an answer as a stream of events or as a whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Desk;
use super::step::{Kind, Step};

/// Bytes of text in one event.
const DELTA_BYTES: usize = 64 * 1024;

/// Numbers messages and calls of tools, so that no two are the same.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Answers for ever.
pub(super) async fn serve(listener: TcpListener, desk: Arc<Mutex<Desk>>) {
    while let Ok((stream, _)) = listener.accept().await {
        // A client that goes away in the middle is no trouble.
        tokio::spawn(answer(stream, desk.clone()));
    }
}

async fn answer(stream: TcpStream, desk: Arc<Mutex<Desk>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut method, mut session, mut key) = (String::new(), String::new(), String::new());
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let text = line.trim_end();
        if method.is_empty() {
            text.split(' ')
                .next()
                .unwrap_or_default()
                .clone_into(&mut method);
        }
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "x-claude-code-session-id" => value.clone_into(&mut session),
                "x-api-key" => value.clone_into(&mut key),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let mut stream = stream.into_inner();
    if method != "POST" {
        let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return stream.write_all(empty.as_bytes()).await;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (model, streams) = (body["model"].clone(), body["stream"] == true);
    let step = desk.lock().unwrap().next(session, key, body);
    reply(&mut stream, &step, &model, streams).await?;
    stream.shutdown().await
}

async fn reply(
    stream: &mut TcpStream,
    step: &Step,
    model: &Value,
    streams: bool,
) -> std::io::Result<()> {
    if let Kind::Status {
        code,
        kind,
        message,
        headers,
    } = &step.kind
    {
        let body = json!({ "type": "error", "error": { "type": kind, "message": message } });
        let more = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        return whole(stream, *code, &more.collect::<String>(), &body).await;
    }
    if matches!(step.kind, Kind::Hang) {
        // Until the client has had enough.
        let mut nothing = [0; 64];
        while stream.read(&mut nothing).await? > 0 {}
        return Ok(());
    }
    let events = events(step, model);
    if streams {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        for event in events {
            let name = event["type"].as_str().unwrap_or_default();
            let text = format!("event: {name}\ndata: {event}\n\n");
            stream.write_all(text.as_bytes()).await?;
        }
        return Ok(());
    }
    let mut message = message(step, model, "end_turn");
    message["content"] = match &step.kind {
        Kind::Text(text) => json!([{ "type": "text", "text": text }]),
        _ => json!([{ "type": "text", "text": "cut" }]),
    };
    whole(stream, 200, "", &message).await
}

async fn whole(stream: &mut TcpStream, code: u16, more: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {code} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

fn message(step: &Step, model: &Value, stop: &str) -> Value {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model,
        "content": [], "stop_reason": stop, "stop_sequence": null,
        "usage": { "input_tokens": step.input_tokens, "output_tokens": step.output_tokens },
    })
}

/// The events of an answer; those of one that is cut lack the end.
fn events(step: &Step, model: &Value) -> Vec<Value> {
    let mut begun = message(step, model, "");
    begun["stop_reason"] = Value::Null;
    begun["usage"]["output_tokens"] = json!(1);
    let mut events = vec![json!({ "type": "message_start", "message": begun })];
    let mut stop = "end_turn";
    match &step.kind {
        Kind::Tools(calls) => {
            stop = "tool_use";
            for (index, (name, input)) in calls.iter().enumerate() {
                let id = NEXT.fetch_add(1, Ordering::Relaxed);
                let id = format!("toolu_{id:06}_{}", std::process::id());
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                let delta =
                    json!({ "type": "input_json_delta", "partial_json": input.to_string() });
                block_of(&mut events, index, &block, [delta]);
            }
        }
        Kind::Text(text) => {
            let parts = text.as_bytes().chunks(DELTA_BYTES);
            let deltas = parts.map(|part| {
                let text = String::from_utf8_lossy(part);
                json!({ "type": "text_delta", "text": text })
            });
            block_of(
                &mut events,
                0,
                &json!({ "type": "text", "text": "" }),
                deltas,
            );
        }
        _ => {
            let delta = json!({ "type": "text_delta", "text": "I was about to" });
            block_of(
                &mut events,
                0,
                &json!({ "type": "text", "text": "" }),
                [delta],
            );
            events.pop();
            return events;
        }
    }
    events.push(json!({
        "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null },
        "usage": { "output_tokens": step.output_tokens },
    }));
    events.push(json!({ "type": "message_stop" }));
    events
}

fn block_of(
    events: &mut Vec<Value>,
    index: usize,
    block: &Value,
    deltas: impl IntoIterator<Item = Value>,
) {
    events.push(json!({ "type": "content_block_start", "index": index, "content_block": block }));
    for delta in deltas {
        events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    }
    events.push(json!({ "type": "content_block_stop", "index": index }));
}
