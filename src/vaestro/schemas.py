"""The files of a run: their names, fields and types.

A row of `SCHEMAS` is used to write a file, to check it when it is read, and to make
docs/run-folder.md, which `python -m vaestro.schemas > docs/run-folder.md` writes. Fields that are
not in a row are allowed, because a later version may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from types import NoneType, UnionType
from typing import final, get_args, get_origin

from vaestro.files import Json


@final
@dataclass(frozen=True)
class Field:
    """Describe a field of a file.

    Args:
        name: of the field; "*" describes every field that has no row.
        kind: its type: str, int, float, bool, list, dict, or a union of them. An int is a float.
        meaning: in words.
        required: whether the field must be there.
        inner: the fields of the object, or of each object of the list.

    >>> Field("n", int, "number of data").required
    True
    """

    name: str
    kind: type | UnionType
    meaning: str
    required: bool = True
    inner: tuple[Field, ...] = ()


@final
@dataclass(frozen=True)
class Schema:
    """Describe a file.

    Args:
        file: its name, or a pattern.
        what: what it contains.
        remedy: what to do if it is damaged; RUN is the folder.
        fields: of its object, or of the object of each line.

    >>> schema_of("evaluation-test-k500.json").file
    'evaluation*.json'
    """

    file: str
    what: str
    remedy: str
    fields: tuple[Field, ...]


def _sums(of: str) -> tuple[Field, ...]:
    return (
        Field("weights_sha256", str, f"hash of the weights that {of}", required=False),
        Field("vaestro", str, "version of the program", required=False),
    )


_SPLIT = (
    Field("n", int, "number of data"),
    Field("sha256", str, "hash of values, mask and conditions"),
)
_ESTIMATE = (
    Field("method", str, "elbo, iwae, ais or exact"),
    Field("side", str, "lower, upper or exact"),
    Field("measure", str, "counting, lebesgue or mixed"),
    Field("mean", float, "estimate of log p(x) for one datum, in nats"),
    Field("stderr", float | None, "its standard error over data"),
    Field("k", int | None, "draws or chains for each datum", required=False),
    Field("n", int, "number of data", required=False),
    Field("on", str, "data, or simulated data", required=False),
    Field("bits_per_dim", float | None, "null unless the measure is counting", required=False),
    Field("seconds", float | None, "duration", required=False),
)
_UNIT = (
    Field("unit", int, "number of the unit"),
    Field("rate", float | None, "KL to the prior, in nats", required=False),
    Field("activity", float | None, "variance of its mean over data", required=False),
    Field("active", bool, "whether the activity is above 0.01", required=False),
)
_SCORE = (
    Field("probe", str, "linear or kNN"),
    Field("features", str, "codes, raw or PCA"),
    Field("value", float | None, "the score with all labels"),
    Field("low", float | None, "lower end of its 95 % interval"),
    Field("high", float | None, "upper end"),
    Field("balanced", float | None, "mean over classes of the accuracy in each"),
    Field("few", float | None, "mean score over draws of few labels"),
    Field("few_error", float | None, "its standard error over draws"),
)
_MEANING = (
    Field("unit", int, "number of the unit"),
    Field("name", str, "given by the user; empty without one"),
    Field("rate", float | None, "KL to the prior, in nats"),
    Field("activity", float | None, "variance of its mean over data"),
    Field("role", str, "informative, noise, off or unclear"),
    Field(
        "attributes",
        list,
        "significant correlations, the strongest first",
        inner=(
            Field("attribute", str, "its name"),
            Field("kind", str, "number or category"),
            Field("value", float, "Spearman's correlation, or the correlation ratio of ranks"),
            Field("p", float, "p-value, before the correction for many"),
        ),
    ),
    Field("lowest", list, "row numbers in the split with the lowest codes"),
    Field("highest", list, "row numbers with the highest codes"),
)
_METRIC = (
    Field("name", str, "of the metric"),
    Field("value", float | None, "between 0 and 1; null if it could not be computed"),
    Field("low", float | None, "lower end of its 95 % interval"),
    Field("high", float | None, "upper end"),
    Field("chance", float | None, "the metric for permuted rows"),
)
_PROBE = (
    Field("name", str, "of the attribute"),
    Field("kind", str, "number or category"),
    Field("role", str, "attribute, column (of the modelled table) or condition"),
    Field("measure", str, "R2 or accuracy"),
    Field("baseline", float | None, "score of the mean or of the most frequent class"),
    Field("fitted", int, "number of rows that fit the probes"),
    Field("scored", int, "number of rows that score them"),
    Field("labels", int, "number of labels of the small draws"),
    Field("scores", list, "an object for each probe and representation", inner=_SCORE),
    Field("statements", list, "conclusions, in words"),
)
_FINDING = (
    Field("name", str, "of the finding"),
    Field("severity", str, "error, warning or note"),
    Field("evidence", str, "the measurements, in words", required=False),
    Field("remedy", str | None, "a command", required=False),
)
_METRICS = (
    Field("split", str, "train or valid"),
    Field("step", int, "number of the step"),
    Field("epoch", float | None, "passes over the training data", required=False),
    Field("bound", float | None, "on log p(x), in nats, without weights", required=False),
    Field("rate", float | None, "KL, in nats", required=False),
    Field("distortion", float | None, "-log p(x given z), in nats", required=False),
    Field("loss", float | None, "what is optimised", required=False),
    Field("beta", float | None, "weight of the KL", required=False),
    Field("lr", float | None, "learning rate", required=False),
    Field("grad_norm", float | None, "norm of the gradient", required=False),
    Field("examples_per_second", float | None, "speed of training", required=False),
    Field("seconds", float | None, "since the start", required=False),
)
_DIFFUSION = (
    Field("vaestro", str, "version of the program", required=False),
    Field(
        "options",
        dict,
        "the options of `vaestro diffuse`",
        inner=(
            Field("prediction", str, "v, epsilon or flow"),
            Field("denoiser", str, "the network"),
            Field("condition", list, "names of the conditions"),
            Field("batch", int, "rows of a step"),
            Field("lr", float, "learning rate"),
            Field("ema", float, "decay of the average of the weights"),
            Field("seed", int, "of order and noise"),
        ),
    ),
    Field("steps", int, "number of steps of the weights"),
    Field("parameters", int, "number of weights", required=False),
    Field("given", dict | None, "the conditions"),
    Field("weights_sha256", str, "hash of the weights of the run whose latents are modelled"),
    Field(
        "bound",
        dict | None,
        "bounds on held-out data in nats: split, n, side; mean and stderr of before (prior of the "
        "run), after (diffusion prior) and gain",
        required=False,
    ),
)
_MODEL = (
    Field("vaestro", str, "version of the program", required=False),
    Field("format", int, "version of the names of parts", required=False),
    Field("model", dict, "the options of the model"),
    Field("space", dict, "the data: kind, shape and units"),
    Field("given", dict | None, "the conditions", required=False),
)
NUMBERS = (
    Field("index", int, "number of the step"),
    Field("seconds", float, "since the start"),
    Field("last_logged", int, "step of the last train line"),
    Field("averaged_at", int, "step of the last average of the weights"),
    Field("stopped_early", bool, "whether patience ended the run"),
    Field("metrics_bytes", int, "size of metrics.jsonl"),
    Field("best", list | None, "score of the kept weights", required=False),
    Field("best_step", int, "their step", required=False),
    Field("validations", int, "number of validations", required=False),
    Field("validations_seen", int, "number of validations that may be kept", required=False),
    Field("validations_since", int, "number of validations since the kept one", required=False),
)
_RESUME = "vaestro train --resume RUN writes it again"
SCHEMAS = (
    Schema("config.json", "the model", _RESUME, _MODEL),
    Schema(
        "data.json",
        "the data of each split",
        _RESUME,
        tuple(Field(s, dict, f"the {s} data", inner=_SPLIT) for s in ("train", "valid", "test")),
    ),
    Schema(
        "environment.json",
        "the machine, and the versions of the libraries",
        _RESUME,
        (
            *(Field(n, str, "", required=False) for n in ("vaestro", "python", "torch", "system")),
            Field("device", str, "of the machine", required=False),
            Field("trained_on", str, "device of the training", required=False),
            Field("cores", int | None, "number of processor cores", required=False),
            Field("processes", int, "number of processes that trained together", required=False),
            Field("begun", str, "time of the start", required=False),
        ),
    ),
    Schema("metrics.jsonl", "the log: an object on each line", "", _METRICS),
    Schema(
        "kept.json",
        "which weights are in use",
        _RESUME,
        (Field("step", int, "their step"), Field("why", str, "why they were kept")),
    ),
    Schema(
        "failure.json",
        "why training failed",
        "remove it",
        (Field("step", int, "the step"), Field("reason", str, "in words")),
    ),
    Schema(
        "evaluation*.json",
        "bounds on held-out data",
        "vaestro evaluate RUN writes it again",
        (
            Field("split", str, "train, valid, test or all"),
            Field("n", int, "number of data"),
            Field("data_sha256", str, "hash of the data"),
            Field("estimates", list, "an object for each method", inner=_ESTIMATE),
            Field("total", int, "number of data in the split", required=False),
            Field("seed", int, "of the draws", required=False),
            Field("source", str, "of the data", required=False),
            Field("unit", str, "nats", required=False),
            Field("space", str, "the data, in words", required=False),
            Field("given", list, "names of the conditions", required=False),
            Field("masked", bool, "whether cells are missing", required=False),
            Field("rate", float | None, "KL, in nats", required=False),
            Field("distortion", float | None, "-log p(x given z), in nats", required=False),
            Field("independent", dict | None, "a model of independent cells", required=False),
            Field("gap", dict | None, "the parts of log p(x) - ELBO", required=False),
            Field("information", dict | None, "the parts of the rate", required=False),
            Field("psnr", dict | None, "of reconstructions of images, in dB", required=False),
            Field("ssim", dict | None, "of reconstructions of images", required=False),
            Field("samples", dict, "drawn rows against held-out rows", required=False),
            Field("lengths", dict, "log p(length | z) of series", required=False),
            Field("empty_cells", dict, "log p(which cells are empty | z)", required=False),
            Field("warnings", list, "sentences", required=False),
            *_sums("were evaluated"),
            Field("arrays_sha256", str, "hash of evaluation.npz", required=False),
            Field("sha256", str, "hash of all other fields", required=False),
        ),
    ),
    Schema(
        "diagnosis.json",
        "findings, and a table of units",
        "vaestro diagnose RUN writes it again",
        (
            Field("verdict", str, "the first finding that holds"),
            Field("summary", str, "the verdict in words", required=False),
            Field("active_units", int | None, "number of active units", required=False),
            Field("mutual_information", list | None, "interval, in nats", required=False),
            Field("mutual_information_ceiling", float | None, "in nats", required=False),
            Field("units", list, "an object for each unit", required=False, inner=_UNIT),
            Field("findings", list, "an object for each finding", required=False, inner=_FINDING),
            *_sums("were diagnosed"),
        ),
    ),
    Schema(
        "gradients.json",
        "the noise of gradient estimators",
        "vaestro gradients RUN writes it again",
        (Field("rows", list, "an object for each estimator"), *_sums("were measured")),
    ),
    Schema(
        "probes.json",
        "how well attributes are predicted from codes, raw data and PCA",
        "vaestro probe RUN writes it again",
        (
            Field("rows", str, "which rows fit and which score, in words"),
            Field("probes", list, "an object for each attribute", inner=_PROBE),
            Field("notes", list, "sentences"),
            *_sums("were probed"),
        ),
    ),
    Schema(
        "disentanglement.json",
        "how the units contain the factors of the data",
        "vaestro disentangle RUN writes it again",
        (
            Field("about", str, "the rows and units that were used, in words"),
            Field("factors", list, "names of the attributes"),
            Field("metrics", list, "an object for each metric", inner=_METRIC),
            Field("notes", list, "sentences"),
            *_sums("were measured"),
        ),
    ),
    Schema(
        "units.json",
        "what each latent unit means",
        "vaestro units RUN writes it again",
        (
            Field("split", str, "the rows that were encoded"),
            Field("n", int, "their number"),
            Field("units", list, "an object for each unit, by rate", inner=_MEANING),
            Field("notes", list, "sentences"),
            *_sums("were described"),
        ),
    ),
    Schema(
        "showcase.json",
        "what the report shows",
        "vaestro report RUN writes it again",
        (
            Field("format", int, "version of this file"),
            Field("notes", list, "sentences"),
            *_sums("are shown"),
        ),
    ),
    Schema(
        "diffusion.json",
        "in RUN/diffusion/: the diffusion model of the latents",
        "vaestro diffuse RUN --force",
        _DIFFUSION,
    ),
)


def schema_of(name: str) -> Schema:
    """Return the schema of a file by its name; one without fields for other files.

    >>> schema_of("kept.json").what
    'which weights are in use'
    """
    other = Schema(name, "", "", ())
    return next((schema for schema in SCHEMAS if fnmatch(name, schema.file)), other)


def fault(value: Json, fields: tuple[Field, ...], where: str = "") -> str:
    """Return what is wrong with an object, in words; "" if it has the fields of a schema.

    >>> fault({"step": "3", "why": ""}, schema_of("kept.json").fields)
    'step is text, not a whole number'
    >>> fault({"step": 3}, schema_of("kept.json").fields)
    'why is missing'
    """
    if not isinstance(value, Mapping):
        return f"{where or 'it'} is {_noun(value)}, not an object"
    for field in fields:
        name = f"{where}.{field.name}" if where else field.name
        if field.name not in value:
            if field.required:
                return f"{name} is missing"
            continue
        one = value[field.name]
        if not _fits(one, field.kind):
            return f"{name} is {_noun(one)}, not {_words(field.kind)}"
        inner = (
            {f"{name}[{i}]": v for i, v in enumerate(one)} if isinstance(one, list) else {name: one}
        )
        for at, each in inner.items() if field.inner and one is not None else ():
            if wrong := fault(each, field.inner, at):
                return wrong
    return ""


def _fits(value: Json, kind: type | UnionType) -> bool:
    """Return whether a value has a type. A truth value is not a number."""
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


_NOUNS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


def _noun(value: Json) -> str:
    return _NOUNS.get(type(value), type(value).__name__)


def _words(kind: type | UnionType) -> str:
    """Return a type in words."""
    kinds = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return " or ".join(_NOUNS[k] for k in kinds)


# -- docs/run-folder.md ----------------------------------------------------------------------------

_PAGE = """# The folder of a run

    RUN/config.yaml            every option, resolved; `vaestro train --config RUN/config.yaml`
                               repeats the run (docs/options.md)
    RUN/config.json            the model
    RUN/data.json              the number of data in each split, and their hashes
    RUN/environment.json       the machine and the versions of the libraries
    RUN/metrics.jsonl          one line for each logged record
    RUN/model.safetensors      the weights in use
    RUN/kept.json              their step, and why they were kept
    RUN/checkpoints/           complete states for resuming; the last two are kept
    RUN/failure.json           why training failed, if it did
    RUN/evaluation.json, .npz  bounds on held-out data; of earlier ones, evaluation-*.json and .npz
    RUN/diagnosis.json, .npz   findings, and the information in each latent unit
    RUN/gradients.json, .png   the noise of each gradient estimator
    RUN/probes.json            how well attributes are predicted from codes, raw data and PCA
    RUN/disentanglement.json   how the units contain the factors of the data
    RUN/units.json             what each latent unit means, with the names that you gave
    RUN/showcase.json, .npz    the data, samples and codes that the report shows
    RUN/report.html            the report
    RUN/manifest.txt           the names of these files, which alone `--force` removes
    RUN/lock, RUN/results-lock the process that writes, while it does

Files of safetensors have the field `sha256` in their metadata. It is the hash of all tensors with
their names, types and shapes, and of the other metadata. The metadata of a checkpoint also has
`numbers`, an object in JSON. A file whose hash is another one is refused. Files of earlier
versions have no hash and are read without one.

A type with * may be missing: earlier versions did not write the field. Fields that are not listed
may be there.

This page is written by `python -m vaestro.schemas > docs/run-folder.md`.
"""


def reference() -> str:
    """Return the page docs/run-folder.md.

    >>> reference().splitlines()[0]
    '# The folder of a run'
    """
    page = _PAGE
    numbers = Schema("numbers", "the numbers of a checkpoint", "", NUMBERS)
    for schema in (*SCHEMAS, numbers):
        page += f"\n## {schema.file}\n\n{schema.what[:1].upper()}{schema.what[1:]}.\n"
        if schema.remedy:
            page += f"If it is damaged: `{schema.remedy}`.\n".replace("`remove it`", "remove it")
        page += "\n| field | type | meaning |\n|---|---|---|\n" + _rows(schema.fields)
    return page


def _rows(fields: tuple[Field, ...], where: str = "") -> str:
    rows = ""
    for field in fields:
        star = "" if field.required else " *"
        rows += f"| `{where}{field.name}` | {_words(field.kind)}{star} | {field.meaning} |\n"
        rows += _rows(field.inner, f"{where}{field.name}{'[]' * (field.kind is list)}.")
    return rows


if __name__ == "__main__":
    print(reference(), end="")
