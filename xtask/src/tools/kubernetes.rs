//! Kubernetes as one program, which is called by the name of the component that it is to be (`kubernetes.go`).
//!
//! Its module is no library: it names its own parts by relative paths, which count only in its repository. So the published parts
//! are named instead. Ten CPU minutes, and a cache of 3 GB that is dropped afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Recipe, install};
use crate::command;
use crate::error::{Error, Result};

const SOURCE: &str = include_str!("kubernetes.go");
const MODULE: &str = "k8s.io/kubernetes";

/// Compiles the program in `partial`.
pub(super) fn build(partial: &Path, recipe: &Recipe) -> Result<PathBuf> {
    let cache = partial.join("cache");
    let go = |args: &[&str]| {
        let mut go = Command::new("go");
        go.args(args)
            .current_dir(partial)
            .env("GOCACHE", &cache)
            .env("GOFLAGS", "-buildvcs=false -mod=mod")
            .env("CGO_ENABLED", "0");
        command::capture(&mut go)
    };
    let pinned = format!("{MODULE}@v{}", recipe.pinned);
    let answer = go(&["mod", "download", "-json", &pinned])?;
    let about: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let manifest = about["GoMod"].as_str().ok_or_else(|| Error::Answer {
        command: format!("go mod download -json {pinned}"),
        what: "no GoMod".into(),
    })?;
    let manifest = Path::new(manifest);
    let text = fs::read_to_string(manifest).map_err(Error::file(manifest))?;
    write(&partial.join("go.mod"), &own_manifest(&text, recipe.pinned))?;
    write(&partial.join("main.go"), SOURCE)?;
    go(&["mod", "tidy", "-e"])?;
    go(&[
        "build",
        "-ldflags",
        &flags(recipe.pinned),
        "-o",
        recipe.name,
        ".",
    ])?;
    Ok(partial.join(recipe.name))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file(path))
}

/// The published version of its parts: `1.34.4` has them as `0.34.4`.
fn of_parts(version: &str) -> String {
    let (_, minor) = version.split_once('.').unwrap_or(("", version));
    format!("v0.{minor}")
}

/// A manifest that needs the module, with its parts (`k8s.io/api => ./staging/src/k8s.io/api`) as they are published.
fn own_manifest(of_module: &str, version: &str) -> String {
    let published = of_parts(version);
    let part = |line: &str| {
        let (name, local) = line.trim().split_once(" => ")?;
        let replaced = local.starts_with("./staging/");
        replaced.then(|| format!("\t{name} => {name} {published}\n"))
    };
    let parts: String = of_module.lines().filter_map(part).collect();
    format!(
        "module {}\n\ngo 1.24.0\n\ngodebug default=go1.24\n\nrequire {MODULE} v{version}\n\nreplace (\n{parts})\n",
        install::MODULE
    )
}

/// What it says of itself: without a version the parts refuse one another.
fn flags(version: &str) -> String {
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""));
    let says = [
        format!("gitVersion=v{version}"),
        format!("gitMajor={major}"),
        format!("gitMinor={minor}"),
        "gitTreeState=clean".to_owned(),
    ];
    let mut flags = "-s -w".to_owned();
    for one in &says {
        for package in ["component-base", "client-go/pkg"] {
            flags.push_str(&format!(" -X k8s.io/{package}/version.{one}"));
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_those_that_were_published_with_it() {
        let theirs = "module k8s.io/kubernetes\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tother => other v1.0.0\n)\n";
        let ours = own_manifest(theirs, "1.34.4");
        assert!(
            ours.contains("require k8s.io/kubernetes v1.34.4\n"),
            "{ours}"
        );
        assert!(
            ours.ends_with("replace (\n\tk8s.io/api => k8s.io/api v0.34.4\n)\n"),
            "{ours}"
        );
        assert!(flags("1.34.4").contains("client-go/pkg/version.gitMinor=34"));
    }
}
