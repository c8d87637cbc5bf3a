//! The command: parse arguments, start one role, and end with its exit status.

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;
use imagecache::{
    api,
    cli::{Cli, Command},
    controller, local, mirror,
    model::class::EXIT_STOPPED,
    ops::{logging, out, shutdown},
    pull::worker,
};

/// What blocking threads get at the end of the process.
const LEFTOVERS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::install(cli.log_format, &cli.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(run(cli.command));
    // Threads that wait for a name server or a volume are not waited for: all that is durable is so already.
    runtime.shutdown_timeout(LEFTOVERS);
    ExitCode::from(status)
}

async fn run(command: Command) -> u8 {
    let stop = match shutdown::on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            return 1;
        }
    };
    match command {
        Command::Pull(args) => local::pull::run(*args, stop).await,
        Command::Worker(args) => {
            let config = worker::WorkerConfig {
                request: &args.request,
                credentials: &args.credentials,
                volume: &args.volume,
                termination_log: &args.termination_log,
                auth_realms: args.auth_realm,
            };
            worker::run(config, stop).await
        }
        Command::ExportVolume(args) => local::volume::run(args, stop).await,
        Command::Serve(args) => {
            let config = mirror::Config {
                admin: args.admin_listen,
                serve_private: args.serve_private,
                public_registries: args.public_registry,
                ..mirror::Config::new(args.volume, args.listen)
            };
            match mirror::run(config, stop).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::error!("{error}");
                    1
                }
            }
        }
        Command::Ls(args) => local::ls::run(&args),
        Command::Verify(args) => local::repair::run(args, stop).await,
        Command::Rm(args) => local::rm::run(&args),
        Command::Gc(args) => {
            // It may end anywhere: what it was about to do the next one does.
            let work = tokio::task::spawn_blocking(move || local::gc::run(&args));
            tokio::select! {
                status = work => status.unwrap_or(1),
                () = stop.cancelled() => EXIT_STOPPED,
            }
        }
        Command::Export(args) => local::archive::run_export(&args),
        Command::Import(args) => local::archive::run_import(args),
        Command::Convert(args) => local::convert::run(&args),
        Command::Explain(args) => local::explain::run(&args),
        Command::Crd => match api::image_cache::crd_yaml() {
            Ok(yaml) => {
                out::print(&yaml);
                0
            }
            Err(error) => {
                tracing::error!(%error, "cannot print the definition");
                1
            }
        },
        Command::Controller(args) => match Box::pin(controller::run(args.config(), stop)).await {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!("{error}");
                1
            }
        },
    }
}
