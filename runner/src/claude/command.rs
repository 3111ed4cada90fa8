//! The command line and the environment of the CLI. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use air_protocol::budget;
use air_protocol::claude::{Claude, OWN_SERVER, PermissionMode};
use air_protocol::cost::Usd;
use air_protocol::limits::CLAUDE_TURNS_DEFAULT;
use air_protocol::spec::{ClaudeDefaults, Spec};
use serde_json::{Value, json};

/// Tries after the first, so that the CLI gives up early: waiting is the system's part.
const MAX_RETRIES: &str = "2";
/// Milliseconds for which the CLI keeps the key that it was given once.
const KEY_KEPT_MS: &str = "31536000000";
/// Variables of a task that could take the key elsewhere, or change what runs in the CLI's process.
const KEPT_BACK: [&str; 8] = [
    "ANTHROPIC_",
    "CLAUDE",
    "NODE_",
    "BUN_",
    "LD_",
    "SSL_",
    "BASH_ENV",
    "SHELL",
];
/// Variables of the runner by which the CLI reaches the service; a task's own are not heeded.
const FROM_RUNNER: [&str; 11] = [
    "ANTHROPIC_BASE_URL",
    "API_TIMEOUT_MS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The limits of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) turns: u32,
    pub(super) usd: Option<Usd>,
}

impl Limits {
    /// The task's own, else those of the job's spec; and never more than is `reserved`.
    pub(super) fn of(claude: &Claude, spec: &Spec, reserved: budget::Limits) -> Self {
        let defaults = spec.claude.clone().unwrap_or_default();
        let turns = claude.max_turns.or(defaults.max_turns);
        let turns = turns.unwrap_or(CLAUDE_TURNS_DEFAULT);
        let usd = claude.max_budget_usd.or(defaults.max_budget_usd);
        let most = reserved
            .turns
            .map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX));
        Self {
            turns: turns.min(most),
            usd: match (usd, reserved.usd) {
                (Some(own), Some(most)) => Some(own.min(most)),
                (own, most) => own.or(most),
            },
        }
    }
}

/// Where the files of an attempt are.
#[derive(Debug)]
pub(super) struct Places {
    /// The CLI's own folder: settings, sessions.
    pub(super) config: PathBuf,
    /// Its temporary files.
    pub(super) temporary: PathBuf,
    /// The prompt.
    pub(super) prompt: PathBuf,
    /// Its standard error.
    pub(super) stderr: PathBuf,
    /// Its output, line by line.
    pub(super) transcript: PathBuf,
    /// The pipe with the key.
    pub(super) key: PathBuf,
    /// The MCP servers.
    pub(super) servers: PathBuf,
}

impl Places {
    /// All below one folder.
    pub(super) fn below(folder: &Path) -> Self {
        Self {
            config: folder.join("config"),
            temporary: folder.join("tmp"),
            prompt: folder.join("prompt"),
            stderr: folder.join("stderr"),
            transcript: folder.join("transcript"),
            key: folder.join("key"),
            servers: folder.join("mcp.json"),
        }
    }
}

/// How the session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Begin {
    /// A new one of this id.
    New(String),
    /// The one of this id goes on.
    Resume(String),
}

impl Begin {
    pub(super) fn session(&self) -> &str {
        match self {
            Self::New(id) | Self::Resume(id) => id,
        }
    }
}

/// The MCP servers of a task: its own, and ours.
pub(super) fn servers(claude: &Claude, airx: &Path) -> Value {
    let mut servers: serde_json::Map<String, Value> = claude.mcp.clone().into_iter().collect();
    let own = json!({ "command": airx, "args": ["mcp"] });
    servers.insert(OWN_SERVER.to_owned(), own);
    json!({ "mcpServers": servers })
}

/// Program and arguments.
pub(super) fn argv(
    program: &str,
    claude: &Claude,
    defaults: &ClaudeDefaults,
    limits: Limits,
    begin: &Begin,
    settings: &Value,
    servers: &Path,
) -> Vec<OsString> {
    let mut argv: Vec<OsString> = [
        program,
        "--bare",
        "-p",
        "--output-format",
        "stream-json",
        "--verbose",
    ]
    .map(OsString::from)
    .into();
    let mut option = |name: &str, value: &str| argv.extend([name.into(), value.into()]);
    option("--max-turns", &limits.turns.to_string());
    if let Some(usd) = limits.usd {
        option("--max-budget-usd", &f64::from(usd).to_string());
    }
    if let Some(model) = claude.model.as_deref().or(defaults.model.as_deref()) {
        option("--model", model);
    }
    if let Some(model) = &claude.fallback_model {
        option("--fallback-model", model);
    }
    if let Some(mode) = claude.permission_mode {
        option("--permission-mode", mode.as_str());
    }
    if let Some(system) = &claude.system {
        option("--append-system-prompt", system);
    }
    if let Some(schema) = &claude.schema {
        option("--json-schema", &schema.to_string());
    }
    option("--settings", &settings.to_string());
    match begin {
        Begin::New(id) => option("--session-id", id),
        Begin::Resume(id) => option("--resume", id),
    }
    argv.extend([
        "--strict-mcp-config".into(),
        "--mcp-config".into(),
        servers.into(),
    ]);
    // Last, since they take whatever words follow; none of these begins with `-`.
    let mut allowed = claude.allowed_tools.clone();
    allowed.push(format!("mcp__{OWN_SERVER}"));
    let lists = [
        ("--allowedTools", allowed),
        ("--disallowedTools", claude.disallowed_tools.clone()),
    ];
    for (name, tools) in lists {
        if !tools.is_empty() {
            argv.push(name.into());
            argv.extend(tools.into_iter().map(OsString::from));
        }
    }
    argv
}

/// The environment of a task, made that of its CLI. `own` looks a variable of the runner up.
pub(super) fn environment(
    mut env: BTreeMap<OsString, OsString>,
    places: &Places,
    claude: &Claude,
    own: impl Fn(&str) -> Option<OsString>,
) -> BTreeMap<OsString, OsString> {
    env.retain(|name, _| {
        let name = name.to_string_lossy();
        !KEPT_BACK.iter().any(|begin| name.starts_with(begin)) && !FROM_RUNNER.contains(&&*name)
    });
    let from_runner = FROM_RUNNER
        .iter()
        .filter_map(|name| Some((name, own(name)?)));
    env.extend(from_runner.map(|(name, value)| (OsString::from(name), value)));
    for (name, value) in [
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_MAX_RETRIES", MAX_RETRIES),
        ("CLAUDE_CODE_API_KEY_HELPER_TTL_MS", KEY_KEPT_MS),
        // Else the first turn comes before the servers are there.
        ("MCP_CONNECTION_NONBLOCKING", "0"),
    ] {
        env.insert(name.into(), value.into());
    }
    env.insert("CLAUDE_CONFIG_DIR".into(), (&places.config).into());
    env.insert("CLAUDE_CODE_TMPDIR".into(), (&places.temporary).into());
    if claude.permission_mode == Some(PermissionMode::BypassPermissions) {
        // The job's spec allows it; as root the CLI wants to hear it once more.
        env.insert("IS_SANDBOX".into(), "1".into());
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(claude: &Claude, begin: &Begin) -> Vec<String> {
        let limits = Limits::of(claude, &Spec::default(), budget::Limits::default());
        let argv = argv(
            "claude",
            claude,
            &ClaudeDefaults::default(),
            limits,
            begin,
            &json!({}),
            Path::new("/s"),
        );
        argv.into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn every_wish_becomes_an_option_and_the_prompt_none() {
        let claude: Claude = serde_json::from_value(json!({
            "prompt": "secret plan", "model": "sonnet", "fallback_model": "haiku", "max_turns": 7,
            "max_budget_usd": 0.5, "allowed_tools": ["Bash(git *)", "Read"], "disallowed_tools": ["Edit"],
            "permission_mode": "acceptEdits", "system": "--be brief", "schema": { "type": "object" },
        }))
        .unwrap();
        let words = words(&claude, &Begin::Resume("id".into()));
        let line = words.join("|");
        for part in [
            "|--model|sonnet|",
            "|--fallback-model|haiku|",
            "|--max-turns|7|",
            "|--max-budget-usd|0.5|",
            "|--permission-mode|acceptEdits|",
            "|--append-system-prompt|--be brief|",
            "|--resume|id|",
            "|--json-schema|{\"type\":\"object\"}|",
            "|--strict-mcp-config|--mcp-config|/s|",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(
            line.ends_with("|--allowedTools|Bash(git *)|Read|mcp__air|--disallowedTools|Edit"),
            "{line}"
        );
        assert!(!line.contains("secret plan"));
    }

    #[test]
    fn nothing_is_bypassed_unless_wanted_and_turns_have_a_limit() {
        let words = words(&Claude::new("p"), &Begin::New("id".into()));
        let line = words.join("|");
        assert!(
            line.contains("|--max-turns|100|") && line.contains("|--session-id|id|"),
            "{line}"
        );
        for word in ["permission", "dangerously"] {
            assert!(!line.contains(word), "{word} in {line}");
        }
        assert!(line.ends_with("|--allowedTools|mcp__air"), "{line}");
    }

    #[test]
    fn limits_are_the_least_of_wish_and_reserve() {
        let mut claude = Claude::new("p");
        let usd = Usd::from_micros;
        let spec: Spec =
            serde_json::from_value(json!({ "claude": { "max_turns": 9, "max_budget_usd": 2 } }))
                .unwrap();
        let of = |claude: &Claude, reserved| Limits::of(claude, &spec, reserved);
        assert_eq!(
            of(&claude, budget::Limits::default()),
            Limits {
                turns: 9,
                usd: Some(usd(2_000_000))
            }
        );
        let reserved = budget::Limits {
            turns: Some(5),
            usd: Some(usd(1_000_000)),
        };
        let least = of(&claude, reserved);
        assert_eq!(
            (Some(u64::from(least.turns)), least.usd),
            (reserved.turns, reserved.usd)
        );
        (claude.max_turns, claude.max_budget_usd) = (Some(3), Some(usd(5)));
        assert_eq!(
            of(&claude, reserved),
            Limits {
                turns: 3,
                usd: Some(usd(5))
            }
        );
        let open = budget::Limits {
            turns: Some(5),
            usd: None,
        };
        assert_eq!(of(&claude, open).usd, Some(usd(5)));
    }

    #[test]
    fn a_task_cannot_lead_the_key_elsewhere() {
        let given = [
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_X",
            "LD_PRELOAD",
            "NODE_OPTIONS",
            "https_proxy",
            "MINE",
            "PATH",
        ];
        let env = given
            .iter()
            .map(|name| (OsString::from(name), OsString::from("task")))
            .collect();
        let own = |name: &str| {
            ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "HOME"]
                .contains(&name)
                .then(|| "runner".into())
        };
        let env = environment(env, &Places::below(Path::new("/w")), &Claude::new("p"), own);
        let get = |name: &str| {
            env.get(&OsString::from(name))
                .and_then(|value| value.to_str())
        };
        assert_eq!((get("MINE"), get("PATH")), (Some("task"), Some("task")));
        assert_eq!(get("ANTHROPIC_BASE_URL"), Some("runner"));
        for name in [
            "ANTHROPIC_API_KEY",
            "CLAUDE_CODE_X",
            "LD_PRELOAD",
            "NODE_OPTIONS",
            "https_proxy",
            "HOME",
            "IS_SANDBOX",
        ] {
            assert_eq!(get(name), None, "{name}");
        }
    }
}
