//! Precedence of the sources, and errors that name key, value and place.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

mod mounts;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// The smallest configuration that does something; `[mount.chat]` is on line 3, and what is added comes on line 7.
const SMALL: &str = "\
[plugin.p]
path = \"p.wasm\"
[mount.chat]
path = \"/ws\"
plugin = \"p\"
channel = \"user:{user}\"
";

/// A folder with a configuration file, and what is set around it.
struct Setup {
    folder: TempDir,
    overrides: Overrides,
    environment: Vec<(String, String)>,
}

impl Setup {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("hotbay.toml");
        fs::write(&config, text).unwrap();
        let overrides = Overrides { config: Some(config), ..Overrides::default() };
        Self { folder, overrides, environment: vec![("JWT_SECRET".to_owned(), SECRET.to_owned())] }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(found, _)| found != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, setting: &str) -> Self {
        self.overrides.set.push(setting.to_owned());
        self
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.overrides, &self.environment.iter().cloned().collect())
    }

    fn good(&self) -> Config {
        self.load().unwrap()
    }

    /// The errors, one per line, with the folder's name taken out.
    fn errors(&self) -> String {
        let errors = self.load().err().expect("the configuration was accepted");
        errors.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// The small configuration with a line more in its mount.
fn mount(lines: &str) -> Setup {
    Setup::new(&format!("{SMALL}{lines}"))
}

#[test]
fn flags_go_before_variables_before_the_file_before_defaults() {
    let key = "mount.chat.limits.idle_ms";
    let idle = |setup: &Setup| setup.good().mounts[0].limits.idle_ms;
    let file = mount("limits = { idle_ms = 1 }");

    assert_eq!(idle(&mount("")), 60_000);
    assert_eq!(idle(&file), 1);
    let variable = file.env("HOTBAY_MOUNT__CHAT__LIMITS__IDLE_MS", "2");
    assert_eq!(idle(&variable), 2);
    let flag = variable.set(&format!("{key}=3"));
    assert_eq!(idle(&flag), 3);
    assert_eq!(idle(&flag.set(&format!("{key}=4"))), 4, "the last flag counts");
}

#[test]
fn every_key_has_a_variable_and_a_flag() {
    let mut setup = Setup::new(SMALL)
        .env("HOTBAY_LISTEN", "127.0.0.1:8080")
        .env("HOTBAY_DATA_DIR", "7")
        .env("HOTBAY_LOG", "warn,hotbay=debug")
        .env("HOTBAY_LOG__FORMAT", "json")
        .env("HOTBAY_LIMITS__CONNECTIONS_MAX", "5")
        .env("HOTBAY_MOUNT__CHAT__LIMITS__RATE_PER_USER", "{ per_second = 1, burst = 2 }")
        .env("HOTBAY_MOUNT__CHAT__AUTH__TOKENS", "[\"query:t\"]")
        .env("HOTBAY_KEY__DEFAULT__LEEWAY_S", "9")
        .env("HOTBAY_PLUGIN__P__GRANTS", "[\"kv\"]")
        .env("UNRELATED", "x")
        .set("mount.chat.durability=os")
        .set("mount.\"chat\".settings.Limit = 3");
    let config = setup.good();

    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.data_dir, Path::new("7"));
    assert_eq!(config.log, LogConfig { filter: "warn,hotbay=debug".to_owned(), format: LogFormat::Json });
    assert_eq!(config.limits.connections_max, 5);
    let mount = &config.mounts[0];
    assert_eq!(mount.limits.rate_per_user, Some(crate::limits::Rate { per_second: 1, burst: 2 }));
    assert_eq!(mount.auth.sources, [crate::auth::TokenSource::Query("t".to_owned())]);
    assert_eq!(mount.durability, crate::store::Durability::Os);
    assert_eq!(mount.settings, serde_json::json!({ "Limit": 3 }));
    assert_eq!(config.keys["default"].rules.leeway_s, 9);
    assert_eq!(config.plugins["p"].grants, [Capability::Kv]);

    setup.overrides.listen = Some("127.0.0.1:9".to_owned());
    setup.overrides.data_dir = Some("elsewhere".to_owned());
    let config = setup.good();
    assert_eq!((config.listen.port(), config.data_dir), (9, PathBuf::from("elsewhere")));
}

#[test]
fn a_variable_finds_names_with_dashes_and_capitals() {
    let text = SMALL.replace("mount.chat", "mount.My-Chat");
    let setup = Setup::new(&text).env("HOTBAY_MOUNT__MY_CHAT__LIMITS__IDLE_MS", "2");

    assert_eq!(setup.good().mounts[0].limits.idle_ms, 2);
}

#[test]
fn a_wrong_value_is_named_with_key_value_and_place() {
    let cases: [(Setup, &str); 21] = [
        (
            mount("limits = { idle_ms = \"soon\" }"),
            "hotbay.toml:7: mount.chat.limits.idle_ms = \"soon\": must be a whole number, not negative and not too large",
        ),
        (
            mount("[mount.chat.limits]\n\nidle_ms = -1"),
            "hotbay.toml:9: mount.chat.limits.idle_ms = -1: must be a whole number, not negative and not too large",
        ),
        (
            mount("[mount.chat.limits]\ncpu_ms_max = 0"),
            "hotbay.toml:8: mount.chat.limits.cpu_ms_max = 0: must be at least 1",
        ),
        (
            mount("durability = \"disk\""),
            "hotbay.toml:7: mount.chat.durability = \"disk\": must be one of \"fsync\", \"os\", \"none\"",
        ),
        (
            mount("auto_join = [\"a\", \"b-{user}\"]"),
            "hotbay.toml:7: mount.chat.auto_join[1] = \"b-{user}\": \"b-{user}\" mixes text and a placeholder; a placeholder stands for a whole part, like in owner:{claim.ownerId}",
        ),
        (mount("route = 1"), "hotbay.toml:7: mount.chat.route = 1: must be a boolean"),
        (
            mount("").set("limits.connections_max=0"),
            "set by --set limits.connections_max: limits.connections_max = 0: must be at least 1",
        ),
        (
            mount("").env("HOTBAY_LIMITS__CONNECTIONS_MAX", "many"),
            "set by HOTBAY_LIMITS__CONNECTIONS_MAX: limits.connections_max = \"many\": must be a whole number, not negative and not too large",
        ),
        (
            mount("").env("HOTBAY_LISTEN", "localhost:3000"),
            "set by HOTBAY_LISTEN: listen = \"localhost:3000\": invalid socket address syntax",
        ),
        (mount("").env("HOTBAY_LOG", "loud=x=y"), "set by HOTBAY_LOG: log.filter = \"loud=x=y\": "),
        (
            mount("http = [{ path = \"/a\", channel = \"c\" }, { path = \"b\", channel = \"c\" }]"),
            "hotbay.toml:7: mount.chat.http[1].path = \"b\": a path begins with '/'",
        ),
        (
            mount("limits = { batch_events_max = 2000 }"),
            "hotbay.toml:7: mount.chat.limits.batch_events_max = 2000: batch_events_max (2000) must not be more than mailbox_events_max (1024)",
        ),
        (
            mount("limits = { idle_ms = 99999999999999 }"),
            "hotbay.toml:7: mount.chat.limits.idle_ms = 99999999999999: must be at most 31536000000, a year",
        ),
        (
            mount("statements = { a = \"shop.a\" }"),
            "hotbay.toml:7: mount.chat.statements.a = \"shop.a\": must name a statement as DATASOURCE.STATEMENT",
        ),
        (
            mount("auth = { must_state = [\"user\"] }"),
            "hotbay.toml:7: mount.chat.auth.must_state = [\"user\"]: needs mount.chat.auth.stated_user: where a request may say it",
        ),
        (
            mount("auth = { stated_user = [\"body:x\"] }"),
            "hotbay.toml:7: mount.chat.auth.stated_user[0] = \"body:x\": \"body:x\" is no place for an id",
        ),
        (
            mount("[datasource.shop]\nurl = \"mysql://u:hunter2@h/d\""),
            "hotbay.toml:7: datasource.shop: url must begin with sqlite: or postgres://",
        ),
        (
            mount("[datasource.shop]\nurl_env = [\"SHOP_URL\"]"),
            "hotbay.toml:7: datasource.shop: there is no address: set SHOP_URL, or url",
        ),
        (
            mount(
                "[datasource.shop]\nurl = \"sqlite:x\"\nstatement.a = { sql = \"SELECT $2\", parameters = [\"text\"] }",
            ),
            "hotbay.toml:9: datasource.shop.statement.a.sql = \"SELECT $2\": $2 stands in the SQL, but there are 1 parameters",
        ),
        (
            mount("[datasource.shop]\nurl = \"sqlite:x\"\nstatement.a = { sql = \"SELECT 1\", batch_key = \"id\" }"),
            "hotbay.toml:9: datasource.shop.statement.a.batch_key = \"id\": takes the first parameter for the key",
        ),
        (
            mount("heartbeat = { interval_ms = 65000 }"),
            "hotbay.toml:7: mount.chat.heartbeat.interval_ms = 65000: timeout_ms (65000) must be more than interval_ms (65000)",
        ),
    ];
    for (setup, expected) in cases {
        let errors = setup.errors();
        assert!(errors.starts_with(expected) && !errors.contains('\n'), "\n{errors}\ninstead of\n{expected}");
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_there_is() {
    let cases = [
        (
            mount("limits = { idle = 1 }"),
            "hotbay.toml:7: unknown key mount.chat.limits.idle; did you mean mount.chat.limits.idle_ms?",
        ),
        (mount("").env("HOTBAY_LISTN", "x"), "set by HOTBAY_LISTN: unknown key listn; did you mean HOTBAY_LISTEN?"),
        (
            mount("").env("HOTBAY_LIMITS__CONNECTION_MAX", "5"),
            "set by HOTBAY_LIMITS__CONNECTION_MAX: unknown key limits.connection_max; did you mean HOTBAY_LIMITS__CONNECTIONS_MAX?",
        ),
        (
            mount("").env("HOTBAY_MOUNT__CHAD__PATH", "/x"),
            "set by HOTBAY_MOUNT__CHAD__PATH: unknown key mount.chad; did you mean HOTBAY_MOUNT__CHAT?",
        ),
        (
            mount("").set("limit.connections_max=5"),
            "set by --set limit.connections_max: unknown key limit; did you mean limits?",
        ),
        (
            mount("[key.default]\nsecret = \"hunter2\""),
            "hotbay.toml:8: unknown key key.default.secret; did you mean key.default.secret_env?",
        ),
        (
            mount("").env("HOTBAY_XYZZY", "1"),
            "set by HOTBAY_XYZZY: unknown key xyzzy; there are HOTBAY_LISTEN, HOTBAY_DATA_DIR, ",
        ),
    ];
    for (setup, expected) in cases {
        let errors = setup.errors();
        assert!(errors.starts_with(expected) && !errors.contains('\n'), "\n{errors}\ninstead of\n{expected}");
        assert!(!errors.contains("hunter2"), "a misplaced secret is shown: {errors}");
    }
}

#[test]
fn all_errors_are_found_at_once() {
    let setup = Setup::new(
        "listen = 7\nspeed = 9\n[limits]\nconnections_max = \"x\"\n[plugin.p]\ngrants = [\"network\"]\n[mount.a]\npath = \"ws\"\nplugin = \"q\"\n\
         [mount.b]\npath = \"/b\"\nplugin = \"p\"\n",
    )
    .env("HOTBAY_NONSENSE", "1")
    .set("novalue");

    let errors = setup.errors();

    for expected in [
        "set by --set novalue: write it as KEY=VALUE, for example limits.connections_max=5",
        "hotbay.toml:1: listen = 7: must be socket address",
        "hotbay.toml:2: unknown key speed; there are ",
        "set by HOTBAY_NONSENSE: unknown key nonsense; ",
        "hotbay.toml:4: limits.connections_max = \"x\": must be",
        "hotbay.toml:6: plugin.p.grants[0] = \"network\": must be one of \"kv\", \"log\", \"logging\", \"sql\", \"stats\"",
        "hotbay.toml:5: plugin.p.path is missing",
        "hotbay.toml:8: mount.a.path = \"ws\": a path begins with '/'",
        "hotbay.toml:10: mount.b: messages would have nowhere to go",
    ] {
        assert!(errors.lines().any(|line| line.starts_with(expected)), "{expected}\nis not among\n{errors}");
    }
    assert!(!errors.contains("mount.a.path is missing"), "{errors}");
    assert!(!errors.contains("no [plugin.p]"), "{errors}");
    assert_eq!(errors.lines().count(), 9, "{errors}");
}

#[test]
fn syntax_errors_name_their_lines() {
    assert!(Setup::new("listen = \"a\"\ndata_dir = \n").errors().starts_with("hotbay.toml:2: not TOML: "));
    assert!(Setup::new("[limits]\n[limits]\n").errors().starts_with("hotbay.toml:2: not TOML: "));
    assert!(
        Setup::new("x = 99999999999999999999\n")
            .errors()
            .starts_with("hotbay.toml:1: not TOML: 99999999999999999999 is too large")
    );
    assert!(mount("").set("listen.port=1").set("listen=x").errors().contains("listen"));
    assert!(
        Setup::new("listen = \"127.0.0.1:1\"")
            .set("listen.port=1")
            .errors()
            .starts_with("set by --set listen.port: listen is not a table (hotbay.toml:1)")
    );
}

#[test]
fn a_missing_file_is_an_error_with_a_remedy() {
    let overrides = Overrides { config: Some("/nonexistent/hotbay.toml".into()), ..Overrides::default() };
    let missing = Config::load(&overrides, &Environment::default()).err().unwrap().to_string();
    assert!(
        missing.contains("there is no /nonexistent/hotbay.toml; name a file with --config FILE or HOTBAY_CONFIG"),
        "{missing}"
    );

    let setup = mount("");
    let variable: Environment =
        [("HOTBAY_CONFIG", setup.overrides.config.as_ref().unwrap().to_str().unwrap()), ("JWT_SECRET", SECRET)]
            .into_iter()
            .collect();
    assert!(Config::load(&Overrides::default(), &variable).is_ok());
}

#[test]
fn a_plugin_path_in_the_file_is_meant_from_the_files_folder() {
    let setup = Setup::new(SMALL);
    assert_eq!(setup.good().plugins["p"].path, setup.folder.path().join("p.wasm"));
    assert_eq!(setup.set("plugin.p.path=q.wasm").good().plugins["p"].path, Path::new("q.wasm"));
}

#[test]
fn no_secret_is_built_in() {
    let bare = mount("").env("JWT_SECRET", "");
    let errors = bare.errors();
    assert!(
        errors.starts_with("not set: key.default: there is no secret: set JWT_SECRET to at least 32 random bytes"),
        "{errors}"
    );

    let second = mount("auth = { keys = [\"chat\"] }\n[key.chat]\nsecret_env = [\"A\", \"B\"]\n").env("JWT_SECRET", "");
    assert!(
        second.errors().starts_with("hotbay.toml:8: key.chat: there is no secret: set A or B to"),
        "{}",
        second.errors()
    );
    assert!(second.env("A", "").env("B", SECRET).good().warnings.is_empty());

    let short = mount("").env("JWT_SECRET", "hunter2").good();
    assert!(
        short.warnings[0].contains("only 7 bytes") && !short.warnings[0].contains("hunter2"),
        "{:?}",
        short.warnings
    );
}

#[test]
fn a_secret_or_public_key_comes_from_a_file_beside_the_configuration() {
    let setup = mount("[key.default]\nsecret_file = \"s\"").env("JWT_SECRET", "");
    fs::write(setup.folder.path().join("s"), format!("{SECRET}\n")).unwrap();
    let config = setup.good();
    assert!(matches!(&config.keys["default"].material, KeyMaterial::Secret(secret) if secret.len() == SECRET.len()));

    let public = mount("[key.default]\nalgorithm = \"RS256\"\npublic_key = \"k.pem\"");
    assert!(public.errors().contains("key.default.public_key = \"k.pem\": "), "{}", public.errors());
    fs::write(public.folder.path().join("k.pem"), include_str!("../auth/testdata/rsa_public.pem")).unwrap();
    assert!(matches!(public.good().keys["default"].material, KeyMaterial::Public(_)));
    fs::write(public.folder.path().join("k.pem"), include_str!("../auth/testdata/rsa_private.pem")).unwrap();
    assert!(
        public.errors().starts_with("hotbay.toml:9: key.default.public_key = \"k.pem\": this is a private key"),
        "{}",
        public.errors()
    );

    let mixed = mount("[key.default]\nalgorithm = \"ES256\"\nsecret_env = [\"X\"]").errors();
    assert!(
        mixed.contains("hotbay.toml:9: key.default.secret_env = [\"X\"]: ES256 is verified with a public key"),
        "{mixed}"
    );
    assert!(mixed.contains("hotbay.toml:7: key.default: ES256 needs public_key"), "{mixed}");
}

#[test]
fn development_makes_one_random_secret_that_only_its_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let setup = Setup::new(&format!("development = true\n{SMALL}")).env("JWT_SECRET", "");
    let data = setup.folder.path().join("state/data");
    let setup = setup.env("HOTBAY_DATA_DIR", data.to_str().unwrap());
    let config = setup.good();
    let file = data.join("jwt-secret");
    assert!(!data.exists(), "loading writes nothing");

    let racing: Vec<_> = (0..4)
        .map(|_| {
            let config = config.clone();
            std::thread::spawn(move || config.open_keys().map(drop))
        })
        .collect();
    for thread in racing {
        thread.join().unwrap().unwrap();
    }

    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.trim().len(), 64);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no leftovers");
    let secret = config.keys["default"].secret().unwrap().unwrap();
    assert_eq!(secret.len(), 64);
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "made only once");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(config.open_keys().err().unwrap().to_string().contains("can be read by others (mode 644): chmod 600"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "").unwrap();
    assert!(config.open_keys().err().unwrap().to_string().contains("is damaged"));
}

#[test]
fn without_auth_a_mount_serves_only_this_machine() {
    let open = |listen: &str| Setup::new(&format!("listen = \"{listen}\"\n{SMALL}auth = {{ mode = \"none\" }}\n"));

    assert!(open("127.0.0.1:0").good().warnings.is_empty());
    assert!(open("[::1]:0").load().is_ok());
    for public in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0"] {
        let errors = open(public).errors();
        assert!(
            errors.starts_with(&format!(
                "hotbay.toml:8: mount.chat.auth.mode = \"none\": listen = {public} can be reached"
            )),
            "{errors}"
        );
    }
    let insecure = open("0.0.0.0:0").set("mount.chat.auth.insecure_public=true").good();
    assert!(insecure.warnings[0].contains("everybody"), "{:?}", insecure.warnings);
}
