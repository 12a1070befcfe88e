//! What a manifest may say, and what is told of one that says something else.

use super::*;

const WHOLE: &str = r#"
# What others see.
name = "community-chat"
version = "1.4.0"
capabilities = ["kv", "log"]
minimum_host = "0.1.0"

[state]
schema = 3
accepts = [1, 2]

[limits]
memory_bytes_max = 33_554_432
cpu_ms_max = 50
"#;

fn refusal(text: &str) -> String {
    Manifest::parse(text).map(|manifest| format!("{manifest:?}")).unwrap_err().to_string()
}

/// A whole one, with one line in place of another.
fn with(line: &str, other: &str) -> String {
    assert!(WHOLE.contains(line), "{line}");
    WHOLE.replace(line, other)
}

#[test]
fn a_whole_manifest_is_read() {
    let manifest = Manifest::parse(WHOLE).unwrap();

    assert_eq!((manifest.name.as_str(), manifest.version.to_string().as_str()), ("community-chat", "1.4.0"));
    assert_eq!(manifest.capabilities, BTreeSet::from([Capability::Kv, Capability::Log]));
    assert_eq!(manifest.digest, None);
    assert_eq!([1, 2, 3, 4].map(|schema| manifest.state.accepts(schema)), [true, true, true, false]);
    assert_eq!(Manifest::parse(&manifest.to_toml()).unwrap(), manifest);
}

#[test]
fn a_short_manifest_wants_nothing_and_has_schema_1() {
    let manifest = Manifest::parse("name = \"x\"\nversion = \"0.1.0-alpha.1\"").unwrap();

    assert_eq!((manifest.capabilities.len(), manifest.state.schema), (0, 1));
    assert!(manifest.state.accepts(1) && !manifest.state.accepts(2));
    assert_eq!(manifest.limits, ManifestLimits::default());
}

#[test]
fn a_synthesized_manifest_says_of_itself_what_a_file_can_say() {
    let manifest = Manifest::synthesized("echo", &BTreeSet::from([Capability::Sql]));

    assert_eq!(manifest.version.to_string(), "0.0.0");
    assert_eq!(Manifest::parse(&manifest.to_toml()).unwrap(), manifest);
}

/// Goal: an author who makes a mistake is told the key, what is wrong and what to do.
#[test]
fn mistakes_are_named_with_key_cause_and_remedy() {
    for (text, words) in [
        (with("name = \"community-chat\"", ""), ["`name`", "is missing", "add it"]),
        (with("version = \"1.4.0\"", ""), ["`version`", "is missing", "add it"]),
        (with("\"community-chat\"", "\"a:b\""), ["`name`", "':'", "choose a name"]),
        (with("\"community-chat\"", "\"..\""), ["`name`", "only dots", "choose a name"]),
        (with("1.4.0", "1.4"), ["`version`", "1.4", "three numbers"]),
        (with("1.4.0", "one"), ["`version`", "one", "three numbers"]),
        (with("\"1.4.0\"", "1.4"), ["`version`", "floating point", "expected a string"]),
        (with("\"0.1.0\"", "\"99.0.0\""), ["`minimum_host`", "99.0.0", "update the host"]),
        (with("\"log\"", "\"root\""), ["`capabilities`", "\"root\"", "kv, log, logging, sql, stats"]),
        (with("schema = 3", "schema = 0"), ["`state.schema`", "0", "at least 1"]),
        (with("[1, 2]", "[0]"), ["`state.accepts`", "0", "at least 1"]),
        (with("schema = 3", "schema = -1"), ["`state.schema`", "-1", "u32"]),
        (with("schema = 3", "shema = 3"), ["`state.shema`", "unknown", "`schema` or `accepts`"]),
        (with("cpu_ms_max = 50", "cpu_ms_max = 0"), ["`limits.cpu_ms_max`", "0", "at least 1"]),
        (with("33_554_432", "1000"), ["`limits.memory_bytes_max`", "1000", "65536"]),
        (with("cpu_ms_max", "effects_max"), ["`limits.effects_max`", "unknown", "`memory_bytes_max`"]),
        (with("minimum_host", "minimal_host"), ["`minimal_host`", "unknown", "`minimum_host`"]),
        (with("minimum_host", "digest"), ["`digest`", "0.1.0", "sha256:"]),
        (with("[state]", "[state"), ["plugin.toml:8", "not TOML", "]"]),
        (with("1.4.0", &format!("1.4.0-{}", "x".repeat(200))), ["`version`", "longer", "bytes"]),
    ] {
        let refusal = refusal(&text);
        for word in words {
            assert!(refusal.contains(word), "{word} is not in: {refusal}\nof: {text}");
        }
        assert!(refusal.len() < 500, "{refusal}");
    }
}

/// Law: everything has a bound.
#[test]
fn what_is_too_large_is_refused_before_it_is_parsed() {
    let long = format!("{WHOLE}#{}", "x".repeat(MANIFEST_BYTES_MAX));
    assert!(refusal(&long).contains("the limit is 16384"));
    assert!(matches!(Manifest::from_bytes(long.as_bytes()), Err(ManifestError::TooLarge { .. })));
    let many: Vec<_> = (1..=65).map(|schema: u32| schema.to_string()).collect();
    assert!(refusal(&with("1, 2", &many.join(", "))).contains("65 entries"));
    assert!(matches!(Manifest::from_bytes(b"name = \"\xff\""), Err(ManifestError::NotText { at: 8 })));
}

/// Law: no panic on outside input, wherever it was cut.
#[test]
fn a_manifest_that_was_cut_or_altered_is_refused_or_read() {
    for at in 0..WHOLE.len() {
        drop(Manifest::parse(&WHOLE[..at]));
        for byte in [b'"', b'\n', b'[', b'=', b'.', 0] {
            let mut altered = WHOLE.as_bytes().to_vec();
            altered[at] = byte;
            drop(Manifest::from_bytes(&altered));
        }
    }
}

#[test]
fn the_digest_is_added_or_replaced_and_the_rest_stays() {
    let (one, two) = (Digest([0xAB; 32]), Digest([1; 32]));

    let added = with_digest(WHOLE, one).unwrap();
    let replaced = with_digest(&added, two).unwrap();

    assert_eq!(Manifest::parse(&added).unwrap().digest, Some(one));
    assert_eq!(Manifest::parse(&replaced).unwrap().digest, Some(two));
    assert_eq!(with_digest(&replaced, one).unwrap(), added);
    let line = format!("digest = \"sha256:{}\"\n", "ab".repeat(32));
    assert_eq!(added.replace(&line, ""), WHOLE, "{added}");
    let commented = format!("digest = \"x\" # by hand\n{WHOLE}");
    assert!(with_digest(&commented, one).unwrap().contains("\" # by hand\n"));
    assert!(with_digest("[", one).is_err());
}

#[test]
fn digests_are_written_in_one_way_only() {
    let hex = "ab".repeat(32);
    for bad in [hex.clone(), format!("sha256:{}", hex.to_uppercase()), format!("sha256:{hex}0"), "sha256:".into()] {
        assert!(matches!(digest(&bad), Err(ManifestError::Digest { .. })), "{bad}");
    }
    assert_eq!(digest(&format!("sha256:{hex}")).unwrap(), Digest([0xAB; 32]));
}

/// Goal: a version gets what it asks for only within what the mount allows.
#[test]
fn the_smaller_limit_holds() {
    let mount = MountLimits { memory_bytes_max: 16 << 20, cpu_ms_max: 100, ..MountLimits::default() };
    let limits = Manifest::parse(WHOLE).unwrap().limits(&mount);
    assert_eq!((limits.memory_bytes_max, limits.cpu_ms_max), (16 << 20, 50));
    let limits = Manifest::synthesized("x", &BTreeSet::new()).limits(&mount);
    assert_eq!((limits.memory_bytes_max, limits.cpu_ms_max), (16 << 20, 100));
}

#[test]
fn the_host_has_a_version() {
    assert!(host_version() > Version::new(0, 0, 0));
}

/// Goal: how a plugin is built is the author's own, and no broker is told.
#[test]
fn how_it_is_built_is_read_and_left_out_of_what_is_pushed() {
    let build = "\n[build]\ncommand = [\"npm\", \"run\", \"build\"]\ncomponent = \"dist/poll.wasm\"\n";
    let text = format!("{WHOLE}{build}");

    let read = Manifest::parse(&text).unwrap();
    let pushed = with_digest(&text, Digest([7; 32])).unwrap();

    let expected =
        Build { command: ["npm", "run", "build"].map(str::to_owned).into(), component: "dist/poll.wasm".into() };
    assert_eq!(read.build, Some(expected));
    assert_eq!(pushed.trim_end(), with_digest(WHOLE, Digest([7; 32])).unwrap().trim_end());
    assert!(refusal(&text.replace("component", "output")).contains("output"));
}
