"""The layout is the one that docs/architecture.md tells: imports point upwards in its list only."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np

import vaestro

ROOT = Path(vaestro.__file__).parent
ORDER = [
    "text",
    "notebook",
    "storage",
    "processes",
    "locks",
    "signatures",
    "files",
    "schemas",
    "records",
    "tensor_files",
    "option",
    "user_code",
    "options",
    "trust",
    "drawing",
    "randomness",
    "column_types",
    "frames",
    "tokens",
    "spaces",
    "written",
    "densities",
    "networks",
    "sequences",
    "flows",
    "posteriors",
    "priors",
    "diffusion",
    "likelihoods",
    "gradients",
    "schedules",
    "models",
    "penalties",
    "optimizers",
    "updates",
    "objectives",
    "selection",
    "recipes",
    "building",
    "parts",
    "data",
    "new_categories",
    "loop",
    "transfer",
    "evaluation",
    "diagnosis",
    "latent",
    "export",
    "runs",
    "prior_fitting",
    "sklearn",
    "comparison",
    "report",
    "explorer",
    "cli",
]


def imported(file: Path) -> set[str]:
    """Return the modules of the package that a file imports, leaving out those imported for types
    alone."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "vaestro"
        ):
            pieces = node.module.split(".")
            found |= {pieces[1]} if len(pieces) > 1 else {name.name for name in node.names}
    return found & set(ORDER)


def test_imports_point_upwards() -> None:
    files = [
        f
        for f in ROOT.rglob("*.py")
        if f.name not in ("__init__.py", "__main__.py") or f.parent != ROOT
    ]
    assert len(files) > 20
    for file in files:
        own = file.relative_to(ROOT).parts[0].removesuffix(".py")
        below = [name for name in imported(file) if ORDER.index(name) > ORDER.index(own)]
        assert not below, f"{file.relative_to(ROOT)} imports {below}"


def test_the_list_is_complete() -> None:
    there = {
        p.name.removesuffix(".py")
        for p in ROOT.iterdir()
        if p.suffix == ".py" or (p.is_dir() and (p / "__init__.py").exists())
    }
    assert there - {"__init__", "__main__"} == set(ORDER)


def test_every_class_is_abstract_or_final() -> None:
    for module in (
        "networks",
        "sequences",
        "tokens",
        "posteriors",
        "priors",
        "likelihoods",
        "gradients",
        "models",
        "optimizers",
    ):
        whole = ROOT / f"{module}.py"
        files = [whole] if whole.exists() else sorted((ROOT / module).glob("*.py"))
        assert files, module
        for node in (node for file in files for node in ast.parse(file.read_text()).body):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(b) for b in node.bases}
                marks = {ast.unparse(d) for d in node.decorator_list}
                abstract = bases & {"ABC", "Protocol"} or node.name.startswith("_")
                record = "NamedTuple" in bases or any("dataclass" in m for m in marks)
                assert abstract or record or "final" in marks, f"{module}.{node.name}"


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, vaestro; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_unpickled() -> None:
    for file in ROOT.rglob("*.py"):
        text = file.read_text()
        for word in ("import pickle", "torch.load(", "allow_pickle=True", "joblib", "save_state("):
            assert word not in text, f"{file.name}: {word}"


def without_torch(code: str, folder: Path) -> None:
    """Run code in a new process, which then must not have imported torch."""
    code += "\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_are_read_without_torch(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,x\n2,y\n")
    without_torch(
        "from pathlib import Path\nfrom vaestro.data.tables import read_table\n"
        "assert list(read_table(Path('t.csv'), {}).splits['all'].columns) == ['a', 'b']",
        tmp_path,
    )


def test_finished_runs_are_compared_and_reported_without_torch(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 4))
    runs = [
        vaestro.train(rows, run=tmp_path / name, steps=3, latent=n, network="mlp:width=4")
        for n, name in enumerate("ab", 1)
    ]
    vaestro.write_report(runs[0])
    vaestro.write_report(runs[1])
    for command in (["compare", "a", "b"], ["report", "a"]):
        without_torch(f"from vaestro.cli import main\nassert main({command}) == 0", tmp_path)


# objects of other libraries that are probed: (file, object)
FOREIGN = {
    ("cli/main.py", "error"),
    ("data/cache.py", "errno"),
    ("data/columns.py", "column.type"),
    ("data/columns.py", "part"),
    ("data/image_decoding.py", "image"),
    ("data/images.py", "os"),
    ("data/passes.py", "mmap"),
    ("data/shard_formats.py", "kind"),
    ("data/in_memory.py", "row"),
    ("data/in_memory.py", "source"),
    ("data/tables.py", "values"),
    ("objectives/objective.py", "bound"),
}
KINDS_OF_MODEL = {"LatentModel", "VAE", "Autoregressive"}


def calls(*names: str) -> list[tuple[str, ast.Call]]:
    """Return the calls of functions in the package, each with its file."""
    return [
        (str(file.relative_to(ROOT)), node)
        for file in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]


def test_own_classes_are_not_probed_by_name() -> None:
    """An interface declares what a class has. Only objects of other libraries are probed."""
    probes = {
        (file, ast.unparse(call.args[0]))
        for file, call in calls("getattr", "hasattr")
        if isinstance(call.args[1], ast.Constant)
    }
    assert probes <= FOREIGN, f"probed by name: {sorted(probes - FOREIGN)}"
    assert probes >= FOREIGN, f"no longer probed: {sorted(FOREIGN - probes)}"


def test_only_models_ask_which_class_a_model_is() -> None:
    """Other modules ask its capabilities."""
    for file, call in calls("isinstance"):
        names = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
        names |= {n.attr for n in ast.walk(call.args[1]) if isinstance(n, ast.Attribute)}
        if names & KINDS_OF_MODEL:
            assert file.startswith("models/"), f"{file}: {ast.unparse(call)}"


def test_q_of_features_is_asked_only_where_the_capability_says_so() -> None:
    """q of a hierarchy depends on the draws above it, so it has no `q(features)`."""
    for file in sorted(ROOT.rglob("*.py")):
        text = file.read_text()
        if ".q(" in text and file.parent.name != "models":
            assert "q_from_features" in text, f"{file.relative_to(ROOT)} calls q() unasked"
