"""Attribute arithmetic: directions by their definition, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from vaestro import latents
from vaestro.cli import main
from vaestro.data.sets import Rows
from vaestro.models import LatentModel


@pytest.fixture
def made() -> tuple[LatentModel, Rows]:
    """Return a linear model and data whose first cell is an attribute and whose second says a
    class."""
    r = np.random.default_rng(0)
    x = r.normal(size=(300, 6)).astype(np.float32)
    x[:, 1] += 3 * (np.arange(300) % 3 == 1)
    data = vs.load(x)
    torch.manual_seed(0)
    model = vs.build(data.space, latent=4, network="linear")
    known = {
        "size": 2 * x[:, 0] + 1,
        "class": np.array(["a", "b", "c"])[np.arange(300) % 3],
        "one": np.ones(300),
    }
    known |= {"flag": (x[:, 2] > 0), "holes": np.where(np.arange(300) % 2, x[:, 0], np.nan)}
    rows = data.train
    return model, Rows(
        rows.values,
        rows.space,
        "train",
        attributes={n: v[rows.index] for n, v in known.items()},
        index=rows.index,
    )


def test_for_a_value_it_is_the_difference_of_mean_codes(made: tuple[LatentModel, Rows]) -> None:
    model, rows = made
    codes = latents.encode(model, rows)["mean"]
    has = rows.attributes["class"] == "b"
    found = latents.direction(model, rows, "class", "b")
    np.testing.assert_allclose(found.step, codes[has].mean(0) - codes[~has].mean(0), atol=1e-5)
    along = codes @ found.step
    assert found.correlation == pytest.approx(
        np.corrcoef(along, has)[0, 1], abs=1e-5
    ) and found.n == len(rows)
    flag = latents.direction(model, rows, "flag")
    np.testing.assert_allclose(
        flag.step, latents.direction(model, rows, "flag", True).step, atol=1e-6
    )
    np.testing.assert_allclose(
        flag.step, -latents.direction(model, rows, "flag", False).step, atol=1e-6
    )


def test_a_direction_that_hardly_explains_its_attribute_says_so(
    made: tuple[LatentModel, Rows],
) -> None:
    model, rows = made
    assert latents.direction(model, rows, "class", "b").warning == ""
    noise = np.random.default_rng(5).normal(size=len(rows))
    unrelated = Rows(
        rows.values, rows.space, "train", attributes={"noise": noise}, index=rows.index
    )
    found = latents.direction(model, unrelated, "noise")
    most = np.tanh(np.arctanh(abs(found.correlation)) + 1.96 / np.sqrt(len(rows) - 3)) ** 2
    assert (
        f"explain at most {most:.0%} of the variance of noise" in found.warning
        and "--condition noise" in found.warning
    )
    few = latents.Direction(found.step, found.correlation, 8, found.unit, "noise")
    assert few.warning == ""  # so few data cannot exclude that the codes contain it


def test_for_numbers_it_is_the_slope_of_the_codes(made: tuple[LatentModel, Rows]) -> None:
    model, rows = made
    codes = latents.encode(model, rows)["mean"]
    slopes = np.polyfit(rows.attributes["size"], codes, 1)[0]
    found = latents.direction(model, rows, "size")
    np.testing.assert_allclose(found.step, slopes, atol=1e-5)
    assert "whose standard deviation is" in found.unit
    there = np.isfinite(rows.attributes["holes"])
    holes = latents.direction(model, rows, "holes")
    assert holes.n == there.sum()
    np.testing.assert_allclose(
        holes.step, np.polyfit(rows.attributes["holes"][there], codes[there], 1)[0], atol=1e-5
    )


def test_an_edit_moves_what_is_decoded_along_it(made: tuple[LatentModel, Rows]) -> None:
    model, rows = made
    along = latents.direction(model, rows, "size")
    few = rows.take(5)
    still, once, back = (latents.edit(model, few, along, a) for a in (0.0, 1.0, -1.0))
    np.testing.assert_allclose(still, latents.reconstruct(model, few), atol=1e-5)
    np.testing.assert_allclose(once - still, still - back, atol=1e-4)  # the decoder is linear
    assert np.abs(once - still).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("length", None, r"expected an attribute of train data: .*size, class.*; got 'length'"),
        ("class", None, "expected class=VALUE, one of a, b, c; got class alone"),
        (
            "class",
            "d",
            "expected a value of class that some data have and others do not: a, b, c; got d",
        ),
        ("one", None, "expected an attribute that varies"),
    ],
)
def test_what_is_no_attribute_is_refused(
    made: tuple[LatentModel, Rows], name: str, value: str | None, said: str
) -> None:
    model, rows = made
    with pytest.raises(ValueError, match=said):
        latents.direction(model, rows, name, value)


def test_discrete_latents_and_what_is_given_are_refused(made: tuple[LatentModel, Rows]) -> None:
    model, rows = made
    with pytest.raises(ValueError, match="finite amount"):
        latents.edit(model, rows, latents.direction(model, rows, "size"), float("nan"))
    discrete = vs.build(rows.space, latent=4, posterior="bernoulli", network="linear")
    with pytest.raises(ValueError, match="real latents to edit"):
        latents.direction(discrete, rows, "size")
    data = vs.load("digits", condition=["digit"])
    given = vs.build(data.space, latent=2, network="linear", given=data.given)
    with pytest.raises(
        ValueError, match=r"which the model is given \(--condition digit=VALUE sets it\)"
    ):
        latents.direction(given, data.train, "digit", "3")


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "digits",
                "--run",
                run,
                "--steps",
                "20",
                "--latent",
                "3",
                "--network",
                "mlp:width=16,depth=1",
            ]
        )
        == 0
    )
    assert (
        main(
            [
                "edit",
                run,
                "digits",
                "--attribute",
                "digit=3",
                "--amount",
                "0.5",
                "-o",
                str(tmp_path / "e.npy"),
                "-n",
                "7",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "the step from the mean code of other data to that of data with digit=3" in said
        and "wrote 7 data" in said
    )
    assert np.load(tmp_path / "e.npy").shape == (7, 8, 8)
    assert (
        main(["edit", run, "digits", "--attribute", "digit=3", "-o", str(tmp_path / "e.png")]) == 0
    )
    assert main(["edit", run, "digits", "--attribute", "hue", "-o", str(tmp_path / "f.npy")]) == 2
    table = tmp_path / "t.csv"
    r = np.random.default_rng(0)
    table.write_text(
        "age,city\n" + "".join(f"{a:.2f},{'ab'[int(a > 40)]}\n" for a in r.normal(40, 10, 300))
    )
    assert main(["train", str(table), "--run", f"{run}2", "--steps", "20", "--latent", "2"]) == 0
    assert (
        main(["edit", f"{run}2", str(table), "--attribute", "city", "-o", str(tmp_path / "e.csv")])
        == 0
    )
    assert (tmp_path / "e.csv").read_text().splitlines()[0] == '"age","city"'


def test_sentences_are_edited_by_a_column_beside_them(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(
        "words,mood\n"
        + "".join(
            f"the {('sun', 'rain')[i % 2]} came {i % 7},{('good', 'bad')[i % 2]}\n"
            for i in range(200)
        )
    )
    run, source = str(tmp_path / "run"), f"{table}:text=words,tokens=words"
    options = ["--steps", "20", "--latent", "2", "--network", "gru:width=16"]
    assert main(["train", source, "--run", run, *options]) == 0
    assert (
        main(["edit", run, source, "--attribute", "mood", "-o", str(tmp_path / "e.txt"), "-n", "5"])
        == 0
    )
    assert len((tmp_path / "e.txt").read_text().splitlines()) == 5
