"""The way out of a sandbox: to the hosts on the list through the host's proxy, and to nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sandboxes import opened, tiers
from test_sandbox_provisioner import manager, said

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.drivers.sandbox.prove import printed
from llmproc_nb.drivers.sandbox.proxy import Proxy, allowed, may_be_reached
from llmproc_nb.inside.rules import Rules, environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes with a network of their own need Linux")


class Files(BaseHTTPRequestHandler):
    """Says which path and host it was asked for."""

    def do_GET(self) -> None:
        body = f"{self.path} for {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = str(len(self.rfile.read(int(self.headers["Content-Length"])))).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as files:
        thread = threading.Thread(target=files.serve_forever, daemon=True)
        thread.start()
        yield files.server_address[1]
        files.shutdown()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="llmproc-") as path:
        yield Path(path)


def confined(rules: Rules, code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Code that runs in a sandbox with these rules."""
    command = [sys.executable, "-m", "llmproc_nb.inside.launch", rules.dump(), "--", "python", "-c", code]
    done = subprocess.run(command, env=environment(os.environ, {}), capture_output=True, text=True, timeout=timeout)
    if "sandbox refused" in done.stderr or done.returncode == 125:
        pytest.skip(f"no sandbox of tier {rules.tier} here: {done.stderr}")
    return done


ASK = """
import json, os, urllib.request, urllib.error
bypass = os.environ.pop("no_proxy", None), os.environ.pop("NO_PROXY", None)  # it names the loopback, where these tests have their server
through = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128"}))
def ask(url, data=None):
    try:
        return through.open(url, data=data, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode().strip()}"
    except OSError as error:
        return type(error).__name__
"""


def asked(hosts: list[str], folder: Path, code: str) -> tuple[list[str], list[str]]:
    """What code in a sandbox with this list prints as JSON, and what the proxy did not let through."""
    denied: list[str] = []

    async def run() -> list[str]:
        (folder / "f").mkdir()
        proxy = Proxy(hosts, str(folder / "out"), on_denied=denied.append)
        await proxy.start()
        done = await asyncio.to_thread(confined, Rules(folder=str(folder / "f"), relay=str(folder / "out")), ASK + code)
        await proxy.close()
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asyncio.run(run()), denied


@linux
def test_a_host_on_the_list_is_reached_and_no_other(server: int, folder: Path):
    code = f"""
urls = ["http://127.0.0.1:{server}/a?b=c", "http://127.0.0.1:{server + 1}/", "http://localhost:{server}/", "http://example.com/",
        "http://169.254.169.254/latest/meta-data", "http://[::1]:{server}/", "http://2130706433:{server}/"]
print(json.dumps([ask(url) for url in urls]))
"""
    answers, denied = asked([f"127.0.0.1:{server}"], folder, code)
    assert answers[0] == f"/a?b=c for 127.0.0.1:{server}"
    assert [answer[:3] for answer in answers[1:]] == ["403"] * 6
    assert f"127.0.0.1:{server + 1} is not on the list of this sandbox (allowed: 127.0.0.1)" in answers[1]
    assert len(denied) == 6


@linux
def test_a_tunnel_leads_to_what_is_on_the_list_only(server: int, folder: Path):
    code = f"""
import http.client, socket
def tunnel(host, port):
    client = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
    client.set_tunnel(host, port)
    try:
        client.request("GET", "/through")
        return client.getresponse().read().decode()
    except OSError as error:
        return str(error)
print(json.dumps([tunnel("localhost", {server}), tunnel("127.0.0.1", {server}), tunnel("example.com", 443)]))
"""
    answers, _ = asked([f"localhost:{server}"], folder, code)
    assert answers[0].startswith("/through for localhost")
    assert all("403" in answer for answer in answers[1:])


@linux
def test_much_goes_through_in_both_directions(server: int, folder: Path):
    code = f"print(json.dumps([ask('http://127.0.0.1:{server}/', data=b'x' * 20_000_000)]))"
    assert asked([f"127.0.0.1:{server}"], folder, code)[0] == ["20000000"]


@linux
def test_programs_find_the_way_out_in_their_environment_and_no_way_past_it(server: int, folder: Path):
    code = f"""
import os, socket
def direct():
    try:
        socket.create_connection(("127.0.0.1", {server}), 2)
    except OSError as error:
        return type(error).__name__
print(json.dumps([os.environ["https_proxy"], bypass[0], direct(), os.path.exists("{folder}/out")]))
"""
    answers, _ = asked([f"127.0.0.1:{server}"], folder, code)
    assert answers == ["http://127.0.0.1:3128", "localhost,127.0.0.1", "ConnectionRefusedError", False]


@linux
def test_a_request_that_is_none_is_answered(server: int, folder: Path):
    code = """
import socket
def say(data):
    with socket.create_connection(("127.0.0.1", 3128), 20) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        return line.recv(1000).decode().partition("\\r\\n")[0]
lines = ["GET / HTTP/1.1", "CONNECT :1:2 HTTP/1.1", "GET http://a/\\nHost: b HTTP/1.1", "GET ftp://a/ HTTP/1.1"]
print(json.dumps([say(b"x" * 100_000), say(b""), *(say(line.encode() + b"\\r\\n\\r\\n") for line in lines)]))
"""
    answers, _ = asked([f"127.0.0.1:{server}"], folder, code)
    assert answers == ["", "", *["HTTP/1.1 400 Bad Request"] * 4]


@linux
def test_a_program_says_which_hosts_its_sessions_may_reach(server: int):
    if "namespaces" not in tiers():
        pytest.skip("no namespaces here")
    code = f"print([ask('http://127.0.0.1:{server}/x')[:4], ask('http://example.com/')[:4]])"

    async def run() -> list[str]:
        async with opened(hosts=(f"127.0.0.1:{server}",)) as door:
            first = await door.start()
            ran = [await first.run(ASK + code, timeout_s=30)]
            checkpoint = await first.keep()
            assert checkpoint is not None
            fork = await checkpoint.wake()
            await first.close()
            ran.append(await fork.run(code, timeout_s=30))
            assert [one.notes for one in ran] == [
                ("No connection: example.com:80 is not on the list of this sandbox (allowed: 127.0.0.1).",)
            ] * 2
            return [printed(one) for one in ran]

    assert asyncio.run(run()) == ["['/x f', '403 ']\n"] * 2


@linux
def test_hosts_need_a_network_of_ones_own(folder: Path):
    rules = Rules(tier="landlock", folder=str(folder), relay=str(folder / "out"))
    command = [sys.executable, "-m", "llmproc_nb.inside.launch", rules.dump(), "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 125
    assert "hosts can only be allowed in the tier namespaces" in done.stderr


def test_the_list_says_names_names_below_and_ports():
    assert allowed("Example.com").matches("example.com", 443)
    assert not allowed("example.com").matches("www.example.com", 443)
    assert not allowed("example.com").matches("example.com", 22)
    assert allowed("*.example.com:8443").matches("a.b.example.com", 8443)
    assert not allowed("*.example.com").matches("example.com", 443)
    assert not allowed("*.example.com").matches("badexample.com", 443)
    assert allowed("[::1]:80").matches("::1", 80)
    for wrong in ("", "*", "a b", "http://example.com", "example.com/path", "user@example.com", "example.com:x", "*.*.com"):
        with pytest.raises(ProgramError, match="is no host"):
            allowed(wrong)


@pytest.mark.parametrize(
    ("address", "name", "exact", "reached"),
    [
        ("93.184.216.34", "example.com", True, True),
        ("93.184.216.34", "www.example.com", False, True),
        ("10.1.2.3", "inside.example.com", True, True),
        ("10.1.2.3", "www.example.com", False, False),
        ("127.0.0.1", "example.com", True, False),
        ("127.0.0.1", "localhost", True, True),
        ("127.0.0.1", "127.0.0.1", True, True),
        ("::1", "example.com", True, False),
        ("::ffff:127.0.0.1", "example.com", True, False),
        ("169.254.169.254", "example.com", True, False),
        ("169.254.169.254", "169.254.169.254", True, True),
        ("0.0.0.0", "example.com", True, False),
        ("fe80::1", "example.com", True, False),
    ],
)
def test_a_name_leads_to_this_machine_only_where_that_is_what_is_listed(address: str, name: str, exact: bool, reached: bool):
    import ipaddress

    assert may_be_reached(ipaddress.ip_address(address), name, exact) == reached


@linux
def test_a_kernel_may_reach_the_hosts_of_its_kernelspec(server: int, folder: Path):
    if "namespaces" not in tiers():
        pytest.skip("no namespaces here")
    made = manager(folder, hosts=[f"127.0.0.1:{server}"])
    made.start_kernel()
    client = made.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        code = f"print([ask('http://127.0.0.1:{server}/x')[:4], ask('http://example.com/')[:4]])"
        assert said(client, ASK + code) == "['/x f', '403 ']\n"
        made.restart_kernel()
        client.wait_for_ready(timeout=60)
        assert said(client, ASK + code) == "['/x f', '403 ']\n"
    finally:
        client.stop_channels()
        made.shutdown_kernel(now=True)
