//! What wit-bindgen makes of `wit/`. Authors see none of it: the crate re-exports the types under plain names.
#![allow(clippy::pedantic, missing_docs, unreachable_pub, unsafe_code, reason = "generated code")]

wit_bindgen::generate!({
    path: "../../wit",
    world: "plugin",
    pub_export_macro: true,
    export_macro_name: "export_handler",
    additional_derives: [Clone, PartialEq],
    generate_unused_types: true,
});
