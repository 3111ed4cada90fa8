#!/usr/bin/env python3
"""Brings branches together, one after the other; a conflict becomes a task for an agent.

    ./merge.py tasks --repo /srv/repo --onto main air/fix-1/a air/fix-2/b | airx submit merge -f -

`tasks` prints the first task. What the tasks run is this very text, which they carry with them, so that it need not be
on the host: it needs python3 and git there, and nothing else.

A task of the kind `merge` starts where the last one ended. It merges until a conflict stops it, brings what it has to
the branch `air/JOB/TASK`, and queues two tasks: an agent that merges the branch with the conflict, and the next `merge`.
"""

import argparse
import json
import os
import subprocess
import sys

TEXT_ENV = "MERGE_TEXT"
WHO = ["-c", "user.name=Air-Executor", "-c", "user.email=air-executor@localhost"]
QUIET = ["-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "advice.detachedHead=false"]


def git(*arguments, folder="tree", check=True):
    command = ["git", "-C", folder, *WHO, *QUIET, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if check and done.returncode != 0:
        sys.exit(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done


def clone(repo):
    """A tree with every branch of the repository, as `origin/NAME`."""
    git("clone", "-q", "--no-checkout", "--", repo, "tree", folder=".")


def commit_of(name):
    """The commit of a branch, tag or commit of the repository; none if there is no such thing."""
    for place in (f"refs/remotes/origin/{name}", f"refs/tags/{name}", name):
        found = git("rev-parse", "--verify", "--quiet", "--end-of-options", place + "^{commit}", check=False)
        if found.returncode == 0:
            return found.stdout.strip()
    return None


def merge_task(task, text, data, needs):
    """A task that merges; `data` is all that it knows."""
    line = f'exec python3 -c "${TEXT_ENV}" step'
    return {"id": task, "run": line, "env": {TEXT_ENV: text}, "input": data, "needs": needs}


def resolve_task(task, data, own, branch, files):
    """A task for an agent: the merge that did not work by itself."""
    check = data.get("check")
    prompt = (
        f"You are in a git working tree. Run `git merge --no-ff origin/{branch}`: it stops with conflicts in\n"
        + "".join(f"- {name}\n" for name in files[:50])
        + "Resolve each of them so that what both sides wanted is kept; do not throw either side away, and change\n"
        "nothing else. Then `git add` the files and `git commit --no-edit`.\n"
    )
    if check:
        prompt += f"Afterwards `{check}` must still work; run it.\n"
    lines = [f"git merge --no-ff origin/{branch}", "git add *", "git commit --no-edit", "git status", "git diff"]
    allowed = [f"Bash({line})" for line in [*lines, *([check] if check else [])]]
    claude = {
        "prompt": prompt,
        "workspace": {"repo": data["repo"], "ref": own},
        "allowed_tools": allowed,
        # Files of the working tree may be changed, and no others.
        "permission_mode": "acceptEdits",
        "accept_denials": True,
        "max_turns": 40,
        **data.get("agent", {}),
    }
    return {"id": task, "claude": claude}


def queue(*tasks):
    with open(os.environ["AIR_TASKS"], "a", encoding="utf-8") as file:
        for task in tasks:
            file.write(json.dumps(task) + "\n")


def taken_in(data, needs):
    """What the agent made of the last conflict: where to go on from, and whether the branch is in it."""
    resolved = needs.get(data.get("resolved") or "") or {}
    cost = (resolved.get("cost") or {}).get("usd") or 0
    data["usd"] = data.get("usd", 0) + cost
    branch, start = data.pop("conflict", None), data["start"]
    if branch is None:
        return start
    after = (resolved.get("output") or {}).get("commit") if resolved.get("status") == "succeeded" else None
    is_in = after and git("merge-base", "--is-ancestor", commit_of(branch), after, check=False).returncode == 0
    if is_in:
        data["merged"].append(branch)
        return after
    data["left_out"].append({"branch": branch, "why": "its conflicts were not resolved"})
    return start


def step():
    with open(os.environ["AIR_INPUT"], encoding="utf-8") as file:
        data = json.load(file)
    with open(os.environ["AIR_NEEDS"], encoding="utf-8") as file:
        needs = json.load(file)
    task, own = os.environ["AIR_TASK"], f"air/{os.environ['AIR_JOB']}/{os.environ['AIR_TASK']}"
    clone(data["repo"])
    start = taken_in(data, needs)
    commit = commit_of(start) or sys.exit(f"the repository has no `{start}`")
    git("checkout", "-q", "--detach", commit)
    conflict = None
    while data["branches"] and conflict is None:
        branch = data["branches"].pop(0)
        theirs = commit_of(branch)
        if theirs is None:
            data["left_out"].append({"branch": branch, "why": "there is no such branch"})
            continue
        merged = git("merge", "-q", "--no-ff", "-m", f"Merge {branch}", theirs, check=False)
        if merged.returncode == 0:
            data["merged"].append(branch)
            print(f"merged {branch}")
            continue
        files = git("diff", "--name-only", "--diff-filter=U", "-z").stdout.split("\0")
        git("merge", "--abort")
        conflict = (branch, [name for name in files if name])
        print(f"conflict with {branch} in {', '.join(conflict[1])}")
    git("push", "-q", "--force", "origin", f"HEAD:refs/heads/{own}")
    commit = git("rev-parse", "HEAD").stdout.strip()
    go_on(data, task, own, commit, conflict)


def go_on(data, task, own, commit, conflict):
    """The next tasks, and the output of this one."""
    output = {"branch": own, "commit": commit, "merged": data["merged"], "left_out": data["left_out"], "usd": data["usd"]}
    if conflict is None:
        for then in data.get("then", []):
            queue({**then, "needs": [*then.get("needs", []), task]})
    else:
        branch, files = conflict
        data["round"] += 1
        resolve, following = f"{data['name']}-resolve-{data['round']}", f"{data['name']}-{data['round'] + 1}"
        data.update(start=own, conflict=branch, resolved=resolve)
        need = {"task": resolve, "when": "done"}
        queue(
            resolve_task(resolve, data, own, branch, files),
            merge_task(following, os.environ[TEXT_ENV], data, [need]),
        )
        output["conflict"] = {"branch": branch, "files": files, "task": resolve}
    with open(os.environ["AIR_OUTPUT"], "w", encoding="utf-8") as file:
        json.dump(output, file)


def first(name, repo, onto, branches, text, needs=(), check=None, then=(), agent=None):
    """The first task."""
    data = {
        "name": name,
        "repo": repo,
        "start": onto,
        "branches": list(branches),
        "merged": [],
        "left_out": [],
        "round": 0,
        "usd": 0,
        "then": list(then),
        "check": check,
        "agent": agent or {},
    }
    return merge_task(name, text, data, list(needs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("step", help="what the tasks themselves run")
    tasks = verbs.add_parser("tasks", help="print the first task, for `airx submit JOB -f -`")
    tasks.add_argument("--repo", required=True, help="absolute path or address of the repository")
    tasks.add_argument("--onto", default="HEAD", help="branch, tag or commit to merge onto")
    tasks.add_argument("--check", help="command that must work after a conflict is resolved")
    tasks.add_argument("--usd", type=float, default=1, help="what one agent may cost, in US dollars")
    tasks.add_argument("branches", nargs="+", help="what is merged, in this order")
    arguments = parser.parse_args()
    if arguments.verb == "step":
        return step()
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    agent = {"max_budget_usd": arguments.usd}
    task = first("merge", arguments.repo, arguments.onto, arguments.branches, text, check=arguments.check, agent=agent)
    json.dump([task], sys.stdout)
    return None


if __name__ == "__main__":
    main()
