//! What the agent is told: the prompt with the task's input, or how a session goes on. Pure but for the prompt's file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use air_protocol::agent::Failure;
use air_protocol::claude::{Claude, Prompt, PromptFile};
use air_protocol::limits::PROMPT_BYTES_MAX;
use air_protocol::record::Record;
use serde_json::Value;

/// The prompt of a session that begins.
///
/// # Errors
/// The file cannot be read, or all is too long.
pub(super) fn first(
    claude: &Claude,
    cwd: &Path,
    input: Option<&Value>,
    has_needs: bool,
) -> Result<String, String> {
    let mut text = match &claude.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::File(PromptFile { file }) => read(&cwd.join(file), file)?,
    };
    if let Some(input) = input {
        let input = serde_json::to_string_pretty(input).unwrap_or_default();
        text = format!("{text}\n\nThe input of this task, as JSON:\n{input}\n");
    }
    if has_needs {
        text.push_str("\n\nThe file that $AIR_NEEDS names holds, as JSON, what became of the tasks that this one needed.\n");
    }
    if text.len() as u64 > PROMPT_BYTES_MAX {
        return Err(format!(
            "the prompt, with the task's input, has {} bytes, but {PROMPT_BYTES_MAX} are the most; hand large data over as a file",
            text.len()
        ));
    }
    Ok(text)
}

fn read(path: &Path, name: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("the prompt in `{name}` cannot be read: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(PROMPT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// What a session that goes on is told.
pub(super) fn next(last: &Record, before: &str, cwd: &Path) -> String {
    // A record by a person: no runner wrote it.
    let answered = last.run.is_none().then(|| last.replies.last()).flatten();
    if let Some(reply) = answered
        && let Some(question) = &reply.question
    {
        return format!(
            "The answer to your question `{question}` is: {}",
            reply.text
        );
    }
    let failure = last.agent.as_ref().and_then(|agent| agent.failure);
    let mut text = match failure {
        Some(Failure::Schema) => "You gave no result in the wanted schema. Finish the task, and give the result by the tool StructuredOutput.".to_owned(),
        Some(Failure::Permission) => "Tools were denied to you; what you may use may have changed since. Finish the task.".to_owned(),
        _ => "Your work on this task was interrupted and goes on now. What you have done so far is done; the last step may or may not be. Continue where you stopped.".to_owned(),
    };
    let now = cwd.to_string_lossy();
    if before != now {
        text.push_str(&format!("\nThe working folder is now `{now}`, not `{before}`: files of yours in the old one are gone."));
    }
    text
}

#[cfg(test)]
mod tests {
    use air_protocol::agent::AgentRun;
    use air_protocol::approval::Reply;
    use air_protocol::record::Status;
    use air_protocol::time::Time;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_input_stands_in_the_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let input = json!({ "n": 1 });
        let text = first(&Claude::new("do it"), folder.path(), Some(&input), true).unwrap();
        assert!(
            text.starts_with("do it\n") && text.contains("\"n\": 1") && text.contains("AIR_NEEDS"),
            "{text}"
        );
        let claude: Claude =
            serde_json::from_value(json!({ "prompt": { "file": "p.md" } })).unwrap();
        let error = first(&claude, folder.path(), None, false).unwrap_err();
        assert!(error.contains("`p.md`"), "{error}");
        std::fs::write(folder.path().join("p.md"), "from a file").unwrap();
        assert_eq!(
            first(&claude, folder.path(), None, false).unwrap(),
            "from a file"
        );
        let long = json!("x".repeat(1024 * 1024));
        assert!(
            first(&claude, folder.path(), Some(&long), false)
                .unwrap_err()
                .contains("1048576")
        );
    }

    #[test]
    fn a_session_is_told_why_it_goes_on() {
        let cwd = Path::new("/new");
        let mut last = Record::new("t".parse().unwrap(), Status::Reset, 1, Time::default());
        last.replies.push(Reply {
            question: Some("which?".into()),
            text: "the second".into(),
            at: Time::default(),
        });
        let text = next(&last, "/new", cwd);
        assert_eq!(text, "The answer to your question `which?` is: the second");
        last.run = Some(uuid::Uuid::nil());
        let text = next(&last, "/old", cwd);
        assert!(
            text.contains("Continue") && text.contains("`/new`, not `/old`"),
            "{text}"
        );
        last.agent = Some(AgentRun {
            failure: Some(Failure::Schema),
            ..AgentRun::default()
        });
        let text = next(&last, "/new", cwd);
        assert!(
            text.contains("StructuredOutput") && !text.contains("/new"),
            "{text}"
        );
    }
}
