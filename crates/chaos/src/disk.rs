//! A file system of its own for a node: ext4 in a file, on a loop device.
//!
//! It can be cut off from its disk as a power cut does: what had not reached the disk by then is gone,
//! and what is left is what the journal makes of it at the next mount.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::shell;
use crate::stop::Stop;

/// How long a file system may stay busy after its last process is gone.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 64 * 1024;

/// A mounted image; unmounted, and its device free, when dropped. The image stays, and with it the
/// data.
#[derive(Debug)]
pub(crate) struct Disk {
    device: String,
    mount: PathBuf,
}

impl Disk {
    /// Makes the image `NAME.img` in `directory` and mounts it at `NAME`.
    pub(crate) fn new(directory: &Path, name: &str, mib: u32) -> anyhow::Result<Self> {
        let image = directory.join(format!("{name}.img"));
        let mount = directory.join(name);
        std::fs::create_dir_all(&mount)?;
        let image = text(&image)?;
        // Sparse: it takes what is written.
        shell::run(&format!("truncate -s {mib}M {image}"))?;
        shell::run(&format!("mkfs.ext4 -q -F -m 0 {image}"))?;
        let device = shell::run(&format!("losetup --find --show {image}"))?.trim().to_owned();
        let disk = Self { device, mount };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// `MAJOR:MINOR` of its device.
    pub(crate) fn number(&self) -> anyhow::Result<String> {
        let name = self.device.trim_start_matches("/dev/");
        Ok(std::fs::read_to_string(format!("/sys/block/{name}/dev"))?.trim().to_owned())
    }

    fn mount(&self) -> anyhow::Result<()> {
        shell::run(&format!("mount {} {}", self.device, text(&self.mount)?)).map(|_| ())
    }

    /// Cuts it off: every call on it fails from now on, and nothing more reaches the disk. The log of
    /// the journal is not flushed first.
    pub(crate) fn cut(&self) -> anyhow::Result<()> {
        shell::words(&["xfs_io", "-x", "-c", "shutdown", text(&self.mount)?], "").map(|_| ())
    }

    /// Mounts it again after a cut, once nobody uses it any more.
    pub(crate) fn remount(&self, stop: &Stop) -> anyhow::Result<()> {
        let mount = text(&self.mount)?;
        stop.wait("umount", UNMOUNT_LIMIT, || shell::run(&format!("umount {mount}")))?;
        self.mount()
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let mount = text(&self.mount)?;
        let free = shell::run(&format!("df --output=avail -B1 {mount}"))?;
        let free = free.split_whitespace().last().context("df says nothing")?.to_owned();
        let filler = self.filler();
        // Others write at the same time, and some room is for what describes files: the second step
        // takes the rest.
        let _ = shell::run(&format!("fallocate -l {free} {}", text(&filler)?));
        let mut file = OpenOptions::new().append(true).create(true).open(&filler)?;
        while file.write_all(&[0; PIECE_BYTES]).is_ok() {}
        while file.write_all(&[0; 512]).is_ok() {}
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.filler()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(mount) = text(&self.mount) {
            let stop = Stop::default();
            let unmounted =
                stop.wait("umount", UNMOUNT_LIMIT, || shell::run(&format!("umount {mount}")));
            if unmounted.is_err() {
                // Never mounted, or still busy: it goes when the last process does.
                let _ = shell::run(&format!("umount --lazy {mount}"));
            }
        }
        let _ = shell::run(&format!("losetup --detach {}", self.device));
    }
}

/// Commands are split at spaces.
fn text(path: &Path) -> anyhow::Result<&str> {
    let text = path.to_str().filter(|text| !text.contains(char::is_whitespace));
    text.with_context(|| format!("{}: a path without spaces is needed", path.display()))
}
