//! Random histories, with sleeps and crashes anywhere, against a model that keeps everything in plain JSON values.

use std::collections::BTreeMap;

use hotbay_sdk::MemberId;
use hotbay_sdk::harness::Rng;
use serde_json::{Map, Value, json};

use super::{Board, board_with, only, send, snapshot};

/// What the dashboard should be.
#[derive(Clone, Default)]
struct Model {
    version: u64,
    widgets: BTreeMap<String, (u64, Map<String, Value>)>,
    deleted: BTreeMap<String, u64>,
    layouts: Vec<Value>,
}

impl Model {
    /// The new version, or the code of the failure.
    fn apply(&mut self, operation: &Value) -> Result<u64, &'static str> {
        let payload = &operation["payload"];
        let id = payload["widgetId"].as_str().unwrap_or("").to_owned();
        let base = payload["baseVersion"].as_u64();
        let live = self.widgets.get(&id).map(|(version, _)| *version);
        let buried = self.deleted.get(&id).copied();
        let version = match operation["type"].as_str().unwrap() {
            "WIDGET_UPDATE" => {
                let clashes = match (live, base) {
                    (_, None) => false,
                    (Some(version), Some(base)) => base != version,
                    (None, Some(base)) => base != 0 && Some(base) != buried,
                };
                if clashes {
                    return Err("conflict");
                }
                let version = live.or(buried).unwrap_or(0) + 1;
                self.deleted.remove(&id);
                let widget = self.widgets.entry(id).or_default();
                widget.0 = version;
                widget.1.extend(payload["data"].as_object().unwrap().clone());
                version
            }
            "WIDGET_DELETE" => {
                let version = live.ok_or("not_found")?;
                if base.is_some_and(|base| base != version) {
                    return Err("conflict");
                }
                self.widgets.remove(&id);
                self.deleted.insert(id, version + 1);
                version + 1
            }
            "LAYOUT_UPDATE" => {
                if base.is_some_and(|base| base != self.layouts.len() as u64) {
                    return Err("conflict");
                }
                self.layouts.push(payload["layout"].clone());
                self.layouts.len() as u64
            }
            _ => {
                let newest = self.layouts.len() as u64;
                let version = payload["version"].as_u64().unwrap_or(newest.saturating_sub(1));
                if version == 0 || version > newest || version + 20 <= newest {
                    return Err("not_found");
                }
                self.layouts.push(self.layouts[version as usize - 1].clone());
                newest + 1
            }
        };
        self.version += 1;
        Ok(version)
    }

    fn check(&self, board: &mut Board, id: MemberId, user: &str, context: &str) {
        let all = snapshot(board, id, user);
        assert_eq!(all["version"], self.version, "{context}");
        let widgets =
            self.widgets.iter().map(|(id, (version, data))| (id.clone(), json!({"version": version, "data": data})));
        assert_eq!(all["widgets"], Value::Object(widgets.collect()), "{context}");
        assert_eq!(all["layout"], self.layouts.last().cloned().unwrap_or_default(), "{context}");
        assert_eq!(all["layoutVersion"], self.layouts.len(), "{context}");
        let changes = only(&send(board, id, user, "SYNC_REQUEST", json!({"since": 0})), id)["payload"].clone();
        let mut deleted: Vec<&str> =
            changes["deleted"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        deleted.sort_unstable();
        assert_eq!(deleted, self.deleted.keys().collect::<Vec<_>>(), "{context}");
    }
}

fn operation(rng: &mut Rng) -> Value {
    let widget = rng.pick(&["a", "b", "c", "d\"\\"]).to_owned();
    let mut operation = match rng.below(10) {
        0..5 => {
            let fields =
                (0..rng.below(4)).map(|_| (rng.pick(&["k", "l", "m", "n\n"]).to_owned(), json!(rng.below(1_000))));
            let data: Map<String, Value> = fields.collect();
            json!({"type": "WIDGET_UPDATE", "payload": {"widgetId": widget, "data": data}})
        }
        5..7 => json!({"type": "WIDGET_DELETE", "payload": {"widgetId": widget}}),
        7..9 => json!({"type": "LAYOUT_UPDATE", "payload": {"layout": [rng.below(1_000)]}}),
        _ if rng.below(2) == 0 => json!({"type": "LAYOUT_RESTORE", "payload": {}}),
        _ => json!({"type": "LAYOUT_RESTORE", "payload": {"version": rng.below(30)}}),
    };
    if operation["type"] != "LAYOUT_RESTORE" && rng.below(4) == 0 {
        operation["payload"]["baseVersion"] = json!(rng.below(6));
    }
    operation
}

#[test]
fn any_history_leads_where_the_model_leads_whatever_crashes() {
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
        let mut model = Model::default();
        let mut named: Vec<(Value, Value)> = Vec::new();
        for turn in 0..120 {
            let context = format!("seed {seed}, turn {turn}");
            match rng.below(12) {
                0 => board.sleep(),
                1 => board.crash(),
                2 => _ = board.advance_ms(rng.next() % 5_000),
                _ => {}
            }
            match rng.below(4) {
                0 => {
                    let operations: Vec<Value> = (0..rng.below(5)).map(|_| operation(&mut rng)).collect();
                    let mut next = model.clone();
                    let results: Result<Vec<u64>, _> =
                        operations.iter().map(|operation| next.apply(operation)).collect();
                    let outcome = send(&mut board, ann, "ann", "WIDGET_BATCH", json!({"operations": operations}));
                    let answer = only(&outcome, ann);
                    match results {
                        Ok(versions) => {
                            let told = answer["payload"]["results"].as_array().unwrap();
                            let told: Vec<u64> =
                                told.iter().map(|result| result["version"].as_u64().unwrap()).collect();
                            assert_eq!(told, versions, "{context}");
                            model = next;
                        }
                        Err(code) => assert_eq!(answer["payload"]["code"], code, "{context}"),
                    }
                }
                1 => {
                    let mut operations: Vec<Value> = (0..rng.below(5)).map(|_| operation(&mut rng)).collect();
                    for (index, operation) in operations.iter_mut().enumerate() {
                        operation["operationId"] = json!(format!("{turn}-{index}"));
                    }
                    let mut expected: Vec<Value> = Vec::new();
                    for operation in &operations {
                        let result = model.apply(operation);
                        expected.push(json!([result.is_ok(), result.err()]));
                    }
                    if !named.is_empty() {
                        let (operation, result) = named[rng.below(named.len())].clone();
                        operations.push(operation);
                        expected.push(result);
                    }
                    let outcome = send(&mut board, ann, "ann", "SYNC_UPDATE", json!({"operations": operations}));
                    let told = only(&outcome, ann)["payload"]["results"].clone();
                    let told: Vec<Value> = told
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|result| json!([result["success"], result.get("code")]))
                        .collect();
                    assert_eq!(told, expected, "{context}: {operations:?}");
                    named.extend(operations.into_iter().zip(expected));
                }
                _ => {
                    let operation = operation(&mut rng);
                    let kind = operation["type"].as_str().unwrap();
                    let outcome = send(&mut board, bob, "bob", kind, operation["payload"].clone());
                    let answer = only(&outcome, bob);
                    match model.apply(&operation) {
                        Ok(version) => assert_eq!(answer["payload"]["version"], version, "{context}: {operation}"),
                        Err("conflict") => assert_eq!(answer["type"], "CONFLICT_DETECTED", "{context}: {operation}"),
                        Err(code) => assert_eq!(answer["payload"]["code"], code, "{context}: {operation}"),
                    }
                }
            }
            if turn % 10 == 9 {
                model.check(&mut board, ann, "ann", &context);
                board.crash();
                model.check(&mut board, ann, "ann", &context);
            }
            send(&mut board, ann, "ann", "PONG", json!({}));
            send(&mut board, bob, "bob", "PONG", json!({}));
        }
    }
}

/// A client that only listens, counting one for each change it hears of, ends with what the server has.
#[test]
fn whoever_only_listens_ends_with_the_same_dashboard() {
    for seed in 100..120 {
        let mut rng = Rng(seed);
        let (mut board, [ann, bob]) = board_with(["ann", "bob"]);
        let mut heard = Model::default();
        for _ in 0..150 {
            let operation = operation(&mut rng);
            let kind = operation["type"].as_str().unwrap();
            let outcome = if rng.below(3) == 0 {
                board.publish(json!({"type": kind, "payload": operation["payload"]}).to_string())
            } else {
                send(&mut board, ann, "ann", kind, operation["payload"].clone())
            };
            for frame in super::frames(&outcome, bob) {
                heard.apply(&frame).unwrap();
            }
        }
        heard.check(&mut board, bob, "bob", &format!("seed {seed}"));
    }
}
