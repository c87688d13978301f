//! What follows a head, and the frames that a message comes in.

use super::super::super::requests::SMUGGLED;
use super::Fate::{Ended, Passed, Reset};
use super::{JSON, Message, Table};
use crate::common::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, frame, head};

pub fn trailers(table: &mut Table) {
    // Those that are sound are left out, as HTTP/1.1's are that might frame or route: nobody sees any.
    for (name, value, fate) in [
        ("x-t", "y", Passed),
        ("content-length", "3", Passed),
        ("content-length", "x", Passed),
        ("host", "other", Passed),
        ("authorization", "Bearer x", Passed),
        ("content-type", "text/plain", Passed),
        ("te", "trailers", Passed),
        ("trailer", "x", Passed),
        // The library passes these over.
        (":path", "/v1/smuggled", Passed),
        (":method", "GET", Passed),
        (":authority", "other", Passed),
        (":status", "200", Passed),
        (":unknown", "x", Ended),
        (":method", "GE T", Ended),
        ("transfer-encoding", "chunked", Reset),
        ("connection", "close", Reset),
        ("keep-alive", "1", Reset),
        ("proxy-connection", "close", Reset),
        ("upgrade", "h2c", Reset),
        ("te", "gzip", Reset),
        ("X-T", "y", Ended),
        ("x t", "y", Ended),
        ("", "y", Ended),
        ("x-t", "y\r\nx-smuggled: z", Ended),
        ("x-t", "\0", Ended),
        ("x-t", SMUGGLED, Ended),
    ] {
        let name_of = format!("{name}: {value:?}");
        table.add("trailer", &name_of, Message::json(JSON).trailer(name, value), fate);
        if fate == Passed {
            let streamed = Message::post("hello").with("te", "trailers").trailer(name, value);
            table.add("trailer, streamed", &name_of, streamed, fate);
        }
    }
    let json = || Message::json(JSON).trailer("x-t", "y");
    table.add("trailers", "a late pseudo field", json().trailer(":path", "/v1/smuggled"), Reset);
    table.add("trailers", "with the right length before", json().with("content-length", "7"), Passed);
    table.add("trailers", "with more before", json().with("content-length", "6"), Reset);
    table.add("trailers", "with less before", json().with("content-length", "8"), Reset);
    table.add("trailers", "without a body", Message::get().set(":method", "POST").trailer("x-t", "y"), Passed);
    let lengthy = Message::get().set(":method", "POST").with("content-length", "7").trailer("x-t", "y");
    table.add("trailers", "without a body that was announced", lengthy, Reset);
    table.add("trailers", "that do not end it", json().open(), Reset);
    table.add("trailers", "as long as a head", json().trailer("x", &"y".repeat(20 << 10)), Passed);
}

/// The same messages in other frames, and frames that are out of place.
pub fn frames(table: &mut Table) {
    let json = || Message::json(JSON).with("content-length", "7");
    table.framed("frames", "a head of one byte each", json(), Passed, |message, stream| {
        let block = message.block();
        // As many as the library takes.
        let (first, rest) = block.split_at(1);
        let mut bytes = frame(HEADERS, 0, stream, first);
        let pieces: Vec<_> = rest.chunks(rest.len().div_ceil(5)).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let last = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, last, stream, piece));
        }
        [bytes, message.rest(stream)].concat()
    });
    table.framed("frames", "a padded head", json(), Passed, |message, stream| {
        let payload = [&[7][..], &message.block(), &[0; 7]].concat();
        [frame(HEADERS, END_HEADERS | PADDED, stream, &payload), message.rest(stream)].concat()
    });
    table.framed("frames", "a head with a priority", json(), Passed, |message, stream| {
        let payload = [&[0, 0, 0, 0, 16][..], &message.block()].concat();
        [frame(HEADERS, END_HEADERS | 0x20, stream, &payload), message.rest(stream)].concat()
    });
    table.framed("frames", "padded content", json(), Passed, |message, stream| {
        let payload = [&[200][..], &message.data[0], &SMUGGLED.repeat(6).as_bytes()[..200]].concat();
        [message.head(stream), frame(DATA, END_STREAM | PADDED, stream, &payload)].concat()
    });
    table.framed("frames", "padding longer than its frame", json(), Ended, |message, stream| {
        let payload = [&[8][..], &message.data[0]].concat();
        [message.head(stream), frame(DATA, END_STREAM | PADDED, stream, &payload)].concat()
    });
    table.framed("frames", "unknown frames between", json(), Passed, |message, stream| {
        let unknown = frame(0x77, 0xff, stream, SMUGGLED.as_bytes());
        [message.head(stream), unknown.clone(), message.rest(stream), unknown].concat()
    });
    table.framed("frames", "content within a head", json(), Ended, |message, stream| {
        let block = message.block();
        let data = frame(DATA, END_STREAM, stream, &message.data[0]);
        [frame(HEADERS, 0, stream, &block), data, frame(CONTINUATION, END_HEADERS, stream, &[])].concat()
    });
    table.framed("frames", "another stream's end of a head", json(), Ended, |message, stream| {
        let block = message.block();
        [frame(HEADERS, 0, stream, &block), frame(CONTINUATION, END_HEADERS, stream + 2, &[])].concat()
    });
    table.framed("frames", "a head that ends within a field", json(), Ended, |message, stream| {
        let block = message.block();
        [head(stream, &block[..block.len() - 1], false), message.rest(stream)].concat()
    });
    table.framed("frames", "an index that stands for nothing", json(), Ended, |message, stream| {
        [head(stream, &[message.block(), vec![0xbe]].concat(), false), message.rest(stream)].concat()
    });
    table.framed("frames", "a line end in Huffman's code", Message::get(), Ended, |message, stream| {
        // 'a' CR LF 'b', and the padding.
        let bits = "00011".to_owned() + &"1".repeat(28) + "01" + &"1".repeat(28) + "00" + "100011";
        let bits = bits.clone() + &"1".repeat(7 - (bits.len() + 7) % 8);
        let bytes = bits.as_bytes().chunks(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0')));
        let coded: Vec<u8> = bytes.collect();
        let value = [&[0, 3][..], b"x-a", &[0x80 | coded.len() as u8], &coded].concat();
        head(stream, &[message.block(), value].concat(), true)
    });
    table.framed("frames", "a stream of the server's", Message::get(), Ended, |message, _| message.head(2));
    table.framed("frames", "no stream", Message::get(), Ended, |message, _| message.head(0));
    table.framed("frames", "content before any head", json(), Ended, Message::rest);
    table.framed("frames", "content of no stream", json(), Ended, |message, stream| {
        [message.head(stream), message.rest(0)].concat()
    });
    table.framed("frames", "a head that depends on itself", Message::get(), Passed, |message, stream| {
        let payload = [&stream.to_be_bytes()[..], &[16], &message.block()].concat();
        frame(HEADERS, END_HEADERS | END_STREAM | 0x20, stream, &payload)
    });
}
