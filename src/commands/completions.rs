//! `completions` and `man`: what a shell completes, and the manual page, both made from the commands themselves.
//!
//! Exit codes: 0 it was printed, 1 it could not be, 2 the usage is wrong.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;

use super::shell::{WRONG_SETTINGS, output_failed, print_lines};

/// The argument of `completions`.
const SHELL: &str = "shell";

/// The command `completions`.
pub(super) fn command() -> Command {
    Command::new("completions")
        .about("Print what a shell needs to complete commands and flags")
        .after_help(
            "bash:  esms-otp-worker completions bash >~/.local/share/bash-completion/completions/esms-otp-worker\n\
             zsh:   esms-otp-worker completions zsh >DIR/_esms-otp-worker   where DIR is in $fpath\n\
             fish:  esms-otp-worker completions fish >~/.config/fish/completions/esms-otp-worker.fish",
        )
        .arg(Arg::new(SHELL).value_name("SHELL").required(true).value_parser(value_parser!(Shell)))
}

/// The command `man`.
pub(super) fn man_command() -> Command {
    Command::new("man")
        .about("Print the manual page, with all commands")
        .after_help("esms-otp-worker man >esms-otp-worker.1; man ./esms-otp-worker.1")
}

/// Runs `completions` for the commands of `all`.
pub(super) fn execute(given: &ArgMatches, mut all: Command) -> ExitCode {
    let Some(shell) = given.get_one::<Shell>(SHELL) else { return ExitCode::from(WRONG_SETTINGS) };
    let name = all.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut all, name, &mut script);
    print(&mended(&script))
}

/// In the script for bash, clap_complete 4.6 names a program with a hyphen in one way where it is set, and in another where
/// it is looked up: only the names of commands would be completed (<https://github.com/clap-rs/clap/issues/6421>).
fn mended(script: &[u8]) -> Vec<u8> {
    let script = String::from_utf8_lossy(script);
    script.replace("esms__subcmd__otp__subcmd__worker", "esms__otp__worker").into_bytes()
}

/// Runs `man` for the commands of `all`: a section for the program, and one for each command.
pub(super) fn execute_man(all: Command) -> ExitCode {
    let mut page = Vec::new();
    match render(all, &mut page) {
        Ok(()) => print(&page),
        Err(error) => output_failed(&error),
    }
}

fn render(mut all: Command, page: &mut Vec<u8>) -> io::Result<()> {
    // Names of commands become those by which they are called.
    all.build();
    let man = Man::new(all.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    of_commands(&all, page)
}

fn of_commands(of: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    for command in of.get_subcommands().filter(|command| command.get_name() != "help") {
        writeln!(page, ".SH \"{}\"", command.get_bin_name().unwrap_or(command.get_name()).to_uppercase())?;
        if let Some(about) = command.get_about() {
            writeln!(page, "{about}.")?;
        }
        let (man, mut parts) = (Man::new(command.clone()), Vec::new());
        man.render_synopsis_section(&mut parts)?;
        man.render_options_section(&mut parts)?;
        // They are parts of this section.
        page.extend(String::from_utf8_lossy(&parts).replace(".SH ", ".SS ").into_bytes());
        if let Some(more) = command.get_after_help() {
            write!(page, ".SS NOTES\n.nf\n{}.fi\n", as_it_is(&more.to_string()))?;
        }
        of_commands(command, page)?;
    }
    Ok(())
}

/// Lines that roff prints as they are.
fn as_it_is(text: &str) -> String {
    text.lines().map(|line| format!("\\&{}\n", line.replace('\\', "\\e"))).collect()
}

fn print(text: &[u8]) -> ExitCode {
    print_lines(&[String::from_utf8_lossy(text).trim_end().to_owned()], ExitCode::SUCCESS)
}
