//! A file system of its own in a folder, small enough to be filled.

#![allow(dead_code, reason = "each test binary uses another part of it")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::run;

/// Mounted until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a file system of so many KiB on `folder`, which is made.
    pub fn mount(folder: &Path, kilobytes: u32) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={kilobytes}k");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder))
            .expect(0);
        Self(folder.to_owned())
    }

    /// Gives it another size.
    pub fn resize(&self, kilobytes: u32) {
        self.remount(&format!("size={kilobytes}k"));
    }

    /// Gives it another option of tmpfs, such as `nr_inodes=1000`.
    pub fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        run(Command::new("mount").args(["-o", &options]).arg(&self.0)).expect(0);
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut file = File::create(self.0.join("ballast")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    /// Takes back what [`SmallDisk::fill`] wrote.
    pub fn free(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still open goes with those who have it open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A disk that can be broken: from then on whatever is written is an error of input and output. It
/// is a file system in a file on a small disk that gets full below it.
pub struct BrittleDisk {
    _outer: SmallDisk,
    file: PathBuf,
    folder: PathBuf,
}

impl BrittleDisk {
    /// Mounts it on `folder`, which is made; what belongs to it lies in `beside`.
    pub fn mount(folder: &Path, beside: &Path) -> Self {
        let outer = SmallDisk::mount(beside, 64 << 10);
        let file = beside.join("disk");
        File::create(&file).unwrap().set_len(48 << 20).unwrap();
        // Its own bookkeeping is written now, and not when there is no room for it any more.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", options]).arg(&file)).expect(0);
        std::fs::create_dir_all(folder).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(folder)).expect(0);
        Self { _outer: outer, file, folder: folder.to_owned() }
    }

    pub fn break_it(&self) {
        let mut ballast = File::create(self.file.with_extension("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for BrittleDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
