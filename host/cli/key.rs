//! `hotbay key`: API keys of application servers. Works on the data folder, whether or not a broker runs on it.

use clap::{Args, Subcommand};
use rand::Rng as _;
use sha2::{Digest, Sha256};

use super::{ConfigArgs, Failure};
use crate::config::Environment;
use crate::limits::CATALOG_ROWS_MAX;
use crate::protocol::name::check_part;
use crate::store::catalog::{AuditEntry, Change};
use crate::store::sqlite::SqliteStore;
use crate::store::{ApiKey, Store};
use crate::telemetry::wall_ms;

/// Makes, lists and revokes API keys for publishing
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Makes a key and prints it, once: only its hash is stored
#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    which: Which,
}

/// Names a key
#[derive(Debug, Args)]
struct Which {
    /// Its name, unique within the tenant; plugins see it as the source of what is published
    #[arg(long)]
    name: String,
    /// The tenant it publishes for
    #[arg(long, default_value = "default")]
    tenant: String,
}

/// Lists the keys that were not revoked
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Revokes a key, at once
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    which: Which,
}

impl Key {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::other)?;
        runtime.block_on(async {
            match self {
                Self::Create(create) => create.run(environment).await,
                Self::List(list) => list.run(environment).await,
                Self::Revoke(revoke) => revoke.run(environment).await,
            }
        })
    }
}

async fn open(config: ConfigArgs, environment: &Environment) -> Result<SqliteStore, Failure> {
    let config = config.load(environment)?;
    SqliteStore::open(&config.data_dir.join("hotbay.db")).await.map_err(Failure::other)
}

/// Whoever may write to the data folder did this; nobody else can say who that is.
fn audited(action: &str, tenant: &str, name: &str) -> AuditEntry {
    AuditEntry {
        at_ms: wall_ms(),
        actor: "hotbay key".to_owned(),
        tenant: tenant.to_owned(),
        action: action.to_owned(),
        subject: format!("key/{name}"),
        reason: None,
        detail: "{}".to_owned(),
    }
}

impl Create {
    async fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Which { name, tenant } = self.which;
        check_part("tenant", &tenant).map_err(|e| Failure::usage(format!("--tenant: {e}")))?;
        check_part("key", &name).map_err(|e| Failure::usage(format!("--name: {e}")))?;
        let store = open(self.config, environment).await?;
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = format!("hb_{}", hex::encode(secret));
        let hash = Sha256::digest(secret.as_bytes()).into();
        let audit = audited("key.create", &tenant, &name);
        let key = ApiKey { tenant, name, hash, created_ms: wall_ms(), operator: false };
        let taken = format!(
            "the tenant {:?} has a key {:?} already; revoke it first, or take another name",
            key.tenant, key.name
        );
        let made = store.catalog().change(vec![Change::InsertKey(key)], Some(audit)).await.map_err(Failure::other)?;
        store.close().await.map_err(Failure::other)?;
        if made.is_none() {
            return Err(Failure::other(taken));
        }
        println!("{secret}");
        Ok(())
    }
}

impl List {
    async fn run(self, environment: &Environment) -> Result<(), Failure> {
        let store = open(self.config, environment).await?;
        let mut after = None;
        loop {
            let page = store.catalog().keys(None, after.as_ref(), CATALOG_ROWS_MAX).await.map_err(Failure::other)?;
            for key in page.rows {
                println!("{}\t{}\tcreated_ms {}", key.tenant, key.name, key.created_ms);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        store.close().await.map_err(Failure::other)
    }
}

impl Revoke {
    async fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Which { name, tenant } = self.which;
        let store = open(self.config, environment).await?;
        let revoke = Change::RevokeKey { tenant: tenant.clone(), name: name.clone() };
        let audit = audited("key.revoke", &tenant, &name);
        let revoked = store.catalog().change(vec![revoke], Some(audit)).await.map_err(Failure::other)?;
        store.close().await.map_err(Failure::other)?;
        if revoked.is_some() {
            Ok(())
        } else {
            Err(Failure::other(format!("the tenant {tenant:?} has no key {name:?}")))
        }
    }
}
