//! `cached`: one node of a cluster.

use std::process::ExitCode;

use clap::Parser;
use raftcache::server::{Flags, ServerConfig, run};

fn main() -> ExitCode {
    let flags = Flags::parse();
    env_logger::Builder::new().filter_level(flags.log_level).format_target(false).init();
    let config = match ServerConfig::try_from(flags) {
        Ok(config) => config,
        Err(reason) => return fail(&reason),
    };
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(&reason.to_string()),
    }
}

/// One sentence for a person.
fn fail(reason: &str) -> ExitCode {
    eprintln!("cached: {reason}");
    ExitCode::FAILURE
}
