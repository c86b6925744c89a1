//! A chat: one says, all hear. The page and the WebSocket are on one port; an idle member owns no thread and no
//! buffer, and one that does not read is told goodbye.
//!
//! `cargo run --example chat`, then open <http://127.0.0.1:5000> twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::websocket::{Event, Prepared, PushError, Pusher, WebSockets};
use tidegate::{Server, http, websocket};

mod support;

const PAGE: &str = "<title>Chat</title><ul id=said></ul><input id=say autofocus placeholder='say something'>
<script>
const socket = new WebSocket(location.href.replace('http', 'ws') + 'chat');
socket.onmessage = event => said.appendChild(document.createElement('li')).textContent = event.data;
say.onchange = () => { socket.send(say.value); say.value = ''; };
</script>";

/// The people in the room.
type Room = Arc<Mutex<HashMap<u64, Pusher>>>;

/// Says something to all. The message is in memory once, however many have yet to take it.
fn tell(room: &Room, text: &str) {
    let message = Prepared::from(text);
    room.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, member| {
        match member.push(message.clone()) {
            Ok(()) => true,
            Err(PushError::Full) => {
                member.close(1008);
                false
            }
            Err(_) => false,
        }
    });
}

fn chat() -> WebSockets {
    let room = Room::default();
    websocket(move |event, socket| {
        match event {
            Event::Open(_) => {
                let mut members = room.lock().unwrap_or_else(PoisonError::into_inner);
                members.insert(socket.id(), socket.pusher()?);
            }
            Event::Text(text) => tell(&room, &format!("{}: {text}", socket.id())),
            Event::Close(_) => {
                room.lock().unwrap_or_else(PoisonError::into_inner).remove(&socket.id());
            }
            _ => {}
        }
        Ok(())
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chat = chat();
    let site = http(move |request, response| match request.path() {
        "/" => response.html(PAGE),
        "/chat" => response.websocket(request, &chat),
        _ => Err(http::status(404)),
    });
    let server = Server::builder().listen(&*support::address(), site)?.bind()?;
    support::say(&server)?;
    server.serve()?.wait();
    Ok(())
}
