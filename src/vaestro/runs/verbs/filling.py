"""The verbs impute and imputations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaestro.runs.returning import as_given
from vaestro.runs.verbs.base import Verbs

if TYPE_CHECKING:
    from vaestro.latent import UserData
    from vaestro.runs.sources import Conditions, Source


class FillVerbs(Verbs):
    """Fill missing cells."""

    def impute(
        self,
        source: Source,
        *,
        k: int = 100,
        sample: bool = False,
        split: str | None = None,
        condition: Conditions = None,
        dtype: str | None = None,
        seed: int = 0,
    ) -> UserData:
        """Return the data with missing cells filled in; see `latent.impute`."""
        from vaestro.runs import imputing

        how = imputing.How(k=k, sample=sample, dtype=dtype, seed=seed)
        data = imputing.imputed(self.session.session, source, how, split, condition)[1][0]
        return as_given(source, data)

    def imputations(
        self,
        source: Source,
        n: int,
        *,
        k: int = 100,
        split: str | None = None,
        condition: Conditions = None,
        seed: int = 0,
    ) -> list[UserData]:
        """Return the data n times, with draws in the missing cells; see `latent.imputations`."""
        from vaestro.runs import imputing

        how = imputing.How(n=n, k=k, seed=seed)
        tables = imputing.imputed(self.session.session, source, how, split, condition)[1]
        return [as_given(source, data) for data in tables]
