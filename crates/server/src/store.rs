//! The store on disk of a process: how it is opened, and what becomes of one that fails or is damaged.

use std::sync::Arc;

use cribwork_engine::{
    Engine, EngineError, RocksEngine, forget_damage, note_damage, noted_damage, set_aside,
};
use cribwork_types::CodedError;

use crate::config::Config;
use crate::node_state::FatalHook;

/// Exit code of a process whose disk failed (`EX_SOFTWARE` of sysexits).
const EXIT_DISK_FAILED: i32 = 70;

/// Opens the store of the data directory. One that is damaged is set aside for a new one if the settings
/// say so.
///
/// # Errors
/// [`EngineError`] of [`RocksEngine::open`] and [`set_aside`].
pub(crate) fn open(config: &Config) -> Result<Arc<dyn Engine>, EngineError> {
    let dir = &config.data_dir;
    let open = || RocksEngine::open(dir, config.engine.options());
    if !config.rebuild_damaged {
        let engine = open()?;
        // Whoever starts it so says that its disk is sound again.
        forget_damage(dir)?;
        return Ok(engine);
    }
    let why = match noted_damage(dir)? {
        Some(noted) => noted,
        None => match open() {
            Err(error @ EngineError::Corruption { .. }) => error.to_string(),
            opened => return Ok(opened?),
        },
    };
    let aside = set_aside(dir)?;
    let aside = aside.display();
    tracing::error!(why, %aside, "the store is damaged and was set aside: this node joins with nothing");
    Ok(open()?)
}

/// What a process does whose store fails: a failed fsync may have dropped the pages that it was to write, and
/// a damaged block may have neighbours, so answering on would be lying.
pub(crate) fn end_process(config: &Config) -> FatalHook {
    let dir = config.data_dir.clone();
    Arc::new(move |error: EngineError| {
        let (code, hint) = (error.code(), error.hint());
        tracing::error!(%error, code, hint, "disk error: stopping rather than serving what may be lost");
        if matches!(error, EngineError::Corruption { .. })
            && let Err(error) = note_damage(&dir, &error)
        {
            tracing::warn!(%error, "cannot note the damage");
        }
        std::process::exit(EXIT_DISK_FAILED);
    })
}
