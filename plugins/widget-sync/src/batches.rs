//! Several operations in one message: all or nothing (`WIDGET_BATCH`), or one after another, each for itself (`SYNC_UPDATE`
//! and its twin over HTTP), of which there may be more. Operations with a name are done once: a repeated one is answered with
//! its first result.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hotbay_sdk::{Channel, Refusal, RefusalCode, json};

use crate::WidgetSync;
use crate::budget::FRAME_BYTES;
use crate::changes::{Actor, News};
use crate::dashboard::{Dashboard, Outcome};
use crate::encode;
use crate::frame::{Item, Items};
use crate::operation::Operation;
use crate::results::{RESULT_BYTES, Results, Verdict};

/// What `WIDGET_BATCH` made of its operations.
struct Done<'a> {
    /// One for each operation.
    verdicts: Vec<Verdict>,
    /// Those that were not repeated, by their index.
    news: Vec<(usize, News<'a>)>,
}

/// What a `SYNC_UPDATE` or its twin made of its operations.
pub(crate) struct Synced {
    /// One for each operation.
    pub(crate) verdicts: Vec<Verdict>,
    /// Whether a widget was changed.
    pub(crate) changed_widgets: bool,
}

impl WidgetSync {
    /// A `WIDGET_BATCH`: all or nothing; says whether a widget was changed.
    pub(crate) fn batch(&mut self, channel: &mut Channel, actor: &Actor<'_>, payload: &str) -> Result<bool, Refusal> {
        let items = Items::batch(payload)?;
        check_count(&items, self.settings.pending_max)?;
        let alone = self.budget.is_fresh();
        let Done { verdicts, news } = self.apply_all(channel, actor, &items).map_err(|why| {
            // What does not even fit into a batch of its own never will.
            let never = alone && why.code == RefusalCode::Unavailable;
            if never { Refusal::too_large("these operations are too large together") } else { why }
        })?;
        let version = Dashboard::of(&mut self.dashboard, channel, &self.settings).version();
        for (index, _) in &news {
            if let Some(id) = items[*index].id() {
                self.results(channel).keep(actor.user, id, verdicts[*index].clone());
            }
        }
        self.announce_batch(channel, actor, payload, &items, &news);
        self.answer(channel, actor, "ACK", |json| {
            json.push_str("{\"received\":true,\"version\":");
            json::number(json, version);
            json.push_str(",\"results\":");
            write_results(json, &items, &verdicts);
            json.push('}');
        });
        Ok(news.iter().any(|(_, news)| Operation::is_of_widget(news.kind)))
    }

    /// Does all operations, or none.
    fn apply_all<'a>(
        &mut self,
        channel: &Channel,
        actor: &Actor<'_>,
        items: &'a [Item<'_>],
    ) -> Result<Done<'a>, Refusal> {
        let operations = items.iter().zip(1..).map(|(item, position)| {
            self.parse(&item.kind, item.payload()).map_err(|why| at(position, &why.message, why.code))
        });
        let operations = operations.collect::<Result<Vec<_>, _>>()?;
        self.budget.take(1, items.len() * RESULT_BYTES + FRAME_BYTES)?;
        Dashboard::of(&mut self.dashboard, channel, &self.settings).begin();
        let done = self.apply_each(channel, actor, items, &operations);
        let dashboard = Dashboard::of(&mut self.dashboard, channel, &self.settings);
        match &done {
            Ok(_) => dashboard.commit(),
            Err(_) => dashboard.roll_back(),
        }
        done
    }

    /// Does operations up to the first that fails.
    fn apply_each<'a>(
        &mut self,
        channel: &Channel,
        actor: &Actor<'_>,
        items: &'a [Item<'_>],
        operations: &[Operation<'_>],
    ) -> Result<Done<'a>, Refusal> {
        let mut done = Done { verdicts: Vec::with_capacity(items.len()), news: Vec::with_capacity(items.len()) };
        let mut named: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, (item, operation)) in items.iter().zip(operations).enumerate() {
            let earlier = item.id().and_then(|id| named.get(id)).map(|earlier| done.verdicts[*earlier].clone());
            let first = earlier.or_else(|| self.first_result(channel, actor, item));
            let verdict = match first {
                Some(first) => first,
                None => match self.apply(channel, operation, item.payload()) {
                    Ok(Outcome::Applied(version)) => {
                        let news = self.news(channel, operation, &item.kind, item.payload());
                        done.news.push((index, news));
                        Verdict::applied(version)
                    }
                    Ok(Outcome::Clash(version)) => Verdict::clash(version),
                    Err(why) => return Err(at(index + 1, &why.message, why.code)),
                },
            };
            if let Some((code, words)) = &verdict.error {
                let code = if &**code == "not_found" { RefusalCode::NotFound } else { RefusalCode::Conflict };
                return Err(at(index + 1, words, code));
            }
            done.verdicts.push(verdict);
            named.extend(item.id().map(|id| (id, index)));
        }
        Ok(done)
    }

    fn announce_batch(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        payload: &str,
        items: &[Item<'_>],
        news: &[(usize, News<'_>)],
    ) {
        if news.is_empty() {
            return;
        }
        let as_it_came = news.iter().all(|(_, news)| matches!(news.payload, Cow::Borrowed(_)));
        if as_it_came && news.len() == items.len() {
            self.announce(channel, actor, "WIDGET_BATCH", payload);
            return;
        }
        let mut payload = "{\"operations\":".to_owned();
        json::list(&mut payload, news, |json, (index, news)| {
            json.push('{');
            if let Some(id) = items[*index].id() {
                json.push_str("\"operationId\":");
                json.push_str(id);
                json.push(',');
            }
            json.push_str("\"type\":\"");
            json.push_str(news.kind); // One of the four, so there is nothing to escape.
            json.push_str("\",\"payload\":");
            json.push_str(&news.payload);
            json.push('}');
        });
        payload.push('}');
        self.announce(channel, actor, "WIDGET_BATCH", &payload);
    }

    /// A `SYNC_UPDATE`; says whether a widget was changed.
    pub(crate) fn sync_update(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        payload: &str,
    ) -> Result<bool, Refusal> {
        let items = Items::sync(payload)?;
        let Synced { verdicts, changed_widgets } = self.sync(channel, actor, &items)?;
        let version = Dashboard::of(&mut self.dashboard, channel, &self.settings).version();
        self.answer(channel, actor, "ACK", |json| {
            json.push_str("{\"received\":true,\"version\":");
            json::number(json, version);
            json.push_str(if is_success(&verdicts) { ",\"success\":true" } else { ",\"success\":false" });
            json.push_str(",\"results\":");
            write_results(json, &items, &verdicts);
            json.push('}');
        });
        Ok(changed_widgets)
    }

    /// Does operations one after another, each for itself, and gives the result of each.
    ///
    /// # Errors
    /// If there are too many; none is done then.
    pub(crate) fn sync(
        &mut self,
        channel: &mut Channel,
        actor: &Actor<'_>,
        items: &[Item<'_>],
    ) -> Result<Synced, Refusal> {
        check_count(items, self.settings.queue_max)?;
        self.budget.take(1, items.len() * RESULT_BYTES)?;
        let mut synced = Synced { verdicts: Vec::with_capacity(items.len()), changed_widgets: false };
        for item in items {
            if let Some(first) = self.first_result(channel, actor, item) {
                synced.verdicts.push(first);
                continue;
            }
            let verdict = self.sync_one(channel, actor, item);
            synced.changed_widgets |= verdict.error.is_none() && Operation::is_of_widget(&item.kind);
            synced.verdicts.push(verdict);
        }
        Ok(synced)
    }

    fn sync_one(&mut self, channel: &mut Channel, actor: &Actor<'_>, item: &Item<'_>) -> Verdict {
        let operation = match self.parse(&item.kind, item.payload()) {
            Ok(operation) => operation,
            Err(why) => return Verdict::refused(&why),
        };
        let verdict = match self.apply(channel, &operation, item.payload()) {
            Ok(Outcome::Applied(version)) => {
                let news = self.news(channel, &operation, &item.kind, item.payload());
                self.announce(channel, actor, news.kind, &news.payload);
                Verdict::applied(version)
            }
            Ok(Outcome::Clash(version)) => Verdict::clash(version),
            Err(why) if why.code == RefusalCode::NotFound => Verdict::refused(&why),
            // Not kept: it may succeed the next time.
            Err(why) => return Verdict::refused(&why),
        };
        if let Some(id) = item.id() {
            self.results(channel).keep(actor.user, id, verdict.clone());
        }
        verdict
    }

    /// The result of an operation that was done before.
    fn first_result(&mut self, channel: &Channel, actor: &Actor<'_>, item: &Item<'_>) -> Option<Verdict> {
        let id = item.id()?;
        self.results(channel).get(actor.user, id).cloned()
    }

    fn results(&mut self, channel: &Channel) -> &mut Results {
        Results::of(&mut self.results, channel, self.settings.operations_kept_max)
    }
}

fn check_count(items: &[Item<'_>], count_max: usize) -> Result<(), Refusal> {
    if items.len() > count_max {
        return Err(encode::too_many_pending(&format!("a message has at most {count_max}")));
    }
    Ok(())
}

/// Whether none failed.
pub(crate) fn is_success(verdicts: &[Verdict]) -> bool {
    verdicts.iter().all(|verdict| verdict.error.is_none())
}

/// Writes `results`.
pub(crate) fn write_results(json: &mut String, items: &[Item<'_>], verdicts: &[Verdict]) {
    json::list(json, items.iter().zip(verdicts), |json, (item, verdict)| verdict.write(json, item.id()));
}

/// A refusal of all operations because of one.
fn at(position: usize, message: &str, code: RefusalCode) -> Refusal {
    Refusal::new(code, format!("operation {position}: {message}"))
}
