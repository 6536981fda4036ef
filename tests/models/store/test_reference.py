"""References: what they refer to, and which are refused before any request is made."""

from __future__ import annotations

import pytest

from models.errors import BadInput, UnknownModel
from models.store.reference import Hosts, Remote, parse


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("hf:Helsinki-NLP/opus-mt-fr-de", ("hf", "Helsinki-NLP/opus-mt-fr-de", None, None)),
        ("hf:a/b.c@refs/pr/1", ("hf", "a/b.c", None, "refs/pr/1")),
        ("https://huggingface.co/Helsinki-NLP/opus-mt-fr-de", ("hf", "Helsinki-NLP/opus-mt-fr-de", None, None)),
        ("https://huggingface.co/a/b/tree/refs/pr/1", ("hf", "a/b", None, "refs/pr/1")),
        ("https://a.example/m/fr-de/", ("https", "https://a.example/m/fr-de", "https://a.example/m/fr-de", None)),
        (
            "https://a.example:84/m.zip",
            ("https", "https://a.example:84/m.zip", "https://a.example:84/m.zip", None),
        ),
        ("s3://bucket/a/b.zip", ("s3", "bucket/a/b.zip", "s3://bucket", None)),
        ("gs://bucket/..a/b", ("gs", "bucket/..a/b", "gs://bucket", None)),
    ],
)
def test_places_elsewhere(reference: str, found: tuple[str, str, str | None, str | None]) -> None:
    assert parse(reference) == Remote(reference, *found)


@pytest.mark.parametrize(
    "reference",
    [
        "hf:",
        "hf:name",
        "hf:a/b/c",
        "hf:a/..",
        "hf:../b",
        "hf:a/b@",
        "hf:a/b@../c",
        "hf:a/b@c//d",
        "hf:a/b@c?d",
        "hf:a/b\n",
        "https://a.example",
        "https://a.example/",
        "https://a.example/../b",
        "https://a.example/b/..",
        "https://a.example/b/./c",
        "https://a.example/b//c",
        "https://a.example/%2e%2e/b",
        "https://a.example/b c",
        "https://a.example/b*",
        "https://a.example:/b",
        "https://[::1]/b",
        "https:///b",
        "HTTPS://a.example/b",
        "s3://Bucket/b",
        "s3://bucket",
        "s3://bucket:1/b",
        "gs://../b",
        "ftp://a.example/b",
        "file:///etc/passwd",
        "local://x/y",
        "simplecache::https://a.example/b",
        "zip://b::https://a.example/c",
    ],
)
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(UnknownModel, match=r"is not a reference to a model\. Write hf:ORG/NAME"):
        parse(reference)


@pytest.mark.parametrize("reference", ["Helsinki-NLP/opus-mt-en-fr", "/srv/tolk/Helsinki-NLP/opus-mt-en-fr"])
def test_a_directory_that_is_not_there_may_be_meant_as_a_model_of_the_hub(reference: str) -> None:
    with pytest.raises(UnknownModel, match=r"hub, write hf:Helsinki-NLP/opus-mt-en-fr\."):
        parse(reference)


@pytest.mark.parametrize(
    "reference",
    [
        "https://me:secret@a.example/b",
        "https://me:sec/ret@a.example/b",
        "s3://me:secret@bucket/b",
        "https://a.example/b?signature=secret",
        "https://a.example/b#secret",
        "hf:a/b@c?token=secret",
    ],
)
def test_what_may_hold_a_secret_is_not_shown(reference: str) -> None:
    with pytest.raises(UnknownModel, match="without user, password, query") as caught:
        parse(reference)
    assert "secret" not in str(caught.value).partition(" is not ")[0]


HOSTS = Hosts(["huggingface.co", "A.example:8443", "s3://bucket", "127.0.0.1:80", "localhost:8000", "b.example:80"])


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/a",
        "https://HuggingFace.co:443/a",
        "https://a.example:8443/a",
        "s3://bucket",
        "http://127.0.0.1/a",
        "http://localhost:8000/a",
    ],
)
def test_hosts_that_are_allowed(url: str) -> None:
    HOSTS.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co.evil.example/a",
        "https://huggingface.co:8443/a",
        "https://a.example/a",
        "https://evil.example/huggingface.co?a=secret",
        "https://huggingface.co@evil.example/secret",
        "gs://bucket",
        "s3://buckets",
        "http://127.0.0.1:81/a",
        "https://localhost/a",
    ],
)
def test_other_hosts_are_refused_and_named(url: str) -> None:
    with pytest.raises(UnknownModel, match=r"not among the hosts .*huggingface\.co.*TOLK_MODEL_HOSTS") as caught:
        HOSTS.check(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://b.example/a", "http://huggingface.co/a", "http://10.0.0.1/a", "ftp://b.example/a"]
)
def test_what_is_not_encrypted_comes_from_this_machine_alone(url: str) -> None:
    with pytest.raises(UnknownModel, match="write https://"):
        HOSTS.check(url)


@pytest.mark.parametrize(
    "host", ["", "https://a.example", "a.example/b", "*.example", "s3://", "s3://a/b", "a:b", "a b"]
)
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(BadInput, match="is not a host"):
        Hosts([host])
