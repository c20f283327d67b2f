"""getaddrinfo and getnameinfo: what a numeric address gives is what socket.getaddrinfo gives.

gyre answers numeric addresses without a thread.  The oracle is socket.getaddrinfo itself, asked
about generated addresses in every spelling, with every family, type, protocol and flag.
"""

import asyncio
import logging
import socket
import threading

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

HINT_NAMES = [
    "AI_PASSIVE",
    "AI_CANONNAME",
    "AI_NUMERICHOST",
    "AI_NUMERICSERV",
    "AI_V4MAPPED",
    "AI_ALL",
    "AI_ADDRCONFIG",
]
FLAGS = [getattr(socket, name) for name in HINT_NAMES]
FAMILIES = [socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 1234, -1]
TYPES = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, 99]
PROTOS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, socket.IPPROTO_SCTP, 255]


def outcome_of(call):
    """('ok', value) or ('error', type, args): what can be compared."""
    try:
        return ("ok", call())
    except Exception as exc:
        return ("error", type(exc), exc.args)


def numeric(*args, **kwargs):
    """socket.getaddrinfo, which never asks the network about numeric addresses."""
    return outcome_of(lambda: socket.getaddrinfo(*args, **kwargs))


def ours(loop, host, port, **kwargs):
    return outcome_of(lambda: loop.run_until_complete(loop.getaddrinfo(host, port, **kwargs)))


octets = st.integers(0, 255)
dotted = st.tuples(octets, octets, octets, octets).map(lambda four: ".".join(map(str, four)))
# Spellings that inet_aton takes and inet_pton refuses: 127.1, 0x7f.1, 0177.0.0.1, 2130706433.
odd_number = st.one_of(
    octets.map(str),
    octets.map(hex),
    octets.map(lambda n: f"0{n:o}"),
    st.integers(0, 2**33).map(str),
)
loose_ipv4 = st.lists(odd_number, min_size=1, max_size=5).map(".".join)
groups = st.integers(0, 0xFFFF).map(lambda n: f"{n:x}")
full_ipv6 = st.lists(groups, min_size=8, max_size=8).map(":".join)
short_ipv6 = st.tuples(
    st.lists(groups, max_size=4).map(":".join), st.lists(groups, max_size=3).map(":".join)
).map("::".join)
mapped_ipv6 = dotted.map(lambda text: "::ffff:" + text)
zones = st.sampled_from(["", "%lo", "%1", "%2", "%nosuchif", "%", "%99999", "%lo%lo", "%0"])
scoped_ipv6 = st.tuples(
    st.sampled_from(["fe80::1", "ff02::1", "::1", "2001:db8::1", "fe80::"]), zones
).map("".join)
hosts = st.one_of(
    dotted,
    loose_ipv4,
    full_ipv6,
    short_ipv6,
    mapped_ipv6,
    scoped_ipv6,
    st.sampled_from(
        ["", "::", "0", "0.0.0.0", "255.255.255.255", None, "127.0.0.1.", " 127.0.0.1"]
    ),
)
as_bytes = st.booleans()
ports = st.one_of(
    st.integers(-5, 70_000),
    st.integers(0, 65535),
    st.integers(0, 70_000).map(str),
    st.integers(0, 65535).map(lambda n: str(n).encode()),
    st.sampled_from(
        [None, "", b"", "http", "00080", "+80", "-80", " 80", "80 ", "8_0", "0x50", "٣"]
    ),
    st.sampled_from([2**31, 2**63, -(2**31), True, "99999999999999999999"]),
)
flag_sets = st.lists(st.sampled_from(FLAGS), max_size=3).map(lambda some: sum(set(some)))


def looks_numeric(host):
    """Names would ask the resolver: these tests stay off the network."""
    if host is None or host == "":
        return True
    return not any(c.isalpha() and c not in "abcdefABCDEFxX" for c in host.partition("%")[0])


# The wide search is for gyre's own code; asyncio only calls socket.getaddrinfo, in a thread.
SEARCH = settings(
    max_examples=400,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LOOK = settings(SEARCH, max_examples=30)


def check(loop, host, port, family, type, proto, flags, in_bytes):
    if not looks_numeric(host):
        return
    if flags & socket.AI_NUMERICHOST == 0 and host is not None:
        # What is no address after all (300.1.2.3) would be looked up as a name.
        strict = numeric(host, None, flags=socket.AI_NUMERICHOST)
        if strict[0] == "error" and strict[1] is socket.gaierror and host != "":
            flags |= socket.AI_NUMERICHOST
    if in_bytes and host is not None:
        host = host.encode()
    kwargs = dict(family=family, type=type, proto=proto, flags=flags)
    assert ours(loop, host, port, **kwargs) == numeric(host, port, **kwargs)


class Arguments:
    given = given(
        host=hosts,
        port=ports,
        family=st.sampled_from(FAMILIES),
        type=st.sampled_from(TYPES),
        proto=st.sampled_from(PROTOS),
        flags=flag_sets,
        in_bytes=as_bytes,
    )


def examples(function):
    for host in ["127.0.0.1", "::1", "fe80::1%lo", "::ffff:1.2.3.4", "", None, "0", "127.1"]:
        for port in [80, "80", None, "", b"80"]:
            plain = dict(family=0, type=0, proto=0, flags=0, in_bytes=False)
            function = example(host=host, port=port, **plain)(function)
    return function


@pytest.mark.only("gyre")
@SEARCH
@examples
@Arguments.given
def test_numeric_addresses(loop, host, port, family, type, proto, flags, in_bytes):
    check(loop, host, port, family, type, proto, flags, in_bytes)


@pytest.mark.only("asyncio")
@LOOK
@Arguments.given
def test_numeric_addresses_oracle(loop, host, port, family, type, proto, flags, in_bytes):
    check(loop, host, port, family, type, proto, flags, in_bytes)


@pytest.mark.parametrize("family", FAMILIES[:3])
@pytest.mark.parametrize("type", TYPES[:4])
@pytest.mark.parametrize("proto", PROTOS[:4])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
def test_every_plain_combination(loop, host, family, type, proto):
    kwargs = dict(family=family, type=type, proto=proto, flags=0)
    assert ours(loop, host, 80, **kwargs) == numeric(host, 80, **kwargs)


def test_types_of_the_result(loop):
    ((family, type, proto, name, address),) = loop.run_until_complete(
        loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    )
    assert family is socket.AF_INET and isinstance(family, socket.AddressFamily)
    assert type is socket.SOCK_STREAM and isinstance(type, socket.SocketKind)
    assert (proto, name, address) == (socket.IPPROTO_TCP, "", ("127.0.0.1", 80))
    ((*_, address),) = loop.run_until_complete(
        loop.getaddrinfo("fe80::5%lo", 80, type=socket.SOCK_STREAM)
    )
    assert address == ("fe80::5", 80, 0, socket.if_nametoindex("lo"))


@pytest.mark.parametrize("host", [42, 1.5, ["127.0.0.1"], object])
def test_hosts_of_the_wrong_type(loop, host):
    got, expected = ours(loop, host, 80), numeric(host, 80)
    assert got[:2] == expected[:2] == ("error", TypeError)


@pytest.mark.parametrize("host", ["127.0.0.1\0", "::1\0", "\0"])
def test_zero_bytes(loop, host):
    assert ours(loop, host, 80)[:2] == numeric(host, 80)[:2]


@pytest.mark.parametrize("host", ["1" * 100, "a" * 70, "٣.٣.٣.٣"])
def test_odd_names_are_not_numeric(loop, host):
    kwargs = dict(flags=socket.AI_NUMERICHOST)
    assert ours(loop, host, 80, **kwargs)[:2] == numeric(host, 80, **kwargs)[:2]


def test_a_name(loop):
    got = ours(loop, "localhost", 80, type=socket.SOCK_STREAM)
    assert got == numeric("localhost", 80, type=socket.SOCK_STREAM)
    assert got[0] == "ok"


def test_a_service_name(loop):
    kwargs = dict(type=socket.SOCK_STREAM)
    assert ours(loop, "127.0.0.1", "http", **kwargs) == numeric("127.0.0.1", "http", **kwargs)


def test_the_signature(loop):
    with pytest.raises(TypeError):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1"))
    with pytest.raises(TypeError):
        loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET))


@pytest.mark.only("gyre")
def test_numeric_addresses_need_no_thread(loop):
    for host in ("127.0.0.1", "::1", "192.0.2.7"):
        loop.run_until_complete(loop.getaddrinfo(host, 443, type=socket.SOCK_STREAM))
    assert loop._default_executor is None


def test_a_patched_getaddrinfo_is_asked(loop, monkeypatch):
    """Tests and proxies replace socket.getaddrinfo; asyncio looks it up when it is called."""
    asked = []
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 1))]

    def fake(*args, **kwargs):
        asked.append((args, kwargs, threading.current_thread() is threading.main_thread()))
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    result = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    assert result is answer
    ((args, kwargs, main_thread),) = asked
    assert args == ("127.0.0.1", 80, 0, socket.SOCK_STREAM, 0, 0) and kwargs == {}
    assert not main_thread
    monkeypatch.undo()
    assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))[0][4] == ("127.0.0.1", 80)


def test_debug_mode_logs_it(loop, asyncio_log):
    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    loop.set_debug(True)
    loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM))
    messages = asyncio_log.messages(logging.DEBUG)
    assert any("127.0.0.1:80" in m and m.startswith("Get address info") for m in messages)


def test_in_a_task_that_is_cancelled(loop, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: release.wait(10))

    async def main():
        task = asyncio.ensure_future(loop.getaddrinfo("127.0.0.1", 80))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    try:
        loop.run_until_complete(main())
    finally:
        release.set()


@pytest.mark.parametrize(
    "address, flags",
    [
        (("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        (("::1", 80, 0, 0), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV),
        (("127.0.0.1", 80), socket.NI_NUMERICHOST),
        (("127.0.0.1", 99999), socket.NI_NUMERICHOST),
        (("not an address", 80), socket.NI_NUMERICHOST),
        (("127.0.0.1",), 0),
        ("127.0.0.1", 0),
    ],
)
def test_getnameinfo(loop, address, flags):
    expected = outcome_of(lambda: socket.getnameinfo(address, flags))
    assert outcome_of(lambda: loop.run_until_complete(loop.getnameinfo(address, flags))) == expected


def test_a_closed_loop(new_loop):
    """Numeric or not: refused, as the executor is."""
    loop, running = new_loop(), new_loop()
    loop.close()
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            running.run_until_complete(loop.getaddrinfo(host, 80))


@pytest.mark.parametrize("flags", [None, "0", 1.5])
def test_flags_that_are_no_number(loop, flags):
    assert ours(loop, "127.0.0.1", 80, flags=flags) == numeric("127.0.0.1", 80, flags=flags)
