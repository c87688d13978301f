"""The SDKs over HTTPS, with certificates that openssl has made."""

import ssl

import anthropic
import openai
import pytest

from conftest import CONFIG, KEY, PATIENCE_S, certify, start_gateway

pytestmark = pytest.mark.gateway

MODEL = "mock:ttft=1ms,gap=1ms,tokens=20"
HELLO = [{"role": "user", "content": "Say hello."}]
LISTENER = '[[listeners]]\naddress = "127.0.0.1:0"\n'


class Front:
    """A gateway that speaks TLS, and what its clients need to know."""

    def __init__(self, mock, folder, more=""):
        authority = certify(folder, "authority")
        self.authority = authority[0]
        chain, key = certify(folder, "gateway", authority)
        tls = f'[listeners.tls]\ncertificates = [{{{{ chain = "{chain}", key = "{key}" }}}}]\n{more}'
        routes = '[[models]]\nname = "*"\nroute = [{{ provider = "mock" }}]\n'
        self.gateway = start_gateway(mock, CONFIG.replace(LISTENER, LISTENER + tls, 1) + routes)
        self.port = self.gateway.origin.rsplit(":", 1)[1]

    def trust(self):
        return ssl.create_default_context(cafile=self.authority)

    def openai(self, trust, scheme="https", host="localhost"):
        return openai.OpenAI(
            base_url=f"{scheme}://{host}:{self.port}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE_S,
            http_client=openai.DefaultHttpxClient(verify=trust))

    def anthropic(self, trust):
        return anthropic.Anthropic(
            base_url=f"https://localhost:{self.port}", api_key=KEY, max_retries=0, timeout=PATIENCE_S,
            http_client=anthropic.DefaultHttpxClient(verify=trust))


@pytest.fixture(scope="module")
def front(mock, tmp_path_factory):
    front = Front(mock, tmp_path_factory.mktemp("tls"))
    yield front
    front.gateway.process.stop()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_openai_whole_and_streamed_on_one_connection(front, version):
    trust = front.trust()
    trust.minimum_version = trust.maximum_version = version
    with front.openai(trust) as client:
        whole = client.chat.completions.create(model=MODEL, messages=HELLO)
        assert whole.usage.completion_tokens == 20
        chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].choices[0].finish_reason == "stop"


def test_anthropic_streamed(front):
    with front.anthropic(front.trust()) as client:
        with client.messages.stream(model=MODEL, max_tokens=100, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
    assert text and final.content[0].text == text
    assert final.usage.output_tokens == 20


def test_a_stream_that_breaks_off_is_told_over_tls_too(front):
    with front.openai(front.trust()) as client, pytest.raises(openai.APIError) as told:
        list(client.chat.completions.create(model="mock:ttft=1ms,gap=1ms,fault=cut@5", messages=HELLO, stream=True))
    assert told.value.code == "upstream_truncated"


def test_a_certificate_that_is_not_trusted_is_the_clients_to_refuse(front):
    with front.openai(ssl.create_default_context()) as client, pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_http_where_https_is_spoken_is_told_by_an_error_that_can_be_read(front):
    with front.openai(front.trust(), scheme="http") as client, pytest.raises(openai.BadRequestError) as told:
        client.models.list()
    assert f"https://localhost:{front.port}" in str(told.value)


def test_clients_that_have_to_show_a_certificate(mock, tmp_path):
    authority = certify(tmp_path, "clients")
    front = Front(mock, tmp_path, f'client_ca = "{authority[0]}"\n')
    try:
        known = front.trust()
        known.load_cert_chain(*certify(tmp_path, "client", authority))
        with front.openai(known) as client:
            assert client.chat.completions.create(model=MODEL, messages=HELLO).usage.completion_tokens == 20
        with front.openai(front.trust()) as client, pytest.raises(openai.APIConnectionError):
            client.models.list()
    finally:
        front.gateway.process.stop()
