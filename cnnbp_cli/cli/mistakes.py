"""What a call that is no call of a command is told: one line that names the word at fault, and what to type instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import typer

from cnnbp_cli.cli.words import ABSENT, ARGUMENTS, HINTS, KEYS, options_meant

WORDS = "cnnbp.words"
"""Where a command's context keeps the words that it was called with."""


def told(error: Any) -> str:
    """Return a usage error as one line that begins with the option or the argument that it is about."""
    if type(error) is typer.BadParameter:
        text = error.message.removeprefix("Value error, ").rstrip(".")
        place = error.param_hint or (error.param and _place(error.param))
        return f"{place}: {_in_a_sentence(text)}" if place else text
    if hasattr(error, "possibilities"):
        return f"no such option: {error.option_name}{_instead_of(error)}"
    if isinstance(error, typer.BadParameter) and error.param is not None:  # one that is missing
        return f"missing {_place(error.param)}{_as_in(error)}"
    if hasattr(error, "option_name"):
        return _without_value(error.option_name, error.ctx)
    text = _in_a_sentence(error.format_message().rstrip("."))
    if ". Did you mean " in text:
        text, _, words = text.replace(". Did you mean ", ", did you mean ").rpartition(", ")
        return f"{text} or {words}" if "?" in words and "did you mean" not in words else f"{text}, {words}"
    if text.startswith("got unexpected extra argument"):
        return _too_many(error)
    if error.ctx and error.ctx.info_name == "data":
        return f"{text}: {HINTS['dataset']}"
    return f"{text}; {_help_of(error.ctx)}" if error.ctx else text


def told_of_word(word: str) -> str | None:
    """Return what to say of a word that stands where a command should; None where nothing is known of it."""
    if word in HINTS:
        return f"there is no command '{word}': {HINTS[word]}"
    from cnnbp_cli.config.sources import is_run, is_template, located

    path = located(word)
    if is_template(word) or (path.suffix in (".yaml", ".yml") and path.is_file()):
        kind = "template" if is_template(word) else "config"
        return f"'{word}' is no command, but a {kind}: `cnnbp train {word}` trains it, `cnnbp summary {word}` shows it"
    if is_run(path):
        return f"'{word}' is no command, but a run: `cnnbp evaluate {word}` tests it, `cnnbp plot {word}` draws it"
    return None


def _place(param: Any) -> str:
    return str(param.metavar if param.param_type_name == "argument" else max(param.opts, key=len))


def _in_a_sentence(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _help_of(ctx: Any) -> str:
    return f"`{ctx.command_path} --help` says what there is"


# ---------------------------------------------------------------------- options


def _instead_of(error: Any) -> str:
    """Return the end of a message about an option that there is not: another one, or how else to say it."""
    option, ctx = str(error.option_name), error.ctx
    known = [name for param in ctx.command.get_params(ctx) for name in param.opts]
    name = option.lstrip("-").replace("_", "-").lower()
    if meant := options_meant(option, known):
        return f", did you mean {' or '.join(sorted(meant))}?"
    commands = getattr(ctx.command, "commands", {})
    if any(options_meant(option, _options_of(command)) for command in commands.values()):
        return ": options come after the command, as in `cnnbp train lenet5 --epochs 3`"
    if name in ARGUMENTS and any("CONFIG" in str(param.metavar) for param in _arguments(ctx)):
        return f": a config has no option before it, as in `{ctx.command_path} lenet5`"
    if name in KEYS and "--set" in known:
        return f": `--set {KEYS[name]}=VALUE` sets it"
    if name in ABSENT:
        return f": {ABSENT[name]}"
    return f"; {_help_of(ctx)}"


def _options_of(command: Any) -> list[str]:
    return [name for param in command.params for name in getattr(param, "opts", ())]


def _without_value(option: str, ctx: Any) -> str:
    """Say what an option that ends the call, or stands before another, wants after it."""
    params = ctx.command.get_params(ctx) if ctx else ()
    metavar = next((param.metavar for param in params if option in param.opts), None)
    return f"{option}: expected {metavar or 'a value'} after it"


# ---------------------------------------------------------------------- arguments


def _arguments(ctx: Any) -> list[Any]:
    return [param for param in ctx.command.get_params(ctx) if param.param_type_name == "argument"]


def _as_in(error: Any) -> str:
    """Return the end of a message about an argument that is missing: an example that works, or where to look."""
    from cnnbp_cli.config.sources import last_run

    metavar, path = str(error.param.metavar), error.ctx.command_path
    if choices := error.format_message().partition("Choose from:")[2]:
        return f", expected one of: {' '.join(choices.split()).rstrip('.')}"
    if "CONFIG" in metavar.split("|"):
        return f", as in `{path} lenet5`; `cnnbp init` lists such templates" if _is_alone(error) else _help_end(error)
    if metavar.startswith("RUN"):
        if last_run() is None:
            return "; `cnnbp train lenet5` makes a run"
        if _is_alone(error) and error.param.nargs == 1:
            return f", as in `{path} last`; `cnnbp runs` lists the runs there are"
        return "; `cnnbp runs` lists the runs there are"
    return _help_end(error)


def _is_alone(error: Any) -> bool:
    """Return whether a command needs no other argument."""
    return sum(param.required for param in _arguments(error.ctx)) == 1


def _help_end(error: Any) -> str:
    from cnnbp_cli.cli.help import usage

    call = usage(error.ctx.command, error.ctx).removeprefix("Usage: ").replace(" [OPTIONS]", "")
    return f": {call}; {_help_of(error.ctx)}"


def _too_many(error: Any) -> str:
    """Say which words of a call are more than the command takes, and what they may have been meant to be."""
    ctx = error.ctx
    extra = list(_surplus(error))
    known = [name for param in ctx.command.get_params(ctx) for name in param.opts]
    said = f"unexpected {'argument' if len(extra) == 1 else 'arguments'} {' '.join(extra)}"
    words: Sequence[str] = ctx.meta.get(WORDS, ())
    for option, key, value in zip(words, words[1:], words[2:], strict=False):
        if (option, value) == ("--set", extra[0]) and "=" not in key:
            return f"{said}: an override is one word, --set {key}={value}"
    if "--set" in known and all("=" in word for word in extra):
        return f"{said}: an override has --set before it, as in --set train.epochs=3"
    return f"{said}; {_help_of(ctx)}"


def _surplus(error: Any) -> Iterator[str]:
    yield from error.format_message().partition("(s) (")[2].removesuffix(".").removesuffix(")").split(" ")
