//! The section of a Kubernetes backend in the configuration of a manager.

use std::path::PathBuf;

use air_manager::{KubernetesOptions, PodTemplate, Taint};
use air_protocol::time::Span;

use super::{Remark, pull};
use crate::verbs::manager::section::Section;
use crate::yaml;

/// What the section says.
///
/// # Errors
/// It says what cannot be.
pub(super) fn read(section: &mut Section<'_>) -> Result<KubernetesOptions, Remark> {
    let defaults = KubernetesOptions::default();
    Ok(KubernetesOptions {
        kubeconfig: section.text("kubeconfig")?.map(PathBuf::from),
        context: section.text("context")?,
        namespace: section.text("namespace")?,
        runner_image: section.text("runner_image")?.ok_or_else(|| {
            let text = "the backend has no `runner_image`; write the name of an image that has /usr/local/bin/air-runner";
            section.wrong(text.to_owned())
        })?,
        image: section.text("image")?,
        pull: pull(section)?,
        nats_url: section.text("nats_url")?,
        user: section.one_parsed("user", user)?.unwrap_or(defaults.user),
        read_only: section.flag("read_only")?,
        node_selector: section.pairs("node_selector")?.into_iter().collect(),
        tolerations: section.parsed("tolerations", str::parse::<Taint>)?,
        service_account: section.text("service_account")?,
        image_pull_secrets: section.texts("image_pull_secrets")?,
        ttl: section.one_parsed("ttl", span)?.map_or(defaults.ttl, |span| span.0),
        template: section.one_parsed("template", template)?,
    })
}

fn span(text: &str) -> Result<Span, String> {
    text.parse()
        .map_err(|error: air_protocol::time::ParseTimeError| error.to_string())
}

/// `user` or `user:group`, as numbers: a node cannot know the names of an image.
fn user(text: &str) -> Result<(i64, i64), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse::<u32>().map(i64::from);
    match (number(user), number(group)) {
        (Ok(user), Ok(group)) => Ok((user, group)),
        _ => Err(format!(
            "`{text}` is no user; write numbers, such as 1000 or 1000:1000"
        )),
    }
}

/// A file in YAML with a pod template.
fn template(file: &str) -> Result<PodTemplate, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("failed to read {file}: {error}"))?;
    let documents =
        yaml::read(&text).map_err(|error| format!("{file}:{}: {}", error.line, error.reason))?;
    let [document] = <[_; 1]>::try_from(documents)
        .map_err(|all| format!("{file} has {} documents; write one", all.len()))?;
    PodTemplate::from_json(document.value).map_err(|error| format!("{file}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use air_manager::{Infrastructure, Pull};

    fn wrong(lines: &str) -> String {
        let text = format!("[[backend]]\nkind = 'kubernetes'\nrunner_image = 'r'\n{lines}");
        let remark = parse(&text).unwrap_err();
        format!("{}: {}", remark.place, remark.text)
    }

    #[test]
    fn a_section_says_how_pods_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pod.yaml");
        std::fs::write(&file, "spec:\n  dnsPolicy: Default\n").unwrap();
        let text = format!(
            "[[backend]]\nkind = 'kubernetes'\nname = 'pods'\nrunner_image = 'air-runner'\nnamespace = 'jobs'\nuser = '1000:100'\nread_only = true\n\
             pull = 'never'\nnode_selector = {{ disk = 'ssd' }}\ntolerations = ['gpu:NoSchedule']\nttl = '10m'\ntemplate = {file:?}\n"
        );
        let (config, warnings) = parse(&text).unwrap();
        assert_eq!(warnings, []);
        let Infrastructure::Kubernetes(found) = &config.backends[0].infrastructure else {
            panic!("{config:?}")
        };
        let wanted = KubernetesOptions {
            namespace: Some("jobs".into()),
            runner_image: "air-runner".into(),
            pull: Pull::Never,
            user: (1000, 100),
            read_only: true,
            node_selector: [("disk".into(), "ssd".into())].into(),
            tolerations: vec!["gpu:NoSchedule".parse().unwrap()],
            ttl: std::time::Duration::from_secs(600),
            template: found.template.clone(),
            ..KubernetesOptions::default()
        };
        assert!(found.template.is_some());
        assert_eq!(**found, wanted);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (lines, told) in [
            (
                "user = 'root'",
                "4:8: `user`: `root` is no user; write numbers",
            ),
            ("ttl = 'soon'", "4:7: `ttl`: "),
            (
                "tolerations = ['a', 'b:Never']",
                "4:21: `tolerations`: `Never` is no effect",
            ),
            (
                "node_selector = { disk = 1 }",
                "4:26: `node_selector` is a integer",
            ),
            ("node_selector = 'x'", "4:17: `node_selector` is a string"),
            (
                "template = '/nowhere.yaml'",
                "4:12: `template`: failed to read /nowhere.yaml",
            ),
        ] {
            let found = wrong(lines);
            assert!(found.starts_with(told), "{lines}: {found}");
        }
        let remark = parse("[[backend]]\nkind = 'kubernetes'").unwrap_err();
        assert!(
            remark.text.starts_with("the backend has no `runner_image`"),
            "{}",
            remark.text
        );
    }
}
