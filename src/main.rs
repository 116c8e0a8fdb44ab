//! The program: arguments in, exit code out. All else is in the library.

use std::process::ExitCode;
use std::time::Duration;

use plimsoll::cli;

/// A first convergence takes several times the memory for a moment that the controller keeps. The
/// system's own allocator leaves most of that with the process, and in pieces (decision 0014).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long work that blocks a thread may hold up the end of the process.
const FAREWELL: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cli::no_runtime(&error),
    };
    let is_controller = arguments.is_controller();
    let code = runtime.block_on(cli::run(arguments));
    if is_controller {
        runtime.shutdown_timeout(FAREWELL);
    } else {
        // What a command began is done. Waiting for the threads would only take time.
        runtime.shutdown_background();
    }
    code
}
