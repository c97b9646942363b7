"""`wise-edge dora`: a node in a dora dataflow."""

from __future__ import annotations

from typing import Annotated

from wise_edge.cli import options
from wise_edge.cli.options import option


def dora(
    query: Annotated[str | None, option("QUERY", "Initial standing query.")] = None,
    deadline_ms: Annotated[
        float | None, option("MS", "Aim to answer within MS milliseconds; see 'wise-edge run -h'.")
    ] = None,
    memory: options.Memory = False,
    rerun: options.Rerun = None,
    force: options.Force = False,
    variant: options.Variant = None,
    pixels: options.Pixels = None,
    bundle: options.Bundle = None,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
) -> None:
    """Run as a node of the dora dataflow that starts this command; see examples/dora.

    Inputs: image, query, ask, enable, tick. Outputs: mask, result, diagnostics.
    """
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.policy.prompts import normalize_query
    from wise_edge.robot.dora import check_dataflow, open_dataflow, serve_dataflow
    from wise_edge.robot.rerun_log import check_rerun, open_rerun
    from wise_edge.runtimes.deadline import check_choice
    from wise_edge.runtimes.mask.calls import check_memory
    from wise_edge.runtimes.session import Session

    check_dataflow()
    check_rerun(rerun, force=force)
    if query is not None:
        normalize_query(query)
    loaded = load(resolve_bundle(bundle))
    check_choice(loaded.manifest.policy.prompts.variants, variant, deadline_ms, loaded.manifest.evaluated)
    if memory:
        check_memory(loaded.manifest.sam)
    session = Session.from_bundle(loaded, policy_backend=policy_backend, mask_backend=mask_backend, pixels=pixels)
    with open_rerun(rerun, session, force=force) as observe:
        serve_dataflow(
            open_dataflow(),
            session,
            query,
            variant=variant,
            deadline_ms=deadline_ms,
            memory=memory,
            observe=observe,
        )
