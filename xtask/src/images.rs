//! `cargo xtask images`: container images from what this machine has. Nothing is pulled.
//!
//! The programs are compiled here, as static ones; the shell is `busybox`, the server the one that the tests use. All
//! that the `Dockerfile` copies is gathered in `target/images`, with certificates for the servers of `compose.yaml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;
use crate::docker::Docker;
use crate::error::{Error, Result};
use crate::{system, tools, workspace};

/// The images: target in the `Dockerfile`, and name.
const IMAGES: [(&str, &str); 5] = [
    ("pause", "air-pause"),
    ("shell", "air-shell"),
    ("runner", "air-runner"),
    ("manager", "air-manager"),
    ("nats", "air-nats"),
];

/// The names of all images.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|(_, name)| *name)
}

/// Builds all images.
pub(crate) fn run() -> Result<()> {
    let docker = Docker::start()?;
    build(&docker)?;
    for (_, name) in IMAGES {
        let format = "{{.Size}}";
        let size =
            command::capture(&mut docker.command(&["image", "inspect", "-f", format, name]))?;
        let megabytes = size.trim().parse::<u64>().unwrap_or(0) / 1_000_000;
        println!("{name:<12} {megabytes:>4} MB");
    }
    Ok(())
}

/// Gathers what the images hold, and builds them; gives the folder that they were built from.
pub(crate) fn build(docker: &Docker) -> Result<PathBuf> {
    let folder = gather()?;
    for (target, name) in IMAGES {
        println!("building the image {name}");
        let dockerfile = workspace::root().join("Dockerfile");
        let mut build = docker.command(&["build", "--quiet", "--target", target, "--tag", name]);
        build.arg("--file").arg(dockerfile).arg(&folder);
        command::capture(&mut build)?;
    }
    Ok(folder)
}

fn gather() -> Result<PathBuf> {
    let folder = workspace::target()?.join("images");
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let built = compile()?;
    for program in ["airx", "air-runner"] {
        copy(&built.join(program), &folder.join(program))?;
    }
    copy(&tools::nats_server()?, &folder.join("nats-server"))?;
    copy(&busybox()?, &folder.join("busybox"))?;
    certificates(&folder.join("tls"))?;
    Ok(folder)
}

/// Static programs of the gnu target run on any image, or on none.
fn compile() -> Result<PathBuf> {
    let rustc = command::capture(Command::new("rustc").arg("-vV"))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Error::Answer {
        command: "rustc -vV".into(),
        what: "no host".into(),
    })?;
    let target = workspace::target()?.join("static");
    let mut cargo = command::cargo("build --release -p airx -p air-runner --target");
    cargo
        .arg(host)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(&mut cargo)?;
    Ok(target.join(host).join("release"))
}

/// A `busybox` that needs no libraries.
fn busybox() -> Result<PathBuf> {
    let is_static = |file: &PathBuf| {
        let asked = Command::new("ldd").arg(file).output();
        asked.is_ok_and(|answer| !answer.status.success())
    };
    if let Some(file) = system::find("busybox").filter(is_static) {
        return Ok(file);
    }
    system::install("busybox-static")?;
    system::find("busybox").ok_or_else(|| Error::Answer {
        command: "apt-get install busybox-static".into(),
        what: "no busybox on the PATH".into(),
    })
}

/// Certificates by which the servers of `compose.yaml` know one another; made once.
fn certificates(folder: &Path) -> Result<()> {
    if folder.join("node.pem").is_file() {
        return Ok(());
    }
    system::ensure("openssl", "openssl")?;
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let extensions = folder.join("extensions");
    let names =
        "subjectAltName=DNS:nats-1,DNS:nats-2,DNS:nats-3\nextendedKeyUsage=serverAuth,clientAuth\n";
    fs::write(&extensions, names).map_err(Error::file(&extensions))?;
    let openssl = |line: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(line.split_whitespace()).current_dir(folder);
        command::capture(&mut openssl).map(drop)
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -days 3650 -subj /CN=air-ca -keyout ca.key -out ca.pem"
    ))?;
    openssl(&format!(
        "req {key} -subj /CN=nats -keyout node.key -out node.csr"
    ))?;
    openssl(
        "x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile extensions -out node.pem",
    )
}

/// Copies a file to where one may be that runs, and goes on as it is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_file(to).map_err(Error::file(to))?;
    }
    fs::copy(from, to).map_err(Error::file(from)).map(drop)
}
