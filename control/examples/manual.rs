//! Writes what the package has besides the binary: the manual pages and the completions of shells, made from the command line
//! and from the schema of the configuration.
//!
//!     cargo run -p weir --example manual -- DIRECTORY

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap_complete::{Shell, generate_to};
use weir_control::cli;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("usage: manual DIRECTORY")?);
    let (pages, completions) = (directory.join("man"), directory.join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(cli::command(), &pages)?;
    fs::write(pages.join("weir.toml.5"), weir_config::manual())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut cli::command(), "weir", &completions)?;
    }
    Ok(())
}
