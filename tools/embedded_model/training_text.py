"""Collects the text to train and to judge on: questions with passages, never committed.

Chinese questions come from SQuAD-layout files (CMRC 2018, DRCD), English and Chinese package
descriptions from Debian's translation lists, English reference text from Python docstrings. It
decides what is held out; it knows nothing of models.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

from tools.demo.documents import collect_documents
from tools.demo.questions import read_questions

_DEBIAN_NOISE = re.compile(
    r"^(lib|ruby|r-|golang|node|fonts-|librust|haskell)|-(dev|dbg|doc|data|common|perl|l10n)$"
)
# The buckets that train, watch the training, and judge it. The trial of the standard library is the
# demo, whose answers `stdlib_pool` leaves out.
SPLITS = {
    "drcd": {"trial": (0.0, 0.25), "dev": (0.25, 0.29), "train": (0.29, 1.0)},
    "debian": {"trial": (0.0, 0.06), "dev": (0.15, 0.2), "train": (0.2, 1.0)},
    "stdlib": {"dev": (0.0, 0.03), "train": (0.03, 1.0)},
}
# Lines of `name|question|question|...`, in English and Chinese.
_QUESTIONS = Path(__file__).with_name("python_questions.txt")
# Lines of `hash of the passage|question|answer`, for passages of CMRC and DRCD.
_CHINESE = Path(__file__).with_name("chinese_questions.txt")
_LIBRARIES = (
    "numpy",
    "numpy.linalg",
    "numpy.random",
    "numpy.fft",
    "scipy.stats",
    "scipy.optimize",
    "scipy.signal",
    "scipy.sparse",
    "scipy.spatial",
    "scipy.interpolate",
    "scipy.ndimage",
    "scipy.linalg",
    "scipy.integrate",
    "sklearn.metrics",
    "sklearn.preprocessing",
    "sklearn.cluster",
    "sklearn.linear_model",
    "sklearn.ensemble",
    "sklearn.model_selection",
    "sklearn.decomposition",
    "sklearn.feature_extraction.text",
    "torch",
    "torch.nn",
    "torch.nn.functional",
    "torch.optim",
    "torch.utils.data",
    "torch.linalg",
)


@dataclass(frozen=True)
class Question:
    """A query, the index of its passage in the pool, and where the answer starts (-1: unknown)."""

    text: str
    passage: int
    answer: str = ""
    start: int = -1


@dataclass
class Pool:
    """Passages of one source with their questions; `groups` names near-duplicates and articles."""

    name: str
    passages: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the pool as one JSON file into `folder`."""
        text = json.dumps(asdict(self), ensure_ascii=False)
        (folder / f"{self.name}.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Pool:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            raw["name"], raw["passages"], raw["groups"], [Question(**q) for q in raw["questions"]]
        )


def bucket(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone: splits stay the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32


def squad_pool(path: Path, name: str) -> Pool:
    """A pool from a file in SQuAD layout; the group of a passage is its article's title."""
    pool = Pool(name)
    for article in json.loads(path.read_text(encoding="utf-8-sig"))["data"]:
        for paragraph in article["paragraphs"]:
            index = len(pool.passages)
            pool.passages.append(paragraph["context"].strip())
            pool.groups.append(article["title"])
            for qa in paragraph["qas"]:
                answer = qa["answers"][0] if qa["answers"] else {"text": "", "answer_start": -1}
                pool.questions.append(
                    Question(qa["question"].strip(), index, answer["text"], answer["answer_start"])
                )
    return pool


def split(pool: Pool, part: str, *, whole: bool = False) -> Pool:
    """The questions whose group falls into the buckets of `part`, with those groups' passages.

    `part` is 'train', 'dev' or 'trial'; `whole` keeps every passage, so that the questions are
    asked against the full collection.
    """
    low, high = SPLITS[pool.name][part]
    inside = [low <= bucket(group) < high for group in pool.groups]
    kept = [i for i, mine in enumerate(inside) if mine or whole]
    place = {old: new for new, old in enumerate(kept)}
    return Pool(
        pool.name,
        [pool.passages[i] for i in kept],
        [pool.groups[i] for i in kept],
        [
            Question(q.text, place[q.passage], q.answer, q.start)
            for q in pool.questions
            if inside[q.passage]
        ],
    )


def passage_id(text: str) -> str:
    """By what `chinese_questions.txt` names the passage `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def chinese_questions() -> list[tuple[str, str, str]]:
    """(passage id, question, answer) of the questions written about CMRC's and DRCD's passages."""
    return [(name, question, answer) for name, question, answer in _rows(_CHINESE)]


def add_chinese(pool: Pool) -> Pool:
    """`pool` with what was asked in `chinese_questions.txt` of passages that it has, in place."""
    place = {passage_id(text): i for i, text in enumerate(pool.passages)}
    for name, question, answer in chinese_questions():
        if name in place:
            start = pool.passages[place[name]].find(answer)
            pool.questions.append(Question(question, place[name], answer, start))
    return pool


def debian_lists(language: str, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(package, short, long) of every package that has a description in `language`.

    Needs Debian and a network: the lists are fetched by apt into `folder`, which must be an
    absolute path (apt looks for a relative one under /var/lib). FileNotFoundError if none came.
    """
    lists = folder / f"apt-{language}"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    if not list(lists.glob("*main_i18n_Translation-*")):
        options = [f"-oDir::State::Lists={lists}", f"-oAcquire::Languages={language}"]
        subprocess.run(["apt-get", *options, "update"], check=True, stdout=subprocess.DEVNULL)
    entry = re.compile(r"^Description-(?!md5)\w+: (.*?)\n((?: .*\n?)*)", re.M)
    found = sorted(lists.glob("*_main_i18n_Translation-*"))
    if not found:
        raise FileNotFoundError(f"apt left no descriptions in {lists}; the recipe needs Debian")
    for path in found:
        command = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for block in text.split("\n\n"):
            name, texts = re.search(r"^Package: (.*)", block, re.M), entry.search(block)
            if name and texts:
                yield name[1], texts[1].strip(), _unwrap(texts[2], language)


def _unwrap(text: str, language: str) -> str:
    text = re.sub(r"\n \.(?=\n)", "\n", text)
    if language.startswith("zh"):  # A line break between ideographs is no space.
        text = re.sub(r"(?<=[^\x00-\x7f])\n +(?=[^\x00-\x7f])", "", text)
    return re.sub(r"\s+", " ", text).strip()


def debian_pool(folder: Path, share: float) -> Pool:
    """English long descriptions asked for by their short ones, and by the Chinese short ones.

    About `share` of the untranslated packages are kept; the group is the name's first word, so
    that siblings built from one source stay on one side of the split.
    """
    chinese = {
        name: (short, long)
        for language in ("zh_CN", "zh_TW")
        for name, short, long in debian_lists(language, folder)
    }
    pool, seen = Pool("debian"), set()
    for name, short, long in debian_lists("en", folder):
        translated = chinese.get(name)
        dull = _DEBIAN_NOISE.search(name) or bucket(f"keep {name}") >= share
        if len(long) < 120 or short in seen or long in seen or (dull and not translated):
            continue
        seen.update((short, long))
        group = re.split(r"[-0-9.+]", name.removeprefix("lib"))[0]
        pool.questions.append(Question(short, len(pool.passages)))
        if translated and re.search(r"[\u4e00-\u9fff]", translated[0]):
            pool.questions.append(Question(translated[0], len(pool.passages)))
        pool.passages.append(long[:900])
        pool.groups.append(group)
        if translated and len(translated[1]) > 40 and bucket(f"zh {name}") < 0.5:
            for query in (short, translated[0]):
                pool.questions.append(Question(query, len(pool.passages)))
            pool.passages.append(translated[1][:500])
            pool.groups.append(group)
    return pool


def docstrings(modules: tuple[str, ...]) -> dict[str, str]:
    """Docstring of every public function, class and method by its qualified name."""
    out: dict[str, str] = {}
    for name in modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = import_module(name)
        for label, thing in vars(module).items():
            if label.startswith("_") or not callable(thing):
                continue
            home = getattr(thing, "__module__", name) or name
            if home.split(".")[0].lstrip("_") not in name:
                continue
            out[f"{name}.{label}"] = inspect.getdoc(thing) or ""
            if isinstance(thing, type):
                for part, member in vars(thing).items():
                    if not part.startswith("_") and callable(member):
                        out[f"{name}.{label}.{part}"] = inspect.getdoc(member) or ""
    return out


def python_pool(share: float) -> Pool:
    """Docstrings of scientific libraries asked for by their own first sentence, then cut off.

    About `share` is kept.
    """
    pool, seen = Pool("python"), set()
    for name, text in docstrings(_LIBRARIES).items():
        summary, rest = _first(text)
        dull = summary.startswith(("See ", "Alias")) or "Tensor." in name
        if dull or bucket(name) >= share or summary in seen or not 20 < len(summary) < 200:
            continue
        seen.add(summary)
        parts = name.split(".")
        body = f"{name}\n{rest}" if len(rest) > 80 else f"{name}: {summary}"
        pool.questions.append(Question(summary, len(pool.passages)))
        pool.passages.append(body[:900])
        pool.groups.append(".".join(parts[-2:]))
    return pool


def written_questions() -> dict[str, list[str]]:
    """Questions about the standard library by the name of the function that answers them."""
    return {name: questions for name, *questions in _rows(_QUESTIONS)}


def _rows(path: Path) -> list[list[str]]:
    return [line.split("|") for line in path.read_text(encoding="utf-8").splitlines()]


def stdlib_pool() -> Pool:
    """The standard library without what answers the demo: its trial stays on unseen documents.

    Asked for by questions written for it, and where a docstring is long by its own first sentence.
    """
    answers = {name for question in read_questions() for name in question["answers"]}
    pool = Pool("stdlib")
    place: dict[str, int] = {}
    for name, text in collect_documents().items():
        if name in answers:
            continue
        place[name] = len(pool.passages)
        pool.passages.append(text[:900])
        pool.groups.append(name)
    for name, questions in written_questions().items():
        # A name that this Python or its imports do not have is no loss.
        if name in place:
            pool.questions += [Question(text, place[name]) for text in questions]
    for name, at in list(place.items()):
        signature, _, docstring = pool.passages[at].partition("\n")
        summary, rest = _first(docstring)
        if len(rest) > 120 and 25 < len(summary) < 200 and bucket(name) < 0.25:
            pool.questions.append(Question(summary, len(pool.passages)))
            pool.passages.append(f"{signature}\n{rest}")
            pool.groups.append(name)
    return pool


def _first(text: str) -> tuple[str, str]:
    """First sentence and the rest, without a signature line in front."""
    lines = [line.strip() for line in text.strip().split("\n")]
    while lines and (re.match(r"[\w.]+\(.*", lines[0]) or not lines[0]):
        lines.pop(0)
    text = " ".join(lines)
    found = re.match(r"(.+?[.!?])(\s+|$)", text)
    summary = found[1] if found else text[:200]
    return re.sub(r"\s+", " ", summary), re.sub(r"\s+", " ", text[len(summary) :]).strip()
