//! The DRM backend: host memory of a kernel driver that keeps Tidemark's own contract
//! (`kmd-uapi/include/tidemark_drm.h`), in the place of the stock kernel's interfaces.
//!
//! An allocation is an *object* of the driver's, mapped twice: its tracked view for the application, its untracked one for
//! Tidemark, whose writes are nobody's business. Which pages the CPU wrote, one call collects and clears. The driver
//! learns it by [either of two ways](Method), object by object, and changes from one to the other at any time: so each
//! allocation has an object of its own, that the policy may choose for each. Sharing objects would save mappings, of
//! which a process has 65530 by default: two for each allocation are few, as Vulkan's allocations are (many drivers
//! allow 4096). From [`MOST`] on, and wherever else the driver refuses, allocations are shared memory under the stock
//! kernel's tracking, and the log says so.
//!
//! What the stock kernel cannot do with a driver's mappings: hold pages back. So readback is always eager. What it cannot
//! do elsewhere: every mapping of an object is seen, those of forked children and the application's own included.

mod device;
mod node;
mod object;

use crate::kernel;
use crate::tracker::{self, Choice, Method};
use device::Device;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemark_kmd_uapi::tidemark_drm::DRIVER_NAME;

pub use node::{RenderNode, render_nodes};
pub(crate) use object::Object;

/// Objects at a time: their mappings are half of those that a process may have by default.
const MOST: usize = 1 << 14;

/// The name of a tracker that goes by either method.
const EITHER: &str = "mkwrite, dirty-bits";

/// Why there is no DRM backend.
#[derive(Debug)]
pub enum Absent {
    /// No render node is of the driver.
    NoNode {
        /// Those that could not be opened: one of them may be.
        closed: Vec<PathBuf>,
    },
    /// The driver's node, and what failed there.
    Failed(PathBuf, io::Error),
    /// The driver's node, and what it lacks.
    Lacks(PathBuf, &'static str),
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode { closed } if closed.is_empty() => {
                write!(f, "no render node of a kernel driver \"{DRIVER_NAME}\"")
            }
            Self::NoNode { closed } => {
                write!(
                    f,
                    "no render node of a kernel driver \"{DRIVER_NAME}\" among those that this user may open, not:"
                )?;
                closed.iter().try_for_each(|path| write!(f, " {}", path.display()))
            }
            Self::Failed(path, error) => write!(f, "{} failed: {error}", path.display()),
            Self::Lacks(path, what) => write!(f, "{} {what}", path.display()),
        }
    }
}

impl std::error::Error for Absent {}

/// Objects of the kernel driver, to be host memory. May be used from any thread.
pub struct Objects {
    device: Arc<Device>,
    /// How new ones are tracked.
    method: Method,
    /// Whether that may change.
    is_free: bool,
    /// Whether it was said that there are no more.
    is_said: AtomicBool,
}

impl Objects {
    /// Opens the driver's render node and tries it on an object. `method` is the only one, if it is given.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(method: Option<Method>) -> Result<Self, Absent> {
        let device = Device::open()?;
        let methods = device.methods();
        let first = method.or(methods.first().copied());
        let Some(first) = first.filter(|first| methods.contains(first)) else {
            let lacks = method.map_or("tracks no writes", |method| match method {
                Method::Mkwrite => "does not track by mkwrite",
                Method::DirtyBits => "does not track by dirty bits",
            });
            return Err(Absent::Lacks(device.path().into(), lacks));
        };
        let is_free = method.is_none() && methods.len() > 1;
        let device = Arc::new(device);
        let objects = Self { device, method: first, is_free, is_said: AtomicBool::new(false) };
        let trial = objects
            .make(2 * crate::page_size())
            .and_then(|object| tracker::is_right(&*object, object.view()));
        match trial {
            Ok(true) => Ok(objects),
            Ok(false) => Err(Absent::Lacks(objects.device.path().into(), "gave a wrong answer in a trial")),
            Err(error) => Err(Absent::Failed(objects.device.path().into(), error)),
        }
    }

    /// The render node.
    pub fn path(&self) -> &std::path::Path {
        self.device.path()
    }

    /// Their tracker's name, for the log and the profile.
    pub fn name(&self) -> &'static str {
        if self.is_free { EITHER } else { self.method.name() }
    }

    /// An object of `len` bytes, whole pages. `None` if it cannot be had, or not in this process.
    pub(crate) fn allocate(&self, len: usize) -> Option<Arc<Object>> {
        if self.device.home() != kernel::address_space() {
            return None;
        }
        let object = if Arc::strong_count(&self.device) > MOST {
            Err(io::Error::other(format!("there are {MOST} already")))
        } else {
            self.make(len)
        };
        object
            .inspect_err(|error| {
                let level = if self.is_said.swap(true, Ordering::Relaxed) { log::Level::Debug } else { log::Level::Warn };
                log::log!(
                    level,
                    "no object of {len} bytes to be had from {} ({error}): shared memory under the stock kernel's \
                     tracking instead",
                    self.path().display()
                );
            })
            .ok()
    }

    fn make(&self, len: usize) -> io::Result<Arc<Object>> {
        Object::new(self.device.clone(), len, self.method, self.is_free).map(Arc::new)
    }
}

/// What `choice` has of the backend; the log tells why it has nothing.
pub(crate) fn select(choice: Choice) -> Option<Objects> {
    let method = match choice {
        Choice::Auto => None,
        Choice::Mkwrite => Some(Method::Mkwrite),
        Choice::DirtyBits => Some(Method::DirtyBits),
        Choice::WriteProtect | Choice::Compare | Choice::CopyAll => return None,
    };
    Objects::open(method)
        .inspect_err(|absent| match (method, absent) {
            (Some(method), _) => log::warn!(
                "no {} tracking: {absent}; the stock kernel's tracking instead. Load the kernel module (kmd-uapi/module), \
                 and let this user open its render node",
                method.name()
            ),
            (None, Absent::NoNode { .. }) => log::debug!("no DRM backend: {absent}"),
            (None, _) => log::warn!("no DRM backend: {absent}; the stock kernel's tracking instead"),
        })
        .ok()
}
