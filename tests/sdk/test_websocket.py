"""WebSockets by clients that others have written: the OpenAI SDK, the `websockets` library, curl, and hyper-h2 with wsproto."""

import asyncio
import json
import socket
import subprocess

import h2.config
import h2.connection
import h2.events
import pytest
import websockets
import wsproto.events
from wsproto.connection import Connection, ConnectionType
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from conftest import KEY, PATIENCE_S, openai_client

FAST = "mock:ttft=1ms,gap=1ms"


def url(gateway, model, path="/v1/realtime"):
    return gateway.origin.replace("http", "ws", 1) + f"{path}?model={model}"


def talk(gateway, model=FAST, **options):
    headers = {"authorization": f"Bearer {KEY}"} | options.pop("headers", {})
    return connect(url(gateway, model), additional_headers=headers, open_timeout=PATIENCE_S, **options)


def test_the_sdk_talks(oai):
    with oai.realtime.connect(model=f"{FAST},tokens=12") as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        updated = connection.recv()
        assert (updated.type, updated.session.instructions) == ("session.updated", "Be brief.")
        connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]})
        added = connection.recv()
        assert (added.type, added.item.content[0].text) == ("conversation.item.added", "Say hello.")
        assert connection.recv().type == "conversation.item.done"
        connection.response.create()
        text, whole = "", None
        for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.output_text.done":
                whole = event.text
            elif event.type == "response.done":
                break
        assert text == whole and text
        assert event.response.usage.output_tokens == 12


def test_the_sdk_talks_asynchronously_over_many_at_once(gateway):
    import openai

    async def one(client, tokens):
        async with client.realtime.connect(model=f"{FAST},tokens={tokens}") as connection:
            await connection.response.create()
            deltas = 0
            async for event in connection:
                deltas += event.type == "response.output_text.delta"
                if event.type == "response.done":
                    return deltas

    async def all_of_them():
        client = openai.AsyncOpenAI(base_url=gateway.origin + "/v1", api_key=KEY)
        return await asyncio.gather(*(one(client, tokens) for tokens in range(1, 31)))

    assert asyncio.run(all_of_them()) == list(range(1, 31))


@pytest.mark.gateway
def test_a_wrong_key_and_an_unknown_model_are_told_before_anything_opens(gateway, strict):
    for origin, key, model, status, code in [(gateway, "sk-wrong", FAST, 401, "invalid_api_key"),
                                             (strict, KEY, "nobody", 404, "model_not_found")]:
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            talk(origin, model, headers={"authorization": f"Bearer {key}"})
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body)["error"]["code"] == code


@pytest.mark.gateway
def test_a_model_is_renamed_in_the_query(gateway):
    with openai_client(gateway) as client, client.realtime.connect(model="renamed") as connection:
        assert connection.recv().session.model == "mock:tokens=3"


def test_messages_of_any_size_come_back(gateway):
    with talk(gateway, max_size=None, compression="deflate") as socket:
        assert json.loads(socket.recv())["type"] == "session.created"
        # Compression is not agreed on, so that what passes can be followed.
        assert socket.protocol.extensions == []
        for size in [0, 1, 125, 126, 65535, 65536, 3_000_000]:
            socket.send(bytes(size))
            assert socket.recv() == bytes(size), size
        socket.send([b"in ", b"three ", b"frames"])
        assert socket.recv() == b"in three frames"
        assert socket.ping(b"there?").wait(PATIENCE_S)
        socket.send("what is this")
        assert json.loads(socket.recv())["error"]["code"] == "unknown_event"
    assert socket.protocol.close_code == 1000


@pytest.mark.gateway
def test_a_message_that_is_too_large_is_told_with_its_code(gateway):
    with talk(gateway, max_size=None) as socket:
        socket.recv()
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            socket.send(bytes((16 << 20) + 1))
            socket.recv()
        assert closed.value.rcvd.code == 1009


def test_a_provider_that_breaks_off_is_no_proper_close(gateway):
    with talk(gateway, f"{FAST},tokens=5,fault=cut@2") as socket:
        socket.recv()
        socket.send(json.dumps({"type": "response.create"}))
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            while True:
                socket.recv()
        assert closed.value.rcvd is None


@pytest.mark.gateway
def test_a_browser_s_way_to_send_a_key(gateway):
    key = f"openai-insecure-api-key.{KEY}"
    with connect(url(gateway, FAST), subprotocols=["realtime", key], open_timeout=PATIENCE_S) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(socket.recv())["type"] == "session.created"


def test_many_tunnels_stay_apart(gateway):
    async def one(number):
        headers = {"authorization": f"Bearer {KEY}"}
        async with connect_async(url(gateway, FAST), additional_headers=headers, open_timeout=PATIENCE_S) as socket:
            await socket.recv()
            for turn in range(20):
                said = f"{number}:{turn}".encode() * (1 + number)
                await socket.send(said)
                assert await socket.recv() == said

    async def all_of_them():
        await asyncio.gather(*(one(number) for number in range(100)))

    asyncio.run(all_of_them())


def test_curl_sees_the_switch(gateway):
    """curl 7.88 of Debian 12 speaks no ws://; as HTTP/1.1 it shows the head, and the first message behind it."""
    command = ["curl", "--silent", "--http1.1", "-N", "--include", "--max-time", "2", "-H", "Connection: Upgrade",
               "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "-H", f"Authorization: Bearer {KEY}",
               f"{gateway.origin}/v1/realtime?model={FAST}"]
    said = subprocess.run(command, capture_output=True, timeout=60).stdout
    head, _, rest = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), said
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    assert rest[:1] == b"\x81" and b"session.created" in rest, said


class Streams:
    """One HTTP/2 connection of hyper-h2, with a WebSocket of wsproto on each of its streams (RFC 8441)."""

    def __init__(self, port, trust):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        if trust:
            trust.set_alpn_protocols(["h2"])
            self.sock = trust.wrap_socket(self.sock, server_hostname="localhost")
        self.scheme, self.authority = "https" if trust else "http", f"localhost:{port}"
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.http2.initiate_connection()
        self.sockets, self.heard, self.status, self.ended = {}, {}, {}, set()
        self.flush()
        self.until(lambda: self.http2.remote_settings.enable_connect_protocol == 1)

    def flush(self):
        self.sock.sendall(self.http2.data_to_send())

    def until(self, true):
        while not true():
            data = self.sock.recv(65536)
            assert data, "the gateway has closed"
            for event in self.http2.receive_data(data):
                self.take(event)
            self.flush()

    def take(self, event):
        stream = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.ResponseReceived):
            self.status[stream] = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self.http2.acknowledge_received_data(event.flow_controlled_length, stream)
            # What ends a stream may be empty, and nothing to a WebSocket that is closed.
            if event.data:
                self.sockets[stream].receive_data(event.data)
                self.heard[stream] += list(self.sockets[stream].events())
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            self.ended.add(stream)

    def open(self, model, protocol="websocket"):
        stream = self.http2.get_next_available_stream_id()
        self.http2.send_headers(stream, [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", self.scheme), (":authority", self.authority),
            (":path", f"/v1/realtime?model={model}"), ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "realtime"), ("authorization", f"Bearer {KEY}")])
        self.sockets[stream], self.heard[stream] = Connection(ConnectionType.CLIENT), []
        self.flush()
        self.until(lambda: stream in self.status)
        return stream

    def send(self, stream, event):
        data = self.sockets[stream].send(event)
        while data:
            self.until(lambda: self.http2.local_flow_control_window(stream) > 0)
            size = min(self.http2.local_flow_control_window(stream), self.http2.max_outbound_frame_size)
            self.http2.send_data(stream, data[:size])
            data = data[size:]
            self.flush()

    def messages(self, stream, count):
        """The next messages of a stream, joined from their frames."""
        def whole():
            messages = [event for event in self.heard[stream] if isinstance(event, wsproto.events.Message)]
            return sum(event.message_finished for event in messages) >= count

        self.until(whole)
        messages, parts = [], []
        while len(messages) < count:
            event = self.heard[stream].pop(0)
            parts.append(event.data)
            if event.message_finished:
                messages.append(parts[0][:0].join(parts))
                parts = []
        return messages


@pytest.mark.gateway
@pytest.mark.parametrize("door", ["tls", "clear"])
def test_streams_of_http2_are_websockets(doors, door):
    streams = Streams(doors.ports[door], doors.trust() if door == "tls" else None)
    opened = [streams.open(f"{FAST},tokens={tokens}") for tokens in (3, 7)]
    for stream in opened:
        assert streams.status[stream][b":status"] == b"200"
        assert streams.status[stream][b"sec-websocket-protocol"] == b"realtime"
        assert json.loads(streams.messages(stream, 1)[0])["type"] == "session.created"
    for stream in opened:
        streams.send(stream, wsproto.events.TextMessage(data=json.dumps({"type": "response.create"})))
    for stream, tokens in zip(opened, (3, 7)):
        events = [json.loads(text)["type"] for text in streams.messages(stream, 7 + tokens)]
        assert events.count("response.output_text.delta") == tokens and events[-1] == "response.done"
    large = bytes(range(256)) * 4000
    streams.send(opened[0], wsproto.events.BytesMessage(data=large))
    assert bytes(streams.messages(opened[0], 1)[0]) == large
    streams.send(opened[0], wsproto.events.CloseConnection(code=1000))
    streams.until(lambda: opened[0] in streams.ended)
    closed = [event for event in streams.heard[opened[0]] if isinstance(event, wsproto.events.CloseConnection)]
    assert [event.code for event in closed] == [1000]
    # The other is not touched by that.
    streams.send(opened[1], wsproto.events.BytesMessage(data=b"still"))
    assert bytes(streams.messages(opened[1], 1)[0]) == b"still"
    assert streams.status[streams.open(FAST, protocol="connect-udp")][b":status"] == b"501"
