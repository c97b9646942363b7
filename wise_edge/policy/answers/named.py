"""Finding a form of answers by its name or in a file."""

from __future__ import annotations

from pathlib import Path

from wise_edge.errors import UsageError
from wise_edge.files.documents import read_json
from wise_edge.mapping import from_mapping
from wise_edge.policy.answers.form import FORMS, AnswerForm


def find_form(name: str, where: str = "") -> AnswerForm:
    """Return a shipped form, or that of a JSON file with the fields of `AnswerForm`.

    Args:
        name: of the form, or of a file, which ends with .json.
        where: beginning of messages, such as the option that named it.

    Raises:
        UsageError: there is no such form or file, or the file holds no form.
    """
    if name in FORMS:
        return FORMS[name]
    if not name.endswith(".json"):
        raise UsageError(f"{where}unknown form {name!r}; choose one of {', '.join(FORMS)}, or name a .json file")
    return from_mapping(AnswerForm, read_json(Path(name)), f"{where}{name}: ")
