//! What authors of plugins work with, as they do: new projects in each language, the examples, and `hotbay plugin dev`.

use serde_json::json;

use crate::support::author::{Desk, Language, talk};

/// Goal: what `plugin new` makes can be built, passes its scenarios, and runs as its README.md says.
async fn a_new_project_works(name: &str, language: Language) {
    let desk = Desk::new_project(name, language);

    let tested = desk.hotbay(&["plugin", "test"]);
    assert_eq!(tested.code, Some(0), "{tested:?}");
    assert!(tested.out.contains("ok      ./scenarios/first.toml: 5 steps"), "{tested:?}");

    let mut broker = desk.start(&["serve", "--config", "hotbay.toml", "--listen", "127.0.0.1:0"]);
    let address = broker.address("listening on http://").await;
    let token = desk.hotbay(&["token", "--config", "hotbay.toml", "--user", "ann"]).words();
    talk(&format!("ws://{address}/{name}/lobby?token={}", token.trim()), 1).await;
    assert_eq!(broker.interrupt().await, Some(0));
}

#[tokio::test]
async fn a_new_project_in_rust_works() {
    a_new_project_works("in-rust", Language::Rust).await;
}

#[tokio::test]
async fn a_new_project_in_javascript_works() {
    a_new_project_works("in-js", Language::Js).await;
}

#[tokio::test]
async fn a_new_project_in_python_works() {
    a_new_project_works("in-python", Language::Python).await;
}

/// Goal: an example would be accepted by a broker, and does what its scenarios say.
fn an_example_is_accepted_and_plays_its_scenarios(desk: &Desk, component: &str, scenarios: usize) {
    let tested = desk.hotbay(&["plugin", "test"]);
    assert_eq!(tested.code, Some(0), "{tested:?}");
    assert_eq!(tested.out.lines().filter(|line| line.starts_with("ok ")).count(), scenarios, "{tested:?}");

    let checked = desk.hotbay(&["plugin", "check", component, "--manifest", "plugin.toml"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.out.contains(&format!("{component}: ok")), "{checked:?}");
}

#[test]
fn the_poll_in_javascript_is_accepted_and_plays_its_scenarios() {
    let desk = Desk::example("poll", Language::Js);
    an_example_is_accepted_and_plays_its_scenarios(&desk, "dist/poll.wasm", 3);
}

#[test]
fn the_leaderboard_in_python_is_accepted_and_plays_its_scenarios() {
    let desk = Desk::example("leaderboard", Language::Python);
    an_example_is_accepted_and_plays_its_scenarios(&desk, "dist/leaderboard.wasm", 2);
}

/// It is one of the plugins of this repository, and built with them.
#[test]
fn the_game_in_rust_is_accepted_and_plays_its_scenarios() {
    let desk = Desk::in_place("tictactoe");
    let component = "../../../target/plugins/wasm32-wasip2/release/tictactoe.wasm";
    an_example_is_accepted_and_plays_its_scenarios(&desk, component, 2);
}

/// Law: while somebody is connected, each build that is good takes over, with what the channel knows, and one that is not changes nothing.
#[tokio::test]
async fn edits_reach_those_who_are_connected_and_mistakes_do_not() {
    let desk = Desk::new_project("edited", Language::Rust);
    let mut dev = desk.start(&["plugin", "dev", "--listen", "127.0.0.1:0"]);
    let address = dev.address("socket   ws://").await;
    let mut ann = talk(&format!("ws://{address}/edited/lobby?user=ann"), 1).await;
    dev.until(r#"#1 ann in   {"text":"hi"}"#).await;
    dev.until(r#"#1 ann out  {"number":1,"text":"hi","user":"ann"}"#).await;
    let said = |number: u64, text: &str| json!({ "number": number, "user": "ann", "text": text });

    let shouts = "let text = text.to_uppercase();\n        println!(\"{text}!\");\n        self.count += 1;";
    desk.edit("src/lib.rs", "self.count += 1;", shouts);
    dev.until("vetted and swapped in").await;
    ann.send(json!({ "text": "hi" })).await;
    assert_eq!(ann.json().await, said(2, "HI"));
    dev.until("edited:lobby: HI!").await;

    desk.edit("src/lib.rs", "text.to_uppercase()", "text.to_uppercase(");
    let told = dev.until("what ran before goes on").await;
    assert!(told.contains("src/lib.rs") && told.contains("error: mismatched closing delimiter"), "{told}");
    assert!(told.contains("✗ `cargo build"), "{told}");
    ann.send(json!({ "text": "still" })).await;
    assert_eq!(ann.json().await, said(3, "STILL"));

    desk.edit("plugin.toml", "schema = 1\naccepts = [1]", "schema = 2");
    dev.until("what ran before goes on").await;
    desk.edit("src/lib.rs", "text.to_uppercase(", "text.repeat(2)");
    let told = dev.until("what ran before goes on").await;
    assert!(told.contains("does not take over state of schema 1"), "{told}");
    assert!(told.contains("without --keep, channels begin with nothing"), "{told}");
    ann.send(json!({ "text": "on" })).await;
    assert_eq!(ann.json().await, said(4, "ON"));

    desk.edit("plugin.toml", "schema = 2", "schema = 2\naccepts = [1, 2]");
    dev.until("vetted and swapped in").await;
    ann.send(json!({ "text": "ho" })).await;
    assert_eq!(ann.json().await, said(5, "hoho"));

    assert_eq!(dev.interrupt().await, Some(0));
    assert_eq!(ann.close_code().await, Some(1012));
}

/// Law: nobody is asked who it is, so nobody else's machine gets in.
#[test]
fn a_broker_of_an_author_listens_on_this_machine_alone() {
    let desk = Desk::new_project("alone", Language::Js);

    let refused = desk.hotbay(&["plugin", "dev", "--listen", "0.0.0.0:0"]);

    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("other machines must not reach it"), "{refused:?}");
}
