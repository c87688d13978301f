//! `[websocket]`.

use super::super::WebSocket;
use super::*;

pub(super) fn websocket(mut websocket: Section) -> WebSocket {
    let read = WebSocket {
        message_bytes_max: websocket.size("message_bytes_max", WebSocketSchema::MESSAGE_BYTES_MAX) as u64,
        idle: websocket.duration("idle", WebSocketSchema::IDLE),
        total: websocket.duration("total", WebSocketSchema::TOTAL),
        connections_max: websocket.whole("connections_max", WebSocketSchema::CONNECTIONS_MAX),
    };
    websocket.finish();
    read
}
