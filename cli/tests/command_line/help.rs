//! Every help text, pinned: a change of the interface is seen in a change.

use std::fmt::Write as _;

fn collect(command: &clap::Command, name: &str, all: &mut String) {
    let mut command = command.clone();
    let text = command.render_long_help().to_string();
    let text: Vec<_> = text.lines().map(str::trim_end).collect();
    let _ = writeln!(all, "=== {name}\n{}\n", text.join("\n").trim_end());
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        collect(verb, &format!("{name} {}", verb.get_name()), all);
    }
}

#[test]
fn help_texts_are_pinned() {
    let mut command = airx::command();
    command.build();
    command.clone().debug_assert();
    let mut all = String::new();
    collect(&command, "airx", &mut all);
    insta::assert_snapshot!(all);
}
