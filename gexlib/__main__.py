"""`python -m gexlib`: doctor, run, sweep, collect, predict, claims, fetch, example. Each loads only what it needs."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys


def doctor(args: argparse.Namespace) -> int:
    """Check the machine."""
    from gexlib.doctor import print_report

    return 0 if print_report() else 1


def run(args: argparse.Namespace) -> int:
    """Run notebooks."""
    from gexlib.run import RunFailed, run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's time limit ends a run as Ctrl-C does
    try:
        chosen = {"given": args.given, "cohort": args.cohort, "samples": args.samples}
        run(args.number, args.profile, args.out, args.save_models, args.jobs, **chosen)
    except RunFailed as failure:
        return complain(failure, 1)
    return 0


def sweep(args: argparse.Namespace) -> int:
    """Run one notebook under many parameters."""
    from gexlib.sweep import sweep

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    table = sweep(args.file, args.out, args.jobs, args.executor, args.dry_run, args.retry_failed)
    return 0 if args.dry_run or (table["state"] == "done").all() else 1


def collect(args: argparse.Namespace) -> int:
    """Gather a sweep into a table and a figure."""
    from gexlib.sweep import collect

    table = collect(args.folder, args.metric)
    print(f"{len(table):,} rows of {table['run'].nunique()} runs in collected.parquet, drawn in collected.png")
    return 0


def predict(args: argparse.Namespace) -> int:
    """Apply a saved model to new samples."""
    from gexlib.saved import apply

    apply(args.folder, args.cohort, args.out, args.samples, args.label, args.max_missing, args.rescale)
    return 0


def claims(args: argparse.Namespace) -> int:
    """Print the ledger."""
    from gexlib.claims.ledger import print_ledger

    print_ledger()
    return 0


def fetch(args: argparse.Namespace) -> int:
    """Download a public cohort, or list what there is."""
    from gexlib.fetch import fetch, list_sources

    if args.list or not args.name:
        print(list_sources().to_string())
    else:
        print(*fetch(args.name), sep="\n")
    return 0


def example(args: argparse.Namespace) -> int:
    """Write an example matrix."""
    from gexlib.sources.matrix import write_example

    print(*write_example(args.folder), sep="\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a room."""
    parser = argparse.ArgumentParser(prog="python -m gexlib", description="Deep learning on gene expression, re-done.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        return command

    add("doctor", doctor, "check that this machine has what the notebooks need")
    runner = add("run", run, "run one notebook, or all of them, without a browser")
    runner._negative_number_matcher = re.compile(r"-\.?\d")  # argparse would take the value -1e-5 for an option
    runner.add_argument("number", help="01, 02b, …, or all")
    runner.add_argument("--profile", default="tiny", metavar="NAME", help="a set of parameters (default: %(default)s)")
    given = {"dest": "given", "nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    runner.add_argument("-p", **given, help="one parameter; may be repeated")
    runner.add_argument("--cohort", metavar="NAME", help="any name or file that load_cohort opens")
    runner.add_argument("--samples", metavar="FILE", help="the samples table of a cohort that is a matrix file")
    runner.add_argument("--out", metavar="DIR", help="the target folder (default: one below runs/NUMBER)")
    runner.add_argument("--save-models", action="store_true", help="keep what it trained in models/ of that folder")
    runner.add_argument("--jobs", type=int, default=1, metavar="N", help="with all: notebooks at a time (default: 1)")
    sweeper = add("sweep", sweep, "run one notebook under many parameters; a killed sweep goes on where it was")
    sweeper.add_argument("file", metavar="FILE", help="a sweep file, such as those in sweeps/")
    sweeper.add_argument("--out", metavar="DIR", help="its folder (default: runs/sweeps/NAME OF THE FILE)")
    sweeper.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: what the machine holds)")
    sweeper.add_argument("--executor", default="local", metavar="NAME", help="local or slurm (default: %(default)s)")
    sweeper.add_argument("--dry-run", action="store_true", help="only show every run, and where it stands")
    sweeper.add_argument("--retry-failed", action="store_true", help="also run again what failed by itself")
    collector = add("collect", collect, "gather a sweep into one tidy parquet and one figure")
    collector.add_argument("folder", metavar="DIR")
    collector.add_argument(
        "--metric", metavar="NAME", help="the metric to draw (default: macro AUC where there is one)"
    )
    predictor = add("predict", predict, "apply a saved model to new samples")
    predictor.add_argument("folder", metavar="MODEL_DIR", help="such as runs/01/tiny/models/network")
    predictor.add_argument("--cohort", required=True, metavar="NAME", help="any name or file that load_cohort opens")
    predictor.add_argument("--samples", metavar="FILE", help="the samples table of a cohort that is a matrix file")
    predictor.add_argument("--out", required=True, metavar="FILE", help="a .csv or .tsv; a .json note is put beside it")
    predictor.add_argument("--label", metavar="COLUMN", help="the truth, where it is known: scores are printed")
    predictor.add_argument(
        "--max-missing", type=float, default=0.2, metavar="SHARE", help="of the model's genes (default: %(default)s)"
    )
    predictor.add_argument("--rescale", action="store_true", help="z-score each gene over the new samples")
    add("claims", claims, "print the ledger: each paper's claims, our numbers, the verdicts")
    fetcher = add("fetch", fetch, "download a public cohort and verify its checksum")
    fetcher.add_argument("name", nargs="?", metavar="NAME", help="such as geo:GSE85047")
    fetcher.add_argument("--list", action="store_true", help="print what can be fetched")
    writer = add("example", example, "write a small matrix and samples table to copy the form of")
    writer.add_argument("folder", metavar="DIR")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 a run or check that failed, 2 a request that cannot be met, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 still shows the rest of the line
    args = make_parser().parse_args(argv)
    try:
        code = args.action(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as stop:
        return complain(str(stop) or "interrupted.", 130)
    except ModuleNotFoundError as missing:
        return complain(f"{missing}; install what is missing, see `python -m gexlib doctor`.", 2)
    except (ValueError, OSError) as refusal:
        return complain(refusal, 2)


def complain(sentence: object, code: int) -> int:
    """Say on stderr what went wrong, and return the exit code."""
    print(f"gexlib: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
