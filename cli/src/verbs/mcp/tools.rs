//! The tools: their names, what they say of themselves, and the schemas of their arguments.

use std::sync::Arc;

use air_protocol::limits::{QUESTION_CHARS_MAX, SUBTASKS_MAX, TASK_NEEDS_MAX};
use rmcp::model::{JsonObject, Tool};
use serde_json::{Value, json};

use super::order::CALL_TASKS_MAX;

/// Characters of one word of progress.
pub(super) const PROGRESS_CHARS_MAX: usize = 500;
/// Tasks that one list shows.
pub(super) const LISTED_MAX: usize = 200;

/// What an agent is told of the server, inside a task.
pub(super) const INSIDE: &str = "You work in one task of a job. Tasks that you queue run after this task has ended well, each by itself; if it does not, none of them exists. Queue work for later by queue_task or queue_tasks, and end: do not wait for what you have queued.";
/// The same, elsewhere.
pub(super) const OUTSIDE: &str = "Jobs are queues of tasks. Tasks of one job run one after another, those of different jobs side by side.";

/// The tools of a server inside a task, or elsewhere.
pub(super) fn all(inside: bool) -> Vec<Tool> {
    let queue = if inside {
        format!(
            "It runs after this task has ended well; if this task does not, it never exists. A task may queue {SUBTASKS_MAX} at most."
        )
    } else {
        "It runs as soon as it is its turn.".to_owned()
    };
    let tool = |name: &'static str, text: String, schema: Value| {
        let schema = match schema {
            Value::Object(schema) => schema,
            _ => JsonObject::new(),
        };
        Tool::new(name, text, Arc::new(schema))
    };
    let mut tools = vec![
        tool(
            "queue_task",
            format!(
                "Queues one task: exactly one of `run`, `exec` and `claude`. {queue} Gives its job and id."
            ),
            task(inside),
        ),
        tool(
            "queue_tasks",
            format!(
                "Queues several tasks, all of them or, if one is wrong, none. {queue} Gives their jobs and ids."
            ),
            object(
                &json!({"tasks": {"type": "array", "items": task(inside), "minItems": 1, "maxItems": CALL_TASKS_MAX}}),
                &["tasks"],
            ),
        ),
    ];
    if inside {
        tools.extend(inside_only(&tool));
    } else {
        tools.push(tool(
            "list_tasks",
            "Lists tasks of a job with their status, the newest last.".to_owned(),
            object(&json!({"job": name(), "status": {"type": "string", "description": "Only tasks of this status, such as running, queued, failed, parked"}, "after": after()}), &["job"]),
        ));
        tools.push(tool(
            "read_result",
            "Reads how a task ended: status, output, exit code, error and what it printed last."
                .to_owned(),
            object(&json!({"job": name(), "task": id()}), &["job", "task"]),
        ));
    }
    tools
}

fn inside_only(tool: &impl Fn(&'static str, String, Value) -> Tool) -> Vec<Tool> {
    vec![
        tool(
            "list_tasks",
            "Lists the tasks that this task needed, and those that it has queued so far. Other tasks cannot be seen from here.".to_owned(),
            object(&json!({"after": after()}), &[]),
        ),
        tool(
            "read_result",
            "Reads how a task ended that this task needed: status, output, exit code and error.".to_owned(),
            object(&json!({"task": {"type": "string", "description": "As it stands in the needs of this task: `task` or `job/task`"}}), &["task"]),
        ),
        tool(
            "report_progress",
            "Says in the log of this task how far the work is.".to_owned(),
            object(
                &json!({"message": {"type": "string", "minLength": 1, "maxLength": PROGRESS_CHARS_MAX}, "percent": {"type": "number", "minimum": 0, "maximum": 100}}),
                &["message"],
            ),
        ),
        tool(
            "ask_human",
            "Asks a person. End your turn after it, without another tool call: the task pauses, however long it takes, and you go on with the answer. Ask only what you cannot find out, and everything at once.".to_owned(),
            object(
                &json!({"question": {"type": "string", "minLength": 1, "maxLength": QUESTION_CHARS_MAX}}),
                &["question"],
            ),
        ),
    ]
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$", "description": "Name of a job"})
}

fn id() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$", "description": "Id of a task"})
}

fn after() -> Value {
    json!({"type": "integer", "minimum": 0, "description": format!("Skip so many; a list shows {LISTED_MAX}")})
}

/// A task. What is refused beyond it is told when it is read.
fn task(inside: bool) -> Value {
    let span =
        json!({"type": "string", "pattern": "^[0-9]", "description": "Such as 90s, 30m or 1h30m"});
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let need = json!({"type": "string", "description": "`task` of the same job, or `job/task`"});
    let when = json!({"enum": ["succeeded", "failed", "done"]});
    let properties = json!({
        "id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", "description": "Name within the job, not used there before; one is given if absent"},
        "run": {"type": "string", "minLength": 1, "description": "A line for /bin/sh"},
        "exec": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Program and arguments, without a shell"},
        "claude": claude(),
        "needs": {"type": "array", "maxItems": TASK_NEEDS_MAX, "items": {"anyOf": [need, object(&json!({"task": need, "when": when}), &["task"])]}, "description": "Tasks that must be over first; it reads their results"},
        "job": name(),
        "input": {"description": "Any JSON, handed to the task in the file AIR_INPUT"},
        "env": texts,
        "cwd": {"type": "string", "description": "Working directory; a temporary folder of its own if absent"},
        "timeout": span,
        "retry": object(&json!({"max": {"type": "integer", "minimum": 0}, "backoff": span, "max_backoff": span}), &[]),
        "not_before": {"type": "string", "format": "date-time"},
        "labels": texts,
        "backend": {"type": "string"},
        "image": {"type": "string"},
        "resources": object(&json!({"cpu": {"type": "string"}, "memory": {"type": "string"}}), &[]),
        "approval": {"const": "required", "description": "A person must approve the task before it runs"},
    });
    object(&properties, if inside { &[] } else { &["job"] })
}

fn claude() -> Value {
    let texts = json!({"type": "array", "items": {"type": "string", "minLength": 1}});
    let workspace = object(
        &json!({
            "repo": {"type": "string", "minLength": 1, "description": "Path or address of a git repository"},
            "ref": {"type": "string"},
            "from": {"type": "string", "description": "Task whose branch it starts from, which it needs"},
        }),
        &["repo"],
    );
    let whole = object(
        &json!({
            "prompt": {"type": "string", "minLength": 1},
            "model": {"type": "string"},
            "fallback_model": {"type": "string"},
            "max_turns": {"type": "integer", "minimum": 1},
            "max_budget_usd": {"type": "number", "exclusiveMinimum": 0},
            "allowed_tools": texts,
            "disallowed_tools": texts,
            "permission_mode": {"enum": ["default", "acceptEdits", "plan", "dontAsk"]},
            "accept_denials": {"type": "boolean"},
            "system": {"type": "string"},
            "schema": {"type": "object", "description": "JSON Schema of the result"},
            "workspace": workspace,
            "session": {"enum": ["resume", "fresh"]},
        }),
        &["prompt"],
    );
    json!({"anyOf": [{"type": "string", "minLength": 1}, whole], "description": "A prompt for another agent, or an object with its bounds"})
}

#[cfg(test)]
mod tests {
    use super::*;
    use air_protocol::claude::CLAUDE_FIELDS;
    use air_protocol::task::TASK_FIELDS;

    /// Names of the properties of a schema.
    fn names(schema: &Value) -> Vec<&str> {
        let properties = schema["properties"].as_object().unwrap();
        properties.keys().map(String::as_str).collect()
    }

    #[test]
    fn the_schema_of_a_task_has_its_fields() {
        let task = task(true);
        let mut fields: Vec<_> = TASK_FIELDS.to_vec();
        fields.retain(|field| !["v", "fanout"].contains(field));
        fields.sort_unstable();
        let mut named = names(&task);
        named.sort_unstable();
        assert_eq!(named, fields);
        let claude = &task["properties"]["claude"]["anyOf"][1];
        let mut fields: Vec<_> = CLAUDE_FIELDS.to_vec();
        fields.retain(|field| *field != "mcp");
        fields.sort_unstable();
        let mut named = names(claude);
        named.sort_unstable();
        assert_eq!(named, fields);
    }

    #[test]
    fn every_object_of_a_schema_is_closed() {
        for inside in [true, false] {
            for tool in all(inside) {
                assert_eq!(tool.input_schema["type"], "object");
                assert_eq!(
                    tool.input_schema["additionalProperties"], false,
                    "{}",
                    tool.name
                );
                let text = tool.description.unwrap();
                assert!(!text.is_empty());
            }
        }
        assert_eq!(all(true).len(), 6);
        assert_eq!(all(false).len(), 4);
    }
}
