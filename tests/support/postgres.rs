//! A PostgreSQL server of a test's own, reached by a socket in its folder: no port, no password, gone afterwards.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;

use super::client::DEADLINE;

/// A running server. Ended when dropped.
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    /// PostgreSQL refuses to run as root.
    user: Option<(u32, u32)>,
    running: Option<Child>,
}

impl Postgres {
    /// Starts a server with an empty database.
    pub async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let user = rustix::process::geteuid().is_root().then(|| account("postgres"));
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("chown");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut server = Self { programs: programs(), folder, user, running: None };
        let made = server
            .command("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(server.data())
            .output()
            .expect("initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.resume().await;
        server
    }

    /// Starts it again after [`Postgres::stop`].
    pub async fn resume(&mut self) {
        let mut command = self.command("postgres");
        let folder = self.folder.path().display().to_string();
        command.arg("-D").arg(self.data()).args(["-k", &folder, "-c", "listen_addresses=", "-c", "fsync=off"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("postgres");
        self.running = Some(child);
        let started = Instant::now();
        while let Err(error) = self.try_connect().await {
            assert!(started.elapsed() < DEADLINE, "postgres does not start: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it at once; connections break.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("a signal");
            child.wait().expect("an end");
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("postgres://postgres@localhost/postgres?host={}", self.folder.path().display())
    }

    /// Runs SQL, several statements too.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.try_connect().await.expect("a connection");
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
        run.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn try_connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options: sqlx::postgres::PgConnectOptions = self.url().parse()?;
        let mut connection = options.disable_statement_logging().connect().await?;
        connection.ping().await?;
        Ok(connection)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Debian's folder of the newest version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: run tests/needs.sh");
    let folders = versions.flatten().map(|entry| entry.path().join("bin"));
    folders.filter(|folder| folder.join("initdb").exists()).max().expect("PostgreSQL: run tests/needs.sh")
}

/// User and group of an account.
fn account(name: &str) -> (u32, u32) {
    let accounts = std::fs::read_to_string(Path::new("/etc/passwd")).expect("/etc/passwd");
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name);
    let fields = fields.unwrap_or_else(|| panic!("there is no account {name}"));
    (fields[2].parse().expect("a uid"), fields[3].parse().expect("a gid"))
}
