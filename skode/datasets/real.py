"""Small real data that come with the package: blood formation, human motion, hares and lynxes."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from skode._typing import AnyArray, BoolArray, FloatArray, IntArray

_DONORS = ("s1d2", "s2d1", "s1d1")
_LINEAGES = ("eryth", "mono", "B")
_SUBJECTS = ("35", "09")
_RATE = 120.0


@dataclass(frozen=True, eq=False)
class Hematopoiesis:
    """Cells of one donor in order of pseudotime inside each lineage, with a prior network of regulators.

    Attributes
    ----------
    donor : str
        Which donor: "s1d2" is donor 2 of site 1.
    times : ndarray of shape (n_cells,)
        Pseudotime, 0 at the start of every lineage; a unit does not mean the same progress in two donors.
    expression : ndarray of shape (n_cells, n_genes)
        Size-normalised counts, not logarithms; 79 to 89 % are zero.
    lineage : ndarray of str, shape (n_cells,)
        "eryth", "mono" or "B". The lineages share their earliest cells, which then appear once in each.
    genes : tuple of str
        Names of the genes, the same for all donors.
    is_regulator, is_target : bool ndarray of shape (n_genes,)
        Whether a gene regulates, or may be regulated, in the prior network.
    prior : bool ndarray of shape (n_genes, n_genes)
        ``prior[i, j]`` (target, source): a binding motif lets j regulate i. Permissive, not a gold standard:
        it holds 55 % of the pairs (target in the prior, regulator).
    """

    donor: str
    times: FloatArray
    expression: FloatArray
    lineage: AnyArray
    genes: tuple[str, ...]
    is_regulator: BoolArray
    is_target: BoolArray
    prior: BoolArray

    @property
    def lineages(self) -> tuple[str, ...]:
        """The three lineages, in the order of ``trajectories``."""
        return _LINEAGES

    def trajectories(self) -> tuple[list[FloatArray], list[FloatArray], FloatArray]:
        """Cut the cells into one trajectory per lineage.

        Returns
        -------
        states : list of 3 ndarrays of shape (n_cells_k, n_genes)
        times : list of 3 ndarrays of shape (n_cells_k,)
        inputs : ndarray of shape (3, 3)
            The lineage as a one-hot constant input: one autonomous field cannot leave one start along three
            branches.
        """
        rows = [self.lineage == lineage for lineage in _LINEAGES]
        return [self.expression[k] for k in rows], [self.times[k] for k in rows], np.eye(len(rows))


@dataclass(frozen=True, eq=False)
class MotionCapture:
    """Recorded human motion, cut into sequences of equal length.

    Attributes
    ----------
    subject : str
        "35" walks, "09" runs.
    train, validation, test : ndarray of shape (n_sequences, n_frames, 50)
        Joint angles in degrees, and forward differences of the root's translation in the first three
        channels. A constant offset per channel was removed.
    times : ndarray of shape (n_frames,)
        Seconds from the first frame.
    channels : tuple of str
        Names of the channels. The four clavicle channels carry no signal.
    rate : float
        Frames per second.
    """

    subject: str
    train: FloatArray
    validation: FloatArray
    test: FloatArray
    times: FloatArray
    channels: tuple[str, ...]
    rate: float


@dataclass(frozen=True, eq=False)
class HareLynx:
    """Yearly pelt counts of hare and lynx, in thousands.

    Attributes
    ----------
    year : int ndarray of shape (21,)
        1900 to 1920.
    hare, lynx : ndarray of shape (21,)
        Thousands of pelts.
    """

    year: IntArray
    hare: FloatArray
    lynx: FloatArray

    @property
    def names(self) -> tuple[str, str]:
        """Names of the columns of ``states``."""
        return ("hare", "lynx")

    @property
    def times(self) -> FloatArray:
        """Years since the first, as floats."""
        return np.asarray(self.year - self.year[0], dtype=np.float64)

    @property
    def states(self) -> FloatArray:
        """Both series side by side, shape (21, 2)."""
        both: FloatArray = np.stack((self.hare, self.lynx), axis=1)
        return both


def load_hematopoiesis(donor: str = "s1d2") -> Hematopoiesis:
    """Load single bone-marrow cells of one donor along three lineages: 529 genes, 1362 to 2767 cells.

    Nothing is trimmed, smoothed or rescaled. At the level of single cells a forecast error is mostly dropout
    noise: report the error of a constant beside any model's. The data are under the MIT licence of their
    source, see PROVENANCE.md beside them.

    Parameters
    ----------
    donor : {"s1d2", "s2d1", "s1d1"}, default="s1d2"
        Site and donor. The literature trains on s1d2 and tests on the other two.

    Returns
    -------
    Hematopoiesis

    References
    ----------
    Aliee, Richter, Solonin, Ibarra, Theis, Kilbertus, "Sparsity in continuous-depth neural networks", NeurIPS
    2022, arXiv:2210.14672.

    Examples
    --------
    >>> from skode.datasets import load_hematopoiesis
    >>> cells = load_hematopoiesis()
    >>> cells.expression.shape, int(cells.is_regulator.sum())
    ((1362, 529), 113)
    """
    _check_choice("donor", donor, _DONORS)
    with np.load(io.BytesIO(_read("hematopoiesis", f"{donor}.npz"))) as stored:
        times, expression, lineage, genes = (stored[key] for key in ("times", "expression", "lineage", "genes"))
    names = tuple(str(gene) for gene in genes)
    rows = _read_csv(_read("hematopoiesis", "genes.csv"))
    edges = _read_csv(gzip.decompress(_read("hematopoiesis", "tf_target_prior_edges.csv.gz")))
    place = {gene: index for index, gene in enumerate(names)}
    prior = np.zeros((len(names), len(names)), dtype=np.bool_)
    prior[[place[edge["target"]] for edge in edges], [place[edge["tf"]] for edge in edges]] = True
    return Hematopoiesis(
        donor=donor,
        times=times.astype(np.float64),
        expression=expression.astype(np.float64),
        lineage=lineage,
        genes=names,
        is_regulator=np.array([row["is_tf"] == "1" for row in rows], dtype=np.bool_),
        is_target=np.array([row["is_target_in_prior"] == "1" for row in rows], dtype=np.bool_),
        prior=prior,
    )


def load_mocap(subject: str = "35") -> MotionCapture:
    """Load motion capture of one person in 50 channels at 120 frames per second.

    Subject 35 walks: 16 / 3 / 4 sequences (train / validation / test) of 300 frames. Subject 09 runs: 6 / 2 /
    2 of 120 frames. The usual protocol projects on five principal components, forecasts the test sequences
    from their first state and reports the mean squared error in the 50 channels.

    The data were obtained from mocap.cs.cmu.edu; the database was created with funding from NSF EIA-0196217.

    Parameters
    ----------
    subject : {"35", "09"}, default="35"
        Which person.

    Returns
    -------
    MotionCapture

    References
    ----------
    Carnegie Mellon University Graphics Lab Motion Capture Database. The split: Hegde, Yildiz, Lahdesmaki,
    Kaski, Heinonen, "Variational multiple shooting for Bayesian ODEs with Gaussian processes", UAI 2022,
    arXiv:2106.10905.

    Examples
    --------
    >>> from skode.datasets import load_mocap
    >>> load_mocap("09").train.shape
    (6, 120, 50)
    """
    _check_choice("subject", subject, _SUBJECTS)
    with np.load(io.BytesIO(_read("mocap", f"subject{subject}.npz"))) as stored:
        parts = {key: stored[key].astype(np.float64) for key in ("train", "validation", "test")}
        channels = tuple(str(channel) for channel in stored["channels"])
    times = np.arange(parts["train"].shape[1]) / _RATE
    return MotionCapture(subject=subject, times=times, channels=channels, rate=_RATE, **parts)


def load_hare_lynx() -> HareLynx:
    """Load the pelts of snowshoe hare and Canadian lynx counted by the Hudson's Bay Company, 1900 to 1920.

    Returns
    -------
    HareLynx

    References
    ----------
    Hewitt, "The conservation of the wild life of Canada", 1921. As a benchmark: Carpenter, "Predator-prey
    population dynamics: the Lotka-Volterra model in Stan", Stan case studies, 2018.

    Examples
    --------
    >>> from skode.datasets import load_hare_lynx
    >>> pelts = load_hare_lynx()
    >>> pelts.states[0].tolist()
    [30.0, 4.0]
    """
    rows = _read_csv(_read("hare_lynx.csv"))
    year = np.array([int(row["year"]) for row in rows], dtype=np.int64)
    hare, lynx = (np.array([float(row[name]) for row in rows]) for name in ("hare", "lynx"))
    return HareLynx(year, hare, lynx)


def _read(*parts: str) -> bytes:
    return files("skode.datasets").joinpath("data", *parts).read_bytes()


def _read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


def _check_choice(what: str, given: object, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}; got {given!r}. Only these come with the package.")
