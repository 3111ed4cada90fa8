//! `airx man`: writes the manual pages.

use std::path::{Path, PathBuf};

use clap_mangen::Man;

use crate::app::App;
use crate::{Exit, Failure};

/// Options of `airx man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  airx man ~/.local/share/man/man1")]
pub struct Args {
    /// Folder for one page of each verb; without it, the page of `airx` itself goes to stdout
    pub dir: Option<PathBuf>,
}

/// Writes the pages.
///
/// # Errors
/// They cannot be written.
pub fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let mut command = crate::command();
    command.build();
    match &args.dir {
        None => app.console.raw(&page(&command)?)?,
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(Failure::io(format!("make {}", dir.display())))?;
            let written = pages(&command, "airx", dir)?;
            app.console.note(format_args!(
                "wrote {} to {}",
                crate::app::count(written, "page"),
                dir.display()
            ));
        }
    }
    Ok(Exit::Done)
}

/// Writes the page of a command and of all below it; gives their number.
fn pages(command: &clap::Command, name: &str, dir: &Path) -> Result<u64, Failure> {
    let path = dir.join(format!("{name}.1"));
    let doing = format!("write {}", path.display());
    std::fs::write(&path, page(command)?).map_err(Failure::io(doing))?;
    let mut written = 1;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        written += pages(verb, &format!("{name}-{}", verb.get_name()), dir)?;
    }
    Ok(written)
}

fn page(command: &clap::Command) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let name = command.get_bin_name().unwrap_or("airx").replace(' ', "-");
    let command = command.clone().display_name(name);
    Man::new(command)
        .render(&mut bytes)
        .map_err(Failure::io("write a manual page"))?;
    Ok(bytes)
}
