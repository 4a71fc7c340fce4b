"""Browsing is quick because it loads little; what reads voxels is loaded when voxels are read."""

from __future__ import annotations

import pytest

from tests.conftest import python

HEAVY = ("tensorstore", "torch", "dask", "xarray", "numpy", "scipy", "zarr", "cloudvolume", "PIL", "pandas", "aiohttp")


def loaded(script: str) -> set[str]:
    """Which of the heavy modules a script loads."""
    return set(python(f"import sys\n{script}\nprint(*set(sys.modules) & set({HEAVY!r}))").split())


@pytest.mark.parametrize(
    "script",
    [
        "import emcatalog; emcatalog.CATALOG",
        "import emcatalog, intake; list(intake.open_catalog(emcatalog.CATALOG))",
        "import emcatalog; list(emcatalog.open_catalog(emcatalog.CATALOG))",
        "import emcatalog; list(emcatalog.catalog)",
        "import intake; list(intake.cat.emcatalog)",
        "import emcatalog.entries",
        "import emcatalog.drivers.volume, emcatalog.drivers.catalog",
    ],
)
def test_browsing_loads_nothing_heavy(script: str) -> None:
    assert loaded(script) == set()


def test_an_entry_with_its_arguments_loads_nothing_heavy() -> None:
    script = "import emcatalog; s = emcatalog.catalog.malecns(version='v1.0', bbox=(0, 64, 0, 64, 0, 64)); s.channels"
    assert loaded(script) == set()


def test_reading_does() -> None:
    """Or the tests above would say nothing."""
    assert {"tensorstore", "numpy"} <= loaded("import emcatalog.cutout")


def test_importing_the_package_loads_neither_intake_nor_pydantic() -> None:
    assert python("import sys, emcatalog; print(*{'intake', 'pydantic', 'yaml'} & set(sys.modules))") == ""


def test_names_of_the_package() -> None:
    import emcatalog

    assert all(hasattr(emcatalog, name) for name in emcatalog.__all__)
    with pytest.raises(AttributeError, match="no attribute 'catlog'"):
        _ = emcatalog.catlog
