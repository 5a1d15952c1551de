//! A controller that errs on purpose, at its edge: what the simulation must notice.

use super::super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// An answer is not sent.
    DropAnswer,
    /// An answer is sent twice.
    RepeatAnswer,
    /// A client gets another client's answer.
    MisdirectAnswer,
    /// A request is not given to its engine.
    DropRequest,
    /// A request is given to its engine after the next one.
    DelayRequest,
    /// Clients are not told of a loss.
    HideLoss,
    /// What may have been lost with a killed controller is not said again.
    ForgetRepeats,
}

impl Sabotage {
    pub(super) const ALL: [Sabotage; 7] = [
        Sabotage::DropAnswer,
        Sabotage::RepeatAnswer,
        Sabotage::MisdirectAnswer,
        Sabotage::DropRequest,
        Sabotage::DelayRequest,
        Sabotage::HideLoss,
        Sabotage::ForgetRepeats,
    ];
}

/// How many opportunities pass before one is taken.
const PATIENCE: usize = 3;

pub(super) struct Saboteur {
    sabotage: Sabotage,
    passed: usize,
    delayed: Option<Effect>,
}

impl Saboteur {
    pub(super) fn new(sabotage: Sabotage) -> Saboteur {
        Saboteur { sabotage, passed: 0, delayed: None }
    }

    pub(super) fn meddle(&mut self, effects: &mut Vec<Effect>) {
        if self.sabotage == Sabotage::ForgetRepeats {
            // Any of them: most have arrived, and nobody misses those.
            effects.retain(|effect| !matches!(effect, Effect::Repeat { .. }));
            return;
        }
        if self.delayed.is_some() && effects.iter().any(is_request) {
            effects.extend(self.delayed.take());
        }
        let suits = |effect: &Effect| match self.sabotage {
            Sabotage::DropAnswer | Sabotage::RepeatAnswer | Sabotage::MisdirectAnswer => {
                matches!(effect, Effect::Relay { .. } | Effect::Reply { .. })
            }
            Sabotage::DropRequest | Sabotage::DelayRequest => is_request(effect),
            Sabotage::HideLoss => {
                matches!(effect, Effect::Publish { msg_type: "unregistration_notification", .. })
            }
            Sabotage::ForgetRepeats => false,
        };
        let Some(place) = effects.iter().position(suits) else { return };
        self.passed += 1;
        if self.passed != PATIENCE {
            return;
        }
        match self.sabotage {
            Sabotage::DropAnswer | Sabotage::DropRequest | Sabotage::HideLoss => {
                effects.remove(place);
            }
            Sabotage::RepeatAnswer => effects.push(effects[place].clone()),
            Sabotage::MisdirectAnswer => match &mut effects[place] {
                Effect::Relay { client, .. } | Effect::Reply { client, .. } => {
                    client.address = Address::Connection(Bytes::from_static(b"c9"));
                }
                _ => unreachable!("it is an answer"),
            },
            Sabotage::ForgetRepeats => unreachable!("it has no place"),
            Sabotage::DelayRequest => self.delayed = Some(effects.remove(place)),
        }
    }
}

fn is_request(effect: &Effect) -> bool {
    matches!(effect, Effect::Forward { channel: Channel::Mux, .. })
}
