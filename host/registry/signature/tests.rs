//! Signatures that minisign's own library made, and one as minisign made them before it hashed first.

use super::*;

const KEY: &str = "RWQDV8DOb6IVSgkb8rbM/btvpE4k236PP/XZSY5673iP8Kb9dzVZ2aiO";
const SIGNATURE: &str = "untrusted comment: signature
RUQDV8DOb6IVShMAdWcrv8VdexgJkfCUKfFZ1Oib0zZIRh4mIDUd3rMHUzrjVETXIzazRAZ8ng1hJ0MVjosH0dtrXUozEZcDSgo=
trusted comment: a comment
zS2EU3qV6JvnaVTDZroksrgwBDpHqEuiKkWcBlXLGxf6jJG2Z31Fad8S8gDdTmGX0kSZoK9NLy4wxyVaFGdUCg==
";
/// Of a manifest without a digest.
const BARE: &str = "untrusted comment: signature
RUQDV8DOb6IVSnjazmYDFlaEGyLopr4LbLxsUgrdIWOBsJ9gNzOK5okJPWu1r2RQzqe1xBS//FQ4e2o7935hs1G91j9L3K7cPQc=
trusted comment: a comment
HDr/2F79904Xrr3GAdfEqXWsliIFAZkD8qUcNuCbm/IE3bW0NXDUbFCvJLVlh7GOQgGiyOLsq2Q1DA06z/I6DQ==
";
const OLD_KEY: &str = "RWQBAgMEBQYHCOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
const OLD_SIGNATURE: &str = "untrusted comment: x
RWQBAgMEBQYHCA9ZMLAf4uYcR8ZZ18iQQGe1yGLsFnOajcGjYopVJiBuZksmRQZ72YM5jPUaeUcoVt/eAm05G4E1bvk1OlQGvAk=
trusted comment: old
b2fZy7j4BKOKSi4TFVoX+3vzxr88jRNAili6E6pj7GuAZEiNvzRR4vnT4oP8eygBX25cPYNZmtir0WvllXeUCg==
";
const BARE_MANIFEST: &str = "name = \"x\"\nversion = \"1.0.0\"\n";
const COMPONENT: Digest = Digest([0xAB; 32]);

fn manifest() -> String {
    format!("{BARE_MANIFEST}digest = \"sha256:{COMPONENT}\"\n")
}

fn keys(lines: &[&str]) -> Vec<TrustedKey> {
    lines.iter().map(|line| TrustedKey::parse(line).unwrap()).collect()
}

#[test]
fn a_signature_by_a_trusted_key_counts_whichever_way_it_was_made() {
    let trusted = keys(&[OLD_KEY, KEY]);

    let id = verify(manifest().as_bytes(), SIGNATURE, &trusted, COMPONENT).unwrap();
    let old = verify(manifest().as_bytes(), OLD_SIGNATURE, &trusted, COMPONENT).unwrap();

    // As minisign shows them.
    assert_eq!((id.to_string().as_str(), old.to_string().as_str()), ("4A15A26FCEC05703", "0807060504030201"));
    let windows = SIGNATURE.replace('\n', "\r\n");
    assert_eq!(verify(manifest().as_bytes(), &windows, &trusted, COMPONENT), Ok(id));
}

/// Law: who signed the manifest signed the component it names, and nothing else.
#[test]
fn nothing_else_counts() {
    let other = Digest([1; 32]);
    let text = manifest();
    let check = |manifest: &str, signature: &str, trusted: &[&str], component| {
        verify(manifest.as_bytes(), signature, &keys(trusted), component)
    };
    let renamed = SIGNATURE.replace("trusted comment: a comment", "trusted comment: another");
    for (changed, why) in [
        (check(&text.replace("1.0.0", "1.0.1"), SIGNATURE, &[KEY], COMPONENT), "does not fit"),
        (check(&format!("{text}\n"), SIGNATURE, &[KEY], COMPONENT), "does not fit"),
        (check(&text, &renamed, &[KEY], COMPONENT), "does not fit"),
        (check(&text, BARE, &[KEY], COMPONENT), "does not fit"),
        (
            check(&text, SIGNATURE, &[OLD_KEY], COMPONENT),
            "by the key 4A15A26FCEC05703, which the tenant does not trust; trusted: 0807",
        ),
        (check(&text, SIGNATURE, &[], COMPONENT), "trusted: nobody"),
        (check(&text, SIGNATURE, &[KEY], other), "names the component abababab"),
        (check(BARE_MANIFEST, BARE, &[KEY], COMPONENT), "names no component"),
    ] {
        let error = changed.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// The same id under another key is somebody who would like to be trusted.
#[test]
fn the_name_of_a_key_proves_nothing() {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let mut forged = engine.decode(OLD_KEY).unwrap();
    forged[2..10].copy_from_slice(&engine.decode(KEY).unwrap()[2..10]);
    let trusted = keys(&[&engine.encode(forged)]);

    assert_eq!(verify(manifest().as_bytes(), SIGNATURE, &trusted, COMPONENT), Err(SignatureError::DoesNotFit));
}

/// Law: no panic on outside input; what was cut or altered anywhere is no signature.
#[test]
fn what_was_altered_anywhere_does_not_count() {
    let trusted = keys(&[KEY]);
    let untrusted_comment = SIGNATURE.lines().next().unwrap().len();
    for at in 0..SIGNATURE.len() {
        let cut = verify(manifest().as_bytes(), &SIGNATURE[..at], &trusted, COMPONENT);
        // The line's end at the end of the file is not needed.
        assert!(cut.is_err() || at + 1 == SIGNATURE.len(), "cut at {at}");
        for byte in ["\n", "=", "A", "0", "\0", "é"] {
            let altered = [&SIGNATURE[..at], byte, &SIGNATURE[at + 1..]].concat();
            let counts = verify(manifest().as_bytes(), &altered, &trusted, COMPONENT).is_ok();
            let is_same = altered.lines().eq(SIGNATURE.lines());
            assert!(!counts || is_same || at < untrusted_comment || at + 1 == SIGNATURE.len(), "{byte:?} at {at}");
        }
    }
    for key in ["", "RW", "RWQ", &KEY[..55], &KEY.replace('R', "S"), "untrusted comment: minisign public key", "RWQ\0"]
    {
        assert!(matches!(TrustedKey::parse(key), Err(SignatureError::Key(_))), "{key:?}");
    }
}
