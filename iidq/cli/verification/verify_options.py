"""What `iidq verify` asks about its files, and which service it asks."""

from dataclasses import dataclass
from pathlib import Path

from iidq.cli.api_client import Body, JobClient
from iidq.cli.terminal import byte_bars, printable
from iidq.cli.verification.file_hash import label_of
from iidq.cli.verification.input_files import ManifestList, ManifestTemplate


@dataclass(frozen=True, slots=True)
class Service:
    """Which service is asked, with which key, and how long a verdict may take."""

    server: str
    api_key: str | None
    timeout_seconds: float

    def client(self) -> JobClient:
        """A client of it."""
        return JobClient(self.server, self.api_key, timeout_seconds=self.timeout_seconds)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about each file; ``upload`` sends the file itself instead of its hash."""

    manifests: ManifestTemplate | ManifestList
    registry: str
    chain_id: int | None
    proof: bool
    upload: bool

    @property
    def kind(self) -> str:
        """The type of the job."""
        return "proof" if self.proof else "verify"

    def fields(self, manifest_uri: str) -> dict[str, str]:
        """The form's fields that are not the file."""
        fields = {"manifestURI": manifest_uri, "registryAddress": self.registry}
        return fields if self.chain_id is None else fields | {"chainId": str(self.chain_id)}


async def upload(client: JobClient, path: Path, question: Question, manifest_uri: str) -> Body:
    """Send the file itself; returns the service's reply."""
    name = label_of(path).get("fileName", "file")
    with byte_bars() as bars, bars.open(path, "rb", description=f"sending {printable(name)[:16]}") as file:
        # httpx begins at the start of the file each time.
        return await client.send(
            question.kind, lambda: {"data": question.fields(manifest_uri), "files": {"file": (name, file)}}
        )
