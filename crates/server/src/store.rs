//! The store on disk of a process: how it is opened, and what becomes of one that fails or is damaged.

use std::sync::Arc;
use std::time::Duration;

use cribwork_engine::{
    Engine, EngineError, RocksEngine, finish_set_aside, has_database, note_damage, noted_damage,
    set_aside,
};
use cribwork_types::{CodedError, Runtime};

use crate::config::Config;
use crate::node_state::FatalHook;
use crate::{PeerClients, ServerError, spare};

/// Exit code of a process whose disk failed (`EX_SOFTWARE` of sysexits).
const EXIT_DISK_FAILED: i32 = 70;
/// How long a failed disk may take to note that.
const NOTE_LIMIT: Duration = Duration::from_secs(1);

/// Opens the store of the data directory. One that is damaged is set aside for a new one if the settings
/// say so, and the others can do without it.
///
/// # Errors
/// [`EngineError`] of [`RocksEngine::open`] and [`set_aside`], [`ServerError::StillNeeded`].
pub(crate) async fn open(
    config: &Config,
    peers: &PeerClients,
    runtime: &dyn Runtime,
) -> Result<Arc<dyn Engine>, ServerError> {
    let dir = &config.data_dir;
    let open = || RocksEngine::open(dir, config.engine.options());
    let noted = noted_damage(dir)?;
    if !config.rebuild_damaged {
        if let Some(why) = noted {
            let note = dir.join("DAMAGED");
            let note = note.display();
            tracing::warn!(why, %note, "the store was found damaged: see --rebuild-damaged, or remove the note");
        }
        return Ok(open()?);
    }
    finish_set_aside(dir)?;
    let why = match noted {
        Some(noted) if has_database(dir)? => noted,
        _ => match open() {
            Err(error @ EngineError::Corruption { .. }) if has_database(dir)? => error.to_string(),
            opened => return Ok(opened?),
        },
    };
    tracing::error!(why, "the store is damaged: asking the others whether they can do without it");
    spare::wait_for_others(config, peers, runtime).await?;
    let aside = set_aside(dir)?;
    let aside = aside.display();
    tracing::warn!(%aside, "the damaged store was set aside: this node joins with nothing");
    Ok(open()?)
}

/// What a process does whose store fails: a failed fsync may have dropped the pages that it was to write, and
/// a damaged block may have neighbours, so answering on would be lying.
pub(crate) fn end_process(config: &Config, runtime: &Arc<dyn Runtime>) -> FatalHook {
    let (dir, runtime) = (config.data_dir.clone(), runtime.clone());
    Arc::new(move |error: EngineError| {
        let (code, hint) = (error.code(), error.hint());
        tracing::error!(%error, code, hint, "disk error: stopping rather than serving what may be lost");
        if matches!(error, EngineError::Corruption { .. }) {
            // Elsewhere: a disk that fails may not answer any more, and this process has to end.
            let (noted, is_noted) = std::sync::mpsc::sync_channel(1);
            let dir = dir.clone();
            runtime.spawn_worker(
                "note-damage",
                Box::pin(async move {
                    if let Err(error) = note_damage(&dir, &error) {
                        tracing::warn!(%error, "cannot note the damage");
                    }
                    // Nobody waits any more if it took too long.
                    let _ = noted.send(());
                }),
            );
            // Whether or not it could be noted.
            let _ = is_noted.recv_timeout(NOTE_LIMIT);
        }
        std::process::exit(EXIT_DISK_FAILED);
    })
}

#[cfg(test)]
mod tests {
    use cribwork_transport::TcpConnector;

    use super::*;
    use crate::TokioRuntime;

    /// Nobody else is asked, and nothing is set aside: what is not mounted is not damaged.
    #[tokio::test]
    async fn a_damaged_store_that_is_not_there_is_not_replaced() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data_dir = dir.path().to_owned();
        let config = Config { data_dir, rebuild_damaged: true, ..Config::default() };
        let runtime: Arc<dyn Runtime> =
            Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
        let peers = PeerClients::new(Arc::new(TcpConnector), runtime.clone());
        drop(open(&config, &peers, &*runtime).await.unwrap());
        let found = EngineError::Corruption { what: "block", detail: "x".into() };
        note_damage(dir.path(), &found).unwrap();
        std::fs::rename(dir.path().join("db"), elsewhere.path().join("db")).unwrap();
        let refused = open(&config, &peers, &*runtime).await.err().unwrap();
        assert_eq!(refused.code(), "CW-ENGINE-CORRUPTION", "{refused}");
        assert!(!dir.path().join("damaged").exists());
    }
}
