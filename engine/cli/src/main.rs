//! The `dataflow` program: builds the job file it is given and hands its command line over to the job's own program.

use clap::Parser;
use dataflow::command::Cli;

fn main() {
    let cli = Cli::parse();
    let launched = dataflow::launch::exec(&cli.verb.job().job, std::env::args_os().skip(1));
    dataflow::report(launched, cli.output)
}
