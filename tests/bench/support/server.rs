//! Starts servers that say `listening on http://ADDRESS`.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Outcome;

/// Puts a server on core 0. Its process is the command's: `taskset` becomes it.
pub(crate) fn on_core_0() -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]);
    command
}

/// Starts it, and waits until it says where it listens.
pub(crate) fn listening(command: &mut Command, name: &str) -> Outcome<(Child, String)> {
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("taskset (util-linux) cannot be run: {error}"))?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    let Some((_, address)) = line.trim().split_once("listening on http://") else {
        child.kill()?;
        child.wait()?;
        return Err(format!("{name} did not start: {line:?}").into());
    };
    let address = address.to_owned();
    // Whatever else it prints must not block it.
    std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    Ok((child, address))
}

/// A script in a folder of the project that has npm packages.
pub(crate) fn script(folder: &str, script: &str) -> Outcome<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if folder.join("node_modules").exists() {
        Ok(folder.join(script))
    } else {
        Err(format!("npm packages are missing: run `npm ci` in {}", folder.display()).into())
    }
}
