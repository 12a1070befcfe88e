//! Checks of datasources and of the statements that mounts grant. What the database itself would say is found when it is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Check;
use super::limits::DURATION_MS_MAX;
use crate::config::mount::MountSettings;
use crate::config::tree::KeyPath;
use crate::datasource::{
    BATCH_KEYS_MAX, DatasourceConfig, DatasourceSettings, Location, ParameterType, StatementSettings,
};
use crate::limits::SQL_ANSWER_BYTES_MAX;

/// Largest file with SQL, in bytes.
const SQL_FILE_BYTES_MAX: u64 = 1 << 20;
/// Stands for the data folder in the path of a SQLite file.
const DATA_DIR: &str = "{data_dir}";

const KEY_TYPES: &str = "takes the first parameter for the key: parameters must begin with \"text\", \"integer\", \"tenant\" or \"channel\"";

impl Check<'_> {
    pub(super) fn datasources(
        &mut self,
        settings: BTreeMap<String, DatasourceSettings>,
        data_dir: &Path,
        development: bool,
    ) -> Vec<DatasourceConfig> {
        let mut datasources = Vec::new();
        for (name, mut datasource) in settings {
            let path = KeyPath::new(["datasource", &name]);
            if datasource.connections_max == 0 || datasource.connections_max > 1_000 {
                self.refuse(&path.key("connections_max"), "must be 1 to 1,000");
            }
            for (statement, settings) in &mut datasource.statements {
                let path = path.key("statement").key(statement);
                self.statement(settings, &path);
            }
            if let Some(location) = self.location(&datasource, &path, data_dir, development) {
                let DatasourceSettings { connections_max, statements, .. } = datasource;
                datasources.push(DatasourceConfig { name, location, connections_max, statements });
            }
        }
        datasources
    }

    fn location(
        &mut self,
        settings: &DatasourceSettings,
        path: &KeyPath,
        data_dir: &Path,
        development: bool,
    ) -> Option<Location> {
        // What is wrong with a URL is said of its table: the URL, which may hold a password, is not shown.
        let from_environment = settings.url_env.iter().find_map(|name| self.environment.get(name));
        let Some(url) = from_environment.or(settings.url.as_deref()).map(str::to_owned) else {
            let reason = match &*settings.url_env {
                [] => "needs url: sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE, or url_env".to_owned(),
                names => format!("there is no address: set {}, or url", names.join(" or ")),
            };
            self.refuse(path, reason);
            return None;
        };
        let create_from: Vec<PathBuf> = settings
            .create_from
            .iter()
            .enumerate()
            .map(|(index, file)| self.resolve(file, &path.key("create_from").index(index)))
            .collect();
        if !create_from.is_empty() && !development {
            self.refuse(&path.key("create_from"), "makes a database only with development = true");
        }
        if let Some(file) = url.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file);
            if file.is_empty() {
                self.refuse(path, "url must name a file: sqlite:PATH");
                return None;
            }
            let file = match file.strip_prefix(DATA_DIR) {
                Some(rest) => data_dir.join(rest.trim_start_matches('/')),
                None if from_environment.is_some() => PathBuf::from(file),
                None => self.resolve(Path::new(file), &path.key("url")),
            };
            return Some(Location::Sqlite { path: file, create_from });
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // A demo may have both: what makes its SQLite file has no meaning for a server from the environment.
            if !create_from.is_empty() && from_environment.is_none() {
                self.refuse(&path.key("create_from"), "makes SQLite files only");
            }
            return Some(Location::Postgres(url));
        }
        self.refuse(path, "url must begin with sqlite: or postgres://");
        None
    }

    fn statement(&mut self, settings: &mut StatementSettings, path: &KeyPath) {
        let positive = [
            ("batch_keys_max", settings.batch_keys_max),
            ("rows_max", settings.rows_max),
            ("bytes_max", settings.bytes_max),
        ];
        for (key, value) in positive {
            if value == 0 {
                self.refuse(&path.key(key), "must be at least 1");
            }
        }
        if settings.bytes_max > SQL_ANSWER_BYTES_MAX {
            self.refuse(&path.key("bytes_max"), format!("must be at most {SQL_ANSWER_BYTES_MAX}"));
        }
        if settings.batch_keys_max > BATCH_KEYS_MAX {
            self.refuse(&path.key("batch_keys_max"), format!("must be at most {BATCH_KEYS_MAX}"));
        }
        if settings.timeout_ms == 0 || settings.timeout_ms > DURATION_MS_MAX {
            self.refuse(&path.key("timeout_ms"), format!("must be 1 to {DURATION_MS_MAX}, a year"));
        }
        if settings.batch_wait_ms > 1_000 {
            self.refuse(&path.key("batch_wait_ms"), "must be at most 1,000: every call waits for it");
        }
        match (&settings.sql_file, settings.sql.is_empty()) {
            (None, true) => return self.refuse(path, "needs sql, or sql_file"),
            (Some(_), false) => return self.refuse(&path.key("sql_file"), "stands beside sql: use one of them"),
            (Some(file), true) => {
                let key = path.key("sql_file");
                let file = self.resolve(file, &key);
                match read(&file) {
                    Ok(text) => settings.sql = text,
                    Err(reason) => {
                        return self.refuse(&key, format!("{} cannot be read: {reason}", file.display()));
                    }
                }
            }
            (None, false) => {}
        }
        if let Err(error) = settings.parse() {
            let key = if settings.sql_file.is_some() { "sql_file" } else { "sql" };
            self.refuse(&path.key(key), error.to_string());
        }
        let is_key = |first: &ParameterType| {
            matches!(first, ParameterType::Text | ParameterType::Integer) || first.is_bound_by_host()
        };
        if settings.batch_key.is_some() && !settings.parameters.first().is_some_and(is_key) {
            self.refuse(&path.key("batch_key"), KEY_TYPES);
        }
    }

    /// What mounts grant must be there, and their plugin must be able to use it.
    pub(super) fn granted_statements(&mut self, mount: &MountSettings, path: &KeyPath) {
        for (name, target) in &mount.statements {
            let key = path.key("statements").key(name);
            let known = target.split_once('.').is_some_and(|(datasource, statement)| {
                let statements = KeyPath::new(["datasource", datasource, "statement"]);
                self.tree.get(&statements).is_some_and(|node| node.keys().any(|known| known == statement))
            });
            if !known {
                self.refuse(&key, "must name a statement as DATASOURCE.STATEMENT, for one under [datasource.DATASOURCE.statement.STATEMENT]");
            }
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    match std::fs::metadata(file) {
        Ok(found) if found.len() > SQL_FILE_BYTES_MAX => Err(format!("it is larger than {SQL_FILE_BYTES_MAX} bytes")),
        _ => std::fs::read_to_string(file).map_err(|error| error.to_string()),
    }
}
