"""C2PA manifests: who made a file out of what, signed with the operator's certificate. The last thing that is written into a file.

A later change of the file breaks the signature, so the label of :mod:`deployments.engines.marking.carriers` is there before.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from deployments.engines.marking.carriers import find_labels, type_of
from deployments.engines.marking.config import MarkingConfig
from deployments.engines.marking.streams import Malformed
from deployments.jobs.errors import MarkingFailed

# Formats that c2pa embeds a manifest into and that are checked before it reads them.
SIGNED_TYPES = frozenset(
    {
        "image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4", "video/quicktime", "audio/mp4", "audio/wav",
        "audio/mpeg",
    }
)  # fmt: skip
# A manifest may lie elsewhere and name its address: what a client sends must not make us connect to anything.
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
NO_THUMBNAIL = OFFLINE | {"builder": {"thumbnail": {"enabled": False}}}  # a picture in the picture, of a tenth of its size
MAX_READ_ERROR = 200  # characters of c2pa's own words


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A file that the result was made of and that has a manifest of its own."""

    path: Path
    title: str
    parent: bool = False  # the result is this file, changed; else it is one of several things that went in


class ManifestSigner:
    """Signs files with one certificate."""

    def __init__(self, config: MarkingConfig) -> None:
        """Read certificate chain and key.

        Raises:
            OSError: they cannot be read.
        """
        assert config.certificate is not None, "checked by the settings"
        assert config.private_key is not None, "checked by the settings"
        self._chain = config.certificate.read_bytes()
        self._key = config.private_key.read_bytes()
        self._config = config

    def sign(self, path: Path, ingredients: Iterable[Ingredient], *, created: bool) -> str | None:
        """Put a signed manifest into a file, in place of one that it has; the file is replaced in one step.

        Args:
            path: the file.
            ingredients: what it was made of; at most one is its parent.
            created: nothing of it was recorded by a camera, as far as is known; else it is a recording that was changed.

        Returns:
            What was signed, or None when the format has no place for a manifest.

        Raises:
            MarkingFailed: it cannot be signed, and is as it was.
        """
        from c2pa import C2paError

        with path.open("rb") as file:
            media_type = type_of(file)
        if media_type not in SIGNED_TYPES:
            return None
        descriptor, name = tempfile.mkstemp(prefix=".signing-", dir=path.parent)
        made = Path(name)
        try:
            with path.open("rb") as source, os.fdopen(descriptor, "w+b") as target:
                self._sign(media_type, source, target, list(ingredients), created=created)
            made.chmod(path.stat().st_mode & 0o777)
            made.replace(path)
        except (C2paError, OSError) as error:
            with suppress(OSError):
                made.unlink(missing_ok=True)
            raise MarkingFailed(path.name, f"its manifest could not be signed: {str(error)[:MAX_READ_ERROR]}") from error
        return f"manifest of {self._config.producer}"

    def _sign(self, media_type: str, source: BinaryIO, target: BinaryIO, ingredients: list[Ingredient], *, created: bool) -> None:
        from c2pa import Builder, C2paBuilderIntent, C2paDigitalSourceType, C2paSignerInfo, Context, Signer

        kind = (
            C2paDigitalSourceType.TRAINED_ALGORITHMIC_MEDIA if created else C2paDigitalSourceType.COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA
        )
        info = C2paSignerInfo(
            alg=self._config.algorithm.encode(),
            sign_cert=self._chain,
            private_key=self._key,
            ta_url=self._config.timestamp_url.encode() or None,
        )
        parent = any(ingredient.parent for ingredient in ingredients)
        definition: dict[str, Any] = {"claim_generator_info": [{"name": self._config.producer, "version": "1"}]}
        with ExitStack() as held:
            signer = held.enter_context(Signer.from_info(info))
            builder = held.enter_context(Builder(json.dumps(definition), context=Context.from_dict(NO_THUMBNAIL)))
            builder.set_intent(
                C2paBuilderIntent.EDIT if parent else C2paBuilderIntent.CREATE, C2paDigitalSourceType.EMPTY if parent else kind
            )
            for ingredient in ingredients:
                said = {"title": ingredient.title, "relationship": "parentOf" if ingredient.parent else "componentOf"}
                file = held.enter_context(ingredient.path.open("rb"))
                builder.add_ingredient(said, type_of(file), file)
            if parent:
                edited = {"action": "c2pa.edited", "digitalSourceType": f"http://cv.iptc.org/newscodes/digitalsourcetype/{_IPTC[created]}"}
                builder.add_action(edited)
            builder.sign(signer, media_type, source, target)


_IPTC = {True: "trainedAlgorithmicMedia", False: "compositeWithTrainedAlgorithmicMedia"}


def has_manifest(path: Path) -> bool:
    """Whether a file carries a C2PA manifest, valid or not. One that is damaged, or of too many boxes, is not given to c2pa to read."""
    with path.open("rb") as file:
        try:
            find_labels(file)  # c2pa needs half a minute for a small MP4 that is made of boxes; this has limits
        except Malformed:
            return False
        return read_manifest(file) is not None


def read_manifest(file: BinaryIO, anchors: str = "") -> dict[str, Any] | None:
    """Return what c2pa's reader says of a file; None when it carries no manifest, or is of a format without one.

    Args:
        file: open for reading.
        anchors: PEM certificates that signers are trusted by; without, no signer is.
    """
    from c2pa import C2paError, Context, Reader

    media_type = type_of(file)
    if media_type not in SIGNED_TYPES:
        return None
    trust = {"trust": {"trust_anchors": anchors}} if anchors else {}
    try:
        reader = Reader.try_create(media_type, file, context=Context.from_dict(OFFLINE | trust))
        if reader is None:
            return None
        with reader:
            said: dict[str, Any] = json.loads(reader.json())
            return said
    except C2paError as error:
        return {"validation_state": "Unreadable", "reason": str(error)[:MAX_READ_ERROR]}
