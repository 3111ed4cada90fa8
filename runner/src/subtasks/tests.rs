//! Lines, pages and what is refused.

use super::*;

async fn family(text: &str) -> Result<(Family, Vec<Page>), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks");
    std::fs::write(&path, text).unwrap();
    let (job, task) = ("j".parse().unwrap(), "t".parse().unwrap());
    let leash = Leash {
        budget: Some("root".parse().unwrap()),
        depth: 4,
    };
    let parent = Parent {
        job: &job,
        task: &task,
        leash: &leash,
        traceparent: Some("trace"),
        wire: Wire::Json,
    };
    let family = read(&path, parent).await?;
    let mut pages = Vec::new();
    if let Some(from) = family.rest {
        let mut rest = Rest::open(&path, from, parent)?;
        while let Some(page) = rest.next().await? {
            pages.push(page);
        }
    }
    Ok((family, pages))
}

fn numbered(count: usize) -> String {
    (0..count)
        .map(|n| format!("{{\"run\":\"true\",\"id\":\"s{n}\"}}\n"))
        .collect()
}

#[tokio::test]
async fn a_small_family_is_one_batch() {
    let text = "\n{\"run\":\"a\"}\n  \n{\"exec\":[\"b\"],\"job\":\"other\",\"id\":\"x\"}";
    let (family, pages) = family(text).await.unwrap();
    assert_eq!((family.count, pages.len()), (2, 0));
    assert_eq!(family.jobs, ["other".parse().unwrap()]);
    let (first, second) = (&family.tasks[0], &family.tasks[1]);
    assert_eq!(
        (first.job.as_str(), first.parent.as_deref()),
        ("j", Some("j/t"))
    );
    assert_eq!(first.id.as_str().len(), 32);
    assert_eq!((second.job.as_str(), second.id.as_str()), ("other", "x"));
    assert_eq!(second.task.job, None);
    assert_eq!(second.traceparent.as_deref(), Some("trace"));
    assert_eq!(second.leash.depth, 4);
    assert_eq!(second.leash.budget, Some("root".parse().unwrap()));
}

#[tokio::test]
async fn pages_hold_each_task_once_and_in_order() {
    for (count, sizes) in [
        (0, vec![0]),
        (998, vec![998]),
        (999, vec![999]),
        (1000, vec![998, 2]),
        (2500, vec![998, 998, 504]),
    ] {
        let (family, pages) = family(&numbered(count)).await.unwrap();
        assert_eq!(family.count, count as u64);
        let mut found = vec![family.tasks.len()];
        found.extend(pages.iter().map(|page| page.tasks.len()));
        assert_eq!(found, sizes, "{count}");
        let mut ids: Vec<_> = family.tasks.iter().map(|new| new.id.clone()).collect();
        for page in &pages {
            let again = of_lines(&page.to_lines()).unwrap();
            assert_eq!(again, page.tasks);
            ids.extend(again.into_iter().filter_map(|(_, task)| task.id));
        }
        let wanted: Vec<TaskId> = (0..count)
            .map(|n| format!("s{n}").parse().unwrap())
            .collect();
        assert_eq!(ids, wanted);
    }
}

#[tokio::test]
async fn pages_are_bounded_in_bytes() {
    let big = "x".repeat(400_000);
    let text: String = (0..50)
        .map(|n| format!("{{\"run\":\"{big}\",\"id\":\"s{n}\"}}\n"))
        .collect();
    let (family, pages) = family(&text).await.unwrap();
    let mut sizes = vec![family.tasks.len()];
    sizes.extend(pages.iter().map(|page| page.tasks.len()));
    assert_eq!(sizes, [20, 20, 10]);
}

#[tokio::test]
async fn a_bad_line_is_named() {
    let huge = format!("{{\"run\":\"{}\"}}\n", "x".repeat(TASK_BYTES_MAX));
    for (line, part) in [
        ("{\"run\":\"a\"", "middle"),
        ("no json\n", "no JSON"),
        ("[1]\n", "a list"),
        ("{\"runn\":\"a\"}\n", "`run`"),
        ("{\"run\":\"a\",\"id\":\"_7\"}\n", "leading _"),
        (
            "{\"fanout\":{\"run\":\"00000000-0000-0000-0000-000000000000\",\"parent\":\"a/b\",\"page\":1,\"pages\":2}}\n",
            "by the system",
        ),
        (&huge, "the most"),
    ] {
        let error = family(&format!("{{\"run\":\"fine\"}}\n\n{line}"))
            .await
            .unwrap_err();
        assert!(
            error.starts_with("AIR_TASKS, line 3: ") && error.contains(part),
            "{error}"
        );
    }
}
