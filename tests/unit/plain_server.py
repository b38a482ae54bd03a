"""A server of the protocol that is no coordinator: its behaviours are functions, each on a thread that waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from fedcervix.errors import FedcervixError
from fedcervix.transport import rpc


def handlers(behaviours: dict[rpc.Method, Callable[..., Any]]) -> list[grpc.GenericRpcHandler]:
    """Return the methods of a server; each behaviour is called with (request, context)."""
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method, behaviour in behaviours.items():
        _, service, name = method.path.split("/")
        make = getattr(grpc, f"{method.shape}_rpc_method_handler")
        services.setdefault(service, {})[name] = make(
            behaviour,
            request_deserializer=lambda data, method=method: rpc.parse(method, data),
            response_serializer=lambda reply, method=method: rpc.serialize(method, reply),
        )
    return [grpc.method_handlers_generic_handler(service, table) for service, table in services.items()]


def abort(context: grpc.ServicerContext, error: FedcervixError) -> None:
    """End a call with an error of ours."""
    context.abort(*rpc.status(error))
