//! No command leads to device memory unseen: vk.xml names every command there is, and each that names a buffer in a
//! command buffer, or tells memory types, is intercepted, belongs to extensions that are hidden, or is listed here with
//! the reason why it need not be followed. A newer vk.xml with a new door breaks this test, not an application.
//!
//! `VK_XML` names another vk.xml than the one of Debian's libvulkan-dev.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use vk_parse::{
    Command, ExtensionChild, InterfaceItem, RegistryChild, TypeMember, TypeMemberMarkup, TypeSpec, TypesChild,
};
use vulkan_tidemark::audit;

/// Commands that name a buffer and are passed through, because.
const PASSED_THROUGH: [(&str, &str); 13] = [
    ("vkCmdPipelineBarrier", BARRIER),
    ("vkCmdPipelineBarrier2", BARRIER),
    ("vkCmdPipelineBarrier2KHR", BARRIER),
    ("vkCmdSetEvent2", BARRIER),
    ("vkCmdSetEvent2KHR", BARRIER),
    ("vkCmdWaitEvents", BARRIER),
    ("vkCmdWaitEvents2", BARRIER),
    ("vkCmdWaitEvents2KHR", BARRIER),
    ("vkCmdBindDescriptorBuffersEXT", BY_ADDRESS),
    ("vkCmdBuildAccelerationStructuresIndirectKHR", BY_ADDRESS),
    ("vkCmdCopyAccelerationStructureToMemoryKHR", BY_ADDRESS),
    ("vkCmdCopyMemoryToAccelerationStructureKHR", BY_ADDRESS),
    ("vkCmdTraceRaysIndirectKHR", BY_ADDRESS),
];
const BARRIER: &str = "a barrier orders accesses and makes none";
const BY_ADDRESS: &str =
    "buffers with such usage are reachable by address, so that every batch counts as using them";

/// A command: the types of its parameters, and the ways to get it, each a list of extensions that must be there.
struct Known {
    types: Vec<String>,
    ways: Vec<Vec<String>>,
}

impl Known {
    /// Whether each way to get it leads through a hidden extension.
    fn is_hidden(&self, hidden: &[&str]) -> bool {
        let is_closed = |way: &Vec<String>| way.iter().any(|name| hidden.contains(&name.as_str()));
        !self.ways.is_empty() && self.ways.iter().all(is_closed)
    }
}

struct Registry {
    commands: HashMap<String, Known>,
    /// Types of a structure's members, and of the structures that extend it.
    members: HashMap<String, Vec<String>>,
}

impl Registry {
    fn load() -> Self {
        let path =
            std::env::var_os("VK_XML").map_or("/usr/share/vulkan/registry/vk.xml".into(), PathBuf::from);
        let (registry, _) = vk_parse::parse_file(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error:?}: run tests/setup", path.display()));
        let mut this = Self { commands: HashMap::new(), members: HashMap::new() };
        let mut aliases = Vec::new();
        for child in registry.0 {
            match child {
                RegistryChild::Types(types) => {
                    types.children.into_iter().for_each(|child| this.add_type(child))
                }
                RegistryChild::Commands(commands) => {
                    for command in commands.children {
                        match command {
                            Command::Alias { name, alias } => aliases.push((name, alias)),
                            Command::Definition(command) => {
                                let types = command.params.into_iter();
                                let types = types.filter_map(|param| param.definition.type_name).collect();
                                let known = Known { types, ways: Vec::new() };
                                this.commands.insert(command.proto.name, known);
                            }
                            _ => {}
                        }
                    }
                }
                RegistryChild::Extensions(extensions) => {
                    for (name, alias) in std::mem::take(&mut aliases) {
                        if let Some(types) = this.commands.get(&alias).map(|known| known.types.clone()) {
                            this.commands.insert(name, Known { types, ways: Vec::new() });
                        }
                    }
                    for extension in extensions.children {
                        for (command, besides) in commands_of(&extension.children) {
                            if let Some(known) = this.commands.get_mut(command) {
                                let names = besides.into_iter().map(str::to_owned);
                                known.ways.push(names.chain([extension.name.clone()]).collect());
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        assert!(this.commands.len() > 500, "{}: too few commands", path.display());
        this
    }

    fn add_type(&mut self, child: TypesChild) {
        let TypesChild::Type(definition) = child else { return };
        let Some(name) = definition.name else { return };
        for base in definition.structextends.iter().flat_map(|names| names.split(',')) {
            self.members.entry(base.to_owned()).or_default().push(name.clone());
        }
        let TypeSpec::Members(members) = definition.spec else { return };
        let types = members.into_iter().flat_map(|member| match member {
            TypeMember::Definition(definition) => definition.markup,
            _ => Vec::new(),
        });
        let types = types.filter_map(|markup| match markup {
            TypeMemberMarkup::Type(name) => Some(name),
            _ => None,
        });
        self.members.entry(name).or_default().extend(types);
    }

    /// Whether a value of type `from` leads to one of type `to`.
    fn leads(&self, from: &str, to: &str, seen: &mut HashSet<String>) -> bool {
        from == to
            || seen.insert(from.to_owned())
                && self
                    .members
                    .get(from)
                    .is_some_and(|types| types.iter().any(|name| self.leads(name, to, seen)))
    }

    /// Commands of which nobody has said how they are dealt with, among those that `is_meant`.
    fn unclassified(&self, to: &str, is_meant: impl Fn(&str) -> bool) -> Vec<&str> {
        let intercepted = audit::intercepted();
        let hidden = audit::hidden_extensions();
        let mut unclassified: Vec<&str> = self
            .commands
            .iter()
            .filter(|(name, known)| {
                is_meant(name)
                    && known.types.iter().any(|from| self.leads(from, to, &mut HashSet::new()))
                    && !intercepted.contains(&name.as_str())
                    && !PASSED_THROUGH.iter().any(|(passed, _)| passed == name)
                    && !known.is_hidden(&hidden)
            })
            .map(|(name, _)| name.as_str())
            .collect();
        unclassified.sort_unstable();
        unclassified
    }
}

/// The commands of an extension, each with the extensions that must be there besides.
fn commands_of(children: &[ExtensionChild]) -> Vec<(&str, Vec<&str>)> {
    let mut commands = Vec::new();
    for child in children {
        let ExtensionChild::Require { items, extension, depends, .. } = child else { continue };
        let besides = [extension, depends].into_iter().flatten();
        let besides: Vec<&str> = besides
            .flat_map(|names| names.split([',', '+', '(', ')']))
            .filter(|name| !name.is_empty())
            .collect();
        for item in items {
            if let InterfaceItem::Command { name, .. } = item {
                commands.push((name.as_str(), besides.clone()));
            }
        }
    }
    commands
}

#[test]
fn every_command_that_names_a_buffer_is_accounted_for() {
    let registry = Registry::load();
    let recorded = |name: &str| name.starts_with("vkCmd");
    assert_eq!(registry.unclassified("VkBuffer", recorded), Vec::<&str>::new());
}

#[test]
fn every_source_of_memory_type_bits_is_accounted_for() {
    let registry = Registry::load();
    for answer in ["VkMemoryRequirements", "VkMemoryRequirements2", "VkMemoryFdPropertiesKHR"] {
        assert_eq!(registry.unclassified(answer, |_| true), Vec::<&str>::new(), "{answer}");
    }
}

/// The negative control: without what Tidemark intercepts, these tests have something to say.
#[test]
fn the_audit_sees_the_doors() {
    let registry = Registry::load();
    let leads = |name: &str, to| {
        registry.commands[name].types.iter().any(|from| registry.leads(from, to, &mut HashSet::new()))
    };
    assert!(leads("vkCmdCopyBuffer2KHR", "VkBuffer"));
    assert!(leads("vkCmdPushDescriptorSetKHR", "VkBuffer"));
    assert!(!leads("vkCmdDraw", "VkBuffer"));
    assert!(leads("vkGetImageMemoryRequirements2", "VkMemoryRequirements"));
}
