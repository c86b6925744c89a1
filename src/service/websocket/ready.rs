//! The ready services over WebSockets.

use super::{Event, WebSocket, WebSockets, websocket};
use crate::service::{Cost, time};
use std::io;
use std::time::Duration;

/// Sends each message back.
pub fn echo() -> WebSockets {
    websocket(send_back).name("echo")
}

fn send_back(event: Event<'_>, socket: &mut WebSocket<'_, '_>) -> io::Result<()> {
    match event {
        Event::Text(text) => socket.send(text),
        Event::Binary(bytes) => socket.send(bytes),
        _ => Ok(()),
    }
}

/// Answers each message with `hello ` and the message.
pub fn hello() -> WebSockets {
    websocket(|event, socket| match event {
        Event::Text(text) => socket.send(&format!("hello {text}")),
        Event::Binary(bytes) => socket.send(&[b"hello ", bytes].concat()[..]),
        _ => Ok(()),
    })
    .name("hello")
}

/// Sends each message back after doing the work, to size a pool before the real handler exists.
pub fn work(cost: Cost) -> WebSockets {
    websocket(move |event, socket| {
        if let Event::Text(_) | Event::Binary(_) = event {
            cost.pay();
        }
        send_back(event, socket)
    })
    .name("work")
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
