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
}

/// Reads and judges a component. It does not look at grants: see [`Inspection::check_grants`].
///
/// # Errors
/// If it may never run here, whatever it is granted.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, PluginError> {
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(PluginError::Precompiled);
    }
    if !Parser::is_component(bytes) {
        return Err(if Parser::is_core_wasm(bytes) { PluginError::CoreModule } else { PluginError::NotWasm });
    }
    // The walk comes first: it is cheaper than validation, and validation of a bomb is not cheap.
    let walk = Walk::over(bytes)?;
    if walk.instances > FLATTENED_INSTANCES_MAX {
        return Err(PluginError::TooManyInstances {
            instances: walk.instances,
            instances_max: FLATTENED_INSTANCES_MAX,
        });
    }
    Validator::new_with_features(WasmFeatures::default())
        .validate_all(bytes)
        .map_err(|e| PluginError::Invalid { cause: e.to_string() })?;
    let contract_version = handler_version(&walk.exports)?;
    let mut needs = BTreeSet::new();
    for import in &walk.imports {
        if let Some(capability) = needed(import, &contract_version)? {
            needs.insert(capability);
        }
    }
    Ok(Inspection { contract_version, imports: walk.imports, needs, instances: walk.instances })
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
    instances: u64,
}

/// One component within another: what each entry of its component index space amounts to when instantiated.
#[derive(Default)]
struct Scope {
    components: Vec<u64>,
    instances: u64,
}

impl Walk {
    fn over(bytes: &[u8]) -> Result<Self, PluginError> {
        let mut walk = Self { imports: Vec::new(), exports: Vec::new(), instances: 0 };
        let mut scopes = vec![Scope::default()];
        // Core modules inside a component end with an `End` of their own.
        let mut modules = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|e| invalid(&e))?;
            let depth = scopes.len();
            let Some(scope) = scopes.last_mut() else { break };
            match payload {
                Payload::ModuleSection { .. } => modules += 1,
                Payload::End(_) if modules > 0 => modules -= 1,
                Payload::ComponentSection { .. } => scopes.push(Scope::default()),
                Payload::End(_) => {
                    let amount = scope.instances;
                    scopes.pop();
                    match scopes.last_mut() {
                        Some(outer) => outer.components.push(amount),
                        None => walk.instances = amount,
                    }
                }
                Payload::InstanceSection(section) => {
                    for instance in section {
                        let one = matches!(instance.map_err(|e| invalid(&e))?, CoreInstance::Instantiate { .. });
                        scope.instances = scope.instances.saturating_add(u64::from(one));
                    }
                }
                Payload::ComponentInstanceSection(section) => {
                    for instance in section {
                        if let ComponentInstance::Instantiate { component_index, .. } =
                            instance.map_err(|e| invalid(&e))?
                        {
                            let inner = scope.components.get(component_index as usize).copied().ok_or_else(unknown)?;
                            scope.instances = scope.instances.saturating_add(1).saturating_add(inner);
                        }
                    }
                }
                Payload::ComponentAliasSection(section) => {
                    for alias in section {
                        match alias.map_err(|e| invalid(&e))? {
                            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                                let outer = depth.checked_sub(1 + count as usize).ok_or_else(unknown)?;
                                let amount =
                                    scopes[outer].components.get(index as usize).copied().ok_or_else(unknown)?;
                                scopes[depth - 1].components.push(amount);
                            }
                            ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                                return Err(unknown());
                            }
                            _ => {}
                        }
                    }
                }
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        let import = import.map_err(|e| invalid(&e))?;
                        if matches!(import.ty, wasmparser::ComponentTypeRef::Component(_)) {
                            return Err(unknown());
                        }
                        if depth == 1 {
                            walk.imports.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        let export = export.map_err(|e| invalid(&e))?;
                        if export.kind == ComponentExternalKind::Component {
                            let amount = scope.components.get(export.index as usize).copied().ok_or_else(unknown)?;
                            scope.components.push(amount);
                        }
                        if depth == 1 {
                            walk.exports.push(export.name.name.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(walk)
    }
}

fn invalid(error: &wasmparser::BinaryReaderError) -> PluginError {
    PluginError::Invalid { cause: error.to_string() }
}

fn unknown() -> PluginError {
    PluginError::Invalid { cause: "it instantiates components whose size is not known beforehand".into() }
}
