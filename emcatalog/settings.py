"""What the environment and the user's config file say; read when asked, so that a test or a notebook can change it.

``EMCATALOG_CACHE``, ``EMCATALOG_MIRRORS`` (a JSON object), ``EMCATALOG_OFFLINE`` and ``EMCATALOG_RETRIES`` win over
``config.toml`` in the platform's config folder, which has the same names in lower case.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableSetting

from emcatalog.errors import SettingsError

CONFIG_FILE = Path(platformdirs.user_config_dir("emcatalog")) / "config.toml"


class Settings(BaseSettings):
    """How this user reaches remote data and where the mirror lies."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="EMCATALOG_", toml_file=CONFIG_FILE, extra="ignore", frozen=True
    )

    cache: str = Field(default_factory=lambda: platformdirs.user_cache_dir("emcatalog"))
    """Folder or object-store URL of the mirror."""
    mirrors: dict[str, str] = {}
    """URL prefix -> URL prefix that is read in its place; the longest prefix wins."""
    offline: bool = False
    """Answer from the mirror alone."""
    retries: int = Field(default=6, ge=0, le=32)
    """How often a failed request is repeated, with waits that double from half a second up to 16 seconds."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then the config file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(*, cache_dir: str | Path | None = None, offline: bool | None = None) -> Settings:
    """Read the settings; arguments that are not None win.

    Raises:
        SettingsError: a value that cannot be used; the message names the variable.
    """
    given = {"cache": None if cache_dir is None else str(cache_dir), "offline": offline}
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {key} (EMCATALOG_{key.upper()} or {CONFIG_FILE}): {first['msg']}") from error
    except (UnreadableSetting, ValueError) as error:
        raise SettingsError(
            f"{error} (EMCATALOG_MIRRORS must be a JSON object of URL prefixes; {CONFIG_FILE} must be TOML)"
        ) from error
