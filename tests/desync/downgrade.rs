//! Messages of HTTP/2.

#[expect(dead_code, reason = "of the table only the messages are needed")]
#[path = "../differential/downgrade/messages.rs"]
pub mod messages;
