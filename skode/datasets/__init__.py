"""Data with known graphs to test on, and small real data that come with the package."""

from skode.datasets._system import SimulatedSystem
from skode.datasets.chaos import make_lorenz63, make_lorenz96
from skode.datasets.ecology import make_lotka_volterra
from skode.datasets.genes import make_hill_network
from skode.datasets.linear import make_dense_linear, make_independent_decays
from skode.datasets.metabolism import make_glycolysis
from skode.datasets.oscillators import make_coupled_oscillators, make_pendulum_chain
from skode.datasets.real import (
    HareLynx,
    Hematopoiesis,
    MotionCapture,
    load_hare_lynx,
    load_hematopoiesis,
    load_mocap,
)

__all__ = [
    "HareLynx",
    "Hematopoiesis",
    "MotionCapture",
    "SimulatedSystem",
    "load_hare_lynx",
    "load_hematopoiesis",
    "load_mocap",
    "make_coupled_oscillators",
    "make_dense_linear",
    "make_glycolysis",
    "make_hill_network",
    "make_independent_decays",
    "make_lorenz63",
    "make_lorenz96",
    "make_lotka_volterra",
    "make_pendulum_chain",
]
