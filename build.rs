//! Embeds the demo pages' scripts, which `make web` bundles into `host/web/dist`. Without them the broker builds all the same, and the
//! pages say what is missing. And has the host built anew when a migration comes.

#![allow(clippy::expect_used, reason = "a build ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts by variables")]

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

/// The scripts, one for each page that has one.
const SCRIPTS: [&str; 4] = ["metrics.js", "widgets.js", "events.js", "drafts.js"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=host/web/dist");
    // The store embeds them, which cargo would not see.
    println!("cargo:rerun-if-changed=migrations");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let count = SCRIPTS.len();
    let mut code = format!("const SCRIPTS: [(&str, Option<&str>); {count}] = [");
    for name in SCRIPTS {
        let file = Path::new(&root).join("host/web/dist").join(name);
        let text = if file.exists() {
            format!("Some(include_str!({:?}))", file.display().to_string())
        } else {
            "None".to_owned()
        };
        write!(code, "({name:?}, {text}),").expect("a string takes it");
    }
    code.push_str("];\n");
    fs::write(Path::new(&out).join("scripts.rs"), code).expect("the folder cargo made");
}
