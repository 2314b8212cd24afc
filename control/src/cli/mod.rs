//! The command line: one file a command. Every command returns what to print and how to exit.

mod apply;
mod check;
mod doctor;
mod drain;
mod node;
mod reload;
mod replay;
mod run;
mod schema;
mod show;
mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::Value;

use crate::client::ClientError;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused: the configuration, the request or the input is wrong, or the daemon could not start
  2  wrong usage of the command line
  3  the daemon cannot be reached";

/// weir, a poll-mode packet appliance: it moves packets from AF_XDP sockets through service chains, VXLAN tunnels and
/// routes.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Apply(apply::Apply),
    Reload(reload::Reload),
    Drain(drain::Drain),
    Show(show::Show),
    Replay(replay::Replay),
    Schema(schema::Schema),
}

/// Where the daemon's socket is.
#[derive(Clone, Debug, Args)]
struct SocketArgument {
    /// The daemon's socket.
    #[arg(long, value_name = "PATH", default_value = "/run/weir/weir.sock", global = true)]
    socket: PathBuf,
}

/// What a command ends with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    stdout: String,
    stderr: String,
    code: u8,
}

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

impl Output {
    fn done(stdout: impl Into<String>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    fn failed(code: u8, message: impl Into<String>) -> Self {
        Self { stderr: message.into(), code, ..Self::default() }
    }

    /// A JSON value for programs.
    fn json(value: &Value) -> Self {
        // A Value's keys are strings, so it always has a JSON form.
        Self::done(serde_json::to_string_pretty(value).unwrap_or_default())
    }

    fn print(self) -> ExitCode {
        // A reader that went away (`weir show … | head`) is no failure of ours.
        let _ = write_text(&mut io::stdout().lock(), &self.stdout);
        let _ = write_text(&mut io::stderr().lock(), &self.stderr);
        ExitCode::from(self.code)
    }
}

fn write_text(to: &mut dyn Write, text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    to.write_all(text.trim_end_matches('\n').as_bytes())?;
    to.write_all(b"\n")?;
    to.flush()
}

impl From<ClientError> for Output {
    fn from(error: ClientError) -> Self {
        let text = format!("weir: {error}");
        match error {
            ClientError::Unreachable { .. } | ClientError::Broken { .. } => Self::failed(UNREACHABLE, text),
            ClientError::Refused { diagnostics, .. } => {
                Self::failed(REFUSED, [diagnostics, vec![text]].concat().join("\n"))
            }
        }
    }
}

/// The whole command line, for its manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the process's arguments and does what they say.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // clap prints, and exits with 2 for wrong usage and 0 for --help.
        Err(error) => error.exit(),
    };
    let output = match cli.command {
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
        Command::Doctor(doctor) => doctor.execute(),
        Command::Apply(apply) => apply.execute(),
        Command::Reload(reload) => reload.execute(),
        Command::Drain(drain) => drain.execute(),
        Command::Show(show) => show.execute(),
        Command::Replay(replay) => replay.execute(),
        Command::Schema(schema) => schema.execute(),
    };
    output.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_stands_below_the_help_fits_the_width_that_help_is_wrapped_at() {
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_and_argument_has_a_help_text() {
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} has no help", argument.get_id());
            }
            for child in command.get_subcommands() {
                visit(child, &path);
            }
        }
        visit(&Cli::command(), "");
    }
}
