"""Declarations of the commands verify, check-proof and register. Implementations are imported late."""

from pathlib import Path
from typing import Annotated

import typer

from iidq.cli.service_options import DEFAULT_SERVER, ApiKey

app = typer.Typer(rich_markup_mode=None)

Server = Annotated[str, typer.Option(envvar="IIDQ_SERVER", help="the service")]


@app.command(
    epilog="""Examples:

\b
  iidq verify song.wav --manifest ipfs://Qm… --registry 0x…
  iidq verify song.wav --manifest ipfs://Qm… --registry 0x… --proof -o proof.json
  iidq verify *.jpg --manifest 'https://example.org/{stem}.manifest.json' --registry 0x…
  iidq verify --recursive photos --manifest 'https://example.org/m/{hash}' --registry 0x… --json
  iidq verify --manifests list.csv --registry eip155:8453:0x…

Exit code 0: OK. 1: FAIL. 3: WARN. 2: no verdict. Of several files the worst, in the order 1, 2, 3, 0."""
)
def verify(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="the files to verify; quoted patterns are expanded")
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            help="the manifest's URI: ipfs://CID, http:// or https://; for several files with {name}, {stem} (the "
            "name without its ending), {path} (below the folder given) or {hash} in it"
        ),
    ] = None,
    manifests: Annotated[
        Path | None, typer.Option(metavar="LIST.csv", help="instead: lines of file,manifest, relative to the list")
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(envvar="IIDQ_REGISTRY", help="the ContentRegistry's address, or eip155:<chainId>:0x…"),
    ] = None,
    chain: Annotated[int | None, typer.Option(min=1, help="the registry's chain id, if not the service's own")] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="verify all files in folders, except hidden ones")
    ] = False,
    proof: Annotated[bool, typer.Option("--proof", help="make a portable proof as well")] = False,
    upload: Annotated[bool, typer.Option("--upload", help="send the file instead of its hash")] = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
    timeout: Annotated[float, typer.Option(min=1, help="seconds to wait for each verdict")] = 300.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="write the result or proof here; of several files into this folder"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the job as JSON; of several files an array with file, verdict, job")
    ] = False,
) -> None:
    """Verify files against the registrations of their creators.

    Files are hashed on this machine, and only the hashes are sent. A single file gets a verdict with every check and
    the reasons. Several files, patterns, folders and lists get a table. Batches of 1,000 are sent, which need the
    service's key if there is a key.
    """
    from iidq.cli.verification.input_files import ManifestList, ManifestTemplate, UnusableArguments, chain_account
    from iidq.cli.verification.verify_many import verify_files
    from iidq.cli.verification.verify_one import ServerOptions, VerifyOptions

    if (manifest is None) == (manifests is None):
        raise typer.BadParameter("expected one of them", param_hint="--manifest or --manifests")
    if registry is None:
        raise typer.BadParameter("is missing", param_hint="--registry")
    if not files and manifests is None:
        raise typer.BadParameter("is missing", param_hint="FILE")
    try:
        named_chain, address = chain_account(registry)
        source = ManifestTemplate(manifest) if manifest is not None else ManifestList(manifests or Path())
    except UnusableArguments as fault:
        raise typer.BadParameter(str(fault)) from None
    except OSError as error:
        raise typer.BadParameter(f"{manifests}: {error.strerror}", param_hint="--manifests") from None
    options = VerifyOptions(source, address, chain or named_chain, proof, upload)
    service = ServerOptions(server, api_key, timeout)
    raise typer.Exit(verify_files(files or [], options, service, recursive=recursive, output=output, as_json=as_json))


@app.command("check-proof", epilog="Example: iidq check-proof proof.json")
def check_proof(
    file: Annotated[Path, typer.Argument(help="the proof, or the job that contains it, as JSON")],
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check a proof offline.

    Checks all evidence in the proof, and lists the checks that need a network. Exit code 0: nothing contradicts the
    proof. 1: something does, or the verdict is FAIL. 2: the file is no proof.
    """
    from iidq.cli.verification.check_proof import check_proof_file

    raise typer.Exit(check_proof_file(file, as_json=as_json))


@app.command(
    epilog="""Examples:

\b
  iidq register song.wav --rpc-url http://127.0.0.1:33133 --publish http://127.0.0.1:41234
  PRIVATE_KEY=0x… RPC_URL=https://… iidq register song.wav --registry 0x… --dry-run
  PRIVATE_KEY=0x… RPC_URL=https://… iidq register song.wav --registry 0x… --manifest-uri https://example.org/song.json

The first is for the chain of `iidq up`, which prints it with its own addresses. Put PRIVATE_KEY and RPC_URL into .env:
other users of the machine can read command lines. Exit code 0: registered. 1: not possible. 2: not known, or not mined
yet."""
)
def register(
    file: Annotated[Path, typer.Argument(help="the file to register")],
    registry: Annotated[
        str | None,
        typer.Option(
            envvar="IIDQ_REGISTRY",
            help="the ContentRegistry's address, or eip155:<chainId>:0x…; else DEFAULT_REGISTRY, or that of `iidq up`",
        ),
    ] = None,
    rpc_url: Annotated[str | None, typer.Option(help="the chain's JSON-RPC endpoint; else RPC_URL")] = None,
    chain: Annotated[
        int | None, typer.Option(min=1, help="expected chain id; without --rpc-url, selects RPC_URLS_<chain>")
    ] = None,
    manifest_uri: Annotated[
        str | None,
        typer.Option(help="where you will put the manifest; else ipfs:// and its CID"),
    ] = None,
    manifest_file: Annotated[
        Path | None,
        typer.Option(help="write the manifest here, or use the one that is there; else FILE.manifest.json"),
    ] = None,
    content_uri: Annotated[str | None, typer.Option(help="the content's own URI, noted in the manifest")] = None,
    publish: Annotated[
        str | None, typer.Option(metavar="URL", help="send the manifest to the manifest server of `iidq up`")
    ] = None,
    wait: Annotated[float, typer.Option(min=1, help="seconds to wait for the block")] = 180.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the registration and its cost; write and send nothing")
    ] = False,
    server: Server = DEFAULT_SERVER,
    as_json: Annotated[bool, typer.Option("--json", help="print what was done as JSON")] = False,
) -> None:
    """Register a file's hash for the creator.

    Makes the manifest, signs it (EIP-191), sends the transaction (EIP-1559, with the node's fees) and waits for the
    block. Then prints the next steps. PRIVATE_KEY signs on this machine and is never shown; the development chain
    (31337) needs none. To register the same again changes nothing.
    """
    from iidq.cli.verification.register import RegisterOptions
    from iidq.cli.verification.register import register as run

    if publish is not None and manifest_uri is not None:
        raise typer.BadParameter("expected one of them", param_hint="--publish or --manifest-uri")
    options = RegisterOptions(
        path=file,
        registry=registry,
        rpc_url=rpc_url,
        chain_id=chain,
        manifest_uri=manifest_uri,
        manifest_path=manifest_file or file.with_name(f"{file.name}.manifest.json"),
        content_uri=content_uri,
        publish_url=publish,
        wait_seconds=wait,
        dry_run=dry_run,
    )
    raise typer.Exit(run(options, server=server, as_json=as_json))
