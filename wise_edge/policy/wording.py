"""Whether a prompt set's wording fits the form of the answers, and what it cannot be used for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wise_edge.errors import UsageError
from wise_edge.policy.answers.course import course_of
from wise_edge.policy.answers.form import FORMS, AnswerForm
from wise_edge.policy.prompts import VARIANTS, PromptSet, Template

_KEY = re.compile(r"""["']([A-Za-z_]\w*)["']\s*:""")
_PLACE = re.compile(r"\{[A-Za-z_]\w*\}")
_PICTURE = re.compile(r"<image>|<IMG>|<img>", re.IGNORECASE)
_THINK, _ANSWER = "<think>", "<answer>"


@dataclass(frozen=True)
class Remark:
    """Something about a prompt set that its author should know.

    Attributes:
        wrong: whether it has to be mended; otherwise it only limits what can be asked.
        where: the variant, or "system"; empty for the whole set.
        text: what it is, and what to do.
    """

    wrong: bool
    where: str
    text: str


def check_wording(prompts: PromptSet, form: AnswerForm | None, template_system: str | None = None) -> list[Remark]:
    """Return what does not fit in a prompt set.

    Args:
        prompts: the set.
        form: of the policy's answers; None takes the shipped form whose keys a template names.
        template_system: the system message that the checkpoint's chat template writes if a prompt has none; empty or
            None for none.
    """
    remarks = [Remark(True, "system", text) for text in _leftovers(prompts.system)]
    for name, template in prompts.variants.items():
        texts = (*_leftovers(template.user), *_keys(prompts.system + template.user, form), *_parts(prompts, template))
        remarks += [Remark(True, name, text) for text in (*texts, *_prefill(template, form))]
    if template_system and not prompts.system:
        remarks.append(
            Remark(
                True,
                "system",
                f"is empty, but the checkpoint's chat template then writes {template_system!r}; write this one if the "
                "policy was trained with the template and without a system message of its own",
            )
        )
    if missing := [name for name in VARIANTS if name not in prompts.variants]:
        remarks.append(
            Remark(
                False,
                "",
                f"lacks {', '.join(missing)}; a deadline chooses among wise-infer, wise-s and answer, and training "
                "asks with wise or wise-infer",
            )
        )
    return remarks


def named_form(prompts: PromptSet) -> AnswerForm | None:
    """Return the shipped form whose keys the templates name; None if they name none or differ."""
    named = {frozenset(_KEY.findall(prompts.system + template.user)) for template in prompts.variants.values()}
    keys, *others = named - {frozenset()} or {frozenset()}
    return None if others else _form_of(keys)


def refuse_other_form(prompts: PromptSet, form: AnswerForm) -> None:
    """Raise `UsageError` if a template names keys that are not those of a form, or begins what no answer of it is."""
    for name, template in prompts.variants.items():
        for text in (*_keys(prompts.system + template.user, form), *_prefill(template, form)):
            raise UsageError(f"the variant {name!r} of the prompts {prompts.name!r} {text}")


def _leftovers(text: str) -> Iterator[str]:
    """Yield what is written as it is although it looks like a place."""
    for place in dict.fromkeys(_PLACE.findall(text)):
        if place not in ("{query}", "{image}"):
            yield f"has {place}, which is written as it is; write the text that belongs there"
    if mark := _PICTURE.search(text):
        yield f"has {mark.group()}, which is written as it is; write {{image}} where the picture stands"


def _keys(text: str, form: AnswerForm | None) -> Iterator[str]:
    """Yield how the keys that a text names differ from those of the form."""
    named = dict.fromkeys(_KEY.findall(text))
    if not named:
        return
    fitting = _form_of(named)
    form = form or fitting
    if form is None:
        forms = "; ".join(f"{each.name}: {', '.join(each.keys)}" for each in FORMS.values())
        yield f"names the keys {', '.join(named)}, which are those of no shipped form of answers ({forms})"
        return
    strange = [key for key in named if key not in form.keys]
    missing = [key for key in form.keys if key not in named]
    if strange or missing:
        says = f"names the keys {', '.join(named)}, but answers of the form {form.name} have {', '.join(form.keys)}"
        yield f"{says}; export with the form {fitting.name}" if fitting else says


def _prefill(template: Template, form: AnswerForm | None) -> Iterator[str]:
    """Yield what is wrong with the answer that a prefill begins: the policy must write all of its values itself."""
    if form is None or not form.before or (place := template.prefill.rfind(form.before)) < 0:
        return
    begun = template.prefill[place:]
    if not any(way.text.startswith(begun) for way in course_of(form).opening):
        yield f"has a prefill with {begun!r}, which is more than the beginning of an answer up to its first value"


def _form_of(keys: Iterable[str]) -> AnswerForm | None:
    """Return the shipped form with some keys; None if there is none."""
    return next((form for form in FORMS.values() if set(form.keys) == set(keys)), None)


def _parts(prompts: PromptSet, template: Template) -> Iterator[str]:
    """Yield where a template and its entries contradict one another."""
    text = prompts.system + template.user
    if _THINK in template.user and not template.rationale:
        yield "asks for <think>, but its rationale is false"
    if template.rationale and _ANSWER in text and _THINK not in text + template.prefill:
        yield "asks for <answer> and for no <think>, but its rationale is true"
    if template.prefill != template.prefill.rstrip(" "):
        yield "has a prefill that ends with a space, which tokenizers join with the next word; remove the space"
