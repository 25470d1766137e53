"""The papers' claims, one YAML file a notebook, and the ledger of verdicts on them."""
