//! No command leads to host memory unseen.
//!
//! vk.xml names every command, structure and flag there is. Each that has to do with memory, submission, waiting, memory
//! types or host pointers is intercepted, belongs to extensions or features that are hidden or to another system, or
//! stands in `doors` with the reason why it need not be followed. A newer vk.xml with a new door breaks this test, not
//! an application.
//!
//! The registry is that of Debian's libvulkan-dev, which tests/setup installs. Another one, a newer one above all, is
//! held against Tidemark by `VK_XML=path/to/vk.xml cargo test -p tidemark-tests --test audit`.

mod doors;
mod registry;

use doors::{Table, Why};
use registry::{MEMORY_TYPE, Registry, is_met};
use std::collections::HashSet;
use vulkan_tidemark::audit;

/// Commands that lead to one of these are doors: where bytes are, who moves them, who tells that they were moved, which
/// memory types there are, and pointers to anything.
const DOORS: [&str; 10] = [
    "VkBuffer",
    "VkDeviceMemory",
    MEMORY_TYPE,
    "VkQueue",
    "VkFence",
    "VkSemaphore",
    "VkEvent",
    "VkSwapchainKHR",
    "VkDeferredOperationKHR",
    "void",
];

/// So are commands with one of these in their names, whatever they lead to.
const VERBS: [&str; 10] =
    ["Allocate", "Bind", "Export", "HostPointer", "Idle", "Import", "MapMemory", "Signal", "Submit", "Wait"];

/// So are structures that extend one of these.
const EXTENDED: [&str; 12] = [
    "VkMemoryAllocateInfo",
    "VkBufferCreateInfo",
    "VkImageCreateInfo",
    "VkBindBufferMemoryInfo",
    "VkBindImageMemoryInfo",
    "VkBindSparseInfo",
    "VkSubmitInfo",
    "VkSubmitInfo2",
    "VkMemoryMapInfo",
    "VkMemoryUnmapInfo",
    "VkMappedMemoryRange",
    "VkPhysicalDeviceMemoryProperties2",
];

/// So are bits of these.
const FLAGS: [&str; 9] = [
    "VkBufferCreateFlagBits",
    "VkDeviceQueueCreateFlagBits",
    "VkHostImageCopyFlagBits",
    "VkMemoryAllocateFlagBits",
    "VkMemoryMapFlagBits",
    "VkMemoryPropertyFlagBits",
    "VkMemoryUnmapFlagBits",
    "VkSemaphoreWaitFlagBits",
    "VkSubmitFlagBits",
];

/// The doors among the commands, each with what makes it one.
fn command_doors(registry: &Registry) -> impl Iterator<Item = (&str, &'static str)> {
    registry.commands.iter().filter_map(|name| {
        let leads = DOORS.iter().find(|door| registry.leads(name, door));
        Some((&**name, *leads.or_else(|| VERBS.iter().find(|verb| name.contains(**verb)))?))
    })
}

/// The doors among the structures.
fn structure_doors(registry: &Registry) -> impl Iterator<Item = &str> {
    let extends = |bases: &[String]| bases.iter().any(|base| EXTENDED.contains(&registry.described(base)));
    registry.structures.iter().filter(move |(_, bases)| extends(bases)).map(|(name, _)| &**name)
}

/// The doors among the bits.
fn bit_doors(registry: &Registry) -> impl Iterator<Item = &str> {
    let is_door = |of: &str| FLAGS.contains(&registry.described(of));
    registry.bits.iter().filter(move |(_, of)| is_door(of)).map(|(name, _)| &**name)
}

/// Whether the table has the name, or another name of the same.
fn is_listed(registry: &Registry, table: &Table, name: &str) -> bool {
    let mut listed = table.iter().flat_map(|(_, names)| *names);
    listed.any(|listed| registry.described(listed) == registry.described(name))
}

/// Structures that leave an allocation private to its device.
fn private_allocations(registry: &Registry) -> Vec<&str> {
    let tags = audit::private_allocations().iter().map(|tag| format!("VK_STRUCTURE_TYPE_{tag:?}"));
    tags.filter_map(|tag| registry.tagged(&tag)).collect()
}

#[test]
fn every_command_is_accounted_for() {
    let registry = Registry::load();
    let intercepted = audit::intercepted();
    let unaccounted: Vec<_> = command_doors(&registry)
        .filter(|(name, _)| !intercepted.contains(name) && !is_listed(&registry, doors::COMMANDS, name))
        .collect();
    assert!(unaccounted.is_empty(), "commands, and what makes each a door: {unaccounted:#?}");
}

#[test]
fn every_structure_is_accounted_for() {
    let registry = Registry::load();
    let private = private_allocations(&registry);
    let unaccounted: Vec<_> = structure_doors(&registry)
        .filter(|name| !private.contains(name) && !is_listed(&registry, doors::STRUCTURES, name))
        .collect();
    assert!(unaccounted.is_empty(), "{unaccounted:#?}");
}

#[test]
fn every_bit_is_accounted_for() {
    let registry = Registry::load();
    let unaccounted: Vec<_> =
        bit_doors(&registry).filter(|name| !is_listed(&registry, doors::BITS, name)).collect();
    assert!(unaccounted.is_empty(), "{unaccounted:#?}");
}

#[test]
fn no_row_is_stale() {
    let registry = Registry::load();
    let (intercepted, hidden) = (audit::intercepted(), audit::hidden_features());
    let private = private_allocations(&registry);
    let doors: HashSet<&str> = command_doors(&registry)
        .map(|(name, _)| name)
        .chain(structure_doors(&registry))
        .chain(bit_doors(&registry))
        .map(|name| registry.described(name))
        .collect();
    let mut seen = HashSet::new();
    for (why, names) in doors::COMMANDS.iter().chain(doors::STRUCTURES).chain(doors::BITS) {
        match why {
            Why::Because(reason) => assert!(!reason.is_empty()),
            Why::Hidden(feature) => assert!(hidden.contains(feature), "{feature} is not hidden"),
        }
        for name in *names {
            assert!(!intercepted.contains(name), "{name} is intercepted");
            assert!(!private.contains(name), "{name} leaves an allocation private");
            assert!(seen.insert(registry.described(name)), "{name} stands there twice");
            if registry.version >= doors::VERSION {
                assert!(
                    doors.contains(registry.described(name)),
                    "{name} is no door, is hidden, or does not exist"
                );
            }
        }
    }
}

#[test]
fn what_is_intercepted_and_hidden_exists() {
    let registry = Registry::load();
    if registry.version >= doors::VERSION {
        let unknown = |name: &&str| !registry.known.contains(*name);
        let commands = audit::intercepted().into_iter().filter(unknown);
        let features = audit::hidden_features().into_iter().filter(unknown);
        assert_eq!(commands.chain(features).collect::<Vec<_>>(), Vec::<&str>::new());
    }
    let private = private_allocations(&registry);
    assert_eq!(private.len(), audit::private_allocations().len(), "only {private:?} are known");
    assert!(private.iter().all(|name| registry.structures[*name] == ["VkMemoryAllocateInfo"]), "{private:?}");
}

/// Structures that are declared by hand are those of the registry, as a compiler lays them out.
#[test]
fn what_is_declared_by_hand_is_as_described() {
    let registry = Registry::load();
    for declared in audit::declared_structures() {
        let Some(described) = registry.layout(declared.name) else {
            assert!(registry.version < doors::VERSION, "{} does not exist", declared.name);
            continue;
        };
        let members: Vec<_> = declared
            .members
            .iter()
            .map(|(name, offset, size)| ((*name).to_owned(), *offset, *size))
            .collect();
        assert_eq!((declared.size, members), described, "{}", declared.name);
    }
}

/// What Tidemark offers exists, and is not hidden.
#[test]
fn what_is_offered_exists() {
    let registry = Registry::load();
    let hidden = audit::hidden_extensions();
    for name in audit::offered_extensions() {
        assert!(!hidden.contains(&name), "{name} is hidden");
        let is_known = registry.extensions.contains(name);
        assert!(is_known || registry.version < doors::VERSION, "{name} does not exist");
    }
}

/// Applications that see an extension may count on what it needs.
#[test]
fn what_needs_something_hidden_is_hidden() {
    assert_eq!(Registry::load().left_alone, Vec::<String>::new());
}

/// The negative control: without what Tidemark intercepts and hides, these tests have something to say.
#[test]
fn the_audit_sees_the_doors() {
    let registry = Registry::load();
    for (name, to) in [
        ("vkCmdCopyBuffer2KHR", "VkBuffer"),
        ("vkCmdPushDescriptorSetKHR", "VkBuffer"),
        ("vkGetImageMemoryRequirements2", MEMORY_TYPE),
        ("vkGetPhysicalDeviceMemoryProperties", MEMORY_TYPE),
        ("vkAllocateMemory", MEMORY_TYPE),
        ("vkMapMemory", "void"),
        ("vkResetFences", "VkDeviceMemory"),
        ("vkCreateImage", "VkSwapchainKHR"),
    ] {
        assert_eq!(registry.leads(name, to), name != "vkResetFences", "{name} to {to}");
    }
    assert!(!registry.leads("vkCmdDraw", "VkBuffer") && !registry.leads("vkDestroyImage", "void"));
    let doors: Vec<&str> = command_doors(&registry).map(|(name, _)| name).collect();
    let all = Registry::without(&[]);
    let hidden: Vec<&str> =
        command_doors(&all).map(|(name, _)| name).filter(|name| !doors.contains(name)).collect();
    assert!(
        doors.contains(&"vkDeviceWaitIdle") && hidden.contains(&"vkCmdDrawMeshTasksIndirectNV"),
        "{hidden:?}"
    );
    // Another system's.
    assert!(!all.commands.contains("vkGetMemoryWin32HandleKHR") && all.commands.contains("vkGetMemoryFdKHR"));
}

#[test]
fn what_an_extension_needs_is_understood() {
    let is_there = |name: &str| name.starts_with('A');
    for (needs, met) in [
        ("A", true),
        ("B", false),
        ("B,A", true),
        ("A+B", false),
        ("(A+B),A2", true),
        ("A,B+B2", false),
        ("A,(B+B2)", true),
        ("((B,A)+(A2,B2)),B3", true),
    ] {
        assert_eq!(is_met(needs, &is_there), met, "{needs}");
    }
}
