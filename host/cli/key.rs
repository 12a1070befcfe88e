//! `hotbay key`: API keys of application servers and of operators. Works on the data folder, whether or not a broker runs on it; with
//! `--broker`, it asks that broker.

use clap::{Args, Subcommand};

use super::remote::key as remote;
use super::{ConfigArgs, Failure, made_anew, output};
use crate::config::Environment;
use crate::limits::CATALOG_ROWS_MAX;
use crate::protocol::name::check_part;
use crate::registry::{Actor, create_key, revoke_key};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// Whoever may write to the data folder does this; nobody else can say who that is.
const ACTOR: &str = "hotbay key";

/// Makes, lists and revokes API keys
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
    remote: remote::Elsewhere,
    #[command(flatten)]
    which: Which,
    /// It may administer the broker, too: everything, of all tenants
    #[arg(long)]
    operator: bool,
}

/// Names a key
#[derive(Debug, Args)]
struct Which {
    /// Its name, unique within the tenant; plugins see it as the source of what is published
    #[arg(long)]
    name: String,
    /// The tenant it is of
    #[arg(long, default_value = "default")]
    tenant: String,
}

/// Lists the keys that were not revoked
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    remote: remote::Elsewhere,
}

/// Revokes a key, at once
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    remote: remote::Elsewhere,
    #[command(flatten)]
    which: Which,
}

impl Key {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::Create(Create { remote, which, operator, .. }) if remote.is_meant() => {
                remote.create(environment, &which.tenant, &which.name, operator)
            }
            Self::List(List { remote, .. }) if remote.is_meant() => remote.list(environment),
            Self::Revoke(Revoke { remote, which, .. }) if remote.is_meant() => {
                remote.revoke(environment, &which.tenant, &which.name)
            }
            here => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(Failure::other)?.block_on(here.run_here(environment))
            }
        }
    }

    async fn run_here(self, environment: &Environment) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(environment).await,
            Self::List(list) => list.run(environment).await,
            Self::Revoke(revoke) => revoke.run(environment).await,
        }
    }
}

async fn open(config: ConfigArgs, environment: &Environment) -> Result<SqliteStore, Failure> {
    let path = config.load(environment)?.data_dir.join("hotbay.db");
    let is_new = !path.exists();
    let store = SqliteStore::open(&path).await.map_err(Failure::other)?;
    if is_new {
        made_anew("data", &path, "key");
    }
    Ok(store)
}

impl Create {
    async fn run(self, environment: &Environment) -> Result<(), Failure> {
        let Which { name, tenant } = self.which;
        check_part("tenant", &tenant).map_err(|e| Failure::usage(format!("--tenant: {e}")))?;
        check_part("key", &name).map_err(|e| Failure::usage(format!("--name: {e}")))?;
        let store = open(self.config, environment).await?;
        let made = create_key(store.catalog(), &Actor::new(ACTOR), &tenant, &name, self.operator).await;
        store.close().await.map_err(Failure::other)?;
        output::line(made.map_err(Failure::other)?.secret);
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
                output::line(remote::listed(&key.tenant, &key.name, key.created_ms, key.operator));
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
        let revoked = revoke_key(store.catalog(), &Actor::new(ACTOR), &tenant, &name).await;
        store.close().await.map_err(Failure::other)?;
        revoked.map_err(Failure::other)
    }
}
