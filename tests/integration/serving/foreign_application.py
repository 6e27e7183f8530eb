"""Another Ray application that has no Trygon: it calls the server's models by handle and prints what it got as JSON.

Usage: python foreign_application.py RAY_ADDRESS SCALE_MODEL TEXT_MODEL
"""

import json
import sys
from typing import Any

import numpy as np
import ray
from ray import serve

APPLICATION = "foreign"


class WithoutTrygon:
    """Refuses to import Trygon, as on a machine that does not have it."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] == "trygon":
            raise ModuleNotFoundError(name)


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Front:
    """The application's ingress: Ray Serve itself imports the gRPC services of all applications there."""

    def __init__(self, caller: Any) -> None:
        self._caller = caller


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Caller:
    """A deployment that asks the server's models."""

    def __init__(self) -> None:
        sys.meta_path.insert(0, WithoutTrygon())
        self._trygon = serve.get_app_handle("trygon")

    async def ask(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return what `infer` answers, or what can be read of its error."""
        try:
            answer = await self._trygon.infer.remote(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - what arrives is what is looked at
            return {
                "kinds": [kind.__name__ for kind in type(error).__mro__],
                "message": str(error),
                "code": getattr(error, "code", None),
                "http_status": getattr(error, "http_status", None),
                "retryable": getattr(error, "retryable", None),
                "context": getattr(error, "context", None),
            }
        return {name: _shown(array) for name, array in answer.items()}

    async def ask_much(self, model: str, count: int) -> list[float]:
        """Return the first element of many answers asked for at once, in order."""
        calls = [
            self._trygon.infer.remote(model, {"INPUT0": np.full((1, 4), number, np.float32)}) for number in range(count)
        ]
        return [float((await call)["OUTPUT0"][0, 0]) for call in calls]


def _shown(array: Any) -> dict[str, Any]:
    text = array.dtype == object
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "writable": bool(array.flags.writeable),
        "first": [item.decode() if text else item for item in array.ravel()[:16].tolist()],
        "sum": None if text else float(array.sum(dtype=np.float64)),
    }


def main(address: str, scale: str, text: str) -> None:
    sys.meta_path.insert(0, WithoutTrygon())
    ray.init(address=address, namespace=APPLICATION, log_to_driver=False)
    serve.run(Front.bind(Caller.bind()), name=APPLICATION, route_prefix=None)
    caller = serve.get_deployment_handle("Caller", APPLICATION)
    one = {"INPUT0": np.ones((1, 4), np.float32)}
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "newest": ((scale, one), {}),
        "version": ((scale, one), {"version": 1}),
        "version as text": ((scale, one, "2", ["OUTPUT0"]), {}),
        "lists": ((scale, {"INPUT0": np.ones((2, 4), np.float32).tolist()}), {}),
        "strings": ((text, {"INPUT0": np.array([["größe", "", "x"]], object)}), {}),
        "list of strings": ((text, {"INPUT0": [["a", "b"]]}), {}),
        "large": ((f"{scale}_wide", {"INPUT0": np.ones((5, 1024 * 1024), np.float32)}), {}),
        "timeout that suffices": ((scale, one), {"timeout_s": 30, "request_id": "mine"}),
        "unknown model": (("nosuch", one), {}),
        "unknown version": ((scale, one), {"version": 99}),
        "bad version": ((scale, one), {"version": "one"}),
        "wrong shape": ((scale, {"INPUT0": np.ones((1, 5), np.float32)}), {}),
        "ragged": ((scale, {"INPUT0": [[1, 2], [3]]}), {}),
        "unknown input": ((scale, {"other": np.ones((1, 4), np.float32)}), {}),
        "unknown output": ((scale, one), {"outputs": ["other"]}),
        "no inputs": ((scale, {}), {}),
        "no mapping": ((scale, 5), {}),
        "time is over": ((scale, one), {"timeout_s": 1e-6}),
        "negative time": ((scale, one), {"timeout_s": -1}),
    }
    try:
        found: dict[str, Any] = {
            name: caller.ask.remote(*args, **kwargs).result(timeout_s=60) for name, (args, kwargs) in calls.items()
        }
        found["many"] = caller.ask_much.remote(scale, 200).result(timeout_s=60)
        driver = serve.get_app_handle("trygon").infer.remote(scale, one).result(timeout_s=60)
        found["driver"] = _shown(driver["OUTPUT0"])
    finally:
        serve.delete(APPLICATION)
    sys.stdout.write(f"{json.dumps(found)}\n")
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
