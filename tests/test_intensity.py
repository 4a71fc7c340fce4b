"""Raw voxels scaled for a network: each channel of a patch on its own, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emcatalog.errors import ArgumentError
from emcatalog.patches.intensity import (
    RAW_TRANSFORMS,
    as_float,
    norm_raw_transform,
    normalize,
    normalize_percentile,
    standardize,
)

quick = settings(max_examples=100, deadline=None)

DTYPES = ("uint8", "uint16", "int16", "float32")
EVERY = {"as it is": as_float, **RAW_TRANSFORMS}
Transform = Callable[[Any], NDArray[np.float32]]

every = pytest.mark.parametrize("transform", EVERY.values(), ids=EVERY)
scaled = pytest.mark.parametrize("transform", RAW_TRANSFORMS.values(), ids=RAW_TRANSFORMS)


def raw(dtype: str, seed: int = 0) -> NDArray[Any]:
    """Two channels (c, z, y, x) of which the second is darker and of less contrast."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.normal(120, 30, (5, 12, 13)), rng.normal(40, 3, (5, 12, 13))]).clip(0, 255).astype(dtype)


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_gives_float32_of_the_same_shape_and_leaves_what_it_got(transform: Transform, dtype: str) -> None:
    values = raw(dtype)
    before = values.copy()
    made = transform(values)
    assert (made.dtype, made.shape) == (np.float32, values.shape)
    assert not np.shares_memory(made, values)
    np.testing.assert_array_equal(values, before)


@every
def test_of_a_view_is_that_of_a_copy(transform: Transform) -> None:
    """A patch that was turned is a view whose axes run in other directions."""
    view = raw("uint8").transpose(0, 3, 2, 1)[:, ::-1]
    np.testing.assert_array_equal(transform(view), transform(np.ascontiguousarray(view)))


@scaled
def test_each_channel_is_scaled_on_its_own(transform: Transform) -> None:
    values = raw("uint8")
    alone = np.concatenate([transform(channel[None]) for channel in values])
    np.testing.assert_array_equal(transform(values), alone)


@scaled
@quick
@given(seed=st.integers(0, 1000), gain=st.integers(1, 100), offset=st.integers(0, 1000))
def test_brightness_and_contrast_of_the_microscope_do_not_matter(
    transform: Transform, seed: int, gain: int, offset: int
) -> None:
    values = raw("uint16", seed)
    np.testing.assert_allclose(transform(values * gain + offset), transform(values), atol=2e-4)


@scaled
@quick
@given(
    value=st.integers(0, 2**16 - 1),
    shape=st.tuples(st.just(1), *[st.integers(1, 60)] * 3),
    dtype=st.sampled_from(["uint16", "float32"]),
)
def test_a_patch_of_one_value_is_0(transform: Transform, value: int, shape: tuple[int, ...], dtype: str) -> None:
    """Not nan, and not the error of a mean, scaled up to 1."""
    assert not transform(np.full(shape, value, dtype)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_standardize(dtype: str) -> None:
    for channel in standardize(raw(dtype)):
        assert abs(channel.mean(dtype=float)) < 1e-5
        assert channel.std(dtype=float) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize(dtype: str) -> None:
    for channel in normalize(raw(dtype)):
        assert (channel.min(), channel.max()) == (0, 1)


def test_normalize_percentile() -> None:
    """101 values, so that percentiles are some of them."""
    values = np.arange(101, dtype=np.uint8).reshape(1, 1, 1, 101) + 7
    made = normalize_percentile(values).ravel()
    assert made[[1, 99]].tolist() == [0, 1]
    assert made[50] == pytest.approx(0.5)
    assert made[0] < 0
    assert made[100] > 1


def test_normalize_percentile_takes_no_notice_of_a_few_wild_voxels() -> None:
    values = raw("uint16")
    wild = values.copy()
    wild[:, 0, 0, :3] = 65535
    np.testing.assert_allclose(normalize_percentile(wild)[:, 1:], normalize_percentile(values)[:, 1:], atol=0.1)
    assert abs(normalize(wild)[:, 1:] - normalize(values)[:, 1:]).max() > 0.9


class TestNormRawTransform:
    """A name, a function, or nothing."""

    @pytest.mark.parametrize("name", RAW_TRANSFORMS)
    def test_by_name(self, name: str) -> None:
        np.testing.assert_array_equal(norm_raw_transform(name)(raw("uint8")), RAW_TRANSFORMS[name](raw("uint8")))

    def test_none_keeps_the_values(self) -> None:
        """They become float32 where a batch is written."""
        np.testing.assert_array_equal(norm_raw_transform(None)(raw("uint8")), raw("uint8"), strict=True)

    def test_a_function_is_used_as_it_is(self) -> None:
        assert norm_raw_transform(np.log1p) is np.log1p

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ("standardise", r"raw_transform='standardise': there are 'standardize'.*Did you mean 'standardize'\?"),
            ("zzz", r"raw_transform='zzz': .*a function of an array \(c, z, y, x\), and None\.$"),
            (5, "raw_transform=5: there are"),
            (["normalize"], "there are"),
        ],
    )
    def test_anything_else_is_refused(self, asked: Any, message: str) -> None:
        with pytest.raises(ArgumentError, match=message):
            norm_raw_transform(asked)
