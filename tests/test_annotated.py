"""Single cells: AnnData, loom and 10x Genomics in, AnnData out."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse

import vaestro as vs
from vaestro.cli import main
from vaestro.data.sparse import Sparse

h5py = pytest.importorskip("h5py")
anndata = pytest.importorskip("anndata")
pandas = pytest.importorskip("pandas")
CELLS, GENES = 60, 6


def words(values: list) -> object:
    """Return an index of text as pandas 2 stores it, which AnnData can write."""
    return pandas.Index(values, dtype=object)


def counts(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3.0, (CELLS, GENES))


def annotated(x: np.ndarray, genes: tuple[str, ...] = ()) -> object:
    obs = pandas.DataFrame(
        {
            "age": np.where(np.arange(CELLS) % 3 == 0, np.nan, np.arange(CELLS, dtype=float)),
            "umis": pandas.array([None, 7] * (CELLS // 2), dtype="Int64"),
            "fresh": pandas.array([True, False, None] * (CELLS // 3), dtype="boolean"),
            "type": pandas.Categorical.from_codes([0, 1, -1] * (CELLS // 3), words(["B", "T"])),
            "batch": pandas.Categorical.from_codes([0, 1] * (CELLS // 2), words(["l0", "l1"])),
            "nothing": np.full(CELLS, np.nan),
        },
        index=words([f"cell{i}" for i in range(CELLS)]),
    )
    names = words(list(genes or [f"g{i}" for i in range(GENES)]))
    var = pandas.DataFrame({"ens": [f"E{i}" for i in range(GENES)]}, index=names)
    var["ens"] = pandas.Categorical.from_codes(np.arange(GENES), words(var["ens"].tolist()))
    return anndata.AnnData(scipy.sparse.csr_matrix(x.astype(np.float32)), obs=obs, var=var)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    annotated(counts()).write_h5ad(tmp_path / "c.h5ad")
    return tmp_path / "c.h5ad"


def said(capsys: pytest.CaptureFixture[str], *command: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main([*map(str, command)]) == code, capsys.readouterr().err
    out = capsys.readouterr()
    return out.err if code else out.out


def test_columns_of_obs_keep_their_empty_cells(cells: Path) -> None:
    data = vs.load(cells)
    rows, at = data.train.attributes, data.train.index
    np.testing.assert_array_equal(np.isnan(rows["age"]), at % 3 == 0)
    np.testing.assert_array_equal(rows["umis"], np.where(at % 2 == 0, np.nan, 7))
    np.testing.assert_array_equal(rows["fresh"], np.array([1, 0, np.nan])[at % 3])
    assert rows["type"].tolist() == np.array(["B", "T", ""])[at % 3].tolist()
    assert rows["obs_names"].tolist() == [f"cell{i}" for i in at]
    assert "nothing" not in rows and "left out column of obs: nothing (empty)" in data.notes
    with pytest.raises(ValueError, match=r"expected a value of the condition 'age' in every row"):
        vs.load(cells, condition=["age"])
    assert vs.load(cells, condition=["batch"]).given.columns[0].values == ("l0", "l1")


def test_the_refusal_names_what_has_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, path = counts(), tmp_path / "n.h5ad"
    cells = annotated(x)
    cells.raw = cells.copy()
    cells.layers["my counts"] = x
    cells.layers["scaled"] = np.log1p(x)
    cells.X = scipy.sparse.csr_matrix(np.log1p(x).astype(np.float32))
    cells.obsm["X_pca"] = np.random.default_rng(0).normal(size=(CELLS, 3))
    cells.write_h5ad(path)
    error = said(capsys, "train", path, code=2)
    assert error.count("\n") == 1 and "my counts and raw have counts" in error
    assert f"'{path}:array=my counts', {path}:array=raw)" in error
    for name in ("my counts", "layers/my counts", "raw"):
        np.testing.assert_array_equal(vs.load(f"{path}:array={name}").train.values[:], x)
    with pytest.raises(ValueError, match=r"array='my counts', array='raw'"):
        vs.load(cells)
    assert str(vs.load(cells, array="obsm/X_pca").space) == "real (3,)"
    assert vs.load(f"{path}:array=obsm/X_pca").train.attributes["batch"].shape == (54,)
    del cells.layers["my counts"]
    cells.raw = None
    del cells.raw
    cells.write_h5ad(path)
    hint = f"no other layer has counts; {path}:kind=real reads them as real numbers"
    assert hint in said(capsys, "train", path, code=2)
    assert str(vs.load(f"{path}:kind=real").space) == "real (6,)"


def test_names_of_genes(tmp_path: Path) -> None:
    path = tmp_path / "d.h5ad"
    annotated(counts(), ("a", "b", "a", "c", "a", "a-1")).write_h5ad(path)
    data = vs.load(path)
    assert data.space.names == ("a", "b", "a-2", "c", "a-3", "a-1")
    assert any(n.startswith("2 names of columns are repeated") for n in data.notes)
    named = vs.load(f"{path}:var_names=ens")
    assert named.space.names == tuple(f"E{i}" for i in range(GENES))
    with pytest.raises(ValueError, match=r"expected var_names= to name a column of var in .*'ens'"):
        vs.load(f"{path}:var_names=esn")


def test_cells_in_memory_are_those_of_the_file(tmp_path: Path, cells: Path) -> None:
    of_file, objects = vs.load(cells), anndata.read_h5ad(cells)
    backed = anndata.read_h5ad(cells, backed="r")
    for source in (objects, backed, objects[:]):
        data = vs.load(source)
        np.testing.assert_array_equal(data.train.values[:], of_file.train.values[:])
        assert data.space.names == of_file.space.names
        assert data.train.attributes["type"].tolist() == of_file.train.attributes["type"].tolist()
    assert isinstance(vs.load(objects.X).train.values, Sparse)
    run = vs.train(
        objects, run=tmp_path / "r", condition=["batch"], latent=2, steps=2, network="linear"
    )
    again = run.data()
    np.testing.assert_array_equal(again.train.values[:], of_file.train.values[:])
    assert again.space.names == of_file.space.names and again.given.names == ("batch",)
    np.testing.assert_array_equal(run.encode(objects)["mean"], run.encode(cells)["mean"])


def test_outputs_are_annotated(
    tmp_path: Path, cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "r"
    said(
        capsys,
        *("train", cells, "--condition", "batch", "--run", run, "--latent", 2, "--steps", 2),
        *("--network", "linear"),
    )

    def out(command: str, *words: object, name: str) -> Path:
        said(capsys, command, run, *words, "-o", tmp_path / name)
        return tmp_path / name

    genes, names = [f"g{i}" for i in range(GENES)], [f"cell{i}" for i in range(CELLS)]
    means = anndata.read_h5ad(out("reconstruct", cells, name="m.h5ad"))
    assert means.var_names.tolist() == genes and means.obs_names.tolist() == names
    assert means.obs["batch"].tolist() == ["l0", "l1"] * (CELLS // 2)
    assert means.obs["type"].isna().sum() == CELLS // 3
    np.testing.assert_array_equal(means.X, vs.open(run).reconstruct(cells, dtype="float"))
    draws = anndata.read_h5ad(out("sample", "-n", 5, "--condition", "batch=l1", name="s.h5ad"))
    assert draws.X.dtype == np.int32 and draws.obs["batch"].tolist() == ["l1"] * 5
    assert draws.var_names.tolist() == genes
    table = out("reconstruct", cells, name="m.csv").read_text().splitlines()
    assert table[0] == ",".join(f'"{n}"' for n in ["obs_names", *genes])
    assert table[1].startswith('"cell0",')
    codes = out("encode", cells, name="z.csv")
    assert codes.read_text().splitlines()[1].startswith('0,"cell0",')
    assert np.load(out("encode", cells, name="z.npz"))["obs_names"].tolist() == names
    decoded = out("decode", codes, "--condition", "batch=l0", name="x.h5ad")
    assert anndata.read_h5ad(decoded).shape == (CELLS, GENES)
    some = anndata.read_h5ad(out("encode", cells, "--split", "test", name="t.h5ad"))
    assert some.obsm["X_vaestro"].shape == (3, 2) and some.obs_names[0] in names


def write_tenx(folder: Path, x: np.ndarray, types: list[str], end: str = ".gz") -> None:
    """Write a folder as Cell Ranger does."""
    folder.mkdir()
    opener = gzip.open if end else open
    scipy.io.mmwrite(folder / "matrix.mtx", scipy.sparse.coo_matrix(x.T))
    if end:
        (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
        (folder / "matrix.mtx").unlink()
    with opener(folder / f"features.tsv{end}", "wt") as file:
        file.writelines(f'E{i}\tg"{i}\t{kind}\n' for i, kind in enumerate(types))
    with opener(folder / f"barcodes.tsv{end}", "wt") as file:
        file.writelines(f"AAAC{i}-1\n" for i in range(len(x)))


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_folder_of_10x_genomics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    x = counts()
    types = ["Gene Expression"] * 4 + ["Antibody Capture"] * 2
    write_tenx(tmp_path / "run", x, types, end)
    data = vs.load(tmp_path / "run")
    np.testing.assert_array_equal(data.train.values[:], x[:, :4])
    assert data.space.names == tuple(f'g"{i}' for i in range(4))
    assert data.train.attributes["obs_names"][0] == f"AAAC{data.train.index[0]}-1"
    assert any(
        f"'{tmp_path / 'run'}:features=Antibody Capture' reads these" in n for n in data.notes
    )
    other = vs.load(f'{tmp_path / "run"}:features="Antibody Capture",var_names=id')
    np.testing.assert_array_equal(other.train.values[:], x[:, 4:])
    assert other.space.names == ("E4", "E5")
    (tmp_path / "run" / f"barcodes.tsv{end}").unlink()
    assert "but no barcodes.tsv or .gz" in said(capsys, "train", tmp_path / "run", code=2)


def test_an_h5_file_of_10x_genomics(tmp_path: Path) -> None:
    x, text = counts(), h5py.string_dtype()
    by_cell = scipy.sparse.csr_matrix(x)
    for name, kind in (("new", "features"), ("old", "")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            group = file.create_group("matrix" if kind else "hg19")
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(by_cell, part)
            group["shape"] = np.array([GENES, CELLS])
            group.create_dataset("barcodes", data=[f"c{i}" for i in range(CELLS)], dtype=text)
            if kind:
                group = group.create_group("features")
                group.create_dataset("feature_type", data=["Gene Expression"] * GENES, dtype=text)
            genes = [f"g{i}" for i in range(GENES)]
            group.create_dataset("name" if kind else "gene_names", data=genes, dtype=text)
        data = vs.load(tmp_path / f"{name}.h5")
        np.testing.assert_array_equal(data.train.values[:], x)
        assert data.space.names == tuple(genes)


def test_a_loom_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, text = counts(), h5py.string_dtype()
    with h5py.File(tmp_path / "x.loom", "w") as file:
        file["matrix"] = np.log1p(x.T)
        file["layers/spliced"] = x.T
        file["row_attrs/Gene"] = np.array([f"g{i}" for i in range(GENES)], dtype=text)
        file["col_attrs/CellID"] = np.array([f"c{i}" for i in range(CELLS)], dtype=text)
        file["col_attrs/age"] = np.arange(CELLS)
    error = said(capsys, "train", tmp_path / "x.loom", code=2)
    assert f"(spliced has counts: {tmp_path / 'x.loom'}:array=spliced)" in error
    data = vs.load(f"{tmp_path / 'x.loom'}:array=spliced")
    np.testing.assert_array_equal(data.train.values[:], x)
    assert data.space.names[0] == "g0"
    np.testing.assert_array_equal(data.train.attributes["age"], data.train.index)
    assert data.train.attributes["obs_names"][0] == f"c{data.train.index[0]}"
