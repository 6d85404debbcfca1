"""Reads a command, runs it and says what went wrong. Exit status: see EXIT_STATUSES."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from calibration.data.readers import formats_in_words
from calibration.errors import OptimizerError
from service import __version__
from service.cli import commands, job_commands
from service.cli.access_parsers import add_access_commands, count_from_text
from service.cli.own_words import in_own_words
from service.settings import PREFIX

INTERRUPTED = 130
EXIT_STATUSES = (
    "exit status: 0 done, also where the baseline is kept; 1 something else than the input is at fault, such as a stage or the server; "
    "2 the input, the configuration or the command is at fault; 130 interrupted (Ctrl-C); 129 or 143 ended by a signal"
)
PROGRAM = "onnx-trt-optimizer"
JOB_STATES = ("queued", "running", "on_hold", "succeeded", "failed", "cancelled")
Command = Callable[[argparse.Namespace, commands.Output], None]


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors go to stderr as two lines, ``error:`` and ``fix:``.

    Args:
        argv: Its arguments; by default those of this process, which is the command's own then.
    """
    arguments = _parser().parse_args(argv)
    arguments.has_own_process = argv is None
    command: Command = arguments.run
    try:
        if command not in (commands.serve, commands.work):  # these stop in their own way
            _end_cleanly_on_signals()
        command(arguments, _print)
    except OptimizerError as exc:
        _print_error(*in_own_words(exc, is_key_set=bool(os.environ.get(PREFIX + "API_KEY"))))
        return commands.exit_status(exc)
    except KeyboardInterrupt:
        _print_error("interrupted", _after_interrupt(command, arguments))
        return INTERRUPTED
    except BrokenPipeError:  # who reads our output went away: nothing more to say, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:  # of a file or a folder that a command writes or sends
        if arguments.traceback:
            traceback.print_exception(exc)
        _print_error(f"{exc.filename or 'file'}: {exc.strerror or exc}", "Check the path, its permissions and the room on the disk.")
        return 1
    except Exception as exc:  # the process boundary
        if arguments.traceback:
            traceback.print_exception(exc)
        _print_error(
            f"unexpected {type(exc).__name__}: {exc}", "This is a fault of the program: run it again with --traceback and report it."
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    about = "The fastest mixed-precision engine of an ONNX model inside an accuracy budget."
    parser = _Parser(prog=PROGRAM, description=about, epilog=EXIT_STATUSES)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error came from")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = _command(parsers, "serve", commands.serve)
    serve.add_argument("--host", help="address to listen on (default 127.0.0.1; any other needs a key)")
    serve.add_argument("--port", type=int, help="port to listen on (default 8000; 0 for any free one)")
    serve.add_argument("--data-dir", type=Path, metavar="DIR", help="folder for everything the server keeps")
    serve.add_argument(
        "--rebuild",
        action="store_true",
        help="set a damaged database aside, begin a new one with the jobs that can be read",
    )

    serve.add_argument(
        "--role", choices=("all", "api"), default="all", help="api: only answer callers; workers run the jobs (default: do both)"
    )

    worker = _command(parsers, "worker", commands.work)
    worker.add_argument(
        "--role", choices=("cpu", "gpu"), required=True, help="cpu: run jobs; gpu: run the stages of jobs that open this machine's GPU"
    )
    worker.add_argument("--data-dir", type=Path, metavar="DIR", help="folder for what this process alone keeps")

    optimize = _command(parsers, "optimize", commands.optimize)
    _add_job(optimize)
    optimize.add_argument("--output", type=Path, metavar="DIR", required=True, help="folder for the engine, the report and result.json")
    optimize.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder that keeps measurements for further runs on the same model and data, and what an interrupted run had done"
        " (default: one of this user's)",
    )
    optimize.add_argument("--no-cache", action="store_true", help="keep nothing, and use nothing that was kept")

    build = _command(parsers, "build", commands.build)
    _add_job(build)
    build.add_argument("-o", "--output", type=Path, metavar="ENGINE", required=True, help="the engine to write; FILE.json beside it")

    submit = _command(parsers, "submit", commands.submit)
    _add_job(submit)
    submit.add_argument("--watch", action="store_true", help="wait for the job and print its result")
    submit.add_argument("--idempotency-key", metavar="TEXT", help="submitting again with the same text returns the same job")
    submit.add_argument("--priority", type=int, metavar="N", default=0, help="the higher comes first among your jobs (default 0)")

    watch, download, cancel = (
        _command(parsers, name, command)
        for name, command in (("watch", commands.watch), ("download", commands.download), ("cancel", commands.cancel))
    )
    for parser_of_job in (watch, download, cancel):
        parser_of_job.add_argument("job", metavar="JOB", help="the job's id")
    download.add_argument("--output", type=Path, metavar="DIR", required=True, help="folder for the engine and the artifacts")

    list_jobs = _command(parsers, "list", job_commands.list_jobs)
    list_jobs.add_argument("--state", choices=JOB_STATES, help="only jobs in this state")
    list_jobs.add_argument("--limit", type=count_from_text, metavar="N", help="as many at most (default: all)")
    delete, report = _command(parsers, "delete", job_commands.delete), _command(parsers, "report", job_commands.report)
    for parser_of_job in (delete, report):
        parser_of_job.add_argument("job", metavar="JOB", help="the job's id")
    report.add_argument("--output", type=Path, metavar="DIR", default=Path(), help="folder for report.html (default: this one)")
    report.add_argument("--open", action="store_true", help="show it in a browser")

    inspect = _command(parsers, "inspect", job_commands.inspect)
    inspect.add_argument("model", type=Path, metavar="MODEL", help=".onnx file, its external data beside it")
    inspect.add_argument(
        "--samples", type=count_from_text, default=1000, metavar="N", help="samples that engines would be scored on (default 1000)"
    )

    recipe = _command(parsers, "recipe", commands.recipe)
    recipe.add_argument("model", type=Path, metavar="MODEL", help=".onnx file, its external data beside it")
    recipe.add_argument("--layer-precisions", metavar="SPEC", help="what was given to trtexec, such as 'conv1:fp16,*:int8'")
    recipe.add_argument("--calibration-cache", type=Path, metavar="FILE", help="INT8 calibration cache of TensorRT 10 or older")
    recipe.add_argument(
        "--default", choices=("fp16", "bf16", "fp32"), default="fp16", help="precision of layers that neither names (default fp16)"
    )
    recipe.add_argument("--assignment", type=Path, metavar="FILE", help="assignment.json, in the place of the settings of TensorRT 10")
    recipe.add_argument("--output", type=Path, metavar="FILE", help="assignment.json to write; ranges go beside it")
    recipe.add_argument("--modelopt", type=Path, metavar="FILE", help="settings of ModelOpt to write: quantize_mode, nodes_to_exclude")
    recipe.add_argument("--polygraphy", type=Path, metavar="FILE", help="script of Polygraphy to write, for TensorRT 10")

    compare = _command(parsers, "compare", commands.compare)
    compare.add_argument("outputs", type=Path, nargs="+", metavar="OUT", help="output folder of a job, or its report.json")
    compare.add_argument("--output", type=Path, metavar="FILE", required=True, help="the page to write, such as compare.html")

    check = _command(parsers, "self-check", commands.self_check)
    check.add_argument(
        "--output", type=Path, metavar="FILE", help="what was found, as JSON (default onnx-trt-optimizer-self-check.json in this folder)"
    )
    check.add_argument(
        "--gpu", metavar="NAME", help="the GPU to build TensorRT-RTX plans for (default: this machine's where it can, else RTX 4090)"
    )
    check.add_argument(
        "--seconds", type=float, metavar="N", help="time for all checks; what has not begun by then is skipped (default: no limit)"
    )
    check.add_argument("--tests", type=Path, metavar="DIR", help="folder tests of this project's sources: run those marked gpu, too")

    targets = _command(parsers, "targets", commands.targets)
    targets.add_argument("--local", action="store_true", help="ask this machine, not a server")
    usage = add_access_commands(partial(_command, parsers), partial(_nested, parsers))
    for parser_of_server in (usage, submit, watch, download, cancel, targets, list_jobs, delete, report):
        parser_of_server.add_argument(
            "--server",
            metavar="URL",
            default=os.environ.get(PREFIX + "SERVER") or commands.DEFAULT_SERVER,
            help=f"the server (default {PREFIX}SERVER, else {commands.DEFAULT_SERVER}); key from {PREFIX}API_KEY",
        )
    return parser


def _command(parsers: argparse._SubParsersAction[_Parser], name: str, run: Command) -> argparse.ArgumentParser:
    summary = (run.__doc__ or "").strip()
    parser = parsers.add_parser(name, help=summary, description=summary, epilog=EXIT_STATUSES)
    parser.set_defaults(run=run)
    return parser


def _nested(parsers: argparse._SubParsersAction[_Parser], name: str, summary: str) -> Callable[[str, Command], argparse.ArgumentParser]:
    parser = parsers.add_parser(name, help=summary, description=summary, epilog=EXIT_STATUSES)
    return partial(_command, parser.add_subparsers(metavar="COMMAND", required=True))


def _add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help=".onnx file, or a .zip or .tar of one with its external data")
    parser.add_argument("--calibration", type=Path, metavar="PATH", required=True, help=formats_in_words())
    parser.add_argument(
        "--validation", type=Path, metavar="PATH", help="samples for accuracy; without it a part of the calibration set is held out"
    )
    parser.add_argument(
        "--metric-model",
        type=Path,
        metavar="FILE",
        help="your own metric: an .onnx file, model outputs (and labels) in, a score per sample out",
    )
    parser.add_argument("--target", help="what to build for; see `targets`")
    parser.add_argument("--gpu", help="the GPU's product name, for targets that run on one")
    for flag, words in (
        ("--min-relative", "accuracy budget: least share of the float model's score (default 0.99)"),
        ("--max-drop", "accuracy budget: largest drop of the score, such as 0.005"),
        ("--min-score", "accuracy budget: least score of the engine"),
    ):
        parser.add_argument(flag, type=float, metavar="NUMBER", help=f"{words}; in the place of the configuration's budget")
    parser.add_argument("--metric", metavar="NAME", help="what the budget is stated in, such as top1; see accuracy.metric")
    parser.add_argument("--batch-size", type=int, metavar="N", help="samples per call that the engine is timed with (default 1)")
    parser.add_argument(
        "--min-speedup",
        type=float,
        metavar="TIMES",
        help="the most accurate engine that is so much faster, in the place of an accuracy budget",
    )
    parser.add_argument("--max-latency-ms", type=float, metavar="MS", help="the same: the most accurate engine that takes no longer a call")
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON file with further settings")
    parser.add_argument(
        "--assignment", type=Path, metavar="FILE", help="assignment.json: the precision of every layer, of an engine that is tried first"
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the same two lines as every other error."""

    def error(self, message: str) -> NoReturn:
        _print_error(message, f"See `{self.prog} --help`.")
        sys.exit(2)


def _after_interrupt(command: Command, arguments: argparse.Namespace) -> str:
    """Return what to do after Ctrl-C: a server goes on with what it was asked for."""
    if command is commands.submit:
        return "If a job's id was printed, the server goes on with it: `watch` shows it, `cancel` ends it. Else run the same command again."
    if command is commands.watch:
        return "The server goes on with the job: run the same command again to see it, or `cancel` to end it."
    goes_on = command is commands.optimize and not arguments.no_cache
    return f"Run the same command again {'to go on from there' if goes_on else 'to start anew'}."


def _end_cleanly_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C, so that children end and temporary files go."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _print_error(detail: str, fix: str) -> None:
    sys.stderr.write(f"error: {' '.join(detail.split())}\nfix: {' '.join(fix.split())}\n")
