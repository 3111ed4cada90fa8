//! The task kind `claude`: a prompt for the Claude Code CLI, and the bounds within which it works.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::cost::Usd;
use crate::names::TaskId;
use crate::quote::quote;

/// Work for an agent. Written as an object, or as a text, which is the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Claude {
    /// What the agent is to do.
    pub prompt: Prompt,
    /// Model, such as `sonnet`; the CLI's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Model that is used while the other one is overloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_model: Option<String>,
    /// Turns that the agent may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
    /// Money that the attempt may cost, in US dollars; checked by the CLI after each turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_budget_usd: Option<Usd>,
    /// Tools that need no further permission, such as `Bash(git *)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_tools: Vec<String>,
    /// Tools that the agent does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disallowed_tools: Vec<String>,
    /// How the CLI treats tools that are not allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<PermissionMode>,
    /// Whether the task succeeds although a tool was denied to the agent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_denials: bool,
    /// Text that is added to the system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Further MCP servers by name, each as in the CLI's `mcpServers`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp: BTreeMap<String, Value>,
    /// JSON Schema of the result, which becomes the task's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Git worktree in which the agent works; the task's own temporary folder when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// What a further attempt does with the session of the one before.
    #[serde(default, skip_serializing_if = "Session::is_default")]
    pub session: Session,
}

/// The prompt: a text, or a file in the working folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Prompt {
    /// The text itself.
    Text(String),
    /// A file that holds it.
    File(PromptFile),
}

/// A file with a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PromptFile {
    /// Path, relative to the working folder.
    pub file: String,
}

/// How the CLI treats tools that are not allowed; its own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// They are denied, since nobody can be asked.
    Default,
    /// Changes of files in the working folder are accepted.
    AcceptEdits,
    /// Nothing is changed: the agent makes a plan.
    Plan,
    /// They are denied.
    DontAsk,
    /// Everything is allowed; only where the job's spec says `claude: {bypass_permissions: true}`.
    BypassPermissions,
}

impl PermissionMode {
    /// The CLI's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AcceptEdits => "acceptEdits",
            Self::Plan => "plan",
            Self::DontAsk => "dontAsk",
            Self::BypassPermissions => "bypassPermissions",
        }
    }
}

/// A git worktree of the task's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The repository: a path on the runner's host, or an address that git can clone.
    pub repo: String,
    /// Branch, tag or commit from which the task starts; `HEAD` when absent.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Start from the branch of this task instead, which the task needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskId>,
}

/// What a further attempt does with the session of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Session {
    /// It goes on in it.
    #[default]
    Resume,
    /// It begins anew.
    Fresh,
}

impl Session {
    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The fields of `claude`, as they stand in JSON.
pub const CLAUDE_FIELDS: &[&str] = &[
    "prompt",
    "model",
    "fallback_model",
    "max_turns",
    "max_budget_usd",
    "allowed_tools",
    "disallowed_tools",
    "permission_mode",
    "accept_denials",
    "system",
    "mcp",
    "schema",
    "workspace",
    "session",
];

/// Both ways in which `claude` is written, for the schema.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) enum TextOrClaude {
    /// The prompt.
    Text(String),
    /// Everything.
    Whole(Box<Claude>),
}

/// Reads `claude` where it is a text, too.
pub(crate) fn text_or_whole<'de, D: Deserializer<'de>>(from: D) -> Result<Box<Claude>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Box<Claude>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a prompt, or an object with `prompt`")
        }

        fn visit_str<E: de::Error>(self, prompt: &str) -> Result<Self::Value, E> {
            Ok(Box::new(Claude::new(prompt)))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Claude::deserialize(MapAccessDeserializer::new(map)).map(Box::new)
        }
    }

    from.deserialize_any(Either)
}

impl Claude {
    /// Work of an agent that has nothing but a prompt.
    pub fn new(prompt: &str) -> Self {
        Self {
            prompt: Prompt::Text(prompt.to_owned()),
            model: None,
            fallback_model: None,
            max_turns: None,
            max_budget_usd: None,
            allowed_tools: Vec::new(),
            disallowed_tools: Vec::new(),
            permission_mode: None,
            accept_denials: false,
            system: None,
            mcp: BTreeMap::new(),
            schema: None,
            workspace: None,
            session: Session::default(),
        }
    }

    /// The prompt in a few words, on one line.
    pub fn summary(&self) -> String {
        match &self.prompt {
            Prompt::Text(text) => text.lines().next().unwrap_or_default().to_owned(),
            Prompt::File(PromptFile { file }) => format!("the prompt in {file}"),
        }
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The first rule that the work breaks.
    pub(crate) fn check(&self) -> Result<(), ClaudeRule> {
        match &self.prompt {
            Prompt::Text(text) if text.trim().is_empty() => return Err(ClaudeRule::NoPrompt),
            Prompt::File(PromptFile { file }) if file.trim().is_empty() => {
                return Err(ClaudeRule::NoPrompt);
            }
            Prompt::Text(_) | Prompt::File(_) => {}
        }
        if self.max_turns == Some(0) {
            return Err(ClaudeRule::NoTurns);
        }
        if self.max_budget_usd == Some(Usd::ZERO) {
            return Err(ClaudeRule::NoMoney);
        }
        if self.mcp.contains_key(OWN_SERVER) {
            return Err(ClaudeRule::OwnServer);
        }
        for (name, server) in &self.mcp {
            if !server.is_object() || !is_server_name(name) {
                return Err(ClaudeRule::Server(name.clone()));
            }
        }
        if self
            .schema
            .as_ref()
            .is_some_and(|schema| !schema.is_object())
        {
            return Err(ClaudeRule::Schema);
        }
        let lists = [
            ("allowed_tools", &self.allowed_tools),
            ("disallowed_tools", &self.disallowed_tools),
        ];
        for (field, tools) in lists {
            if let Some(tool) = tools.iter().find(|tool| !is_tool(tool)) {
                let tool = tool.clone();
                return Err(ClaudeRule::Tool { field, tool });
            }
        }
        let words = [
            ("model", self.model.as_deref()),
            ("fallback_model", self.fallback_model.as_deref()),
            (
                "workspace.repo",
                self.workspace.as_ref().map(|space| space.repo.as_str()),
            ),
            (
                "workspace.ref",
                self.workspace
                    .as_ref()
                    .and_then(|space| space.reference.as_deref()),
            ),
        ];
        for (field, word) in words {
            if word.is_some_and(|word| !is_argument(word)) {
                return Err(ClaudeRule::Argument(field));
            }
        }
        match &self.workspace {
            Some(space) if space.reference.is_some() && space.from.is_some() => {
                Err(ClaudeRule::TwoStarts)
            }
            _ => Ok(()),
        }
    }
}

/// Name of the MCP server that every agent has: ours.
pub const OWN_SERVER: &str = "air";

/// A word that may stand among the arguments of a program without being taken for an option.
fn is_argument(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('-') && !word.contains(['\0', '\n'])
}

fn is_tool(tool: &str) -> bool {
    is_argument(tool.trim_start()) && !tool.trim().is_empty()
}

fn is_server_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(allowed)
}

/// A rule that work for an agent breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaudeRule {
    /// Nothing to do.
    #[error("`claude.prompt` is empty; say what is to be done")]
    NoPrompt,
    /// No turn.
    #[error("`claude.max_turns` is 0; give 1 or more, or leave it out")]
    NoTurns,
    /// No money.
    #[error("`claude.max_budget_usd` is 0; give more, or leave it out")]
    NoMoney,
    /// Our own name.
    #[error(
        "`claude.mcp` has a server named `{OWN_SERVER}`, which is Air-Executor's own; choose another name"
    )]
    OwnServer,
    /// No server.
    #[error(
        "`claude.mcp` has no server under `{}`; give letters, digits, `_` and `-` as its name, and an object as in the CLI's `mcpServers`",
        quote(.0)
    )]
    Server(String),
    /// No schema.
    #[error("`claude.schema` is no object; give a JSON Schema")]
    Schema,
    /// No tool.
    #[error("`claude.{field}` has `{}`, which is no tool; write `Bash` or `Bash(git *)`", quote(.tool))]
    Tool {
        /// The list.
        field: &'static str,
        /// What stands in it.
        tool: String,
    },
    /// What a program would take for an option, or for nothing.
    #[error("`claude.{0}` is empty, begins with `-`, or holds a line break; give a plain word")]
    Argument(&'static str),
    /// Two places to start from.
    #[error("`claude.workspace` has both `ref` and `from`; keep one of them")]
    TwoStarts,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::task_of;
    use crate::task::Work;

    fn read(claude: Value) -> Result<Claude, String> {
        let task = task_of(json!({ "claude": claude })).map_err(|error| error.to_string())?;
        match task.work {
            Work::Claude(claude) => Ok(*claude),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mode_is_named_as_the_cli_names_it() {
        for mode in [
            PermissionMode::Default,
            PermissionMode::AcceptEdits,
            PermissionMode::Plan,
            PermissionMode::DontAsk,
            PermissionMode::BypassPermissions,
        ] {
            assert_eq!(json!(mode), mode.as_str());
        }
    }

    #[test]
    fn a_text_is_the_prompt() {
        let short = read(json!("say hi")).unwrap();
        assert_eq!(short, Claude::new("say hi"));
        assert_eq!(read(json!({ "prompt": "say hi" })).unwrap(), short);
        assert_eq!(short.summary(), "say hi");
        let json = serde_json::to_value(&short).unwrap();
        assert_eq!(json, json!({ "prompt": "say hi" }));
    }

    #[test]
    fn everything_can_be_said_and_is_written_again() {
        let whole = json!({
            "prompt": { "file": "prompt.md" },
            "model": "sonnet",
            "fallback_model": "haiku",
            "max_turns": 7,
            "max_budget_usd": 0.5,
            "allowed_tools": ["Bash(git *)"],
            "disallowed_tools": ["WebFetch"],
            "permission_mode": "acceptEdits",
            "accept_denials": true,
            "system": "be brief",
            "mcp": { "docs": { "command": "docs-server" } },
            "schema": { "type": "object" },
            "workspace": { "repo": "/srv/repo", "ref": "main" },
            "session": "fresh",
        });
        let claude = read(whole.clone()).unwrap();
        assert_eq!(serde_json::to_value(&claude).unwrap(), whole);
        let fields = whole.as_object().unwrap();
        assert_eq!(fields.len(), CLAUDE_FIELDS.len());
        assert!(CLAUDE_FIELDS.iter().all(|name| fields.contains_key(*name)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        for (claude, part) in [
            (json!(" "), "`claude.prompt` is empty"),
            (
                json!({ "prompt": { "file": " " } }),
                "`claude.prompt` is empty",
            ),
            (json!(7), "a prompt, or an object with `prompt`"),
            (json!({}), "missing field `prompt`"),
            (
                json!({ "prompt": "p", "modle": "m" }),
                "unknown field `modle`",
            ),
            (json!({ "prompt": "p", "max_turns": 0 }), "max_turns"),
            (
                json!({ "prompt": "p", "max_budget_usd": 0 }),
                "max_budget_usd",
            ),
            (
                json!({ "prompt": "p", "max_budget_usd": -1 }),
                "no amount of US dollars",
            ),
            (
                json!({ "prompt": "p", "mcp": { "air": {} } }),
                "choose another name",
            ),
            (json!({ "prompt": "p", "mcp": { "a b": {} } }), "`a b`"),
            (json!({ "prompt": "p", "mcp": { "a": 1 } }), "`claude.mcp`"),
            (json!({ "prompt": "p", "schema": 1 }), "JSON Schema"),
            (
                json!({ "prompt": "p", "allowed_tools": ["--yes"] }),
                "`--yes`",
            ),
            (
                json!({ "prompt": "p", "disallowed_tools": [""] }),
                "disallowed_tools",
            ),
            (
                json!({ "prompt": "p", "model": "--help" }),
                "`claude.model`",
            ),
            (
                json!({ "prompt": "p", "workspace": { "repo": "-u" } }),
                "workspace.repo",
            ),
            (
                json!({ "prompt": "p", "workspace": { "repo": "r", "ref": "a", "from": "b" } }),
                "both `ref` and `from`",
            ),
        ] {
            let error = read(claude.clone()).unwrap_err();
            assert!(error.contains(part), "{claude}: {error}");
        }
    }
}
