"""What /metrics says, read by the Prometheus project's own parsers."""

import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from conftest import PATIENCE_S

pytestmark = pytest.mark.gateway

OPENMETRICS = "application/openmetrics-text"


def scrape(gateway, accept):
    request = urllib.request.Request(gateway.admin + "/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return answer.headers["content-type"], answer.read().decode()


def use(oai):
    oai.chat.completions.create(model="mock", messages=[{"role": "user", "content": "hi"}])
    for _ in oai.chat.completions.create(model="mock", messages=[{"role": "user", "content": "hi"}], stream=True):
        pass


@pytest.mark.parametrize(
    "accept, media, read", [("text/plain", "text/plain", read_text), (OPENMETRICS, OPENMETRICS, read_openmetrics)]
)
def test_both_forms_are_read_whole(gateway, oai, accept, media, read):
    use(oai)
    content_type, text = scrape(gateway, accept)
    assert content_type.startswith(media + "; version=")
    assert text.endswith("# EOF\n") == (media == OPENMETRICS)
    families = {family.name: family for family in read(text)}
    requests = families["ringway_requests"]
    assert requests.type == "counter"
    labels = {"model": "mock", "endpoint": "mock/0", "dialect": "openai", "state": "complete"}
    done = [s.value for s in requests.samples if s.name.endswith("_total") and labels.items() <= s.labels.items()]
    assert sum(done) >= 2
    assert families["ringway_ttft_seconds"].type == "histogram"
    assert families["ringway_ttft_quantile_seconds"].type == "summary"
    # Each histogram's buckets rise, and the last one counts all.
    for family in families.values():
        if family.type != "histogram":
            continue
        buckets, counts = {}, {}
        for sample in family.samples:
            key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            if sample.name.endswith("_bucket"):
                buckets.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                counts[key] = sample.value
        assert buckets, family.name
        for key, found in buckets.items():
            assert found == sorted(found) and [n for _, n in found] == sorted(n for _, n in found), (family.name, key)
            assert found[-1] == (float("inf"), counts[key]), (family.name, key)


def test_both_forms_say_the_same(gateway):
    def names(text, read):
        return {family.name for family in read(text)}

    plain = names(scrape(gateway, "text/plain")[1], read_text)
    # In plain text an info metric is a gauge and keeps its suffix.
    plain = {name.removesuffix("_info") for name in plain}
    assert plain == names(scrape(gateway, OPENMETRICS)[1], read_openmetrics)
