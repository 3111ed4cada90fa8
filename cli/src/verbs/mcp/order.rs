//! Reads the tasks of a call, and gives each an id, so that a call that comes twice means the same tasks.

use air_protocol::codec;
use air_protocol::limits::TASK_BYTES_MAX;
use air_protocol::names::{JobName, TaskId};
use air_protocol::task::{Task, Work};
use rmcp::model::JsonObject;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Tasks that one call may queue.
pub(super) const CALL_TASKS_MAX: usize = 1000;

/// Who calls: the same for a call that comes again.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// What tells this task, or user, from others.
    pub(super) scope: String,
    /// The client's id of the call; none where it gives none.
    pub(super) call: Option<String>,
}

impl Caller {
    /// An id for the task of this number in the call.
    fn id(&self, number: usize) -> Result<TaskId, String> {
        let text = match &self.call {
            Some(call) => {
                let name = format!("{}\n{call}\n{number}", self.scope);
                let digest = Sha256::digest(name.as_bytes());
                let short = digest.iter().take(16);
                short.map(|byte| format!("{byte:02x}")).collect()
            }
            None => Uuid::now_v7().simple().to_string(),
        };
        text.parse()
            .map_err(|error| format!("no id could be made: {error}"))
    }
}

/// One task that is to be queued.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    /// The job.
    pub(super) job: JobName,
    /// Its id.
    pub(super) id: TaskId,
    /// The task, with both.
    pub(super) task: Task,
    /// The same in JSON.
    pub(super) json: Vec<u8>,
}

/// The tasks of a call: that of `queue_task`, or those of `queue_tasks`. `own` is the job of those that name none.
///
/// # Errors
/// What is wrong with the first that is wrong, and how to mend it; then none is queued.
pub(super) fn orders(
    many: bool,
    mut arguments: JsonObject,
    own: Option<&JobName>,
    caller: &Caller,
) -> Result<Vec<Order>, String> {
    if !many {
        let order = order(Value::Object(arguments), own, caller, 0);
        return order.map(|order| vec![order]);
    }
    let Some(Value::Array(tasks)) = arguments.remove("tasks") else {
        return Err("`tasks` is missing or no list; give a list of tasks".to_owned());
    };
    if let Some(other) = arguments.keys().next() {
        return Err(format!(
            "`{other}` is no argument of queue_tasks; put it into each task of `tasks`"
        ));
    }
    if tasks.is_empty() || tasks.len() > CALL_TASKS_MAX {
        return Err(format!(
            "`tasks` has {} tasks; give 1 to {CALL_TASKS_MAX} in one call",
            tasks.len()
        ));
    }
    let one = |(number, task)| {
        let order = order(task, own, caller, number);
        order.map_err(|text| format!("tasks[{number}]: {text}; nothing was queued"))
    };
    tasks.into_iter().enumerate().map(one).collect()
}

fn order(
    value: Value,
    own: Option<&JobName>,
    caller: &Caller,
    number: usize,
) -> Result<Order, String> {
    // The reader of tasks tells no place where the kind of work is of the wrong type.
    if value.get("run").is_some_and(|run| !run.is_string()) {
        return Err("`run` is no text; give a line for the shell, such as \"echo hi\"".to_owned());
    }
    let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
    if (value.get("exec")).is_some_and(|exec| !exec.as_array().is_some_and(texts)) {
        return Err(
            "`exec` is no list of texts; give program and arguments, such as [\"echo\", \"hi\"]"
                .to_owned(),
        );
    }
    let mut task = codec::task_of(value).map_err(|error| error.to_string())?;
    if matches!(task.work, Work::Fanout(_)) {
        return Err(
            "`fanout` is written by the system only; give `run`, `exec` or `claude`".to_owned(),
        );
    }
    if let Some(id) = task.id.as_ref().filter(|id| id.sequence().is_some()) {
        return Err(format!(
            "`id` is `{id}`, a form that only the system gives; choose one without the leading _, or leave it out"
        ));
    }
    let job = task.job.take().or_else(|| own.cloned());
    let job = job.ok_or("`job` is missing; name the job into which the task is queued")?;
    let id = match task.id.clone() {
        Some(id) => id,
        None => caller.id(number)?,
    };
    task.id = Some(id.clone());
    task.job = own.is_none_or(|own| *own != job).then(|| job.clone());
    let json = codec::encode(air_protocol::spec::Wire::Json, &task);
    if json.len() > TASK_BYTES_MAX {
        return Err(format!(
            "the task has {} bytes, but {TASK_BYTES_MAX} are the most; hand large input over as a file",
            json.len()
        ));
    }
    Ok(Order {
        job,
        id,
        task,
        json,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn caller(call: Option<&str>) -> Caller {
        Caller {
            scope: "j/t".into(),
            call: call.map(str::to_owned),
        }
    }

    fn read(many: bool, arguments: Value) -> Result<Vec<Order>, String> {
        let own = "j".parse().unwrap();
        let arguments = arguments.as_object().unwrap().clone();
        orders(many, arguments, Some(&own), &caller(Some("call")))
    }

    #[test]
    fn a_call_that_comes_again_means_the_same_task() {
        let twice = || read(false, json!({"run": "true"})).unwrap().remove(0);
        assert_eq!(twice(), twice());
        let own = "j".parse().unwrap();
        let of = |caller: &Caller| {
            let arguments = json!({"run": "true"}).as_object().unwrap().clone();
            orders(false, arguments, Some(&own), caller).unwrap()[0]
                .id
                .clone()
        };
        let other = Caller {
            scope: "j/u".into(),
            ..caller(Some("call"))
        };
        assert_ne!(of(&other), twice().id, "another task's call");
        assert_ne!(of(&caller(Some("other"))), twice().id);
        assert_ne!(of(&caller(None)), of(&caller(None)));
        let many = read(true, json!({"tasks": [{"run": "a"}, {"run": "b"}]})).unwrap();
        assert_ne!(many[0].id, many[1].id);
        assert_eq!(many[0].id, twice().id);
    }

    #[test]
    fn a_task_goes_where_it_says() {
        let order = read(false, json!({"id": "x", "claude": "go", "job": "k"})).unwrap();
        assert_eq!((order[0].job.as_str(), order[0].id.as_str()), ("k", "x"));
        assert_eq!(order[0].task.job, Some("k".parse().unwrap()));
        let own = read(false, json!({"run": "true", "job": "j"})).unwrap();
        assert_eq!((own[0].job.as_str(), &own[0].task.job), ("j", &None));
        let arguments = json!({"run": "true"}).as_object().unwrap().clone();
        let error = orders(false, arguments, None, &caller(None)).unwrap_err();
        assert!(error.contains("`job` is missing"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_is_queued() {
        for (arguments, text) in [
            (json!({}), "run"),
            (json!({"run": "a", "exec": ["b"]}), "exec"),
            (json!({"run": "a", "comand": "b"}), "comand"),
            (json!({"run": "a", "id": "_7"}), "only the system"),
            (json!({"run": "a", "id": "../x"}), "id"),
            (json!({"run": ["a"]}), "`run` is no text"),
            (json!({"exec": "a"}), "`exec` is no list"),
            (json!({"exec": ["a", 1]}), "`exec` is no list"),
            (json!({"run": "a\u{0}"}), "NUL"),
            (
                json!({"fanout": {"run": "00000000-0000-0000-0000-000000000001", "parent": "a/b", "page": 1, "pages": 2}}),
                "system only",
            ),
            (json!({"run": "x".repeat(TASK_BYTES_MAX)}), "bytes"),
        ] {
            let error = read(false, arguments).unwrap_err();
            assert!(error.contains(text), "{text}: {error}");
        }
        let error = read(true, json!({"tasks": [{"run": "a"}, {"rum": "b"}]})).unwrap_err();
        assert!(
            error.starts_with("tasks[1]: ") && error.contains("nothing was queued"),
            "{error}"
        );
        for bad in [
            json!({"tasks": []}),
            json!({"tasks": "a"}),
            json!({"run": "a"}),
            json!({"tasks": [], "job": "k"}),
        ] {
            assert!(read(true, bad).is_err());
        }
        let most = |count| read(true, json!({"tasks": vec![json!({"run": "a"}); count]}));
        assert_eq!(most(CALL_TASKS_MAX).unwrap().len(), CALL_TASKS_MAX);
        assert!(most(CALL_TASKS_MAX + 1).is_err());
    }
}
