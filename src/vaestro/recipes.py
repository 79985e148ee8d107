"""Named recipes: each function returns the training options that a method in the literature uses.

`vaestro train --recipe beta-tcvae:beta=6` is the same as giving the options that the function
returns. Options that are given besides the recipe override it.
"""

from __future__ import annotations

from collections.abc import Callable

from vaestro.text import Value

Options = dict[str, Value | list[str]]


def beta_vae(*, beta: float = 4.0) -> Options:
    """Weight the KL by beta (Higgins et al. 2017).

    Example:
        >>> beta_vae()
        {'beta': 4.0}
    """
    return {"beta": beta}


def annealed(*, share: float = 0.3) -> Options:
    """Raise the weight of the KL linearly from 0 (Bowman et al. 2016).

    Example:
        >>> annealed()
        {'beta': 'warmup:share=0.3'}
    """
    return {"beta": f"warmup:share={share:g}"}


def cyclical(*, cycles: int = 4, rise: float = 0.5) -> Options:
    """Raise the weight of the KL from 0 several times (Fu et al. 2019); it is 1 in the last
    tenth of the run.

    Example:
        >>> cyclical()
        {'beta': 'cyclical:cycles=4,rise=0.5,share=0.9'}
    """
    return {"beta": f"cyclical:cycles={cycles},rise={rise:g},share=0.9"}


def beta_tcvae(*, beta: float = 6.0) -> Options:
    """Penalise the total correlation of the aggregate posterior by beta - 1 (Chen et al. 2018).

    Example:
        >>> beta_tcvae()
        {'penalty': ['total-correlation:weight=5']}
    """
    return {"penalty": [f"total-correlation:weight={beta - 1:g}"]}


def dip_vae_i(*, off: float = 10.0, diagonal: float = 100.0) -> Options:
    """Penalise the distance of the covariance of the means from the identity (Kumar et al. 2018).

    Example:
        >>> dip_vae_i()
        {'penalty': ['dip:kind=i,off=10,diagonal=100']}
    """
    return {"penalty": [f"dip:kind=i,off={off:g},diagonal={diagonal:g}"]}


def dip_vae_ii(*, off: float = 10.0, diagonal: float = 5.0) -> Options:
    """Penalise the distance of the covariance of the aggregate posterior from the identity
    (Kumar et al. 2018).

    Example:
        >>> dip_vae_ii()
        {'penalty': ['dip:kind=ii,off=10,diagonal=5']}
    """
    return {"penalty": [f"dip:kind=ii,off={off:g},diagonal={diagonal:g}"]}


def info_vae(*, alpha: float = 0.0, weight: float = 1000.0) -> Options:
    """Weight the KL by 1 - alpha, and penalise the MMD between aggregate posterior and prior (Zhao
    et al. 2019).

    Example:
        >>> info_vae()
        {'beta': 1.0, 'penalty': ['mmd:weight=999,kernel=rbf']}
    """
    return {"beta": 1.0 - alpha, "penalty": [f"mmd:weight={weight - (1 - alpha):g},kernel=rbf"]}


def wae(*, weight: float = 100.0) -> Options:
    """Replace the KL by the MMD between aggregate posterior and prior (Tolstikhin et al. 2018).
    This does not maximise the ELBO.

    Example:
        >>> wae()
        {'beta': 0.0, 'penalty': ['mmd:weight=100,kernel=imq']}
    """
    return {"beta": 0.0, "penalty": [f"mmd:weight={weight:g},kernel=imq"]}


def sigma_vae() -> Options:
    """Set the variance of a Gaussian likelihood to its optimum, which leaves no weight of the KL to
    tune (Rybkin, Daniilidis and Levine 2021).

    Example:
        >>> sigma_vae()
        {'likelihood': 'gaussian:variance=optimal'}
    """
    return {"likelihood": "gaussian:variance=optimal"}


def free_bits(*, nats: float = 0.25) -> Options:
    """Do not penalise the first nats of each unit's rate (Kingma et al. 2016).

    Example:
        >>> free_bits()
        {'free_bits': '0.25'}
    """
    return {"free_bits": f"{nats:g}"}


def delta_vae(*, nats: float = 0.1) -> Options:
    """Use a posterior whose rate per unit has a minimum (Razavi et al. 2019).

    Example:
        >>> delta_vae()
        {'posterior': 'normal:min_rate=0.1'}
    """
    return {"posterior": f"normal:min_rate={nats:g}"}


def capacity(*, to: float = 25.0, gamma: float = 100.0) -> Options:
    """Pull the rate towards a capacity that grows over half of the run (Burgess et al. 2018).

    Example:
        >>> capacity()
        {'capacity': 'to=25,gamma=100,share=0.5'}
    """
    return {"capacity": f"to={to:g},gamma={gamma:g},share=0.5"}


def geco(*, target: float) -> Options:
    """Minimise the rate subject to a distortion of at most `target` nats (Rezende and Viola 2018).

    Example:
        >>> geco(target=25.0)
        {'beta': 'geco:target=25'}
    """
    return {"beta": f"geco:target={target:g}"}


def lagging() -> Options:
    """Before each joint step, train the encoder alone until its bound stops improving (He et al.
    2019).

    Example:
        >>> lagging()
        {'aggressive': True}
    """
    return {"aggressive": True}


def iwae(*, k: int = 5) -> Options:
    """Maximise the importance-weighted bound (Burda et al. 2016).

    Example:
        >>> iwae()
        {'objective': 'iwae:k=5'}
    """
    return {"objective": f"iwae:k={k}"}


def dreg(*, k: int = 50) -> Options:
    """Maximise the importance-weighted bound with doubly reparameterized gradients (Tucker et al.
    2019).

    Example:
        >>> dreg()
        {'objective': 'iwae:k=50', 'gradient': 'dreg'}
    """
    return {"objective": f"iwae:k={k}", "gradient": "dreg"}


def stl(*, k: int = 1) -> Options:
    """Maximise the ELBO with the path derivative alone (Roeder et al. 2017).

    Example:
        >>> stl()
        {'objective': 'elbo:k=1', 'gradient': 'stl'}
    """
    return {"objective": f"elbo:k={k}", "gradient": "stl"}


def vimco(*, k: int = 5) -> Options:
    """Maximise the importance-weighted bound of discrete latents with the score function and a
    leave-one-out baseline (Mnih and Rezende 2016).

    Example:
        >>> vimco()
        {'objective': 'iwae:k=5', 'gradient': 'score', 'posterior': 'bernoulli'}
    """
    return {"objective": f"iwae:k={k}", "gradient": "score", "posterior": "bernoulli"}


def rloo(*, k: int = 4) -> Options:
    """Maximise the ELBO of discrete latents with the score function and a leave-one-out baseline
    (Kool et al. 2019).

    Example:
        >>> rloo()
        {'objective': 'elbo:k=4', 'gradient': 'score', 'posterior': 'bernoulli'}
    """
    return {"objective": f"elbo:k={k}", "gradient": "score", "posterior": "bernoulli"}


def vampprior(*, inputs: int = 500, share: float = 0.3) -> Options:
    """Learn the prior as a mixture of encoded pseudo-inputs, with a warm-up of the KL (Tomczak and
    Welling 2018).

    Example:
        >>> vampprior()
        {'prior': 'vamp:inputs=500', 'beta': 'warmup:share=0.3'}
    """
    return {"prior": f"vamp:inputs={inputs}", "beta": f"warmup:share={share:g}"}


def dvae(*, codes: int = 32, temperature: float = 0.67) -> Options:
    """Train one-hot latents with the Gumbel-softmax (Jang et al. 2017).

    Example:
        >>> dvae()
        {'posterior': 'categorical:codes=32', 'gradient': 'gumbel-softmax:temperature=0.67'}
    """
    return {
        "posterior": f"categorical:codes={codes}",
        "gradient": f"gumbel-softmax:temperature={temperature:g}",
    }


RECIPES: dict[str, Callable[..., Options]] = {
    "beta-vae": beta_vae,
    "annealed": annealed,
    "cyclical": cyclical,
    "beta-tcvae": beta_tcvae,
    "dip-vae-i": dip_vae_i,
    "dip-vae-ii": dip_vae_ii,
    "info-vae": info_vae,
    "wae": wae,
    "sigma-vae": sigma_vae,
    "free-bits": free_bits,
    "delta-vae": delta_vae,
    "capacity": capacity,
    "geco": geco,
    "lagging": lagging,
    "iwae": iwae,
    "dreg": dreg,
    "stl": stl,
    "vimco": vimco,
    "rloo": rloo,
    "vampprior": vampprior,
    "dvae": dvae,
}
