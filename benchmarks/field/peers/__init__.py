"""The servers, one file each: how one is started for some works, and what it is sent.

Ask it for `PEERS`, by name in the order of the report. A peer never decides what is measured.
"""

from field.peers.base import Peer
from field.peers.bentoml import BentoML
from field.peers.kserve import KServe
from field.peers.litserve import LitServe
from field.peers.mlserver import MLServer
from field.peers.mosec import Mosec
from field.peers.raw import Raw
from field.peers.ray_serve import RayServe
from field.peers.triton import Triton
from field.peers.trygon import Trygon, TrygonGreedy
from field.peers.uvicorn import Uvicorn

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Trygon(),
        TrygonGreedy(),
        Triton(),
        Raw(),
        Uvicorn(),
        RayServe(),
        MLServer(),
        KServe(),
        LitServe(),
        BentoML(),
        Mosec(),
    )
}

__all__ = ["PEERS", "Peer"]
