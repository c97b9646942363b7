"""`wise-edge dora`: a node in a dora dataflow."""

from __future__ import annotations

from typing import Annotated

import typer

from wise_edge.cli.options import (
    BundleOption,
    ForceOption,
    MaskBackendOption,
    PolicyBackendOption,
    RerunOption,
    VariantOption,
)


def dora(
    query: Annotated[str | None, typer.Option("--query", metavar="TEXT", help="Initial standing query.")] = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", metavar="T", help="Deadline that chooses each grounding's variant.")
    ] = None,
    rerun: RerunOption = None,
    force: ForceOption = False,
    variant: VariantOption = None,
    bundle: BundleOption = None,
    policy_backend: PolicyBackendOption = "auto",
    mask_backend: MaskBackendOption = "auto",
) -> None:
    """Run as a node of the dora dataflow that starts this command; see examples/dora.

    Inputs: image, query, ask, enable, tick. Outputs: mask, result, diagnostics.
    """
    from wise_edge.robot.dora import open_dataflow, serve_dataflow
    from wise_edge.robot.rerun_log import open_rerun
    from wise_edge.runtimes.session import Session

    session = Session.from_bundle(bundle, policy_backend=policy_backend, mask_backend=mask_backend)
    with open_rerun(rerun, session, force=force) as observe:
        serve_dataflow(open_dataflow(), session, query, variant=variant, deadline_ms=deadline_ms, observe=observe)
