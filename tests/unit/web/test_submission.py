"""The fields of a submission: accepted values, and every fault named at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import FieldFault, InvalidInput
from iidq.queue.job import JobType
from iidq.settings import Settings
from iidq.web.request.submission import MAX_CHAIN_ID, Submission, SubmissionRules
from iidq.web.request.uploads import Upload

RULES = SubmissionRules(Settings(rpc_url="http://user:secret@rpc.example/", fetch_allow_private=("10.0.0.0/8",)))
HASH = "0x" + "ab" * 32
ADDRESS = "0x" + "Cd" * 20
CID = "QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"
GOOD: dict[str, object] = {"contentHash": HASH, "manifestURI": f"ipfs://{CID}", "registryAddress": ADDRESS}


def read(fields: dict[str, object], upload: Upload | None = None) -> Submission:
    values, found = RULES.check(fields)
    return RULES.submission(values, upload, found)


def faults(fields: dict[str, object], upload: Upload | None = None) -> dict[str, str]:
    with pytest.raises(InvalidInput) as refusal:
        read(fields, upload)
    named = [fault.field for fault in refusal.value.faults]
    assert len(named) == len(set(named))
    return {fault.field: fault.message for fault in refusal.value.faults}


def test_a_good_submission_becomes_a_job_without_credentials() -> None:
    """The hash is stored in lower case, the address as sent, the RPC endpoint redacted."""
    fields = {
        **GOOD,
        "contentHash": HASH.replace("a", "A"),
        "chainId": "8453",
        "rpcUrl": "http://user:secret@rpc.example/",
    }
    job = RULES.read({**fields, "unknown": {"ignored": True}}).as_job(JobType.PROOF)
    subject = job.subject
    assert (job.type, subject.content_hash, subject.registry_address, subject.chain_id) == (
        JobType.PROOF,
        HASH,
        ADDRESS,
        8453,
    )
    assert subject.rpc_url == "http://***@rpc.example/"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contentHash", "0x" + "ab" * 31),
        ("contentHash", "0X" + "ab" * 32),
        ("contentHash", "0x" + "ab" * 32 + "\n"),
        ("contentHash", "0x" + "١" * 64),
        ("contentHash", 5),
        ("registryAddress", "0x" + "gg" * 20),
        ("registryAddress", ADDRESS + "00"),
        ("registryAddress", " " + ADDRESS),
        ("registryAddress", ""),
        ("registryAddress", ["0x"]),
        ("manifestURI", ""),
        ("manifestURI", "ftp://example.com/m.json"),
        ("manifestURI", "ipfs://not-a-cid"),
        ("manifestURI", "http://127.0.0.1/m.json"),
        ("manifestURI", "http://user:pass@example.com/m.json"),
        ("manifestURI", "http://example.com:8080/m.json\x00"),
        ("manifestURI", "https://example.com/\ud800"),
        ("manifestURI", "file:///etc/passwd"),
        ("manifestURI", None),
        ("rpcUrl", ""),
        ("rpcUrl", "http://169.254.169.254/"),
        ("rpcUrl", 1),
        ("chainId", ""),
        ("chainId", "0"),
        ("chainId", "-1"),
        ("chainId", "1e3"),
        ("chainId", True),
        ("chainId", 1.5),
        ("chainId", MAX_CHAIN_ID + 1),
        ("fileName", "../x"),
        ("fileName", ""),
        ("fileName", "a\x00"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(field: str, value: object) -> None:
    """A wrong field gives a single fault with the field's name, without credentials of the value."""
    found = faults({**GOOD, field: value})
    assert found.keys() == {field}
    assert "user:pass" not in found[field]


def test_all_faults_come_at_once() -> None:
    """A refusal lists all faults of a request."""
    assert faults({}).keys() == {"file", "manifestURI", "registryAddress"}
    wrong = {"contentHash": "x", "manifestURI": "x", "registryAddress": "x", "rpcUrl": "", "chainId": "x"}
    assert faults(dict(wrong)).keys() == wrong.keys()


def test_faults_of_the_reader_are_kept_and_not_doubled() -> None:
    """A broken field is not also reported as missing."""
    with pytest.raises(InvalidInput) as refusal:
        RULES.submission({}, None, [FieldFault("file", "broken"), FieldFault("manifestURI", "broken")])
    assert [fault.field for fault in refusal.value.faults] == ["file", "manifestURI", "registryAddress"]


def test_a_hash_beside_a_file_must_be_the_files() -> None:
    """A hash next to a file must be the file's digest; another hash is a fault."""
    fields = {"manifestURI": GOOD["manifestURI"], "registryAddress": ADDRESS}
    upload = Upload(HASH, 3, "photo.jpg")
    assert read({**fields, "contentHash": HASH.upper().replace("X", "x")}, upload).subject.file_name == "photo.jpg"
    assert faults({**fields, "contentHash": "0x" + "00" * 32}, upload).keys() == {"contentHash"}


@given(
    st.dictionaries(st.sampled_from(sorted(RULES.checks)), st.text(max_size=80) | st.integers() | st.none(), max_size=6)
)
def test_any_fields_give_a_job_or_named_faults(fields: dict[str, object]) -> None:
    """Any fields give a job or faults of known fields, and no other error."""
    assert faults(fields).keys() <= {*RULES.checks, "file"}
