"""The Anthropic SDK, unchanged but for its base_url."""

import anthropic
import pytest

from conftest import KEY, anthropic_client

HELLO = [{"role": "user", "content": "Say hello."}]
FAST = "ttft=1ms,gap=1ms"


def ask(client, model, **options):
    return client.messages.create(model=model, messages=HELLO, max_tokens=1000, **options)


def text_of(events):
    return "".join(event.delta.text for event in events if event.type == "content_block_delta" and event.delta.type == "text_delta")


def test_a_message_answers_whole(ant):
    answer = ask(ant, f"mock:{FAST},tokens=7,prompt-tokens=5")
    assert answer.type == "message"
    assert answer.content[0].text
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 7)


def test_a_stream_says_what_the_whole_answer_says(ant):
    model = f"mock:{FAST},tokens=30"
    whole = ask(ant, model).content[0].text
    events = list(ask(ant, model, stream=True))
    assert text_of(events) == whole
    assert events[0].type == "message_start"
    assert events[-1].type == "message_stop"


def test_the_stream_helper_collects_a_message_with_usage(ant):
    with ant.messages.stream(model=f"mock:{FAST},tokens=9", messages=HELLO, max_tokens=1000) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert message.content[0].text == text
    assert message.usage.output_tokens == 9
    assert message.stop_reason == "end_turn"


def test_tool_use_arrives_whole(ant):
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    whole = ask(ant, f"mock:{FAST},tool=on", tools=tools)
    with ant.messages.stream(
        model=f"mock:{FAST},tool=on", messages=HELLO, max_tokens=1000, tools=tools
    ) as stream:
        message = stream.get_final_message()
    calls = [[(block.name, block.input) for block in answer.content if block.type == "tool_use"] for answer in (whole, message)]
    assert calls[0] == calls[1] != []


@pytest.mark.gateway
def test_a_wrong_key_is_an_authentication_error(gateway):
    with anthropic_client(gateway, key="sk-wrong") as client, pytest.raises(anthropic.AuthenticationError) as error:
        ask(client, "mock")
    assert error.value.body["type"] == "error"
    assert error.value.body["error"]["type"] == "authentication_error"
    assert KEY not in str(error.value)


@pytest.mark.gateway
def test_an_unknown_model_is_not_found(strict):
    with anthropic_client(strict) as client, pytest.raises(anthropic.NotFoundError) as error:
        ask(client, "claude-none")
    assert error.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "raised"),
    [(429, anthropic.RateLimitError), (400, anthropic.BadRequestError), (529, anthropic.APIStatusError)],
)
def test_a_providers_refusal_keeps_its_status_and_words(ant, status, raised, stream):
    with pytest.raises(raised) as error:
        ask(ant, f"mock:{FAST},status={status},retry-after=7,error-message=as the provider says", stream=stream)
    assert error.value.status_code == status
    assert "as the provider says" in str(error.value)
    assert error.value.response.headers["retry-after"] == "7"


def test_an_error_inside_a_stream_is_raised(ant):
    events = []
    with pytest.raises(anthropic.APIError) as error:
        for event in ask(ant, f"mock:{FAST},tokens=20,fault=error@5,error-message=out of breath", stream=True):
            events.append(event)
    assert "out of breath" in str(error.value)
    assert text_of(events)


@pytest.mark.parametrize(
    "fault", ["cut@3", "rst@3", pytest.param("no-finish", marks=pytest.mark.gateway)]
)
def test_a_truncated_stream_does_not_end_in_silence(ant, fault):
    events = []
    # The SDK leaves broken connections to its HTTP library, whose error is not one of its own.
    with pytest.raises(Exception) as error:
        for event in ask(ant, f"mock:{FAST},tokens=20,fault={fault}", stream=True):
            events.append(event)
    assert "StopIteration" not in type(error.value).__name__
    assert text_of(events)


@pytest.mark.gateway
@pytest.mark.parametrize("stream", [False, True])
def test_no_first_token_in_time_is_a_504(ant, stream):
    with pytest.raises(anthropic.APIStatusError) as error:
        ask(ant, "never-begins", stream=stream)
    assert error.value.status_code == 504
    assert error.value.body["type"] == "error"


@pytest.mark.gateway
def test_a_stall_within_a_stream_is_told_in_it(ant):
    events = []
    with pytest.raises(anthropic.APIError):
        for event in ask(ant, "stalls", stream=True):
            events.append(event)
    assert text_of(events)


def test_a_client_that_gives_up_waiting_cancels_upstream(gateway, mock, name):
    with anthropic_client(gateway, timeout=0.5) as client, pytest.raises(anthropic.APITimeoutError):
        ask(client, f"mock:fault=never,id={name}")
    mock.request_when(name, "cancelled")


def test_a_stream_closed_half_way_cancels_upstream(ant, mock, name):
    stream = ask(ant, f"mock:ttft=1ms,gap=20ms,tokens=100000,id={name}", stream=True)
    for _, event in zip(range(5), stream):
        assert event.type
    stream.close()
    mock.request_when(name, "cancelled")
