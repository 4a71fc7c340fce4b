"""What the environment and the user's config file say; read when asked, so that a test or a notebook can change it.

``EMCATALOG_CACHE``, ``EMCATALOG_MIRRORS`` (a JSON object), ``EMCATALOG_OFFLINE``, ``EMCATALOG_RETRIES`` and
``EMCATALOG_LOCK`` win over ``config.toml`` in the platform's config folder, which has the same names in lower case. The
two tables of mirrors are laid over each other: the environment's wins for the same prefix.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import platformdirs
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableSetting

from emcatalog.errors import SettingsError, listing, suggest

_READ: Final = re.compile(r"(EMCATALOG|XDG)_\w+|HOME|USERPROFILE|(LOCAL)?APPDATA", re.IGNORECASE)
"""The variables that settings depend on, those of platformdirs among them. Others may be secrets, which must not be
kept, nor stand in a traceback."""


def config_file() -> Path:
    """Where the user's config file lies, if there is one."""
    return Path(platformdirs.user_config_dir("emcatalog")) / "config.toml"


def _urls(mirrors: dict[str, str]) -> dict[str, str]:
    for url in (part for pair in mirrors.items() for part in pair):
        if not re.fullmatch(r"[a-z][a-z0-9]*://(?!.*://).*", url):
            raise ValueError(
                f"{url!r} is not a URL prefix such as 'gs://bucket' or 'file:///data', without precomputed://"
            )
    return mirrors


def _absolute(path: str) -> str:
    """Another process, to which the settings are sent, may stand in another folder."""
    return str(Path(path).expanduser().absolute())


class Settings(BaseSettings):
    """How this user reaches remote data and where the mirror lies."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="EMCATALOG_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    cache: str = Field(default_factory=lambda: platformdirs.user_cache_dir("emcatalog"), min_length=1)
    """Folder or object-store URL of the mirror."""
    mirrors: Annotated[dict[str, str], AfterValidator(_urls)] = {}
    """URL prefix -> URL prefix that is read in its place; the longest prefix wins."""
    offline: bool = False
    """Answer from the mirror alone."""
    retries: int = Field(default=6, ge=0, le=32)
    """How often a failed request is repeated, with waits that double from half a second up to 16 seconds."""
    lock: Annotated[str, AfterValidator(_absolute)] = Field(
        default="emcatalog.lock", min_length=1, validate_default=True
    )
    """The lock file, where there is one: a project's own, in the folder in which Python was started."""

    @property
    def cache_folder(self) -> Path:
        """The cache as a folder of this computer, for what is kept as files.

        Raises:
            SettingsError: the cache is in a bucket.
        """
        if "://" in self.cache and not self.cache.startswith("file://"):
            raise SettingsError(
                f"the cache is at {self.cache}, and tables, skeletons and files are kept in a folder: give cache_dir= a"
                " local path"
            )
        return Path(self.cache.removeprefix("file://")).expanduser().resolve()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the config file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


def load_settings(*, cache_dir: str | Path | None = None, offline: bool | None = None) -> Settings:
    """Read the settings; arguments that are not None win.

    Raises:
        SettingsError: a value that cannot be used; the message names the variable.
    """
    given = {"cache": None if cache_dir is None else str(cache_dir), "offline": offline}
    try:
        stamp = config_file().stat().st_mtime_ns
    except OSError:
        stamp = 0
    chosen = tuple((key, value) for key, value in given.items() if value is not None)
    said = frozenset(pair for pair in os.environ.items() if _READ.fullmatch(pair[0]))
    return _load(chosen, said, stamp, Path.cwd())


@lru_cache(maxsize=32)
def _load(given: tuple[tuple[str, Any], ...], *_: object) -> Settings:
    """The settings, read again only where what they are read from may have changed: it takes as long as a small read.

    Raises:
        SettingsError: a value that cannot be used.
    """
    try:
        return Settings(**dict(given))
    except ValidationError as error:
        raise SettingsError(_sentence(error.errors()[0])) from error
    except UnreadableSetting as error:
        raise SettingsError(
            f"EMCATALOG_MIRRORS={os.environ.get('EMCATALOG_MIRRORS', '')!r:.80} is not JSON ({error.__cause__}); give"
            ' an object of URL prefixes, as in \'{"gs://bucket": "file:///data/bucket"}\''
        ) from error
    except (ValueError, OSError) as error:
        raise SettingsError(f"{config_file()} cannot be read as TOML: {error}") from error


def _sentence(error: Any) -> str:
    name, *below = (str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = Settings.model_fields
        return f"{config_file()}: there is no setting {name!r}; there are {listing(known)}.{suggest(name, known)}"
    key = ".".join([name, *below])
    what = error["msg"].removeprefix("Value error, ")
    return f"setting {key} (EMCATALOG_{name.upper()} or {config_file()}): {what}, not {error['input']!r:.80}"
