//! The CLI's lines as a person reads them in `airx logs -f`: texts whole, calls of tools and their results shortened. Pure.

use std::fmt::Write as _;

use serde_json::Value;

/// Characters of a text of the model that are shown.
const TEXT_CHARS_MAX: usize = 16 * 1024;
/// Characters of a call that are shown.
const CALL_CHARS_MAX: usize = 300;
/// Characters, and lines, of a tool's result that are shown.
const RESULT_CHARS_MAX: usize = 600;
const RESULT_LINES_MAX: usize = 8;
/// What says most about a call, in this order; else its whole input.
const TELLING: [&str; 6] = ["command", "file_path", "pattern", "path", "url", "query"];

/// The line, to be shown; empty where there is nothing to show.
pub(super) fn readable(line: &Value) -> String {
    let field = |name: &str| line[name].as_str().unwrap_or_default();
    match (field("type"), field("subtype")) {
        ("system", "init") => {
            format!(
                "[session {}, model {}]\n",
                field("session_id"),
                field("model")
            )
        }
        ("system", "api_retry") => {
            let status = line["error_status"].as_u64();
            let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            let seconds = line["retry_delay_ms"].as_f64().unwrap_or(0.0) / 1000.0;
            format!("[the service refuses ({status}); trying again in {seconds:.1} s]\n")
        }
        ("assistant" | "user", _) => {
            let mut shown = String::new();
            let parts = line["message"]["content"].as_array().into_iter().flatten();
            for part in parts {
                show_part(part, &mut shown);
            }
            shown
        }
        ("result", subtype) => {
            let turns = line["num_turns"].as_u64().unwrap_or(0);
            let usd = line["total_cost_usd"].as_f64().unwrap_or(0.0);
            let how = if line["is_error"] == false {
                "ended"
            } else {
                "failed"
            };
            format!("[{how}: {subtype}, {turns} turns, {usd} USD]\n")
        }
        _ => String::new(),
    }
}

fn show_part(part: &Value, shown: &mut String) {
    match part["type"].as_str() {
        Some("text") => {
            let text = shorten(part["text"].as_str().unwrap_or_default(), TEXT_CHARS_MAX);
            if !text.trim().is_empty() {
                let _ = writeln!(shown, "{}", text.trim_end());
            }
        }
        Some("tool_use") => {
            let input = &part["input"];
            let telling = TELLING.iter().find_map(|name| input[name].as_str());
            let input = telling.map_or_else(|| input.to_string(), str::to_owned);
            let input = shorten(&one_line(&input), CALL_CHARS_MAX);
            let _ = writeln!(
                shown,
                "▶ {}: {input}",
                part["name"].as_str().unwrap_or_default()
            );
        }
        Some("tool_result") => {
            let mark = if part["is_error"] == true {
                "✗"
            } else {
                "◀"
            };
            for line in shorten_lines(&content(&part["content"])).lines() {
                let _ = writeln!(shown, "{mark} {line}");
            }
        }
        _ => {}
    }
}

fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let text = |part: &Value| match part["text"].as_str() {
                Some(text) => text.to_owned(),
                None => format!("[{}]", part["type"].as_str().unwrap_or("?")),
            };
            parts.iter().map(text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn one_line(text: &str) -> String {
    text.trim().replace('\n', " ⏎ ")
}

fn shorten(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => {
            let left = text.len() - end;
            format!("{} … ({left} bytes more)", &text[..end])
        }
        None => text.to_owned(),
    }
}

fn shorten_lines(text: &str) -> String {
    let end = text
        .match_indices('\n')
        .nth(RESULT_LINES_MAX - 1)
        .map(|(at, _)| at);
    match end {
        Some(end) if end + 1 < text.len() => {
            let shown = shorten(&text[..end], RESULT_CHARS_MAX);
            format!("{shown}\n… ({} bytes in all)", text.len())
        }
        _ => shorten(text, RESULT_CHARS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_what_happens() {
        let said = json!({ "type": "assistant", "message": { "content": [
            { "type": "text", "text": "I look first.\n" },
            { "type": "tool_use", "name": "Bash", "input": { "command": "ls\npwd", "description": "d" } },
            { "type": "tool_use", "name": "mcp__air__queue_task", "input": { "run": "true" } },
        ] } });
        let wanted =
            "I look first.\n▶ Bash: ls ⏎ pwd\n▶ mcp__air__queue_task: {\"run\":\"true\"}\n";
        assert_eq!(readable(&said), wanted);
        let result = json!({ "type": "user", "message": { "content": [
            { "type": "tool_result", "is_error": true, "content": "no\nway" },
            { "type": "tool_result", "content": [{ "type": "text", "text": "a" }, { "type": "image" }] },
        ] } });
        assert_eq!(readable(&result), "✗ no\n✗ way\n◀ a\n◀ [image]\n");
        let retry = json!({ "type": "system", "subtype": "api_retry", "error_status": 429, "retry_delay_ms": 2000 });
        assert!(readable(&retry).contains("(429); trying again in 2.0 s"));
        assert_eq!(readable(&json!({ "type": "other" })), "");
        assert_eq!(readable(&json!(5)), "");
    }

    #[test]
    fn what_is_long_is_shortened() {
        let of = |content: &str| {
            let part = json!({ "type": "tool_result", "content": content });
            readable(&json!({ "type": "user", "message": { "content": [part] } }))
        };
        let lines = of(&"line\n".repeat(1000));
        assert_eq!(lines.lines().count(), RESULT_LINES_MAX + 1);
        assert!(lines.ends_with("◀ … (5000 bytes in all)\n"), "{lines}");
        let wide = of(&"ä".repeat(10_000));
        assert!(
            wide.len() < 3 * RESULT_CHARS_MAX && wide.contains("bytes more"),
            "{wide}"
        );
        assert_eq!(
            of(&"line\n".repeat(RESULT_LINES_MAX)).lines().count(),
            RESULT_LINES_MAX
        );
    }
}
