"""Which marks results get, and in whose name. Apart from what it configures, so that settings load no media library."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

CODE = r"^[\x21\x23-\x5b\x5d-\x7e]{1,64}$"  # what GB 45438-2025, Annex E allows: no blanks, quotation marks or backslashes


class MarkingConfig(BaseModel):
    """How results say that they are generated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Literal["off", "metadata", "cn", "eu"] = Field(
        "metadata",
        description="off: results are stored as they were made; metadata: with the AIGC label in their metadata; "
        "cn: with the label, and words on pictures and on the first seconds of videos, a rhythm before sound; "
        "eu: with the label and a signed C2PA manifest",
    )
    words: Literal["AI生成", "AI合成", "人工智能生成", "人工智能合成"] = Field(
        "AI生成", description="the visible label of profile cn: it names artificial intelligence and what it did"
    )
    producer: str = Field(
        "atelier",
        pattern=CODE,
        description="code of this service in the label, ContentProducer; providers in China have one of 27 characters",
    )
    propagator: str = Field(
        "",
        pattern=CODE.replace("{1,", "{0,"),
        description="code of the service that distributes the results, ContentPropagator, where it is this one",
    )
    certificate: Path | None = Field(None, description="PEM file with the certificate that signs manifests, and those above it")
    private_key: Path | None = Field(None, description="PEM file with its private key, PKCS #8; read by the workers")
    algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = Field(
        "es256", description="signature algorithm, as the key is"
    )
    timestamp_url: str = Field(
        "", pattern=r"^(https?://\S+)?$", description="RFC 3161 service that dates signatures, so that they outlive the certificate"
    )
    trust_anchors: Path | None = Field(None, description="PEM file of certificates by which POST /v1/verify trusts signers")
    verify_bytes: int = Field(512 * 2**20, gt=0, description="largest file that POST /v1/verify looks into")

    @model_validator(mode="after")
    def _can_sign_what_it_must(self) -> MarkingConfig:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("marking.certificate and marking.private_key belong together: set both or none")
        if self.profile == "eu" and self.certificate is None:
            raise ValueError("marking.profile eu signs results: set marking.certificate and marking.private_key")
        for path in (self.certificate, self.private_key, self.trust_anchors):
            if path is not None and not path.is_file():
                raise ValueError(f"marking: there is no file {path}")
        if self.can_sign and find_spec("c2pa") is None:
            raise ValueError(
                "marking.certificate needs the c2pa package: install the extra c2pa (uv pip install 'c2pa-python>=0.38.1,<0.39')"
            )
        return self

    @property
    def can_sign(self) -> bool:
        """Whether there is a certificate to sign with."""
        return self.certificate is not None
