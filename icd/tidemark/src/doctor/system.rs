//! Checks of the kernel, the limits it sets, and its graphics devices.

use super::checklist::Checklist;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tidemark_winsys::Arena;
use tidemark_winsys::drm::{Absent, Objects, render_nodes};
use tidemark_winsys::kernel::Unsupported;
use tidemark_winsys::page_size;
use tidemark_winsys::tracker::{Compare, WriteProtect};

pub(super) fn check(list: &mut Checklist<impl Write>) {
    list.ok("kernel", &format!("Linux {}", value("/proc/sys/kernel/osrelease")));
    check_write_tracking(list);
    check_kernel_driver(list);
    list.ok("userfaultfd", &userfaultfd_rights());
    check_host_memory(list);
    list.ok("mappings", &format!("{} per process (vm.max_map_count)", value("/proc/sys/vm/max_map_count")));
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    list.ok("open files", &open_files(&limits).unwrap_or_else(|| "limit unknown".into()));
}

fn check_write_tracking(list: &mut Checklist<impl Write>) {
    const WHAT: &str = "write tracking";
    match WriteProtect::new() {
        Ok(_) => list.ok(WHAT, "userfaultfd WP_ASYNC and PAGEMAP_SCAN, as a trial shows"),
        Err(reason) => list.warn(
            WHAT,
            &format!("{reason}: all mapped pages are compared instead, which is slower"),
            advice(&reason),
        ),
    }
}

/// Whether host memory comes from the kernel driver of Tidemark's own contract.
fn check_kernel_driver(list: &mut Checklist<impl Write>) {
    const WHAT: &str = "kernel driver";
    match Objects::open(None) {
        Ok(objects) => {
            let (path, name) = (objects.path().display(), objects.name());
            list.ok(WHAT, &format!("{path} is used for host memory: {name} tracking, as a trial shows"));
        }
        Err(absent @ Absent::NoNode { .. }) => {
            list.ok(WHAT, &format!("{absent}: host memory is the stock kernel's"));
        }
        Err(absent) => list.warn(
            WHAT,
            &format!("{absent}: host memory is the stock kernel's"),
            "bring the kernel module up to date (kmd-uapi/module), or unload it",
        ),
    }
}

/// What to do about a kernel without write tracking.
fn advice(reason: &Unsupported) -> &'static str {
    match reason {
        Unsupported::Userfaultfd(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            "use a kernel with CONFIG_USERFAULTFD"
        }
        Unsupported::Userfaultfd(_) => "in a container allow userfaultfd(2) in its seccomp profile",
        Unsupported::WriteProtectAsync(_) => {
            "use Linux 6.7 or later with CONFIG_PTE_MARKER_UFFD_WP (x86-64 and arm64 have it)"
        }
        Unsupported::Pagemap(_) => "mount /proc, and let the process read its own pagemap",
        Unsupported::Trial(_) | Unsupported::Wrong => "report this kernel to the authors of Tidemark",
    }
}

/// Which ways lead to a userfaultfd that sees the kernel's own accesses. Lazy readback needs one, and nothing else does.
fn userfaultfd_rights() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ways = [
        (OpenOptions::new().read(true).write(true).open("/dev/userfaultfd").is_ok(), "/dev/userfaultfd"),
        (has_ptrace_capability(&status), "CAP_SYS_PTRACE"),
        (value("/proc/sys/vm/unprivileged_userfaultfd") == "1", "vm.unprivileged_userfaultfd"),
    ];
    let ways: Vec<&str> = ways.into_iter().filter_map(|(open, way)| open.then_some(way)).collect();
    if ways.is_empty() {
        "unprivileged, which is enough but for lazy readback".into()
    } else {
        format!("privileged, by {}, so that readback may be lazy", ways.join(", "))
    }
}

/// Whether `/proc/self/status` shows CAP_SYS_PTRACE among the effective capabilities.
fn has_ptrace_capability(status: &str) -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> CAP_SYS_PTRACE & 1 == 1)
}

fn check_host_memory(list: &mut Checklist<impl Write>) {
    const WHAT: &str = "host memory";
    // The driver's own way to make it, but for the tracker, which has a line of its own.
    match Arena::new(Arc::new(Compare)).allocate(page_size()) {
        Ok(_) => list.ok(WHAT, "shared memory, mapped twice"),
        Err(error) => list.fail(
            WHAT,
            &format!("cannot map shared memory twice: {error}"),
            "allow mmap(2) and mremap(2) in containers, and more address space (ulimit -v)",
        ),
    }
}

/// The limit on descriptors in `/proc/self/limits`.
fn open_files(limits: &str) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut fields = line.split_whitespace();
    let (soft, hard) = (fields.next()?, fields.next()?);
    Some(format!("{soft} per process, up to {hard} if it asks (RLIMIT_NOFILE)"))
}

/// A kernel setting; empty where there is none.
fn value(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The graphics devices that the kernel drives. A software driver needs none.
pub(super) fn check_render_nodes(list: &mut Checklist<impl Write>) {
    const WHAT: &str = "render node";
    let nodes = render_nodes();
    if nodes.is_empty() {
        list.ok(WHAT, "none, which leaves software drivers");
    }
    for node in nodes {
        let path = node.path.display();
        match node.driver {
            Ok(driver) => list.ok(WHAT, &format!("{path}: {driver}")),
            Err(error) => list.warn(
                WHAT,
                &format!("{path}: {error}"),
                "if it is a matter of permission, join the group that owns it (often \"render\" or \"video\")",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_bit_19_of_the_effective_set() {
        assert!(has_ptrace_capability("Name:\tx\nCapEff:\t0000000000080000\n"));
        assert!(!has_ptrace_capability("CapPrm:\tffffffffffffffff\nCapEff:\tfffffffffff7ffff\n"));
        assert!(!has_ptrace_capability(""));
    }

    #[test]
    fn both_limits_are_shown() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits).unwrap(), "1024 per process, up to 524288 if it asks (RLIMIT_NOFILE)");
        assert_eq!(open_files(""), None);
    }
}
