import os
import time

import matplotlib
import pytest

matplotlib.use("Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config):
    config.started = time.time()
    config.notebooks_executed = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Notebooks run first, so that what they write can be compared with what is committed."""
    config.notebooks_executed = any(type(item).__name__ == "IPyNbCell" for item in items)
    items.sort(key=lambda item: type(item).__name__ != "IPyNbCell")


@pytest.fixture(autouse=True)
def _no_run_folder_from_outside(monkeypatch):
    """A test says itself where a run writes."""
    monkeypatch.delenv("GEXLIB_OUT", raising=False)
