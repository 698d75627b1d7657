//! The C header and its Rust mirror are one contract: a C compiler tells the layout of the one, and it must be that of
//! the other. The compiler is also asked whether the header has padding that nobody named.

use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use tidemark_kmd_uapi::tidemark_drm::*;

/// Lines that name a thing and its numbers, as Rust has them, and the C program that prints them as C has them.
#[derive(Default)]
struct Contract {
    rust: String,
    c: String,
}

impl Contract {
    fn line(&mut self, name: &str, numbers: &[u64], c: &str) {
        let numbers: String = numbers.iter().map(|number| format!(" {number:#x}")).collect();
        self.rust += &format!("{name}{numbers}\n");
        self.c += &format!("\t{c}\n");
    }
}

/// The offset and size of every field.
macro_rules! structures {
    ($contract:ident: $($rust:ident $c:ident { $($field:ident)* })*) => {$(
        let whole = $rust::default();
        $contract.line(stringify!($c), &[size_of_val(&whole) as u64], concat!("SIZE(", stringify!($c), ");"));
        // No field is missing here: they fill the structure.
        let mut end = 0;
        $(
            let (offset, size) = (offset_of!($rust, $field), size_of_val(&whole.$field));
            assert_eq!(offset, end, "a gap before {}.{}", stringify!($rust), stringify!($field));
            end = offset + size;
            $contract.line(
                concat!(stringify!($c), ".", stringify!($field)),
                &[offset as u64, size as u64],
                concat!("FIELD(", stringify!($c), ", ", stringify!($field), ");"),
            );
        )*
        assert_eq!(end, size_of_val(&whole), "fields missing at the end of {}", stringify!($rust));
    )*};
}

macro_rules! constants {
    ($contract:ident: $prefix:literal $($name:ident)*) => {$(
        $contract.line(
            concat!($prefix, stringify!($name)),
            &[u64::from($name)],
            concat!("CONSTANT(", $prefix, stringify!($name), ");"),
        );
    )*};
}

fn contract() -> Contract {
    let mut contract = Contract::default();
    structures! { contract:
        Query drm_tidemark_query { param pad value }
        ObjectCreate drm_tidemark_object_create { size flags placement tracking handle }
        ObjectUser drm_tidemark_object_user { address size flags handle }
        ObjectInfo drm_tidemark_object_info { handle pad size placement tracking system_size device_size }
        MmapOffset drm_tidemark_mmap_offset { handle flags offset }
        SetTracking drm_tidemark_set_tracking { handle tracking }
        CollectObject drm_tidemark_collect_object { handle pad offset size }
        Range drm_tidemark_range { offset size object pad }
        Collect drm_tidemark_collect {
            objects ranges object_count range_capacity range_count next_object next_offset flags pad
        }
        Place drm_tidemark_place { handle placement }
        Transfer drm_tidemark_transfer { handle flags offset size address }
        Region drm_tidemark_region { src_offset dst_offset size }
        Sync drm_tidemark_sync { handle flags point }
        Copy drm_tidemark_copy {
            src dst regions wait_syncs signal_syncs region_count wait_count signal_count flags
        }
        Wait drm_tidemark_wait { handle flags timeout_ns }
        Counters drm_tidemark_counters {
            handle pad faults write_faults walks scanned_pages collected_pages pages_to_device pages_to_system
            invalidations
        }
    }
    constants! { contract: "DRM_TIDEMARK_"
        UAPI_VERSION
        PARAM_VERSION PARAM_CAPS PARAM_PAGE_SIZE PARAM_MAX_OBJECT_SIZE PARAM_DEVICE_MEMORY PARAM_MAX_ELEMENTS PARAM_MAX_COPY_SIZE
        CAP_MKWRITE CAP_DIRTY_BITS CAP_DEVICE_MEMORY CAP_USER_OBJECTS CAP_COPY
        PLACEMENT_SYSTEM PLACEMENT_DEVICE
        TRACKING_NONE TRACKING_MKWRITE TRACKING_DIRTY_BITS
        USER_READ_ONLY USER_UNSYNCHRONIZED
        MMAP_UNTRACKED
        SYNC_TIMELINE
        WAIT_READERS
    }
    contract
}

fn ioctls() -> Contract {
    let mut contract = Contract::default();
    macro_rules! opcodes {
        ($($rust:ident $c:ident)*) => {$(
            contract.line(stringify!($c), &[u64::from($rust)], concat!("CONSTANT(", stringify!($c), ");"));
        )*};
    }
    opcodes! {
        IOCTL_QUERY DRM_IOCTL_TIDEMARK_QUERY
        IOCTL_OBJECT_CREATE DRM_IOCTL_TIDEMARK_OBJECT_CREATE
        IOCTL_OBJECT_USER DRM_IOCTL_TIDEMARK_OBJECT_USER
        IOCTL_OBJECT_INFO DRM_IOCTL_TIDEMARK_OBJECT_INFO
        IOCTL_MMAP_OFFSET DRM_IOCTL_TIDEMARK_MMAP_OFFSET
        IOCTL_SET_TRACKING DRM_IOCTL_TIDEMARK_SET_TRACKING
        IOCTL_COLLECT DRM_IOCTL_TIDEMARK_COLLECT
        IOCTL_PLACE DRM_IOCTL_TIDEMARK_PLACE
        IOCTL_READ DRM_IOCTL_TIDEMARK_READ
        IOCTL_WRITE DRM_IOCTL_TIDEMARK_WRITE
        IOCTL_COPY DRM_IOCTL_TIDEMARK_COPY
        IOCTL_WAIT DRM_IOCTL_TIDEMARK_WAIT
        IOCTL_COUNTERS DRM_IOCTL_TIDEMARK_COUNTERS
    }
    contract
}

const PRELUDE: &str = r##"
#include <stddef.h>
#include <stdio.h>
#include "tidemark_drm.h"

#define SIZE(s) printf(#s " %#zx\n", sizeof(struct s))
/* %#zx of zero has no prefix. */
#define FIELD(s, f) printf(#s "." #f " 0x%zx 0x%zx\n", offsetof(struct s, f), sizeof(((struct s *)0)->f))
#define CONSTANT(c) printf(#c " 0x%llx\n", (unsigned long long)(c))

"##;

#[test]
fn the_mirror_has_the_layout_of_the_header() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("header.c"), folder.join("header"));
    let (Contract { rust, c }, opcodes) = (contract(), ioctls());
    let body = [c, opcodes.c].concat();
    fs::write(&source, format!("{PRELUDE}int main(void)\n{{\n{body}\treturn 0;\n}}\n")).unwrap();

    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpadded", "-Wpedantic", "-Werror"])
        .args(["-isystem", "/usr/include/libdrm", "-I"])
        .arg(&include)
        .arg("-o")
        .args([&program, &source])
        .output()
        .expect("cc is not installed: run tests/setup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let output = Command::new(&program).output().unwrap();
    let c = String::from_utf8(output.stdout).unwrap();
    assert_same(&[rust, opcodes.rust].concat(), &c);

    // And nothing in the header is left out here.
    let header = fs::read_to_string(include.join("tidemark_drm.h")).unwrap();
    for line in header.lines() {
        let mut words = line.split_whitespace();
        let name = match (words.next(), words.next(), words.next()) {
            (Some("#define"), Some(name), Some(_)) if !name.ends_with("_H_") => name,
            (Some("struct"), Some(name), Some("{")) => name,
            _ => continue,
        };
        // The numbers of the ioctls are part of the opcodes.
        let number = line.contains("\t0x");
        assert!(
            number || c.lines().any(|known| known.split(' ').next() == Some(name)),
            "no mirror of {name}"
        );
    }
}

fn assert_same(rust: &str, c: &str) {
    for (rust, c) in rust.lines().zip(c.lines()) {
        assert_eq!(rust, c, "left: the mirror, right: the header");
    }
    assert_eq!(rust.lines().count(), c.lines().count());
}
