//! Frames of the y-websocket protocol: a number for the kind, and for `sync` another one, before a byte string.

use crate::lib0::{Malformed, Read, Reader, write_bytes, write_number};

const SYNC: u64 = 0;
const AWARENESS: u64 = 1;
const AUTH: u64 = 2;
const QUERY_AWARENESS: u64 = 3;
const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;

/// A frame of a client.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame<'a> {
    /// Asks for what somebody with this state vector lacks.
    Step1(&'a [u8]),
    /// Answers a `Step1` of the server with an update.
    Step2(&'a [u8]),
    /// An update. `whole` if there is nothing else in the frame, so that it can go to others as it is.
    Update { update: &'a [u8], whole: bool },
    /// Awareness states.
    Awareness { update: &'a [u8], whole: bool },
    /// Asks for all awareness states.
    QueryAwareness,
    /// Of a kind that a server has nothing to do with.
    Other(u64),
}

impl<'a> Frame<'a> {
    /// Reads a frame.
    pub(crate) fn parse(bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Reader::new(bytes);
        Ok(match reader.number()? {
            SYNC => match reader.number()? {
                STEP_1 => Self::Step1(reader.byte_string()?),
                STEP_2 => Self::Step2(reader.byte_string()?),
                UPDATE => Self::Update { update: reader.byte_string()?, whole: reader.left() == 0 },
                _ => return Err(Malformed("this kind of sync frame is unknown")),
            },
            AWARENESS => Self::Awareness { update: reader.byte_string()?, whole: reader.left() == 0 },
            QUERY_AWARENESS => Self::QueryAwareness,
            other => Self::Other(other),
        })
    }
}

fn frame(head: &[u64], bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 8);
    for number in head {
        write_number(&mut frame, *number);
    }
    write_bytes(&mut frame, bytes);
    frame
}

/// Asks for what the server lacks.
pub(crate) fn step_1(state_vector: &[u8]) -> Vec<u8> {
    frame(&[SYNC, STEP_1], state_vector)
}

/// Answers a `Step1`.
pub(crate) fn step_2(update: &[u8]) -> Vec<u8> {
    frame(&[SYNC, STEP_2], update)
}

/// An update.
pub(crate) fn update(update: &[u8]) -> Vec<u8> {
    frame(&[SYNC, UPDATE], update)
}

/// Awareness states.
pub(crate) fn awareness(states: &[u8]) -> Vec<u8> {
    frame(&[AWARENESS], states)
}

/// Says why something was refused; the client of y-websocket shows it on the console.
pub(crate) fn denied(why: &str) -> Vec<u8> {
    frame(&[AUTH, 0], why.as_bytes())
}
