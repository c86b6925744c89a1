//! The ready services over WebSockets.

use super::{Event, WebSocket, WebSockets, websocket};
use crate::service::time;
use std::io;
use std::time::Duration;

/// Sends each message back.
pub fn echo() -> WebSockets {
    websocket(|event, socket| match event {
        Event::Text(text) => socket.send(text),
        Event::Binary(bytes) => socket.send(bytes),
        _ => Ok(()),
    })
    .name("echo")
}

/// Says the time of day, at once and then again and again, unasked.
pub fn time(every: Duration) -> WebSockets {
    let say = move |socket: &mut WebSocket<'_, '_>| -> io::Result<()> {
        socket.call_in(every);
        socket.send(String::from_utf8_lossy(&time::now()).trim_end())
    };
    websocket(move |event, socket| match event {
        Event::Open(_) | Event::Timer => say(socket),
        _ => Ok(()),
    })
    .name("time")
}
