//! One bit of a node's files is not what was written. The node must find out and end rather than serve
//! it; then the bit is flipped back, and the node must go on as if nothing had been.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cluster::{Cluster, TERMINATE_LIMIT};
use crate::nemesis::Target;
use crate::schedule::Fault;
use crate::stores::{self, CORRUPTION};

/// A log shorter than this may end so near that damage looks like its torn end.
const LOG_BYTES_MIN: u64 = 256 * 1024;
/// How long the load may take to make the log so long.
const LOG_LIMIT: Duration = Duration::from_secs(20);
/// A table file shorter than this may have more index than data.
const TABLE_BYTES_MIN: u64 = 4 * 1024;
/// How long a node may take to read its log and refuse it.
const REFUSE_LIMIT: Duration = Duration::from_secs(30);
const PERIOD: Duration = Duration::from_millis(20);

/// One bit that is not what it was.
#[derive(Debug)]
pub(crate) struct Flip {
    path: PathBuf,
    at: u64,
    bit: u8,
    /// Of the file; another one of the same name must not be touched.
    inode: u64,
}

impl Flip {
    /// Flips bit `bit` of byte `at`.
    pub(crate) fn new(path: &Path, at: u64, bit: u8) -> anyhow::Result<Self> {
        let inode = std::fs::metadata(path)?.ino();
        let flip = Self { path: path.to_owned(), at, bit: bit % 8, inode };
        flip.flip()?;
        Ok(flip)
    }

    fn flip(&self) -> anyhow::Result<()> {
        let file: File = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at)?;
        file.write_all_at(&[byte[0] ^ 1 << self.bit], self.at)?;
        Ok(())
    }

    /// Flips it back; false if the file is gone, and the damage with it.
    pub(crate) fn undo(&self) -> anyhow::Result<bool> {
        if std::fs::metadata(&self.path).map_or(0, |metadata| metadata.ino()) != self.inode {
            return Ok(false);
        }
        self.flip()?;
        Ok(true)
    }
}

/// The newest log file of a store and its length: the one that is certainly read at a start.
fn newest_log(data: &Path) -> anyhow::Result<(PathBuf, u64)> {
    let files = std::fs::read_dir(data.join("db"))?;
    let paths = files.flatten().map(|entry| entry.path());
    let logs = paths.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let newest = logs.max().context("no log file")?;
    let bytes = std::fs::metadata(&newest)?.len();
    Ok((newest, bytes))
}

/// A bit in the middle of the log of a node that was killed: it must refuse to start.
pub(crate) fn flip_log(cluster: &mut Cluster, fault: &Fault, one: usize) -> anyhow::Result<Target> {
    let stop = cluster.stop.clone();
    let node = &mut cluster.nodes[one];
    let data = node.setup.data.clone();
    let long = || {
        let (path, bytes) = newest_log(&data)?;
        if bytes < LOG_BYTES_MIN {
            bail!("the log has {bytes} bytes")
        }
        Ok((path, bytes))
    };
    stop.wait("a log with a middle", LOG_LIMIT, long)?;
    node.kill9();
    let mut target = Target::new(node.setup.name.clone());
    let Ok((path, bytes)) = long() else {
        // It has moved on to a new file between the look and the kill.
        target.note("no log with a middle: nothing flipped".to_owned());
        node.start()?;
        return Ok(target);
    };
    let flip = Flip::new(&path, bytes / 2, (fault.pick >> 8) as u8)?;
    let heard = node.log().len();
    node.start()?;
    let ended = stop.wait("it ends", REFUSE_LIMIT, || node.ended()?.context("it still runs"));
    stop.check()?;
    let said = node.log().split_off(heard);
    match ended {
        Ok(how) if said.contains(CORRUPTION) && !how.ends_with(" 0") => {
            target.note(format!("refused to start: {how}, {CORRUPTION}"));
        }
        Ok(how) => target.problem(format!("{how} on a damaged log, without {CORRUPTION}")),
        Err(error) => target.problem(format!("started on a damaged log: {error:#}")),
    }
    stop.sleep(fault.hold)?;
    node.kill9();
    if !flip.undo()? {
        target.problem(format!("{} was damaged and is gone", path.display()));
    }
    node.start()?;
    Ok(target)
}

/// A bit in the middle of a table file: the node must end when it meets it. If it does not within the fault's
/// time, nothing may have read the place; then whoever reads everything must find it.
pub(crate) fn flip_table(
    cluster: &mut Cluster,
    fault: &Fault,
    one: usize,
) -> anyhow::Result<Target> {
    let stop = cluster.stop.clone();
    let binary = cluster.binary().to_owned();
    let node = &mut cluster.nodes[one];
    // What it has in memory goes into table files.
    node.terminate(&stop, TERMINATE_LIMIT)?;
    let mut target = Target::new(node.setup.name.clone());
    let files = match stores::show(&binary, &node.setup.data)? {
        Ok(files) => files,
        Err(said) => bail!("the store of {} before any damage: {said}", node.setup.name),
    };
    let data = |family: &str| !matches!(family, "raft" | "state" | "meta");
    let mut files: Vec<_> = files
        .into_iter()
        .filter(|file| data(&file.family) && file.bytes >= TABLE_BYTES_MIN)
        .collect();
    files.sort_by_key(|file| file.bytes);
    let Some(file) = files.pop() else {
        target.note("no table file with a middle: nothing flipped".to_owned());
        node.start()?;
        return Ok(target);
    };
    let flip = Flip::new(&file.path, file.bytes / 2, (fault.pick >> 8) as u8)?;
    let heard = node.log().len();
    node.start()?;
    let begun = Instant::now();
    let mut ended = None;
    while ended.is_none() && begun.elapsed() < fault.hold {
        stop.sleep(PERIOD)?;
        ended = node.ended()?;
    }
    let after = begun.elapsed().as_secs_f64();
    node.kill9();
    let said = node.log().split_off(heard);
    let name = format!("{} of family {}", file.path.display(), file.family);
    match ended {
        Some(how) if said.contains(CORRUPTION) && !how.ends_with(" 0") => {
            target.note(format!("ended after {after:.1} s: {how}, {CORRUPTION}"));
        }
        Some(how) => target.problem(format!("{how} with damage in {name}, without {CORRUPTION}")),
        None => match stores::show(&binary, &node.setup.data)? {
            Err(said) if said.contains(CORRUPTION) => {
                target.note("nobody read the place; `store show` finds the damage".to_owned());
            }
            Err(said) => target.problem(format!("`store show` says something else: {said}")),
            Ok(_) if file.path.exists() => target.problem(format!("nobody finds damage in {name}")),
            Ok(_) => target.note("the file is gone: nobody reads it any more".to_owned()),
        },
    }
    flip.undo()?;
    node.start()?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_flipped_and_flipped_back_only_in_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let flip = Flip::new(&path, 1, 8).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"acc");
        assert!(flip.undo().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        let kept = directory.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        std::fs::write(&path, "abc").unwrap();
        assert!(!flip.undo().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn the_newest_log_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("db");
        std::fs::create_dir(&database).unwrap();
        assert!(newest_log(directory.path()).is_err());
        for (name, text) in [("000009.log", "12"), ("000010.log", "3"), ("000011.sst", "456")] {
            std::fs::write(database.join(name), text).unwrap();
        }
        let newest = newest_log(directory.path()).unwrap();
        assert_eq!(newest, (database.join("000010.log"), 1));
    }
}
