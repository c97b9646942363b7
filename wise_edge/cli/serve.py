"""`wise-edge serve`: one device over HTTP."""

from __future__ import annotations

import ipaddress
import os
from typing import Annotated

import typer

from wise_edge.cli import options
from wise_edge.cli.options import option
from wise_edge.policy.answers.reading import MAX_OBJECTS

TOKEN_VARIABLE = "WISE_EDGE_TOKEN"
SERVICE = "Service"


def serve(
    bundle: options.Bundle = None,
    host: Annotated[
        str,
        option(
            "ADDRESS",
            "Address to listen on; any but a loopback address needs a token.",
            panel=SERVICE,
            envvar="WISE_EDGE_HOST",
        ),
    ] = ("127.0.0.1"),
    port: Annotated[
        int,
        option(
            "N", "Port to listen on; 0 takes any free one.", panel=SERVICE, envvar="WISE_EDGE_PORT", min=0, max=65535
        ),
    ] = 8020,
    waiting: Annotated[
        int,
        option(
            "N", "Queries that may wait; further ones get status 429.", panel=SERVICE, envvar="WISE_EDGE_WAITING", min=1
        ),
    ] = 16,
    time_limit: Annotated[
        float,
        option(
            "SECONDS",
            "Seconds allowed per query, waiting included.",
            panel=SERVICE,
            envvar="WISE_EDGE_TIME_LIMIT",
            min=0.1,
            max=86_400,
        ),
    ] = 60.0,
    frames: Annotated[
        int, option("N", "Images kept for further queries.", panel=SERVICE, envvar="WISE_EDGE_FRAMES", min=1)
    ] = 8,
    max_megabytes: Annotated[
        float,
        option(
            "MB",
            "Largest request body, in MB.",
            panel=SERVICE,
            envvar="WISE_EDGE_MAX_MEGABYTES",
            min=0.001,
            max=1000,
        ),
    ] = 10.0,
    forwarded_allow_ips: Annotated[
        str | None,
        option(
            "ADDRESS,...",
            "Proxies whose X-Forwarded-For names the client: addresses or networks, or * for all.",
            panel=SERVICE,
            envvar="WISE_EDGE_FORWARDED_ALLOW_IPS",
        ),
    ] = None,
    access_log: Annotated[
        bool, typer.Option(help="Write a line for each request to stderr, without queries and images.")
    ] = True,
    max_objects: options.MaxObjects = MAX_OBJECTS,
    pixels: options.Pixels = None,
    policy_backend: options.PolicyBackend = "auto",
    mask_backend: options.MaskBackend = "auto",
    threads: options.Threads = None,
) -> None:
    """Serve a web page and an HTTP API: images and queries in, masks out.

    The token that clients send (`Authorization: Bearer ...`) is read from the environment variable WISE_EDGE_TOKEN, so
    that process lists do not show it. On SIGTERM or Ctrl-C the service first answers the queries that it has accepted.
    """
    from wise_edge.bundle.store import load, resolve_bundle
    from wise_edge.errors import UsageError
    from wise_edge.runtimes.base import Decoding
    from wise_edge.runtimes.session import Session
    from wise_edge.service.access_log import Log, write_to_stderr
    from wise_edge.service.app import make_app
    from wise_edge.service.guard import OWN_HOSTS, check_token
    from wise_edge.service.limits import Limits
    from wise_edge.service.server import listen, parse_proxies, run_server

    token = os.environ.get(TOKEN_VARIABLE) or None
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"--host {host} is reachable by others: set {TOKEN_VARIABLE} to a token for clients to send, for example "
            f"export {TOKEN_VARIABLE}=$(openssl rand -hex 24)"
        )
    if token is not None:
        check_token(token)
    proxies = parse_proxies(forwarded_allow_ips) if forwarded_allow_ips is not None else ()
    limits = Limits(body_bytes=int(max_megabytes * 1e6), waiting=waiting, query_s=time_limit, images=frames)
    with listen(host, port) as listener:  # before the models are loaded
        loaded = load(resolve_bundle(bundle))
        session = Session.from_bundle(
            loaded,
            policy_backend=policy_backend,
            mask_backend=mask_backend,
            threads=threads,
            frames=frames,
            decoding=Decoding(max_objects=max_objects),
            pixels=pixels,
        )
        own_hosts = (*OWN_HOSTS, _in_url(host)) if token is None else ()
        say = lambda url: typer.echo(f"serving {url}", err=True)  # noqa: E731
        log = Log(write_to_stderr)
        app = make_app(
            session,
            limits,
            token,
            own_hosts=tuple(dict.fromkeys(own_hosts)),
            demo=loaded.is_embedded,
            access_log=log if access_log else None,
        )
        run_server(app, host, port, limits, say, proxies=proxies, listener=listener, log=log)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
