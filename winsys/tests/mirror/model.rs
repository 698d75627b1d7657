//! What view and device memory may hold after each sync point, byte by byte.
//!
//! Where both sides wrote one byte between sync points, the application has a race, and either value may win.

/// A byte of an allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Byte {
    pub(crate) host: u8,
    /// `None`: nobody may rely on it.
    pub(crate) device: Option<u8>,
    /// The host wrote it since it was flushed.
    by_host: bool,
    /// The device wrote it since it was read back.
    by_device: bool,
}

/// What view and device memory hold now.
pub(crate) type Found = (u8, u8);

impl Byte {
    pub(crate) fn new(device: Option<u8>) -> Self {
        Self { host: device.unwrap_or(0), device, by_host: false, by_device: false }
    }

    pub(crate) fn host_writes(&mut self, value: u8) {
        (self.host, self.by_host) = (value, true);
    }

    pub(crate) fn device_writes(&mut self, value: u8) {
        (self.device, self.by_device) = (Some(value), true);
    }

    /// After a flush that had to cover this byte, or may have done so all the same.
    pub(crate) fn after_flush(&mut self, is_covered: bool, (host, device): Found) -> bool {
        let is_flushed = device == self.host;
        let is_kept = self.is_kept(device);
        let is_right = match (self.by_host, is_covered) {
            (true, true) => is_flushed || self.by_device && is_kept,
            (true, false) => is_flushed || is_kept,
            (false, _) => is_kept,
        };
        if self.by_host && is_covered {
            self.by_host = false;
            self.by_device &= !is_flushed;
            self.device = Some(device);
        }
        self.device = self.device.and(Some(device));
        is_right && host == self.host
    }

    /// After a share, which was this page's first or was none.
    pub(crate) fn after_share(&mut self, is_first: bool, (host, device): Found) -> bool {
        let is_flushed = device == self.host;
        let is_kept = self.is_kept(device);
        let is_right = match (is_first, self.by_host) {
            (true, true) => is_flushed || is_kept,
            (true, false) => is_flushed,
            (false, _) => is_kept,
        };
        if is_first || self.device.is_some() {
            self.device = Some(device);
        }
        is_right && host == self.host
    }

    /// After a readback that covered this byte, or did not.
    pub(crate) fn after_readback(&mut self, is_covered: bool, (host, device): Found) -> bool {
        let is_kept = host == self.host;
        let is_right = match (self.by_device && is_covered, self.by_host) {
            (true, true) => host == device || is_kept,
            (true, false) => host == device,
            (false, _) => is_kept,
        };
        if self.by_device && is_covered {
            self.by_device = false;
            self.by_host &= host != device;
            self.host = host;
        }
        is_right && self.is_kept(device)
    }

    fn is_kept(&self, device: u8) -> bool {
        self.device.is_none_or(|before| before == device)
    }
}
