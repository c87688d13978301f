"""What those who look for weak TLS find in ours: sslyze, which knows Mozilla's recommendations, and testssl.sh."""

import json
import subprocess

import pytest
from sslyze import Scanner, ScanCommand, ScanCommandAttemptStatusEnum, ServerNetworkLocation, ServerScanRequest
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

from test_https import Front

pytestmark = pytest.mark.gateway

# What the scanners find that is so because of the test, or meant, each with the reason.
ALLOWED_BY_SSLYZE = {
    # The tests' own authority, which no browser knows.
    "certificate_path_validation",
}
ALLOWED_BY_TESTSSL = {
    # The tests' own certificate names no list of revoked ones, and no one who could be asked.
    "cert_revocation",
    # It is made anew for each test, and lives for two days.
    "cert_expirationStatus", "cert_notAfter",
    # Clients choose. All that is there is strong, and they know which is fast for them (Mozilla, intermediate).
    "cipher_order",
    # Of the scanner's own OpenSSL: it cannot try GOST ciphers, which ours has not.
    "engine_problem",
}
# Long enough for a machine on which everything else is tested too.
SCAN_S = 900


@pytest.fixture(scope="module", params=["1.2", "1.3"])
def front(request, mock, tmp_path_factory):
    front = Front(mock, tmp_path_factory.mktemp("scan"), f'min_version = "{request.param}"\nhsts = "730d"\n')
    front.min_version = request.param
    yield front
    front.gateway.process.stop()


def issues(result, recommendation):
    """What Mozilla would have otherwise."""
    wanted = MozillaTlsConfiguration.get(recommendation)
    try:
        check_server_against_tls_configuration(result, wanted)
    except ServerNotCompliantWithTlsConfiguration as error:
        return error.issues
    return {}


def test_sslyze_finds_what_mozilla_recommends(front):
    location = ServerNetworkLocation(hostname="localhost", ip_address="127.0.0.1", port=int(front.port))
    scanner = Scanner()
    scanner.queue_scans([ServerScanRequest(server_location=location)])
    (result,) = scanner.get_results()
    assert result.scan_result is not None, result.connectivity_error_trace
    scans = {command: getattr(result.scan_result, command.value) for command in ScanCommand}
    failed = {command for command, scan in scans.items() if scan.status == ScanCommandAttemptStatusEnum.ERROR}
    assert not failed, [str(scans[command].error_trace) for command in failed]
    found = issues(result, TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    if front.min_version == "1.3":
        # Without the older version this is what they call modern, too.
        found |= issues(result, TlsConfigurationEnum.MOZILLA_MODERN)
    assert set(found) <= ALLOWED_BY_SSLYZE, found
    spoken = {name for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
              if scans[ScanCommand(f"{name}_cipher_suites")].result.accepted_cipher_suites}
    assert spoken == ({"tls_1_3"} if front.min_version == "1.3" else {"tls_1_2", "tls_1_3"})
    early = scans[ScanCommand.TLS_1_3_EARLY_DATA].result
    assert not early.supports_early_data, "what is sent early can be sent again by others"


def test_testssl_finds_nothing(front, tmp_path):
    report = tmp_path / "report.json"
    # Versions, ciphers, who chooses, what is shown.
    sections = ["-p", "-s", "-P", "-S"]
    if front.min_version == "1.2":
        # Forward secrecy, and all weaknesses that have a name. They are of older versions, so once is enough.
        sections += ["-f", "-U"]
    arguments = ["testssl", "--ip", "127.0.0.1", "--nodns", "none", "--quiet", "--color", "0", "--warnings", "batch",
                 "--add-ca", str(front.authority), *sections, "--jsonfile", str(report), f"localhost:{front.port}"]
    done = subprocess.run(arguments, capture_output=True, timeout=SCAN_S, text=True, cwd=tmp_path)
    # How many things it does not like, or from 242 on that it could not look.
    assert done.returncode < 242, done.stdout + done.stderr
    rows = json.loads(report.read_text())
    known = {"OK", "INFO"}
    bad = {row["id"]: f'{row["severity"]}: {row["finding"]}' for row in rows if row["severity"] not in known}
    assert set(bad) <= ALLOWED_BY_TESTSSL, bad
    by_id = {row["id"]: row["finding"] for row in rows}
    older = "offered" if front.min_version == "1.2" else "not offered"
    assert by_id["TLS1_2"].startswith(older) and by_id["TLS1_3"].startswith("offered"), by_id
    assert all(by_id[version].startswith("not offered") for version in ("SSLv2", "SSLv3", "TLS1", "TLS1_1")), by_id
