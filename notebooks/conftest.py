"""Exercises fail until they are solved, and tests/test_exercises.py runs the solutions: nbval leaves both alone."""

collect_ignore = ["solutions", "exercises"]
