"""Rules on the curves of a run.

They use only `metrics.jsonl`, so they also run at each validation during training.
"""

from __future__ import annotations

import math

import numpy as np

from vaestro.diagnosis.continuation import Continuation
from vaestro.diagnosis.curves import ENOUGH, SMALL_SIGNAL, ZERO_RATE, Curves, loss, number
from vaestro.diagnosis.records import Finding
from vaestro.diagnosis.remedies import Remedies
from vaestro.diagnosis.statistics import Paired
from vaestro.evaluation import plus_minus
from vaestro.files import Json

WAITED = 0.1  # share of the training time


def divergence(
    curves: Curves,
    remedy: Remedies,
    failure: str | None = None,
    worsened: Paired | None = None,
    size: float = 0.0,
) -> Finding | None:
    """Find a run that diverged: its numbers are not finite, or its loss is higher than before the
    first step.

    Args:
        curves, remedy: of the run.
        failure: the reason why training failed, or None.
        worsened: increase of the loss of the same training data from before the first step to the
            end. If None, the log decides: the validation loss at both ends, and the training loss
            at the end.
        size: largest increase in nats that does not count as divergence.

    >>> divergence(Curves([], 10), Remedies("run", {"lr": 1e-3}), "the loss is NaN").evidence
    'the loss is NaN'
    """
    if failure:
        return _diverged(remedy, failure.partition(" (try")[0])
    if curves.valid and not math.isfinite(number(curves.valid[-1], "bound")):
        return _diverged(
            remedy, f"the validation bound at step {curves.last:,} is not a finite number"
        )
    ends = curves.ends(remedy)
    if ends is None or ends[1] - ends[0] <= size:
        return None
    start, end, error = ends
    numbers: dict[str, Json] = {"start": start, "end": end}
    if worsened is None:
        # The validation loss also rises if the model overfits. The training loss then falls.
        trained = loss(curves.train[-1], curves.valid[-1]) if curves.train else math.nan
        if not (end > start + 3 * error and trained > start + 3 * error):
            return None
        evidence = (
            f"the validation loss is {end:.2f} nats at the end and was {start:.2f} before the "
            f"first step (error {error:.2g})"
        )
        return _diverged(remedy, evidence, numbers)
    if not (worsened.low > size and worsened.median_low > 0):
        return None
    evidence = (
        f"the loss of the same {worsened.n:,} training data is "
        f"{plus_minus((worsened.mean, worsened.stderr))} nats higher at the end than "
        f"before the first step, and higher for {worsened.positive:.0%} of them"
    )
    return _diverged(remedy, evidence, numbers | {"worse": worsened.mean})


def _diverged(remedy: Remedies, evidence: str, numbers: dict[str, Json] | None = None) -> Finding:
    return Finding("divergence", "error", evidence, remedy.slower(3), "curves", numbers or {})


def skipped_steps(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find steps that were skipped because loss or gradient were not finite.

    >>> curves = Curves([{"split": "train", "step": 9, "skipped": 2}], steps=10)
    >>> skipped_steps(curves, Remedies("run", {"lr": 1e-3})).numbers
    {'skipped': 2, 'steps': 9}
    """
    skipped = max((int(line.get("skipped") or 0) for line in curves.lines), default=0)
    if not skipped:
        return None
    evidence = (
        f"loss or gradient were not finite in {skipped:,} of {curves.last:,} steps, which "
        f"were skipped"
    )
    return Finding(
        "steps skipped",
        "warning",
        evidence,
        remedy.slower(2),
        "curves",
        {"skipped": skipped, "steps": curves.last},
    )


def slow_data(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find streamed data that are decoded more slowly than the model trains on them.

    >>> curves = Curves([{"split": "train", "step": 9, "waited": 0.5}], steps=10)
    >>> slow_data(curves, Remedies("run", {"lr": 1e-3})).numbers
    {'waited': 0.5}
    """
    waited = [share for line in curves.train if math.isfinite(share := number(line, "waited"))]
    if not waited or waited[-1] < WAITED:
        return None
    evidence = (
        f"training waited for data in {waited[-1]:.0%} of its time: reading and decoding the "
        f"shards is slower than the model"
    )
    return Finding(
        "slow data", "warning", evidence, remedy.faster_data(), "curves", {"waited": waited[-1]}
    )


def not_converged(
    curves: Curves,
    remedy: Remedies,
    continued: Continuation | None = None,
    size: float = 0.0,
    unfitted: str = "",
) -> Finding | None:
    """Find a run that was too short.

    There are four signs: the run stopped before its last step; it has too few validations; its
    bound still rose over the last tenth of the run; or further steps at a constant learning rate
    improve the objective on validation data. A run whose validation loss has risen since its best
    is not too short, because further steps only regain what overfitting has lost.

    Args:
        curves, remedy: of the run.
        continued: the gain of further steps.
        size: largest gain in nats that is not worth more training.
        unfitted: evidence that a parameter with a known optimum has not reached it, or "".

    >>> curves = Curves([{"split": "train", "step": 9}], steps=10, finished=False)
    >>> not_converged(curves, Remedies("run", {"lr": 1e-3})).name
    'not converged'
    """
    if falling_bound(curves, remedy) is not None:
        continued, unfitted = None, ""
    reasons: list[str] = []
    numbers: dict[str, Json] = {"step": curves.last, "steps": curves.steps, "size": size}
    if not curves.finished:
        lr = number(curves.lines[-1], "lr") if curves.lines else math.nan
        reasons.append(
            f"the run stopped at step {curves.last:,} of {curves.steps:,}, before the end of its "
            f"schedule (learning rate {lr:.2g})"
        )
    reasons += _rising_bound(curves, size, numbers)
    if continued is not None:
        numbers["continuation"] = continued.line()
        if continued.gain.low > 0 and continued.gain.mean > size:
            reasons.append(
                f"{continued.words()}, more than the limit of {size:.2g}: train for twice as many "
                f"steps"
            )
    if unfitted:
        reasons.append(unfitted)
    if not reasons:
        return None
    schedule = rising_schedule(curves, remedy)  # more steps would also lengthen the schedule
    command = remedy.longer(curves.last) if schedule is None else schedule.remedy
    return Finding("not converged", "warning", "; ".join(reasons), command, "curves", numbers)


def _rising_bound(curves: Curves, size: float, numbers: dict[str, Json]) -> list[str]:
    """Return the evidence that the validation bound still rose, or cannot be judged; add its rise
    and error to the numbers."""
    bounds = curves.column("bound")
    if not curves.valid:
        return []
    if len(bounds) < ENOUGH:
        many = f"{len(bounds)} validation{'s' if len(bounds) != 1 else ''}"
        return [f"convergence cannot be judged from {many} after the first step; it needs {ENOUGH}"]
    steps = np.array([line["step"] for line in curves.after_start()], float)
    rise, error = float(bounds[-1] - np.interp(0.9 * steps[-1], steps, bounds)), curves.error()
    numbers |= {"rise": rise, "error": error}
    if rise <= max(error, size):
        return []
    return [
        f"over the last tenth of the run the validation bound still rose by {rise:.2f} nats, more "
        f"than its error of {error:.2f}"
    ]


def no_validation(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a run without validation data.

    >>> curves = Curves([{"split": "train", "step": 9}], steps=10)
    >>> no_validation(curves, Remedies("run", {"lr": 1e-3})).name
    'no validation'
    """
    if curves.valid or not curves.train:
        return None
    return Finding(
        "no validation",
        "warning",
        "there are no validation data: neither convergence nor overfitting can be judged",
        "",
        "curves",
    )


def rising_schedule(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a weight of the KL that was still changing in the last tenth of the run.

    >>> lines = [{"split": "train", "step": i, "beta": i / 10} for i in range(10)]
    >>> rising_schedule(Curves(lines, steps=10), Remedies("run", {"lr": 1e-3})).name
    'schedule too long'
    """
    settled = curves.settled_from()
    if remedy.name("beta") == "geco":
        return None  # GECO changes the weight until the end
    enough = (
        curves.finished
        and math.isfinite(curves.beta)
        and len({line["step"] for line in curves.lines}) > ENOUGH
    )
    if not enough or (settled is not None and settled <= 0.9 * curves.last):
        return None
    when = (
        "was still changing at the end"
        if settled is None
        else f"reached its last value only at step {settled:,}"
    )
    evidence = (
        f"the weight of the KL {when} (step {curves.last:,}: {curves.beta:.3g}): too few "
        f"steps remained at this weight"
    )
    return Finding(
        "schedule too long",
        "warning",
        evidence,
        remedy.shorter_schedule(curves.beta),
        "curves",
        {"settled": settled},
    )


def stagnation(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a KL that falls at a constant weight although the reconstruction does not improve: the
    decoder uses the latent less and less.

    >>> lines = [
    ...     {"split": "valid", "step": i, "beta": 1.0, "rate": 20.0 - i, "distortion": 80.0}
    ...     for i in range(1, 13)
    ... ]
    >>> stagnation(Curves(lines, steps=12), Remedies("run", {"lr": 1e-3})).numbers
    {'fell': 5.0, 'improved': 0.0}
    """
    settled = curves.settled_from()
    after = [
        line for line in curves.after_start() if settled is not None and line["step"] >= settled
    ]
    if len(after) < 2 * ENOUGH:
        return None
    half = after[len(after) // 2 :]
    rate, distortion = (
        np.array([number(line, name) for line in half]) for name in ("rate", "distortion")
    )
    fell, improved = float(rate[0] - rate[-1]), float(distortion[0] - distortion[-1])
    if not (fell > max(0.5, 0.1 * rate[0]) and improved < 0.1 * fell):
        return None
    evidence = (
        f"since step {half[0]['step']:,} the KL fell from {rate[0]:.2f} to {rate[-1]:.2f} nats, "
        f"and reconstruction went from "
        f"{distortion[0]:.2f} to {distortion[-1]:.2f}"
    )
    return Finding(
        "reconstruction stagnates while the KL falls",
        "warning",
        evidence,
        remedy.warm_up(),
        "curves",
        {"fell": fell, "improved": improved},
    )


def falling_bound(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a validation loss that has risen since its best, because the model overfits.

    It is judged by the objective of the run after all schedules, as for the selection of weights.
    Logs of older versions contain only the unweighted bound, which is the objective only at a
    weight of 1.

    >>> lines = [
    ...     {"split": "valid", "step": i, "beta": 1.0, "objective": 90.0 + abs(i - 3)}
    ...     for i in range(1, 10)
    ... ]
    >>> falling_bound(Curves(lines, steps=9), Remedies("run", {"lr": 1e-3})).numbers
    {'best_step': 3, 'fell': 6.0}
    """
    lines = [line for line in curves.after_start() if line.get("settled") is not False]
    loss, error = np.array([number(line, "objective") for line in lines]), curves.error()
    what = "validation loss"
    if not np.isfinite(loss).any() and math.isclose(curves.beta, 1, rel_tol=1e-6):
        loss, what = -np.array([number(line, "bound") for line in lines]), "validation bound"
    # Under GECO the weight differs between lines. Under a capacity the loss has the noise of
    # gamma * |rate - C|.
    adaptive = remedy.name("beta") == "geco" or any("capacity" in line for line in lines)
    if len(loss) < ENOUGH + 1 or not np.isfinite(loss).any() or adaptive:
        return None
    best = int(np.nanargmin(loss))
    rose = float(loss[-1] - loss[best])
    if best > len(loss) - ENOUGH or not rose > 2 * error:
        return None
    step = lines[best]["step"]
    in_use = ", whose weights are in use" if remedy.config.get("keep") != "last" else ""
    evidence = (
        f"the {what} was best at step {step:,}{in_use}, and is {rose:.2f} nats worse at step "
        f"{curves.last:,}"
    )
    return Finding(
        "validation bound falls",
        "warning",
        evidence,
        remedy.patient(),
        "curves",
        {"best_step": step, "fell": rose},
    )


def silent_code(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find an encoder whose output does not depend on its input, by the logged signal.

    A small KL alone is no evidence. The log does not show whether the data have structure, so the
    warning refers to the full diagnosis.

    >>> line = {"split": "valid", "rate": 0.01, "signal": 0.001}
    >>> curves = Curves([line | {"step": 1}, line | {"step": 2}], steps=10)
    >>> silent_code(curves, Remedies("run", {"lr": 1e-3})).name
    'posterior collapse'
    """
    after, signal = curves.after_start(), curves.column("signal")
    if len(after) < 2 or not (signal[-2:] < SMALL_SIGNAL).all():
        return None
    rate, silent = number(after[-1], "rate"), curves.silent_from()
    kl = (
        f"the KL has been below {ZERO_RATE} nats since step {silent:,}"
        if silent is not None
        else f"the KL is {rate:.2f} nats, but q(z | x) is nearly the same for every x"
    )
    evidence = (
        f"the encoder's output hardly depends on its input so far: the signal of all units "
        f"together is {signal[-1]:.2g} nats on validation data; {kl}. Diagnose the run after "
        f"training to find the cause. The data may also have no structure to encode"
    )
    command = remedy.with_beta(1.0) if curves.beta > 1 else remedy.diagnose()
    return Finding("posterior collapse", "warning", evidence, command, "curves")


def weight_of_kl(curves: Curves, remedy: Remedies) -> Finding | None:
    """Find a weight of the KL that is not 1 at the end.

    >>> curves = Curves([{"split": "train", "step": 9, "beta": 4.0}], steps=10)
    >>> weight_of_kl(curves, Remedies("run", {"lr": 1e-3})).numbers
    {'beta': 4.0}
    """
    beta = curves.beta
    if not math.isfinite(beta) or math.isclose(beta, 1, rel_tol=1e-6):
        return None
    evidence = (
        f"the KL has weight {beta:.4g} at the end. The reported bound is unweighted; training "
        f"did not maximise it"
    )
    return Finding(
        "weight of the KL", "note", evidence, remedy.with_beta(1.0), "curves", {"beta": beta}
    )
