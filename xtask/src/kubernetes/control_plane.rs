//! etcd, the API server, and the controllers.

use std::path::Path;
use std::process::Command;

use super::daemons::Daemons;
use crate::error::Result;

/// The Service addresses; their first one is where the API server listens.
const SERVICES: &str = "10.96.0.0/16";

/// Starts etcd and the API server.
pub(super) fn start(daemons: &Daemons, program: &Path, folder: &Path, address: &str) -> Result<()> {
    let (peers, clients) = ("http://127.0.0.1:16445", "http://127.0.0.1:16444");
    let etcd = [
        "--name=kube".to_owned(),
        format!("--data-dir={}", folder.join("etcd").display()),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=kube={peers}"),
    ];
    daemons.start("etcd", Command::new(program).arg("etcd").args(etcd))?;
    let pki = folder.join("pki");
    let pki = pki.display();
    let server = [
        format!("--etcd-servers={clients}"),
        format!("--bind-address={address}"),
        "--secure-port=443".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={pki}/sa.pub"),
        format!("--service-account-signing-key-file={pki}/sa.key"),
        format!("--kubelet-client-certificate={pki}/apiserver-kubelet.crt"),
        format!("--kubelet-client-key={pki}/apiserver-kubelet.key"),
        format!("--kubelet-certificate-authority={pki}/ca.crt"),
        "--kubelet-preferred-address-types=Hostname".to_owned(),
    ];
    daemons.start(
        "kube-apiserver",
        Command::new(program).arg("kube-apiserver").args(server),
    )
}

/// Starts the controllers and the scheduler.
pub(super) fn start_controllers(daemons: &Daemons, program: &Path, folder: &Path) -> Result<()> {
    let pki = folder.join("pki");
    let pki = pki.display();
    let common = |name: &str, port: u16| {
        let mut args: Vec<String> = [
            "kubeconfig",
            "authentication-kubeconfig",
            "authorization-kubeconfig",
        ]
        .map(|kind| format!("--{kind}={pki}/{name}.kubeconfig"))
        .into();
        args.extend([
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--leader-elect=false".to_owned(),
        ]);
        args
    };
    let manager = [
        "--use-service-account-credentials=true".to_owned(),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--service-account-private-key-file={pki}/sa.key"),
    ];
    let name = "kube-controller-manager";
    daemons.start(
        name,
        Command::new(program)
            .arg(name)
            .args(common("kcm", 16446))
            .args(manager),
    )?;
    let name = "kube-scheduler";
    daemons.start(
        name,
        Command::new(program)
            .arg(name)
            .args(common("scheduler", 16447)),
    )
}
