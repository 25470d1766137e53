"""gexlib: the shared rooms of a compendium of deep-learning studies on gene expression.

`load_cohort` opens any cohort by name, `check_cohort` says whether it keeps the contract, `CohortError` says why not.
They are loaded when first asked for, so that `python -m gexlib doctor` can still speak where a dependency is missing.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["CohortError", "check_cohort", "load_cohort"]

_ROOMS = {"CohortError": "gexlib.cohort", "check_cohort": "gexlib.cohort", "load_cohort": "gexlib.sources"}


def __getattr__(name: str):
    if name not in _ROOMS:
        raise AttributeError(f"module 'gexlib' has no attribute '{name}'")
    return getattr(import_module(_ROOMS[name]), name)
