//! Reads a component without compiling it: is it one, whose contract does it export, what does it import, and how large
//! does it grow when instantiated. All of this runs in the broker, so it is one linear walk over the bytes.

use std::collections::BTreeSet;

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, Instance as CoreInstance,
    Parser, Payload, Validator, WasmFeatures,
};

use crate::limits::FLATTENED_INSTANCES_MAX;
use crate::plugin::PluginError;
use crate::protocol::capability::Capability;

/// The contract this host speaks: patch versions of it are accepted.
pub const CONTRACT: &str = "hotbay:channel";
/// See [`CONTRACT`].
pub const CONTRACT_VERSION: &str = "0.1.0";

/// Interfaces of the inert WASI, by package; everything else of WASI is refused.
const WASI: [(&str, &[&str]); 5] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["types", "preopens"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["random", "insecure", "insecure-seed"]),
];

/// What a component says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The version of [`CONTRACT`] it was built against.
    pub contract_version: String,
    /// Names of its imports, as written.
    pub imports: Vec<String>,
    /// What it needs to be granted.
    pub needs: BTreeSet<Capability>,
    /// Core and component instances it amounts to.
    pub instances: u64,
    /// Linear memory it begins with, in bytes, over all its memories.
    pub memory_bytes: u64,
}

/// What a valid component of the contract says about itself, before its imports are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The version of [`CONTRACT`] it was built against.
    pub contract_version: String,
    /// Names of its imports, as written.
    pub imports: Vec<String>,
    /// Core and component instances it amounts to.
    pub instances: u64,
    /// Linear memory it begins with, in bytes, over all its memories.
    pub memory_bytes: u64,
}

/// Reads and judges a component. It does not look at grants: see [`Inspection::check_grants`].
///
/// # Errors
/// If it may never run here, whatever it is granted.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, PluginError> {
    recognise(bytes)?;
    let outline = Outline::of(bytes)?;
    let needs = outline.needs()?;
    let Outline { contract_version, imports, instances, memory_bytes } = outline;
    Ok(Inspection { contract_version, imports, needs, instances, memory_bytes })
}

/// Whether these bytes begin as a component does.
///
/// # Errors
/// Says what they are instead, as far as that is known.
pub fn recognise(bytes: &[u8]) -> Result<(), PluginError> {
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(PluginError::Precompiled);
    }
    match (Parser::is_component(bytes), Parser::is_core_wasm(bytes)) {
        (true, _) => Ok(()),
        (false, true) => Err(PluginError::CoreModule),
        (false, false) => Err(PluginError::NotWasm),
    }
}

impl Outline {
    /// Reads a component.
    ///
    /// # Errors
    /// If it grows too large, is not valid, or not of the contract.
    pub fn of(bytes: &[u8]) -> Result<Self, PluginError> {
        // The walk comes first: it is cheaper than validation, and validation of a bomb is not cheap.
        let walk = Walk::over(bytes)?;
        let Amount { instances, memory_bytes } = walk.amount;
        if instances > FLATTENED_INSTANCES_MAX {
            return Err(PluginError::TooManyInstances { instances, instances_max: FLATTENED_INSTANCES_MAX });
        }
        Validator::new_with_features(WasmFeatures::default())
            .validate_all(bytes)
            .map_err(|e| PluginError::Invalid { cause: e.to_string() })?;
        let contract_version = handler_version(&walk.exports)?;
        Ok(Self { contract_version, imports: walk.imports, instances, memory_bytes })
    }

    /// What it needs to be granted.
    ///
    /// # Errors
    /// If it imports what nobody can be granted: the first such import.
    pub fn needs(&self) -> Result<BTreeSet<Capability>, PluginError> {
        let needs = self.imports.iter().map(|import| needed(import, &self.contract_version));
        Ok(needs.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The import by which a capability is asked for.
    pub fn import_of(&self, capability: Capability) -> String {
        format!("{CONTRACT}/{}@{}", capability.as_str(), self.contract_version)
    }
}

impl Inspection {
    /// Checks that everything the component needs was granted.
    ///
    /// # Errors
    /// Names the first import that was not.
    pub fn check_grants(&self, grants: &BTreeSet<Capability>) -> Result<(), PluginError> {
        match self.needs.difference(grants).next() {
            None => Ok(()),
            Some(missing) => Err(PluginError::NotGranted {
                import: format!("{CONTRACT}/{}@{}", missing.as_str(), self.contract_version),
                granted: grants.iter().map(|grant| grant.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

/// `package/interface@version`, as imports and exports of components are named.
fn split(name: &str) -> Option<(&str, &str, &str)> {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let (package, interface) = path.split_once('/')?;
    Some((package, interface, version))
}

fn handler_version(exports: &[String]) -> Result<String, PluginError> {
    let version = exports.iter().find_map(|name| match split(name) {
        Some((CONTRACT, "handler", version)) => Some(version.to_owned()),
        _ => None,
    });
    let Some(version) = version else {
        return Err(PluginError::NoHandler { exports: exports.join(", ") });
    };
    if !same_minor(&version) {
        return Err(PluginError::ContractVersion { found: version, supported: CONTRACT_VERSION });
    }
    Ok(version)
}

/// Before 1.0, a minor version may break what was before.
fn same_minor(version: &str) -> bool {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    minor(version) == minor(CONTRACT_VERSION)
}

/// The capability an import needs, if it needs one.
fn needed(import: &str, contract_version: &str) -> Result<Option<Capability>, PluginError> {
    let never = || PluginError::NeverGranted { import: import.to_owned() };
    let (package, interface, version) = split(import).ok_or_else(never)?;
    if package == CONTRACT {
        if version != contract_version {
            return Err(PluginError::ContractVersion { found: version.to_owned(), supported: CONTRACT_VERSION });
        }
        if matches!(interface, "channel" | "types" | "handler") {
            return Ok(None);
        }
        let capability = Capability::ALL.into_iter().find(|capability| capability.as_str() == interface);
        return capability.map(Some).ok_or_else(never);
    }
    let inert = WASI.iter().any(|(known, interfaces)| *known == package && interfaces.contains(&interface));
    if inert && version.starts_with("0.2.") { Ok(None) } else { Err(never()) }
}

/// What the walk found.
struct Walk {
    imports: Vec<String>,
    exports: Vec<String>,
    amount: Amount,
    /// The most memory any module begins with, for modules whose own is not known.
    module_bytes_max: u64,
}

/// What something amounts to when it is instantiated.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    instances: u64,
    memory_bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.instances = self.instances.saturating_add(other.instances);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
    }

    fn and_one(self) -> Self {
        Self { instances: self.instances.saturating_add(1), ..self }
    }
}

/// One component within another: what each entry of its index spaces amounts to.
#[derive(Default)]
struct Scope {
    components: Vec<Amount>,
    /// Memory of the core modules, in bytes.
    modules: Vec<u64>,
    amount: Amount,
}

impl Walk {
    fn over(bytes: &[u8]) -> Result<Self, PluginError> {
        let mut walk =
            Self { imports: Vec::new(), exports: Vec::new(), amount: Amount::default(), module_bytes_max: 0 };
        let mut scopes = vec![Scope::default()];
        // A core module inside a component ends with an `End` of its own.
        let mut module: Option<u64> = None;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|e| invalid(&e))?;
            match (payload, module) {
                (Payload::ModuleSection { .. }, _) => module = Some(0),
                (Payload::MemorySection(section), Some(begun)) => module = Some(begun.saturating_add(memory(section)?)),
                (Payload::End(_), Some(bytes)) => {
                    walk.module_bytes_max = walk.module_bytes_max.max(bytes);
                    scopes.last_mut().ok_or_else(unknown)?.modules.push(bytes);
                    module = None;
                }
                (Payload::ComponentSection { .. }, _) => scopes.push(Scope::default()),
                (Payload::End(_), None) => {
                    let amount = scopes.pop().ok_or_else(unknown)?.amount;
                    match scopes.last_mut() {
                        Some(outer) => outer.components.push(amount),
                        None => walk.amount = amount,
                    }
                }
                (payload, None) => walk.section(&mut scopes, payload)?,
                (_, Some(_)) => {}
            }
        }
        Ok(walk)
    }

    /// A section of the innermost component.
    fn section(&mut self, scopes: &mut [Scope], payload: Payload<'_>) -> Result<(), PluginError> {
        let depth = scopes.len();
        let (scope, outer) = scopes.split_last_mut().ok_or_else(unknown)?;
        match payload {
            Payload::InstanceSection(section) => {
                for instance in section {
                    if let CoreInstance::Instantiate { module_index, .. } = instance.map_err(|e| invalid(&e))? {
                        let module = scope.modules.get(module_index as usize).copied().ok_or_else(unknown)?;
                        scope.amount.add(Amount { instances: 1, memory_bytes: module });
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance.map_err(|e| invalid(&e))? {
                        let inner = scope.components.get(component_index as usize).copied().ok_or_else(unknown)?;
                        scope.amount.add(inner.and_one());
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    match alias.map_err(|e| invalid(&e))? {
                        ComponentAlias::Outer { kind, count, index } => {
                            let at = depth.checked_sub(1 + count as usize).ok_or_else(unknown)?;
                            let from = outer.get(at).unwrap_or(scope);
                            let index = index as usize;
                            match kind {
                                ComponentOuterAliasKind::Component => {
                                    let amount = from.components.get(index).copied().ok_or_else(unknown)?;
                                    scope.components.push(amount);
                                }
                                ComponentOuterAliasKind::CoreModule => {
                                    let bytes = from.modules.get(index).copied().ok_or_else(unknown)?;
                                    scope.modules.push(bytes);
                                }
                                _ => {}
                            }
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                            return Err(unknown());
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Module, .. } => {
                            // One of those that came before.
                            scope.modules.push(self.module_bytes_max);
                        }
                        _ => {}
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.map_err(|e| invalid(&e))?;
                    match import.ty {
                        wasmparser::ComponentTypeRef::Component(_) => return Err(unknown()),
                        wasmparser::ComponentTypeRef::Module(_) => scope.modules.push(self.module_bytes_max),
                        _ => {}
                    }
                    if depth == 1 {
                        self.imports.push(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(|e| invalid(&e))?;
                    let index = export.index as usize;
                    match export.kind {
                        ComponentExternalKind::Component => {
                            let amount = scope.components.get(index).copied().ok_or_else(unknown)?;
                            scope.components.push(amount);
                        }
                        ComponentExternalKind::Module => {
                            let bytes = scope.modules.get(index).copied().ok_or_else(unknown)?;
                            scope.modules.push(bytes);
                        }
                        _ => {}
                    }
                    if depth == 1 {
                        self.exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Bytes that the memories of a module begin with.
fn memory(section: wasmparser::MemorySectionReader<'_>) -> Result<u64, PluginError> {
    const PAGE_SIZE_LOG2: u32 = 16;
    let mut bytes = 0_u64;
    for memory in section {
        let memory = memory.map_err(|e| invalid(&e))?;
        let page = 1_u64.checked_shl(memory.page_size_log2.unwrap_or(PAGE_SIZE_LOG2)).unwrap_or(u64::MAX);
        bytes = bytes.saturating_add(memory.initial.saturating_mul(page));
    }
    Ok(bytes)
}

fn invalid(error: &wasmparser::BinaryReaderError) -> PluginError {
    PluginError::Invalid { cause: error.to_string() }
}

fn unknown() -> PluginError {
    PluginError::Invalid { cause: "it instantiates components whose size is not known beforehand".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn walk(wat: &str) -> (u64, u64) {
        let Amount { instances, memory_bytes } = Walk::over(&wat::parse_str(wat).unwrap()).unwrap().amount;
        (instances, memory_bytes)
    }

    /// Law: what a component amounts to is known before it is compiled, however it is nested.
    #[test]
    fn instances_and_memories_are_counted_as_often_as_they_are_made() {
        assert_eq!(walk("(component (core module (memory 16)))"), (0, 0), "what is not instantiated takes nothing");
        assert_eq!(
            walk(
                "(component (core module $m (memory 16)) (core instance (instantiate $m)) (core instance (instantiate $m)))"
            ),
            (2, 2 * MIB)
        );
        let nested = "(component $a (core module $m (memory 32)) (core instance (instantiate $m)))";
        assert_eq!(
            walk(&format!("(component {nested} (instance (instantiate $a)) (instance (instantiate $a)))")),
            (4, 4 * MIB)
        );
        let outer = "(component (core module $m (memory 16)) (component $a (alias outer 1 $m (core module $n)) \
            (core instance (instantiate $n))) (instance (instantiate $a)))";
        assert_eq!(walk(outer), (2, MIB));
        let exported = "(component (core module $s) (core module $m (memory 16)) \
            (component $a (core module $m (memory 16)) (export \"m\" (core module $m))) \
            (instance $i (instantiate $a)) (alias export $i \"m\" (core module $x)) (core instance (instantiate $x)) \
            (core instance (instantiate $s)))";
        assert_eq!(walk(exported), (3, MIB));
        assert_eq!(walk("(component (core module $m (memory i64 1)) (core instance (instantiate $m)))"), (1, 64 << 10));
    }

    /// Law: no panic on outside input: what is not valid ends the walk or the validation after it.
    #[test]
    fn a_component_that_was_altered_anywhere_is_read_or_refused() {
        let wat = "(component (core module $m (memory 16)) (component $a (alias outer 1 $m (core module $n)) \
            (core instance (instantiate $n)) (export \"m\" (core module $n))) (instance $i (instantiate $a)) \
            (alias export $i \"m\" (core module $x)) (core instance (instantiate $x)))";
        let bytes = wat::parse_str(wat).unwrap();
        for at in 0..bytes.len() {
            drop(inspect(&bytes[..at]));
            for byte in [0, 1, 2, 0x7F, 0x80, 0xFF] {
                let mut altered = bytes.clone();
                altered[at] = byte;
                drop(inspect(&altered));
            }
        }
    }
}
