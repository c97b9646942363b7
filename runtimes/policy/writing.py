"""Writes completions greedily, freely or with the answer's form forced.

The model is not asked for what the form dictates (`forcing`). After the rationale, and between the numbers, the next
tokens are known: they run together with the token before them, in one call. Within a number only digits and what ends
the number may win, a number that no digit can follow within the image ends without asking, and nothing runs after the
last one. In a list the model chooses between another object and the end. So an answer can always be read, and it equals
that of free decoding whenever free decoding keeps the form (https://arxiv.org/abs/2307.09702 constrains with masks
only, one token a call).

A generator writes each completion: it yields the tokens to run and is sent the logits after them. One loop can
therefore write one completion or several at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from wise_edge.policy.spec import PolicySpec
from wise_edge.runtimes.base import Request
from wise_edge.runtimes.policy.forcing import Forced, FormTokens
from wise_edge.runtimes.policy.prompt import Prompt
from wise_edge.runtimes.policy.text import PolicyText
from wise_edge.runtimes.policy.written import Logits, Steps, Written

Run = Callable[[Sequence[int]], Logits]
"""Runs the language model over tokens that follow those it holds."""
RunTogether = Callable[[Mapping[int, Sequence[int]]], Mapping[int, Logits]]
"""The same for several completions at once, each identified by its number."""


class Writer:
    """Writes completions of one policy.

    Args:
        text: the policy's tokens.
        spec: the policy.
    """

    def __init__(self, text: PolicyText, spec: PolicySpec) -> None:
        self._text = text
        self._form = FormTokens(text, spec)

    def write(self, run: Run, prompt: Prompt, request: Request) -> Written:
        """Write after a prompt.

        Args:
            run: the language model, which holds the prompt's prefix.
            prompt: the prompt; its template says whether there is a rationale.
            request: the query.

        Raises:
            QueryCancelledError: the query was cancelled; checked before each call of the model.
        """
        return self.write_together(lambda asked: {0: run(asked[0])}, [prompt], [request])[0]

    def write_together(self, run: RunTogether, prompts: Sequence[Prompt], requests: Sequence[Request]) -> list[Written]:
        """Write after several prompts with one prefix at once, each as in `write`."""
        writing = [self._steps(prompt, request) for prompt, request in zip(prompts, requests, strict=True)]
        asked = {place: next(steps) for place, steps in enumerate(writing)}
        done: dict[int, Written] = {}
        report = _Reporter(self._text, requests, prompts)
        while asked:
            for request in requests:
                request.check_cancelled()
            report(asked)
            found, asked = run(asked), {}
            for place, logits in found.items():
                try:
                    asked[place] = writing[place].send(logits)
                except StopIteration as end:
                    done[place] = end.value
        return [done[place] for place in range(len(writing))]

    def _steps(self, prompt: Prompt, request: Request) -> Steps:
        if request.decoding.forced:
            return Forced(self._form, prompt, request.decoding).write()
        return self._write_freely(prompt)

    def _write_freely(self, prompt: Prompt) -> Steps:
        limit = self._text.token_limit(prompt)
        logits = yield prompt.suffix
        prefilled = perf_counter()
        tokens: list[int] = []
        steps = 0
        while (finish := self._text.accept(tokens, int(logits.argmax()), prompt, limit)) is None:
            logits = yield tokens[-1:]
            steps += 1
        return Written(tokens, finish, 0, steps, prefilled)


class _Reporter:
    """Reports the text of a single completion as it grows, if the request asks for it."""

    def __init__(self, text: PolicyText, requests: Sequence[Request], prompts: Sequence[Prompt]) -> None:
        self._text = text
        self._on_text = requests[0].on_text if len(requests) == 1 else None
        self._prompts = prompts
        self._tokens: list[int] = []

    def __call__(self, asked: Mapping[int, Sequence[int]]) -> None:
        if self._on_text is None:
            return
        self._tokens += asked[0]
        prompt = self._prompts[0]
        self._on_text(self._text.completion(prompt, self._tokens[len(prompt.suffix) :]))
