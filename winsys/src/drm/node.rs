//! The machine's DRM render nodes: which kernel driver serves each.

use ::drm::{Device, control};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A render node and its kernel driver.
#[derive(Clone, Debug)]
pub struct RenderNode {
    /// `/dev/dri/renderD128` and the like.
    pub path: PathBuf,
    /// The kernel driver's name and version, or why it could not be asked.
    pub driver: Result<String, String>,
}

/// An open render node.
pub(super) struct Node(File);

impl Node {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).open(path).map(Self)
    }

    pub(super) fn driver_name(&self) -> io::Result<String> {
        Ok(self.get_driver()?.name().to_string_lossy().into_owned())
    }
}

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device for Node {}

impl control::Device for Node {}

/// Every render node of this machine, in order; none where there is no DRM.
pub fn render_nodes() -> Vec<RenderNode> {
    paths().into_iter().map(|path| RenderNode { driver: driver_of(&path), path }).collect()
}

pub(super) fn paths() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev/dri") else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("renderD"))
    });
    paths.sort();
    paths
}

fn driver_of(path: &Path) -> Result<String, String> {
    let node = Node::open(path).map_err(|error| error.to_string())?;
    let driver = node.get_driver().map_err(|error| error.to_string())?;
    let (major, minor, patch) = driver.version;
    Ok(format!("{} {major}.{minor}.{patch}", driver.name().to_string_lossy()))
}
