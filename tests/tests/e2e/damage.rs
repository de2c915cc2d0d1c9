//! One bit of one node's files is flipped: the node finds out and ends, nobody is served what it damaged,
//! and the others go on.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cribwork_tests::{Cluster, Finished, Load, run, wait_until, wait_until_async};
use tikv_client::RawClient;

use crate::stores::{compare, directories};

const LIMIT: Duration = Duration::from_secs(60);
/// A node reads its log and refuses it at once; this is only for slow machines.
const REFUSAL: Duration = Duration::from_secs(30);
const ROWS: u32 = 1200;
/// Rows of one request.
const BATCH: u32 = 100;
const CORRUPTION: &str = "CW-ENGINE-CORRUPTION";

/// Spread over all ranges.
fn key(number: u32) -> Vec<u8> {
    let spread = (number.wrapping_mul(0x9E37_79B1) >> 24) as u8;
    [&[spread], format!("damage/{number}").as_bytes()].concat()
}

/// Not to be compressed, so that the middle of a file is data.
fn value(number: u32, version: u64) -> Vec<u8> {
    let mut state = u64::from(number) << 8 | version;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..1024).map(|_| byte()).collect()
}

/// Nobody answers for the cluster while its placement looks for a new leader.
async fn client(cluster: &Cluster) -> RawClient {
    wait_until_async("a client connects", LIMIT, || async {
        RawClient::new(cluster.endpoints()).await.map_err(|error| error.to_string())
    })
    .await
}

/// Writes every row, whoever goes down meanwhile.
pub(crate) async fn write_all(cluster: &Cluster, version: u64) {
    let client = client(cluster).await;
    for first in (0..ROWS).step_by(BATCH as usize) {
        let pairs = || (first..first + BATCH).map(|number| (key(number), value(number, version)));
        // Outcomes may be unknown while a node goes down; the same values again do no harm.
        wait_until_async("a batch is written", LIMIT, || {
            let put = client.batch_put(pairs());
            async move { put.await.map_err(|error| error.to_string()) }
        })
        .await;
    }
}

/// Reads every row once. An error is the client's to bear; a value that was not written is not.
pub(crate) async fn read_all(cluster: &Cluster, version: u64) -> Result<(), String> {
    let client = client(cluster).await;
    for first in (0..ROWS).step_by(BATCH as usize) {
        let keys = (first..first + BATCH).map(key);
        let found = client.batch_get(keys).await.map_err(|error| error.to_string())?;
        let mut found: Vec<_> = found.into_iter().map(|pair| (Vec::from(pair.0), pair.1)).collect();
        let mut expected: Vec<_> =
            (first..first + BATCH).map(|number| (key(number), value(number, version))).collect();
        found.sort();
        expected.sort();
        assert!(found == expected, "rows from {first} on are not what was written");
    }
    Ok(())
}

/// Flips a bit in the middle of a file.
pub(crate) struct Flip {
    path: PathBuf,
    at: u64,
}

impl Flip {
    pub(crate) fn in_the_middle_of(path: &Path) -> Self {
        let flip = Self { path: path.to_owned(), at: fs::metadata(path).unwrap().len() / 2 };
        flip.flip();
        flip
    }

    fn flip(&self) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], self.at).unwrap();
    }
}

/// The largest table file of the family that raw values are in.
pub(crate) fn table_file(data: &Path) -> PathBuf {
    let shown = run(&["store", "show", data.to_str().unwrap(), "--output", "json"], LIMIT).json();
    let families = shown["families"].as_array().expect("a list").iter();
    let raw = families.into_iter().find(|family| family["name"] == "raw").expect("the family");
    let files = raw["files"].as_array().expect("a list").iter();
    let largest = files.max_by_key(|file| file["bytes"].as_u64()).expect("a file");
    assert!(largest["bytes"].as_u64() > Some(256 * 1024), "{shown}");
    data.join("db").join(largest["name"].as_str().unwrap())
}

/// The log that is written to.
pub(crate) fn newest_log(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("db")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap()
}

/// Makes store 1 lead everything and reads everything, again and again, until its node has ended.
pub(crate) fn read_until_it_ends(cluster: &mut Cluster, load: &Load, version: u64) {
    let deadline = Instant::now() + LIMIT;
    while cluster.node(0).is_running() {
        assert!(Instant::now() < deadline, "the node serves on with a damaged file");
        let ranges = cluster.run(&["ranges", "--output", "json", "--timeout", "5s"]);
        let ranges: serde_json::Value = serde_json::from_str(&ranges.stdout).unwrap_or_default();
        for range in ranges.as_array().into_iter().flatten() {
            // The balancer moves them back, and the node may end meanwhile.
            let id = range["id"].to_string();
            cluster.run(&["transfer-leader", &id, "1", "--timeout", "2s"]);
        }
        let _ = load.block_on(read_all(cluster, version));
    }
    let others = |cluster: &Cluster| load.block_on(read_all(cluster, version));
    wait_until("the others serve everything", LIMIT, || others(cluster));
}

/// What a node said on stderr since `heard`, having ended by itself.
fn end_of(cluster: &mut Cluster, heard: usize) -> Finished {
    let mut ended = cluster.node(0).reap();
    ended.stderr.drain(..heard);
    ended
}

#[test]
fn a_flipped_bit_in_a_table_file_ends_its_node_and_is_never_served() {
    let mut cluster = Cluster::with_ranges(3, 4);
    let load = Load::new();
    load.block_on(write_all(&cluster, 1));
    let data = directories(&mut cluster).remove(0);
    for while_it_runs in [false, true] {
        // A node that is told to stop writes what it has in memory into table files.
        assert_eq!(cluster.node(0).stop("TERM").code, Some(0));
        let path = table_file(&data);
        let heard = cluster.node(0).log().len();
        let flip = if while_it_runs {
            // With a cold cache: nobody has read the row yet.
            cluster.node(0).restart();
            cluster.wait_ready();
            Flip::in_the_middle_of(&path)
        } else {
            let flip = Flip::in_the_middle_of(&path);
            let shown = run(&["store", "show", data.to_str().unwrap()], LIMIT);
            shown.fails(1, &[path.to_str().unwrap(), "hint", CORRUPTION]);
            cluster.node(0).restart();
            flip
        };
        read_until_it_ends(&mut cluster, &load, 1);
        let ended = end_of(&mut cluster, heard);
        assert_eq!(ended.code, Some(70), "{ended:?}");
        let name = path.file_name().unwrap().to_str().unwrap();
        for words in [CORRUPTION, "checksum mismatch", name, "--rebuild-damaged"] {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
        // Undone, it is as if nothing had been.
        flip.flip();
        cluster.node(0).restart();
        cluster.wait_ready();
    }
    load.block_on(write_all(&cluster, 2));
    load.block_on(read_all(&cluster, 2)).unwrap();
    stop_and_compare(&mut cluster);
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_at_the_next_start() {
    let mut cluster = Cluster::with_ranges(3, 4);
    let load = Load::new();
    load.block_on(write_all(&cluster, 1));
    let data = directories(&mut cluster).remove(0);
    // While it runs, nobody reads what is in the log and in memory.
    let path = newest_log(&data);
    assert!(fs::metadata(&path).unwrap().len() > 512 * 1024, "a log with a middle");
    let flip = Flip::in_the_middle_of(&path);
    load.block_on(read_all(&cluster, 1)).unwrap();
    cluster.node(0).kill9();
    assert_eq!(newest_log(&data), path, "the log has not moved on");

    for _ in 0..2 {
        let refused = cluster.node(0).flags().start().wait(REFUSAL);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for words in ["open database is corrupt", "hint", CORRUPTION] {
            assert!(refused.stderr.contains(words), "{words}: {refused:?}");
        }
    }
    let others = || load.block_on(read_all(&cluster, 1));
    wait_until("the others serve everything", LIMIT, others);
    load.block_on(write_all(&cluster, 2));
    load.block_on(read_all(&cluster, 2)).unwrap();

    flip.flip();
    cluster.node(0).restart();
    cluster.wait_ready();
    stop_and_compare(&mut cluster);
}

#[track_caller]
fn stop_and_compare(cluster: &mut Cluster) {
    for node in cluster.nodes() {
        assert_eq!(node.stop("TERM").code, Some(0));
    }
    let compared = compare(&directories(cluster)).json();
    assert_eq!(compared["verdict"], "equal", "{compared}");
}
