//! What a record says of an agent's attempt, beside its cost.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::names::{JobName, TaskId};

/// Name of the blob with a task's session: one for all its attempts, each of which overwrites it.
pub fn session_blob(job: &JobName, task: &TaskId) -> String {
    format!("{job}.{task}.session")
}

/// Name of the blob with what a task's working tree holds beyond its repository; written as the session's is.
pub fn workspace_blob(job: &JobName, task: &TaskId) -> String {
    format!("{job}.{task}.workspace")
}

/// Name of the blob with the raw transcript of a run.
pub fn transcript_blob(run: Uuid) -> String {
    format!("{run}.transcript")
}

/// What an agent's attempt was, and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct AgentRun {
    /// Id of the session, which a further attempt goes on in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Id of the key of the service that it used: a short hash, see `_limit.<id>` in the bucket of accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Why it failed, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Tools that were denied to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// Name of the blob with the session and uncommitted files, from which any host goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// Name of the blob with the raw lines of the transcript.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transcript: Option<String>,
    /// Branch that holds its commits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The last commit of the branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Why an agent's attempt failed; each has its remedy in the record's `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The turns were used up.
    Turns,
    /// The money was used up.
    Budget,
    /// No result of the wanted schema.
    Schema,
    /// A tool was denied.
    Permission,
    /// No key, or one that is not accepted.
    Login,
    /// A model that does not exist, or that the key may not use.
    Model,
    /// The request was refused as wrong.
    Request,
    /// The model is overloaded, or the service has a fault.
    Overload,
    /// The key's limit is reached.
    RateLimit,
    /// The service was not reached, or did not answer in time.
    Network,
    /// An MCP server did not connect.
    Mcp,
    /// The session could not be gone on with.
    Session,
    /// The workspace could not be made or saved.
    Workspace,
    /// The CLI is not there, or gave no result.
    Cli,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_called_as_the_protocol_says() {
        let (job, task) = ("j".parse().unwrap(), "t".parse().unwrap());
        assert_eq!(session_blob(&job, &task), "j.t.session");
        assert_eq!(workspace_blob(&job, &task), "j.t.workspace");
        let run = "018f3b2c-0000-7000-8000-000000000001";
        let name = transcript_blob(run.parse().unwrap());
        assert_eq!(name, format!("{run}.transcript"));
    }
}
