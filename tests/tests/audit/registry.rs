//! vk.xml: which commands and structures there are, what they lead to, and whether an application can get at them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use vk_parse::{
    Command, EnumSpec, EnumsChild, Extension, ExtensionChild, InterfaceItem, RegistryChild, Type,
    TypeCodeMarkup, TypeMember, TypeMemberDefinition, TypeMemberMarkup, TypeSpec, TypesChild,
};
use vulkan_tidemark::audit;

/// What a member or argument that tells or takes memory types leads to, besides its own type, which is a plain number.
pub const MEMORY_TYPE: &str = "memory types";
/// Names of such.
const MEMORY_TYPE_MEMBERS: [&str; 3] = ["memoryTypeBits", "memoryTypeIndex", "memoryTypes"];

/// What nobody follows through a pointer to `void`: chains have their own structures, and the other is handed back.
const NO_HOST_MEMORY: [&str; 2] = ["pNext", "pUserData"];

/// Systems that Tidemark does not run on, as the registry names their platforms.
const FOREIGN: [&str; 11] =
    ["android", "fuchsia", "ggp", "ios", "macos", "metal", "ohos", "sci", "screen", "vi", "win32"];

/// Members of a structure: name, offset and size in bytes.
type Members = Vec<(String, usize, usize)>;

pub struct Registry {
    /// VK_HEADER_VERSION.
    pub version: u32,
    /// Commands that an application can get, on a device with emulated memory.
    pub commands: BTreeSet<String>,
    /// Structures likewise, with those that each extends.
    pub structures: BTreeMap<String, Vec<String>>,
    /// Bits of flags likewise, with the enumeration that each belongs to.
    pub bits: BTreeMap<String, String>,
    /// Names of all commands, structures and members of structures there are.
    pub known: HashSet<String>,
    /// Extensions that are not hidden, but need one that is.
    pub left_alone: Vec<String>,
    /// Types of a command's arguments or a structure's members, and of the structures that extend it.
    members: BTreeMap<String, Vec<String>>,
    /// Structures' members in order, each with its type, or `None` for a pointer.
    ordered: BTreeMap<String, Vec<(String, Option<String>)>>,
    /// Names of all extensions there are.
    pub extensions: HashSet<String>,
    aliases: BTreeMap<String, String>,
    /// Structures by their VkStructureType.
    tags: BTreeMap<String, String>,
}

impl Registry {
    pub fn load() -> Self {
        Self::without(&audit::hidden_extensions())
    }

    /// As it is for applications that do not see extensions that are `hidden`.
    pub fn without(hidden: &[&str]) -> Self {
        let path =
            std::env::var_os("VK_XML").map_or("/usr/share/vulkan/registry/vk.xml".into(), PathBuf::from);
        let (registry, _) = vk_parse::parse_file(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error:?}: run tests/setup", path.display()));
        let mut this = Self {
            version: 0,
            commands: BTreeSet::new(),
            structures: BTreeMap::new(),
            bits: BTreeMap::new(),
            known: HashSet::new(),
            left_alone: Vec::new(),
            members: BTreeMap::new(),
            ordered: BTreeMap::new(),
            extensions: HashSet::new(),
            aliases: BTreeMap::new(),
            tags: BTreeMap::new(),
        };
        let mut structures = BTreeMap::new();
        let (mut required, mut extensions) = (HashSet::new(), BTreeMap::new());
        for child in registry.0 {
            match child {
                RegistryChild::Types(types) => {
                    types.children.into_iter().for_each(|child| this.add_type(child, &mut structures));
                }
                RegistryChild::Commands(commands) => {
                    commands.children.into_iter().for_each(|command| this.add_command(command));
                }
                RegistryChild::Enums(enums) => {
                    let of = enums.name.unwrap_or_default();
                    let bits = enums.children.into_iter().filter_map(|child| match child {
                        EnumsChild::Enum(bit) if matches!(bit.spec, EnumSpec::Bitpos { .. }) => {
                            Some(bit.name)
                        }
                        _ => None,
                    });
                    this.bits.extend(bits.map(|bit| (bit, of.clone())));
                }
                RegistryChild::Feature(feature) if is_vulkan(Some(&feature.api)) => {
                    this.add_items(required_by(&feature.children, &|_| true), &mut required);
                }
                RegistryChild::Extensions(all) => {
                    extensions.extend(all.children.into_iter().map(|one| (one.name.clone(), one)));
                }
                _ => {}
            }
        }
        this.extensions = extensions.keys().cloned().collect();
        let extensions = Extensions { all: extensions, hidden };
        for (name, extension) in &extensions.all {
            if extensions.is_there(name) {
                let is_there = |name: &str| extensions.is_there(name);
                this.add_items(required_by(&extension.children, &is_there), &mut required);
            } else if !hidden.contains(&name.as_str()) && is_for_here(extension) {
                this.left_alone.push(name.clone());
            }
        }
        this.commands = required.iter().filter(|name| name.starts_with("vk")).cloned().collect();
        this.structures = structures.into_iter().filter(|(name, _)| required.contains(name)).collect();
        assert!(this.known.len() > 1000 && this.version > 0, "{}: too little in it", path.display());
        this
    }

    fn add_type(&mut self, child: TypesChild, structures: &mut BTreeMap<String, Vec<String>>) {
        let TypesChild::Type(definition) = child else { return };
        if !is_vulkan(definition.api.as_deref()) {
            return;
        }
        self.find_version(&definition);
        let Some(name) = definition.name else { return };
        if let Some(alias) = definition.alias {
            self.aliases.insert(name, alias);
            return;
        }
        let extended = definition.structextends.iter().flat_map(|names| names.split(','));
        let extended: Vec<String> = extended.map(str::to_owned).collect();
        for base in &extended {
            self.members.entry(base.clone()).or_default().push(name.clone());
        }
        let TypeSpec::Members(members) = definition.spec else { return };
        self.known.insert(name.clone());
        for member in members {
            let TypeMember::Definition(member) = member else { continue };
            if let Some(tag) = member.values.clone().filter(|values| values.starts_with("VK_STRUCTURE_TYPE_"))
            {
                self.tags.insert(tag, name.clone());
            }
            let is_pointer = member.code.contains('*');
            if let Some((member, of)) = name_and_type(&member).filter(|_| is_vulkan(member.api.as_deref())) {
                self.known.insert(member.to_owned());
                self.add_member(&name, member, of);
                let ordered = self.ordered.entry(name.clone()).or_default();
                ordered.push((member.to_owned(), (!is_pointer).then(|| of.to_owned())));
            }
        }
        structures.insert(name, extended);
    }

    fn add_command(&mut self, command: Command) {
        match command {
            Command::Alias { name, alias } => {
                self.known.insert(name.clone());
                self.aliases.insert(name, alias);
            }
            Command::Definition(command) if is_vulkan(command.api.as_deref()) => {
                let name = command.proto.name;
                self.known.insert(name.clone());
                for argument in command.params.iter().filter(|argument| is_vulkan(argument.api.as_deref())) {
                    let definition = &argument.definition;
                    let of = definition.type_name.as_deref().unwrap_or_default();
                    self.add_member(&name, &definition.name, of);
                }
            }
            _ => {}
        }
    }

    fn add_member(&mut self, holder: &str, name: &str, of: &str) {
        let to = self.members.entry(holder.to_owned()).or_default();
        if !(of == "void" && NO_HOST_MEMORY.contains(&name)) {
            to.push(of.to_owned());
        }
        if MEMORY_TYPE_MEMBERS.contains(&name) {
            to.push(MEMORY_TYPE.to_owned());
        }
    }

    /// Commands and structures go to `required`, for now by name alone.
    fn add_items<'a>(
        &mut self,
        items: impl Iterator<Item = &'a InterfaceItem>,
        required: &mut HashSet<String>,
    ) {
        for item in items {
            match item {
                InterfaceItem::Command { name, .. } | InterfaceItem::Type { name, .. } => {
                    required.insert(name.clone());
                }
                InterfaceItem::Enum(bit) => {
                    if let EnumSpec::Bitpos { extends: Some(of), .. } = &bit.spec {
                        self.bits.insert(bit.name.clone(), of.clone());
                    }
                }
                _ => {}
            }
        }
    }

    fn find_version(&mut self, definition: &Type) {
        if let TypeSpec::Code(code) = &definition.spec
            && code.markup == [TypeCodeMarkup::Name("VK_HEADER_VERSION".into())]
            && let Some(version) = code.code.split_whitespace().last()
        {
            self.version = version.parse().unwrap_or_else(|_| panic!("no version: {}", code.code));
        }
    }

    /// The name that the registry describes a command or structure by.
    pub fn described<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, |alias| self.described(alias))
    }

    /// Whether a command or structure leads to something of type `to`.
    pub fn leads(&self, from: &str, to: &str) -> bool {
        self.leads_beyond(from, to, &mut HashSet::new())
    }

    fn leads_beyond(&self, from: &str, to: &str, seen: &mut HashSet<String>) -> bool {
        let from = self.described(from);
        from == to
            || seen.insert(from.to_owned())
                && self
                    .members
                    .get(from)
                    .is_some_and(|types| types.iter().any(|name| self.leads_beyond(name, to, seen)))
    }

    /// The size of a structure on 64-bit machines, and of its members beyond sType and pNext the names, offsets and sizes.
    pub fn layout(&self, name: &str) -> Option<(usize, Members)> {
        let members = self.ordered.get(name)?;
        let (mut end, mut laid_out) = (0usize, Vec::new());
        for (member, of) in members {
            let size = match of.as_deref() {
                None | Some("VkDeviceSize" | "uint64_t" | "size_t") => 8,
                Some("VkBool32" | "uint32_t" | "int32_t" | "float" | "VkStructureType") => 4,
                Some(other) => panic!("{name}: the size of {other} is not known here"),
            };
            let offset = end.next_multiple_of(size);
            end = offset + size;
            laid_out.push((member.clone(), offset, size));
        }
        // All of them start with a pointer.
        Some((end.next_multiple_of(8), laid_out.split_off(2)))
    }

    /// The structure with this VkStructureType.
    pub fn tagged(&self, tag: &str) -> Option<&str> {
        self.tags.get(tag).map(String::as_str)
    }
}

/// Whether an `api` attribute includes Vulkan itself, and not Vulkan SC alone.
fn is_vulkan(api: Option<&str>) -> bool {
    api.is_none_or(|names| names.split(',').any(|name| name == "vulkan"))
}

fn is_for_here(extension: &Extension) -> bool {
    let platform = extension.platform.as_deref().unwrap_or_default();
    extension.supported.as_deref().is_some_and(|names| is_vulkan(Some(names))) && !FOREIGN.contains(&platform)
}

fn name_and_type(member: &TypeMemberDefinition) -> Option<(&str, &str)> {
    let name = member.markup.iter().find_map(|markup| match markup {
        TypeMemberMarkup::Name(name) => Some(&**name),
        _ => None,
    });
    let of = member.markup.iter().find_map(|markup| match markup {
        TypeMemberMarkup::Type(name) => Some(&**name),
        _ => None,
    });
    name.zip(of)
}

/// What a version or extension brings, given which extensions are there.
fn required_by<'a>(
    children: &'a [ExtensionChild],
    is_there: &dyn Fn(&str) -> bool,
) -> impl Iterator<Item = &'a InterfaceItem> {
    children.iter().flat_map(move |child| match child {
        ExtensionChild::Require { api, items, extension, depends, .. }
            if is_vulkan(api.as_deref())
                && [extension, depends].into_iter().flatten().all(|needs| is_met(needs, is_there)) =>
        {
            &**items
        }
        _ => &[],
    })
}

struct Extensions<'a> {
    all: BTreeMap<String, Extension>,
    hidden: &'a [&'a str],
}

impl Extensions<'_> {
    /// Whether an extension may be there for an application. What is no extension (a version, a feature) is.
    fn is_there(&self, name: &str) -> bool {
        let Some(extension) = self.all.get(name) else { return true };
        // Registries up to 1.3.240 list what is needed with commas, where later ones have an expression.
        let listed = extension.requires.iter().flat_map(|names| names.split(','));
        !self.hidden.contains(&name)
            && is_for_here(extension)
            && listed.into_iter().all(|name| self.is_there(name))
            && extension.depends.iter().all(|needs| is_met(needs, &|name| self.is_there(name)))
    }
}

/// Whether `needs`, names joined by `+` for "and" and `,` for "or" with parentheses, is met by what is there.
pub fn is_met(needs: &str, is_there: &dyn Fn(&str) -> bool) -> bool {
    let mut rest = needs;
    let met = alternatives(&mut rest, is_there);
    assert!(rest.is_empty(), "{needs}: not understood from {rest:?} on");
    met
}

/// Both operators bind alike, from left to right.
fn alternatives(rest: &mut &str, is_there: &dyn Fn(&str) -> bool) -> bool {
    let mut met = operand(rest, is_there);
    while let Some(operator @ (',' | '+')) = rest.chars().next() {
        *rest = &rest[1..];
        let other = operand(rest, is_there);
        met = if operator == ',' { met || other } else { met && other };
    }
    met
}

fn operand(rest: &mut &str, is_there: &dyn Fn(&str) -> bool) -> bool {
    if let Some(inside) = rest.strip_prefix('(') {
        *rest = inside;
        let met = alternatives(rest, is_there);
        *rest = rest.strip_prefix(')').unwrap_or_else(|| panic!("no closing parenthesis: {rest:?}"));
        return met;
    }
    let (name, after) = rest.split_at(rest.find([',', '+', '(', ')']).unwrap_or(rest.len()));
    *rest = after;
    is_there(name)
}
