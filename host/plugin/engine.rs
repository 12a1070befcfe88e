//! The WebAssembly engine: what it allows, how it allocates, and the clock that interrupts busy plugins.

use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::limits::{MountLimits, NodeLimits, SHADOWS_MAX};
use crate::plugin::PluginError;

/// How often a running plugin is interrupted to yield and to have its time checked.
pub const TICK: Duration = Duration::from_millis(1);

/// Core instances, tables and memories a component may have. A Rust component for `wasm32-wasip2` has one memory
/// and a few core instances: itself and the shims that link it. JavaScript by componentize-qjs has two memories, Python by
/// componentize-py 38 core instances: the interpreter is linked from several libraries.
const CORE_INSTANCES_PER_COMPONENT: u32 = 64;
const TABLES_PER_COMPONENT: u32 = 8;
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLE_ELEMENTS: usize = 20_000;
/// What the runtime may need for one core instance and for all of a component's, in bytes. It is allocated as needed, not beforehand: some
/// 60 KB for Rust, 410 KB for Python, whose interpreter has thousands of functions.
const CORE_INSTANCE_BYTES: usize = 512 << 10;
const COMPONENT_INSTANCE_BYTES: usize = 1 << 20;
/// Slots beside those of awake channels: for the pure functions (`route`, `refused`), for instances on their way out or taking another
/// one's place, and for those that run beside another one for comparison.
const SPARE_INSTANCES: usize = 256 + SHADOWS_MAX;

/// Settings that decide what compiled code looks like. The compile worker and the broker must agree on
/// them, or the broker refuses the artifact.
fn code_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // The same floats on every machine, so that a recorded channel replays bit for bit.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .wasm_tail_call(true)
        .generate_address_map(true)
        .max_wasm_stack(512 << 10)
        .memory_init_cow(true)
        // A whole 32-bit address space for each memory: no bounds checks in compiled code.
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .memory_may_move(false);
    config
}

/// The engine of the compile worker: it never runs code, so it reserves no memory.
pub(super) fn for_compiling() -> Result<Engine, PluginError> {
    Engine::new(&code_config()).map_err(|e| PluginError::engine(&e))
}

/// The engine of the broker. It never compiles: it only loads artifacts of the compile worker.
pub(super) fn for_running(limits: &NodeLimits, memory_bytes_max: usize) -> Result<Engine, PluginError> {
    pooled(u32::try_from(limits.channels_awake_max + SPARE_INSTANCES).unwrap_or(u32::MAX), memory_bytes_max)
}

/// The engine of a process in which a plugin is tried out: like the broker's, with room for a few instances.
pub(super) fn for_trying(memory_bytes_max: usize) -> Result<Engine, PluginError> {
    const INSTANCES: u32 = 16;
    pooled(INSTANCES, memory_bytes_max)
}

fn pooled(instances: u32, memory_bytes_max: usize) -> Result<Engine, PluginError> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(4))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_core_instance_size(CORE_INSTANCE_BYTES)
        .max_component_instance_size(COMPONENT_INSTANCE_BYTES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(memory_bytes_max)
        // Slots that were used by a version stay mapped for it, but only a few of them.
        .max_unused_warm_slots(64)
        .linear_memory_keep_resident(0)
        .table_keep_resident(0)
        .async_stack_keep_resident(0);
    let mut config = code_config();
    config
        .async_stack_size(1 << 20)
        // A stack goes back to the pool without its pages: they would stay for ever, with what was on them.
        .async_stack_zeroing(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config).map_err(|e| PluginError::engine(&e))?;
    start_ticker(&engine)?;
    Ok(engine)
}

/// Memory mappings the process may need for its awake channels: four for an instance and two for its stack.
pub fn mappings_needed(limits: &NodeLimits) -> usize {
    6 * (limits.channels_awake_max + SPARE_INSTANCES)
}

/// The largest linear memory any mount allows, and so the size of the pool's slots.
pub(super) fn memory_slot_bytes<'a>(limits: impl Iterator<Item = &'a MountLimits>) -> usize {
    limits.map(|limits| limits.memory_bytes_max).max().unwrap_or(MountLimits::default().memory_bytes_max)
}

/// Advances the epoch once a tick, from a thread of its own, so that no plugin can hold the clock up. The thread ends
/// when the engine is gone.
fn start_ticker(engine: &Engine) -> Result<(), PluginError> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("hotbay-epoch".into())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .map(drop)
        .map_err(|e| PluginError::Engine { cause: e.to_string() })
}
