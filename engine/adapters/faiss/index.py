"""The item index on FAISS, CPU: inner product, eligibility applied inside the search."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import faiss
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.adapters.faiss.inverted_lists import InvertedLists
from engine.adapters.faiss.visits import CellScan, NprobeSchedule, Partition, search_cells
from engine.errors import BundleError
from engine.kernels.membership import count_rows
from engine.kernels.scan import scan_eligible
from engine.kernels.topk import top_k
from engine.stages.retrieve import check_search
from engine.types import Float32Array, Int64Array, UInt8Array

# Below this share of eligible items an exact scan of them is faster than visiting the many cells that they are spread
# over. Measured at 1M x 64 on one busy core, scan against cells: at 1% 1.1 against 3.0 to 8.2 ms (by how clustered the
# items are), at 2% 1.9 against 2.0 to 9.1, at 5% 4.2 against 1.3 to 5.3.
_SCAN_SHARE: Final = 0.025

# By the four bytes that a file starts with: the least that a component and an item take (codes, and ids in cells).
_BYTES_PER_ITEM: Final = {b"IxFI": (4, 0), b"IwSq": (1, 8)}


class IndexParameters(BaseModel):
    """How an index was built, how it is to be searched, and what was measured: recorded beside the file.

    factory: FAISS's name of the structure. partition: the geometry of its cells. nprobe: cells that a search visits
    when everything is eligible. filtered_nprobe: the same for smaller shares of eligible items, as (share, cells),
    largest share first. recall_at_k: the measured share of the exact top `recall_k` that a search among everything
    finds, mean over `recall_query_count` queries. scanned_share: the share of all items that it compares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factory: str
    metric: Literal["inner_product"] = "inner_product"
    partition: Literal["none", "spherical", "euclidean"]
    item_count: int = Field(ge=1)
    dim: int = Field(ge=1)
    nprobe: int = Field(ge=1)
    filtered_nprobe: tuple[tuple[float, int], ...] = ()
    recall_at_k: float = Field(ge=0, le=1)
    recall_k: int = Field(ge=1)
    recall_query_count: int = Field(ge=1)
    scanned_share: float = Field(ge=0, le=1)
    build_seconds: float = Field(ge=0)


class FaissIndex:
    """An ItemIndex over one index file, mapped into memory read-only, so that processes share its pages.

    Safe for concurrent searches; each runs on its calling thread alone and releases the GIL.
    """

    def __init__(self, index: Any, parameters: IndexParameters, item_vectors: Float32Array | None = None) -> None:
        """Serve an open FAISS index, flat or IVF, whose ids are item rows.

        Args:
            index: the FAISS index, metric inner product, that `parameters` describe.
            item_vectors: float32 (item_count, at least dim), C-contiguous, may be memory-mapped; its first `dim`
                columns are what the index was built from. With them, a search among few eligible items is exact and
                a few times faster.
        """
        self._index = index
        self._item_vectors = item_vectors
        self._partition: Partition | None = None
        if hasattr(index, "nlist"):
            self._partition = Partition.of(index)
            self._probes = NprobeSchedule(parameters.nprobe, parameters.filtered_nprobe, int(index.nlist))
            self._cells: CellScan = InvertedLists.of(index) or FaissInvertedLists(index)
        self._dim = int(index.d)
        self._item_count = int(index.ntotal)

    @classmethod
    def open(
        cls, path: Path, parameters: IndexParameters | Mapping[str, Any], item_vectors: Float32Array | None = None
    ) -> "FaissIndex":
        """Map an index file, to be searched as its recorded parameters say; for item_vectors see the constructor.

        Raises:
            BundleError: a file that is missing, truncated or no index, parameters that do not parse, or a file or
                vectors that are not what they describe.
        """
        try:
            checked = IndexParameters.model_validate(parameters)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "parameters"
            raise BundleError(f"{path}: recorded index parameters: {place}: {first['msg']}") from None
        if item_vectors is not None and not (
            len(item_vectors) == checked.item_count
            and item_vectors.shape[1] >= checked.dim
            and item_vectors.dtype == np.float32
            and item_vectors.flags.c_contiguous
        ):
            raise BundleError(
                f"{path}: an index of {checked.item_count} x {checked.dim} does not go with item vectors of "
                f"{item_vectors.dtype} {item_vectors.shape}, or they are not contiguous"
            )
        return cls(read_index(path, checked.dim, checked.item_count), checked, item_vectors)

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def item_count(self) -> int:
        return self._item_count

    def search(self, query: Float32Array, k: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
        """The k eligible items with the largest inner product, best first: see ItemIndex.

        The fewer items are eligible, the more cells they are spread over, and the more are visited: at least as many
        as keep the recall among random items, by calibration at build time, and on from there until the other cells
        probably hold little that is better, whatever the filter. Very few are scanned exactly instead, where the item
        vectors are at hand. An answer is never short of min(k, eligible items).

        Args:
            query: float32 (dim,), finite, of any length. It is only read.
            k: how many, 0 for none.
            eligible: uint8 (ceil(item_count / 8),), C-contiguous; read in place, and not to change meanwhile.

        Returns:
            rows int64 (m,), unique, and scores float32 (m,), m = min(k, eligible items).

        Raises:
            ValueError: a query or bitmap of another shape or dtype, a negative k.
            EngineError: a query with a NaN or infinite component.

        Cost: O(cells * dim + nprobe / cells * item_count), and a test of one bit for every item of a visited cell.
        """
        check_search(self._dim, self._item_count, query, k, eligible)
        # A column of a matrix will do as well; kernels want one piece.
        query = np.ascontiguousarray(query)
        eligible_count = count_rows(eligible, self._item_count)
        wanted = min(k, eligible_count)
        if wanted == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if self._item_vectors is not None and eligible_count <= _SCAN_SHARE * self._item_count:
            rows, scores = scan_eligible(self._item_vectors, query, eligible)
            best = top_k(scores, wanted)
            return rows[best], scores[best]
        if self._partition is None:
            return self._scan_all(query, wanted, eligible)
        nprobe = self._probes.at(eligible_count / self._item_count)
        return search_cells(self._partition, self._cells, query, wanted, nprobe, eligible, eligible_count)

    def _scan_all(self, query: Float32Array, wanted: int, eligible: UInt8Array) -> tuple[Int64Array, Float32Array]:
        """The same by FAISS's own exact scan."""
        use_one_thread()
        parameters: Any = faiss.SearchParameters()
        parameters.sel = _selector(eligible)
        scores, rows = self._index.search(query.reshape(1, self._dim), wanted, params=parameters)
        return _without_padding(rows[0], scores[0])


class FaissInvertedLists:
    """InvertedLists with codes of any kind, scanned by FAISS. Implements engine.adapters.faiss.visits.CellScan."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def scan(
        self, query: Float32Array, cells: Int64Array, products: Float32Array, wanted: int, eligible: UInt8Array
    ) -> tuple[Int64Array, Float32Array]:
        use_one_thread()
        parameters: Any = faiss.SearchParametersIVF()
        parameters.sel = _selector(eligible)
        parameters.nprobe = len(cells)
        rows, scores = np.empty(wanted, np.int64), np.empty(wanted, np.float32)
        near = products[cells]
        # FAISS's own wrapper of this call takes no parameters.
        self._index.search_preassigned_c(
            1,
            faiss.swig_ptr(query),
            wanted,
            faiss.swig_ptr(cells),
            faiss.swig_ptr(near),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            False,
            parameters,
        )
        return _without_padding(rows, scores)


def _selector(eligible: UInt8Array) -> Any:
    """A pointer into the caller's bitmap, not a copy: it must outlive the selector."""
    return faiss.IDSelectorBitmap(len(eligible), faiss.swig_ptr(eligible))


def _without_padding(rows: Int64Array, scores: Float32Array) -> tuple[Int64Array, Float32Array]:
    """FAISS fills what it did not find with -1, always at the end."""
    found = len(rows) if rows[-1] >= 0 else int(np.count_nonzero(rows >= 0))
    return rows[:found], scores[:found]


_threads: Final = threading.local()


def use_one_thread() -> None:
    """Requests run beside each other, so that each gets one thread; FAISS's setting is per calling thread."""
    if not getattr(_threads, "is_set", False):
        faiss.omp_set_num_threads(1)
        _threads.is_set = True


def read_index(path: Path, dim: int, item_count: int) -> Any:
    """Map an index file and compare it with what it should be. Cost: milliseconds; pages are read when touched.

    Raises BundleError, naming the file, where it is missing, truncated, no FAISS index, or of another dim, item count
    or metric.
    """
    _check_size(path, dim, item_count)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        # FAISS puts its own source location first; the reason is what comes last.
        reason = str(error).rsplit("Error: ", 1)[-1].rsplit("failed: ", 1)[-1]
        raise BundleError(f"{path}: not a readable item index, truncated or of another format ({reason})") from None
    if index.d != dim:
        raise BundleError(f"{path}: an index of vectors of {index.d}, where {dim} are expected")
    if index.ntotal != item_count:
        raise BundleError(f"{path}: an index of {index.ntotal} items, where {item_count} are expected")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise BundleError(f"{path}: an index of another metric than inner product")
    return index


def _check_size(path: Path, dim: int, item_count: int) -> None:
    """Refuse what cannot be the file before FAISS sees it: its reader crashes on some files cut short in the header."""
    if not path.is_file():
        raise BundleError(f"{path}: there is no such index file")
    with path.open("rb") as stream:
        kind = stream.read(4)
    if kind not in _BYTES_PER_ITEM:
        raise BundleError(f"{path}: not an item index: it starts with {kind!r}")
    per_component, per_item = _BYTES_PER_ITEM[kind]
    size = path.stat().st_size
    if size < item_count * (dim * per_component + per_item):
        raise BundleError(
            f"{path}: {size} bytes are too few for {item_count} vectors of {dim}: truncated, or another's"
        )


def verify_index(path: Path, dim: int, item_count: int) -> None:
    """Check an index file to the last row: that it opens as described, and that every item is in it exactly once.

    Cost: reads the ids of all items once. Raises BundleError, naming the file and what is wrong with it.
    """
    index = read_index(path, dim, item_count)
    if not hasattr(index, "invlists"):
        return
    occurrences = np.zeros(item_count, np.int64)
    for cell in range(index.nlist):
        size = index.invlists.list_size(cell)
        if size == 0:
            continue
        rows = faiss.rev_swig_ptr(index.invlists.get_ids(cell), size)
        if rows.min() < 0 or rows.max() >= item_count:
            raise BundleError(f"{path}: cell {cell} of the index names rows that do not exist")
        occurrences[rows] += 1
    if not (occurrences == 1).all():
        raise BundleError(f"{path}: {int((occurrences != 1).sum())} items are not in the index exactly once")
