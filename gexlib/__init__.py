"""gexlib: the shared rooms of a compendium of deep-learning studies on gene expression.

`load_cohort` opens any cohort by name, `check_cohort` says whether it keeps the contract, `CohortError` says why not.
Importing this package loads no deep-learning framework.
"""

from gexlib.cohort import CohortError, check_cohort
from gexlib.sources import load_cohort

__version__ = "0.1.0"
__all__ = ["CohortError", "check_cohort", "load_cohort"]
