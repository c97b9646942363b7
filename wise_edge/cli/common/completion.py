"""Completion for bash, zsh and fish: a script for the shell, which asks the program what may follow.

The script runs the program with the words so far as arguments and the shell's name in `_WISE_EDGE_COMPLETE`. The answer
is a line that says what else may follow (`files`, `dirs` or `none`), then a line for each candidate, with its
description behind a tab. Nothing is opened but `bundle.json`, for the variants of a bundle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from wise_edge.cli.common.help import summarize
from wise_edge.cli.common.listing import LIST, LIST_HELP
from wise_edge.cli.common.names import Place, names_of, takes_names
from wise_edge.cli.common.settings import Defaults, Words

VARIABLE = "_WISE_EDGE_COMPLETE"
_FILES = {"FILE", "IN", "IMAGE", "VIDEO", "REPORT", "RECORDS", "LOG", "OTHER", "A", "B"}
_FOLDERS = {"DIR", "BUNDLE", "CKPT"}
"""Words in metavars (FILE.html, POLICY_DIR, IMAGE...) for which a shell offers files or folders."""

SCRIPTS = {
    "bash": """\
_wise_edge() {
    local kind line
    COMPREPLY=()
    {
        read -r kind
        while IFS=$'\\t' read -r line _; do COMPREPLY+=("$line"); done
    } < <(_WISE_EDGE_COMPLETE=bash "${1/#\\~/$HOME}" "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case $kind in
        files) compopt -o default ;;
        dirs) compopt -o plusdirs ;;
    esac
}
complete -o nosort -F _wise_edge wise-edge
""",
    "zsh": """\
#compdef wise-edge
_wise_edge() {
    local line
    local -a answer found
    answer=("${(@f)$(_WISE_EDGE_COMPLETE=zsh "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    for line in "${(@)answer[2,-1]}"; do
        found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
    done
    [[ $words[CURRENT] == --*=* ]] && compset -P '*='
    (( $#found )) && _describe -V wise-edge found
    case $answer[1] in
        files) _files ;;
        dirs) _files -/ ;;
    esac
}
if [[ $funcstack[1] == _wise_edge ]]; then _wise_edge "$@"; else compdef _wise_edge wise-edge; fi
""",
    "fish": """\
function __wise_edge
    set -l words (commandline -opc) (commandline -ct)
    set -l answer (env _WISE_EDGE_COMPLETE=fish $words 2>/dev/null)
    switch "$answer[1]"
        case files
            __fish_complete_path (commandline -ct)
        case dirs
            __fish_complete_directories (commandline -ct) ''
    end
    set -q answer[2]; and string join \\n -- $answer[2..-1]
end
complete -c wise-edge -e
complete -c wise-edge -k -f -a '(__wise_edge)'
""",
}
"""Shell to what it has to run once: see `wise-edge completion -h`."""


def answer(root: Any, words: Sequence[str], shell: str, defaults: Defaults) -> str:
    """Return the answer to a shell.

    Args:
        root: the command of all commands.
        words: what is on the line behind the program's name, the last one incomplete.
        shell: its name.
        defaults: of files, one of which may choose the bundle.
    """
    kind, found = _complete(root, _join(words) if shell == "bash" else list(words or [""]), shell, defaults)
    return "\n".join([kind, *(f"{value}\t{text}" if text else value for value, text in found.items())])


def _join(words: Sequence[str]) -> list[str]:
    """Undo how bash splits words at `=`: `--bundle`, `=`, `folder`."""
    joined: list[str] = []
    for word in words or [""]:
        if joined and (word == "=" or (joined[-1].endswith("=") and joined[-1].startswith("--"))):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def _complete(root: Any, words: list[str], shell: str, defaults: Defaults) -> tuple[str, dict[str, str]]:
    *before, last = words
    command, positional, waiting = root, 0, None
    path: Words = ()
    given: dict[str, str] = {}
    for word in before:
        name, _, value = word.partition("=")
        if waiting is not None:
            given[waiting.name], waiting = word, None
        elif word.startswith("-") and (option := _find(command, name)):
            if value:
                given[option.name] = value
            elif not option.is_flag:
                waiting = option
        elif word in getattr(command, "commands", {}):
            command, path, positional = command.commands[word], (*path, word), 0
        else:
            positional += 1
    place = Place(given.get("bundle") or os.environ.get("WISE_EDGE_BUNDLE") or _default_bundle(defaults, path))
    name, equals, value = last.partition("=")
    if waiting is None and equals and (waiting := _find(command, name)):
        kind, found = _values(path, waiting, place, value)
        return kind, found if shell in ("bash", "zsh") else {f"{name}={each}": text for each, text in found.items()}
    if waiting is not None:
        return _values(path, waiting, place, last)
    if last.startswith("-"):
        return "none", _starting(last, dict(_options(path, command)))
    if commands := getattr(command, "commands", {}):
        shown = {name: summarize(each.help) for name, each in commands.items() if not each.hidden}
        return "none", _starting(last, shown)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    if positional >= len(arguments) and not (arguments and arguments[-1].nargs == -1):
        return "none", {}
    return _values(path, arguments[min(positional, len(arguments) - 1)], place, last)


def _find(command: Any, name: str) -> Any:
    return next((each for each in command.params if name in (*each.opts, *each.secondary_opts)), None)


def _options(path: Words, command: Any) -> Iterator[tuple[str, str]]:
    for each in command.params:
        if each.param_type_name == "option" and not each.hidden:
            for name in (max(each.opts, key=len), *each.secondary_opts):
                yield name, summarize(each.help)
    if takes_names(path, command):
        yield LIST, LIST_HELP
    yield "--help", "Show this message and exit."


def _values(path: Words, parameter: Any, place: Place, start: str) -> tuple[str, dict[str, str]]:
    metavar = parameter.metavar or ""
    stems = set(re.findall("[A-Z]+", metavar.partition(" ")[0]))
    kind = "files" if stems & _FILES else "dirs" if stems & _FOLDERS else "none"
    names = names_of(path, parameter, place) or {}
    if metavar.endswith(",...") and "," in start:
        earlier = start.rpartition(",")[0]
        names = {f"{earlier},{name}": text for name, text in names.items() if name not in earlier.split(",")}
    return kind, _starting(start, names)


def _starting(start: str, names: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in names.items() if name.startswith(start)}


def _default_bundle(defaults: Defaults, path: Words) -> str | None:
    found = defaults.found.get((path, "bundle"))
    return found.value if found else None
