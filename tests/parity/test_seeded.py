import numpy as np
import pytest
import torch

from referencenet.parity.seeded import fill, parameter_kind, seeded, seeded_input


def test_a_name_always_gives_the_same_numbers() -> None:
    assert np.array_equal(seeded("a/unet/conv.weight", (3, 5)), seeded("a/unet/conv.weight", (3, 5)))
    assert not np.array_equal(seeded("a/unet/conv.weight", (3, 5)), seeded("b/unet/conv.weight", (3, 5)))


def test_numbers_are_those_of_numpys_pcg64_seeded_by_crc32() -> None:
    # zlib.crc32(b"case/input/x") == 138833271; the three numbers were drawn once with NumPy 2.3 and written down.
    generator = np.random.Generator(np.random.PCG64(138833271))
    expected = generator.standard_normal(3, dtype=np.float32)
    assert torch.equal(seeded_input("case", "x", (3,)), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("name", "num_dimensions", "kind"),
    [
        ("conv.weight", 4, "weight"),
        ("conv.bias", 1, "bias"),
        ("norm.weight", 1, "gain"),
        ("position", 3, "weight"),
        ("scale", 0, "bias"),
    ],
)
def test_a_parameters_distribution_follows_from_name_and_dimensions(name: str, num_dimensions: int, kind: str) -> None:
    assert parameter_kind(name, num_dimensions) == kind


def test_distributions_have_their_mean_and_spread() -> None:
    weight = seeded("w", (200, 5, 3, 3))
    assert weight.std() == pytest.approx(1 / np.sqrt(45), rel=0.02)
    gain, bias = seeded("norm.weight", (9000,)), seeded("norm.bias", (9000,))
    assert (gain.mean(), gain.std()) == (pytest.approx(1, abs=0.01), pytest.approx(0.1, rel=0.05))
    assert (bias.mean(), bias.std()) == (pytest.approx(0, abs=0.01), pytest.approx(0.1, rel=0.05))
    uniform = seeded("u", (9000,), "uniform")
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1
    assert {a.dtype for a in (weight, gain, bias, uniform)} == {np.dtype(np.float32)}


def test_unknown_distribution_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"kind is 'poisson'; expected one of weight, gain, bias, normal, uniform"):
        seeded("x", (2,), "poisson")  # pyright: ignore[reportArgumentType]


def test_fill_sets_parameters_and_leaves_buffers() -> None:
    module = torch.nn.BatchNorm1d(3)
    fill(module, "case", "part")
    assert torch.equal(module.weight, torch.from_numpy(seeded("case/part/weight", (3,))))
    assert torch.equal(module.bias, torch.from_numpy(seeded("case/part/bias", (3,))))
    assert torch.equal(module.running_var, torch.ones(3))
