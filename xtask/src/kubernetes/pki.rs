//! Certificates, and the kubeconfigs that carry them: who the parts of the cluster are to one another.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::{Error, Result};

/// Who needs a certificate: its name, its subject, and the names under which it is called.
fn parts(address: &str) -> [(&'static str, &'static str, String); 6] {
    [
        (
            "apiserver",
            "/CN=kube-apiserver",
            format!("DNS:localhost,IP:127.0.0.1,IP:{address}"),
        ),
        ("admin", "/O=system:masters/CN=admin", String::new()),
        ("kcm", "/CN=system:kube-controller-manager", String::new()),
        ("scheduler", "/CN=system:kube-scheduler", String::new()),
        (
            "node",
            "/O=system:nodes/CN=system:node:localhost",
            "DNS:localhost,IP:127.0.0.1".to_owned(),
        ),
        (
            "apiserver-kubelet",
            "/O=system:masters/CN=kube-apiserver-kubelet-client",
            String::new(),
        ),
    ]
}

/// Makes all of them in `pki` below `folder`, and the administrator's `kubeconfig` beside it.
pub(super) fn make(folder: &Path, address: &str) -> Result<()> {
    let pki = folder.join("pki");
    fs::create_dir_all(&pki).map_err(Error::file(&pki))?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    let ca = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature";
    openssl(
        &pki,
        &format!("req -x509 {key} -days 3650 -subj /CN=kube-ca -keyout ca.key -out ca.crt {ca}"),
    )?;
    openssl(&pki, "genrsa -out sa.key 2048")?;
    openssl(&pki, "rsa -in sa.key -pubout -out sa.pub")?;
    for (name, subject, called) in parts(address) {
        let called = match called.as_str() {
            "" => String::new(),
            names => format!("subjectAltName={names}\n"),
        };
        let extensions = format!(
            "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\nextendedKeyUsage=serverAuth,clientAuth\n{called}"
        );
        write(&pki.join("extensions"), &extensions)?;
        openssl(
            &pki,
            &format!("req {key} -subj {subject} -keyout {name}.key -out {name}.csr"),
        )?;
        openssl(
            &pki,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile extensions -out {name}.crt"
            ),
        )?;
    }
    for name in ["kcm", "scheduler", "node"] {
        let file = pki.join(name).with_extension("kubeconfig");
        write(&file, &kubeconfig(&pki, name, address))?;
    }
    // Last, so that a cluster without it was not made to its end.
    write(
        &folder.join("kubeconfig"),
        &kubeconfig(&pki, "admin", address),
    )
}

fn kubeconfig(pki: &Path, user: &str, address: &str) -> String {
    let pki = pki.display();
    format!(
        r#"apiVersion: v1
kind: Config
clusters:
- name: local
  cluster: {{server: "https://{address}:443", certificate-authority: "{pki}/ca.crt"}}
users:
- name: {user}
  user: {{client-certificate: "{pki}/{user}.crt", client-key: "{pki}/{user}.key"}}
contexts:
- name: local
  context: {{cluster: local, user: {user}}}
current-context: local
"#
    )
}

fn openssl(pki: &Path, line: &str) -> Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.args(line.split_whitespace()).current_dir(pki);
    command::capture(&mut openssl).map(drop)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file(path))?;
    let secret = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, secret).map_err(Error::file(path))
}
