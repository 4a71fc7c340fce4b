"""What the environment and the config file say, and which of them wins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from emcatalog.errors import SettingsError
from emcatalog.settings import config_file, load_settings
from tests.conftest import python

WriteConfig = Callable[[str], Path]


@pytest.fixture(autouse=True)
def nothing_set(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment variable of ours."""
    for name in [name for name in os.environ if name.startswith("EMCATALOG_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> WriteConfig:
    """Write the config file."""
    if not config_file().is_relative_to(tmp_path):
        pytest.skip("on this platform the folder of config files cannot be moved")

    def write(text: str) -> Path:
        config_file().parent.mkdir(parents=True, exist_ok=True)
        config_file().write_text(text)
        return config_file()

    return write


class TestSources:
    """Arguments, then the environment, then the config file, then the defaults."""

    def test_defaults(self) -> None:
        settings = load_settings()
        assert settings.cache == platformdirs.user_cache_dir("emcatalog")
        assert (settings.mirrors, settings.offline, settings.retries) == ({}, False, 6)

    def test_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMCATALOG_CACHE", "/somewhere")
        monkeypatch.setenv("EMCATALOG_MIRRORS", '{"gs://a": "file:///data/a"}')
        monkeypatch.setenv("EMCATALOG_OFFLINE", "1")
        monkeypatch.setenv("EMCATALOG_RETRIES", "3")
        settings = load_settings()
        assert (settings.cache, settings.offline, settings.retries) == ("/somewhere", True, 3)
        assert settings.mirrors == {"gs://a": "file:///data/a"}

    def test_config_file(self, config: WriteConfig) -> None:
        config('cache = "/files"\nretries = 2\noffline = true\n[mirrors]\n"gs://a" = "http://b"\n')
        settings = load_settings()
        assert (settings.cache, settings.offline, settings.retries) == ("/files", True, 2)
        assert settings.mirrors == {"gs://a": "http://b"}

    def test_precedence(self, config: WriteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        config('cache = "/files"\noffline = true\nretries = 2\n')
        monkeypatch.setenv("EMCATALOG_CACHE", "/environment")
        monkeypatch.setenv("EMCATALOG_OFFLINE", "0")
        assert load_settings(cache_dir="/argument").cache == "/argument"
        assert load_settings(cache_dir=Path("/argument")).cache == "/argument"
        assert load_settings(offline=True).offline
        settings = load_settings()
        assert (settings.cache, settings.offline, settings.retries) == ("/environment", False, 2)

    def test_mirrors_of_both_are_known(self, config: WriteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        config('[mirrors]\n"gs://a" = "http://file"\n"gs://b" = "http://file"\n')
        monkeypatch.setenv("EMCATALOG_MIRRORS", '{"gs://b": "http://environment", "gs://c": "http://environment"}')
        hosts = {"gs://a": "http://file", "gs://b": "http://environment", "gs://c": "http://environment"}
        assert load_settings().mirrors == hosts

    def test_read_when_asked(self, config: WriteConfig) -> None:
        assert load_settings().retries == 6
        config("retries = 1")
        assert load_settings().retries == 1

    def test_an_empty_variable_is_one_that_is_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty cache would be the current folder."""
        for name in ("CACHE", "MIRRORS", "OFFLINE", "RETRIES"):
            monkeypatch.setenv(f"EMCATALOG_{name}", "")
        assert load_settings().cache == platformdirs.user_cache_dir("emcatalog")
        assert not load_settings().offline

    @pytest.mark.skipif(sys.platform != "linux", reason="XDG_CONFIG_HOME")
    def test_in_a_process_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "emcatalog").mkdir()
        (tmp_path / "emcatalog" / "config.toml").write_text('retries = 4\ncache = "/files"\n')
        script = (
            "from emcatalog.settings import load_settings; s = load_settings(); print(s.retries, s.cache, s.offline)"
        )
        env = {"XDG_CONFIG_HOME": str(tmp_path), "EMCATALOG_CACHE": "/environment", "EMCATALOG_OFFLINE": "true"}
        assert python(script, env=env) == "4 /environment True"


class TestMistakes:
    """Each names the variable, or the file."""

    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            ("MIRRORS", "{", r"^EMCATALOG_MIRRORS='\{' is not JSON .*\"gs://bucket\""),
            ("MIRRORS", "gs://a=gs://b", "^EMCATALOG_MIRRORS='gs://a=gs://b' is not JSON"),
            ("MIRRORS", '["gs://a"]', r"EMCATALOG_MIRRORS.* not \['gs://a'\]"),
            ("MIRRORS", '"gs://a"', "EMCATALOG_MIRRORS.* not 'gs://a'"),
            ("MIRRORS", '{"gs://a": 5}', "mirrors.gs://a .*EMCATALOG_MIRRORS .* not 5"),
            ("MIRRORS", '{"gs://a": "/data"}', "EMCATALOG_MIRRORS.*'/data' is not a URL prefix"),
            ("MIRRORS", '{"": "gs://a"}', "EMCATALOG_MIRRORS.*'' is not a URL prefix"),
            ("MIRRORS", '{"precomputed://gs://a": "gs://b"}', "'precomputed://gs://a' is not .* without precomputed"),
            ("OFFLINE", "perhaps", "EMCATALOG_OFFLINE.*not 'perhaps'"),
            ("RETRIES", "many", "EMCATALOG_RETRIES.*not 'many'"),
            ("RETRIES", "-1", "EMCATALOG_RETRIES.*not '-1'"),
            ("RETRIES", "1000", "EMCATALOG_RETRIES.*not '1000'"),
        ],
    )
    def test_environment(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
        monkeypatch.setenv(f"EMCATALOG_{name}", value)
        with pytest.raises(SettingsError, match=says) as caught:
            load_settings()
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("retries", "cannot be read as TOML"),
            ("retries = 'many'", "retries .*not 'many'"),
            (
                "retrys = 3",
                "there is no setting 'retrys'; there are cache, mirrors, offline, retries, lock. Did you mean 'retri",
            ),
            ("mirrors = 3", "mirrors .*not 3"),
            ("cache = ''", "cache .*not ''"),
            ("offline = []", r"offline .*not \[\]"),
        ],
    )
    def test_config_file(self, config: WriteConfig, text: str, says: str) -> None:
        path = config(text)
        with pytest.raises(SettingsError, match=says) as caught:
            load_settings()
        assert str(path) in str(caught.value)

    def test_a_config_file_that_is_not_text(self, config: WriteConfig) -> None:
        config("").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SettingsError, match="cannot be read as TOML"):
            load_settings()

    def test_an_empty_cache_dir(self) -> None:
        with pytest.raises(SettingsError, match=r"cache .*not ''"):
            load_settings(cache_dir="")


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.retries = 1
    assert json.loads(settings.model_dump_json())["retries"] == 6


class TestReadAgain:
    """The same settings are not read twice, and other ones always are."""

    def test_what_changed_is_seen(self, monkeypatch: pytest.MonkeyPatch, config: WriteConfig, tmp_path: Path) -> None:
        assert load_settings() is load_settings()
        monkeypatch.setenv("EMCATALOG_RETRIES", "3")
        assert load_settings().retries == 3
        monkeypatch.setenv("emcatalog_offline", "1")  # any case will do
        assert load_settings().offline
        monkeypatch.delenv("EMCATALOG_RETRIES")
        os.utime(config("retries = 4"), ns=(1, 1))
        assert load_settings().retries == 4
        os.utime(config("retries = 5"), ns=(2, 2))
        assert load_settings().retries == 5
        monkeypatch.chdir(tmp_path)
        assert load_settings().lock == str(tmp_path / "emcatalog.lock")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        assert load_settings().cache == platformdirs.user_cache_dir("emcatalog")

    def test_no_secret_of_the_environment_stands_in_a_traceback(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOME_TOKEN", "a secret")
        monkeypatch.setenv("EMCATALOG_RETRIES", "many")
        with pytest.raises(SettingsError) as caught:
            load_settings()
        frames = [entry.frame for entry in caught.traceback if entry.path.name == "settings.py"]
        assert len(frames) == 2
        assert not any("a secret" in repr(frame.f_locals) for frame in frames)
