//! Attacks on authentication (FAULTS 10, 17, 18, 21) and the rules of tokens, sources and origins.

use http::Request;
use http::request::Parts;
use jsonwebtoken::EncodingKey;
use serde_json::{Map, Value, json};

use super::*;
use crate::limits::TOKEN_BYTES_MAX;

const NOW_S: u64 = 1_800_000_000;
const NOW_MS: u64 = NOW_S * 1_000;
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const RSA_PUBLIC: &[u8] = include_bytes!("testdata/rsa_public.pem");
const RSA_PRIVATE: &[u8] = include_bytes!("testdata/rsa_private.pem");

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn claims() -> Value {
    json!({ "sub": "ada", "exp": NOW_S + 60 })
}

/// Standard claims with some replaced; `null` takes one away.
fn with(changes: Value) -> Value {
    let mut claims = object(claims());
    for (name, value) in object(changes) {
        if value.is_null() {
            claims.remove(&name);
        } else {
            claims.insert(name, value);
        }
    }
    Value::Object(claims)
}

fn hs256(claims: Value) -> String {
    sign(Algorithm::HS256, &Secret::new(SECRET), None, &object(claims)).unwrap()
}

fn signed(algorithm: jsonwebtoken::Algorithm, key: &EncodingKey, kid: Option<&str>) -> String {
    let mut header = jsonwebtoken::Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    jsonwebtoken::encode(&header, &claims(), key).unwrap()
}

/// A token with any header at all, and any signature.
fn forged(header: Value, claims: Value, signature: &str) -> String {
    use base64::Engine;
    let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

fn hs_key(rules: KeyRules) -> Key {
    Key::symmetric(Algorithm::HS256, &Secret::new(SECRET), rules).unwrap()
}

fn rsa_key() -> Key {
    Key::public(PublicKey::parse(Algorithm::RS256, RSA_PUBLIC).unwrap(), KeyRules::default())
}

fn gate_with(keys: Vec<Key>, policy: Policy, origins: Option<&[String]>) -> Gate {
    let named: Vec<_> = keys.into_iter().enumerate().map(|(index, key)| (index.to_string(), key)).collect();
    let policy = Policy { keys: named.iter().map(|(name, _)| name.clone()).collect(), ..policy };
    Keys::new(named).gate(&policy, origins, &[])
}

fn gate(keys: Vec<Key>) -> Gate {
    gate_with(keys, Policy::default(), None)
}

fn refusal(keys: Vec<Key>, token: &str) -> AuthError {
    gate(keys).verify(token, NOW_MS).unwrap_err()
}

fn request(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

fn sources(list: &[&str]) -> Policy {
    Policy { sources: list.iter().map(|text| text.parse().unwrap()).collect(), ..Policy::default() }
}

#[test]
fn a_good_token_names_its_user_tenant_and_role() {
    let token = hs256(with(json!({ "tenant": "acme", "role": "admin", "groups": ["a"], "n": 7 })));

    let identity = gate(vec![hs_key(KeyRules::default())]).verify(&token, NOW_MS).unwrap();

    assert_eq!((identity.tenant(), identity.user(), identity.role()), ("acme", "ada", "admin"));
    assert_eq!(identity.expires_ms(), Some((NOW_S + 60) * 1_000));
    assert_eq!(identity.claim("n").as_deref(), Some("7"));
    assert_eq!((identity.claim("groups"), identity.claim("absent")), (None, None));
    assert_eq!(serde_json::from_str::<Value>(identity.claims()).unwrap()["groups"], json!(["a"]));
}

#[test]
fn every_asymmetric_algorithm_verifies_what_its_private_key_signed() {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE).unwrap();
    let p256 = EncodingKey::from_ec_pem(include_bytes!("testdata/p256_private.pem")).unwrap();
    let p384 = EncodingKey::from_ec_pem(include_bytes!("testdata/p384_private.pem")).unwrap();
    let ed = EncodingKey::from_ed_pem(include_bytes!("testdata/ed25519_private.pem")).unwrap();
    let cases: [(Algorithm, &[u8], &EncodingKey); 5] = [
        (Algorithm::RS256, RSA_PUBLIC, &rsa),
        (Algorithm::PS256, RSA_PUBLIC, &rsa),
        (Algorithm::ES256, include_bytes!("testdata/p256_public.pem"), &p256),
        (Algorithm::ES384, include_bytes!("testdata/p384_public.pem"), &p384),
        (Algorithm::EdDSA, include_bytes!("testdata/ed25519_public.pem"), &ed),
    ];
    for (algorithm, public, private) in cases {
        let public = PublicKey::parse(algorithm, public).unwrap();
        let gate = gate(vec![Key::public(public, KeyRules::default())]);
        let token = signed(algorithm.jwt(), private, None);
        let mut other = claims();
        other["sub"] = "eve".into();
        let (header, signature) = (token.split('.').next().unwrap(), token.rsplit('.').next().unwrap());
        let stolen = forged(json!({}), other, signature);
        let stolen = format!("{header}.{}", stolen.split_once('.').unwrap().1);

        assert_eq!(gate.verify(&token, NOW_MS).map(|i| i.user().to_owned()), Ok("ada".to_owned()), "{algorithm:?}");
        assert_eq!(gate.verify(&stolen, NOW_MS), Err(AuthError::BadSignature), "{algorithm:?}");
    }
}

/// FAULTS 10.
#[test]
fn the_header_never_chooses_the_algorithm() {
    let none = forged(json!({ "alg": "none" }), claims(), "");
    let none_cased = forged(json!({ "alg": "nOnE" }), claims(), "");
    let public_as_secret = sign(Algorithm::HS256, &Secret::new(RSA_PUBLIC), None, &object(claims())).unwrap();
    let rs256 = signed(jsonwebtoken::Algorithm::RS256, &EncodingKey::from_rsa_pem(RSA_PRIVATE).unwrap(), None);
    let ps256 = signed(jsonwebtoken::Algorithm::PS256, &EncodingKey::from_rsa_pem(RSA_PRIVATE).unwrap(), None);
    let hs512 = sign(Algorithm::HS512, &Secret::new(SECRET), None, &object(claims())).unwrap();

    for token in [&none, &none_cased, &hs512, &rs256] {
        assert_eq!(refusal(vec![hs_key(KeyRules::default())], token), AuthError::WrongAlgorithm);
    }
    for token in [&none, &public_as_secret, &ps256] {
        assert_eq!(refusal(vec![rsa_key()], token), AuthError::WrongAlgorithm);
    }
    // Even where an HMAC key stands beside the RSA key, its public half is not a secret.
    assert_eq!(refusal(vec![rsa_key(), hs_key(KeyRules::default())], &public_as_secret), AuthError::BadSignature);
    // The signature of one algorithm under the name of another.
    let renamed = format!("{}.{}", hs256(claims()).split('.').next().unwrap(), rs256.split_once('.').unwrap().1);
    assert_eq!(refusal(vec![rsa_key(), hs_key(KeyRules::default())], &renamed), AuthError::BadSignature);
    assert_eq!(refusal(vec![], &hs256(claims())), AuthError::WrongAlgorithm);
}

#[test]
fn every_changed_character_of_a_token_is_noticed() {
    let token = hs256(claims());
    let gate = gate(vec![hs_key(KeyRules::default())]);
    for at in 0..token.len() {
        for other in ['A', 'B', '_'] {
            let mut changed: Vec<u8> = token.clone().into_bytes();
            changed[at] = other as u8;
            let changed = String::from_utf8(changed).unwrap();
            // The last character of a 32-byte signature has unused bits; a strict decoder refuses them.
            assert!(changed == token || gate.verify(&changed, NOW_MS).is_err(), "position {at}: {changed}");
        }
    }
}

#[test]
fn a_kid_narrows_the_choice_of_keys() {
    let old = KeyRules { kid: Some("old".to_owned()), ..KeyRules::default() };
    let new = KeyRules { kid: Some("new".to_owned()), ..KeyRules::default() };
    let other =
        Key::symmetric(Algorithm::HS256, &Secret::new(&b"another secret of more than 32 bytes"[..]), new).unwrap();
    let gate = gate(vec![other, hs_key(old)]);
    let token = |kid| sign(Algorithm::HS256, &Secret::new(SECRET), kid, &object(claims())).unwrap();

    assert!(gate.verify(&token(Some("old")), NOW_MS).is_ok());
    assert!(gate.verify(&token(None), NOW_MS).is_ok());
    assert_eq!(gate.verify(&token(Some("new")), NOW_MS), Err(AuthError::BadSignature));
    assert_eq!(gate.verify(&token(Some("stranger")), NOW_MS), Err(AuthError::UnknownKey));
}

/// FAULTS 18.
#[test]
fn times_are_checked_with_a_small_leeway() {
    let strict = |leeway_s| gate(vec![hs_key(KeyRules { leeway_s, ..KeyRules::default() })]);
    let verify = |leeway_s, changes| strict(leeway_s).verify(&hs256(with(changes)), NOW_MS).map(|i| i.expires_ms());

    assert!(matches!(verify(5, json!({ "exp": null })), Err(AuthError::Claim { name, .. }) if name == "exp"));
    assert!(matches!(verify(5, json!({ "exp": "soon" })), Err(AuthError::Claim { name, .. }) if name == "exp"));
    assert_eq!(verify(0, json!({ "exp": NOW_S })), Err(AuthError::Expired));
    assert_eq!(verify(5, json!({ "exp": NOW_S - 5 })), Err(AuthError::Expired));
    assert_eq!(verify(5, json!({ "exp": -1 })), Err(AuthError::Expired));
    assert_eq!(verify(5, json!({ "exp": NOW_S - 4 })), Ok(Some((NOW_S + 1) * 1_000)));
    assert_eq!(verify(0, json!({ "exp": NOW_S as f64 + 0.5 })), Ok(Some(NOW_MS + 500)));
    assert_eq!(verify(5, json!({ "exp": u64::MAX })), Ok(Some(u64::MAX)));
    assert_eq!(verify(5, json!({ "nbf": NOW_S + 6 })), Err(AuthError::NotYetValid));
    assert!(verify(5, json!({ "nbf": NOW_S + 5 })).is_ok());
    assert!(matches!(verify(5, json!({ "nbf": [] })), Err(AuthError::Claim { name, .. }) if name == "nbf"));
}

/// FAULTS 18.
#[test]
fn audience_and_issuer_are_demanded_where_configured() {
    let rules = || KeyRules { audience: vec!["chat".into()], issuer: vec!["https://id".into()], ..KeyRules::default() };
    let verify = |changes| gate(vec![hs_key(rules())]).verify(&hs256(with(changes)), NOW_MS);
    let wrong = |changes: Value, claim: &str| {
        let result = verify(changes.clone());
        assert!(matches!(&result, Err(AuthError::Claim { name, .. }) if name == claim), "{changes}: {result:?}");
    };

    assert!(verify(json!({ "aud": "chat", "iss": "https://id" })).is_ok());
    assert!(verify(json!({ "aud": ["mail", "chat"], "iss": "https://id" })).is_ok());
    wrong(json!({ "iss": "https://id" }), "aud");
    wrong(json!({ "aud": "chatter", "iss": "https://id" }), "aud");
    wrong(json!({ "aud": [], "iss": "https://id" }), "aud");
    wrong(json!({ "aud": { "chat": 1 }, "iss": "https://id" }), "aud");
    wrong(json!({ "aud": "chat" }), "iss");
    wrong(json!({ "aud": "chat", "iss": "https://id.evil" }), "iss");
    wrong(json!({ "aud": "chat", "iss": ["https://id"] }), "iss");
}

#[test]
fn what_is_no_signed_token_is_told_apart() {
    let keys = || vec![hs_key(KeyRules::default())];
    for malformed in ["", "a", "a.b", "..", "a.b.c", "a.b.c.d", "a.b.c.d.e.f", "é.é.é", "eyJhbGciOiJIUzI1NiJ9=.e30.x"]
    {
        assert_eq!(refusal(keys(), malformed), AuthError::Malformed, "{malformed:?}");
    }
    assert_eq!(refusal(keys(), &forged(json!([]), claims(), "x")), AuthError::Malformed);
    assert_eq!(refusal(keys(), &forged(json!({ "alg": 7 }), claims(), "x")), AuthError::Malformed);
    assert_eq!(
        refusal(keys(), &forged(json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), claims(), "x")),
        AuthError::CriticalHeader
    );
    assert_eq!(refusal(keys(), &"x".repeat(TOKEN_BYTES_MAX + 1)), AuthError::TooLong);
    let encrypted = refusal(keys(), "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..iv.text.tag");
    assert_eq!(encrypted, AuthError::Encrypted);
    assert!(encrypted.to_string().contains("encrypted session tokens (JWE) are not supported"));
}

#[test]
fn the_user_is_the_first_claim_that_is_there_and_must_be_an_id() {
    let policy = || Policy { user_claims: vec!["sub".into(), "id".into(), "userId".into()], ..Policy::default() };
    let user = |changes: Value| {
        let gate = gate_with(vec![hs_key(KeyRules::default())], policy(), None);
        gate.verify(&hs256(with(changes)), NOW_MS).map(|i| i.user().to_owned())
    };
    let refused = |changes: Value, claim: &str| {
        let result = user(changes.clone());
        assert!(matches!(&result, Err(AuthError::Claim { name, .. }) if name == claim), "{changes}: {result:?}");
    };

    assert_eq!(user(json!({ "id": "other" })), Ok("ada".to_owned()));
    assert_eq!(user(json!({ "sub": null, "id": 42, "userId": "x" })), Ok("42".to_owned()));
    assert_eq!(user(json!({ "sub": null, "userId": "auth0|7" })), Ok("auth0|7".to_owned()));
    refused(json!({ "sub": null }), "sub or id or userId");
    refused(json!({ "sub": "" }), "sub");
    refused(json!({ "sub": "", "id": "fallback" }), "sub");
    refused(json!({ "sub": 1.5 }), "sub");
    refused(json!({ "sub": ["ada"] }), "sub");
    refused(json!({ "sub": true }), "sub");
    refused(json!({ "sub": "a\u{0}b" }), "sub");
    refused(json!({ "sub": "a\nb" }), "sub");
    refused(json!({ "sub": "x".repeat(129) }), "sub");
    refused(json!({ "role": "x\u{7f}" }), "role");
}

/// FAULTS 21: a claim cannot name another tenant's channels by smuggling in a separator.
#[test]
fn a_tenant_claim_must_be_a_name() {
    let tenant = |value: Value| {
        let gate = gate(vec![hs_key(KeyRules::default())]);
        gate.verify(&hs256(with(json!({ "tenant": value }))), NOW_MS).map(|i| i.tenant().to_owned())
    };

    assert_eq!(tenant(Value::Null), Ok("default".to_owned()));
    assert_eq!(tenant(json!("acme")), Ok("acme".to_owned()));
    assert_eq!(tenant(json!(7)), Ok("7".to_owned()));
    for bad in [
        json!(""),
        json!("a/b"),
        json!("../acme"),
        json!(".."),
        json!("a:b"),
        json!("a\u{0}"),
        json!("аcme"),
        json!(["acme"]),
        json!({}),
        json!("x".repeat(129)),
    ] {
        assert!(matches!(tenant(bad.clone()), Err(AuthError::Claim { name, .. }) if name == "tenant"), "{bad}");
    }
}

#[test]
fn host_and_plugin_read_a_repeated_claim_alike() {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let message =
        format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(r#"{"sub":"eve","exp":1900000000,"sub":"ada"}"#));
    let signature = jsonwebtoken::crypto::sign(
        message.as_bytes(),
        &EncodingKey::from_secret(SECRET),
        jsonwebtoken::Algorithm::HS256,
    )
    .unwrap();

    let identity = gate(vec![hs_key(KeyRules::default())]).verify(&format!("{message}.{signature}"), NOW_MS).unwrap();

    assert_eq!(identity.user(), "ada");
    assert_eq!(identity.claims(), r#"{"exp":1900000000,"sub":"ada"}"#);
}

/// FAULTS 17.
#[test]
fn a_token_counts_only_where_the_mount_looks_for_it() {
    let token = hs256(claims());
    let bearer = format!("Bearer {token}");
    let cookie = format!("a=b; session={token}");
    let subprotocol = format!("chat, bearer.{token}");
    let by_query = request(&format!("/ws?token={token}"), &[]);
    let places = [
        ("header", request("/ws", &[("authorization", &bearer)])),
        ("query:token", by_query),
        ("cookie:session", request("/ws", &[("cookie", &cookie), ("origin", "http://h"), ("host", "h")])),
        ("subprotocol", request("/ws", &[("sec-websocket-protocol", &subprotocol)])),
    ];
    for (looked, _) in &places {
        let gate = gate_with(vec![hs_key(KeyRules::default())], sources(&[looked]), None);
        for (place, request) in &places {
            let result = gate.authenticate(request, Wish::Socket, NOW_MS);
            if place == looked {
                assert_eq!(result.map(|i| i.user().to_owned()), Ok("ada".to_owned()), "{looked}");
            } else {
                assert!(matches!(result, Err(AuthError::Missing { .. })), "{place} although only {looked}");
            }
        }
    }
}

#[test]
fn the_first_source_with_a_token_counts_even_if_a_later_one_is_better() {
    let gate = gate_with(vec![hs_key(KeyRules::default())], sources(&["header", "query:token"]), None);
    let good = hs256(claims());

    let both = request(&format!("/ws?token={good}"), &[("authorization", "Bearer a.b.c")]);
    assert_eq!(gate.authenticate(&both, Wish::Socket, NOW_MS), Err(AuthError::Malformed));
    let basic = request(&format!("/ws?token={good}"), &[("authorization", "Basic YTpi")]);
    assert!(gate.authenticate(&basic, Wish::Socket, NOW_MS).is_ok());
    let twice = request(&format!("/ws?token={good}&token={good}"), &[]);
    assert_eq!(gate.authenticate(&twice, Wish::Socket, NOW_MS), Err(AuthError::Malformed));
    let bearer = format!("bearer  {good}");
    assert!(gate.authenticate(&request("/ws", &[("authorization", &bearer)]), Wish::Socket, NOW_MS).is_ok());
}

#[test]
fn errors_name_the_remedy_and_never_the_token() {
    let token = hs256(with(json!({ "exp": 1 })));
    let gate = gate_with(
        vec![hs_key(KeyRules::default())],
        sources(&["header", "query:token", "cookie:s", "subprotocol"]),
        None,
    );

    let missing = gate.authenticate(&request("/ws", &[]), Wish::Socket, NOW_MS).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "no token: send one as \"Authorization: Bearer <JWT>\", or ?token=<JWT>, or the cookie s, or the subprotocol \"bearer.<JWT>\""
    );
    let expired = gate.authenticate(&request(&format!("/ws?token={token}"), &[]), Wish::Socket, NOW_MS).unwrap_err();
    assert_eq!((expired.to_string(), expired.http_status()), ("the token has expired".to_owned(), 401));
    assert!(!format!("{expired:?}{missing:?}").contains(&token));
}

#[test]
fn a_token_is_never_echoed_as_the_subprotocol() {
    let gate = gate(vec![hs_key(KeyRules::default())]);
    let known = Keys::new([]).gate(&Policy::default(), None, &["v2".to_owned(), "v1".to_owned()]);
    let offer = |text: &'static str| request("/ws", &[("sec-websocket-protocol", text)]);

    assert_eq!(gate.subprotocol(&offer("bearer.a.b.c, chat, other")), Some("chat"));
    assert_eq!(gate.subprotocol(&offer("bearer.a.b.c")), None);
    assert_eq!(gate.subprotocol(&request("/ws", &[])), None);
    assert_eq!(known.subprotocol(&offer("bearer.a.b.c, v1, v2")), Some("v1"));
    assert_eq!(known.subprotocol(&offer("v3")), None);
    let two = request("/ws", &[("sec-websocket-protocol", "bearer.x"), ("sec-websocket-protocol", "chat")]);
    assert_eq!(gate.subprotocol(&two), Some("chat"));
}

/// FAULTS 16: a foreign page must not use a visitor's cookie.
#[test]
fn a_cookie_counts_only_from_pages_of_this_host_or_the_list() {
    let token = format!("s={}", hs256(claims()));
    let list = vec!["https://app.example".to_owned()];
    let open = gate_with(vec![hs_key(KeyRules::default())], sources(&["cookie:s"]), None);
    let listed = gate_with(vec![hs_key(KeyRules::default())], sources(&["cookie:s"]), Some(&list));
    let from = |origin: Option<&str>, host: &str| {
        let mut headers = vec![("cookie", token.as_str()), ("host", host)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        request("/ws", &headers)
    };

    assert!(open.authenticate(&from(Some("https://chat.example"), "chat.example"), Wish::Socket, NOW_MS).is_ok());
    assert!(open.authenticate(&from(Some("http://localhost:3000"), "localhost:3000"), Wish::Socket, NOW_MS).is_ok());
    assert!(open.authenticate(&from(Some("https://chat.example"), "chat.example:443"), Wish::Socket, NOW_MS).is_ok());
    for (origin, host) in [
        (Some("https://evil.example"), "chat.example"),
        (Some("https://chat.example.evil"), "chat.example"),
        (Some("http://localhost:8080"), "localhost:3000"),
        (Some("null"), "chat.example"),
        (None, "chat.example"),
    ] {
        assert_eq!(
            open.authenticate(&from(origin, host), Wish::Socket, NOW_MS),
            Err(AuthError::Origin),
            "{origin:?} {host}"
        );
    }
    assert!(listed.authenticate(&from(Some("https://app.example"), "chat.example"), Wish::Socket, NOW_MS).is_ok());
    for origin in [Some("https://chat.example"), Some("http://app.example"), None] {
        assert_eq!(
            listed.authenticate(&from(origin, "chat.example"), Wish::Socket, NOW_MS),
            Err(AuthError::Origin),
            "{origin:?}"
        );
    }
    assert_eq!(AuthError::Origin.http_status(), 403);
}

/// Browsers send no origin with a page's GET to its own host, but say where the page stands.
#[test]
fn a_cookie_counts_for_what_a_page_asks_its_own_host() {
    let token = format!("s={}", hs256(claims()));
    let own = vec!["https://chat.example".to_owned()];
    let other = vec!["https://app.example".to_owned()];
    let from = |site: &str, list: Option<&[String]>| {
        let gate = gate_with(vec![hs_key(KeyRules::default())], sources(&["cookie:s"]), list);
        let headers = [("cookie", token.as_str()), ("host", "chat.example"), ("sec-fetch-site", site)];
        gate.authenticate(&request("/stats", &headers), Wish::Response, NOW_MS)
            .map(|identity| identity.user().to_owned())
    };

    assert_eq!(from("same-origin", None), Ok("ada".to_owned()));
    assert_eq!(from("same-origin", Some(&own)), Ok("ada".to_owned()));
    assert_eq!(from("same-origin", Some(&other)), Err(AuthError::Origin));
    for site in ["cross-site", "same-site", "none", ""] {
        assert_eq!(from(site, None), Err(AuthError::Origin), "{site}");
    }
}

/// Who must say its tenant must have it from its token: `default` is nobody's guess.
#[test]
fn a_token_without_a_tenant_is_refused_where_the_tenant_must_be_stated() {
    let policy = Policy {
        tenant_claims: vec!["tenantId".to_owned(), "tenant".to_owned()],
        stated_tenant: vec![StatedSource::Query("tenant_id".to_owned())],
        must_state: vec![Stated::Tenant],
        ..Policy::default()
    };
    let gate = gate_with(vec![hs_key(KeyRules::default())], policy, None);
    let tenant = |value: Value| {
        gate.verify(&hs256(with(json!({ "tenant": value }))), NOW_MS).map(|identity| identity.tenant().to_owned())
    };

    assert_eq!(tenant(json!("acme")), Ok("acme".to_owned()));
    let error = tenant(Value::Null).unwrap_err();
    assert_eq!(
        (error.http_status(), error.to_string().as_str()),
        (401, "the token's claim \"tenantId or tenant\" is missing")
    );
}

#[test]
fn a_list_of_origins_binds_browsers_and_leaves_other_clients_alone() {
    let bearer = format!("Bearer {}", hs256(claims()));
    let list = vec!["https://app.example".to_owned()];
    let listed = gate_with(vec![hs_key(KeyRules::default())], Policy::default(), Some(&list));
    let open = gate(vec![hs_key(KeyRules::default())]);
    let foreign = request("/ws", &[("authorization", &bearer), ("origin", "https://evil.example")]);
    let none = request("/ws", &[("authorization", &bearer)]);

    assert_eq!(listed.authenticate(&foreign, Wish::Socket, NOW_MS), Err(AuthError::Origin));
    assert!(listed.authenticate(&none, Wish::Socket, NOW_MS).is_ok());
    assert!(open.authenticate(&foreign, Wish::Socket, NOW_MS).is_ok());
    assert_eq!(listed.authenticate_nobody(&foreign), Err(AuthError::Origin));
}

#[test]
fn without_auth_everybody_is_anonymous() {
    let gate = gate_with(vec![], Policy { mode: AuthMode::None, ..Policy::default() }, None);

    let identity = gate.authenticate(&request("/ws", &[]), Wish::Socket, NOW_MS).unwrap();

    assert_eq!(
        (identity.tenant(), identity.user(), identity.role(), identity.claims()),
        ("default", "anonymous", "", "{}")
    );
    assert_eq!(identity.expires_ms(), None);
}

#[test]
fn without_auth_those_who_say_who_they_are_are_believed_where_a_mount_says_so() {
    let user_id_sources = vec!["query:user".parse().unwrap()];
    let policy = Policy { mode: AuthMode::None, insecure_user_id: true, user_id_sources, ..Policy::default() };
    let gate = gate_with(vec![], policy.clone(), None);
    let deaf = gate_with(vec![], Policy { insecure_user_id: false, ..policy }, None);
    let user =
        |gate: &Gate, uri| gate.authenticate(&request(uri, &[]), Wish::Socket, NOW_MS).unwrap().user().to_owned();

    assert_eq!(user(&gate, "/ws?user=ann"), "ann");
    assert_eq!(user(&gate, "/ws"), "anonymous");
    assert_eq!(user(&deaf, "/ws?user=ann"), "anonymous");
}

#[test]
fn keys_that_cannot_be_meant_are_refused_when_read() {
    let parse = |algorithm, pem: &[u8]| PublicKey::parse(algorithm, pem).err();

    assert_eq!(parse(Algorithm::RS256, RSA_PRIVATE), Some(KeyError::Private));
    assert_eq!(parse(Algorithm::RS256, include_bytes!("testdata/rsa_1024_public.pem")), Some(KeyError::Short));
    assert_eq!(parse(Algorithm::HS256, RSA_PUBLIC), Some(KeyError::Symmetric { algorithm: Algorithm::HS256 }));
    for (algorithm, pem) in [
        (Algorithm::ES256, &include_bytes!("testdata/p384_public.pem")[..]),
        (Algorithm::ES384, &include_bytes!("testdata/p256_public.pem")[..]),
        (Algorithm::ES256, RSA_PUBLIC),
        (Algorithm::EdDSA, RSA_PUBLIC),
        (Algorithm::RS256, &include_bytes!("testdata/ed25519_public.pem")[..]),
        (Algorithm::RS256, b"not a key"),
    ] {
        assert_eq!(parse(algorithm, pem), Some(KeyError::Unfit { algorithm }), "{algorithm:?}");
    }
    assert!(Key::symmetric(Algorithm::HS256, &Secret::new(&b""[..]), KeyRules::default()).is_none());
    assert!(Key::symmetric(Algorithm::RS256, &Secret::new(SECRET), KeyRules::default()).is_none());
}
