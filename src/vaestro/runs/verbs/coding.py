"""The verbs encode, decode, reconstruct and sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.frames import Frame
from vaestro.runs.returning import as_given
from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    import numpy as np

    from vaestro.data import Rows
    from vaestro.densities import Decoding
    from vaestro.latent import UserData
    from vaestro.runs.sources import Conditions, Source


class CodeVerbs(Verbs):
    """Encode data, decode latents, and draw data."""

    def encode(
        self,
        source: Source,
        *,
        draws: int = 0,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        """Return `mean` and `logvar` of q(z | x), each (N, *Z); with `draws`, also `z` (draws, N,
        *Z)."""
        from vaestro import latent

        session = self.session
        rows = session.rows(source, split, condition)
        if draws:
            return latent.encode(session.model, rows, draws=draws, seed=seed)
        return {name: values.copy() for name, values in session.codes(rows).items()}

    def transform(
        self, source: Source, *, split: str | None = None, condition: Conditions = None
    ) -> np.ndarray:
        """Return the mean of q(z | x) of each datum as a row, (N, Z); latent grids are flattened,
        which `encode` returns as grids.

        Args:
            source: the data, or one datum: an array of its shape, {column: value}, or a text.
            split, condition: see `rows`.

        >>> import numpy as np, vaestro as vs
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        >>> m = vs.fit(x, latent=2, steps=2)
        >>> m.transform(x).shape, m.transform(x[0]).shape
        ((60, 2), (1, 2))
        """
        session = self.session
        mean = session.codes(session.rows(source, split, condition))["mean"]
        return mean.reshape(len(mean), -1).copy()

    def latents(
        self, source: Source, *, split: str | None = None, condition: Conditions = None
    ) -> np.ndarray:
        """Return the latents that `reconstruct` decodes, (N, *Z); see `latent.settled`."""
        from vaestro import latent

        session = self.session
        mean = session.codes(session.rows(source, split, condition))["mean"]
        return latent.settled(session.model, mean).copy()

    def decode(
        self,
        z: np.ndarray,
        *,
        condition: Conditions = None,
        like: Rows | None = None,
        sample: bool = False,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Return the mean of p(x | z) at latents (N, *Z), or a draw, in the user's units.

        Args:
            z: the latents.
            condition: {name: value}, a value for each condition of a conditional model.
            like: N rows, or one, whose conditions are used instead of `condition`.
            sample: return a draw instead of the mean.
            decoding: how texts are drawn or searched for.
            dtype: "own" or "float", of means.
            seed: of the draws.

        Raises:
            ValueError: a condition is missing, or the latents are not of the model.
        """
        from vaestro import latent

        session = self.session
        given = session.given(condition, like, len(z))
        data = latent.decode(
            session.model, z, given=given, sample=sample, seed=seed, decoding=decoding, dtype=dtype
        )
        return as_given(self.example, data)

    def reconstruct(
        self,
        source: Source,
        *,
        split: str | None = None,
        condition: Conditions = None,
        decode_condition: Conditions = None,
        draws: int | None = None,
        library: float | None = None,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Return the mean of p(x | z) at each datum's code, in the user's units.

        Args:
            source, split, condition: see `rows`.
            decode_condition: {name: value}, which the decoder has instead of the data's own.
            draws, library, seed: for counts, see `latent.expression`.
            decoding, dtype: see `decode`.
        """
        from vaestro import latent

        session = self.session
        model, rows = session.model, session.rows(source, split, condition)
        if draws is None and library is None:
            data = latent.reconstruct(
                model,
                rows,
                decoding=decoding,
                dtype=dtype,
                codes=session.codes,
                changed=decode_condition,
            )
            return as_given(source, data)
        if decoding is not None:
            raise ValueError("expected no search for texts with draws or a library; got one")
        decoded = latent.with_conditions(model, rows, decode_condition or {})
        means = latent.expression(
            model,
            rows,
            draws=25 if draws is None else draws,
            library=library,
            decoded=decoded,
            seed=seed,
        )
        return means.reshape(len(rows), *model.space.outside)

    def sample(
        self,
        n: int = 64,
        *,
        condition: Conditions = None,
        like: Rows | None = None,
        temperature: float = 1.0,
        mean: bool | None = None,
        complete: bool | None = None,
        diffusion: bool = False,
        sampler: str | None = None,
        guidance: float = 1.0,
        decoding: Decoding | None = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Draw n data from the model, in the user's units. A table includes the condition columns.

        Args:
            n, temperature, complete, decoding, dtype, seed: see `latent.sample`.
            condition: {name: value}, a value for each condition of a conditional model, and of its
                diffusion model.
            diffusion: draw latents from the diffusion model of the run (`diffuse`).
            sampler: of the diffusion model: ddim, ddpm, dpm-solver or euler, with options.
            guidance: weight of the conditions of the diffusion model.
            like: n rows, or one, whose conditions are used instead of `condition`.
            mean: return the mean of p(x | z) at each drawn z; by default for images.

        Raises:
            ValueError: a condition is missing, or an argument is out of range.
        """
        import numpy as np

        from vaestro import latent
        from vaestro.data.tables import condition_frame

        session = self.session
        model = session.model
        if diffusion:
            model, condition = session.with_diffusion(condition, sampler, guidance)
        elif sampler is not None or guidance != 1:
            raise ValueError("expected --sampler and --guidance with --diffusion; got one without")
        images = model.space.layout.name == "image"
        data = latent.sample(
            model,
            n,
            given=session.given(condition, like, n),
            temperature=temperature,
            seed=seed,
            mean=images if mean is None else mean,
            complete=complete,
            decoding=decoding,
            dtype=("own" if images else None) if mean is None and dtype is None else dtype,
        )
        if not isinstance(data, Frame):
            return data
        if like is None or like.given is None or like.given_space is None:
            conditions = condition_frame(model.given, condition or {}, n)
        else:
            given = np.broadcast_to(like.given, (n, like.given.shape[1]))
            conditions = like.given_space.outward(given)
        return as_given(self.example, data.with_columns(conditions))
