//! `cachecli`: the tool for people.
//!
//! One command per call, or with none a prompt that takes the same commands
//! ([`prompt`]). A command talks to the cluster through `raftcache::client` and
//! gives back something [`output::Shown`], which is printed as the user asked;
//! what went wrong is a [`commands::Failure`], which decides the exit code.

mod args;
mod bench;
mod commands;
mod histogram;
mod output;
mod prompt;
mod seed;
mod status;
mod values;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    env_logger::init();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime of one thread needs nothing that could be missing");
    let mut session = commands::Session::new(&args.options);
    let Some(command) = args.command else { return prompt::run(&runtime, &mut session) };
    match runtime.block_on(session.run(command)) {
        Ok(shown) => shown.print(args.options.output),
        Err(failure) => failure.print(args.options.output),
    }
}
