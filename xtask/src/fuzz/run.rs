//! Runs libFuzzer on one target, and makes its corpus small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::fuzz::Place;
use crate::fuzz::table::Row;

/// Bytes of an input that libFuzzer makes.
const INPUT_BYTES_MAX: &str = "-max_len=4096";
/// Files and bytes that `--keep` adds to those of a target that people have named: the crate `air-fuzz` asks for less than 200 and 1 MB in all.
const KEPT_FILES_MAX: usize = 60;
const KEPT_BYTES_MAX: u64 = 32 * 1024;

/// Hands so many inputs to a target.
pub(crate) fn target(place: &Place, target: &str, inputs: u64) -> Result<Row> {
    let (reached, faults) = (
        folder(place, "corpus", target)?,
        folder(place, "faults", target)?,
    );
    let mut program = program(place, target);
    program
        .arg(format!("-runs={inputs}"))
        .arg(format!("-artifact_prefix={}/", faults.display()))
        .args([
            INPUT_BYTES_MAX,
            "-rss_limit_mb=2048",
            "-timeout=20",
            "-print_final_stats=1",
        ])
        .args([reached, place.corpus.join(target)]);
    let started = Instant::now();
    let output = output(&mut program)?;
    let took = started.elapsed();
    let told = String::from_utf8_lossy(&output.stderr);
    Ok(Row::of(target, &told, output.status.success(), took))
}

/// Makes the corpus of a target anew: what people have named stays, and of a small set of inputs that reach what all
/// known ones reach, some of each size.
pub(crate) fn keep(place: &Place, target: &str) -> Result<()> {
    let (reached, merged) = (
        folder(place, "corpus", target)?,
        place.work.join("merged").join(target),
    );
    let ours = place.corpus.join(target);
    // What an earlier call left would count as already reached.
    if merged.exists() {
        fs::remove_dir_all(&merged).map_err(Error::file(&merged))?;
    }
    fs::create_dir_all(&merged).map_err(Error::file(&merged))?;
    let mut program = program(place, target);
    program
        .args(["-set_cover_merge=1", INPUT_BYTES_MAX])
        .args([&merged, &ours, &reached]);
    output(&mut program)?;
    for (_, file) in files(&ours)? {
        if !is_named_by_people(&file) {
            fs::remove_file(&file).map_err(Error::file(&file))?;
        }
    }
    // Some of each size: the smallest alone would be the shallow ones.
    let merged = files(&merged)?;
    let step = merged.len().div_ceil(KEPT_FILES_MAX).max(1);
    let mut room = KEPT_BYTES_MAX;
    for (bytes, file) in merged.into_iter().step_by(step) {
        let Some(left) = room.checked_sub(bytes) else {
            break;
        };
        room = left;
        let name = file.file_name().unwrap_or_default();
        fs::copy(&file, ours.join(name)).map_err(Error::file(&file))?;
    }
    Ok(())
}

/// What libFuzzer makes has 40 hexadecimal digits as its name.
fn is_named_by_people(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.len() != 40 || !name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn program(place: &Place, target: &str) -> Command {
    let mut program = Command::new(&place.program);
    program.env("AIR_FUZZ_TARGET", target);
    program
}

fn output(program: &mut Command) -> Result<Output> {
    program.output().map_err(|cause| Error::Start {
        command: "air-fuzz".to_owned(),
        cause,
    })
}

fn folder(place: &Place, what: &str, target: &str) -> Result<PathBuf> {
    let folder = place.work.join(what).join(target);
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    Ok(folder)
}

/// The files of a folder with their sizes, the smallest first.
fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for file in fs::read_dir(folder).map_err(Error::file(folder))? {
        let file = file.map_err(Error::file(folder))?;
        let bytes = file.metadata().map_err(Error::file(folder))?.len();
        files.push((bytes, file.path()));
    }
    files.sort();
    Ok(files)
}
