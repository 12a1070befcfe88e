//! Types and glue made from `wit/`. The field documentation is in the `.wit` files.

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    imports: {
        "hotbay:channel/kv.get": async | trappable,
        "hotbay:channel/kv.scan": async | trappable,
        "hotbay:channel/log.read": async | trappable,
        "hotbay:channel/log.replace": async | trappable,
        "hotbay:channel/sql.query": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    // What goes into a plugin is lent, not copied first.
    ownership: Borrowing { duplicate_if_necessary: true },
});
