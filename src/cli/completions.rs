//! `tidegate completions`: the script with which a shell completes the options, made from the same command line that is
//! parsed.

use super::exit::{self, fail, print};
use clap::Command;
use clap_complete::aot::{Bash, Fish, Zsh, generate};
use std::process::ExitCode;

/// Options of `tidegate completions`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell whose script is printed
    #[arg(value_enum)]
    shell: ShellName,
}

/// A shell that the project tests.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ShellName {
    /// Write it to /usr/share/bash-completion/completions/tidegate
    Bash,
    /// Write it to a file _tidegate in a folder of $fpath
    Zsh,
    /// Write it to ~/.config/fish/completions/tidegate.fish
    Fish,
}

/// Prints the script.
pub(super) fn run(mut program: Command, args: &CompletionsArgs) -> ExitCode {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    match args.shell {
        ShellName::Bash => generate(Bash, &mut program, name, &mut script),
        ShellName::Zsh => generate(Zsh, &mut program, name, &mut script),
        ShellName::Fish => generate(Fish, &mut program, name, &mut script),
    }
    match String::from_utf8(script) {
        Ok(script) => print(&script),
        Err(error) => fail(exit::FAILED, format_args!("cannot make the script: {error}")),
    }
}
