"""Texts: tokens, what is read, the likelihoods over them, and the whole way from a file to
sentences."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vaestro as vs
from tests.conftest import make_space, make_values
from vaestro import densities, latents
from vaestro.cli import main
from vaestro.data import load_rows
from vaestro.data.sets import Rows
from vaestro.densities import Decoding, Sentences, scored
from vaestro.files import current
from vaestro.randomness import Order
from vaestro.runs import Job
from vaestro.sequences import gru, transformer
from vaestro.spaces import Batch, Kind, Space
from vaestro.tokens import METHODS, Ragged, Texts, Tokeniser

LINES = [
    "the cat sat on the mat.",
    "a dog (brown) ran!",
    "the dog sat",
    "it's 3.5 – naïve café",
    "  two  spaces ",
    "日本語 text\t🙂",
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    r = np.random.default_rng(0)
    subjects, verbs, places = (
        ["the cat", "a dog", "my old horse"],
        ["sat", "ran", "slept"],
        ["on the mat", "in the sun", "there"],
    )
    lines = [
        " ".join(
            words[i]
            for words, i in zip((subjects, verbs, places), r.integers(0, 3, 3), strict=True)
        )
        for _ in range(300)
    ]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_tokens_are_joined_as_they_were_cut(method: str) -> None:
    texts = Texts.of(LINES * 20)
    made = Tokeniser.trained(method, texts)
    tokeniser = Tokeniser.restore(json.loads(json.dumps(made.scalars())))
    rows = tokeniser.encode(texts)
    assert rows == made.encode(texts) and all(
        1 <= code < tokeniser.size for row in rows for code in row
    )
    codes = Ragged.of(rows, 64, tokeniser.size)
    back = tokeniser.decode(codes[np.arange(len(codes))]).lines.tolist()
    if method != "words":
        assert back == LINES * 20
    else:
        assert back[:3] == LINES[:3]
        assert tokeniser.encode(Texts.of(back)) == rows
    assert tokeniser.lossless == (method in ("bytes", "bpe"))


@pytest.mark.parametrize("method", ["bytes", "bpe"])
def test_any_text_at_all_comes_back(method: str) -> None:
    tokeniser = Tokeniser.trained(method, Texts.of(LINES * 20), None if method == "bytes" else 300)
    strange = Texts.of(
        ["Ωmega \x00 nul", "völlig anders", "\u202eright to left", "", "<unk>", "\ufffd"]
    )
    codes = Ragged.of(tokeniser.encode(strange), 200, tokeniser.size)
    assert tokeniser.decode(codes[:]).lines.tolist() == strange.lines.tolist()


def test_what_training_lacks_is_unknown_and_said_so() -> None:
    data = vs.load(["ab ab ba"] * 30 + ["ab zz"])
    words = Tokeniser.trained("words", Texts.of(["ab ab ba"]))
    assert words.encode(Texts.of(["zz ab"])) == [[1, 2]]
    assert words.decode(np.array([[1, 2, 0, 2]])).lines.tolist() == ["<unk> ab"]
    assert data.space.tokeniser is not None and data.space.tokeniser.lossless


def test_the_vocabulary_is_that_of_the_training_split(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [
        f"word{i % 7} and more,{'train' if i < 40 else 'test' if i < 50 else 'valid'}"
        for i in range(60)
    ]
    rows[45] = "stranger and more,test"
    path.write_text("\n".join(["text,part", *rows]) + "\n")
    data = vs.load(f"{path}:text=text,split=part,tokens=words")
    assert "stranger" not in data.space.tokeniser.vocabulary
    assert data.test.outward().lines[5] == "<unk> and more"
    assert any(
        "1 of 180 words is not in the vocabulary, in 1 of 60 texts: 'stranger': bounds are of texts"
        in note
        for note in data.notes
    )


@pytest.mark.parametrize("rows", [[[], [3, 1], [2]], [[1], [2, 2, 2, 2]], [[]]])
def test_rows_that_differ_in_size(rows: list[list[int]]) -> None:
    held = Ragged.of(rows, 4, 5)
    padded = np.array([(row + [0] * 4)[:4] for row in rows])
    index = np.random.default_rng(0).integers(0, len(rows), (3, 2))
    for pick in (slice(None), np.arange(len(rows))[::-1], index, np.array([0])):
        sizes = np.array([min(len(row) + 1, 4) for row in rows])[pick]
        np.testing.assert_array_equal(held.sizes(pick), sizes)
        np.testing.assert_array_equal(held[pick], padded[pick][..., : sizes.max()])
    flat = index.ravel()
    again = Ragged.joined([held.pick(flat[:3]), held.pick(flat[3:])])
    np.testing.assert_array_equal(again[:], held[flat])


def test_a_cell_exists_up_to_the_first_end() -> None:
    codes = torch.tensor([[0, 0, 0], [2, 0, 0], [2, 2, 0], [2, 2, 2]])
    assert scored(codes).sum(-1).tolist() == [1, 2, 3, 3]


# -- likelihoods -----------------------------------------------------------------------------------

SPACE = make_space(Kind.TOKENS, (3,))
DECODERS = ["gru", "transformer", "independent"]


def density(name: str, rows: int = 2, space: Space = SPACE) -> densities.DataDensity:
    torch.manual_seed(1)
    options = {
        "gru": "gru:width=8,layers=2",
        "transformer": "transformer:width=8,layers=2,heads=2",
        "independent": "mlp:width=8",
    }
    likelihood = "categorical" if name == "independent" else "autoregressive"
    model = vs.build(space, latent=3, likelihood=likelihood, network=options[name]).eval()
    with torch.no_grad():
        for name, p in model.likelihood.named_parameters():
            p.copy_(torch.randn(p.shape) if name == "profile" else 3 * p)
    return model.likelihood(torch.randn(2, rows, 3))


def sentences(length: int, codes: int) -> torch.Tensor:
    found = {
        tuple((*row[: row.index(0)], *[0] * (length - row.index(0))) if 0 in row else row)
        for row in itertools.product(range(codes), repeat=length)
    }
    return torch.tensor(sorted(found))


@pytest.mark.parametrize("name", DECODERS)
def test_probabilities_of_all_sentences_sum_to_one(name: str) -> None:
    every = sentences(3, SPACE.levels)
    total = torch.logsumexp(density(name).log_prob(every.unsqueeze(1).unsqueeze(1)), 0)
    torch.testing.assert_close(total, torch.zeros(2, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", DECODERS)
def test_padding_does_not_matter(name: str) -> None:
    px = density(name)
    long, short = torch.tensor([[2, 0, 0], [3, 4, 0]]), torch.tensor([[2, 0], [3, 4]])
    torch.testing.assert_close(px.log_prob(long)[:, 0], px.log_prob(short)[:, 0])
    # Without its end, a row stands for all that begin so.
    assert (px.log_prob(long)[:, 1] < px.log_prob(short)[:, 1]).all()


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_one_token_at_a_time_is_the_same_as_all_at_once(name: str) -> None:
    space = make_space(Kind.TOKENS, (7,))
    px = density(name, 4, space)
    assert isinstance(px, Sentences)
    source, codes = px.source[0], torch.from_numpy(make_values(space, 4).astype(np.int64))
    before = torch.nn.functional.pad(codes[:, :-1], (1, 0))
    whole = px.decoder.states(source, before)
    state, parts = px.decoder.begin(source), []
    for t in range(7):
        hidden, state = px.decoder.advance(state, before[:, t])
        parts.append(hidden)
    torch.testing.assert_close(torch.stack(parts, 1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_no_token_is_told_what_follows_it(name: str) -> None:
    space = make_space(Kind.TOKENS, (7,))
    px = density(name, 1, space)
    before = torch.tensor([[0, 2, 3, 4, 2, 3, 4]])
    changed = before.clone()
    changed[:, 4:] = 1
    first, second = (px.decoder.states(px.source[0], b) for b in (before, changed))
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:])


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_a_beam_that_holds_everything_finds_the_most_probable(name: str) -> None:
    px = density(name)
    every = sentences(3, SPACE.levels)
    scores = px.log_prob(every.unsqueeze(1).unsqueeze(1))[:, 0]
    best = px.by(Decoding(beam=125)).point()
    assert torch.equal(best, every[scores.argmax(0)])
    one, five = (px.by(Decoding(beam=b)).point() for b in (1, 5))
    assert (px.log_prob(five)[0] >= px.log_prob(one)[0] - 1e-6).all()
    weights = torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    of_second = Sentences(px.decoder, px.source[1:], profile=px.profile)
    torch.testing.assert_close(px.point(weights)[0], of_second.point()[0])


def test_draws_have_the_probabilities_of_sentences() -> None:
    px = density("gru", 1)
    every = sentences(3, SPACE.levels)
    many = Sentences(px.decoder, px.source[:1].expand(-1, 20_000, -1), profile=px.profile)
    drawn = many.sample(torch.Generator().manual_seed(0))[0]
    counts = (drawn.unsqueeze(1) == every).all(-1).double().mean(0)
    with torch.no_grad():
        p = px.log_prob(every.unsqueeze(1).unsqueeze(1))[:, 0, 0].exp().double()
    assert float((counts - p).abs().sum()) < 0.06


ALIGNED = ["".join(t) for t in itertools.product("ac", "gt", "g", "ac", "a", "gt")] * 4


def test_training_starts_from_the_frequencies_of_each_position() -> None:
    data = vs.load(ALIGNED, tokens="characters")
    steps = vs.training(
        vs.build(data.space, latent=2, network="gru:width=8"),
        vs.Objective(),
        data,
        steps=1,
        lr=1e-9,
    )
    (first, *_) = [r for step in steps for r in step.records]
    entropy = 4 * math.log(2)  # of four positions with two equally frequent characters
    assert first.split == "valid" and first.distortion == pytest.approx(entropy, abs=1.2)
    size = data.space.cells * data.space.levels
    for profile, has in ((size, True), (size - 1, False), (0, False)):
        likelihood = f"autoregressive:profile={profile}"
        model = vs.build(data.space, latent=2, network="gru:width=8", likelihood=likelihood)
        assert (model.likelihood.profile is not None) == has
    written = current({"likelihood": "autoregressive:latent=false"}, 4)["likelihood"]
    assert written == "autoregressive:latent=false,profile=0"


def test_the_nucleus_holds_the_most_probable_tokens_and_temperature_sharpens() -> None:
    px = density("gru", 1)
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]])
    assert (px.by(Decoding(top_p=0.7))._nucleus(p) > 0).tolist() == [
        [True, True, False, False],
        [True, False, False, False],
    ]
    generator = torch.Generator().manual_seed(0)
    cold = px.by(Decoding(temperature=1e-3))
    greedy = px.point()
    for _ in range(5):
        assert torch.equal(cold.sample(generator)[0], greedy)
    for wrong in ({"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"beam": 0}):
        with pytest.raises(ValueError, match="expected a temperature above 0"):
            Decoding(**wrong)


@pytest.mark.parametrize("network", ["gru:width=8", "transformer:width=8,layers=1,heads=2"])
def test_an_encoder_reads_as_far_as_the_end(network: str) -> None:
    torch.manual_seed(0)
    model = vs.build(make_space(Kind.TOKENS, (6,)), latent=2, network=network).eval()
    short, long = torch.tensor([[2, 3, 0]]), torch.tensor([[2, 3, 0, 0, 0, 0]])
    torch.testing.assert_close(
        model.posterior(Batch(short)).mean, model.posterior(Batch(long)).mean
    )
    assert not torch.allclose(
        model.posterior(Batch(short)).mean, model.posterior(Batch(torch.tensor([[3, 2, 0]]))).mean
    )


def test_a_decoder_without_latent_input_ignores_the_latent() -> None:
    model = vs.build(
        make_space(Kind.TOKENS, (6,)),
        model="vae",
        latent=2,
        likelihood="autoregressive:latent=false",
        network="gru:width=8",
    )
    codes = torch.tensor([[2, 3, 0]])
    first, second = (model.likelihood(torch.randn(1, 1, 2)).log_prob(codes) for _ in range(2))
    torch.testing.assert_close(first, second)
    assert not model.capabilities.autoregressive and not model.capabilities.reads_latent


def test_networks_for_texts_refuse_others() -> None:
    images = make_space(Kind.BINARY, (1, 8, 8))
    for parts in ({"network": "gru"}, {"network": "transformer"}):
        with pytest.raises(ValueError, match="expected texts or series on one side"):
            vs.build(images, latent=2, **parts)
    with pytest.raises(ValueError, match="expected a network for sequences"):
        vs.build(SPACE, latent=2, network="mlp")
    for wrong in ({"width": 0}, {"layers": 0}, {"dropout": 1.0}, {"embedding": -1}):
        with pytest.raises(ValueError, match="expected width and layers"):
            gru((3, 5), (2, 4), **wrong)
    for wrong in ({"heads": 0}, {"heads": 3}):
        with pytest.raises(ValueError, match="heads"):
            transformer((3, 5), (2, 4), **wrong)
    with pytest.raises(ValueError, match="expected a word_dropout"):
        vs.build(SPACE, latent=2, likelihood="autoregressive:word_dropout=1.0")


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "batch"), [(1000, 8), (103, 10), (20, 16)])
def test_texts_of_like_size_go_together_and_each_is_seen_once(rows: int, batch: int) -> None:
    sizes = np.random.default_rng(0).integers(1, 60, rows)
    order, plain = Order(rows, batch, 0, sizes), Order(rows, batch, 0)
    steps = [order(s) for s in range(-(-3 * rows // batch))]
    flat = np.concatenate(steps)
    for epoch in range(3):
        assert sorted(flat[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    assert np.array_equal(Order(rows, batch, 0, sizes)(17), order(17))
    if rows > 10 * batch:
        spread, mixed = (
            np.mean([np.ptp(sizes[o(s)]) for s in range(rows // batch)]) for o in (order, plain)
        )
        assert spread < 0.3 * mixed
        firsts = [sizes[order(s)].mean() for s in range(40)]
        assert not np.all(np.diff(firsts) >= 0), (
            "batches come in a drawn order, and not from short to long"
        )


def test_each_step_is_as_wide_as_its_longest_text() -> None:
    held = Ragged.of([[2] * n for n in (1, 2, 5, 1)], 9, 5)
    rows = Rows(held, make_space(Kind.TOKENS, (9,)), "train")
    batch = rows.gather(np.array([[0, 1], [2, 3]]))
    assert [tuple(batch[i].x.shape) for i in range(2)] == [(2, 3), (2, 6)]
    assert rows.observed_cells() == (2 + 3 + 6 + 2) / 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"likelihood": "autoregressive:word_dropout=0.4"},
        {"network": "gru:width=16,dropout=0.3"},
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not(
    corpus: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    shared = {"latent": 2, "network": "gru:width=16", "steps": 30, "batch": 16} | options
    whole = vs.train(str(corpus), run=tmp_path / "whole", **shared)
    job = Job.new(str(corpus), run=tmp_path / "stopped", **shared)
    with job:
        for _ in range(14):
            next(job)
        job.checkpoint()
    resumed = vs.resume(tmp_path / "stopped")
    for (name, a), b in zip(
        whole.model().state_dict().items(), resumed.model().state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    lines = [m for m in whole.metrics() if m["split"] == "train"]
    assert ("altered" in lines[0]) == ("word_dropout" in str(options))
    state = torch.random.get_rng_state()
    vs.train(str(corpus), run=tmp_path / "again", **{**shared, "steps": 2})
    assert torch.equal(state, torch.random.get_rng_state())


def test_word_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    model = vs.build(
        make_space(Kind.TOKENS, (6,)),
        latent=2,
        likelihood="autoregressive:word_dropout=0.9",
        network="gru:width=8",
    )
    z, codes = torch.randn(1, 1, 2), torch.tensor([[2, 3, 4, 3, 2, 4]])
    trained = {model.train().likelihood(z).log_prob(codes).item() for _ in range(8)}
    reported = {model.eval().likelihood(z).log_prob(codes).item() for _ in range(8)}
    assert len(trained) > 1 and len(reported) == 1


# -- a corpus whose probabilities are known --------------------------------------------------------


def topics(n: int, seed: int) -> tuple[list[str], np.ndarray, float]:
    """Draw sentences of eight words from a mixture of three topics: texts, exact log p of each, and
    the information of the topic."""
    r = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(9)]
    p = np.full((3, 9), 0.04)
    for k in range(3):
        p[k, 3 * k : 3 * k + 3] = 0.76 / 3
    p /= p.sum(1, keepdims=True)
    chosen = r.integers(0, 3, n)
    drawn = np.array([r.choice(9, 8, p=p[k]) for k in chosen])
    each = np.log(p)[:, drawn].sum(-1) + math.log(1 / 3)  # (3, N)
    log_px = np.logaddexp.reduce(each, 0)
    posterior = np.exp(each - log_px)
    entropy = -(posterior * np.log(np.maximum(posterior, 1e-30))).sum(0).mean()
    return [" ".join(words[w] for w in row) for row in drawn], log_px, math.log(3) - entropy


@pytest.mark.parametrize(
    ("parts", "near", "told"),
    [
        (
            {
                "likelihood": "categorical",
                "posterior": "categorical:codes=3",
                "gradient": "score:baseline=leave-one-out",
                "latent": 1,
            },
            0.15,
            0.12,
        ),
        ({"likelihood": "categorical", "latent": 2}, 0.5, 0.5),
        ({"likelihood": "autoregressive", "network": "gru:width=32", "latent": 2}, 0.6, None),
    ],
    ids=["the true model", "normal latents", "autoregressive"],
)
def test_the_bound_lies_below_the_truth_and_near_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: dict, near: float, told: float | None
) -> None:
    lines, log_px, information = topics(2600, 0)
    path = tmp_path / "topics.json"
    sets = ["train"] * 1800 + ["valid"] * 200 + ["test"] * 600
    path.write_text(json.dumps([{"text": t, "set": s} for t, s in zip(lines, sets, strict=True)]))
    options = {
        "network": "mlp:width=32",
        "epochs": 25,
        "batch": 64,
        "lr": 5e-3,
        "objective": "elbo:k=4",
    } | parts
    run = vs.train(f"{path}:text=text,split=set,tokens=words", run=tmp_path / "run", **options)
    found = vs.evaluate(run.model(), run.data().test, k=200)
    truth = log_px[2000:]
    short = truth - found["iwae"].nats
    error = short.std() / math.sqrt(len(short))
    assert short.mean() > -3 * error, "a bound does not lie above the truth"
    assert short.mean() < near
    if told is not None:
        assert found.rate == pytest.approx(information, abs=told)
    run.save_evaluation(found, run.data().test, str(path))
    np.savez(tmp_path / "exact.npz", log_px=truth)
    capsys.readouterr()
    assert (
        main(
            [
                "compare",
                str(run.path),
                "--exact",
                f"truth={tmp_path / 'exact.npz'}:measure=counting",
            ]
        )
        == 0
    )
    compared = capsys.readouterr().out
    assert (
        "bits/token" in compared and "bits/dim" not in compared and compared.count("600 test") >= 1
    )


# -- files, and what is wrong with them ------------------------------------------------------------


def test_a_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo lines\n   \n" + "drei für\n".encode() * 20)
    data = vs.load(f"{path}:tokens=characters")
    assert data.train.outward().lines.dtype == object
    lines = [t for s in (data.train, data.valid, data.test) for t in s.outward().lines]
    assert sorted(lines) == sorted(["one", "two lines", *["drei für"] * 20])
    assert "2 empty lines of 24 left out" in data.notes
    assert any("equals a training text" in note for note in data.shared)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_column_of_a_table_with_the_others_as_attributes(tmp_path: Path, suffix: str) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    rows = {
        "stars": [i % 5 for i in range(40)],
        "review": [f"review number {i}" for i in range(39)] + [""],
    }
    path = tmp_path / f"x{suffix}"
    if suffix == ".jsonl":
        path.write_text(
            "".join(json.dumps({k: v[i] for k, v in rows.items()}) + "\n" for i in range(40))
        )
    else:
        (pa.csv.write_csv if suffix == ".csv" else pa.parquet.write_table)(pa.table(rows), path)
    data = vs.load(f"{path}:text=review", condition=["stars"])
    assert len(data.train) + len(data.valid) + len(data.test) == 39
    assert "1 rows of 40 without a text left out" in data.notes
    assert data.given is not None and data.given.names == ("stars",)
    number = int(data.train.outward().lines[0].split()[-1])
    assert data.given.outward(data.train.given).columns["stars"][0] == number % 5
    model = vs.build(data.space, latent=2, given=data.given, network="gru:width=8")
    assert latents.sample(model, 2, given=latents.conditions(model, {"stars": 3}, 2)).shape == (2,)


def test_two_tokenisers_score_the_same_texts(corpus: Path) -> None:
    bytes_, pieces, words = (
        vs.load(f"{corpus}:tokens={t}").test for t in ("bytes", "bpe", "words")
    )
    assert bytes_.sha256() == pieces.sha256() == words.sha256()
    assert vs.load(f"{corpus}:tokens=bytes,length=9").test.sha256() != bytes_.sha256(), (
        "a text cut short is another event"
    )
    np.testing.assert_array_equal(bytes_.projection(), pieces.projection())


BAD = [
    ("x.txt", b"", "x.txt has no texts"),
    ("x.txt", b"\n \n\n", "x.txt has no texts"),
    ("x.txt", b"good\nbad \xff byte\n", "the byte 0xff in line 2"),
    (
        "x.txt",
        b"short\n" * 20 + b"word " * 2_000_000 + b"\n",
        "expected texts of fewer than 512 tokens; got one of",
    ),
    ("x.txt:tokens=words", b"same\n" * 20, "at least two different words; got 'same' and no other"),
    (
        "x.txt:tokens=characters",
        b"aaa\n" * 20,
        "at least two different characters; got 'a' and no other",
    ),
    (
        "x.txt:tokens=syllables",
        b"a b\n" * 20,
        "expected tokens to be bytes, characters, words, bpe or smiles",
    ),
    ("x.txt:tokens=bytes,vocabulary=9", b"a b\n" * 20, "bytes have no vocabulary"),
    ("x.txt:vocabulary=9", b"a b\n" * 20, "a vocabulary of 257 or more bpe"),
    ("x.txt:length=1", b"a b\n" * 20, "length to be 2 or more tokens"),
    ("x.txt:text=review", b"a b\n" * 20, "leave out text=review"),
    ("x.txt:kind=real", b"a b\n" * 20, "does not apply to texts"),
    ("x.csv:text=missing", b"a,b\n1,x\n2,y\n", "expected text= to name a column"),
    ("x.csv:text=a", b"a,b\n" + b"1,x\n" * 20, "without a text|expected"),
    ("x.csv:tokens=bytes", b"a,b\n" + b"1,x\n" * 20, "tokens="),
    ("x.txt", b"one\ntwo\n", "at least 10 rows"),
]


@pytest.mark.parametrize(
    ("source", "content", "said"), BAD, ids=[f"{s}-{i}" for i, (s, _, _) in enumerate(BAD)]
)
def test_bad_texts_are_refused_in_a_line(
    tmp_path: Path, capsys, source: str, content: bytes, said: str
) -> None:
    name, colon, options = source.partition(":")
    (tmp_path / name).write_bytes(content)
    if source == "x.csv:text=a":
        # what stands in the column is text where it is named so
        assert vs.load(f"{tmp_path / name}:text=a").space.kind is Kind.TOKENS
        return
    assert (
        main(["train", f"{tmp_path / name}{colon}{options}", "--run", str(tmp_path / "run")]) == 2
    )
    error = capsys.readouterr().err
    assert error.startswith("vaestro: ") and error.count("\n") == 1 and len(error) < 400
    assert said in error
    assert not (tmp_path / "run").exists()


def test_what_was_kept_of_a_large_file(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vaestro.data.texts.KEPT_FROM", 1)
    first, second = (vs.load(corpus) for _ in range(2))
    assert isinstance(second.train.values.codes, np.memmap)
    same(second, first)
    held = next((tmp_path / "cache").glob("*/codes0.npy"))
    held.unlink()  # what is mapped stays
    held.write_bytes(b"damaged")
    same(vs.load(corpus), first)


def same(data: vs.Data, other: vs.Data) -> None:
    assert data.notes == other.notes and data.test.sha256() == other.test.sha256()
    np.testing.assert_array_equal(data.train.values[:], other.train.values[:])


def test_texts_longer_than_the_model_takes(corpus: Path, tmp_path: Path) -> None:
    data = vs.load(f"{corpus}:tokens=words")
    long = tmp_path / "long.txt"
    long.write_text("the cat sat\n" + "the dog ran " * 9 + "\n")
    with pytest.raises(
        ValueError,
        match=r"expected texts of at most 8 tokens \(SOURCE:length=8 truncates longer ones\); got "
        r"one of 27 in row 2",
    ):
        load_rows(str(long), data.space)
    assert load_rows(f"{long}:length=8", data.space).observed_cells() == (4 + 8) / 2
    with pytest.raises(
        ValueError,
        match=r"expected texts of at most 8 of .* as the run was trained on; got numbers",
    ):
        load_rows(np.zeros((20, 3)), data.space)
    with pytest.raises(ValueError, match="got texts"):
        load_rows(str(long), make_space(Kind.BINARY, (4,)))


# -- from the command line -------------------------------------------------------------------------


def test_the_whole_way(corpus: Path, tmp_path: Path, capsys) -> None:
    run = str(tmp_path / "run")

    def say(*words: str) -> str:
        assert main([*words]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    said = say(
        "train",
        f"{corpus}:tokens=words",
        "--run",
        run,
        "--latent",
        "4",
        "--network",
        "gru:width=48",
        "--steps",
        "300",
        "--batch",
        "32",
        "--lr",
        "0.01",
        "--free-bits",
        "0.5",
        "--beta",
        "warmup:share=0.5",
        "--likelihood",
        "autoregressive:word_dropout=0.3",
    )
    assert "with word dropout 0.3: the bound of another model" in said
    assert "nats (IWAE with 100 draws, 15 test texts)" in said
    said = say(
        "evaluate",
        run,
        "--k",
        "50",
        "--methods",
        "elbo,iwae,gap,ais:temperatures=20,chains=4",
        "--limit",
        "6",
    )
    assert "bits/token" in said and "perplexity at most" in said
    lines = {
        e["method"]: e
        for e in json.loads((tmp_path / "run" / "evaluation.json").read_text())["estimates"]
        if e["on"] == "data"
    }
    tokens = lines["iwae"]["tokens"]
    assert lines["iwae"]["perplexity"] == pytest.approx(
        math.exp(-6 * lines["iwae"]["mean"] / tokens)
    )
    assert lines["iwae"]["bits_per_dim"] == pytest.approx(
        -6 * lines["iwae"]["mean"] / tokens / math.log(2)
    )
    known = set(corpus.read_text().split())
    say("sample", run, "-n", "20", "--top-p", "0.9")
    samples = (tmp_path / "run" / "samples.txt").read_text().splitlines()
    assert len(samples) == 20 and {w for s in samples for w in s.split()} <= known
    say(
        "reconstruct",
        run,
        str(corpus),
        "-o",
        str(tmp_path / "back.txt"),
        "--beam",
        "3",
        "--split",
        "test",
    )
    own = vs.Run(run).data().test.outward().lines
    back = (tmp_path / "back.txt").read_text().splitlines()
    words = [(a.split(), b.split()) for a, b in zip(own, back, strict=True)]
    assert np.mean([a[:2] == b[:2] for a, b in words]) > 0.4, "the code holds most subjects"
    say("encode", run, str(corpus), "-o", str(tmp_path / "codes.npz"))
    say("decode", run, str(tmp_path / "codes.npz"), "-o", str(tmp_path / "decoded.csv"))
    assert (tmp_path / "decoded.csv").read_text().splitlines()[0] == '"text"'
    say(
        "interpolate",
        run,
        str(corpus),
        "0",
        "1",
        "-o",
        str(tmp_path / "way.txt"),
        "--steps",
        "5",
        "--path",
        "spherical",
    )
    assert len((tmp_path / "way.txt").read_text().splitlines()) == 5
    say("diagnose", run)
    say("report", run)
    shown = json.loads((tmp_path / "run" / "showcase.json").read_text())
    assert [row[0] for row in shown["rows"]["data"]] == own.tolist() and len(shown["between"]) == 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Between two texts" in page and "Bits/token" in page
    assert main(["impute", run, str(corpus), "-o", str(tmp_path / "i.txt")]) == 2
    assert "expected data that can have missing cells; got texts" in capsys.readouterr().err
    assert (
        main(["fit-prior", run, "--steps", "3", "--force", "--run", str(tmp_path / "fitted")]) == 0
    )
    assert (tmp_path / "fitted" / "samples-after.txt").exists()
    assert main(["sample", run, "--top-p", "2", "-o", str(tmp_path / "s.txt")]) == 2
    assert main(["sample", run, "-o", str(tmp_path / "s.png")]) == 2
    assert main(["interpolate", run, str(corpus), "0", "1000", "-o", str(tmp_path / "w.txt")]) == 2


def test_texts_in_python(tmp_path: Path) -> None:
    lines = [f"line {i % 9} of some" for i in range(60)]
    run = vs.train(lines, run=tmp_path / "run", latent=2, network="gru:width=8", steps=5, batch=8)
    assert vs.Run(run.path).data().train.outward().lines[0] in lines
    for way in ("linear", "spherical"):
        made = latents.interpolate(run.model(), run.data().test, 0, 1, steps=3, path=way)
        assert isinstance(made, Texts) and len(made) == 3
    codes = latents.encode(run.model(), run.data().test.take(2))["mean"]
    straight = latents.interpolate(run.model(), run.data().test, 0, 1, steps=3)
    assert straight.lines[1] == latents.decode(run.model(), codes.mean(0, keepdims=True)).lines[0]
    with pytest.raises(ValueError, match="2 or more steps on a path linear, spherical or geodesic"):
        latents.interpolate(run.model(), run.data().test, 0, 1, path="curved")
    with pytest.raises(ValueError, match="expected autoregressive text data for --top-p"):
        latents.sample(
            vs.build(make_space(Kind.BINARY, (4,)), latent=2), 2, decoding=Decoding(beam=2)
        )
