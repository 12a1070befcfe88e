//! Checks of mounts, and the example.

use super::*;

#[test]
fn mounts_refer_only_to_what_there_is() {
    let cases = [
        (
            mount("").set("mount.chat.plugin=q"),
            "set by --set mount.chat.plugin: mount.chat.plugin = \"q\": there is no [plugin.q]; there are: p",
        ),
        (
            mount("auth = { keys = [\"k\"] }"),
            "hotbay.toml:7: mount.chat.auth.keys[0] = \"k\": there is no [key.k]; there are: none",
        ),
        (
            mount("auto_join = [\"a:{path.id}\"]"),
            "hotbay.toml:7: mount.chat.auto_join[0] = \"a:{path.id}\": {path.id} is not known here: the mount's path /ws has no {id}",
        ),
        (
            mount("http = [{ channel = \"a:{user}\", auth = \"none\" }]"),
            "hotbay.toml:7: mount.chat.http[0].channel = \"a:{user}\": {user} is not known here",
        ),
        (
            mount("auth = { mode = \"none\" }\nauto_join = [\"a:{claim.x}\"]"),
            "hotbay.toml:8: mount.chat.auto_join[0] = \"a:{claim.x}\": {claim.x} is not known here",
        ),
        (
            mount("channels = [\"room:*\"]"),
            "hotbay.toml:6: mount.chat.channel = \"user:{user}\": channels does not cover it: add \"user:*\" there",
        ),
        (mount("channels = [\"user:*\", \"ro*m\"]"), "hotbay.toml:7: mount.chat.channels[1] = \"ro*m\": "),
        (mount("route = true"), "hotbay.toml:3: mount.chat: route = true needs channels"),
        (
            mount("http = [{ channel = \"s\", headers = [\"X-A\", \"Cookie\"] }]"),
            "hotbay.toml:7: mount.chat.http[0].headers[1] = \"Cookie\": holds a secret",
        ),
        (
            mount("http = [{ channel = \"s\" }, { channel = \"s\", methods = [\"POST\", \"GET\"] }]"),
            "hotbay.toml:7: mount.chat.http[1].methods[1] = \"GET\": another route has GET / already",
        ),
        (
            mount("origins = [\"https://a.example/\"]"),
            "hotbay.toml:7: mount.chat.origins[0] = \"https://a.example/\": must be an origin",
        ),
        (
            mount("origins = [\"*\"]\nauth = { tokens = [\"cookie:s\"] }"),
            "hotbay.toml:7: mount.chat.origins = [\"*\"]: with tokens or ids from a cookie",
        ),
        (
            mount("origins = [\"*\"]\nauth = { insecure_user_id = true }"),
            "hotbay.toml:7: mount.chat.origins = [\"*\"]: with tokens or ids from a cookie",
        ),
        (
            mount(
                "auth.stated_user = [\"query:u\"]\nhttp = [{ channel = \"user:s\", auth = \"none\", must_state = [\"user\"] }]",
            ),
            "hotbay.toml:8: mount.chat.http[0].must_state = [\"user\"]: needs auth",
        ),
        (mount("auth = { tokens = [] }"), "hotbay.toml:7: mount.chat.auth.tokens = []: must not be empty"),
        (
            mount("auth = { tokens = [\"body\"] }"),
            "hotbay.toml:7: mount.chat.auth.tokens[0] = \"body\": \"body\" is no token source",
        ),
        (
            mount("compression.level = 10"),
            "hotbay.toml:7: mount.chat.compression.level = 10: must be from 1, the fastest",
        ),
        (
            mount("compression.level = 0"),
            "hotbay.toml:7: mount.chat.compression.level = 0: must be from 1, the fastest",
        ),
        (mount("subprotocols = [\"a b\"]"), "hotbay.toml:7: mount.chat.subprotocols[0] = \"a b\": must be a token"),
    ];
    for (setup, expected) in cases {
        let errors = setup.errors();
        assert!(errors.starts_with(expected) && !errors.contains('\n'), "\n{errors}\ninstead of\n{expected}");
    }
}

#[test]
fn two_mounts_on_a_path_must_differ_by_their_query() {
    let other = |query: &str| {
        mount(&format!("[mount.other]\npath = \"/ws\"\nplugin = \"p\"\nchannel = \"user:{{user}}\"\n{query}"))
    };

    assert!(other("").errors().starts_with("hotbay.toml:8: mount.other.path = \"/ws\": mount.chat has the same path"));
    assert!(other("required_query = { any = [\"tenant_id\", \"user_id\"] }").load().is_ok());
    let shapes = mount(
        "[mount.a]\npath = \"/y/{a}\"\nplugin = \"p\"\nchannel = \"x\"\n[mount.b]\npath = \"/y/{b}\"\nplugin = \"p\"\nchannel = \"x\"",
    );
    assert!(shapes.errors().contains("mount.b.path = \"/y/{b}\": mount.a has the same path"));
    let one_of_one = mount(
        "required_query = { all = [\"a\"] }\n[mount.other]\npath = \"/ws\"\nplugin = \"p\"\nchannel = \"user:{user}\"\nrequired_query = { any = [\"a\"] }",
    );
    assert!(one_of_one.errors().contains("mount.chat has the same path"));
}

#[test]
fn two_mounts_do_not_answer_the_same_requests() {
    let two = |chat: &str, other: &str| {
        let http = |path: &str| format!("http = [{{ path = \"{path}\", channel = \"user:a\" }}]");
        let other = format!("[mount.other]\npath = \"/other\"\nplugin = \"p\"\nchannel = \"user:{{user}}\"\n{other}");
        mount(&format!("http_path = \"/api\"\n{}\n{other}\n{}", http(chat), http("/a")))
    };

    let expected = "mount.other.http_path = \"/api\": mount.chat answers HTTP requests at the same place, with a route for \"/a\" too";
    assert!(
        two("/a", "http_path = \"/api\"").errors().contains(expected),
        "{}",
        two("/a", "http_path = \"/api\"").errors()
    );
    assert!(two("/*", "http_path = \"/api\"").errors().contains(expected), "a wildcard");
    assert!(two("/ab/*", "http_path = \"/api\"").load().is_ok(), "another folder");
    assert!(two("/b", "http_path = \"/api\"").load().is_ok(), "another route");
    assert!(two("/a", "http_path = \"/else\"").load().is_ok(), "another place");
    assert!(two("/a", "http_path = \"/api\"\nrequired_query = { all = [\"a\"] }").errors().contains(expected));
}

#[test]
fn a_channel_has_one_plugin() {
    let other = |lines: &str| mount(&format!("[plugin.q]\npath = \"q\"\n[mount.other]\npath = \"/other\"\n{lines}"));

    let errors = other("plugin = \"q\"\nchannel = \"user:a:{user}\"").errors();
    assert!(
        errors.starts_with(
            "hotbay.toml:9: mount.other: \"user:a:*\" names channels that \"user:*\" of mount.chat names too"
        ),
        "{errors}"
    );
    assert!(other("plugin = \"q\"\nchannel = \"users:{user}\"").load().is_ok());
    assert!(other("plugin = \"p\"\nchannel = \"user:{user}\"").load().is_ok(), "one plugin on two paths");
}

/// The example is documentation: it must load, and say what the contract of system 2 demands.
#[test]
fn the_example_is_the_contract_of_community_chat() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hotbay.toml");
    let overrides = Overrides { config: Some(file), ..Overrides::default() };
    let config = Config::load(&overrides, &Environment::default()).unwrap();
    let mount = config.mounts.iter().find(|mount| mount.name == "community").unwrap();

    assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
    assert!(mount.paths.matches("/api/community/ws").is_some() && mount.route);
    for channel in ["room:1", "group:a:b", "dm:a:b", "user:ada", "status"] {
        assert!(mount.has_channel(channel), "{channel}");
    }
    assert!(!mount.has_channel("admin:1"));
    assert_eq!(mount.auth.user_claims, ["sub", "id", "userId"]);
    let sources: Vec<String> = mount.auth.sources.iter().map(ToString::to_string).collect();
    let cookies = ["cookie:__Secure-next-auth.session-token", "cookie:next-auth.session-token"];
    assert_eq!(sources, [&["header", "query:token", "subprotocol"][..], &cookies].concat());
    assert_eq!(mount.heartbeat, Heartbeat { interval_ms: 30_000, timeout_ms: 65_000 });
    assert_eq!(mount.limits.rate_per_connection, Some(crate::limits::Rate { per_second: 50, burst: 100 }));
    assert_eq!(mount.limits.rate_excess_per_minute_max, 500);
    assert_eq!((mount.http[0].path.as_str(), mount.http[0].auth), ("/health", RouteAuth::None));
    assert!(
        config.plugins["community-chat"].path.ends_with("target/plugins/wasm32-wasip2/release/community_chat.wasm")
    );

    // NEXTAUTH_SECRET goes before JWT_SECRET.
    let environment: Environment =
        [("NEXTAUTH_SECRET", "n".repeat(32)), ("JWT_SECRET", "j".repeat(40))].into_iter().collect();
    let config = Config::load(&overrides, &environment).unwrap();
    let lengths = ["chat", "default"].map(|name| match &config.keys[name].material {
        KeyMaterial::Secret(secret) => secret.len(),
        _ => 0,
    });
    assert_eq!(lengths, [32, 40]);
}

/// Where a comment of the example names a default, it is the default.
#[test]
fn the_example_shows_the_defaults() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hotbay.toml");
    let config =
        Config::load(&Overrides { config: Some(file), ..Overrides::default() }, &Environment::default()).unwrap();
    let (node, mount) = (NodeLimits::default(), crate::limits::MountLimits::default());

    assert_eq!(config.limits.connections_max, node.connections_max);
    assert_eq!(config.limits.connections_per_address_max, node.connections_per_address_max);
    assert_eq!(config.limits.channels_awake_max, node.channels_awake_max);
    assert_eq!(config.limits.drain_ms_max, node.drain_ms_max);
    let community = config.mounts.iter().find(|mount| mount.name == "community").unwrap();
    assert_eq!(community.limits.message_bytes_max, mount.message_bytes_max);
    assert_eq!(community.limits.idle_ms, mount.idle_ms);
}
