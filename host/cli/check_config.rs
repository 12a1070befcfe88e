//! `hotbay check-config`: validates the configuration without starting or writing anything.

use std::fmt::{self, Write};

use clap::Args;

use super::{ConfigArgs, Failure, output};
use crate::auth::AuthMode;
use crate::config::{Config, Environment, KeyMaterial, Mount};
use crate::datasource::Location;
use crate::plugin::inspect;

/// Checks the configuration and prints what it amounts to
#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    #[command(flatten)]
    config: ConfigArgs,
}

impl CheckConfig {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let config = self.config.load(environment)?;
        for warning in &config.warnings {
            output::aside(format_args!("warning: {warning}"));
        }
        check_grants(&config)?;
        let mut text = String::new();
        summarize(&config, &mut text).map_err(Failure::other)?;
        output::text(text);
        Ok(())
    }
}

/// Whether the plugins that are there would be loaded with what they are granted.
fn check_grants(config: &Config) -> Result<(), Failure> {
    for (name, plugin) in &config.plugins {
        let Ok(component) = std::fs::read(&plugin.path) else { continue };
        let refused = |why: &str| Failure::other(format!("plugin.{name}: {}: {why}", plugin.path.display()));
        let inspection = inspect::inspect(&component).map_err(|error| refused(&error.to_string()))?;
        let missing: Vec<_> =
            inspection.needs.iter().filter(|need| !plugin.grants.contains(need)).map(|need| need.as_str()).collect();
        if !missing.is_empty() {
            return Err(refused(&format!("needs {}: add that to its grants", missing.join(", "))));
        }
    }
    Ok(())
}

fn summarize(config: &Config, out: &mut String) -> fmt::Result {
    writeln!(out, "{}: ok", config.file.display())?;
    writeln!(
        out,
        "listen {}, data in {}{}",
        config.listen,
        config.data_dir.display(),
        if config.development { ", development" } else { "" }
    )?;
    for (name, key) in &config.keys {
        let source = match &key.material {
            KeyMaterial::Secret(_) => "secret set".to_owned(),
            KeyMaterial::Development(path) if path.exists() => format!("random secret in {}", path.display()),
            KeyMaterial::Development(path) => {
                format!("random secret, to be made in {} at the first start", path.display())
            }
            KeyMaterial::Public(_) => "public key".to_owned(),
        };
        writeln!(out, "key {name}: {}, {source}", key.algorithm.as_str())?;
    }
    for (name, plugin) in &config.plugins {
        let grants: Vec<_> = plugin.grants.iter().map(|grant| grant.as_str()).collect();
        let missing = if plugin.path.exists() { "" } else { " (no such file yet)" };
        let path = plugin.path.display();
        writeln!(
            out,
            "plugin {name}: {path}{missing}, grants: {}",
            if grants.is_empty() { "none".to_owned() } else { grants.join(", ") }
        )?;
    }
    for datasource in &config.datasources {
        let place = match &datasource.location {
            Location::Sqlite { path, .. } => format!("SQLite file {}", path.display()),
            Location::Postgres(_) => "Postgres".to_owned(),
        };
        let statements: Vec<_> = datasource.statements.keys().map(String::as_str).collect();
        writeln!(out, "datasource {}: {place}, statements: {}", datasource.name, statements.join(", "))?;
    }
    config.mounts.iter().try_for_each(|mount| summarize_mount(mount, out))
}

fn summarize_mount(mount: &Mount, out: &mut String) -> fmt::Result {
    let auth = match mount.auth.mode {
        AuthMode::None => "no auth".to_owned(),
        AuthMode::Jwt => {
            let tokens: Vec<_> = mount.auth.sources.iter().map(ToString::to_string).collect();
            format!("tokens from {} by key {}", tokens.join(", "), mount.auth.keys.join(", "))
        }
    };
    writeln!(out, "mount {}: {} -> {}, {auth}", mount.name, mount.paths, mount.plugin)?;
    let query = &mount.required_query;
    if !query.all.is_empty() {
        writeln!(out, "  query with {}", query.all.join(" and "))?;
    }
    if !query.any.is_empty() {
        writeln!(out, "  query with {}", query.any.join(" or "))?;
    }
    if let Some(channel) = &mount.channel {
        writeln!(out, "  joins {channel}")?;
    }
    for channel in &mount.auto_join {
        writeln!(out, "  joins {channel} (passively)")?;
    }
    for (name, statement) in &mount.statements {
        writeln!(out, "  statement {name}: {statement}")?;
    }
    if mount.route {
        writeln!(out, "  routes frames to many channels")?;
    }
    for route in &mount.http {
        let methods: Vec<_> = route.methods.iter().map(|method| method.as_str()).collect();
        let below = if route.path == "/" { "" } else { &route.path };
        let base = mount.http_path.as_ref().map_or_else(|| mount.paths.to_string(), ToString::to_string);
        writeln!(out, "  {} {base}{below} -> {}", methods.join(", "), route.channel)?;
    }
    Ok(())
}
