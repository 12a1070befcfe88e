//! The pure functions of a plugin, `route` and `refused`, with frames from a seed: they must survive them, and depend on nothing else. What
//! `route` says also tells by which frames connections join, if they do so by frames.

use std::sync::Arc;

use crate::plugin::content::Content;
use crate::plugin::{Fault, Plugin, Router, Routing};
use crate::protocol::frame::Payload;
use crate::protocol::identity::Identity;
use crate::protocol::name::ChannelName;
use crate::protocol::refusal::{Refusal, RefusalCode};
use crate::registry::conformance::garbage::Garbage;
use crate::registry::conformance::script::Frames;
use crate::registry::conformance::{Conditions, Failure, cut, failed};
use crate::registry::scratch::BEGINS_MS;

/// How many frames.
const FRAMES: usize = 200;
const CODES: [RefusalCode; 11] = [
    RefusalCode::BadRequest,
    RefusalCode::Forbidden,
    RefusalCode::NotFound,
    RefusalCode::NotJoined,
    RefusalCode::TooLarge,
    RefusalCode::RateLimited,
    RefusalCode::Conflict,
    RefusalCode::Unavailable,
    RefusalCode::Fault,
    RefusalCode::Lost,
    RefusalCode::Closing,
];

/// Asks one instance in one order, and another one in the other.
pub(super) async fn run(plugin: &Arc<Plugin>, name: &ChannelName, conditions: &Conditions) -> Result<Frames, Failure> {
    let identity = Identity::new(name.tenant(), "ann", "", "{}", None).by("/conformance");
    let mut garbage = Garbage::new(conditions.seed, name.name(), &conditions.limits);
    let frame = |garbage: &mut Garbage| if garbage.percent(30) { garbage.well_formed() } else { garbage.payload() };
    let asked: Vec<(Payload, RefusalCode)> =
        CODES.into_iter().cycle().take(FRAMES).map(|code| (frame(&mut garbage), code)).collect();
    let [one, other] = [(); 2].map(|()| Router::new(Arc::clone(plugin), Arc::clone(&conditions.limits)));
    let mut answers = Vec::new();
    let mut frames = Frames::default();
    for (frame, code) in &asked {
        let answer = ask(&one, &identity, frame, *code).await?;
        match &answer.0 {
            Routing::Join(_) => frames.joins.push(frame.clone()),
            Routing::Leave(_) => frames.leaves.push(frame.clone()),
            _ => {}
        }
        answers.push(answer);
    }
    for ((frame, code), answer) in asked.iter().zip(answers).rev() {
        let again = ask(&other, &identity, frame, *code).await?;
        if again != answer {
            let asked = Content::from(frame.clone());
            let told = cut(format!("`route` and `refused` of {asked}: {answer:?}, then {again:?}"));
            return Err(Failure::NotDeterministic { differences: vec![told] });
        }
    }
    Ok(frames)
}

async fn ask(
    router: &Router,
    identity: &Identity,
    frame: &Payload,
    code: RefusalCode,
) -> Result<(Routing, Option<Payload>), Failure> {
    let failed = |call, fault: &Fault| failed(call, fault, vec![cut(Content::from(frame.clone()).to_string())]);
    let routing = router.route(identity, BEGINS_MS, frame).await.map_err(|fault| failed("route", &fault))?;
    let why = Refusal::new(code, "conformance");
    // What is refused is not always at hand.
    let at_hand = (!frame.len().is_multiple_of(3)).then_some(frame);
    let told = router.refused(identity, BEGINS_MS, at_hand, &why).await.map_err(|fault| failed("refused", &fault))?;
    Ok((routing, told))
}
