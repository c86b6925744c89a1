//! Frames of WebSockets are read strictly, and alike however they are cut into pieces.

use proptest::prelude::*;
use tidegate::websocket::{FramePiece, FrameReader, Opcode, Violation, close_payload, frame_head, unmask};

const MAX: u64 = 1 << 20;

/// What a reader made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Message(Opcode, Vec<u8>),
    Control(Opcode, Vec<u8>),
    Refused(Violation),
    /// What was read of a message that is not whole.
    Rest(Vec<u8>),
}

fn read_in(pieces: &[&[u8]]) -> Vec<Seen> {
    let mut reader = FrameReader::of_client(MAX);
    let (mut seen, mut message) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut used = 0;
        loop {
            let (n, found) = match reader.next(&piece[used..]) {
                Ok(next) => next,
                Err(violation) => {
                    seen.push(Seen::Refused(violation));
                    return seen;
                }
            };
            used += n;
            match found {
                FramePiece::More => {
                    assert_eq!(used, piece.len(), "a reader that wants more has used all");
                    break;
                }
                FramePiece::Payload(bytes, key) => {
                    let start = message.len();
                    message.extend_from_slice(bytes);
                    unmask(&mut message[start..], key);
                }
                FramePiece::Message(opcode) => seen.push(Seen::Message(opcode, std::mem::take(&mut message))),
                FramePiece::Control(opcode) => seen.push(Seen::Control(opcode, reader.control().to_vec())),
            }
        }
    }
    assert!(reader.is_between() || !seen.iter().any(|it| matches!(it, Seen::Refused(_))));
    if !message.is_empty() {
        seen.push(Seen::Rest(message));
    }
    seen
}

/// Reads it whole, cut in two at every place, and byte by byte: all must be alike.
#[track_caller]
fn read(bytes: &[u8]) -> Vec<Seen> {
    let whole = read_in(&[bytes]);
    for at in 0..bytes.len().min(500) {
        let (start, end) = bytes.split_at(at);
        assert_eq!(read_in(&[start, end]), whole, "cut at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read_in(&single), whole);
    whole
}

/// A client's frame with these first bits.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = frame_head(Opcode::Text, payload.len()).as_ref().to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend(key);
    let start = bytes.len();
    bytes.extend(payload);
    unmask(&mut bytes[start..], key);
    bytes
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read(&hello), [Seen::Message(Opcode::Text, b"Hello".to_vec())]);
    let fragments = [frame(0x01, b"Hel"), frame(0x89, b"ping"), frame(0x80, b"lo")].concat();
    let expected =
        [Seen::Control(Opcode::Ping, b"ping".to_vec()), Seen::Message(Opcode::Text, b"Hello".to_vec())];
    assert_eq!(read(&fragments), expected);
    let mut reader = FrameReader::of_server(MAX);
    assert_eq!(
        reader.next(&[0x81, 5, b'H', b'e', b'l', b'l', b'o']),
        Ok((7, FramePiece::Payload(b"Hello", [0; 4])))
    );
}

#[test]
fn every_length_is_read_and_written() {
    for length in [0, 1, 3, 4, 125, 126, 127, 4095, 4096, 65_535, 65_536, 200_000] {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        assert_eq!(read(&frame(0x82, &payload)), [Seen::Message(Opcode::Binary, payload)]);
    }
    assert_eq!(
        read(&[frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")].concat()),
        [Seen::Message(Opcode::Binary, vec![])]
    );
    assert_eq!(read(&frame(0x8a, &[7; 125])), [Seen::Control(Opcode::Pong, vec![7; 125])]);
}

#[test]
fn each_rule_of_the_rfc_is_checked() {
    let unmasked = [0x81, 0x05, b'H', b'e', b'l', b'l', b'o'];
    let mut not_short = vec![0x81, 0xfe, 0, 125, 0, 0, 0, 0];
    not_short.extend([0; 125]);
    for (bytes, why) in [
        (frame(0xc1, b"x"), Violation::ReservedBits),
        (frame(0xa1, b"x"), Violation::ReservedBits),
        (frame(0x91, b"x"), Violation::ReservedBits),
        (frame(0x83, b"x"), Violation::Opcode),
        (frame(0x87, b"x"), Violation::Opcode),
        (frame(0x8b, b"x"), Violation::Opcode),
        (frame(0x8f, b"x"), Violation::Opcode),
        (unmasked.to_vec(), Violation::NotMasked),
        (not_short, Violation::Length),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::Length),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
        (vec![0x89, 0xfe], Violation::ControlTooLong),
        (frame(0x09, b"x"), Violation::ControlFragmented),
        (frame(0x08, b""), Violation::ControlFragmented),
        (frame(0x80, b"x"), Violation::ContinuesNothing),
        (frame(0x00, b"x"), Violation::ContinuesNothing),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1], Violation::MessageTooLong),
    ] {
        assert_eq!(read(&bytes), [Seen::Refused(why)], "{why}");
    }
    let begun = Seen::Rest(b"x".to_vec());
    for (then, why) in [
        (frame(0x81, b"y"), Violation::MessageInMessage),
        (frame(0x02, b"y"), Violation::MessageInMessage),
        (vec![0x80, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0], Violation::MessageTooLong),
    ] {
        let seen = read(&[frame(0x01, b"x"), then].concat());
        assert_eq!(seen, [Seen::Refused(why)], "{why}: {begun:?}");
    }
    let mut reader = FrameReader::of_server(MAX);
    assert_eq!(reader.next(&frame(0x81, b"x")), Err(Violation::Masked));
}

#[test]
fn close_codes_are_those_that_may_be_sent() {
    assert_eq!(close_payload(b""), Ok((None, "")));
    assert_eq!(close_payload(b"\x03"), Err(Violation::CloseCode));
    for code in 0..=u16::MAX {
        let may = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let payload = [&code.to_be_bytes(), "caf\u{e9}".as_bytes()].concat();
        let expected = if may { Ok((Some(code), "caf\u{e9}")) } else { Err(Violation::CloseCode) };
        assert_eq!(close_payload(&payload), expected, "{code}");
    }
    assert_eq!(close_payload(b"\x03\xe8\xff"), Err(Violation::Utf8));
    assert_eq!(Violation::Utf8.close_code(), 1007);
    assert_eq!(Violation::MessageTooLong.close_code(), 1009);
    assert_eq!(Violation::NotMasked.close_code(), 1002);
}

/// Messages in fragments, with control frames between them: the bytes, and what is to be seen.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Seen>)> {
    let fragment = prop::collection::vec(any::<u8>(), 0..300);
    let control = prop_oneof![Just((0x89, Opcode::Ping)), Just((0x8a, Opcode::Pong))];
    let control = prop::option::of((control, prop::collection::vec(any::<u8>(), 0..=125)));
    let message = (any::<bool>(), prop::collection::vec((fragment, control), 1..5));
    prop::collection::vec(message, 0..6).prop_map(|messages| {
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        for (text, fragments) in messages {
            let opcode = if text { Opcode::Text } else { Opcode::Binary };
            let (mut whole, count) = (Vec::new(), fragments.len());
            for (n, (payload, control)) in fragments.into_iter().enumerate() {
                if let Some(((first, opcode), payload)) = control {
                    bytes.extend(frame(first, &payload));
                    seen.push(Seen::Control(opcode, payload));
                }
                let kind = if n > 0 { 0 } else { 1 + u8::from(!text) };
                bytes.extend(frame(kind | if n + 1 == count { 0x80 } else { 0 }, &payload));
                whole.extend(payload);
            }
            seen.push(Seen::Message(opcode, whole));
        }
        (bytes, seen)
    })
}

fn cut<'b>(bytes: &'b [u8], places: &[f64]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|share| (share * bytes.len() as f64) as usize).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        pieces.push(&bytes[start..place]);
        start = place;
    }
    pieces.push(&bytes[start..]);
    pieces
}

proptest! {
    #[test]
    fn messages_are_put_together_under_every_split(
        (bytes, seen) in conversation(),
        places in prop::collection::vec(0.0..1.0f64, 0..8),
    ) {
        prop_assert_eq!(read_in(&cut(&bytes, &places)), seen);
    }

    #[test]
    fn noise_never_panics_and_is_judged_alike(
        (mut bytes, _) in conversation(),
        damage in prop::collection::vec((0.0..1.0f64, any::<u8>()), 0..6),
        places in prop::collection::vec(0.0..1.0f64, 0..8),
    ) {
        for (place, byte) in damage {
            let at = (place * bytes.len() as f64) as usize;
            if let Some(it) = bytes.get_mut(at) {
                *it = byte;
            }
        }
        prop_assert_eq!(read_in(&cut(&bytes, &places)), read_in(&[&bytes]));
    }
}
