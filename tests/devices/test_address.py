"""How devices are named."""

from __future__ import annotations

import pytest

from edgekit.devices.address import Address, find_device
from edgekit.errors import SpecError, UnknownName


@pytest.fixture
def devices_toml(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "edgekit").mkdir()
    return tmp_path / "edgekit/devices.toml"


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("ssh://pi", "pi", None, None),
        ("ssh://Me@Board.local:2222", "Board.local", "Me", 2222),
        ("ssh://root@[fe80::1]:22", "fe80::1", "root", 22),
        ("ssh://10.0.0.7", "10.0.0.7", None, None),
    ],
)
def test_a_url_names_a_device(text, host, user, port):
    assert find_device(text) == Address(name=text.removeprefix("ssh://"), host=host, user=user, port=port)


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://", "ssh://u:secret@host", "ssh://host/path", "ssh://host:0", "ssh://host:99999", "ssh://host:x"),
        *("http://host", "ssh://-oProxyCommand=x", "ssh://@host", "ssh://host?x", "ssh://host#x"),
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(SpecError, match="does not name a device") as refused:
        find_device(text)
    assert "secret" not in str(refused.value.fix)


def test_a_name_is_looked_up_in_the_users_file(devices_toml):
    (devices_toml.parent / "ssh_config").touch()
    devices_toml.write_text(
        '[pi]\nhost = "10.0.0.7"\nuser = "me"\nport = 2222\nconfig = "ssh_config"\nroot = "/data"\n'
    )
    found = find_device("pi")
    assert (found.name, found.host, found.user, found.port, found.root) == ("pi", "10.0.0.7", "me", 2222, "/data")
    assert found.config == devices_toml.parent / "ssh_config"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[pi]\nhots = 'x'\n", ["[pi]", "unknown key 'hots'", "did you mean 'host'?"]),
        ("[pi]\nuser = 'x'\n", ["key 'host' is missing"]),
        ("[pi]\nhost = 'x'\nport = 70000\n", ["no such port", "70000"]),
        ("[pi]\nhost = 'x'\npassword = 'secret'\n", ["unknown key 'password'", "no password is ever taken"]),
        ("[pi]\nhost = 'x'\nproxy_jump = 'y'\n", ["unknown key 'proxy_jump'", "ProxyJump"]),
        *(
            (f"[pi]\nhost = '{host}'\n", ["no host", repr(host), "user and port have keys of their own"])
            for host in ("", "me@board", "board:22", "ssh://board", "-oProxyCommand=x", "a b", "board/x")
        ),
        ("[pi]\nhost = 'x'\nroot = 'data'\n", ["root is a folder there", "'data'"]),
        ("[pi]\nhost = 'x'\nconfig = 'nowhere'\n", ["no such file", "'nowhere'"]),
        ("pi = 3\n", ["not a table"]),
        ("[pi\n", ["not valid TOML"]),
    ],
)
def test_a_wrong_file_is_told_with_its_key(devices_toml, text, words):
    devices_toml.write_text(text)
    with pytest.raises(SpecError) as refused:
        find_device("pi")
    for word in [str(devices_toml), *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "::1", "10.0.0.7", "board_2", "Größe"])
def test_a_host_may_be_any_name_or_address(devices_toml, host):
    devices_toml.write_text(f'[pi]\nhost = "{host}"\n')
    assert find_device("pi").host == host


def test_a_folder_in_place_of_the_file_is_told(devices_toml):
    devices_toml.mkdir()
    with pytest.raises(SpecError, match=r"devices.toml: cannot be read"):
        find_device("pi")


def test_an_unknown_name_says_what_there_is(devices_toml):
    with pytest.raises(
        UnknownName, match=r"devices.toml: unknown device 'pi'(.|\n)*\[pi\] with its host(.|\n)*or give ssh://"
    ):
        find_device("pi")
    devices_toml.write_text('[pi4]\nhost = "x"\n')
    with pytest.raises(UnknownName, match="did you mean 'pi4'"):
        find_device("pi")
