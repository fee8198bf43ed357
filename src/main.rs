//! `cached`: one node of a cluster.

use std::process::ExitCode;

use raftcache::server::{Flags, ServerConfig, run};

fn main() -> ExitCode {
    let flags = Flags::of_process();
    end_with_stdin();
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

/// With `CACHED_EXIT_WITH_STDIN` set the process ends as its standard input does.
/// That is for whoever starts nodes and may be killed: the system closes the
/// other end of the pipe for him, and no node outlives him.
fn end_with_stdin() {
    if std::env::var_os("CACHED_EXIT_WITH_STDIN").is_none() {
        return;
    }
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
}

/// One sentence for a person.
fn fail(reason: &str) -> ExitCode {
    eprintln!("cached: {reason}");
    ExitCode::FAILURE
}
