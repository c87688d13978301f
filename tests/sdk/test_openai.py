"""The OpenAI SDK, unchanged but for its base_url."""

import asyncio

import openai
import pytest

from conftest import KEY, NARROW_KEY, PATIENCE_S, openai_client

HELLO = [{"role": "user", "content": "Say hello."}]
FAST = "ttft=1ms,gap=1ms"


def ask(client, model, **options):
    return client.chat.completions.create(model=model, messages=HELLO, **options)


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def words(text):
    return len(text.split())


def test_chat_answers_whole(oai):
    answer = ask(oai, f"mock:{FAST},tokens=7,prompt-tokens=5")
    assert answer.object == "chat.completion"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 7)


def test_a_stream_says_what_the_whole_answer_says(oai):
    model = f"mock:{FAST},tokens=30"
    whole = ask(oai, model).choices[0].message.content
    chunks = list(ask(oai, model, stream=True))
    assert text_of(chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len(chunks) >= 30


def test_usage_comes_in_a_stream_only_if_asked_for(oai):
    model = f"mock:{FAST},tokens=4,prompt-tokens=5"
    chunks = list(ask(oai, model, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 4)
    for options in [{}, {"stream_options": {"include_usage": False}}]:
        chunks = list(ask(oai, model, stream=True, **options))
        assert all(chunk.choices for chunk in chunks), options
        assert all(chunk.usage is None for chunk in chunks), options


@pytest.mark.parametrize("script", ["split=1", "split=random", "line-end=crlf", "line-end=cr", "bom=on", "multi-line=on"])
def test_a_stream_stands_any_form_of_it(oai, script):
    if script in ("bom=on", "multi-line=on"):
        expected = ask(oai, f"mock:{FAST},tokens=12").choices[0].message.content
    else:
        expected = text_of(ask(oai, f"mock:{FAST},tokens=12", stream=True))
    assert text_of(ask(oai, f"mock:{FAST},tokens=12,{script}", stream=True)) == expected


def test_tool_calls_arrive_whole(oai):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    call = ask(oai, f"mock:{FAST},tool=on", tools=tools).choices[0].message.tool_calls[0]
    assert call.function.name
    arguments, name = "", None
    for chunk in ask(oai, f"mock:{FAST},tool=on", tools=tools, stream=True):
        for piece in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            arguments += piece.function.arguments or ""
            name = name or piece.function.name
    assert (name, arguments) == (call.function.name, call.function.arguments)


def test_embeddings(oai):
    answer = oai.embeddings.create(model="mock", input=["a", "b"])
    assert [item.index for item in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0


@pytest.mark.gateway
def test_models_are_those_of_the_config(oai, strict):
    assert {"mock", "renamed", "never-begins", "stalls"} <= {model.id for model in oai.models.list()}
    with openai_client(strict) as client:
        assert [model.id for model in client.models.list()] == ["mock", "renamed", "never-begins", "stalls"]


@pytest.mark.gateway
def test_a_model_is_served_under_another_name(oai):
    assert ask(oai, "renamed").usage.completion_tokens == 3


def test_raw_responses_carry_a_request_id(oai):
    raw = oai.chat.completions.with_raw_response.create(model=f"mock:{FAST}", messages=HELLO)
    assert raw.headers["x-request-id"]


@pytest.mark.gateway
def test_a_wrong_key_is_an_authentication_error(gateway):
    for key in ["sk-wrong", KEY + "x", KEY[:-1]]:
        with openai_client(gateway, key=key) as client, pytest.raises(openai.AuthenticationError) as error:
            ask(client, "mock")
        assert error.value.status_code == 401
        assert error.value.response.headers["x-ringway-error-origin"] == "client"
        assert KEY not in str(error.value)


@pytest.mark.gateway
def test_an_unknown_model_is_not_found(strict):
    with openai_client(strict) as client, pytest.raises(openai.NotFoundError) as error:
        ask(client, "gpt-none")
    assert (error.value.code, error.value.param, error.value.type) == ("model_not_found", "model", "invalid_request_error")
    assert error.value.response.headers["x-ringway-error-origin"] == "client"


@pytest.mark.gateway
def test_a_key_reaches_only_its_models(gateway):
    with openai_client(gateway, key=NARROW_KEY) as client:
        assert ask(client, "mock").choices
        with pytest.raises((openai.NotFoundError, openai.PermissionDeniedError)):
            ask(client, "renamed")
        assert [model.id for model in client.models.list()] == ["mock"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "raised"),
    [
        ("status=429,retry-after=7", openai.RateLimitError),
        ("status=400", openai.BadRequestError),
        ("status=500", openai.InternalServerError),
        ("status=503", openai.InternalServerError),
    ],
)
def test_a_providers_refusal_keeps_its_status_and_words(oai, script, raised, stream):
    with pytest.raises(raised) as error:
        ask(oai, f"mock:{FAST},{script},error-message=as the provider says", stream=stream)
    assert "as the provider says" in str(error.value)
    if "retry-after" in script:
        assert error.value.response.headers["retry-after"] == "7"


def test_an_error_inside_a_stream_is_raised(oai):
    chunks = []
    with pytest.raises(openai.APIError) as error:
        for chunk in ask(oai, f"mock:{FAST},tokens=20,fault=error@5,error-message=out of breath", stream=True):
            chunks.append(chunk)
    assert "out of breath" in str(error.value)
    assert words(text_of(chunks)) > 0


@pytest.mark.gateway
def test_an_error_before_the_first_content_has_a_real_status(oai):
    with pytest.raises(openai.APIStatusError) as error:
        list(ask(oai, f"mock:{FAST},tokens=20,fault=error@first", stream=True))
    assert error.value.status_code >= 400


@pytest.mark.parametrize(
    "fault",
    [
        "cut@3",
        "rst@3",
        "cut-bytes@900",
        "truncated",
        pytest.param("no-finish", marks=pytest.mark.gateway),
    ],
)
def test_a_truncated_stream_does_not_end_in_silence(oai, fault):
    if fault == "truncated":
        # Everything was said, `[DONE]` too; only the end of the body is missing. The SDK stops reading at `[DONE]`.
        assert text_of(ask(oai, f"mock:{FAST},tokens=20,fault=truncated", stream=True))
        return
    chunks = []
    with pytest.raises((openai.APIError, openai.APIConnectionError)):
        for chunk in ask(oai, f"mock:{FAST},tokens=20,fault={fault}", stream=True):
            chunks.append(chunk)
    assert chunks, "what came before the fault is delivered"


@pytest.mark.parametrize("fault", ["cut-bytes@20", "rst-bytes@20", "long-length@50", "close"])
def test_a_truncated_answer_is_an_error(oai, fault):
    with pytest.raises(openai.APIError):
        ask(oai, f"mock:{FAST},fault={fault}")


def test_a_client_that_gives_up_waiting_cancels_upstream(gateway, mock, name):
    with openai_client(gateway, timeout=0.5) as client, pytest.raises(openai.APITimeoutError):
        ask(client, f"mock:fault=never,id={name}")
    assert mock.request_when(name, "cancelled")["bytes_out"] == 0


def test_a_stream_closed_half_way_cancels_upstream(oai, mock, name):
    stream = ask(oai, f"mock:ttft=1ms,gap=20ms,tokens=100000,id={name}", stream=True)
    for _, chunk in zip(range(5), stream):
        assert chunk.object == "chat.completion.chunk"
    stream.close()
    seen = mock.request_when(name, "cancelled")
    assert seen["events_out"] < 1000


def test_a_silent_stream_is_cancelled_too(oai, mock, name):
    stream = ask(oai, f"mock:{FAST},tokens=50,fault=stall@2,id={name}", stream=True)
    assert next(iter(stream))
    stream.close()
    mock.request_when(name, "cancelled")


@pytest.mark.gateway
@pytest.mark.parametrize("stream", [False, True])
def test_no_first_token_in_time_is_a_504(oai, stream):
    with pytest.raises(openai.APIStatusError) as error:
        ask(oai, "never-begins", stream=stream)
    assert error.value.status_code == 504
    assert error.value.response.headers["x-ringway-error-origin"] == "upstream"


@pytest.mark.gateway
def test_a_stall_within_a_stream_is_told_in_it(oai):
    chunks = []
    with pytest.raises(openai.APIError):
        for chunk in ask(oai, "stalls", stream=True):
            chunks.append(chunk)
    assert words(text_of(chunks)) > 0


def test_the_sdk_retries_what_it_may_and_then_gives_up(gateway):
    with openai_client(gateway, max_retries=1) as client, pytest.raises(openai.RateLimitError):
        ask(client, f"mock:{FAST},status=429,retry-after=0")


def test_fifty_streams_at_once_are_all_whole(gateway):
    async def run():
        async with openai.AsyncOpenAI(
            base_url=gateway.origin + "/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S
        ) as client:

            async def one(seed):
                model = f"mock:{FAST},tokens=40,seed={seed}"
                chunks = [chunk async for chunk in await ask(client, model, stream=True)]
                whole = await ask(client, model)
                return text_of(chunks), whole.choices[0].message.content

            return await asyncio.gather(*(one(seed) for seed in range(50)))

    answers = asyncio.run(run())
    assert all(streamed == whole and streamed for streamed, whole in answers)
    assert len({whole for _, whole in answers}) > 1


def test_a_connection_is_kept_between_calls(gateway):
    with openai_client(gateway) as client:
        for _ in range(20):
            assert ask(client, f"mock:{FAST},tokens=1").choices
            assert text_of(ask(client, f"mock:{FAST},tokens=1", stream=True))


def test_unknown_fields_reach_the_provider(oai):
    raw = oai.chat.completions.with_raw_response.create(
        model=f"mock:{FAST},tokens=1", messages=HELLO, extra_body={"enable_thinking": False, "x": [1e300, None]}
    )
    assert raw.status_code == 200
