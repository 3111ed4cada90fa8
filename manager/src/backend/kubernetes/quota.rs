//! What the texts of refused pods say of quotas and limits: there is nothing else by which they can be told apart.

use air_protocol::task::Resources;

/// Whether what was asked for is more than the namespace ever gives, and not only more than is left now.
pub(super) fn never_fits(text: &str) -> bool {
    if let Some((_, rest)) = text.split_once("exceeded quota: ") {
        return over_the_whole(rest);
    }
    let of_range = ["usage per Container is", "usage per Pod is"];
    of_range.iter().any(|words| text.contains(words))
}

/// `q, requested: a=1,b=2, used: a=1,b=0, limited: a=3,b=1`, several of which may follow one another.
fn over_the_whole(text: &str) -> bool {
    let part = |name: &str| {
        let (_, rest) = text.split_once(name)?;
        Some(rest.split(", ").next().unwrap_or(rest))
    };
    let (Some(requested), Some(limited)) = (part("requested: "), part("limited: ")) else {
        return false;
    };
    let most: Vec<(&str, &str)> = pairs(limited).collect();
    pairs(requested).any(|(name, wanted)| {
        let limit = most.iter().find(|(other, _)| *other == name);
        let amounts =
            limit.and_then(|(_, limit)| Some((amount(name, wanted)?, amount(name, limit)?)));
        amounts.is_some_and(|(wanted, limit)| wanted > limit)
    })
}

fn pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',')
        .filter_map(|pair| pair.trim().split_once('='))
}

fn amount(name: &str, text: &str) -> Option<u64> {
    let resources = |cpu: Option<&str>, memory: Option<&str>| Resources {
        cpu: cpu.map(str::to_owned),
        memory: memory.map(str::to_owned),
    };
    if name.ends_with("cpu") {
        resources(Some(text), None).cpu_millis()
    } else if name.ends_with("memory") {
        resources(None, Some(text)).memory_bytes()
    } else {
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_is_full_is_not_one_that_is_too_small() {
        let quota = |requested: &str, used: &str, limited: &str| {
            never_fits(&format!(
                "x is forbidden: exceeded quota: q, requested: {requested}, used: {used}, limited: {limited}"
            ))
        };
        assert!(!quota("limits.cpu=500m", "limits.cpu=1", "limits.cpu=1"));
        assert!(quota("limits.cpu=1500m", "limits.cpu=0", "limits.cpu=1"));
        assert!(quota(
            "pods=1,limits.memory=2Gi",
            "pods=0,limits.memory=0",
            "pods=5,limits.memory=1Gi"
        ));
        assert!(!quota("pods=1", "pods=5", "pods=5"));
        assert!(!quota("strange=x", "strange=y", "strange=z"));
        assert!(!never_fits("exceeded quota: q"));
        assert!(never_fits(
            "maximum cpu usage per Container is 1, but limit is 2"
        ));
        assert!(!never_fits("User \"x\" cannot create resource \"pods\""));
    }
}
